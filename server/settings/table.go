package settings

// The table. One line a setting: handle, name, default, bounds, what it does. Adding a setting is adding a line here
// and reading it by its handle; everything else follows.
//
// Every bound has a reason: a minimum is where the server stops being useful, a maximum where a slip of the finger
// (bytes for milliseconds, one nought too many) would do harm.

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"quail/queue"
	"quail/queue/machine"
)

// Sizes and times that read badly as figures.
const (
	kb = int64(1) << 10
	mb = int64(1) << 20
	gb = int64(1) << 30

	hourMillis = int64(3_600_000)
	dayMillis  = 24 * hourMillis
)

// Where the server listens, who may come in and what it says.
var (
	Listen        = text("server", "listen", "127.0.0.1:6389", checkAddress, "Address and port to listen on. `0.0.0.0:6389` takes connections from other machines: set `requirepass` or `aclfile` then, or `protected-mode` refuses them.")
	Data          = text("server", "data", "./quail-data", checkNotEmpty, "Directory for everything that must survive a restart. It is made if it is missing. One process at a time.")
	RequirePass   = text("server", "requirepass", "", checkNotMask, "Password of the user `default` (AUTH). Empty means that anyone who can connect may do anything. An `aclfile` that has that user wins.", live, secret)
	ACLFileName   = text("server", "aclfile", "", nil, "File with the users, for ACL LOAD and ACL SAVE; it must be there at the start. Empty: the user `default` alone, and what ACL SETUSER makes lasts until the stop. docs/security.md explains it.")
	BackupDir     = text("server", "backup-dir", "", nil, "Directory on the server's machine that QBACKUP and `quail backup` make new directories in; they reach no other place. Empty: no backups of a running server.")
	AdminListen   = text("server", "admin-listen", "", checkAddressOrEmpty, "Address and port for HTTP: `/metrics` for Prometheus, `/healthz`, `/readyz`. Nobody is asked for a password there, and queues' names are shown, so it should be one of this machine alone, such as `127.0.0.1:6391`. Empty: none.")
	ProtectedMode = boolean("server", "protected-mode", true, "As long as the user `default` needs no password, connections from other machines are refused with a message that says what to do. The container image says `no`, since inside a container every client comes from outside.", live)
	AuthDelay     = millis("server", "auth-delay", 500, 0, 5_000, "How long the answer to a wrong password waits. Guessing takes so long a try and connection; other connections are not held up. 0 answers at once.", live)
	SlowlogTime   = integer("server", "slowlog-log-slower-than", 10_000, -1, 3_600_000_000, "microseconds", "A command that runs longer is listed in SLOWLOG. The wait for the disk is not counted. 0 lists every command, -1 none.", live)
	SlowlogMax    = integer("server", "slowlog-max-len", 128, 0, 100_000, "commands", "How many commands SLOWLOG keeps; the oldest go first.", live)
	LogLevel      = choice("server", "log-level", "info", []string{"debug", "info", "warn", "error"}, "The least important messages that are logged.", live)
	LogFormat     = choice("server", "log-format", "console", []string{"console", "json"}, "`console` for people; `json` for machines, one object a line. The container image says `json`.")
	ShutdownTime  = millis("server", "shutdown-timeout", 10_000, 0, hourMillis, "How long a graceful stop may take: answer what is in flight, then checkpoint. Past it connections are cut; nothing acknowledged is lost either way.", live)
)

// What one client may use, so that no client can use up the server.
var (
	MaxClients    = integer("connections", "max-clients", 10_000, 1, 1_000_000, "clients", "Connections at a time. One more is refused with an error. The process needs as many file descriptors, and a few hundred for its files; with fewer, fewer clients are let in.", live)
	MaxArgs       = integer("connections", "max-args", 1_048_576, 16, 16_777_216, "arguments", "Arguments of one command, so messages of one QPUSH. A client that has not given its password may send 10.", live)
	MaxBulk       = size("connections", "max-bulk-bytes", 16*mb, kb, 512*mb, "One argument of a command. Past it the connection is closed with an error, and a line in the log tells the size and the client. At least `max-push-bytes`, so that a push that is too large gets its own error. A client that has not given its password may send 16kb.", live)
	QueryBuffer   = size("connections", "query-buffer-bytes", 64*mb, 64*kb, 2*gb, "What the server holds of one connection's commands that have not run yet, a whole command included. Past it the connection is closed.", live)
	OutputBuffer  = size("connections", "output-buffer-bytes", 4*mb, 64*kb, 2*gb, "Replies that wait for one slow reader. Past it the connection's next commands wait, and if nothing is read for `write-timeout` it is closed. Pulls, and commands that read logs or list, wait a second for a client that has more than 64kb unread; those that still have then get one reply each in turn, ten a second together. One reply may be longer. So a client that sends a whole pipeline before it reads must fit the replies in here; 4mb are those of 400,000 pushes. A client that has not given its password gets 16kb.", live)
	ClientsMemory = size("connections", "maxmemory-clients", 256*mb, 2*mb, 1024*gb, "What all connections together may hold of commands that have not run and replies that were not sent. At this bound connections that hold more than 16kb wait: nothing more is read from them, and their next commands wait for room; the others go on. If that does not help for a second, or a quarter more is held, the connection that holds most is closed, a stranger first. At least twice `query-buffer-bytes`.", live)
	IdleTimeout   = millis("connections", "timeout", 0, 0, 30*dayMillis, "A connection that sends nothing for so long is closed, unless it waits in a blocking command. 0 means never.", live)
	WriteTimeout  = millis("connections", "write-timeout", 30_000, 100, dayMillis, "A connection that takes no byte of its replies for so long is closed.", live)
	TCPKeepAlive  = millis("connections", "tcp-keepalive", 300_000, 0, dayMillis, "Time between probes of a silent connection, so that a vanished machine is noticed. 0 means none. New connections follow a change.", live)
)

// TLS, with Redis's names. The files are loaded again when they change, on SIGHUP and after CONFIG SET; see docs/tls.md.
var (
	TLSPort        = integer("tls", "tls-port", 0, 0, 65_535, "as port", "Port for TLS, on the host of `listen`. 0 means none.")
	TLSOnly        = boolean("tls", "tls-only", false, "Take no plain connections: `listen` only gives the host for `tls-port`, which must be set.")
	TLSCert        = text("tls", "tls-cert-file", "", nil, "The server's certificate, PEM, with those between it and the authority behind it.", live)
	TLSKey         = text("tls", "tls-key-file", "", nil, "The certificate's private key, PEM, not encrypted.", live)
	TLSCA          = text("tls", "tls-ca-cert-file", "", nil, "Certificates of the authorities that sign clients' certificates, PEM.", live)
	TLSAuthClients = choice("tls", "tls-auth-clients", "yes", []string{"yes", "no", "optional"}, "Whether a client must show a certificate that one of `tls-ca-cert-file` has signed; `optional` checks it if there is one.", live)
	TLSProtocols   = text("tls", "tls-protocols", "TLSv1.2 TLSv1.3", checkProtocols, "The versions to speak: `TLSv1.2`, `TLSv1.3` or both. Older ones are not safe and not offered.", live)
	TLSHandshake   = millis("tls", "tls-handshake-timeout", 10_000, 100, hourMillis, "A connection whose handshake is not done within this time is closed.", live)
)

// TLSVersions reads the value of tls-protocols as the lowest and the highest version of crypto/tls.
func TLSVersions(protocols string) (low, high uint16) {
	for _, word := range strings.Fields(protocols) {
		version := uint16(tls.VersionTLS13)
		if strings.EqualFold(word, "TLSv1.2") {
			version = tls.VersionTLS12
		}
		if low == 0 || version < low {
			low = version
		}
		high = max(high, version)
	}
	return low, high
}

func checkProtocols(text string) error {
	words := strings.Fields(text)
	for _, word := range words {
		if !strings.EqualFold(word, "TLSv1.2") && !strings.EqualFold(word, "TLSv1.3") {
			words = nil
		}
	}
	if len(words) == 0 {
		return errors.New("allowed are TLSv1.2 and TLSv1.3, one or both with a space between")
	}
	return nil
}

// What all queues share.
var (
	AutoCreate = boolean("queues", "auto-create", true, "QPUSH, QLOCK and QCONSUME make a queue that is missing. With `no`, only QCREATE does.", live)
	MaxQueues  = integer("queues", "max-queues", 100_000, 1, 10_000_000, "queues", "How many queues there may be. Past it a new one is refused.", live)
	MaxPush    = size("queues", "max-push-bytes", 16*mb, kb, 256*mb, "All bodies of one push together. Past it `-TOOBIG`.", live)
)

// Journal and logs. The defaults suit one SSD; none of them changes what is promised.
var (
	JournalFile = size("disk", "journal-file-bytes", 16*mb, mb, gb, "Size of one file of the journal. Files are prepared ahead and used again.")
	Journal     = size("disk", "journal-bytes", 256*mb, 4*mb, 64*gb, "Bound of the journal, and so of what a restart must replay. When it is full, writes wait for a checkpoint.")
	Checkpoint  = size("disk", "checkpoint-bytes", 64*mb, mb, 32*gb, "A checkpoint begins after so much new journal. At most half of `journal-bytes`, so that writes go on meanwhile.")
	WriteBehind = size("disk", "write-behind-bytes", 64*mb, mb, 16*gb, "Records that are durable in the journal and not yet written to their queue's log. They are in memory; when so many wait, pushes wait.")
	Segment     = size("disk", "segment-bytes", mb, 64*kb, 64*mb, "Size of one segment file of a queue's log. Space comes back a segment at a time; a log's newest segment is also in memory.")
	OpenLogs    = integer("disk", "open-logs", 1024, 1, 100_000, "logs", "Queue logs that are kept open. More busy queues than this means opening and closing files; each that is written costs a descriptor and about 3 times its last segment in memory, but no more than 64 MB are spent on all together.")
)

// optionSettings hold the server's default of every queue option, by machine.Option: the machine's own table has a line
// for each, so none is repeated here.
var optionSettings = addOptions()

func addOptions() (added [len(machine.Specs)]*Setting) {
	for o, spec := range machine.Specs {
		s := Setting{Group: "defaults", Name: "default-" + spec.Name, Default: strconv.FormatInt(spec.Default, 10),
			Min: spec.Min, Max: spec.Max, Unit: spec.Unit, Doc: spec.Doc, Live: true}
		switch {
		case spec.Text:
			s.Kind, s.Default, s.check = KindText, "", checkQueueOrEmpty
		case spec.Unit == "bytes":
			s.Kind, s.Default = KindBytes, FormatBytes(spec.Default)
		case spec.Unit == "ms":
			s.Kind = KindMillis
		default:
			s.Kind = KindInt
		}
		added[o] = add(s, nil)
	}
	return added
}

// checkTogether tells which settings do not fit each other.
func checkTogether(next []value) (errs []*Error) {
	atMost := func(small, large *Setting, factor int64, why string) {
		if next[small.index].number*factor <= next[large.index].number {
			return
		}
		bound := FormatBytes(next[large.index].number / factor)
		errs = append(errs, &Error{Name: small.Name, Reason: fmt.Sprintf("got %s; allowed is at most %s while %s is %s, %s",
			FormatBytes(next[small.index].number), bound, large.Name, FormatBytes(next[large.index].number), why)})
	}
	atMost(JournalFile.Setting, Journal.Setting, 4, "since the journal needs at least 4 files")
	atMost(Checkpoint.Setting, Journal.Setting, 2, "since writes go on during a checkpoint")
	atMost(MaxPush.Setting, MaxBulk.Setting, 1, "since a push that is too large should get an error, not lose its connection")
	if next[TLSOnly.index].number != 0 && next[TLSPort.index].number == 0 {
		errs = append(errs, &Error{Name: TLSOnly.Name, Reason: "needs tls-port: without it nobody could connect"})
	}
	atMost(QueryBuffer.Setting, ClientsMemory.Setting, 2, "since one client's longest command must leave room for the others")
	atMost(MaxBulk.Setting, QueryBuffer.Setting, 1, "since a command is held whole before it runs")
	return errs
}

func checkAddress(text string) error {
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		if n, bad := strconv.Atoi(port); bad != nil || n < 0 || n > 65_535 {
			err = errors.New("port")
		}
	}
	if err != nil {
		return errors.New("allowed is host:port, such as 127.0.0.1:6389, [::1]:6389 or 0.0.0.0:6389; port 0 takes a free one")
	}
	return nil
}

func checkAddressOrEmpty(text string) error {
	if text == "" {
		return nil
	}
	return checkAddress(text)
}

func checkNotEmpty(text string) error {
	if text == "" {
		return errors.New("allowed is any path, not an empty one")
	}
	return nil
}

// checkQueueOrEmpty lets only names through that a queue can have: this one is made when it is needed, with nobody there to tell.
func checkQueueOrEmpty(text string) error {
	if text == "" || queue.ValidName([]byte(text)) == nil {
		return nil
	}
	return errors.New("allowed is a queue's name, of 1 to 200 bytes of UTF-8 without control characters or spaces, or nothing")
}

func checkNotMask(text string) error {
	if text == Masked {
		return errors.New("this is what CONFIG GET shows in place of a password, not a password")
	}
	return nil
}

// What the lines of the table are made with.

type option func(*Setting)

// live says that CONFIG SET may change the setting.
func live(s *Setting) { s.Live = true }

// secret says that the value is shown by no one.
func secret(s *Setting) { s.Secret = true }

// add puts a line into the table. Two lines of one name are a mistake of the program.
func add(s Setting, options []option) *Setting {
	for _, apply := range options {
		apply(&s)
	}
	if byName[s.Name] != nil {
		panic("settings: two lines for " + s.Name)
	}
	s.index = len(table)
	table = append(table, &s)
	byName[s.Name] = &s
	return &s
}

func integer(group, name string, initial, low, high int64, unit, doc string, options ...option) Int {
	return Int{add(Setting{Group: group, Name: name, Kind: KindInt, Default: strconv.FormatInt(initial, 10), Min: low, Max: high, Unit: unit, Doc: doc}, options)}
}

func size(group, name string, initial, low, high int64, doc string, options ...option) Bytes {
	return Bytes{add(Setting{Group: group, Name: name, Kind: KindBytes, Default: FormatBytes(initial), Min: low, Max: high, Unit: "bytes", Doc: doc}, options)}
}

func millis(group, name string, initial, low, high int64, doc string, options ...option) Millis {
	return Millis{add(Setting{Group: group, Name: name, Kind: KindMillis, Default: strconv.FormatInt(initial, 10), Min: low, Max: high, Unit: "ms", Doc: doc}, options)}
}

func boolean(group, name string, initial bool, doc string, options ...option) Bool {
	word := map[bool]string{true: "yes", false: "no"}[initial]
	return Bool{add(Setting{Group: group, Name: name, Kind: KindBool, Default: word, Doc: doc}, options)}
}

func text(group, name, initial string, check func(string) error, doc string, options ...option) Text {
	return Text{add(Setting{Group: group, Name: name, Kind: KindText, Default: initial, Doc: doc, check: check}, options)}
}

func choice(group, name, initial string, choices []string, doc string, options ...option) Text {
	return Text{add(Setting{Group: group, Name: name, Kind: KindChoice, Default: initial, Choices: choices, Doc: doc}, options)}
}
