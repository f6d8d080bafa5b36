package commands

var ping = &Spec{
	Name:    "PING",
	Summary: "Ask whether the server answers",
	Group:   GroupConnection,
	Reply:   "PONG, or the message as a bulk string.",
	Args:    []Arg{{Name: "message", Optional: true}},
	Flags:   FlagFast | FlagPrompt | FlagLoading,
	Tips:    []string{"request_policy:all_shards", "response_policy:all_succeeded"},
	Run:     runPing,
}

func runPing(c *Call) {
	switch len(c.Args) {
	case 1:
		c.W.Simple("PONG")
	case 2:
		c.W.Bulk(c.Args[1])
	default:
		c.wrongArity()
	}
}
