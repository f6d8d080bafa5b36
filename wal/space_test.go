package wal

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quail/wal/record"
	"quail/wal/vfs"
)

// Without this a checkpoint that found no space keeps what it had written of it, and takes the space that is missing.
func TestFailedCheckpointLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		lossy := vfs.NewLossy(1)
		disk := vfs.NewFailing(lossy)
		s, _, err := w.open(testConfig(disk, "data"), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abandon()
		q, _ := w.create(s)
		q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 1000)}).Wait()
		disk.FailWhen(func(op vfs.Op) bool { return op.Kind == vfs.OpWrite && strings.Contains(op.Path, "/checkpoints/") },
			vfs.FailShort, syscall.ENOSPC)
		if err := s.Checkpoint(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		entries, err := lossy.ReadDir("data/checkpoints")
		if err != nil || len(entries) != 0 {
			t.Fatalf("%v, %v", entries, err)
		}
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	})
}

// Without this a checkpoint on a full disk fails while the reserve lies unused, and nothing is ever given back.
func TestCheckpointTakesTheReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		lossy := vfs.NewLossy(1)
		cfg := testConfig(lossy, "data")
		cfg.ReserveBytes = 128 << 10
		s, _, err := w.open(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abandon()
		q, _ := w.create(s)
		q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 1000)}).Wait()
		lossy.SetCapacity(lossy.Used())
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		var full *FullError
		if err := s.WaitRoom(); !errors.As(err, &full) || !OutOfSpace(err) {
			t.Fatalf("room for a push: %v", err)
		}
		if err := q.commit(s, record.Record{Kind: kindCut, Meta: make([]byte, 8)}).Wait(); err != nil {
			t.Fatalf("an acknowledgement: %v", err)
		}
	})
}

// Without this a server on a disk that is too small refuses every message, with megabytes free, and nobody learns how many it wants.
func TestFullDiskSaysHowMuchItNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lossy := vfs.NewLossy(1)
		cfg := testConfig(lossy, "data")
		cfg.ReserveBytes = ReserveFiles * cfg.JournalFileBytes
		lossy.SetCapacity(cfg.ReserveBytes + cfg.JournalFileBytes)
		s, _, err := newWorld().open(cfg, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abandon()
		refused := func() *FullError {
			t.Helper()
			<-time.After(2 * spaceDelay)
			synctest.Wait()
			var full *FullError
			if err := s.WaitRoom(); !errors.As(err, &full) {
				t.Fatalf("room for a push: %v", err)
			}
			free, _ := lossy.Free("data")
			if said := full.Error(); full.FreeBytes != free || !strings.Contains(said, fmt.Sprintf("%d bytes are left, %d bytes must be free", free, full.NeedBytes)) ||
				!strings.Contains(said, "a smaller journal-file-bytes needs less") {
				t.Errorf("with %d bytes free it says: %s", free, said)
			}
			return full
		}
		lossy.SetCapacity(lossy.Used() + refused().NeedBytes - 1)
		lossy.SetCapacity(lossy.Used() + refused().NeedBytes)
		<-time.After(2 * spaceDelay)
		synctest.Wait()
		if err := s.WaitRoom(); err != nil {
			t.Errorf("with all that it wants: %v", err)
		}
	})
}
