package machine

// The state as bytes, for checkpoints. The same state gives the same bytes, whatever way it came about: lists are sorted, and
// what is no state (scratch, volatile renewals, which heap a due message lies in) is left out.
//
//	version       1 byte
//	queue         created, name, options, bits: push paused, consume paused, deleted
//	place         last LSN, its distance from the cursor, last batch, last token, latest wall time, end of the last TTL
//	ready         messages, bytes; number of removed spans, and for each its distance and its length
//	lock          token, and if it is not 0: TTL, deadline, consumer
//	batches       number; for each: id as distance, deadline, number of messages; for each of those: id as distance, size,
//	              failed attempts × 2 + 1 if resolved
//	waiting       number; for each: id as distance, due, size, failed attempts × 2 + 1 if it was delivered
//	memory        number of resolved batches, their ids; number of batches that ended otherwise: id, server clock, reason
//	dedup         number; for each, in push order: id, message, until
//	totals        eight numbers

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

const snapshotVersion = 1

// Smallest sizes in a snapshot, so that no count makes Restore allocate much more than the bytes it was given.
const (
	messageBytesMin = 3
	waitingBytesMin = 4
	spanBytesMin    = 2
)

var (
	errSnapshotVersion = errors.New("its version is not known")
	errSnapshotName    = errors.New("the queue has no name in UTF-8")
	errSnapshotRing    = errors.New("it remembers too many batches")
	errSnapshotDedup   = errors.New("a deduplication id is empty or there twice")
)

// Frozen is a machine's state at one moment. What is small is encoded; the lists that may have a million entries are copied as they
// are, which takes a hundredth of the time that sorting and encoding them does, so the queue's lock is held briefly.
type Frozen struct {
	head, memory, totals []byte
	waiting              []waiting
	dedup                []dedupKey
}

// Freeze copies the state, for Encode to be called without the queue's lock.
func (m *Machine) Freeze() *Frozen {
	head := m.options.encode(putText(putMillis([]byte{snapshotVersion}, m.createdMillis), m.name))
	head = put(head, bit(m.pausedPush)|bit(m.pausedConsume)<<1|bit(m.deleted)<<2)
	head = put(put(head, m.lastLSN), m.lastLSN-m.cursor)
	head = putMillis(putMillis(put(put(head, m.lastBatch), m.lastToken), m.wall), m.expiry)
	head = m.snapshotBatches(m.snapshotLock(m.snapshotReady(head)))
	var totals []byte
	for _, t := range m.totals.stored() {
		totals = putMillis(totals, *t)
	}
	all := make([]waiting, 0, len(m.due.entries)+len(m.returned.entries))
	all = append(append(all, m.due.entries...), m.returned.entries...)
	return &Frozen{head: head, memory: m.snapshotMemory(nil), totals: totals, waiting: all, dedup: m.dedup.live()}
}

// Encode appends the state to dst, for Restore.
func (f *Frozen) Encode(dst []byte) []byte {
	dst = append(dst, f.head...)
	dst = f.encodeWaiting(dst)
	dst = append(dst, f.memory...)
	dst = put(dst, uint64(len(f.dedup)))
	for _, k := range f.dedup {
		dst = putMillis(put(putText(dst, k.id), k.message), k.until)
	}
	return append(dst, f.totals...)
}

// Snapshot appends the state to dst: Freeze and Encode in one.
func (m *Machine) Snapshot(dst []byte) []byte { return m.Freeze().Encode(dst) }

// stored are the totals that a snapshot holds.
func (t *Totals) stored() [8]*int64 {
	return [...]*int64{&t.Pushed, &t.Delivered, &t.Acknowledged, &t.Failed, &t.Expired, &t.DeadLettered, &t.Removed, &t.Redriven}
}

func (m *Machine) snapshotReady(dst []byte) []byte {
	dst = putMillis(putMillis(dst, m.ready), m.readyBytes)
	dst = put(dst, uint64(len(m.removed)))
	at := m.cursor
	for _, s := range m.removed {
		dst = put(put(dst, s.from-at), s.to-s.from)
		at = s.to
	}
	return dst
}

func (m *Machine) snapshotLock(dst []byte) []byte {
	dst = put(dst, m.lock.grant.Token)
	if m.lock.grant.Token != 0 {
		dst = putMillis(putMillis(dst, m.lock.grant.TTLMillis), m.lock.deadline)
		dst = putText(dst, m.lock.grant.Consumer)
	}
	return dst
}

func (m *Machine) snapshotBatches(dst []byte) []byte {
	dst = put(dst, uint64(len(m.batches)))
	lastBatch := uint64(0)
	for _, b := range m.batches {
		dst = put(putMillis(put(dst, b.id-lastBatch), b.deadline), uint64(len(b.messages)))
		lastBatch = b.id
		at := uint64(0)
		for i := range b.messages {
			l := &b.messages[i]
			dst = put(put(dst, l.id-at), uint64(l.sizeBytes))
			dst = put(dst, uint64(l.failed)<<1|bit(l.resolved))
			at = l.id
		}
	}
	return dst
}

func (f *Frozen) encodeWaiting(dst []byte) []byte {
	all := f.waiting
	slices.SortFunc(all, func(a, b waiting) int { return cmp.Compare(a.id, b.id) })
	dst = put(dst, uint64(len(all)))
	at := uint64(0)
	for i := range all {
		w := &all[i]
		dst = putMillis(put(dst, w.id-at), w.dueMillis)
		dst = put(dst, uint64(w.sizeBytes))
		dst = put(dst, uint64(w.failed())<<1|bit(w.seen()))
		at = w.id
	}
	return dst
}

func (m *Machine) snapshotMemory(dst []byte) []byte {
	dst = put(dst, uint64(len(m.resolved.values)))
	m.resolved.all(func(id uint64) { dst = put(dst, id) })
	dst = put(dst, uint64(len(m.ended.values)))
	m.ended.all(func(e endedBatch) { dst = put(putMillis(put(dst, e.id), e.clock), uint64(e.reason)) })
	return dst
}

// NameOf reads the name out of a snapshot, which takes no time. It sees to it that Restore knows the version.
func NameOf(snapshot []byte) (string, error) {
	r := reader{rest: snapshot}
	if version := r.value(); r.err == nil && version != snapshotVersion {
		r.fail(errSnapshotVersion)
	}
	r.millis()
	name := string(r.text(NameBytesMax))
	if r.err == nil && (name == "" || !utf8.ValidString(name)) {
		r.fail(errSnapshotName)
	}
	if r.err != nil {
		return "", fmt.Errorf("read the name in a queue's state: %w", r.err)
	}
	return name, nil
}

// NameOfCreate reads the name out of the fields of a KindCreate.
func NameOfCreate(meta []byte) (string, error) {
	m := New()
	if err := m.applyCreate(&reader{rest: meta}); err != nil {
		return "", err
	}
	return m.name, nil
}

// Restore makes the machine that Snapshot was taken of. It believes nothing: an error means that the bytes are no state of a
// queue. The machine keeps no part of snapshot.
func Restore(snapshot []byte) (*Machine, error) {
	r := reader{rest: snapshot}
	m := New()
	m.restore(&r)
	if err := r.done(); err != nil {
		return nil, fmt.Errorf("restore a queue's state: %w", err)
	}
	if err := m.CheckInvariants(); err != nil {
		return nil, fmt.Errorf("restore a queue's state: %w", err)
	}
	return m, nil
}

func (m *Machine) restore(r *reader) {
	if version := r.value(); r.err == nil && version != snapshotVersion {
		r.fail(errSnapshotVersion)
	}
	m.createdMillis = r.millis()
	m.name = string(r.text(NameBytesMax))
	m.options = readOptions(r)
	bits := r.upTo(7)
	m.pausedPush, m.pausedConsume, m.deleted = bits&1 != 0, bits&2 != 0, bits&4 != 0
	m.lastLSN = r.value()
	m.cursor = m.lastLSN - r.upTo(m.lastLSN)
	m.lastBatch, m.lastToken, m.wall, m.expiry = r.value(), r.value(), r.millis(), r.millis()
	if r.err == nil && m.lastLSN > 0 && (m.name == "" || !utf8.ValidString(m.name)) {
		r.fail(errSnapshotName)
	}
	m.restoreReady(r)
	m.restoreLock(r)
	m.restoreBatches(r)
	m.restoreWaiting(r)
	m.restoreMemory(r)
	for _, t := range m.totals.stored() {
		*t = r.millis()
	}
}

func (m *Machine) restoreReady(r *reader) {
	m.ready, m.readyBytes = r.millis(), r.millis()
	at := m.cursor
	for n := r.countOf(spanBytesMin); n > 0 && r.err == nil; n-- {
		from := r.above(at)
		at = from + r.upTo(ValueMax-from)
		m.removed = append(m.removed, span{from, at})
	}
}

func (m *Machine) restoreLock(r *reader) {
	m.lock.grant.Token = r.value()
	if m.lock.grant.Token != 0 {
		m.lock.grant.TTLMillis, m.lock.deadline = r.millis(), r.millis()
		m.lock.grant.Consumer = string(r.text(NameBytesMax))
	}
}

func (m *Machine) restoreBatches(r *reader) {
	id := uint64(0)
	for n := r.count(); n > 0 && r.err == nil; n-- {
		id = r.above(id)
		b := &batch{id: id, deadline: r.millis()}
		count := r.countOf(messageBytesMin)
		b.messages = make([]leasedMessage, 0, count)
		at := uint64(0)
		for ; count > 0 && r.err == nil; count-- {
			at = r.above(at)
			b.add(at, uint32(r.upTo(SizeBytesMax)), 0)
			failed := r.upTo(failedMax<<1 | 1)
			l := &b.messages[len(b.messages)-1]
			l.failed = uint32(failed >> 1)
			if failed&1 != 0 {
				l.resolved = true
				b.unresolved--
				b.bytes -= int64(l.sizeBytes)
			}
		}
		m.batches = append(m.batches, b)
		m.leased += int64(b.unresolved)
		m.leasedBytes += b.bytes
	}
}

func (m *Machine) restoreWaiting(r *reader) {
	at := uint64(0)
	for n := r.countOf(waitingBytesMin); n > 0 && r.err == nil; n-- {
		at = r.above(at)
		w := waiting{id: at, dueMillis: r.millis(), sizeBytes: uint32(r.upTo(SizeBytesMax))}
		failed := r.upTo(failedMax<<1 | 1)
		w.failedAndSeen = uint32(failed >> 1)
		if failed&1 != 0 {
			w.failedAndSeen |= seenMark
		}
		if r.err == nil {
			m.wait(w)
		}
	}
}

func (m *Machine) restoreMemory(r *reader) {
	n := r.count()
	if n > BatchesRemembered {
		r.fail(errSnapshotRing)
	}
	for ; n > 0 && r.err == nil; n-- {
		m.resolved.add(r.value())
	}
	n = r.count()
	if n > BatchesRemembered {
		r.fail(errSnapshotRing)
	}
	for ; n > 0 && r.err == nil; n-- {
		m.ended.add(endedBatch{id: r.value(), clock: r.millis(), reason: Reason(r.upTo(uint64(reasonsEnded) - 1))})
	}
	for n = r.count(); n > 0 && r.err == nil; n-- {
		id := string(r.text(DedupBytesMax))
		known := remembered{message: r.value(), until: r.millis()}
		if _, twice := m.dedup.byID[id]; twice || id == "" {
			r.fail(errSnapshotDedup)
			break
		}
		m.dedup.add(id, known)
	}
}
