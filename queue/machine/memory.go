package machine

// What the machine remembers of batches that are over, so that a late call gets the right answer. Both memories are rings of a fixed
// size, part of the state, and survive restarts: a client that saw no reply to its acknowledgement may repeat it after one.

import (
	"fmt"
	"slices"
)

// BatchesRemembered is how many resolved batches a queue remembers, and how many that ended otherwise.
const BatchesRemembered = 1024

// Reason says why a batch is not open.
type Reason uint8

const (
	// Unknown: there never was such a batch in this queue, or it is long forgotten.
	Unknown Reason = iota
	// Expired: its deadline passed, and its messages went back.
	Expired
	// Superseded: its tenure lapsed.
	Superseded
	// Released: its tenure was given up with the batch open.
	Released
	// ResolvedBatch: its holder resolved all its messages. Only DecideExtend says so.
	ResolvedBatch

	reasonsEnded = ResolvedBatch
)

// BatchError says that a batch is not open, and why.
type BatchError struct {
	Batch  uint64
	Reason Reason
	// AgeMillis is how long ago it ended, on the server clock; 0 if that is not known.
	AgeMillis int64
}

func (e *BatchError) Error() string {
	ago := fmt.Sprintf("%d.%ds ago", e.AgeMillis/1000, e.AgeMillis%1000/100)
	switch e.Reason {
	case Expired:
		return fmt.Sprintf("batch %d expired %s and its messages went back; do not retry this call", e.Batch, ago)
	case Superseded:
		return fmt.Sprintf("batch %d went back %s, when the lock of its consumer lapsed; do not retry this call", e.Batch, ago)
	case Released:
		return fmt.Sprintf("batch %d went back %s, when its consumer gave up the lock; do not retry this call", e.Batch, ago)
	case ResolvedBatch:
		return fmt.Sprintf("batch %d is resolved already; there is nothing left to extend", e.Batch)
	}
	return fmt.Sprintf("batch %d is unknown: it ended long ago, or is of another queue; do not retry this call", e.Batch)
}

// NotInBatchError says that a message was never in the batch. The call it answers changed nothing.
type NotInBatchError struct {
	Batch uint64
	ID    uint64
}

func (e *NotInBatchError) Error() string {
	return fmt.Sprintf("id %d was never in batch %d; nothing was changed", e.ID, e.Batch)
}

// ring keeps the last BatchesRemembered values. It grows only as it is used: most queues are small.
type ring[T any] struct {
	values []T
	oldest int // index of the oldest value once the ring is full
}

func (r *ring[T]) add(v T) {
	if len(r.values) < BatchesRemembered {
		r.values = append(r.values, v)
		return
	}
	r.values[r.oldest] = v
	r.oldest = (r.oldest + 1) % BatchesRemembered
}

// all calls visit for each value, the oldest first.
func (r *ring[T]) all(visit func(T)) {
	for _, v := range r.values[r.oldest:] {
		visit(v)
	}
	for _, v := range r.values[:r.oldest] {
		visit(v)
	}
}

// endedBatch is a batch that ended without being resolved.
type endedBatch struct {
	id     uint64
	clock  int64 // server clock
	reason Reason
}

type (
	resolvedRing = ring[uint64]
	endedRing    = ring[endedBatch]
)

// whyNotOpen is nil if the batch was resolved by its holder, else a *BatchError.
func (m *Machine) whyNotOpen(now Time, id uint64) error {
	if slices.Contains(m.resolved.values, id) {
		return nil
	}
	for i := range m.ended.values {
		if e := &m.ended.values[i]; e.id == id {
			return &BatchError{Batch: id, Reason: e.reason, AgeMillis: max(now.ClockMillis-e.clock, 0)}
		}
	}
	return &BatchError{Batch: id}
}
