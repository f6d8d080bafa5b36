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

// Patient is a Waiter that may say that it can wait a few milliseconds more, for others to share the sync.
type Patient interface {
	Waiter
	// Patient must not block.
	Patient() bool
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
	if !f.NotifyLater(w) {
		w.Durable()
	}
}

// NotifyLater is Notify for a caller that holds a lock which w.Durable takes: it never calls it from here. It reports
// false, and w is told nothing, if the outcome is known already.
func (f *Future) NotifyLater(w Waiter) bool {
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

// patience reports whether all who wait so far can wait longer, and how many they are.
func (f *Future) patience() (patient bool, waiters int) {
	f.mu.Lock()
	list := f.waiters[:len(f.waiters):len(f.waiters)] // appended to only, or given away whole
	f.mu.Unlock()
	for _, w := range list {
		if p, ok := w.(Patient); !ok || !p.Patient() {
			return false, len(list)
		}
	}
	return true, len(list)
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
