package queue

// The simulation: whole runs of the real queues on the real log, decided by one number. The seed draws what producers and consumers do,
// which operation of the disk fails and how, when the power goes or the process is killed, how the clocks move, and in which order
// the background work is done. All of it runs on one goroutine, in virtual time, on a file system in memory: so the same seed is the
// same run, to the last file operation, and a failure can be looked at as often as one likes.
//
//	sim_test.go        runs, traces, the tests
//	sim_world_test.go  the process: starts, ends, the background work, the disk's faults
//	sim_work_test.go   what producers, consumers and owners do
//	sim_copy_test.go   copies: backups, and the directory as it is found while no process runs
//	sim_truth_test.go  what must be so: compared with each answer, and with all queues after each start and at the end
//
// docs/testing.md tells how to run a seed again, and what the simulation is worth.

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	simSeedsDefault = 1000
	// simSeedsLong is with QUAIL_LONG=1.
	simSeedsLong = 30_000
	// simWorkers is how many groups of seeds run beside each other.
	simWorkers = 8
	// simTraceTail is how many lines of its trace a failed run shows; -seed shows all.
	simTraceTail = 40
	// simRepeats is how many seeds are run twice.
	simRepeats = 40
)

var simSeed = flag.String("seed", "", "seed of the simulation to run and show, or first-last")

// simResult is what one run came to.
type simResult struct {
	hash  uint64 // of the whole trace, and of each operation of the disk
	trace []string
	err   string // empty if all was as promised
	stats simStats
}

// simStats count what runs did, so that one can see that they did something.
type simStats struct {
	pushed, delivered, settled, faults, powerCuts, kills, cleanStarts, journalFailures, logFailures, rots, fullDisks, backups, looks, rewrites, probes int
}

func (s *simStats) add(o simStats) {
	s.pushed += o.pushed
	s.delivered += o.delivered
	s.settled += o.settled
	s.faults += o.faults
	s.powerCuts += o.powerCuts
	s.kills += o.kills
	s.cleanStarts += o.cleanStarts
	s.journalFailures += o.journalFailures
	s.logFailures += o.logFailures
	s.rots += o.rots
	s.fullDisks += o.fullDisks
	s.backups += o.backups
	s.looks += o.looks
	s.rewrites += o.rewrites
	s.probes += o.probes
}

// simFailure ends a run.
type simFailure string

// simulate runs one seed.
func simulate(t *testing.T, seed uint64) (r simResult) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, seed)
		defer func() {
			if p := recover(); p != nil {
				if f, ok := p.(simFailure); ok {
					r.err = string(f)
				} else { // the program itself says that it is wrong
					r.err = fmt.Sprintf("%v\n%s", p, debug.Stack())
				}
			}
			r.hash, r.trace, r.stats = s.hash.Sum64(), s.lines, s.stats
		}()
		s.run()
	})
	return r
}

func (r *simResult) String() string {
	lines := r.trace
	if len(lines) > simTraceTail {
		lines = lines[len(lines)-simTraceTail:]
	}
	return strings.Join(lines, "\n") + "\n" + r.err
}

// Without this, what no other test thought of: a fault at the wrong moment that loses a message, doubles it, brings it back, or gives it to two.
func TestSimulation(t *testing.T) {
	first, seeds := simRange(t)
	if seeds == 1 {
		r := simulate(t, uint64(first))
		t.Logf("seed %d, trace %016x, %+v\n%s", first, r.hash, r.stats, strings.Join(r.trace, "\n"))
		if r.err != "" {
			t.Fatal(r.err)
		}
		return
	}
	var stats [simWorkers]simStats
	t.Run("seeds", func(t *testing.T) {
		for worker := range simWorkers {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				for seed := first + worker; seed < first+seeds; seed += simWorkers {
					r := simulate(t, uint64(seed))
					stats[worker].add(r.stats)
					if r.err != "" {
						t.Fatalf("%s\nagain: go test ./queue -run '^TestSimulation$' -seed %d -v", r.String(), seed)
					}
				}
			})
		}
	})
	var all simStats
	for _, s := range stats {
		all.add(s)
	}
	t.Logf("%d seeds from %d: %+v", seeds, first, all)
}

// simRange says which seeds to run.
func simRange(t *testing.T) (first, count int) {
	switch {
	case *simSeed != "":
	case *seeds != seedsDefault:
		return 0, *seeds
	case os.Getenv("QUAIL_LONG") == "1":
		return 0, simSeedsLong
	default:
		return 0, simSeedsDefault
	}
	from, to, isRange := strings.Cut(*simSeed, "-")
	if !isRange {
		to = from
	}
	a, errA := strconv.Atoi(from)
	b, errB := strconv.Atoi(to)
	if errA != nil || errB != nil || a < 0 || b < a {
		t.Fatalf("-seed is %q; a seed, or first-last, is wanted", *simSeed)
	}
	return a, b - a + 1
}

// Without this a failing seed could not be run again: what failed would be gone with the run.
func TestSimulationRepeatsItself(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for seed := range uint64(simRepeats) {
		runtime.GOMAXPROCS(1)
		one := simulate(t, seed)
		runtime.GOMAXPROCS(4)
		two := simulate(t, seed)
		if one.hash == two.hash {
			continue
		}
		for i := range min(len(one.trace), len(two.trace)) {
			if one.trace[i] != two.trace[i] {
				t.Fatalf("seed %d: line %d of the trace is\n%s\nand then\n%s", seed, i, one.trace[i], two.trace[i])
			}
		}
		t.Fatalf("seed %d: the traces have the same lines, %d and %d, but the disk saw other operations", seed, len(one.trace), len(two.trace))
	}
}

// tracef adds a line to the trace.
func (s *sim) tracef(format string, args ...any) {
	line := fmt.Sprintf("%9.3f ", time.Since(s.began).Seconds()) + fmt.Sprintf(format, args...)
	s.lines = append(s.lines, line)
	s.hash.Write([]byte(line))
}

// fail ends the run: something is not as promised.
func (s *sim) fail(format string, args ...any) {
	panic(simFailure(fmt.Sprintf(format, args...)))
}
