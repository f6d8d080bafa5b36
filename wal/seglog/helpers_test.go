package seglog

// What the tests share: both implementations, records whose content follows from their LSN, and places to put logs.

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"quail/wal/record"
	"quail/wal/vfs"
)

const testIncarnation = 7

// variant is one implementation with a place for it to live.
type variant struct {
	name string
	open func(Config, uint64, uint64) (Log, Report, error)
	fs   func(t *testing.T) (vfs.FS, string)
}

// variants are what each test of the contract runs over.
var variants = []variant{
	{"tidwall", Open, func(t *testing.T) (vfs.FS, string) { return vfs.OS, fastDir(t) }},
	{"sim", OpenSim, func(t *testing.T) (vfs.FS, string) { return vfs.NewLossy(1), "logs" }},
}

// eachVariant runs a test over both implementations. dir's parent exists.
func eachVariant(t *testing.T, test func(t *testing.T, v variant, cfg Config)) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			fsys, root := v.fs(t)
			must(t, fsys.MkdirAll(root, 0o755))
			test(t, v, Config{
				FS: fsys, Dir: filepath.Join(root, "log"), Incarnation: testIncarnation, SegmentBytes: 4096,
				DamagedDir: filepath.Join(root, "damaged"),
			})
		})
	}
}

// fastDir is a directory in memory if the machine has one: tests that open a log thousands of times prove nothing about
// syncs and shall not wait for them.
func fastDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "seglog")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// fataler is a testing.TB or a rapid.T.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// makeRecord is the record of an LSN: its size varies and its body has no zero byte, so that overwriting with zeros
// always changes it.
func makeRecord(lsn uint64) []byte { return makeSized(lsn, int(lsn*37%200)) }

func makeSized(lsn uint64, bodyBytes int) []byte {
	body := bytes.Repeat([]byte{byte(lsn%255) + 1}, bodyBytes+1)
	return record.Append(nil, &record.Record{
		LSN: lsn, Incarnation: testIncarnation, Kind: 2, Meta: []byte{byte(lsn%255) + 1}, Body: body,
	})
}

func makeRecords(first, last uint64) [][]byte {
	var records [][]byte
	for lsn := first; lsn <= last; lsn++ {
		records = append(records, makeRecord(lsn))
	}
	return records
}

// build makes a log with records first to last, closes it, and returns its configuration.
func build(t testing.TB, v variant, cfg Config, first, last uint64) {
	t.Helper()
	log, _, err := v.open(cfg, first, first-1)
	must(t, err)
	must(t, log.Append(makeRecords(first, last)))
	must(t, log.Sync())
	must(t, log.Close())
}

// readAll reads from LSN first to the end in steps of maxBytes.
func readAll(log Log, first uint64, maxBytes int) ([][]byte, error) {
	var all [][]byte
	for {
		before := len(all)
		var err error
		if all, err = log.Read(first+uint64(before), maxBytes, all); err != nil || len(all) == before {
			return all, err
		}
	}
}

// checkContent reads the whole log and compares it.
func checkContent(t testing.TB, log Log, first, last uint64) {
	t.Helper()
	if log.First() > first || log.Last() != last {
		t.Fatalf("log holds %d to %d, want %d to %d", log.First(), log.Last(), first, last)
	}
	all, err := readAll(log, first, 1000)
	must(t, err)
	if uint64(len(all)) != last+1-first {
		t.Fatalf("read %d records, want %d", len(all), last+1-first)
	}
	for i, rec := range all {
		if !bytes.Equal(rec, makeRecord(first+uint64(i))) {
			t.Fatalf("LSN %d reads wrong", first+uint64(i))
		}
	}
}

func wantCorrupt(t testing.TB, err error, file string) *CorruptError {
	t.Helper()
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) {
		t.Fatalf("got %v, want a CorruptError", err)
	}
	if file != "" && filepath.Base(corrupt.File) != file {
		t.Fatalf("blames %s at %d, want %s: %v", corrupt.File, corrupt.Offset, file, err)
	}
	return corrupt
}

// files reads a directory whole: name to content.
func files(t testing.TB, fsys vfs.FS, dir string) map[string]string {
	t.Helper()
	entries, err := fsys.ReadDir(dir)
	must(t, err)
	all := map[string]string{}
	for _, entry := range entries {
		all[entry.Name()] = string(readFile(t, fsys, filepath.Join(dir, entry.Name())))
	}
	return all
}

func readFile(t testing.TB, fsys vfs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	buf := make([]byte, info.Size())
	if len(buf) > 0 {
		_, err = f.ReadAt(buf, 0)
		must(t, err)
	}
	return buf
}

func writeFile(t testing.TB, fsys vfs.FS, name string, content []byte) {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	must(t, err)
	_, err = f.Write(content)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	must(t, fsys.SyncDir(filepath.Dir(name)))
}

func sameFiles(a, b map[string]string) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d files and %d", len(a), len(b))
	}
	for name, content := range a {
		if other, ok := b[name]; !ok || other != content {
			return fmt.Errorf("%s differs", name)
		}
	}
	return nil
}

// entryEnds are the offsets where the entries of a segment end; the first is 0.
func entryEnds(t testing.TB, segment []byte) []int64 {
	t.Helper()
	ends := []int64{0}
	for at := 0; at < len(segment); {
		prefix, size, more, err := entryLen(segment[at:])
		if err != nil || more {
			t.Fatalf("no entry at %d: %v", at, err)
		}
		at += prefix + size
		ends = append(ends, int64(at))
	}
	return ends
}

func newDice(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 11)) }
