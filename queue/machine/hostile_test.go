package machine

// Bytes that no machine has written: they must give an error and change nothing, without a panic and without an allocation that the
// bytes do not justify. Without this one damaged record could take the whole server down, at every start again.

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// busy is a queue with something of everything.
func busy(t testing.TB) *driver {
	d := newDriver(t)
	d.replay = false
	options := Options{}
	for _, o := range [][2]string{{"lease", "1000"}, {"max-bytes", "1gb"}, {"dead-letter-queue", "morgue"}} {
		if err := options.Set(o[0], o[1]); err != nil {
			t.Fatal(err)
		}
	}
	d.apply(ConfigMeta(options), 0)
	for i := range 30 {
		msg := Message{}
		switch i % 10 {
		case 3:
			msg.DueMillis = d.now.WallMillis + int64(i)
		case 5:
			msg.Dedup, msg.DedupUntilMillis = fmt.Append(nil, "id", i), d.now.WallMillis+int64(i)
		case 7:
			msg.TTLMillis = 1000
			msg.Headers = [][2][]byte{{[]byte("trace"), []byte("4711")}, {[]byte("empty"), nil}}
			msg.Origin = Origin{Incarnation: 3, ID: 9, Attempts: 5, Reason: MoveRefused, Queue: []byte("mails")}
		}
		d.push(i, msg)
	}
	d.grant("alice", 30_000)
	first, _ := d.consume(3, 1000)
	d.ack(first, nil)
	second, l := d.consume(3, 1000)
	d.nack(second, []uint64{l.New[0].ID}, Retry, 50)
	d.nack(second, []uint64{l.New[1].ID}, Release, 0)
	d.consume(2, 10)
	d.pass(10)
	_, open := d.consume(4, 5000)
	if len(open.Returned) == 0 {
		t.Fatal("nothing came back")
	}
	_, e, _, err := d.m.DecideRemove(d.removals([]uint64{20, 22, 23}), ByOwner)
	if err != nil {
		t.Fatal(err)
	}
	d.apply(e, 0)
	e, _ = d.m.DecidePause(true, false)
	d.apply(e, 0)
	d.check()
	return d
}

// nextRecords are decisions on the busy queue, one of each kind.
func nextRecords(t testing.TB, d *driver) []Effect {
	batch := d.m.Batches(nil)[0].Batch
	l := d.gather(5)
	l.Batch, l.LeaseMillis = d.id(), 1000
	later := Time{ClockMillis: d.now.ClockMillis + 1_000_000, WallMillis: d.now.WallMillis + 1_000_000}
	p := RetryPolicy{DelayMillis: 10, Backoff: 2, DelayMaxMillis: 1000, AttemptsMax: 2}
	ids := []uint64{d.m.Unresolved(batch, nil)[0].ID}
	var all []Effect
	add := func(e Effect) { all = append(all, e) }
	add(d.m.DecideLease(d.now, l))
	_, e, _, _ := d.m.DecideAck(d.now, batch, ids)
	add(e)
	_, e, _, _ = d.m.DecideNack(d.now, batch, nil, Retry, -1, p)
	add(e)
	_, e, _, _ = d.m.DecideNack(d.now, batch, ids, Dead, -1, p)
	add(e)
	_, e, _ = d.m.DecideExtend(d.now, batch, 5)
	add(e)
	add(d.m.DecideUnlock(d.now, &Grant{Consumer: "bob", Token: d.id(), TTLMillis: 5}, false))
	add(d.m.DecideGrant(d.now, Grant{Consumer: "alice", Token: d.m.lock.grant.Token, TTLMillis: 7}))
	e, _ = d.m.DecideExpire(later, p)
	add(e)
	add(ConfigMeta(d.m.options))
	e, _ = d.m.DecidePause(false, true)
	add(e)
	ready, size := d.readyBelow(30)
	_, e, _ = d.m.DecidePurge(30, ready, size)
	add(e)
	_, e, _, _ = d.m.DecideRemove(d.removals([]uint64{24, 25, 26}), ByTTL)
	add(e)
	_, e, _, _ = d.m.DecideMove(d.removals([]uint64{24, 25, 26}), MoveRedrive, 17)
	add(e)
	add(Effect{Kind: KindMessage, Meta: MessageMeta(nil, Message{PushedMillis: 5, DueMillis: 6, TTLMillis: 7, Dedup: []byte("x"), DedupUntilMillis: 9,
		Headers: [][2][]byte{{[]byte("a"), []byte("b")}}, Origin: Origin{Incarnation: 1, ID: 2, Queue: []byte("q")}})})
	add(Effect{Kind: KindDelete})
	for _, e := range all {
		if e.Kind == 0 {
			t.Fatal("a decision came to nothing")
		}
	}
	return all
}

// try applies a record and, if that is refused, checks that nothing has changed.
func try(t testing.TB, state []byte, lsn uint64, e Effect, body int) error {
	m, err := Restore(state)
	if err != nil {
		t.Fatal(err)
	}
	if err = m.Apply(lsn, e.Kind, e.Flags, e.Meta, body); err != nil && !bytes.Equal(m.Snapshot(nil), state) {
		t.Fatalf("a record that was refused (%v) changed the state: kind %v, %x", err, e.Kind, e.Meta)
	}
	m.Dead(e, nil)
	return err
}

func TestEveryKindOfRecordAppliesAndShortOnesDoNot(t *testing.T) {
	d := busy(t)
	state, lsn := d.m.Snapshot(nil), d.m.LastLSN()+1
	for _, e := range nextRecords(t, d) {
		if err := try(t, state, lsn, e, 0); err != nil {
			t.Errorf("%v: %v", e.Kind, err)
		}
		m, _ := Restore(state)
		if err := m.Apply(lsn, e.Kind, e.Flags, e.Meta, 0); err == nil {
			if err := m.CheckInvariants(); err != nil {
				t.Errorf("after a %v: %v", e.Kind, err)
			}
		}
		for n := range e.Meta {
			short := e
			short.Meta = e.Meta[:n]
			if err := try(t, state, lsn, short, 0); err == nil {
				t.Errorf("%v: %d of %d bytes are accepted", e.Kind, n, len(e.Meta))
			}
		}
		long := e
		long.Meta = append(bytes.Clone(e.Meta), 0)
		if err := try(t, state, lsn, long, 0); err == nil {
			t.Errorf("%v: a byte too many is accepted", e.Kind)
		}
		for i := range e.Meta {
			for bit := range 8 {
				flipped := e
				flipped.Meta = bytes.Clone(e.Meta)
				flipped.Meta[i] ^= 1 << bit
				try(t, state, lsn, flipped, 0) // an error or not, but no panic, and all or nothing
			}
		}
	}
}

func TestRecordsThatDoNotBelong(t *testing.T) {
	d := busy(t)
	state, lsn := d.m.Snapshot(nil), d.m.LastLSN()+1
	message := Effect{Kind: KindMessage, Meta: MessageMeta(nil, Message{PushedMillis: 1})}
	for _, c := range []struct {
		why  string
		lsn  uint64
		e    Effect
		body int
	}{
		{"a gap", lsn + 1, message, 0},
		{"a repetition", lsn - 1, message, 0},
		{"a second creation", lsn, CreateMeta("again", Options{}, 1), 0},
		{"fields of a later version", lsn, Effect{Kind: KindMessage, Flags: 1, Meta: message.Meta}, 0},
		{"a kind of a later version", lsn, Effect{Kind: 200}, 0},
		{"the server's own kind", lsn, Effect{Kind: KindReserve}, 0},
		{"a body that is no message's", lsn, Effect{Kind: KindPause, Meta: []byte{0}}, 1},
		{"a body too large", lsn, message, SizeBytesMax + 1},
		{"a grant to another", lsn, d.m.DecideGrant(d.now, Grant{Consumer: "bob", Token: d.id(), TTLMillis: 1}), 0},
		{"a grant of the same token to another", lsn, d.m.DecideGrant(d.now, Grant{Consumer: "bob", Token: d.m.lock.grant.Token, TTLMillis: 1}), 0},
		{"a handover with an old token", lsn, d.m.DecideUnlock(d.now, &Grant{Consumer: "bob", Token: 5, TTLMillis: 1}, false), 0},
		{"a lease of nothing", lsn, d.m.DecideLease(d.now, LeaseRequest{Batch: d.id()}), 0},
		{"a lease with an old batch", lsn, d.m.DecideLease(d.now, LeaseRequest{Batch: 5, New: d.gather(9).New}), 0},
		{"a lease of a stranger", lsn, d.m.DecideLease(d.now, LeaseRequest{Batch: d.id(), Returned: []Returned{{ID: 9999}}}), 0},
		{"a lease beyond the log", lsn, d.m.DecideLease(d.now, LeaseRequest{Batch: d.id(), New: []Fresh{{ID: 9999}}}), 0},
		{"a lease of a removed message", lsn, d.m.DecideLease(d.now, LeaseRequest{Batch: d.id(), New: []Fresh{{ID: 20, SizeBytes: 1}}}), 0},
		{"a lease of all that is ready with too few bytes", lsn, d.m.DecideLease(d.now, LeaseRequest{Batch: d.id(), New: withoutBytes(d.gather(1000).New)}), 0},
		{"a settlement of what is settled", lsn, settledTwice(d), 0},
		{"an expiry that miscounts its batch", lsn, miscounted(t, d), 0},
		{"a lease of too many bytes", lsn, d.m.DecideLease(d.now, LeaseRequest{Batch: d.id(), New: []Fresh{{ID: 21, SizeBytes: 1 << 29}}}), 0},
		{"a cursor that leaves ready messages behind", lsn, d.m.DecideLease(d.now, LeaseRequest{Batch: d.id(), New: []Fresh{{ID: 21}}, Cursor: d.m.LastLSN()}), 0},
	} {
		if err := try(t, state, c.lsn, c.e, c.body); err == nil {
			t.Errorf("%s is accepted", c.why)
		} else if testing.Verbose() {
			t.Logf("%s: %v", c.why, err)
		}
	}
	free := newDriver(t)
	free.push(1, Message{})
	if err := try(t, free.m.Snapshot(nil), 3, free.m.DecideLease(free.now, LeaseRequest{Batch: 5, New: []Fresh{{ID: 2, SizeBytes: 1}}}), 0); err == nil {
		t.Error("a lease without a tenure is accepted")
	}
	if err := try(t, New().Snapshot(nil), 1, message, 0); err == nil {
		t.Error("a queue begins without its creation")
	}
	d.apply(Effect{Kind: KindDelete}, 0)
	if err := try(t, d.m.Snapshot(nil), d.m.LastLSN()+1, message, 0); err == nil {
		t.Error("a deleted queue goes on")
	}
}

func withoutBytes(list []Fresh) []Fresh {
	for i := range list {
		list[i].SizeBytes = 0
	}
	return list
}

// settledTwice acknowledges one message of an open batch, and returns the same acknowledgement once more.
func settledTwice(d *driver) Effect {
	for _, b := range d.m.batches {
		for i := range b.messages {
			if b.messages[i].resolved {
				meta := put(put(put(put(nil, b.id), 1), settleListed), 1)
				return Effect{Kind: KindSettle, Meta: put(meta, b.messages[i].id)}
			}
		}
	}
	panic("the busy queue has no batch that is resolved in part")
}

// miscounted is an expiry of one batch that says it has one message more than it has.
func miscounted(t *testing.T, d *driver) Effect {
	e, _ := d.m.DecideExpire(Time{ClockMillis: ValueMax}, RetryPolicy{})
	r := reader{rest: e.Meta}
	r.value() // the clock
	r.value() // the number of batches
	r.value() // the first one's id
	r.value() // its reason
	at := len(e.Meta) - len(r.rest)
	if e.Meta[at] > 100 {
		t.Fatal("the count takes more than a byte")
	}
	e.Meta[at]++
	return e
}

func TestDamagedSnapshots(t *testing.T) {
	state := busy(t).m.Snapshot(nil)
	for n := range state {
		if _, err := Restore(state[:n]); err == nil {
			t.Errorf("%d of %d bytes are accepted", n, len(state))
		}
	}
	if _, err := Restore(append(bytes.Clone(state), 0)); err == nil {
		t.Error("a byte too many is accepted")
	}
	for i := range state {
		for bit := range 8 {
			flipped := bytes.Clone(state)
			flipped[i] ^= 1 << bit
			if m, err := Restore(flipped); err == nil {
				checkRestored(t, m)
			}
		}
	}
}

// checkRestored: what is accepted is a state like any other.
func checkRestored(t testing.TB, m *Machine) {
	state := m.Snapshot(nil)
	again, err := Restore(state)
	if err != nil {
		t.Fatalf("a restored state cannot be restored again: %v", err)
	}
	if !bytes.Equal(again.Snapshot(nil), state) {
		t.Fatal("a restored state differs from itself")
	}
}

// A count that says "two to the fifty" must not be believed.
func TestCountsThatLieAllocateNothing(t *testing.T) {
	d := busy(t)
	state, lsn := d.m.Snapshot(nil), d.m.LastLSN()+1
	huge := binary.AppendUvarint(nil, 1<<50)
	within := func(what string, f func()) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s allocates %d bytes", what, n)
		}
	}
	for i := range state {
		lie := append(append(bytes.Clone(state[:i]), huge...), state[i:]...)
		within("a snapshot", func() { Restore(lie) })
	}
	for _, e := range nextRecords(t, d) {
		for i := range e.Meta {
			lie := e
			lie.Meta = append(append(bytes.Clone(e.Meta[:i]), huge...), e.Meta[i:]...)
			within(e.Kind.String(), func() { try(t, state, lsn, lie, 0) })
			within(e.Kind.String(), func() { ParseMessage(lie.Meta) })
		}
	}
}

func FuzzApply(f *testing.F) {
	d := busy(f)
	state, lsn := d.m.Snapshot(nil), d.m.LastLSN()+1
	for _, e := range nextRecords(f, d) {
		f.Add(uint8(e.Kind), e.Meta, 0)
	}
	f.Fuzz(func(t *testing.T, kind uint8, meta []byte, body int) {
		try(t, state, lsn, Effect{Kind: Kind(kind), Meta: meta}, body)
	})
}

func FuzzRestore(f *testing.F) {
	f.Add(busy(f).m.Snapshot(nil))
	f.Add(New().Snapshot(nil))
	f.Fuzz(func(t *testing.T, state []byte) {
		if m, err := Restore(state); err == nil {
			checkRestored(t, m)
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	f.Add(MessageMeta(nil, Message{PushedMillis: 1}))
	f.Add([]byte(strings.Repeat("\xff", 20)))
	f.Fuzz(func(t *testing.T, meta []byte) {
		msg, err := ParseMessage(meta)
		if err != nil {
			return
		}
		again, err := ParseMessage(MessageMeta(nil, msg))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(msg) {
			t.Fatalf("%+v becomes %+v, %v", msg, again, err)
		}
	})
}
