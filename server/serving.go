package server

// Serving is how one goroutine runs the quick commands of many connections, in rounds: it reads each socket that has input,
// runs the commands, and when all were served it commits what the round has changed, with one sync, and writes the replies.
// A goroutine a connection was measured: its wake-ups, and groups of commits that are too small since each connection hurries
// ahead of the others, cost half of the pushes a second; see docs/benchmarks.md.
//
// Whatever could make others wait is left to the connection's own goroutine: commands that block, read the disk or list a lot,
// clients that do not read, long commands, errors, and the end.

import (
	"errors"
	"net"
	"runtime"
	"time"

	"github.com/tidwall/redcon"

	"quail/commands"
	"quail/queue"
	"quail/server/guard"
	"quail/server/poll"
	"quail/server/reply"
)

const (
	// loopsShare: one loop for so many processors. One keeps up with what one journal can sync.
	loopsShare = 4
	// idleAfter is when a loop that has nothing to do says so; the journal then marks its end.
	idleAfter = 2 * time.Millisecond
	// promptBytesMax is the largest command that a loop runs: copying more takes too long for the others.
	promptBytesMax = 1 << 20
)

// serving is one loop and what it works with.
type serving struct {
	loop   *poll.Loop
	rounds Rounds
	round  *reply.Round
	held   queue.Held

	words [][]byte // of the command that is being run
	next  [][]byte // of the one behind it, if it was looked at already
}

// left is a run of commands, or the error behind them, that was taken from the input and not run.
type left struct {
	is  bool
	run guard.Run
	err error
}

// startLoops starts the loops if there is an epoll and the queues can hold commits back. Without them every connection is
// served by its goroutine.
func (s *Server) startLoops() {
	rounds, ok := s.cfg.Queues.(Rounds)
	if !ok {
		return
	}
	for range max(1, runtime.GOMAXPROCS(0)/loopsShare) {
		v := &serving{rounds: rounds, round: reply.NewRound(s.senders)}
		loop, err := poll.Start(poll.Config{Begin: v.begin, End: v.end, Idle: rounds.Idle, IdleAfter: idleAfter})
		if err != nil {
			if !errors.Is(err, poll.ErrUnsupported) {
				s.cfg.Log.Warn().Err(err).Msg("cannot start a loop; connections are served one by one, which is slower")
			}
			return
		}
		v.loop = loop
		s.loops = append(s.loops, v)
	}
}

func (s *Server) stopLoops() {
	for _, v := range s.loops {
		v.loop.Close()
	}
}

// adopt gives a plain socket to one of the loops, in turn; nil if there is none, or it is no plain socket.
func (s *Server) adopt(conn net.Conn) (*serving, *poll.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok || len(s.loops) == 0 {
		return nil, nil
	}
	v := s.loops[int(s.nextLoop.Add(1))%len(s.loops)]
	sock, err := v.loop.Adopt(tcp)
	if err != nil {
		return nil, nil // for want of a descriptor: Go's poller needs no second one
	}
	return v, sock
}

func (v *serving) begin() {
	v.held = v.rounds.Hold()
	v.round.Open()
}

func (v *serving) end() {
	v.held.Release()
	v.round.Close()
}

// sender is who writes replies that become durable.
func (c *connection) sender() reply.Sender {
	if c.serving != nil {
		return c.serving.round
	}
	return c.server.senders
}

// serve is called by the loop when the socket may have input and the own goroutine waits for it. False leaves the rest to that.
func (c *connection) serve(ending bool) bool {
	for {
		if c.mustWait() {
			return false
		}
		space := c.in.Space()
		c.account()
		n, err := c.sock.TryRead(space)
		if err != nil {
			return false // it comes again
		}
		if n == 0 {
			c.rest()
			return true
		}
		c.filled(n)
		switch {
		case c.waitsBehind(): // it is run when the reply that is owed has come
			if c.in.Buffered() >= c.inputMax() {
				return false
			}
		case !c.serveInput():
			return false
		}
		if n < len(space) && !ending {
			c.rest()
			return true
		}
	}
}

// serveInput runs the commands that have arrived. False: the own goroutine must go on.
func (c *connection) serveInput() bool {
	c.looped = true
	defer func() { c.looped = false }()
	for {
		if c.closing.Load() || c.server.ledger.isOver() || !c.out.HasRoom(c.loopRoom()) || !c.serving.rounds.HasRoom() {
			return false
		}
		c.slow, c.borrows = false, true
		run, err := c.nextOrLeft()
		switch {
		case err != nil || c.slow && len(run.Raw) > 0 || run.Args != nil && !isPrompt(run.Args):
			c.left = left{is: true, run: run, err: err}
			return false
		case run.Args != nil:
			c.runOne(run.Args)
		case len(run.Raw) == 0:
			c.out.Flush()
			return true
		}
		if run.Args == nil {
			c.runAll(run.Raw)
		}
		if c.waitsBehind() {
			c.out.Flush()
			return true
		}
	}
}

// loopRoom is what may wait for a client whose commands the loop runs. One that does not read is left to its goroutine, which can wait for
// it.
func (c *connection) loopRoom() reply.Room {
	room := c.room()
	room.UnsentBytes = min(room.UnsentBytes, unreadBytesMax)
	return room
}

// waitsBehind reports whether a command blocks the connection. What has arrived behind it is run by the own goroutine, which the
// reply wakes if there is any: the loop goes on watching, so a client that vanishes is noticed.
func (c *connection) waitsBehind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parked == nil {
		return false
	}
	c.inputWaits = c.in.Buffered() > 0
	return true
}

// isPrompt says so of a command that goes round redcon: a big one.
func isPrompt(args [][]byte) bool {
	return sizeOf(args) <= promptBytesMax && commands.FlagsOf(args[0])&commands.FlagPrompt != 0
}

func sizeOf(args [][]byte) int {
	total := 0
	for _, arg := range args {
		total += len(arg)
	}
	return total
}

// runOne runs one big command.
func (c *connection) runOne(args [][]byte) {
	c.executing.Store(true)
	c.handle(args)
	c.executing.Store(false)
	c.commit()
}

// runAll runs the commands of a run, cut into words by redcon. This parser of redcon's panics on input that is no RESP; the guard has
// checked every byte of the run.
func (c *connection) runAll(raw []byte) {
	c.executing.Store(true)
	v := c.serving
	v.words, raw = c.cut(raw, v.words)
	for len(v.words) > 0 {
		if c.joins(v.words) {
			raw = c.runTogether(raw)
			continue
		}
		words := v.words
		if !c.borrows {
			words = cloneWords(words)
		}
		c.handle(words)
		v.words, raw = c.cut(raw, v.words)
	}
	clear(v.words[:cap(v.words)]) // do not keep the input alive
	clear(v.next[:cap(v.next)])
	c.executing.Store(false)
	c.commit()
}

// joins reports whether commands that follow may run together with this one.
func (c *connection) joins(words [][]byte) bool {
	return c.borrows && c.session.mode == commands.ReplyOn && !c.skipNext && !c.session.discarding && c.server.env.StartsTogether(words)
}

// runTogether runs the command in v.words with those of raw that fit it, and cuts off the next one.
func (c *connection) runTogether(raw []byte) (rest []byte) {
	v := c.serving
	calls := 1
	for v.next, raw = c.cut(raw, v.next); calls < commands.TogetherMax && commands.FitsTogether(v.words, v.next); calls++ {
		v.words = append(v.words, v.next[2])
		v.next, raw = c.cut(raw, v.next)
	}
	if calls > 1 {
		c.handleTogether(v.words)
	} else {
		c.handle(v.words)
	}
	v.words, v.next = v.next, v.words[:0]
	return raw
}

// cut cuts the first command off raw, into words that take the place of those in the buffer; there are none at the end.
func (c *connection) cut(raw []byte, buffer [][]byte) (words [][]byte, rest []byte) {
	if len(raw) == 0 {
		return buffer[:0], nil
	}
	whole, words, _, rest, err := redcon.ReadNextCommand(raw, buffer[:0])
	if err != nil || !whole {
		c.server.cfg.Log.Error().Err(err).Int64("id", c.id).Msg("the guard let a command pass that redcon refuses; closed the connection")
		c.closing.Store(true)
		return buffer[:0], nil
	}
	return words, rest
}

// cloneWords gives a command words of its own, in one piece of memory.
func cloneWords(words [][]byte) [][]byte {
	size := 0
	for _, w := range words {
		size += len(w)
	}
	all, own := make([]byte, 0, size), make([][]byte, len(words))
	for i, w := range words {
		start := len(all)
		all = append(all, w...)
		own[i] = all[start:len(all):len(all)]
	}
	return own
}

// nextOrLeft takes the next run from the input, or what the loop has left.
func (c *connection) nextOrLeft() (guard.Run, error) {
	if c.left.is {
		l := c.left
		c.left = left{}
		return l.run, l.err
	}
	c.in.Limits = c.limits()
	return c.in.Next()
}
