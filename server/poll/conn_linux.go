package poll

import (
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a socket that a Loop watches. It is a net.Conn; one goroutine at a time may read, and one may write.
type Conn struct {
	loop          *Loop
	fd            int
	local, remote net.Addr
	// serve handles input on the Loop's goroutine; see Serve. Set before the Conn is watched, or never.
	serve func(ending bool) bool

	mu       sync.Mutex // guards what follows; never held during IO
	uses     int        // system calls under way
	closed   bool
	released bool // the descriptor is closed
	serving  bool // the Loop is in serve
	read     side
	write    side
}

// side is one direction of a socket.
type side struct {
	ready   bool // an edge came that nobody has looked at
	waiting bool // the goroutine of this direction waits in turn
	inline  bool // ... and the Loop may serve in its place
	over    bool // the deadline has passed
	turn    chan struct{}
	timer   *time.Timer
}

func newConn(fd int, local, remote net.Addr) *Conn {
	c := &Conn{fd: fd, local: local, remote: remote}
	c.read.turn = make(chan struct{}, 1)
	c.write.turn = make(chan struct{}, 1)
	return c
}

// Serve begins to watch the socket. serve is called on the Loop's goroutine when there may be input while the connection's own
// goroutine is in Wait, which it must not return to before: the two never run at once. It reads with TryRead and returns true when the
// socket gave no more; false wakes the own goroutine. A read for less than there was room shows that there is no more, unless the
// stream is ending: no other event announces its end. Errors: those of the system.
func (c *Conn) Serve(serve func(ending bool) bool) error {
	c.serve = serve
	return c.loop.watch(c)
}

// event is called by the Loop.
func (c *Conn) event(events uint32) {
	const input = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	const output = unix.EPOLLOUT | unix.EPOLLHUP | unix.EPOLLERR
	c.mu.Lock()
	if events&output != 0 {
		c.write.ready = true
		c.write.wake()
	}
	if events&input == 0 {
		c.mu.Unlock()
		return
	}
	if !c.read.inline || c.serve == nil {
		c.read.ready = true
		c.read.wake()
		c.mu.Unlock()
		return
	}
	c.serving = true
	c.mu.Unlock()
	all := c.serve(events&^(unix.EPOLLIN|unix.EPOLLOUT) != 0)
	c.mu.Lock()
	c.serving = false
	if !all || c.read.over || c.closed {
		c.read.ready = true
		c.read.wake()
	}
	c.mu.Unlock()
}

// wake lets the waiting goroutine go on. Called with mu held.
func (s *side) wake() {
	if s.waiting {
		s.waiting, s.inline = false, false
		s.turn <- struct{}{} // there is room: it was empty while somebody waited
	}
}

// Wait returns when there is something to do that serve did not do: input, the end of the stream, or what serve left (nil; TryRead tells
// which), the deadline, or Close.
func (c *Conn) Wait() error {
	c.mu.Lock()
	if err := c.read.refusal(c.closed); err != nil || c.read.ready {
		c.read.ready = false
		c.mu.Unlock()
		return err
	}
	c.read.waiting, c.read.inline = true, true
	c.mu.Unlock()
	<-c.read.turn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read.ready = false
	return c.read.refusal(c.closed)
}

func (s *side) refusal(closed bool) error {
	switch {
	case closed:
		return net.ErrClosed
	case s.over:
		return deadlineError
	}
	return nil
}

// TryRead reads what is there. Without any it returns 0 and no error; at the end of the stream io.EOF.
func (c *Conn) TryRead(p []byte) (int, error) {
	if !c.use() {
		return 0, net.ErrClosed
	}
	defer c.unuse()
	for {
		n, err := unix.Read(c.fd, p)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return 0, nil
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// TryWrite sends as much of p as the socket takes now, maybe nothing.
func (c *Conn) TryWrite(p []byte) (sent int, err error) {
	if !c.use() {
		return 0, net.ErrClosed
	}
	defer c.unuse()
	for sent < len(p) {
		n, err := unix.Write(c.fd, p[sent:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return sent, nil
		case err != nil:
			return sent, err
		default:
			sent += n
		}
	}
	return sent, nil
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if err := c.expect(&c.read); err != nil {
			return 0, err
		}
		n, err := c.TryRead(p)
		if n > 0 || err != nil {
			return n, err
		}
		if err := c.await(&c.read); err != nil {
			return 0, err
		}
	}
}

// Write implements net.Conn: it sends all of p.
func (c *Conn) Write(p []byte) (sent int, err error) {
	for {
		if err := c.expect(&c.write); err != nil {
			return sent, err
		}
		n, err := c.TryWrite(p[sent:])
		sent += n
		if err != nil || sent == len(p) {
			return sent, err
		}
		if err := c.await(&c.write); err != nil {
			return sent, err
		}
	}
}

// expect forgets the edges so far, before an attempt that would find what they announced.
func (c *Conn) expect(s *side) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.ready = false
	return s.refusal(c.closed)
}

// await waits for an edge that came since expect.
func (c *Conn) await(s *side) error {
	c.mu.Lock()
	if err := s.refusal(c.closed); err != nil || s.ready {
		c.mu.Unlock()
		return err
	}
	s.waiting = true
	c.mu.Unlock()
	<-s.turn
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.refusal(c.closed)
}

// use keeps the descriptor from being closed, and given to another socket, during a system call.
func (c *Conn) use() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.uses++
	return true
}

func (c *Conn) unuse() {
	c.mu.Lock()
	c.uses--
	release := c.releasable()
	c.mu.Unlock()
	if release {
		unix.Close(c.fd)
	}
}

// releasable says, once, that nobody uses the descriptor of a closed Conn any more. Called with mu held.
func (c *Conn) releasable() bool {
	if !c.closed || c.uses > 0 || c.released {
		return false
	}
	c.released = true
	return true
}

// Close implements net.Conn. Reads, writes and waits under way return net.ErrClosed.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	for _, s := range []*side{&c.read, &c.write} {
		s.stopTimer()
		if s == &c.write || !c.serving {
			s.wake()
		}
	}
	release := c.releasable()
	c.mu.Unlock()
	c.loop.forget(c)
	if release {
		return unix.Close(c.fd)
	}
	return nil
}

// CloseWrite tells the peer that nothing more will be sent.
func (c *Conn) CloseWrite() error {
	if !c.use() {
		return net.ErrClosed
	}
	defer c.unuse()
	return unix.Shutdown(c.fd, unix.SHUT_WR)
}

// Peer tells, without reading, what the other end did: closed its side, as a program does that has ended or that asks for nothing more, or
// reset the connection. A Conn that is closed counts as reset.
func (c *Conn) Peer() (closed, reset bool) {
	if !c.use() {
		return true, true
	}
	defer c.unuse()
	fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLRDHUP}}
	for {
		_, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			break // no other can come of it
		}
	}
	return fds[0].Revents&unix.POLLRDHUP != 0, fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn; it holds for Wait too.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.read, t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.write, t) }

func (c *Conn) setDeadline(s *side, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	s.stopTimer()
	s.over = false
	if t.IsZero() {
		return nil
	}
	left := time.Until(t)
	if left <= 0 {
		c.expire(s)
		return nil
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if s.timer == timer { // else another deadline has taken its place
			c.expire(s)
		}
	})
	s.timer = timer
	return nil
}

// expire ends the wait of that direction. Called with mu held.
func (c *Conn) expire(s *side) {
	s.over = true
	if s == &c.write || !c.serving { // else event looks when serve is done
		s.wake()
	}
}

func (s *side) stopTimer() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}
