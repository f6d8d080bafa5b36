package commands

var qpurge = &Spec{
	Name:    "QPURGE",
	Summary: "Remove all messages that are not leased",
	Group:   GroupManaging,
	Reply:   "integer: how many were removed. Leased messages stay.",
	Notes: []string{
		"With BEFORE the log is read from the first ready message up to that id, which holds up this connection alone. Without it nothing is read.",
	},
	Errors: []string{"NOQUEUE", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "before", Type: ArgInteger, Token: "BEFORE", Display: "id", Optional: true, Min: 1, Text: "Only messages with a lower id."},
	},
	Flags: FlagWrite,
	Run:   runQPurge,
}

func runQPurge(c *Call) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	n, after, err := c.Env.Queues.Purge(a.word("queue"), uint64(a.integer("before", 0))) // 0: all
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.Int(n)
}
