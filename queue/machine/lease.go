package machine

// Batches that are open: what a consumer holds until a deadline.
//
// A lease's record:
//
//	batch         its id, above every earlier one
//	wall          unix milliseconds of the decision
//	deadline      of the batch, server clock
//	lock          the lock's new deadline, server clock
//	cursor        where the walk has come to, as distance from where it was
//	returned      number, and the rising ids as distances: messages that waited
//	new           number, and for each its distance from the one before, at first from the old cursor, and the size of its body

import (
	"errors"
	"slices"
)

// leasedMessage is one message of an open batch.
type leasedMessage struct {
	id        uint64
	sizeBytes uint32
	failed    uint32
	resolved  bool
}

type batch struct {
	id         uint64
	deadline   int64 // server clock
	unresolved int
	bytes      int64           // of the unresolved
	messages   []leasedMessage // rising ids
}

// Fresh is a message that the walk found: delivered for the first time.
type Fresh struct {
	ID uint64
	// SizeBytes is the size of the body; the machine keeps none for ready messages.
	SizeBytes uint32
}

// LeaseRequest is a batch to be opened.
type LeaseRequest struct {
	// Batch is its id, above every earlier one.
	Batch uint64
	// LeaseMillis is how long the consumer has.
	LeaseMillis int64
	// Returned comes from PeekReturned: any of its messages, in its order.
	Returned []Returned
	// New are the messages that the walk found above the cursor, in rising order.
	New []Fresh
	// Cursor is where the walk ended: every message up to there that is ready is in New.
	Cursor uint64
}

var (
	errBatchOld     = errors.New("its batch is not above the last one")
	errEmptyBatch   = errors.New("it leases nothing")
	errNotWaiting   = errors.New("it leases a message that does not wait")
	errBeyondCursor = errors.New("it leases a new message that is not between the old and the new cursor")
	errRemoved      = errors.New("it takes a message that was removed")
	errCursor       = errors.New("its cursor is behind the last one or beyond the last record")
	errReady        = errors.New("it takes more messages or bytes than are ready, or leaves more than there can be")
	errReadyLeft    = errors.New("its cursor passes ready messages that it does not lease")
)

// DecideLease opens a batch for the holder of the lock and renews the lock. The caller has checked that the lock is held by whom it
// leases to, and that the request has at least one message.
func (m *Machine) DecideLease(now Time, l LeaseRequest) Effect {
	cursor := max(l.Cursor, m.cursor)
	if n := len(l.New); n > 0 {
		cursor = max(cursor, l.New[n-1].ID)
	}
	dst := make([]byte, 0, 48+4*(len(l.Returned)+len(l.New)))
	dst = put(dst, l.Batch)
	dst = putMillis(dst, now.WallMillis)
	dst = putMillis(dst, plus(now.ClockMillis, l.LeaseMillis))
	dst = putMillis(dst, m.renewedUntil(now))
	dst = put(dst, cursor-m.cursor)
	dst = put(dst, uint64(len(l.Returned)))
	last := uint64(0)
	for i := range l.Returned {
		dst = put(dst, l.Returned[i].ID-last)
		last = l.Returned[i].ID
	}
	dst = put(dst, uint64(len(l.New)))
	last = m.cursor
	for i := range l.New {
		dst = put(put(dst, l.New[i].ID-last), uint64(l.New[i].SizeBytes))
		last = l.New[i].ID
	}
	return Effect{Kind: KindLease, Meta: dst}
}

func (m *Machine) applyLease(r *reader) error {
	id, wall := r.value(), r.millis()
	deadline, lockDeadline := r.millis(), r.millis()
	cursor := m.cursor + r.value() // at most 2^54
	m.ids = m.ids[:0]
	for n := r.count(); n > 0 && r.err == nil; n-- {
		m.ids = append(m.ids, r.above(last(m.ids)))
	}
	newMessages := *r // read once to check, and once more to apply
	count, bytes := m.checkNew(r, cursor)
	if err := r.done(); err != nil {
		return err
	}
	switch {
	case m.lock.grant.Token == 0:
		return errNoTenure
	case id <= m.lastBatch:
		return errBatchOld
	case len(m.ids)+count == 0:
		return errEmptyBatch
	case cursor > m.lastLSN:
		return errCursor
	case int64(count) > m.ready || bytes > m.readyBytes || m.ready-int64(count) > int64(m.lastLSN-cursor):
		return errReady
	case m.ready == int64(count) && m.readyBytes != bytes:
		return errReady
	}
	if !m.takeWaiting(m.ids, wall) {
		return errNotWaiting
	}
	m.open(id, deadline, &newMessages)
	m.lock.deadline = lockDeadline
	m.wall = max(m.wall, wall)
	m.ready -= int64(count)
	m.readyBytes -= bytes
	m.cursor = cursor
	m.removed = dropUpTo(m.removed, cursor)
	return nil
}

// checkNew reads the new messages of a lease and returns how many they are, and their bytes.
func (m *Machine) checkNew(r *reader, cursor uint64) (count int, bytes int64) {
	at := m.cursor
	count = r.count()
	for i := 0; i < count && r.err == nil; i++ {
		at = r.above(at)
		bytes += int64(r.upTo(SizeBytesMax))
		switch {
		case r.err != nil:
		case at > cursor:
			r.fail(errBeyondCursor)
		case m.Removed(at):
			r.fail(errRemoved)
		}
	}
	return count, bytes
}

// open makes a batch of the messages in peeked, which came out of the heaps, and the new ones; both rise.
func (m *Machine) open(id uint64, deadline int64, newMessages *reader) {
	waited, at := m.peeked, m.cursor
	fresh := newMessages.count()
	b := &batch{id: id, deadline: deadline, messages: make([]leasedMessage, 0, len(waited)+fresh)}
	for ; fresh > 0; fresh-- {
		at = newMessages.above(at)
		for len(waited) > 0 && waited[0].id < at {
			b.add(waited[0].id, waited[0].sizeBytes, waited[0].failed())
			waited = waited[1:]
		}
		b.add(at, uint32(newMessages.value()), 0)
	}
	for i := range waited {
		b.add(waited[i].id, waited[i].sizeBytes, waited[i].failed())
	}
	m.batches = append(m.batches, b)
	m.lastBatch = id
	m.leased += int64(b.unresolved)
	m.leasedBytes += b.bytes
	m.totals.Delivered += int64(b.unresolved)
}

func (b *batch) add(id uint64, sizeBytes, failed uint32) {
	b.messages = append(b.messages, leasedMessage{id: id, sizeBytes: sizeBytes, failed: failed})
	b.unresolved++
	b.bytes += int64(sizeBytes)
}

// index is where b holds the message, or -1.
func (b *batch) index(id uint64) int {
	i, found := slices.BinarySearchFunc(b.messages, id, func(l leasedMessage, id uint64) int {
		switch {
		case l.id < id:
			return -1
		case l.id > id:
			return 1
		}
		return 0
	})
	if !found {
		return -1
	}
	return i
}

// unresolvedIndexes appends where b's unresolved messages are.
func (b *batch) unresolvedIndexes(dst []int) []int {
	for i := range b.messages {
		if !b.messages[i].resolved {
			dst = append(dst, i)
		}
	}
	return dst
}

// resolve takes an unresolved message out of the count of leased ones.
func (m *Machine) resolve(b *batch, l *leasedMessage) {
	l.resolved = true
	b.unresolved--
	b.bytes -= int64(l.sizeBytes)
	m.leased--
	m.leasedBytes -= int64(l.sizeBytes)
}

// batch returns the open batch with that id, or nil.
func (m *Machine) batch(id uint64) *batch {
	if i, found := m.batchIndex(id); found {
		return m.batches[i]
	}
	return nil
}

func (m *Machine) batchIndex(id uint64) (int, bool) {
	return slices.BinarySearchFunc(m.batches, id, func(b *batch, id uint64) int {
		switch {
		case b.id < id:
			return -1
		case b.id > id:
			return 1
		}
		return 0
	})
}

// close forgets a batch without unresolved messages.
func (m *Machine) close(b *batch) {
	i, _ := m.batchIndex(b.id)
	m.batches = slices.Delete(m.batches, i, i+1)
}

// NextDeadline is the next moment of the server clock at which a batch expires or the lock lapses; at that moment it has.
func (m *Machine) NextDeadline() (clockMillis int64, ok bool) {
	for _, b := range m.batches {
		if !ok || b.deadline < clockMillis {
			clockMillis, ok = b.deadline, true
		}
	}
	if ok {
		return clockMillis, true // the lock lapses no earlier
	}
	l, held := m.Lock()
	return l.DeadlineMillis, held
}

// last is the last id, 0 if there is none.
func last(ids []uint64) uint64 {
	if len(ids) == 0 {
		return 0
	}
	return ids[len(ids)-1]
}
