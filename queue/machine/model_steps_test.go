package machine

// The steps of the model: what clients and the queue around the machine may do, and what must come of it.

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"pgregory.net/rapid"
)

// Policy draws how failures are treated from now on.
func (m *model) Policy(t *rapid.T) {
	m.policy = RetryPolicy{
		DelayMillis:    rapid.SampledFrom([]int64{0, 0, 10}).Draw(t, "retry-delay"),
		Backoff:        rapid.Int64Range(1, 3).Draw(t, "backoff"),
		DelayMaxMillis: 40,
		AttemptsMax:    rapid.SampledFrom([]int64{0, 0, 1, 3}).Draw(t, "max-attempts"),
	}
}

// drawMessage draws a message and what the model expects of it.
func (m *model) drawMessage(t *rapid.T) (Message, *modelMessage) {
	msg, s := Message{}, &modelMessage{state: Ready, size: rapid.IntRange(0, 300).Draw(t, "size")}
	if rapid.IntRange(0, 4).Draw(t, "delayed") == 0 {
		msg.DueMillis = m.now.WallMillis + rapid.Int64Range(1, 50).Draw(t, "delay")
		s.state, s.due, s.delayed = Delayed, msg.DueMillis, true
	}
	if rapid.IntRange(0, 3).Draw(t, "mortal") == 0 {
		msg.TTLMillis = rapid.Int64Range(1, 50).Draw(t, "ttl")
		s.over = m.now.WallMillis + msg.TTLMillis
	}
	if rapid.IntRange(0, 5).Draw(t, "headed") == 0 {
		msg.Headers = [][2][]byte{{[]byte("k"), []byte("v")}, {[]byte{}, []byte{0, 255}}}
	}
	if rapid.IntRange(0, 9).Draw(t, "moved") == 0 {
		msg.Origin = Origin{Incarnation: 3, ID: 9, Attempts: 2, Reason: MoveRefused, Queue: []byte("other")}
	}
	return msg, s
}

func (m *model) Push(t *rapid.T) {
	msg, s := m.drawMessage(t)
	if dedup := rapid.SampledFrom([]string{"", "", "x", "y", "z"}).Draw(t, "dedup"); dedup != "" && m.dedup[dedup].until <= m.now.WallMillis {
		msg.Dedup, msg.DedupUntilMillis = []byte(dedup), m.now.WallMillis+rapid.Int64Range(1, 60).Draw(t, "window")
		m.dedup[dedup] = modelDedup{m.m.LastLSN() + 1, msg.DedupUntilMillis}
		m.keys = append(m.keys, dedupKey{dedup, remembered{message: m.m.LastLSN() + 1}})
	}
	id := m.push(s.size, msg)
	m.messages[id] = s
	m.totals.Pushed++
	msg.PushedMillis = m.now.WallMillis
	if read, err := ParseMessage(m.log[id-1].meta); err != nil || fmt.Sprintf("%+v", read) != fmt.Sprintf("%+v", msg) {
		t.Fatalf("a message was written as %+v and reads %+v, %v", msg, read, err)
	}
}

// PushMany is the common push, which is applied all at once.
func (m *model) PushMany(t *rapid.T) {
	sizes := rapid.SliceOfN(rapid.IntRange(0, 300), 1, 5).Draw(t, "sizes")
	first, total := m.m.LastLSN()+1, 0
	for i, size := range sizes {
		total += size
		m.messages[first+uint64(i)] = &modelMessage{state: Ready, size: size}
		m.log = append(m.log, logged{kind: KindMessage, meta: MessageMeta(nil, Message{PushedMillis: m.now.WallMillis}), body: size})
	}
	if err := m.m.ApplyMessages(first, len(sizes), int64(total), m.now.WallMillis); err != nil {
		t.Fatal(err)
	}
	m.totals.Pushed += int64(len(sizes))
}

// PushDuplicate pushes an id that is remembered: the queue asks first, and the machine refuses the record of one that did not.
func (m *model) PushDuplicate(t *rapid.T) {
	dedup := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "dedup")
	if m.dedup[dedup].until <= m.now.WallMillis {
		t.Skip("not remembered")
	}
	m.m.CountDuplicate()
	m.totals.Deduplicated++
	m.refused(t, Effect{Kind: KindMessage, Meta: MessageMeta(nil, Message{PushedMillis: m.now.WallMillis, Dedup: []byte(dedup), DedupUntilMillis: m.now.WallMillis + 9})})
}

// refused applies a record that does not belong: it must change nothing.
func (m *model) refused(t *rapid.T, e Effect) {
	before := m.m.Snapshot(nil)
	if err := m.m.Apply(m.m.LastLSN()+1, e.Kind, e.Flags, e.Meta, 0); err == nil {
		t.Fatalf("a %s that does not belong was applied", e.Kind)
	}
	if !bytes.Equal(m.m.Snapshot(nil), before) {
		t.Fatalf("a %s that was refused changed the state", e.Kind)
	}
}

// once applies an effect that means nothing when it comes again.
func (m *model) once(e Effect) {
	m.apply(e, 0)
	m.stale = append(m.stale, Effect{Kind: e.Kind, Flags: e.Flags, Meta: bytes.Clone(e.Meta)})
}

// Stale brings a record a second time: an acknowledgement, a lease or an unlock of a time that is over.
func (m *model) Stale(t *rapid.T) {
	if len(m.stale) == 0 {
		t.Skip("nothing was applied yet")
	}
	m.refused(t, rapid.SampledFrom(m.stale).Draw(t, "record"))
}

// ForeignLock takes the lock that another holds, or with a token of an earlier tenure.
func (m *model) ForeignLock(t *rapid.T) {
	token := m.id()
	if m.token == 0 || rapid.Bool().Draw(t, "old token") {
		token = m.m.lastToken // the last tenure's; if it still holds, in another consumer's hands
	}
	m.refused(t, m.m.DecideGrant(m.now, Grant{Consumer: "mallory", Token: token, TTLMillis: 50}))
}

func (m *model) Lock(t *rapid.T) {
	ttl := rapid.Int64Range(1, 60).Draw(t, "ttl")
	if m.token != 0 {
		m.apply(m.m.DecideGrant(m.now, Grant{Consumer: m.holder, Token: m.token, TTLMillis: ttl}), 0)
	} else {
		m.holder = rapid.SampledFrom([]string{"alice", "bob"}).Draw(t, "consumer")
		m.token = m.grant(m.holder, ttl)
	}
	m.ttl, m.until, m.volatile = ttl, m.now.ClockMillis+ttl, 0
}

func (m *model) RenewVolatile(t *rapid.T) {
	at := m.now.ClockMillis + rapid.Int64Range(0, 60).Draw(t, "millis")
	m.m.RenewVolatile(at)
	if m.token != 0 {
		m.volatile = max(m.volatile, at)
	}
}

// fate is what becomes of a message that goes back, and of its batch.
type modelFate struct {
	counted bool
	dead    bool // all of them
	p       *RetryPolicy
	delay   func(failed uint32) int64
}

// back returns these messages of a batch. It answers which of them go to the dead-letter queue.
func (m *model) back(b *modelBatch, ids []uint64, f modelFate) (dead []uint64) {
	for _, id := range ids {
		delete(b.left, id)
		s := m.messages[id]
		if f.counted {
			s.failed++
			m.totals.Failed++
		}
		_, over := slices.BinarySearch(f.p.Expired, id)
		switch {
		case over:
			s.state = Gone
			m.totals.Expired++
		case f.dead || f.counted && f.p.AttemptsMax > 0 && int64(s.failed) >= f.p.AttemptsMax:
			s.state = Gone
			m.totals.DeadLettered++
			dead = append(dead, id)
		default:
			s.state, s.due = Retrying, 0
			if d := f.delay(s.failed); d > 0 {
				s.due = m.now.WallMillis + d
			}
		}
	}
	b.open = len(b.left) > 0
	return dead
}

func noDelay(uint32) int64 { return 0 }

func (m *model) backoff(failed uint32) int64 {
	d := m.policy.DelayMillis
	for ; failed > 1; failed-- {
		d *= m.policy.Backoff
	}
	return min(d, m.policy.DelayMaxMillis)
}

// over lists the messages of the model whose TTL is over, rising: sometimes the queue around the machine looks, sometimes not.
func (m *model) over(t *rapid.T) (ids []uint64) {
	if !rapid.Bool().Draw(t, "looks at TTL") {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(m.messages)) {
		if s := m.messages[id]; s.over != 0 && s.over <= m.now.WallMillis {
			ids = append(ids, id)
		}
	}
	return ids
}

// openBatches are the ids of the open batches, rising.
func (m *model) openBatches() (ids []uint64) {
	for _, id := range slices.Sorted(maps.Keys(m.batches)) {
		if m.batches[id].open {
			ids = append(ids, id)
		}
	}
	return ids
}

func (m *model) Unlock(t *rapid.T) {
	if m.token == 0 {
		t.Skip("nobody holds the lock")
	}
	m.endTenure(t, Released, modelFate{p: &RetryPolicy{}, delay: noDelay})
}

// Lapse ends a tenure whose time is over.
func (m *model) Lapse(t *rapid.T) {
	if m.token == 0 || m.lapses() > m.now.ClockMillis {
		t.Skip("no lock has lapsed")
	}
	m.endTenure(t, Expired, modelFate{counted: true, p: &RetryPolicy{}, delay: noDelay}) // a lock never lapses before its batches
}

func (m *model) endTenure(t *rapid.T, reason Reason, f modelFate) {
	var next *Grant
	if rapid.Bool().Draw(t, "next") {
		next = &Grant{Consumer: "carol", Token: m.id(), TTLMillis: 30}
	}
	m.once(m.m.DecideUnlock(m.now, next, reason != Released))
	for _, id := range m.openBatches() {
		b := m.batches[id]
		m.back(b, slices.Sorted(maps.Keys(b.left)), f)
		b.reason = reason
	}
	m.token, m.holder, m.ttl, m.until, m.volatile = 0, "", 0, 0, 0
	if next != nil {
		m.holder, m.token, m.ttl, m.until = next.Consumer, next.Token, next.TTLMillis, m.now.ClockMillis+next.TTLMillis
	}
}

func (m *model) Expire(t *rapid.T) {
	m.policy.Expired = m.over(t)
	e, changed := m.m.DecideExpire(m.now, m.policy)
	dead := m.m.Dead(e, nil)
	if changed {
		m.once(e)
	}
	var wantDead []uint64
	any := false
	for _, id := range m.openBatches() {
		if b := m.batches[id]; b.deadline <= m.now.ClockMillis {
			wantDead = append(wantDead, m.back(b, slices.Sorted(maps.Keys(b.left)), modelFate{counted: true, p: &m.policy, delay: m.backoff})...)
			b.reason, any = Expired, true
		}
	}
	m.policy.Expired = nil
	if any != changed || !slices.Equal(dead, wantDead) {
		t.Fatalf("an expiry: %v with %v for the dead-letter queue, not %v with %v", changed, dead, any, wantDead)
	}
}

func (m *model) Pass(t *rapid.T) {
	m.now.ClockMillis += rapid.Int64Range(0, 30).Draw(t, "clock")
	m.now.WallMillis += rapid.Int64Range(0, 30).Draw(t, "wall")
}

// next are the messages that a batch of at most most must hold: those that came back and are due, lowest id first, then new ones.
func (m *model) next(most int) (want []uint64) {
	ids := slices.Sorted(maps.Keys(m.messages))
	for _, fits := range []func(*modelMessage) bool{
		func(s *modelMessage) bool {
			return (s.state == Retrying || s.state == Delayed) && s.due <= m.now.WallMillis
		},
		func(s *modelMessage) bool { return s.state == Ready },
	} {
		for _, id := range ids {
			if len(want) < most && fits(m.messages[id]) {
				want = append(want, id)
			}
		}
	}
	return want
}

func (m *model) Consume(t *rapid.T) {
	if m.token == 0 {
		t.Skip("nobody holds the lock")
	}
	most := rapid.IntRange(1, 5).Draw(t, "count")
	lease := rapid.Int64Range(1, 60).Draw(t, "lease")
	want := m.next(most)
	batch, l := m.consume(most, lease)
	var got []uint64
	for _, r := range l.Returned {
		if s := m.messages[r.ID]; r.Failed != s.failed || int(r.SizeBytes) != s.size {
			t.Fatalf("message %d came back with %d failed attempts and %d bytes, not %d and %d", r.ID, r.Failed, r.SizeBytes, s.failed, s.size)
		}
		got = append(got, r.ID)
	}
	for _, n := range l.New {
		got = append(got, n.ID)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("a batch of %d holds %v, not %v", most, got, want)
	}
	if batch == 0 {
		return
	}
	r := m.log[len(m.log)-1]
	m.stale = append(m.stale, Effect{Kind: r.kind, Flags: r.flags, Meta: r.meta})
	b := &modelBatch{open: true, deadline: m.now.ClockMillis + lease, all: want, left: map[uint64]bool{}}
	for _, id := range want {
		m.messages[id].state = Leased
		b.left[id] = true
	}
	m.batches[batch] = b
	m.issued = append(m.issued, batch)
	m.totals.Delivered += int64(len(want))
	m.until = m.now.ClockMillis + m.ttl
}

// draw picks a batch, mostly one of the latest, sometimes one that never was, and ids: all, some of it, or a stranger's.
func (m *model) draw(t *rapid.T) (batch uint64, ids []uint64) {
	batch = 7
	if n := len(m.issued); n > 0 && rapid.IntRange(0, 9).Draw(t, "unknown") > 0 {
		batch = m.issued[max(0, n-1-rapid.IntRange(0, 5).Draw(t, "age"))]
	}
	b := m.batches[batch]
	if b == nil || rapid.Bool().Draw(t, "all") {
		return batch, nil
	}
	ids = rapid.SliceOfN(rapid.SampledFrom(b.all), 1, 4).Draw(t, "ids")
	if rapid.IntRange(0, 9).Draw(t, "stranger") == 0 {
		ids = append(ids, m.m.LastLSN()+5)
	}
	return batch, ids
}

// expect is what a call on that batch must come to: the messages it is about, or an error.
func (m *model) expect(batch uint64, ids []uint64) (list []uint64, err error) {
	b := m.batches[batch]
	switch {
	case b == nil:
		return nil, &BatchError{Batch: batch, Reason: Unknown}
	case b.open && b.deadline <= m.now.ClockMillis: // over, though nobody has recorded it yet
		return nil, &BatchError{Batch: batch, Reason: Expired}
	case !b.open && b.reason != Unknown:
		return nil, &BatchError{Batch: batch, Reason: b.reason}
	case !b.open:
		return nil, nil
	case ids == nil:
		return slices.Sorted(maps.Keys(b.left)), nil
	}
	for _, id := range ids {
		if !slices.Contains(b.all, id) {
			return nil, &NotInBatchError{}
		}
		if b.left[id] {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

func (m *model) same(t *rapid.T, n int, err error, list []uint64, want error) {
	var gotBatch, wantBatch *BatchError
	var gotID, wantID *NotInBatchError
	if n != len(list) || (err == nil) != (want == nil) || errors.As(err, &gotBatch) != errors.As(want, &wantBatch) || errors.As(err, &gotID) != errors.As(want, &wantID) {
		t.Fatalf("the answer is %d, %v; not %d, %v", n, err, len(list), want)
	}
	if gotBatch != nil && gotBatch.Reason != wantBatch.Reason {
		t.Fatalf("the answer is %v, not %v", err, want)
	}
}

func (m *model) Ack(t *rapid.T) {
	batch, ids := m.draw(t)
	list, want := m.expect(batch, ids)
	n, e, changed, err := m.m.DecideAck(m.now, batch, ids)
	m.same(t, n, err, list, want)
	if changed != (n > 0) {
		t.Fatalf("%d were acknowledged, changed is %v", n, changed)
	}
	if !changed {
		return
	}
	m.once(e)
	b := m.batches[batch]
	for _, id := range list {
		delete(b.left, id)
		m.messages[id].state = Gone
	}
	b.open = len(b.left) > 0
	m.totals.Acknowledged += int64(n)
	m.until = m.now.ClockMillis + m.ttl
}

func (m *model) Nack(t *rapid.T) {
	batch, ids := m.draw(t)
	mode := rapid.SampledFrom([]NackMode{Retry, Retry, Release, Dead}).Draw(t, "mode")
	delay := rapid.SampledFrom([]int64{-1, 0, 25}).Draw(t, "delay")
	m.policy.Expired = m.over(t)
	list, want := m.expect(batch, ids)
	n, e, changed, err := m.m.DecideNack(m.now, batch, ids, mode, delay, m.policy)
	m.same(t, n, err, list, want)
	if changed != (n > 0) {
		t.Fatalf("%d went back, changed is %v", n, changed)
	}
	if changed {
		f := modelFate{counted: mode != Release, dead: mode == Dead, p: &m.policy, delay: func(uint32) int64 { return max(delay, 0) }}
		if delay < 0 && mode != Release {
			f.delay = m.backoff
		}
		dead := m.m.Dead(e, nil)
		m.once(e)
		if want := m.back(m.batches[batch], list, f); !slices.Equal(dead, want) {
			t.Fatalf("for the dead-letter queue are %v, not %v", dead, want)
		}
		m.until = m.now.ClockMillis + m.ttl
	}
	m.policy.Expired = nil
}

func (m *model) Extend(t *rapid.T) {
	batch, _ := m.draw(t)
	millis := rapid.Int64Range(1, 60).Draw(t, "millis")
	_, want := m.expect(batch, nil)
	if b := m.batches[batch]; want == nil && !b.open {
		want = &BatchError{Reason: ResolvedBatch}
	}
	deadline, e, err := m.m.DecideExtend(m.now, batch, millis)
	m.same(t, 0, err, nil, want)
	if err != nil {
		return
	}
	m.apply(e, 0)
	m.batches[batch].deadline = m.now.ClockMillis + millis
	m.until = m.now.ClockMillis + m.ttl
	if deadline != m.batches[batch].deadline {
		t.Fatalf("the deadline is %d, not %d", deadline, m.batches[batch].deadline)
	}
}

// Save takes a checkpoint.
func (m *model) Save(*rapid.T) { m.saved = saved{len(m.log), m.m.Snapshot(nil)} }

// Restart replaces the machine by one from its snapshot, from an older one and the records after it, or from all records. All three
// must be the same.
func (m *model) Restart(t *rapid.T) {
	state := m.m.Snapshot(nil)
	now, err := Restore(state)
	if err != nil {
		t.Fatal(err)
	}
	older, err := Restore(m.saved.state)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range m.log[m.saved.records:] {
		if err := older.Apply(uint64(m.saved.records+i)+1, r.kind, r.flags, r.meta, r.body); err != nil {
			t.Fatalf("replay: %v", err)
		}
	}
	all := []*Machine{now, older, m.replayed()}
	for i, again := range all {
		if !bytes.Equal(again.Snapshot(nil), state) {
			t.Fatalf("the restart in way %d gives another state", i)
		}
	}
	m.m = rapid.SampledFrom(all).Draw(t, "restarted")
	m.volatile, m.totals.Deduplicated = 0, 0
}

// take is what a removal or a move of these ids must take out.
func (m *model) take(ids []uint64) (n int) {
	for _, id := range ids {
		if s := m.messages[id]; s.live() {
			s.state = Gone
			n++
		}
	}
	return n
}

// drawIDs draws some messages in whatever state.
func (m *model) drawIDs(t *rapid.T) []uint64 {
	ids := slices.Sorted(maps.Keys(m.messages))
	if len(ids) == 0 {
		t.Skip("nothing was pushed")
	}
	ids = rapid.SliceOfNDistinct(rapid.SampledFrom(ids), 1, 3, rapid.ID[uint64]).Draw(t, "ids")
	slices.Sort(ids)
	return ids
}

func (m *model) Remove(t *rapid.T) { m.remove(t, m.drawIDs(t), ByOwner, &m.totals.Removed) }

// Sweep takes out what its TTL is over for. The list has leased messages too: TTL never acts on those.
func (m *model) Sweep(t *rapid.T) { m.remove(t, m.over(t), ByTTL, &m.totals.Expired) }

func (m *model) remove(t *rapid.T, ids []uint64, reason RemoveReason, total *int64) {
	n, e, changed, err := m.m.DecideRemove(m.removals(ids), reason)
	if err != nil {
		t.Fatal(err)
	}
	if changed {
		m.apply(e, 0)
	}
	want := m.take(ids)
	*total += int64(want)
	if n != want || changed != (n > 0) {
		t.Fatalf("%d of %v were removed, not %d", n, ids, want)
	}
}

// Move takes messages out that another queue gets in the same group: dead letters, or a redrive of them.
func (m *model) Move(t *rapid.T) {
	ids, reason, total := m.drawIDs(t), MoveRedrive, &m.totals.Redriven
	if rapid.Bool().Draw(t, "dead") {
		reason, total = MoveAttempts, &m.totals.DeadLettered
	}
	n, e, changed, err := m.m.DecideMove(m.removals(ids), reason, 5)
	if err != nil {
		t.Fatal(err)
	}
	if changed {
		m.apply(e, 0)
	}
	want := m.take(ids)
	*total += int64(want)
	if n != want || changed != (n > 0) {
		t.Fatalf("%d of %v were moved, not %d", n, ids, want)
	}
}

func (m *model) Purge(t *rapid.T) {
	before := m.m.LastLSN() + 1 - min(m.m.LastLSN(), rapid.Uint64Range(0, 20).Draw(t, "kept"))
	ready, size := m.readyBelow(before)
	n, e, changed := m.m.DecidePurge(before, ready, size)
	if changed {
		m.apply(e, 0)
	}
	var below []uint64
	for id := range m.messages {
		if id < before {
			below = append(below, id)
		}
	}
	want := int64(m.take(below))
	m.totals.Removed += want
	if n != want || changed != (n > 0) {
		t.Fatalf("%d were purged below %d, not %d", n, before, want)
	}
}

func (m *model) Configure(t *rapid.T) {
	o := Options{}
	if rapid.Bool().Draw(t, "own") {
		o.SetValue(Lease, rapid.Int64Range(1, 1000).Draw(t, "lease"))
		if err := o.Set("dead-letter-queue", rapid.SampledFrom([]string{"", "graves"}).Draw(t, "dead-letter-queue")); err != nil {
			t.Fatal(err)
		}
	}
	m.apply(ConfigMeta(o), 0)
	m.options = o
}

func (m *model) Pause(t *rapid.T) {
	push, consume := rapid.Bool().Draw(t, "push"), rapid.Bool().Draw(t, "consume")
	e, changed := m.m.DecidePause(push, consume)
	if changed {
		m.apply(e, 0)
	}
	if changed != (push != m.pausedPush || consume != m.pausedConsume) {
		t.Fatalf("a pause of %v, %v changed %v", push, consume, changed)
	}
	m.pausedPush, m.pausedConsume = push, consume
}

// delete ends the queue's life: nothing may come after that.
func (m *model) delete(t *rapid.T) {
	m.apply(Effect{Kind: KindDelete}, 0)
	if !m.m.Deleted() || !reflect.DeepEqual(m.replayed().Snapshot(nil), m.m.Snapshot(nil)) {
		t.Fatal("the deletion does not replay")
	}
	m.refused(t, Effect{Kind: KindMessage, Meta: MessageMeta(nil, Message{PushedMillis: m.now.WallMillis})})
}
