package server

import (
	"fmt"
	"strings"
	"testing"

	"quail/queue"
)

// pipelineOf is pushes in one write, and the replies to the first `most` of them; the others are refused.
func pipelineOf(pushes, most int) (sent, want string) {
	var commands, replies strings.Builder
	for i := range pushes {
		commands.WriteString(cmd("QPUSH", "q", fmt.Sprint("body ", i)))
		if i < most {
			fmt.Fprintf(&replies, ":%d\r\n", i+1)
		} else {
			replies.WriteString("-QFULL enough\r\n")
		}
	}
	return commands.String(), replies.String()
}

// Running together must not show: each push of a pipeline has its own reply, in order, and its own message.
func TestPushesOfAPipelineRunTogether(t *testing.T) {
	s := start(t)
	c := s.dial(t)
	sent, want := pipelineOf(100, 100)
	c.send(sent)
	c.expect(want)
	s.queues.set(func(q *fakeQueues) {
		if len(q.messages) != 100 {
			t.Fatalf("%d messages, not 100", len(q.messages))
		}
		for i, m := range q.messages {
			if string(m.Body) != fmt.Sprint("body ", i) {
				t.Errorf("message %d is %q", i, m.Body)
			}
		}
	})
	for _, stats := range s.env.Stats.Commands() {
		if stats.Name == "qpush" && stats.Calls != 100 {
			t.Errorf("%d calls were counted, not 100", stats.Calls)
		}
	}
	if len(s.loops) == 0 {
		return
	}
	for round, before := 1, 0; ; round++ { // now and then the own goroutine is there first
		decisions := 0
		s.queues.set(func(q *fakeQueues) { decisions, before = q.pushes-before, q.pushes })
		if decisions <= 50 {
			return
		}
		if round > 10 {
			t.Fatalf("%d times 100 pushes came in one write, and the last were %d decisions", round, decisions)
		}
		c := s.dial(t)
		c.send(sent)
		for i := range 100 {
			c.expect(fmt.Sprintf(":%d\r\n", 100*round+i+1))
		}
	}
}

// Together they are all or none; alone the first ones have room. Without this a pipeline loses messages for which there was room, or
// a client is told of one that it was refused though it is there.
func TestPushesThatAreRefusedTogetherRunAlone(t *testing.T) {
	for _, most := range []int{1, 7, 31, 32, 33, 63} {
		s := start(t)
		s.queues.set(func(q *fakeQueues) { q.most = uint64(most) })
		c := s.dial(t)
		sent, want := pipelineOf(64, most)
		c.send(sent)
		c.expect(want)
		s.queues.set(func(q *fakeQueues) {
			if len(q.messages) != most {
				t.Errorf("%d messages are there, not %d", len(q.messages), most)
			}
		})
	}
}

// Who watches with MONITOR sees each.
func TestPushesTogetherAreMonitoredEach(t *testing.T) {
	s := start(t)
	m := s.dial(t)
	m.send(cmd("MONITOR"))
	m.expect("+OK\r\n")
	c := s.dial(t)
	sent, want := pipelineOf(20, 20)
	c.send(sent)
	c.expect(want)
	for range 20 {
		if line, err := m.rd.ReadString('\n'); err != nil || !strings.Contains(line, `"QPUSH" "q" "(`) {
			t.Fatalf("the monitor got %q, %v", line, err)
		}
	}
}

// A pipeline of all kinds of commands, pushes to several queues among them, is answered as if each came alone.
func TestPushesTogetherWithOthers(t *testing.T) {
	s := start(t)
	c := s.dial(t)
	c.send(cmd("QPUSH", "a", "1") + cmd("qpush", "a", "2") + cmd("QPUSH", "b", "3") + cmd("QPUSH", "a", "4", "5") + cmd("QPUSH", "a", "6") +
		cmd("PING") + cmd("QPUSH", "a") + cmd("QPUSH", "a", "7") + cmd("QPUSH", "a", "8") + cmd("NOSUCH") + cmd("QPUSH", "a", ""))
	c.expect(":1\r\n:2\r\n:3\r\n:4\r\n:6\r\n+PONG\r\n-ERR wrong number of arguments for 'qpush' command; QPUSH queue body [body ...]\r\n:7\r\n:8\r\n" +
		"-ERR unknown command 'NOSUCH', with args beginning with: \r\n:9\r\n")
}

// Before it is known which queues there are, nothing may be pushed, whatever way it comes.
func TestPushesTogetherWhileLoading(t *testing.T) {
	s := start(t)
	s.queues.loading = &queue.Error{Code: "LOADING", Message: "wait"}
	c := s.dial(t)
	sent, _ := pipelineOf(20, 20)
	c.send(sent)
	c.expect(strings.Repeat("-LOADING wait\r\n", 20))
	s.queues.set(func(q *fakeQueues) {
		if q.pushes > 0 {
			t.Errorf("%d pushes were tried", q.pushes)
		}
	})
}

// CLIENT REPLY counts commands.
func TestPushesTogetherAndRepliesThatAreSkipped(t *testing.T) {
	s := start(t)
	c := s.dial(t)
	c.send(cmd("CLIENT", "REPLY", "SKIP") + cmd("QPUSH", "q", "1") + cmd("QPUSH", "q", "2") + cmd("QPUSH", "q", "3"))
	c.expect(":2\r\n:3\r\n")
	c.send(cmd("CLIENT", "REPLY", "OFF") + cmd("QPUSH", "q", "4") + cmd("QPUSH", "q", "5") + cmd("CLIENT", "REPLY", "ON") + cmd("QPUSH", "q", "6"))
	c.expect("+OK\r\n:6\r\n")
}

// Replies that were held back together are refused one by one when the log fails: a client that waits for sixteen must not wait for ever.
func TestPushesTogetherAreRefusedEach(t *testing.T) {
	s := start(t)
	s.queues.set(func(q *fakeQueues) { q.manual, q.pushed = true, make(chan struct{}, 100) })
	c := s.dial(t)
	sent, _ := pipelineOf(3, 3)
	c.send(sent)
	<-s.queues.pushed
	eventually(t, "all are pushed", func() (all bool) {
		s.queues.set(func(q *fakeQueues) { all = q.last == 3 })
		return all
	})
	s.queues.commit(fmt.Errorf("the disk is gone"))
	refused := "-WALERR the disk is gone; the outcome is unknown, retry with DEDUP or look at the queue first\r\n"
	c.expect(refused + refused + refused)
}

// Who may not push to a queue may not push many either, and is refused each.
func TestPushesTogetherWithoutPermission(t *testing.T) {
	s := start(t)
	c := s.dial(t)
	c.send(cmd("ACL", "SETUSER", "u", "on", "nopass", "~a*", "+@all") + cmd("AUTH", "u", "x"))
	c.expect("+OK\r\n+OK\r\n")
	c.send(cmd("QPUSH", "a", "1") + cmd("QPUSH", "a", "2") + cmd("QPUSH", "b", "3") + cmd("QPUSH", "b", "4") + cmd("QPUSH", "a", "5"))
	refused := "-NOPERM this user has no permissions to access one of the keys used as arguments\r\n"
	c.expect(":1\r\n:2\r\n" + refused + refused + ":3\r\n")
}
