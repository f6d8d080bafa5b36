package commands

var typeOf = &Spec{
	Name:    "TYPE",
	Summary: "Tell whether a name is a queue",
	Group:   GroupKeys,
	Reply:   "queue, or none.",
	Args:    []Arg{{Name: "queue", Type: ArgKey}},
	Flags:   FlagReadOnly | FlagFast,
	Run:     runType,
}

func runType(c *Call) {
	if c.exists(c.Args[1]) {
		c.W.Simple("queue")
		return
	}
	c.W.Simple("none")
}
