package machine

// Resolving messages: acknowledging them, giving them back, and having more time for them.
//
// A settlement's record:
//
//	batch, and the lock's new deadline on the server clock
//	what        bit 0: given back, else acknowledged; bit 1: the ids are listed, else it is all that are unresolved
//	number      of messages, and if they are listed their rising ids as distances
//	fates       if given back; see giveback.go
//
// An extension's: batch, its new deadline, the lock's new deadline, both on the server clock.
// An expiry's: the server clock, and the list of batches that end; see giveback.go.

import (
	"errors"
	"slices"
)

// NackMode says what giving back means.
type NackMode uint8

const (
	// Retry counts as a failed attempt.
	Retry NackMode = iota
	// Release does not: it is as if the message had not been delivered.
	Release
	// Dead counts as one and takes the message out for the dead-letter queue; see Machine.Dead.
	Dead
)

const (
	settleGivesBack = 1
	settleListed    = 2
)

var (
	errSettleEmpty = errors.New("it resolves nothing")
	errSettleGone  = errors.New("it resolves a message that is not unresolved in the batch")
)

// DecideAck acknowledges these messages of the batch, or all that are unresolved if ids is nil, and renews the lock. n is how many
// there are to acknowledge: ids that are resolved already, or come twice, do not count. changed is false if that is none; then
// there is nothing to apply.
// Errors: *BatchError, *NotInBatchError; a batch that its holder has resolved answers 0 without one.
func (m *Machine) DecideAck(now Time, batch uint64, ids []uint64) (n int, e Effect, changed bool, err error) {
	b, err := m.openBatch(now, batch)
	if b == nil {
		return 0, Effect{}, false, err
	}
	if err := m.choose(b, ids); err != nil || len(m.indexes) == 0 {
		return 0, Effect{}, false, err
	}
	dst := m.appendSettle(now, b, 0)
	return len(m.indexes), Effect{Kind: KindSettle, Meta: dst}, true, nil
}

// DecideNack gives these messages of the batch back, or all that are unresolved if ids is nil, and renews the lock. They come back
// after delayMillis; -1 is p's delay for a failed attempt, and none for a release. n, changed and errors are as for DecideAck.
func (m *Machine) DecideNack(now Time, batch uint64, ids []uint64, mode NackMode, delayMillis int64, p RetryPolicy) (n int, e Effect, changed bool, err error) {
	b, err := m.openBatch(now, batch)
	if b == nil {
		return 0, Effect{}, false, err
	}
	if err := m.choose(b, ids); err != nil || len(m.indexes) == 0 {
		return 0, Effect{}, false, err
	}
	how := giveBack{now: now, counted: mode != Release, dead: mode == Dead, policy: mode != Release && delayMillis < 0, delay: max(delayMillis, 0), p: p}
	dst := how.appendRuns(m.appendSettle(now, b, settleGivesBack), b, m.indexes)
	return len(m.indexes), Effect{Kind: KindSettle, Meta: dst}, true, nil
}

// appendSettle writes a settlement of the messages of b at m.indexes, up to the fates.
func (m *Machine) appendSettle(now Time, b *batch, what uint64) []byte {
	dst := make([]byte, 0, 48)
	listed := len(m.indexes) < b.unresolved
	if listed {
		dst = make([]byte, 0, 48+2*len(m.indexes))
		what |= settleListed
	}
	dst = putMillis(put(dst, b.id), m.renewedUntil(now))
	dst = put(put(dst, what), uint64(len(m.indexes)))
	if listed {
		before := uint64(0)
		for _, i := range m.indexes {
			dst = put(dst, b.messages[i].id-before)
			before = b.messages[i].id
		}
	}
	return dst
}

// openBatch returns the batch if it is open and its deadline has not come. Without one and without an error, its holder has
// resolved it.
func (m *Machine) openBatch(now Time, id uint64) (*batch, error) {
	b := m.batch(id)
	if b == nil {
		return nil, m.whyNotOpen(now, id)
	}
	if b.deadline <= now.ClockMillis {
		return nil, &BatchError{Batch: id, Reason: Expired, AgeMillis: now.ClockMillis - b.deadline}
	}
	return b, nil
}

// choose puts into m.indexes where the unresolved ones of these messages are, rising, without doubles. Nil is all.
func (m *Machine) choose(b *batch, ids []uint64) error {
	m.indexes = m.indexes[:0]
	if ids == nil {
		m.indexes = b.unresolvedIndexes(m.indexes)
		return nil
	}
	for _, id := range ids {
		i := b.index(id)
		if i < 0 {
			return &NotInBatchError{Batch: b.id, ID: id}
		}
		if !b.messages[i].resolved {
			m.indexes = append(m.indexes, i)
		}
	}
	slices.Sort(m.indexes)
	m.indexes = slices.Compact(m.indexes)
	return nil
}

// settlement is a record of that kind, read up to its fates. The messages are in Machine.indexes.
type settlement struct {
	batch        *batch
	lockDeadline int64
	givesBack    bool
}

func (m *Machine) readSettle(r *reader) (settlement, error) {
	s := settlement{batch: m.batch(r.value()), lockDeadline: r.millis()}
	what := r.upTo(settleGivesBack | settleListed)
	n := r.value()
	switch {
	case r.err != nil:
		return s, r.err
	case s.batch == nil:
		return s, errNoBatch
	case n == 0:
		return s, errSettleEmpty
	case n > uint64(s.batch.unresolved):
		return s, errUnresolved
	}
	s.givesBack = what&settleGivesBack != 0
	m.indexes = m.indexes[:0]
	if what&settleListed == 0 {
		if n != uint64(s.batch.unresolved) {
			return s, errUnresolved
		}
		m.indexes = s.batch.unresolvedIndexes(m.indexes)
		return s, nil
	}
	id := uint64(0)
	for ; n > 0 && r.err == nil; n-- {
		id = r.above(id)
		i := s.batch.index(id)
		if i < 0 || s.batch.messages[i].resolved {
			r.fail(errSettleGone)
			break
		}
		m.indexes = append(m.indexes, i)
	}
	return s, r.err
}

func (m *Machine) applySettle(r *reader) error {
	s, err := m.readSettle(r)
	if err != nil {
		return err
	}
	fates := *r // read once to check, and once more to apply
	if s.givesBack {
		r.runs(len(m.indexes), nil)
	}
	if err := r.done(); err != nil {
		return err
	}
	if s.givesBack {
		m.giveBackRuns(&fates, s.batch, m.indexes)
	} else {
		for _, i := range m.indexes {
			m.resolve(s.batch, &s.batch.messages[i])
		}
		m.totals.Acknowledged += int64(len(m.indexes))
	}
	m.lock.deadline = s.lockDeadline
	if s.batch.unresolved == 0 {
		m.resolved.add(s.batch.id)
		m.close(s.batch)
	}
	return nil
}

// DecideExtend lets the batch's lease end millis from now, earlier or later than it would, and renews the lock. It returns the new
// deadline on the server clock. Errors: *BatchError, also for a batch that is resolved.
func (m *Machine) DecideExtend(now Time, batch uint64, millis int64) (deadlineClockMillis int64, e Effect, err error) {
	b, err := m.openBatch(now, batch)
	if err != nil {
		return 0, Effect{}, err
	}
	if b == nil {
		return 0, Effect{}, &BatchError{Batch: batch, Reason: ResolvedBatch}
	}
	deadline := plus(now.ClockMillis, millis)
	dst := put(make([]byte, 0, 32), batch)
	dst = putMillis(putMillis(dst, deadline), m.renewedUntil(now))
	return deadline, Effect{Kind: KindExtend, Meta: dst}, nil
}

// DecideGrace lets the lease of an open batch, and the lock, end that much later: nobody could acknowledge anything meanwhile.
func (m *Machine) DecideGrace(batch uint64, millis int64) Effect {
	dst := put(make([]byte, 0, 32), batch)
	dst = putMillis(putMillis(dst, plus(m.batch(batch).deadline, millis)), plus(m.lock.deadline, millis))
	return Effect{Kind: KindExtend, Meta: dst}
}

func (m *Machine) applyExtend(r *reader) error {
	b := m.batch(r.value())
	deadline, lockDeadline := r.millis(), r.millis()
	if err := r.done(); err != nil {
		return err
	}
	if b == nil {
		return errNoBatch
	}
	b.deadline = deadline
	m.lock.deadline = lockDeadline
	return nil
}

// DecideExpire ends all batches whose deadline has come, in one record: what is unresolved in them goes back together as a failed
// attempt, with p's delay. changed is false if there is none. It does not renew the lock.
func (m *Machine) DecideExpire(now Time, p RetryPolicy) (e Effect, changed bool) {
	count := 0
	for _, b := range m.batches {
		if b.deadline <= now.ClockMillis {
			count++
		}
	}
	if count == 0 {
		return Effect{}, false
	}
	dst := put(putMillis(make([]byte, 0, 16+24*count), now.ClockMillis), uint64(count))
	how := giveBack{now: now, counted: true, policy: true, p: p}
	for _, b := range m.batches {
		if b.deadline <= now.ClockMillis {
			dst = m.appendEnded(dst, b, Expired, how)
		}
	}
	return Effect{Kind: KindExpire, Meta: dst}, true
}

func (m *Machine) applyExpire(r *reader) error {
	clock := r.millis()
	ended := *r // read once to check, and once more to apply
	n, err := m.checkEnded(r)
	if err != nil {
		return err
	}
	if err := r.done(); err != nil {
		return err
	}
	if n == 0 {
		return errSettleEmpty
	}
	m.endBatches(&ended, clock)
	return nil
}
