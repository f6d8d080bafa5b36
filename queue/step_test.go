package queue

// Moments that goroutines meet once in a million times, brought about step by step. The simulation found each of them.

import (
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/vfs"
)

// chore is something that would run in the background.
type chore struct {
	who string
	do  func()
}

// stepped is a world whose background work waits until it is asked for.
type stepped struct {
	*world
	disk     *vfs.Failing
	chores   []chore
	reopened int
	failed   []error // of logs
}

func newStepped(t *testing.T) *stepped {
	s := &stepped{world: &world{t: t, fs: vfs.NewLossy(1), opts: machine.DefaultOptions()}}
	s.open()
	return s
}

func (s *stepped) open() {
	s.t.Helper()
	s.disk, s.chores = vfs.NewFailing(s.fs), nil
	cfg := s.config(s.disk)
	cfg.Store.Stepped = true
	cfg.Background = func(who string, f func()) { s.chores = append(s.chores, chore{who, f}) }
	cfg.StoreReopened = func(Report) { s.reopened++ }
	cfg.Store.Events.LogFailed = func(_ wal.LogName, err error) { s.failed = append(s.failed, err) }
	set, _, err := Open(cfg)
	if err != nil {
		s.t.Fatalf("open: %v", err)
	}
	s.set = set
}

// do does what waits whose name begins like this, and returns how much it was.
func (s *stepped) do(who string) (n int) {
	list := s.chores
	s.chores = nil
	for _, c := range list {
		if strings.HasPrefix(c.who, who) {
			c.do()
			n++
		} else {
			s.chores = append(s.chores, c)
		}
	}
	return n
}

func (s *stepped) push(queue, body string) {
	s.t.Helper()
	if _, _, err := s.set.Push([]byte(queue), [][]byte{[]byte(body)}); err != nil {
		s.t.Fatalf("push: %v", err)
	}
}

// bodies are those that a look into the queue finds.
func (s *stepped) bodies(queue string) string {
	s.t.Helper()
	list, _, err := peek(s.set, []byte(queue), machine.Gone, 0, 100)
	if err != nil {
		s.t.Fatalf("peek: %v", err)
	}
	var all []string
	for _, f := range list {
		all = append(all, string(f.Body))
	}
	return strings.Join(all, " ")
}

// Without this a store that fails once more while it is being opened again is opened a second time, beside the first: which either
// throws away the good store and what it has not synced yet, or finds the directory locked and refuses all commands for ever.
func TestAStoreThatFailsWhileItIsReopenedIsReopenedOnce(t *testing.T) {
	for n, met := 1, true; met; n++ {
		synctest.Test(t, func(t *testing.T) { met = reopenFailing(t, n) })
	}
}

// reopenFailing has the n-th operation of the second store fail. It reports false if opening takes fewer.
func reopenFailing(t *testing.T, n int) (met bool) {
	s := newStepped(t)
	s.push("a", "first")
	s.set.store.StepCommit()
	s.disk.FailWhen(func(op vfs.Op) bool { return op.Kind == vfs.OpDatasync }, vfs.FailBefore, vfs.ErrInjected)
	s.push("a", "failing")
	s.set.store.StepCommit()
	begin := s.disk.Count()
	s.disk.FailAt(begin+n, vfs.ErrInjected)
	if k := s.do("reopen"); k != 1 || s.reopened != 1 {
		t.Fatalf("operation %d: the store was opened again %d times, by %d", n, s.reopened, k)
	}
	met = s.disk.Count()-begin >= n
	s.disk.FailAt(0, nil)
	s.push("a", "second")
	if k := s.do("reopen"); k != 0 {
		t.Fatalf("operation %d, %v: the good store is opened again", n, s.disk.Ops()[s.disk.Count()-1])
	}
	s.set.store.StepCommit()
	if got := s.bodies("a"); got != "first second" {
		t.Fatalf("operation %d: the queue holds %q", n, got)
	}
	if err := s.set.Close(); err != nil {
		t.Fatalf("operation %d: %v", n, err)
	}
	return met
}

// Without this a queue that follows a deleted one of its name is there after a restart, with all its messages, and has no name.
func TestAQueueThatWasMadeAgainKeepsItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStepped(t)
		s.push("a", "old")
		if _, _, err := s.set.Delete([]byte("a")); err != nil {
			t.Fatal(err)
		}
		s.push("a", "new")
		if err := s.set.Checkpoint(); err != nil { // it begins before all that is durable, and covers it
			t.Fatal(err)
		}
		s.fs = s.fs.Crash()
		s.open()
		if got := s.bodies("a"); got != "new" {
			t.Fatalf("the queue holds %q", got)
		}
	})
}

// Without this a read that began before the journal failed cuts the log back, when the next store is writing it already.
func TestAReadOfAnAbandonedStoreLeavesTheLogAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStepped(t)
		s.push("a", "first")
		s.set.store.StepCommit()
		s.set.store.StepWriteBehind()
		old := s.set.find([]byte("a")).log
		if err := s.set.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		s.disk.FailWhen(func(op vfs.Op) bool { return op.Kind == vfs.OpDatasync }, vfs.FailBefore, vfs.ErrInjected)
		s.push("a", "failing")
		s.set.store.StepCommit()
		s.do("reopen")
		s.push("a", "second")
		s.push("a", "third")
		s.set.store.StepCommit()
		s.set.store.StepWriteBehind()
		if _, err := old.Read(1, 1000, nil); err == nil {
			t.Error("the abandoned store reads")
		}
		if got := s.bodies("a"); got != "first second third" {
			t.Errorf("the queue holds %q", got)
		}
		if err := s.set.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Without this a log that found no descriptor to be synced with is left open when its store is given up, and a read that comes late finds
// there what the next store has written: the operator hears of damage where there is none.
func TestAnAbandonedStoreReportsNoDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStepped(t)
		for range 3 {
			s.push("a", strings.Repeat("x", 1000))
		}
		s.set.store.StepCommit()
		s.set.store.StepWriteBehind()
		old := s.set.find([]byte("a")).log
		s.disk.FailWhen(func(op vfs.Op) bool { return op.Kind == vfs.OpDatasync }, vfs.FailBefore, vfs.ErrInjected)
		s.push("a", "failing")
		s.set.store.StepCommit()
		poor := true
		s.disk.FailEach(func(op vfs.Op) (vfs.Failure, error) {
			if poor && op.Kind == vfs.OpOpen && strings.Contains(op.Path, "/queues/") {
				return vfs.FailBefore, syscall.EMFILE
			}
			return 0, nil
		})
		s.do("reopen")
		poor = false
		s.push("a", "second")
		s.set.store.StepCommit()
		s.bodies("a")
		s.set.store.StepWriteBehind()
		if _, err := old.Read(1, 10_000, nil); err == nil {
			t.Error("the abandoned store reads")
		}
		if len(s.failed) > 0 {
			t.Errorf("it is reported: %v", s.failed)
		}
		if err := s.set.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Without this a crash while a checkpoint sets records aside leaves a directory that does not open: the checkpoint before it finds other
// records aside than it needs.
func TestACheckpointThatFailsLeavesWhatTheOneBeforeHasSetAside(t *testing.T) {
	for _, heals := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) { setAsideTwice(t, heals) })
	}
}

// setAsideTwice fails a log, takes a checkpoint, and fails the next one behind what it sets aside; the log is taken up in between if it heals.
func setAsideTwice(t *testing.T, heals bool) {
	s := newStepped(t)
	var failing string // operations with a path like this fail
	s.disk.FailEach(func(op vfs.Op) (vfs.Failure, error) {
		if failing != "" && strings.Contains(op.Path, failing) && op.Kind != vfs.OpReadDir {
			return vfs.FailBefore, vfs.ErrInjected
		}
		return 0, nil
	})
	s.push("a", "first")
	s.set.store.StepCommit()
	if err := s.set.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	s.push("a", "second")
	s.set.store.StepCommit()
	failing = "/queues/"
	if err := s.set.Checkpoint(); err != nil { // sets the second aside
		t.Fatal(err)
	}
	if failing = ""; heals {
		if s.set.store.StepHeal() != 0 {
			t.Fatal("the log is still stopped")
		}
	}
	if heals {
		s.push("a", "third")
		s.set.store.StepCommit()
	}
	q := s.set.find([]byte("a"))
	q.mu.Lock()
	last := q.m.LastLSN()
	q.mu.Unlock()
	failing = "/queues/"
	s.set.store.StepWriteBehind()
	s.disk.FailEach(func(op vfs.Op) (vfs.Failure, error) {
		if strings.Contains(op.Path, "/queues/") || strings.Contains(op.Path, ".delta") || strings.Contains(op.Path, ".base") {
			return vfs.FailBefore, vfs.ErrInjected
		}
		return 0, nil
	})
	if !heals { // a record without the log: the queue is stopped
		q.mu.Lock()
		e, _ := q.m.DecidePause(true, false)
		q.commit(e)
		q.mu.Unlock()
		s.set.store.StepCommit()
	}
	if err := s.set.Checkpoint(); err == nil {
		t.Fatal("the checkpoint did not fail")
	}
	s.fs = s.fs.Crash()
	s.open()
	want := "first second"
	if heals {
		want += " third"
	}
	if got := s.bodies("a"); got != want {
		t.Fatalf("heals %v, after record %d: the queue holds %q, want %q", heals, last, got, want)
	}
}

// Without this a crash while a deleted queue's files are removed leaves a directory that does not open: the checkpoint before it misses what
// it has set aside.
func TestWhatIsSetAsideStaysUntilNoCheckpointNeedsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStepped(t)
		s.push("a", "first")
		s.push("b", "other")
		s.set.store.StepCommit()
		if err := s.set.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		s.push("a", "second")
		s.set.store.StepCommit()
		s.disk.FailWhen(func(op vfs.Op) bool { return strings.Contains(op.Path, "/queues/") }, vfs.FailBefore, vfs.ErrInjected)
		if err := s.set.Checkpoint(); err != nil { // sets it aside
			t.Fatal(err)
		}
		if _, _, err := s.set.Delete([]byte("a")); err != nil {
			t.Fatal(err)
		}
		s.set.store.StepCommit()
		s.disk.FailWhen(func(op vfs.Op) bool { return strings.HasSuffix(op.Path, ".delta.tmp") }, vfs.FailBefore, vfs.ErrInjected)
		if err := s.set.Checkpoint(); err == nil {
			t.Fatal("the checkpoint did not fail")
		}
		s.fs.Kill()
		s.open()
		if got := s.set.Names(); len(got) != 1 || s.bodies("b") != "other" {
			t.Fatalf("there are the queues %q", got)
		}
	})
}

// Without this a server does not start that made a backup after a checkpoint had failed with its file in place already: there are two files of
// one number, a delta and the backup's base. The other way round is as bad.
func TestACheckpointNeverTakesTheNumberOfOneThatFailed(t *testing.T) {
	checkpoint := func(s *stepped) error { return s.set.Checkpoint() }
	backup := func(s *stepped) error {
		_, err := s.set.Backup("/copy")
		return err
	}
	for _, test := range []struct {
		name        string
		first, then func(*stepped) error
	}{{"delta, base", checkpoint, backup}, {"base, delta", backup, checkpoint}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStepped(t)
				s.push("a", "first")
				if err := s.set.Checkpoint(); err != nil {
					t.Fatal(err)
				}
				s.push("a", "second")
				s.disk.FailWhen(func(op vfs.Op) bool {
					return op.Kind == vfs.OpSyncDir && strings.HasSuffix(op.Path, "/data/checkpoints")
				}, vfs.FailAfter, vfs.ErrInjected)
				if err := test.first(s); err == nil {
					t.Fatal("the checkpoint did not fail")
				}
				s.push("a", "third")
				if err := test.then(s); err != nil {
					t.Fatal(err)
				}
				s.push("a", "fourth")
				if err := s.set.Checkpoint(); err != nil {
					t.Fatal(err)
				}
				s.fs = s.fs.Crash()
				s.open()
				if got := s.bodies("a"); got != "first second third fourth" {
					t.Fatalf("the queue holds %q", got)
				}
			})
		})
	}
}

// Without this a power cut takes a queue with all its messages, if there was no descriptor when its directory was to be synced: the second
// attempt found the directory there, and a checkpoint let the journal go.
func TestADirectoryThatCouldNotBeSyncedIsMadeAgain(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			s := &stepped{world: &world{t: t, fs: vfs.NewLossy(seed), opts: machine.DefaultOptions()}}
			s.open()
			s.push("a", "first")
			s.set.store.StepCommit()
			s.disk.FailWhen(func(op vfs.Op) bool { return op == vfs.Op{Kind: vfs.OpSyncDir, Path: "/data/queues"} }, vfs.FailBefore, syscall.EMFILE)
			if err := s.set.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			s.fs = s.fs.Crash()
			s.open()
			if got := s.bodies("a"); got != "first" {
				t.Fatalf("seed %d: the queue holds %q", seed, got)
			}
		})
	}
}
