package reply

import (
	"net"
	"syscall"
	"time"
)

// Sink takes a connection's bytes. One goroutine at a time uses it.
type Sink interface {
	// TryWrite sends as much as can be sent without waiting, maybe nothing.
	TryWrite(p []byte) (n int, err error)
	// Write sends all of p, within the timeout if that is not 0.
	Write(p []byte, timeout time.Duration) (n int, err error)
}

// NewSink sends to conn. Where conn is no plain socket (a pipe, TLS), TryWrite sends nothing.
func NewSink(conn net.Conn) Sink {
	s := &connSink{conn: conn}
	if own, ok := conn.(tryWriter); ok {
		return &trySink{connSink: s, try: own}
	}
	if plain, ok := conn.(syscall.Conn); ok {
		if raw, err := plain.SyscallConn(); err == nil {
			s.raw = raw
			s.attempt = s.try
		}
	}
	return s
}

// tryWriter is a connection that can tell when it would wait.
type tryWriter interface{ TryWrite(p []byte) (int, error) }

type trySink struct {
	*connSink
	try tryWriter
}

func (s *trySink) TryWrite(p []byte) (int, error) { return s.try.TryWrite(p) }

type connSink struct {
	conn net.Conn
	raw  syscall.RawConn // nil if a write cannot be tried

	attempt func(fd uintptr) bool // try, bound once: a closure a write would be an allocation a write
	in      []byte                // what attempt is to send
	n       int                   // what it sent
	err     error
}

func (s *connSink) TryWrite(p []byte) (int, error) {
	if s.raw == nil {
		return 0, nil
	}
	s.in, s.n, s.err = p, 0, nil
	err := s.raw.Write(s.attempt)
	s.in = nil
	if s.err != nil {
		err = s.err
	}
	return s.n, err
}

// try is one attempt, or several after interrupts; it always says that it is done, so the runtime does not wait.
func (s *connSink) try(fd uintptr) bool {
	for s.n < len(s.in) {
		n, err := syscall.Write(int(fd), s.in[s.n:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return true
		case err != nil:
			s.err = err
			return true
		}
		s.n += n
	}
	return true
}

func (s *connSink) Write(p []byte, timeout time.Duration) (int, error) {
	if timeout > 0 {
		if err := s.conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
			return 0, err
		}
		defer s.conn.SetWriteDeadline(time.Time{})
	}
	return s.conn.Write(p)
}
