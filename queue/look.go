package queue

// Finding messages for those who look into a queue or move messages, without consuming. Up to the cursor the machine knows every
// live message by its id, so only those are read; above it ready messages leave no trace, so the log is walked. What was
// consumed long ago is never read. The log is read without the queue's lock, and the lock is taken for lookStep records at a time,
// so a look holds up nobody but who asked for it.

import (
	"cmp"
	"errors"
	"slices"
	"sync"

	"quail/queue/machine"
	"quail/wal/record"
	"quail/wal/seglog"
)

const (
	// lookBytesMax bounds the records of one look together; it has always at least one message. A reply must stay far below what a
	// connection may hold, and a group that moves messages far below what the journal does.
	lookBytesMax = 4 << 20
	// lookReadBytes is how much of the log is read at once.
	lookReadBytes = 256 << 10
	// lookStep is how many records are judged under one hold of the queue's lock.
	lookStep = 1000
	// chooseStep is how many of the messages that the machine knows are remembered at once by a look that leaves some out: each step goes
	// through all that wait.
	chooseStep = 16_000
)

// seen is a message that was found in the log, and where it was at that moment.
type seen struct {
	raw     []byte
	message machine.Message
	place
}

// place is where a message is: its state and the number of its latest attempt.
type place struct {
	state   machine.State
	attempt uint32
}

// known is a message whose place the machine knows.
type known struct {
	id uint64
	place
}

// wanted says which messages to find.
type wanted struct {
	state machine.State // Gone: any
	from  uint64
	most  int
	// choose, if not nil, leaves out messages for which it is false.
	choose func(s *seen) bool
}

// finds collects what is found, up to its limits.
type finds struct {
	wanted
	*lent
	list  []seen
	bytes int
}

// lent is the memory of a look. It is used again when what was found is, so a look costs the copying and no new memory, which took three
// quarters of the time.
type lent struct {
	read seglog.Arena // what was read last
	kept seglog.Arena // what of it was wanted
}

var lentPool = sync.Pool{New: func() any { return new(lent) }}

func lend() *lent { return lentPool.Get().(*lent) }

// free takes back what was lent; what was found is gone.
func (l *lent) free() {
	l.read.Reset()
	l.kept.Reset()
	lentPool.Put(l)
}

// add takes one message over, unless the limits are reached without it. next is where another look goes on, 0 if this one does.
func (f *finds) add(raw []byte, p place) (next uint64, err error) {
	view := record.View(raw)
	s := seen{place: p}
	if s.message, err = machine.ParseMessage(view.Meta); err != nil {
		return 0, err
	}
	if s.raw = raw; f.choose != nil && !f.choose(&s) {
		return 0, nil
	}
	if len(f.list) > 0 && f.bytes+len(raw) > lookBytesMax {
		return view.LSN, nil
	}
	// A copy, so that a few messages do not keep all that was read with them.
	s.raw = f.kept.Clone(raw)
	if s.message, err = machine.ParseMessage(record.View(s.raw).Meta); err != nil {
		return 0, err
	}
	f.list = append(f.list, s)
	f.bytes += len(raw)
	if len(f.list) == f.most {
		return view.LSN + 1, nil
	}
	return 0, nil
}

// look finds messages, lowest id first. next is where to go on for more, 0 if there are none. What it finds may not be durable yet: an
// answer waits for newest, asked for afterwards. The list is valid until l is freed.
func (q *queue) look(w wanted, l *lent) (list []seen, next uint64, err error) {
	f := finds{wanted: w, lent: l}
	q.mu.Lock()
	last, cursor := q.m.LastLSN(), q.m.Cursor()
	to := last
	if w.state == machine.Gone {
		to = cursor
	}
	q.mu.Unlock()
	step := lookStep
	if w.choose != nil {
		step = chooseStep
	}
	for from, more := w.from, w.state != machine.Ready; more; {
		var list []known
		if list, more = q.tracked(w.state, from, to, max(w.most, step)); more {
			from = list[len(list)-1].id + 1
		}
		if next, err = q.lookAt(&f, list); err != nil || next > 0 {
			return f.list, next, err
		}
	}
	if w.state == machine.Gone || w.state == machine.Ready {
		next, err = q.lookAhead(&f, max(w.from, cursor+1), last)
	}
	return f.list, next, err
}

// tracked returns the lowest most of the messages from one id to another, both included, whose place the machine knows and which are in this
// state, by rising id, and whether there are more. It goes through all that wait, of which there can be millions, and so must keep few and do
// little with the others: to gather three million in a map took 2 s under the queue's lock for one QPEEK.
func (q *queue) tracked(state machine.State, from, to uint64, most int) (list []known, more bool) {
	lowest := func() {
		slices.SortFunc(list, func(a, b known) int { return cmp.Compare(a.id, b.id) })
		if len(list) > most {
			list, more = list[:most], true
			to = list[most-1].id
		}
	}
	q.mu.Lock()
	q.m.Tracked(from, to, func(id uint64, s machine.State, attempts uint32) {
		if id > to || state != machine.Gone && s != state {
			return
		}
		if list = append(list, known{id, place{s, attempts}}); len(list) == 2*most {
			lowest()
		}
	})
	q.mu.Unlock()
	lowest()
	return list, more
}

// lookAt reads the records of these messages, whose ids rise: neighbours together.
func (q *queue) lookAt(f *finds, list []known) (next uint64, err error) {
	for len(list) > 0 {
		run := 1
		for run < min(len(list), lookStep) && list[run].id == list[0].id+uint64(run) {
			run++
		}
		raws, err := q.readRun(&f.read, list[0].id, run)
		if err != nil {
			return 0, err
		}
		for i, raw := range raws {
			if next, err = f.add(raw, list[i].place); err != nil || next > 0 {
				return next, q.damaged(err)
			}
		}
		list = list[max(1, len(raws)):] // none: it went meanwhile
	}
	return 0, nil
}

// newest is the newest commit: what an answer about the queue rests on.
func (q *queue) newest() *Future {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last
}

// lookAhead walks the log above the cursor, from at up to last.
func (q *queue) lookAhead(f *finds, at, last uint64) (next uint64, err error) {
	for at <= last {
		raws, err := q.readSome(&f.read, at)
		if err != nil {
			return 0, err
		}
		if raws == nil { // cut off: all up to there was consumed meanwhile
			at = q.after(at)
			continue
		}
		raws = raws[:min(uint64(len(raws)), last-at+1)]
		for i, p := range q.places(at, raws, f.state) {
			if p.state == machine.Gone || f.state != machine.Gone && p.state != f.state {
				continue
			}
			if next, err = f.add(raws[i], p); err != nil || next > 0 {
				return next, q.damaged(err)
			}
		}
		at += uint64(len(raws))
	}
	return 0, nil
}

// after is where a walk goes on whose next record was cut off.
func (q *queue) after(at uint64) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return max(at+1, q.m.FirstNeeded())
}

// places tells of consecutive records from first on where their messages are; Gone for one that is no message. If only one state is asked
// for, what is in another may be told wrong.
func (q *queue) places(first uint64, raws [][]byte, state machine.State) []place {
	list := make([]place, len(raws))
	q.mu.Lock()
	defer q.mu.Unlock()
	cursor, known := q.m.Cursor(), false
	for i, raw := range raws {
		id := first + uint64(i)
		if machine.Kind(raw[2]) != machine.KindMessage {
			continue
		}
		if view := record.View(raw); id <= cursor || machine.IsDelayed(view.Flags, view.Meta) {
			known = true
		} else if !q.m.Removed(id) {
			list[i].state = machine.Ready
		}
	}
	if known && state != machine.Ready { // it goes through all that wait, and a walk comes here for each step
		q.m.Tracked(first, first+uint64(len(raws))-1, func(id uint64, s machine.State, attempts uint32) {
			list[id-first] = place{s, attempts}
		})
	}
	return list
}

// readSome returns at most lookStep consecutive records from `from` on; see readRun.
func (q *queue) readSome(arena *seglog.Arena, from uint64) ([][]byte, error) {
	return q.readRun(arena, from, lookStep)
}

// readLog reads from the log on disk.
func (q *queue) readLog(arena *seglog.Arena, from uint64, maxBytes int) ([][]byte, error) {
	if arena != nil {
		arena.Reset()
	}
	return q.log.ReadInto(arena, from, maxBytes, nil)
}

// readOne returns the record with this id, or nil if it is not needed any more. Called without a lock.
func (q *queue) readOne(id uint64) ([]byte, error) {
	raws, err := q.readRun(nil, id, 1)
	if err != nil || raws == nil {
		return nil, err
	}
	return raws[0], nil
}

// readRun returns consecutive records from the one with this id on, at least one and at most so many, or none if the log's front was cut behind it
// or it is not needed any more. They are valid until the arena, which may be nil, is used or reset. Called without a lock.
func (q *queue) readRun(arena *seglog.Arena, id uint64, most int) ([][]byte, error) {
	maxBytes := 1 // just one
	if most > 1 {
		maxBytes = lookReadBytes
	}
	for {
		raws := q.log.Memory(id)
		if raws == nil {
			var err error
			raws, err = q.readLog(arena, id, maxBytes)
			if errors.Is(err, seglog.ErrOutOfRange) {
				return nil, nil
			}
			if err != nil {
				return nil, q.damaged(err)
			}
		}
		if len(raws) > 0 { // else it was written to the log, or came into memory, in between
			return raws[:min(len(raws), most)], nil
		}
	}
}

// damaged words an error of the log for a client; nil stays nil. Of a queue that was deleted meanwhile that is the reason.
func (q *queue) damaged(err error) error {
	var refusal *Error
	if err == nil || errors.As(err, &refusal) {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if why := q.refusal(); q.deleted && why != nil {
		return why
	}
	return refuse("WALERR", "queue %q: %v; nothing was changed", q.name, err)
}
