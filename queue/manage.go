package queue

// Looking into a queue and changing it without consuming: options, pauses, single messages, purges. Reads of the log are made
// without the queue's lock; what was read is checked against the state again before anything is changed.

import (
	"slices"

	"quail/queue/machine"
	"quail/wal/record"
)

const (
	// scanRecordsMax bounds how many records one look into a queue reads.
	scanRecordsMax = 1_000_000
	// scanBytes is how much is read at once.
	scanBytes = 256 << 10
)

// seen is a message that was found in the log.
type seen struct {
	raw     []byte
	message machine.Message
	state   machine.State
	attempt uint32
}

// stateOf tells where the message of this record is. Called with mu held.
func (q *queue) stateOf(raw []byte) machine.State {
	state, _ := q.stateAndAttempt(raw)
	return state
}

func (q *queue) stateAndAttempt(raw []byte) (machine.State, uint32) {
	view := record.View(raw)
	if machine.IsDelayed(view.Flags, view.Meta) {
		return q.m.StateOfDelayed(view.LSN)
	}
	return q.m.StateOf(view.LSN)
}

// scan finds up to most durable messages from id `from` on that choose wants, and returns the last record it looked at.
func (q *queue) scan(from uint64, most int, choose func(machine.State, *machine.Message) bool) (list []seen, last uint64, err error) {
	q.mu.Lock()
	from = max(from, q.m.FirstNeeded())
	durable := q.log.Durable()
	q.mu.Unlock()
	for records := 0; from <= durable && len(list) < most && records < scanRecordsMax; {
		raws := q.log.Memory(from)
		if raws == nil {
			if raws, err = q.log.Read(from, scanBytes, nil); err != nil {
				return nil, 0, refuse("WALERR", "queue %q: %v", q.name, err)
			}
			if len(raws) == 0 {
				continue // it was written to the log, or to memory, in between
			}
		}
		q.mu.Lock()
		for _, raw := range raws {
			if from > durable || len(list) == most {
				break
			}
			from++
			records++
			if machine.Kind(raw[2]) != machine.KindMessage {
				continue
			}
			s := seen{raw: raw}
			if s.state, s.attempt = q.stateAndAttempt(raw); s.state == machine.Gone {
				continue
			}
			if s.message, err = machine.ParseMessage(record.View(raw).Meta); err != nil {
				q.mu.Unlock()
				return nil, 0, refuse("WALERR", "queue %q, message %d: %v", q.name, from-1, err)
			}
			if choose(s.state, &s.message) {
				list = append(list, s)
			}
		}
		q.mu.Unlock()
	}
	return list, from - 1, nil
}

// Found is a message as QPEEK and QGET show it. Attempt 0: it was never delivered.
type Found struct {
	Message
	State machine.State
}

func (s *seen) found() Found {
	view := record.View(s.raw)
	return Found{State: s.state, Message: Message{ID: view.LSN, Body: view.Body, Attempt: s.attempt,
		PushedMillis: s.message.PushedMillis, Headers: headersOf(&s.message)}}
}

// Peek shows up to most messages from id `from` on, in the order of their ids; of one state, or of any if state is Gone. It
// changes nothing. Errors: NOQUEUE, WALERR.
func (s *Set) Peek(name []byte, state machine.State, from uint64, most int) ([]Found, *Future, error) {
	q, after, err := s.need(name)
	if err != nil {
		return nil, after, err
	}
	if _, err := q.enter(); err != nil {
		q.leave()
		return nil, nil, err
	}
	after = q.last
	q.leave()
	list, _, err := q.scan(from, most, func(have machine.State, _ *machine.Message) bool {
		return state == machine.Gone || have == state
	})
	found := make([]Found, 0, len(list))
	for i := range list {
		found = append(found, list[i].found())
	}
	return found, after, err
}

// Get shows one message, or nil if it is not there. Errors: NOQUEUE, WALERR.
func (s *Set) Get(name []byte, id uint64) (*Found, *Future, error) {
	list, after, err := s.Peek(name, machine.Gone, id, 1)
	if err != nil || len(list) == 0 || list[0].ID != id {
		return nil, after, err
	}
	return &list[0], after, nil
}

// Remove takes single messages out and returns how many; leased ones stay. Errors: NOQUEUE, WALERR, ERR.
func (s *Set) Remove(name []byte, ids []uint64) (n int, after *Future, err error) {
	q, after, err := s.need(name)
	if err != nil {
		return 0, after, err
	}
	list, err := q.lookUp(ids)
	if err != nil {
		return 0, nil, err
	}
	if _, err := q.enter(); err != nil {
		q.leave()
		return 0, nil, err
	}
	defer q.leave()
	n, e, changed, err := q.m.DecideRemove(list, machine.ByOwner)
	if err != nil {
		return 0, q.last, refuse("ERR", "%v; nothing was changed", err)
	}
	if changed {
		q.commit(e)
	}
	return n, q.last, nil
}

// lookUp reads the records of those ids that are messages, in rising order, each once.
func (q *queue) lookUp(ids []uint64) ([]machine.Removal, error) {
	var list []machine.Removal
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		found, _, err := q.scanOne(id)
		if err != nil {
			return nil, err
		}
		if found != nil {
			view := record.View(found.raw)
			list = append(list, machine.Removal{ID: id, SizeBytes: uint32(len(view.Body)), Delayed: machine.IsDelayed(view.Flags, view.Meta)})
		}
	}
	return list, nil
}

// scanOne finds the message with this id; nil if there is none.
func (q *queue) scanOne(id uint64) (*seen, uint64, error) {
	q.mu.Lock()
	known := id >= q.m.FirstNeeded() && id <= q.log.Durable()
	q.mu.Unlock()
	if !known {
		return nil, 0, nil
	}
	list, last, err := q.scan(id, 1, func(machine.State, *machine.Message) bool { return true })
	if err != nil || len(list) == 0 || record.View(list[0].raw).LSN != id {
		return nil, last, err
	}
	return &list[0], last, nil
}

// Purge takes out everything that is not leased, or what has an id below before if that is not 0; it returns how many.
// Errors: NOQUEUE, WALERR.
func (s *Set) Purge(name []byte, before uint64) (n int64, after *Future, err error) {
	q, after, err := s.need(name)
	if err != nil {
		return 0, after, err
	}
	if before == 0 {
		before = ^uint64(0)
	}
	for range moveTriesMax {
		cursor, ready, bytes, err := q.countReady(before)
		if err != nil {
			return 0, nil, err
		}
		if _, err := q.enter(); err != nil {
			q.leave()
			return 0, nil, err
		}
		if before <= q.m.LastLSN() && q.m.Cursor() != cursor {
			q.leave()
			continue // a pull came between; count again
		}
		n, e, changed := q.m.DecidePurge(before, ready, bytes)
		if changed {
			q.commit(e)
		}
		after := q.last
		q.leave()
		return n, after, nil
	}
	return 0, nil, refuse("ERR", "queue %q is being consumed too quickly to be purged below an id; retry", q.name)
}

// countReady counts what the walk would find below before, by reading the log from the cursor on.
func (q *queue) countReady(before uint64) (cursor uint64, n, bytes int64, err error) {
	q.mu.Lock()
	cursor = q.m.Cursor()
	last := q.m.LastLSN()
	q.mu.Unlock()
	if before > last {
		return cursor, 0, 0, nil
	}
	for at := cursor + 1; at < before; {
		raws := q.log.Memory(at)
		if raws == nil {
			if raws, err = q.log.Read(at, scanBytes, nil); err != nil {
				return 0, 0, 0, refuse("WALERR", "queue %q: %v", q.name, err)
			}
		}
		q.mu.Lock()
		for _, raw := range raws {
			if at >= before {
				break
			}
			if view := record.View(raw); machine.Kind(view.Kind) == machine.KindMessage && !machine.IsDelayed(view.Flags, view.Meta) && !q.m.Removed(at) {
				n++
				bytes += int64(len(view.Body))
			}
			at++
		}
		q.mu.Unlock()
	}
	return cursor, n, bytes, nil
}

// Configure gives a queue the options that change sets, all or none; its others stay. Errors: NOQUEUE, ERR, WALERR.
func (s *Set) Configure(name []byte, change machine.Options) (*Future, error) {
	q, after, err := s.need(name)
	if err != nil {
		return after, err
	}
	if _, err := q.enter(); err != nil {
		q.leave()
		return nil, err
	}
	defer q.leave()
	o := *q.m.Options()
	o.Override(&change)
	if err := supported(q.name, &o); err != nil {
		return q.last, err
	}
	if !o.Equal(q.m.Options()) {
		q.commit(machine.ConfigMeta(o))
	}
	return q.last, nil
}

// Options returns the options in force for a queue, as names and values. Errors: NOQUEUE, WALERR.
func (s *Set) Options(name []byte) ([][2]string, *Future, error) {
	q, after, err := s.need(name)
	if err != nil {
		return nil, after, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	var list [][2]string
	for o := range machine.Specs {
		value := q.m.Options().Value(machine.Option(o), s.cfg.Defaults())
		if machine.Option(o) == machine.DeadLetterQueue {
			value = q.deadName()
		}
		list = append(list, [2]string{machine.Specs[o].Name, value})
	}
	return list, q.last, nil
}

// Pause stops or resumes sides of a queue. It survives a restart. Errors: NOQUEUE, WALERR.
func (s *Set) Pause(name []byte, pause bool, push, consume bool) (*Future, error) {
	q, after, err := s.need(name)
	if err != nil {
		return after, err
	}
	if _, err := q.enter(); err != nil {
		q.leave()
		return nil, err
	}
	defer q.leave()
	p, c := q.m.Paused()
	if push {
		p = pause
	}
	if consume {
		c = pause
	}
	if e, changed := q.m.DecidePause(p, c); changed {
		q.commit(e)
	}
	return q.last, nil
}
