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
		if c.exists(name) {
			n++
		}
	}
	c.W.Int(n)
}

// exists reports whether there is such a queue. The reply waits until its making or its deletion is durable: otherwise a
// crash could take back what a client was told.
func (c *Call) exists(name []byte) bool {
	found := c.Env.Queues.Exists(name)
	c.After(c.Env.Queues.NamesAfter())
	return found
}
