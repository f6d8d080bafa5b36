//go:build linux

package integration

// Each call by which the binary changes its data directory, or opens a file of it, fails once; or is where the server is killed; or is
// where the power goes. wal and queue have such tests over a file system in memory; these see the calls themselves, and with them those
// of tidwall/wal. The gate is the injector, and not strace: see gate_test.go.

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// everyCallWorkers is how many servers run at a time; they wait most of it.
const everyCallWorkers = 6

// A plan chooses one call of a run: the n-th of its class, or of all if that is empty.
type plan struct {
	class string
	n     int // 0: none
	errno syscall.Errno
	half  bool // the first half is written, and what should follow fails
	kill  bool // the server is killed in front of the call, with half in the middle of it
}

func (p plan) String() string {
	if p.n == 0 {
		return "nothing fails"
	}
	how := unix.ErrnoName(p.errno)
	if p.kill {
		how = "killed"
	}
	if p.half {
		how += " after half"
	}
	return fmt.Sprintf("%s %d %s", p.class, p.n, how)
}

// watcher counts the calls of a run by class and carries out a plan.
type watcher struct {
	mu     sync.Mutex // guards what follows
	plan   plan
	counts map[string]int
	total  int
	at     string // the path of the call that was hit, "" before
	rest   string // the path whose next write fails: the rest of one that was cut short
	record *recording
}

func watchGate(g *gate, p plan) *watcher {
	w := &watcher{plan: p, counts: make(map[string]int)}
	g.set(w.judge)
	return w
}

func (w *watcher) judge(c call) (v verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at != "" && w.plan.kill {
		return verdict{kill: true} // another thread, which does not know yet that it is dead
	}
	name := class(c)
	w.counts[name]++
	w.total++
	switch {
	case w.rest == c.path && c.isWrite():
		w.rest = ""
		return verdict{errno: w.plan.errno}
	case w.at == "" && (w.plan.class == name && w.counts[name] == w.plan.n || w.plan.class == "" && w.total == w.plan.n):
		w.at = c.path
		v = verdict{errno: w.plan.errno, kill: w.plan.kill, half: w.plan.half && c.isWrite() && (c.args[2] > 1 || c.name == syncedWrite)}
		if v.half && !v.kill {
			w.rest, v.errno = c.path, 0
		}
	}
	if w.record != nil {
		w.record.recordAs(c, v)
	}
	return v
}

// where is the path of the call that was hit.
func (w *watcher) where() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *watcher) seen(class string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts[class]
}

// watchedTour is a tour whose server's calls meet the plan.
func watchedTour(t *testing.T, p plan) (*server, *gate, *watcher, *tour) {
	s := newServer(t, tourArgs...)
	g := behindGate(t, s)
	w := watchGate(g, p)
	tr := newTour(t, s)
	tr.trouble = w.where
	tr.rewritten = func() bool { return w.seen("rename in queues") > 0 }
	return s, g, w, tr
}

// wholeRun is a tour with all that belongs to it: an ordered stop, a kill, another stop, and a start behind each.
func wholeRun(t *testing.T, p plan) (*tour, *watcher) {
	s, _, w, tr := watchedTour(t, p)
	tr.start(w)
	tr.run()
	for _, kill := range []bool{false, true, false} {
		tr.awaitHealthy()
		tr.mustAudit()
		hitBefore := w.where() != ""
		if kill && !hitBefore || hitBefore && p.n%2 == 0 {
			tr.tail(w)
			s.kill()
		} else if code := s.stop(syscall.SIGTERM); code != 0 && (hitBefore || w.where() == "") {
			t.Errorf("exit code %d of an ordered stop", code)
		}
		tr.settle()
		tr.start(w)
		if hitBefore {
			break // the rest would be as without a failure
		}
	}
	tr.awaitHealthy()
	tr.mustAudit()
	s.kill()
	return tr, w
}

// start starts the server. If the call that fails is met by that, the server may refuse, and the next start must not.
func (tr *tour) start(w *watcher) {
	before := w.where()
	err := tr.c.s.tryStart()
	if err != nil && strings.Contains(tr.c.s.log(), "seccomp: ") {
		tr.t.Skip("SKIPPED: the kernel does not let a process watch another one's system calls (seccomp, Linux 5.19)")
	}
	if err != nil && before == "" && w.where() != "" {
		tr.c.s.down()
		err = tr.c.s.tryStart()
	}
	if err != nil {
		tr.t.Fatalf("after %q: %v", w.where(), err)
	}
}

// awaitHealthy waits until each queue takes a message and gives one: whatever failed, failed once.
func (tr *tour) awaitHealthy() {
	tr.connect()
	if tr.dead {
		tr.t.Fatal("the server does not take connections")
	}
	defer tr.conn.Close()
	for _, queue := range tourQueues {
		if !holdsWithin(tourHealTime, func() bool { return tr.dead || tr.tryPush(queue, 10) == nil && tr.tryTake(queue, 1, true) == nil }) || tr.dead {
			tr.t.Fatalf("%s does not work %v after %q failed (dead: %v)", queue, tourHealTime, tr.trouble(), tr.dead)
		}
	}
}

// tail leaves a log that is ahead of its checkpoint, which the next start cuts.
func (tr *tour) tail(w *watcher) {
	tr.connect()
	if tr.dead {
		return
	}
	defer tr.conn.Close()
	before := w.seen("create in queues")
	for range 5 {
		tr.push("keep", tourBodyBytes) // it is never drained, so there is a segment to cut
	}
	holdsWithin(2*time.Second, func() bool { return w.seen("create in queues") > before })
}

// figures sums up many runs.
type figures struct {
	mu       sync.Mutex // guards what follows
	hit      map[string]int
	missed   int
	refusals int
	noticed  int
	stopped  time.Duration
}

func (f *figures) add(tr *tour, w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.where() == "" {
		f.missed++
		return
	}
	if f.hit == nil {
		f.hit = make(map[string]int)
	}
	f.hit[w.plan.class]++
	f.refusals += tr.refusals
	f.stopped = max(f.stopped, tr.stopped)
	if tr.refusals > 0 {
		f.noticed++
	}
}

// eachPlan runs plans, several at a time.
func eachPlan(t *testing.T, plans []plan, run func(t *testing.T, p plan)) {
	var group sync.WaitGroup
	queue := make(chan plan)
	for range everyCallWorkers {
		group.Go(func() {
			for p := range queue {
				if !t.Failed() {
					t.Run(p.String(), func(t *testing.T) { run(t, p) })
				}
			}
		})
	}
	for _, p := range plans {
		queue <- p
	}
	close(queue)
	group.Wait()
}

func listCounts(counts map[string]int) string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		lines = append(lines, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(lines, ", ")
}

// mustPass are the classes without which a tour has not been where it should.
var mustPass = []string{"create in journal", "create in queues", "create in checkpoints", "create in top", "open in journal", "open in queues",
	"pwrite in journal", "pwrite+sync in journal", "write in queues", "pwrite in queues", "pwrite in checkpoints", "fsync in journal", "fsync in queues", "fsync in checkpoints",
	"fdatasync in journal", "ftruncate in journal", "ftruncate in queues", "fallocate in journal", "rename in queues", "rename in checkpoints", "unlink in queues",
	"directory fsync in queues", "directory fsync in checkpoints", "mkdir in queues"}

// reference is a run without a failure, which says how many calls of each class there are.
func reference(t *testing.T) (counts map[string]int) {
	began := time.Now()
	t.Run("without", func(t *testing.T) {
		_, w := wholeRun(t, plan{})
		counts = w.counts
	})
	total := 0
	for _, n := range counts {
		total += n
	}
	t.Logf("one run: %d calls in %v: %s", total, time.Since(began).Round(time.Millisecond), listCounts(counts))
	for _, name := range mustPass {
		if strings.HasPrefix(name, syncedWrite) && !writesPastPageCache(t) {
			continue
		}
		if counts[name] == 0 && !t.Failed() {
			t.Errorf("no %s: the tour does not pass through what it should", name)
		}
	}
	return counts
}

// writesPastPageCache reports whether data directories of tests are where the journal is written and synced in one call.
func writesPastPageCache(t *testing.T) bool {
	var s unix.Statfs_t
	return unix.Statfs(t.TempDir(), &s) == nil && (s.Type == unix.EXT4_SUPER_MAGIC || s.Type == unix.XFS_SUPER_MAGIC)
}

// chosen picks about as many numbers from 1 to n as asked for, spread over all.
func chosen(n, most int) (list []int) {
	step := max(1, float64(n)/float64(most))
	for at := (step + 1) / 2; int(at) <= n; at += step {
		list = append(list, int(at))
	}
	return list
}

// plans are those of a whole test: of each class of calls some, or all.
func plans(counts map[string]int, each func(class string, n int) []plan) (list []plan) {
	most := 1
	if longRun {
		most = math.MaxInt
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		for _, n := range chosen(counts[name], most) {
			list = append(list, each(name, n)...)
		}
	}
	return list
}

// Without this an error that nobody looks at, of a call that no test of the parts sees, loses what was acknowledged; or a queue that had
// one bad moment stays stopped, or takes all others with it.
func TestEveryCallFailsOnce(t *testing.T) {
	random := seeded(t)
	list := plans(reference(t), func(class string, n int) (of []plan) {
		errnos := []syscall.Errno{syscall.EIO, syscall.ENOSPC}
		of = append(of, plan{class: class, n: n, errno: errnos[random.IntN(2)]})
		if strings.Contains(class, "write") {
			of = append(of, plan{class: class, n: n, errno: errnos[random.IntN(2)], half: true})
		}
		return of
	})
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	var f figures
	began := time.Now()
	eachPlan(t, list, func(t *testing.T, p plan) {
		tr, w := wholeRun(t, p)
		f.add(tr, w)
	})
	t.Logf("%d runs in %v, %d of them met no such call; %d runs had commands refused, %d in all, a queue for %v at most; failed: %s",
		len(list), time.Since(began).Round(time.Millisecond), f.missed, f.noticed, f.refusals, f.stopped.Round(time.Millisecond), listCounts(f.hit))
}

// killedRun is a tour that ends at the plan's call, wherever that is, a start that is killed as well, and one that is not.
func killedRun(t *testing.T, p plan, again int) (*tour, *watcher) {
	s, g, w, tr := watchedTour(t, p)
	tr.untilKilled(w)
	tr.settle()
	second := watchGate(g, plan{n: again, kill: true})
	if err := s.tryStart(); err == nil {
		s.kill() // it makes fewer calls than that
	} else if second.where() == "" {
		t.Fatalf("killed in front of %q: %v", w.where(), err)
	}
	s.awaitDeath()
	g.set(nil)
	tr.trouble = func() string { return "" }
	if err := s.tryStart(); err != nil {
		t.Fatalf("killed in front of %q and of %q: %v", w.where(), second.where(), err)
	}
	tr.mustAudit()
	tr.awaitHealthy()
	s.kill()
	return tr, w
}

// untilKilled is a whole run up to the plan's call.
func (tr *tour) untilKilled(w *watcher) {
	s := tr.c.s
	steps := []func(){func() { s.tryStart() }, tr.run, func() { tr.audit() }, func() { tr.tail(w) },
		func() { s.stop(syscall.SIGTERM) },
		func() { tr.settle(); s.tryStart() }, func() { tr.audit() }, func() { tr.tail(w) }, s.kill,
		func() { tr.settle(); s.tryStart() }, func() { tr.audit() }, s.kill}
	for _, step := range steps {
		if step(); w.where() != "" {
			break
		}
	}
	s.awaitDeath()
}

// awaitDeath is for a process that somebody else has killed.
func (s *server) awaitDeath() {
	s.t.Helper()
	p := s.down()
	eventually(s.t, stopTimeout, "the killed process is gone", p.gone)
}

// Without this there is a moment at which a kill -9 loses what was acknowledged or leaves a directory that no start accepts.
func TestKilledAtEveryCall(t *testing.T) {
	random := seeded(t)
	list := plans(reference(t), func(class string, n int) (of []plan) {
		if strings.HasPrefix(class, "open ") {
			return nil // it changes nothing
		}
		of = append(of, plan{class: class, n: n, kill: true})
		if strings.Contains(class, "write") {
			of = append(of, plan{class: class, n: n, kill: true, half: true})
		}
		return of
	})
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	again := make(map[plan]int)
	for _, p := range list {
		again[p] = 1 + random.IntN(40)
	}
	var f figures
	began := time.Now()
	eachPlan(t, list, func(t *testing.T, p plan) {
		tr, w := killedRun(t, p, again[p])
		f.add(tr, w)
	})
	t.Logf("%d runs in %v, each killed once more while it started; %d met no such call; killed in front or in the middle of: %s",
		len(list), time.Since(began).Round(time.Millisecond), f.missed, listCounts(f.hit))
}
