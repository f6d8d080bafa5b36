package wal

// A lack of file descriptors is no failure of a log: nothing was written, nothing is in doubt. So that a moment of it stops
// no queue, logs that nobody uses are closed, and what could not open a file is tried again for a while.

import (
	"time"

	"quail/wal/vfs"
)

const (
	// patienceDelay is the first wait for a descriptor; it doubles with each of the patienceTries. Together they are half a
	// second: the background writer and readers wait meanwhile. After that the log counts as failed, until heal.go finds
	// descriptors again.
	patienceDelay = 8 * time.Millisecond
	patienceTries = 6
	// impatienceDelay is for how long nobody waits after somebody waited in vain: a thousand logs that find no descriptor one
	// after the other must not stop the background writer for minutes.
	impatienceDelay = time.Second
)

// patiently runs op, which has no effect when it finds no descriptor, until it finds one. It closes other logs than q's
// for that.
func (s *Store) patiently(q *QueueLog, op func() error) error {
	delay := patienceDelay
	for try := 0; ; {
		err := op()
		if err == nil || !vfs.OutOfDescriptors(err) {
			return err
		}
		if s.closeOneIdle(q) {
			continue // there are finitely many, and nobody is waited for
		}
		if try++; try > patienceTries {
			s.impatientUntil.Store(s.NowMillis() + impatienceDelay.Milliseconds())
			return err
		}
		if s.isClosing() || s.NowMillis() < s.impatientUntil.Load() {
			return err
		}
		<-time.After(delay)
		delay *= 2
	}
}

// closeOneIdle closes a log other than q's that nobody reads or writes and that has nothing to sync: to sync takes a descriptor.
func (s *Store) closeOneIdle(q *QueueLog) bool {
	s.mu.Lock()
	open := append([]*QueueLog(nil), s.open...)
	s.mu.Unlock()
	for _, other := range open {
		if other != q && other.closeSynced() {
			s.closed(other)
			return true
		}
	}
	return false
}

// closeSynced is closeIdle for a log that is synced, and reports whether it gave a descriptor back.
func (q *QueueLog) closeSynced() bool {
	if !q.io.TryLock() {
		return false
	}
	defer q.io.Unlock()
	q.logMu.Lock()
	if q.readers > 0 || q.log == nil || q.appended != q.synced || q.Err() != nil {
		q.logMu.Unlock()
		return false
	}
	log := q.log
	q.log = nil
	q.logMu.Unlock()
	if err := log.Close(); err != nil {
		q.fail("close", err)
	}
	return true
}

func (s *Store) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}
