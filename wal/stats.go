package wal

import (
	"sync/atomic"
	"time"
)

// Stats is what an operator wants to know of a store. Counts are since it was opened, sizes in bytes.
type Stats struct {
	// Group is the number of the last durable journal group; it rises for ever, also across restarts.
	Group uint64
	// JournalBytes is what the journal's files with groups take of the disk, JournalBytesMax their bound.
	JournalBytes    int64
	JournalBytesMax int64
	// SinceCheckpointBytes is the journal that was written since the last checkpoint began: what a restart would replay.
	// What a restart before it has left to replay is not in it.
	SinceCheckpointBytes int64
	// WriteBehindBytes is durable, and in memory until it is in its queue's log.
	WriteBehindBytes int64
	// Checkpoints is how many there were, LastCheckpoint when the last one ended; the zero time if there was none.
	Checkpoints    uint64
	LastCheckpoint time.Time
	// CheckpointErr is why the last try of a checkpoint failed, JournalErr why the journal does not write any more; nil if
	// it did not.
	CheckpointErr error
	JournalErr    error
	// Rewrites is how often segments of logs were replaced by smaller ones, RewriteFreedBytes what that gave back, RewriteErr why
	// the last try failed; nil if it did not.
	Rewrites          uint64
	RewriteFreedBytes int64
	RewriteErr        error
	// LogBytes is the size of all queues' logs on disk, of those that were opened or looked at since the store was.
	LogBytes int64
	// StoppedQueues is how many queues are stopped since their logs failed or are damaged. Damage is noticed when a log is read.
	StoppedQueues int64
	// Syncs is how often a sync of the journal took at most the SyncBounds at its place; it has one more, for what took longer. SyncTime is how
	// long all took together.
	Syncs    [len(SyncBounds) + 1]uint64
	SyncTime time.Duration
	// FullErr is why messages are refused while all else goes on: the disk is full; nil if it is not.
	FullErr error
}

// SyncBounds are what the times of syncs are sorted by: from a disk with a cache that survives a power cut to one that is overloaded.
var SyncBounds = [...]time.Duration{100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 10 * time.Second}

// syncTimes counts the syncs of a journal by how long they took.
type syncTimes struct {
	counts [len(SyncBounds) + 1]atomic.Uint64
	nanos  atomic.Int64
}

func (t *syncTimes) add(took time.Duration) {
	i := 0
	for i < len(SyncBounds) && took > SyncBounds[i] {
		i++
	}
	t.counts[i].Add(1)
	t.nanos.Add(int64(took))
}

// Stats tells how the store is. It is cheap and waits for no disk.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := Stats{
		Group:                s.journal.durable.Load(),
		JournalBytes:         s.journal.used.Load(),
		JournalBytesMax:      s.cfg.JournalBytes,
		SinceCheckpointBytes: s.journal.written.Load() - s.pointMark.Load(),
		WriteBehindBytes:     s.pendingBytes.Load(),
		Checkpoints:          s.pointCount,
		LastCheckpoint:       s.pointTime,
		CheckpointErr:        s.pointErr,
		JournalErr:           s.broken,
		Rewrites:             s.rewrites,
		RewriteFreedBytes:    s.rewriteFreed,
		RewriteErr:           s.rewriteErr,
		FullErr:              s.Full(),
		StoppedQueues:        s.stoppedLogs.Load(),
	}
	for i := range stats.Syncs {
		stats.Syncs[i] = s.journal.syncs.counts[i].Load()
	}
	stats.SyncTime = time.Duration(s.journal.syncs.nanos.Load())
	for _, q := range s.logs {
		stats.LogBytes += q.bytes.Load()
	}
	return stats
}
