package wal

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"quail/wal/record"
	"quail/wal/vfs"
)

// leftWorld is a store that was just opened after its process ended, with more journal than may wait in memory. Nothing runs behind it.
func leftWorld(t *testing.T, fs *vfs.Lossy) (*world, *Store, Config) {
	t.Helper()
	w, cfg := newWorld(), testConfig(fs, "data")
	cfg.Stepped, cfg.CheckpointBytes, cfg.WriteBehindBytes = true, 1<<30, 1<<30
	s, _, err := w.open(cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	dice := rand.New(rand.NewPCG(1, 1))
	for range 5 {
		if _, err := w.create(s); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 60 {
		for _, q := range w.alive() {
			q.commit(s, record.Record{Kind: kindPut, Body: randomBody(dice, 800)}, record.Record{Kind: kindPut, Body: randomBody(dice, 100)})
		}
		s.StepCommit()
		if i == 20 {
			s.StepWriteBehind()
			if err := s.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.Abandon()
	cfg.WriteBehindBytes = 32 << 10
	if s, _, err = w.open(cfg, 0); err != nil {
		t.Fatal(err)
	}
	return w, s, cfg
}

func (w *world) compareAll(t *testing.T, when string) {
	t.Helper()
	for _, q := range w.alive() {
		if err := q.compare(); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
}

// Without this a start with much journal holds up all queues until their logs are written, or takes more memory than was allowed, or a
// consumer gets another record than its own.
func TestJournalIsReadInPlaceAfterAStart(t *testing.T) {
	fs := vfs.NewLossy(1)
	w, s, cfg := leftWorld(t, fs)
	left, pending := s.leftBytes.Load(), s.pendingBytes.Load()
	if left < 20<<10 || pending > cfg.WriteBehindBytes/2+8<<10 {
		t.Fatalf("%d bytes were left in the journal, %d are in memory", left, pending)
	}
	for _, q := range w.alive() {
		if q.log.appended != q.log.saved.Load() {
			t.Errorf("the start has written log %d", q.log.incarnation)
		}
	}
	w.compareAll(t, "in the journal")
	for _, q := range w.alive()[:3] {
		q.commit(s, record.Record{Kind: kindPut, Body: []byte("later")})
	}
	s.StepCommit()
	deleted := w.alive()[4]
	f := deleted.commit(s, record.Record{Kind: kindDelete})
	s.StepCommit()
	if err := f.Wait(); err != nil {
		t.Fatal(err)
	}
	deleted.log.Delete()
	w.compareAll(t, "behind a later record")
	s.StepWriteBehind()
	if left := s.leftBytes.Load(); left != 0 {
		t.Errorf("%d bytes are left in the journal, all was written behind", left)
	}
	w.compareAll(t, "in the logs")
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	w.compareAll(t, "after a checkpoint")
	s.Abandon()
	s, _, err := w.open(cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.compareAll(t, "after another start")
	s.Abandon()
}

// Without this what lies in the journal is lost if the server dies again before it was moved, or a checkpoint lets it go too early.
func TestLeftInJournalOutlivesAnotherEnd(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, w *world, s *Store){
		"at once": func(*testing.T, *world, *Store) {},
		"after one log": func(t *testing.T, w *world, s *Store) {
			if err := w.alive()[0].log.flush(^uint64(0)); err != nil {
				t.Error(err)
			}
		},
		"after a checkpoint": func(t *testing.T, w *world, s *Store) {
			if err := s.Checkpoint(); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewLossy(2)
			w, s, cfg := leftWorld(t, fs)
			end(t, w, s)
			s.Abandon()
			cfg.FS = fs.Crash()
			s, _, err := w.open(cfg, 0)
			if err != nil {
				t.Fatal(err)
			}
			w.compareAll(t, "after the power cut")
			s.Abandon()
		})
	}
}

// A reader looks up a place in the journal; before it reads, the record is moved to the log and the journal's file begun anew. Without this
// it takes what stands there now for damage, and the queue stops.
func TestReadingWhatWasMovedMeanwhile(t *testing.T) {
	fs := vfs.NewLossy(3)
	w, s, _ := leftWorld(t, fs)
	q := w.alive()[0]
	at := q.log.left[0].first
	moved := false
	s.cfg.FS = hookFS{FS: fs, opens: func(path string) error {
		if moved || !strings.HasSuffix(path, ".journal") {
			return nil
		}
		moved = true
		return cmp.Or(s.Checkpoint(), errors.New("the file is in use again"))
	}}
	raws, err := q.log.Read(at, 1, nil)
	if err != nil || len(raws) != 1 || record.View(raws[0]).LSN != at || !moved {
		t.Fatalf("read %d records: %v; moved %v", len(raws), err, moved)
	}
	s.Abandon()
}

// hookFS asks before it opens a file for reading.
type hookFS struct {
	vfs.FS
	opens func(path string) error
}

func (h hookFS) Open(path string) (vfs.File, error) {
	if err := h.opens(path); err != nil {
		return nil, err
	}
	return h.FS.Open(path)
}

// Without this a damaged journal gives a consumer wrong bytes, after the start has read it well.
func TestRotInWhatWasLeftInTheJournal(t *testing.T) {
	fs := vfs.NewLossy(4)
	w, s, _ := leftWorld(t, fs)
	q := w.alive()[0].log
	run := q.left[0]
	if err := fs.Rot(s.leftFiles[run.file], run.offset+40, 3); err != nil {
		t.Fatal(err)
	}
	_, err := q.Read(run.first, 1, nil)
	if !Damaged(err) || !strings.Contains(err.Error(), s.leftFiles[run.file]) {
		t.Errorf("a read of a damaged record says %v", err)
	}
	if q.Err() == nil {
		t.Error("the queue goes on")
	}
	if _, err := w.alive()[1].log.Read(1, 1, nil); err != nil {
		t.Errorf("another queue: %v", err)
	}
	s.Abandon()
}
