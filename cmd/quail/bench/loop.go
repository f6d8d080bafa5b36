package bench

// The loop that all scenarios run in: it waits for connections, cuts what they read into replies, hands these to whoever
// the connection belongs to, and sends what that says. Everything happens in one goroutine.

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

const (
	waitMillis = 100              // the longest wait before a look at whether to stop
	stallTime  = 30 * time.Second // without any reply for so long, the server is taken for stuck
	closeTime  = 5 * time.Second  // for a server to end its side of a connection
)

// user is whoever a connection belongs to.
type user interface {
	// reply gets each reply that is not an error, at the time when it was there to be read. The bytes are the
	// connection's and gone afterwards.
	reply(raw []byte, now time.Duration) error
}

type loop struct {
	poller *poller
	conns  []*conn
	began  time.Time
	heard  time.Duration
	done   bool
	tick   func() error // what to do in the timer's rhythm, if there is one
}

func newLoop() (*loop, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	return &loop{poller: p, began: time.Now()}, nil
}

// close ends all connections, and returns when the server has ended them too: until then it may still run what was sent,
// and make a queue again that is deleted by now.
func (l *loop) close() {
	defer l.poller.close()
	open := 0
	for _, c := range l.conns {
		if endWrites(c.fd) != nil || len(c.out) > 0 && l.poller.wantWrite(c.fd, c.index, false) != nil {
			c.close()
			continue
		}
		open++
	}
	for end := l.now() + closeTime; open > 0 && l.now() < end; {
		events, err := l.poller.wait(waitMillis)
		if err != nil {
			break
		}
		for _, e := range events {
			if e.index != timerIndex && l.conns[e.index].ended() {
				open--
			}
		}
	}
	for _, c := range l.conns {
		c.close()
	}
}

// now is the time since the loop was made.
func (l *loop) now() time.Duration { return time.Since(l.began) }

// run goes on until somebody sets done, ctx ends, a connection fails or nothing is heard for stallTime.
func (l *loop) run(ctx context.Context) error {
	l.heard = l.now()
	for !l.done {
		if err := ctx.Err(); err != nil {
			return err
		}
		events, err := l.poller.wait(waitMillis)
		if err != nil {
			return err
		}
		// One time for all of them: they were there when the wait ended, and what the loop needs to get round to the
		// last one is not the server's.
		now := l.now()
		if now-l.heard > stallTime {
			return fmt.Errorf("no reply for %v", stallTime)
		}
		for _, e := range events {
			if err := l.handle(e, now); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *loop) handle(e event, now time.Duration) error {
	if e.index == timerIndex {
		return l.tick()
	}
	c := l.conns[e.index]
	if e.writable {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if e.readable {
		return c.receive(now)
	}
	return nil
}

// conn is one connection of the loop.
type conn struct {
	loop  *loop
	index int
	fd    int
	user  user
	in    replies
	out   []byte // what the socket did not take yet
}

// ended throws away what there is to read, and reports whether that was the end.
func (c *conn) ended() bool {
	if c.fd < 0 {
		return false
	}
	n, err := readFD(c.fd, c.in.room())
	if n >= 0 && err == nil {
		return false
	}
	c.close()
	return true
}

func (c *conn) close() {
	if c.fd >= 0 {
		closeFD(c.fd)
		c.fd = -1
	}
}

// errClosed is what a connection says that the server has ended, whatever the system calls it.
var errClosed = errors.New("the server closed the connection")

func lost(err error) error {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return errClosed
	}
	return err
}

// add makes the loop serve a connection.
func (l *loop) add(c *client) (*conn, error) {
	fd, err := c.detach()
	if err != nil {
		return nil, err
	}
	added := &conn{loop: l, index: len(l.conns), fd: fd}
	l.conns = append(l.conns, added)
	return added, l.poller.add(fd, added.index)
}

// send writes b now, and the rest of it when the socket takes more. It keeps no hold of b.
func (c *conn) send(b []byte) error {
	if len(c.out) > 0 {
		c.out = append(c.out, b...)
		return nil
	}
	n, err := writeFD(c.fd, b)
	if err != nil {
		return fmt.Errorf("send: %w", lost(err))
	}
	if n == len(b) {
		return nil
	}
	c.out = append(c.out[:0], b[n:]...)
	return c.loop.poller.wantWrite(c.fd, c.index, true)
}

// flush sends what is left.
func (c *conn) flush() error {
	n, err := writeFD(c.fd, c.out)
	if err != nil {
		return fmt.Errorf("send: %w", lost(err))
	}
	c.out = c.out[:copy(c.out, c.out[n:])]
	if len(c.out) > 0 {
		return nil
	}
	return c.loop.poller.wantWrite(c.fd, c.index, false)
}

// receive reads once and hands out the replies that are whole then. Is there more, the next wait tells.
func (c *conn) receive(now time.Duration) error {
	n, err := readFD(c.fd, c.in.room())
	if err != nil {
		return fmt.Errorf("receive: %w", lost(err))
	}
	if n < 0 {
		return errClosed
	}
	c.in.filled(n)
	c.loop.heard = now
	for {
		raw, err := c.in.next()
		if err != nil || raw == nil {
			return err
		}
		if raw[0] == '-' {
			return fmt.Errorf("the server refused: %.300s", raw[1:len(raw)-2])
		}
		if err := c.user.reply(raw, now); err != nil {
			return err
		}
	}
}
