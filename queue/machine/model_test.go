package machine

// The machine against a model that is small enough to be seen to be right: every message has one state in a map, every batch a set,
// and each rule of the contract is a line. Rapid draws what clients do, with stale batches and tokens and ids from elsewhere among
// it, lets time pass, restarts, and compares everything that can be asked.

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

type modelMessage struct {
	state   State
	size    int
	due     int64
	failed  uint32
	delayed bool
}

type modelBatch struct {
	open     bool
	reason   Reason // if it ended otherwise than by its holder
	deadline int64
	all      []uint64
	left     map[uint64]bool
}

type model struct {
	*driver
	messages map[uint64]*modelMessage
	batches  map[uint64]*modelBatch
	issued   []uint64 // batch ids
	holder   string
	token    uint64
	ttl      int64
	until    int64
	acked    int64
	dead     int64
	removed  int64
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{driver: newDriver(t), messages: map[uint64]*modelMessage{}, batches: map[uint64]*modelBatch{}}
		m.replay = false // Restart does it
		m.policy = RetryPolicy{
			DelayMillis:    rapid.SampledFrom([]int64{0, 0, 10}).Draw(rt, "retry-delay"),
			Backoff:        rapid.Int64Range(1, 3).Draw(rt, "backoff"),
			DelayMaxMillis: 40,
			AttemptsMax:    rapid.SampledFrom([]int64{0, 0, 3}).Draw(rt, "max-attempts"),
		}
		rt.Repeat(map[string]func(*rapid.T){
			"push": m.Push, "push2": m.Push, "lock": m.Lock, "unlock": m.Unlock, "consume": m.Consume, "consume2": m.Consume, "ack": m.Ack, "nack": m.Nack,
			"extend": m.Extend, "pass": m.Pass, "restart": m.Restart, "remove": m.Remove, "purge": m.Purge, "": m.Check,
		})
	})
}

func (m *model) Push(t *rapid.T) {
	size := rapid.IntRange(0, 300).Draw(t, "size")
	msg := Message{}
	s := &modelMessage{state: Ready, size: size}
	if rapid.IntRange(0, 4).Draw(t, "delayed") == 0 {
		msg.DueMillis = m.now.WallMillis + rapid.Int64Range(1, 50).Draw(t, "delay")
		s.state, s.due, s.delayed = Delayed, msg.DueMillis, true
	}
	m.messages[m.push(size, msg)] = s
}

func (m *model) Lock(t *rapid.T) {
	ttl := rapid.Int64Range(1, 60).Draw(t, "ttl")
	if m.token != 0 {
		m.apply(m.m.DecideGrant(m.now, Grant{Consumer: m.holder, Token: m.token, TTLMillis: ttl}), 0)
	} else {
		m.holder = rapid.SampledFrom([]string{"alice", "bob"}).Draw(t, "consumer")
		m.token = m.grant(m.holder, ttl)
	}
	m.ttl, m.until = ttl, m.now.ClockMillis+ttl
}

// back returns what is left of a batch.
func (m *model) back(b *modelBatch, counted bool, delay func(failed uint32) int64, dead bool, ids []uint64) {
	for _, id := range ids {
		delete(b.left, id)
		s := m.messages[id]
		if counted {
			s.failed++
		}
		if dead || counted && m.policy.AttemptsMax > 0 && int64(s.failed) >= m.policy.AttemptsMax {
			s.state = Gone
			m.dead++
			continue
		}
		s.state, s.due = Retrying, 0
		if d := delay(s.failed); d > 0 {
			s.due = m.now.WallMillis + d
		}
	}
	if len(b.left) == 0 {
		b.open = false
	}
}

func noDelay(uint32) int64 { return 0 }

func (m *model) backoff(failed uint32) int64 {
	d := m.policy.DelayMillis
	for ; failed > 1; failed-- {
		d *= m.policy.Backoff
	}
	return min(d, m.policy.DelayMaxMillis)
}

func (m *model) Unlock(t *rapid.T) {
	if m.token == 0 {
		t.Skip("nobody holds the lock")
	}
	var next *Grant
	if rapid.Bool().Draw(t, "next") {
		next = &Grant{Consumer: "carol", Token: m.id(), TTLMillis: 30}
	}
	m.apply(m.m.DecideUnlock(m.now, next, false), 0)
	for _, b := range m.batches {
		if b.open {
			m.back(b, false, noDelay, false, slices.Sorted(maps.Keys(b.left)))
			b.reason = Released
		}
	}
	m.token = 0
	if next != nil {
		m.holder, m.token, m.ttl, m.until = next.Consumer, next.Token, next.TTLMillis, m.now.ClockMillis+next.TTLMillis
	}
}

func (m *model) Consume(t *rapid.T) {
	if m.token == 0 {
		t.Skip("nobody holds the lock")
	}
	most := rapid.IntRange(1, 5).Draw(t, "count")
	lease := rapid.Int64Range(1, 60).Draw(t, "lease")
	batch, l := m.consume(most, lease)
	// Those that came back and are due, lowest id first, then new ones.
	var want []uint64
	for _, state := range []func(*modelMessage) bool{
		func(s *modelMessage) bool {
			return (s.state == Retrying || s.state == Delayed) && s.due <= m.now.WallMillis
		},
		func(s *modelMessage) bool { return s.state == Ready },
	} {
		for _, id := range slices.Sorted(maps.Keys(m.messages)) {
			if len(want) < most && state(m.messages[id]) {
				want = append(want, id)
			}
		}
	}
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
	b := &modelBatch{open: true, deadline: m.now.ClockMillis + lease, all: want, left: map[uint64]bool{}}
	for _, id := range want {
		m.messages[id].state = Leased
		b.left[id] = true
	}
	m.batches[batch] = b
	m.issued = append(m.issued, batch)
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
	before := m.m.LastLSN()
	n, err := m.ack(batch, ids)
	m.same(t, n, err, list, want)
	if n == 0 {
		m.unchanged(t, before)
		return
	}
	b := m.batches[batch]
	for _, id := range list {
		delete(b.left, id)
		m.messages[id].state = Gone
	}
	b.open = len(b.left) > 0
	m.acked += int64(n)
	m.until = m.now.ClockMillis + m.ttl
}

func (m *model) unchanged(t *rapid.T, before uint64) {
	if m.m.LastLSN() != before {
		t.Fatal("a call that did nothing made a record")
	}
}

func (m *model) Nack(t *rapid.T) {
	batch, ids := m.draw(t)
	mode := rapid.SampledFrom([]NackMode{Retry, Retry, Release, Dead}).Draw(t, "mode")
	delay := rapid.SampledFrom([]int64{-1, 0, 25}).Draw(t, "delay")
	list, want := m.expect(batch, ids)
	before := m.m.LastLSN()
	n, err := m.nack(batch, ids, mode, delay)
	m.same(t, n, err, list, want)
	if n == 0 {
		m.unchanged(t, before)
		return
	}
	how := func(uint32) int64 { return max(delay, 0) }
	if delay < 0 && mode != Release {
		how = m.backoff
	}
	m.back(m.batches[batch], mode != Release, how, mode == Dead, list)
	m.until = m.now.ClockMillis + m.ttl
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

func (m *model) Pass(t *rapid.T) {
	m.pass(rapid.Int64Range(1, 30).Draw(t, "millis"))
	until := m.until
	for _, b := range m.batches {
		if b.open && b.deadline > until {
			until = b.deadline
		}
	}
	for _, b := range m.batches {
		if b.open && b.deadline <= m.now.ClockMillis {
			m.back(b, true, m.backoff, false, slices.Sorted(maps.Keys(b.left)))
			b.reason = Expired
		}
	}
	if until <= m.now.ClockMillis {
		m.token = 0
	}
}

// Restart replaces the machine by one from its snapshot, after comparing it with one from the log.
func (m *model) Restart(t *rapid.T) {
	state := m.m.Snapshot(nil)
	if !bytes.Equal(m.replayed().Snapshot(nil), state) {
		t.Fatal("replaying the log gives another state")
	}
	again, err := Restore(state)
	if err != nil {
		t.Fatal(err)
	}
	m.m = again
}

func (m *model) Remove(t *rapid.T) {
	ids := slices.Sorted(maps.Keys(m.messages))
	if len(ids) == 0 {
		t.Skip("nothing to remove")
	}
	ids = rapid.SliceOfNDistinct(rapid.SampledFrom(ids), 1, 3, rapid.ID[uint64]).Draw(t, "ids")
	slices.Sort(ids)
	n, e, changed, err := m.m.DecideRemove(m.removals(ids), ByOwner)
	if err != nil {
		t.Fatal(err)
	}
	if changed {
		m.apply(e, 0)
	}
	want := 0
	for _, id := range ids {
		if s := m.messages[id]; s.state != Leased && s.state != Gone {
			s.state = Gone
			want++
		}
	}
	m.removed += int64(want)
	if n != want {
		t.Fatalf("%d of %v were removed, not %d", n, ids, want)
	}
}

func (m *model) Purge(t *rapid.T) {
	before := m.m.LastLSN() + 1 - min(m.m.LastLSN(), rapid.Uint64Range(0, 20).Draw(t, "kept"))
	ready, size := m.readyBelow(before)
	n, e, changed := m.m.DecidePurge(before, ready, size)
	if changed {
		m.apply(e, 0)
	}
	want := int64(0)
	for id, s := range m.messages {
		if id < before && s.state != Leased && s.state != Gone {
			s.state = Gone
			want++
		}
	}
	m.removed += want
	if n != want {
		t.Fatalf("%d were purged below %d, not %d", n, before, want)
	}
}

// Check compares all that can be asked.
func (m *model) Check(t *rapid.T) {
	if err := m.m.CheckInvariants(); err != nil {
		t.Fatal(err)
	}
	var count, size [Retrying + 1]int64
	for id, s := range m.messages {
		count[s.state]++
		size[s.state] += int64(s.size)
		ask := m.m.StateOf
		if s.delayed {
			ask = m.m.StateOfDelayed
		}
		if got, _ := ask(id); got != s.state {
			t.Fatalf("message %d is %v, not %v", id, got, s.state)
		}
		if s.state != Gone && id < m.m.FirstNeeded() {
			t.Fatalf("message %d is %v, but records before %d are not needed", id, s.state, m.m.FirstNeeded())
		}
	}
	c := m.m.Counts()
	if got := [4]int64{c.Ready, c.Delayed, c.Leased, c.Retrying}; got != [4]int64(count[Ready:]) {
		t.Fatalf("counts are %v, not %v", got, count[Ready:])
	}
	if got := [4]int64{c.ReadyBytes, c.DelayedBytes, c.LeasedBytes, c.RetryingBytes}; got != [4]int64(size[Ready:]) {
		t.Fatalf("bytes are %v, not %v", got, size[Ready:])
	}
	if c.Acknowledged != m.acked || c.DeadLettered != m.dead || c.Removed != m.removed {
		t.Fatalf("totals are %+v, not %d, %d, %d", c.Totals, m.acked, m.dead, m.removed)
	}
	m.checkTenure(t)
}

func (m *model) checkTenure(t *rapid.T) {
	l, held := m.m.Lock()
	if held != (m.token != 0) || held && (l.Token != m.token || l.Consumer != m.holder) {
		t.Fatalf("the lock is %v, %+v; the model says token %d, %q", held, l, m.token, m.holder)
	}
	until, next, open := m.until, int64(0), 0
	for _, b := range m.batches {
		if b.open {
			open++
			until = max(until, b.deadline)
			if next == 0 || b.deadline < next {
				next = b.deadline
			}
		}
	}
	if held && l.DeadlineMillis != until {
		t.Fatalf("the lock lapses at %d, not %d", l.DeadlineMillis, until)
	}
	if next == 0 {
		next = l.DeadlineMillis
	}
	if at, ok := m.m.NextDeadline(); ok != held || at != next {
		t.Fatalf("the next deadline is %d, %v; not %d", at, ok, next)
	}
	if got := len(m.m.Batches(nil)); got != open {
		t.Fatalf("%d batches are open, not %d", got, open)
	}
}
