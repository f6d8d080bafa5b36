package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"quail/server/settings"
)

func TestClientLimit(t *testing.T) {
	s := start(t, "max-clients=2")
	one, two := s.dial(t), s.dial(t)
	one.send("PING\r\n")
	one.expect("+PONG\r\n")
	two.send("PING\r\n")
	two.expect("+PONG\r\n")
	s.dial(t).expectEnd("-ERR max number of clients reached\r\n")
	two.conn.Close()
	eventually(t, "room", func() bool { return len(s.all()) == 1 })
	three := s.dial(t)
	three.send("PING\r\n")
	three.expect("+PONG\r\n")
	if info := (admin{s.Server}).Info(); info.ConnectionsRejected != 1 || info.ConnectionsReceived != 4 {
		t.Errorf("counted %d and %d", info.ConnectionsRejected, info.ConnectionsReceived)
	}
}

// Without this an operator raises max-clients where descriptors are short, or looks for a crowd where the server was stopping.
func TestRefusalOfAClientSaysWhy(t *testing.T) {
	values, err := settings.New([][2]string{{"max-clients", "3"}})
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Settings: values, Queues: new(fakeQueues), Log: zerolog.Nop()})
	full := func(most int64) string {
		t.Helper()
		clear(s.connections)
		for id := range most {
			if why := s.add(&connection{id: id}); why != "" {
				t.Fatalf("client %d of %d: %s", id+1, most, why)
			}
		}
		defer clear(s.connections)
		return s.add(&connection{id: most})
	}
	if why := full(3); !strings.HasSuffix(why, "max-clients is reached") {
		t.Errorf("3 clients: %s", why)
	}
	s.descriptors = 4
	if why := full(2); !strings.Contains(why, "ulimit -n") || strings.Contains(why, "stops") {
		t.Errorf("4 descriptors: %s", why)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if why := full(0); !strings.HasSuffix(why, "the server stops") {
		t.Errorf("at the end: %s", why)
	}
}

func TestAuth(t *testing.T) {
	s := start(t, "requirepass=secret")
	c := s.dial(t)
	c.send("QLEN q\r\nAUTH wrong\r\n")
	c.expect("-NOAUTH Authentication required.\r\n-WRONGPASS")
	c.rd.ReadString('\n')
	// The limits of a stranger must be gone for what comes in the same packet as the password.
	large := strings.Repeat("x", 20_000)
	c.send(cmd("AUTH", "default", "secret") + cmd("ECHO", large) + "QLEN q\r\n")
	c.expect("+OK\r\n$20000\r\n" + large + "\r\n:0\r\n")
	c.send(cmd("RESET") + cmd("ECHO", large))
	c.expectEnd("+RESET\r\n-ERR Protocol error: unauthenticated bulk length\r\n")
}

// pipeListener accepts what a test makes, so that its clock can be virtual.
type pipeListener struct {
	conns  chan net.Conn
	errs   chan error
	once   sync.Once
	closed chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) dial(t *testing.T) *client {
	far, near := net.Pipe()
	l.conns <- far
	return &client{t: t, conn: near, rd: newClient(t, near).rd}
}

func TestIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s := startOn(t, ln, "timeout=5000")
		idle, blocked := ln.dial(t), ln.dial(t)
		idle.conn.SetDeadline(time.Time{})
		blocked.conn.SetDeadline(time.Time{})
		idle.send("PING\r\n")
		idle.expect("+PONG\r\n")
		blocked.send(pull)
		began := time.Now()
		idle.expectEnd("")
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("closed after %v", took)
		}
		time.Sleep(time.Hour) // virtual; who waits for a message is not idle
		s.queues.WakeAll()
		blocked.expect("*-1\r\n")
		began = time.Now()
		blocked.expectEnd("")
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("after its pull closed after %v", took)
		}
		s.shutdown(t)
	})
}

// Without this a client that never reads would keep its connection and buffers for ever.
func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s := startOn(t, ln, "write-timeout=3000")
		c := ln.dial(t)
		c.conn.SetDeadline(time.Time{})
		c.send("PING\r\n")
		began := time.Now()
		synctest.Wait()
		if len(s.all()) != 1 {
			t.Fatal("dropped at once")
		}
		time.Sleep(3 * time.Second) // virtual
		synctest.Wait()
		if len(s.all()) != 0 {
			t.Errorf("still there after %v", time.Since(began))
		}
		s.shutdown(t)
	})
}

// Without this a process without free descriptors would burn a core.
func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s := startOn(t, ln)
		began := time.Now()
		for range 20 {
			ln.errs <- errors.New("too many open files")
		}
		if took := time.Since(began); took < 10*time.Second {
			t.Errorf("20 errors in %v", took)
		}
		c := ln.dial(t)
		c.conn.SetDeadline(time.Time{})
		go c.send("PING\r\n")
		c.expect("+PONG\r\n")
		s.shutdown(t)
		c.expectEnd("")
	})
}

// A client that reads slowly, but reads, gets everything.
func TestSlowButReading(t *testing.T) {
	for _, size := range []int{100, 100_000, 16 << 20} {
		testSlowButReading(t, size)
	}
}

func testSlowButReading(t *testing.T, size int) {
	s := start(t, "output-buffer-bytes=64kb")
	c := s.dial(t)
	n := max(3, 10_000_000/size)
	body := strings.Repeat("x", size)
	go func() {
		for range n {
			if _, err := io.WriteString(c.conn, cmd("ECHO", body)); err != nil {
				return
			}
		}
		c.closeWrite()
	}()
	got, err := io.Copy(io.Discard, iotestOneKB{c.rd})
	if want := int64(n * (size + len(fmt.Sprintf("$%d\r\n\r\n", size)))); err != nil || got != want {
		t.Errorf("%d of %d bytes, %v", got, want, err)
	}
}

// iotestOneKB reads in small pieces.
type iotestOneKB struct{ r io.Reader }

func (r iotestOneKB) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), 1024)]) }
