package commands

var qget = &Spec{
	Name:    "QGET",
	Summary: "Look at one message",
	Group:   GroupManaging,
	Reply:   "null if the message is not there (any more), or an array as in QPEEK.",
	Errors:  []string{"NOQUEUE", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "id", Type: ArgInteger, Min: 1},
	},
	Flags: FlagReadOnly,
	Run:   runQGet,
}

func runQGet(c *Call) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	found, after, err := c.Env.Queues.Get(a.word("queue"), uint64(a.integer("id", 0)))
	c.After(after)
	switch {
	case err != nil:
		c.ReplyErr(err)
	case found == nil:
		c.W.NullArray()
	default:
		writeFound(c.W, found)
	}
}
