package server

import (
	"sync/atomic"
	"testing"

	"quail/commands"
)

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
