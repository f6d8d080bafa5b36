//go:build linux

package integration

// Two consumers: one is active, the other waits in line, and takes over when the first lets go, loses the lock or dies. Never
// before, and soon after.

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

const (
	takeoverRounds = 15
	takeoverMedian = 50 * time.Millisecond // the bound; a median, so that one pause of a busy machine does not count
	takeoverWorst  = 5 * time.Second       // past this something hangs
	clockSlack     = 2 * time.Millisecond  // deadlines are whole milliseconds, and two clocks are read
)

// pulled is a batch with the time when it came.
type pulled struct {
	batch *batch
	err   error
	at    time.Time
}

// pullAway starts a pull on a connection of its own and hands over its outcome.
func pullAway(t *testing.T, s *server, args ...any) (redis.Conn, <-chan pulled) {
	t.Helper()
	conn := s.connect(t)
	outcome := make(chan pulled, 1)
	go func() {
		b, err := consume(conn, args...)
		outcome <- pulled{b, err, time.Now()}
	}()
	return conn, outcome
}

// awaitLine waits until so many consumers wait in the queue.
func awaitLine(t *testing.T, conn redis.Conn, queue string, n int) {
	t.Helper()
	last := ""
	if !holdsWithin(takeoverWorst, func() bool {
		fields, err := info(conn, queue)
		last = fmt.Sprintf("%v %v", fields["waiting"], err)
		return err == nil && fields["waiting"] == fmt.Sprint(n)
	}) {
		t.Fatalf("%s consumers wait in %s, want %d", last, queue, n)
	}
}

// receive waits for a pull's outcome.
func receive(t *testing.T, outcome <-chan pulled) pulled {
	t.Helper()
	select {
	case p := <-outcome:
		if p.err != nil {
			t.Fatal(p.err)
		}
		return p
	case <-time.After(replyTimeout):
		t.Fatal("a pull was not answered")
	}
	return pulled{}
}

// judgeDelays checks how long the second consumer waited after it could have the messages.
func judgeDelays(t *testing.T, what string, delays []time.Duration) {
	t.Helper()
	slices.Sort(delays)
	median := delays[len(delays)/2]
	t.Logf("%s: %d rounds, median %v, slowest %v", what, len(delays), median.Round(10*time.Microsecond), delays[len(delays)-1].Round(10*time.Microsecond))
	if median > takeoverMedian && !raceBuild {
		t.Errorf("%s: the median is %v; at most %v", what, median, takeoverMedian)
	}
	if delays[0] < -clockSlack {
		t.Errorf("%s: the second consumer got a batch %v too early", what, -delays[0])
	}
}

// Without this, a lock that was given up stands empty until its time is over.
func TestStandbyTakesOverWhenTheLockIsReleased(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	var delays []time.Duration
	for round := range takeoverRounds {
		queue := fmt.Sprintf("released.%d", round)
		must(t, conn, "QPUSH", queue, "a", "b")
		first, err := consume(conn, queue, "first")
		if err != nil {
			t.Fatal(err)
		}
		token := must(t, conn, "QLOCK", queue, "first")
		_, standby := pullAway(t, s, queue, "second", "BLOCK", 0)
		awaitLine(t, conn, queue, 1)
		began := time.Now()
		must(t, conn, "QUNLOCK", queue, token)
		got := receive(t, standby)
		delays = append(delays, got.at.Sub(began))
		if !slices.Equal(bodiesOf(got.batch.messages), []string{"a", "b"}) || got.batch.messages[0].attempt != 1 {
			t.Fatalf("the second consumer got %+v", got.batch)
		}
		checkLate(t, conn, queue, first, 2)
	}
	judgeDelays(t, "QUNLOCK to the standby's batch", delays)
}

// Without this, a consumer that was cut off could acknowledge what another one is working on.
func checkLate(t *testing.T, conn redis.Conn, queue string, late *batch, length int64) {
	t.Helper()
	mustRefuse(t, conn, "NOBATCH", "QACK", queue, late.id)
	mustRefuse(t, conn, "NOBATCH", "QNACK", queue, late.id)
	mustRefuse(t, conn, "NOBATCH", "QEXTEND", queue, late.id, 60_000)
	mustRefuse(t, conn, "LOCKED", "QCONSUME", queue, "first")
	if n := must(t, conn, "QLEN", queue); n != length {
		t.Fatalf("QLEN is %v, want %d", n, length)
	}
}

// The active consumer's connection breaks with a batch open. Its lock ends with the lease, and the standby gets the batch:
// not a moment sooner, or two would work on it at once.
func TestStandbyTakesOverWhenTheLockLapses(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	var delays []time.Duration
	for round := range takeoverRounds {
		queue := fmt.Sprintf("lapsed.%d", round)
		must(t, conn, "QCREATE", queue, "lock-ttl", 60) // also for a pull that comes so late on a busy machine that the lock has lapsed
		must(t, conn, "QPUSH", queue, "a", "b")
		active, err := s.dial()
		if err != nil {
			t.Fatal(err)
		}
		must(t, active, "QLOCK", queue, "first")
		first, err := consume(active, queue, "first", "LEASE", 120)
		if err != nil {
			t.Fatal(err)
		}
		_, standby := pullAway(t, s, queue, "second", "BLOCK", 0)
		awaitLine(t, conn, queue, 1)
		active.Close()
		got := receive(t, standby)
		delays = append(delays, got.at.Sub(first.deadline()))
		if !slices.Equal(bodiesOf(got.batch.messages), []string{"a", "b"}) || got.batch.messages[0].attempt != 2 {
			t.Fatalf("the second consumer got %+v", got.batch)
		}
		checkLate(t, conn, queue, first, 2)
	}
	judgeDelays(t, "end of the lease to the standby's batch", delays)
}

// A lock without a batch lapses after its TTL, counted from its last renewal.
func TestStandbyTakesOverAnIdleLock(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	var delays []time.Duration
	for round := range takeoverRounds {
		queue := fmt.Sprintf("idle.%d", round)
		must(t, conn, "QPUSH", queue, "a")
		began := time.Now() // the lock was taken after this, so it may not lapse before this + TTL
		must(t, conn, "QLOCK", queue, "first", "TTL", 80)
		answered := time.Now()
		_, standby := pullAway(t, s, queue, "second", "BLOCK", 0)
		got := receive(t, standby)
		if early := began.Add(80 * time.Millisecond).Sub(got.at); early > clockSlack {
			t.Errorf("round %d: the second consumer got the lock %v before it lapsed", round, early)
		}
		delays = append(delays, max(0, got.at.Sub(answered.Add(80*time.Millisecond))))
		if got.batch == nil || got.batch.messages[0].attempt != 1 {
			t.Fatalf("the second consumer got %+v", got.batch)
		}
	}
	judgeDelays(t, "lapse of an idle lock to the standby's batch", delays)
}

// reset closes a connection so that the peer gets a reset, as from a process that was killed with unread data.
func reset(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// A consumer that vanishes while it waits must not keep its place: a message handed to nobody waits for the end of a lease.
func TestVanishedConsumerLosesItsPlace(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	for name, vanish := range map[string]func(net.Conn){
		"closed": func(c net.Conn) { c.Close() },
		"reset":  func(c net.Conn) { reset(t, c) },
	} {
		t.Run(name, func(t *testing.T) {
			queue := "vanished." + name
			must(t, conn, "QLOCK", queue, "worker", "TTL", 60_000)
			gone := rawPull(t, s, queue, "worker")
			awaitLine(t, conn, queue, 1)
			_, other := pullAway(t, s, queue, "worker", "BLOCK", 0)
			awaitLine(t, conn, queue, 2)
			began := time.Now()
			vanish(gone)
			awaitLine(t, conn, queue, 1)
			noticed := time.Since(began)
			must(t, conn, "QPUSH", queue, "a")
			got := receive(t, other)
			if got.batch.messages[0].attempt != 1 {
				t.Errorf("the message was handed to the one that had gone: attempt %d", got.batch.messages[0].attempt)
			}
			t.Logf("noticed after %v", noticed.Round(10*time.Microsecond))
			if noticed > time.Second {
				t.Errorf("noticed after %v, which is not at once", noticed)
			}
		})
	}
}

// rawPull starts a blocking pull on a bare connection.
func rawPull(t *testing.T, s *server, queue, consumer string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := fmt.Fprintf(conn, "QCONSUME %s %s BLOCK 0\r\n", queue, consumer); err != nil {
		t.Fatal(err)
	}
	return conn
}

// The same for those who wait for the lock: the next in line gets it, not the one that has gone.
func TestVanishedStandbyLosesItsPlace(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	token := must(t, conn, "QLOCK", "line", "first")
	gone := rawPull(t, s, "line", "second")
	awaitLine(t, conn, "line", 1)
	_, third := pullAway(t, s, "line", "third", "BLOCK", 0)
	awaitLine(t, conn, "line", 2)
	_, fourth := pullAway(t, s, "line", "fourth", "BLOCK", 0)
	awaitLine(t, conn, "line", 3)
	reset(t, gone)
	awaitLine(t, conn, "line", 2)
	must(t, conn, "QUNLOCK", "line", token)
	eventually(t, takeoverWorst, "the third consumer holds the lock", func() bool {
		fields, err := info(conn, "line")
		return err == nil && fields["lock-holder"] == "third"
	})
	must(t, conn, "QPUSH", "line", "a")
	if got := receive(t, third); got.batch.messages[0].body != "a" {
		t.Fatalf("the third consumer got %+v", got.batch)
	}
	select {
	case p := <-fourth:
		t.Fatalf("the fourth consumer was answered out of turn: %+v", p)
	default:
	}
}

// The active consumer is killed by an operator while it waits. Its lock lapses after its TTL, since it waits no more.
func TestStandbyTakesOverFromAKilledClient(t *testing.T) {
	s := startServer(t, "--default-lock-ttl", "100") // for a machine so busy that the lock lapses before the first pull
	conn := s.connect(t)
	must(t, conn, "QLOCK", "killed", "first", "TTL", 100)
	active := s.connect(t)
	id := must(t, active, "CLIENT", "ID")
	outcome := make(chan error, 1)
	go func() {
		_, err := consume(active, "killed", "first", "BLOCK", 0)
		outcome <- err
	}()
	awaitLine(t, conn, "killed", 1)
	_, standby := pullAway(t, s, "killed", "second", "BLOCK", 0)
	awaitLine(t, conn, "killed", 2)
	if n := must(t, conn, "CLIENT", "KILL", "ID", id); n != int64(1) {
		t.Fatalf("CLIENT KILL answered %v", n)
	}
	select {
	case err := <-outcome:
		if err == nil || refused(err) {
			t.Errorf("the killed client was answered: %v", err)
		}
	case <-time.After(takeoverWorst):
		t.Error("the killed client still waits")
	}
	must(t, conn, "QPUSH", "killed", "a")
	if got := receive(t, standby); got.batch == nil || got.batch.messages[0].body != "a" {
		t.Fatalf("the standby got %+v", got.batch)
	}
}

// When the operator is told that a client was killed, no message goes to it any more: what is pushed next is not leased to nobody.
func TestNothingGoesToAKilledClient(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	for round := range 300 {
		rawPull(t, s, "killed", "worker")
		awaitLine(t, conn, "killed", 1)
		if n := must(t, conn, "CLIENT", "KILL", "SKIPME", "yes", "TYPE", "normal"); n != int64(1) {
			t.Fatalf("CLIENT KILL answered %v", n)
		}
		must(t, conn, "QPUSH", "killed", fmt.Sprint(round))
		b, err := consume(conn, "killed", "worker", "BLOCK", 1000)
		if err != nil || b == nil || b.messages[0].body != fmt.Sprint(round) || b.messages[0].attempt != 1 {
			t.Fatalf("round %d: %+v, %v", round, b, err)
		}
		must(t, conn, "QACK", "killed", b.id)
	}
}

// A client that goes away in the very moment when its message comes. Either it is noticed in time, and the message goes to
// the other connection at once, or the message was on its way and comes back when its lease ends. It is never lost.
func TestMessageOutlivesAClientThatGoesAsItComes(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	rounds, returned := 200, 0
	must(t, conn, "QCREATE", "race", "lease", 150)
	for round := range rounds {
		gone := rawPull(t, s, "race", "worker")
		awaitLine(t, conn, "race", 1)
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			gone.Close()
		}()
		must(t, conn, "QPUSH", "race", fmt.Sprint(round))
		<-closed
		b, err := consume(conn, "race", "worker", "BLOCK", 10_000)
		if err != nil || b == nil || len(b.messages) != 1 || b.messages[0].body != fmt.Sprint(round) {
			t.Fatalf("round %d: %+v, %v", round, b, err)
		}
		if b.messages[0].attempt == 1 {
			returned++
		}
		if n := must(t, conn, "QACK", "race", b.id); n != int64(1) {
			t.Fatalf("round %d: QACK answered %v", round, n)
		}
	}
	t.Logf("%d messages, %d of them came back at once", rounds, returned)
}

// Later commands on a blocked connection wait for their turn, and the answers come in order.
func TestCommandsBehindABlockedPullWait(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	blocked := s.connect(t)
	for _, command := range [][]any{{"QCONSUME", "behind", "me", "BLOCK", 0}, {"PING"}, {"QLEN", "behind"}, {"ECHO", "end"}} {
		if err := blocked.Send(command[0].(string), command[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	if err := blocked.Flush(); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, conn, "behind", 1)
	must(t, conn, "QPUSH", "behind", "a")
	b, err := parseBatch(blocked.Receive())
	if err != nil || b == nil || b.messages[0].body != "a" {
		t.Fatalf("got %+v, %v", b, err)
	}
	for _, want := range []string{"PONG", "1", "end"} {
		reply, err := blocked.Receive()
		text, bad := redis.String(reply, err)
		if n, ok := reply.(int64); ok {
			text, bad = fmt.Sprint(n), nil
		}
		if bad != nil || text != want {
			t.Fatalf("got %v, %v; want %s", reply, errors.Join(err, bad), want)
		}
	}
}
