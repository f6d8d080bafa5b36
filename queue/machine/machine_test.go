package machine

// Rules that no script shows well: arithmetic, limits, and what costs how much.

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"
	"unsafe"
)

func TestRetryDelayGrowsToItsLimit(t *testing.T) {
	for _, c := range []struct {
		p      RetryPolicy
		failed uint32
		want   int64
	}{
		{RetryPolicy{DelayMillis: 0, Backoff: 9, DelayMaxMillis: 100}, 5, 0},
		{RetryPolicy{DelayMillis: 10, Backoff: 1, DelayMaxMillis: 100}, 5, 10},
		{RetryPolicy{DelayMillis: 10, Backoff: 2, DelayMaxMillis: 100}, 1, 10},
		{RetryPolicy{DelayMillis: 10, Backoff: 2, DelayMaxMillis: 100}, 4, 80},
		{RetryPolicy{DelayMillis: 10, Backoff: 2, DelayMaxMillis: 100}, 5, 100},
		{RetryPolicy{DelayMillis: 10, Backoff: 100, DelayMaxMillis: ValueMax}, failedMax, ValueMax},
		{RetryPolicy{DelayMillis: 500, Backoff: 2, DelayMaxMillis: 100}, 1, 100},
		{RetryPolicy{DelayMillis: 10, Backoff: 1, DelayMaxMillis: 100}, failedMax, 10},
	} {
		if got := c.p.delay(c.failed); got != c.want {
			t.Errorf("%+v after %d failed attempts: %d, not %d", c.p, c.failed, got, c.want)
		}
	}
}

// Decisions change nothing. Without this a decision that is thrown away, because the commit failed, would leave a trace.
func TestDecisionsChangeNothing(t *testing.T) {
	d := busy(t)
	state := d.m.Snapshot(nil)
	nextRecords(t, d)
	d.m.Duplicate(d.now, []byte("id5"))
	d.m.RenewVolatile(1 << 40)
	d.m.PeekReturned(Time{ClockMillis: d.now.ClockMillis, WallMillis: ValueMax}, 100, nil)
	if !bytes.Equal(d.m.Snapshot(nil), state) {
		t.Error("a decision changed the state")
	}
	if err := d.m.CheckInvariants(); err != nil {
		t.Error(err)
	}
}

// An explicit grant may shorten the lock, whatever was renewed without a record before. Without this the lock would hold longer before a
// restart than after it.
func TestGrantReplacesVolatileRenewal(t *testing.T) {
	d := newDriver(t)
	token := d.grant("alice", 5000)
	d.m.RenewVolatile(d.now.ClockMillis + 9000)
	d.apply(d.m.DecideGrant(d.now, Grant{Consumer: "alice", Token: token, TTLMillis: 10}), 0)
	if l, _ := d.m.Lock(); l.DeadlineMillis != d.now.ClockMillis+10 {
		t.Errorf("the lock lapses in %d ms, not 10", l.DeadlineMillis-d.now.ClockMillis)
	}
}

// Strict order is held until the last retrying message is due, not the first.
func TestNextRetryIsTheLast(t *testing.T) {
	d := newDriver(t)
	for range 3 {
		d.push(1, Message{})
	}
	d.push(1, Message{DueMillis: d.now.WallMillis + 5000})
	d.grant("alice", 1<<40)
	batch, _ := d.consume(3, 1000)
	for id, delay := range map[uint64]int64{2: 100, 3: 300, 4: 200} {
		d.nack(batch, []uint64{id}, Retry, delay)
	}
	first, _ := d.m.NextDueWall()
	lastDue, ok := d.m.NextRetryWall()
	if !ok || first != d.now.WallMillis+100 || lastDue != d.now.WallMillis+300 {
		t.Errorf("the first is due in %d ms, the last retry in %d", first-d.now.WallMillis, lastDue-d.now.WallMillis)
	}
}

// A tenure that lapses with a batch open, which only a clock that jumps can bring about, still returns it as failed.
func TestLapseCountsAsFailedAndSupersedes(t *testing.T) {
	d := newDriver(t)
	id := d.push(1, Message{})
	d.grant("alice", 10)
	batch, _ := d.consume(1, 1000)
	d.apply(d.m.DecideUnlock(d.now, &Grant{Consumer: "bob", Token: d.id(), TTLMillis: 10}, true), 0)
	d.check()
	if s, attempts := d.m.StateOf(id); s != Retrying || attempts != 1 {
		t.Errorf("the message is %v after %d attempts", s, attempts)
	}
	d.now.ClockMillis += 70
	var gone *BatchError
	if _, err := d.ack(batch, nil); !errors.As(err, &gone) || gone.Reason != Superseded || gone.AgeMillis != 70 {
		t.Errorf("a late acknowledgement gets %v", err)
	}
}

// The deadline itself is too late, also before anybody has recorded the expiry. Without this two consumers could both be told that
// the batch is theirs.
func TestDeadlineIsExclusive(t *testing.T) {
	d := newDriver(t)
	d.push(1, Message{})
	d.grant("alice", 10)
	batch, _ := d.consume(1, 50)
	d.now.ClockMillis += 49
	if _, changed := d.m.DecideExpire(d.now, d.policy); changed {
		t.Error("the batch expired before its deadline")
	}
	if _, _, changed, err := d.m.DecideAck(d.now, batch, nil); !changed || err != nil {
		t.Errorf("just before the deadline: %v", err)
	}
	d.now.ClockMillis++
	if _, _, _, err := d.m.DecideAck(d.now, batch, nil); err == nil {
		t.Error("acknowledged at the deadline")
	}
	if _, _, _, err := d.m.DecideNack(d.now, batch, nil, Release, 0, d.policy); err == nil {
		t.Error("given back at the deadline")
	}
	if _, _, err := d.m.DecideExtend(d.now, batch, 100); err == nil {
		t.Error("extended at the deadline")
	}
	if _, changed := d.m.DecideExpire(d.now, d.policy); !changed {
		t.Error("the batch did not expire at its deadline")
	}
}

// Exactly the last BatchesRemembered are remembered, over a restart too.
func TestMemoryOfBatches(t *testing.T) {
	d := newDriver(t)
	d.grant("alice", 1<<40)
	var resolved, expired []uint64
	for range BatchesRemembered + 3 {
		d.push(1, Message{})
		batch, _ := d.consume(1, 10)
		d.pass(10)
		expired = append(expired, batch)
		batch, _ = d.consume(1, 10)
		d.ack(batch, nil)
		resolved = append(resolved, batch)
	}
	d.replay = false
	d.check()
	restored, err := Restore(d.m.Snapshot(nil))
	if err != nil {
		t.Fatal(err)
	}
	d.m = restored
	var gone *BatchError
	for i := range resolved {
		_, err := d.ack(resolved[i], nil)
		if remembered := i >= 3; (err == nil) != remembered {
			t.Fatalf("resolved batch %d of %d: %v", i, len(resolved), err)
		}
		_, err = d.ack(expired[i], nil)
		if !errors.As(err, &gone) || (gone.Reason == Expired) != (i >= 3) {
			t.Fatalf("expired batch %d of %d: %v", i, len(expired), err)
		}
	}
}

// Messages that a decision takes out for the dead-letter queue are named before it is applied.
func TestDead(t *testing.T) {
	d := newDriver(t)
	d.policy.AttemptsMax = 2
	for range 4 {
		d.push(1, Message{})
	}
	d.grant("alice", 1000)
	first, _ := d.consume(2, 10)
	d.nack(first, nil, Retry, 0)
	second, _ := d.consume(3, 10)
	_, e, _, err := d.m.DecideNack(d.now, second, []uint64{4, 3}, Retry, 0, d.policy)
	if got := d.m.Dead(e, nil); err != nil || !slices.Equal(got, []uint64{3}) {
		t.Errorf("a nack takes out %v, %v; only message 3 has failed before", got, err)
	}
	e, _ = d.m.DecideExpire(Time{ClockMillis: d.now.ClockMillis + 10, WallMillis: d.now.WallMillis}, d.policy)
	if got := d.m.Dead(e, nil); !slices.Equal(got, []uint64{2, 3}) {
		t.Errorf("an expiry takes out %v, not 2 and 3", got)
	}
	expired := d.policy
	expired.Expired = []uint64{3}
	e, _ = d.m.DecideExpire(Time{ClockMillis: d.now.ClockMillis + 10, WallMillis: d.now.WallMillis}, expired)
	if got := d.m.Dead(e, nil); !slices.Equal(got, []uint64{2}) {
		t.Errorf("an expiry takes out %v; the time of message 3 is over", got)
	}
	d.apply(e, 0)
	d.check()
	if c := d.m.Counts(); c.DeadLettered != 1 || c.Expired != 1 || c.Retrying != 1 || c.Total() != 2 {
		t.Errorf("counts are %+v", c)
	}
}

// Times at the end of what the format holds stop there, and never wrap into the past.
func TestFarTimes(t *testing.T) {
	d := newDriver(t)
	d.push(1, Message{})
	d.grant("alice", math.MaxInt64)
	batch, _ := d.consume(1, math.MaxInt64)
	d.m.RenewVolatile(math.MaxInt64)
	if deadline, e, err := d.m.DecideExtend(d.now, batch, math.MaxInt64); err != nil || deadline != ValueMax {
		t.Errorf("extended to %d, %v", deadline, err)
	} else {
		d.apply(e, 0)
	}
	d.nack(batch, nil, Retry, math.MaxInt64)
	d.check()
	if due, ok := d.m.NextDueWall(); !ok || due != ValueMax {
		t.Errorf("due at %d", due)
	}
}

// A wall clock that was set back between decision and replay gives the same state. Without this a restart could refuse its own log.
func TestWallClockSetBack(t *testing.T) {
	d := newDriver(t)
	d.push(1, Message{DueMillis: d.now.WallMillis + 100})
	d.push(1, Message{DueMillis: d.now.WallMillis + 10})
	d.grant("alice", 1000)
	d.m.PeekReturned(Time{WallMillis: d.now.WallMillis + 200}, 10, nil) // both are due for whoever looks now
	d.now.WallMillis -= 5000
	if _, l := d.consume(1, 10); len(l.Returned) != 1 || l.Returned[0].ID != 2 {
		t.Fatalf("got %+v", l)
	}
	d.check()
}

func TestMemoryPerMessage(t *testing.T) {
	if n := unsafe.Sizeof(waiting{}); n > 24 {
		t.Errorf("a waiting message takes %d bytes", n)
	}
	if n := unsafe.Sizeof(leasedMessage{}); n > 24 {
		t.Errorf("a leased message takes %d bytes", n)
	}
	if n := len(MessageMeta(nil, Message{PushedMillis: 4_000_000_000_000})); n > 8 {
		t.Errorf("a message's fields take %d bytes", n)
	}
}

func TestPushAllocatesNothing(t *testing.T) {
	d := newDriver(t)
	meta := make([]byte, 0, 16)
	lsn := d.m.LastLSN()
	if n := testing.AllocsPerRun(1000, func() {
		lsn++
		meta = MessageMeta(meta[:0], Message{PushedMillis: d.now.WallMillis})
		if err := d.m.Apply(lsn, KindMessage, 0, meta, 100); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a push allocates %v times", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if err := d.m.ApplyMessages(lsn+1, 7, 700, d.now.WallMillis); err != nil {
			t.Fatal(err)
		}
		lsn += 7
	}); n != 0 {
		t.Errorf("a push of seven allocates %v times", n)
	}
}

// ApplyMessages is the same as one Apply each.
func TestApplyMessages(t *testing.T) {
	a, b := newDriver(t), newDriver(t)
	for _, size := range []int{3, 4, 5} {
		a.push(size, Message{})
	}
	if err := b.m.ApplyMessages(2, 3, 12, b.now.WallMillis); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.m.Snapshot(nil), b.m.Snapshot(nil)) {
		t.Error("the states differ")
	}
	for _, err := range []error{
		b.m.ApplyMessages(6, 1, 1, 1), b.m.ApplyMessages(5, 0, 0, 1), b.m.ApplyMessages(5, 1, -1, 1), b.m.ApplyMessages(5, 1, 1<<31, 1),
		New().ApplyMessages(1, 1, 1, 1), b.m.ApplyMessages(5, 1, 1, -1),
	} {
		if err == nil {
			t.Error("impossible messages are accepted")
		}
	}
}

// A burst of delayed messages gives its memory back.
func TestHeapsShrink(t *testing.T) {
	d := newDriver(t)
	for i := range 20_000 {
		d.push(1, Message{DueMillis: d.now.WallMillis + 1 + int64(i%7)})
	}
	d.pass(10)
	d.grant("alice", 1<<40)
	for {
		batch, l := d.consume(1000, 1000)
		if batch == 0 {
			break
		}
		if !slices.IsSortedFunc(l.Returned, func(a, b Returned) int { return int(a.ID) - int(b.ID) }) {
			t.Fatal("out of order")
		}
		d.ack(batch, nil)
	}
	if n := cap(d.m.due.entries) + cap(d.m.returned.entries); n > 4*shrinkAbove {
		t.Errorf("memory for %d messages is kept", n)
	}
	d.check()
}

func TestRemovedSpans(t *testing.T) {
	var spans []span
	for _, id := range []uint64{5, 9, 7, 8, 6, 20} {
		spans = addSpan(spans, id)
	}
	if !slices.Equal(spans, []span{{5, 9}, {20, 20}}) {
		t.Fatalf("got %v", spans)
	}
	if spans = dropUpTo(spans, 6); !slices.Equal(spans, []span{{7, 9}, {20, 20}}) {
		t.Fatalf("got %v", spans)
	}
	if spans = dropUpTo(spans, 20); spans != nil {
		t.Fatalf("got %v", spans)
	}
}

func TestMovesAndTTL(t *testing.T) {
	d := newDriver(t)
	for range 4 {
		d.push(10, Message{})
	}
	for _, c := range []struct {
		ids    []uint64
		decide func([]Removal) (int, Effect, bool, error)
	}{
		{[]uint64{2}, func(l []Removal) (int, Effect, bool, error) { return d.m.DecideRemove(l, ByTTL) }},
		{[]uint64{3}, func(l []Removal) (int, Effect, bool, error) { return d.m.DecideMove(l, MoveAttempts, 9) }},
		{[]uint64{4}, func(l []Removal) (int, Effect, bool, error) { return d.m.DecideMove(l, MoveRedrive, 9) }},
	} {
		n, e, changed, err := c.decide(d.removals(c.ids))
		if n != 1 || !changed || err != nil {
			t.Fatalf("%d, %v, %v", n, changed, err)
		}
		d.apply(e, 0)
		d.check()
	}
	if c := d.m.Counts(); c.Expired != 1 || c.DeadLettered != 1 || c.Redriven != 1 || c.Ready != 1 || c.ReadyBytes != 10 {
		t.Errorf("counts are %+v", c)
	}
}

func TestOptions(t *testing.T) {
	var o Options
	for _, c := range []struct{ name, value string }{
		{"lease", "x"}, {"lease", "0"}, {"lease", "-1"}, {"lease", "1.5"}, {"batch-bytes", "1tb"}, {"batch-bytes", "9999999gb"}, {"nonsense", "1"},
		{"dead-letter-queue", string(make([]byte, NameBytesMax+1))},
	} {
		if err := o.Set(c.name, c.value); err == nil {
			t.Errorf("%s %q is accepted", c.name, c.value)
		}
	}
	if !o.Equal(&Options{}) {
		t.Error("a refused value was set")
	}
	for _, c := range []struct {
		name, value string
		want        int64
	}{{"Batch-Bytes", "2MB", 2 << 20}, {"batch-bytes", "16kb", 16 << 10}, {"batch-bytes", "5k", 5000}, {"batch-bytes", "12b", 12}, {"lease", "77", 77}} {
		if err := o.Set(c.name, c.value); err != nil {
			t.Error(err)
		}
		if opt, _ := OptionByName(c.name); o.Get(opt, nil) != c.want {
			t.Errorf("%s %s is %d", c.name, c.value, o.Get(opt, nil))
		}
	}
	if err := o.Set("dead-letter-queue", "morgue"); err != nil {
		t.Error(err)
	}
	r := reader{rest: o.encode(nil)}
	if again := readOptions(&r); r.done() != nil || !again.Equal(&o) {
		t.Errorf("%+v becomes %+v", o, again)
	}
	defaults := DefaultOptions()
	defaults.SetValue(LockTTL, 5)
	if o.Get(LockTTL, defaults) != 5 || o.Get(LockTTL, nil) != 30_000 || o.Value(DeadLetterQueue, defaults) != "morgue" || o.Value(Lease, nil) != "77" {
		t.Error("a default is wrong")
	}
	for i := range Specs {
		if s := &Specs[i]; s.Name == "" || s.Doc == "" || s.Default < s.Min || s.Default > s.Max {
			t.Errorf("option %d: %+v", i, s)
		}
	}
}

// One number has one way to be written, as in all other commands: +5, 05 and -0 are slips of somebody else's program.
func TestOptionNumbersAreWrittenOneWay(t *testing.T) {
	for _, value := range []string{"+5", "05", "-0", "-1", "", " 5", "5 ", "0x5", "5.0", "5e3", "9007199254740992", "99999999999999999999"} {
		for _, name := range []string{"lease", "batch-bytes", "max-bytes"} {
			var o Options
			if err := o.Set(name, value); err == nil {
				t.Errorf("%s %q is taken for %d", name, value, o.Get(optionNamed(name), nil))
			}
		}
	}
	for _, value := range []string{"+1kb", "01kb", "-1kb", "kb", "1 kb", "1tb", "9007199254740991kb"} {
		if n, err := ParseSize(value); err == nil {
			t.Errorf("%q is taken for %d", value, n)
		}
	}
	for value, want := range map[string]int64{"0": 0, "5": 5, "16kb": 16 << 10, "1MB": 1 << 20, "2g": 2_000_000_000, "7b": 7} {
		if n, err := ParseSize(value); err != nil || n != want {
			t.Errorf("%q: %d, %v", value, n, err)
		}
	}
}

func optionNamed(name string) Option {
	o, _ := OptionByName(name)
	return o
}
