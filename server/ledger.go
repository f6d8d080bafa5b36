package server

// The ledger adds up what all connections hold: commands that have not run, and replies that were not sent. Each connection has limits
// of its own, but ten thousand connections that stay within theirs could still hold more than the machine has.
//
//	held  0 ─────────── 7/8 ── limit ────── 5/4 limit
//	                     │       │             └ the connection that holds most is closed at once
//	                     │       └ tight: who holds much waits; if that does not help within tightPatience, the same
//	                     └ relaxed again
//
// A connection that holds little is never held back, so a crowd that fills the memory does not stop the others. The bound is so the
// limit and a quarter, and smallBytes each way for every connection.

import (
	"sync/atomic"
	"time"

	"quail/server/reply"
	"quail/server/settings"
)

const (
	// smallBytes is what a connection may hold of commands, and of replies, however little memory there is.
	smallBytes = 16 << 10

	// tightHeldBytesMax is in place of heldBytesMax while memory is tight.
	tightHeldBytesMax = 64 << 10

	// tightPatience is how long clients wait for each other before one of them is closed: most commands are whole, and most replies read,
	// long before.
	tightPatience = time.Second

	// tightEvery is the rhythm in which the keeper looks while memory is tight, and how long at most it is left alone to make room.
	tightEvery = 20 * time.Millisecond
)

// ledger is safe for concurrent use. What it counts is told in steps of a few kilobytes; see reply.Config.
type ledger struct {
	settings *settings.Values
	bytes    atomic.Int64
	tight    atomic.Bool
	waiting  atomic.Int64  // connections that wait for memory
	evicted  atomic.Uint64 // connections closed for want of memory
	ring     chan struct{} // has room for one: the keeper shall look
}

func newLedger(values *settings.Values) *ledger {
	return &ledger{settings: values, ring: make(chan struct{}, 1)}
}

func (l *ledger) limit() int64 { return l.settings.Bytes(settings.ClientsMemory) }

// add accounts for bytes that are held from now on, or no longer. It does not block.
func (l *ledger) add(bytes int64) {
	held := l.bytes.Add(bytes)
	switch {
	case bytes > 0 && held > l.limit():
		l.tight.Store(true)
		l.call()
	case bytes < 0 && l.tight.Load() && held <= l.relaxedBytes():
		l.call()
	}
}

func (l *ledger) relaxedBytes() int64 { limit := l.limit(); return limit - limit/8 }
func (l *ledger) hardBytes() int64    { limit := l.limit(); return limit + limit/4 }

// isOver says that the keeper is about to close somebody: until then nobody should make replies.
func (l *ledger) isOver() bool { return l.tight.Load() && l.bytes.Load() > l.hardBytes() }

func (l *ledger) call() {
	select {
	case l.ring <- struct{}{}:
	default:
	}
}

// keepLedger watches over the ledger until the server has stopped.
func (s *Server) keepLedger() {
	var logged time.Time
	for {
		select {
		case <-s.ledger.ring:
		case <-s.stopped:
			return
		}
		if !s.ledger.tight.Load() {
			continue
		}
		if now := time.Now(); now.Sub(logged) > refusalLogEvery {
			logged = now
			s.cfg.Log.Warn().Int64("held_bytes", s.ledger.bytes.Load()).Int64("limit_bytes", s.ledger.limit()).
				Msg("maxmemory-clients is reached: clients with large commands or many unread replies wait; CLIENT LIST shows who holds how much")
		}
		s.easeMemory()
	}
}

// easeMemory goes on until memory is not tight any more.
func (s *Server) easeMemory() {
	l := s.ledger
	s.askBack()
	tick := time.NewTicker(tightEvery)
	defer tick.Stop()
	since := time.Now()
	for {
		select {
		case <-l.ring:
		case <-tick.C:
		case <-s.stopped:
			return
		}
		held := l.bytes.Load()
		if held <= l.relaxedBytes() {
			l.tight.Store(false)
			s.relieve()
			return
		}
		switch {
		case held > l.hardBytes():
			for excess := held - l.limit(); excess > 0; {
				freed := s.evict()
				if freed == 0 {
					break
				}
				excess -= freed
			}
		case time.Since(since) >= tightPatience && l.waiting.Load() > 0:
			s.evict()
		}
	}
}

// askBack makes connections that are idle let go of buffers that they keep for the next large command.
func (s *Server) askBack() {
	for _, c := range s.all() {
		if c.heldInput.Load() <= smallBytes {
			continue
		}
		c.mu.Lock()
		if c.parked == nil {
			c.interrupt()
		}
		c.mu.Unlock()
	}
}

// relieve lets those go on who wait for memory.
func (s *Server) relieve() {
	for _, c := range s.all() {
		c.nudge()
		c.out.Wake()
	}
}

// evict closes the connection that holds most; a stranger before any other. It returns what that one held, 0 if all hold little.
func (s *Server) evict() (bytes int64) {
	var worst *connection
	most, strange := int64(0), false
	for _, c := range s.all() {
		if c.closing.Load() {
			continue // it is about to give back what it holds
		}
		held, stranger := c.held(), c.isStranger.Load()
		if held > smallBytes && (stranger && !strange || stranger == strange && held > most) {
			worst, most, strange = c, held, stranger
		}
	}
	if worst == nil {
		return 0
	}
	s.ledger.evicted.Add(1)
	s.cfg.Log.Warn().Int64("id", worst.id).Str("client", worst.remote).Int64("client_bytes", most).
		Int64("held_bytes", s.ledger.bytes.Load()).Int64("limit_bytes", s.ledger.limit()).
		Msg("closed the client that held most, since all together hold more than maxmemory-clients")
	worst.kill()
	return most
}

// held is what the ledger counts of this connection, roughly.
func (c *connection) held() int64 {
	out, _ := c.out.Pending()
	return c.heldInput.Load() + int64(out)
}

// account tells the ledger what the input holds, and a big command that runs.
func (c *connection) account() {
	now := int64(c.in.MemoryBytes() + c.runningBytes)
	if before := c.heldInput.Load(); now != before {
		c.server.ledger.add(now - c.heldInput.Swap(now))
	}
}

// rest is for a connection that is about to wait for its client.
func (c *connection) rest() {
	c.in.Rest()
	c.account()
}

// mustWait says that the next read would take memory while it is tight. A buffer that is empty then is given back.
func (c *connection) mustWait() bool {
	if !c.server.ledger.tight.Load() {
		return false
	}
	c.in.GiveBack()
	return c.in.Need() > smallBytes
}

// awaitMemory waits until the next read may take memory; an interrupt ends it as it would end the read.
func (c *connection) awaitMemory() error {
	l := c.server.ledger
	for c.mustWait() {
		l.waiting.Add(1)
		<-c.relief
		l.waiting.Add(-1)
		c.mu.Lock()
		interrupted := c.interrupted
		c.mu.Unlock()
		if interrupted || c.closing.Load() {
			return errInterrupted
		}
	}
	return nil
}

// awaitKeeper gives the keeper of the ledger a moment, if that is at work.
func (c *connection) awaitKeeper() {
	if !c.server.ledger.isOver() {
		return
	}
	timer := time.NewTimer(tightEvery)
	defer timer.Stop()
	select {
	case <-c.relief:
	case <-timer.C:
	}
}

// nudge makes a wait for memory look again.
func (c *connection) nudge() {
	select {
	case c.relief <- struct{}{}:
	default:
	}
}

// tighten is the room of a connection while memory is tight.
func tighten(room reply.Room) reply.Room {
	return reply.Room{UnsentBytes: min(room.UnsentBytes, smallBytes), HeldBytes: min(room.HeldBytes, tightHeldBytesMax)}
}
