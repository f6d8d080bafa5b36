package seglog

// The contract of Log, over both implementations.

import (
	"bytes"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"quail/wal/record"
	"quail/wal/vfs"
)

func TestLogKeepsRecords(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		log, report, err := v.open(cfg, 1, 0)
		must(t, err)
		if !report.Created || log.First() != 1 || log.Last() != 0 {
			t.Fatalf("a new log: %+v, %d to %d", report, log.First(), log.Last())
		}
		must(t, log.Append(makeRecords(1, 10)))
		must(t, log.Append(nil))
		must(t, log.Append(makeRecords(11, 300)))
		checkContent(t, log, 1, 300)
		must(t, log.Sync())
		if s := log.Stats(); s.Segments < 5 {
			t.Fatalf("300 records are in %d segments", s.Segments)
		}
		must(t, log.Close())

		log, report, err = v.open(cfg, 1, 300)
		must(t, err)
		if report.CutRecords+uint64(report.TornBytes) != 0 || report.Created {
			t.Fatalf("a clean log was repaired: %+v", report)
		}
		must(t, log.Append(makeRecords(301, 310)))
		checkContent(t, log, 1, 310)
		must(t, log.Close())
	})
}

// Without this a queue whose log was lost with everything in it acknowledged could never write again.
func TestLogBeginsAnywhere(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		log, _, err := v.open(cfg, 1_000_000, 999_999)
		must(t, err)
		if log.First() != 1_000_000 || log.Last() != 999_999 {
			t.Fatalf("log holds %d to %d", log.First(), log.Last())
		}
		must(t, log.Append(makeRecords(1_000_000, 1_000_100)))
		must(t, log.Close())
		log, _, err = v.open(cfg, 1_000_000, 1_000_100)
		must(t, err)
		checkContent(t, log, 1_000_000, 1_000_100)
		must(t, log.Close())
	})
}

// Without this the journal would append records that are there already.
func TestOpenEndsAtLast(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		build(t, v, cfg, 1, 200)
		for _, last := range []uint64{200, 199, 150, 149, 60, 2, 1, 0} {
			log, report, err := v.open(cfg, 1, last)
			must(t, err)
			checkContent(t, log, 1, last)
			if report.TornBytes != 0 || len(report.Torn) != 0 {
				t.Fatalf("whole records count as torn: %+v", report)
			}
			must(t, log.Append(makeRecords(last+1, last+2)))
			checkContent(t, log, 1, last+2)
			must(t, log.Close())
		}
		if _, err := cfg.FS.Stat(cfg.DamagedDir); err == nil {
			t.Fatal("whole records were set aside as torn")
		}
	})
}

func TestReadBounds(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		build(t, v, cfg, 1, 200)
		log, _, err := v.open(cfg, 1, 200)
		must(t, err)
		defer log.Close()
		for _, maxBytes := range []int{-1, 0, 1, 40, 1000, 1 << 20} {
			for from := uint64(1); from <= 200; from++ {
				got, err := log.Read(from, maxBytes, nil)
				must(t, err)
				size := 0
				for i, rec := range got {
					if !bytes.Equal(rec, makeRecord(from+uint64(i))) {
						t.Fatalf("read from %d: record %d is wrong", from, i)
					}
					size += len(rec)
				}
				next := from + uint64(len(got))
				switch {
				case len(got) == 0:
					t.Fatalf("read of %d bytes from %d gave nothing", maxBytes, from)
				case len(got) > 1 && size > maxBytes:
					t.Fatalf("read of %d bytes from %d gave %d", maxBytes, from, size)
				case next <= 200 && size+len(makeRecord(next)) <= maxBytes:
					t.Fatalf("read of %d bytes from %d stopped at %d", maxBytes, from, size)
				}
			}
		}
		if got, err := log.Read(201, 100, nil); err != nil || len(got) != 0 {
			t.Fatalf("read at the end: %d records, %v", len(got), err)
		}
		for _, from := range []uint64{0, 202} {
			if _, err := log.Read(from, 100, nil); !errors.Is(err, ErrOutOfRange) {
				t.Fatalf("read from %d: %v", from, err)
			}
		}
		checkContent(t, log, 1, 200) // ErrOutOfRange did not end the log
	})
}

// Reads from anywhere in large segments go by the sparse index, which is built by appends, by opening and by reads.
func TestReadAnywhereInLargeSegments(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		const end = 6000
		cfg.SegmentBytes = 300 << 10
		log, _, err := v.open(cfg, 1, 0)
		must(t, err)
		must(t, log.Append(makeRecords(1, end)))
		check := func(dice func(uint64) uint64) {
			t.Helper()
			for range 3000 {
				from := 1 + dice(end)
				got, err := log.Read(from, int(dice(3000)), nil)
				must(t, err)
				for i, rec := range got {
					if !bytes.Equal(rec, makeRecord(from+uint64(i))) {
						t.Fatalf("read from %d: record %d is wrong", from, i)
					}
				}
			}
		}
		check(newDice(1).Uint64N)
		must(t, log.Close())
		log, _, err = v.open(cfg, 1, end)
		must(t, err)
		check(newDice(2).Uint64N)
		for _, s := range log.(*core).segments {
			if want := int(s.size / markBytes / 2); len(s.marks) < want {
				t.Fatalf("a segment of %d bytes has only %d marks", s.size, len(s.marks))
			}
		}
		must(t, log.Close())
	})
}

// Without a bound the marks of a long backlog that was read once would stay in memory.
func TestFewSegmentsHaveMarks(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		cfg.SegmentBytes = 2 * markBytes
		log, _, err := v.open(cfg, 1, 0)
		must(t, err)
		defer log.Close()
		c := log.(*core)
		for len(c.segments) < 2*markedMax {
			must(t, log.Append(makeRecords(log.Last()+1, log.Last()+500)))
		}
		_, err = readAll(log, 1, 50_000)
		must(t, err)
		marked := 0
		for _, s := range c.segments {
			if len(s.marks) > 0 {
				marked++
			}
		}
		if marked > markedMax || len(c.marked) != marked {
			t.Fatalf("%d segments have marks, %d are listed", marked, len(c.marked))
		}
	})
}

// Without positions a sequential reader would walk up to 16 KB for each record it takes.
func TestSequentialReadsSkipNothing(t *testing.T) {
	failing := vfs.NewFailing(vfs.NewLossy(1))
	cfg := Config{FS: failing, Dir: "log", Incarnation: testIncarnation, SegmentBytes: 100 << 10}
	build(t, variants[1], cfg, 1, 2000)
	log, _, err := OpenSim(cfg, 1, 2000)
	must(t, err)
	defer log.Close()
	failing.Reset()
	for lsn := uint64(1); lsn <= 2000; lsn++ {
		got, err := log.Read(lsn, 0, nil)
		must(t, err)
		if len(got) != 1 {
			t.Fatalf("read %d records", len(got))
		}
	}
	reads := 0
	for _, op := range failing.Ops() {
		if op.Kind == vfs.OpRead {
			reads++
		}
	}
	if reads != 2000 {
		t.Fatalf("2,000 records took %d reads of the file", reads)
	}
}

// A record larger than a segment, than one read and than one append is still one record.
func TestLargeRecords(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		log, _, err := v.open(cfg, 1, 0)
		must(t, err)
		sizes := []int{5 << 20, 10, 300 << 10, 4096, 127 - 34, 128 - 34, 16384 - 34, 3 << 20}
		var records [][]byte
		for i, size := range sizes {
			records = append(records, makeSized(uint64(i+1), size))
		}
		must(t, log.Append(records))
		must(t, log.Sync())
		must(t, log.Close())
		log, _, err = v.open(cfg, 1, uint64(len(records)))
		must(t, err)
		defer log.Close()
		got, err := readAll(log, 1, 1<<20)
		must(t, err)
		for i := range records {
			if !bytes.Equal(got[i], records[i]) {
				t.Fatalf("record %d of %d bytes is wrong", i+1, sizes[i])
			}
		}
	})
}

// What does not belong into the log must not get into it, and a caller that tries is not trusted further.
func TestAppendRefuses(t *testing.T) {
	other := record.Append(nil, &record.Record{LSN: 11, Incarnation: testIncarnation + 1})
	for name, rec := range map[string][]byte{
		"a gap": makeRecord(12), "a repetition": makeRecord(10), "nothing": {}, "no record": []byte("hello"),
		"half a record": makeRecord(11)[:30], "two at once": append(makeRecord(11), makeRecord(12)...), "another queue's": other,
	} {
		t.Run(name, func(t *testing.T) {
			eachVariant(t, func(t *testing.T, v variant, cfg Config) {
				build(t, v, cfg, 1, 10)
				log, _, err := v.open(cfg, 1, 10)
				must(t, err)
				before := files(t, cfg.FS, cfg.Dir)
				first := log.Append([][]byte{rec})
				if first == nil {
					t.Fatal("it was accepted")
				}
				if err := log.Append(makeRecords(11, 11)); err != first {
					t.Fatalf("the next append: %v", err)
				}
				if err := log.Close(); err != first {
					t.Fatalf("close: %v", err)
				}
				must(t, sameFiles(before, files(t, cfg.FS, cfg.Dir)))
			})
		})
	}
}

func TestCutFrontRemovesWholeSegments(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		build(t, v, cfg, 1, 300)
		log, _, err := v.open(cfg, 1, 300)
		must(t, err)
		for first := uint64(1); first <= 300; first += 23 {
			before := files(t, cfg.FS, cfg.Dir)
			must(t, log.CutFront(first))
			after := files(t, cfg.FS, cfg.Dir)
			for name, content := range after {
				if before[name] != content {
					t.Fatalf("cut to %d rewrote %s", first, name)
				}
			}
			if len(after) != log.Stats().Segments {
				t.Fatalf("%d files, %d segments", len(after), log.Stats().Segments)
			}
			checkContent(t, log, first, 300)
		}
		if err := log.CutFront(302); !errors.Is(err, ErrOutOfRange) {
			t.Fatalf("cut behind the end: %v", err)
		}
		must(t, log.CutFront(1)) // already gone
		if _, err := log.Read(1, 100, nil); !errors.Is(err, ErrOutOfRange) {
			t.Fatalf("read of what was cut: %v", err)
		}
		must(t, log.Close())
		log, _, err = v.open(cfg, 300, 300)
		must(t, err)
		checkContent(t, log, 300, 300)
		must(t, log.Close())
	})
}

// Without this a drained queue would keep its last segment for ever, or the log could not go on after it.
func TestCutFrontOfADrainedLog(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		log, _, err := v.open(cfg, 1, 0)
		must(t, err)
		last := uint64(0)
		for round := range uint64(5) {
			must(t, log.Append(makeRecords(last+1, last+1+round*50)))
			last += 1 + round*50
			must(t, log.Sync())
			must(t, log.CutFront(last+1))
			must(t, log.CutFront(last+1)) // nothing left to do
			if log.First() != last+1 || log.Last() != last {
				t.Fatalf("drained log holds %d to %d", log.First(), log.Last())
			}
			if s := log.Stats(); s != (Stats{Segments: 1}) {
				t.Fatalf("drained log has %+v", s)
			}
		}
		must(t, log.Append(makeRecords(last+1, last+9)))
		checkContent(t, log, last+1, last+9)
		must(t, log.Sync())
		must(t, log.Close())
		log, _, err = v.open(cfg, last+1, last+9)
		must(t, err)
		checkContent(t, log, last+1, last+9)
		must(t, log.Close())
	})
}

// Without the reopening the library would remember the name of each segment that ever was.
func TestManySegmentsAreForgotten(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		log, _, err := v.open(cfg, 1, 0)
		must(t, err)
		defer log.Close()
		c := log.(*core)
		for range 3 {
			must(t, log.Append(makeRecords(log.Last()+1, log.Last()+200)))
			c.removed = reopenAfter
			must(t, log.CutFront(log.Last()-50))
			if c.removed != 0 {
				t.Fatal("not reopened")
			}
			checkContent(t, log, log.Last()-50, log.Last())
		}
	})
}

func TestClosedLog(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		build(t, v, cfg, 1, 10)
		log, _, err := v.open(cfg, 1, 10)
		must(t, err)
		must(t, log.Close())
		must(t, log.Close())
		_, readErr := log.Read(1, 10, nil)
		for _, err := range []error{readErr, log.Append(makeRecords(11, 11)), log.Sync(), log.CutFront(2)} {
			if !errors.Is(err, ErrClosed) {
				t.Fatalf("got %v, want ErrClosed", err)
			}
		}
	})
}

// The simulated log proves something about the real one only if both lay out the same bytes in the same files.
func TestBothLayOutTheSameFiles(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := fastDir(t)
		real := Config{FS: vfs.OS, Dir: filepath.Join(dir, "log"), Incarnation: testIncarnation}
		sim := Config{FS: vfs.NewLossy(1), Dir: "log", Incarnation: testIncarnation}
		first, last, next := uint64(1), uint64(0), uint64(1)
		var a, b Log
		reopen := func() {
			segment := rapid.SampledFrom([]int{100, 1000, 4096}).Draw(rt, "segment")
			real.SegmentBytes, sim.SegmentBytes = segment, segment
			var err error
			a, _, err = Open(real, first, last)
			must(t, err)
			b, _, err = OpenSim(sim, first, last)
			must(t, err)
			next = last + 1
		}
		reopen()
		defer func() { a.Close() }()
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			switch rapid.IntRange(0, 4).Draw(rt, "step") {
			case 0:
				must(t, a.Sync())
				must(t, b.Sync())
				last = next - 1
			case 1:
				first = rapid.Uint64Range(first, last+1).Draw(rt, "first")
				must(t, a.CutFront(first))
				must(t, b.CutFront(first))
			case 2:
				must(t, a.Close())
				must(t, b.Close())
				reopen()
			default:
				n := rapid.Uint64Range(1, 60).Draw(rt, "records")
				must(t, a.Append(makeRecords(next, next+n-1)))
				must(t, b.Append(makeRecords(next, next+n-1)))
				next += n
			}
			must(t, sameFiles(files(t, vfs.OS, real.Dir), files(t, sim.FS, sim.Dir)))
			if a.First() != b.First() || a.Last() != b.Last() || a.Stats() != b.Stats() {
				t.Fatalf("logs differ: %d to %d %v, %d to %d %v", a.First(), a.Last(), a.Stats(), b.First(), b.Last(), b.Stats())
			}
			checkContent(t, a, first, next-1)
			checkContent(t, b, first, next-1)
		}
	})
}

// Readers must never see a wrong record, or an error but that theirs was cut off, while the log moves on.
func TestReadBesideAppendSyncAndCutFront(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		log, _, err := v.open(cfg, 1, 0)
		must(t, err)
		const end = 6000
		var writers, readers sync.WaitGroup
		done := make(chan struct{})
		writers.Go(func() {
			for lsn := uint64(1); lsn <= end; lsn += 40 {
				if err := log.Append(makeRecords(lsn, lsn+39)); err != nil {
					t.Error(err)
					return
				}
				if lsn%400 == 1 {
					if err := log.CutFront(lsn - min(lsn-1, 300)); err != nil {
						t.Error(err)
						return
					}
				}
				if lsn%2000 == 1 {
					if err := log.CutFront(log.Last() + 1); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
		for range 2 {
			writers.Go(func() {
				for log.Last() < end-100 {
					if err := log.Sync(); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for seed := range uint64(4) {
			readers.Go(func() { readBeside(t, log, newDice(seed).Uint64N, done) })
		}
		writers.Wait()
		close(done)
		readers.Wait()
		must(t, log.Close())
	})
}

func readBeside(t *testing.T, log Log, dice func(uint64) uint64, done chan struct{}) {
	lsn := uint64(1)
	for {
		select {
		case <-done:
			return
		default:
		}
		if dice(4) == 0 { // one reader in four jumps, the others go on
			lsn = log.First() + dice(log.Last()+2-min(log.First(), log.Last()+1))
		}
		got, err := log.Read(lsn, int(dice(5000)), nil)
		if errors.Is(err, ErrOutOfRange) {
			lsn = log.First()
			continue
		}
		if err != nil {
			t.Errorf("read from %d: %v", lsn, err)
			return
		}
		for i, rec := range got {
			if !bytes.Equal(rec, makeRecord(lsn+uint64(i))) {
				t.Errorf("LSN %d reads wrong", lsn+uint64(i))
				return
			}
		}
		lsn += uint64(len(got))
	}
}
