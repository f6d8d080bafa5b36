// Package machine is what a queue is, without the world around it: no clock, no IO, no goroutine, no randomness.
//
// One idea carries it: deciding and changing are apart. Decide… looks at the state and at the time it is given and returns
// an Effect, the record to be; it changes nothing. Apply changes the state as the record says and decides nothing: every time,
// id and choice stands in the record. So the same records make the same state on every machine and after every restart.
//
//	kind.go       what records there are
//	message.go    the fields of a message's record
//	lock.go       the tenure: who may consume
//	lease.go      batches that are open
//	settle.go     acknowledging, giving back, extending
//	giveback.go   how a batch's messages return, for all the ways they can
//	waiting.go    delayed and retrying messages
//	manage.go     creation, options, pause, deletion
//	remove.go     taking messages out: removal, purge, moves
//	memory.go     batches that are over, so that a late acknowledgement gets the right answer
//	dedup.go      the deduplication window
//	option.go     the table of queue options
//	counts.go     what QINFO tells
//	wire.go       reading and writing fields
//	snapshot.go   the state as bytes
//	invariant.go  what must always be true
//
// # Where a message is
//
// A message's id is the LSN of its record. A cursor walks the log: messages above it that were pushed without a delay are ready,
// and cost no memory. Everything else that lives is in memory, in exactly one place:
//
//	           push                lease                 ack
//	(nothing) ──────▶  ready  ──────────────▶  leased  ────────▶ (gone)
//	    │          above the cursor   ▲       an open batch
//	    │ push with a delay           │          │ nack, expiry, unlock
//	    ▼                             │          ▼
//	 delayed ─────────────────────────┴───── retrying
//
// So an acknowledged message needs no memory either: at or below the cursor, what is in no batch and does not wait is gone.
// While nothing is ready the cursor stands at the last record.
package machine

import "fmt"

const (
	// ValueMax bounds every id, time, token and count in a record: clients read them as integers below 2^53.
	ValueMax = 1<<53 - 1
	// SizeBytesMax bounds one body; it equals the record format's own limit.
	SizeBytesMax = 1 << 30
	// NameBytesMax bounds the names of queues and consumers in bytes.
	NameBytesMax = 200
	// scratchMax is the capacity in elements above which scratch is not kept between records.
	scratchMax = 1024
)

// Time is now, on both clocks. A Decide function uses the one that its effect runs on.
type Time struct {
	// ClockMillis is the server clock: milliseconds of up-time, continued at a restart. Leases and locks run on it, so time
	// that the server was down counts for nobody.
	ClockMillis int64
	// WallMillis is unix time in milliseconds. Delays run on it.
	WallMillis int64
}

// Machine is the state of one queue. It is not safe for concurrent use: the queue's lock guards it.
type Machine struct {
	name          string
	createdMillis int64
	options       Options
	deleted       bool
	pausedPush    bool
	pausedConsume bool

	lastLSN uint64
	// cursor: messages above it that are not delayed are ready, unless removed holds them.
	cursor     uint64
	ready      int64 // messages above the cursor that the walk will find
	readyBytes int64
	removed    []span // ids above the cursor that are gone, rising

	lock tenure
	// batches are those that are open, by rising id. All belong to the present tenure.
	batches     []*batch
	leased      int64 // unresolved messages in batches
	leasedBytes int64

	// due waits for its wall time; returned can be delivered at once. Which of both holds a message whose time has passed is
	// no state: it depends on who looked when, and no snapshot tells.
	due      heap[byDue]
	returned heap[byID]
	delayed  tally // of the waiting: never delivered
	retrying tally // of the waiting: delivered before

	lastBatch uint64 // batch ids rise
	lastToken uint64 // tokens rise
	wall      int64  // the latest wall time in any record
	expiry    int64  // when the last TTL of any message that was ever pushed ends, unix milliseconds; 0 if none had one

	resolved resolvedRing
	ended    endedRing
	dedup    dedupWindow
	totals   Totals

	// duplicates counts pushes that added nothing. They make no record, so it is no state and begins at 0 with each start.
	duplicates int64

	// Scratch, no state.
	ids     []uint64
	indexes []int
	peeked  []waiting
}

// tally counts messages and their bodies' bytes.
type tally struct{ messages, bytes int64 }

func (t *tally) add(sizeBytes uint32)  { t.messages++; t.bytes += int64(sizeBytes) }
func (t *tally) take(sizeBytes uint32) { t.messages--; t.bytes -= int64(sizeBytes) }

// New returns the state before the first record, which must be a KindCreate.
func New() *Machine { return &Machine{} }

// Apply changes the state as the record with this LSN says. The record has bodyBytes bytes of body; only messages have any.
// LSNs come without a gap. An error means that the record is damaged or does not belong to this state; the state is
// unchanged then. Apply keeps no part of meta.
func (m *Machine) Apply(lsn uint64, kind Kind, flags uint8, meta []byte, bodyBytes int) error {
	if err := m.admits(lsn, kind, flags, bodyBytes); err != nil {
		return err
	}
	r := reader{rest: meta}
	var err error
	switch kind {
	case KindCreate:
		err = m.applyCreate(&r)
	case KindMessage:
		err = m.applyMessage(lsn, meta, bodyBytes)
	case KindLease:
		err = m.applyLease(&r)
	case KindSettle:
		err = m.applySettle(&r)
	case KindExtend:
		err = m.applyExtend(&r)
	case KindLock:
		err = m.applyLock(&r)
	case KindExpire:
		err = m.applyExpire(&r)
	case KindConfig:
		err = m.applyConfig(&r)
	case KindPause:
		err = m.applyPause(&r)
	case KindPurge:
		err = m.applyPurge(&r)
	case KindRemove:
		err = m.applyRemove(&r)
	case KindMove:
		err = m.applyMove(&r)
	case KindDelete:
		err = m.applyDelete(&r)
	default:
		return fmt.Errorf("record %d: kind %d is no kind of a queue's record", lsn, kind)
	}
	if err != nil {
		return fmt.Errorf("record %d, a %s: %w", lsn, kind, err)
	}
	m.lastLSN = lsn
	m.settleCursor()
	m.trim()
	return nil
}

// trim lets go of scratch that one large batch has left.
func (m *Machine) trim() {
	if cap(m.ids) > scratchMax {
		m.ids = nil
	}
	if cap(m.indexes) > scratchMax {
		m.indexes = nil
	}
	if cap(m.peeked) > scratchMax {
		m.peeked = nil
	}
}

// admits checks what holds for records of every kind.
func (m *Machine) admits(lsn uint64, kind Kind, flags uint8, bodyBytes int) error {
	switch {
	case lsn != m.lastLSN+1:
		return fmt.Errorf("record %d cannot follow record %d: %w", lsn, m.lastLSN, errGap)
	case lsn > ValueMax:
		return fmt.Errorf("record %d is beyond the highest id %d", lsn, uint64(ValueMax))
	case flags != payloadVersion:
		return fmt.Errorf("record %d, a %s: its fields are of version %d, this is %d", lsn, kind, flags, payloadVersion)
	case m.deleted:
		return fmt.Errorf("record %d, a %s: the queue was deleted by record %d", lsn, kind, m.lastLSN)
	case (kind == KindCreate) != (lsn == 1):
		return fmt.Errorf("record %d, a %s: a queue's first record, and no other, creates it", lsn, kind)
	case bodyBytes < 0 || bodyBytes > SizeBytesMax:
		return fmt.Errorf("record %d, a %s: a body of %d bytes; 0 to %d are possible", lsn, kind, bodyBytes, SizeBytesMax)
	case bodyBytes > 0 && kind != KindMessage:
		return fmt.Errorf("record %d, a %s: only a message has a body, this has %d bytes", lsn, kind, bodyBytes)
	}
	return nil
}

// ApplyMessages applies count messages without delay, TTL, deduplication id or headers at once: the common push. They have
// the LSNs from firstLSN on, bodies of bytes bytes together, and were pushed at pushedMillis (unix).
// It is the same as Apply for each, without reading their fields, and does not allocate.
func (m *Machine) ApplyMessages(firstLSN uint64, count int, bytes int64, pushedMillis int64) error {
	if count < 1 || bytes < 0 || bytes > int64(count)*SizeBytesMax || pushedMillis < 0 || pushedMillis > ValueMax {
		return fmt.Errorf("%d messages of %d bytes, pushed at %d: impossible", count, bytes, pushedMillis)
	}
	if err := m.admits(firstLSN, KindMessage, payloadVersion, 0); err != nil {
		return err
	}
	last := firstLSN + uint64(count) - 1
	if last > ValueMax {
		return fmt.Errorf("record %d is beyond the highest id %d", last, uint64(ValueMax))
	}
	m.ready += int64(count)
	m.readyBytes += bytes
	m.totals.Pushed += int64(count)
	m.wall = max(m.wall, pushedMillis)
	m.lastLSN = last
	return nil
}

// settleCursor keeps the cursor at the last record while nothing is ready: so the walk never passes over state changes
// that nobody needs, and a drained queue needs none of its log.
func (m *Machine) settleCursor() {
	if m.ready == 0 && m.cursor != m.lastLSN {
		m.cursor = m.lastLSN
		m.removed = nil
	}
}

// Name is the queue's name, empty before its first record.
func (m *Machine) Name() string { return m.name }

// CreatedMillis is when the queue was made, in unix milliseconds.
func (m *Machine) CreatedMillis() int64 { return m.createdMillis }

// Options are the queue's own options; read only.
func (m *Machine) Options() *Options { return &m.options }

// Paused tells which sides of the queue are paused.
func (m *Machine) Paused() (push, consume bool) { return m.pausedPush, m.pausedConsume }

// Deleted reports whether the last record deleted the queue.
func (m *Machine) Deleted() bool { return m.deleted }

// LastLSN is the LSN of the last record that was applied, 0 before the first.
func (m *Machine) LastLSN() uint64 { return m.lastLSN }

// LastWallMillis is the latest wall time in any record. A new record's should not be below it.
func (m *Machine) LastWallMillis() int64 { return m.wall }

// ExpiryWall is when the last TTL of all messages that were ever pushed ends, in unix milliseconds; 0 if none had one. So once a
// look at every message after that moment has taken out what expired, nothing is left to expire.
func (m *Machine) ExpiryWall() int64 { return m.expiry }

// Cursor is the id up to which the walk has come: new messages are above it.
func (m *Machine) Cursor() uint64 { return m.cursor }

// FirstNeeded is the lowest LSN whose record may still be needed: no living message has a lower id. It is LastLSN()+1 when
// the queue is drained. It looks at every delayed message, so it is for checkpoints and not for every command.
func (m *Machine) FirstNeeded() uint64 {
	first := m.cursor + 1
	for _, b := range m.batches {
		for i := range b.messages {
			if !b.messages[i].resolved {
				first = min(first, b.messages[i].id)
				break
			}
		}
	}
	if len(m.returned.entries) > 0 {
		first = min(first, m.returned.entries[0].id)
	}
	for i := range m.due.entries {
		first = min(first, m.due.entries[i].id)
	}
	return first
}
