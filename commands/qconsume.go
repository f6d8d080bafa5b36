package commands

import (
	"quail/commands/resp"
	"quail/queue"
	"quail/queue/machine"
)

var qconsume = &Spec{
	Name:    "QCONSUME",
	Summary: "Pull a batch of messages",
	Group:   GroupConsuming,
	Reply: "null, or an array: the batch, its deadline (unix ms), and an array of messages. Each message is an array: id, body, " +
		"attempt (1 = the first), when it was pushed (unix ms), headers (a map; in RESP2 a flat array).",
	Notes: []string{
		"Takes the queue's lock for the consumer if it is free, and renews it if it is the consumer's own. While another " +
			"consumer holds it the answer is `-LOCKED`, or with BLOCK the consumer waits in line. The queue is made if it is missing.",
		"The batch is leased: it must be acknowledged with QACK, or given back with QNACK, before its deadline. If it is not, what " +
			"is left of it goes back to the queue as a failed attempt. Messages that went back come first, lowest id first.",
		"Without BLOCK the answer comes now; FILL still holds a batch that has messages. While the queue has `max-open-batches` " +
			"open batches, nothing more is delivered. Later commands on the connection wait for the answer.",
	},
	Errors: []string{"LOCKED", "WRONGTOKEN", "PAUSED", "NOQUEUE", "QFULL", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "consumer", Text: "Who asks; all connections with one name are one holder."},
		{Name: "token", Type: ArgInteger, Token: "TOKEN", Optional: true, Min: 1,
			Text: "Refuse with `-WRONGTOKEN` unless that very tenure still holds."},
		{Name: "count", Type: ArgInteger, Token: "COUNT", Optional: true, Min: 1, Max: optionMax(machine.BatchCount),
			Text: "At most so many messages. Default: the queue's `batch-count`."},
		{Name: "bytes", Type: ArgInteger, Token: "BYTES", Optional: true, Min: 1, Max: optionMax(machine.BatchBytes),
			Text: "At most so many bytes of bodies, but always one message. Default: the queue's `batch-bytes`."},
		{Name: "fill", Type: ArgInteger, Token: "FILL", Display: "ms", Optional: true, Max: optionMax(machine.BatchFill),
			Text: "How long the batch may be held open to grow, counted from the arrival of its oldest message. Default: the queue's `batch-fill`."},
		{Name: "block", Type: ArgInteger, Token: "BLOCK", Display: "ms", Optional: true, Max: blockMillisMax,
			Text: "Wait that long for a message; 0 waits without end."},
		{Name: "lease", Type: ArgInteger, Token: "LEASE", Display: "ms", Optional: true, Min: 1, Max: optionMax(machine.Lease),
			Text: "The time to acknowledge. Default: the queue's `lease`."},
	},
	Flags: FlagWrite | FlagNoScript | FlagBlocking | FlagPrompt,
	Run:   runQConsume,
}

func runQConsume(c *Call) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	request := queue.ConsumeRequest{
		Queue:       a.word("queue"),
		Consumer:    a.word("consumer"),
		Token:       uint64(a.integer("token", 0)),
		HasToken:    a.has("token"),
		Count:       int(a.integer("count", -1)),
		Bytes:       a.integer("bytes", -1),
		FillMillis:  a.integer("fill", -1),
		LeaseMillis: a.integer("lease", -1),
		Block:       a.has("block"),
		BlockMillis: a.integer("block", 0),
	}
	queues := c.Env.Queues
	parked := c.Park()
	parked.OnCancel(queues.Consume(request, func(b *queue.Batch, after *queue.Future, err error) {
		delivered := parked.Reply(after, func(w *resp.Writer) {
			switch {
			case err != nil:
				writeErr(w, err)
			case b == nil:
				w.NullArray()
			default:
				writeBatch(w, b)
			}
		})
		if !delivered && b != nil {
			// The client went away while its batch was chosen. Without this the messages would wait for the whole lease and
			// count as failed. On a goroutine of its own, since done may run on the committer's, which Return may need.
			go queues.Return(request.Queue, b.ID)
		}
	}))
}
