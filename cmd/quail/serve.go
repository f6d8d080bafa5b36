package main

// quail serve: settings → data directory → queues → server, and back in the reverse order when it is asked to stop.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rs/zerolog"

	"quail/commands"
	"quail/commands/acl"
	"quail/queue"
	"quail/queue/machine"
	"quail/server"
	"quail/server/settings"
	"quail/wal"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

type serveCmd struct {
	kong.Plugins
	flags *settings.Flags
}

func newServe() serveCmd {
	flags := settings.NewFlags()
	return serveCmd{Plugins: kong.Plugins{flags.Struct()}, flags: flags}
}

func (c *serveCmd) run(p *process) int {
	tuneCollector()
	began := time.Now()
	values, err := settings.New(c.flags.Given())
	if err != nil {
		fmt.Fprintf(p.stderr, "quail: %v\nRun \"quail serve --help\" for what can be set, and how.\n", err)
		return exitUsage
	}
	log := newLog(values, p.stderr)
	for _, name := range settings.UnknownEnv(os.Environ()) {
		line := log.Warn().Str("variable", name[0])
		if name[1] != "" {
			line.Str("meant", name[1])
		}
		line.Msg("this environment variable looks like a setting and is none; quail serve --help lists them")
	}

	// The signals are caught before anything is opened, so that a stop during a long recovery is not lost.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	// The address comes first: a taken port is found before a long recovery, and leaves no data directory behind.
	listener, err := listenPlain(values)
	if err != nil {
		log.Error().Err(err).Str("next", adviceListen(values.Text(settings.Listen), err)).Msg("cannot listen")
		return exitFailed
	}
	users, aclFile, err := openUsers(values, log)
	if err != nil {
		closeAll(listener)
		log.Error().Err(err).Str("next", "see \"The ACL file\" in docs/security.md; nothing was changed").Msg("cannot load the ACL file")
		return exitFailed
	}
	secure, certificates, err := listenTLS(values, log)
	if err != nil {
		closeAll(listener)
		log.Error().Err(err).Str("next", "check tls-port, tls-cert-file, tls-key-file, tls-ca-cert-file and tls-auth-clients; see docs/tls.md").Msg("cannot listen for TLS")
		return exitFailed
	}
	adminListener, err := listenAdmin(values)
	if err != nil {
		closeAll(listener, secure)
		log.Error().Err(err).Str("next", "check admin-listen: the address for /metrics, with a port of its own").Msg("cannot listen for metrics")
		return exitFailed
	}
	first := listener
	if first == nil {
		first = secure
	}
	directory := absolute(values.Text(settings.Data))
	start := &start{directory: directory, address: first.Addr(), began: began,
		opened: make(chan openReport, 1), loads: make(chan queue.LoadReport, 1), unloadable: make(chan error, 1)}
	queues := queue.New(queueConfig(values, directory, log, start))
	srv := server.New(server.Config{Settings: values, Queues: queues, Users: users, ACLFile: aclFile, Log: log, Version: version, ConfigFile: p.configFile, Persistence: persistence(queues), Syncs: syncs(queues)})
	warnIfCrowded(log, values, srv)
	warnIfNoBackups(log, values)
	warnIfUnused(log, values, os.Getenv("QUAIL_PASSWORD"))
	served, ended := make(chan error, 2), make(chan struct{})
	defer close(ended)
	if listener != nil {
		go func() { served <- srv.Serve(listener) }()
	}
	if secure != nil {
		go func() { served <- srv.ServeTLS(secure, certificates.Config) }()
		go certificates.Watch(server.CertificatesEvery, ended)
		go reloadOnHangup(certificates, ended)
		log.Info().Stringer("address", secure.Addr()).Msg("listening for TLS")
	}
	if adminListener != nil {
		page := srv.Metrics()
		go func() {
			if err := page.Serve(adminListener); err != nil {
				log.Error().Err(err).Msg("no metrics any more")
			}
		}()
		defer page.Close()
		log.Info().Stringer("address", adminListener.Addr()).Msg("metrics over HTTP")
		if !adminListener.Addr().(*net.TCPAddr).IP.IsLoopback() {
			log.Warn().Stringer("address", adminListener.Addr()).Msg("anyone who can reach this address sees the metrics and the names of the queues: nobody is asked for a password there")
		}
	}
	go start.open(queues)
	go giveBackAtRest(queues, ended)
	warnIfOpen(log, values, users, start.address)
	return wait(srv, queues, values, log, signals, served, start)
}

// start is the opening of the data directory, beside the connections: until it has ended they get LOADING.
type start struct {
	directory  string
	address    net.Addr
	began      time.Time
	opened     chan openReport
	loads      chan queue.LoadReport // of all queues
	unloadable chan error            // why a queue cannot be loaded
}

type openReport struct {
	queue.Report
	err error
}

func (s *start) open(queues *queue.Set) {
	report, err := queues.Open()
	s.opened <- openReport{report, err}
}

// loaded passes on the end of loading, without waiting.
func (s *start) loaded(r queue.LoadReport) {
	if r.Err != nil {
		select {
		case s.unloadable <- r.Err:
		default: // the first is enough to stop
		}
		return
	}
	select {
	case s.loads <- r:
	default: // the store is opened again and again: one line less
	}
}

// lazyDelay is how long a queue with little to write behind may keep it in memory. Ten times as long as the writer's rounds: a tenth
// of the appends is left.
const lazyDelay = 5 * time.Second

// listen takes an IPv4 address at its word: by itself Go opens 0.0.0.0 for IPv6 too, where no firewall rule may expect it.
func listen(address string) (net.Listener, error) {
	network := "tcp"
	if host, _, err := net.SplitHostPort(address); err == nil && net.ParseIP(host).To4() != nil {
		network = "tcp4"
	}
	return net.Listen(network, address)
}

// openUsers makes the users: those of the ACL file if there is one, else the default user alone.
func openUsers(values *settings.Values, log zerolog.Logger) (*acl.Users, *server.ACLFile, error) {
	users := commands.NewUsers()
	password := func() string { return values.Text(settings.RequirePass) }
	path := values.Text(settings.ACLFileName)
	if path == "" {
		users.SetPassword(password())
		return users, nil, nil
	}
	file := server.NewACLFile(vfs.OS, absolute(path), users, password)
	_, checked, err := file.Load()
	if err == nil && !checked {
		log.Warn().Str("file", path).Msg("the ACL file has no checksum, so damage to it would not be noticed; ACL SAVE writes one")
	}
	if err == nil && password() != "" && file.HasDefault() {
		log.Warn().Str("file", path).Msg("requirepass is not used: the ACL file says what the user default may do, and with which password")
	}
	return users, file, err
}

// listenPlain opens listen; nil with tls-only. Not even for a moment then: a client that came in it would send its password in the clear.
func listenPlain(values *settings.Values) (net.Listener, error) {
	if values.Bool(settings.TLSOnly) {
		return nil, nil
	}
	return listen(values.Text(settings.Listen))
}

// closeAll closes what was opened of them.
func closeAll(listeners ...net.Listener) {
	for _, ln := range listeners {
		if ln != nil {
			ln.Close()
		}
	}
}

// listenTLS opens tls-port, if there is one, on the host of listen.
func listenTLS(values *settings.Values, log zerolog.Logger) (net.Listener, *server.Certificates, error) {
	port := values.Int(settings.TLSPort)
	if port == 0 {
		return nil, nil, nil
	}
	certificates, err := server.NewCertificates(values, log)
	if err != nil {
		return nil, nil, err
	}
	host, _, err := net.SplitHostPort(values.Text(settings.Listen))
	if err != nil {
		return nil, nil, err
	}
	listener, err := listen(net.JoinHostPort(host, strconv.FormatInt(port, 10)))
	return listener, certificates, err
}

// listenAdmin opens admin-listen, if there is one.
func listenAdmin(values *settings.Values) (net.Listener, error) {
	address := values.Text(settings.AdminListen)
	if address == "" {
		return nil, nil
	}
	return listen(address)
}

// reloadOnHangup loads the TLS files again on SIGHUP, until ended is closed.
func reloadOnHangup(certificates *server.Certificates, ended <-chan struct{}) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-hangups:
			certificates.Reload()
		case <-ended:
			return
		}
	}
}

// absolute makes a path of the log line one that can be copied.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// queueConfig wires the settings to what the queues and their store ask for.
func queueConfig(values *settings.Values, directory string, log zerolog.Logger, start *start) queue.Config {
	return queue.Config{
		Store: wal.Config{
			FS:               vfs.OS,
			Dir:              directory,
			JournalFileBytes: values.Bytes(settings.JournalFile),
			JournalBytes:     values.Bytes(settings.Journal),
			CheckpointBytes:  values.Bytes(settings.Checkpoint),
			WriteBehindBytes: values.Bytes(settings.WriteBehind),
			LazyDelay:        lazyDelay,
			SegmentBytes:     int(values.Bytes(settings.Segment)),
			ReserveBytes:     wal.ReserveFiles * values.Bytes(settings.JournalFile),
			OpenLogs:         int(values.Int(settings.OpenLogs)),
			OpenLog:          seglog.Open,
			Events:           storeEvents(log),
		},
		Defaults:      func() *machine.Options { return values.QueueDefaults() },
		QueuesMax:     func() int { return int(values.Int(settings.MaxQueues)) },
		AutoCreate:    func() bool { return values.Bool(settings.AutoCreate) },
		PushBytesMax:  func() int64 { return values.Bytes(settings.MaxPush) },
		StoreReopened: storeReopened(log),
		Loaded:        start.loaded,
	}
}

// logReady is the one line that tells an operator that the server is up, where, and with what.
func (s *start) logReady(log zerolog.Logger, report queue.Report) {
	log.Info().Stringer("address", s.address).Str("data", s.directory).
		Int("queues", report.Queues).Uint64("replayed_records", report.Records).
		Int64("took_ms", time.Since(s.began).Milliseconds()).Str("version", version).Msg("Quail is ready")
}

// warnIfOpen: a server that the whole network may read, write and delete from is rarely meant, and neither is one that
// listens to the network and refuses it.
func warnIfOpen(log zerolog.Logger, values *settings.Values, users *acl.Users, address net.Addr) {
	tcp, ok := address.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() || !users.Default().Rights().Open() {
		return
	}
	if values.Bool(settings.ProtectedMode) {
		log.Warn().Stringer("address", address).Msg("protected-mode refuses clients of other machines, since the user default needs no password: set one with --requirepass or QUAIL_REQUIREPASS, or an aclfile")
		return
	}
	log.Warn().Stringer("address", address).Msg("ANYONE who can reach this address may push, consume and DELETE: set a password with --requirepass or QUAIL_REQUIREPASS, or an aclfile, or listen on 127.0.0.1")
}

// warnIfCrowded: CONFIG GET shows max-clients as it was set, and clients would be refused below it without anybody having been told.
func warnIfCrowded(log zerolog.Logger, values *settings.Values, srv *server.Server) {
	set, room := values.Int(settings.MaxClients), srv.ClientsMax()
	if room >= set {
		return
	}
	log.Warn().Int64("clients_max", room).Int64("max-clients", set).
		Msg("there are not file descriptors enough for max-clients, so fewer clients are let in: raise ulimit -n (LimitNOFILE), or lower max-clients")
}

// warnIfUnused: what does nothing is mostly meant to do something.
func warnIfUnused(log zerolog.Logger, values *settings.Values, clientPassword string) {
	if clientPassword != "" && values.Text(settings.RequirePass) == "" && values.Text(settings.ACLFileName) == "" {
		log.Warn().Str("meant", settings.RequirePass.Env()).Msg("QUAIL_PASSWORD is what the commands that are clients send; the server has no password")
	}
	if values.Text(settings.TLSCert) != "" && values.Int(settings.TLSPort) == 0 {
		log.Warn().Str("tls-cert-file", values.Text(settings.TLSCert)).Msg("tls-port is not set, so nothing listens for TLS, and the certificate is not used")
	}
}

// warnIfNoBackups: a mistake in a path is better found today than by the first backup. It may come later, when somebody mounts it.
func warnIfNoBackups(log zerolog.Logger, values *settings.Values) {
	directory := values.Text(settings.BackupDir)
	if directory == "" {
		return
	}
	info, err := os.Stat(directory)
	if err == nil && !info.IsDir() {
		err = errors.New("it is no directory")
	}
	if err != nil {
		log.Warn().Err(err).Str("backup-dir", absolute(directory)).Msg("there can be no backups until backup-dir is there: make it, or mount it")
	}
}

// wait ends when the server does: by a signal, by SHUTDOWN, because it cannot accept any more, or because of its data.
func wait(srv *server.Server, queues *queue.Set, values *settings.Values, log zerolog.Logger, signals <-chan os.Signal, served <-chan error, start *start) int {
	code := exitOK
	var asked time.Time               // by a signal
	var loads <-chan queue.LoadReport // once the server is ready, for the log to tell it in order
	for going := true; going; {
		going = false
		select {
		case s := <-signals:
			log.Info().Stringer("signal", s).Msg("stopping")
			asked = time.Now()
		case <-srv.Done():
			log.Info().Msg("stopping: a client sent SHUTDOWN")
		case err := <-served:
			log.Error().Err(err).Msg("stopping: no connection can be accepted any more")
			code = exitFailed
		case opened := <-start.opened:
			warnOfStrays(log, start.directory)
			if opened.err != nil {
				return start.failed(srv, queues, log, opened.err)
			}
			if opened.New {
				logNew(log, start.directory)
			}
			start.logReady(log, opened.Report)
			loads, going = start.loads, true
		case r := <-loads:
			log.Info().Int("queues", r.Queues).Int64("messages", r.Messages).Int64("took_ms", r.Duration.Milliseconds()).Msg("all queues are loaded")
			going = true
		case err := <-start.unloadable:
			return start.failed(srv, queues, log, err)
		}
	}
	stopped := make(chan int, 1)
	go func() { stopped <- stop(srv, queues, values, log) }()
	return max(code, awaitStop(stopped, signals, asked, log))
}

// failed ends a server whose data cannot be used. What it has written since its start is in the journal.
func (s *start) failed(srv *server.Server, queues *queue.Set, log zerolog.Logger, err error) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	srv.Shutdown(ctx) // nothing but refusals was sent; who is slow to read them is cut
	if closeErr := queues.Close(); closeErr != nil {
		log.Warn().Err(closeErr).Msg("the data directory did not close cleanly; the next start replays the journal")
	}
	log.Error().Err(err).Str("data", s.directory).Str("next", adviceData(s.directory, err)).Msg("cannot open the data directory")
	return exitFailed
}

// awaitStop gives the graceful stop its time, and ends the process at once if whoever asked for it asks again.
func awaitStop(stopped <-chan int, signals <-chan os.Signal, asked time.Time, log zerolog.Logger) int {
	for {
		select {
		case code := <-stopped:
			return code
		case s := <-signals:
			if time.Since(asked) < sameSignal {
				continue
			}
			log.Warn().Stringer("signal", s).Msg("stopped at once by a second signal; what was acknowledged is safe in the journal")
			return exitForced
		}
	}
}

// sameSignal is how soon behind the first a second signal is the same wish: a terminal and a supervisor, or a process and its group, are
// often told at the same time. Nobody's finger is as quick.
const sameSignal = 100 * time.Millisecond

// stop answers what is in flight, for three quarters of shutdown-timeout at most, then checkpoints and closes the data
// directory in what is left. What does not end by then is left: a stop at any instant loses nothing that was acknowledged.
func stop(srv *server.Server, queues *queue.Set, values *settings.Values, log zerolog.Logger) int {
	began, limit := time.Now(), values.Duration(settings.ShutdownTime)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	drain, cancelDrain := context.WithTimeout(ctx, limit*3/4)
	defer cancelDrain()
	if err := srv.Shutdown(drain); err != nil {
		log.Warn().Err(err).Msg("some connections did not end within shutdown-timeout and were cut")
	}
	closed := make(chan error, 1)
	go func() { closed <- queues.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			log.Error().Err(err).Msg("the data directory did not close cleanly; the next start replays the journal")
			return exitFailed
		}
	case <-ctx.Done():
		log.Warn().Msg("the last checkpoint did not end within shutdown-timeout; the next start replays the journal")
		return exitOK
	}
	log.Info().Int64("took_ms", time.Since(began).Milliseconds()).Msg("stopped")
	return exitOK
}
