package vfs

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Without this the tests of a full disk test nothing: it would never be full, or never empty again.
func TestLossyIsFull(t *testing.T) {
	l := NewLossy(1)
	l.SetCapacity(1000)
	f, err := l.OpenFile("a", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.WriteAt(make([]byte, 1500), 0); n != 1000 || !errors.Is(err, syscall.ENOSPC) || !OutOfSpace(err) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if _, err := f.WriteAt(make([]byte, 1000), 0); err != nil {
		t.Fatalf("writing over what is there: %v", err)
	}
	g, _ := l.OpenFile("b", os.O_CREATE|os.O_RDWR, 0o600)
	if err := g.Preallocate(1); !OutOfSpace(err) {
		t.Fatal(err)
	}
	if err := l.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if free, err := l.Free("."); err != nil || free != 1000 || l.Used() != 0 {
		t.Fatalf("%d bytes are free, %v", free, err)
	}
	if err := g.Allocate(1000); err != nil || l.Used() != 1000 {
		t.Fatalf("%d bytes, %v", l.Used(), err)
	}
}

// Without this the reserve holds no space on a real disk.
func TestAllocateTakesSpace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reserve")
	f, err := OS.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int64{1 << 20, 1 << 20, 4096} {
		if err := f.Allocate(size); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Size() != size || info.Sys().(*syscall.Stat_t).Blocks*512 < size {
			t.Fatalf("%d bytes in %d blocks, %d were wanted: %v", info.Size(), info.Sys().(*syscall.Stat_t).Blocks, size, err)
		}
	}
	if free, err := OS.Free(filepath.Dir(path)); err != nil || free < 0 {
		t.Fatalf("%d, %v", free, err)
	}
}
