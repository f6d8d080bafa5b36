package server

// A parked connection owes a reply that comes later, from another goroutine: QCONSUME and QLOCK with BLOCK. Its own
// goroutine goes on reading the socket, without running anything, so that a client that vanishes is noticed at once.

import (
	"sync"
	"time"

	"quail/commands"
	"quail/commands/resp"
	"quail/queue"
	"quail/server/reply"
)

type parked struct {
	connection *connection
	proto      int
	silent     bool // CLIENT REPLY: nobody waits for the reply
	patient    bool // the client asked to wait: BLOCK or FILL

	state  parkedState // guarded by connection.mu
	cancel func()      // guarded by connection.mu
}

type parkedState uint8

const (
	waiting  parkedState = iota
	replying             // the reply is being encoded; nothing can cancel it any more
	gone                 // the client went away first
)

// writers are lent to replies of parked connections.
var writers = sync.Pool{New: func() any { return new(resp.Writer) }}

// halfClosedWait is how long a half-closed client waits for a turn, or for a pull that it did not ask to block: it may be parked for a
// moment, until pushes before it are durable. Then it counts as gone, as a half-closed client that blocks does at once. A client that has
// ended looks the same, so not to wait at all would leave who says "no more" behind its commands without their answers.
const halfClosedWait = time.Second

// Park is called by a command in place of a reply.
func (c *connection) Park(call *commands.Call) commands.Parked {
	c.commit() // earlier replies of this run come first
	p := &parked{connection: c, proto: c.w.Proto, silent: c.silent(), patient: asksToWait(call.Args)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parked = p
	return p
}

// asksToWait looks for the words BLOCK and FILL among the options, which stand behind queue and consumer.
func asksToWait(args [][]byte) bool {
	for _, arg := range args[min(len(args), 3):] {
		if isWord(arg, "BLOCK") || isWord(arg, "FILL") {
			return true
		}
	}
	return false
}

// awaitReply waits for the reply of a parked command whose client has closed its side. False: it counts as gone.
func (c *connection) awaitReply() bool {
	timer := time.AfterFunc(halfClosedWait, c.abandon)
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.parked
	if p != nil && p.patient && p.state == waiting {
		return false
	}
	for c.parked != nil {
		c.unparked.Wait()
	}
	return p == nil || p.state != gone
}

// isPatient reports whether the client waits in a command that it asked to block, and so not for the replies before that.
func (c *connection) isPatient() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.parked != nil && c.parked.patient && c.parked.state == waiting
}

// isGone reports whether nobody is there any more to read the answer to a command that has waited so long for its turn: killed, reset, or
// half-closed for that time. Nothing that the client has sent behind it runs then.
func (c *connection) isGone(waited time.Duration) bool {
	if c.closing.Load() {
		return true
	}
	if c.sock == nil {
		return false
	}
	if closed, reset := c.sock.Peer(); reset || closed && waited >= halfClosedWait {
		c.closing.Store(true)
		return true
	}
	return false
}

func (c *connection) blocked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.parked != nil
}

// Reply implements commands.Parked.
func (p *parked) Reply(after *queue.Future, write func(w *resp.Writer)) (delivered bool) {
	c := p.connection
	c.mu.Lock()
	if p.state != waiting {
		c.mu.Unlock()
		return false
	}
	p.state, p.cancel = replying, nil
	c.mu.Unlock()

	delivered = p.send(after, write)
	c.unpark()
	if !c.executing.Load() { // otherwise the own goroutine flushes before it reads
		c.out.FlushLater()
	}
	return delivered
}

func (p *parked) send(after *queue.Future, write func(w *resp.Writer)) bool {
	w := writers.Get().(*resp.Writer)
	defer writers.Put(w)
	w.Proto, w.Buf = p.proto, w.Buf[:0]
	write(w)
	if p.silent || len(w.Buf) == 0 {
		w.Buf = w.Buf[:0]
		return true
	}
	slots := [1]reply.Slot{{Gate: gateOf(after), Bytes: len(w.Buf), Replies: 1}}
	buf, err := p.connection.out.Commit(w.Buf, slots[:])
	w.Buf = buf
	return err == nil
}

// unpark lets the connection run on: its goroutine may be in a read, behind which commands wait, or a stop.
func (c *connection) unpark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parked = nil
	c.unparked.Broadcast()
	if !c.reading || c.interrupted {
		return
	}
	if c.inputWaits || c.server.stopping.Load() {
		c.interrupt()
		return
	}
	c.armIdle()
}

// OnCancel implements commands.Parked.
func (p *parked) OnCancel(cancel func()) {
	c := p.connection
	c.mu.Lock()
	if p.state == waiting {
		p.cancel = cancel
	}
	now := p.state == gone
	c.mu.Unlock()
	if now {
		cancel()
	}
}

// abandon gives up what a vanished client waits for.
func (c *connection) abandon() {
	c.mu.Lock()
	var cancel func()
	if p := c.parked; p != nil && p.state == waiting {
		p.state = gone
		cancel, p.cancel = p.cancel, nil
		c.parked = nil
		c.unparked.Broadcast()
	}
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}
