package wal

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"quail/wal/record"
	"quail/wal/vfs"
)

// pickyDisk refuses what a disk may refuse from past the page cache.
type pickyDisk struct {
	vfs.FS
	t *testing.T
}

type pickyFile struct {
	vfs.File
	t *testing.T
}

func (d pickyDisk) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err == nil && flag&vfs.Direct != 0 {
		f = pickyFile{f, d.t}
	}
	return f, err
}

func (f pickyFile) WriteAt(p []byte, off int64) (int, error) {
	if len(p)%blockBytes != 0 || off%blockBytes != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%4096 != 0 {
		f.t.Errorf("%d bytes from %p are written to %s at %d", len(p), unsafe.SliceData(p), filepath.Base(f.Name()), off)
	}
	return f.File.WriteAt(p, off)
}

// Without this the journal goes through the page cache for ever after a group that begins somewhere.
func TestGroupsAreWholeBlocksOfAlignedMemory(t *testing.T) {
	w := newWorld()
	s, q := w.openOne(t, testConfig(pickyDisk{vfs.NewLossy(1), t}, "data"))
	defer s.Abandon()
	for size := 1; size < 100_000; size += size/3 + 1 { // groups larger than a file among them
		for _, body := range []int{size, 1} {
			if err := s.WaitRoom(); err != nil {
				t.Fatal(err)
			}
			if err := q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, body)}).Wait(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
