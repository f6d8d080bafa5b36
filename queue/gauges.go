package queue

import "quail/queue/machine"

// Gauge is a queue's numbers as a page of metrics shows them.
type Gauge struct {
	Name   string
	Counts machine.Counts
	// Waiting is the number of consumers that wait in line, for the lock or for messages.
	Waiting int
	// PushPaused and ConsumePaused: somebody said QPAUSE.
	PushPaused, ConsumePaused bool
	// Stopped: the log failed or is damaged.
	Stopped bool
}

// Gauges tells of the oldest queues, at most so many, and how many it left out; what is still being loaded is
// among these. Unlike Info it reads no log, so asking for a thousand every few
// seconds costs a lock each.
func (s *Set) Gauges(most int) (list []Gauge, left int) {
	s.mu.RLock()
	all := inOrder(s.byLife)
	s.mu.RUnlock()
	for _, q := range all {
		if len(list) == most || !q.isLoaded() {
			left++
			continue
		}
		q.mu.Lock()
		if !q.deleted {
			g := Gauge{Name: q.name, Counts: q.m.Counts(), Waiting: len(q.line), Stopped: q.log.Err() != nil}
			g.PushPaused, g.ConsumePaused = q.m.Paused()
			list = append(list, g)
		}
		q.mu.Unlock()
	}
	return list, left
}
