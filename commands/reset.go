package commands

var reset = &Spec{
	Name:    "RESET",
	Summary: "Put the connection into the state of a new one",
	Group:   GroupConnection,
	Reply:   "RESET.",
	Notes:   []string{"Protocol 2, no name, replies on, and not authenticated if the server asks for a password."},
	Flags:   FlagFast | FlagLoading | FlagStale | FlagNoScript | FlagNoAuth,
	Run:     runReset,
}

func runReset(c *Call) {
	c.Conn.Reset()
	c.W.Simple("RESET")
}
