//go:build linux

package integration

// The power goes at every call, without a file system of our own: one tour is recorded, and of each moment of it the directories are
// built that a power cut could have left. A server must open each and hold what its clients had been told by then.

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// recordRun records all that a whole run does to its directory, with a sync that fails if the plan says so.
func recordRun(t *testing.T, p plan) (*tour, *recording) {
	s := newServer(t, tourArgs...)
	g := behindGate(t, s)
	w := watchGate(g, p)
	r := &recording{}
	w.record = r
	tr := newTour(t, s)
	tr.trouble, tr.calls = w.where, r.count
	tr.rewritten = func() bool { return w.seen("rename in queues") > 0 }
	tr.start(w)
	tr.run()
	tr.awaitHealthy()
	s.stop(syscall.SIGTERM)
	tr.start(w)
	tr.tail(w)
	r.awaitQuiet(t)
	s.kill()
	tr.start(w)
	tr.awaitHealthy()
	s.stop(syscall.SIGTERM)
	if r.failed != nil {
		t.Error(r.failed)
	}
	if p.n == 0 && w.seen("rename in queues") == 0 {
		t.Error("no log was rewritten: the tour does not pass through what it should")
	}
	if err := differs(r.disk(r.count(), 1), s.dir); err != nil {
		t.Errorf("the recording is not what happened: %v", err)
	}
	return tr, r
}

// awaitQuiet waits until nothing has been recorded for a while: a call that has passed the gate when the kill comes might not be done.
func (r *recording) awaitQuiet(t *testing.T) {
	last, since := r.count(), time.Now()
	eventually(t, tourHealTime, "the server rests", func() bool {
		if n := r.count(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 50*time.Millisecond
	})
}

// openState starts a server on what a power cut after n calls may have left, and returns what is wrong with it.
func openState(t *testing.T, tr *tour, r *recording, n int, seed uint64) (complaints []string) {
	s := newServer(t, tourArgs...)
	s.dir = filepath.Join(t.TempDir(), "data")
	if err := lay(r.disk(n, seed).Crash(), s.dir); err != nil {
		t.Fatal(err)
	}
	if err := s.tryStart(); err != nil {
		return []string{err.Error()}
	}
	c := newCrash(t, s, tourQueues)
	c.model = tr.at(n)
	c.model.nextLife()
	if err := auditTour(c, func() bool { return false }); err != nil {
		return append(c.model.complaints, err.Error())
	}
	s.kill()
	return c.model.complaints
}

// A moment is one power cut of one recording.
type moment struct {
	tour *tour
	rec  *recording
	n    int
	seed uint64
}

// eachMoment opens the states of many moments, several at a time.
func eachMoment(t *testing.T, moments []moment) {
	var group sync.WaitGroup
	queue := make(chan moment)
	for range everyCallWorkers {
		group.Go(func() {
			for m := range queue {
				if t.Failed() {
					continue
				}
				t.Run(fmt.Sprintf("after %d, seed %d", m.n, m.seed), func(t *testing.T) {
					for _, complaint := range openState(t, m.tour, m.rec, m.n, m.seed) {
						t.Error(complaint)
					}
				})
			}
		})
	}
	for _, m := range moments {
		queue <- m
	}
	close(queue)
	group.Wait()
}

// Without this a write of tidwall/wal that somebody takes for durable, or for ordered behind another one, is found by the first user whose
// power goes.
func TestPowerCutAtEveryCall(t *testing.T) {
	random := seeded(t)
	cuts, syncs, seeds := 60, 4, 1
	if longRun {
		cuts, syncs, seeds = math.MaxInt, 100, 2
	}
	var tr *tour
	var r *recording
	t.Run("recorded", func(t *testing.T) { tr, r = recordRun(t, plan{}) })
	if r == nil {
		t.SkipNow() // it says why
	}
	var moments []moment
	for _, n := range chosen(r.count(), cuts) {
		for range seeds {
			moments = append(moments, moment{tr, r, n, random.Uint64N(1 << 20)})
		}
	}
	for i, c := range r.calls {
		if strings.HasSuffix(c.class(), "fsync in checkpoints") { // in front of it; few of so many calls, and all rests on them
			moments = append(moments, moment{tr, r, i, random.Uint64N(1 << 20)})
		}
	}
	began := time.Now()
	eachMoment(t, moments)
	t.Logf("%d calls, %d power cuts in %v", r.count(), len(moments), time.Since(began).Round(time.Millisecond))
	began, moments = time.Now(), nil
	for _, class := range []string{"fsync in queues", "fdatasync in journal"} {
		total := 0
		for _, c := range r.calls {
			if c.class() == class {
				total++
			}
		}
		for _, n := range chosen(total, syncs/2) {
			p := plan{class: class, n: n, errno: syscall.EIO}
			t.Run(p.String(), func(t *testing.T) {
				tr, r := recordRun(t, p)
				for i, c := range r.calls {
					if c.forgotten {
						for range 3 {
							moments = append(moments, moment{tr, r, i + 1 + random.IntN(r.count()-i), random.Uint64N(1 << 20)})
						}
					}
				}
			})
		}
	}
	eachMoment(t, moments)
	t.Logf("%d power cuts behind syncs that failed and lost what they should have kept, in %v", len(moments), time.Since(began).Round(time.Millisecond))
}

// The same with a recording in which no sync stands. If nothing is lost of it the test above proves nothing.
func TestPowerCutNoticesMissingSyncs(t *testing.T) {
	tr, r := recordRun(t, plan{})
	r.calls = slices.DeleteFunc(r.calls, func(c diskCall) bool { return strings.HasPrefix(c.class(), "fsync in queues") })
	for i := range tr.events {
		tr.events[i].after = 0 // all had been told
	}
	lost := 0
	for seed := range uint64(8) {
		if len(openState(t, tr, r, r.count(), seed)) > 0 {
			lost++
		}
	}
	t.Logf("without the syncs of segments %d of 8 power cuts lose something", lost)
	if lost == 0 {
		t.Error("no power cut loses anything that no sync protected: cutting it like this proves nothing")
	}
}
