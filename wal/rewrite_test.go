package wal

// Rewriting logs behind checkpoints: space comes back while an old message lives, and nothing that fails on the way harms.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quail/wal/record"
	"quail/wal/vfs"
)

// fill commits n messages with bodies of size bytes, and says that all but every 1,000th are not needed any more.
func (q *life) fill(t *testing.T, s *Store, n, size int) (liveBytes int64) {
	t.Helper()
	for range n {
		if err := s.WaitRoom(); err != nil {
			t.Fatal(err)
		}
		f := q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, size)})
		if q.lsn%100 == 0 {
			f.Wait()
		}
	}
	q.dropBut(s, 1000).Wait()
	for lsn := q.first; lsn <= q.lsn; lsn++ {
		if !q.dropped[lsn] {
			liveBytes += int64(len(q.records[lsn-1]))
		}
	}
	return liveBytes
}

// dropBut says that all up to now but every nth record are not needed any more.
func (q *life) dropBut(s *Store, n uint64) (f *Future) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var meta []byte
	for lsn := q.first; lsn <= q.lsn; lsn++ {
		if !q.dropped[lsn] && lsn%n != 0 {
			meta = binary.LittleEndian.AppendUint64(meta, lsn)
		}
		if len(meta) > 8<<10 || lsn == q.lsn {
			f = q.commitLocked(s, record.Record{Kind: kindDrop, Meta: meta})
			meta = nil
			if lsn == q.lsn-1 {
				break // that record itself is behind the last one
			}
		}
	}
	return f
}

// Without this one message in a thousand that nobody acknowledges keeps all the disk that the others took.
func TestSpaceComesBackBehindOldMessages(t *testing.T) {
	for _, size := range []int{10, 100, 1024} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			disk := vfs.NewLossy(1)
			var reports []LogRewritten
			cfg := testConfig(disk, "data")
			cfg.Events.LogRewritten = func(r LogRewritten) { reports = append(reports, r) }
			cfg.Events.RewriteFailed = func(_ LogName, err error) { t.Error(err) }
			s, _, err := w.open(cfg, 0)
			if err != nil {
				t.Fatal(err)
			}
			q, err := w.create(s)
			if err != nil {
				t.Fatal(err)
			}
			live := int64(0)
			for range 3 {
				live = q.fill(t, s, 8000, size)
				if err := s.Checkpoint(); err != nil {
					t.Fatal(err)
				}
				<-time.After(time.Minute)
				if err := s.Checkpoint(); err != nil { // covers what the first one's rewriting could not
					t.Fatal(err)
				}
				<-time.After(time.Minute)
				stats := q.log.Stats()
				if most := 2*live + 3*int64(cfg.SegmentBytes); stats.Bytes > most {
					t.Errorf("bodies of %d bytes: the log has %d bytes in %d segments, its live messages %d", size, stats.Bytes, stats.Segments, live)
				}
				if err := q.compare(); err != nil {
					t.Fatal(err)
				}
			}
			st := s.Stats()
			if len(reports) == 0 || st.Rewrites == 0 || st.RewriteFreedBytes < 100_000 || st.RewriteErr != nil || st.LogBytes != q.log.Stats().Bytes {
				t.Errorf("%d reports, %+v", len(reports), st)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			disk = disk.Crash()
			cfg.FS = disk
			if s, _, err = w.open(cfg, 0); err != nil {
				t.Fatal(err)
			}
			if err := q.compare(); err != nil {
				t.Fatal(err)
			}
			s.Abandon()
		})
	}
}

// A full disk, or a bad moment of it, must not stop a queue that only wanted to be smaller.
func TestFailedRewriteIsTriedAgain(t *testing.T) {
	for _, kind := range []string{vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpRename} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			disk := vfs.NewFailing(vfs.NewLossy(1))
			cfg := testConfig(disk, "data")
			cfg.JournalBytes, cfg.CheckpointBytes = 4<<20, 1<<30 // none but the test's own checkpoints
			var failures []error
			cfg.Events.RewriteFailed = func(_ LogName, err error) { failures = append(failures, err) }
			s, q := w.openOne(t, cfg)
			defer s.Abandon()
			q.fill(t, s, 3000, 100)
			disk.FailWhen(func(op vfs.Op) bool {
				return op.Kind == kind && strings.Contains(op.Path, "-") && strings.Contains(op.Path, "queues")
			}, vfs.FailBefore, syscall.ENOSPC)
			for range 2 {
				s.Checkpoint()
				<-time.After(time.Minute)
				if err := q.compare(); err != nil {
					t.Fatal(err)
				}
				q.log.change()
			}
			if len(failures) != 1 || !errors.Is(failures[0], syscall.ENOSPC) || q.log.Err() != nil {
				t.Fatalf("%s: reported %v, the queue's log says %v", kind, failures, q.log.Err())
			}
			if st := s.Stats(); st.Rewrites == 0 || st.RewriteErr != nil {
				t.Fatalf("%s: it was not tried again: %+v", kind, st)
			}
		})
	}
}

// Rot must neither stop the queue nor be tried again and again; what nobody needs may rot and goes with the rest.
func TestRewriteLeavesDamageAlone(t *testing.T) {
	for _, at := range []struct {
		lsn    uint64 // whose segment is damaged at its beginning
		failed int    // rewrites
	}{{1, 0}, {1000, 1}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			disk := vfs.NewLossy(1)
			cfg := testConfig(disk, "data")
			cfg.JournalBytes, cfg.CheckpointBytes = 4<<20, 1<<30
			failures := 0
			cfg.Events.RewriteFailed = func(_ LogName, err error) { failures++ }
			s, q := w.openOne(t, cfg)
			defer s.Abandon()
			q.fill(t, s, 3000, 100)
			if err := q.log.flush(^uint64(0)); err != nil {
				t.Fatal(err)
			}
			names, err := disk.ReadDir(s.logDir(q.log.incarnation))
			if err != nil {
				t.Fatal(err)
			}
			i, found := slices.BinarySearchFunc(names, fmt.Sprintf("%020d", at.lsn), func(e os.DirEntry, name string) int { return strings.Compare(e.Name(), name) })
			if !found {
				i--
			}
			f, err := disk.OpenFile(filepath.Join(s.logDir(q.log.incarnation), names[i].Name()), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteAt([]byte{0}, 0)
			f.Close()
			for range 3 {
				s.Checkpoint()
				<-time.After(time.Minute)
				q.log.change()
			}
			if failures != at.failed || q.log.Err() != nil || s.Stats().Rewrites == 0 {
				t.Fatalf("LSN %d: %d failures, %v, %+v", at.lsn, failures, q.log.Err(), s.Stats())
			}
		})
	}
}

// Without this the log of a busy queue grows faster than it is rewritten; or rewriting takes the disk from the others for nothing.
func TestRewritingHastens(t *testing.T) {
	const bound, step = 10 << 20, 100 * time.Millisecond
	for _, c := range []struct{ bytes, want int64 }{
		{bound, 900}, {bound / 2, 900}, {bound * 5 / 2, 450}, {4 * bound, 20}, {100 * bound, 20},
	} {
		if got := restAfter(step, c.bytes, bound).Milliseconds(); got != c.want {
			t.Errorf("at %d MB, bound %d MB: %d ms after a step of 100, want %d", c.bytes>>20, bound>>20, got, c.want)
		}
	}
}

// Without this the space of the last messages of a busy hour came back with the next busy hour.
func TestRestingStoreTakesCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cfg := testConfig(vfs.NewLossy(1), "data")
		cfg.JournalBytes, cfg.CheckpointBytes = 4<<20, 1<<30
		s, q := w.openOne(t, cfg)
		defer s.Abandon()
		q.fill(t, s, 300, 100)
		before := s.Stats().Checkpoints
		<-time.After(5 * time.Minute)
		if got := s.Stats().Checkpoints; got != before+1 {
			t.Fatalf("%d checkpoints in five minutes, want 1", got-before)
		}
	})
}

// dropsLate is a Source whose queue forgets most of its messages just before it is asked what lives, by a record that never becomes durable.
type dropsLate struct {
	*world
	drop func()
}

func (d *dropsLate) Live(incarnation uint64) (Live, bool) {
	d.drop()
	return d.world.Live(incarnation)
}

// Without waiting for the acknowledgements that made the records dead, a power cut brings back messages that have no body any more.
func TestRewriteWaitsForAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		lossy := vfs.NewLossy(1)
		disk := vfs.NewFailing(lossy)
		cfg := testConfig(disk, "data")
		cfg.JournalBytes, cfg.CheckpointBytes = 4<<20, 1<<30
		source := &dropsLate{world: w}
		s, _, err := Open(cfg, source, w, 0)
		if err != nil {
			t.Fatal(err)
		}
		q, err := w.create(s)
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			var last *Future
			for range 50 {
				last = q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 100)})
			}
			if err := last.Wait(); err != nil {
				t.Fatal(err)
			}
		}
		source.drop = func() {
			disk.FailWhen(func(op vfs.Op) bool { return op.Kind == vfs.OpDatasync }, vfs.FailBefore, vfs.ErrInjected)
			q.dropBut(s, 1000)
		}
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		if s.failure() == nil || s.Stats().Rewrites != 0 {
			t.Fatalf("the journal says %v, and there were %d rewrites", s.failure(), s.Stats().Rewrites)
		}
		s.Abandon()
		if s, _, err = w.open(testConfig(lossy, "data"), s.DurableGroup()); err != nil {
			t.Fatal(err)
		}
		s.Abandon()
	})
}
