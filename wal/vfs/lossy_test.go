package vfs

// What a power cut must leave, and what it may take.

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
)

// outcomes runs a scenario with many seeds and counts what each leaves.
func outcomes(t *testing.T, scenario func(l *Lossy), look func(l *Lossy) string) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for seed := range uint64(400) {
		l := NewLossy(seed)
		scenario(l)
		seen[look(l.Crash())]++
	}
	return seen
}

func contentOf(l *Lossy, name string) string {
	f, err := l.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "missing"
	}
	buf := make([]byte, 10)
	n, _ := f.ReadAt(buf, 0)
	return string(buf[:n])
}

func wantOutcomes(t *testing.T, seen map[string]int, want ...string) {
	t.Helper()
	for _, w := range want {
		if seen[w] == 0 {
			t.Errorf("never %q, only %v", w, seen)
		}
		delete(seen, w)
	}
	if len(seen) != 0 {
		t.Errorf("also %v", seen)
	}
}

func TestSyncedSurvives(t *testing.T) {
	wantOutcomes(t, outcomes(t, func(l *Lossy) {
		put(t, l, "f", "old", true)
		must(t, l.SyncDir("."))
	}, func(l *Lossy) string { return contentOf(l, "f") }), "old")
}

// The sync of a file does not make its name durable: this is what finds a missing SyncDir.
func TestNameNeedsSyncDir(t *testing.T) {
	wantOutcomes(t, outcomes(t, func(l *Lossy) {
		put(t, l, "f", "old", true)
	}, func(l *Lossy) string { return contentOf(l, "f") }), "old", "missing")
}

func TestUnsyncedContentMayBeLost(t *testing.T) {
	wantOutcomes(t, outcomes(t, func(l *Lossy) {
		put(t, l, "f", "", true)
		must(t, l.SyncDir("."))
		f, err := l.OpenFile("f", os.O_WRONLY, 0)
		must(t, err)
		_, err = f.Write([]byte("ab"))
		must(t, err)
	}, func(l *Lossy) string { return contentOf(l, "f") }), "", "a", "ab", "\x00", "\x00\x00")
}

// A sector is old or new, and a later sector may be there without an earlier one.
func TestSectorsAreWhole(t *testing.T) {
	seen := outcomes(t, func(l *Lossy) {
		f, err := l.OpenFile("f", os.O_CREATE|os.O_RDWR, 0o644)
		must(t, err)
		must(t, f.Preallocate(3*sectorBytes))
		must(t, l.SyncDir("."))
		_, err = f.WriteAt(bytes.Repeat([]byte{1}, 2*sectorBytes), sectorBytes/2)
		must(t, err)
	}, func(l *Lossy) string {
		data := get(t, l, "f")
		s := ""
		for i := range 3 {
			sector := data[i*sectorBytes : (i+1)*sectorBytes]
			switch {
			case sector == string(make([]byte, sectorBytes)):
				s += "-"
			case i == 1 && sector == string(bytes.Repeat([]byte{1}, sectorBytes)):
				s += "+"
			case i != 1 && bytes.Count([]byte(sector), []byte{1}) == sectorBytes/2:
				s += "+"
			default:
				s += "?"
			}
		}
		return s
	})
	wantOutcomes(t, seen, "---", "--+", "-+-", "-++", "+--", "+-+", "++-", "+++")
}

// The usual replacement of a file is safe when all three syncs are there, and only then.
func TestRenameIsAtomic(t *testing.T) {
	replace := func(syncFile, syncDir bool) map[string]int {
		return outcomes(t, func(l *Lossy) {
			put(t, l, "f", "old", true)
			must(t, l.SyncDir("."))
			put(t, l, "f.tmp", "new", syncFile)
			must(t, l.Rename("f.tmp", "f"))
			if syncDir {
				must(t, l.SyncDir("."))
			}
		}, func(l *Lossy) string { return contentOf(l, "f") })
	}
	wantOutcomes(t, replace(true, true), "new")
	wantOutcomes(t, replace(true, false), "old", "new")
	if seen := replace(false, true); seen[""] == 0 {
		t.Errorf("the un-synced content always survives: %v", seen)
	}
}

func TestRemovalNeedsSyncDir(t *testing.T) {
	wantOutcomes(t, outcomes(t, func(l *Lossy) {
		put(t, l, "f", "old", true)
		must(t, l.SyncDir("."))
		must(t, l.Remove("f"))
	}, func(l *Lossy) string { return contentOf(l, "f") }), "old", "missing")
}

// A directory that was not synced into its parent is lost with all that was synced in it.
func TestDirectoryNeedsItsParent(t *testing.T) {
	wantOutcomes(t, outcomes(t, func(l *Lossy) {
		must(t, l.Mkdir("d", 0o755))
		put(t, l, "d/f", "old", true)
		must(t, l.SyncDir("d"))
	}, func(l *Lossy) string { return contentOf(l, "d/f") }), "old", "missing")
}

func TestUnsyncedTruncationMayBeLost(t *testing.T) {
	wantOutcomes(t, outcomes(t, func(l *Lossy) {
		put(t, l, "f", "old", true)
		must(t, l.SyncDir("."))
		f, err := l.OpenFile("f", os.O_WRONLY, 0)
		must(t, err)
		must(t, f.Truncate(0))
	}, func(l *Lossy) string { return contentOf(l, "f") }), "old", "", "\x00\x00\x00")
}

// A test that fails must fail again with the same seed.
func TestCrashRepeats(t *testing.T) {
	state := func() string {
		l := NewLossy(5)
		for i := range 50 {
			put(t, l, fmt.Sprint("f", i), fmt.Sprint("content ", i), i%3 == 0)
			if i%7 == 0 {
				must(t, l.SyncDir("."))
			}
		}
		after := l.Crash().Crash()
		s := ""
		for i := range 50 {
			s += contentOf(after, fmt.Sprint("f", i)) + ";"
		}
		return s
	}
	if a, b := state(), state(); a != b {
		t.Fatalf("one seed, two outcomes:\n%q\n%q", a, b)
	}
}

func TestNothingWorksAfterACrash(t *testing.T) {
	l := NewLossy(1)
	put(t, l, "f", "old", true)
	f, err := l.OpenFile("f", os.O_RDWR, 0)
	must(t, err)
	must(t, f.Lock())
	must(t, l.SyncDir("."))
	after := l.Crash()
	_, writeErr := f.Write([]byte("x"))
	_, readErr := f.ReadAt(make([]byte, 1), 0)
	_, openErr := l.Open("f")
	for _, err := range []error{writeErr, readErr, openErr, f.Sync(), f.Truncate(0), f.Lock(), f.Preallocate(1), l.Remove("f"), l.SyncDir(".")} {
		if !errors.Is(err, ErrCrashed) {
			t.Fatalf("got %v, want ErrCrashed", err)
		}
	}
	g, err := after.Open("f")
	must(t, err)
	must(t, g.Lock())
	if got := get(t, after, "f"); got != "old" {
		t.Fatalf("f is %q", got)
	}
}

func BenchmarkLossyAppendAndSync(b *testing.B) {
	f, err := NewLossy(1).OpenFile("f", os.O_CREATE|os.O_RDWR, 0o644)
	must(b, err)
	must(b, f.Preallocate(16<<20))
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	for i := range b.N {
		_, _ = f.WriteAt(buf, int64(i%256)<<16)
		_ = f.Datasync()
	}
}
