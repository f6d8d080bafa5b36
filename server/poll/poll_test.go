//go:build linux

package poll

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pair makes a loop's Conn and the client at its other end. serve is made once the Conn is there; nil serves nothing inline.
func pair(t *testing.T, cfg Config, serve func(c *Conn) func(ending bool) bool) (*Conn, *net.TCPConn) {
	t.Helper()
	loop, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := loop.Adopt(accepted.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	var f func(bool) bool
	if serve != nil {
		f = serve(c)
	}
	if err := c.Serve(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		c.Close()
		loop.Close()
	})
	return c, client.(*net.TCPConn)
}

// echo serves by sending back what comes, until the end of the stream.
func echo(c *Conn) func(bool) bool {
	buf := make([]byte, 16)
	return func(ending bool) bool {
		for {
			n, err := c.TryRead(buf)
			if err != nil {
				return false
			}
			if n == 0 {
				return true
			}
			if sent, err := c.TryWrite(buf[:n]); err != nil || sent < n {
				return false
			}
			if n < len(buf) && !ending {
				return true
			}
		}
	}
}

// wait is what a connection's own goroutine does: it serves what came while it was not in Wait, until the end of the stream.
func wait(c *Conn, serve func(bool) bool) error {
	for {
		if err := c.Wait(); err != nil {
			return err
		}
		if !serve(true) {
			return nil
		}
	}
}

func exchange(t *testing.T, client net.Conn, message string) {
	t.Helper()
	if _, err := client.Write([]byte(message)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(message))
	if _, err := io.ReadFull(client, got); err != nil || string(got) != message {
		t.Fatalf("got %q, %v; want %q", got, err, message)
	}
}

func TestServesWhileTheGoroutineWaits(t *testing.T) {
	var rounds, idle atomic.Int32
	c, client := pair(t, Config{Begin: func() { rounds.Add(1) }, End: func() { rounds.Add(1) },
		Idle: func() { idle.Add(1) }, IdleAfter: time.Millisecond}, echo)
	waited := make(chan error, 1)
	go func() { waited <- wait(c, echo(c)) }()
	for range 100 {
		exchange(t, client, "hello")
	}
	exchange(t, client, "more than one buffer holds, by far")
	client.CloseWrite()
	if err := <-waited; err != nil {
		t.Fatalf("wait ended with %v", err)
	}
	if n, err := c.TryRead(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("after the end: %d, %v", n, err)
	}
	if rounds.Load() == 0 || rounds.Load()%2 != 0 {
		t.Fatalf("%d calls of Begin and End", rounds.Load())
	}
	for idle.Load() == 0 { // bounded by the test's own timeout
		exchangeNothing(c)
	}
}

// exchangeNothing gives the loop a moment.
func exchangeNothing(c *Conn) { c.TryWrite(nil) }

// Without this the last commands of a client that sends and closes at once are never run.
func TestEndTogetherWithData(t *testing.T) {
	for range 200 {
		c, client := pair(t, Config{}, echo)
		waited := make(chan error, 1)
		go func() { waited <- wait(c, echo(c)) }()
		client.Write([]byte("last"))
		client.CloseWrite()
		if err := <-waited; err != nil {
			t.Fatalf("wait ended with %v", err)
		}
		c.CloseWrite()
		if got, err := io.ReadAll(client); string(got) != "last" || err != nil {
			t.Fatalf("echoed %q, %v", got, err)
		}
		client.Close()
		c.Close()
	}
}

func TestReadAndWriteBlockAsAnyConn(t *testing.T) {
	c, client := pair(t, Config{}, nil)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // more than the socket's buffers
	var wg sync.WaitGroup
	wg.Go(func() {
		if n, err := c.Write(big); n != len(big) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
	})
	got := make([]byte, len(big))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, big) {
		t.Fatalf("read the server's bytes: %v", err)
	}
	wg.Wait()
	wg.Go(func() { client.Write(big) })
	clear(got)
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, big) {
		t.Fatalf("read the client's bytes: %v", err)
	}
	wg.Wait()
}

func TestDeadlines(t *testing.T) {
	c, _ := pair(t, Config{}, echo)
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if err := c.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("wait: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read past the deadline: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	waited := make(chan error, 1)
	go func() { waited <- c.Wait() }()
	c.SetReadDeadline(time.Unix(1, 0))
	if err := <-waited; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("interrupted wait: %v", err)
	}
	c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("write to a client that does not read: %v", err)
	}
}

func TestCloseEndsWaitsAndWrites(t *testing.T) {
	c, _ := pair(t, Config{}, echo)
	ended := make(chan error, 2)
	go func() { ended <- c.Wait() }()
	go func() {
		_, err := c.Write(make([]byte, 64<<20))
		ended <- err
	}()
	c.Close()
	for range 2 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Fatalf("ended with %v", err)
		}
	}
	if _, err := c.TryRead(nil); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("read after close: %v", err)
	}
}

// Without this an interrupt, or a close from another goroutine, that comes while the loop serves is lost, and the goroutine
// waits for ever; or it runs beside the loop on the same connection.
func TestInterruptWhileServing(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	for _, how := range []string{"deadline", "close"} {
		t.Run(how, func(t *testing.T) {
			c, client := pair(t, Config{}, func(c *Conn) func(bool) bool {
				return func(bool) bool {
					c.TryRead(make([]byte, 16))
					entered <- struct{}{}
					<-leave
					return true
				}
			})
			waited := make(chan error, 1)
			go func() { waited <- c.Wait() }()
			for inWait := false; !inWait; { // bounded by the test's own timeout
				c.mu.Lock()
				inWait = c.read.inline
				c.mu.Unlock()
			}
			client.Write([]byte("x"))
			<-entered
			if how == "close" {
				c.Close()
			} else {
				c.SetReadDeadline(time.Unix(1, 0))
			}
			select {
			case err := <-waited:
				t.Fatalf("the goroutine ran beside the loop: %v", err)
			case <-time.After(20 * time.Millisecond): // the test can only fail too late, never wrongly
			}
			leave <- struct{}{}
			if err := <-waited; err == nil {
				t.Fatal("the interrupt was lost")
			}
		})
	}
}

// Without this a descriptor that is closed during a system call, and given to another client, gets this one's replies.
func TestManyConnectionsComeAndGo(t *testing.T) {
	loop, err := Start(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			c, err := loop.Adopt(conn.(*net.TCPConn))
			if err != nil {
				t.Error(err)
				return
			}
			c.Serve(echo(c))
			go func() {
				wait(c, echo(c))
				c.Close()
			}()
		}
	}()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for range 100 {
				client, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				exchange(t, client, string(rune('a'+worker))+"bcdefghijklmno pqrst")
				client.Close()
			}
		})
	}
	wg.Wait()
}

// Without this a client that has ended and one that is only silent look the same while nothing is read.
func TestPeer(t *testing.T) {
	c, client := pair(t, Config{}, nil)
	see := func(what string, wantClosed, wantReset bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; {
			closed, reset := c.Peer()
			if closed == wantClosed && reset == wantReset {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: closed %v, reset %v", what, closed, reset)
			}
		}
	}
	see("it is there", false, false)
	client.Write([]byte("unread"))
	see("it has said something", false, false)
	client.CloseWrite()
	see("it says no more", true, false)
	client.SetLinger(0)
	client.Close()
	see("it has reset the connection", true, true)
	c.Close()
	see("closed here", true, true)
}

// Without this a peer that does not read costs megabytes of the system's memory, which no limit of the server counts, and is noticed only
// then.
func TestThePeerThatDoesNotReadIsNoticedSoon(t *testing.T) {
	c, _ := pair(t, Config{}, nil)
	const most = 2 * unsentBytesMax // the peer's own buffer takes some
	total := 0
	for block := make([]byte, 16<<10); ; {
		n, err := c.TryWrite(block)
		if err != nil {
			t.Fatal(err)
		}
		if total += n; n < len(block) {
			break
		}
	}
	if total < unsentBytesMax/2 || total > most {
		t.Errorf("the system took %d bytes for a peer that does not read, want about %d", total, unsentBytesMax)
	}
}
