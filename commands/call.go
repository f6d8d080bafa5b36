// Package commands holds what clients can say to Quail: one file a command, with its spec (data: name, arguments, flags,
// reply) and its function, and one table of them all.
//
// A command never waits. It decides at once, encodes its reply into the call's writer, and names the Future that the reply
// must wait for; the server sends replies in order as their Futures are done. Only QCONSUME and QLOCK may park their
// connection, and answer later from another goroutine.
package commands

import (
	"errors"
	"sync/atomic"
	"time"

	"quail/commands/acl"
	"quail/commands/resp"
	"quail/queue"
)

// Call is one command on its way through Run. The server fills the exported fields, and may use one Call again for the next
// command after Reset, unless the call was parked.
type Call struct {
	// Args are the command's words with its name first; never empty. Commands may keep the slices and their bytes, unless they
	// have said otherwise with FlagBorrows.
	Args [][]byte
	// W takes the reply. A parked call leaves it untouched and gets another writer later.
	W *resp.Writer
	// Conn is the connection that the command came from.
	Conn Conn
	// Env is what the command works on.
	Env *Env

	spec   *Spec
	gate   *queue.Future
	parked Parked
	failed bool // the reply that comes later is an error
}

// Reset empties the call for the next command; W, Conn and Env stay.
func (c *Call) Reset(args [][]byte) {
	c.Args = args
	c.spec = nil
	c.gate = nil
	c.parked = nil
	c.failed = false
}

// Spec is the command that Run found, or nil before Run and for an unknown one.
func (c *Call) Spec() *Spec { return c.spec }

// After holds the reply back until f is durable; nil changes nothing. Called more than once, the reply waits for all.
func (c *Call) After(f *queue.Future) {
	switch {
	case f == nil || f == c.gate:
	case c.gate == nil:
		c.gate = f
	default:
		c.gate = join(c.gate, f)
	}
}

// Gate is the Future that the reply waits for; nil means it may leave at once. The server reads it after Run.
func (c *Call) Gate() *queue.Future { return c.gate }

// Park takes the connection out of service until the reply comes through the Parked. The command writes nothing to W.
func (c *Call) Park() Parked {
	c.parked = c.Conn.Park(c)
	return c.parked
}

// IsParked reports whether the command parked its connection: its reply comes, or came, through Parked.Reply and not
// through W.
func (c *Call) IsParked() bool { return c.parked != nil }

// ReplyErr writes err as an error reply, under its own code if it is a *queue.Error and as ERR otherwise.
func (c *Call) ReplyErr(err error) { writeErr(c.W, err) }

func writeErr(w *resp.Writer, err error) {
	var refusal *queue.Error
	if errors.As(err, &refusal) {
		w.Error(refusal.Code, refusal.Message)
		return
	}
	w.Error("ERR", err.Error())
}

// Parked is a reply that is owed to a blocked connection.
type Parked interface {
	// Reply hands the reply over and lets the connection run on. It calls write at once, with a writer of the
	// connection's protocol, unless the client is gone; then it returns false and what the reply would have carried must
	// be given back. It must be called at most once, from any goroutine, and does not block.
	Reply(after *queue.Future, write func(w *resp.Writer)) (delivered bool)
	// OnCancel sets what is called, once, if the client goes away before the reply: at once if it is gone already, and
	// never after a reply.
	OnCancel(cancel func())
}

// ReplyMode says which replies of a connection are sent: CLIENT REPLY.
type ReplyMode uint8

// The reply modes. ReplySkip drops the reply of the next command only, and then is ReplyOn again.
const (
	ReplyOn ReplyMode = iota
	ReplyOff
	ReplySkip
)

// Conn is the connection of a call, as commands see it. The server implements it. Its methods are called by the
// connection's own command; only Park's result is used from elsewhere.
type Conn interface {
	// ID is unique in the life of the process and rises.
	ID() int64
	// Info is a snapshot of all that CLIENT INFO tells.
	Info() ClientInfo
	// Began says which command runs from now on, for CLIENT LIST; nil is an unknown one.
	Began(spec *Spec)
	// Name is what CLIENT SETNAME set, or empty.
	Name() string
	SetName(name string)
	// SetLibName and SetLibVersion keep what CLIENT SETINFO says of the client library.
	SetLibName(name string)
	SetLibVersion(version string)
	// Proto is the protocol version, 2 or 3. SetProto holds from the current reply on: it changes the call's writer too.
	Proto() int
	SetProto(version int)
	// Authenticated reports whether commands may run, which holds at once if the server asks for no password.
	Authenticated() bool
	// User is whom the connection acts as: "default" unless Authenticate named another.
	User() string
	// Rights are what that user may do now, or nil if the connection is not authenticated.
	Rights() *acl.Rights
	Authenticate(user *acl.User)
	// Reset puts the connection into the state of a new one: RESET.
	Reset()
	// SetReplyMode holds from the next command on; CLIENT REPLY itself writes a reply only for ReplyOn, and that is sent.
	SetReplyMode(mode ReplyMode)
	SetNoEvict(on bool)
	SetNoTouch(on bool)
	// CloseAfterReply closes the connection when the reply of the current command has left.
	CloseAfterReply()
	// Discarding says that a MULTI was refused, and so is what follows it: see multi.go. Reset ends it too.
	Discarding() bool
	SetDiscarding(on bool)
	// Monitor lets the connection see all commands, until Reset.
	Monitor()
	// Park: see Call.Park.
	Park(c *Call) Parked
}

// ClientInfo is one connection as CLIENT LIST shows it.
type ClientInfo struct {
	ID         int64
	RemoteAddr string
	LocalAddr  string
	Name       string
	User       string
	LibName    string
	LibVersion string
	Proto      int
	Created    time.Time
	// LastActive is when the last command came.
	LastActive time.Time
	// LastCommand is the full name of the last command in lower case, with a bar before a subcommand: client|list. A command
	// that asks about its own connection finds itself.
	LastCommand string
	// QueryBytes is what was read and not run yet, OutputBytes what was answered and not sent yet.
	QueryBytes  int64
	OutputBytes int64
	// OutputReplies is the number of replies that wait for their turn or for the disk.
	OutputReplies int
	// Blocked is true while QCONSUME or QLOCK waits.
	Blocked bool
	NoEvict bool
	NoTouch bool
	// Reply is the connection's CLIENT REPLY mode.
	Reply ReplyMode
}

// Server is the process around the connections, as commands see it.
type Server interface {
	// Clients lists all connections, in the order of their ids.
	Clients() []ClientInfo
	// KillClients closes every connection for which choose is true and returns how many those were. The caller's own
	// connection is closed after its current reply.
	KillClients(choose func(ClientInfo) bool) int
	// Info is what INFO tells of the process.
	Info() InfoFields
	// Tell shows a line of the protocol to all connections in MONITOR.
	Tell(line []byte)
	// Shutdown begins a graceful stop and returns at once. Without save the last checkpoint is left out; nothing is lost
	// by that, but the next start has more to replay.
	Shutdown(save bool)
}

// InfoFields is what the server knows about itself for INFO. Counters are since the start, or since CONFIG RESETSTAT.
type InfoFields struct {
	Started          time.Time
	RunID            string // 40 hexadecimal digits, another one at each start
	ProcessID        int
	TCPPort          int
	Executable       string
	ConfigFile       string
	ConnectedClients int
	BlockedClients   int
	MaxClients       int

	ConnectionsReceived uint64
	ConnectionsRejected uint64
	InputBytes          uint64
	OutputBytes         uint64

	// MemoryBytes is the live heap, MemoryPeakBytes its highest value, ResidentBytes what the process takes of the machine.
	MemoryBytes     uint64
	MemoryPeakBytes uint64
	ResidentBytes   uint64

	// ClientsBytes is what all connections hold of commands and replies, ClientsBytesMax its bound; ClientsWaiting connections wait for
	// memory, and ClientsEvicted were closed for want of it.
	ClientsBytes    int64
	ClientsBytesMax int64
	ClientsWaiting  int64
	ClientsEvicted  uint64

	// Persistence are further lines of the section Persistence: the journal, checkpoints, recovery. In order.
	Persistence [][2]string
}

// Settings are the server's settings, as CONFIG sees them.
type Settings interface {
	// Match lists name and value of each setting that a pattern matches, each once, sorted by name. A pattern is one of
	// MatchPattern's, any case.
	Match(patterns ...string) [][2]string
	// Secret reports whether there is a setting of that name, in any case, whose value nobody may see.
	Secret(name string) bool
	// Known reports whether there is a setting of that name, in any case.
	Known(name string) bool
	// Set changes all of the settings or none. A *SettingError is worded as Redis words it.
	Set(pairs [][2]string) error
	// ResetStats sets the server's own counters to zero.
	ResetStats()
}

// SettingError tells which setting CONFIG SET could not change, and why.
type SettingError struct {
	// Name is the setting as the client wrote it.
	Name string
	// Unknown says that there is no such setting, and Meant which one may have been meant, if any; otherwise Reason says in words what is
	// wrong with the value.
	Unknown bool
	Meant   string
	Reason  string
}

func (e *SettingError) Error() string {
	if e.Unknown {
		text := "Unknown option or number of arguments for CONFIG SET - '" + e.Name + "'"
		if e.Meant != "" {
			text += "; was " + e.Meant + " meant?"
		}
		return text
	}
	return "CONFIG SET failed (possibly related to argument '" + e.Name + "') - " + e.Reason
}

// Env is what all commands of a server share.
type Env struct {
	Queues   Queues
	Server   Server
	Settings Settings
	Stats    *Stats
	Users    *acl.Users
	// ACLFile is where the users are kept; nil if the setting aclfile is empty.
	ACLFile ACLFile
	// Refusals are what ACL LOG shows.
	Refusals *Refusals
	Slowlog  *Slowlog
	// Monitors is how many connections are in MONITOR.
	Monitors atomic.Int64
	// Delays are the wrong passwords that wait.
	Delays Delays
	// AuthDelay is how long a wrong password waits for its answer.
	AuthDelay func() time.Duration
	// listed is what SCAN and QLIST have made of the names of all queues, nil if neither was called.
	listed atomic.Pointer[listing]
	// BackupDir is where QBACKUP may make directories, an absolute path without a slash at the end; empty means nowhere.
	BackupDir string
	// Version is Quail's own version, such as 0.1.0.
	Version string
}
