package commands

var quit = &Spec{
	Name:    "QUIT",
	Summary: "Close the connection after all replies",
	Group:   GroupConnection,
	Reply:   "OK. Commands that follow in the pipeline are not run.",
	Args:    []Arg{{Name: "ignored", Optional: true, Multiple: true}},
	Flags:   FlagFast | FlagLoading | FlagStale | FlagNoScript | FlagNoAuth,
	Run:     runQuit,
}

// runQuit accepts further words as Redis does.
func runQuit(c *Call) {
	c.W.OK()
	c.Conn.CloseAfterReply()
}
