package server

// Connections in MONITOR get a line for each command of all connections. The lines go through the same Stream as replies,
// and are written by a sender: who runs a command never waits for who looks on.

import (
	"errors"

	"quail/server/reply"
	"quail/server/settings"
)

var errSlowMonitor = errors.New("it reads MONITOR too slowly")

// Monitor implements commands.Conn.
func (c *connection) Monitor() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.server.monitors[c.id] = c
	c.server.env.Monitors.Store(int64(len(c.server.monitors)))
}

// unmonitor is for RESET and the end.
func (s *Server) unmonitor(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.monitors, c.id)
	s.env.Monitors.Store(int64(len(s.monitors)))
}

// Tell shows a line to all monitors, and closes those for whom too much waits.
func (s admin) Tell(line []byte) {
	s.mu.Lock()
	list := make([]*connection, 0, len(s.monitors))
	for _, c := range s.monitors {
		list = append(list, c)
	}
	s.mu.Unlock()
	most := int(s.cfg.Settings.Bytes(settings.OutputBuffer))
	for _, c := range list {
		if waiting, _ := c.out.Pending(); waiting+len(line) > most {
			s.unmonitor(c)
			s.cfg.Log.Warn().Int64("id", c.id).Str("client", c.remote).Msg("dropped a client that reads MONITOR too slowly")
			c.out.Fail(errSlowMonitor)
			continue
		}
		slots := [1]reply.Slot{{Bytes: len(line), Replies: 1}}
		c.out.Commit(append([]byte(nil), line...), slots[:])
		c.out.FlushLater()
	}
}
