package commands

var ttl = &Spec{
	Name:    "TTL",
	Summary: "Tell that a queue never expires",
	Group:   GroupKeys,
	Reply:   "integer: -1, or -2 if the queue does not exist.",
	Args:    []Arg{{Name: "queue", Type: ArgKey}},
	Flags:   FlagReadOnly | FlagFast,
	Run:     runTTL,
}

func runTTL(c *Call) {
	if c.exists(c.Args[1]) {
		c.W.Int(-1)
		return
	}
	c.W.Int(-2)
}
