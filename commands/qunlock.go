package commands

var qunlock = &Spec{
	Name:    "QUNLOCK",
	Summary: "End a tenure and let the next consumer in",
	Group:   GroupConsuming,
	Reply:   "integer: 1, or 0 if that token no longer holds.",
	Notes: []string{
		"Open batches of the tenure go back at once, and that does not count as a failed attempt.",
	},
	Errors: []string{"NOQUEUE", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "token", Type: ArgInteger, Min: 1, Text: "What QLOCK answered, or QINFO shows."},
	},
	Flags: FlagWrite | FlagFast | FlagPrompt,
	Run:   runQUnlock,
}

func runQUnlock(c *Call) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	released, after, err := c.Env.Queues.Unlock(a.word("queue"), uint64(a.integer("token", 0)))
	c.After(after)
	switch {
	case err != nil:
		c.ReplyErr(err)
	case released:
		c.W.Int(1)
	default:
		c.W.Int(0)
	}
}
