package server

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

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

// Without this a hundred clients that look at large messages stand before everybody else: a push took seconds.
func TestReadersTakeTurns(t *testing.T) {
	const readers = 40
	s := start(t)
	bystander := s.dial(t)
	var running, most atomic.Int64
	release := make(chan struct{})
	s.run = func(c *commands.Call) {
		if isWord(c.Args[0], "QPEEK") {
			now := running.Add(1)
			for before := most.Load(); now > before && !most.CompareAndSwap(before, now); before = most.Load() {
			}
			<-release
			running.Add(-1)
		}
		c.W.Simple("OK")
	}
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
