package vfs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unsafe"
)

// Without this a write in one call with its sync lands elsewhere, or fails where the usual two calls would do: on a file system or a disk that
// does not take it, or from memory that is not aligned.
func TestWriteDurably(t *testing.T) {
	block := append(DirectBuffer(1024), bytes.Repeat([]byte("x"), 1024)...)
	aside := append(DirectBuffer(1025), bytes.Repeat([]byte("y"), 1025)...)[1:]
	for name, dir := range map[string]string{"here": t.TempDir(), "in memory": sharedMemory(t)} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "file")
			f, err := OS.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Preallocate(8192); err != nil {
				t.Fatal(err)
			}
			f.Close()
			if f, err = OS.OpenFile(path, os.O_RDWR|Direct, 0); err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			t.Logf("past the page cache: %v", f.(osFile).direct)
			want := make([]byte, 8192)
			for _, one := range []struct {
				data []byte
				at   int64
			}{{block, 512}, {aside, 4096}, {block, 6144}, {block[:100], 3}} {
				copy(want[one.at:], one.data)
				if f, err = OS.OpenFile(path, os.O_RDWR|Direct, 0); err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if n, err := f.WriteAt(one.data, one.at); n != len(one.data) || err != nil {
					t.Fatalf("%d bytes at %d, without a sync: %d, %v", len(one.data), one.at, n, err)
				}
				if f, err = OS.OpenFile(path, os.O_RDWR|Direct, 0); err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if n, err := WriteDurably(f, one.data, one.at); n != len(one.data) || err != nil {
					t.Fatalf("%d bytes at %d: %d, %v", len(one.data), one.at, n, err)
				}
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes at %d are not there (%v)", len(one.data), one.at, err)
				}
			}
		})
	}
}

// sharedMemory is a directory on a tmpfs, if there is one.
func sharedMemory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "vfs")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestDirectBufferIsAligned(t *testing.T) {
	for capacity := range 10_000 {
		b := DirectBuffer(capacity + 1)
		if len(b) != 0 || cap(b) != capacity+1 || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%directAlign != 0 {
			t.Fatalf("capacity %d: length %d, capacity %d at %p", capacity+1, len(b), cap(b), unsafe.SliceData(b))
		}
	}
}

// Without this a sync that fails behind a write is taken for the write's success.
func TestWriteDurablyTellsOfBothErrors(t *testing.T) {
	for _, kind := range []string{OpWrite, OpDatasync} {
		disk := NewFailing(NewLossy(1))
		f, err := disk.OpenFile("/f", os.O_CREATE|os.O_RDWR|Direct, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		disk.FailWhen(func(op Op) bool { return op.Kind == kind }, FailBefore, ErrInjected)
		if _, err := WriteDurably(f, []byte("x"), 0); err == nil {
			t.Errorf("a %s failed and nobody was told", kind)
		}
		if n, err := WriteDurably(f, []byte("x"), 0); n != 1 || err != nil {
			t.Errorf("the next one: %d, %v", n, err)
		}
	}
}
