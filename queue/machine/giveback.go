package machine

// How messages of a batch go back, for all the ways they can: a nack, an expired lease, an ended tenure. The record says for each
// message what becomes of it; since neighbours mostly share their fate, it says so in runs:
//
//	counted     0 or 1: whether this was a failed attempt
//	runs until all messages are covered, in the order of their ids:
//	            length, fate, and for one that returns: due, unix milliseconds, 0 is at once
//
// A whole batch that ends, in an expiry or an unlock:
//
//	batch, reason, number of its unresolved messages, and the above

import (
	"errors"
	"slices"
)

// fate is what becomes of a message that is given back.
type fate uint8

const (
	fateReturns fate = iota
	// fateExpired: its TTL is over; it is removed and counted.
	fateExpired
	// fateDead: it was pushed to the dead-letter queue in the same group, so it is gone here.
	fateDead
	fates
)

var (
	errRun        = errors.New("a run of messages is empty or longer than the batch")
	errNoBatch    = errors.New("it ends a batch that is not open")
	errUnresolved = errors.New("it counts the batch's unresolved messages wrongly")
)

// RetryPolicy says when a failed message comes back.
type RetryPolicy struct {
	// DelayMillis is the delay after the first failed attempt; each further one multiplies it by Backoff, up to DelayMaxMillis.
	DelayMillis    int64
	Backoff        int64
	DelayMaxMillis int64
	// AttemptsMax is after how many failed attempts a message is taken out for the dead-letter queue; 0: never. The caller
	// pushes it there in the same group: see Dead.
	AttemptsMax int64
	// Expired holds the rising ids of messages in question whose TTL is over: they are removed instead of coming back.
	Expired []uint64
}

// delay is the wait after a message's failed-th failed attempt.
func (p *RetryPolicy) delay(failed uint32) int64 {
	d := min(p.DelayMillis, p.DelayMaxMillis)
	for i := uint32(1); i < failed && d > 0 && p.Backoff > 1 && d < p.DelayMaxMillis; i++ {
		if d > p.DelayMaxMillis/p.Backoff {
			return p.DelayMaxMillis
		}
		d *= p.Backoff
	}
	return max(d, 0)
}

// giveBack is one decision to give messages back.
type giveBack struct {
	now     Time
	counted bool
	dead    bool  // all go to the dead-letter queue
	policy  bool  // the delay is p's, else it is delay
	delay   int64 // milliseconds
	p       RetryPolicy
}

// of decides about one message.
func (g *giveBack) of(l *leasedMessage) (f fate, dueMillis int64) {
	if _, expired := slices.BinarySearch(g.p.Expired, l.id); expired {
		return fateExpired, 0
	}
	failed := l.failed
	if g.counted && failed < failedMax {
		failed++
	}
	if g.dead || g.counted && g.p.AttemptsMax > 0 && int64(failed) >= g.p.AttemptsMax {
		return fateDead, 0
	}
	delay := g.delay
	if g.policy {
		delay = g.p.delay(failed)
	}
	if delay <= 0 {
		return fateReturns, 0
	}
	return fateReturns, max(plus(g.now.WallMillis, delay), 1)
}

// appendRuns writes the fates of the messages of b at these rising indexes.
func (g *giveBack) appendRuns(dst []byte, b *batch, indexes []int) []byte {
	dst = put(dst, bit(g.counted))
	for i := 0; i < len(indexes); {
		f, due := g.of(&b.messages[indexes[i]])
		n := 1
		for ; i+n < len(indexes); n++ {
			if nextFate, nextDue := g.of(&b.messages[indexes[i+n]]); nextFate != f || nextDue != due {
				break
			}
		}
		dst = put(put(dst, uint64(n)), uint64(f))
		if f == fateReturns {
			dst = putMillis(dst, due)
		}
		i += n
	}
	return dst
}

// runs reads what appendRuns wrote about n messages and calls visit for each run.
func (r *reader) runs(n int, visit func(length int, counted bool, f fate, dueMillis int64)) {
	counted := r.upTo(1) == 1
	for left := n; left > 0 && r.err == nil; {
		length := r.value()
		if length == 0 || length > uint64(left) {
			r.fail(errRun)
			return
		}
		f := fate(r.upTo(uint64(fates) - 1))
		due := int64(0)
		if f == fateReturns {
			due = r.millis()
		}
		if r.err == nil && visit != nil {
			visit(int(length), counted, f, due)
		}
		left -= int(length)
	}
}

// giveBackRuns reads the runs about the messages of b at these rising indexes and lets their fates happen.
func (m *Machine) giveBackRuns(r *reader, b *batch, indexes []int) {
	r.runs(len(indexes), func(length int, counted bool, f fate, dueMillis int64) {
		for _, i := range indexes[:length] {
			m.giveBackOne(b, &b.messages[i], counted, f, dueMillis)
		}
		indexes = indexes[length:]
	})
}

func (m *Machine) giveBackOne(b *batch, l *leasedMessage, counted bool, f fate, dueMillis int64) {
	m.resolve(b, l)
	failed := l.failed
	if counted {
		m.totals.Failed++
		failed = min(failed+1, failedMax)
	}
	switch f {
	case fateReturns:
		m.wait(waiting{id: l.id, dueMillis: dueMillis, sizeBytes: l.sizeBytes, failedAndSeen: failed | seenMark})
	case fateExpired:
		m.totals.Expired++
	case fateDead:
		m.totals.DeadLettered++
	}
}

// appendEnded writes that all of b that is unresolved is given back.
func (m *Machine) appendEnded(dst []byte, b *batch, reason Reason, how giveBack) []byte {
	m.indexes = b.unresolvedIndexes(m.indexes[:0])
	dst = put(put(dst, b.id), uint64(reason))
	dst = put(dst, uint64(len(m.indexes)))
	return how.appendRuns(dst, b, m.indexes)
}

// checkEnded reads a list of batches that end and returns how many they are. It changes nothing.
func (m *Machine) checkEnded(r *reader) (n int, err error) {
	n = r.count()
	last := uint64(0)
	for i := 0; i < n && r.err == nil; i++ {
		id := r.value()
		b := m.batch(id)
		if b == nil || id <= last {
			r.fail(errNoBatch)
			break
		}
		last = id
		r.upTo(uint64(reasonsEnded) - 1)
		if count := r.value(); count != uint64(b.unresolved) {
			r.fail(errUnresolved)
			break
		}
		r.runs(b.unresolved, nil)
	}
	return n, r.err
}

// endBatches applies a list of batches that end, which checkEnded has read before.
func (m *Machine) endBatches(r *reader, clock int64) {
	for n := r.count(); n > 0; n-- {
		b := m.batch(r.value())
		reason := Reason(r.value())
		r.value()
		m.indexes = b.unresolvedIndexes(m.indexes[:0])
		m.giveBackRuns(r, b, m.indexes)
		m.ended.add(endedBatch{id: b.id, clock: clock, reason: reason})
		m.close(b)
	}
}

// Dead appends the ids of the messages that e, a decision about to be applied, takes out for the dead-letter queue. The
// caller pushes them there in the same group.
func (m *Machine) Dead(e Effect, dst []uint64) []uint64 {
	r := reader{rest: e.Meta}
	switch e.Kind {
	case KindSettle:
		s, err := m.readSettle(&r)
		if err == nil && s.givesBack {
			dst = deadRuns(&r, s.batch, m.indexes, dst)
		}
	case KindExpire, KindLock:
		r.value() // the clock
		if e.Kind == KindLock && r.value() == 0 {
			return dst
		}
		for n := r.count(); n > 0; n-- {
			b := m.batch(r.value())
			if b == nil || r.err != nil {
				return dst
			}
			r.value()
			r.value()
			m.indexes = b.unresolvedIndexes(m.indexes[:0])
			dst = deadRuns(&r, b, m.indexes, dst)
		}
	}
	return dst
}

func deadRuns(r *reader, b *batch, indexes []int, dst []uint64) []uint64 {
	r.runs(len(indexes), func(length int, _ bool, f fate, _ int64) {
		if f == fateDead {
			for _, i := range indexes[:length] {
				dst = append(dst, b.messages[i].id)
			}
		}
		indexes = indexes[length:]
	})
	return dst
}
