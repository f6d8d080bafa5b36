package server

// A connection is what redcon believes to be its net.Conn, and what commands know as their Conn. Its own goroutine is
// redcon's: Read (reading.go) gives it commands, handle runs them, and their replies go to the Stream in order. What
// other goroutines may touch is said at the fields.

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"quail/commands"
	"quail/commands/acl"
	"quail/commands/resp"
	"quail/queue"
	"quail/server/guard"
	"quail/server/poll"
	"quail/server/reply"
	"quail/server/settings"
)

const (
	// encodedBytesMax is how many bytes of replies a run of commands encodes before they go to the Stream and the next
	// command may have to wait: many small commands with large replies must not pass output-buffer-bytes. It is less than
	// the buffer that the Stream lends, so that small replies do not make that grow.
	encodedBytesMax = 48 << 10

	// heldBytesMax is how many bytes of replies may wait for the disk before the connection's next commands wait too.
	heldBytesMax = 1 << 20

	// strangerOutputBytesMax is in place of output-buffer-bytes for a client that has not given its password: it has
	// nothing to ask for but HELLO and AUTH, and thousands like it must not fill the memory.
	strangerOutputBytesMax = 16 << 10

	// strangerInputBytesMax is the same in place of query-buffer-bytes while a wrong password waits for its answer.
	strangerInputBytesMax = 64 << 10
)

type connection struct {
	server  *Server
	net     net.Conn
	sock    socket   // net, if a loop serves it, else nil
	serving *serving // the loop that does
	id      int64
	remote  string
	local   string
	created time.Time
	out     *reply.Stream

	// Of the connection's own goroutine.
	in       guard.Input
	raw      []byte   // the rest of a run that redcon has not read yet
	alone    [][]byte // the command for which redcon gets standIn
	call     *commands.Call
	w        resp.Writer
	slots    []reply.Slot // the replies in w.Buf
	encoded  int          // bytes of w.Buf in slots
	eof      bool         // the client sends no more
	skipNext bool         // CLIENT REPLY SKIP: the next reply is dropped
	skipThis bool
	slow     bool                             // the run that was taken last has a command that is not prompt
	borrows  bool                             // ... and none that may keep its words
	left     left                             // what the loop took from in and left to the own goroutine
	looped   bool                             // the loop runs the commands, not the own goroutine
	unheard  bool                             // the client does not read; see awaitReader
	unread   bool                             // the socket may have input that no event will announce
	greet    func(within time.Duration) error // the handshake of TLS that is still to come
	// runningBytes is the size of a big command that runs, whose memory is not the input's any more.
	runningBytes int

	// executing is set while commands run that Read has handed out; closing ends the connection after the current one.
	executing atomic.Bool
	killed    atomic.Bool // see kill
	closing   atomic.Bool

	closeOnce sync.Once

	lastActiveMillis atomic.Int64 // unix
	lastCommand      atomic.Pointer[commands.Spec]
	queryBytes       atomic.Int64
	greeting         atomic.Bool   // greet is not done
	heldInput        atomic.Int64  // what the ledger was told of the input
	isStranger       atomic.Bool   // as of the last look at the limits
	relief           chan struct{} // has room for one: a wait for memory shall look again

	mu          sync.Mutex // guards what follows; never held during IO. The session's fields are written by the own goroutine only, which reads them unlocked
	session     session
	parked      *parked   // the reply that is owed, while a command blocks
	unparked    sync.Cond // broadcast when parked becomes nil
	reading     bool      // the own goroutine is in a read of the socket
	inputWaits  bool      // ... though commands wait already, behind one that blocks
	interrupted bool      // ... and that read was told to return
	deadline    bool      // the socket has a read deadline
}

// session is what commands set for their connection; RESET empties it.
type session struct {
	name, libName, libVersion string
	user                      *acl.User
	authenticated             bool
	mode                      commands.ReplyMode
	noEvict, noTouch          bool
	discarding                bool // a MULTI was refused
}

// socket is a connection that a loop serves: plain or with TLS.
type socket interface {
	net.Conn
	Serve(func(ending bool) bool) error
	Wait() error
	TryRead(p []byte) (int, error)
	Peer() (closed, reset bool)
}

// newConnection makes a connection of a socket; with a loop, that serves it from now on. It speaks TLS if config is not nil.
func newConnection(s *Server, conn net.Conn, config *tls.Config) *connection {
	var sock socket
	var handshake func(time.Duration) error
	serving, plain := s.adopt(conn)
	switch {
	case plain != nil && config != nil:
		secure := poll.NewSecure(plain, config)
		sock, conn, handshake = secure, secure, secure.Handshake
	case plain != nil:
		sock, conn = plain, plain
	case config != nil:
		secure := tls.Server(conn, config)
		conn, handshake = secure, func(within time.Duration) error { return shakeHands(secure, within) }
	}
	c := &connection{
		server:  s,
		net:     conn,
		sock:    sock,
		serving: serving,
		greet:   handshake,
		id:      s.nextID.Add(1),
		remote:  conn.RemoteAddr().String(),
		local:   conn.LocalAddr().String(),
		created: time.Now(),
		relief:  make(chan struct{}, 1),
	}
	c.greeting.Store(handshake != nil)
	c.unparked.L = &c.mu
	c.session = s.newSession()
	c.lastActiveMillis.Store(c.created.UnixMilli())
	c.w.Proto = 2
	c.in.EndsRun = c.endsRun
	c.in.Borrows = commands.Borrows
	c.call = c.newCall()
	c.out = reply.NewStream(reply.Config{
		Sink:         reply.NewSink(conn),
		Sender:       c.sender(),
		WriteTimeout: s.writeTimeout,
		Refusal:      refusal,
		Failed:       c.failed,
		Patient:      c.isPatient,
		Sent:         s.counters.sent,
		Held:         func(bytes int) { s.ledger.add(int64(bytes)) },
	})
	return c
}

// shakeHands is for a connection that no loop serves.
func shakeHands(conn *tls.Conn, within time.Duration) error {
	conn.SetDeadline(time.Now().Add(within))
	if err := conn.Handshake(); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	return conn.SetDeadline(time.Time{})
}

func (s *Server) newSession() session {
	return session{user: s.env.Users.Default(), authenticated: !s.RequiresAuth()}
}

func (s *Server) writeTimeout() time.Duration { return s.cfg.Settings.Duration(settings.WriteTimeout) }

func (c *connection) newCall() *commands.Call {
	return &commands.Call{W: &c.w, Conn: c, Env: c.server.env}
}

// endsRun says which commands may change what holds for those behind them: whether they run yet, or what limits apply. It notes what
// the run is made of, so that each command is looked up once on the way in.
func (c *connection) endsRun(name []byte) bool {
	flags := commands.FlagsOf(name)
	c.slow = c.slow || flags&commands.FlagPrompt == 0
	c.borrows = c.borrows && flags&commands.FlagBorrows != 0
	return flags&(commands.FlagBlocking|commands.FlagNoAuth) != 0
}

// isWord compares without regard to case; word is in capitals.
func isWord(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i := range b {
		if b[i]&^0x20 != word[i] {
			return false
		}
	}
	return true
}

// handle runs one command that redcon read.
func (c *connection) handle(args [][]byte) {
	if c.alone != nil {
		args, c.alone = c.alone, nil
	}
	if !c.looped && mayGetMuch(args[0]) {
		c.awaitReader()
	}
	if c.closing.Load() {
		return
	}
	c.skipThis, c.skipNext = c.skipNext, false
	call := c.call
	call.Reset(args)
	if c.looped {
		c.server.run(call) // prompt commands alone, which take no turn: the loop must not wait, nor look each up once more
	} else {
		c.server.runInTurn(call)
	}
	if call.IsParked() {
		c.call = c.newCall() // the parked one is still in use
		return
	}
	if c.silent() {
		c.w.Buf = c.w.Buf[:c.encoded]
		return
	}
	c.answered(call, 1)
}

// answered takes the replies of one or more calls from w, which wait for the same.
func (c *connection) answered(call *commands.Call, replies int) {
	c.hold(gateOf(call.Gate()), replies)
	if c.encoded > encodedBytesMax {
		c.commit()
		if c.looped {
			return // the loop must not wait; it looks at what is unsent after each run, and a run has at most one large reply
		}
		c.throttle() // its error comes again when the next command is taken
	}
}

// silent says that CLIENT REPLY suppresses the current reply.
func (c *connection) silent() bool {
	return c.skipThis || c.skipNext || c.session.mode == commands.ReplyOff
}

// handleTogether runs calls of which commands says that they fit together, in the words of one: as one, or one by one.
func (c *connection) handleTogether(words [][]byte) {
	if c.closing.Load() {
		return
	}
	c.call.Reset(words)
	if c.server.runTogether(c.call) {
		c.answered(c.call, commands.CallsTogether(words))
		return
	}
	one := [3][]byte{words[0], words[1]}
	for _, body := range words[2:] {
		one[2] = body
		c.handle(one[:])
	}
}

// hold makes a slot of the replies that were encoded since the last one.
func (c *connection) hold(gate reply.Gate, replies int) {
	size := len(c.w.Buf) - c.encoded
	if size == 0 {
		return
	}
	c.encoded = len(c.w.Buf)
	if n := len(c.slots); n > 0 && c.slots[n-1].Gate == gate {
		c.slots[n-1].Bytes += size
		c.slots[n-1].Replies += replies
		return
	}
	c.slots = append(c.slots, reply.Slot{Gate: gate, Bytes: size, Replies: replies})
}

// commit hands what was encoded to the Stream.
func (c *connection) commit() {
	if len(c.slots) == 0 {
		return
	}
	c.w.Buf, _ = c.out.Commit(c.w.Buf, c.slots)
	clear(c.slots)
	c.slots, c.encoded = c.slots[:0], 0
}

// throttle makes the connection wait, and with it a client that sends more, while its replies wait for the client or for
// the disk. Buffering them was rejected: a client that only sends would cost memory until it is dropped. A client that
// reads nothing for write-timeout ends the wait with an error. What is killed meanwhile is closed at once.
func (c *connection) throttle() error {
	if c.out.HasRoom(c.room()) {
		return nil
	}
	executing := c.executing.Swap(false)
	defer c.executing.Store(executing)
	if c.closing.Load() {
		return nil
	}
	return c.out.WaitRoom(c.room)
}

// room is what may wait for this client before its next commands wait too.
func (c *connection) room() reply.Room {
	room := reply.Room{UnsentBytes: strangerOutputBytesMax, HeldBytes: heldBytesMax}
	if !c.stranger() {
		room.UnsentBytes = int(c.server.cfg.Settings.Bytes(settings.OutputBuffer))
	}
	if c.server.ledger.tight.Load() {
		return tighten(room)
	}
	return room
}

// gate is a Future as package reply sees it.
type gate struct{ *queue.Future }

func (g gate) Notify(w reply.Waiter) { g.Future.Notify(w) }

// gateOf leaves out what need not be waited for.
func gateOf(f *queue.Future) reply.Gate {
	if f == nil || f.Done() && f.Err() == nil {
		return nil
	}
	return gate{f}
}

// refusal is what a client gets in place of a reply whose records may not be durable.
func refusal(dst []byte, err error) []byte {
	w := resp.Writer{Buf: dst}
	var own *queue.Error
	if errors.As(err, &own) {
		w.Error(own.Code, own.Message)
	} else {
		w.Error("WALERR", err.Error()+"; the outcome is unknown, retry with DEDUP or look at the queue first")
	}
	return w.Buf
}

// failed is called by the Stream when it cannot send. That the connection was closed from here is not worth a word.
func (c *connection) failed(err error) {
	if !errors.Is(err, net.ErrClosed) {
		event := c.server.cfg.Log.Debug()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			event = c.server.cfg.Log.Warn().Dur("write-timeout", c.server.writeTimeout())
		}
		event.Err(err).Int64("id", c.id).Str("client", c.remote).Msg("dropped a client")
	}
	c.net.Close()
}

// Close is called by redcon when Read has failed, and ends everything that the client has here.
func (c *connection) Close() error {
	c.closeOnce.Do(func() {
		c.net.Close()
		c.out.Fail(net.ErrClosed)
		c.nudge()
		c.server.ledger.add(-c.heldInput.Swap(0))
		c.abandon()
		c.server.remove(c)
		c.server.unmonitor(c)
	})
	return nil
}

// kill closes the connection from any goroutine: at once, or after the current command if one is running, which may be
// the very one that kills. A command that blocks is given up before kill returns: who was told of the kill may rely on it that no
// message goes to that client any more.
func (c *connection) kill() {
	c.killed.Store(true)
	c.closing.Store(true)
	c.nudge()
	if !c.executing.Load() {
		c.abandon()
		c.net.Close()
	}
}

// stop lets the connection end as soon as what it has received is done: the first step of a graceful stop.
func (c *connection) stop() {
	if c.greeting.Load() {
		c.net.Close() // nothing was asked yet
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parked == nil {
		c.interrupt()
	}
}

// interrupt makes a read of the socket return; the caller holds mu.
func (c *connection) interrupt() {
	if c.reading && !c.interrupted {
		c.interrupted = true
		c.net.SetReadDeadline(time.Unix(1, 0))
		c.nudge()
	}
}

// Write is called by redcon after every run, with nothing: all replies go through the Stream.
func (c *connection) Write(p []byte) (int, error) {
	if len(p) > 0 {
		return 0, errors.New("redcon answered by itself: the guard let a command pass that redcon refuses")
	}
	return 0, nil
}

// What net.Conn wants besides; redcon asks for the remote address only.

func (c *connection) LocalAddr() net.Addr                { return c.net.LocalAddr() }
func (c *connection) RemoteAddr() net.Addr               { return c.net.RemoteAddr() }
func (c *connection) SetDeadline(t time.Time) error      { return c.net.SetDeadline(t) }
func (c *connection) SetReadDeadline(t time.Time) error  { return c.net.SetReadDeadline(t) }
func (c *connection) SetWriteDeadline(t time.Time) error { return c.net.SetWriteDeadline(t) }
