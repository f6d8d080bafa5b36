package server

import (
	"strings"
	"testing"
)

const (
	multiRefused  = "-ERR unknown command 'MULTI', with args beginning with:; there are no transactions; QPUSH with several bodies adds all or none\r\n"
	afterMulti    = "-ERR not run, since it follows a MULTI that was refused; EXEC or DISCARD ends that\r\n"
	execDiscarded = "-EXECABORT Transaction discarded because of previous errors.\r\n"
)

func (r *running) expectPushed(t *testing.T, want ...string) {
	t.Helper()
	r.queues.set(func(q *fakeQueues) {
		var got []string
		for _, m := range q.messages {
			got = append(got, string(m.Body))
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%.300q were pushed, want %q", got, want)
		}
	})
}

// Without this a library that puts MULTI before its pushes unasked raises an error though they are done, and who tries again has all twice.
func TestWhatFollowsARefusedMultiDoesNotRun(t *testing.T) {
	s := start(t)
	pushes, _ := pipelineOf(100, 100)
	big := cmd("QPUSH", "q", strings.Repeat("x", 100_000))
	c := s.dial(t)
	c.send(cmd("MULTI") + pushes + big + "QPUSH q inline\r\n" + cmd("EXEC") + cmd("QPUSH", "q", "after"))
	c.expect(multiRefused + strings.Repeat(afterMulti, 102) + execDiscarded + ":1\r\n")
	// In other pieces: what comes alone is run by another goroutine, and pushes that come together run together.
	for range 20 {
		c.send(cmd("MULTI"))
		c.expect(multiRefused)
		c.send(pushes)
		c.expect(strings.Repeat(afterMulti, 100))
		c.send(big)
		c.expect(afterMulti)
		c.send(cmd("QCONSUME", "q", "me", "BLOCK", "0") + cmd("QPUSH", "q", "behind a pull that does not wait"))
		c.expect(afterMulti + afterMulti)
		c.send(cmd("EXEC"))
		c.expect(execDiscarded)
	}
	c.send(cmd("QPUSH", "q", "last"))
	c.expect(":2\r\n")
	s.expectPushed(t, "after", "last")
	other := s.dial(t)
	c.send(cmd("MULTI"))
	c.expect(multiRefused)
	other.send(cmd("QPUSH", "q", "other"))
	other.expect(":3\r\n") // another connection has nothing to do with it
}

// A client that hears nothing is refused all the same.
func TestMultiInSilence(t *testing.T) {
	s := start(t)
	pushes, _ := pipelineOf(10, 10)
	c := s.dial(t)
	c.send("CLIENT REPLY OFF\r\nMULTI\r\n" + pushes + "EXEC\r\nCLIENT REPLY ON\r\n")
	c.expect("+OK\r\n")
	c.send("CLIENT REPLY SKIP\r\nMULTI\r\n" + pushes + "EXEC\r\n")
	c.expect(strings.Repeat(afterMulti, 10) + execDiscarded)
	s.expectPushed(t)
}

// What a MULTI follows is done, and what ends the state is heard.
func TestMultiBehindAPullThatWaits(t *testing.T) {
	s := start(t)
	c, other := s.dial(t), s.dial(t)
	c.send(cmd("QCONSUME", "q", "me", "BLOCK", "0") + cmd("MULTI") + cmd("QPUSH", "q", "never") + cmd("EXEC"))
	other.send(cmd("QPUSH", "q", "a"))
	other.expect(":1\r\n")
	c.expect("*3\r\n:1\r\n:0\r\n*1\r\n*5\r\n:1\r\n$1\r\na\r\n:0\r\n:0\r\n*0\r\n" + multiRefused + afterMulti + execDiscarded)
	for _, end := range [][2]string{{"DISCARD", "+OK\r\n"}, {"RESET", "+RESET\r\n"}, {"EXEC", execDiscarded}} {
		c.send(cmd("MULTI") + cmd("PING") + cmd(end[0]) + cmd("PING"))
		c.expect(multiRefused + afterMulti + end[1] + "+PONG\r\n")
	}
	c.send(cmd("MULTI") + cmd("QUIT") + cmd("PING"))
	c.expectEnd(multiRefused + "+OK\r\n")
}

// To a stranger, MULTI is a word as any other.
func TestMultiOfAStranger(t *testing.T) {
	s := start(t, "requirepass=secret", "auth-delay=1")
	m := s.dial(t)
	m.send(cmd("AUTH", "secret") + cmd("MONITOR"))
	m.expect("+OK\r\n+OK\r\n")
	c := s.dial(t)
	c.send(cmd("MULTI") + cmd("QPUSH", "q", "a") + cmd("EXEC") + cmd("QPUSH", "q", "b"))
	const stranger = "-NOAUTH Authentication required.\r\n"
	c.expect(multiRefused + stranger + execDiscarded + stranger)
	c.send(cmd("MULTI") + cmd("AUTH", "wrong") + cmd("AUTH", "secret") + cmd("QPUSH", "q", "c") + cmd("EXEC") + cmd("QPUSH", "q", "ran"))
	c.expect(multiRefused + "-WRONGPASS invalid username-password pair or user is disabled.\r\n+OK\r\n" + afterMulti + execDiscarded + ":1\r\n")
	s.expectPushed(t, "ran")
	line := ""
	for err := error(nil); err == nil && !strings.Contains(line, "QPUSH"); {
		line, err = m.rd.ReadString('\n')
	}
	if !strings.Contains(line, `"QPUSH" "q" "(3 bytes`) {
		t.Errorf("the monitor saw %q, which did not run", line)
	}
}
