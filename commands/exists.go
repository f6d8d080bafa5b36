package commands

var exists = &Spec{
	Name:    "EXISTS",
	Summary: "Count how many of the queues exist",
	Group:   GroupKeys,
	Reply:   "integer. A queue that is named twice counts twice.",
	Args:    []Arg{{Name: "queue", Type: ArgKey, Multiple: true}},
	Flags:   FlagReadOnly | FlagFast,
	Run:     runExists,
}

func runExists(c *Call) {
	n := int64(0)
	for _, name := range c.Args[1:] {
		if c.Env.Queues.Exists(name) {
			n++
		}
	}
	c.W.Int(n)
}
