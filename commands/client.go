package commands

// CLIENT: what a connection may say and ask about itself. The subcommands about all connections are in client_list.go and
// client_kill.go.

var client = &Spec{
	Name:    "CLIENT",
	Summary: "Look at connections and change them",
	Group:   GroupConnection,
	Reply:   "Depends on the subcommand.",
	Flags:   FlagNoScript | FlagLoading | FlagStale,
	Subcommands: []*Spec{
		clientGetName,
		clientID,
		clientInfo,
		clientKill,
		clientList,
		clientNoEvict,
		clientNoTouch,
		clientReply,
		clientSetInfo,
		clientSetName,
		helpSpec(),
	},
}

// flagsAboutSelf are those of every subcommand that concerns the own connection only.
const flagsAboutSelf = FlagNoScript | FlagLoading | FlagStale

var clientGetName = &Spec{
	Name:    "GETNAME",
	Summary: "Return the connection's name",
	Reply:   "bulk string, or null if it has none.",
	Flags:   flagsAboutSelf,
	Run:     runClientGetName,
}

func runClientGetName(c *Call) {
	name := c.Conn.Name()
	if name == "" {
		c.W.NullBulk()
		return
	}
	c.W.BulkString(name)
}

var clientID = &Spec{
	Name:    "ID",
	Summary: "Return the connection's id",
	Reply:   "integer: rises from connection to connection and starts anew with the server.",
	Flags:   flagsAboutSelf,
	Run:     func(c *Call) { c.W.Int(c.Conn.ID()) },
}

var onOff = Arg{Name: "enabled", Type: ArgOneOf, Args: []Arg{
	{Name: "on", Type: ArgPureToken, Token: "ON"},
	{Name: "off", Type: ArgPureToken, Token: "OFF"},
}}

var clientNoEvict = &Spec{
	Name:    "NO-EVICT",
	Summary: "Accepted for Redis's libraries, and shown in CLIENT LIST",
	Reply:   "OK.",
	Args:    []Arg{onOff},
	Flags:   flagsAboutSelf | FlagAdmin,
	Run:     func(c *Call) { setSwitch(c, c.Conn.SetNoEvict) },
}

var clientNoTouch = &Spec{
	Name:    "NO-TOUCH",
	Summary: "Accepted for Redis's libraries, and shown in CLIENT LIST",
	Reply:   "OK.",
	Args:    []Arg{onOff},
	Flags:   flagsAboutSelf,
	Run:     func(c *Call) { setSwitch(c, c.Conn.SetNoTouch) },
}

func setSwitch(c *Call, set func(on bool)) {
	switch {
	case equalFold(c.Args[2], "ON"):
		set(true)
	case equalFold(c.Args[2], "OFF"):
		set(false)
	default:
		c.syntaxErr()
		return
	}
	c.W.OK()
}

var clientReply = &Spec{
	Name:    "REPLY",
	Summary: "Say whether the connection wants replies",
	Reply:   "OK for ON; nothing for OFF and SKIP.",
	Args: []Arg{{Name: "action", Type: ArgOneOf, Args: []Arg{
		{Name: "on", Type: ArgPureToken, Token: "ON", Text: "Replies to all commands."},
		{Name: "off", Type: ArgPureToken, Token: "OFF", Text: "No replies until ON."},
		{Name: "skip", Type: ArgPureToken, Token: "SKIP", Text: "No reply to the next command."},
	}}},
	Flags: flagsAboutSelf,
	Run:   runClientReply,
}

func runClientReply(c *Call) {
	switch {
	case equalFold(c.Args[2], "ON"):
		c.Conn.SetReplyMode(ReplyOn)
		c.W.OK()
	case equalFold(c.Args[2], "OFF"):
		c.Conn.SetReplyMode(ReplyOff)
	case equalFold(c.Args[2], "SKIP"):
		if c.Conn.Info().Reply != ReplyOff {
			c.Conn.SetReplyMode(ReplySkip)
		}
	default:
		c.syntaxErr()
	}
}

var clientSetInfo = &Spec{
	Name:    "SETINFO",
	Summary: "Tell which client library and version this is",
	Reply:   "OK.",
	Args: []Arg{{Name: "attr", Type: ArgOneOf, Args: []Arg{
		{Name: "libname", Token: "LIB-NAME"},
		{Name: "libver", Token: "LIB-VER"},
	}}},
	Flags: flagsAboutSelf,
	Run:   runClientSetInfo,
}

func runClientSetInfo(c *Call) {
	attribute, value := c.Args[2], c.Args[3]
	set := c.Conn.SetLibName
	switch {
	case equalFold(attribute, "LIB-NAME"):
	case equalFold(attribute, "LIB-VER"):
		set = c.Conn.SetLibVersion
	default:
		c.W.Error("ERR", "Unrecognized option '"+cText(attribute)+"'")
		return
	}
	if !validClientWord(value) {
		c.W.Error("ERR", cText(attribute)+" cannot contain spaces, newlines or special characters.")
		return
	}
	set(string(value))
	c.W.OK()
}

var clientSetName = &Spec{
	Name:    "SETNAME",
	Summary: "Name the connection",
	Reply:   "OK. An empty name takes the name away.",
	Args:    []Arg{{Name: "connection-name"}},
	Flags:   flagsAboutSelf,
	Run:     runClientSetName,
}

func runClientSetName(c *Call) {
	if !validClientWord(c.Args[2]) {
		c.W.Error("ERR", errClientName)
		return
	}
	c.Conn.SetName(string(c.Args[2]))
	c.W.OK()
}

// validClientWord allows what fits into one field of CLIENT LIST: printable ASCII without spaces.
func validClientWord(word []byte) bool {
	for _, b := range word {
		if b < '!' || b > '~' {
			return false
		}
	}
	return true
}
