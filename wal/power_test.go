package wal

// Power cuts. A file system in memory remembers what was synced; the power goes at any file operation, and of all that was not
// synced any part survives. Virtual time (testing/synctest) lets end marks, the background writer and retries have their
// turns at once, and shows that a store that was given up leaves no goroutine behind.

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quail/wal/record"
	"quail/wal/vfs"
)

const roundsPerSeed = 5

func seeds(t *testing.T, normal int) (from, to uint64) {
	if one, err := strconv.ParseUint(os.Getenv("QUAIL_SEED"), 10, 64); err == nil {
		return one, one + 1
	}
	if os.Getenv("QUAIL_LONG") == "1" {
		normal *= 20
	}
	if testing.Short() {
		normal /= 10
	}
	return 1, uint64(normal) + 1
}

// Without this an acknowledged message is lost, or one that was never pushed appears, when the power goes.
func TestPowerCuts(t *testing.T) {
	from, to := seeds(t, 300)
	var rewrites atomic.Int64
	t.Logf("seeds %d to %d; QUAIL_SEED=n runs one", from, to-1)
	for seed := from; seed < to; seed++ {
		if err := powerCuts(t, seed, false, &rewrites); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	if n := rewrites.Load(); n < int64(to-from)/20 {
		t.Errorf("only %d logs were rewritten", n)
	}
	t.Logf("%d logs were rewritten", rewrites.Load())
}

// The test above is worth nothing if it cannot notice a sync that is missing.
func TestPowerCutsNoticeMissingSync(t *testing.T) {
	noticed := 0
	for seed := uint64(1); seed <= 20; seed++ {
		if err := powerCuts(t, seed, true, new(atomic.Int64)); err != nil {
			noticed++
		}
	}
	if noticed < 10 {
		t.Fatalf("without syncs only %d of 20 seeds lost something", noticed)
	}
}

// powerCuts lives through several lives of one store.
func powerCuts(t *testing.T, seed uint64, noSync bool, rewrites *atomic.Int64) (err error) {
	synctest.Test(t, func(t *testing.T) {
		dice := rand.New(rand.NewPCG(seed, 1))
		w := newWorld()
		lossy := vfs.NewLossy(seed)
		for round := range roundsPerSeed {
			disk := vfs.NewFailing(lossy)
			cfg := testConfig(disk, "data")
			cfg.NoSync = noSync
			if seed%3 == 0 {
				cfg.WriteBehindBytes = 32 << 10 // so that a start leaves some in the journal
			}
			cfg.SegmentBytes = 2 << 10 // so that there is something to rewrite
			cfg.Events.LogRewritten = func(LogRewritten) { rewrites.Add(1) }
			disk.HaltAt(haltAt(dice))
			if err = oneLife(w, cfg, disk, dice); err != nil {
				err = fmt.Errorf("round %d: %w", round, err)
				return
			}
			if dice.IntN(3) > 0 { // else the process died alone, and the page cache lives on
				lossy = lossy.Crash()
			}
		}
		s, _, openErr := w.open(testConfig(lossy, "data"), 0)
		if err = openErr; err == nil {
			s.Abandon()
		}
	})
	return err
}

func haltAt(dice *rand.Rand) int {
	if dice.IntN(5) == 0 {
		return 1 + dice.IntN(120) // while opening
	}
	return 60 + dice.IntN(1500)
}

// oneLife opens the store and works until the power goes. It reports only broken promises.
func oneLife(w *world, cfg Config, disk *vfs.Failing, dice *rand.Rand) error {
	s, _, err := w.open(cfg, 0)
	if err != nil {
		if errors.Is(err, vfs.ErrCrashed) {
			return nil
		}
		return err
	}
	defer s.Abandon()
	for range 400 {
		if s.failure() != nil {
			return nil
		}
		if err := w.step(s, dice); err != nil {
			if errors.Is(err, errWrong) {
				return err
			}
			return nil // the power is off
		}
	}
	if dice.IntN(2) == 0 {
		s.Close()
	}
	return nil
}

// step does one thing of a queue's life.
func (w *world) step(s *Store, dice *rand.Rand) error {
	queues := w.alive()
	if len(queues) == 0 || len(queues) < 6 && dice.IntN(20) == 0 {
		_, err := w.create(s)
		return err
	}
	q := queues[dice.IntN(len(queues))]
	switch n := dice.IntN(100); {
	case n < 60:
		if err := s.WaitRoom(); err != nil {
			return err
		}
		sizeMax := 700
		if dice.IntN(15) == 0 {
			sizeMax = 20_000
		}
		recs := make([]record.Record, 1+dice.IntN(4))
		for i := range recs {
			recs[i] = record.Record{Kind: kindPut, Body: randomBody(dice, sizeMax)}
		}
		q.commit(s, recs...)
	case n < 75:
		return q.last.Wait()
	case n < 79:
		q.cut(s, dice)
	case n < 82:
		q.drop(s, dice)
	case n < 84:
		return q.delete(s)
	case n < 87:
		return s.Checkpoint()
	case n < 90:
		_, err := w.nextID(s)
		return err
	case n < 94: // an end mark, and the background writer's turn
		<-time.After(time.Duration(dice.IntN(15)) * time.Millisecond)
	default:
		at := q.first + uint64(dice.IntN(int(q.lsn+1-q.first)+1))
		if at <= q.lsn && !q.dropped[at] {
			if _, err := q.read(at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (q *life) delete(s *Store) error {
	if err := q.commit(s, record.Record{Kind: kindDelete}).Wait(); err != nil {
		return err
	}
	q.log.Delete()
	return nil
}
