package wal

// Taking a queue's log up again after it failed. A full disk, a bad moment of the device or a lack of descriptors passes; the
// queue shall not wait for a restart then. What the log was told to keep since its last good sync is in doubt for good, so
// nothing of that is trusted or synced again: the log is cut back to what it durably holds and the rest is written anew, from
// what was set aside, the journal and memory, as a restart does it. Until that is synced the queue stays stopped.
//
// Damage is another matter: what a log durably held and holds no longer comes back from nowhere. Such a queue stays stopped, its
// files as they were.

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"quail/wal/record"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

const (
	// healDelay is the time between a log's failure and the first attempt to take it up again. It doubles with each failed
	// attempt up to healDelayMax: an attempt may read the whole journal, and a full disk rarely empties within a second.
	healDelay    = time.Second
	healDelayMax = 8 * time.Second
)

// LogReopened tells that a queue whose log had failed goes on.
type LogReopened struct {
	LogName
	// Records were written again, since the log did not durably hold them.
	Records uint64
	// Stopped is how long the queue was.
	Stopped time.Duration
}

// Damaged reports whether err is damage that no retry mends: what is missing is in a backup, or where quail repair looks for it.
func Damaged(err error) bool {
	var inLog *seglog.CorruptError
	var here *CorruptError
	return errors.As(err, &inLog) || errors.As(err, &here)
}

// stopped remembers a log that is to be taken up again.
func (s *Store) stopped(q *QueueLog) {
	s.mu.Lock()
	s.failed = append(s.failed, q)
	s.mu.Unlock()
	s.kick(s.healKick)
}

// healLoop tries to take failed logs up again, in the background.
func (s *Store) healLoop() {
	defer s.background.Done()
	timer := time.NewTimer(healDelay)
	timer.Stop()
	delay := healDelay
	var due time.Time // zero while nothing is planned
	for {
		select {
		case <-s.stop:
			return
		case <-s.healKick:
			delay = s.firstHealDelay()
			if !due.IsZero() && time.Until(due) <= delay {
				continue // many failures in a row must not put the attempt off
			}
		case <-timer.C:
			delay = max(min(2*delay, healDelayMax), healDelay)
			if due = (time.Time{}); s.heal() == 0 {
				continue
			}
		}
		due = time.Now().Add(delay)
		timer.Reset(delay)
	}
}

// firstHealDelay is short if there is a log that found no space: the reserve has just given it some.
func (s *Store) firstHealDelay() time.Duration {
	s.mu.Lock()
	list := slices.Clone(s.failed)
	s.mu.Unlock()
	for _, q := range list {
		if s.cfg.ReserveBytes > 0 && vfs.OutOfSpace(q.Err()) {
			return spaceHealDelay
		}
	}
	return healDelay
}

// heal tries every failed log once and returns how many there still are. It excludes checkpoints: one that is under way
// promises what a log holds, and could let the journal go of what is read here.
func (s *Store) heal() (left int) {
	s.checkpoint.Lock()
	defer s.checkpoint.Unlock()
	if s.failure() != nil {
		return 0 // the store is about to be opened again, and every log with it
	}
	s.mu.Lock()
	list := s.failed
	s.failed = nil
	s.mu.Unlock()
	inJournal, err := s.lostFromMemory(list)
	list = slices.DeleteFunc(list, func(q *QueueLog) bool {
		return !s.isClosing() && !q.heal(inJournal[q.incarnation], err)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, list...)
	return len(s.failed)
}

// lostFromMemory reads the journal once for all logs, and collects what each was given and does not durably hold. That is
// at most what the journal holds.
func (s *Store) lostFromMemory(list []*QueueLog) (map[uint64][][]byte, error) {
	type gap struct{ from, to uint64 }
	gaps := map[uint64]gap{}
	for _, q := range list {
		q.io.Lock() // whoever was at work when it failed is done; nobody begins, since it has failed
		synced := q.synced
		q.io.Unlock()
		if to := q.firstInMemory(); synced+1 < to {
			gaps[q.incarnation] = gap{synced + 1, to}
		}
	}
	if len(gaps) == 0 {
		return nil, nil
	}
	found := map[uint64][][]byte{}
	err := s.eachJournalRecord(func(raw []byte) error {
		r := record.View(raw)
		if g, ok := gaps[r.Incarnation]; ok && g.from <= r.LSN && r.LSN < g.to {
			found[r.Incarnation] = append(found[r.Incarnation], slices.Clone(raw)) // a slice of the file would keep all of it
		}
		return nil
	})
	return found, err
}

// heal takes the log up again and reports whether it must be tried once more.
func (q *QueueLog) heal(inJournal [][]byte, journalErr error) (again bool) {
	q.io.Lock()
	defer q.io.Unlock()
	if q.isDeleted() || q.lost(q.Err()) {
		return false
	}
	if !q.closeFailed() {
		return true
	}
	records, err := q.writeAnew(inJournal)
	if err == nil {
		q.goOn(records)
		return false
	}
	q.closeFailed()
	q.store.space.spent(err)
	if journalErr != nil {
		err = fmt.Errorf("%w; reading the journal: %w", err, journalErr)
	}
	damaged := q.lost(err)
	err = fmt.Errorf("take up log of incarnation %d again: %w", q.incarnation, err)
	q.mu.Lock()
	q.err = err
	q.mu.Unlock()
	if damaged {
		q.store.logFailed(q, err) // the reason it stays stopped is another than the one reported first
	}
	return !damaged
}

// lost reports whether err is damage to what the log durably held. Damage behind that is what a failed sync leaves. Called
// with io held.
func (q *QueueLog) lost(err error) bool {
	var inLog *seglog.CorruptError
	if errors.As(err, &inLog) {
		return inLog.LSN <= q.synced
	}
	return Damaged(err)
}

// closeFailed closes the log, whatever its state, unless somebody reads it. Called with io held.
func (q *QueueLog) closeFailed() bool {
	q.logMu.Lock()
	if q.readers > 0 {
		q.logMu.Unlock()
		return false
	}
	log := q.log
	q.log = nil
	q.logMu.Unlock()
	if log != nil {
		q.store.closed(q)
		_ = log.Close() // it failed before; what it holds behind synced is not relied on
	}
	q.appended, q.named = q.synced, false
	return true
}

// writeAnew opens the log at what it durably holds, appends all else that is durable, and syncs. It returns how many records
// it appended. Called with io held.
func (q *QueueLog) writeAnew(inJournal [][]byte) (records uint64, err error) {
	log, err := q.openAnew()
	if err != nil {
		return 0, err
	}
	from := q.synced
	a := appender{q: q, log: log}
	memory := q.firstInMemory()
	if q.synced+1 < memory {
		if err := a.addAside(); err != nil {
			return 0, err
		}
		for _, raw := range inJournal {
			if err := a.add(raw); err != nil {
				return 0, err
			}
		}
		if got := a.last(); got+1 < memory {
			return 0, fmt.Errorf("record %d is neither set aside nor in the journal", got+1)
		}
	}
	for _, raw := range q.durableTail() {
		if err := a.add(raw); err != nil {
			return 0, err
		}
	}
	if err := a.flush(); err != nil {
		return 0, err
	}
	if q.appended != q.synced {
		if err := q.syncFiles(log); err != nil {
			return 0, err
		}
	}
	return q.appended - from, nil
}

// openAnew opens the log at what it durably holds. What is cut off is no torn tail of a crash but what this process
// wrote and is about to write again: no copy is made of it, and nobody is told. Called with io held.
func (q *QueueLog) openAnew() (seglog.Log, error) {
	s := q.store
	cfg := s.segmentConfig(q.incarnation)
	cfg.DamagedDir = ""
	if q.synced < q.front {
		// It holds nothing. Its directory may be the very thing whose sync failed, so it is made again.
		if err := s.cfg.FS.RemoveAll(cfg.Dir); err != nil {
			return nil, err
		}
	}
	var log seglog.Log
	err := s.patiently(q, func() (err error) {
		log, _, err = s.cfg.OpenLog(cfg, q.front, q.synced)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	q.logMu.Lock()
	q.log = log
	q.logMu.Unlock()
	q.front = log.First()
	s.opened(q)
	return log, nil
}

// durableTail is what is in memory only and durable.
func (q *QueueLog) durableTail() [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	durable := q.settle()
	if durable < q.tailLSN {
		return nil
	}
	n := min(durable-q.tailLSN+1, uint64(len(q.tail)))
	return q.tail[:n:n]
}

// goOn lets the queue go on after its log was written anew. Called with io held.
func (q *QueueLog) goOn(records uint64) {
	q.mu.Lock()
	if q.deleted {
		q.mu.Unlock()
		return
	}
	stopped := time.Since(q.failedAt)
	q.err = nil
	q.store.stoppedLogs.Add(-1)
	q.forgetLeft()
	q.dropAppended()
	rest := q.tailBytes() // not counted while the log was out of order
	enlist := len(q.tail) > 0
	q.dirty = enlist
	q.mu.Unlock()
	q.store.pendingBytes.Add(rest)
	q.change() // the next checkpoint lets go of what was set aside
	if enlist {
		q.store.enlist(q)
		q.store.kick(q.store.writeKick)
	}
	if f := q.store.cfg.Events.LogReopened; f != nil {
		f(LogReopened{LogName: q.name(), Records: records, Stopped: stopped})
	}
}

// appender appends records in order, in large steps, and leaves out those that the log has.
type appender struct {
	q     *QueueLog
	log   seglog.Log
	batch [][]byte
	bytes int
}

// last is the last record that was added or that the log has.
func (a *appender) last() uint64 { return a.q.appended + uint64(len(a.batch)) }

func (a *appender) add(raw []byte) error {
	if record.View(raw).LSN != a.last()+1 {
		return nil // there already, or the caller notices that one is missing
	}
	a.batch = append(a.batch, raw)
	if a.bytes += len(raw); a.bytes >= a.q.store.cfg.SegmentBytes {
		return a.flush()
	}
	return nil
}

func (a *appender) flush() error {
	if len(a.batch) == 0 {
		return nil
	}
	if err := a.log.Append(a.batch); err != nil {
		return fmt.Errorf("append: %w", err)
	}
	a.q.appended += uint64(len(a.batch))
	a.batch, a.bytes = a.batch[:0], 0
	return nil
}

// addAside adds what a checkpoint has set aside.
func (a *appender) addAside() error {
	path := a.q.store.asidePath(a.q.incarnation)
	data, err := readAll(a.q.store.cfg.FS, path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return eachRecord(path, data, a.add)
}
