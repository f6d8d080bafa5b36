package commands

var echo = &Spec{
	Name:    "ECHO",
	Summary: "Return the message",
	Group:   GroupConnection,
	Reply:   "bulk string: the message.",
	Args:    []Arg{{Name: "message"}},
	Flags:   FlagFast | FlagLoading | FlagStale | FlagPrompt,
	Run:     func(c *Call) { c.W.Bulk(c.Args[1]) },
}
