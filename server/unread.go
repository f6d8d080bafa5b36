package server

// A client that asks for much and reads none of it costs the others the most: each reply is read from the log, encoded and copied to the
// socket, for nobody. So what may be answered with much waits until its client has read nearly all that it got before. A client that
// sends all its commands before it reads a reply would wait for ever, and output-buffer-bytes promises it room: when the patience with such a
// client is over it gets more all the same, but all of them together one reply each unheardEvery.

import (
	"math"
	"sync/atomic"
	"time"

	"quail/commands"
	"quail/server/reply"
)

const (
	// unreadBytesMax is what may wait for a client that is given more: small enough to show that it does not read, since the socket's buffers
	// are full then, and enough for a slow network to be busy with while the next reply is made.
	unreadBytesMax = 64 << 10

	// unheardPatience is how long a client may take to read what it got before it counts as one that does not.
	unheardPatience = time.Second

	// unheardEvery is the pace in which all of them together get more: a reply of a megabyte takes a few milliseconds of a processor, so they
	// cost the others a twentieth of one.
	unheardEvery = 100 * time.Millisecond
)

var (
	unreadRoom = reply.Room{UnsentBytes: unreadBytesMax, HeldBytes: math.MaxInt}
	anyRoom    = reply.Room{UnsentBytes: math.MaxInt, HeldBytes: math.MaxInt}
)

// mayGetMuch says so of commands whose replies may be large: those that read logs or list, and pulls.
func mayGetMuch(name []byte) bool {
	flags := commands.FlagsOf(name)
	return readsMuch(flags) || flags&commands.FlagBlocking != 0
}

// awaitReader waits until the client has read, or may get more all the same. What is killed meanwhile is closed within
// unheardEvery.
func (c *connection) awaitReader() {
	c.commit()
	if c.out.HasRoom(unreadRoom) {
		c.unheard = false
		return
	}
	executing := c.executing.Swap(false)
	defer c.executing.Store(executing)
	if c.unheard || !c.readsWithin(unheardPatience) {
		c.unheard = true
		c.awaitPace()
	}
}

// readsWithin reports whether the client reads what it got in that time; true, too, if it is gone.
func (c *connection) readsWithin(limit time.Duration) bool {
	var over atomic.Bool
	timer := time.AfterFunc(limit, func() {
		over.Store(true)
		c.out.Wake()
	})
	defer timer.Stop()
	c.out.WaitRoom(func() reply.Room {
		if over.Load() {
			return anyRoom
		}
		return unreadRoom
	})
	return !over.Load()
}

// awaitPace waits until it is this one's turn among those that do not read.
func (c *connection) awaitPace() {
	for {
		select {
		case c.server.unheard <- struct{}{}:
			c.readsWithin(unheardEvery)
			<-c.server.unheard
			return
		case <-c.relief:
			if c.closing.Load() || c.out.Err() != nil {
				return
			}
		}
	}
}
