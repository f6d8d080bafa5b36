package server

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quail/commands"
)

var (
	peek   = cmd("QPEEK", "q")
	answer = "$100000\r\n" + strings.Repeat("x", 100_000) + "\r\n"
)

// startUnread runs a server that answers looks with much, and counts them.
func startUnread(t *testing.T, ln net.Listener) (*running, *atomic.Int64) {
	looks := new(atomic.Int64)
	s := startOnToRun(t, ln, func(own func(*commands.Call)) func(*commands.Call) {
		return func(c *commands.Call) {
			if !isWord(c.Args[0], "QPEEK") {
				own(c)
				return
			}
			looks.Add(1)
			c.W.Bulk([]byte(answer[len("$100000\r\n") : len(answer)-2]))
		}
	})
	return s, looks
}

// Without this a hundred clients that look at large messages, and read none, keep the processors busy with replies for nobody, as many as
// fit into the memory.
func TestWhoDoesNotReadGetsLittleMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const deaf = 40
		ln := newPipeListener()
		s, looks := startUnread(t, ln)
		defer s.shutdown(t)
		for range deaf {
			c := ln.dial(t)
			defer c.conn.Close()
			c.conn.SetDeadline(time.Time{})
			c.send(strings.Repeat(peek, 20))
		}
		healthy := ln.dial(t)
		expect := func(want int64) {
			t.Helper()
			synctest.Wait()
			if got := looks.Load(); got != want {
				t.Fatalf("%d looks were answered, want %d", got, want)
			}
		}
		expect(deaf) // one each
		began := time.Now()
		for range 10 { // who reads waits for nothing
			healthy.send(peek + ping)
			healthy.expect(answer + "+PONG\r\n")
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("who reads waited %v", took)
		}
		expect(deaf + 10)
		time.Sleep(unheardPatience + unheardEvery/2) // virtual
		for paced := range int64(5) {
			expect(deaf + 10 + paced)
			time.Sleep(unheardEvery)
		}
	})
}

// Without this a client that sends all its commands before it reads the first reply waits for ever, though output-buffer-bytes has room.
func TestAPipelineMayBeSentBeforeItsRepliesAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s, _ := startUnread(t, ln)
		c := ln.dial(t)
		c.conn.SetDeadline(time.Time{})
		const times = 20
		for range times { // each is sent when the server takes it
			c.send(peek + ping)
		}
		c.send(ping)
		c.expect(strings.Repeat(answer+"+PONG\r\n", times) + "+PONG\r\n")
		s.shutdown(t)
	})
}

// Without this a client that is killed stays until all others had their turn, and may get one itself.
func TestKilledWhileItDoesNotRead(t *testing.T) {
	for name, wait := range map[string]time.Duration{"patience": unheardPatience / 2, "pace": unheardPatience + unheardEvery/2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newPipeListener()
				s, looks := startUnread(t, ln)
				defer s.shutdown(t)
				const deaf = 10
				for range deaf {
					c := ln.dial(t)
					defer c.conn.Close()
					c.conn.SetDeadline(time.Time{})
					c.send(peek + peek + peek)
				}
				time.Sleep(wait) // virtual
				synctest.Wait()
				before := looks.Load()
				for _, c := range s.all()[1:] {
					c.kill()
				}
				time.Sleep(unheardEvery) // one of them may have had the turn
				synctest.Wait()
				if left, more := len(s.all()), looks.Load()-before; left != 1 || more > 2 { // the one that lives goes on
					t.Errorf("%d connections are left after all but one were killed, and %d more looks were answered", left, more)
				}
			})
		})
	}
}

// Without this the loop goes on to answer a client that does not read, up to the whole output buffer.
func TestTheLoopLeavesWhoDoesNotRead(t *testing.T) {
	s := start(t)
	s.unheard <- struct{}{} // nobody gets more who does not read
	t.Cleanup(func() { <-s.unheard })
	c := s.dial(t)
	large := strings.Repeat("x", 60_000)
	const pushes = 200
	for range pushes { // the socket's buffers are full long before
		s.queues.Push([]byte("q"), [][]byte{[]byte(large)})
	}
	for range pushes {
		c.send(cmd("QCONSUME", "q", "me"))
	}
	eventually(t, "it waits", func() bool {
		for _, conn := range s.all() {
			if !conn.out.HasRoom(unreadRoom) {
				return true
			}
		}
		return false
	})
	bytes, _ := s.all()[0].out.Pending()
	if most := unreadBytesMax + 2*len(large); bytes > most {
		t.Errorf("%d bytes wait for a client that does not read, want at most %d", bytes, most)
	}
}
