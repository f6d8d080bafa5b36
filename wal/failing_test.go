package wal

// Every file operation fails once, in every manner, and each time the store must behave: what was acknowledged is there after
// the next start, the failure is remembered, and a queue whose own log failed leaves the others alone.

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quail/wal/record"
	"quail/wal/vfs"
)

var manners = map[string]vfs.Failure{"before": vfs.FailBefore, "short": vfs.FailShort, "dropped": vfs.FailDropped, "after": vfs.FailAfter}

// fits leaves out manners that FailBefore covers.
func fits(kind string, how vfs.Failure) bool {
	switch how {
	case vfs.FailShort:
		return kind == vfs.OpWrite
	case vfs.FailDropped:
		return kind == vfs.OpSync || kind == vfs.OpDatasync
	case vfs.FailAfter:
		return !slices.Contains([]string{vfs.OpRead, vfs.OpReadDir, vfs.OpStat, vfs.OpOpen, vfs.OpClose, vfs.OpLock}, kind)
	}
	return true
}

// Without this one failed operation that nobody looked at loses acknowledged messages: now, or at a later power cut.
func TestEveryOperationFails(t *testing.T) {
	ops := script(t, 0, vfs.FailBefore)
	t.Logf("%d operations", len(ops))
	step := 1
	if testing.Short() {
		step = 7
	}
	for name, how := range manners {
		for n := 1; n <= len(ops); n += step {
			if !fits(ops[n-1].Kind, how) {
				continue
			}
			script(t, n, how)
			if t.Failed() {
				t.Fatalf("operation %d, %v, failed %s", n, ops[n-1], name)
			}
		}
	}
}

// script runs a fixed life of a store, in which operation n fails, and checks what is there afterwards.
func script(t *testing.T, n int, how vfs.Failure) (ops []vfs.Op) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		lossy := vfs.NewLossy(uint64(n))
		disk := vfs.NewFailing(lossy)
		disk.FailAtHow(n, how, vfs.ErrInjected)
		cfg := testConfig(disk, "data")
		cfg.JournalFileBytes, cfg.JournalBytes, cfg.CheckpointBytes = 16<<10, 64<<10, 1<<30
		for life := range 3 {
			s, _, err := w.open(cfg, 0)
			if err != nil {
				if !errors.Is(err, vfs.ErrInjected) {
					t.Errorf("life %d: %v", life, err)
					return
				}
				continue
			}
			if err := scriptLife(w, s, life); err != nil {
				t.Errorf("life %d: %v", life, err)
			}
			if life == 1 {
				s.Close() // its error was the injected one, or none
			} else {
				s.Abandon()
			}
		}
		ops = disk.Ops()
		for range 2 { // as a process that starts again, then after a power cut
			s, _, err := w.open(testConfig(lossy, "data"), 0)
			if err != nil {
				t.Error(err)
				return
			}
			for _, q := range w.alive() {
				if err := q.commit(s, record.Record{Kind: kindPut, Body: []byte("goes on")}).Wait(); err != nil {
					t.Error(err)
				}
			}
			s.Abandon()
			lossy = lossy.Crash()
		}
	})
	return ops
}

// scriptLife reports a broken promise; the injected failure is none.
func scriptLife(w *world, s *Store, life int) error {
	for len(w.alive()) < 4 {
		if _, err := w.create(s); err != nil {
			return notInjected(s, err)
		}
	}
	push := func() {
		for i, q := range w.alive() {
			body := make([]byte, 900+100*i)
			for range 3 {
				q.commit(s, record.Record{Kind: kindPut, Body: body}, record.Record{Kind: kindPut, Body: body[:i]})
			}
			q.last.Wait()
		}
	}
	for round := range 3 {
		push()
		<-time.After(20 * time.Millisecond) // end mark, background writer
		if round == 1 {
			q := w.alive()[0]
			q.cutTo(s, q.first+(q.lsn-q.first)/2)
			if life == 1 {
				if err := w.alive()[1].delete(s); err != nil {
					return notInjected(s, err)
				}
			}
		}
		if err := s.Checkpoint(); err != nil && !errors.Is(err, vfs.ErrInjected) {
			return err
		}
		if err := s.failure(); err != nil {
			return sticky(w, s, err)
		}
		for _, q := range w.alive() {
			if err := q.compare(); err != nil && q.log.Err() == nil && !errors.Is(err, vfs.ErrInjected) {
				return err
			}
		}
	}
	push() // no checkpoint has these: a group that the journal lost is missed
	return nil
}

func notInjected(s *Store, err error) error {
	if errors.Is(err, vfs.ErrInjected) || s.failure() != nil {
		return nil
	}
	return err
}

// sticky: after the journal's failure nothing is accepted, though the disk works again.
func sticky(w *world, s *Store, cause error) error {
	for _, q := range w.alive() {
		f := q.commit(s, record.Record{Kind: kindPut, Body: []byte("too late")})
		if f.Wait() == nil {
			return wrong("a commit was acknowledged after %v", cause)
		}
	}
	if err := s.Checkpoint(); err == nil {
		return wrong("there was a checkpoint after %v", cause)
	}
	return nil
}

// Without this a message that was refused with -WALERR is delivered after the journal went on, next to its successor: the
// failed group looks whole in the page cache, or even on the disk.
func TestResumeAfterFailure(t *testing.T) {
	for name, how := range manners {
		for _, kind := range []string{vfs.OpWrite, vfs.OpDatasync} {
			if !fits(kind, how) {
				continue
			}
			t.Run(name+" "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { resume(t, kind, how) })
			})
		}
	}
}

func resume(t *testing.T, kind string, how vfs.Failure) {
	w := newWorld()
	lossy := vfs.NewLossy(7)
	disk := vfs.NewFailing(lossy)
	cfg := testConfig(disk, "data")
	s, _, err := w.open(cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	q, err := w.create(s)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		q.commit(s, record.Record{Kind: kindPut, Body: []byte("stays")}).Wait()
	}
	<-time.After(5 * time.Millisecond) // the end mark takes a number too
	for range 3 {
		failNext(disk, kind, how)
		if err := q.commit(s, record.Record{Kind: kindPut, Body: []byte("refused")}).Wait(); !errors.Is(err, vfs.ErrInjected) {
			t.Fatalf("the failed commit got %v", err)
		}
		s.Abandon()
		if s, _, err = w.open(cfg, s.DurableGroup()); err != nil {
			t.Fatal(err)
		}
		for _, raw := range q.records {
			if body := record.View(raw).Body; string(body) == "refused" {
				t.Fatal("the failed group counts")
			}
		}
		if err := q.commit(s, record.Record{Kind: kindPut, Body: []byte("stays too")}).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	s.Abandon()
	for range 2 {
		lossy = lossy.Crash()
		if s, _, err = w.open(testConfig(lossy, "data"), 0); err != nil {
			t.Fatal(err)
		}
		if q.lsn != 9 {
			t.Fatalf("%d records, 9 were acknowledged", q.lsn)
		}
		s.Abandon()
	}
}

// failNext lets the write or the sync of the next group fail. Nothing else may be under way.
func failNext(disk *vfs.Failing, kind string, how vfs.Failure) {
	<-time.After(time.Second)
	synctest.Wait()
	n := disk.Count() + 1
	if kind == vfs.OpDatasync {
		n++
	}
	disk.FailAtHow(n, how, vfs.ErrInjected)
}

// Without this one queue with a bad segment stops the whole server: the journal could never be reused.
func TestBrokenLogLeavesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		lossy := vfs.NewLossy(3)
		disk := &brokenDir{FS: lossy}
		cfg := testConfig(disk, "data")
		var mu sync.Mutex
		var failed []uint64
		cfg.Events.LogFailed = func(name LogName, _ error) { mu.Lock(); failed = append(failed, name.Incarnation); mu.Unlock() }
		s, _, err := w.open(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Abandon() }()
		bad, _ := w.create(s)
		good, _ := w.create(s)
		for range 30 {
			bad.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 1000)})
		}
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			bad.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 1000)})
		}
		disk.breakBelow(s.logDir(bad.log.Incarnation()))
		for range 5 {
			for range 300 { // several rings
				if err := s.WaitRoom(); err != nil {
					t.Fatal(err)
				}
				good.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 1000)})
			}
			good.last.Wait()
			// A commit that was under way when the log failed must not be counted for ever.
			bad.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 50)}).Wait()
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			if used := s.journal.used.Load(); used > 3*cfg.JournalFileBytes {
				t.Fatalf("the journal keeps %d bytes after a checkpoint", used)
			}
		}
		if bad.log.Err() == nil || good.log.Err() != nil {
			t.Fatalf("bad: %v, good: %v", bad.log.Err(), good.log.Err())
		}
		<-time.After(time.Second)
		if n := s.pendingBytes.Load(); n != 0 {
			t.Fatalf("%d bytes are pending when all is written", n)
		}
		mu.Lock()
		if len(failed) != 1 || failed[0] != bad.log.Incarnation() {
			t.Fatalf("reported: %v", failed)
		}
		mu.Unlock()
		s.Abandon()
		for range 3 { // healed: what was set aside goes on into the log, through power cuts
			lossy = lossy.Crash()
			if s, _, err = w.open(testConfig(lossy, "data"), 0); err != nil {
				t.Fatal(err)
			}
			if bad.lsn != 66 {
				t.Fatalf("%d records of the broken queue are there, 66 were acknowledged", bad.lsn)
			}
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			s.Abandon()
		}
		if _, err := lossy.Stat(s.asidePath(bad.log.Incarnation())); err == nil {
			t.Fatal("the records are still set aside")
		}
	})
}

// brokenDir fails everything below one directory from a moment on.
type brokenDir struct {
	vfs.FS
	mu   sync.Mutex
	part string
}

func (b *brokenDir) breakBelow(part string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.part = part
}

func (b *brokenDir) err(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.part != "" && strings.HasPrefix(name, b.part) {
		return fmt.Errorf("%s: %w", name, vfs.ErrInjected)
	}
	return nil
}

func (b *brokenDir) Open(name string) (vfs.File, error) {
	if err := b.err(name); err != nil {
		return nil, err
	}
	return b.FS.Open(name)
}

func (b *brokenDir) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	if err := b.err(name); err != nil {
		return nil, err
	}
	return b.FS.OpenFile(name, flag, perm)
}
