package commands

var hello = &Spec{
	Name:    "HELLO",
	Summary: "Agree on the protocol, and optionally authenticate and name the connection",
	Group:   GroupConnection,
	Reply:   "map: the keys below.",
	Fields: []Field{
		{"server", "string", "quail."},
		{"version", "string", "The version of Redis whose commands and wording Quail follows; libraries choose features by it."},
		{"proto", "integer", "2 or 3, from this reply on."},
		{"id", "integer", "As CLIENT ID."},
		{"mode", "string", "standalone."},
		{"role", "string", "master."},
		{"modules", "array", "Empty."},
		{"quail_version", "string", "Quail's own version."},
	},
	Errors: []string{"NOPROTO", "WRONGPASS", "NOAUTH"},
	Args: []Arg{{Name: "arguments", Type: ArgBlock, Optional: true, Args: []Arg{
		{Name: "protover", Type: ArgInteger, Text: "2 or 3."},
		{Name: "auth", Type: ArgBlock, Token: "AUTH", Optional: true, Args: []Arg{{Name: "username"}, {Name: "password"}}},
		{Name: "clientname", Token: "SETNAME", Optional: true},
	}}},
	Flags: FlagFast | FlagLoading | FlagStale | FlagNoScript | FlagNoAuth,
	Run:   runHello,
}

// RedisVersion is the version of Redis that clients are told: commands that Quail shares with Redis behave as in it.
const RedisVersion = "7.4.0"

// greeting is what HELLO was asked for.
type greeting struct {
	proto              int // 0 leaves it as it is
	user, password     []byte
	name               []byte
	hasAuth, hasRename bool
}

func runHello(c *Call) {
	g, ok := parseHello(c)
	if !ok {
		return
	}
	if g.hasAuth && !authenticate(c, g.user, g.password) {
		return
	}
	if c.Conn.Rights() == nil {
		c.W.Error("NOAUTH", "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH "+
			"<user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
		return
	}
	if g.hasRename {
		c.Conn.SetName(string(g.name))
	}
	if g.proto != 0 {
		c.Conn.SetProto(g.proto)
	}
	writeHello(c)
}

// parseHello answers with Redis's error and returns false if the words do not fit.
func parseHello(c *Call) (g greeting, ok bool) {
	words := c.Args[1:]
	if len(words) > 0 {
		n, isNumber := parseInteger(words[0])
		switch {
		case !isNumber:
			c.W.Error("ERR", "Protocol version is not an integer or out of range")
			return g, false
		case n != 2 && n != 3:
			c.W.Error("NOPROTO", "unsupported protocol version")
			return g, false
		}
		g.proto = int(n)
		words = words[1:]
	}
	for len(words) > 0 {
		switch {
		case equalFold(words[0], "AUTH") && len(words) >= 3:
			g.user, g.password, g.hasAuth = words[1], words[2], true
			words = words[3:]
		case equalFold(words[0], "SETNAME") && len(words) >= 2:
			if !validClientWord(words[1]) {
				c.W.Error("ERR", errClientName)
				return g, false
			}
			g.name, g.hasRename = words[1], true
			words = words[2:]
		default:
			c.W.Error("ERR", "Syntax error in HELLO option '"+cText(words[0])+"'")
			return g, false
		}
	}
	return g, true
}

func writeHello(c *Call) {
	w := c.W
	w.Map(8)
	w.BulkString("server")
	w.BulkString("quail")
	w.BulkString("version")
	w.BulkString(RedisVersion)
	w.BulkString("proto")
	w.Int(int64(c.Conn.Proto()))
	w.BulkString("id")
	w.Int(c.Conn.ID())
	w.BulkString("mode")
	w.BulkString("standalone")
	w.BulkString("role")
	w.BulkString("master")
	w.BulkString("modules")
	w.Array(0)
	w.BulkString("quail_version")
	w.BulkString(c.Env.Version)
}
