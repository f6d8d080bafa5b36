package metrics

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// The limits of who asks. Nobody has to give a password here, so they are narrow.
const (
	connectionsMax    = 32
	requestsMax       = 4 // pages that are made at a time
	headerBytesMax    = 16 << 10
	readHeaderTimeout = 5 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
)

// Server answers /metrics, /healthz and /readyz. It knows no password and shows none, no message and no client's name; queues' names it shows.
type Server struct {
	http http.Server
	// local: only this machine can connect, so a page from elsewhere that a browser shows must not be the one that asks.
	local bool
}

// New makes a Server. Ready is nil while commands are served, and else why not.
func New(source Source, ready func() error) *Server {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{source: source})
	s := &Server{}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: requestsMax, Timeout: writeTimeout}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	s.http = http.Server{Handler: s.guard(mux), MaxHeaderBytes: headerBytesMax, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readHeaderTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout}
	return s
}

// guard refuses what a web page made a browser of this machine ask under a name that the page's owner has pointed here (DNS rebinding).
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.local && !isLocal(r.Host) {
			http.Error(w, "this address is for its own machine: ask for localhost or 127.0.0.1", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLocal reports whether a Host: names this machine in a way that no DNS decides on. A port may follow; it may be any, for tunnels.
func isLocal(given string) bool {
	host, _, err := net.SplitHostPort(given)
	if err != nil {
		host = given
		if n := len(given); n > 2 && given[0] == '[' && given[n-1] == ']' { // an IPv6 address has its brackets without a port too
			host = given[1 : n-1]
		}
	}
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// Serve answers on ln until Close.
func (s *Server) Serve(ln net.Listener) error {
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok {
		s.local = tcp.IP.IsLoopback()
	}
	if err := s.http.Serve(netutil.LimitListener(ln, connectionsMax)); err != http.ErrServerClosed {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// Close ends it; what is being answered has a moment.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
}
