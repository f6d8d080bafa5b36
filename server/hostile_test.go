package server

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quail/commands"
)

// Every way in which bytes are known to break redcon, before and after AUTH. The process must live, stay small and serve
// the others.

const (
	mb = 1 << 20

	// hostileBytesMax is how much memory an attack may cost at any moment.
	hostileBytesMax = 64 * mb
)

// memoryWatch notes the highest use of memory while it runs.
type memoryWatch struct {
	idle    uint64
	highest atomic.Uint64
	stop    chan struct{}
	done    chan struct{}
}

func inUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

func watchMemory() *memoryWatch {
	runtime.GC()
	w := &memoryWatch{idle: inUse(), stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				w.highest.Store(max(w.highest.Load(), inUse()))
			case <-w.stop:
				return
			}
		}
	}()
	return w
}

func (w *memoryWatch) check(t *testing.T) {
	close(w.stop)
	<-w.done
	if used := int64(w.highest.Load()) - int64(w.idle); used > hostileBytesMax {
		t.Errorf("%d MB more than idle", used/mb)
	}
}

type attack struct {
	name string
	// send gives the bytes; it may fail as soon as the server has had enough.
	send func(w io.Writer) error
	// answer is the last word of the server, if it has one: after AUTH, and before.
	answer, stranger string
	// asks means that the client must end it: the server has nothing to complain of.
	harmless bool
}

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// flood repeats s until so many bytes are sent.
func flood(head, s string, total int) func(io.Writer) error {
	return func(w io.Writer) error {
		if _, err := io.WriteString(w, head); err != nil {
			return err
		}
		chunk := bytes.Repeat([]byte(s), max(1, 64<<10/len(s)))
		for sent := 0; sent < total; sent += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return err
			}
		}
		return nil
	}
}

func oneByOne(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		for i := range len(s) {
			if _, err := w.Write([]byte{s[i]}); err != nil {
				return err
			}
		}
		return nil
	}
}

func protocolError(what string) string { return "-ERR Protocol error: " + what + "\r\n" }

func attacks() []attack {
	bulk, count := protocolError("invalid bulk length"), protocolError("invalid multibulk length")
	strangerCount, strangerBulk := protocolError("unauthenticated multibulk length"), protocolError("unauthenticated bulk length")
	return []attack{
		{name: "bulk length of 2^63-1", send: text("*1\r\n$9223372036854775807\r\n"), answer: bulk, stranger: bulk},
		{name: "bulk length of 600 MB", send: flood("*1\r\n$629145600\r\n", "x", 600*mb), answer: bulk, stranger: bulk},
		{name: "bulk length of 16 MB and nothing", send: text("*1\r\n$16777216\r\n"), stranger: strangerBulk, harmless: true},
		{name: "9e18 arguments", send: text("*9000000000000000000\r\n"), answer: count, stranger: count},
		{name: "a thousand million arguments", send: text("*1000000000\r\n"), answer: count, stranger: strangerCount},
		{name: "a million arguments and nothing", send: text("*1048576\r\n"), stranger: strangerCount, harmless: true},
		{name: "eleven arguments", send: text("*11\r\n" + strings.Repeat("$1\r\na\r\n", 11)), stranger: strangerCount, harmless: true},
		{name: "negative bulk", send: text("*1\r\n$-5\r\n"), answer: bulk, stranger: bulk},
		{name: "no dollar", send: text("*1\r\nPING\r\n"), answer: protocolError("expected '$', got 'P'"), stranger: protocolError("expected '$', got 'P'")},
		{name: "600 MB without a newline", send: flood("", "x", 600*mb), answer: protocolError("too big inline request"), stranger: protocolError("too big inline request")},
		{name: "600 MB of a count", send: flood("*", "1", 600*mb), answer: protocolError("too big mbulk count string"), stranger: protocolError("too big mbulk count string")},
		{name: "600 MB of a length", send: flood("*1\r\n$", "1", 600*mb), answer: protocolError("too big bulk count string"), stranger: protocolError("too big bulk count string")},
		{name: "an open quote", send: text("SET \"a\r\n"), answer: protocolError("unbalanced quotes in request"), stranger: protocolError("unbalanced quotes in request")},
		{name: "a command byte by byte", send: oneByOne("*2\r\n$4\r\nECHO\r\n$16000\r\n" + strings.Repeat("x", 10_000)), harmless: true},
		{name: "empty commands", send: flood("", "*0\r\n\r\n*-1\r\n", 20*mb), harmless: true},
		{name: "commands before an error", send: text("PING\r\n" + cmd("PING") + "*x\r\n"), answer: "+PONG\r\n+PONG\r\n" + count,
			stranger: strings.Repeat("-NOAUTH Authentication required.\r\n", 2) + count},
		{name: "commands behind QUIT", send: text(cmd("QUIT") + cmd("ECHO", "no") + "ECHO no\r\n"), answer: "+OK\r\n", stranger: "+OK\r\n"},
		{name: "POST", send: text("POST / HTTP/1.1\r\nHost: localhost\r\n\r\nQPUSH a b\r\n")},
		{name: "Host:", send: text("Host: localhost\r\n\r\nQPUSH a b\r\n")},
		{name: "POST as an array", send: text(cmd("post", "/"))},
	}
}

func TestHostileBytes(t *testing.T) {
	for _, authenticated := range []bool{true, false} {
		for _, a := range attacks() {
			t.Run(fmt.Sprintf("%s/authenticated=%v", a.name, authenticated), func(t *testing.T) {
				s := start(t, "requirepass=secret")
				bystander := s.dial(t)
				bystander.send(cmd("AUTH", "secret"))
				bystander.expect("+OK\r\n")
				c := s.dial(t)
				answer, harmless := a.stranger, a.harmless && a.stranger == ""
				if authenticated {
					c.send(cmd("AUTH", "secret"))
					c.expect("+OK\r\n")
					answer, harmless = a.answer, a.harmless
				}
				watch := watchMemory()
				sent := make(chan error, 1)
				go func() {
					err := a.send(c.conn)
					if harmless {
						c.closeWrite()
					}
					sent <- err
				}()
				bystander.send("PING\r\n")
				bystander.expect("+PONG\r\n")
				if harmless {
					io.Copy(io.Discard, c.rd)
				} else {
					c.expectEnd(answer)
				}
				c.conn.Close()
				<-sent
				watch.check(t)
				bystander.send("PING\r\n")
				bystander.expect("+PONG\r\n")
				if strings.Contains(a.name, "POST") && !strings.Contains(s.log.String(), "cross-protocol") {
					t.Error("not logged")
				}
				if q := s.queues; len(q.messages) > 0 {
					t.Error("a command of a forged request ran")
				}
			})
		}
	}
}

// Without this redcon's parser recursed once a read, until the process died on its stack limit.
func TestManySmallWritesInOneCommand(t *testing.T) {
	s := start(t)
	c := s.dial(t)
	const size = 200_000
	watch := watchMemory()
	c.send("*2\r\n$4\r\nECHO\r\n$" + fmt.Sprint(size) + "\r\n")
	for range size {
		c.send("x")
	}
	c.send("\r\n")
	c.expect("$" + fmt.Sprint(size) + "\r\n" + strings.Repeat("x", size) + "\r\n")
	watch.check(t)
}

// Without this a client that asks and does not read would cost 1.3 GB, and be there for ever.
func TestFastPipelineWithoutReading(t *testing.T) {
	for _, body := range []int{0, 1000, 1 * mb} {
		t.Run(fmt.Sprintf("echo=%d", body), func(t *testing.T) {
			s := start(t, "write-timeout=300")
			c := s.dial(t)
			watch := watchMemory()
			err := flood("", cmd("ECHO", strings.Repeat("x", body)), 2000*mb)(c.conn)
			if err == nil {
				t.Error("was not dropped")
			}
			watch.check(t)
			eventually(t, "a log line", func() bool { return strings.Contains(s.log.String(), `"write-timeout":300`) })
			if other := s.dial(t); true {
				other.send("PING\r\n")
				other.expect("+PONG\r\n")
			}
		})
	}
}

// Large replies to small commands, which stand in one run: without this all of them would be made before one is sent.
func TestLargeRepliesWithoutReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s := startOn(t, ln)
		ran := 0
		s.run = func(c *commands.Call) {
			c.W.Bulk(make([]byte, 1*mb))
			ran++
		}
		c := ln.dial(t)
		c.send(strings.Repeat("*1\r\n$4\r\nLONG\r\n", 100))
		synctest.Wait()
		if ran > 5 {
			t.Errorf("%d replies of 1 MB wait for a client that reads none", ran)
		}
		c.conn.Close()
		synctest.Wait()
		s.shutdown(t)
	})
}

// Without this a stranger could have what a client may that has given its password.
func TestStrangerWithoutReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s := startOn(t, ln, "requirepass=secret", "write-timeout=1000")
		c := ln.dial(t)
		go flood("", "PING\r\n", 10*mb)(c.conn)
		synctest.Wait()
		if bytes := (admin{s.Server}).Clients()[0].OutputBytes; bytes == 0 || bytes > 3*strangerOutputBytesMax {
			t.Errorf("%d bytes of replies wait", bytes)
		}
		time.Sleep(time.Second) // virtual
		synctest.Wait()
		if len(s.all()) != 0 {
			t.Error("still there after write-timeout")
		}
		s.shutdown(t)
	})
}

// Without this CLIENT KILL would leave a client that does not read its memory until write-timeout.
func TestKillWithoutReading(t *testing.T) {
	for _, replyBytes := range []int{100, 1 * mb} { // it waits between two runs; within one
		synctest.Test(t, func(t *testing.T) {
			ln := newPipeListener()
			s := startOn(t, ln)
			s.run = func(c *commands.Call) { c.W.Bulk(make([]byte, replyBytes)) }
			c := ln.dial(t)
			go flood("", "*1\r\n$4\r\nLONG\r\n", 10*mb)(c.conn)
			synctest.Wait()
			began := time.Now()
			admin{s.Server}.KillClients(func(commands.ClientInfo) bool { return true })
			synctest.Wait()
			if len(s.all()) != 0 || time.Since(began) != 0 {
				t.Error("the killed client is still there")
			}
			s.shutdown(t)
		})
	}
}

// Without this a kill that comes while a command of such a client runs leaves it until write-timeout.
func TestKillWhileRunningWithoutReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s := startOn(t, ln)
		running, release := make(chan struct{}), make(chan struct{})
		s.run = func(c *commands.Call) {
			close(running)
			<-release
			c.W.Bulk(make([]byte, mb))
		}
		c := ln.dial(t)
		go c.send("*1\r\n$4\r\nLONG\r\n")
		<-running
		began := time.Now()
		admin{s.Server}.KillClients(func(commands.ClientInfo) bool { return true })
		close(release)
		for len(s.all()) != 0 && time.Since(began) <= 10*killedTime {
			time.Sleep(killedTime)
			synctest.Wait()
		}
		if waited := time.Since(began); waited > killedTime {
			t.Errorf("the killed client is there for %v", waited)
		}
		s.shutdown(t)
	})
}

// Client libraries send a whole pipeline before they read: without room for its replies both sides would wait for ever.
func TestLongPipelineBeforeReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener() // a pipe holds no byte by itself
		s := startOn(t, ln)
		s.queues.set(func(q *fakeQueues) { q.discard = true })
		c := ln.dial(t)
		const n = 400_000
		if err := flood("", strings.Repeat(cmd("QPUSH", "q", "x"), 1000), n*len(cmd("QPUSH", "q", "x")))(c.conn); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if line, err := c.rd.ReadString('\n'); err != nil || line != fmt.Sprintf(":%d\r\n", i+1) {
				t.Fatalf("reply %d: %q, %v", i+1, line, err)
			}
		}
		s.shutdown(t)
	})
}

// Many strangers at once, each with as much as a stranger may send.
func TestStrangersAreCheap(t *testing.T) {
	s := start(t, "requirepass=secret")
	watch := watchMemory()
	half := "*10\r\n" + strings.Repeat("$16384\r\n"+strings.Repeat("x", 16384)+"\r\n", 9)
	for range 100 {
		s.dial(t).send(half)
	}
	eventually(t, "all arrived", func() bool { return s.counters.input.Load() >= uint64(100*len(half)) })
	watch.check(t)
}

// Without this one web page fills the disk with log lines.
func TestForgedRequestsAreLoggedOnceASecond(t *testing.T) {
	s := start(t)
	for range 200 {
		c := s.dial(t)
		c.send("POST / HTTP/1.1\r\n")
		c.expectEnd("")
	}
	warned := strings.Count(s.log.String(), `"level":"warn"`)
	if warned == 0 || warned > 5 {
		t.Errorf("%d lines", warned)
	}
}
