package bench

// Sockets without Go's poller. One thread waits for all connections with epoll and reads and writes them itself: a
// goroutine a connection would cost a switch and often a second thread a reply, on cores that the server needs. Sockets
// do not block, and a wait that does is cut by the runtime's own signals, so the runtime need not be told of either
// (RawSyscall); telling it costs more than the calls.

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// event is one ready descriptor, by the number that add was given.
type event struct {
	index              int
	readable, writable bool
}

type poller struct {
	fd, timerFD int
	raw         [128]unix.EpollEvent
	events      [128]event
}

const timerIndex = -1

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &poller{fd: fd, timerFD: -1}, nil
}

func (p *poller) close() {
	if p.timerFD >= 0 {
		unix.Close(p.timerFD)
	}
	unix.Close(p.fd)
}

func (p *poller) add(fd, index int) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)})
}

// wantWrite says whether an event shall come when the descriptor takes bytes again.
func (p *poller) wantWrite(fd, index int, want bool) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)}
	if want {
		event.Events |= unix.EPOLLOUT
	}
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &event)
}

// every makes an event with timerIndex come in that rhythm.
func (p *poller) every(period time.Duration) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("timer: %w", err)
	}
	p.timerFD = fd
	spec := unix.NsecToTimespec(period.Nanoseconds())
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: spec, Value: spec}, nil); err != nil {
		return fmt.Errorf("timer: %w", err)
	}
	return p.add(fd, timerIndex)
}

// wait returns what is ready, nothing after so many milliseconds.
func (p *poller) wait(millis int) ([]event, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.raw[0])), uintptr(len(p.raw)), uintptr(millis), 0, 0)
	if errno == unix.EINTR {
		return nil, nil
	}
	if errno != 0 {
		return nil, fmt.Errorf("epoll: %w", errno)
	}
	for i := range int(n) {
		raw := &p.raw[i]
		if raw.Fd == timerIndex {
			var expirations [8]byte
			readFD(p.timerFD, expirations[:])
		}
		p.events[i] = event{index: int(raw.Fd), readable: raw.Events&^unix.EPOLLOUT != 0, writable: raw.Events&unix.EPOLLOUT != 0}
	}
	return p.events[:n], nil
}

// readFD and writeFD move what can be moved at once; 0 without an error means nothing now. Reading io.EOF is -1.
func readFD(fd int, b []byte) (int, error) {
	n, err := transfer(unix.SYS_READ, fd, b)
	if n == 0 && err == nil {
		return -1, nil
	}
	return max(n, 0), err
}

func writeFD(fd int, b []byte) (int, error) {
	n, err := transfer(unix.SYS_WRITE, fd, b)
	return max(n, 0), err
}

// transfer returns -1 without an error if the call would have to wait.
func transfer(call uintptr, fd int, b []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return -1, nil
		default:
			return -1, errno
		}
	}
}

// endWrites tells the other side that nothing more comes.
func endWrites(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) }

func closeFD(fd int) { unix.Close(fd) }

// takeFD makes a descriptor of its own of a Go connection's, which may be closed then.
func takeFD(conn syscall.Conn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	controlErr := raw.Control(func(theirs uintptr) {
		fd, err = unix.FcntlInt(theirs, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil {
		err = controlErr
	}
	return fd, err
}

// relay gives a descriptor that speaks plainly what the connection, which it takes over, speaks over TLS: the loop knows descriptors only.
// Two goroutines a connection carry the bytes, so with TLS the load generator costs more than without.
func relay(conn *tls.Conn) (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		conn.Close()
		return -1, fmt.Errorf("socketpair: %w", err)
	}
	file := os.NewFile(uintptr(pair[1]), "relay")
	inner, err := net.FileConn(file)
	file.Close()
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		unix.Close(pair[0])
		conn.Close()
		return -1, err
	}
	go func() {
		io.Copy(conn, inner)
		conn.CloseWrite()
	}()
	go func() {
		io.Copy(inner, conn)
		inner.Close()
		conn.Close()
	}()
	return pair[0], nil
}
