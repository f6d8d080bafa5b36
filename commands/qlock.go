package commands

import (
	"quail/commands/resp"
	"quail/queue"
	"quail/queue/machine"
)

var qlock = &Spec{
	Name:    "QLOCK",
	Summary: "Take, renew or wait for the right to consume a queue",
	Group:   GroupConsuming,
	Reply:   "integer: the token of the tenure. Null if BLOCK ended first.",
	Notes: []string{
		"The holder renews its lock by asking again and gets the same token. While another consumer holds the lock the answer " +
			"is `-LOCKED`, or with BLOCK the consumer waits in line, first come, first served. The queue is made if it is missing.",
	},
	Errors: []string{"LOCKED", "NOQUEUE", "QFULL", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "consumer", Text: "Who asks; all connections with one name are one holder."},
		{Name: "ttl", Type: ArgInteger, Token: "TTL", Display: "ms", Optional: true, Min: 1, Max: optionMax(machine.LockTTL),
			Text: "How long the lock holds without renewal, for this tenure. Default: the queue's `lock-ttl`."},
		{Name: "block", Type: ArgInteger, Token: "BLOCK", Display: "ms", Optional: true, Max: blockMillisMax,
			Text: "Wait that long; 0 waits without end."},
	},
	Flags: FlagWrite | FlagNoScript | FlagBlocking | FlagPrompt,
	Run:   runQLock,
}

func runQLock(c *Call) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	request := queue.LockRequest{
		Queue:       a.word("queue"),
		Consumer:    a.word("consumer"),
		TTLMillis:   a.integer("ttl", 0),
		Block:       a.has("block"),
		BlockMillis: a.integer("block", 0),
	}
	parked := c.Park()
	// A token that reaches nobody is not given back: the consumer gets the same one when it asks again, and otherwise the
	// lock lapses.
	parked.OnCancel(c.Env.Queues.Lock(request, func(token uint64, after *queue.Future, err error) {
		parked.Reply(after, func(w *resp.Writer) {
			switch {
			case err != nil:
				writeErr(w, err)
			case token == 0:
				w.NullBulk()
			default:
				w.Int(int64(token))
			}
		})
	}))
}
