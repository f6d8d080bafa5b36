package server

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// A graceful stop: no new client, what was sent is answered, then everything is closed.
func TestGracefulStop(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := startOn(t, ln)
	s.queues.set(func(q *fakeQueues) { q.manual = true })
	idle, busy := s.dial(t), s.dial(t)
	idle.send("PING\r\n")
	idle.expect("+PONG\r\n")
	busy.send(strings.Repeat(cmd("QPUSH", "q", "x"), 100) + "QPUSH q unfin")
	eventually(t, "all is there", s.queues.look(func(q *fakeQueues) bool { return q.last == 100 }))

	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		stopped <- s.Shutdown(ctx)
	}()
	idle.expectEnd("")
	select {
	case err := <-stopped:
		t.Fatalf("stopped before the pushes were durable: %v", err)
	default:
	}
	s.queues.commit(nil)
	busy.expect(":1\r\n:2\r\n")
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if err := <-s.served; err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		conn.Close()
		t.Error("took a connection after the stop")
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Errorf("a second stop: %v", err)
	}
}

// Without this a waiting consumer would hold up the stop until its end of the connection closes.
func TestStopWakesBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s := startOn(t, ln)
		s.queues.asleep = make(chan struct{})
		alone, behind := ln.dial(t), ln.dial(t)
		alone.send(pull)
		behind.send(pull + cmd("ECHO", "behind"))
		synctest.Wait()
		stopped := make(chan error, 1)
		go func() { stopped <- s.Shutdown(t.Context()) }()
		<-s.queues.asleep
		synctest.Wait() // the stop has looked at every connection, and the pulls are answered only now
		go s.queues.wake()
		alone.expectEnd("*-1\r\n")
		behind.expectEnd("*-1\r\n$6\r\nbehind\r\n")
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		<-s.served
	})
}

// Without this a hung disk would keep the process from ending.
func TestStopInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s := startOn(t, ln)
		s.queues.set(func(q *fakeQueues) { q.manual = true })
		c := ln.dial(t)
		c.conn.SetDeadline(time.Time{})
		c.send(cmd("QPUSH", "q", "x"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		<-s.served
		c.expectEnd("")
		s.queues.commit(nil) // late, and must not harm
	})
}

func TestShutdownCommand(t *testing.T) {
	s := start(t)
	c := s.dial(t)
	c.send("SHUTDOWN NOSAVE\r\n")
	<-s.Done()
	if !s.SkipCheckpoint() {
		t.Error("NOSAVE was not passed on")
	}
}

// Without this every client that ever came would cost a goroutine or its buffers for ever.
func TestNothingIsLeftOfAClient(t *testing.T) {
	s := start(t)
	c := s.dial(t)
	c.send("PING\r\n")
	c.expect("+PONG\r\n")
	before := runtime.NumGoroutine()
	for range 50 {
		one := s.dial(t)
		one.send(cmd("ECHO", strings.Repeat("x", 100_000)) + pull)
		one.expect("$100000\r\n")
		one.conn.Close()
	}
	eventually(t, "all are gone", func() bool { return len(s.all()) == 1 && runtime.NumGoroutine() <= before })
}

// Without this a stop takes as long as auth-delay, 5 seconds at most, for anyone who sends a wrong password now and then.
func TestStopDoesNotWaitForWrongPasswords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s := startOn(t, ln, "requirepass=secret", "auth-delay=5000")
		alone, many := ln.dial(t), ln.dial(t)
		alone.send(cmd("AUTH", "wrong"))
		go many.conn.Write([]byte(strings.Repeat(cmd("AUTH", "wrong"), 100)))
		synctest.Wait()
		began := time.Now()
		stopped := make(chan error, 1)
		go func() { stopped <- s.Shutdown(t.Context()) }()
		alone.expectEnd(wrongPass)
		many.expectEnd(wrongPass + wrongPass) // one that waited, one behind it: a stop is no time for guessing
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the stop took %v", took)
		}
		<-s.served
	})
}
