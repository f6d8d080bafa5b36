package commands

// A world that answers as the test says, so that each reply and each error of each command can be asked for: the queues,
// the connection, the server and the settings, and a record of what the commands did with them.

import (
	"fmt"
	"strings"
	"time"

	"quail/commands/acl"
	"quail/commands/resp"
	"quail/queue"
	"quail/queue/machine"
)

// fakeQueues answers every call with what was given, and a Future that is not done.
type fakeQueues struct {
	calls  []string
	number int64
	err    error
	batch  *queue.Batch
	info   *queue.Info
	names  []string
	// later holds back the answer of Lock and Consume until the test calls it.
	hold     bool
	later    func()
	canceled int
	returned chan uint64
	future   *queue.Future
	starting error
	unloaded int
	found    []queue.Found
}

func newFakeQueues() *fakeQueues {
	return &fakeQueues{future: new(queue.Future), returned: make(chan uint64, 1)}
}

func (q *fakeQueues) Loading() error     { return q.starting }
func (q *fakeQueues) LoadingQueues() int { return q.unloaded }

func (q *fakeQueues) called(format string, args ...any) {
	q.calls = append(q.calls, fmt.Sprintf(format, args...))
}

func (q *fakeQueues) Push(name []byte, bodies [][]byte) (uint64, *queue.Future, error) {
	q.called("Push %q %q", name, bodies)
	return uint64(q.number), q.future, q.err
}

func (q *fakeQueues) PushWith(name []byte, bodies [][]byte, o queue.PushOptions) (uint64, *queue.Future, error) {
	q.called("PushWith %q %q delay=%v/%d at=%d ttl=%v/%d dedup=%q headers=%q", name, bodies, o.HasDelay, o.DelayMillis, o.AtMillis,
		o.HasTTL, o.TTLMillis, o.Dedup, o.Headers)
	return uint64(q.number), q.future, q.err
}

func (q *fakeQueues) Backup(directory string) (queue.BackupReport, error) {
	q.called("Backup %q", directory)
	return queue.BackupReport{Queues: int(q.number), Bytes: 1000, Duration: 12 * time.Millisecond}, q.err
}

func (q *fakeQueues) answer(done func()) (cancel func()) {
	if q.hold {
		q.later = done
	} else {
		done()
	}
	return func() { q.canceled++ }
}

func (q *fakeQueues) Lock(r queue.LockRequest, done func(uint64, *queue.Future, error)) func() {
	q.called("Lock queue=%q consumer=%q ttl=%d block=%v/%d", r.Queue, r.Consumer, r.TTLMillis, r.Block, r.BlockMillis)
	return q.answer(func() { done(uint64(q.number), q.future, q.err) })
}

func (q *fakeQueues) Unlock(name []byte, token uint64) (bool, *queue.Future, error) {
	q.called("Unlock %q token=%d", name, token)
	return q.number != 0, q.future, q.err
}

func (q *fakeQueues) Consume(r queue.ConsumeRequest, done func(*queue.Batch, *queue.Future, error)) func() {
	q.called("Consume queue=%q consumer=%q token=%v/%d count=%d bytes=%d fill=%d lease=%d block=%v/%d", r.Queue, r.Consumer,
		r.HasToken, r.Token, r.Count, r.Bytes, r.FillMillis, r.LeaseMillis, r.Block, r.BlockMillis)
	return q.answer(func() { done(q.batch, q.future, q.err) })
}

func (q *fakeQueues) Return(name []byte, batch uint64) { q.returned <- batch }

func (q *fakeQueues) Ack(name []byte, batch uint64, ids []uint64) (int, *queue.Future, error) {
	q.called("Ack %q batch=%d ids=%v", name, batch, ids)
	return int(q.number), q.future, q.err
}

func (q *fakeQueues) Nack(name []byte, batch uint64, mode machine.NackMode, delay int64, ids []uint64) (int, *queue.Future, error) {
	word := map[machine.NackMode]string{machine.Retry: "retry", machine.Release: "release", machine.Dead: "dead"}[mode]
	q.called("Nack %q batch=%d %s delay=%d ids=%v", name, batch, word, delay, ids)
	return int(q.number), q.future, q.err
}

func (q *fakeQueues) Extend(name []byte, batch uint64, millis int64) (int64, *queue.Future, error) {
	q.called("Extend %q batch=%d ms=%d", name, batch, millis)
	return q.number, q.future, q.err
}

func (q *fakeQueues) Len(name []byte) (int64, *queue.Future, error) {
	q.called("Len %q", name)
	return q.number, q.future, q.err
}

func (q *fakeQueues) Info(name []byte) (*queue.Info, *queue.Future, error) {
	q.called("Info %q", name)
	return q.info, q.future, q.err
}

// optionsSet shows the options that are set.
func optionsSet(o *machine.Options) (set []string) {
	for i := range machine.Specs {
		if o.IsSet(machine.Option(i)) {
			set = append(set, machine.Specs[i].Name+"="+o.Value(machine.Option(i), nil))
		}
	}
	return set
}

func (q *fakeQueues) Create(name []byte, o machine.Options) (*queue.Future, error) {
	q.called("Create %q %v", name, optionsSet(&o))
	return q.future, q.err
}

func (q *fakeQueues) Options(name []byte) ([][2]string, *queue.Future, error) {
	q.called("Options %q", name)
	return [][2]string{{"lease", "30000"}, {"lock-ttl", "5"}, {"dead-letter-queue", "orders.dead"}}, q.future, q.err
}

func (q *fakeQueues) Configure(name []byte, change machine.Options) (*queue.Future, error) {
	q.called("Configure %q %v", name, optionsSet(&change))
	return q.future, q.err
}

func (q *fakeQueues) Peek(name []byte, state machine.State, from uint64, most int, show func([]queue.Found)) (*queue.Future, error) {
	q.called("Peek %q state=%v from=%d most=%d", name, state, from, most)
	if q.err == nil {
		show(q.found)
	}
	return q.future, q.err
}

func (q *fakeQueues) Get(name []byte, id uint64) (*queue.Found, *queue.Future, error) {
	q.called("Get %q id=%d", name, id)
	if len(q.found) == 0 {
		return nil, q.future, q.err
	}
	return &q.found[0], q.future, q.err
}

func (q *fakeQueues) Remove(name []byte, ids []uint64) (int, *queue.Future, error) {
	q.called("Remove %q ids=%v", name, ids)
	return int(q.number), q.future, q.err
}

func (q *fakeQueues) Purge(name []byte, before uint64) (int64, *queue.Future, error) {
	q.called("Purge %q before=%d", name, before)
	return q.number, q.future, q.err
}

func (q *fakeQueues) Pause(name []byte, pause, push, consume bool) (*queue.Future, error) {
	q.called("Pause %q %v push=%v consume=%v", name, pause, push, consume)
	return q.future, q.err
}

func (q *fakeQueues) Redrive(name, to []byte, most int) (int, *queue.Future, error) {
	q.called("Redrive %q to=%q most=%d", name, to, most)
	return int(q.number), q.future, q.err
}

func (q *fakeQueues) Delete(name []byte) (bool, *queue.Future, error) {
	q.called("Delete %q", name)
	return q.Exists(name), q.future, q.err
}

func (q *fakeQueues) NamesAfter() *queue.Future { return q.future }
func (q *fakeQueues) Names() []string           { return q.names }
func (q *fakeQueues) NamesUnsorted() []string   { return q.names }
func (q *fakeQueues) Count() int                { return len(q.names) }

func (q *fakeQueues) Exists(name []byte) bool {
	for _, n := range q.names {
		if n == string(name) {
			return true
		}
	}
	return false
}

// fakeConn is one connection; parked replies land in its writer as the server's would.
type fakeConn struct {
	w             *resp.Writer
	info          ClientInfo
	began         *Spec
	authenticated bool
	user          *acl.User
	env           *Env
	needsPassword bool
	closing       bool
	discarding    bool
	gone          bool // the client went away while it was parked
	parked        *fakeParked
}

func newFakeConn(proto int) *fakeConn {
	return &fakeConn{
		w:             &resp.Writer{Proto: proto},
		authenticated: true,
		info: ClientInfo{ID: 7, RemoteAddr: "127.0.0.1:50001", LocalAddr: "127.0.0.1:6389", User: "default", Proto: proto,
			Created: time.Now(), LastActive: time.Now()},
	}
}

func (c *fakeConn) ID() int64              { return c.info.ID }
func (c *fakeConn) Info() ClientInfo       { return c.info }
func (c *fakeConn) Name() string           { return c.info.Name }
func (c *fakeConn) SetName(s string)       { c.info.Name = s }
func (c *fakeConn) SetLibName(s string)    { c.info.LibName = s }
func (c *fakeConn) SetLibVersion(s string) { c.info.LibVersion = s }
func (c *fakeConn) Proto() int             { return c.w.Proto }
func (c *fakeConn) SetProto(v int)         { c.w.Proto, c.info.Proto = v, v }
func (c *fakeConn) Authenticated() bool    { return c.authenticated }
func (c *fakeConn) User() string           { return c.info.User }
func (c *fakeConn) Authenticate(user *acl.User) {
	c.authenticated, c.user, c.info.User = true, user, user.Name()
}
func (c *fakeConn) Rights() *acl.Rights {
	switch {
	case !c.authenticated:
		return nil
	case c.user == nil:
		return c.env.Users.Default().Rights()
	}
	return c.user.Rights()
}
func (c *fakeConn) Began(spec *Spec)         { c.began = spec }
func (c *fakeConn) SetReplyMode(m ReplyMode) { c.info.Reply = m }
func (c *fakeConn) SetNoEvict(on bool)       { c.info.NoEvict = on }
func (c *fakeConn) SetNoTouch(on bool)       { c.info.NoTouch = on }
func (c *fakeConn) Monitor()                 { c.env.Monitors.Store(1) }
func (c *fakeConn) CloseAfterReply()         { c.closing = true }
func (c *fakeConn) Discarding() bool         { return c.discarding }
func (c *fakeConn) SetDiscarding(on bool)    { c.discarding = on }

func (c *fakeConn) Reset() {
	c.SetProto(2)
	c.info.Name, c.info.Reply, c.authenticated, c.user, c.discarding = "", ReplyOn, !c.needsPassword, nil, false
}

func (c *fakeConn) Park(*Call) Parked {
	c.parked = &fakeParked{conn: c}
	return c.parked
}

type fakeParked struct {
	conn    *fakeConn
	replied bool
	after   *queue.Future
	cancel  func()
}

func (p *fakeParked) Reply(after *queue.Future, write func(w *resp.Writer)) bool {
	if p.replied {
		panic("a parked call was answered twice")
	}
	p.replied, p.after = true, after
	if p.conn.gone {
		return false
	}
	write(p.conn.w)
	return true
}

func (p *fakeParked) OnCancel(cancel func()) { p.cancel = cancel }

// fakeServer has two other connections besides the caller's.
type fakeServer struct {
	told    []string
	conn    *fakeConn
	killed  []int64
	stopped string
}

func (s *fakeServer) Clients() []ClientInfo {
	other := ClientInfo{ID: 9, RemoteAddr: "10.0.0.2:4000", LocalAddr: "127.0.0.1:6389", User: "default", Proto: 2,
		Created: time.Now().Add(-time.Hour), LastActive: time.Now().Add(-time.Minute), LastCommand: "qconsume", Blocked: true,
		NoEvict: true, NoTouch: true, LibName: "redis-py", LibVersion: "8.1.0", OutputBytes: 12, OutputReplies: 2, QueryBytes: 30}
	return []ClientInfo{s.conn.info, other}
}

func (s *fakeServer) KillClients(choose func(ClientInfo) bool) int {
	n := 0
	for _, info := range s.Clients() {
		if choose(info) {
			n++
			s.killed = append(s.killed, info.ID)
		}
	}
	return n
}

func (s *fakeServer) Info() InfoFields {
	return InfoFields{Started: time.Now().Add(-25 * time.Hour), RunID: strings.Repeat("ab", 20), ProcessID: 42, TCPPort: 6389,
		Executable: "/usr/bin/quail", ConfigFile: "/etc/quail.yaml", ConnectedClients: 2, BlockedClients: 1, MaxClients: 10000,
		ConnectionsReceived: 5, ConnectionsRejected: 1, InputBytes: 100, OutputBytes: 200, MemoryBytes: 3 << 20,
		MemoryPeakBytes: 5 << 30, ResidentBytes: 2048, Persistence: [][2]string{{"journal_bytes", "17"}}}
}

func (s *fakeServer) Tell(line []byte)   { s.told = append(s.told, string(line)) }
func (s *fakeServer) Shutdown(save bool) { s.stopped = fmt.Sprintf("save=%v", save) }

// fakeSettings has two settings.
type fakeSettings struct {
	set   [][2]string
	err   error
	reset int
}

func (s *fakeSettings) Match(patterns ...string) [][2]string {
	var found [][2]string
	for _, pair := range [][2]string{{"log-level", "info"}, {"timeout", "0"}} {
		for _, p := range patterns {
			if MatchPattern(strings.ToLower(p), pair[0]) {
				found = append(found, pair)
				break
			}
		}
	}
	return found
}

func (s *fakeSettings) Set(pairs [][2]string) error {
	if s.err == nil {
		s.set = append(s.set, pairs...)
	}
	return s.err
}
func (s *fakeSettings) Secret(name string) bool { return strings.EqualFold(name, "requirepass") }
func (s *fakeSettings) Known(name string) bool  { return name != "unknown" }
func (s *fakeSettings) ResetStats()             { s.reset++ }

// world is all of it around one connection.
type world struct {
	queues   *fakeQueues
	conn     *fakeConn
	server   *fakeServer
	settings *fakeSettings
	env      *Env
}

func newWorld(proto int) *world {
	w := &world{queues: newFakeQueues(), conn: newFakeConn(proto), settings: &fakeSettings{}}
	w.server = &fakeServer{conn: w.conn}
	w.env = &Env{Queues: w.queues, Server: w.server, Settings: w.settings, Stats: NewStats(), Version: "0.1.0", BackupDir: "/backup",
		Users: NewUsers(), Refusals: new(Refusals), Slowlog: new(Slowlog), AuthDelay: func() time.Duration { return 0 }}
	w.conn.env = w.env
	return w
}

// run executes one command and returns its reply's bytes; gated tells whether the reply waits for the queues' Future.
func (w *world) run(args ...string) (reply string, gated bool) {
	words := make([][]byte, len(args))
	for i, a := range args {
		words[i] = []byte(a)
	}
	w.conn.w.Buf, w.conn.parked = nil, nil
	c := &Call{Args: words, W: w.conn.w, Conn: w.conn, Env: w.env}
	Run(c)
	gate := c.Gate()
	if c.IsParked() {
		gate = w.conn.parked.after
	}
	return string(w.conn.w.Buf), gate != nil
}
