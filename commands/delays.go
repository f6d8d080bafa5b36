package commands

// Delays are the wrong passwords that wait for their answer. They are in one place so that a stop of the server need not wait for them.

import (
	"sync"
	"time"
)

// Delays is the set of answers that are due later. The zero value is ready to use.
type Delays struct {
	mu      sync.Mutex // guards what follows; never held while an answer is given
	waiting map[*delay]struct{}
	over    bool
}

// delay is one of them. Who takes it out of the set answers, and nobody else.
type delay struct {
	timer  *time.Timer
	answer func()
}

// Ended says that nothing waits any more.
func (s *Delays) Ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// add lets answer be called after d, or by End.
func (s *Delays) add(d time.Duration, answer func()) *delay {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		d = 0
	}
	if s.waiting == nil {
		s.waiting = map[*delay]struct{}{}
	}
	w := &delay{answer: answer}
	s.waiting[w] = struct{}{}
	w.timer = time.AfterFunc(d, func() {
		if s.drop(w) {
			answer()
		}
	})
	return w
}

// drop takes one out of the set; false if it was not there any more.
func (s *Delays) drop(w *delay) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, is := s.waiting[w]
	delete(s.waiting, w)
	w.timer.Stop()
	return is
}

// End answers all at once, and lets no later one wait.
func (s *Delays) End() {
	s.mu.Lock()
	left := s.waiting
	s.waiting, s.over = nil, true
	s.mu.Unlock()
	for w := range left {
		w.timer.Stop()
		w.answer()
	}
}
