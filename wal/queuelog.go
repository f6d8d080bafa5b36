package wal

// A QueueLog is one queue's records: the newest in memory, where they wait to be written behind the commit, the rest in the
// queue's own log on disk. Consumers that keep up are served from memory; the others read the log.

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"quail/wal/record"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

// QueueLog is the log of one incarnation of a queue. It is safe for concurrent use, but commits of one queue must come one
// at a time, in LSN order: the queue's own lock sees to that.
type QueueLog struct {
	store       *Store
	incarnation uint64
	queue       string // its name, for an operator alone; it does not change once the store is open

	mu      sync.Mutex // guards the fields below; never held during IO
	tail    [][]byte   // records from tailLSN on that are not in the log yet
	tailLSN uint64     // LSN of tail[0]; everything before it is in the log, or left in the journal
	last    uint64     // last committed LSN
	durable uint64     // records up to here are durable; see settle
	commits []commitMark
	// left are the places of the records between what the log has and tailLSN; see left.go. Only a start fills it.
	left  []leftRun
	dirty bool // in the store's list for the background writer
	// unwritten is how many bytes were committed since the last append, and dirtySince when the first of them was; see canWait.
	unwritten  int
	dirtySince time.Time
	changed    bool // has records that the last checkpoint does not cover
	deleted    bool
	err        error // this log failed: it is not written or read until heal takes it up again
	// failedAt is when it did.
	failedAt time.Time

	io       sync.Mutex // serialises opening, appending, syncing, cutting and closing of log; held during IO
	logMu    sync.Mutex // guards log and readers; never held during IO
	log      seglog.Log // nil while closed
	readers  int
	used     atomic.Bool  // since closeExcess looked last
	memory   atomic.Int64 // bytes that the open log takes, roughly
	appended uint64       // last LSN appended to log; guarded by io
	synced   uint64       // last LSN known to be on stable storage in log; guarded by io
	front    uint64       // first LSN that the log has; guarded by io
	named    bool         // its directory was synced in this run; guarded by io

	bytes           atomic.Int64    // size of the log on disk as it was seen last; 0 if it was not
	saved           atomic.Uint64   // last LSN that the log must hold by the last durable checkpoint
	damagedSegments map[uint64]bool // by first LSN: not to be rewritten; the rewriting goroutine's alone
	// asideFirst is the first record that the last durable checkpoint needs from what was set aside, 0 if none. Only opening and
	// checkpoints use it.
	asideFirst uint64
}

// commitMark says which Future the records up to lsn wait for.
type commitMark struct {
	lsn    uint64
	future *Future
}

// Incarnation is the number that names this log.
func (q *QueueLog) Incarnation() uint64 { return q.incarnation }

// Name tells a log that a Replayer was given whose it is. Only a Replayer may call it.
func (q *QueueLog) Name(queue string) { q.queue = queue }

func (q *QueueLog) name() LogName { return LogName{q.queue, q.incarnation} }

// committed takes over freshly committed records. Called in LSN order, under the queue's lock.
func (q *QueueLog) committed(raws [][]byte, f *Future) {
	bytes := 0
	for _, raw := range raws {
		bytes += len(raw)
	}
	q.mu.Lock()
	q.last += uint64(len(raws))
	if q.deleted {
		q.tailLSN = q.last + 1
		q.mu.Unlock()
		return
	}
	if q.err == nil { // a failed log's bytes are counted no more: nothing would ever take them off
		q.store.pendingBytes.Add(int64(bytes))
		q.store.space.takes(int64(bytes))
	}
	q.tail = append(q.tail, raws...)
	if n := len(q.commits); n > 0 && q.commits[n-1].future == f {
		q.commits[n-1].lsn = q.last
	} else {
		q.commits = append(q.commits, commitMark{q.last, f})
	}
	enlist := !q.dirty
	q.dirty = true
	q.unwritten += bytes
	if enlist {
		q.dirtySince = time.Now()
	}
	q.mu.Unlock()
	if enlist {
		q.store.enlist(q)
	}
}

// canWait reports whether the background writer had better let more gather before it appends to this log.
func (q *QueueLog) canWait(now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err == nil && !q.deleted && q.unwritten < lazyBytes && now.Sub(q.dirtySince) < q.store.cfg.LazyDelay
}

// change announces records that no checkpoint covers yet. It comes before they are committed: a checkpoint that starts
// between the two then takes this queue's state, and waits for the queue's lock to do so. The other way round it could
// let the journal drop a record that it does not cover.
func (q *QueueLog) change() {
	q.mu.Lock()
	enlist := !q.changed
	q.changed = true
	q.mu.Unlock()
	if enlist {
		q.store.mu.Lock()
		q.store.changed[q.incarnation] = q
		q.store.mu.Unlock()
	}
}

func (q *QueueLog) tailBytes() (n int64) {
	for _, raw := range q.tail {
		n += int64(len(raw))
	}
	return n
}

// Durable is the highest LSN up to which every record is on stable storage.
func (q *QueueLog) Durable() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.settle()
}

// settle moves durable on. Called with mu held.
func (q *QueueLog) settle() uint64 {
	n := 0
	for n < len(q.commits) && q.commits[n].future.Done() && q.commits[n].future.Err() == nil {
		q.durable = q.commits[n].lsn
		n++
	}
	if n > 0 {
		q.commits = append(q.commits[:0], q.commits[n:]...)
	}
	return q.durable
}

// Last is the LSN of the newest committed record, durable or not.
func (q *QueueLog) Last() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last
}

// Err is why this queue's log stopped, or nil.
func (q *QueueLog) Err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// Memory returns the records from `from` on that are in memory, as encoded, or nil if `from` is in the log already.
// The slice must not be changed; it stays valid.
func (q *QueueLog) Memory(from uint64) [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	if from < q.tailLSN || from >= q.tailLSN+uint64(len(q.tail)) {
		return nil
	}
	rest := q.tail[from-q.tailLSN:]
	return rest[:len(rest):len(rest)]
}

// Read appends to dst consecutive records from `from` on that are in the log on disk, at most maxBytes of them but at least
// one, and returns it. It waits for the disk. When `from` is only in memory it returns dst as it is.
// Errors: seglog.ErrOutOfRange if the log's front was cut behind `from`; *seglog.CorruptError and those of the file system: then
// the queue's log has failed.
func (q *QueueLog) Read(from uint64, maxBytes int, dst [][]byte) ([][]byte, error) {
	return q.ReadInto(nil, from, maxBytes, dst)
}

// ReadInto is Read into memory that the arena lends. What is still in the journal gets new memory.
func (q *QueueLog) ReadInto(arena *seglog.Arena, from uint64, maxBytes int, dst [][]byte) ([][]byte, error) {
	q.mu.Lock()
	inLog, err, runs := from < q.tailLSN, q.err, q.leftFrom(from)
	q.mu.Unlock()
	if err != nil || !inLog {
		return dst, err
	}
	if runs != nil {
		out, err := q.readLeft(runs, from, maxBytes, dst)
		if err == nil || q.isLeft(from) {
			return out, q.failReading(err)
		}
		// It was moved to the log meanwhile, and the journal's file may be in use again.
	}
	log, err := q.acquire()
	if err != nil {
		return dst, q.fail("open", err)
	}
	defer q.release() // after fail: heal must not take up the log before all that speak of its failure are done
	var out [][]byte
	err = q.store.patiently(q, func() (err error) {
		out, err = log.ReadInto(arena, from, maxBytes, dst)
		return err
	})
	if errors.Is(err, seglog.ErrOutOfRange) {
		return dst, err // records that are not needed any more; no fault of the log
	}
	if err != nil {
		return dst, q.fail("read", err)
	}
	return out, nil
}

// failReading stops the queue for an error of a read from the journal.
func (q *QueueLog) failReading(err error) error {
	if err == nil {
		return nil
	}
	return q.fail("read what is not yet in the", err)
}

// Stats tells the size of the log on disk, as far as it is known without opening it.
func (q *QueueLog) Stats() seglog.Stats {
	q.logMu.Lock()
	defer q.logMu.Unlock()
	if q.log == nil {
		return seglog.Stats{}
	}
	return q.log.Stats()
}

// acquire opens the log if need be and keeps it open until release.
func (q *QueueLog) acquire() (seglog.Log, error) {
	q.used.Store(true)
	if q.store.isClosing() {
		return nil, errAbandoned
	}
	q.logMu.Lock()
	if q.log != nil {
		q.readers++
		log := q.log
		q.logMu.Unlock()
		return log, nil
	}
	q.logMu.Unlock()
	q.io.Lock()
	defer q.io.Unlock()
	log, err := q.open()
	if err != nil {
		return nil, err
	}
	q.logMu.Lock()
	q.readers++
	q.logMu.Unlock()
	return log, nil
}

func (q *QueueLog) release() {
	q.logMu.Lock()
	q.readers--
	q.logMu.Unlock()
}

// open is called with io held.
func (q *QueueLog) open() (seglog.Log, error) {
	if q.log != nil {
		return q.log, nil
	}
	if q.isDeleted() {
		return nil, errDeleted
	}
	if err := q.Err(); err != nil {
		return nil, err
	}
	// Opening repairs, and what this store knows of the log is no longer true: the next store may be writing it.
	if q.store.isClosing() {
		return nil, errAbandoned
	}
	cfg := q.store.segmentConfig(q.incarnation)
	var log seglog.Log
	err := q.store.patiently(q, func() error {
		opened, report, err := q.store.cfg.OpenLog(cfg, q.front, q.appended)
		if err != nil {
			return err
		}
		log = opened
		q.store.reportTorn(q.name(), report)
		return nil
	})
	if err != nil {
		return nil, err
	}
	q.logMu.Lock()
	q.log = log
	q.logMu.Unlock()
	q.front = log.First()
	q.measure(log)
	q.store.opened(q)
	return log, nil
}

// measure notes how much memory and disk the log takes. Called with io held.
func (q *QueueLog) measure(log seglog.Log) {
	stats := log.Stats()
	q.memory.Store(max(tailCopies*stats.TailBytes, logBytesMin))
	q.bytes.Store(stats.Bytes)
}

var (
	errDeleted   = errors.New("the queue was deleted")
	errAbandoned = errors.New("the store is closed")
)

func (q *QueueLog) isDeleted() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.deleted
}

// fail stops this queue, until heal takes its log up again; the others go on.
func (q *QueueLog) fail(operation string, err error) error {
	if errors.Is(err, errDeleted) || errors.Is(err, errAbandoned) {
		return err
	}
	if q.store.isClosing() {
		return fmt.Errorf("%w: %w", errAbandoned, err) // whoever is late may have met what the next store writes: that tells nothing
	}
	err = fmt.Errorf("%s log of incarnation %d: %w", operation, q.incarnation, err)
	q.mu.Lock()
	first := q.err == nil && !q.deleted
	var pending int64
	if first {
		q.err, q.failedAt = err, time.Now()
		q.store.stoppedLogs.Add(1)
		pending = q.tailBytes() // they stay in memory, but do not hold up the other queues
	}
	q.mu.Unlock()
	if first {
		q.store.space.spent(err)
		q.store.pendingBytes.Add(-pending)
		q.store.logFailed(q, err)
		q.store.stopped(q)
	}
	return err
}

// flush appends the durable records up to lsn to the log. It is called by the background writer and by checkpoints.
func (q *QueueLog) flush(upTo uint64) error {
	q.io.Lock()
	defer q.io.Unlock()
	return q.flushLocked(upTo)
}

func (q *QueueLog) flushLocked(upTo uint64) error {
	q.mu.Lock()
	upTo = min(upTo, q.settle())
	var batch [][]byte
	if upTo >= q.tailLSN && len(q.tail) > 0 {
		batch = q.tail[:upTo-q.tailLSN+1]
	}
	if q.err != nil || q.deleted || len(batch) == 0 && len(q.left) == 0 {
		err := q.err
		q.mu.Unlock()
		return err
	}
	q.unwritten, q.dirtySince = 0, time.Now()
	q.mu.Unlock()

	log, err := q.open()
	if err != nil {
		return q.fail("open", err)
	}
	if err := q.store.patiently(q, log.Prepare); err != nil {
		return q.fail("open", err)
	}
	q.used.Store(true)
	if err := q.writeLeft(&appender{q: q, log: log}); err != nil {
		return q.fail("append from the journal to", err)
	}
	bytes := 0
	for len(batch) > 0 {
		n, size := step(batch, q.store.cfg.SegmentBytes)
		if err := log.Append(batch[:n]); err != nil {
			return q.fail("append to", err)
		}
		q.appended += uint64(n)
		bytes += size
		batch = batch[n:]
	}
	q.measure(log)
	q.mu.Lock()
	if q.deleted || q.err != nil { // then its bytes were taken off the count
		q.mu.Unlock()
		return nil
	}
	q.forgetLeft()
	q.dropAppended()
	q.mu.Unlock()
	q.store.pendingBytes.Add(int64(-bytes))
	return nil
}

// dropAppended takes out of memory what is in the log. Called with io and mu held.
func (q *QueueLog) dropAppended() {
	n := int(q.appended - q.tailLSN + 1)
	rest := q.tail[n:]
	if len(rest) == 0 {
		q.tail = nil // gives the memory of the slice back too
	} else {
		q.tail = append(make([][]byte, 0, 2*len(rest)), rest...)
	}
	q.tailLSN += uint64(n)
}

// step is how many records to append at once: a segment's worth, so that the library's buffers stay small.
func step(batch [][]byte, segmentBytes int) (n, bytes int) {
	for n < len(batch) && (n == 0 || bytes < segmentBytes) {
		bytes += len(batch[n])
		n++
	}
	return n, bytes
}

// sync makes the log durable up to lsn, which a checkpoint is about to promise. It returns the last LSN that is. After a lack of
// descriptors the log is as good as before.
func (q *QueueLog) sync(upTo uint64) (uint64, error) {
	q.io.Lock()
	defer q.io.Unlock()
	if err := q.flushLocked(upTo); err != nil {
		return q.synced, err
	}
	if q.appended == q.synced {
		return q.synced, nil
	}
	log, err := q.open()
	if err != nil {
		return q.synced, q.fail("open", err)
	}
	err = q.syncLog(log)
	return q.synced, err
}

// syncLog makes all that was appended durable; any error but a lack of descriptors stops the queue. Called with io held.
func (q *QueueLog) syncLog(log seglog.Log) error {
	err := q.syncFiles(log)
	if err != nil && !vfs.OutOfDescriptors(err) {
		return q.fail("sync", err)
	}
	return err
}

func (q *QueueLog) syncFiles(log seglog.Log) error {
	err := q.store.patiently(q, log.Sync)
	if err == nil && !q.named {
		// A process that was killed may have left a segment's name in the page cache only, and the log takes what it finds
		// for durable.
		err = q.store.patiently(q, func() error { return q.store.cfg.FS.SyncDir(q.store.logDir(q.incarnation)) })
		q.named = err == nil
	}
	if err != nil {
		return err
	}
	q.synced = q.appended
	return nil
}

// cutFront gives the disk space of whole segments before first back. A checkpoint that says so is durable.
func (q *QueueLog) cutFront(first uint64) error {
	q.io.Lock()
	defer q.io.Unlock()
	if first <= q.front || first > q.appended+1 {
		return nil
	}
	log, err := q.open()
	if err != nil {
		return q.fail("open", err)
	}
	q.front = first // for whoever opens the log after an error: any of the segments before may be gone
	if err := log.CutFront(first); err != nil {
		return q.fail("cut front of", err)
	}
	q.front = log.First()
	q.bytes.Store(log.Stats().Bytes)
	return nil
}

// closeIdle closes the log's files unless somebody reads it, and reports whether it did.
func (q *QueueLog) closeIdle() bool {
	if !q.io.TryLock() {
		return false
	}
	defer q.io.Unlock()
	q.logMu.Lock()
	log, busy := q.log, q.readers > 0
	q.logMu.Unlock()
	if log == nil || busy {
		return log == nil
	}
	if q.appended != q.synced && !q.isDeleted() && q.Err() == nil && !q.store.isClosing() {
		// Opened again, the log would take all it finds for durable. The next store trusts its checkpoint alone.
		if err := q.syncLog(log); vfs.OutOfDescriptors(err) {
			return false
		}
	}
	q.logMu.Lock()
	if q.readers > 0 {
		q.logMu.Unlock()
		return false
	}
	q.log = nil
	q.logMu.Unlock()
	if err := log.Close(); err != nil {
		q.fail("close", err)
	}
	return true
}

// removeFiles removes a deleted log's directory. After it nothing makes that again: open refuses, and whoever was past that
// check held io.
func (q *QueueLog) removeFiles() error {
	q.closeIdle()
	q.io.Lock()
	defer q.io.Unlock()
	return q.store.cfg.FS.RemoveAll(q.store.logDir(q.incarnation))
}

// Delete marks the log as gone: its directory is removed in the background, durably before the journal forgets the
// deletion. The queue's record of its deletion must be durable before.
func (q *QueueLog) Delete() {
	q.mu.Lock()
	if q.deleted {
		q.mu.Unlock()
		return
	}
	q.deleted = true
	var bytes int64
	if q.err == nil {
		bytes = q.tailBytes()
	} else {
		q.store.stoppedLogs.Add(-1)
	}
	q.forgetLeft()
	q.tail, q.commits = nil, nil
	q.tailLSN = q.last + 1
	q.mu.Unlock()
	q.store.pendingBytes.Add(-bytes)
	q.store.deleted(q)
}

// restore puts a replayed record into the tail, as if it had just been committed and synced.
func (q *QueueLog) restore(raw []byte) error {
	r := record.View(raw)
	if r.LSN <= q.last {
		return nil // the checkpoint covers it
	}
	if r.LSN != q.last+1 {
		return &orderError{incarnation: q.incarnation, lsn: r.LSN, last: q.last}
	}
	q.change()
	q.committed([][]byte{raw}, nil)
	return nil
}

// orderError: a record does not follow the one before it.
type orderError struct{ incarnation, lsn, last uint64 }

func (e *orderError) Error() string {
	return fmt.Sprintf("record %d of incarnation %d follows record %d", e.lsn, e.incarnation, e.last)
}

// reportTorn tells of bytes that were cut off a queue's log when it was opened. The journal has what belongs there.
func (s *Store) reportTorn(name LogName, r seglog.Report) {
	if s.cfg.Events.TornTail == nil {
		return
	}
	for _, part := range r.Torn {
		s.cfg.Events.TornTail(TornTail{Queue: name.Queue, Incarnation: name.Incarnation, File: part.File, Offset: part.Offset, Bytes: part.Bytes,
			SavedAs: part.SavedAs, Reason: "what is behind the checkpoint is not whole records"})
	}
}
