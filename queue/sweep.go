package queue

// What time does to queues that nobody touches. Every command brings its queue up to now; without one, a batch whose consumer
// died would stay open, a message that used up its attempts would not come to the dead-letter queue, where somebody waits for it,
// and expired messages would count against max-messages, keep their disk, and be told as ready for ever.
//
// Ready messages are not in memory, so a sweep reads the log from the first living message on. It remembers the earliest end
// of a TTL that it saw, and nothing is read before that. Where long TTLs lie in front of short ones a sweep may read much for
// little, so the next one waits sweepPause times as long as the last one took.

import (
	"math"
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

// sweep brings each queue up to now that has a lease, a lock or a TTL that is over.
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
		q.mu.Lock()
		if q.refusal() != nil {
			q.mu.Unlock()
			continue
		}
		now := q.now()
		expired := q.sweepAt != 0 && q.sweepAt <= now.WallMillis
		deadline, ok := q.m.NextDeadline()
		q.mu.Unlock()
		if ok && deadline <= now.ClockMillis {
			q.serve()
		}
		if expired {
			q.sweep()
		}
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
		q.expires(now.Add(sweepRetry).UnixMilli())
	case soonest != 0:
		q.expires(max(soonest, now.Add(pause).UnixMilli()))
	case !last: // a leased message may come back with its time over
		q.expires(max(q.m.ExpiryWall(), now.Add(pause).UnixMilli()))
	}
}

// takeExpired reads all records that matter, takes out the messages whose TTL is over, and returns when the next one ends;
// 0 if none does.
func (q *queue) takeExpired() (soonest int64, err error) {
	soonest = math.MaxInt64
	q.mu.Lock()
	now, at, durable := q.now(), q.m.FirstNeeded(), q.log.Durable()
	q.mu.Unlock()
	front := uint64(math.MaxUint64) // the first ready message that stays
	for at <= durable {
		list, end, err := q.scan(at, expiredStep, func(state machine.State, m *machine.Message) bool {
			expires := m.PushedMillis + m.TTLMillis
			return m.TTLMillis > 0 && expires <= now.WallMillis && state != machine.Leased
		}, func(id uint64, state machine.State, m *machine.Message) {
			if m.TTLMillis > 0 {
				soonest = min(soonest, m.PushedMillis+m.TTLMillis)
			}
			if state == machine.Ready {
				front = min(front, id)
			}
		})
		if err != nil {
			return 0, err
		}
		if err := q.takeOut(list, min(end, front-1)); err != nil {
			return 0, err
		}
		if end < at {
			break
		}
		at = end + 1
	}
	if soonest == math.MaxInt64 {
		return 0, nil
	}
	return soonest, nil
}

// takeOut removes messages that a scan found. seen is the last record before which no other message was ready then; what
// was pushed since has a higher id, and what came back since waits and is not ready.
func (q *queue) takeOut(list []seen, front uint64) error {
	if len(list) == 0 {
		return nil
	}
	removals := make([]machine.Removal, 0, len(list))
	for i := range list {
		view := record.View(list[i].raw)
		removals = append(removals, machine.Removal{ID: view.LSN, SizeBytes: uint32(len(view.Body)), Delayed: machine.IsDelayed(view.Flags, view.Meta)})
	}
	if _, err := q.enter(); err != nil {
		q.leave()
		return err
	}
	defer q.leave()
	_, e, changed, err := q.m.DecideExpired(removals, front)
	if err != nil {
		return err
	}
	if changed {
		q.commit(e)
	}
	return nil
}
