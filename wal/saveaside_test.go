package wal

import (
	"errors"
	"syscall"
	"testing"

	"quail/wal/vfs"
)

// Without this a start on a disk that cannot say which files there are looks for a free name for ever, at full speed, instead of saying
// what is wrong.
func TestSavingDamagedBytesEndsOnAFailingDisk(t *testing.T) {
	disk := vfs.NewFailing(vfs.NewLossy(1))
	asked := 0
	disk.FailEach(func(op vfs.Op) (vfs.Failure, error) {
		if op.Kind != vfs.OpStat {
			return 0, nil
		}
		if asked++; asked > 100 {
			t.Fatal("it asks and asks")
		}
		return vfs.FailBefore, syscall.EIO
	})
	if _, err := saveAside(disk, "/damaged", "1.journal", 512, []byte("torn")); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v", err)
	}
}
