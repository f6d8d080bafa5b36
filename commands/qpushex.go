package commands

import (
	"quail/queue"
	"quail/queue/machine"
)

var qpushex = &Spec{
	Name:    "QPUSHEX",
	Summary: "Push messages with a delay, a time to live, a deduplication id, headers",
	Group:   GroupProducing,
	Reply:   "integer: the id of the first message. The ids of the others follow without a gap.",
	Notes: []string{
		"As QPUSH, with options, which hold for each of the messages. The count says how many of the words are bodies, so a body may look " +
			"like an option.",
		"With DEDUP, a second push with that id adds nothing and returns the first one's id, also if the first message was consumed since. The id " +
			"is remembered for the queue's `dedup-window`, counted from the first push, across restarts too. While `dedup-max` ids are remembered, a push with " +
			"another one gets `-QFULL`.",
	},
	Errors: []string{"NOQUEUE", "PAUSED", "QFULL", "TOOBIG", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "count", Type: ArgInteger, Min: 1, Text: "How many bodies follow."},
		{Name: "body", Multiple: true, Counted: true, Text: "Any bytes, from none up to `max-message-bytes`; all together, with the headers of each, at most `max-push-bytes`."},
		{Name: "due", Type: ArgOneOf, Optional: true, Args: []Arg{
			{Name: "delay", Type: ArgInteger, Token: "DELAY", Display: "ms", Max: optionMax(machine.Delay),
				Text: "Not delivered before so much time has passed. 0 is at once. Default: the queue's `delay`."},
			{Name: "at", Type: ArgInteger, Token: "AT", Display: "unix-ms", Min: 1,
				Text: "Not delivered before this moment. One that has passed is at once; one that is more than ten years away is refused."},
		}},
		{Name: "ttl", Type: ArgInteger, Token: "TTL", Display: "ms", Optional: true, Max: optionMax(machine.TTL),
			Text: "Removed instead of delivered when so much time has passed since the push. 0 is for ever. Default: the queue's `ttl`."},
		{Name: "dedup", Token: "DEDUP", Display: "id", Optional: true, BytesMax: machine.DedupBytesMax,
			Text: "The deduplication id, 1 to 128 bytes. Only with a count of 1."},
		{Name: "headers", Type: ArgBlock, Token: "HEADERS", Optional: true, Args: []Arg{
			{Name: "n", Type: ArgInteger, Min: 1, Max: machine.HeadersMax, Text: "How many names and values follow."},
			{Name: "header", Type: ArgBlock, Multiple: true, Counted: true, Args: []Arg{
				{Name: "name", Text: "Any bytes, each name once. Names that begin with quail-origin- are Quail's own; see `dead-letter-queue`."},
				{Name: "value", Text: "Any bytes. All names and values together have at most 64kb."},
			}},
		}},
	},
	Flags: FlagWrite | FlagDenyOOM | FlagFast | FlagKeyInsert | FlagPrompt | FlagBorrows,
	Run:   runQPushEx,
}

func runQPushEx(c *Call) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	options := queue.PushOptions{HasTTL: a.has("ttl"), TTLMillis: a.integer("ttl", 0), Dedup: a.word("dedup")}
	switch a.choice("due") {
	case "DELAY":
		options.HasDelay, options.DelayMillis = true, a.integer("due", 0)
	case "AT":
		options.AtMillis = a.integer("due", 0)
	}
	if len(a.counted) > 0 {
		options.Headers = make([][2][]byte, 0, len(a.counted)/2)
		for words := a.counted; len(words) > 0; words = words[2:] {
			options.Headers = append(options.Headers, [2][]byte{words[0], words[1]})
		}
	}
	first, after, err := c.Env.Queues.PushWith(a.word("queue"), a.rest, options)
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.Int(int64(first))
}
