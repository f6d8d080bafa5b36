package machine

// The machine against a model that is small enough to be seen to be right: every message has one state in a map, every batch a set,
// and each rule of the contract is a line. Rapid draws what clients do (model_steps_test.go), with stale batches and tokens, doubled
// records and ids from elsewhere among it, lets time pass on both clocks, restarts, and compares everything that can be asked.
//
// A failure names its seed; -rapid.seed=N runs it again. -rapid.checks and -rapid.steps make it longer.

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

const (
	// modelChecks runs of modelSteps steps on average: some 240,000 steps, over a second.
	modelChecks = 3000
	modelSteps  = 80
	stepsMin    = 100_000
)

type modelMessage struct {
	state   State
	size    int
	due     int64 // wall; 0: at once
	over    int64 // wall: from then on its TTL is over; 0: never
	failed  uint32
	delayed bool
}

// live reports whether it can be taken out by others than its consumer.
func (s *modelMessage) live() bool { return s.state != Leased && s.state != Gone }

type modelBatch struct {
	open     bool
	reason   Reason // if it ended otherwise than by its holder
	deadline int64
	all      []uint64
	left     map[uint64]bool
}

type modelDedup struct {
	message uint64
	until   int64
}

type model struct {
	*driver
	messages map[uint64]*modelMessage
	batches  map[uint64]*modelBatch
	issued   []uint64 // batch ids
	dedup    map[string]modelDedup
	keys     []dedupKey // pushed with a deduplication id, in that order
	totals   Totals

	holder   string
	token    uint64
	ttl      int64
	until    int64 // as recorded
	volatile int64

	options       Options
	pausedPush    bool
	pausedConsume bool

	stale []Effect // applied once, and good for nothing after that
	saved saved
	steps int
}

// saved is a checkpoint: the state after so many records.
type saved struct {
	records int
	state   []byte
}

func TestModel(t *testing.T) {
	scaled := unlessSet(t, "rapid.checks", modelChecks) && unlessSet(t, "rapid.steps", modelSteps)
	unlessSet(t, "rapid.seed", rand.Uint64N(1<<53)+1)
	steps := 0
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{driver: newDriver(rt), messages: map[uint64]*modelMessage{}, batches: map[uint64]*modelBatch{}, dedup: map[string]modelDedup{}}
		m.Policy(rt)
		m.Save(rt)
		rt.Repeat(m.actions())
		m.delete(rt)
		steps += m.steps
	})
	t.Logf("%d steps; -rapid.seed=%v takes them again", steps, flag.Lookup("rapid.seed").Value)
	if scaled && !testing.Short() && !t.Failed() && steps < stepsMin {
		t.Errorf("only %d steps were taken, the test wants %d", steps, stepsMin)
	}
}

// unlessSet gives a flag another default for one test.
func unlessSet(t *testing.T, name string, value any) bool {
	isSet := false
	flag.Visit(func(f *flag.Flag) { isSet = isSet || f.Name == name })
	if isSet {
		return false
	}
	old := flag.Lookup(name).Value.String()
	if err := flag.Lookup(name).Value.Set(fmt.Sprint(value)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { flag.Lookup(name).Value.Set(old) })
	return true
}

// actions are all decisions of the machine; the more frequent ones stand there more than once.
func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"push": m.Push, "push2": m.Push, "push many": m.PushMany, "push again": m.PushDuplicate,
		"lock": m.Lock, "renew": m.RenewVolatile, "unlock": m.Unlock, "lapse": m.Lapse, "lapse2": m.Lapse,
		"consume": m.Consume, "consume2": m.Consume, "consume3": m.Consume,
		"ack": m.Ack, "ack2": m.Ack, "nack": m.Nack, "nack2": m.Nack, "extend": m.Extend, "expire": m.Expire, "expire2": m.Expire,
		"pass": m.Pass, "pass2": m.Pass, "sweep": m.Sweep, "remove": m.Remove, "move": m.Move, "purge": m.Purge,
		"configure": m.Configure, "pause": m.Pause, "policy": m.Policy,
		"save": m.Save, "restart": m.Restart, "stale": m.Stale, "foreign lock": m.ForeignLock, "": m.Check,
	}
}

// Check compares all that can be asked.
func (m *model) Check(t *rapid.T) {
	m.steps++
	if err := m.m.CheckInvariants(); err != nil {
		t.Fatal(err)
	}
	m.checkMessages(t)
	m.checkTenure(t)
	m.checkBatches(t)
	m.checkTimes(t)
	if !m.m.Options().Equal(&m.options) {
		t.Fatalf("the options are %+v, not %+v", m.m.Options(), m.options)
	}
	if push, consume := m.m.Paused(); push != m.pausedPush || consume != m.pausedConsume {
		t.Fatalf("paused are %v, %v, not %v, %v", push, consume, m.pausedPush, m.pausedConsume)
	}
	m.checkDedup(t)
}

func (m *model) checkDedup(t *rapid.T) {
	for id, d := range m.dedup {
		if first, known := m.m.Duplicate(m.now, []byte(id)); known != (d.until > m.now.WallMillis) || known && first != d.message {
			t.Fatalf("deduplication id %q is message %d, %v; it is %d until %d, now is %d", id, first, known, d.message, d.until, m.now.WallMillis)
		}
	}
	live := 0 // all from the first on that is remembered: with a window made shorter, some whose time is over stand behind it
	for _, k := range m.keys {
		if d := m.dedup[k.id]; d.message == k.message && (live > 0 || d.until > m.now.WallMillis) {
			live++
		}
	}
	if got := m.m.DedupLive(m.now); got != live {
		t.Fatalf("%d deduplication ids are live, not %d", got, live)
	}
}

func (m *model) checkMessages(t *rapid.T) {
	var count, size [Retrying + 1]int64
	needed := m.m.FirstNeeded()
	for id, s := range m.messages {
		count[s.state]++
		size[s.state] += int64(s.size)
		ask := m.m.StateOf
		if s.delayed {
			ask = m.m.StateOfDelayed
		}
		attempt := uint32(0)
		switch s.state {
		case Leased:
			attempt = s.failed + 1
		case Retrying:
			attempt = s.failed
		}
		if got, n := ask(id); got != s.state || n != attempt {
			t.Fatalf("message %d is %v at attempt %d, not %v at %d", id, got, n, s.state, attempt)
		}
		if s.state != Gone && id < needed {
			t.Fatalf("message %d is %v, but records before %d are not needed", id, s.state, needed)
		}
	}
	c := m.m.Counts()
	if got := [4]int64{c.Ready, c.Delayed, c.Leased, c.Retrying}; got != [4]int64(count[Ready:]) {
		t.Fatalf("counts are %v, not %v", got, count[Ready:])
	}
	if got := [4]int64{c.ReadyBytes, c.DelayedBytes, c.LeasedBytes, c.RetryingBytes}; got != [4]int64(size[Ready:]) {
		t.Fatalf("bytes are %v, not %v", got, size[Ready:])
	}
	if c.Totals != m.totals {
		t.Fatalf("totals are %+v, not %+v", c.Totals, m.totals)
	}
}

// lapses is when the lock does.
func (m *model) lapses() int64 {
	until := max(m.until, m.volatile)
	for _, b := range m.batches {
		if b.open {
			until = max(until, b.deadline)
		}
	}
	return until
}

func (m *model) checkTenure(t *rapid.T) {
	l, held := m.m.Lock()
	if held != (m.token != 0) || held && (l.Token != m.token || l.Consumer != m.holder || l.TTLMillis != m.ttl) {
		t.Fatalf("the lock is %v, %+v; the model says token %d, %q, %d", held, l, m.token, m.holder, m.ttl)
	}
	if held && l.DeadlineMillis != m.lapses() {
		t.Fatalf("the lock lapses at %d, not %d", l.DeadlineMillis, m.lapses())
	}
	next := int64(0)
	for _, b := range m.batches {
		if b.open && (next == 0 || b.deadline < next) {
			next = b.deadline
		}
	}
	if next == 0 {
		next = l.DeadlineMillis
	}
	if at, ok := m.m.NextDeadline(); ok != held || at != next {
		t.Fatalf("the next deadline is %d, %v; not %d", at, ok, next)
	}
}

func (m *model) checkBatches(t *rapid.T) {
	open := 0
	for id, b := range m.batches {
		if b.open {
			open++
		}
		rest := m.m.Unresolved(id, nil)
		if len(rest) != len(b.left) && b.open || len(rest) != 0 && !b.open {
			t.Fatalf("batch %d has %d unresolved messages, not %d", id, len(rest), len(b.left))
		}
		for _, r := range rest {
			if !b.left[r.ID] || r.Failed != m.messages[r.ID].failed {
				t.Fatalf("batch %d holds message %d with %d failed attempts", id, r.ID, r.Failed)
			}
		}
	}
	if got := len(m.m.Batches(nil)); got != open {
		t.Fatalf("%d batches are open, not %d", got, open)
	}
}

// checkTimes compares when something will be due.
func (m *model) checkTimes(t *rapid.T) {
	var due, retry int64
	retrying := false
	for _, s := range m.messages {
		if (s.state == Delayed || s.state == Retrying) && s.due > m.now.WallMillis && (due == 0 || s.due < due) {
			due = s.due
		}
		if s.state == Retrying {
			retrying, retry = true, max(retry, s.due)
		}
	}
	if at, ok := m.m.NextDueWall(); due != 0 && (!ok || at > m.now.WallMillis && at != due) || due == 0 && ok && at > m.now.WallMillis {
		t.Fatalf("the next message is due at %d, %v; not %d, now is %d", at, ok, due, m.now.WallMillis)
	}
	if at, ok := m.m.NextRetryWall(); ok != retrying || at != retry {
		t.Fatalf("the last retry is at %d, %v; not %d", at, ok, retry)
	}
}
