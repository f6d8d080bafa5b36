package machine

// Kept is a message that the log must keep.
type Kept struct {
	ID uint64
	// SizeBytes is the size of the body.
	SizeBytes uint32
}

// Kept appends to dst, in no order, all messages up to the cursor that live, and returns it: nobody will ask for any other record
// up to there again. Above the cursor the log must keep everything. It looks at every waiting message.
func (m *Machine) Kept(dst []Kept) []Kept {
	for _, b := range m.batches {
		for i := range b.messages {
			if l := &b.messages[i]; !l.resolved && l.id <= m.cursor {
				dst = append(dst, Kept{l.id, l.sizeBytes})
			}
		}
	}
	m.eachWaiting(func(w *waiting) {
		if w.id <= m.cursor {
			dst = append(dst, Kept{w.id, w.sizeBytes})
		}
	})
	return dst
}
