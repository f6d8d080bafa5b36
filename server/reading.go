package server

// The way in. redcon reads its commands here, and gets whole, checked ones only. Read is called again when all that it
// gave has been run, which makes it the place for everything between two runs: sending replies, waiting while a command
// blocks, ending the connection.

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"quail/commands"
	"quail/server/guard"
	"quail/server/settings"
)

const (
	// A client whose connection the server ends may have sent more than was read. Closing then would reset the
	// connection, and the client's system could throw away the last replies. So the server says that it sends no more, and
	// reads on for a moment.
	lingerTime         = time.Second
	lingerTimeStopping = 50 * time.Millisecond
	lingerBytesMax     = 4 << 20

	// killedTime is for the reply of the command that ran when its client was killed, which may be the one that kills.
	killedTime = 100 * time.Millisecond

	// A client that breaks the protocol is mostly one that sends a body over max-bulk-bytes, and the most of that is still to come: libraries
	// read the answer only when they have sent all. So a few of them at a time, strangers not, are heard longer.
	breachTime     = 2 * time.Second
	breachBytesMax = 64 << 20
	breachesMax    = 4

	scrapBytes = 16 << 10 // of what is thrown away, at once
)

// standIn is what redcon reads in place of a command that goes round it; handle puts the command in.
var standIn = []byte("*1\r\n$8\r\nstand-in\r\n")

var (
	errStopping    = errors.New("the server stops")
	errUnparked    = errors.New("the reply came")
	errInterrupted = fmt.Errorf("the wait for memory was interrupted: %w", os.ErrDeadlineExceeded)
	errIdle        = errors.New("idle for longer than timeout")
	errGone        = errors.New("the client went away, or closed its side, while it was blocked")
	errQueryBuffer = errors.New("more than query-buffer-bytes wait behind a blocked command")
)

// Read gives redcon the next commands, or the error on which it closes the connection.
func (c *connection) Read(p []byte) (int, error) {
	if len(c.raw) == 0 {
		if err := c.nextRun(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.raw)
	c.raw = c.raw[n:]
	return n, nil
}

// nextRun sets raw to the next run of commands, when there is one that may run.
func (c *connection) nextRun() error {
	if c.greet != nil {
		err := c.greet(c.server.cfg.Settings.Duration(settings.TLSHandshake))
		c.greet = nil
		c.greeting.Store(false)
		c.unread = true // what came with the end of the handshake
		if err != nil {
			return c.end(err)
		}
	}
	c.executing.Store(false)
	c.commit()
	c.runningBytes = 0
	for {
		if c.closing.Load() {
			return c.finish()
		}
		blocked := c.blocked()
		if !blocked {
			ok, err := c.take()
			if ok || err != nil {
				return err
			}
			if c.eof {
				return c.finish()
			}
		}
		switch err := c.fill(blocked); {
		case err == nil || errors.Is(err, errUnparked):
		case errors.Is(err, errStopping):
			return c.finish()
		default:
			return c.end(err)
		}
	}
}

// take asks the guard for commands that have arrived already.
func (c *connection) take() (ok bool, err error) {
	if err := c.throttle(); err != nil {
		return false, err
	}
	c.awaitKeeper()
	run, err := c.nextOrLeft()
	if err != nil {
		return false, c.breach(err)
	}
	switch {
	case run.Args != nil:
		c.alone, c.raw = run.Args, standIn
		if !run.Lent {
			c.runningBytes = sizeOf(run.Args)
			c.account()
		}
	case len(run.Raw) > 0:
		c.raw = run.Raw
	default:
		return false, nil
	}
	c.executing.Store(true)
	return true, nil
}

func (c *connection) limits() guard.Limits {
	values := c.server.cfg.Settings
	stranger := c.stranger()
	c.isStranger.Store(stranger)
	return guard.Limits{
		ArgsMax:         int(values.Int(settings.MaxArgs)),
		BulkBytesMax:    int(values.Bytes(settings.MaxBulk)),
		CommandBytesMax: int(values.Bytes(settings.QueryBuffer)),
		Stranger:        stranger,
	}
}

// fill reads the socket once. Blocked says that it does so only to notice a client that vanishes.
func (c *connection) fill(blocked bool) error {
	c.out.Flush()
	if blocked && c.in.Buffered() >= c.inputMax() {
		return errQueryBuffer
	}
	if err := c.beginRead(blocked); err != nil {
		return err
	}
	n, err := c.read(blocked)
	c.account()
	blocked, interrupted := c.endRead() // the reply may have come meanwhile
	if n > 0 {
		c.filled(n)
	}
	switch {
	case err == nil || interrupted && errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		if c.activeSince(c.server.cfg.Settings.Duration(settings.IdleTimeout)) {
			return nil // a loop served it meanwhile
		}
		return errIdle
	case errors.Is(err, io.EOF):
		c.eof = true
		if blocked && !c.awaitReply() {
			return errGone
		}
		return nil
	case blocked:
		return errGone
	default:
		return err
	}
}

// inputMax bounds what waits behind a blocked command. A client that waits for the answer to a wrong password has nothing to
// say meanwhile, and thousands like it must not fill the memory.
func (c *connection) inputMax() int {
	if !c.Authenticated() {
		return strangerInputBytesMax
	}
	return int(c.server.cfg.Settings.Bytes(settings.QueryBuffer))
}

// read takes what the socket has, or lets the loop run what comes until there is something that it leaves to this goroutine.
func (c *connection) read(blocked bool) (int, error) {
	if err := c.awaitMemory(); err != nil {
		return 0, err
	}
	c.rest()
	if c.sock == nil {
		space := c.in.Space()
		c.account()
		return c.net.Read(space)
	}
	if blocked {
		n, err := c.net.Read(c.in.Space())
		c.unread = true
		return n, err
	}
	if !c.unread {
		err := c.sock.Wait()
		c.unread = true // what the loop left may not be all that the socket had, and nothing announces the rest
		if err != nil || c.left.is || c.mustWait() {
			return 0, err
		}
	}
	n, err := c.sock.TryRead(c.in.Space())
	c.unread = n > 0
	return n, err
}

// filled accounts for n bytes that were read into the input.
func (c *connection) filled(n int) {
	c.in.Filled(n)
	c.server.counters.input.Add(uint64(n))
	c.lastActiveMillis.Store(time.Now().UnixMilli())
}

func (c *connection) activeSince(d time.Duration) bool {
	return time.Now().UnixMilli()-c.lastActiveMillis.Load() < d.Milliseconds()
}

// beginRead makes the read interruptible, and arms the idle timeout for it. A reply may have come since the caller found
// the connection blocked, and nobody would interrupt the read for the commands that wait.
func (c *connection) beginRead(blocked bool) error {
	c.queryBytes.Store(int64(c.in.Buffered()))
	c.mu.Lock()
	defer c.mu.Unlock()
	if blocked && c.parked == nil {
		return errUnparked
	}
	if c.parked == nil && c.server.stopping.Load() {
		return errStopping
	}
	c.reading = true
	c.inputWaits = c.parked != nil && c.in.Buffered() > 0
	c.armIdle()
	return nil
}

// armIdle sets the deadline of a read that waits for the client's next command; the caller holds mu.
func (c *connection) armIdle() {
	if limit := c.server.cfg.Settings.Duration(settings.IdleTimeout); limit > 0 && c.parked == nil {
		c.deadline = true
		c.net.SetReadDeadline(time.Now().Add(limit))
	}
}

func (c *connection) endRead() (blocked, interrupted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	interrupted = c.interrupted
	c.reading, c.interrupted = false, false
	if interrupted || c.deadline {
		c.deadline = false
		c.net.SetReadDeadline(time.Time{})
	}
	return c.parked != nil, interrupted
}

// breach answers what breaks the protocol, after all that came before it.
func (c *connection) breach(err error) error {
	event := c.server.cfg.Log.Debug()
	var cross *guard.CrossProtocolError
	var broken *guard.ProtocolError
	switch {
	case errors.As(err, &cross):
		if worthALine(&c.server.lastForged) { // a page that makes a browser send these sends many
			event = c.server.cfg.Log.Warn()
		}
	case errors.As(err, &broken) && broken.Setting != "":
		if !c.stranger() && worthALine(&c.server.lastTooLarge) {
			event = c.server.cfg.Log.Warn()
		}
		event.Int64("declared", broken.Declared).Int64("limit", broken.Limit).Str("setting", broken.Setting)
	}
	event.Err(err).Int64("id", c.id).Str("client", c.remote).Msg("closed a connection")
	if cross != nil {
		return err
	}
	if c.session.mode != commands.ReplyOff {
		c.w.Error("ERR", err.Error())
		c.hold(nil, 1)
		c.commit()
	}
	if !c.stranger() {
		select {
		case c.server.breaches <- struct{}{}:
			defer func() { <-c.server.breaches }()
			return c.finishWithin(breachTime, breachBytesMax)
		default:
		}
	}
	return c.finish()
}

// worthALine says at most once a second that a line goes to the log that may come any number of times: one tells as much.
func worthALine(lastMillis *atomic.Int64) bool {
	now, last := time.Now().UnixMilli(), lastMillis.Load()
	return now-last >= refusalLogEvery.Milliseconds() && lastMillis.CompareAndSwap(last, now)
}

// finish ends the connection in order: what was asked for is answered, but for a command that blocks; then it is closed.
func (c *connection) finish() error { return c.finishWithin(lingerTime, lingerBytesMax) }

// finishWithin is finish with the time and the bytes for which a client is heard that still sends.
func (c *connection) finishWithin(linger time.Duration, bytesMax int) error {
	c.abandon()
	if c.killed.Load() { // while a command ran, whose reply has time to leave, but no more: this may be who reads nothing
		defer time.AfterFunc(killedTime, func() { c.net.Close() }).Stop()
	}
	if err := c.out.Drain(); err != nil {
		return err
	}
	if !c.eof {
		c.linger(linger, bytesMax)
	}
	return io.EOF
}

func (c *connection) linger(wait time.Duration, bytesMax int) {
	half, ok := c.net.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if c.server.stopping.Load() {
		wait = lingerTimeStopping
	}
	c.net.SetReadDeadline(time.Now().Add(wait))
	scrap := make([]byte, scrapBytes)
	for total := 0; total < bytesMax; {
		n, err := c.net.Read(scrap)
		if err != nil {
			return
		}
		total += n
	}
}

// end is for a connection that is over already. A client that closed only its side still reads: what came before the
// command that blocks is answered.
func (c *connection) end(err error) error {
	if errors.Is(err, errGone) && c.eof {
		c.finish()
	}
	event := c.server.cfg.Log.Debug()
	if errors.Is(err, errQueryBuffer) {
		event = c.server.cfg.Log.Warn()
	}
	if !errors.Is(err, net.ErrClosed) {
		event.Err(err).Int64("id", c.id).Str("client", c.remote).Msg("connection ended")
	}
	return err
}
