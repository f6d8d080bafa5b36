package commands

var qpush = &Spec{
	Name:    "QPUSH",
	Summary: "Push messages to the end of a queue",
	Group:   GroupProducing,
	Reply:   "integer: the id of the first message. The ids of the others follow without a gap.",
	Notes: []string{
		"All messages are pushed or none. The reply comes when they are on stable storage. The queue is made if it is missing " +
			"(setting `auto-create`). There are no options, so no body can be mistaken for one; QPUSHEX has options.",
	},
	Errors: []string{"NOQUEUE", "PAUSED", "QFULL", "TOOBIG", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "body", Multiple: true, Text: "Any bytes, from none up to `max-message-bytes`; all together at most `max-push-bytes`."},
	},
	Flags: FlagWrite | FlagDenyOOM | FlagFast | FlagKeyInsert | FlagPrompt | FlagBorrows,
	Run:   runQPush,
}

// runQPush hands the words on as they came: nothing is copied and nothing allocated here.
func runQPush(c *Call) {
	first, after, err := c.Env.Queues.Push(c.Args[1], c.Args[2:])
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.Int(int64(first))
}
