package machine

// The driver plays the part of the queue around the machine: it keeps the log, walks it, advances time, and after every step
// checks the invariants and that a restart, from a snapshot or from the log, gives the very same state.

import (
	"bytes"

	"pgregory.net/rapid"
)

type logged struct {
	kind  Kind
	flags uint8
	meta  []byte
	body  int
}

type driver struct {
	t      rapid.TB // of a test, or of one run of rapid's
	m      *Machine
	log    []logged
	now    Time
	next   uint64 // the server-wide sequence of batches and tokens
	policy RetryPolicy
	// replay from the first record after every step; without it a restart from the snapshot is all that is checked.
	replay bool
}

const wallStart = 1_700_000_000_000

func newDriver(t rapid.TB) *driver {
	d := &driver{t: t, m: New(), now: Time{ClockMillis: 1000, WallMillis: wallStart}, next: 100, replay: true,
		policy: RetryPolicy{Backoff: 1, DelayMaxMillis: 900_000}}
	d.apply(CreateMeta("orders", Options{}, d.now.WallMillis), 0)
	return d
}

func (d *driver) id() uint64 {
	d.next++
	return d.next
}

// apply appends a record to the log and to the state.
func (d *driver) apply(e Effect, body int) uint64 {
	d.t.Helper()
	lsn := d.m.LastLSN() + 1
	if err := d.m.Apply(lsn, e.Kind, e.Flags, e.Meta, body); err != nil {
		d.t.Fatalf("the machine cannot apply its own decision: %v", err)
	}
	d.log = append(d.log, logged{e.Kind, e.Flags, bytes.Clone(e.Meta), body})
	return lsn
}

func (d *driver) check() {
	d.t.Helper()
	if err := d.m.CheckInvariants(); err != nil {
		d.t.Fatal(err)
	}
	state := d.m.Snapshot(nil)
	again, err := Restore(state)
	if err != nil {
		d.t.Fatal(err)
	}
	if !bytes.Equal(again.Snapshot(nil), state) {
		d.t.Fatal("a restored state differs from the one it was taken of")
	}
	if d.replay && !bytes.Equal(d.replayed().Snapshot(nil), state) {
		d.t.Fatal("replaying the log gives another state")
	}
}

func (d *driver) replayed() *Machine {
	d.t.Helper()
	m := New()
	for i, r := range d.log {
		if err := m.Apply(uint64(i)+1, r.kind, r.flags, r.meta, r.body); err != nil {
			d.t.Fatalf("replay: %v", err)
		}
	}
	return m
}

func (d *driver) push(body int, msg Message) uint64 {
	d.t.Helper()
	msg.PushedMillis = d.now.WallMillis
	return d.apply(Effect{Kind: KindMessage, Meta: MessageMeta(nil, msg)}, body)
}

// gather collects a batch of at most most messages: those that came back, then new ones.
func (d *driver) gather(most int) LeaseRequest {
	l := LeaseRequest{Returned: d.m.PeekReturned(d.now, most, nil), Cursor: d.m.Cursor()}
	for at := l.Cursor + 1; at <= d.m.LastLSN() && len(l.Returned)+len(l.New) < most; at++ {
		r := d.log[at-1]
		if r.kind == KindMessage && !IsDelayed(r.flags, r.meta) && !d.m.Removed(at) {
			l.New = append(l.New, Fresh{ID: at, SizeBytes: uint32(r.body)})
		}
		l.Cursor = at
	}
	return l
}

// consume leases a batch to the holder of the lock, 0 if there is nothing.
func (d *driver) consume(most int, leaseMillis int64) (uint64, LeaseRequest) {
	d.t.Helper()
	l := d.gather(most)
	if len(l.Returned)+len(l.New) == 0 {
		return 0, l
	}
	l.Batch, l.LeaseMillis = d.id(), leaseMillis
	d.apply(d.m.DecideLease(d.now, l), 0)
	return l.Batch, l
}

func (d *driver) grant(consumer string, ttl int64) uint64 {
	d.t.Helper()
	g := Grant{Consumer: consumer, Token: d.id(), TTLMillis: ttl}
	d.apply(d.m.DecideGrant(d.now, g), 0)
	return g.Token
}

func (d *driver) ack(batch uint64, ids []uint64) (int, error) {
	d.t.Helper()
	n, e, changed, err := d.m.DecideAck(d.now, batch, ids)
	if changed {
		d.apply(e, 0)
	}
	return n, err
}

func (d *driver) nack(batch uint64, ids []uint64, mode NackMode, delay int64) (int, error) {
	d.t.Helper()
	n, e, changed, err := d.m.DecideNack(d.now, batch, ids, mode, delay, d.policy)
	if changed {
		d.apply(e, 0)
	}
	return n, err
}

// pass lets time go by, and records what ended.
func (d *driver) pass(millis int64) (expired, lapsed bool) {
	d.t.Helper()
	d.now.ClockMillis += millis
	d.now.WallMillis += millis
	e, expired := d.m.DecideExpire(d.now, d.policy)
	if expired {
		d.apply(e, 0)
	}
	if l, held := d.m.Lock(); held && l.DeadlineMillis <= d.now.ClockMillis {
		d.apply(d.m.DecideUnlock(d.now, nil, true), 0)
		lapsed = true
	}
	return expired, lapsed
}

// removals are the records of these ids as a caller would have read them.
func (d *driver) removals(ids []uint64) []Removal {
	var list []Removal
	for _, id := range ids {
		if id >= 1 && id <= uint64(len(d.log)) && d.log[id-1].kind == KindMessage {
			r := d.log[id-1]
			list = append(list, Removal{ID: id, SizeBytes: uint32(r.body), Delayed: IsDelayed(r.flags, r.meta)})
		}
	}
	return list
}

// readyBelow walks the log for a purge.
func (d *driver) readyBelow(before uint64) (n, size int64) {
	for at := d.m.Cursor() + 1; at < before && at <= d.m.LastLSN(); at++ {
		if r := d.log[at-1]; r.kind == KindMessage && !IsDelayed(r.flags, r.meta) && !d.m.Removed(at) {
			n++
			size += int64(r.body)
		}
	}
	return n, size
}
