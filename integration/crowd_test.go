//go:build linux

package integration

// A crowd that only takes: ten thousand connections that say nothing, a thousand that send a byte now and then, a hundred that ask for much
// and read none of it. One client among them does its work, and is measured with the crowd and without, in turns: so that what else the
// machine does falls on both.

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

var (
	crowdTurns = flag.Int("crowd-turns", 0, "turns with and without the crowd in TestCrowd; 2 if not given, 12 with QUAIL_LONG=1")
	crowdSlice = flag.Duration("crowd-slice", time.Second, "how long the client of TestCrowd is measured in one turn, alone and in the crowd")
)

const (
	crowdIdle, crowdSlow, crowdDeaf = 10_000, 1_000, 100

	// crowdSpare is how many descriptors each side wants besides those of the crowd.
	crowdSpare = 600
	// crowdDials is how many connections are made at a time: fewer than a listener keeps waiting.
	crowdDials = 64
	// crowdLargeBytes is a message that the deaf ask for: the socket's buffers hold a few of them.
	crowdLargeBytes = 64 << 10
	// crowdMemoryMax bounds the server: 20 KB a connection, and what all clients together may hold of commands and replies (maxmemory-clients and a
	// quarter); as much again of garbage, which the collector may leave on a busy machine; and what the server takes without clients.
	crowdMemoryMax = ((crowdIdle+crowdSlow+crowdDeaf)*20<<10+320<<20)*2 + 128<<20
)

// crowd is one coming of it.
type crowd struct {
	t     *testing.T
	conns []net.Conn
	slow  []net.Conn
	deaf  []net.Conn
	stop  chan struct{}
	group sync.WaitGroup
}

// crowdScale is the share of the crowd, in percent, for which there are descriptors; it raises the limit as far as it may.
func crowdScale(t *testing.T) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	raised := syscall.Rlimit{Cur: limit.Max, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err == nil {
		limit = raised
	}
	scale := min(100, int(100*(int64(min(limit.Cur, 1<<20))-crowdSpare)/(crowdIdle+crowdSlow+crowdDeaf)))
	if scale < 100 {
		t.Logf("SCALED DOWN to %d %% of the crowd: a process may have %d descriptors (ulimit -n)", scale, limit.Cur)
	}
	return max(1, scale)
}

// gather connects all of the crowd, and waits until the server has let them in.
func gather(t *testing.T, s *server, scale int) *crowd {
	c := &crowd{t: t, stop: make(chan struct{})}
	total := (crowdIdle + crowdSlow + crowdDeaf) * scale / 100
	c.conns = make([]net.Conn, total)
	var dialers sync.WaitGroup
	for first := range crowdDials {
		dialers.Go(func() {
			for i := first; i < total; i += crowdDials {
				conn, err := net.DialTimeout("tcp", s.addr, replyTimeout)
				if err != nil {
					t.Errorf("connection %d of the crowd: %v", i, err)
					return
				}
				c.conns[i] = conn
			}
		})
	}
	dialers.Wait()
	if t.Failed() {
		t.FailNow()
	}
	c.slow = c.conns[:crowdSlow*scale/100]
	c.deaf = c.conns[len(c.slow):][:crowdDeaf*scale/100]
	conn := s.connect(t)
	defer conn.Close()
	eventually(t, replyTimeout, "the whole crowd is in", func() bool {
		return numbersOf(t, conn)["connected_clients"] >= int64(total)
	})
	c.group.Go(c.dribble)
	c.group.Go(c.ask)
	return c
}

// dribble sends a byte of a large command on each slow connection in turn, each about twice a second.
func (c *crowd) dribble() {
	const step = 10 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	each := max(1, len(c.slow)*int(step)/int(500*time.Millisecond))
	text := "*3\r\n$5\r\nQPUSH\r\n$4\r\nslow\r\n$1000000\r\n" + strings.Repeat("s", 100_000)
	for sent := 0; ; sent++ {
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
		for i := range each {
			n := sent*each + i
			c.slow[n%len(c.slow)].Write([]byte{text[n/len(c.slow)]}) // the server may close it
		}
	}
}

// ask sends pulls, and looks at what was pulled, on the deaf connections, as many as they take.
func (c *crowd) ask() {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for round := 0; ; round++ {
		for i, conn := range c.deaf {
			select {
			case <-c.stop:
				return
			case <-tick.C:
			}
			for range 10 {
				conn.SetWriteDeadline(time.Now().Add(time.Millisecond))
				if _, err := fmt.Fprintf(conn, "QCONSUME large.%d deaf COUNT 10 LEASE 600000\r\nQPEEK large.%d COUNT 10\r\n", i, i); err != nil {
					break
				}
			}
		}
	}
}

// settle waits until the server has run all that it runs for those that do not read, but for the few that they get in a slow turn.
func settle(t *testing.T, conn redis.Conn) {
	const quiet = 200 * time.Millisecond // twice as long as a visit to all of the deaf takes
	const few = 8
	at, last := time.Now(), int64(0)
	began := time.Now()
	settled := holdsWithin(replyTimeout, func() bool {
		if time.Since(at) < quiet {
			return false
		}
		before := last
		at, last = time.Now(), numbersOf(t, conn)["total_commands_processed"]
		return last-before < few
	})
	t.Logf("after %v the deaf have what they can hold: %v", time.Since(began).Round(time.Millisecond), settled)
}

// leave closes all of the crowd at once.
func (c *crowd) leave() {
	close(c.stop)
	c.group.Wait()
	for _, conn := range c.conns {
		conn.Close()
	}
}

// worker is the client that is measured. It is a process of its own, as clients are: in that of the crowd it would wait for the crowd.
type worker struct {
	t    *testing.T
	addr string
	waited
}

// waited is how long a client waited: for pushes, and for circles of push, pull and acknowledgement.
type waited struct{ Pushes, Circles []time.Duration }

// workerWord as first argument makes the test's binary the client: the server's address and how long to work follow.
const workerWord = "worker-in-the-crowd"

// work has a worker work for a while.
func (w *worker) work(length time.Duration) {
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	worker := exec.Command(self, workerWord, w.addr, length.String())
	worker.Stderr = os.Stderr
	out, err := worker.Output()
	if err != nil {
		w.t.Fatalf("the healthy client: %v", err)
	}
	var more waited
	if err := json.Unmarshal(out, &more); err != nil {
		w.t.Fatal(err)
	}
	w.Pushes, w.Circles = append(w.Pushes, more.Pushes...), append(w.Circles, more.Circles...)
}

// runWorker is the worker's process.
func runWorker(addr, length string) error {
	limit, err := time.ParseDuration(length)
	if err != nil {
		return err
	}
	conn, err := redis.Dial("tcp", addr, redis.DialReadTimeout(replyTimeout))
	if err != nil {
		return err
	}
	defer conn.Close()
	var all waited
	for began := time.Now(); time.Since(began) < limit; {
		at := time.Now()
		if _, err := conn.Do("QPUSH", "work", strings.Repeat("w", 100)); err != nil {
			return err
		}
		all.Pushes = append(all.Pushes, time.Since(at))
		b, err := consume(conn, "work", "worker")
		if err != nil || b == nil {
			return fmt.Errorf("pulled %v: %w", b, err)
		}
		if n, err := redis.Int(conn.Do("QACK", "work", b.id)); err != nil || n != len(b.messages) {
			return fmt.Errorf("QACK answered %d: %w", n, err)
		}
		all.Circles = append(all.Circles, time.Since(at))
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

func percentile(list []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)*percent/100].Round(time.Microsecond)
}

// report prints what a client waited for, and how that compares with what it waits alone.
func (w *worker) report(when string, alone *worker) {
	for _, m := range []struct {
		what       string
		mine, base []time.Duration
	}{{"QPUSH", w.Pushes, alone.Pushes}, {"QPUSH, QCONSUME, QACK", w.Circles, alone.Circles}} {
		p99 := percentile(m.mine, 99)
		w.t.Logf("%s, %s: p50 %v, p99 %v, %.2f times that alone, of %d", when, m.what, percentile(m.mine, 50), p99, float64(p99)/float64(percentile(m.base, 99)), len(m.mine))
	}
}

// Without this, a crowd that costs an attacker nothing makes the server useless for those who work with it. Times are reported, and not
// judged: see docs/testing.md. What is judged is that all is answered, and that memory and descriptors come back.
func TestCrowd(t *testing.T) {
	turns := *crowdTurns
	if turns == 0 {
		if turns = 2; longRun {
			turns = 12
		}
	}
	scale := crowdScale(t)
	s := startServer(t, "--max-clients", "12000")
	conn := s.connect(t)
	for i := range crowdDeaf {
		for range 10 {
			must(t, conn, "QPUSH", fmt.Sprint("large.", i), strings.Repeat("l", crowdLargeBytes))
		}
	}
	// The checkpoint of what was pushed must not fall into one of the turns.
	conn.Close()
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	s.start()
	conn = s.connect(t)
	alone, rush, crowded := &worker{t: t, addr: s.addr}, &worker{t: t, addr: s.addr}, &worker{t: t, addr: s.addr}
	alone.work(*crowdSlice / 4)
	alone.waited = waited{} // warmed up
	idle := descriptorsOf(t, s)
	for range turns {
		alone.work(*crowdSlice)
		c := gather(t, s, scale)
		rush.work(*crowdSlice)
		settle(t, conn)
		crowded.work(*crowdSlice)
		t.Logf("with the crowd: %d MB resident, %d descriptors", memory(t, s, "VmRSS")>>20, descriptorsOf(t, s))
		c.leave()
		eventually(t, replyTimeout, "the crowd is gone", func() bool { return numbersOf(t, conn)["connected_clients"] == 1 })
	}
	for _, w := range []struct {
		when string
		*worker
	}{{"alone", alone}, {"while the deaf ask", rush}, {"in the crowd", crowded}} {
		w.report(w.when, alone)
	}
	if peak := memory(t, s, "VmHWM"); peak > crowdMemoryMax && !raceBuild {
		t.Errorf("the server took %d MB; at most %d", peak>>20, crowdMemoryMax>>20)
	}
	if now := descriptorsOf(t, s); now > idle+2*crowdDeaf { // of logs that were opened meanwhile, which are one for each of the deaf
		t.Errorf("%d descriptors are open, %d were before the crowd came", now, idle)
	}
}
