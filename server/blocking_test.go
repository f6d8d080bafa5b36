package server

import (
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// Arrays, not lines: only those come to redcon in runs of several.
var (
	pull = cmd("QCONSUME", "q", "me", "BLOCK", "0")
	ping = cmd("PING")
)

// batchOf is the reply that a pull of one message gets.
func batchOf(id, body string) string {
	return "*3\r\n:1\r\n:0\r\n*1\r\n*5\r\n:" + id + "\r\n$1\r\n" + body + "\r\n:0\r\n:0\r\n*0\r\n"
}

func (r *running) waitBlocked(t testing.TB, n int) {
	t.Helper()
	eventually(t, "blocked clients", func() bool { return admin{r.Server}.Info().BlockedClients == n })
}

// Without this commands behind a pull would be answered before it, and libraries would mix up their replies.
func TestCommandsBehindABlockedOne(t *testing.T) {
	s := start(t)
	c, other := s.dial(t), s.dial(t)
	c.send(cmd("ECHO", "a") + pull + cmd("ECHO", "b") + pull + cmd("ECHO", "c"))
	c.expect("$1\r\na\r\n")
	s.waitBlocked(t, 1)
	c.send("ECHO d\r\n")
	other.send(cmd("QPUSH", "q", "x"))
	other.expect(":1\r\n")
	c.expect(batchOf("1", "x") + "$1\r\nb\r\n")
	s.waitBlocked(t, 1)
	other.send(cmd("QPUSH", "q", "y"))
	other.expect(":2\r\n")
	c.expect(batchOf("2", "y") + "$1\r\nc\r\n$1\r\nd\r\n")
}

// QLOCK blocks too, and its name is as short as those that the guard compares by itself.
func TestCommandsBehindALock(t *testing.T) {
	s := start(t)
	c := s.dial(t)
	c.send(ping + cmd("QLOCK", "q", "me", "BLOCK", "0") + ping)
	c.expect("+PONG\r\n")
	s.waitBlocked(t, 1)
	s.queues.WakeAll()
	c.expect("$-1\r\n+PONG\r\n")
}

// Without this a batch would be leased to a consumer that is gone, and its messages wait for the whole lease.
func TestVanishedClientIsNoticed(t *testing.T) {
	ends := map[string]func(*client){
		"close": func(c *client) { c.conn.Close() },
		"reset": func(c *client) { c.conn.(*net.TCPConn).SetLinger(0); c.conn.Close() },
		"half":  func(c *client) { c.closeWrite() },
	}
	for name, end := range ends {
		for _, behind := range []string{"", ping, strings.Repeat(ping, 50_000)} {
			t.Run(name, func(t *testing.T) {
				s := start(t)
				c := s.dial(t)
				c.send(ping + pull + behind)
				c.expect("+PONG\r\n")
				s.waitBlocked(t, 1)
				end(c)
				eventually(t, "the pull is cancelled", s.queues.look(func(q *fakeQueues) bool { return q.canceled == 1 && len(q.waiting) == 0 }))
				eventually(t, "the connection is gone", func() bool { return len(s.all()) == 0 })
				if name == "half" {
					c.expectEnd("")
				}
			})
		}
	}
}

// A client that closed its side and blocks is gone, but what it asked before is answered.
func TestHalfClosedAndBlocked(t *testing.T) {
	s := start(t)
	s.queues.set(func(q *fakeQueues) { q.manual = true })
	c := s.dial(t)
	c.send(cmd("QPUSH", "q", "x") + cmd("QCONSUME", "q", "me") + pull + ping)
	c.closeWrite()
	eventually(t, "cancelled", s.queues.look(func(q *fakeQueues) bool { return q.canceled == 1 }))
	s.queues.commit(nil)
	c.expectEnd(":1\r\n" + batchOf("1", "x"))
}

// Without this an operator could not free a queue from a stuck consumer.
func TestKillBlocked(t *testing.T) {
	s := start(t)
	c, operator := s.dial(t), s.dial(t)
	c.send("CLIENT ID\r\n")
	c.expect(":1\r\n")
	c.send(pull + ping)
	s.waitBlocked(t, 1)
	operator.send("CLIENT KILL ID 1\r\n")
	operator.expect(":1\r\n")
	c.expectEnd("")
	eventually(t, "cancelled", s.queues.look(func(q *fakeQueues) bool { return q.canceled == 1 }))
	operator.send(cmd("CLIENT", "KILL", "SKIPME", "no", "ID", "2") + ping)
	operator.expectEnd(":1\r\n")
}

// The reply and the client's end race; whoever wins, the batch is either sent or given back, and nothing hangs.
func TestReplyRacesWithTheEnd(t *testing.T) {
	s := start(t)
	pusher := s.dial(t)
	for range 200 {
		c := s.dial(t)
		c.send(pull)
		s.waitBlocked(t, 1)
		closed := make(chan struct{})
		go func() { c.conn.Close(); close(closed) }()
		pusher.send(cmd("QPUSH", "q", "x"))
		<-closed
		eventually(t, "the connection is gone", func() bool { return len(s.all()) == 1 })
		pusher.send(cmd("QCONSUME", "q", "me"))
		pusher.expect(":")
		pusher.rd.ReadString('\n')
		if first, _ := pusher.rd.Peek(3); string(first) == "*-1" {
			pusher.expect("*-1\r\n")
			continue
		}
		pusher.expect("*3\r\n:1\r\n:0\r\n*1\r\n*5\r\n:")
		for range 6 {
			pusher.rd.ReadString('\n')
		}
	}
}

// Without this a thousand waiting consumers would cost more than their connections, or be told one by one.
func TestManyBlocked(t *testing.T) {
	s := start(t)
	const n = 300
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = s.dial(t)
		clients[i].send(pull)
	}
	s.waitBlocked(t, n)
	pusher := s.dial(t)
	pusher.send(cmd(append([]string{"QPUSH", "q"}, strings.Split(strings.Repeat("x", n), "")...)...))
	pusher.expect(":1\r\n")
	for _, c := range clients {
		c.expect("*3\r\n")
	}
}

// Without this a blocked client could fill the memory behind its pull.
func TestTooMuchBehindABlockedCommand(t *testing.T) {
	s := start(t, "query-buffer-bytes=64kb", "max-bulk-bytes=16kb", "max-push-bytes=16kb")
	c := s.dial(t)
	c.send(pull)
	s.waitBlocked(t, 1)
	if flood("", ping, 100*mb)(c.conn) == nil {
		t.Error("was not dropped")
	}
	eventually(t, "cancelled", s.queues.look(func(q *fakeQueues) bool { return q.canceled == 1 }))
	eventually(t, "a log line", func() bool { return strings.Contains(s.log.String(), "query-buffer-bytes") })
}

// What waits behind a blocked command is run afterwards, also when it is much more than one buffer.
func TestLongPipelineBehindABlockedCommand(t *testing.T) {
	s := start(t)
	c, pusher := s.dial(t), s.dial(t)
	const n = 100_000
	c.send(pull + strings.Repeat(ping, n))
	s.waitBlocked(t, 1)
	pusher.send(cmd("QPUSH", "q", "x"))
	c.expect(batchOf("1", "x") + strings.Repeat("+PONG\r\n", n))
}

// The reply comes while the connection sends what came before, just before it begins to read. Without care what is behind
// the pull would stay in the buffer until the client sends more, which it never does.
func TestReplyComesBeforeTheRead(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hooked := &hookListener{Listener: ln}
	s := startOn(t, hooked)
	defer s.shutdown(t)
	hooked.beforeWrite.Store(s.queues.wake)
	c := s.dial(t)
	for range 10 {
		c.send(ping + pull + ping)
		c.expect("+PONG\r\n*-1\r\n+PONG\r\n")
	}
}

// hookListener makes connections that call beforeWrite before each write that is tried.
type hookListener struct {
	net.Listener
	beforeWrite atomic.Value // func()
}

func (l *hookListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &hookConn{TCPConn: conn.(*net.TCPConn), hook: l.beforeWrite.Load().(func())}, nil
}

type hookConn struct {
	*net.TCPConn
	hook func()
}

func (c *hookConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.TCPConn.SyscallConn()
	return &hookRaw{raw, c.hook}, err
}

type hookRaw struct {
	syscall.RawConn
	hook func()
}

func (r *hookRaw) Write(try func(fd uintptr) bool) error {
	r.hook()
	return r.RawConn.Write(try)
}

// Without this an acknowledgement hurries for a client that only waits for its next batch, or lets one wait that needs the answer to go on.
func TestAClientIsPatientWhileItBlocks(t *testing.T) {
	for _, one := range []struct {
		behind  string
		patient bool
	}{
		{"", false},
		{ping, false},
		{pull, true},
		{cmd("QCONSUME", "q", "me", "FILL", "50", "BLOCK", "0"), true},
		{cmd("QLOCK", "q", "me"), false}, // it waits for what is durable, not for others
		{cmd("QLOCK", "q", "me", "BLOCK", "0"), true},
	} {
		s := start(t)
		c := s.dial(t)
		s.queues.set(func(q *fakeQueues) { q.manual, q.discard = true, true })
		c.send(cmd("QPUSH", "other", "x") + one.behind)
		eventually(t, "the commands run", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, of := range s.connections {
				_, replies := of.out.Pending()
				if replies > 0 && of.isPatient() == one.patient && (one.behind == ping || of.blocked() == (one.behind != "")) {
					return true
				}
			}
			return false
		})
		s.queues.commit(nil)
		s.queues.WakeAll()
	}
}
