package commands

var auth = &Spec{
	Name:    "AUTH",
	Summary: "Authenticate the connection",
	Group:   GroupConnection,
	Reply:   "OK.",
	Errors:  []string{"WRONGPASS"},
	Args: []Arg{
		{Name: "username", Optional: true, Text: "Default: default."},
		{Name: "password"},
	},
	Flags: FlagFast | FlagLoading | FlagStale | FlagNoScript | FlagNoAuth,
	Run:   runAuth,
}

// defaultUser is who every connection is that names no other.
const defaultUser = "default"

func runAuth(c *Call) {
	switch len(c.Args) {
	case 2:
		if !c.Env.Server.RequiresAuth() {
			c.W.Error("ERR", "AUTH <password> called without any password configured for the default user. "+
				"Are you sure your configuration is correct?")
			return
		}
		if authenticate(c, []byte(defaultUser), c.Args[1]) {
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
// WRONGPASS. Without a password on the server any password is right for the default user, as in Redis.
func authenticate(c *Call, user, password []byte) bool {
	open := !c.Env.Server.RequiresAuth() && string(user) == defaultUser
	if !open && !c.Env.Server.CheckPassword(user, password) {
		c.W.Error("WRONGPASS", "invalid username-password pair or user is disabled.")
		return false
	}
	c.Conn.Authenticate(string(user))
	return true
}
