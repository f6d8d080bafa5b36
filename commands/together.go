package commands

// A pipeline of pushes to one queue is one push of many bodies, with a reply for each: the queue's lock, the limits, the journal's
// lock and the commit cost the same for one message as for thirty. It was measured to take a sixth off the server's CPU for a message
// that comes in a pipeline of sixteen (docs/benchmarks.md).

// TogetherMax is how many calls may run together. It keeps the words below what the slow log measures.
const TogetherMax = promptWords / 2

// togetherWords is how many words such a call has: QPUSH, queue, body.
const togetherWords = 3

// StartsTogether reports whether calls that follow may run together with one of these words, if they fit it. Somebody who looks
// at each command, in MONITOR or in a slow log that lists quick ones, sees each.
func (e *Env) StartsTogether(words [][]byte) bool {
	return len(words) == togetherWords && Lookup(words[0]) == qpush && e.Monitors.Load() == 0 && e.Slowlog.ignoresPrompt()
}

// FitsTogether reports whether next is the same command with the same queue as first, for which StartsTogether holds.
func FitsTogether(first, next [][]byte) bool {
	return len(next) == togetherWords && string(next[1]) == string(first[1]) &&
		(string(next[0]) == string(first[0]) || Lookup(next[0]) == qpush)
}

// CallsTogether is how many calls are in such words.
func CallsTogether(words [][]byte) int { return len(words) - togetherWords + 1 }

// RunTogether runs calls that fit each other. The call's words are the first one's, with the bodies of the others behind them; each
// gets its own reply. False: nothing was done and nothing written, and the calls must be run one by one, so that each gets the
// answer that it would have got alone.
func RunTogether(c *Call) bool {
	c.spec = qpush
	c.Conn.Began(qpush)
	rights := c.Conn.Rights()
	if rights == nil {
		return false
	}
	if _, denied := qpush.denied(rights, c.Args); denied {
		return false
	}
	if c.Env.Queues.Loading() != nil {
		return false
	}
	timed, calls := c.Env.Stats.begin(qpush), CallsTogether(c.Args)
	first, after, err := c.Env.Queues.Push(c.Args[1], c.Args[2:])
	if err != nil {
		return false
	}
	c.Env.Stats.end(qpush, timed, calls)
	c.After(after)
	for i := range calls {
		c.W.Int(int64(first) + int64(i))
	}
	c.Env.Stats.countCalls(qpush, calls)
	return true
}
