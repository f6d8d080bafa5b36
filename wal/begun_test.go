package wal

// The note of the newest journal file, and crashes around it.

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"quail/wal/record"
	"quail/wal/vfs"
)

// Without this a crash while a journal file is begun leaves a note of a file that is not there, and the server does not start.
func TestCrashWhileAFileIsBegun(t *testing.T) {
	ops := beginFiles(t, 0)
	tried := 0
	for n, op := range ops {
		if dir := filepath.Base(filepath.Dir(op.Path)); dir == "journal" {
			tried++
			beginFiles(t, n+1)
			if t.Failed() {
				t.Fatalf("crash before operation %d, %v", n+1, op)
			}
		}
	}
	if tried < 30 {
		t.Errorf("only %d operations were tried", tried)
	}
}

// beginFiles fills a few journal files; from operation n on nothing is done any more.
func beginFiles(t *testing.T, n int) (ops []vfs.Op) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(6) {
			w := newWorld()
			lossy := vfs.NewLossy(seed)
			disk := vfs.NewFailing(lossy)
			cfg := testConfig(disk, "data")
			cfg.JournalFileBytes = 4 << 10
			disk.HaltAt(n)
			s, _, err := w.open(cfg, 0)
			if err == nil {
				if q, err := w.create(s); err == nil {
					for range 12 {
						q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 900)}).Wait()
					}
				}
				ops = disk.Ops()
				s.Abandon()
			} else if !errors.Is(err, vfs.ErrCrashed) {
				t.Error(err)
			}
			after := lossy // if the process died alone
			if seed%2 == 0 {
				after = lossy.Crash()
			}
			for range 2 {
				if s, _, err = w.open(testConfig(after, "data"), 0); err != nil {
					t.Errorf("seed %d: %v", seed, err)
					return
				}
				s.Abandon()
				after = after.Crash()
			}
		}
	})
	return ops
}

// Without this a flipped bit in the note hides that a file is missing, or keeps a healthy journal from being read for nothing.
func TestEveryBitOfBegun(t *testing.T) {
	p := newSample(t, 6<<10, 1<<10, 300, false)
	path := filepath.Join("data", "journal", begunName)
	data := slices.Clone(p.img[path])
	newest := 0
	if data[16] < data[begunSlotGap+16] { // the sequence's low byte
		newest = 1
	}
	for slot := range 2 {
		part := data[slot*begunSlotGap : slot*begunSlotGap+64]
		eachBit(t, part, func(bit int) {
			if _, err := p.reopen(t, path, data, p.w.clone()); err != nil {
				t.Errorf("the journal is as it was: %v", err)
			}
			if slot == newest {
				return // as after a torn write: the note that holds is the one before
			}
			img := p.img.with(path, data)
			delete(img, p.journal)
			cfg := p.cfg
			cfg.FS = img.disk(t)
			s, _, err := p.w.clone().open(cfg, 0)
			if err == nil {
				s.Abandon()
			}
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) || errors.Is(err, errWrong) {
				t.Errorf("without the newest file: %v", err)
			}
		})
	}
	for name, left := range map[string][]byte{"empty": {}, "short": data[:begunSlotGap]} {
		if _, err := p.reopen(t, path, left, p.w.clone()); err == nil || clearError(err, path) != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	img := p.img.with(path, nil)
	delete(img, path)
	cfg := p.cfg
	cfg.FS = img.disk(t)
	if _, _, err := p.w.clone().open(cfg, 0); err == nil || clearError(err, path) != nil {
		t.Errorf("deleted: %v", err)
	}
}
