package commands

var qack = &Spec{
	Name:    "QACK",
	Summary: "Acknowledge a batch or some of its messages",
	Group:   GroupConsuming,
	Reply:   "integer: how many messages this call acknowledged; 0 for a batch that its holder resolved already, so a call may be repeated safely.",
	Notes: []string{
		"An acknowledged message is removed for ever. An id that was never in the batch is an error, and nothing changes. A " +
			"batch that expired or was superseded gets `-NOBATCH`, and nothing changes. Renews the lock.",
	},
	Errors: []string{"NOBATCH", "NOQUEUE", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "batch", Type: ArgInteger, Min: 1, Text: "The first element of QCONSUME's answer."},
		{Name: "id", Type: ArgInteger, Min: 1, Optional: true, Multiple: true, Text: "Only these messages. Default: all that are unresolved."},
	},
	Flags: FlagWrite | FlagFast | FlagPrompt,
	Run:   runQAck,
}

func runQAck(c *Call) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	n, after, err := c.Env.Queues.Ack(a.word("queue"), uint64(a.integer("batch", 0)), a.ids)
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.Int(int64(n))
}
