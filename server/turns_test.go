package server

import (
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quail/commands"
)

// Without this a look at one queue waits for all clients that list a hundred thousand, and a page that an operator looks at is blind.
func TestLookDoesNotWaitForAllLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const listers = 40
		release := make(chan struct{})
		looked := false
		s := &Server{turns: make(chan struct{}, 2), lists: make(chan struct{}, 1)}
		s.run = func(c *commands.Call) {
			if isWord(c.Args[0], "QINFO") {
				looked = true
				return
			}
			<-release
		}
		ask := func(words ...string) {
			call := new(commands.Call)
			for _, w := range words {
				call.Args = append(call.Args, []byte(w))
			}
			go s.runInTurn(call)
			synctest.Wait()
		}
		for range listers / 2 {
			ask("KEYS", "*")
			ask("SCAN", "0")
		}
		ask("QINFO", "q")
		for n := 0; !looked; n++ {
			if n > cap(s.turns) {
				t.Fatalf("a look at one queue waits for more than %d lists", n)
			}
			release <- struct{}{}
			synctest.Wait()
		}
		close(release)
	})
}

// Without this an operator who kills the clients that ask for too much waits until each had its turn, and so does everybody else.
func TestKilledClientsTakeNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, ran := make(chan struct{}), 0
		s := &Server{turns: make(chan struct{}, 1), lists: make(chan struct{}, 1)}
		s.run = func(*commands.Call) {
			ran++
			<-release
		}
		var clients []*connection
		for _, name := range []string{"QPEEK", "QPEEK", "KEYS", "QPEEK"} {
			c := new(connection)
			clients = append(clients, c)
			go s.runInTurn(&commands.Call{Conn: c, Args: [][]byte{[]byte(name), []byte("q")}})
			synctest.Wait()
		}
		for _, c := range clients[1:3] {
			c.closing.Store(true)
		}
		close(release)
		synctest.Wait()
		if ran != 2 {
			t.Errorf("%d commands ran, want 2: the others' clients were killed before their turn", ran)
		}
	})
}

// Without this the commands of clients that have ended while they stood in line are run, one after the other, for nobody, and everybody
// else stands behind them. Who has only said that it asks for nothing more gets its answer, unless that takes very long.
func TestVanishedClientsTakeNoTurn(t *testing.T) {
	if !inRounds || runtime.GOOS != "linux" {
		t.Skip("nothing tells what became of a client that its own goroutine serves")
	}
	release := make(chan struct{})
	var ran atomic.Int64
	s := startToRun(t, func(func(*commands.Call)) func(*commands.Call) {
		return func(c *commands.Call) {
			ran.Add(1)
			if isWord(c.Args[1], "HOLD") {
				<-release
			}
			c.W.Simple("OK")
		}
	})
	asked := 0
	ask := func(queue string, times int) *client {
		c := s.dial(t)
		c.send(strings.Repeat(cmd("QPEEK", queue), times))
		asked += times * len(cmd("QPEEK", queue))
		eventually(t, "it has asked", func() bool { return s.counters.input.Load() >= uint64(asked) })
		return c
	}
	var holders []*client
	for range cap(s.turns) {
		holders = append(holders, ask("HOLD", 1))
	}
	eventually(t, "all turns are taken", func() bool { return ran.Load() == int64(cap(s.turns)) })
	vanished, half := ask("q", 3), ask("q", 2)
	vanished.conn.(*net.TCPConn).SetLinger(0) // it ends with a reset, as a program does that leaves replies unread
	vanished.conn.Close()
	half.closeWrite()
	close(release)
	half.expectEnd("+OK\r\n+OK\r\n")
	for _, c := range holders {
		c.expect("+OK\r\n")
	}
	eventually(t, "the connection of who vanished is closed", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.connections) == len(holders)
	})
	if got, want := ran.Load(), int64(cap(s.turns)+2); got != want {
		t.Errorf("%d commands ran, want %d: one client was gone before its turn", got, want)
	}
}

// Without this a client that has ended in the usual way, whose connection looks half-closed, is never counted as gone.
func TestHalfClosedClientDoesNotWaitForEverForItsTurn(t *testing.T) {
	peer := new(fakeSocket)
	c := &connection{sock: peer}
	if c.isGone(time.Hour) {
		t.Error("gone, though it is there")
	}
	if peer.closed = true; c.isGone(halfClosedWait - 1) {
		t.Error("gone at once, though it may only have nothing more to ask")
	}
	if !c.isGone(halfClosedWait) || !c.closing.Load() {
		t.Error("not gone, or what it sent behind it runs still")
	}
	if c = (&connection{sock: peer}); c.isGone(0) {
		t.Error("gone at once")
	}
	if peer.reset = true; !c.isGone(0) {
		t.Error("not gone, though it was reset")
	}
}

type fakeSocket struct {
	socket
	closed, reset bool
}

func (s *fakeSocket) Peer() (closed, reset bool) { return s.closed, s.reset }

// Without this a hundred clients that look at large messages stand before everybody else: a push took seconds.
func TestReadersTakeTurns(t *testing.T) {
	const readers = 40
	var running, most atomic.Int64
	release := make(chan struct{})
	s := startToRun(t, func(func(*commands.Call)) func(*commands.Call) {
		return func(c *commands.Call) {
			if isWord(c.Args[0], "QPEEK") {
				now := running.Add(1)
				for before := most.Load(); now > before && !most.CompareAndSwap(before, now); before = most.Load() {
				}
				<-release
				running.Add(-1)
			}
			c.W.Simple("OK")
		}
	})
	bystander := s.dial(t)
	var clients []*client
	for range readers {
		c := s.dial(t)
		c.send(cmd("QPEEK", "q"))
		clients = append(clients, c)
	}
	eventually(t, "all have asked", func() bool { return s.counters.input.Load() >= uint64(readers*len(cmd("QPEEK", "q"))) })
	for _, command := range [][]string{{"PING"}, {"QPUSH", "q", "a"}, {"QACK", "q", "1"}, {"QREM", "q", "1"}, {"DBSIZE"}} {
		bystander.send(cmd(command...))
		bystander.expect("+OK\r\n")
	}
	close(release)
	for _, c := range clients {
		c.expect("+OK\r\n")
	}
	if most.Load() == 0 || most.Load() > int64(cap(s.turns)) {
		t.Errorf("%d read at a time, at most %d may", most.Load(), cap(s.turns))
	}
}
