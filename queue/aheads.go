package queue

// What all queues together have read ahead. Each keeps up to two reads, so that its consumer need not wait for the disk, and with
// thousands of backlogs that would be gigabytes, kept for as long as nobody comes for the rest. So the more queues keep something, the less
// each reads at once; and past the bound those forget theirs that were served least recently. They read it again.

import (
	"cmp"
	"container/list"
	"sync"
)

const (
	// aheadBytesMax bounds what all queues keep together: as much as 64 of them with all they may have.
	aheadBytesMax = 64 << 20
	// reachBytesMin is the least that is read at once: a small batch should not take several reads.
	reachBytesMin = 32 << 10
)

// aheads is the queues that keep something.
type aheads struct {
	// mu guards what follows and the fields aheadBytes and aheadAt of all queues. It is taken with a queue's lock held, so no queue's lock is
	// waited for under it; and it is never held during IO.
	mu    sync.Mutex
	queue list.List // of *queue, the one served least recently first
	bytes int

	bytesMax int // 0: aheadBytesMax
}

func (a *aheads) most() int { return cmp.Or(a.bytesMax, aheadBytesMax) }

// reachBytes is how much a queue may read at once now.
func (a *aheads) reachBytes() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return min(max(a.most()/2/max(a.queue.Len(), 1), reachBytesMin), reachBytes)
}

// note takes over how much q keeps, and has others forget theirs if that is too much in all. Called with q's lock held.
func (a *aheads) note(q *queue) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.set(q, q.reach.size)
	for at := a.queue.Front(); at != nil && a.bytes > a.most(); {
		other := at.Value.(*queue)
		at = at.Next()
		if other == q || !other.mu.TryLock() { // it is being served
			continue
		}
		other.reach = reach{}
		a.set(other, 0)
		other.mu.Unlock()
	}
}

// set makes q the one served last, or takes it out if it keeps nothing. Called with mu held.
func (a *aheads) set(q *queue, bytes int) {
	a.bytes += bytes - q.aheadBytes
	q.aheadBytes = bytes
	switch {
	case bytes == 0 && q.aheadAt != nil:
		a.queue.Remove(q.aheadAt)
		q.aheadAt = nil
	case bytes == 0:
	case q.aheadAt == nil:
		q.aheadAt = a.queue.PushBack(q)
	default:
		a.queue.MoveToBack(q.aheadAt)
	}
}

// forgetAhead lets go of what was read ahead. Called with mu held.
func (q *queue) forgetAhead() {
	q.reach = reach{}
	q.set.aheads.note(q)
}
