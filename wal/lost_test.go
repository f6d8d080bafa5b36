package wal

// What is said when whole files are lost: an operator decides at night by these words.

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"quail/wal/record"
	"quail/wal/vfs"
)

// usedStore is the image of a store whose journal files were all used again, with so many bytes of journal behind the last checkpoint.
func usedStore(t *testing.T, behind int64) (w *world, img image, cfg Config) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w = newWorld()
		lossy := vfs.NewLossy(7)
		cfg = testConfig(lossy, "data")
		cfg.JournalFileBytes, cfg.JournalBytes = 24<<10, 96<<10
		s, q := w.openOne(t, cfg)
		fill := func(bytes int64) {
			for from := s.journal.written.Load(); s.journal.written.Load() < from+bytes; {
				q.commit(s, record.Record{Kind: kindPut, Body: make([]byte, 1000)}).Wait()
			}
		}
		for range 4 {
			fill(cfg.JournalBytes / 2)
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
		fill(behind)
		s.Abandon()
		img = takeImage(t, lossy, "data")
	})
	return w, img, cfg
}

func without(img image, gone func(path string) bool) image {
	left := image{}
	for path, data := range img {
		if !gone(path) {
			left[path] = data
		}
	}
	return left
}

func isCheckpoint(path string) bool {
	return slices.Contains([]string{".base", ".delta"}, filepath.Ext(path))
}

// opened is what a start says, stoppedDamage what a look at the stopped directory finds.
func opened(t *testing.T, w *world, img image, cfg Config) error {
	t.Helper()
	cfg.FS = img.disk(t)
	s, _, err := w.clone().open(cfg, 0)
	if err == nil {
		s.Abandon()
	}
	return err
}

func stoppedDamage(t *testing.T, img image) (list []Damage, unknown bool) {
	t.Helper()
	s, err := OpenStopped(img.disk(t), "data")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.Damage, slices.ContainsFunc(s.Damage, func(d Damage) bool { return d.Unknown })
}

func mentions(list []Damage, words string) bool {
	return slices.ContainsFunc(list, func(d Damage) bool { return strings.Contains(d.Reason, words) })
}

// Without this the loss of a checkpoint reads as the loss of thousands of groups of the journal.
func TestLostCheckpointIsCalledThat(t *testing.T) {
	w, img, cfg := usedStore(t, 1)
	none := without(img, isCheckpoint)
	if err := opened(t, w, none, cfg); err == nil || !strings.Contains(err.Error(), "the checkpoint that covered them is missing, or the journal files that held them are") ||
		!strings.Contains(err.Error(), "corruption in data/journal at") {
		t.Errorf("without checkpoints: %v", err)
	}
	if list, unknown := stoppedDamage(t, none); !unknown || !mentions(list, "the checkpoint that covered them is missing, or") {
		t.Errorf("without checkpoints: %+v", list)
	}
	// The damaged checkpoint's own header still tells what it covered: then no journal file is missing.
	flipped := without(img, func(string) bool { return false })
	for path, data := range img {
		if isCheckpoint(path) {
			data = slices.Clone(data)
			data[len(data)-1] ^= 1
			flipped[path] = data
		}
	}
	list, unknown := stoppedDamage(t, flipped)
	if unknown || !mentions(list, "the checkpoint that covered them is damaged or missing") {
		t.Errorf("with damaged checkpoints: %+v", list)
	}
	for _, d := range list {
		if strings.Contains(d.Reason, "<nil>") {
			t.Errorf("%+v", d)
		}
	}
}

// Without this the end of an older file is said to be missing because of <nil>.
func TestGapInTheJournalHasAReason(t *testing.T) {
	w, img, cfg := usedStore(t, 60<<10)
	gaps := 0
	var chain []string
	for path, data := range img {
		if filepath.Ext(path) == ".journal" && !allZero(data[:blockBytes]) {
			chain = append(chain, path)
		}
	}
	for _, path := range chain {
		for _, cut := range []int{blockBytes, len(img[path]) / 2} {
			for _, keeps := range []int{0, blockBytes} { // with zeros behind it, and with nothing
				data := slices.Clone(img[path])
				clear(data[cut:])
				if keeps == 0 {
					data = data[:cut]
				}
				err := opened(t, w, img.with(path, data), cfg)
				var corrupt *CorruptError
				if !errors.As(err, &corrupt) {
					continue // no group behind the checkpoint was there
				}
				if gaps++; clearError(err, corrupt.File) != nil {
					t.Error(clearError(err, corrupt.File))
				}
			}
		}
	}
	if gaps == 0 {
		t.Error("nothing was missed")
	}
}

// Without this a young store whose journal was deleted is repaired to nothing, and no word says that messages may be gone; or a server
// starts on it as if it were new.
func TestLostJournalOfAYoungStore(t *testing.T) {
	var all image
	var cfg Config
	w := newWorld()
	synctest.Test(t, func(t *testing.T) {
		lossy := vfs.NewLossy(7)
		cfg = testConfig(lossy, "data")
		s, q := w.openOne(t, cfg)
		q.commit(s, record.Record{Kind: kindPut, Body: []byte("mine")}).Wait()
		if err := q.log.flush(^uint64(0)); err != nil {
			t.Fatal(err)
		}
		s.Abandon()
		all = takeImage(t, lossy, "data")
	})
	for name, gone := range map[string]func(path string) bool{
		"its only file":           func(path string) bool { return filepath.Ext(path) == ".journal" },
		"its only file, and log":  func(path string) bool { return filepath.Ext(path) == ".journal" || strings.Contains(path, "/queues/") },
		"all files":               func(path string) bool { return strings.Contains(path, "/journal/") },
		"all files but the files": func(path string) bool { return filepath.Base(path) == begunName },
	} {
		img := without(all, gone)
		var corrupt *CorruptError
		if err := opened(t, w, img, cfg); !errors.As(err, &corrupt) {
			t.Errorf("%s: a start got %v", name, err)
		}
		if list, unknown := stoppedDamage(t, img); !unknown {
			t.Errorf("%s: nothing says that messages may be gone: %+v", name, list)
		}
	}
}
