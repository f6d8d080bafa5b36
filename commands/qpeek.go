package commands

import (
	"quail/queue"
	"quail/queue/machine"
)

var qpeek = &Spec{
	Name:    "QPEEK",
	Summary: "Look at messages without consuming them",
	Group:   GroupManaging,
	Reply: "array of messages, lowest id first. Each is an array as in QCONSUME, with the state as sixth element: ready, delayed, leased, " +
		"or retrying. Attempt 0: never delivered.",
	Notes: []string{
		"It changes nothing and needs no lock. An answer holds at most 4mb of bodies, but always one message if there is one: go on with FROM, " +
			"one above the last id. An empty array means that there are no more. It may read the log, which holds up this connection alone.",
	},
	Errors: []string{"NOQUEUE", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "state", Type: ArgOneOf, Token: "STATE", Optional: true, Text: "Only messages in this state. Default: any.", Args: []Arg{
			{Name: "ready", Type: ArgPureToken, Token: "READY"},
			{Name: "delayed", Type: ArgPureToken, Token: "DELAYED"},
			{Name: "leased", Type: ArgPureToken, Token: "LEASED"},
			{Name: "retrying", Type: ArgPureToken, Token: "RETRYING"},
		}},
		{Name: "from", Type: ArgInteger, Token: "FROM", Display: "id", Optional: true, Text: "Only messages from this id on. Default: 0, all."},
		{Name: "count", Type: ArgInteger, Token: "COUNT", Display: "n", Optional: true, Min: 1, Max: optionMax(machine.BatchCount),
			Text: "At most so many. Default: 10."},
	},
	Flags: FlagReadOnly,
	Run:   runQPeek,
}

// qpeekCount is the default of COUNT: what a person reads at once.
const qpeekCount = 10

var statesByToken = map[string]machine.State{
	"READY": machine.Ready, "DELAYED": machine.Delayed, "LEASED": machine.Leased, "RETRYING": machine.Retrying,
}

func runQPeek(c *Call) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	state := statesByToken[a.choice("state")] // Gone, which stands for any, if there is none
	after, err := c.Env.Queues.Peek(a.word("queue"), state, uint64(a.integer("from", 0)), int(a.integer("count", qpeekCount)), func(list []queue.Found) {
		size := messageOverheadBytes
		for i := range list {
			size += len(list[i].Body) + messageOverheadBytes
		}
		c.W.Grow(size) // at once: large bodies would be copied again and again
		c.W.Array(len(list))
		for i := range list {
			writeFound(c.W, &list[i])
		}
	})
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
	}
}
