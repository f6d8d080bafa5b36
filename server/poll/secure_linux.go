package poll

// TLS on a socket that a Loop serves. crypto/tls wants a net.Conn that waits; but it also takes an error that says "not now" for what it
// is, and goes on where it was when it is called again: what has come of a record stays in its buffer. So once the handshake is done the
// raw side below never waits. Writing is the other way round: crypto/tls must be rid of a record that it has sealed, so the raw side
// takes all of it, and Secure counts the record's bytes as sent only when the socket has taken the whole record.
//
//	TryWrite ─▶ tls.Conn ─▶ raw.pending ─▶ socket        TryRead ◀─ tls.Conn ◀─ raw ◀─ socket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// recordBytes is how much goes into one record.
	recordBytes = 16 << 10
	// pendingBytesMax bounds the sealed bytes that the socket has not taken. There is one record at most, and the answers to a client that
	// asks for new keys again and again; this is for the latter.
	pendingBytesMax = 64 << 10
)

// errNotNow is what the raw side says in place of waiting; crypto/tls does not take it for the end of the connection.
var errNotNow net.Error = notNow{}

type notNow struct{}

func (notNow) Error() string   { return "nothing to read now" }
func (notNow) Timeout() bool   { return true }
func (notNow) Temporary() bool { return true }

// Secure is a Conn whose peer speaks TLS. It is used as a Conn is, after Handshake.
type Secure struct {
	*Conn
	tls *tls.Conn
	raw *raw

	// sealed is how many of the bytes that were given to the last TryWrite are in a record that is on its way, and were not reported as
	// sent: the next TryWrite begins with them again. Of the goroutine that writes.
	sealed int
}

// NewSecure makes a server's side of TLS on c.
func NewSecure(c *Conn, config *tls.Config) *Secure {
	r := &raw{Conn: c}
	return &Secure{Conn: c, raw: r, tls: tls.Server(r, config)}
}

// Handshake blocks until both sides have agreed, which must be within the timeout. It comes before all reads and writes.
func (s *Secure) Handshake(timeout time.Duration) error {
	s.Conn.SetDeadline(time.Now().Add(timeout))
	if err := s.tls.HandshakeContext(context.Background()); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	s.raw.established.Store(true)
	return s.Conn.SetDeadline(time.Time{})
}

// State tells what was agreed on.
func (s *Secure) State() tls.ConnectionState { return s.tls.ConnectionState() }

// TryRead reads what is there, as Conn.TryRead. Less than there was room for means that there is no more.
func (s *Secure) TryRead(p []byte) (n int, err error) {
	s.raw.drained = false
	for n < len(p) {
		more, err := s.tls.Read(p[n:])
		n += more
		if errors.Is(err, errNotNow) {
			return n, nil
		}
		if err != nil {
			if n > 0 {
				return n, nil // the next call says it again
			}
			return 0, err
		}
	}
	return n, nil
}

// TryWrite sends as much of p as the socket takes now. What it does not report as sent must come again.
func (s *Secure) TryWrite(p []byte) (sent int, err error) {
	for {
		if empty, err := s.raw.flush(); err != nil || !empty {
			return sent, err
		}
		sent, s.sealed = sent+s.sealed, 0
		if sent >= len(p) {
			return sent, nil
		}
		piece := p[sent:min(len(p), sent+recordBytes)]
		if _, err := s.tls.Write(piece); err != nil {
			return sent, err
		}
		s.sealed = len(piece)
	}
}

// Read implements net.Conn.
func (s *Secure) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if err := s.expect(&s.read); err != nil {
			return 0, err
		}
		n, err := s.TryRead(p)
		if n > 0 || err != nil {
			return n, err
		}
		if err := s.await(&s.read); err != nil {
			return 0, err
		}
	}
}

// Write implements net.Conn: it sends all of p.
func (s *Secure) Write(p []byte) (sent int, err error) {
	for {
		if err := s.expect(&s.write); err != nil {
			return sent, err
		}
		n, err := s.TryWrite(p[sent:])
		sent += n
		if err != nil || sent == len(p) {
			return sent, err
		}
		if err := s.await(&s.write); err != nil {
			return sent, err
		}
	}
}

// CloseWrite tells the peer that nothing more will be sent.
func (s *Secure) CloseWrite() error {
	if err := s.tls.CloseWrite(); err != nil {
		return err
	}
	if _, err := s.raw.flush(); err != nil {
		return err
	}
	return s.Conn.CloseWrite()
}

// raw is what crypto/tls reads and writes.
type raw struct {
	*Conn
	established atomic.Bool
	drained     bool // the socket had less than was asked for; of the goroutine that reads

	mu      sync.Mutex // guards pending; held while the socket takes what it takes at once
	pending []byte
}

// Read does not wait once the handshake is done.
func (r *raw) Read(p []byte) (int, error) {
	if !r.established.Load() {
		return r.Conn.Read(p)
	}
	if r.drained {
		return 0, errNotNow
	}
	n, err := r.Conn.TryRead(p)
	if err != nil {
		return n, err
	}
	r.drained = n < len(p)
	if n == 0 {
		return 0, errNotNow
	}
	return n, nil
}

// Write takes all of p, and sends what the socket takes now.
func (r *raw) Write(p []byte) (int, error) {
	if !r.established.Load() {
		return r.Conn.Write(p)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	if len(r.pending) == 0 {
		var err error
		if n, err = r.Conn.TryWrite(p); err != nil {
			return n, err
		}
	}
	if len(r.pending)+len(p)-n > pendingBytesMax {
		return n, errors.New("the client asks for new keys and does not read")
	}
	r.pending = append(r.pending, p[n:]...)
	return len(p), nil
}

// flush sends what the socket takes now of what is pending, and reports whether that was all.
func (r *raw) flush() (empty bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pending) == 0 {
		return true, nil
	}
	n, err := r.Conn.TryWrite(r.pending)
	if n == len(r.pending) {
		r.pending = nil
		return true, err
	}
	r.pending = r.pending[:copy(r.pending, r.pending[n:])]
	return false, err
}
