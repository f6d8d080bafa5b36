package commands

import "quail/queue/machine"

var qnack = &Spec{
	Name:    "QNACK",
	Summary: "Give a batch or some of its messages back",
	Group:   GroupConsuming,
	Reply:   "integer: how many messages went back; 0 for a batch that its holder resolved already.",
	Notes: []string{
		"Without RELEASE and DEAD it counts as a failed attempt, and the messages come back after the queue's `retry-delay`. One whose " +
			"`max-attempts` are used up goes to the dead-letter queue instead. Errors and renewal of the lock are as with QACK.",
		"DEAD moves them to the end of the dead-letter queue now, where they are ready under a new id, with headers behind their own: quail-origin-queue, " +
			"quail-origin-id, quail-origin-attempts, and quail-origin-reason, which is `refused`, or `max-attempts` if a message was moved because they " +
			"were used up. That queue is made if it is missing. The move neither loses nor doubles a message. QREDRIVE moves them back.",
	},
	Errors: []string{"NOBATCH", "NOQUEUE", "QFULL", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "batch", Type: ArgInteger, Min: 1, Text: "The first element of QCONSUME's answer."},
		{Name: "delay", Type: ArgInteger, Token: "DELAY", Display: "ms", Optional: true, Max: optionMax(machine.RetryDelay),
			Text: "When the messages come back; it has no meaning with DEAD. Default: the queue's `retry-delay`."},
		{Name: "fate", Type: ArgOneOf, Optional: true, Args: []Arg{
			{Name: "release", Type: ArgPureToken, Token: "RELEASE", Text: "Not counted as a failed attempt."},
			{Name: "dead", Type: ArgPureToken, Token: "DEAD", Text: "Straight to the dead-letter queue."},
		}},
		{Name: "id", Type: ArgInteger, Min: 1, Optional: true, Multiple: true, Text: "Only these messages. Default: all that are unresolved."},
	},
	Flags: FlagWrite | FlagFast,
	Run:   runQNack,
}

func runQNack(c *Call) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	mode := machine.Retry
	switch a.choice("fate") {
	case "RELEASE":
		mode = machine.Release
	case "DEAD":
		mode = machine.Dead
	}
	n, after, err := c.Env.Queues.Nack(a.word("queue"), uint64(a.integer("batch", 0)), mode, a.integer("delay", -1), a.ids)
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.Int(int64(n))
}
