package machine

// What must always be true. Tests check it after every step, Restore after every load.

import (
	"fmt"
	"slices"
)

// CheckInvariants returns an error that names the first rule that the state breaks. It looks at everything the machine keeps.
func (m *Machine) CheckInvariants() error {
	for _, check := range []func() error{m.checkPlace, m.checkReady, m.checkLock, m.checkBatches, m.checkWaiting, m.checkOnePlace, m.checkMemory, m.checkTotals} {
		if err := check(); err != nil {
			return fmt.Errorf("invariant broken: %w", err)
		}
	}
	return nil
}

func (m *Machine) checkPlace() error {
	switch {
	case m.cursor > m.lastLSN:
		return fmt.Errorf("the cursor %d is beyond the last record %d", m.cursor, m.lastLSN)
	case m.ready == 0 && m.cursor != m.lastLSN:
		return fmt.Errorf("nothing is ready, but the cursor is at %d and the last record is %d", m.cursor, m.lastLSN)
	case m.lastLSN > ValueMax || m.lastBatch > ValueMax || m.lastToken > ValueMax:
		return fmt.Errorf("an id is above 2^53: record %d, batch %d, token %d", m.lastLSN, m.lastBatch, m.lastToken)
	}
	return nil
}

func (m *Machine) checkReady() error {
	if m.ready < 0 || m.readyBytes < 0 || m.ready == 0 && m.readyBytes != 0 {
		return fmt.Errorf("%d messages of %d bytes are ready", m.ready, m.readyBytes)
	}
	at := m.cursor
	for i, s := range m.removed {
		if s.from <= at || s.to < s.from || i > 0 && s.from == at+1 || s.to > m.lastLSN {
			return fmt.Errorf("removed ids %d to %d come after %d; the last record is %d", s.from, s.to, at, m.lastLSN)
		}
		at = s.to
	}
	if most := int64(m.lastLSN-m.cursor) - m.removedCount(); m.ready > most {
		return fmt.Errorf("%d messages are ready, but at most %d can be above the cursor", m.ready, most)
	}
	return nil
}

func (m *Machine) checkLock() error {
	g := &m.lock.grant
	switch {
	case g.Token == 0 && len(m.batches) > 0:
		return fmt.Errorf("%d batches are open and nobody holds the lock", len(m.batches))
	case g.Token == 0 && m.lock != tenure{}:
		return fmt.Errorf("nobody holds the lock, but it has a state")
	case g.Token > m.lastToken:
		return fmt.Errorf("token %d is above the last one, %d", g.Token, m.lastToken)
	case g.Token != 0 && g.Consumer == "":
		return fmt.Errorf("the holder of token %d has no name", g.Token)
	}
	return nil
}

func (m *Machine) checkBatches() error {
	id, messages, bytes := uint64(0), int64(0), int64(0)
	for _, b := range m.batches {
		if b.id <= id || b.id > m.lastBatch {
			return fmt.Errorf("batch %d comes after batch %d; the last is %d", b.id, id, m.lastBatch)
		}
		id = b.id
		if err := b.check(); err != nil {
			return err
		}
		messages += int64(b.unresolved)
		bytes += b.bytes
	}
	if messages != m.leased || bytes != m.leasedBytes {
		return fmt.Errorf("%d messages of %d bytes are counted as leased, there are %d of %d", m.leased, m.leasedBytes, messages, bytes)
	}
	return nil
}

func (b *batch) check() error {
	at, unresolved, bytes := uint64(0), 0, int64(0)
	for i := range b.messages {
		l := &b.messages[i]
		if l.id <= at {
			return fmt.Errorf("batch %d: message %d comes after %d", b.id, l.id, at)
		}
		at = l.id
		if !l.resolved {
			unresolved++
			bytes += int64(l.sizeBytes)
		}
	}
	if unresolved == 0 || unresolved != b.unresolved || bytes != b.bytes {
		return fmt.Errorf("batch %d counts %d unresolved messages of %d bytes, there are %d of %d", b.id, b.unresolved, b.bytes, unresolved, bytes)
	}
	return nil
}

func (m *Machine) checkWaiting() error {
	var delayed, retrying tally
	m.eachWaiting(func(w *waiting) {
		if w.seen() {
			retrying.add(w.sizeBytes)
		} else {
			delayed.add(w.sizeBytes)
		}
	})
	if delayed != m.delayed || retrying != m.retrying {
		return fmt.Errorf("delayed and retrying are counted as %v and %v, there are %v and %v", m.delayed, m.retrying, delayed, retrying)
	}
	for i := range m.due.entries {
		if w := &m.due.entries[i]; w.dueMillis == 0 || i > 0 && (byDue{}).less(w, &m.due.entries[(i-1)/2]) {
			return fmt.Errorf("message %d is out of order among those that wait for their time", w.id)
		}
	}
	for i := range m.returned.entries {
		if w := &m.returned.entries[i]; i > 0 && (byID{}).less(w, &m.returned.entries[(i-1)/2]) {
			return fmt.Errorf("message %d is out of order among those that came back", w.id)
		}
	}
	var err error
	m.eachWaiting(func(w *waiting) {
		if !w.seen() && (w.failed() > 0 || w.dueMillis == 0) {
			err = fmt.Errorf("message %d was never delivered, but has %d failed attempts and is due at %d", w.id, w.failed(), w.dueMillis)
		}
	})
	return err
}

// checkOnePlace: a living message is in exactly one place. Without this one could be delivered twice.
func (m *Machine) checkOnePlace() error {
	var ids []uint64
	for _, b := range m.batches {
		for i := range b.messages {
			if !b.messages[i].resolved {
				ids = append(ids, b.messages[i].id)
			}
		}
	}
	m.eachWaiting(func(w *waiting) { ids = append(ids, w.id) })
	slices.Sort(ids)
	for i, id := range ids {
		switch {
		case i > 0 && ids[i-1] == id:
			return fmt.Errorf("message %d is in two places", id)
		case id > m.lastLSN:
			return fmt.Errorf("message %d is beyond the last record %d", id, m.lastLSN)
		case m.Removed(id):
			return fmt.Errorf("message %d is removed and still there", id)
		}
	}
	return nil
}

func (m *Machine) checkMemory() error {
	known := slices.Clone(m.resolved.values)
	for _, e := range m.ended.values {
		known = append(known, e.id)
	}
	for _, b := range m.batches {
		known = append(known, b.id)
	}
	slices.Sort(known)
	for i, id := range known {
		if i > 0 && known[i-1] == id || id > m.lastBatch {
			return fmt.Errorf("batch %d is known twice, or beyond the last one, %d", id, m.lastBatch)
		}
	}
	if len(m.resolved.values) > BatchesRemembered || len(m.ended.values) > BatchesRemembered {
		return fmt.Errorf("%d and %d batches are remembered, at most %d may be", len(m.resolved.values), len(m.ended.values), BatchesRemembered)
	}
	count := 0
	for _, k := range m.dedup.live() {
		if m.dedup.byID[k.id] == k.remembered {
			count++
		}
	}
	if count != len(m.dedup.byID) {
		return fmt.Errorf("%d deduplication ids are in order, %d are known", count, len(m.dedup.byID))
	}
	return nil
}

// checkTotals: no message is lost or made up. Whatever was pushed is there, or left in one of the ways it may.
func (m *Machine) checkTotals() error {
	if live := m.totals.Pushed - m.totals.gone(); live != m.Len() {
		return fmt.Errorf("%d messages were pushed and %d left, so %d must be there, but there are %d", m.totals.Pushed, m.totals.gone(), live, m.Len())
	}
	return nil
}
