package seglog

// Rewriting: what is live stays readable, what is dead is gone, and whatever fails or ends on the way, one of the two is in force.

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"quail/wal/vfs"
)

// everyNth is the live LSNs of a span.
func everyNth(first, last, n uint64) []uint64 {
	var live []uint64
	for lsn := (first + n - 1) / n * n; lsn <= last; lsn += n {
		live = append(live, lsn)
	}
	return live
}

// sized are records with bodies of one size.
func sized(first, last uint64, bodyBytes int) (records [][]byte) {
	for lsn := first; lsn <= last; lsn++ {
		records = append(records, makeSized(lsn, bodyBytes))
	}
	return records
}

func rewriteAll(log Log, live []uint64) error {
	sealed := log.Sealed(log.Last(), nil)
	if len(sealed) == 0 {
		return nil
	}
	first, last := sealed[0].First, sealed[len(sealed)-1].Last
	from, _ := slices.BinarySearch(live, first)
	to, _ := slices.BinarySearch(live, last+1)
	return log.Rewrite(first, last, live[from:to])
}

// checkLive reads every LSN: the live ones are there, the others are there or left out, and nothing else comes.
func checkLive(t fataler, log Log, from uint64, live map[uint64]bool) {
	t.Helper()
	for lsn := from; lsn <= log.Last(); lsn++ {
		got, err := log.Read(lsn, 300, nil)
		if errors.Is(err, ErrOutOfRange) && !live[lsn] {
			continue
		}
		must(t, err)
		if len(got) == 0 {
			t.Fatalf("LSN %d reads nothing", lsn)
		}
		for i, rec := range got {
			if !bytes.Equal(rec, makeRecord(lsn+uint64(i))) {
				t.Fatalf("LSN %d reads wrong in a read from %d", lsn+uint64(i), lsn)
			}
		}
	}
}

// readLive reads these LSNs alone.
func readLive(t fataler, log Log, live []uint64) {
	t.Helper()
	for _, lsn := range live {
		got, err := log.Read(lsn, 1, nil)
		must(t, err)
		if len(got) != 1 || !bytes.Equal(got[0], makeRecord(lsn)) {
			t.Fatalf("LSN %d reads wrong", lsn)
		}
	}
}

func liveSet(ids []uint64) map[uint64]bool {
	set := map[uint64]bool{}
	for _, id := range ids {
		set[id] = true
	}
	return set
}

func TestRewriteKeepsWhatIsLive(t *testing.T) {
	for _, n := range []uint64{2, 3, 17, 1000} {
		eachVariant(t, func(t *testing.T, v variant, cfg Config) {
			build(t, v, cfg, 1, 900)
			log, _, err := v.open(cfg, 1, 900)
			must(t, err)
			live := everyNth(1, 900, n)
			before := log.Stats()
			must(t, rewriteAll(log, live))
			after := log.Stats()
			if after.Segments != 2 || after.Rewritten != 1 || after.Bytes >= before.Bytes {
				t.Fatalf("before: %+v, after: %+v", before, after)
			}
			tail := log.(*core).tail().first
			expect := liveSet(live)
			for lsn := tail; lsn <= 900; lsn++ {
				expect[lsn] = true
			}
			checkLive(t, log, 1, expect)
			for lsn := uint64(1); lsn < tail; lsn++ {
				if _, err := log.Read(lsn, 1, nil); errors.Is(err, ErrOutOfRange) == expect[lsn] {
					t.Fatalf("LSN %d, live %v: %v", lsn, expect[lsn], err)
				}
			}
			must(t, log.Append(makeRecords(901, 1200)))
			must(t, log.Sync())
			must(t, log.Close())
			if n := len(files(t, cfg.FS, cfg.Dir)); n != log.Stats().Segments {
				t.Fatalf("%d files are left, %d segments are known", n, log.Stats().Segments)
			}

			log, report, err := v.open(cfg, 1, 1200)
			must(t, err)
			if len(report.Leftovers)+len(report.Torn) != 0 {
				t.Fatalf("opening repaired something: %+v", report)
			}
			for lsn := uint64(901); lsn <= 1200; lsn++ {
				expect[lsn] = true
			}
			checkLive(t, log, 1, expect)
			// Once more, over the rewritten one and what came after it.
			live = everyNth(1, 1200, 7*n)
			must(t, rewriteAll(log, live))
			checkLive(t, log, 1, liveSet(live))
			if s := log.Stats(); s.Segments != 2 || s.Rewritten != 1 {
				t.Fatalf("after the second time: %+v", s)
			}
			must(t, log.CutFront(log.(*core).tail().first))
			if s := log.Stats(); s.Segments != 1 || s.Rewritten != 0 {
				t.Fatalf("after the front was cut: %+v", s)
			}
			must(t, log.Close())
		})
	}
}

// Nobody may lose a message because somebody else counted wrongly.
func TestRewriteRefusesWhatDoesNotFit(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		build(t, v, cfg, 1, 400)
		log, _, err := v.open(cfg, 1, 400)
		must(t, err)
		defer log.Close()
		sealed := log.Sealed(400, nil)
		first, second := sealed[0], sealed[1]
		if got := log.Sealed(second.Last-1, nil); len(got) != 1 {
			t.Fatalf("up to %d there are %d sealed segments", second.Last-1, len(got))
		}
		for what, err := range map[string]error{
			"half a segment":      log.Rewrite(first.First, second.Last-1, nil),
			"from the middle":     log.Rewrite(first.First+1, second.Last, nil),
			"the tail":            log.Rewrite(first.First, 400, nil),
			"nothing":             log.Rewrite(second.First, first.Last, nil),
			"live behind its end": log.Rewrite(first.First, first.Last, []uint64{second.First}),
		} {
			if !errors.Is(err, ErrOutOfRange) {
				t.Errorf("%s: %v", what, err)
			}
		}
		must(t, log.Rewrite(first.First, first.Last, []uint64{5}))
		wantCorrupt(t, log.Rewrite(first.First, first.Last, []uint64{6}), "")
		checkLive(t, log, 1, map[uint64]bool{5: true})
		if err := log.Rewrite(1, sealed[len(sealed)-1].Last, []uint64{5}); err != nil {
			t.Fatal(err)
		}
		if n := len(files(t, cfg.FS, cfg.Dir)); n != 2 {
			t.Fatalf("%d files are left", n)
		}
	})
}

// Damage in a live record must not be copied as if it were none, and the evidence stays.
func TestRewriteMeetsDamage(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		build(t, v, cfg, 1, 400)
		log, _, err := v.open(cfg, 1, 400)
		must(t, err)
		defer log.Close()
		s := log.Sealed(400, nil)[0]
		path := filepath.Join(cfg.Dir, segmentName(s.First))
		content := readFile(t, cfg.FS, path)
		ends := entryEnds(t, content)
		damaged := slices.Clone(content)
		damaged[ends[5]-1] ^= 1 // the body of LSN 5
		writeFile(t, cfg.FS, path, damaged)
		before := files(t, cfg.FS, cfg.Dir)
		if c := wantCorrupt(t, log.Rewrite(s.First, s.Last, []uint64{5}), segmentName(s.First)); c.LSN != 5 {
			t.Fatalf("blames LSN %d", c.LSN)
		}
		must(t, sameFiles(before, files(t, cfg.FS, cfg.Dir)))
		must(t, log.Rewrite(s.First, s.Last, []uint64{4, 6})) // what nobody needs may rot
		checkLive(t, log, 1, map[uint64]bool{4: true, 6: true})
	})
}

// readCounter is a file system that knows how many files were opened to be read, and how many bytes were.
type readCounter struct {
	vfs.FS
	opened, bytes int
}

type countedFile struct {
	vfs.File
	counter *readCounter
}

func (r *readCounter) Open(name string) (vfs.File, error) {
	f, err := r.FS.Open(name)
	r.opened++
	return countedFile{f, r}, err
}

func (f countedFile) ReadAt(buf []byte, offset int64) (int, error) {
	n, err := f.File.ReadAt(buf, offset)
	f.counter.bytes += n
	return n, err
}

// Without this a queue through which 40 MB a second pass has them all read again, only to keep one message of a thousand.
func TestRewriteReadsWhatLives(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		counter := &readCounter{FS: cfg.FS}
		cfg.FS, cfg.SegmentBytes = counter, 256<<10
		log, _, err := v.open(cfg, 1, 0)
		must(t, err)
		for lsn := uint64(1); lsn <= 3000; lsn += 100 {
			must(t, log.Append(sized(lsn, lsn+99, 1024)))
		}
		must(t, log.Sync())
		sealed := log.Sealed(3000, nil)
		if len(sealed) < 10 || !sealed[0].Marked {
			t.Fatalf("%d segments, %+v", len(sealed), sealed[0])
		}
		end := sealed[9].Last
		live := []uint64{sealed[1].First, sealed[3].First + 7, sealed[3].First + 100, sealed[3].First + 101, sealed[6].Last, sealed[7].First, end}
		most := int64(0)
		for _, s := range sealed[:10] {
			from, _ := slices.BinarySearch(live, s.First)
			to, _ := slices.BinarySearch(live, s.Last+1)
			most += s.ReadBytes(to - from)
		}
		*counter = readCounter{FS: counter.FS}
		must(t, log.Rewrite(1, end, live))
		if counter.opened != 5 || int64(counter.bytes) > most || most > 7*(markBytes+readBytesMin) {
			t.Errorf("%d files were opened and %d bytes read, %d had been foretold", counter.opened, counter.bytes, most)
		}
		for lsn := uint64(1); lsn <= end; lsn++ {
			got, err := log.Read(lsn, 10, nil)
			if !slices.Contains(live, lsn) {
				if !errors.Is(err, ErrOutOfRange) {
					t.Fatalf("LSN %d, which is dead: %d records, %v", lsn, len(got), err)
				}
				continue
			}
			must(t, err)
			if !bytes.Equal(got[0], makeSized(lsn, 1024)) {
				t.Fatalf("LSN %d reads wrong", lsn)
			}
		}
		must(t, log.Close())
		log, _, err = v.open(cfg, 1, 3000)
		must(t, err)
		defer log.Close()
		s := log.Sealed(3000, nil)[1] // whose marks are forgotten
		if s.Marked || s.ReadBytes(1) != s.Bytes || s.ReadBytes(0) != 0 {
			t.Errorf("%+v, and %d bytes must be read for one record", s, s.ReadBytes(1))
		}
		must(t, log.Rewrite(s.First, s.Last, []uint64{s.Last}))
		got, err := log.Read(s.Last, 10, nil)
		must(t, err)
		if !bytes.Equal(got[0], makeSized(s.Last, 1024)) {
			t.Fatalf("LSN %d reads wrong", s.Last)
		}
	})
}

// A known place that damage has moved must not make another record of what is found there.
func TestRewriteMeetsDamageBehindAMark(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		cfg.SegmentBytes = 256 << 10
		log, _, err := v.open(cfg, 1, 0)
		must(t, err)
		defer log.Close()
		must(t, log.Append(sized(1, 600, 1024)))
		must(t, log.Sync())
		s := log.Sealed(600, nil)[0]
		path := filepath.Join(cfg.Dir, segmentName(s.First))
		content := readFile(t, cfg.FS, path)
		ends := entryEnds(t, content)
		for _, lsn := range []uint64{100, 99} { // the record itself, and one on the way to it
			damaged := slices.Clone(content)
			damaged[ends[lsn-1]] ^= 1 // its length
			writeFile(t, cfg.FS, path, damaged)
			if c := wantCorrupt(t, log.Rewrite(s.First, s.Last, []uint64{100}), segmentName(s.First)); c.LSN != lsn || c.Offset != ends[lsn-1] {
				t.Fatalf("blames LSN %d at offset %d, not %d at %d", c.LSN, c.Offset, lsn, ends[lsn-1])
			}
		}
		moved := slices.Delete(slices.Clone(content), int(ends[9]), int(ends[10]))
		writeFile(t, cfg.FS, path, append(moved, content[:ends[1]]...))
		wantCorrupt(t, log.Rewrite(s.First, s.Last, []uint64{100}), segmentName(s.First))
	})
}

// Every bit of a rewritten segment is covered: it is damage when the log is opened, or when it is read, and never another record.
func TestRewrittenSegmentShowsDamage(t *testing.T) {
	cfg := Config{FS: vfs.NewLossy(1), Dir: "log", Incarnation: testIncarnation, SegmentBytes: 4096}
	build(t, variants[1], cfg, 1, 400)
	log, _, err := OpenSim(cfg, 1, 400)
	must(t, err)
	live := everyNth(1, 400, 20)
	must(t, rewriteAll(log, live))
	path := log.(*core).path(log.(*core).segments[0])
	must(t, log.Close())
	content := readFile(t, cfg.FS, path)
	check := func(what string, damaged []byte) {
		t.Helper()
		writeFile(t, cfg.FS, path, damaged)
		log, _, err := OpenSim(cfg, 1, 400)
		for i := 0; err == nil && i < len(live); i++ {
			var got [][]byte
			if got, err = log.Read(live[i], 1, nil); err == nil && !bytes.Equal(got[0], makeRecord(live[i])) {
				t.Fatalf("%s: LSN %d reads wrong", what, live[i])
			}
		}
		if err == nil {
			err = log.Rewrite(1, log.Sealed(400, nil)[0].Last, live[:0])
			t.Fatalf("%s: nobody noticed (%v)", what, err)
		}
		wantCorrupt(t, err, filepath.Base(path))
	}
	for i := range content {
		damaged := slices.Clone(content)
		damaged[i] ^= 1 << (i % 8)
		check(fmt.Sprintf("bit of byte %d", i), damaged)
	}
	for n := 0; n < len(content); n += 7 {
		check(fmt.Sprintf("cut to %d", n), content[:n])
	}
	check("one byte more", append(slices.Clone(content), 0))
}

// The file is missing, or there is one of another time beside it: never silence.
func TestRewrittenSegmentMissing(t *testing.T) {
	cfg := Config{FS: vfs.NewLossy(1), Dir: "log", Incarnation: testIncarnation, SegmentBytes: 4096}
	build(t, variants[1], cfg, 1, 400)
	log, _, err := OpenSim(cfg, 1, 400)
	must(t, err)
	s := log.Sealed(400, nil)
	must(t, log.Rewrite(s[1].First, s[3].Last, nil))
	path := log.(*core).path(log.(*core).segments[1])
	must(t, log.Close())
	content := readFile(t, cfg.FS, path)
	must(t, cfg.FS.Remove(path))
	_, _, err = OpenSim(cfg, 1, 400)
	wantCorrupt(t, err, segmentName(s[0].First))
	other := span{s[1].First + 1, s[3].Last, 1}
	writeFile(t, cfg.FS, filepath.Join(cfg.Dir, other.name()), content)
	_, _, err = OpenSim(cfg, 1, 400)
	wantCorrupt(t, err, "")
	writeFile(t, cfg.FS, path, content)
	_, _, err = OpenSim(cfg, 1, 400)
	wantCorrupt(t, err, other.name())
	must(t, cfg.FS.Remove(filepath.Join(cfg.Dir, other.name())))
	log, _, err = OpenSim(cfg, 1, 400)
	must(t, err)
	must(t, log.Close())
}

// The tail behind a rewritten segment was empty and its name never became durable.
func TestOpenBehindRewrittenSegment(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		build(t, v, cfg, 1, 400)
		log, _, err := v.open(cfg, 1, 400)
		must(t, err)
		must(t, rewriteAll(log, []uint64{7}))
		last := log.Sealed(400, nil)[0].Last
		must(t, log.Close())
		for _, tail := range []bool{true, false} {
			log, _, err = v.open(cfg, 1, last)
			must(t, err)
			if log.Last() != last || log.First() != 1 {
				t.Fatalf("log holds %d to %d", log.First(), log.Last())
			}
			must(t, log.Append(makeRecords(last+1, last+50)))
			checkLive(t, log, 1, map[uint64]bool{7: true, last + 1: true, last + 50: true})
			must(t, log.Close())
			if tail {
				must(t, cfg.FS.Remove(filepath.Join(cfg.Dir, segmentName(last+1))))
			}
		}
		_, _, err = v.open(cfg, 1, last-1)
		wantCorrupt(t, err, "")
		_, _, err = v.open(cfg, 8, 7)
		wantCorrupt(t, err, "")
		log, _, err = v.open(cfg, last+1, last)
		must(t, err)
		must(t, log.Close())
	})
}

func TestSpanNames(t *testing.T) {
	for _, s := range []span{{1, 1, 1}, {5, 12345678901234567890, 4294967295}, {12345678901234567890, 18446744073709551615, 7}} {
		if got, aside, ok := parseSpan(s.name()); got != s || aside || !ok {
			t.Errorf("%s is read as %+v, %v, %v", s.name(), got, aside, ok)
		}
		if got, aside, ok := parseSpan(s.name() + asideSuffix); got != s || !aside || !ok {
			t.Errorf("%s.tmp is read as %+v, %v, %v", s.name(), got, aside, ok)
		}
		if _, _, ok := parseName(s.name()); ok {
			t.Errorf("%s is taken for a plain segment", s.name())
		}
	}
	for _, name := range []string{segmentName(1), "", "x", segmentName(1) + "-" + segmentName(2), segmentName(2) + "-" + segmentName(1) + ".1",
		segmentName(1) + "-" + segmentName(2) + ".0", segmentName(1) + "-" + segmentName(2) + ".01", segmentName(1) + "-" + segmentName(2) + ".x",
		segmentName(0) + "-" + segmentName(2) + ".1", segmentName(1) + "-" + segmentName(2) + ".1.tmp.tmp"} {
		if s, _, ok := parseSpan(name); ok {
			t.Errorf("%q is read as %+v", name, s)
		}
	}
}

// Without this a consumer that reads while its segment is rewritten would stop the queue.
func TestReadBesideRewrite(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		build(t, v, cfg, 1, 3000)
		log, _, err := v.open(cfg, 1, 3000)
		must(t, err)
		live := everyNth(1, 3000, 5)
		var readers sync.WaitGroup
		for r := range uint64(3) {
			readers.Go(func() {
				dice := newDice(r)
				for range 3000 {
					lsn := live[dice.IntN(len(live))]
					got, err := log.Read(lsn, 500, nil)
					if err != nil || len(got) == 0 || !bytes.Equal(got[0], makeRecord(lsn)) {
						t.Errorf("LSN %d: %d records, %v", lsn, len(got), err)
						return
					}
				}
			})
		}
		dice := newDice(9)
		for range 60 {
			sealed := log.Sealed(3000, nil)
			i := dice.IntN(len(sealed))
			j := min(i+dice.IntN(5), len(sealed)-1)
			from, _ := slices.BinarySearch(live, sealed[i].First)
			to, _ := slices.BinarySearch(live, sealed[j].Last+1)
			must(t, log.Rewrite(sealed[i].First, sealed[j].Last, live[from:to]))
		}
		readers.Wait()
		must(t, log.Append(makeRecords(3001, 3100)))
		checkLive(t, log, 1, liveSet(live))
		must(t, log.Close())
	})
}

// A log equals a model of it, whatever is appended, cut, rewritten and reopened.
func TestRewriteEqualsModel(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			shared := fastDir(t)
			rapid.Check(t, func(t *rapid.T) { rewriteModel(t, v, shared) })
		})
	}
}

func rewriteModel(t *rapid.T, v variant, shared string) {
	fsys, root := vfs.FS(vfs.NewLossy(1)), "logs"
	if v.name == "tidwall" {
		dir, err := os.MkdirTemp(shared, "model")
		must(t, err)
		defer os.RemoveAll(dir)
		fsys, root = vfs.OS, dir
	}
	must(t, fsys.MkdirAll(root, 0o755))
	cfg := Config{FS: fsys, Dir: filepath.Join(root, "log"), Incarnation: testIncarnation, SegmentBytes: 1500}
	log, _, err := v.open(cfg, 1, 0)
	must(t, err)
	first, synced := uint64(1), uint64(0)
	dead := map[uint64]bool{}
	for range rapid.IntRange(1, 25).Draw(t, "steps") {
		switch rapid.SampledFrom([]string{"append", "append", "die", "rewrite", "rewrite", "cut", "reopen"}).Draw(t, "step") {
		case "append":
			must(t, log.Append(makeRecords(log.Last()+1, log.Last()+rapid.Uint64Range(1, 80).Draw(t, "count"))))
		case "die":
			for lsn := first; lsn <= log.Last(); lsn++ {
				dead[lsn] = dead[lsn] || rapid.IntRange(0, 9).Draw(t, "dice") > 4
			}
		case "rewrite":
			must(t, log.Sync())
			synced = log.Last()
			sealed := log.Sealed(synced, nil)
			if len(sealed) == 0 {
				continue
			}
			i := rapid.IntRange(0, len(sealed)-1).Draw(t, "from")
			j := rapid.IntRange(i, len(sealed)-1).Draw(t, "to")
			var live []uint64
			for lsn := sealed[i].First; lsn <= sealed[j].Last; lsn++ {
				if !dead[lsn] && lsn >= first {
					live = append(live, lsn)
				} else {
					dead[lsn] = true
				}
			}
			must(t, log.Rewrite(sealed[i].First, sealed[j].Last, live))
		case "cut":
			must(t, log.Sync())
			synced = log.Last()
			first = rapid.Uint64Range(first, synced+1).Draw(t, "first")
			must(t, log.CutFront(first))
		case "reopen":
			must(t, log.Close())
			if synced+1 < first {
				synced = first - 1
			}
			log, _, err = v.open(cfg, first, synced)
			must(t, err)
		}
		live := map[uint64]bool{}
		for lsn := first; lsn <= log.Last(); lsn++ {
			live[lsn] = !dead[lsn]
		}
		maps.DeleteFunc(dead, func(lsn uint64, _ bool) bool { return lsn > log.Last() })
		checkLive(t, log, first, live)
	}
	must(t, log.Close())
}

// rewriteRun is a life of a log with rewrites, for the tests that let every operation fail.
func rewriteRun(fsys vfs.FS) (log Log, live []uint64, rewrites []error, err error) {
	cfg := Config{FS: fsys, Dir: "log", Incarnation: testIncarnation, SegmentBytes: 2000}
	live = everyNth(1, 400, 9)
	if log, _, err = OpenSim(cfg, 1, 400); err != nil {
		return nil, live, nil, err
	}
	sealed := log.Sealed(400, nil)
	in := func(i, j int) error {
		if j >= len(sealed) {
			return ErrOutOfRange
		}
		from, _ := slices.BinarySearch(live, sealed[i].First)
		to, _ := slices.BinarySearch(live, sealed[j].Last+1)
		return log.Rewrite(sealed[i].First, sealed[j].Last, live[from:to])
	}
	n := len(sealed)
	for _, step := range [][2]int{{2, 5}, {1, 1}, {1, 6}, {2, 3}, {0, n - 1}, {0, n - 1}} {
		if err := in(step[0], step[1]); !errors.Is(err, ErrOutOfRange) { // else an earlier one has not failed, and made these one
			rewrites = append(rewrites, err)
		}
	}
	return log, live, rewrites, nil
}

func rewriteDisk(t *testing.T, seed uint64) *vfs.Lossy {
	disk := vfs.NewLossy(seed)
	build(t, variants[1], Config{FS: disk, Dir: "log", Incarnation: testIncarnation, SegmentBytes: 2000}, 1, 400)
	return disk
}

// A failed step leaves the old segments in force, and is no reason to stop the queue.
func TestEveryOperationOfRewriteFailsOnce(t *testing.T) {
	for _, how := range []vfs.Failure{vfs.FailBefore, vfs.FailShort, vfs.FailDropped, vfs.FailAfter} {
		for n, end := 1, false; !end; n++ {
			disk := rewriteDisk(t, uint64(n))
			failing := vfs.NewFailing(disk)
			failing.FailAtHow(n, how, vfs.ErrInjected)
			log, live, rewrites, err := rewriteRun(failing)
			end = n > failing.Count()
			failing.FailAt(0, nil)
			if err != nil {
				continue // in Open
			}
			op := failing.Ops()[min(n, failing.Count())-1]
			failed := 0
			for _, err := range rewrites {
				if err != nil {
					failed++
				}
				if err != nil && !errors.Is(err, vfs.ErrInjected) {
					t.Fatalf("operation %d (%v) failed, and then: %v", n, op, err)
				}
			}
			if !end && failed == 0 && op.Kind != vfs.OpClose {
				t.Fatalf("operation %d (%v) failed, and nobody noticed", n, op)
			}
			readLive(t, log, live)
			must(t, log.Append(makeRecords(401, 420)))
			must(t, log.Sync())
			must(t, log.Close())
			for _, crash := range []bool{false, true} {
				if crash {
					disk = disk.Crash()
				}
				fsys := vfs.FS(disk)
				cfg := Config{FS: fsys, Dir: "log", Incarnation: testIncarnation, SegmentBytes: 2000}
				log, _, err = OpenSim(cfg, 1, 420)
				if err != nil {
					t.Fatalf("operation %d (%v) failed in manner %d, and the log cannot be opened again: %v", n, op, how, err)
				}
				readLive(t, log, live)
				must(t, rewriteAll(log, live))
				readLive(t, log, live)
				must(t, log.Close())
				if left := len(files(t, fsys, "log")); left != log.Stats().Segments {
					t.Fatalf("operation %d (%v): %d files are left, %d segments are known", n, op, left, log.Stats().Segments)
				}
			}
		}
	}
}

// Without this an acknowledgement of other messages loses an old one at the next power cut.
func TestPowerCutAtEveryOperationOfRewrite(t *testing.T) {
	for seed := range uint64(4) {
		for n, end := 1, false; !end; n++ {
			disk := rewriteDisk(t, seed*1000+uint64(n))
			dice := newDice(seed*1000 + uint64(n))
			for round := 0; round < 3; round++ { // also while the next start cleans up
				failing := vfs.NewFailing(disk)
				if round == 0 {
					failing.HaltAt(n)
				} else {
					failing.HaltAt(1 + dice.IntN(160))
				}
				_, _, _, err := rewriteRun(failing)
				if round == 0 {
					end = n > failing.Count()
				}
				if err != nil && !errors.Is(err, vfs.ErrCrashed) {
					t.Fatalf("seed %d, operation %d, round %d: %v", seed, n, round, err)
				}
				if (n+round+int(seed))%2 == 0 { // else the process died alone, and the page cache lives on
					disk = disk.Crash()
				}
			}
			disk = disk.Crash()
			log, _, err := OpenSim(Config{FS: disk, Dir: "log", Incarnation: testIncarnation, SegmentBytes: 2000}, 1, 400)
			if err != nil {
				t.Fatalf("seed %d, operation %d: %v", seed, n, err)
			}
			readLive(t, log, everyNth(1, 400, 9))
			for name := range files(t, disk, "log") {
				if strings.HasSuffix(name, asideSuffix) {
					t.Fatalf("seed %d, operation %d: %s is left", seed, n, name)
				}
			}
			must(t, log.Close())
		}
	}
}

// Without the sync that comes first, a file that a failed attempt took back could come back after a power cut and overlap another.
func TestPowerCutAfterFailedRewrite(t *testing.T) {
	live := everyNth(1, 400, 9)
	for seed := range uint64(8) {
		for n, end := 1, false; !end; n++ {
			disk := rewriteDisk(t, seed*1000+uint64(n))
			failing := vfs.NewFailing(disk)
			cfg := Config{FS: failing, Dir: "log", Incarnation: testIncarnation, SegmentBytes: 2000}
			log, _, err := OpenSim(cfg, 1, 400)
			must(t, err)
			sealed := log.Sealed(400, nil)
			in := func(i, j int) error {
				from, _ := slices.BinarySearch(live, sealed[i].First)
				to, _ := slices.BinarySearch(live, sealed[j].Last+1)
				return log.Rewrite(sealed[i].First, sealed[j].Last, live[from:to])
			}
			syncs := 0
			failing.FailWhen(func(op vfs.Op) bool {
				if op.Kind == vfs.OpSyncDir {
					syncs++
				}
				return syncs == 2
			}, vfs.FailBefore, vfs.ErrInjected)
			if err := in(0, 3); !errors.Is(err, vfs.ErrInjected) {
				t.Fatalf("the directory's sync failed, and: %v", err)
			}
			readLive(t, log, live)
			failing.HaltAt(failing.Count() + n)
			end = in(2, 5) == nil
			disk = disk.Crash()
			cfg.FS = disk
			if log, _, err = OpenSim(cfg, 1, 400); err != nil {
				t.Fatalf("seed %d, operation %d: %v", seed, n, err)
			}
			readLive(t, log, live)
			must(t, log.Close())
		}
	}
}

// A process dies alone behind the rename, and the power goes while the next one removes what the new file stands for: if its name is
// not made durable before, both are gone.
func TestPowerCutWhileOpenFinishesARewrite(t *testing.T) {
	live := everyNth(1, 400, 9)
	for seed := range uint64(4) {
		for n, end := 1, false; !end; n++ {
			disk := rewriteDisk(t, seed*1000+uint64(n))
			cfg := Config{FS: &diesRenaming{FS: disk}, Dir: "log", Incarnation: testIncarnation, SegmentBytes: 2000}
			log, _, err := OpenSim(cfg, 1, 400)
			must(t, err)
			if err := rewriteAll(log, live); !errors.Is(err, vfs.ErrCrashed) {
				t.Fatalf("the process died, and: %v", err)
			}
			failing := vfs.NewFailing(disk)
			failing.HaltAt(n)
			cfg.FS = failing
			_, _, err = OpenSim(cfg, 1, 400)
			end = err == nil
			disk = disk.Crash()
			cfg.FS = disk
			if log, _, err = OpenSim(cfg, 1, 400); err != nil {
				t.Fatalf("seed %d, operation %d: %v", seed, n, err)
			}
			readLive(t, log, live)
			must(t, log.Close())
		}
	}
}

// diesRenaming does a rename and nothing after it.
type diesRenaming struct {
	vfs.FS
	dead bool
}

func (d *diesRenaming) Rename(from, to string) error {
	d.dead = true
	return d.FS.Rename(from, to)
}

func (d *diesRenaming) SyncDir(name string) error {
	if d.dead {
		return vfs.ErrCrashed
	}
	return d.FS.SyncDir(name)
}

func (d *diesRenaming) Remove(string) error { return vfs.ErrCrashed }

// The front is cut, or the log is closed, while the new file is written.
func TestRewriteOfWhatGoesMeanwhile(t *testing.T) {
	for _, how := range []string{"cut", "close"} {
		disk := rewriteDisk(t, 1)
		hook := &hookFS{FS: disk}
		log, _, err := OpenSim(Config{FS: hook, Dir: "log", Incarnation: testIncarnation, SegmentBytes: 2000}, 1, 400)
		must(t, err)
		sealed := log.Sealed(400, nil)
		hook.created = func() {
			if how == "cut" {
				must(t, log.CutFront(sealed[3].First))
			} else {
				must(t, log.Close())
			}
		}
		err = log.Rewrite(sealed[0].First, sealed[5].Last, nil)
		if !errors.Is(err, ErrOutOfRange) && !errors.Is(err, ErrClosed) && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s: %v", how, err)
		}
		for name := range files(t, disk, "log") {
			if len(name) != segmentDigits {
				t.Fatalf("%s: %s is left", how, name)
			}
		}
		log.Close()
	}
}

// hookFS runs created once, when a file has been created.
type hookFS struct {
	vfs.FS
	created func()
}

func (h *hookFS) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := h.FS.OpenFile(name, flag, perm)
	if run := h.created; run != nil && strings.HasSuffix(name, asideSuffix) {
		h.created = nil
		run()
	}
	return f, err
}
