package wal

// A Future is how a reply learns that what it rests on is on stable storage. All commits of one journal group share
// one Future, so telling a thousand waiting replies costs one allocation and one lock, not a thousand.

import (
	"sync"
	"sync/atomic"
)

// Waiter is told once when a Future is done.
type Waiter interface {
	// Durable is called from the committer's goroutine, or from Notify's caller if the Future is done already. The next
	// group waits until it returns, so it must not block.
	Durable()
}

// Future is the outcome of one group of commits: pending, durable, or failed.
// A nil *Future stands for "nothing to wait for": it is done and has no error.
type Future struct {
	done atomic.Bool
	err  error // written before done is set

	mu      sync.Mutex // guards waiters; never held during IO or while a waiter runs
	waiters []Waiter
}

// NewFuture returns a pending Future. Whoever commits the records must Complete it exactly once.
func NewFuture() *Future { return new(Future) }

// Done reports whether the outcome is known.
func (f *Future) Done() bool { return f == nil || f.done.Load() }

// Err is nil if the records are durable, otherwise why they may not be. It must be called only after Done is true.
func (f *Future) Err() error {
	if f == nil {
		return nil
	}
	return f.err
}

// Notify calls w.Durable once when the outcome is known, at once if it already is.
func (f *Future) Notify(w Waiter) {
	if !f.TryNotify(w) {
		w.Durable()
	}
}

// TryNotify is Notify for a caller that holds a lock which w.Durable takes: if the outcome is known already it does nothing and
// returns false. Asking Done first would not do, since the outcome may become known in between.
func (f *Future) TryNotify(w Waiter) bool {
	if f.Done() {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done.Load() {
		return false
	}
	f.waiters = append(f.waiters, w)
	return true
}

// Complete sets the outcome and calls every waiter, in the order of their Notify.
func (f *Future) Complete(err error) {
	f.mu.Lock()
	f.err = err
	f.done.Store(true)
	waiters := f.waiters
	f.waiters = nil
	f.mu.Unlock()
	for _, w := range waiters {
		w.Durable()
	}
}

// Wait blocks until the outcome is known and returns Err. It is for background work and tests: a handler never waits.
func (f *Future) Wait() error {
	if f.Done() {
		return f.Err()
	}
	w := make(chanWaiter)
	f.Notify(w)
	<-w
	return f.Err()
}

type chanWaiter chan struct{}

func (w chanWaiter) Durable() { close(w) }
