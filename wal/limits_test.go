package wal

// The limits of a store: one process, a bounded ring, bounded memory, bounded descriptors.

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quail/wal/record"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

// Without this two servers on one directory write into the same files.
func TestLocked(t *testing.T) {
	cfg := testConfig(vfs.OS, t.TempDir())
	cfg.OpenLog = seglog.Open
	w := newWorld()
	s, _, err := w.open(cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := newWorld().open(cfg, 0); !errors.Is(err, ErrLocked) {
		t.Fatalf("the second store got %v", err)
	}
	s.Abandon()
	s, _, err = w.open(cfg, 0)
	if err != nil {
		t.Fatalf("after the first one was closed: %v", err)
	}
	s.Abandon()
}

// A store that is no directory of ours, or has lost its identity, is left alone.
func TestForeignDirectory(t *testing.T) {
	lossy := vfs.NewLossy(1)
	cfg := testConfig(lossy, "data")
	w := newWorld()
	s, _, err := w.open(cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.Abandon()
	if err := lossy.Remove("data/STORE"); err != nil {
		t.Fatal(err)
	}
	var corrupt *CorruptError
	if _, _, err := w.open(cfg, 0); !errors.As(err, &corrupt) || corrupt.File != "data/STORE" {
		t.Fatalf("without its identity: %v", err)
	}
}

// gate is a Source that holds checkpoints up.
type gate struct {
	*world
	open chan struct{}
}

func (g *gate) Snapshot(incarnation uint64) (Snapshot, bool) {
	<-g.open
	return g.world.Snapshot(incarnation)
}

// Without this the journal grows until the disk is full, or a push waits for ever.
func TestWaitRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		g := &gate{world: w, open: make(chan struct{})}
		lossy := vfs.NewLossy(1)
		cfg := testConfig(lossy, "data")
		s, _, err := Open(cfg, g, w, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abandon()
		q, err := w.create(s)
		if err != nil {
			t.Fatal(err)
		}
		for s.hasRoom() {
			if err := q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 1000)}).Wait(); err != nil {
				t.Fatal(err)
			}
		}
		if used := s.journal.used.Load(); used > cfg.JournalBytes+cfg.JournalFileBytes {
			t.Fatalf("no room at %d bytes of journal, the limit is %d", used, cfg.JournalBytes)
		}
		got := make(chan error)
		go func() { got <- s.WaitRoom() }()
		<-time.After(time.Minute)
		synctest.Wait()
		select {
		case err := <-got:
			t.Fatalf("WaitRoom did not wait: %v", err)
		default:
		}
		// An acknowledgement never waits: it is what makes room.
		if err := q.cutTo(s, q.lsn).Wait(); err != nil {
			t.Fatal(err)
		}
		close(g.open)
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	})
}

// Without this a push waits for ever when the server stops.
func TestWaitRoomEndsWithStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cfg := testConfig(vfs.NewLossy(1), "data")
		cfg.WriteBehindBytes = 0
		s, _, err := w.open(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan error)
		go func() { got <- s.WaitRoom() }()
		synctest.Wait()
		s.Abandon()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	})
}

// Without this a disk that takes no checkpoint any more leaves pushes hanging without an answer.
func TestWaitRoomTellsWhyThereIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		disk := &brokenDir{FS: vfs.NewLossy(1)}
		s, q := w.openOne(t, testConfig(disk, "data"))
		defer s.Abandon()
		disk.breakBelow("data/checkpoints")
		var err error
		for err == nil {
			if err = s.WaitRoom(); err == nil {
				if err := q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 1000)}).Wait(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !errors.Is(err, vfs.ErrInjected) {
			t.Fatal(err)
		}
		disk.breakBelow("") // the disk is mended: the retry makes room, unasked
		<-time.After(2 * retryDelay)
		synctest.Wait()
		if !s.hasRoom() {
			t.Fatal("no checkpoint was tried again")
		}
	})
}

// Without this the journal takes new space for ever instead of using its files again.
func TestRingIsRecycled(t *testing.T) {
	w := newWorld()
	lossy := vfs.NewLossy(1)
	cfg := testConfig(lossy, "data")
	s, q := w.openOne(t, cfg)
	defer s.Abandon()
	for i := range 5000 { // 5 MB, 20 times the ring
		if i%20 == 0 { // no group larger than a file: those have files of their own
			if err := q.last.Wait(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.WaitRoom(); err != nil {
			t.Fatal(err)
		}
		q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 1000)})
	}
	if err := q.last.Wait(); err != nil {
		t.Fatal(err)
	}
	// A round of the ring may make a file or two: what goes over it is removed, since a full disk has no use for it.
	s.journal.writer.Lock()
	defer s.journal.writer.Unlock()
	s.journal.filesMu.Lock()
	defer s.journal.filesMu.Unlock()
	if made := s.journal.nameSeq; made > int(s.journal.sequence)/2 {
		t.Fatalf("%d files were made for %d that were begun", made, s.journal.sequence)
	}
}

// Without this a push of a few large messages fails, or its oversized file stays for ever and blocks all others.
func TestGroupLargerThanFile(t *testing.T) {
	w := newWorld()
	lossy := vfs.NewLossy(1)
	cfg := testConfig(lossy, "data")
	s, _, err := w.open(cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	q, err := w.create(s)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		big := q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, int(cfg.JournalBytes)+1000)})
		if err := big.Wait(); err != nil {
			t.Fatal(err)
		}
		if err := s.WaitRoom(); err != nil { // though the current file alone is larger than the ring may be
			t.Fatal(err)
		}
		if err := q.commit(s, record.Record{Kind: kindPut, Body: []byte("small")}).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	s.Abandon()
	if s, _, err = w.open(testConfig(lossy.Crash(), "data"), 0); err != nil {
		t.Fatal(err)
	}
	defer s.Abandon()
	if q.lsn != 7 {
		t.Fatalf("%d records, 7 were acknowledged", q.lsn)
	}
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if used := s.journal.used.Load(); used > 2*cfg.JournalFileBytes {
		t.Fatalf("%d bytes of journal stay after a checkpoint", used)
	}
}

// Without this a thousand queues take a thousand descriptors and as many segments of memory, read or written.
func TestOpenLogsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cfg := testConfig(vfs.NewLossy(1), "data")
		s, _, err := w.open(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abandon()
		for range 20 {
			if _, err := w.create(s); err != nil {
				t.Fatal(err)
			}
		}
		settled := func(when string) {
			<-time.After(time.Second)
			synctest.Wait()
			open := 0
			for _, q := range w.alive() {
				if q.log.log != nil {
					open++
				}
			}
			if open > cfg.OpenLogs {
				t.Errorf("%d logs are open after %s", open, when)
			}
		}
		settled("writing")
		for _, q := range w.alive() {
			if _, err := q.log.Read(1, 100, nil); err != nil {
				t.Fatal(err)
			}
		}
		settled("reading")
	})
}

// Without this batch ids and tokens repeat: a checkpoint names a first needed group behind an end mark that a power cut then
// loses; if its number is given out again, the start after that takes the new group for covered by the checkpoint.
func TestLostEndMarkBelowCheckpoint(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			lossy := vfs.NewLossy(seed)
			for life := range 4 {
				s, _, err := w.open(testConfig(lossy, "data"), 0)
				if err != nil {
					t.Fatalf("seed %d, life %d: %v", seed, life, err)
				}
				if _, err := w.nextID(s); err != nil {
					t.Fatalf("seed %d, life %d: %v", seed, life, err)
				}
				if life == 0 {
					<-time.After(time.Second) // the end mark
					if err := s.Checkpoint(); err != nil {
						t.Fatal(err)
					}
				} else if q, err := w.create(s); err != nil {
					t.Fatal(err)
				} else if err := q.last.Wait(); err != nil {
					t.Fatal(err)
				}
				after := lossy.Crash()
				s.Abandon()
				lossy = after
			}
		})
	}
}

// Without this a deleted queue's messages keep their disk space, or are there again after a restart.
func TestDeletedQueueLeavesNothing(t *testing.T) {
	lossy := vfs.NewLossy(1)
	w := newWorld()
	s, _, err := w.open(testConfig(lossy, "data"), 0)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		q, err := w.create(s)
		if err != nil {
			t.Fatal(err)
		}
		q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 5000)})
		if round > 0 { // it is checkpointed, has a log and records behind it
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 5000)})
		}
		if err := q.delete(s); err != nil {
			t.Fatal(err)
		}
		if round == 2 { // what a deletion that is only in the journal leaves goes at the next start
			s.Abandon()
			if s, _, err = w.open(testConfig(lossy, "data"), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		entries, err := lossy.ReadDir("data/queues")
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) > 0 || s.pendingBytes.Load() != 0 {
			t.Fatalf("round %d: %v and %d pending bytes are left", round, entries, s.pendingBytes.Load())
		}
	}
	s.Abandon()
	if s, _, err = w.open(testConfig(lossy, "data"), 0); err != nil {
		t.Fatal(err)
	}
	s.Abandon()
}

// The server clock goes on where it was, and never back.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		lossy := vfs.NewLossy(1)
		var last int64
		for range 3 {
			s, _, err := w.open(testConfig(lossy, "data"), 0)
			if err != nil {
				t.Fatal(err)
			}
			if now := s.NowMillis(); now < last || now > last+1000 {
				t.Fatalf("the clock is at %d, it was at %d", now, last)
			}
			<-time.After(time.Hour)
			if _, err := w.create(s); err != nil {
				t.Fatal(err)
			}
			if err := w.alive()[0].commit(s, record.Record{Kind: kindPut}).Wait(); err != nil {
				t.Fatal(err)
			}
			last = s.NowMillis()
			s.Abandon()
			lossy = lossy.Crash()
			<-time.After(24 * time.Hour) // down-time counts for nobody
		}
	})
}

// What a crash leaves of preparations is removed.
func TestLeftoversGo(t *testing.T) {
	lossy := vfs.NewLossy(1)
	w := newWorld()
	cfg := testConfig(lossy, "data")
	s, _, err := w.open(cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	for _, path := range []string{"data/journal/00000099.journal.tmp", "data/checkpoints/00000000000000000099.base.tmp", "data/checkpoints/0000000000000001.aside.tmp"} {
		if err := writeFileDurably(lossy, strings.TrimSuffix(path, ".tmp"), []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := lossy.Rename(strings.TrimSuffix(path, ".tmp"), path); err != nil {
			t.Fatal(err)
		}
	}
	if s, _, err = w.open(cfg, 0); err != nil {
		t.Fatal(err)
	}
	s.Abandon()
	for path := range takeImage(t, lossy, "data") {
		if filepath.Ext(path) == ".tmp" {
			t.Errorf("%s is still there", path)
		}
	}
}

// A commit without records is durable at once: nothing would ever complete its Future.
func TestEmptyCommit(t *testing.T) {
	w := newWorld()
	s, q := w.openOne(t, testConfig(vfs.NewLossy(1), "data"))
	defer s.Abandon()
	if f := s.Commit(q.log, nil); !f.Done() || f.Err() != nil {
		t.Fatal("it is pending")
	}
}

// Without this a timer that was set for a group long gone cuts a round in two: its commits wait for two syncs, and its replies for another thread.
func TestRecordsThatNobodyWaitsForLeaveARoundWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, err := newWorld().open(testConfig(vfs.NewLossy(1), "data"), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abandon()
		add := func(how haste) *Future {
			_, f := s.journal.add([]record.Record{{Kind: kindPut, Body: []byte("x")}}, nil, how)
			return f
		}
		pass := func(d time.Duration) {
			<-time.After(d)
			synctest.Wait()
		}
		add(soon)
		pass(soonDelay / 2)
		s.Hold() // the round in which the timer rings
		second := add(atOnce)
		pass(soonDelay)
		if second.Done() {
			t.Fatal("a group was taken in the middle of a round")
		}
		s.Release()
		if !second.Done() {
			t.Fatal("a release has left records behind")
		}
		third := add(soon)
		pass(soonDelay / 2)
		s.Hold()
		fifth := add(atOnce)
		s.Release() // takes the third, too
		if !third.Done() || !fifth.Done() {
			t.Fatal("a release has left records behind")
		}
		fourth := add(soon)
		pass(soonDelay / 2)
		if fourth.Done() {
			t.Fatal("records went alone that had just come")
		}
		pass(2 * soonDelay)
		if !fourth.Done() {
			t.Fatal("records that nobody waits for wait for ever")
		}
	})
}

// patientWaiter says what it is made of.
type patientWaiter bool

func (patientWaiter) Durable()        {}
func (p patientWaiter) Patient() bool { return bool(p) }

// Without this an acknowledgement of a client that only waits for its next message costs a sync of its own, which the next push waits for.
func TestARoundOfPatientsSharesTheNextSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, err := newWorld().open(testConfig(vfs.NewLossy(1), "data"), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abandon()
		round := func(how haste, waiters ...Waiter) *Future {
			s.Hold()
			defer s.Release()
			_, f := s.journal.add([]record.Record{{Kind: kindPut, Body: []byte("x")}}, nil, how)
			for _, w := range waiters {
				f.Notify(w)
			}
			return f
		}
		can, cannot := patientWaiter(true), patientWaiter(false)
		for _, one := range []struct {
			name   string
			how    haste
			who    []Waiter
			shares bool
		}{
			{"who waits can wait", shared, []Waiter{can, can}, true},
			{"nobody waits", soon, nil, true},
			{"one cannot wait", shared, []Waiter{can, cannot}, false},
			{"one does not say", shared, []Waiter{can, make(chanWaiter)}, false},
			{"who asked does not wait yet", shared, nil, false},
			{"it hurries", atOnce, []Waiter{can}, false},
		} {
			f := round(one.how, one.who...)
			synctest.Wait()
			if f.Done() == one.shares {
				t.Errorf("%s: it shares a later sync: %v, want %v", one.name, !f.Done(), one.shares)
			}
			before := s.journal.durable.Load()
			if other := round(atOnce); !f.Done() || !other.Done() || s.journal.durable.Load() != before+1 {
				t.Errorf("%s: the next round leaves something behind, or has syncs for both", one.name)
			}
		}
		alone := round(shared, can)
		<-time.After(2 * soonDelay)
		synctest.Wait()
		if !alone.Done() {
			t.Error("a commit waits for others for ever")
		}
	})
}
