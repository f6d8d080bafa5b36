package seglog

// What tidwall/wal was seen to do, one test each: first the library alone does it, then the log over it does not. The
// first half keeps the test honest; should it fail with a newer library, that part of the wrapper may be dropped.

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/tidwall/wal"

	"quail/wal/vfs"
)

// trap is a fresh log over the real library with records 1 to 300 in segments of 4 KB, and a failing vfs that fails
// nothing yet.
func trap(t *testing.T, last uint64) (Config, *vfs.Failing) {
	failing := vfs.NewFailing(vfs.OS)
	cfg := Config{FS: failing, Dir: filepath.Join(fastDir(t), "log"), Incarnation: testIncarnation, SegmentBytes: 4096}
	build(t, variants[0], cfg, 1, last)
	failing.Reset()
	return cfg, failing
}

// bare opens the library by itself on a log's directory.
func bare(t *testing.T, cfg Config) (*wal.Log, error) {
	t.Helper()
	log, err := wal.Open(cfg.Dir, &wal.Options{NoSync: true, SegmentSize: cfg.SegmentBytes, AllowEmpty: true})
	if err == nil {
		t.Cleanup(func() { log.Close() })
	}
	return log, err
}

// segmentPaths lists a log's segments.
func segmentPaths(t *testing.T, cfg Config) (paths []string) {
	entries, err := os.ReadDir(cfg.Dir)
	must(t, err)
	for _, e := range entries {
		paths = append(paths, filepath.Join(cfg.Dir, e.Name()))
	}
	return paths
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}

// Trap: no checksum. A flipped bit of a message would be delivered.
func TestTrapNoChecksum(t *testing.T) {
	cfg, _ := trap(t, 300)
	flip := func() {
		content, err := os.ReadFile(segmentPaths(t, cfg)[0])
		must(t, err)
		content[entryEnds(t, content)[1]-1] ^= 4
		must(t, os.WriteFile(segmentPaths(t, cfg)[0], content, 0o644))
	}
	log, _, err := Open(cfg, 1, 300)
	must(t, err)
	defer log.Close()
	flip()
	lib, err := bare(t, cfg)
	must(t, err)
	if got, err := lib.Read(1); err != nil || bytes.Equal(got, makeRecord(1)) {
		t.Fatalf("the library noticed: %v", err)
	}
	_, err = log.Read(1, 10, nil)
	wantCorrupt(t, err, segmentName(1))
}

// Traps: torn tail, and the descriptor that a failed Open leaks.
func TestTrapTornTail(t *testing.T) {
	cfg, _ := trap(t, 300)
	paths := segmentPaths(t, cfg)
	tail := paths[len(paths)-1]
	content, err := os.ReadFile(tail)
	must(t, err)
	must(t, os.WriteFile(tail, content[:len(content)-1], 0o644))
	ends := entryEnds(t, content)
	last := 300 - uint64(len(ends)-1) + 1 // the tail's first record
	if _, err := bare(t, cfg); !errors.Is(err, wal.ErrCorrupt) {
		t.Fatalf("the library opened a torn tail: %v", err)
	}
	debug.SetGCPercent(-1) // a collection would close leaked descriptors
	defer debug.SetGCPercent(100)
	runtime.GC()
	before := descriptors(t)
	for range 10 {
		if _, _, err := Open(cfg, 1, 300); err == nil {
			t.Fatal("a log without its last record was opened")
		}
	}
	if after := descriptors(t); after > before {
		t.Fatalf("failed opens leak %d descriptors", after-before)
	}
	log, report, err := Open(cfg, 1, last)
	must(t, err)
	if report.TornBytes == 0 {
		t.Fatalf("%+v", report)
	}
	checkContent(t, log, 1, last)
	must(t, log.Close())
}

// Trap: zeroed tail. The library makes one entry of each byte, and the next append would get a wrong LSN.
func TestTrapZeroedTail(t *testing.T) {
	cfg, _ := trap(t, 300)
	paths := segmentPaths(t, cfg)
	tail, err := os.OpenFile(paths[len(paths)-1], os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = tail.Write(make([]byte, 100))
	must(t, err)
	must(t, tail.Close())
	lib, err := bare(t, cfg)
	must(t, err)
	if last, _ := lib.LastIndex(); last != 400 {
		t.Fatalf("the library ends at %d", last)
	}
	log, _, err := Open(cfg, 1, 300)
	must(t, err)
	must(t, log.Append(makeRecords(301, 302)))
	checkContent(t, log, 1, 302)
	must(t, log.Close())
}

// Trap: rot is not a tear. See TestTailDamagedAtEveryByte; here, that the library gives the rest of the log away.
func TestTrapRotIsNotATear(t *testing.T) {
	cfg, _ := trap(t, 300)
	paths := segmentPaths(t, cfg)
	tail := paths[len(paths)-1]
	content, err := os.ReadFile(tail)
	must(t, err)
	content[40] ^= 1
	must(t, os.WriteFile(tail, content, 0o644))
	if _, err := bare(t, cfg); err != nil {
		t.Fatalf("the library noticed: %v", err)
	}
	_, _, err = Open(cfg, 1, 300)
	wantCorrupt(t, err, filepath.Base(tail))
	after, err := os.ReadFile(tail)
	must(t, err)
	if !bytes.Equal(after, content) {
		t.Fatal("the corrupt segment was changed")
	}
}

// Trap: a missing middle segment opens, and reading panics.
func TestTrapMissingMiddleSegment(t *testing.T) {
	cfg, _ := trap(t, 300)
	must(t, os.Remove(segmentPaths(t, cfg)[1]))
	lib, err := bare(t, cfg)
	must(t, err)
	func() {
		defer func() {
			if recover() == nil {
				t.Fatal("the library does not panic")
			}
		}()
		for lsn := uint64(1); lsn <= 300; lsn++ {
			_, _ = lib.Read(lsn)
		}
	}()
	_, _, err = Open(cfg, 1, 300)
	wantCorrupt(t, err, segmentName(1))
}

// Trap: a missing first segment is accepted, and messages are gone.
func TestTrapMissingFirstSegment(t *testing.T) {
	cfg, _ := trap(t, 300)
	must(t, os.Remove(segmentPaths(t, cfg)[0]))
	lib, err := bare(t, cfg)
	must(t, err)
	if first, err := lib.FirstIndex(); err != nil || first == 1 {
		t.Fatalf("the library begins at %d, %v", first, err)
	}
	_, _, err = Open(cfg, 1, 300)
	wantCorrupt(t, err, "log")
}

// limitFileSize lets no write go beyond size bytes of any file, so a write fails in the middle as on a full disk.
func limitFileSize(t *testing.T, size uint64) (lift func()) {
	signal.Ignore(syscall.SIGXFSZ)
	var old syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old))
	limit := old
	limit.Cur = size
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	return func() { must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old)) }
}

// Trap: after a failed write a retry succeeds, reads give what never was written, and the reopened log is corrupt.
func TestTrapFailedWrite(t *testing.T) {
	cfg, _ := trap(t, 10)
	cfg.SegmentBytes = 1 << 20
	lib, err := bare(t, cfg)
	must(t, err)
	size, err := os.Stat(segmentPaths(t, cfg)[0])
	must(t, err)

	lift := limitFileSize(t, uint64(size.Size()+20))
	err = lib.Write(11, makeRecord(11))
	lift()
	if err == nil {
		t.Fatal("the write did not fail")
	}
	if err := lib.Write(11, []byte("the retry")); err != nil {
		t.Fatalf("the library refuses a retry: %v", err)
	}
	if got, err := lib.Read(11); err != nil || !bytes.Equal(got, makeRecord(11)) {
		t.Fatalf("the library does not give the failed write back: %q, %v", got, err)
	}
	must(t, lib.Close())

	log, _, err := Open(cfg, 1, 10)
	must(t, err)
	lift = limitFileSize(t, uint64(size.Size()+20))
	err = log.Append(makeRecords(11, 12))
	lift()
	if !errors.Is(err, syscall.EFBIG) {
		t.Fatalf("append says %v", err)
	}
	checkFinal(t, log, err)
	log, report, err := Open(cfg, 1, 10)
	must(t, err)
	if report.TornBytes == 0 {
		t.Fatalf("nothing was torn: %+v", report)
	}
	must(t, log.Append(makeRecords(11, 20)))
	checkContent(t, log, 1, 20)
	must(t, log.Close())
}

// Trap: after a failed fsync the next one succeeds.
func TestTrapFailedSync(t *testing.T) {
	cfg, failing := trap(t, 10)
	log, _, err := Open(cfg, 1, 10)
	must(t, err)
	must(t, log.Append(makeRecords(11, 20)))
	failing.Reset()
	failing.FailAtHow(3, vfs.FailDropped, vfs.ErrInjected) // open, stat, sync
	err = log.Sync()
	if !errors.Is(err, vfs.ErrInjected) || failing.Ops()[2].Kind != vfs.OpSync {
		t.Fatalf("sync says %v; %v", err, failing.Ops())
	}
	syncs := failing.Count()
	checkFinal(t, log, err)
	if failing.Count() != syncs {
		t.Fatalf("something was tried after a failed sync: %v", failing.Ops()[syncs:])
	}
	log, _, err = Open(cfg, 1, 10)
	must(t, err)
	checkContent(t, log, 1, 10)
	must(t, log.Close())
}

// Trap: when a new segment cannot be made, every later write is EINVAL, but the ones before were reported as failed.
func TestTrapFailedSegmentCreate(t *testing.T) {
	cfg, _ := trap(t, 10)
	log, _, err := Open(cfg, 1, 10)
	must(t, err)
	must(t, os.Mkdir(filepath.Join(cfg.Dir, segmentName(12)), 0o755))
	large := makeSized(11, 5000)
	err = log.Append([][]byte{large})
	if !errors.Is(err, syscall.EISDIR) {
		t.Fatalf("append says %v", err)
	}
	if last := log.Last(); last != 10 {
		t.Fatalf("the log ends at %d", last)
	}
	_, readErr := log.Read(1, 10, nil)
	for _, again := range []error{log.Append([][]byte{large}), log.Sync(), readErr} {
		if again != err {
			t.Fatalf("after %v the log says %v", err, again)
		}
	}
	_ = log.Close()
	must(t, os.Remove(filepath.Join(cfg.Dir, segmentName(12))))
	log, _, err = Open(cfg, 1, 10)
	must(t, err)
	must(t, log.Append([][]byte{large}))
	must(t, log.Close())
}

// Trap: the directory is never synced. A new segment would be missing after a power cut, a removed one back.
func TestTrapDirectorySync(t *testing.T) {
	cfg, failing := trap(t, 10)
	synced := func(what string, want bool) {
		t.Helper()
		got := false
		for i, op := range failing.Ops() {
			if op.Kind == vfs.OpRemove || op.Kind == vfs.OpCreate || op.Kind == vfs.OpRename {
				got = false
			}
			if op.Kind == vfs.OpSyncDir && op.Path == cfg.Dir && (i == len(failing.Ops())-1 || what != "Sync") {
				got = true
			}
		}
		if got != want {
			t.Fatalf("%s: directory synced: %v, operations %v", what, got, failing.Ops())
		}
		failing.Reset()
	}
	log, _, err := Open(cfg, 1, 10)
	must(t, err)
	must(t, log.Append(makeRecords(11, 12)))
	failing.Reset()
	must(t, log.Sync())
	synced("Sync without a new segment", false)
	must(t, log.Append(makeRecords(13, 100)))
	must(t, log.Sync())
	synced("Sync", true)
	must(t, log.CutFront(90))
	synced("CutFront", true)
	must(t, log.CutFront(101))
	synced("CutFront of all", true)
	must(t, log.Append(makeRecords(101, 200)))
	must(t, log.Close())
	failing.Reset()
	log, _, err = Open(cfg, 101, 120)
	must(t, err)
	cut := false
	for i, op := range failing.Ops() {
		cut = cut || op.Kind == vfs.OpTruncate && failing.Ops()[i+1] == vfs.Op{Kind: vfs.OpSync, Path: op.Path}
	}
	if !cut {
		t.Fatalf("the tail was not cut, or not synced then: %v", failing.Ops())
	}
	synced("Open that cuts the tail", true)
	must(t, log.Close())
	must(t, os.RemoveAll(cfg.Dir))
	log, _, err = Open(cfg, 121, 120)
	must(t, err)
	synced("Open of a new log", true)
	must(t, log.Close())
}

// Traps: reads and appends wait behind the library's sync, and its Sync is used. Here a sync hangs until an append and a
// read are done.
func TestTrapReadsAndAppendsBesideSync(t *testing.T) {
	slow := &slowSync{FS: vfs.OS, reached: make(chan struct{}), release: make(chan struct{})}
	cfg := Config{FS: slow, Dir: filepath.Join(fastDir(t), "log"), Incarnation: testIncarnation}
	log, _, err := Open(cfg, 1, 0)
	must(t, err)
	must(t, log.Append(makeRecords(1, 10)))
	synced := make(chan error)
	go func() { synced <- log.Sync() }()
	<-slow.reached
	must(t, log.Append(makeRecords(11, 20)))
	checkContent(t, log, 1, 20)
	close(slow.release)
	must(t, <-synced)
	must(t, log.Close())
}

// Trap: the library opens the tail twice, and if there is a descriptor for one alone it leaks that. Each try then cost the descriptor that another
// log was closed for, until nothing was left to close.
func TestTrapDescriptorsForOneOfTwo(t *testing.T) {
	cfg, _ := trap(t, 10)
	log, _, err := Open(cfg, 1, 10)
	must(t, err)
	defer log.Close()
	var limit syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = uint64(descriptors(t) + 20)
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection would close leaked descriptors
	before := descriptors(t)
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low))
	var taken []int
	for err == nil {
		var fd int
		if fd, err = syscall.Open(os.DevNull, os.O_RDONLY, 0); err == nil {
			taken = append(taken, fd)
		}
	}
	var tries []error
	if len(taken) > 2 {
		for range 2 { // each as if somebody had closed another log
			syscall.Close(taken[0])
			taken = taken[1:]
			tries = append(tries, log.Prepare())
		}
	}
	for _, fd := range taken {
		syscall.Close(fd)
	}
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	if len(tries) != 2 || !vfs.OutOfDescriptors(tries[0]) || tries[1] != nil {
		t.Fatalf("with one descriptor, and with two: %v", tries)
	}
	if after := descriptors(t); after != before+1 {
		t.Fatalf("a log that is written takes %d descriptors", after-before)
	}
	must(t, log.Append(makeRecords(11, 12)))
}

// The kernel reports a lost write to one descriptor. If that was the library's, in an append beside the sync, then the
// sync must not say that all is well.
func TestSyncBesideAFailingAppend(t *testing.T) {
	slow := &slowSync{FS: vfs.OS, reached: make(chan struct{}), release: make(chan struct{})}
	cfg := Config{FS: slow, Dir: filepath.Join(fastDir(t), "log"), Incarnation: testIncarnation, SegmentBytes: 4096}
	log, _, err := Open(cfg, 1, 0)
	must(t, err)
	must(t, log.Append(makeRecords(1, 10)))
	must(t, os.Mkdir(filepath.Join(cfg.Dir, segmentName(12)), 0o755))
	synced := make(chan error)
	go func() { synced <- log.Sync() }()
	<-slow.reached
	appendErr := log.Append([][]byte{makeSized(11, 5000)})
	close(slow.release)
	if err := <-synced; err == nil || err != appendErr {
		t.Fatalf("append says %v, sync beside it %v", appendErr, err)
	}
	_ = log.Close()
}

// slowSync is a file system whose first Sync waits.
type slowSync struct {
	vfs.FS
	reached, release chan struct{}
}

type slowFile struct {
	vfs.File
	fs *slowSync
}

func (s *slowSync) Open(name string) (vfs.File, error) {
	f, err := s.FS.Open(name)
	return &slowFile{f, s}, err
}

func (f *slowFile) Sync() error {
	select {
	case <-f.fs.release:
	default:
		close(f.fs.reached)
		<-f.fs.release
	}
	return f.File.Sync()
}

// Trap: a stale own descriptor. The tail may be another file after each of these steps; what is synced must be the one
// that is written.
func TestTrapStaleDescriptor(t *testing.T) {
	cfg, _ := trap(t, 10)
	watch := &watchSync{FS: vfs.OS}
	cfg.FS = watch
	log, _, err := Open(cfg, 1, 5)
	must(t, err)
	check := func(what string) {
		t.Helper()
		watch.synced = nil
		must(t, log.Sync())
		paths := segmentPaths(t, cfg)
		tail, err := os.Stat(paths[len(paths)-1])
		must(t, err)
		if len(watch.synced) == 0 || !os.SameFile(watch.synced[0], tail) {
			t.Fatalf("%s: the synced file is not the tail", what)
		}
	}
	must(t, log.Append(makeRecords(6, 7)))
	check("tail was cut")
	must(t, log.Append([][]byte{makeSized(8, 5000)}))
	must(t, log.Append(makeRecords(9, 10)))
	check("a new segment")
	must(t, log.CutFront(11))
	must(t, log.Append(makeRecords(11, 12)))
	check("everything was cut")
	// The check itself: a tail that is not what was written is an error.
	must(t, log.Append(makeRecords(13, 20)))
	paths := segmentPaths(t, cfg)
	must(t, os.Remove(paths[len(paths)-1]))
	must(t, os.WriteFile(paths[len(paths)-1], nil, 0o644))
	if err := log.Sync(); err == nil {
		t.Fatal("the sync of another, empty file passed")
	}
	log.Close()
}

// watchSync notes which files are synced.
type watchSync struct {
	vfs.FS
	synced []os.FileInfo
}

type watchFile struct {
	vfs.File
	fs *watchSync
}

func (w *watchSync) Open(name string) (vfs.File, error) {
	f, err := w.FS.Open(name)
	return &watchFile{f, w}, err
}

func (f *watchFile) Sync() error {
	info, err := f.Stat()
	if err == nil {
		f.fs.synced = append(f.fs.synced, info)
		err = f.File.Sync()
	}
	return err
}

// Trap: memory. The library keeps segments and the largest batch.
func TestTrapMemory(t *testing.T) {
	cfg := Config{FS: vfs.OS, Dir: filepath.Join(fastDir(t), "log"), Incarnation: testIncarnation, SegmentBytes: 256 << 10}
	log, _, err := Open(cfg, 1, 0)
	must(t, err)
	defer log.Close()
	lsn := uint64(1)
	var records [][]byte
	for range 4000 {
		records = append(records, makeSized(lsn, 10_000))
		lsn++
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	must(t, log.Append(records))
	runtime.GC()
	runtime.GC() // the pools keep what they have for one collection
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > int64(cfg.SegmentBytes) {
		t.Fatalf("a log with segments of %d bytes keeps %d bytes in memory after 40 MB", cfg.SegmentBytes, grown)
	}
	runtime.KeepAlive(records)
}

// Trap: descriptors. A log that is written needs one, and gives it back, also when it ends in an error; one that is only read needs none.
func TestTrapDescriptors(t *testing.T) {
	cfg, failing := trap(t, 300)
	debug.SetGCPercent(-1)
	defer debug.SetGCPercent(100)
	before := descriptors(t)
	for i := range 5 {
		log, _, err := Open(cfg, 1, 300)
		must(t, err)
		checkContent(t, log, 1, 300)
		if open := descriptors(t) - before; open != 0 || log.Stats().TailBytes != 0 {
			t.Fatalf("a log that was only read has %d descriptors, and %d bytes in memory", open, log.Stats().TailBytes)
		}
		if i > 0 {
			must(t, log.Prepare())
			if open := descriptors(t) - before; open != 1 || log.Stats().TailBytes == 0 {
				t.Fatalf("a log that is written has %d descriptors, and %d bytes in memory", open, log.Stats().TailBytes)
			}
		}
		if i%2 == 1 {
			must(t, log.Append(makeRecords(301, 301)))
			failing.Reset()
			failing.FailAt(1, vfs.ErrInjected)
			if log.Sync() == nil {
				t.Fatal("the sync did not fail")
			}
		}
		_ = log.Close()
		if open := descriptors(t) - before; open != 0 {
			t.Fatalf("a closed log has %d descriptors", open)
		}
	}
}

// Trap: TruncateFront copies the rest of the segment in which it cuts.
func TestTrapTruncateFrontCopies(t *testing.T) {
	cfg := Config{FS: vfs.OS, Dir: filepath.Join(fastDir(t), "log"), Incarnation: testIncarnation, SegmentBytes: 100_000}
	build(t, variants[0], cfg, 1, 2000)
	log, _, err := Open(cfg, 1, 2000)
	must(t, err)
	paths := segmentPaths(t, cfg)
	boundary := paths[1]
	first, _, _ := parseName(filepath.Base(boundary))
	before, err := os.Stat(boundary)
	must(t, err)
	must(t, log.CutFront(first+10))
	after, err := os.Stat(boundary)
	must(t, err)
	if !os.SameFile(before, after) || len(segmentPaths(t, cfg)) != len(paths)-1 {
		t.Fatal("the boundary segment was replaced, or the one before is still there")
	}
	must(t, log.Close())

	lib, err := bare(t, cfg)
	must(t, err)
	must(t, lib.TruncateFront(first+10))
	if _, err := os.Stat(boundary); err == nil {
		t.Fatal("the library keeps the boundary segment")
	}
}

// Trap: Open writes into the options it is given, and without AllowEmpty the last record can never go.
func TestTrapOptions(t *testing.T) {
	var opts wal.Options
	lib, err := wal.Open(fastDir(t), &opts)
	must(t, err)
	must(t, lib.Close())
	if opts == (wal.Options{}) {
		t.Fatal("the library leaves its options alone")
	}
	w := &tidwallWriter{}
	a, b := w.options(), w.options()
	if a == b || !a.AllowEmpty || !a.NoSync {
		t.Fatal("options are shared, or wrong")
	}
}

// The error must tell an operator where to look.
func TestCorruptErrorNamesThePlace(t *testing.T) {
	cfg, _ := trap(t, 10)
	path := segmentPaths(t, cfg)[0]
	content, err := os.ReadFile(path)
	must(t, err)
	ends := entryEnds(t, content)
	content[ends[4]+20] ^= 1
	must(t, os.WriteFile(path, content, 0o644))
	_, _, err = Open(cfg, 1, 10)
	corrupt := wantCorrupt(t, err, segmentName(1))
	if corrupt.Offset != ends[4] || corrupt.LSN != 5 || corrupt.File != path {
		t.Fatalf("%+v", corrupt)
	}
	for _, want := range []string{path, fmt.Sprintf("offset %d", ends[4]), "LSN 5", "checksum"} {
		if !strings.Contains(err.Error(), want) {
			t.Fatalf("%q does not say %q", err, want)
		}
	}
}
