package wal

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"

	"quail/wal/record"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

// Without this a record that was acknowledged is lost, doubled or changed on its way through journal, log and checkpoint.
func TestRoundTrip(t *testing.T) {
	for name, cfg := range map[string]func() Config{
		"memory": func() Config { return testConfig(vfs.NewLossy(1), "data/quail") },
		"disk": func() Config {
			cfg := testConfig(vfs.OS, t.TempDir()+"/a/b")
			cfg.OpenLog = seglog.Open
			return cfg
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			c := cfg()
			for round := range 4 {
				s, rec, err := w.open(c, 0)
				if err != nil {
					t.Fatal(err)
				}
				if rec.New != (round == 0) || rec.Torn != nil {
					t.Fatalf("round %d: recovery %+v", round, rec)
				}
				fillConcurrently(t, w, s, uint64(round))
				for _, q := range w.alive() {
					if err := q.compare(); err != nil {
						t.Fatal(err)
					}
				}
				if round%2 == 0 {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				} else {
					s.Abandon()
				}
			}
		})
	}
}

// fillConcurrently commits from several goroutines to many queues, with checkpoints and readers in between.
func fillConcurrently(t *testing.T, w *world, s *Store, seed uint64) {
	for range 10 {
		if _, err := w.create(s); err != nil {
			t.Fatal(err)
		}
	}
	queues := w.alive()
	var all sync.WaitGroup
	for g := range 6 {
		all.Go(func() {
			dice := rand.New(rand.NewPCG(seed, uint64(g)))
			var last *Future
			for range 150 {
				if err := s.WaitRoom(); err != nil {
					t.Error(err)
					return
				}
				q := queues[dice.IntN(len(queues))]
				recs := make([]record.Record, 1+dice.IntN(4))
				for i := range recs {
					recs[i] = record.Record{Kind: kindPut, Body: randomBody(dice, 2000)}
				}
				last = q.commit(s, recs...)
				switch dice.IntN(20) {
				case 0:
					if err := last.Wait(); err != nil {
						t.Error(err)
					}
				case 1:
					q.cut(s, dice)
				case 2:
					if err := s.Checkpoint(); err != nil {
						t.Error(err)
					}
				}
			}
			if err := last.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// cut commits a record that says that the front of the queue is not needed any more.
func (q *life) cut(s *Store, dice *rand.Rand) *Future {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.cutToLocked(s, q.first+uint64(dice.IntN(int(q.lsn-q.first)+3)))
}

func (q *life) cutTo(s *Store, first uint64) *Future {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.cutToLocked(s, first)
}

func (q *life) cutToLocked(s *Store, first uint64) *Future {
	return q.commitLocked(s, record.Record{Kind: kindCut, Meta: binary.LittleEndian.AppendUint64(nil, min(first, q.lsn+2))})
}
