package commands

import (
	"quail/commands/acl"
	"quail/commands/resp"
)

var auth = &Spec{
	Name:    "AUTH",
	Summary: "Authenticate the connection",
	Group:   GroupConnection,
	Reply:   "OK.",
	Notes:   []string{"A wrong password is answered after `auth-delay`; the connection's next commands wait for that, other connections do not."},
	Errors:  []string{"WRONGPASS"},
	Args: []Arg{
		{Name: "username", Optional: true, Text: "Default: default."},
		{Name: "password"},
	},
	Flags: FlagFast | FlagLoading | FlagStale | FlagNoScript | FlagNoAuth,
	Run:   runAuth,
}

func runAuth(c *Call) {
	switch len(c.Args) {
	case 2:
		if c.Env.Users.Default().Rights().NoPass() {
			c.W.Error("ERR", "AUTH <password> called without any password configured for the default user. "+
				"Are you sure your configuration is correct?")
			return
		}
		if authenticate(c, []byte(acl.Default), c.Args[1]) {
			c.W.OK()
		}
	case 3:
		if authenticate(c, c.Args[1], c.Args[2]) {
			c.W.OK()
		}
	default:
		c.syntaxErr()
	}
}

// authenticate checks the password and, if it is right, lets the connection act as that user; otherwise it answers with
// WRONGPASS, later: the connection is parked meanwhile, which holds up no other and costs a timer.
func authenticate(c *Call, name, password []byte) bool {
	if user := c.Env.Users.Authenticate(name, password); user != nil {
		c.Conn.Authenticate(user)
		return true
	}
	c.failed = true
	c.Env.Refusals.add(c, refusal{reason: "auth", object: c.spec.words(), user: clipName(name)})
	refuse := func(w *resp.Writer) { w.Error("WRONGPASS", "invalid username-password pair or user is disabled.") }
	wait := c.Env.AuthDelay()
	if wait <= 0 {
		refuse(c.W)
		return false
	}
	if c.Env.Delays.Ended() { // one guess at once, not a pipeline of them
		refuse(c.W)
		c.Conn.CloseAfterReply()
		return false
	}
	parked := c.Park()
	w := c.Env.Delays.add(wait, func() { parked.Reply(nil, refuse) })
	parked.OnCancel(func() { c.Env.Delays.drop(w) })
	return false
}

// clipName bounds a name that no user may have.
func clipName(name []byte) string { return string(name[:min(len(name), acl.NameBytesMax)]) }
