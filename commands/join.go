package commands

// A reply that rests on several commits waits for all of them, and fails if any failed: DEL of two queues may fall into
// two groups of the journal, of which only the first is lost.

import (
	"sync/atomic"

	"quail/queue"
)

// joint completes out when both parts are done. It is registered with each of them.
type joint struct {
	pending      atomic.Int32
	first, other *queue.Future
	out          *queue.Future
}

// join returns a Future that is done when a and b are, with the error of a, or else of b.
func join(a, b *queue.Future) *queue.Future {
	if a.Done() && a.Err() == nil {
		return b
	}
	if b.Done() && b.Err() == nil {
		return a
	}
	j := &joint{first: a, other: b, out: new(queue.Future)}
	j.pending.Store(2)
	a.Notify(j)
	b.Notify(j)
	return j.out
}

// Durable counts one part as done.
func (j *joint) Durable() {
	if j.pending.Add(-1) > 0 {
		return
	}
	err := j.first.Err()
	if err == nil {
		err = j.other.Err()
	}
	j.out.Complete(err)
}
