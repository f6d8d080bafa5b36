package machine

// Going on with a state although records are lost: only for saving what is left of a damaged data directory. Nothing here decides
// for a running queue. What is not known to be gone stays, so a message may come again that was acknowledged; none is left out whose record
// is there.

// Lost says that all records up to lsn, which is above the last one, are lost. Ready messages among them are not counted, and no state change
// among them happened as far as this state knows.
func (m *Machine) Lost(lsn uint64) {
	m.lastLSN = max(m.lastLSN, lsn)
	m.settleCursor()
}

// Rename gives the queue another name: two can have one if the deletion of the first is lost.
func (m *Machine) Rename(name string) { m.name = name }

// LastIDs are the highest batch id and lock token that the state knows of.
func (m *Machine) LastIDs() (batch, token uint64) { return m.lastBatch, m.lastToken }

// Salvage brings the state to what is there: lost tells of a message that the state knows by its id whether its record cannot be read,
// and ready messages of readyBytes bytes were found above the cursor. gone is how many messages are lost, as far as the state can
// tell. They count as removed, so that the totals add up.
func (m *Machine) Salvage(lost func(id uint64) bool, ready, readyBytes int64) (gone int64) {
	for _, b := range append([]*batch(nil), m.batches...) {
		for i := range b.messages {
			if l := &b.messages[i]; !l.resolved && lost(l.id) {
				m.resolve(b, l)
				gone++
			}
		}
		if b.unresolved == 0 {
			m.close(b)
		}
	}
	drop := func(w *waiting) bool {
		if !lost(w.id) {
			return false
		}
		m.waitsNoMore(w)
		gone++
		return true
	}
	m.due.remove(drop)
	m.returned.remove(drop)
	if ready < m.ready {
		gone += m.ready - ready
	} else {
		m.totals.Pushed += ready - m.ready
	}
	m.ready, m.readyBytes = ready, readyBytes
	m.totals.Removed += gone
	m.settleCursor()
	return gone
}
