package poll

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// eventsMax is how many ready sockets one round serves. More wait for the next round, which follows at once.
const eventsMax = 256

// unsentBytesMax is how much the system keeps of what a peer has no room for. By itself it keeps megabytes, memory that nobody counts, and
// whoever writes notices as much later that the peer does not read. It is more than a quick peer takes before the writer comes back.
const unsentBytesMax = 256 << 10

// Loop is one epoll instance and the goroutine that waits for it. It is safe for concurrent use.
type Loop struct {
	cfg  Config
	fd   int // of epoll
	wake int // an eventfd: ends the wait in Close

	mu     sync.Mutex      // guards conns; never held during IO
	conns  map[int32]*Conn // by descriptor
	closed atomic.Bool
	done   chan struct{}
}

// Start makes a Loop and its goroutine. Errors: those of the system, such as too many open files.
func Start(cfg Config) (*Loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll instance: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	l := &Loop{cfg: cfg, fd: fd, wake: wake, conns: make(map[int32]*Conn), done: make(chan struct{})}
	if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}); err != nil {
		unix.Close(wake)
		unix.Close(fd)
		return nil, fmt.Errorf("watch eventfd: %w", err)
	}
	go l.run()
	return l, nil
}

// Adopt takes a socket over from Go's poller: conn is closed, its socket is not. After an error conn is as it was.
func (l *Loop) Adopt(conn *net.TCPConn) (*Conn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("adopt %s: %w", conn.RemoteAddr(), err)
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err == nil {
		err = dupErr
	}
	if err != nil || dupErr != nil {
		return nil, fmt.Errorf("adopt %s: %w", conn.RemoteAddr(), errors.Join(err, dupErr))
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytesMax) // without it all is as it was, and costs memory
	c := newConn(fd, conn.LocalAddr(), conn.RemoteAddr())
	c.loop = l
	conn.Close() // the socket has a second descriptor by now
	return c, nil
}

// watch makes the loop deliver c's events from now on.
func (l *Loop) watch(c *Conn) error {
	l.mu.Lock()
	l.conns[int32(c.fd)] = c
	l.mu.Unlock()
	// Edge triggered, both ways, for the socket's whole life: no other system call to the epoll instance is ever needed.
	events := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(c.fd)}
	if err := unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, c.fd, &events); err != nil {
		l.forget(c)
		return fmt.Errorf("watch %s: %w", c.remote, err)
	}
	return nil
}

func (l *Loop) forget(c *Conn) {
	l.mu.Lock()
	if l.conns[int32(c.fd)] == c {
		delete(l.conns, int32(c.fd))
	}
	l.mu.Unlock()
}

func (l *Loop) find(fd int32) *Conn {
	l.mu.Lock()
	c := l.conns[fd]
	l.mu.Unlock()
	return c
}

func (l *Loop) run() {
	defer close(l.done)
	events := make([]unix.EpollEvent, eventsMax)
	idle := true
	for {
		n, err := l.wait(events, idle)
		switch {
		case err != nil:
			panic("epoll_wait failed: " + err.Error()) // only a closed or wrong descriptor can cause it
		case l.closed.Load():
			return
		case n == 0:
			idle = true
			if l.cfg.Idle != nil {
				l.cfg.Idle()
			}
			continue
		}
		idle = false
		l.round(events[:n])
	}
}

// wait asks without waiting first: under load something is ready, and a system call that does not wait spares the Go scheduler a
// hand-over of the processor.
func (l *Loop) wait(events []unix.EpollEvent, idle bool) (int, error) {
	for timeout := 0; ; {
		n, err := unix.EpollWait(l.fd, events, timeout)
		switch {
		case err == unix.EINTR:
		case err != nil || n > 0:
			return n, err
		case timeout > 0:
			return 0, nil
		case idle || l.cfg.Idle == nil:
			timeout = -1
		default:
			timeout = max(1, int(l.cfg.IdleAfter/time.Millisecond))
		}
	}
}

func (l *Loop) round(events []unix.EpollEvent) {
	if l.cfg.Begin != nil {
		l.cfg.Begin()
	}
	for i := range events {
		if c := l.find(events[i].Fd); c != nil {
			c.event(events[i].Events)
		}
	}
	if l.cfg.End != nil {
		l.cfg.End()
	}
}

// Close ends the goroutine. Its connections must be closed already.
func (l *Loop) Close() {
	if l.closed.Swap(true) {
		return
	}
	one := [8]byte{1}
	unix.Write(l.wake, one[:])
	<-l.done
	unix.Close(l.wake)
	unix.Close(l.fd)
}

// deadlineError is what Read, Write and Wait return past their deadline: the same as any net.Conn.
var deadlineError error = os.ErrDeadlineExceeded
