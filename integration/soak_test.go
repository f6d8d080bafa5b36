//go:build linux

package integration

// The soak test: a long time of mixed load on one data directory, with everything going wrong that can go wrong. In its first half the
// server is killed again and again; in the second half one process lives through all the rest, so that what grows in it can be seen.
//
//	soak_test.go          the run: phases, what is looked at between them, what may not grow
//	soak_clients_test.go  producers and consumers
//	soak_trouble_test.go  what goes wrong
//	soak_ledger_test.go   what must be so
//
// Each phase ends with all clients gone and all queues drained. Then lost = acknowledged − delivered and unexpected = never pushed must both
// be empty, and memory, descriptors, goroutines and the disk are measured: always at the same moment, after the same load.

import (
	"flag"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

var (
	soakTime = flag.Duration("soak", 0, "how long TestSoak runs; 10 s if not given, 1 h with QUAIL_LONG=1")
	soakRate = flag.Int("soak-rate", 400, "messages a second in TestSoak, about")
)

const (
	soakTimeDefault = 10 * time.Second
	soakTimeLong    = time.Hour
	soakPhases      = 40 // of a whole run, but none is shorter than soakPhaseMin
	soakPhaseMin    = time.Second
	soakBeat        = 20 * time.Millisecond // how long a client waits that was refused
	soakPatience    = 3 * time.Minute       // for an answer, and for a queue to be drained, on a machine that has other things to do
)

// soakArgs make files small, so that segments change, the journal turns over and checkpoints are taken all the time, and leases so short that
// consumers take over from each other.
var soakArgs = []string{"--default-max-attempts", "0", "--journal-file-bytes", "1mb", "--journal-bytes", "4mb", "--checkpoint-bytes", "1mb",
	"--segment-bytes", "64kb", "--write-behind-bytes", "1mb", "--default-lease", "400", "--default-lock-ttl", "400"}

// soak is one run.
type soak struct {
	t       *testing.T
	s       *server
	gate    *gate  // nil where the kernel has none
	backups string // the directory for them
	ledger  *soakLedger

	stop  chan struct{} // closed at the end of a phase
	group sync.WaitGroup
	pushs *time.Ticker // the load: one push for each tick
	beats *time.Ticker

	pipedSeq, onceSeq, churnSeq int
	repeat                      string // the deduplicated push that was not answered yet

	trouble              soakTrouble
	handovers, deletions atomic.Int64
	samples              []soakSample
	life                 int
}

// soakSample is what the server takes when nobody asks anything of it.
type soakSample struct {
	life                                      int
	residentBytes, heapBytes                  int64
	descriptors, goroutines, files, diskBytes int64
}

func soakFor() time.Duration {
	switch {
	case *soakTime > 0:
		return *soakTime
	case longRun:
		return soakTimeLong
	default:
		return soakTimeDefault
	}
}

// Without this, what is rare enough for every shorter test, and what is so little each time that only hours make it much.
func TestSoak(t *testing.T) {
	random := seeded(t)
	total := soakFor()
	backups := t.TempDir()
	k := &soak{t: t, s: newServer(t, append(slices.Clone(soakArgs), "--backup-dir", backups)...), backups: backups, ledger: newSoakLedger(),
		pushs: time.NewTicker(time.Second * (1 + soakPushMax) / 2 / time.Duration(*soakRate)), beats: time.NewTicker(soakBeat)}
	defer k.pushs.Stop()
	defer k.beats.Stop()
	k.startServer()
	k.makeQueues()
	phase := max(soakPhaseMin, total/soakPhases)
	began := time.Now()
	for time.Since(began) < total && !t.Failed() {
		killing := time.Since(began) < total/2
		if !killing && k.trouble.killing { // the second half begins with a fresh process, the one that lives on
			k.s.kill()
			k.revive()
		}
		k.trouble.killing = killing
		k.runPhase(random, phase)
		k.look()
	}
	k.finish()
	k.judgeGrowth()
	l := k.ledger
	t.Logf("%v: %d messages pushed, %d delivered, %d acknowledged, %d pushes and %d acks without an answer, %d from dead-letter queues; %d may have been deleted; "+
		"%d handovers, %d queues deleted, %+v", time.Since(began).Round(time.Second), l.pushed, l.delivered, l.acked, l.unheardPushes, l.unheardAcks, l.dead, l.excused,
		k.handovers.Load(), k.deletions.Load(), k.trouble.counts)
}

// startServer starts the first life, behind a gate if the kernel has one.
func (k *soak) startServer() {
	k.gate = behindGate(k.t, k.s)
	err := k.s.tryStart()
	if err != nil && strings.Contains(k.s.log(), "seccomp: ") {
		k.t.Log("SKIPPED: no faults of the disk, since the kernel does not let a process watch another one's system calls (seccomp, Linux 5.19)")
		k.gate, k.s.wrap = nil, nil
		err = k.s.tryStart()
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *soak) makeQueues() {
	conn := k.mustDial()
	defer conn.Close()
	must(k.t, conn, "QCREATE", soakFragile, "max-attempts", 2)
	must(k.t, conn, "QCREATE", soakOnce, "dedup-window", 60_000) // longer than the server is ever away, and soon as full as it gets
}

// dial connects with more patience than other tests have: a command whose client gave up may still run, when all is thought to be over.
func (k *soak) dial() (redis.Conn, error) {
	return redis.Dial("tcp", k.s.addr, redis.DialConnectTimeout(soakPatience), redis.DialReadTimeout(soakPatience), redis.DialWriteTimeout(soakPatience))
}

// mustDial is dial between two phases.
func (k *soak) mustDial() redis.Conn {
	conn, err := k.dial()
	if err != nil {
		k.t.Fatal(err)
	}
	return conn
}

// over says that clients shall end.
func (k *soak) over() bool {
	select {
	case <-k.stop:
		return true
	default:
		return false
	}
}

// mayPush waits for the load's next push.
func (k *soak) mayPush() bool {
	select {
	case <-k.stop:
		return false
	case <-k.pushs.C:
		return true
	}
}

// breathe keeps a client that is refused from asking again at full speed.
func (k *soak) breathe() {
	select {
	case <-k.stop:
	case <-k.beats.C:
	}
}

// runPhase is some time of load and trouble, and then the drain.
func (k *soak) runPhase(random *rand.Rand, length time.Duration) {
	k.stop = make(chan struct{})
	k.startClients(random)
	k.makeTrouble(random, length)
	close(k.stop)
	k.group.Wait()
	k.repeat = ""
	k.drain()
	k.ledger.endPhase()
	for _, complaint := range k.ledger.takeComplaints() {
		k.t.Error(complaint)
	}
}

// drain takes everything out of all queues.
func (k *soak) drain() {
	conn := k.mustDial()
	defer conn.Close()
	for _, queue := range soakQueues {
		if !holdsWithin(soakPatience, func() bool { return k.drainQueue(conn, queue) }) {
			fields, err := info(conn, queue)
			k.t.Fatalf("%s is not empty after %v: %v, %v", queue, soakPatience, fields, err)
		}
	}
}

// drainQueue reports whether a queue is empty, after one pull if it was not.
func (k *soak) drainQueue(conn redis.Conn, queue string) bool {
	if _, err := conn.Do("QRESUME", queue); err != nil {
		return code(err) == "NOQUEUE"
	}
	if n, err := redis.Int64(conn.Do("QLEN", queue)); err != nil || n == 0 {
		return err == nil
	}
	b, err := consume(conn, queue, "auditor", "COUNT", 1000, "BLOCK", 300, "LEASE", 10_000)
	k.expected("the auditor's QCONSUME", err)
	if b != nil {
		k.ledger.pulled(queue, b)
		k.ack(conn, queue, b, b.messages)
	}
	return false
}

// look takes a sample.
func (k *soak) look() {
	conn := k.mustDial()
	defer conn.Close()
	var fields map[string]int64
	eventually(k.t, soakPatience, "all other clients are gone", func() bool {
		fields = numbersOf(k.t, conn)
		return fields["connected_clients"] == 1
	})
	sample := soakSample{life: k.life, residentBytes: memory(k.t, k.s, "VmRSS"), heapBytes: fields["used_memory"],
		descriptors: descriptorsOf(k.t, k.s), goroutines: fields["goroutines"]}
	filepath.WalkDir(k.s.dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // it goes while it is looked at
		}
		if info, err := e.Info(); err == nil {
			sample.files++
			sample.diskBytes += info.Size()
		}
		return nil
	})
	k.samples = append(k.samples, sample)
	k.t.Logf("phase %d, life %d: %d pushed, %d acknowledged; resident %.1f MB, heap %.1f MB, %d descriptors, %d goroutines, %d files of %.1f MB", len(k.samples), sample.life,
		k.ledger.pushed, k.ledger.acked, float64(sample.residentBytes)/(1<<20), float64(sample.heapBytes)/(1<<20), sample.descriptors, sample.goroutines, sample.files, float64(sample.diskBytes)/(1<<20))
}

// descriptorsOf is how many descriptors the process has open.
func descriptorsOf(t *testing.T, s *server) int64 {
	t.Helper()
	list, err := os.ReadDir("/proc/" + strconv.Itoa(s.pid()) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(list))
}

// numbersOf are the lines of INFO whose values are numbers.
func numbersOf(t *testing.T, conn redis.Conn) map[string]int64 {
	text, err := redis.String(conn.Do("INFO"))
	if err != nil {
		t.Fatal(err)
	}
	fields := make(map[string]int64)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			fields[name] = n
		}
	}
	return fields
}

// finish stops the server in order; what it leaves must be sound.
func (k *soak) finish() {
	if code := k.s.stop(syscall.SIGTERM); code != 0 {
		k.t.Errorf("exit code %d after SIGTERM", code)
	}
	if out, err := runQuail("check", k.s.dir); err != nil {
		k.t.Errorf("quail check: %v\n%s", err, out)
	}
}

// judgeGrowth compares the first third of the samples with the last third: those of the life that went on for the second half of the run,
// and for the disk those of the whole run. The bounds are wide, since only what grows with every message or every fault is meant.
func (k *soak) judgeGrowth() {
	var last []soakSample
	for _, s := range k.samples {
		if s.life == k.life {
			last = append(last, s)
		}
	}
	for _, g := range []struct {
		what    string
		samples []soakSample
		value   func(soakSample) int64
		most    int64 // what it may grow by, besides a quarter
	}{
		{"bytes resident", last, func(s soakSample) int64 { return s.residentBytes }, 16 << 20},
		{"bytes of heap", last, func(s soakSample) int64 { return s.heapBytes }, 8 << 20},
		{"descriptors", last, func(s soakSample) int64 { return s.descriptors }, 8},
		{"goroutines", last, func(s soakSample) int64 { return s.goroutines }, 8},
		{"files", k.samples, func(s soakSample) int64 { return s.files }, 64}, // which come and go with checkpoints
		{"bytes on the disk", k.samples, func(s soakSample) int64 { return s.diskBytes }, 4 << 20},
	} {
		if len(g.samples) < 3 {
			continue
		}
		third := len(g.samples) / 3
		before, after := soakMedian(g.samples[:third+1], g.value), soakMedian(g.samples[len(g.samples)-third:], g.value)
		k.t.Logf("%s: %d at first, %d at last", g.what, before, after)
		if after > before+before/4+g.most {
			k.t.Errorf("%s grew from %d to %d", g.what, before, after)
		}
	}
}

func soakMedian(samples []soakSample, value func(soakSample) int64) int64 {
	var list []int64
	for _, s := range samples {
		list = append(list, value(s))
	}
	slices.Sort(list)
	return list[len(list)/2]
}
