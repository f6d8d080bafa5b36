package server

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
)

// Without this a pipeline would wait for the disk once a command.
func TestPipelineDoesNotWait(t *testing.T) {
	s := start(t)
	s.queues.set(func(q *fakeQueues) { q.manual = true })
	c := s.dial(t)
	c.send(strings.Repeat(cmd("QPUSH", "q", "body"), 1000) + "PING\r\n")
	eventually(t, "all pushes ran before one was durable", s.queues.look(func(q *fakeQueues) bool { return q.last == 1000 }))
	s.queues.commit(nil)
	var want strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&want, ":%d\r\n", i+1)
	}
	c.expect(want.String() + "+PONG\r\n")
}

// Without this a client would count a lost message as stored.
func TestFailedCommit(t *testing.T) {
	s := start(t)
	s.queues.set(func(q *fakeQueues) { q.manual = true })
	c := s.dial(t)
	c.send("PING\r\n" + cmd("QPUSH", "q", "a") + cmd("QPUSH", "q", "b") + "PING\r\n")
	eventually(t, "both pushes", s.queues.look(func(q *fakeQueues) bool { return q.last == 2 }))
	s.queues.commit(errors.New("disk full"))
	refused := "-WALERR disk full; the outcome is unknown, retry with DEDUP or look at the queue first\r\n"
	c.expect("+PONG\r\n" + refused + refused + "+PONG\r\n")
}

// Without this `printf … | nc` would lose its answers.
func TestHalfClosed(t *testing.T) {
	s := start(t)
	s.queues.set(func(q *fakeQueues) { q.manual = true })
	c := s.dial(t)
	c.send("PING\r\n" + cmd("QPUSH", "q", "a") + "ECHO 'b c'\r\nQCONSUME q me\r\nunfinished")
	c.closeWrite()
	eventually(t, "the push", s.queues.look(func(q *fakeQueues) bool { return q.last == 1 }))
	s.queues.commit(nil)
	c.expectEnd("+PONG\r\n:1\r\n$3\r\nb c\r\n*3\r\n:1\r\n:0\r\n*1\r\n*5\r\n:1\r\n$1\r\na\r\n:0\r\n:0\r\n*0\r\n")
}

func TestQuit(t *testing.T) {
	s := start(t)
	s.queues.set(func(q *fakeQueues) { q.manual = true })
	c := s.dial(t)
	c.send(cmd("QPUSH", "q", "a") + "QUIT\r\n" + cmd("QPUSH", "q", "never") + strings.Repeat("x", 300_000))
	eventually(t, "the push", s.queues.look(func(q *fakeQueues) bool { return q.last == 1 }))
	s.queues.commit(nil)
	// A reset in place of an orderly end could cost the client the last replies.
	if got, err := io.ReadAll(c.rd); err != nil || string(got) != ":1\r\n+OK\r\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if s.queues.last != 1 {
		t.Error("a command behind QUIT ran")
	}
}

func TestReplyModes(t *testing.T) {
	s := start(t)
	c := s.dial(t)
	c.send("CLIENT REPLY SKIP\r\nECHO skipped\r\nECHO a\r\n")
	c.expect("$1\r\na\r\n")
	c.send("CLIENT REPLY OFF\r\nECHO no\r\nQCONSUME q me\r\nCLIENT REPLY SKIP\r\nECHO no\r\nNOSUCH\r\nCLIENT REPLY ON\r\nECHO b\r\n")
	c.expect("+OK\r\n$1\r\nb\r\n")
	c.send("CLIENT REPLY SKIP\r\nQCONSUME q me\r\nECHO c\r\n")
	c.expect("$1\r\nc\r\n")
	c.send("CLIENT REPLY OFF\r\nRESET\r\nECHO d\r\n")
	c.expect("+RESET\r\n$1\r\nd\r\n")
}

// What is large goes round redcon; what is small goes through it. The client must not see a difference.
func TestSizes(t *testing.T) {
	s := start(t)
	c := s.dial(t)
	var sizes []int
	for base := 1; base <= 1<<20; base *= 4 {
		sizes = append(sizes, base-1, base, base+1)
	}
	sizes = append(sizes, 4096-30, 4096-25, 16<<10-24, 16<<10-23, 64<<10, 16<<20)
	for _, size := range sizes {
		body := strings.Repeat("x", size)
		c.send("ECHO before\r\n" + cmd("ECHO", body) + cmd("ECHO", "after"))
		c.expect(fmt.Sprintf("$6\r\nbefore\r\n$%d\r\n%s\r\n$5\r\nafter\r\n", size, body))
	}
}

// Without this what one client sends in small pieces would be seen as something else.
func TestEveryCut(t *testing.T) {
	s := start(t)
	input := cmd("ECHO", "one") + "ECHO two\r\n*0\r\n\r\n" + cmd("ECHO", "th\r\nee") + cmd("PING")
	want := "$3\r\none\r\n$3\r\ntwo\r\n$6\r\nth\r\nee\r\n+PONG\r\n"
	for i := range input {
		c := s.dial(t)
		c.send(input[:i])
		c.send(input[i:])
		c.expect(want)
		c.conn.Close()
	}
}

// A slow disk slows the client down, it does not fill the memory with its replies.
func TestHeldReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s := startOn(t, ln)
		s.queues.set(func(q *fakeQueues) { q.manual = true })
		c := ln.dial(t)
		const n = 400_000
		sent := false
		go func() {
			for range n / 1000 {
				if _, err := io.WriteString(c.conn, strings.Repeat(cmd("QPUSH", "q", "x"), 1000)); err != nil {
					return
				}
			}
			sent = true
		}()
		synctest.Wait()
		if sent || s.queues.last < 10_000 {
			t.Errorf("with nothing durable %d pushes ran", s.queues.last)
		}
		go func() {
			for !sent {
				s.queues.commit(nil)
				synctest.Wait()
			}
			s.queues.commit(nil)
		}()
		for i := range n {
			if line, err := c.rd.ReadString('\n'); err != nil || line != fmt.Sprintf(":%d\r\n", i+1) {
				t.Fatalf("reply %d: %q, %v", i+1, line, err)
			}
		}
		s.shutdown(t)
	})
}

// Without this CLIENT LIST, asked for what a stuck client does, names the command before it, and nothing for a first one.
func TestListNamesTheCommandThatRuns(t *testing.T) {
	s := start(t)
	c := s.dial(t)
	list := func(command, want string) {
		t.Helper()
		c.send(command + "\r\n")
		c.rd.ReadString('\n')
		line, err := c.rd.ReadString('\n')
		if err != nil || !strings.Contains(line, " cmd="+want+" ") {
			t.Errorf("%s: got %q, %v", command, line, err)
		}
		c.rd.ReadString('\n') // the end of the text
	}
	list("CLIENT LIST", "client|list")
	list("CLIENT INFO", "client|info")
	blocked := s.dial(t)
	blocked.send("PING\r\n" + pull)
	blocked.expect("+PONG\r\n")
	s.waitBlocked(t, 1)
	if got := (admin{s.Server}).Clients()[1].LastCommand; got != "qconsume" {
		t.Errorf("a blocked client runs %q", got)
	}
	c.send("CLIENT NOSUCH\r\n")
	c.rd.ReadString('\n')
	if got := (admin{s.Server}).Clients()[0].LastCommand; got != "" {
		t.Errorf("after an unknown command: %q", got)
	}
}
