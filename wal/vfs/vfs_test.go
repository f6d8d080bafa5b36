package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// each runs a test over every implementation, in an empty directory.
func each(t *testing.T, test func(t *testing.T, fsys FS, dir string)) {
	t.Run("os", func(t *testing.T) { test(t, OS, t.TempDir()) })
	t.Run("lossy", func(t *testing.T) { test(t, NewLossy(1), ".") })
	t.Run("failing", func(t *testing.T) { test(t, NewFailing(NewLossy(1)), "/") })
}

func put(t testing.TB, fsys FS, name, content string, sync bool) {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	must(t, err)
	_, err = f.Write([]byte(content))
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
	must(t, f.Close())
}

func get(t testing.TB, fsys FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	defer f.Close()
	content, err := io.ReadAll(f)
	must(t, err)
	return string(content)
}

func TestFilesAndDirectories(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		must(t, fsys.MkdirAll(at("a/b/c"), 0o755))
		must(t, fsys.MkdirAll(at("a/b/c"), 0o755))
		if err := fsys.Mkdir(at("a"), 0o755); !errors.Is(err, fs.ErrExist) {
			t.Fatalf("mkdir again: %v", err)
		}
		put(t, fsys, at("a/b/one"), "hello world", true)
		must(t, fsys.Rename(at("a/b/one"), at("a/two")))
		put(t, fsys, at("a/three"), "3", false)
		must(t, fsys.Rename(at("a/three"), at("a/two")))
		if got := get(t, fsys, at("a/two")); got != "3" {
			t.Fatalf("a/two is %q", got)
		}
		entries, err := fsys.ReadDir(at("a"))
		must(t, err)
		if len(entries) != 2 || entries[0].Name() != "b" || !entries[0].IsDir() || entries[1].Name() != "two" {
			t.Fatalf("a holds %v", entries)
		}
		info, err := fsys.Stat(at("a/two"))
		must(t, err)
		if info.Size() != 1 || info.Name() != "two" || info.IsDir() {
			t.Fatalf("a/two is %v", info)
		}
		must(t, fsys.SyncDir(at("a")))
		for what, err := range map[string]error{
			"open":    second(fsys.Open(at("none"))),
			"stat":    second(fsys.Stat(at("none/x"))),
			"readdir": second(fsys.ReadDir(at("none"))),
			"remove":  fsys.Remove(at("none")),
			"rename":  fsys.Rename(at("none"), at("other")),
			"sync":    fsys.SyncDir(at("none")),
			"mkdir":   fsys.Mkdir(at("none/x"), 0o755),
		} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("%s of nothing: %v", what, err)
			}
		}
		if err := fsys.Remove(at("a")); err == nil {
			t.Fatal("a full directory was removed")
		}
		if _, err := fsys.OpenFile(at("a/two"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); !errors.Is(err, fs.ErrExist) {
			t.Fatalf("exclusive create of a file that is there: %v", err)
		}
		must(t, fsys.RemoveAll(at("a")))
		must(t, fsys.RemoveAll(at("a")))
		if _, err := fsys.Stat(at("a")); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("a is still there: %v", err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestPreallocate(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		for _, size := range []int64{0, 1, 4096, 1<<20 + 17} {
			name := filepath.Join(dir, fmt.Sprint(size))
			f, err := fsys.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
			must(t, err)
			_, err = f.WriteAt(bytes.Repeat([]byte{1}, 10_000), 0)
			must(t, err)
			must(t, f.Preallocate(size))
			info, err := f.Stat()
			must(t, err)
			must(t, f.Datasync())
			must(t, f.Close())
			if got := get(t, fsys, name); info.Size() != size || got != string(make([]byte, size)) {
				t.Fatalf("%d bytes of zeros: size %d, %d bytes", size, info.Size(), len(got))
			}
		}
	})
}

// Without this two servers on one data directory would destroy it.
func TestLock(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		put(t, fsys, filepath.Join(dir, "file"), "", false)
		must(t, fsys.MkdirAll(filepath.Join(dir, "dir"), 0o755))
		for _, name := range []string{filepath.Join(dir, "file"), filepath.Join(dir, "dir")} {
			a, err := fsys.Open(name)
			must(t, err)
			b, err := fsys.Open(name)
			must(t, err)
			must(t, a.Lock())
			must(t, a.Lock())
			if err := b.Lock(); !errors.Is(err, ErrLocked) {
				t.Fatalf("second lock of %s: %v", name, err)
			}
			must(t, a.Close())
			must(t, b.Lock())
			must(t, b.Close())
			if err := b.Lock(); err == nil {
				t.Fatal("a closed file was locked")
			}
		}
	})
}

// Whatever is tested over Lossy is worth something only if it behaves as the real file system does.
func TestLossyActsAsTheRealOne(t *testing.T) {
	dir := t.TempDir()
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		real, lossy := filepath.Join(dir, fmt.Sprint(round)), NewLossy(1)
		must(t, os.Mkdir(real, 0o755))
		both := func(what string, op func(fsys FS, at func(string) string) (string, error)) {
			a, errA := op(OS, func(name string) string { return filepath.Join(real, name) })
			b, errB := op(lossy, func(name string) string { return name })
			if a != b || (errA == nil) != (errB == nil) ||
				errors.Is(errA, fs.ErrNotExist) != errors.Is(errB, fs.ErrNotExist) ||
				errors.Is(errA, fs.ErrExist) != errors.Is(errB, fs.ErrExist) {
				rt.Fatalf("%s: real %q, %v; lossy %q, %v", what, a, errA, b, errB)
			}
		}
		name := rapid.SampledFrom([]string{"a", "b", "d", "d/a", "d/b", "d/e", "d/e/a"})
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			n, m := name.Draw(rt, "name"), name.Draw(rt, "other")
			off, size := rapid.Int64Range(0, 2000).Draw(rt, "offset"), rapid.IntRange(2, 2000).Draw(rt, "size")
			flag := rapid.SampledFrom([]int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND,
				os.O_CREATE | os.O_RDWR, os.O_CREATE | os.O_WRONLY | os.O_TRUNC, os.O_CREATE | os.O_EXCL | os.O_RDWR}).Draw(rt, "flag")
			step := rapid.IntRange(0, 7).Draw(rt, "step")
			both(fmt.Sprint("step ", step, " ", n, " ", m), func(fsys FS, at func(string) string) (string, error) {
				switch step {
				case 0:
					return "", fsys.Mkdir(at(n), 0o755)
				case 1:
					return "", fsys.MkdirAll(at(n), 0o755)
				case 2:
					return "", fsys.Remove(at(n))
				case 3:
					return "", fsys.RemoveAll(at(n))
				case 4:
					if len(n) < len(m) && m[:len(n)] == n {
						return "", nil // into itself: EINVAL there, and nobody does it
					}
					return "", fsys.Rename(at(n), at(m))
				case 5:
					entries, err := fsys.ReadDir(at(n))
					s := ""
					for _, e := range entries {
						s += fmt.Sprint(e.Name(), e.IsDir(), " ")
					}
					return s, err
				default:
					return useFile(fsys, at(n), flag, off, size)
				}
			})
		}
	})
}

// useFile writes, cuts and reads, and returns all that is to be seen.
func useFile(fsys FS, name string, flag int, off int64, size int) (string, error) {
	f, err := fsys.OpenFile(name, flag, 0o644)
	if err != nil {
		return "", err
	}
	defer f.Close()
	seen := ""
	note := func(n int, err error) { seen += fmt.Sprint(n, " ", err == nil, " ", err == io.EOF, "; ") }
	note(f.WriteAt(bytes.Repeat([]byte{'a'}, size), off))
	note(f.Write(bytes.Repeat([]byte{'b'}, size/2)))
	if size%3 == 0 {
		note(0, f.Truncate(off/2))
	}
	buf := make([]byte, size)
	note(f.ReadAt(buf, off/3))
	seen += string(buf)
	note(f.Read(buf[:size/2]))
	seen += string(buf)
	if info, err := f.Stat(); err == nil && !info.IsDir() {
		seen += fmt.Sprint(info.Size())
	}
	return seen, nil
}
