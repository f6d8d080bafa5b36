package machine

// Messages that wait outside the log's order: delayed ones, and those that came back.
//
// Two heaps hold them. due is ordered by time: what may not be delivered yet. returned is ordered by id: what may. PeekReturned
// moves messages whose time has come from the first to the second, and both heaps are slices of 24-byte entries, so a million of
// them cost 24 MB and no pointer for the collector to follow.

import (
	"cmp"
	"slices"
)

const (
	// failedMax bounds the failed attempts that are counted: the count shares its 32 bits with a mark.
	failedMax = 1<<31 - 1
	// seenMark is set in waiting.failedAndSeen once a message was delivered.
	seenMark = 1 << 31
	// shrinkAbove is the capacity in entries below which a heap keeps its memory.
	shrinkAbove = 1024
)

// waiting is one delayed or retrying message.
type waiting struct {
	id            uint64
	dueMillis     int64 // unix milliseconds; 0 is at once
	sizeBytes     uint32
	failedAndSeen uint32
}

func (w *waiting) failed() uint32 { return w.failedAndSeen & failedMax }

// seen reports whether the message was delivered before: then it is retrying, else delayed.
func (w *waiting) seen() bool { return w.failedAndSeen&seenMark != 0 }

// Returned is a message that can be delivered before any new one.
type Returned struct {
	ID uint64
	// SizeBytes is the size of the body.
	SizeBytes uint32
	// Failed is how many attempts have failed; the next is attempt Failed+1.
	Failed uint32
}

type order interface{ less(a, b *waiting) bool }

type (
	byDue struct{}
	byID  struct{}
)

func (byID) less(a, b *waiting) bool { return a.id < b.id }

func (byDue) less(a, b *waiting) bool {
	return a.dueMillis < b.dueMillis || a.dueMillis == b.dueMillis && a.id < b.id
}

// heap is a binary heap in a slice: the least entry is the first.
type heap[O order] struct{ entries []waiting }

func (h *heap[O]) push(w waiting) {
	h.entries = append(h.entries, w)
	h.up(len(h.entries) - 1)
}

func (h *heap[O]) pop() waiting {
	least := h.entries[0]
	last := len(h.entries) - 1
	h.entries[0] = h.entries[last]
	h.entries = h.entries[:last]
	h.down(0)
	h.shrink()
	return least
}

func (h *heap[O]) up(i int) {
	var o O
	for i > 0 {
		parent := (i - 1) / 2
		if !o.less(&h.entries[i], &h.entries[parent]) {
			return
		}
		h.entries[i], h.entries[parent] = h.entries[parent], h.entries[i]
		i = parent
	}
}

func (h *heap[O]) down(i int) {
	var o O
	for {
		child := 2*i + 1
		if child >= len(h.entries) {
			return
		}
		if child+1 < len(h.entries) && o.less(&h.entries[child+1], &h.entries[child]) {
			child++
		}
		if !o.less(&h.entries[child], &h.entries[i]) {
			return
		}
		h.entries[i], h.entries[child] = h.entries[child], h.entries[i]
		i = child
	}
}

// remove takes out every entry that gone says yes to, and restores the order.
func (h *heap[O]) remove(gone func(*waiting) bool) {
	before := len(h.entries)
	h.entries = slices.DeleteFunc(h.entries, func(w waiting) bool { return gone(&w) })
	if len(h.entries) == before {
		return
	}
	for i := len(h.entries)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
	h.shrink()
}

// shrink gives memory back after a burst; a quarter full keeps it from thrashing.
func (h *heap[O]) shrink() {
	if c := cap(h.entries); c > shrinkAbove && len(h.entries) < c/4 {
		h.entries = append(make([]waiting, 0, c/2), h.entries...)
	}
}

// wait lets a message wait for its time, or for its turn if it has none.
func (m *Machine) wait(w waiting) {
	m.tallyOf(&w).add(w.sizeBytes)
	if w.dueMillis == 0 {
		m.returned.push(w)
	} else {
		m.due.push(w)
	}
}

// waitsNoMore keeps the counts when a message leaves the heaps.
func (m *Machine) waitsNoMore(w *waiting) { m.tallyOf(w).take(w.sizeBytes) }

func (m *Machine) tallyOf(w *waiting) *tally {
	if w.seen() {
		return &m.retrying
	}
	return &m.delayed
}

// advance moves what is due at this wall time to where it can be delivered. It is no change of state.
func (m *Machine) advance(wallMillis int64) {
	for len(m.due.entries) > 0 && m.due.entries[0].dueMillis <= wallMillis {
		m.returned.push(m.due.pop())
	}
}

// PeekReturned appends at most most messages to dst that came back or whose delay is over, lowest id first, and returns
// it. They go before new ones. A delayed message can be due before its push is durable: the caller leaves out ids above that.
func (m *Machine) PeekReturned(now Time, most int, dst []Returned) []Returned {
	m.advance(now.WallMillis)
	m.takeLowest(most)
	for i := range m.peeked {
		w := &m.peeked[i]
		dst = append(dst, Returned{ID: w.id, SizeBytes: w.sizeBytes, Failed: w.failed()})
		m.returned.push(*w)
	}
	return dst
}

// takeLowest pops at most most messages off returned into peeked.
func (m *Machine) takeLowest(most int) {
	m.peeked = m.peeked[:0]
	for len(m.peeked) < most && len(m.returned.entries) > 0 {
		m.peeked = append(m.peeked, m.returned.pop())
	}
}

// takeWaiting takes the messages with these rising ids out of the heaps into peeked, in the same order. If one of them does not
// wait, nothing changes and it reports false.
func (m *Machine) takeWaiting(ids []uint64, wallMillis int64) bool {
	m.advance(wallMillis)
	m.takeLowest(len(ids))
	if slices.EqualFunc(m.peeked, ids, func(w waiting, id uint64) bool { return w.id == id }) {
		for i := range m.peeked {
			m.waitsNoMore(&m.peeked[i])
		}
		return true
	}
	for i := range m.peeked {
		m.returned.push(m.peeked[i])
	}
	return m.takeAnywhere(ids)
}

// takeAnywhere is takeWaiting for messages that are not the next ones: single ones that are removed, or a record that was
// decided while the wall clock stood elsewhere. It looks at every waiting message.
func (m *Machine) takeAnywhere(ids []uint64) bool {
	wanted := func(w *waiting) bool {
		_, found := slices.BinarySearch(ids, w.id)
		return found
	}
	m.peeked = m.peeked[:0]
	if len(ids) == 0 {
		return true
	}
	m.eachWaiting(func(w *waiting) {
		if wanted(w) {
			m.peeked = append(m.peeked, *w)
		}
	})
	if len(m.peeked) != len(ids) {
		return false
	}
	slices.SortFunc(m.peeked, func(a, b waiting) int { return cmp.Compare(a.id, b.id) })
	m.due.remove(wanted)
	m.returned.remove(wanted)
	for i := range m.peeked {
		m.waitsNoMore(&m.peeked[i])
	}
	return true
}

// eachWaiting visits all waiting messages, in no order.
func (m *Machine) eachWaiting(visit func(*waiting)) {
	for i := range m.due.entries {
		visit(&m.due.entries[i])
	}
	for i := range m.returned.entries {
		visit(&m.returned.entries[i])
	}
}

// NextDueWall is when the next message can be delivered that waits for its time, in unix milliseconds. It may be in the past.
func (m *Machine) NextDueWall() (wallMillis int64, ok bool) {
	if len(m.due.entries) == 0 {
		return 0, false
	}
	return m.due.entries[0].dueMillis, true
}

// NextRetryWall is when the last of the retrying messages is due, in unix milliseconds, or in the past; ok is false if there is
// none. With strict order nothing may be delivered before: whatever went first could have a higher id than one still to come. It
// looks at every waiting message; in a queue with strict order there are few.
func (m *Machine) NextRetryWall() (wallMillis int64, ok bool) {
	if m.retrying.messages == 0 {
		return 0, false
	}
	m.eachWaiting(func(w *waiting) {
		if w.seen() {
			wallMillis = max(wallMillis, w.dueMillis)
		}
	})
	return wallMillis, true
}
