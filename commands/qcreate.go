package commands

var qcreate = &Spec{
	Name:    "QCREATE",
	Summary: "Make a queue with options",
	Group:   GroupManaging,
	Reply:   "OK, also if the queue is there with the same options.",
	Notes: []string{
		"An option that is not given has the server's default, now and when that default changes later. Sizes may be written " +
			"as 16kb or 1mb. QCONFIG SET changes options later.",
	},
	Errors:   []string{"EXISTS", "QFULL", "WALERR"},
	Args:     []Arg{{Name: "queue", Type: ArgKey}, optionPairsArg(true)},
	AlsoKeys: func(words [][]byte) []Key { return deadLetterQueueIn(words[2:]) },
	Flags:    FlagWrite | FlagKeyInsert,
	Run:      runQCreate,
}

func runQCreate(c *Call) {
	options, ok := c.queueOptions(c.Args[2:])
	if !ok {
		return
	}
	after, err := c.Env.Queues.Create(c.Args[1], options)
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.OK()
}
