package seglog

// Power cuts and failing operations, over the simulated log: each operation of a run fails once, or is the last one
// before the power goes, and each time the log must be what its last checkpoint says.

import (
	"errors"
	"fmt"
	"testing"

	"quail/wal/vfs"
)

// run is a log with the checkpoint that a caller would have saved beside it.
type run struct {
	cfg         Config
	log         Log
	first, last uint64 // of the checkpoint
	needed      uint64 // lowest LSN that will still be needed
	reads       int
}

// open opens at the checkpoint and checks everything that must be there.
func (r *run) open(t *testing.T) (err error) {
	if r.log, _, err = OpenSim(r.cfg, r.first, r.last); err != nil {
		return err
	}
	if r.log.First() > r.first || r.log.Last() != r.last {
		t.Fatalf("log holds %d to %d, the checkpoint says %d to %d", r.log.First(), r.log.Last(), r.first, r.last)
	}
	return nil
}

// work appends, checkpoints, cuts and reads, until something fails.
func (r *run) work(t *testing.T, steps []int) (err error) {
	for _, step := range steps {
		next := r.log.Last() + 1
		switch step % 8 {
		case 0, 1, 2:
			err = r.log.Append(makeRecords(next, next+uint64(step)%70))
		case 3, 4:
			needed := r.needed
			if err = r.log.Sync(); err == nil {
				r.first, r.last = needed, next-1
				err = r.log.CutFront(r.first)
			}
		case 5:
			r.needed = min(r.needed+uint64(step)%90, r.log.Last()+1)
		case 6:
			if _, err = r.log.Read(r.log.First(), 2000, nil); err == nil {
				r.reads++
			}
		case 7:
			r.needed = r.log.Last() + 1
		}
		if err != nil {
			checkFinal(t, r.log, err)
			return err
		}
	}
	return nil
}

// checkFinal checks that an error ended the log.
func checkFinal(t *testing.T, log Log, err error) {
	t.Helper()
	if errors.Is(err, ErrOutOfRange) {
		t.Fatal(err)
	}
	_, readErr := log.Read(log.First(), 10, nil)
	for _, again := range []error{log.Append(makeRecords(log.Last()+1, log.Last()+1)), log.Sync(), log.CutFront(log.First()), readErr, log.Close()} {
		if again != err {
			t.Fatalf("after %v the log says %v", err, again)
		}
	}
}

func drawSteps(seed uint64, n int) []int {
	dice := newDice(seed)
	steps := make([]int, n)
	for i := range steps {
		steps[i] = dice.IntN(8 * 70)
	}
	return steps
}

func newRun(fsys vfs.FS) *run {
	return &run{cfg: Config{FS: fsys, Dir: "logs/q", DamagedDir: "logs/damaged", Incarnation: testIncarnation, SegmentBytes: 2000},
		first: 1, needed: 1}
}

// Without this an error that is not looked at, or looked at once, would let the log go on from a state nobody knows.
func TestEveryOperationFailsOnce(t *testing.T) {
	for _, how := range []vfs.Failure{vfs.FailBefore, vfs.FailShort, vfs.FailDropped, vfs.FailAfter} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("manner %d, seed %d", how, seed), func(t *testing.T) {
				steps := drawSteps(seed, 40)
				for n, end := 1, false; !end; n++ {
					end = failOnce(t, steps, n, how)
				}
			})
		}
	}
}

// failOnce runs the steps with one failing operation and then opens the log again; end is true if there was no such
// operation.
func failOnce(t *testing.T, steps []int, n int, how vfs.Failure) (end bool) {
	t.Helper()
	failing := vfs.NewFailing(vfs.NewLossy(uint64(n)))
	r := newRun(failing)
	failing.FailAtHow(n, how, vfs.ErrInjected)
	err := r.open(t)
	if err == nil {
		err = r.work(t, steps)
	}
	count := failing.Count()
	if err == nil {
		err = r.log.Close()
	}
	if err != nil && !errors.Is(err, vfs.ErrInjected) {
		t.Fatalf("operation %d (%v) failed, and then: %v", n, failing.Ops()[n-1], err)
	}
	if err == nil && n <= count && failing.Ops()[n-1].Kind != vfs.OpClose {
		t.Fatalf("operation %d (%v) failed, and nobody noticed", n, failing.Ops()[n-1])
	}
	r.needed = max(r.needed, r.first)
	if r.needed > r.last+1 {
		r.needed = r.last + 1
	}
	failing.FailAt(0, nil) // the run had less than n operations, or it is over anyway
	if err := r.open(t); err != nil {
		t.Fatalf("operation %d (%v) failed, and the log cannot be opened again: %v", n, failing.Ops()[n-1], err)
	}
	checkContent(t, r.log, r.first, r.last)
	must(t, r.log.Append(makeRecords(r.last+1, r.last+20)))
	checkContent(t, r.log, r.first, r.last+20)
	must(t, r.log.Close())
	return n > count
}

// Without this a sync in the wrong place, or none, would go unnoticed until the first power cut.
func TestPowerCutAtEveryOperation(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			for n, end := 1, false; !end; n++ {
				end = cutPower(t, seed, n)
			}
		})
	}
}

// cutPower cuts the power before operation n of a run, and then again and again at random ones, also within Open.
func cutPower(t *testing.T, seed uint64, n int) (end bool) {
	t.Helper()
	disk := vfs.NewLossy(seed*1000 + uint64(n))
	failing := vfs.NewFailing(disk)
	r := newRun(failing)
	dice := newDice(seed*1000 + uint64(n))
	failing.HaltAt(n)
	for round := range uint64(4) {
		err := r.open(t)
		if err == nil {
			checkAfterCut(t, r)
			err = r.work(t, drawSteps(seed*10+round, 30))
		}
		if err != nil && !errors.Is(err, vfs.ErrCrashed) {
			t.Fatalf("seed %d, operation %d, round %d: %v", seed, n, round, err)
		}
		end = end || round == 0 && err == nil
		disk = disk.Crash()
		failing = vfs.NewFailing(disk)
		r.cfg.FS = failing
		r.needed = min(max(r.needed, r.first), r.last+1)
		failing.HaltAt(1 + dice.IntN(150))
	}
	r.cfg.FS = disk
	must(t, r.open(t))
	checkAfterCut(t, r)
	must(t, r.log.Close())
	return end
}

// checkAfterCut reads what must be there; the power may go meanwhile.
func checkAfterCut(t *testing.T, r *run) {
	t.Helper()
	all, err := readAll(r.log, r.first, 3000)
	if errors.Is(err, vfs.ErrCrashed) {
		return
	}
	must(t, err)
	if uint64(len(all)) != r.last+1-r.first {
		t.Fatalf("%d records of %d to %d are left", len(all), r.first, r.last)
	}
	for i, rec := range all {
		if string(rec) != string(makeRecord(r.first+uint64(i))) {
			t.Fatalf("LSN %d reads wrong", r.first+uint64(i))
		}
	}
}
