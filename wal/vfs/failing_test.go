package vfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// everyOperation does each operation once and returns the first error, as code that looks at each of them would.
func everyOperation(fsys FS, dir string) (err error) {
	at := func(name string) string { return filepath.Join(dir, name) }
	var f File
	for _, op := range []func() error{
		func() error { return fsys.Mkdir(at("d"), 0o755) },
		func() error { return fsys.MkdirAll(at("d/e"), 0o755) },
		func() (err error) { f, err = fsys.OpenFile(at("d/f"), os.O_CREATE|os.O_RDWR, 0o644); return err },
		func() error { return f.Preallocate(10) },
		func() error { return second(f.Write([]byte("hello"))) },
		func() error { return second(f.WriteAt([]byte("world"), 5)) },
		func() error { return second(f.Read(make([]byte, 1))) },
		func() error { return second(f.ReadAt(make([]byte, 1), 0)) },
		func() error { return f.Sync() },
		func() error { return f.Datasync() },
		func() error { return f.Truncate(3) },
		func() error { return second(f.Stat()) },
		func() error { return f.Lock() },
		func() error { return f.Close() },
		func() (err error) { f, err = fsys.Open(at("d/f")); return err },
		func() error { return f.Close() },
		func() error { return fsys.Rename(at("d/f"), at("d/g")) },
		func() error { return second(fsys.ReadDir(at("d"))) },
		func() error { return second(fsys.Stat(at("d/g"))) },
		func() error { return fsys.SyncDir(at("d")) },
		func() error { return fsys.Remove(at("d/g")) },
		func() error { return fsys.RemoveAll(at("d")) },
	} {
		if err := op(); err != nil {
			if f != nil {
				_ = f.Close()
			}
			return err
		}
	}
	return nil
}

func TestEveryOperationCanFail(t *testing.T) {
	seen := NewFailing(NewLossy(1))
	must(t, everyOperation(seen, "."))
	kinds := map[string]bool{}
	for _, op := range seen.Ops() {
		kinds[op.Kind] = true
	}
	if len(kinds) != 16 || seen.Count() != 22 {
		t.Fatalf("%d kinds in %d operations: %v", len(kinds), seen.Count(), seen.Ops())
	}
	for n := 1; n <= seen.Count(); n++ {
		for _, how := range []Failure{FailBefore, FailShort, FailDropped, FailAfter} {
			f := NewFailing(NewLossy(1))
			f.FailAtHow(n, how, ErrInjected)
			if err := everyOperation(f, "."); !errors.Is(err, ErrInjected) {
				t.Fatalf("operation %d (%v), manner %d: %v", n, seen.Ops()[n-1], how, err)
			}
			if got := f.Ops()[n-1]; got.Kind != seen.Ops()[n-1].Kind {
				t.Fatalf("operation %d was %v, now %v", n, seen.Ops()[n-1], got)
			}
		}
	}
}

// A disk that keeps failing would hide a missing sticky error.
func TestFailsOnce(t *testing.T) {
	f := NewFailing(NewLossy(1))
	f.FailAt(1, ErrInjected)
	if err := f.Mkdir("d", 0o755); !errors.Is(err, ErrInjected) {
		t.Fatal(err)
	}
	must(t, f.Mkdir("d", 0o755))
}

func TestHaltStays(t *testing.T) {
	f := NewFailing(NewLossy(1))
	f.HaltAt(2)
	must(t, f.Mkdir("d", 0o755))
	for range 3 {
		if err := f.Mkdir("e", 0o755); !errors.Is(err, ErrCrashed) {
			t.Fatal(err)
		}
	}
}

func TestShortWrite(t *testing.T) {
	f := NewFailing(NewLossy(1))
	f.FailAtHow(2, FailShort, ErrInjected)
	file, err := f.OpenFile("f", os.O_CREATE|os.O_WRONLY, 0o644)
	must(t, err)
	if n, err := file.Write([]byte("hello!")); n != 3 || !errors.Is(err, ErrInjected) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	if got := get(t, f, "f"); got != "hel" {
		t.Fatalf("the file holds %q", got)
	}
}

// The next sync succeeds, and what was lost is not there: code that tries again must be seen to lose data.
func TestDroppedSyncLeavesAHole(t *testing.T) {
	each(t, func(t *testing.T, inner FS, dir string) {
		f := NewFailing(inner)
		name := filepath.Join(dir, "f")
		put(t, f, name, "durable ", true)
		w, err := f.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		_, err = w.Write([]byte("lost"))
		must(t, err)
		own, err := f.Open(name) // the sync may come from another descriptor than the write
		must(t, err)
		f.FailAtHow(f.Count()+1, FailDropped, ErrInjected)
		if err := own.Sync(); !errors.Is(err, ErrInjected) {
			t.Fatal(err)
		}
		must(t, own.Sync())
		if got := get(t, f, name); got != "durable \x00\x00\x00\x00" {
			t.Fatalf("the file holds %q", got)
		}
		must(t, own.Close())
		must(t, w.Close())
	})
}
