package commands

import (
	"quail/commands/resp"
	"quail/queue"
)

var qinfo = &Spec{
	Name:    "QINFO",
	Summary: "Tell everything about one queue, and why a pull would get nothing",
	Group:   GroupManaging,
	Reply:   "map: the keys below.",
	Fields:  fieldsOf(infoKeys),
	Errors:  []string{"NOQUEUE", "WALERR"},
	Args:    []Arg{{Name: "queue", Type: ArgKey}},
	Flags:   FlagReadOnly,
	Run:     runQInfo,
}

// infoKey is one key of QINFO's map, with how its value is written.
type infoKey struct {
	Field
	write func(w *resp.Writer, i *queue.Info)
}

func fieldsOf(list []infoKey) []Field {
	fields := make([]Field, len(list))
	for i := range list {
		fields[i] = list[i].Field
	}
	return fields
}

func number(name, doc string, value func(i *queue.Info) int64) infoKey {
	return infoKey{Field{name, "integer", doc}, func(w *resp.Writer, i *queue.Info) { w.Int(value(i)) }}
}

func text(name, doc string, value func(i *queue.Info) string) infoKey {
	return infoKey{Field{name, "string", doc}, func(w *resp.Writer, i *queue.Info) { w.BulkString(value(i)) }}
}

// infoKeys are in the order of the reply. Scripts read them by name: none may go or change its meaning.
var infoKeys = []infoKey{
	text("name", "The queue's name.", func(i *queue.Info) string { return i.Name }),
	number("incarnation", "Number of this life of the queue; another one if it is deleted and made again.",
		func(i *queue.Info) int64 { return int64(i.Incarnation) }),
	number("created", "When it was made (unix ms).", func(i *queue.Info) int64 { return i.CreatedMillis }),
	text("blocked-reason", "In one sentence, why a pull would get nothing now, and what to do; empty if it would get something.",
		func(i *queue.Info) string { return i.BlockedReason }),
	text("paused", "What QPAUSE has stopped: `push`, `consume`, `push consume`, or nothing.", paused),

	number("messages", "Messages that are not acknowledged, in any state.", func(i *queue.Info) int64 { return i.Counts.Total() }),
	number("messages-ready", "Messages that were never delivered and wait for nothing but a pull.", func(i *queue.Info) int64 { return i.Counts.Ready }),
	number("messages-delayed", "Messages that were pushed with a delay and not delivered yet; those that are due count here until a pull gets them.", func(i *queue.Info) int64 { return i.Counts.Delayed }),
	number("messages-leased", "Messages in open batches.", func(i *queue.Info) int64 { return i.Counts.Leased }),
	number("messages-retrying", "Messages that were delivered and went back; those that are due count here until a pull gets them.", func(i *queue.Info) int64 { return i.Counts.Retrying }),
	number("bytes", "Bytes of the bodies of all these.", func(i *queue.Info) int64 { return i.Counts.TotalBytes() }),
	number("bytes-ready", "Bytes of the ready messages' bodies.", func(i *queue.Info) int64 { return i.Counts.ReadyBytes }),
	number("bytes-delayed", "Bytes of the delayed messages' bodies.", func(i *queue.Info) int64 { return i.Counts.DelayedBytes }),
	number("bytes-leased", "Bytes of the leased messages' bodies.", func(i *queue.Info) int64 { return i.Counts.LeasedBytes }),
	number("bytes-retrying", "Bytes of the retrying messages' bodies.", func(i *queue.Info) int64 { return i.Counts.RetryingBytes }),
	number("oldest-age-ms", "Time since the oldest message was pushed; 0 if there is none.", func(i *queue.Info) int64 { return i.OldestAgeMillis }),

	number("first-id", "Lowest id that is not acknowledged; 0 if there is none.", func(i *queue.Info) int64 { return int64(i.FirstID) }),
	number("next-id", "No message below it can come any more.", func(i *queue.Info) int64 { return int64(i.NextID) }),
	number("cursor", "Messages above it were never delivered.", func(i *queue.Info) int64 { return int64(i.Cursor) }),

	text("lock-holder", "The consumer that holds the lock; empty if it is free.", func(i *queue.Info) string { return i.Holder }),
	number("lock-token", "The tenure's token; 0 if the lock is free.", func(i *queue.Info) int64 { return int64(i.Token) }),
	number("lock-ms-left", "Until the lock lapses, if nothing renews it.", func(i *queue.Info) int64 { return i.LockMillisLeft }),
	number("waiting", "Consumers that wait, for the lock or for messages.", func(i *queue.Info) int64 { return int64(i.Waiting) }),
	number("open-batches", "Batches that are leased.", func(i *queue.Info) int64 { return int64(len(i.Batches)) }),

	number("total-pushed", "Since the queue was made, as all totals.", func(i *queue.Info) int64 { return int64(i.Counts.Pushed) }),
	number("total-delivered", "Deliveries; a message counts at each attempt.", func(i *queue.Info) int64 { return int64(i.Counts.Delivered) }),
	number("total-acknowledged", "Messages acknowledged, and so removed.", func(i *queue.Info) int64 { return int64(i.Counts.Acknowledged) }),
	number("total-failed", "Failed attempts: given back, expired leases, lapsed locks.", func(i *queue.Info) int64 { return int64(i.Counts.Failed) }),
	number("total-expired", "Messages removed at the end of their TTL.", func(i *queue.Info) int64 { return int64(i.Counts.Expired) }),
	number("total-dead-lettered", "Messages moved to the dead-letter queue.", func(i *queue.Info) int64 { return int64(i.Counts.DeadLettered) }),
	number("total-deduplicated", "Pushes that added nothing.", func(i *queue.Info) int64 { return int64(i.Counts.Deduplicated) }),

	number("log-segments", "Files of the queue's log.", func(i *queue.Info) int64 { return int64(i.Segments) }),
	number("log-bytes", "Their size.", func(i *queue.Info) int64 { return i.LogBytes }),
	number("log-live-bytes", "What of it is bodies that are not acknowledged.", func(i *queue.Info) int64 { return i.LiveBytes }),
}

func paused(i *queue.Info) string {
	switch {
	case i.PushPaused && i.ConsumePaused:
		return "push consume"
	case i.PushPaused:
		return "push"
	case i.ConsumePaused:
		return "consume"
	}
	return ""
}

func runQInfo(c *Call) {
	info, after, err := c.Env.Queues.Info(c.Args[1])
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.Map(len(infoKeys))
	for i := range infoKeys {
		c.W.BulkString(infoKeys[i].Name)
		infoKeys[i].write(c.W, info)
	}
}
