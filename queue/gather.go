package queue

// Choosing the messages of a batch: first those that came back, lowest id first, then new ones, by walking the log from
// the cursor. The newest records are in memory; for older ones a read is started outside the lock, its records are kept as
// the queue's reach, and the line is served again when they are there. So a backlog on disk costs memory only for what is about to be
// delivered, and the queue's lock is never held while the disk works.

import (
	"cmp"
	"errors"
	"fmt"
	"sync"

	"quail/queue/machine"
	"quail/wal/record"
)

const (
	// reachBytes is how much is read from the log at once, unless many queues do; see aheads. When no more than this is left of what was read,
	// the next is read while that is delivered, so that a consumer of a backlog that is not in the page cache does not wait for the disk each
	// time. A cold read takes one to three milliseconds, in which a quick consumer takes 300 KB.
	reachBytes = 512 << 10
	// returnedRunBytes is how much is read at once to find a message that came back: its neighbours often did too.
	returnedRunBytes = 64 << 10
	// expiredStep is how many expired messages are taken out with one record.
	expiredStep = 1000
)

// reach is what was read ahead from the log.
type reach struct {
	from uint64 // LSN of raws[0]
	raws [][]byte
	size int               // bytes of raws
	byID map[uint64][]byte // messages that came back
}

// at returns the records from lsn on, or nil.
func (r *reach) at(lsn uint64) [][]byte {
	if lsn < r.from || lsn >= r.from+uint64(len(r.raws)) {
		return nil
	}
	return r.raws[lsn-r.from:]
}

// forget drops what the cursor has passed.
func (r *reach) forget(cursor uint64) {
	if next := cursor + 1; next >= r.from+uint64(len(r.raws)) {
		r.raws, r.size = nil, 0
	} else if next > r.from {
		for _, raw := range r.raws[:next-r.from] {
			r.size -= len(raw)
		}
		r.raws = r.raws[next-r.from:]
		r.from = next
	}
	r.byID = nil
}

// add takes over what was read: behind what is there if it follows, so that a batch larger than one read comes together.
// What is kept is bounded by the limits of a batch and two reads.
func (r *reach) add(read reach) {
	for id, raw := range read.byID {
		if r.byID == nil {
			r.byID = read.byID
			break
		}
		r.byID[id] = raw
	}
	switch {
	case len(read.raws) == 0:
	case len(r.raws) > 0 && read.from == r.from+uint64(len(r.raws)):
		r.raws = append(r.raws, read.raws...)
		r.size += read.size
	default:
		r.from, r.raws, r.size = read.from, read.raws, read.size
	}
}

// gathered is a batch that could be leased.
type gathered struct {
	scratch      *gatherScratch // lent: picks and fresh begin in it
	picks        []pick
	returned     []machine.Returned
	fresh        []machine.Fresh
	cursor       uint64
	bytes        int64
	oldestPushed int64
	full         bool
	hasReturned  bool
	expired      []machine.Removal // their TTL is over; they are taken out instead
	err          error             // a record cannot be read; the queue must not stand still silently
	reading      bool              // a read was started; try again when it is done
}

type pick struct {
	raw     []byte
	message machine.Message
	failed  uint32
}

// picksKept is how many picks scratch may have room for to be lent again.
const picksKept = 1024

// gatherPool lends scratch to batches. Without it three quarters of the memory that a batch takes are slices that grow step by step.
var gatherPool = sync.Pool{New: func() any { return new(gatherScratch) }}

type gatherScratch struct {
	picks []pick
	fresh []machine.Fresh
}

// free gives g's scratch back: what it has gathered is used up.
func (g *gathered) free() {
	if cap(g.picks) > picksKept || cap(g.fresh) > picksKept {
		return
	}
	clear(g.picks) // do not keep bodies alive
	g.scratch.picks, g.scratch.fresh = g.picks[:0], g.fresh[:0]
	gatherPool.Put(g.scratch)
}

// limits of one batch.
type limits struct {
	count int
	bytes int64
}

func (q *queue) limits(r *ConsumeRequest) limits {
	l := limits{count: r.Count, bytes: r.Bytes}
	if l.count < 0 {
		l.count = int(q.option(machine.BatchCount))
	}
	if l.bytes < 0 {
		l.bytes = q.option(machine.BatchBytes)
	}
	return l
}

// add puts one message into the batch, unless its TTL is over or the batch is full. A batch has always at least one message.
func (g *gathered) add(now machine.Time, l limits, raw []byte, failed uint32) (added bool) {
	view := record.View(raw)
	m, err := machine.ParseMessage(view.Meta)
	if err != nil {
		g.err, g.full = fmt.Errorf("message %d: %w", view.LSN, err), true
		return false
	}
	if m.IsOver(now) {
		g.expired = append(g.expired, machine.Removal{ID: view.LSN, SizeBytes: uint32(len(view.Body)), Delayed: machine.IsDelayed(view.Flags, view.Meta)})
		g.full = len(g.expired) >= expiredStep
		return false
	}
	if len(g.picks) > 0 && g.bytes+int64(len(view.Body)) > l.bytes {
		g.full = true
		return false
	}
	if len(g.picks) == 0 || m.PushedMillis < g.oldestPushed {
		g.oldestPushed = m.PushedMillis
	}
	g.picks = append(g.picks, pick{raw: raw, message: m, failed: failed})
	g.bytes += int64(len(view.Body))
	if len(g.picks) >= l.count || g.bytes >= l.bytes {
		g.full = true
	}
	return true
}

// gather collects what w could have now; messages that expired on the way are taken out. Called with mu held.
func (q *queue) gather(now machine.Time, w *waiter) gathered {
	for {
		g := q.gatherOnce(now, w)
		if len(g.expired) == 0 {
			return g
		}
		_, e, changed, err := q.m.DecideRemove(g.expired, machine.ByTTL)
		if err != nil || !changed {
			g.err = fmt.Errorf("take out %d expired messages: %w", len(g.expired), cmp.Or(err, errNoneLeft))
			return g
		}
		q.commit(e)
	}
}

var errNoneLeft = errors.New("they are not there")

func (q *queue) gatherOnce(now machine.Time, w *waiter) gathered {
	l := q.limits(w.pull)
	scratch := gatherPool.Get().(*gatherScratch)
	g := gathered{cursor: q.m.Cursor(), scratch: scratch, picks: scratch.picks, fresh: scratch.fresh}
	counts := q.m.Counts()
	if q.option(machine.MaxOpenBatches) == 1 && q.holdsBack(now) {
		return g
	}
	if counts.Retrying > 0 || counts.Delayed > 0 {
		if !q.gatherReturned(now, l, &g) || g.full {
			return g
		}
	}
	if counts.Ready > 0 {
		q.walk(now, l, &g)
	}
	return g
}

// holdsBack: with strict order a retrying message that is not due yet holds the queue.
func (q *queue) holdsBack(now machine.Time) bool {
	due, ok := q.m.NextRetryWall()
	return ok && due > now.WallMillis
}

// gatherReturned adds messages that came back and are due. It reports false if they must be read first.
func (q *queue) gatherReturned(now machine.Time, l limits, g *gathered) bool {
	var missing []uint64
	durable := q.log.Durable()
	for _, r := range q.m.PeekReturned(now, l.count, nil) {
		if r.ID > durable {
			break // a delayed message that came due before its push was durable
		}
		raw := q.byID(r.ID)
		if raw == nil {
			missing = append(missing, r.ID)
			continue
		}
		if len(missing) > 0 {
			continue // collect all that must be read; the order is kept
		}
		if !g.add(now, l, raw, r.Failed) {
			if g.full {
				break
			}
			continue
		}
		g.returned = append(g.returned, r)
		g.hasReturned = true
		if g.full {
			break
		}
	}
	if len(missing) == 0 {
		return true
	}
	g.reading = true
	q.fetchReturned(missing)
	return false
}

func (q *queue) byID(id uint64) []byte {
	if raw := q.reach.byID[id]; raw != nil {
		return raw
	}
	if raws := q.log.Memory(id); raws != nil {
		return raws[0]
	}
	if raws := q.reach.at(id); raws != nil {
		return raws[0]
	}
	return nil
}

// walk adds new messages, from the cursor up to what is durable.
func (q *queue) walk(now machine.Time, l limits, g *gathered) {
	at, durable := max(g.cursor, q.walked)+1, q.log.Durable()
	for at <= durable {
		raws := q.log.Memory(at)
		if raws == nil {
			raws = q.reach.at(at)
		}
		if raws == nil {
			g.reading = true
			q.fetchAhead(at)
			return
		}
		for _, raw := range raws {
			if at > durable {
				return
			}
			if machine.Kind(raw[2]) == machine.KindMessage {
				if !q.take(now, l, g, at, raw) {
					return
				}
			}
			if len(g.fresh) == 0 {
				q.walked = at
			} else {
				g.cursor = at
			}
			at++
			if g.full {
				return
			}
		}
	}
}

// take adds the new message at id if it may be delivered by the walk. It reports false if the batch is full without it.
func (q *queue) take(now machine.Time, l limits, g *gathered, id uint64, raw []byte) bool {
	if q.m.Removed(id) {
		return true
	}
	view := record.View(raw)
	if machine.IsDelayed(view.Flags, view.Meta) {
		return true // it comes through the machine's heap when it is due
	}
	if !g.add(now, l, raw, 0) {
		return !g.full
	}
	g.fresh = append(g.fresh, machine.Fresh{ID: id, SizeBytes: uint32(len(view.Body))})
	g.cursor = id
	return true
}

// fetchAhead reads records from lsn on in the background.
func (q *queue) fetchAhead(lsn uint64) {
	most := q.set.aheads.reachBytes()
	q.fetch(func() (reach, error) {
		raws, err := q.log.Read(lsn, most, nil)
		r := reach{from: lsn, raws: raws}
		for _, raw := range raws {
			r.size += len(raw)
		}
		return r, err
	})
}

// readAhead has what follows in the log read before it is needed. Called with mu held.
func (q *queue) readAhead() {
	if q.fetching || len(q.reach.raws) == 0 || q.reach.size > q.set.aheads.reachBytes() {
		return
	}
	if next := q.reach.from + uint64(len(q.reach.raws)); next <= q.log.Durable() && q.log.Memory(next) == nil {
		q.fetchAhead(next)
	}
}

// fetchReturned reads these messages, in rising order, in the background.
func (q *queue) fetchReturned(ids []uint64) {
	q.fetch(func() (reach, error) {
		found := make(map[uint64][]byte, len(ids))
		total := 0
		for i := 0; i < len(ids) && total < reachBytes; {
			raws, err := q.log.Read(ids[i], returnedRunBytes, nil)
			if err != nil {
				return reach{}, err
			}
			last := ids[i] + uint64(len(raws))
			first := ids[i]
			for i < len(ids) && (ids[i] < last || ids[i] == first) {
				if ids[i] < last {
					raw := raws[ids[i]-first]
					found[ids[i]] = raw
					total += len(raw)
				}
				i++
			}
		}
		return reach{byID: found}, nil
	})
}

// fetch runs one read at a time and serves the line when it is done. Called with mu held.
func (q *queue) fetch(read func() (reach, error)) {
	if q.fetching {
		return
	}
	q.fetching = true
	q.set.inBackground("read", q.log.Incarnation(), func() {
		defer q.set.reads.begin()()
		r, err := read()
		q.mu.Lock()
		q.fetching = false
		if err == nil && !q.deleted {
			q.reach.add(r)
		}
		q.mu.Unlock()
		q.serve() // after an error it answers with the log's failure
		q.mu.Lock()
		q.set.aheads.note(q) // behind serve: what was read for somebody is not forgotten before he has it
		q.mu.Unlock()
	})
}

// lease makes a batch of what was gathered and returns the answer that delivers it.
func (q *queue) lease(now machine.Time, w *waiter, g *gathered) func() {
	id, err := q.store.NextID()
	if err != nil {
		return w.refuse(walError(err), q.last)
	}
	lease := w.pull.LeaseMillis
	if lease < 0 {
		lease = q.option(machine.Lease)
	}
	q.commitSoon(q.m.DecideLease(now, machine.LeaseRequest{Batch: id, LeaseMillis: lease, Returned: g.returned, New: g.fresh, Cursor: g.cursor}))
	b := &Batch{ID: id, DeadlineUnixMillis: now.WallMillis + lease, Messages: make([]Message, 0, len(g.picks))}
	for i := range g.picks {
		p := &g.picks[i]
		view := record.View(p.raw)
		b.Messages = append(b.Messages, Message{ID: view.LSN, Body: view.Body, Attempt: p.failed + 1,
			PushedMillis: p.message.PushedMillis, Headers: headersOf(&p.message)})
	}
	q.reach.forget(q.m.Cursor())
	q.set.aheads.note(q)
	q.readAhead()
	after := q.locked // losing the lease record means a redelivery, which is allowed; losing the lock is not
	return func() { w.gotBatch(b, after, nil) }
}
