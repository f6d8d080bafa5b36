package commands

import "time"

var clientKill = &Spec{
	Name:    "KILL",
	Summary: "Close connections",
	Reply:   "integer: how many were closed; with an address alone OK, or an error if there is none.",
	Args: []Arg{{Name: "filter", Type: ArgOneOf, Args: []Arg{
		{Name: "old-format", Display: "ip:port"},
		{Name: "new-format", Type: ArgOneOf, Multiple: true, Args: []Arg{
			{Name: "client-id", Type: ArgInteger, Token: "ID", Min: 1},
			{Name: "client-type", Type: ArgOneOf, Token: "TYPE", Args: clientTypes},
			{Name: "username", Token: "USER"},
			{Name: "addr", Token: "ADDR", Display: "ip:port"},
			{Name: "laddr", Token: "LADDR", Display: "ip:port"},
			{Name: "skipme", Type: ArgOneOf, Token: "SKIPME", Text: "Default: yes.", Args: []Arg{
				{Name: "yes", Type: ArgPureToken, Token: "YES"},
				{Name: "no", Type: ArgPureToken, Token: "NO"},
			}},
			{Name: "maxage", Type: ArgInteger, Token: "MAXAGE", Display: "seconds", Min: 1, Text: "Only connections at least that old."},
		}},
	}}},
	Flags: flagsAboutSelf | FlagAdmin,
	Run:   runClientKill,
}

// killFilter is what CLIENT KILL was given. An empty field lets all pass.
type killFilter struct {
	id            int64
	addr, laddr   string
	user          string
	otherType     bool // a type that no connection has
	skipSelf      bool
	maxAgeSeconds int64
}

func (f *killFilter) matches(info ClientInfo, self int64, now time.Time) bool {
	switch {
	case f.otherType:
	case f.id != 0 && info.ID != f.id:
	case f.addr != "" && info.RemoteAddr != f.addr:
	case f.laddr != "" && info.LocalAddr != f.laddr:
	case f.user != "" && info.User != f.user:
	case f.skipSelf && info.ID == self:
	case f.maxAgeSeconds != 0 && seconds(now.Sub(info.Created)) < f.maxAgeSeconds:
	default:
		return true
	}
	return false
}

func runClientKill(c *Call) {
	if len(c.Args) == 3 { // the old form; with it a connection may close itself
		if killed := kill(c, &killFilter{addr: string(c.Args[2])}); killed == 0 {
			c.W.Error("ERR", "No such client")
			return
		}
		c.W.OK()
		return
	}
	f := killFilter{skipSelf: true}
	for words := c.Args[2:]; len(words) > 0; words = words[2:] {
		if len(words) == 1 {
			c.syntaxErr()
			return
		}
		if !f.add(c, words[0], words[1]) {
			return
		}
	}
	c.W.Int(int64(kill(c, &f)))
}

func kill(c *Call, f *killFilter) int {
	self, now := c.Conn.ID(), time.Now()
	return c.Env.Server.KillClients(func(info ClientInfo) bool { return f.matches(info, self, now) })
}

// add takes one option. It answers with Redis's error and returns false if that does not fit.
func (f *killFilter) add(c *Call, option, value []byte) bool {
	switch {
	case equalFold(option, "ID"):
		id, ok := parseInteger(value)
		if !ok || id < 1 {
			c.W.Error("ERR", "client-id should be greater than 0")
			return false
		}
		f.id = id
	case equalFold(option, "MAXAGE"):
		return f.addMaxAge(c, value)
	case equalFold(option, "TYPE"):
		normal, ok := parseClientType(c, value)
		if !ok {
			return false
		}
		f.otherType = !normal
	case equalFold(option, "ADDR"):
		f.addr = string(value)
	case equalFold(option, "LADDR"):
		f.laddr = string(value)
	case equalFold(option, "USER"):
		if c.Env.Users.Lookup(value) == nil {
			c.W.Error("ERR", "No such user '"+cText(value)+"'")
			return false
		}
		f.user = string(value)
	case equalFold(option, "SKIPME") && equalFold(value, "YES"):
		f.skipSelf = true
	case equalFold(option, "SKIPME") && equalFold(value, "NO"):
		f.skipSelf = false
	default:
		c.syntaxErr()
		return false
	}
	return true
}

func (f *killFilter) addMaxAge(c *Call, value []byte) bool {
	age, ok := parseInteger(value)
	switch {
	case !ok:
		c.W.Error("ERR", "maxage is not an integer or out of range")
		return false
	case age < 1:
		c.W.Error("ERR", "maxage should be greater than 0")
		return false
	}
	f.maxAgeSeconds = age
	return true
}
