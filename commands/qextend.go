package commands

import "quail/queue/machine"

var qextend = &Spec{
	Name:    "QEXTEND",
	Summary: "Set a new deadline for a batch",
	Group:   GroupConsuming,
	Reply:   "integer: the new deadline (unix ms).",
	Notes:   []string{"The lease ends that long from now, be that later or sooner than before. Renews the lock."},
	Errors:  []string{"NOBATCH", "NOQUEUE", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "batch", Type: ArgInteger, Min: 1, Text: "The first element of QCONSUME's answer."},
		{Name: "ms", Type: ArgInteger, Min: 1, Max: optionMax(machine.Lease), Text: "The time to acknowledge, from now."},
	},
	Flags: FlagWrite | FlagFast | FlagPrompt,
	Run:   runQExtend,
}

func runQExtend(c *Call) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	deadline, after, err := c.Env.Queues.Extend(a.word("queue"), uint64(a.integer("batch", 0)), a.integer("ms", 0))
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.Int(deadline)
}
