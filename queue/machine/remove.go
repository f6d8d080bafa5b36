package machine

// Taking messages out of a queue without a consumer: single ones that their owner removes or whose TTL is over, everything below an id,
// and messages that were pushed to another queue in the same group. Leased messages stay.
//
//	removal   reason, then the messages
//	move      reason, incarnation of the queue that has them now, then the messages
//	          both begin the messages with: how far the cursor moves on, since nothing up to there is ready any more
//	messages  number of waiting ones and their rising ids as distances; number of ready ones, and for each its distance
//	          from the one before, at first from the cursor, and the size of its body
//	purge     everything below this id; how many ready messages that are, and their bytes; how many waiting ones
//
// The log keeps the records of ready messages that were taken out until the cursor has passed them, so their ids are kept as spans.

import (
	"cmp"
	"errors"
	"slices"
)

// RemovedSpansMax bounds the spans of removed ids that a queue keeps above its cursor.
const RemovedSpansMax = 100_000

// RemoveReason says why a message is removed.
type RemoveReason uint8

const (
	// ByOwner: somebody asked for it.
	ByOwner RemoveReason = iota
	// ByTTL: its time is over.
	ByTTL
	removeReasons
)

// Removal is a message to be taken out.
type Removal struct {
	ID        uint64
	SizeBytes uint32
	// Delayed is what IsDelayed says of its record.
	Delayed bool
}

var (
	// ErrTooManyRemoved: the queue keeps RemovedSpansMax spans of removed ids; they go as its ready messages are consumed.
	ErrTooManyRemoved = errors.New("too many single messages were removed from the middle of the queue; consume or purge first")

	errTakesNothing  = errors.New("it takes nothing out")
	errTakesAbsent   = errors.New("it takes out a message that does not wait")
	errPurgeBeyond   = errors.New("it purges beyond the last record")
	errPurgeMiscount = errors.New("it counts the messages below its id wrongly")
)

// DecideRemove takes out those of these messages, with rising ids, that are ready or wait; n is how many. The caller has read
// their records: each is a message. changed is false if there is none. Errors: ErrTooManyRemoved.
func (m *Machine) DecideRemove(list []Removal, reason RemoveReason) (n int, e Effect, changed bool, err error) {
	return m.decideTake(KindRemove, put(nil, uint64(reason)), list, m.cursor)
}

// DecideExpired is DecideRemove for messages whose TTL is over. cursor, if it is above the machine's, says that the caller
// has seen every record up to there and that no message among them is ready but those of the list: the walk need not pass
// them again, and the log need not keep them.
func (m *Machine) DecideExpired(list []Removal, cursor uint64) (n int, e Effect, changed bool, err error) {
	return m.decideTake(KindRemove, put(nil, uint64(ByTTL)), list, min(max(cursor, m.cursor), m.lastLSN))
}

// DecideMove is DecideRemove for messages that go to the queue with this incarnation, in the same group.
func (m *Machine) DecideMove(list []Removal, reason MoveReason, incarnation uint64) (n int, e Effect, changed bool, err error) {
	return m.decideTake(KindMove, put(put(nil, uint64(reason)), incarnation), list, m.cursor)
}

func (m *Machine) decideTake(kind Kind, dst []byte, list []Removal, cursor uint64) (n int, e Effect, changed bool, err error) {
	dst, n, spans := m.appendTaken(put(dst, cursor-m.cursor), list, cursor)
	if spans > 0 && len(m.removed)+spans > RemovedSpansMax {
		return 0, Effect{}, false, ErrTooManyRemoved
	}
	return n, Effect{Kind: kind, Meta: dst}, n > 0, nil
}

// appendTaken writes those messages of the list that are in the queue and not leased. It returns their number, and how many
// spans of removed ids they can make at most.
func (m *Machine) appendTaken(dst []byte, list []Removal, cursor uint64) (_ []byte, n, spans int) {
	var waits, ready []Removal
	waiting := m.waitingAmong(list)
	for i, l := range list {
		switch {
		case waiting[i]:
			waits = append(waits, l)
		case !l.Delayed && l.ID > m.cursor && l.ID <= m.lastLSN && !m.Removed(l.ID):
			ready = append(ready, l)
		}
	}
	dst = put(dst, uint64(len(waits)))
	before := uint64(0)
	for _, l := range waits {
		dst = put(dst, l.ID-before)
		before = l.ID
	}
	dst = put(dst, uint64(len(ready)))
	before = m.cursor
	for _, l := range ready {
		dst = put(put(dst, l.ID-before), uint64(l.SizeBytes))
		before = l.ID
		if l.ID > cursor {
			spans++
		}
	}
	return dst, len(waits) + len(ready), spans
}

// waitingAmong tells which of these messages, with rising ids, are delayed or retrying. It looks at every waiting message once.
func (m *Machine) waitingAmong(list []Removal) []bool {
	waits := make([]bool, len(list))
	m.eachWaiting(func(w *waiting) {
		i, found := slices.BinarySearchFunc(list, w.id, func(l Removal, id uint64) int { return cmp.Compare(l.ID, id) })
		if found {
			waits[i] = true
		}
	})
	return waits
}

func (m *Machine) applyRemove(r *reader) error {
	reason := RemoveReason(r.upTo(uint64(removeReasons) - 1))
	n, err := m.takeOut(r)
	if err != nil {
		return err
	}
	if reason == ByTTL {
		m.totals.Expired += n
	} else {
		m.totals.Removed += n
	}
	return nil
}

func (m *Machine) applyMove(r *reader) error {
	reason := MoveReason(r.upTo(uint64(moveReasons) - 1))
	r.value() // the incarnation is for people and tools that read the log
	n, err := m.takeOut(r)
	if err != nil {
		return err
	}
	if reason == MoveRedrive {
		m.totals.Redriven += n
	} else {
		m.totals.DeadLettered += n
	}
	return nil
}

// takeOut reads a list of messages and takes them out; it returns how many they are.
func (m *Machine) takeOut(r *reader) (int64, error) {
	cursor := m.cursor + r.value() // at most 2^54
	m.ids = m.ids[:0]
	for n := r.count(); n > 0 && r.err == nil; n-- {
		m.ids = append(m.ids, r.above(last(m.ids)))
	}
	readyOnes := *r // read once to check, and once more to apply
	count, bytes := m.checkNew(r, m.lastLSN)
	if err := r.done(); err != nil {
		return 0, err
	}
	switch {
	case cursor > m.lastLSN:
		return 0, errCursor
	case m.ready-int64(count) > int64(m.lastLSN-cursor):
		return 0, errReady
	case len(m.ids)+count == 0:
		return 0, errTakesNothing
	case int64(count) > m.ready || bytes > m.readyBytes || m.ready == int64(count) && m.readyBytes != bytes:
		return 0, errReady
	case int64(count) > 0 && m.ready+m.removedCount() > int64(m.lastLSN-m.cursor):
		return 0, errReady
	}
	if !m.takeAnywhere(m.ids) {
		return 0, errTakesAbsent
	}
	at := m.cursor
	for n := readyOnes.count(); n > 0; n-- {
		at = readyOnes.above(at)
		readyOnes.value()
		if at > cursor {
			m.removed = addSpan(m.removed, at)
		}
	}
	m.cursor = cursor
	m.removed = dropUpTo(m.removed, cursor)
	m.ready -= int64(count)
	m.readyBytes -= bytes
	return int64(len(m.ids) + count), nil
}

// DecidePurge takes out everything below before that is not leased; n is how many. ready and readyBytes are what the caller found
// by walking the log from the cursor up to before; they need not be right if before is above the last record.
func (m *Machine) DecidePurge(before uint64, ready, readyBytes int64) (n int64, e Effect, changed bool) {
	if before > m.lastLSN {
		before, ready, readyBytes = m.lastLSN+1, m.ready, m.readyBytes
	}
	if before <= m.cursor {
		ready, readyBytes = 0, 0
	}
	waits := m.waitingBelow(before)
	if n = ready + waits; n == 0 {
		return 0, Effect{}, false
	}
	dst := putMillis(putMillis(put(nil, before), ready), readyBytes)
	return n, Effect{Kind: KindPurge, Meta: putMillis(dst, waits)}, true
}

func (m *Machine) waitingBelow(before uint64) (n int64) {
	m.eachWaiting(func(w *waiting) {
		if w.id < before {
			n++
		}
	})
	return n
}

func (m *Machine) applyPurge(r *reader) error {
	before := r.value()
	ready, readyBytes, waits := r.millis(), r.millis(), r.millis()
	if err := r.done(); err != nil {
		return err
	}
	switch cursor := max(m.cursor, before-min(before, 1)); {
	case before > m.lastLSN+1:
		return errPurgeBeyond
	case ready+waits == 0:
		return errTakesNothing
	case waits != m.waitingBelow(before), before <= m.cursor+1 && ready > 0:
		return errPurgeMiscount
	case ready > m.ready, readyBytes > m.readyBytes, m.ready == ready && m.readyBytes != readyBytes, m.ready-ready > int64(m.lastLSN-cursor):
		return errReady
	default:
		m.cursor = cursor
	}
	below := func(w *waiting) bool { return w.id < before }
	m.eachWaiting(func(w *waiting) {
		if below(w) {
			m.waitsNoMore(w)
		}
	})
	m.due.remove(below)
	m.returned.remove(below)
	m.ready -= ready
	m.readyBytes -= readyBytes
	m.removed = dropUpTo(m.removed, m.cursor)
	m.totals.Removed += ready + waits
	return nil
}

// span is a run of ids, both ends included.
type span struct{ from, to uint64 }

// spanAt is the index of the first span that does not end before id.
func spanAt(spans []span, id uint64) int {
	i, _ := slices.BinarySearchFunc(spans, id, func(s span, id uint64) int {
		if s.to < id {
			return -1
		}
		return 1
	})
	return i
}

// Removed reports whether the message above the cursor was removed, so that the walk passes it by.
func (m *Machine) Removed(id uint64) bool {
	if len(m.removed) == 0 {
		return false
	}
	i := spanAt(m.removed, id)
	return i < len(m.removed) && m.removed[i].from <= id
}

func (m *Machine) removedCount() (n int64) {
	for _, s := range m.removed {
		n += int64(s.to - s.from + 1)
	}
	return n
}

// addSpan adds an id that is in no span, and joins it with its neighbours.
func addSpan(spans []span, id uint64) []span {
	i := spanAt(spans, id)
	left := i > 0 && spans[i-1].to+1 == id
	right := i < len(spans) && spans[i].from == id+1
	switch {
	case left && right:
		spans[i-1].to = spans[i].to
		return slices.Delete(spans, i, i+1)
	case left:
		spans[i-1].to = id
	case right:
		spans[i].from = id
	default:
		return slices.Insert(spans, i, span{id, id})
	}
	return spans
}

// dropUpTo forgets ids that the cursor has passed.
func dropUpTo(spans []span, cursor uint64) []span {
	if len(spans) == 0 {
		return nil
	}
	spans = slices.Delete(spans, 0, spanAt(spans, cursor+1))
	if len(spans) == 0 {
		return nil
	}
	spans[0].from = max(spans[0].from, cursor+1)
	return spans
}
