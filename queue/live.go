package queue

import (
	"quail/queue/machine"
	"quail/wal"
)

// Live serves the rewriting of logs; see wal.Source.
func (s *Set) Live(incarnation uint64) (wal.Live, bool) {
	s.mu.RLock()
	q := s.byLife[incarnation]
	s.mu.RUnlock()
	if q == nil || q.load() != nil {
		return wal.Live{}, false
	}
	kept, live, ok := q.kept()
	live.Messages = make([]wal.LiveMessage, len(kept))
	for i, k := range kept {
		live.Messages[i] = wal.LiveMessage{LSN: k.ID, BodyBytes: k.SizeBytes}
	}
	return live, ok
}

// kept takes what Live needs, but for what can be done without the queue's lock.
func (q *queue) kept() (kept []machine.Kept, live wal.Live, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deleted || q.stale {
		return nil, wal.Live{}, false
	}
	counts := q.m.Counts()
	live = wal.Live{Cursor: q.m.Cursor(), Count: counts.Total(), BodyBytes: counts.TotalBytes(), After: q.last}
	return q.m.Kept(nil), live, true
}

// Live waits until the queues are the Set's, as Snapshot does.
func (r *recovery) Live(incarnation uint64) (wal.Live, bool) {
	<-r.published
	return r.set.Live(incarnation)
}
