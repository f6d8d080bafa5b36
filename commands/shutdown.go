package commands

var shutdown = &Spec{
	Name:    "SHUTDOWN",
	Summary: "Stop the server",
	Group:   GroupServer,
	Reply:   "None: the connection closes. An error if the words do not fit.",
	Notes: []string{
		"Waiting consumers get null, what is in flight is answered, a checkpoint is written, and the process ends with status 0. " +
			"NOSAVE leaves the checkpoint out: nothing is lost, but the next start replays more of the journal.",
	},
	Args: []Arg{
		{Name: "save-selector", Type: ArgOneOf, Optional: true, Args: []Arg{
			{Name: "nosave", Type: ArgPureToken, Token: "NOSAVE"},
			{Name: "save", Type: ArgPureToken, Token: "SAVE"},
		}},
		{Name: "now", Type: ArgPureToken, Token: "NOW", Optional: true, Text: "Accepted; there are no replicas to wait for."},
		{Name: "force", Type: ArgPureToken, Token: "FORCE", Optional: true, Text: "Accepted; a failed checkpoint never keeps the server up."},
		{Name: "abort", Type: ArgPureToken, Token: "ABORT", Optional: true, Text: "Always an error: a stop that has begun is not taken back."},
	},
	Flags: FlagAdmin | FlagNoScript | FlagLoading | FlagStale,
	Run:   runShutdown,
}

func runShutdown(c *Call) {
	var save, noSave, other, abort bool
	for _, word := range c.Args[1:] {
		switch {
		case equalFold(word, "SAVE"):
			save = true
		case equalFold(word, "NOSAVE"):
			noSave = true
		case equalFold(word, "NOW"), equalFold(word, "FORCE"):
			other = true
		case equalFold(word, "ABORT"):
			abort = true
		default:
			c.syntaxErr()
			return
		}
	}
	switch {
	case save && noSave, abort && (save || noSave || other):
		c.syntaxErr()
	case abort:
		c.W.Error("ERR", "No shutdown in progress.")
	default:
		c.Conn.CloseAfterReply()
		c.Env.Server.Shutdown(!noSave)
	}
}
