package seglog

// Damage of every kind at every place: what the checkpoint needs must never read wrong, and never be changed; what
// follows must never be in the way.

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"quail/wal/record"
	"quail/wal/vfs"
)

// A log whose tail has two segments' worth of records, of which those up to last are checkpointed.
const (
	damagedLast = 60
	damagedEnd  = 100
)

// buildDamaged makes one segment of records 1 to damagedEnd, and returns its name, content and entry ends.
func buildDamaged(t *testing.T, v variant, cfg *Config) (name string, content []byte, ends []int64) {
	cfg.SegmentBytes = 1 << 20
	build(t, v, *cfg, 1, damagedEnd)
	name = filepath.Join(cfg.Dir, segmentName(1))
	content = readFile(t, cfg.FS, name)
	return name, content, entryEnds(t, content)
}

// Without this a power cut that tears the last write would stop the queue, or damage of a record that was acknowledged
// would be taken for a tear and cut.
func TestTailDamagedAtEveryByte(t *testing.T) {
	damages := map[string]func(content []byte, at int) []byte{
		"cut":    func(content []byte, at int) []byte { return content[:at] },
		"zeroed": func(content []byte, at int) []byte { clear(content[at:]); return content },
		"garbage": func(content []byte, at int) []byte {
			dice := newDice(uint64(at))
			for i := at; i < len(content); i++ {
				content[i] ^= byte(1 + dice.IntN(255))
			}
			return content
		},
		"zeros behind": func(content []byte, at int) []byte { return append(content[:at], make([]byte, 4096)...) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			eachVariant(t, func(t *testing.T, v variant, cfg Config) {
				file, content, ends := buildDamaged(t, v, &cfg)
				step := 1
				if testing.Short() {
					step = 17
				}
				for at := max(0, len(content)-4096); at <= len(content); at += step {
					damaged := damage(bytes.Clone(content), at)
					writeFile(t, cfg.FS, file, damaged)
					checkDamagedTail(t, v, cfg, damaged, ends, at)
				}
			})
		})
	}
}

func checkDamagedTail(t *testing.T, v variant, cfg Config, damaged []byte, ends []int64, at int) {
	t.Helper()
	file := filepath.Join(cfg.Dir, segmentName(1))
	log, report, err := v.open(cfg, 1, damagedLast)
	if int64(at) < ends[damagedLast] {
		corrupt := wantCorrupt(t, err, segmentName(1))
		if corrupt.Offset > int64(at) || corrupt.Offset != ends[corrupt.LSN-1] || ends[corrupt.LSN] <= int64(at) {
			t.Fatalf("damage at %d is reported at %d, LSN %d", at, corrupt.Offset, corrupt.LSN)
		}
		if !bytes.Equal(readFile(t, cfg.FS, file), damaged) {
			t.Fatalf("damage at %d: a corrupt log was changed", at)
		}
		return
	}
	must(t, err)
	if log.Last() != damagedLast {
		t.Fatalf("damage at %d: log ends at %d", at, log.Last())
	}
	if got := report.CutBytes + report.TornBytes; got != int64(len(damaged))-ends[damagedLast] {
		t.Fatalf("damage at %d: %d bytes reported as cut", at, got)
	}
	if (report.TornBytes > 0) != (len(report.Torn) == 1) {
		t.Fatalf("damage at %d: %d torn bytes, copies %v", at, report.TornBytes, report.Torn)
	}
	if report.TornBytes > 0 {
		copied := readFile(t, cfg.FS, report.Torn[0].SavedAs)
		if !bytes.Equal(copied, damaged[len(damaged)-int(report.TornBytes):]) {
			t.Fatalf("damage at %d: the copy of the torn tail is wrong", at)
		}
	}
	must(t, log.Append(makeRecords(damagedLast+1, damagedLast+1)))
	checkContent(t, log, 1, damagedLast+1)
	must(t, log.Close())
}

// Each bit of a segment that holds only checkpointed records, as the tail and as an older segment.
func TestEveryBitFlipIsDetected(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		cfg.SegmentBytes = 16 << 10
		cfg.DamagedDir = ""
		log, _, err := v.open(cfg, 1, 0)
		must(t, err)
		last := uint64(0)
		for log.Stats().Segments == 1 {
			must(t, log.Append(makeRecords(last+1, last+1)))
			last++
		}
		must(t, log.Append(makeRecords(last+1, last+1)))
		must(t, log.Close())
		file := filepath.Join(cfg.Dir, segmentName(1))
		content := readFile(t, cfg.FS, file)
		step := 1
		if v.name == "tidwall" || testing.Short() {
			step = 31 // what differs from the simulated log is only what happens after the checks
		}
		for bit := 0; bit < len(content)*8; bit += step {
			content[bit/8] ^= 1 << (bit % 8)
			overwriteByte(t, cfg.FS, file, int64(bit/8), content[bit/8])
			checkFlipped(t, v, cfg, last+1, fmt.Sprintf("bit %d of byte %d flipped", bit%8, bit/8))
			content[bit/8] ^= 1 << (bit % 8)
			overwriteByte(t, cfg.FS, file, int64(bit/8), content[bit/8])
		}
		// As the tail: the second segment is gone, and the checkpoint reaches to the end of the first.
		must(t, cfg.FS.Remove(filepath.Join(cfg.Dir, segmentName(last+1))))
		for bit := 0; bit < len(content)*8; bit += step {
			overwriteByte(t, cfg.FS, file, int64(bit/8), content[bit/8]^1<<(bit%8))
			_, _, err := v.open(cfg, 1, last)
			wantCorrupt(t, err, segmentName(1))
			overwriteByte(t, cfg.FS, file, int64(bit/8), content[bit/8])
		}
	})
}

func overwriteByte(t *testing.T, fsys vfs.FS, name string, offset int64, b byte) {
	t.Helper()
	f, err := fsys.OpenFile(name, 1 /* write only */, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{b}, offset)
	must(t, err)
	must(t, f.Close())
}

// checkFlipped opens and reads a log with damage in an older segment.
func checkFlipped(t *testing.T, v variant, cfg Config, last uint64, what string) {
	t.Helper()
	log, _, err := v.open(cfg, 1, last)
	if err != nil {
		wantCorrupt(t, err, "")
		return
	}
	all, err := readAll(log, 1, 4000)
	for i, rec := range all {
		if !bytes.Equal(rec, makeRecord(uint64(i+1))) {
			t.Fatalf("%s: LSN %d reads wrong", what, i+1)
		}
	}
	wantCorrupt(t, err, segmentName(1))
	if _, again := log.Read(last, 10, nil); again != err {
		t.Fatalf("%s: after %v the log went on with %v", what, err, again)
	}
	if closed := log.Close(); closed != err {
		t.Fatalf("%s: close: %v", what, closed)
	}
}

// Each way in which segments can be missing or short, seen before anything is read or changed.
func TestMissingSegments(t *testing.T) {
	segments := func(t *testing.T, cfg Config) []string {
		var names []string
		entries, err := cfg.FS.ReadDir(cfg.Dir)
		must(t, err)
		for _, e := range entries {
			names = append(names, filepath.Join(cfg.Dir, e.Name()))
		}
		return names
	}
	shorten := func(t *testing.T, cfg Config, name string, by int) {
		content := readFile(t, cfg.FS, name)
		writeFile(t, cfg.FS, name, content[:len(content)-by])
	}
	for name, damage := range map[string]func(t *testing.T, cfg Config, names []string){
		"first missing":  func(t *testing.T, cfg Config, names []string) { must(t, cfg.FS.Remove(names[0])) },
		"middle missing": func(t *testing.T, cfg Config, names []string) { must(t, cfg.FS.Remove(names[2])) },
		"last missing":   func(t *testing.T, cfg Config, names []string) { must(t, cfg.FS.Remove(names[len(names)-1])) },
		"all missing": func(t *testing.T, cfg Config, names []string) {
			must(t, cfg.FS.RemoveAll(cfg.Dir))
			must(t, cfg.FS.Mkdir(cfg.Dir, 0o755))
		},
		"first short": func(t *testing.T, cfg Config, names []string) { shorten(t, cfg, names[0], 1) },
		"middle short by one record": func(t *testing.T, cfg Config, names []string) {
			ends := entryEnds(t, readFile(t, cfg.FS, names[2]))
			n := len(ends)
			shorten(t, cfg, names[2], int(ends[n-1]-ends[n-2]))
		},
		"middle empty": func(t *testing.T, cfg Config, names []string) { writeFile(t, cfg.FS, names[2], nil) },
		"middle of another queue": func(t *testing.T, cfg Config, names []string) {
			content := readFile(t, cfg.FS, names[2])
			var swapped []byte
			ends := entryEnds(t, content)
			for i := range ends[:len(ends)-1] {
				entry := content[ends[i]:ends[i+1]]
				prefix, _, _, _ := entryLen(entry)
				rec, _, err := record.Decode(entry[prefix:])
				must(t, err)
				rec.Incarnation++
				swapped = append(swapped, entry[:prefix]...)
				swapped = record.Append(swapped, &rec)
			}
			writeFile(t, cfg.FS, names[2], swapped)
		},
		"two swapped": func(t *testing.T, cfg Config, names []string) {
			a, b := readFile(t, cfg.FS, names[1]), readFile(t, cfg.FS, names[2])
			writeFile(t, cfg.FS, names[1], b)
			writeFile(t, cfg.FS, names[2], a)
		},
		"a directory instead": func(t *testing.T, cfg Config, names []string) {
			must(t, cfg.FS.Remove(names[1]))
			must(t, cfg.FS.Mkdir(names[1], 0o755))
		},
		"two truncations at once": func(t *testing.T, cfg Config, names []string) {
			must(t, cfg.FS.Rename(names[1], names[1]+".START"))
			must(t, cfg.FS.Rename(names[2], names[2]+".END"))
		},
		"a truncation too far": func(t *testing.T, cfg Config, names []string) {
			must(t, cfg.FS.Rename(names[1], names[1]+".START"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachVariant(t, func(t *testing.T, v variant, cfg Config) {
				build(t, v, cfg, 1, 300)
				damage(t, cfg, segments(t, cfg))
				before := segments(t, cfg)
				_, _, err := v.open(cfg, 1, 300)
				wantCorrupt(t, err, "")
				if after := segments(t, cfg); fmt.Sprint(after) != fmt.Sprint(before) {
					t.Fatalf("the corrupt log was changed: %v, was %v", after, before)
				}
			})
		})
	}
}

// Segments in front that nobody needs may be in any state: an interrupted CutFront leaves any subset of them.
func TestAnySubsetOfTheFrontMayBeLeft(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		for subset := range 1 << 4 {
			must(t, cfg.FS.RemoveAll(cfg.Dir))
			build(t, v, cfg, 1, 300)
			entries, err := cfg.FS.ReadDir(cfg.Dir)
			must(t, err)
			first, _, _ := parseName(entries[4].Name())
			removed := 0
			for i := range 4 {
				if subset&(1<<i) != 0 {
					removed++
					must(t, cfg.FS.Remove(filepath.Join(cfg.Dir, entries[i].Name())))
				}
			}
			log, report, err := v.open(cfg, first+1, 300)
			must(t, err)
			checkContent(t, log, first+1, 300)
			if report.FrontSegments != 4-removed || log.First() != first {
				t.Fatalf("subset %b: %+v, first %d", subset, report, log.First())
			}
			must(t, log.Close())
		}
	})
}

// A drained log may be found with any of its old segments, with and without the new empty one.
func TestAnySubsetOfADrainedLogMayBeLeft(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		for subset := range 1 << 5 {
			must(t, cfg.FS.RemoveAll(cfg.Dir))
			cfg.SegmentBytes = 8192
			build(t, v, cfg, 1, 200)
			entries, err := cfg.FS.ReadDir(cfg.Dir)
			must(t, err)
			if len(entries) != 4 {
				t.Fatalf("%d segments", len(entries))
			}
			for i := range 4 {
				if subset&(1<<i) != 0 {
					must(t, cfg.FS.Remove(filepath.Join(cfg.Dir, entries[i].Name())))
				}
			}
			if subset&(1<<4) != 0 {
				must(t, createEmpty(cfg.FS, filepath.Join(cfg.Dir, segmentName(201))))
			}
			log, _, err := v.open(cfg, 201, 200)
			must(t, err)
			must(t, log.Append(makeRecords(201, 205)))
			checkContent(t, log, 201, 205)
			if log.First() != 201 {
				t.Fatalf("first is %d", log.First())
			}
			must(t, log.Close())
		}
	})
}

// What tidwall/wal leaves when it is interrupted in a truncation is completed as the library itself would.
func TestLeftoversOfTidwall(t *testing.T) {
	for name, test := range map[string]struct {
		leave       func(t *testing.T, cfg Config, names []string)
		first, last uint64
	}{
		"temporary files": {func(t *testing.T, cfg Config, names []string) {
			writeFile(t, cfg.FS, names[1]+".START.TEMP", []byte("half"))
			writeFile(t, cfg.FS, names[2]+".END.TEMP", []byte("half"))
		}, 1, 300},
		"front, nothing removed": {func(t *testing.T, cfg Config, names []string) {
			writeFile(t, cfg.FS, names[2]+".START", readFile(t, cfg.FS, names[2]))
		}, 150, 300},
		"front, all removed": {func(t *testing.T, cfg Config, names []string) {
			must(t, cfg.FS.Rename(names[2], names[2]+".START"))
			must(t, cfg.FS.Remove(names[0]))
			must(t, cfg.FS.Remove(names[1]))
		}, 150, 300},
		"back, nothing removed": {func(t *testing.T, cfg Config, names []string) {
			writeFile(t, cfg.FS, names[2]+".END", readFile(t, cfg.FS, names[2]))
		}, 1, 90},
		"back, all removed": {func(t *testing.T, cfg Config, names []string) {
			must(t, cfg.FS.Rename(names[2], names[2]+".END"))
			for _, n := range names[3:] {
				must(t, cfg.FS.Remove(n))
			}
		}, 1, 90},
		"foreign files": {func(t *testing.T, cfg Config, names []string) {
			writeFile(t, cfg.FS, filepath.Join(cfg.Dir, "notes"), []byte("hello"))
			writeFile(t, cfg.FS, names[1]+".bitmap", []byte("hello"))
			writeFile(t, cfg.FS, filepath.Join(cfg.Dir, segmentName(0)), []byte("hello"))
		}, 1, 300},
	} {
		t.Run(name, func(t *testing.T) {
			eachVariant(t, func(t *testing.T, v variant, cfg Config) {
				build(t, v, cfg, 1, 300)
				var names []string
				entries, err := cfg.FS.ReadDir(cfg.Dir)
				must(t, err)
				for _, e := range entries {
					names = append(names, filepath.Join(cfg.Dir, e.Name()))
				}
				test.leave(t, cfg, names)
				log, _, err := v.open(cfg, test.first, test.last)
				must(t, err)
				must(t, log.Append(makeRecords(test.last+1, test.last+50)))
				checkContent(t, log, test.first, test.last+50)
				must(t, log.Close())
				log, report, err := v.open(cfg, test.first, test.last+50)
				must(t, err)
				checkContent(t, log, test.first, test.last+50)
				if len(report.Leftovers) != 0 {
					t.Fatalf("left over again: %v", report.Leftovers)
				}
				must(t, log.Close())
			})
		})
	}
}

// A client must not be able to stop its queue with a body that looks like a damaged record at a segment's end.
func TestBodyThatLooksLikeARecord(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		log, _, err := v.open(cfg, 1, 0)
		must(t, err)
		fake := record.Append(nil, &record.Record{LSN: 1, Incarnation: testIncarnation, Body: make([]byte, 20)})
		fake[5]++ // its checksum is wrong
		body := append(make([]byte, 5000), fake...)
		must(t, log.Append([][]byte{
			record.Append(nil, &record.Record{LSN: 1, Incarnation: testIncarnation, Body: body}), makeRecord(2)}))
		must(t, log.Sync())
		must(t, log.Close())
		log, _, err = v.open(cfg, 1, 2)
		must(t, err)
		got, err := readAll(log, 1, 100)
		if err != nil || len(got) != 2 {
			t.Fatalf("read %d records, %v", len(got), err)
		}
		must(t, log.Close())
	})
}

// Entries that are each valid, but not the ones that belong there: in an older segment, where only its end is looked at
// when the log is opened, and in the tail.
func TestWholeEntriesMoved(t *testing.T) {
	for name, move := range map[string]func(entry func(int) []byte, n int) []byte{
		"one missing": func(entry func(int) []byte, n int) []byte {
			return bytes.Join([][]byte{entry(0), entry(1), collect(entry, 3, n)}, nil)
		},
		"one doubled": func(entry func(int) []byte, n int) []byte {
			return bytes.Join([][]byte{entry(0), entry(1), collect(entry, 1, n)}, nil)
		},
		"two swapped": func(entry func(int) []byte, n int) []byte {
			return bytes.Join([][]byte{entry(1), entry(0), collect(entry, 2, n)}, nil)
		},
		"the last doubled": func(entry func(int) []byte, n int) []byte {
			return append(collect(entry, 0, n), entry(n-1)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachVariant(t, func(t *testing.T, v variant, cfg Config) {
				build(t, v, cfg, 1, 300)
				for _, segment := range []int{1, -1} {
					entries, err := cfg.FS.ReadDir(cfg.Dir)
					must(t, err)
					file := entries[(segment+len(entries))%len(entries)].Name()
					path := filepath.Join(cfg.Dir, file)
					content := readFile(t, cfg.FS, path)
					ends := entryEnds(t, content)
					entry := func(i int) []byte { return content[ends[i]:ends[i+1]] }
					writeFile(t, cfg.FS, path, move(entry, len(ends)-1))
					if segment < 0 && name == "the last doubled" {
						continue // it follows last, where nothing is wrong
					}
					checkMoved(t, v, cfg, file)
					writeFile(t, cfg.FS, path, content)
				}
			})
		})
	}
}

func collect(entry func(int) []byte, from, to int) (all []byte) {
	for i := from; i < to; i++ {
		all = append(all, entry(i)...)
	}
	return all
}

// checkMoved checks that a log with a wrong segment is found out before a wrong record is returned.
func checkMoved(t *testing.T, v variant, cfg Config, file string) {
	t.Helper()
	log, _, err := v.open(cfg, 1, 300)
	if err == nil {
		defer log.Close()
		var all [][]byte
		all, err = readAll(log, 1, 1000)
		for i, rec := range all {
			if !bytes.Equal(rec, makeRecord(uint64(i+1))) {
				t.Fatalf("LSN %d reads wrong", i+1)
			}
		}
	}
	wantCorrupt(t, err, file)
}

// Without the sync of the copy the torn bytes would be cut and lost, and nobody could look into what happened.
func TestTornBytesAreSafeBeforeTheyAreCut(t *testing.T) {
	for seed := range uint64(50) {
		disk := vfs.NewLossy(seed)
		cfg := Config{FS: disk, Dir: "log", DamagedDir: "damaged", Incarnation: testIncarnation}
		build(t, variants[1], cfg, 1, 20)
		file := filepath.Join(cfg.Dir, segmentName(1))
		torn := []byte("these bytes were never acknowledged")
		writeFile(t, disk, file, append(readFile(t, disk, file), torn...))
		log, report, err := OpenSim(cfg, 1, 20)
		must(t, err)
		must(t, log.Close())
		after := disk.Crash()
		if got := readFile(t, after, report.Torn[0].SavedAs); !bytes.Equal(got, torn) {
			t.Fatalf("seed %d: the copy is %q", seed, got)
		}
		cfg.FS = after
		log, report, err = OpenSim(cfg, 1, 20)
		must(t, err)
		if report.TornBytes != 0 {
			t.Fatalf("seed %d: the cut was not durable: %+v", seed, report)
		}
		must(t, log.Close())
	}
}

// A file that is gone or shorter while the log is open is an error, and the log ends with it.
func TestDamageWhileOpen(t *testing.T) {
	eachVariant(t, func(t *testing.T, v variant, cfg Config) {
		for _, name := range []string{"gone", "short"} {
			must(t, cfg.FS.RemoveAll(cfg.Dir))
			build(t, v, cfg, 1, 300)
			log, _, err := v.open(cfg, 1, 300)
			must(t, err)
			file := filepath.Join(cfg.Dir, segmentName(1))
			if name == "gone" {
				must(t, cfg.FS.Remove(file))
			} else {
				writeFile(t, cfg.FS, file, readFile(t, cfg.FS, file)[:1000])
			}
			_, err = readAll(log, 1, 1000)
			if err == nil || errors.Is(err, ErrOutOfRange) {
				t.Fatalf("%s: read says %v", name, err)
			}
			if again := log.Append(makeRecords(301, 301)); again != err {
				t.Fatalf("%s: append says %v", name, again)
			}
			log.Close()
		}
	})
}
