package wal

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

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
