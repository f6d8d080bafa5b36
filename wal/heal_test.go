package wal

// A queue whose log failed goes on by itself when the cause is gone, with exactly what was acknowledged; and a lack of
// descriptors that passes stops no queue at all.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quail/wal/record"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

// heard is what a store reported of its queues' logs.
type heard struct {
	mu       sync.Mutex
	failed   map[uint64]int
	reopened map[uint64]int
	records  uint64
}

func (h *heard) events() Events {
	h.failed, h.reopened = map[uint64]int{}, map[uint64]int{}
	return Events{
		LogFailed: func(name LogName, _ error) { h.mu.Lock(); h.failed[name.Incarnation]++; h.mu.Unlock() },
		LogReopened: func(r LogReopened) {
			h.mu.Lock()
			h.reopened[r.Incarnation]++
			h.records += r.Records
			h.mu.Unlock()
		},
	}
}

// balance is an error unless each failure was followed by a reopening.
func (h *heard) balance() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, n := range h.failed {
		if h.reopened[id] != n {
			return wrong("the log of %d failed %d times and was taken up again %d times", id, n, h.reopened[id])
		}
	}
	return nil
}

func inLogs(op vfs.Op) bool { return strings.Contains(op.Path, "/queues/") }

// Without this a full disk that is made room on, or one bad moment of it, stops a queue until somebody restarts the server;
// or the queue goes on without what its log was given and did not keep.
func TestLogHealsAfterEveryFailure(t *testing.T) {
	total, _ := healing(t, 0, vfs.FailBefore)
	t.Logf("%d operations on queue logs", total)
	step := 1
	if testing.Short() {
		step = 7
	}
	failures := 0
	for name, how := range manners {
		for n := 1; n <= total; n += step {
			_, failed := healing(t, n, how)
			failures += failed
			if t.Failed() {
				t.Fatalf("operation %d failed %s", n, name)
			}
		}
	}
	if failures < total/step {
		t.Errorf("only %d failures stopped a queue", failures)
	}
}

// healing runs queues through segment changes, cuts and checkpoints, while operation n on their logs fails.
func healing(t *testing.T, n int, how vfs.Failure) (total, failed int) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		lossy := vfs.NewLossy(uint64(n))
		disk := vfs.NewFailing(lossy)
		disk.FailWhen(func(op vfs.Op) bool {
			if inLogs(op) {
				total++
			}
			return inLogs(op) && total == n && fits(op.Kind, how)
		}, how, vfs.ErrInjected)
		cfg := testConfig(disk, "data")
		cfg.SegmentBytes = 2 << 10
		var h heard
		cfg.Events = h.events()
		s, _, err := w.open(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		for round := range 4 {
			if err := healingRound(w, s, round); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		<-time.After(4 * healDelay) // an attempt to heal may be what fails
		disk.FailWhen(func(vfs.Op) bool { return false }, how, nil)
		<-time.After(4 * healDelay)
		synctest.Wait()
		if err := allWell(w, s, &h); err != nil {
			t.Error(err)
		}
		failed = len(h.failed)
		if n%2 == 0 {
			if err := s.Checkpoint(); err != nil {
				t.Error(err)
			}
		}
		s.Abandon()
		for range 2 {
			lossy = lossy.Crash()
			if s, _, err = w.open(testConfig(lossy, "data"), 0); err != nil {
				t.Error(err)
				return
			}
			s.Abandon()
		}
	})
	return total, failed
}

// counted is an error unless the statistics have as many stopped queues as there are.
func counted(s *Store) error {
	synctest.Wait()
	s.mu.Lock()
	stopped := int64(0)
	for _, q := range s.logs {
		if q.Err() != nil {
			stopped++
		}
	}
	s.mu.Unlock()
	if got := s.Stats().StoppedQueues; got != stopped {
		return wrong("%d queues are stopped, the statistics say %d", stopped, got)
	}
	return nil
}

// healingRound does what package queue would: a queue that has stopped is given nothing.
func healingRound(w *world, s *Store, round int) error {
	for len(w.alive()) < 4 {
		if _, err := w.create(s); err != nil {
			return err
		}
	}
	for i, q := range w.alive() {
		for range 3 {
			if q.log.Err() == nil {
				q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 700+50*i)}, record.Record{Kind: kindPut})
				q.last.Wait()
			}
		}
	}
	<-time.After(30 * time.Millisecond) // the background writer's turn
	for _, q := range w.alive() {
		if err := q.compare(); err != nil && q.log.Err() == nil && !errors.Is(err, vfs.ErrInjected) {
			return err
		}
	}
	if q := w.alive()[round]; round > 0 && q.log.Err() == nil {
		q.cutTo(s, q.first+(q.lsn-q.first)/2)
	}
	if err := counted(s); err != nil {
		return err
	}
	if round%2 == 1 {
		if err := s.Checkpoint(); err != nil && !errors.Is(err, vfs.ErrInjected) {
			return err
		}
	}
	return s.failure()
}

// allWell: no queue is stopped, all is there, and all goes on.
func allWell(w *world, s *Store, h *heard) error {
	for round := range 2 {
		for _, q := range w.alive() {
			if err := q.log.Err(); err != nil {
				return wrong("queue %d is still stopped: %v", q.log.Incarnation(), err)
			}
			if err := q.compare(); err != nil {
				return fmt.Errorf("queue %d: %w", q.log.Incarnation(), err)
			}
			if err := q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 900)}).Wait(); err != nil {
				return err
			}
		}
		if round == 0 {
			<-time.After(time.Second)
			synctest.Wait()
			if n := s.pendingBytes.Load(); n != 0 {
				return wrong("%d bytes are pending when all is written", n)
			}
		}
	}
	if err := counted(s); err != nil {
		return err
	}
	return h.balance()
}

// Without this a queue that was stopped while checkpoints went on is not healed: what its log lacks is in no journal file any
// more, only set aside.
func TestLogHealsFromWhatWasSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		lossy := vfs.NewLossy(3)
		disk := &brokenDir{FS: lossy}
		cfg := testConfig(disk, "data")
		var h heard
		cfg.Events = h.events()
		s, _, err := w.open(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Abandon() }()
		bad, _ := w.create(s)
		good, _ := w.create(s)
		put := func(q *life) *Future { return q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 1000)}) }
		for range 30 {
			put(bad)
		}
		<-time.After(time.Second) // written behind, not synced
		disk.breakBelow(s.logDir(bad.log.Incarnation()))
		for range 3 {
			put(bad).Wait()
			for range 300 { // several rings
				if err := s.WaitRoom(); err != nil {
					t.Fatal(err)
				}
				put(good)
			}
			good.last.Wait()
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(3 * healDelayMax)
		synctest.Wait()
		if bad.log.Err() == nil || good.log.Err() != nil {
			t.Fatalf("bad: %v, good: %v", bad.log.Err(), good.log.Err())
		}
		disk.breakBelow("")
		<-time.After(healDelayMax + time.Second)
		synctest.Wait()
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		if _, err := lossy.Stat(s.asidePath(bad.log.Incarnation())); err == nil {
			t.Error("the records are still set aside")
		}
		if err := allWell(w, s, &h); err != nil {
			t.Fatal(err)
		}
		if h.failed[bad.log.Incarnation()] != 1 || h.records != 34 {
			t.Errorf("failures reported: %v; %d records were written again, 34 lacked", h.failed, h.records)
		}
		s.Abandon()
		if s, _, err = w.open(testConfig(lossy.Crash(), "data"), 0); err != nil {
			t.Fatal(err)
		}
	})
}

// Without this a second failure while a log is written anew counts as success, or leaves the log half written for good.
func TestHealingFailsToo(t *testing.T) {
	total := healTwice(t, 0, vfs.FailBefore)
	t.Logf("%d operations of healing", total)
	for name, how := range manners {
		for n := 1; n <= total; n++ {
			if healTwice(t, n, how); t.Failed() {
				t.Fatalf("operation %d of healing failed %s", n, name)
			}
		}
	}
	if total < 20 {
		t.Errorf("only %d operations", total)
	}
}

// healTwice breaks a log whose records are set aside in part, and lets operation n of taking it up again fail.
func healTwice(t *testing.T, n int, how vfs.Failure) (total int) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		lossy := vfs.NewLossy(uint64(n))
		disk := vfs.NewFailing(lossy)
		cfg := testConfig(disk, "data")
		cfg.SegmentBytes = 2 << 10
		var h heard
		cfg.Events = h.events()
		s, _, err := w.open(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Abandon() }()
		q, _ := w.create(s)
		put := func(records int) {
			for range records {
				q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 900)})
			}
			q.last.Wait()
			<-time.After(30 * time.Millisecond)
		}
		put(3)
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		put(3) // in the log, and not synced
		disk.FailWhen(func(op vfs.Op) bool { return inLogs(op) && op.Kind == vfs.OpSync }, vfs.FailDropped, vfs.ErrInjected)
		if err := s.Checkpoint(); err != nil || q.log.Err() == nil {
			t.Fatalf("checkpoint: %v, log: %v", err, q.log.Err())
		}
		disk.FailWhen(func(op vfs.Op) bool {
			if q.log.Err() != nil {
				total++
			}
			return q.log.Err() != nil && total == n && fits(op.Kind, how)
		}, how, vfs.ErrInjected)
		<-time.After(4 * healDelay)
		synctest.Wait()
		if err := allWell(w, s, &h); err != nil {
			t.Error(err)
		}
		s.Abandon()
		if s, _, err = w.open(testConfig(lossy.Crash(), "data"), 0); err != nil {
			t.Fatal(err)
		}
	})
	return total
}

// slowSync holds the journal's sync up.
type slowSync struct {
	vfs.FS
	gate chan struct{} // nil: none
}

type slowFile struct {
	vfs.File
	fs *slowSync
}

func (s *slowSync) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	f, err := s.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &slowFile{f, s}, nil
}

func (f *slowFile) Datasync() error {
	if f.fs.gate != nil {
		<-f.fs.gate
	}
	return f.File.Datasync()
}

// Without this the bytes of commits that were under way when a log failed are taken off the count of pending ones twice, and
// write-behind-bytes limits nothing any more.
func TestHealedLogCountsWhatIsPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		slow := &slowSync{FS: vfs.NewLossy(1)}
		disk := vfs.NewFailing(slow)
		s, _, err := w.open(testConfig(disk, "data"), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abandon()
		q, _ := w.create(s)
		q.last.Wait()
		disk.FailWhen(inLogs, vfs.FailBefore, vfs.ErrInjected)
		slow.gate = make(chan struct{})
		q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 1000)})
		<-time.After(3 * healDelay)
		synctest.Wait()
		if err := q.log.Err(); err != nil {
			t.Fatal(err)
		}
		if n := s.pendingBytes.Load(); n < 1000 {
			t.Errorf("%d bytes are pending while 1000 wait for a sync", n)
		}
		close(slow.gate)
		q.last.Wait()
		<-time.After(time.Second)
		synctest.Wait()
		if n := s.pendingBytes.Load(); n != 0 {
			t.Errorf("%d bytes are pending when all is written", n)
		}
	})
}

// Without this damage is written over by the attempt to mend it, or a damaged queue goes on and off for ever.
func TestDamagedLogStaysStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		lossy := vfs.NewLossy(3)
		cfg := testConfig(lossy, "data")
		cfg.SegmentBytes = 2 << 10
		var h heard
		cfg.Events = h.events()
		s, _, err := w.open(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abandon()
		q, _ := w.create(s)
		for range 10 {
			q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 1000)})
		}
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(s.logDir(q.log.Incarnation()), fmt.Sprintf("%020d", 1))
		f, err := lossy.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt([]byte{1}, 500)
		f.Close()
		q.commit(s, record.Record{Kind: kindPut, Body: []byte("not written yet")}).Wait()
		before := takeImage(t, lossy, s.logDir(q.log.Incarnation()))
		if err := q.compare(); !Damaged(err) {
			t.Fatalf("reading got %v", err)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		var corrupt *seglog.CorruptError
		if err := q.log.Err(); !errors.As(err, &corrupt) || corrupt.File != path {
			t.Fatalf("after a minute: %v", err)
		}
		if len(h.reopened) > 0 || h.failed[q.log.Incarnation()] != 1 {
			t.Errorf("reported: %v, %v", h.failed, h.reopened)
		}
		if n := s.Stats().StoppedQueues; n != 1 {
			t.Errorf("the statistics have %d stopped queues", n)
		}
		for path, data := range takeImage(t, lossy, s.logDir(q.log.Incarnation())) {
			if string(before[path]) != string(data) {
				t.Errorf("%s was changed", path)
			}
		}
		q.delete(s)
		if err := counted(s); err != nil || s.Stats().StoppedQueues != 0 {
			t.Errorf("deleted: %v", err)
		}
	})
}

// scarce has no descriptor to give below one directory from a moment on, unless few enough of its files are open.
type scarce struct {
	vfs.FS
	mu    sync.Mutex
	open  int
	limit int // 0: none
}

type scarceFile struct {
	vfs.File
	fs   *scarce
	once sync.Once
}

func (s *scarce) setLimit(n int) { s.mu.Lock(); s.limit = n; s.mu.Unlock() }

func (s *scarce) take(name string, open func() (vfs.File, error)) (vfs.File, error) {
	if !inLogs(vfs.Op{Path: name}) {
		return open()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit != 0 && s.open >= s.limit {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EMFILE}
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	s.open++
	return &scarceFile{File: f, fs: s}, nil
}

func (s *scarce) Open(name string) (vfs.File, error) {
	return s.take(name, func() (vfs.File, error) { return s.FS.Open(name) })
}

func (s *scarce) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	return s.take(name, func() (vfs.File, error) { return s.FS.OpenFile(name, flag, perm) })
}

func (f *scarceFile) Close() error {
	f.once.Do(func() { f.fs.mu.Lock(); f.fs.open--; f.fs.mu.Unlock() })
	return f.File.Close()
}

// Without this a crowd of clients that takes all descriptors for a moment stops every queue that opens its log then, though
// other logs lie open unused.
func TestLogsSpareDescriptorsForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		disk := &scarce{FS: vfs.NewLossy(1)}
		cfg := testConfig(disk, "data")
		cfg.OpenLogs = 100
		var h heard
		cfg.Events = h.events()
		s, _, err := w.open(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abandon()
		for range 8 {
			if _, err := w.create(s); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(time.Second)
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		disk.setLimit(disk.open)
		for range 4 { // new queues find room, and the old ones are read
			q, err := w.create(s)
			if err != nil {
				t.Fatal(err)
			}
			q.last.Wait()
			<-time.After(time.Second)
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			for _, q := range w.alive() {
				if err := q.compare(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if len(h.failed) > 0 {
			t.Errorf("stopped: %v", h.failed)
		}
	})
}

// Without this a thousand queues that find no descriptor hold the background writer, and with it all pushes, for minutes.
func TestLackOfDescriptorsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		disk := &scarce{FS: vfs.NewLossy(1)}
		cfg := testConfig(disk, "data")
		var h heard
		cfg.Events = h.events()
		s, _, err := w.open(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abandon()
		q, _ := w.create(s)
		q.last.Wait()
		<-time.After(time.Second)
		disk.setLimit(1)
		for range 200 {
			if _, err := w.create(s); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(3 * time.Second)
		synctest.Wait()
		if n := s.pendingBytes.Load(); n != 0 {
			t.Errorf("%d bytes are still pending", n)
		}
		if err := q.commit(s, record.Record{Kind: kindPut}).Wait(); err != nil || q.log.Err() != nil {
			t.Errorf("the queue whose log is open: %v, %v", err, q.log.Err())
		}
		disk.setLimit(0)
		<-time.After(2 * healDelayMax)
		synctest.Wait()
		if err := allWell(w, s, &h); err != nil {
			t.Error(err)
		}
	})
}

// Without this a queue that found no descriptor for longer stays stopped, and a log that found none to sync with is thrown away.
func TestLackOfDescriptorsPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		disk := &scarce{FS: vfs.NewLossy(1)}
		cfg := testConfig(disk, "data")
		cfg.OpenLogs = 100
		var h heard
		cfg.Events = h.events()
		s, _, err := w.open(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abandon()
		old, _ := w.create(s)
		<-time.After(2 * gatherDelay) // open, and dirty: it is nobody's to close
		disk.setLimit(1)
		if err := s.Checkpoint(); !vfs.OutOfDescriptors(err) {
			t.Fatalf("a checkpoint without a descriptor: %v", err)
		}
		q, _ := w.create(s)
		<-time.After(3 * time.Second)
		synctest.Wait()
		if old.log.Err() != nil || q.log.Err() == nil {
			t.Fatalf("old: %v, new: %v", old.log.Err(), q.log.Err())
		}
		disk.setLimit(0)
		<-time.After(healDelayMax + time.Second)
		synctest.Wait()
		if err := allWell(w, s, &h); err != nil {
			t.Fatal(err)
		}
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		disk.setLimit(disk.open)
		time.AfterFunc(300*time.Millisecond, func() { disk.setLimit(0) })
		for _, q := range w.alive() {
			if err := q.compare(); err != nil {
				t.Fatalf("reading, while there was none for a moment: %v", err)
			}
		}
	})
}

// The same over tidwall/wal and the real disk, whose failed writes and segments leave its log in a state of their own.
func TestTidwallLogHeals(t *testing.T) {
	for name, breakLog := range map[string]func(t *testing.T, disk *vfs.Failing, dir string) (mend func()){
		"sync": func(_ *testing.T, disk *vfs.Failing, _ string) func() {
			disk.FailWhen(func(op vfs.Op) bool { return inLogs(op) && op.Kind == vfs.OpSync }, vfs.FailDropped, vfs.ErrInjected)
			return func() {}
		},
		"segment": func(t *testing.T, _ *vfs.Failing, dir string) func() {
			var block []string // something stands where the next segment goes
			for lsn := 4; lsn < 12; lsn++ {
				path := filepath.Join(dir, fmt.Sprintf("%020d", lsn))
				if err := os.Mkdir(path, 0o700); err == nil {
					block = append(block, path)
				}
			}
			return func() {
				for _, path := range block {
					if err := os.Remove(path); err != nil {
						t.Error(err)
					}
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				disk := vfs.NewFailing(vfs.OS)
				cfg := testConfig(disk, t.TempDir())
				cfg.SegmentBytes, cfg.OpenLog = 4<<10, seglog.Open
				var h heard
				cfg.Events = h.events()
				s, _, err := w.open(cfg, 0)
				if err != nil {
					t.Fatal(err)
				}
				q, _ := w.create(s)
				put := func(records int) {
					for range records {
						q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 900)})
					}
					q.last.Wait()
					<-time.After(30 * time.Millisecond)
				}
				put(1)
				if err := s.Checkpoint(); err != nil {
					t.Fatal(err)
				}
				mend := breakLog(t, disk, s.logDir(q.log.Incarnation()))
				put(6)
				if err := s.Checkpoint(); err != nil || q.log.Err() == nil {
					t.Fatalf("checkpoint: %v, log: %v", err, q.log.Err())
				}
				<-time.After(3 * healDelay)
				mend()
				<-time.After(2 * healDelayMax)
				synctest.Wait()
				if err := allWell(w, s, &h); err != nil {
					t.Fatal(err)
				}
				put(10)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if s, _, err = w.open(cfg, 0); err != nil {
					t.Fatal(err)
				}
				s.Abandon()
			})
		})
	}
}
