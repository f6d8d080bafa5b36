package server

// What commands may ask of their connection and set on it: commands.Conn.

import (
	"time"

	"quail/commands"
	"quail/commands/acl"
)

var _ commands.Conn = (*connection)(nil)

func (c *connection) ID() int64        { return c.id }
func (c *connection) Name() string     { return c.session.name }
func (c *connection) Proto() int       { return c.w.Proto }
func (c *connection) User() string     { return c.session.user.Name() }
func (c *connection) CloseAfterReply() { c.closing.Store(true) }

// Discarding and SetDiscarding implement commands.Conn.
func (c *connection) Discarding() bool      { return c.session.discarding }
func (c *connection) SetDiscarding(on bool) { c.change(func(s *session) { s.discarding = on }) }

func (c *connection) Began(spec *commands.Spec) { c.lastCommand.Store(spec) }

// Authenticated is true for good once it was: a password that is set later asks new connections only, as in Redis.
func (c *connection) Authenticated() bool {
	return c.session.authenticated || !c.server.RequiresAuth()
}

// Rights implements commands.Conn.
func (c *connection) Rights() *acl.Rights {
	if !c.Authenticated() {
		return nil
	}
	return c.session.user.Rights()
}

// stranger says that the client must authenticate first; until then it gets what a stranger gets: less of everything.
func (c *connection) stranger() bool { return !c.Authenticated() }

func (c *connection) change(set func(*session)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	set(&c.session)
}

func (c *connection) SetName(name string)    { c.change(func(s *session) { s.name = name }) }
func (c *connection) SetLibName(name string) { c.change(func(s *session) { s.libName = name }) }
func (c *connection) SetLibVersion(version string) {
	c.change(func(s *session) { s.libVersion = version })
}
func (c *connection) SetNoEvict(on bool) { c.change(func(s *session) { s.noEvict = on }) }
func (c *connection) SetNoTouch(on bool) { c.change(func(s *session) { s.noTouch = on }) }

func (c *connection) SetProto(version int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.w.Proto = version
}

func (c *connection) Authenticate(user *acl.User) {
	c.change(func(s *session) { s.user, s.authenticated = user, true })
}

// Reset forgets what the session was told; with a password set, the client must give it again.
func (c *connection) Reset() {
	fresh := c.server.newSession()
	c.change(func(s *session) { *s = fresh })
	c.SetProto(2)
	c.server.unmonitor(c)
	c.skipThis, c.skipNext = false, false
}

func (c *connection) SetReplyMode(mode commands.ReplyMode) {
	if mode == commands.ReplySkip {
		c.skipNext = c.session.mode == commands.ReplyOn
		return
	}
	c.change(func(s *session) { s.mode = mode })
	if mode == commands.ReplyOn {
		c.skipThis, c.skipNext = false, false
	}
}

// Info may be called from any goroutine.
func (c *connection) Info() commands.ClientInfo {
	bytes, replies := c.out.Pending()
	c.mu.Lock()
	defer c.mu.Unlock()
	info := commands.ClientInfo{
		ID:            c.id,
		RemoteAddr:    c.remote,
		LocalAddr:     c.local,
		Name:          c.session.name,
		User:          c.session.user.Name(),
		LibName:       c.session.libName,
		LibVersion:    c.session.libVersion,
		Proto:         c.w.Proto,
		Created:       c.created,
		LastActive:    time.UnixMilli(c.lastActiveMillis.Load()),
		QueryBytes:    c.queryBytes.Load(),
		OutputBytes:   int64(bytes),
		OutputReplies: replies,
		Blocked:       c.parked != nil,
		NoEvict:       c.session.noEvict,
		NoTouch:       c.session.noTouch,
		Reply:         c.session.mode,
	}
	if spec := c.lastCommand.Load(); spec != nil {
		info.LastCommand = spec.FullName()
	}
	return info
}
