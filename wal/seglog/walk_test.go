package seglog

import (
	"bytes"
	"path/filepath"
	"testing"

	"quail/wal/record"
	"quail/wal/vfs"
)

// walked is what a walk over records 1 to 900 tells.
type walked struct {
	visited, leftOut map[uint64]bool
	holes            []Hole
}

func walkAll(t *testing.T, cfg Config) walked {
	t.Helper()
	w := walked{visited: map[uint64]bool{}, leftOut: map[uint64]bool{}}
	must(t, Walk(cfg, 1, 900, func(raw []byte, _ string, _ int64) error {
		lsn := record.View(raw).LSN
		if !bytes.Equal(raw, makeRecord(lsn)) {
			t.Fatalf("LSN %d is wrong", lsn)
		}
		w.visited[lsn] = true
		return nil
	}, func(h Hole) { w.holes = append(w.holes, h) }, func(from, to uint64) error {
		for lsn := from; lsn <= to; lsn++ {
			w.leftOut[lsn] = true
		}
		return nil
	}))
	return w
}

// Without this what was given back counts as lost, or damage in what was kept as given back.
func TestWalkOfRewrittenSegments(t *testing.T) {
	fsys := vfs.NewLossy(1)
	must(t, fsys.MkdirAll("logs", 0o755))
	v := variants[1]
	cfg := Config{FS: fsys, Dir: "logs/log", Incarnation: testIncarnation, SegmentBytes: 4096}
	build(t, v, cfg, 1, 900)
	log, _, err := v.open(cfg, 1, 900)
	must(t, err)
	live := everyNth(1, 900, 37)
	must(t, rewriteAll(log, live))
	tail := log.(*core).tail().first
	name := filepath.Join(cfg.Dir, log.(*core).segments[0].name())
	must(t, log.Close())
	w := walkAll(t, cfg)
	kept := liveSet(live)
	for lsn := uint64(1); lsn <= 900; lsn++ {
		if keep := kept[lsn] || lsn >= tail; w.visited[lsn] != keep || w.leftOut[lsn] == keep {
			t.Fatalf("LSN %d: visited %v, left out %v, kept %v", lsn, w.visited[lsn], w.leftOut[lsn], keep)
		}
	}
	if len(w.holes) > 0 {
		t.Fatalf("holes: %+v", w.holes)
	}
	whole := readFile(t, fsys, name)
	for at := range whole {
		data := bytes.Clone(whole)
		data[at] ^= 1 << (at % 8)
		writeFile(t, fsys, name, data)
		w := walkAll(t, cfg)
		if len(w.holes) == 0 {
			t.Fatalf("the flipped byte %d is not noticed", at)
		}
		for _, lsn := range live {
			if w.leftOut[lsn] && lsn < tail {
				t.Fatalf("byte %d is flipped, and the live LSN %d passes as left out: %+v", at, lsn, w.holes)
			}
		}
	}
	for size := range len(whole) {
		writeFile(t, fsys, name, whole[:size])
		if w := walkAll(t, cfg); len(w.holes) == 0 {
			t.Fatalf("cut to %d bytes, and not noticed", size)
		}
	}
}
