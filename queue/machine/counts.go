package machine

// What QINFO tells, and where a single message is.

// Totals count what has happened in the queue's life.
type Totals struct {
	Pushed       int64
	Delivered    int64
	Acknowledged int64
	// Failed counts attempts, all others messages.
	Failed       int64
	Expired      int64
	DeadLettered int64
	Removed      int64
	Redriven     int64
	// Deduplicated counts pushes that added nothing, since the server started.
	Deduplicated int64
}

// gone is how many messages have left the queue, in whatever way.
func (t *Totals) gone() int64 {
	return t.Acknowledged + t.Expired + t.DeadLettered + t.Removed + t.Redriven
}

// Counts are a queue's numbers. A delayed or retrying message counts as that until it is delivered, also once it is due.
type Counts struct {
	Ready, Delayed, Leased, Retrying                     int64
	ReadyBytes, DelayedBytes, LeasedBytes, RetryingBytes int64
	OpenBatches                                          int
	Totals
}

// Total is how many messages are not acknowledged, in any state.
func (c Counts) Total() int64 { return c.Ready + c.Delayed + c.Leased + c.Retrying }

// TotalBytes is the size of their bodies together.
func (c Counts) TotalBytes() int64 {
	return c.ReadyBytes + c.DelayedBytes + c.LeasedBytes + c.RetryingBytes
}

// Counts returns the queue's numbers.
func (m *Machine) Counts() Counts {
	c := Counts{
		Ready: m.ready, Delayed: m.delayed.messages, Leased: m.leased, Retrying: m.retrying.messages,
		ReadyBytes: m.readyBytes, DelayedBytes: m.delayed.bytes, LeasedBytes: m.leasedBytes, RetryingBytes: m.retrying.bytes,
		OpenBatches: len(m.batches),
		Totals:      m.totals,
	}
	c.Deduplicated = m.duplicates
	return c
}

// Len is how many messages are not acknowledged, in any state.
func (m *Machine) Len() int64 {
	return m.ready + m.delayed.messages + m.leased + m.retrying.messages
}

// BatchInfo describes one open batch.
type BatchInfo struct {
	Batch uint64
	// Messages are those that are unresolved, Bytes the size of their bodies.
	Messages int
	Bytes    int64
	// DeadlineMillis is on the server clock.
	DeadlineMillis int64
	// FirstID is the lowest id among them.
	FirstID uint64
}

// Batches appends the open batches to dst, by rising id.
func (m *Machine) Batches(dst []BatchInfo) []BatchInfo {
	for _, b := range m.batches {
		i := BatchInfo{Batch: b.id, Messages: b.unresolved, Bytes: b.bytes, DeadlineMillis: b.deadline}
		for j := range b.messages {
			if !b.messages[j].resolved {
				i.FirstID = b.messages[j].id
				break
			}
		}
		dst = append(dst, i)
	}
	return dst
}

// Unresolved appends the unresolved messages of an open batch to dst, by rising id. A batch that is not open has none.
func (m *Machine) Unresolved(batch uint64, dst []Returned) []Returned {
	b := m.batch(batch)
	if b == nil {
		return dst
	}
	for i := range b.messages {
		if l := &b.messages[i]; !l.resolved {
			dst = append(dst, Returned{ID: l.id, SizeBytes: l.sizeBytes, Failed: l.failed})
		}
	}
	return dst
}

// State is where a message is.
type State uint8

const (
	// Gone: it was acknowledged, removed, moved, or never was.
	Gone State = iota
	// Ready: the walk will find it.
	Ready
	// Delayed: it waits for its time, or is due, and was never delivered.
	Delayed
	// Leased: it is in an open batch.
	Leased
	// Retrying: it was delivered, came back, and waits for its time or its turn.
	Retrying
)

func (s State) String() string {
	return [...]string{"gone", "ready", "delayed", "leased", "retrying"}[s]
}

// Tracked visits the messages from one id to another, both included, that are leased, delayed or retrying, in no order; attempts is
// as in StateOf. Up to the cursor these are all that live. It looks at every waiting message.
func (m *Machine) Tracked(from, to uint64, visit func(id uint64, s State, attempts uint32)) {
	for _, b := range m.batches {
		for i := range b.messages {
			if l := &b.messages[i]; !l.resolved && from <= l.id && l.id <= to {
				visit(l.id, Leased, l.failed+1)
			}
		}
	}
	m.eachWaiting(func(w *waiting) {
		switch {
		case w.id < from || w.id > to:
		case w.seen():
			visit(w.id, Retrying, w.failed())
		default:
			visit(w.id, Delayed, 0)
		}
	})
}

// StateOf is where the message with this id is, and the number of its latest attempt; 0 if it was never delivered. The caller knows
// that the id is a message's and that IsDelayed is false for it: above the cursor, ready messages leave no trace in the
// machine. It looks at every waiting message.
func (m *Machine) StateOf(id uint64) (s State, attempts uint32) {
	if s, attempts = m.StateOfDelayed(id); s == Gone && id > m.cursor && id <= m.lastLSN && !m.Removed(id) {
		s = Ready
	}
	return s, attempts
}

// StateOfDelayed is StateOf for a message for which IsDelayed is true.
func (m *Machine) StateOfDelayed(id uint64) (s State, attempts uint32) {
	for _, b := range m.batches {
		if i := b.index(id); i >= 0 && !b.messages[i].resolved {
			return Leased, b.messages[i].failed + 1
		}
	}
	m.eachWaiting(func(w *waiting) {
		if w.id != id {
			return
		}
		if s = Delayed; w.seen() {
			s, attempts = Retrying, w.failed()
		}
	})
	return s, attempts
}
