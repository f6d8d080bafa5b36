package commands

var qlen = &Spec{
	Name:    "QLEN",
	Summary: "Count a queue's messages that are not acknowledged",
	Group:   GroupManaging,
	Reply:   "integer: messages in any state: ready, delayed, leased, retrying. 0 for a queue that does not exist.",
	Errors:  []string{"WALERR"},
	Args:    []Arg{{Name: "queue", Type: ArgKey}},
	Flags:   FlagReadOnly | FlagFast | FlagPrompt,
	Run:     runQLen,
}

func runQLen(c *Call) {
	n, after, err := c.Env.Queues.Len(c.Args[1])
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.Int(n)
}
