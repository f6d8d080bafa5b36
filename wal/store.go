// Package wal keeps what must not be lost: one commit journal that all queues share, one log a queue behind it, and
// checkpoints that tie them together.
//
// A record is durable when the journal's group that holds it is synced (journal.go). A background writer then appends it
// to its queue's log (queuelog.go, package seglog), unsynced. A checkpoint (checkpoint.go) syncs the logs, saves the
// queues' states and lets the journal reuse its files. A restart (open.go) loads the checkpoint, cuts each log back to
// it, and replays what the journal has beyond. docs/wal-format.md draws every byte.
package wal

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"quail/wal/record"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

const (
	// idBlock is how many server-wide ids are reserved at once. A crash skips at most two blocks of 2^53 ids.
	idBlock = 1 << 20
	// gatherDelay is how long the background writer lets records gather, so that it appends in large steps.
	gatherDelay = 500 * time.Millisecond
	// rawsKept is how many records a commit may have for its scratch to be kept.
	rawsKept = 1024
	// gatherBytes ends the gathering early.
	gatherBytes = 8 << 20
	// lazyBytes is what a queue has to append for the background writer to take it at once; less may wait for LazyDelay. With a
	// thousand busy queues an append of a few messages each, and an open and a sync for each log that does not fit among the
	// open ones, took a fifth of the processor.
	lazyBytes = 32 << 10
	// lazyBytesMax is how much may wait in that way over all queues. It is in memory.
	lazyBytesMax = 32 << 20
	// openBytesMax bounds what the open logs take together, in bytes: a thousand logs with large segments would take gigabytes.
	openBytesMax = 64 << 20
	// logBytesMin is what an open log takes at least.
	logBytesMin = 64 << 10
	// tailCopies is how often tidwall/wal has a log's last segment in memory.
	tailCopies = 3
	// serverReserve is the kind of the server's own record (incarnation 0) that reserves ids; its LSN is the limit.
	serverReserve record.Kind = 1
)

// Config says where a store lives and how large its parts may grow. All sizes are in bytes.
type Config struct {
	FS  vfs.FS
	Dir string
	// JournalFileBytes is the size of one journal file. JournalBytes bounds the ring: past it WaitRoom waits.
	JournalFileBytes int64
	JournalBytes     int64
	// CheckpointBytes is how much journal is written between two checkpoints.
	CheckpointBytes int64
	// WriteBehindBytes bounds the records that are durable but not in their queue's log yet: past it WaitRoom waits.
	WriteBehindBytes int64
	// LazyDelay is how long a queue that has little to append may wait for more, in memory. 5 s serve well.
	LazyDelay    time.Duration
	SegmentBytes int
	// ReserveBytes is how much space is kept for acknowledgements on a full disk (space.go); 0: none, and a full disk stops
	// whatever meets it.
	ReserveBytes int64
	// OpenLogs bounds how many queue logs are open at once; each that was appended to costs a descriptor and up to three segments of memory.
	OpenLogs int
	// OpenLog opens one queue's log: seglog.Open, or seglog.OpenSim in tests.
	OpenLog func(cfg seglog.Config, first, last uint64) (seglog.Log, seglog.Report, error)
	// NoSync leaves every sync of the journal out; only for a test that must lose data.
	NoSync bool
	// Stepped starts no goroutine: nothing is committed, written behind or saved but by the Step methods. Only for a simulation, which
	// decides when each of them runs; see step.go.
	Stepped bool
	Events  Events
}

// Events are told what happens in the background. Each may be nil, is called from any goroutine and must not block.
type Events struct {
	TornTail      func(TornTail)
	JournalFailed func(error)
	LogFailed     func(LogName, error)
	LogReopened   func(LogReopened)
	LogRewritten  func(LogRewritten)
	// RewriteFailed: what was to be rewritten is as it was, and the log in order.
	RewriteFailed  func(LogName, error)
	CheckpointDone func(CheckpointReport)
	// CheckpointFailed: the journal keeps everything, and the next checkpoint tries again.
	CheckpointFailed func(error)
	// DiskFull: pushes are refused and all else goes on. DiskFreed: they are taken again.
	DiskFull  func(*FullError)
	DiskFreed func()
}

// LogName says to an operator which queue's log is meant.
type LogName struct {
	Queue       string // its name, as a client gave it
	Incarnation uint64 // the directory's name, in hexadecimal there
}

// CheckpointReport says what one checkpoint did.
type CheckpointReport struct {
	Queues   int
	Bytes    int64
	Duration time.Duration
}

// Source gives the states that checkpoints save.
type Source interface {
	// Snapshot returns a queue's state: lsn, the last record it covers; first, the lowest LSN whose record is still
	// needed; and the Future of the newest record it rests on. It takes the lock under which the queue commits. ok is
	// false if the queue was deleted; After is then the Future of that.
	Snapshot(incarnation uint64) (s Snapshot, ok bool)
	// Live says what a queue needs of its log. It takes the same lock. ok is false if the queue was deleted.
	Live(incarnation uint64) (l Live, ok bool)
}

// Snapshot is a queue's state at one LSN.
type Snapshot struct {
	LSN   uint64
	First uint64
	State []byte
	After *Future
}

// Store is an open data directory. It is safe for concurrent use.
type Store struct {
	cfg     Config
	id      storeID
	lock    vfs.File
	journal *journal
	points  checkpoints
	begun   *begunNote
	space   *space
	start   time.Time
	clock0  int64

	pendingBytes atomic.Int64 // committed records that are in no queue's log yet
	leftBytes    atomic.Int64 // the same, left in the journal by the start; see left.go
	leftFiles    []string     // paths of the journal files that hold it; only Open changes it
	stoppedLogs  atomic.Int64 // logs whose err is not nil, but for deleted ones; each change is made under that log's mu
	// impatientUntil is until when nobody waits for a descriptor, in milliseconds of NowMillis; see patiently.
	impatientUntil atomic.Int64

	mu           sync.Mutex // guards the fields below; never held during IO
	room         *sync.Cond // signalled when bytes were written behind, or a checkpoint freed files
	logs         map[uint64]*QueueLog
	writing      []*QueueLog          // have records for the background writer
	changed      map[uint64]*QueueLog // have records that no checkpoint covers
	gone         []*QueueLog          // deleted, directory still there
	open         []*QueueLog          // open logs, oldest use first
	failed       []*QueueLog          // to be taken up again; see heal.go
	closing      bool
	broken       error
	pointErr     error                // why the last checkpoint failed; nil if it did not
	pointCount   uint64               // checkpoints since Open
	pointTime    time.Time            // when the last of them ended
	rewriting    sync.Mutex           // held for each step of a rewrite; taken before mu
	wasteful     map[uint64]*QueueLog // to be looked at by rewriteLoop
	rewrites     uint64               // since Open
	rewriteFreed int64                // bytes that they gave back
	rewriteErr   error                // why the last one failed; nil if it did not

	ids idBlocks

	source    Source
	writeKick chan struct{}
	gathering atomic.Bool // the background writer waits for more, so a group need not wake it
	// gatherUntil is how many pending bytes end the gathering: what the last round left, and gatherBytes.
	gatherUntil atomic.Int64
	pointKick   chan struct{}
	healKick    chan struct{}
	rewriteKick chan struct{}
	fullKick    chan struct{}
	pointMark   atomic.Int64 // journal.written at the last checkpoint
	stop        chan struct{}
	background  sync.WaitGroup
	checkpoint  sync.Mutex // one checkpoint at a time; held during IO
	abandonOnce sync.Once
	recovering  bool       // Open is at work, alone
	toldFull    bool       // that the disk is full; only attendSpace uses it
	backup      sync.Mutex // one backup at a time; held during IO, taken before checkpoint
	// uncut is not nil while a backup copies logs, whose fronts must stay meanwhile: those that a checkpoint would have cut. Guarded by mu.
	uncut map[*QueueLog]bool
}

// NowMillis is the server clock: milliseconds of up-time, summed up over all runs. It never jumps and counts no time that
// the server was down.
func (s *Store) NowMillis() int64 { return s.ClockMillis(time.Now()) }

// ClockMillis is NowMillis at a moment that the caller has taken, from the monotonic clock.
func (s *Store) ClockMillis(at time.Time) int64 { return s.clock0 + at.Sub(s.start).Milliseconds() }

// NewLog makes the log of a new incarnation. Its directory is made when the first record is written behind.
func (s *Store) NewLog(incarnation uint64, queue string) *QueueLog {
	q := s.newLog(checkpointState{incarnation: incarnation, first: 1})
	q.queue = queue
	s.mu.Lock()
	s.logs[incarnation] = q
	s.mu.Unlock()
	return q
}

func (s *Store) newLog(c checkpointState) *QueueLog {
	q := &QueueLog{store: s, incarnation: c.incarnation, tailLSN: c.logLast + 1, last: c.logLast, durable: c.logLast,
		appended: c.logLast, synced: c.logLast, front: c.first}
	q.saved.Store(c.logLast)
	return q
}

// Commit makes recs durable in one atomic group: after a crash all are there or none. They belong to q, with LSNs that
// follow its last, and the caller holds the lock that Source.Snapshot takes. It returns at once; the Future tells the outcome. After a failed commit every later one fails until the store
// is reopened, and the caller's state must be rebuilt from what is durable.
func (s *Store) Commit(q *QueueLog, recs []record.Record) *Future { return s.commit(q, recs, atOnce) }

// rawsPool lends scratch to commits: kept by each queue, it would cost a thousand queues more than their messages do.
var rawsPool = sync.Pool{New: func() any { return new([][]byte) }}

// CommitSoon is Commit for records that nobody waits for, such as a lease: they share the next group's sync, or get one
// within a few milliseconds.
func (s *Store) CommitSoon(q *QueueLog, recs []record.Record) *Future { return s.commit(q, recs, soon) }

// CommitShared is Commit for records that nothing else rests on than the reply to who asked for them, such as an acknowledgement. If at the end of a
// Hold all who wait for them are Patient, they are left to the next group like those of CommitSoon.
func (s *Store) CommitShared(q *QueueLog, recs []record.Record) *Future {
	return s.commit(q, recs, shared)
}

func (s *Store) commit(q *QueueLog, recs []record.Record, how haste) *Future {
	q.change()
	scratch := rawsPool.Get().(*[][]byte)
	raws, f := s.journal.add(recs, (*scratch)[:0], how)
	if len(raws) > 0 {
		q.committed(raws, f)
	}
	clear(raws)
	if cap(raws) > 0 && cap(raws) <= rawsKept {
		*scratch = raws[:0]
	}
	rawsPool.Put(scratch)
	return f
}

// WaitRoom waits while more is pending than the limits allow. Pushes call it before they take any lock; nothing else
// waits, so that acknowledgements can always make room. It returns why the store cannot take more, if it has failed or
// cannot make room: a *FullError if the disk is full.
func (s *Store) WaitRoom() error {
	if s.space.mustLook() {
		s.checkSpace()
	}
	if err := s.Full(); err != nil {
		return err
	}
	if s.hasRoom() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal.ignoreHolds()
	s.kick(s.writeKick) // once: every durable group does it too, and a kick per wake-up would spin while a sync is under way
	for !s.hasRoom() && !s.closing && s.broken == nil {
		if s.journal.full(s.cfg.JournalBytes) {
			s.kick(s.pointKick)
		}
		s.room.Wait()
		if err := s.Full(); err != nil {
			return err
		}
		if s.pointErr != nil && !s.hasRoom() {
			return fmt.Errorf("the journal is full and no checkpoint can free it: %w", s.pointErr)
		}
	}
	return s.broken
}

// HasRoom reports whether WaitRoom would return at once.
func (s *Store) HasRoom() bool { return s.space.full.Load() != nil || s.hasRoom() }

// Hold lets commits gather until Release: a round of many connections shares one sync then. Holds may overlap; each is
// released once, soon.
func (s *Store) Hold() { s.journal.hold() }

// Release ends a Hold. What has gathered is committed on the caller's goroutine, which waits for the disk, and its Futures are
// done when Release returns, unless another goroutine is committing just then, or all who wait for it are Patient.
func (s *Store) Release() { s.journal.release() }

// MarkEnd says that no commit will come for a while: the journal then shows that its last group is whole.
func (s *Store) MarkEnd() { s.journal.wake() }

func (s *Store) hasRoom() bool {
	return s.pendingBytes.Load() < s.cfg.WriteBehindBytes && !s.journal.full(s.cfg.JournalBytes)
}

func (s *Store) kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *Store) enlist(q *QueueLog) {
	s.mu.Lock()
	s.writing = append(s.writing, q)
	s.mu.Unlock()
}

func (s *Store) segmentConfig(incarnation uint64) seglog.Config {
	return seglog.Config{FS: s.cfg.FS, Dir: s.logDir(incarnation), Incarnation: incarnation,
		SegmentBytes: s.cfg.SegmentBytes, DamagedDir: filepath.Join(s.cfg.Dir, "damaged")}
}

func (s *Store) logDir(incarnation uint64) string {
	return filepath.Join(s.queuesDir(), fmt.Sprintf("%016x", incarnation))
}

func (s *Store) logFailed(q *QueueLog, err error) {
	if s.cfg.Events.LogFailed != nil && !s.recovering { // while recovering, the queue may turn out to be deleted
		s.cfg.Events.LogFailed(q.name(), err)
	}
}

func (s *Store) journalFailed(err error) {
	s.mu.Lock()
	s.broken = err
	s.room.Broadcast()
	s.mu.Unlock()
	if s.cfg.Events.JournalFailed != nil {
		s.cfg.Events.JournalFailed(err)
	}
}

// groupCommitted runs after every durable group, on the committer's goroutine.
func (s *Store) groupCommitted() {
	// The writer is woken once for many groups, not for each: it gathers for gatherDelay, or until there is much.
	if !s.gathering.Swap(true) || s.pendingBytes.Load() >= s.gatherUntil.Load() {
		s.kick(s.writeKick)
	}
	since := s.journal.written.Load() - s.pointMark.Load()
	if since >= s.cfg.CheckpointBytes {
		s.kick(s.pointKick)
	}
	if since >= s.cfg.JournalFileBytes && s.space.full.Load() != nil {
		s.kick(s.fullKick) // before another file is needed
	}
}

// deleted remembers a directory to remove.
func (s *Store) deleted(q *QueueLog) {
	s.mu.Lock()
	delete(s.logs, q.incarnation)
	s.gone = append(s.gone, q)
	s.changed[q.incarnation] = q
	s.room.Broadcast()
	s.mu.Unlock()
	s.kick(s.pointKick)
}

// opened adds to the list of open logs. The background writer closes those that are too many.
func (s *Store) opened(q *QueueLog) {
	s.mu.Lock()
	s.open = append(s.open, q)
	excess := len(s.open) > s.cfg.OpenLogs
	s.mu.Unlock()
	if excess {
		s.kick(s.writeKick)
	}
}

// closed takes q out of the list of open logs.
func (s *Store) closed(q *QueueLog) {
	s.mu.Lock()
	s.open = slices.DeleteFunc(s.open, func(other *QueueLog) bool { return other == q })
	s.mu.Unlock()
}

// closeExcess closes logs that were not used since it looked last, the longest open first, while there are too many or they
// take too much memory. It is called by the background writer, since closing a log syncs it.
func (s *Store) closeExcess() {
	s.mu.Lock()
	tries := 2 * len(s.open) // once around to forget that they were used, once to close
	memory := int64(0)
	for _, q := range s.open {
		memory += q.memory.Load()
	}
	s.mu.Unlock()
	for ; tries > 0; tries-- {
		s.mu.Lock()
		if len(s.open) <= s.cfg.OpenLogs && (memory <= openBytesMax || len(s.open) == 1) || len(s.open) == 0 {
			s.mu.Unlock()
			return
		}
		q := s.open[0]
		s.open = s.open[1:]
		s.mu.Unlock()
		if q.used.Swap(false) || !q.closeIdle() {
			s.mu.Lock()
			s.open = append(s.open, q) // in use: try it again after the others
			s.mu.Unlock()
		} else {
			memory -= q.memory.Load()
		}
	}
}

// writeBehind is the background writer: it moves durable records from memory into their queue's log.
func (s *Store) writeBehind() {
	defer s.background.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for lazy := false; ; {
		if !lazy { // else those that wait need no kick
			select {
			case <-s.stop:
				return
			case <-s.writeKick:
			}
		}
		s.gathering.Store(true)
		timer.Reset(gatherDelay)
		for waiting := true; waiting && s.pendingBytes.Load() < s.gatherUntil.Load(); {
			select {
			case <-s.stop:
				return
			case <-timer.C:
				waiting = false
			case <-s.writeKick:
			}
		}
		s.gathering.Store(false) // what becomes durable from now on may be too late for this round
		lazy = s.writeOnce()
		select {
		case <-s.stop:
			return
		default:
		}
	}
}

// writeOnce appends what is durable of the queues that have enough to write, or have waited long enough, or of all if much
// waits. It reports whether it left any to a later round.
func (s *Store) writeOnce() (lazy bool) {
	s.checkSpace()
	s.mu.Lock()
	list := s.writing
	s.writing = nil
	s.mu.Unlock()
	all := s.pendingBytes.Load() >= min(lazyBytesMax, s.cfg.WriteBehindBytes/2)
	now := time.Now()
	var wait []*QueueLog
	for _, q := range list {
		if !all && q.canWait(now) {
			wait = append(wait, q)
			continue
		}
		err := q.flush(^uint64(0))
		q.mu.Lock()
		q.dirty = len(q.tail) > 0 && err == nil
		more := q.dirty
		q.mu.Unlock()
		if more {
			s.enlist(q) // for the kick that the rest's group gives when it is durable
		}
		s.mu.Lock()
		s.room.Broadcast()
		s.mu.Unlock()
	}
	s.mu.Lock()
	s.writing = append(s.writing, wait...)
	s.mu.Unlock()
	s.awaitBytes()
	s.closeExcess()
	return len(wait) > 0
}

// awaitBytes sets what ends the next gathering.
func (s *Store) awaitBytes() {
	s.gatherUntil.Store(min(s.pendingBytes.Load()+gatherBytes, s.cfg.WriteBehindBytes))
}

// Abandon stops the store without saving anything more, as a crash would. It is used when the journal has failed and the
// store is about to be reopened.
func (s *Store) Abandon() {
	s.abandonOnce.Do(func() {
		s.mu.Lock()
		s.closing = true
		s.room.Broadcast()
		s.mu.Unlock()
		close(s.stop)
		s.background.Wait()
		s.waitForOpening()
		s.backup.Lock() // one that is under way gives up soon
		s.release()
		s.backup.Unlock()
	})
}

// waitForOpening waits for readers that are opening a log just now, and repair it as they do: the next store must not meet them in its
// files. Later ones are refused, since the store is closing.
func (s *Store) waitForOpening() {
	s.mu.Lock()
	list := slices.Collect(maps.Values(s.logs))
	s.mu.Unlock()
	for _, q := range list {
		q.io.Lock()
		q.io.Unlock()
	}
}

// release ends the journal and closes all files. No background goroutine runs any more, or yet.
func (s *Store) release() {
	if s.journal != nil {
		s.journal.close()
	} else if s.begun != nil {
		s.begun.close()
	}
	s.mu.Lock()
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for _, q := range open {
		q.closeIdle()
	}
	s.lock.Close()
}

// Close takes a checkpoint and closes everything. Nobody may commit any more. An error means that the next start has to
// replay more, not that anything durable is lost.
func (s *Store) Close() error {
	err := s.Checkpoint()
	s.Abandon()
	return err
}

// failure is why the journal stopped, or nil.
func (s *Store) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// DurableGroup is the number of the last durable journal group; a store reopened after a failure goes on from it.
func (s *Store) DurableGroup() uint64 { return s.journal.durable.Load() }
