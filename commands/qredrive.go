package commands

var qredrive = &Spec{
	Name:    "QREDRIVE",
	Summary: "Move messages of a dead-letter queue back to where they came from",
	Group:   GroupManaging,
	Reply:   "integer: how many were moved.",
	Notes: []string{
		"Each message goes to the end of the queue that it came from, or of the one that TO names, with a new id and no failed attempts. A queue that is " +
			"missing is made (setting `auto-create`). Leased messages stay, and without TO also those that did not come from another queue. The move neither loses " +
			"nor doubles a message, whenever the server dies.",
		"A queue that is paused for pushes takes none, and one with `max-messages` or `max-bytes` no more than fit; what does not stays where it is. (Dead letters " +
			"themselves are always taken.)",
		"A user whose rules do not allow writing to all queues must name one with TO.",
		"An error may come after some messages were moved: call again for the rest.",
	},
	Errors: []string{"NOQUEUE", "PAUSED", "QFULL", "WALERR"},
	Args: []Arg{
		{Name: "dead-queue", Type: ArgKey},
		{Name: "to", Type: ArgKey, Token: "TO", Display: "queue", Optional: true, Text: "Where all of them go. Default: where each came from."},
		{Name: "count", Type: ArgInteger, Token: "COUNT", Display: "n", Optional: true, Min: 1, Text: "At most so many, lowest id first. Default: all."},
	},
	// The queues that dead letters came from are in their headers, not among the words.
	NamesAll: func(words [][]byte) bool { return !hasOption(words, "TO") },
	NamesAllHint: "without TO each message goes to the queue that it came from, so all queues must be allowed (~*); " +
		"or name one with TO",
	Flags: FlagWrite,
	Run:   runQRedrive,
}

func runQRedrive(c *Call) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	n, after, err := c.Env.Queues.Redrive(a.word("dead-queue"), a.word("to"), int(a.integer("count", 0))) // 0: all
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.Int(int64(n))
}
