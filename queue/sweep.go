package queue

// Taking out messages whose TTL is over while nobody pulls. A pull takes out what it meets; without one, expired messages would
// count against max-messages, keep their disk, and be told as ready for ever.
//
// Ready messages are not in memory, so a sweep reads the log from the first living message on. It remembers the earliest end
// of a TTL that it saw, and nothing is read before that. Where long TTLs lie in front of short ones a sweep may read much for
// little, so the next one waits sweepPause times as long as the last one took.

import (
	"math"
	"slices"
	"time"

	"quail/queue/machine"
	"quail/wal/record"
)

const (
	// sweepEvery is how late an expired message may be taken out. It is never delivered late: pulls look at the time themselves.
	sweepEvery = time.Second
	// sweepPause bounds what sweeping costs: a tenth of one core.
	sweepPause = 10
	// sweepRetry is when a queue is swept again that could not be.
	sweepRetry = 10 * time.Second
)

// expires notes that a message's TTL ends then, unix milliseconds. Called with mu held.
func (q *queue) expires(wallMillis int64) {
	if q.sweepAt == 0 || wallMillis < q.sweepAt {
		q.sweepAt = wallMillis
	}
}

// keepSweeping looks at all queues every sweepEvery until the set is closed.
func (s *Set) keepSweeping() {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.closed:
			return
		case <-ticker.C:
			s.sweep()
		}
	}
}

// sweep sweeps each queue that has something to take out.
func (s *Set) sweep() {
	s.mu.RLock()
	all := make([]*queue, 0, len(s.byLife))
	for _, q := range s.byLife {
		all = append(all, q)
	}
	s.mu.RUnlock()
	for _, q := range all {
		if s.usable() != nil {
			return
		}
		q.sweepIfDue()
	}
}

// sweepIfDue sweeps the queue if a TTL has ended.
func (q *queue) sweepIfDue() {
	if !q.isLoaded() {
		return
	}
	q.mu.Lock()
	expired := q.refusal() == nil && q.sweepAt != 0 && q.sweepAt <= q.now().WallMillis
	q.mu.Unlock()
	if expired {
		q.sweep()
	}
}

// sweep takes out what has expired by now and notes when to look again.
func (q *queue) sweep() {
	began := time.Now()
	q.mu.Lock()
	q.sweepAt = 0
	last := q.m.ExpiryWall() <= q.now().WallMillis && q.m.Counts().Leased == 0
	q.mu.Unlock()
	soonest, err := q.takeExpired()
	now := time.Now()
	pause := max(now.Sub(began)*sweepPause, sweepEvery)
	q.mu.Lock()
	defer q.leave()
	switch {
	case err != nil:
		q.expires(q.set.wallMillis(now.Add(sweepRetry)))
	case soonest != 0:
		q.expires(max(soonest, q.set.wallMillis(now.Add(pause))))
	case !last: // a leased message may come back with its time over
		q.expires(max(q.m.ExpiryWall(), q.set.wallMillis(now.Add(pause))))
	}
}

// sweeper is one sweep of one queue.
type sweeper struct {
	q       *queue
	now     int64  // wall time, unix milliseconds
	soonest int64  // the earliest end of a TTL among the messages that stay
	front   uint64 // the first ready message that stays
	expired []machine.Removal
}

// takeExpired reads all messages that are not leased, takes out those whose TTL is over, and returns when the next one ends;
// 0 if none does.
func (q *queue) takeExpired() (soonest int64, err error) {
	s := sweeper{q: q, soonest: math.MaxInt64, front: math.MaxUint64}
	var waiting []uint64
	q.mu.Lock()
	s.now = q.now().WallMillis
	at, last := q.m.Cursor()+1, q.log.Durable()
	q.m.Tracked(0, last, func(id uint64, state machine.State, _ uint32) {
		if state != machine.Leased {
			waiting = append(waiting, id)
		}
	})
	q.mu.Unlock()
	slices.Sort(waiting)
	if err := s.sweepWaiting(waiting); err != nil {
		return 0, err
	}
	if err := s.sweepReady(at, last); err != nil {
		return 0, err
	}
	if s.soonest == math.MaxInt64 {
		return 0, nil
	}
	return s.soonest, nil
}

// sweepWaiting looks at delayed and retrying messages, with rising ids.
func (s *sweeper) sweepWaiting(ids []uint64) error {
	for len(ids) > 0 {
		raws, err := s.q.readSome(nil, ids[0])
		if err != nil {
			return err
		}
		first, end := ids[0], ids[0]+max(uint64(len(raws)), 1) // none: it went meanwhile
		for len(ids) > 0 && ids[0] < end {
			if raws != nil {
				if _, err := s.judge(raws[ids[0]-first]); err != nil {
					return err
				}
			}
			ids = ids[1:]
		}
		if err := s.takeOut(0); err != nil {
			return err
		}
	}
	return nil
}

// sweepReady walks the log above the cursor.
func (s *sweeper) sweepReady(at, last uint64) error {
	for at <= last {
		raws, err := s.q.readSome(nil, at)
		if err != nil {
			return err
		}
		if raws == nil { // cut off: all up to there was consumed meanwhile
			at = s.q.after(at)
			continue
		}
		raws = raws[:min(uint64(len(raws)), last-at+1)]
		for i, ready := range s.q.areReady(at, raws) {
			if !ready {
				continue
			}
			expired, err := s.judge(raws[i])
			if err != nil {
				return err
			}
			if !expired {
				s.front = min(s.front, at+uint64(i))
			}
		}
		at += uint64(len(raws))
		if err := s.takeOut(min(at, s.front) - 1); err != nil {
			return err
		}
	}
	return nil
}

// areReady tells which of these consecutive records are ready messages by now.
func (q *queue) areReady(first uint64, raws [][]byte) []bool {
	ready := make([]bool, len(raws))
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, raw := range raws {
		id := first + uint64(i)
		if id > q.m.Cursor() && machine.Kind(raw[2]) == machine.KindMessage && !q.m.Removed(id) {
			view := record.View(raw)
			ready[i] = !machine.IsDelayed(view.Flags, view.Meta)
		}
	}
	return ready
}

// judge notes a message's end, and the message if that is past.
func (s *sweeper) judge(raw []byte) (expired bool, err error) {
	m, err := machine.ParseMessage(record.View(raw).Meta)
	if err != nil {
		return false, err
	}
	end := m.PushedMillis + m.TTLMillis
	switch {
	case m.TTLMillis == 0:
		return false, nil
	case end > s.now:
		s.soonest = min(s.soonest, end)
		return false, nil
	}
	s.expired = append(s.expired, removalOf(raw))
	return true, nil
}

// takeOut removes what was judged. Up to seen no other message was ready then, and none can have become so since: what comes back waits.
func (s *sweeper) takeOut(seen uint64) error {
	if len(s.expired) == 0 {
		return nil
	}
	if _, err := s.q.enter(); err != nil {
		s.q.leave()
		return err
	}
	defer s.q.leave()
	_, e, changed, err := s.q.m.DecideExpired(s.expired, seen)
	s.expired = s.expired[:0]
	if err != nil {
		return err
	}
	if changed {
		s.q.commit(e)
	}
	return nil
}
