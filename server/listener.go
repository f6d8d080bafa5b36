package server

// The listener that redcon accepts from. redcon tries again at once after an error of Accept, so a process without
// free descriptors would burn a core; and it cuts all connections when Accept ends, so Accept ends only when a graceful
// stop is through.

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"quail/server/settings"
)

const (
	acceptPauseMin = 5 * time.Millisecond // after the first error
	acceptPauseMax = time.Second          // doubling up to this

	// refusalTimeout bounds the write of the refusal to a client too many: it must not hold up Accept.
	refusalTimeout = 100 * time.Millisecond

	// refusalLogEvery is how often refused clients are logged at most; a crowd that retries must not fill the log.
	refusalLogEvery = time.Second
)

type listener struct {
	net.Listener
	server *Server
	config func() *tls.Config // what a new connection speaks TLS with; nil for plain ones

	closing  chan struct{}
	stopOnce sync.Once

	lastRefusal time.Time // by Accept's goroutine only
}

func newListener(s *Server, ln net.Listener, config func() *tls.Config) *listener {
	return &listener{Listener: ln, server: s, config: config, closing: make(chan struct{})}
}

// Accept gives the next connection that may stay. It fails only after Shutdown, with net.ErrClosed.
func (l *listener) Accept() (net.Conn, error) {
	pause := acceptPauseMin
	for {
		conn, err := l.Listener.Accept()
		switch {
		case err == nil:
			pause = acceptPauseMin
			if c := l.admit(conn); c != nil {
				return c, nil
			}
		case l.isStopping():
			<-l.server.stopped
			return nil, net.ErrClosed
		case errors.Is(err, net.ErrClosed):
			l.server.cfg.Log.Error().Err(err).Msg("the listener was closed from outside; no new connections")
			<-l.closing
		default:
			l.server.cfg.Log.Error().Err(err).Dur("pause", pause).Msg("cannot accept a connection")
			l.pause(pause)
			pause = min(2*pause, acceptPauseMax)
		}
	}
}

func (l *listener) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.closing:
	}
}

// stop closes the door; who is inside stays.
func (l *listener) stop() {
	l.stopOnce.Do(func() {
		close(l.closing)
		l.Listener.Close()
	})
}

// Close is called by redcon when Accept has failed; there is nothing left to close then.
func (l *listener) Close() error {
	l.stop()
	return nil
}

func (l *listener) isStopping() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}

// admit makes a connection, or refuses it.
func (l *listener) admit(conn net.Conn) *connection {
	s := l.server
	s.counters.received.Add(1)
	if tcp, ok := conn.(*net.TCPConn); ok {
		interval := s.cfg.Settings.Duration(settings.TCPKeepAlive)
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: interval > 0, Idle: interval, Interval: interval / 3, Count: 3})
	}
	var config *tls.Config
	if l.config != nil {
		config = l.config()
	}
	if s.isProtectedFrom(conn) {
		l.refuse(conn, config, protectedRefusal, "refused a connection from another machine: protected-mode is on and the user default needs no password; set requirepass")
		return nil
	}
	c := newConnection(s, conn, config)
	refusal := s.add(c)
	if refusal == "" {
		if c.sock == nil {
			return c
		}
		err := c.sock.Serve(c.serve)
		if err == nil {
			return c
		}
		s.cfg.Log.Error().Err(err).Str("client", c.remote).Msg("cannot serve a connection")
		c.Close()
		return nil
	}
	l.refuse(c.net, config, "-ERR max number of clients reached\r\n", refusal)
	return nil
}

// refuse closes a connection with a last word, which a client that expects TLS does not get: a handshake for the sake of one
// sentence would be what the limit is against.
func (l *listener) refuse(conn net.Conn, config *tls.Config, word, why string) {
	l.server.counters.rejected.Add(1)
	if now := time.Now(); now.Sub(l.lastRefusal) > refusalLogEvery {
		l.lastRefusal = now
		l.server.cfg.Log.Warn().Stringer("client", conn.RemoteAddr()).Int64("limit", l.server.ClientsMax()).Msg(why)
	}
	if config == nil {
		conn.SetWriteDeadline(time.Now().Add(refusalTimeout))
		conn.Write([]byte(word))
	}
	conn.Close()
}

// protectedRefusal is one line, as every error of the protocol.
const protectedRefusal = "-DENIED Quail is in protected mode: the user default needs no password, so only clients of its own machine are served. " +
	"To serve others, do one of these: 1) set a password, with CONFIG SET requirepass from that machine, and with the setting requirepass " +
	"(--requirepass, QUAIL_REQUIREPASS) for later starts; 2) give the server an aclfile in which the user default is off or has a password; " +
	"3) if nobody but your own machines can reach this address, turn the protection off with the setting protected-mode no.\r\n"

// isProtectedFrom says so of a client of another machine while anyone may do anything.
func (s *Server) isProtectedFrom(conn net.Conn) bool {
	if !s.cfg.Settings.Bool(settings.ProtectedMode) || s.RequiresAuth() {
		return false
	}
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}
