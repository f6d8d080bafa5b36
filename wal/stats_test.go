package wal

import (
	"testing"
	"testing/synctest"
	"time"

	"quail/wal/record"
	"quail/wal/vfs"
)

// Without this an operator learns only from refused pushes that checkpoints fail, or that the journal has stopped.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		disk := &brokenDir{FS: vfs.NewLossy(1)}
		s, q := w.openOne(t, testConfig(disk, "data"))
		defer s.Abandon()
		put := func() error {
			return q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 5000)}).Wait()
		}
		if err := put(); err != nil {
			t.Fatal(err)
		}
		before := s.Stats()
		if before.Group == 0 || before.SinceCheckpointBytes < 5000 || before.WriteBehindBytes < 5000 || before.JournalBytes == 0 ||
			before.JournalBytes > before.JournalBytesMax || before.JournalErr != nil || before.CheckpointErr != nil {
			t.Errorf("after a commit: %+v", before)
		}
		if err := s.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		after := s.Stats()
		if after.Checkpoints != before.Checkpoints+1 || !after.LastCheckpoint.Equal(time.Now()) || after.SinceCheckpointBytes >= 5000 ||
			after.WriteBehindBytes != 0 {
			t.Errorf("after a checkpoint: %+v", after)
		}
		if err := put(); err != nil {
			t.Fatal(err)
		}
		disk.breakBelow("data/checkpoints")
		if err := s.Checkpoint(); err == nil {
			t.Fatal("a checkpoint on a broken directory")
		}
		if failed := s.Stats(); failed.CheckpointErr == nil || failed.Checkpoints != after.Checkpoints || failed.JournalErr != nil {
			t.Errorf("after a failed checkpoint: %+v", failed)
		}
		disk.breakBelow("data")
		var err error
		for err == nil { // until the journal needs a file
			err = put()
		}
		synctest.Wait()
		if failed := s.Stats(); failed.JournalErr == nil {
			t.Errorf("after a failed commit: %+v", failed)
		}
	})
}
