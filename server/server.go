// Package server puts commands on the wire: listener, connections, ordered replies, limits, graceful stop.
//
// One goroutine a connection, redcon's, reads, runs commands and goes on without waiting for the disk; package guard
// decides what redcon may see, package reply sends each answer when it is durable. connection.go is where they meet. While
// such a goroutine waits for input, one of a few loops (serving.go) runs the connection's quick commands in its place.
package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/tidwall/redcon"

	"quail/commands"
	"quail/commands/acl"
	"quail/queue"
	"quail/server/metrics"
	"quail/server/reply"
	"quail/server/settings"
)

// Queues is the set of all queues as the server needs it; *queue.Set is the real one.
type Queues interface {
	commands.Queues
	// WakeAll answers null to all waiting pulls, and lets no later one wait.
	WakeAll()
}

// Rounds are Queues whose commits can gather while one goroutine serves many connections; *queue.Set is.
type Rounds interface {
	// Hold lets commits gather until the Held is released, which commits them.
	Hold() queue.Held
	// HasRoom reports whether a push would not have to wait.
	HasRoom() bool
	// Idle says that nothing has come for a moment.
	Idle()
}

// Config is what a Server works with.
type Config struct {
	Settings *settings.Values
	Queues   Queues
	// ACLFile, if not nil, is where Users are kept, and has been loaded.
	ACLFile *ACLFile
	// Users are who may come in; nil makes the default user alone, with the setting requirepass as the password.
	Users *acl.Users
	Log   zerolog.Logger
	// Version is Quail's own version, such as 0.1.0.
	Version string
	// ConfigFile is the path of the configuration file, if there is one; INFO tells it.
	ConfigFile string
	// Persistence, if not nil, gives the lines of INFO's section Persistence.
	Persistence func() [][2]string
	// Syncs, if not nil, is how long the journal's syncs took.
	Syncs func() metrics.Histogram
}

// Server is the listener and the connections of one process. The queues belong to its maker, who closes them after
// Shutdown.
type Server struct {
	cfg     Config
	env     *commands.Env
	senders *reply.Senders
	ledger  *ledger
	loops   []*serving
	runID   string
	started time.Time
	// descriptors is how many the process may have open.
	descriptors int64

	// turns has room for as many commands as may read logs at a time; see runInTurn.
	turns chan struct{}
	// lists has room for the one of them that may list all queues.
	lists chan struct{}
	// breaches has room for the few clients that are heard to the end though they broke the protocol; see breach.
	breaches chan struct{}
	// unheard has room for the one client that gets more though it has not read what it got; see awaitReader.
	unheard chan struct{}

	// run executes one command of a connection, runTogether several that fit each other; tests of the connections put their own in their place.
	run         func(*commands.Call)
	runTogether func(*commands.Call) bool

	nextID   atomic.Int64
	nextLoop atomic.Uint32
	stopping atomic.Bool
	asked    chan struct{} // closed when SHUTDOWN came
	askOnce  sync.Once

	skipCheckpoint atomic.Bool

	lastForged   atomic.Int64 // when a POST or Host: was logged last, unix milliseconds
	lastTooLarge atomic.Int64 // the same of a command over a limit

	stopped  chan struct{} // closed when no connection is left and none will come
	stopOnce sync.Once

	mu          sync.Mutex // guards listener, connections, monitors, empty; never held during IO
	listener    *listener
	secure      *listener
	connections map[int64]*connection
	monitors    map[int64]*connection // those in MONITOR
	empty       chan struct{}         // made by Shutdown, closed when the last connection went

	counters counters
}

// New makes a Server that does not listen yet.
func New(cfg Config) *Server {
	s := &Server{
		cfg:         cfg,
		senders:     reply.NewSenders(min(runtime.GOMAXPROCS(0), sendersMax)),
		ledger:      newLedger(cfg.Settings),
		runID:       newRunID(),
		started:     time.Now(),
		descriptors: descriptorLimit(),
		turns:       make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		lists:       make(chan struct{}, 1),
		breaches:    make(chan struct{}, breachesMax),
		unheard:     make(chan struct{}, 1),
		run:         commands.Run,
		runTogether: commands.RunTogether,
		asked:       make(chan struct{}),
		stopped:     make(chan struct{}),
		connections: make(map[int64]*connection),
		monitors:    make(map[int64]*connection),
	}
	s.env = &commands.Env{
		Queues:    cfg.Queues,
		Server:    admin{s},
		Settings:  cfg.Settings,
		Stats:     commands.NewStats(),
		Version:   cfg.Version,
		BackupDir: backupDir(cfg.Settings.Text(settings.BackupDir)),
		Users:     cfg.Users,
		Refusals:  new(commands.Refusals),
		Slowlog:   new(commands.Slowlog),
		AuthDelay: func() time.Duration { return cfg.Settings.Duration(settings.AuthDelay) },
	}
	if s.env.Users == nil {
		s.env.Users = commands.NewUsers()
		s.env.Users.SetPassword(cfg.Settings.Text(settings.RequirePass))
	}
	if cfg.ACLFile != nil {
		s.env.ACLFile = aclCommands{s, cfg.ACLFile}
		cfg.Settings.Try([]*settings.Setting{settings.RequirePass.Setting}, cfg.ACLFile.tryPassword)
	}
	slowlog := func() {
		s.env.Slowlog.Configure(cfg.Settings.Int(settings.SlowlogTime), cfg.Settings.Int(settings.SlowlogMax))
	}
	slowlog()
	cfg.Settings.Watch(settings.SlowlogTime.Setting, slowlog)
	cfg.Settings.Watch(settings.SlowlogMax.Setting, slowlog)
	cfg.Settings.Watch(settings.RequirePass.Setting, func() { s.env.Users.SetPassword(cfg.Settings.Text(settings.RequirePass)) })
	cfg.Settings.OnResetStats(s.counters.reset)
	s.startLoops()
	go s.keepLedger()
	return s
}

// backupDir is the setting as an absolute path: the process may have been started anywhere.
func backupDir(given string) string {
	if given == "" {
		return ""
	}
	if whole, err := filepath.Abs(given); err == nil {
		return whole
	}
	return filepath.Clean(given)
}

// sendersMax is how many goroutines write what became durable. One system call is a few microseconds, so a handful
// keeps up with any journal.
const sendersMax = 4

func newRunID() string {
	var id [20]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// Serve takes connections from ln until Shutdown, and then returns nil. It may be called once.
func (s *Server) Serve(ln net.Listener) error { return s.serve(ln, nil, &s.listener) }

// ServeTLS is Serve for connections that speak TLS, each with what config returns when it comes. It may be called once, beside Serve or
// in its place.
func (s *Server) ServeTLS(ln net.Listener, config func() *tls.Config) error {
	return s.serve(ln, config, &s.secure)
}

func (s *Server) serve(ln net.Listener, config func() *tls.Config, place **listener) error {
	s.mu.Lock()
	if *place != nil || s.stopping.Load() {
		s.mu.Unlock()
		return fmt.Errorf("serve %s: the server serves already, or was shut down", ln.Addr())
	}
	own := newListener(s, ln, config)
	*place = own
	s.mu.Unlock()
	return redcon.Serve(own, handle, accepted, nil)
}

// accepted ties redcon's connection to ours.
func accepted(c redcon.Conn) bool {
	c.SetContext(c.NetConn())
	return true
}

func handle(c redcon.Conn, cmd redcon.Command) {
	c.Context().(*connection).handle(cmd.Args)
}

// Metrics makes the HTTP server for admin-listen, and lets commands be timed from now on. Its maker serves and closes it.
func (s *Server) Metrics() *metrics.Server {
	s.env.Stats.Timing.Store(true)
	source := metrics.Source{Info: admin{s}.Info, Commands: s.env.Stats.Commands, Syncs: s.cfg.Syncs, Version: s.cfg.Version}
	if queues, ok := s.cfg.Queues.(interface {
		Gauges(most int) ([]queue.Gauge, int)
	}); ok {
		source.Queues = queues.Gauges
	}
	return metrics.New(source, s.ready)
}

// ready is nil while commands are served, and else why not.
func (s *Server) ready() error {
	if s.stopping.Load() {
		return errStopping
	}
	if err := s.cfg.Queues.Loading(); err != nil {
		return err
	}
	if s.cfg.Persistence != nil {
		for _, line := range s.cfg.Persistence() {
			if line[0] == "journal_failed" && line[1] != "0" {
				return errors.New("the journal failed: writes are refused")
			}
		}
	}
	return nil
}

// readsMuch says so of commands that read logs or list a lot.
func readsMuch(flags commands.Flags) bool {
	const which = commands.FlagReadOnly | commands.FlagPrompt | commands.FlagFast
	return flags&which == commands.FlagReadOnly
}

// runInTurn runs a command, and lets one that reads logs or lists a lot wait until few others do. Without that a hundred clients that ask for
// much, and need not even read it, stand before everybody else's command in the scheduler's queue. Commands that change something do not
// wait: a disk that is too slow for them must not stop the reading. Of those that list all queues only one at a time stands in line with the
// others: a KEYS takes a second where there are very many queues, and a look at one queue must not wait for a hundred of them.
func (s *Server) runInTurn(call *commands.Call) {
	if spec := commands.Lookup(call.Args[0]); spec != nil && readsMuch(spec.Flags) {
		began := time.Now()
		if first, _ := spec.Keys(); first == 0 {
			s.lists <- struct{}{}
			defer func() { <-s.lists }()
		}
		s.turns <- struct{}{}
		defer func() { <-s.turns }()
		if c, ok := call.Conn.(*connection); ok && c.isGone(time.Since(began)) {
			return
		}
	}
	s.run(call)
}

// Addr is where the server listens, or nil before Serve.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Done is closed when a client asked for a stop: SHUTDOWN. The owner of the process then calls Shutdown.
func (s *Server) Done() <-chan struct{} { return s.asked }

// SkipCheckpoint says, once Done is closed, that the client wanted no checkpoint: SHUTDOWN NOSAVE.
func (s *Server) SkipCheckpoint() bool { return s.skipCheckpoint.Load() }

// Shutdown stops gracefully: it takes no connection more, answers null to waiting pulls, runs the commands that were
// received, sends their replies and closes. Connections that are left when ctx ends are cut, and its error is returned;
// a command may still be running then.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping.Store(true)
	if s.empty == nil {
		s.empty = make(chan struct{})
		if len(s.connections) == 0 {
			close(s.empty)
		}
	}
	listeners, empty := []*listener{s.listener, s.secure}, s.empty
	s.mu.Unlock()
	for _, own := range listeners {
		if own != nil {
			own.stop()
		}
	}
	s.cfg.Queues.WakeAll()
	s.env.Delays.End()
	for _, c := range s.all() {
		c.stop()
	}
	var err error
	select {
	case <-empty:
	case <-ctx.Done():
		left := s.all()
		err = fmt.Errorf("shut down with %d connections cut: %w", len(left), context.Cause(ctx))
		for _, c := range left {
			c.Close()
		}
	}
	s.stopOnce.Do(func() {
		close(s.stopped)
		s.stopLoops()
		s.senders.Stop()
	})
	return err
}

// add takes a connection in, or returns why not, for the log.
func (s *Server) add(c *connection) (refusal string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	count, most := int64(len(s.connections)), s.ClientsMax()
	switch {
	case s.stopping.Load():
		return "refused a connection: the server stops"
	case count < most:
		s.connections[c.id] = c
		return ""
	case most < s.cfg.Settings.Int(settings.MaxClients):
		return "refused a connection: there are as many clients as leave file descriptors for the files, fewer than max-clients; raise ulimit -n (LimitNOFILE)"
	}
	return "refused a connection: max-clients is reached"
}

func (s *Server) remove(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.connections, c.id)
	if len(s.connections) == 0 && s.empty != nil {
		close(s.empty)
	}
}

// all lists the connections, in no order.
func (s *Server) all() []*connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*connection, 0, len(s.connections))
	for _, c := range s.connections {
		list = append(list, c)
	}
	return list
}
