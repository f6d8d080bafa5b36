//go:build !linux

package poll

import (
	"crypto/tls"
	"net"
	"time"
)

// Loop does not exist here: Start fails.
type Loop struct{}

// Conn does not exist here.
type Conn struct{ net.Conn }

// Start returns ErrUnsupported.
func Start(Config) (*Loop, error) { return nil, ErrUnsupported }

// Adopt returns ErrUnsupported.
func (*Loop) Adopt(*net.TCPConn) (*Conn, error) { return nil, ErrUnsupported }

// Close does nothing.
func (*Loop) Close() {}

// Serve returns ErrUnsupported.
func (*Conn) Serve(func(ending bool) bool) error { return ErrUnsupported }

// Wait returns ErrUnsupported.
func (*Conn) Wait() error { return ErrUnsupported }

// TryRead returns ErrUnsupported.
func (*Conn) TryRead([]byte) (int, error) { return 0, ErrUnsupported }

// Peer knows nothing.
func (*Conn) Peer() (closed, reset bool) { return false, false }

// TryWrite returns ErrUnsupported.
func (*Conn) TryWrite([]byte) (int, error) { return 0, ErrUnsupported }

// Secure does not exist here.
type Secure struct{ *Conn }

// NewSecure returns nil: there is no Conn to make it of.
func NewSecure(*Conn, *tls.Config) *Secure { return nil }

// Handshake returns ErrUnsupported.
func (*Secure) Handshake(time.Duration) error { return ErrUnsupported }
