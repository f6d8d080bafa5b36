package queue

// Is what many clients see at the same time what one queue could have done, one command after the other? Sixteen clients lock, pull,
// acknowledge and unlock with leases of a few milliseconds, also with batches and tokens that are not theirs or long over;
// porcupine looks for an order of their calls that the model allows.
//
// The clock is virtual: it stands still while anybody can run. So a call is decided in the very millisecond in which it is answered,
// and expiry needs no guessing: the model lets a batch or a tenure end when that millisecond has come, not before and not later.

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"quail/queue/machine"
	"quail/wal/vfs"
)

const (
	linearHistories = 200
	linearClients   = 16
	linearCalls     = 14 // of each client
	linearMessages  = 64 // as many as a set of the model can hold
	linearLockTTL   = 6
	// linearCheckMax is how long the search for one order may take. It takes milliseconds.
	linearCheckMax = 30 * time.Second
)

// call is one command of a client.
type call struct {
	what     string // lock, consume, ack, unlock
	consumer string
	token    uint64
	ttl      int64 // of a lock, or the lease
	count    int
	batch    uint64
}

// answer is what came of it, and when.
type answer struct {
	atMillis int64
	code     string // of a refusal
	token    uint64
	batch    uint64 // 0: null
	deadline int64
	first    uint64          // id of the first message that was ever pushed
	messages [8]linearMember // of the batch
	n        int
}

type linearMember struct {
	id      uint64
	attempt uint32
}

// linearState is the whole truth about one queue. It is comparable.
type linearState struct {
	now     int64
	holder  string
	token   uint64 // 0: held, and nobody was told the token
	ttl     int64
	until   int64  // of the lock, but for its batches
	last    uint64 // token
	lastOne uint64 // batch
	open    [16]linearBatch
	pool    uint64 // messages that can be delivered
	failed  [linearMessages]uint8
	done    [16]uint64 // batches that their holder resolved, from linearFirst on
}

type linearBatch struct {
	id       uint64
	deadline int64
	left     uint64
}

// Without this two consumers work on one message at the same time, and both believe that they alone do.
func TestConsumersSeeOneQueue(t *testing.T) {
	from, to := uint64(0), uint64(linearHistories)
	if *seeds != seedsDefault {
		to = uint64(*seeds)
	}
	calls := 0
	for seed := from; seed < to; seed++ {
		synctest.Test(t, func(t *testing.T) {
			history := record16(t, seed)
			calls += len(history)
			checkLinear(t, seed, history, porcupine.Ok)
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d histories of %d calls", to-from, calls)
}

// The test above is worth nothing if it cannot notice an old consumer's acknowledgement that counts.
func TestLinearizabilityNoticesAMissingFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		history := record16(t, 1)
		forged := 0
		for i := range history {
			if a := history[i].Output.(answer); a.code == "NOBATCH" {
				honest := history[i].Output
				a.code, a.n = "", 1
				history[i].Output = a
				checkLinear(t, 1, history, porcupine.Illegal)
				history[i].Output = honest
				forged++
			}
		}
		if forged == 0 {
			t.Fatal("nobody used a batch that was over")
		}
	})
}

func checkLinear(t *testing.T, seed uint64, history []porcupine.Operation, want porcupine.CheckResult) {
	t.Helper()
	got, info := porcupine.CheckOperationsVerbose(linearModel, history, linearCheckMax)
	if got == want {
		return
	}
	longest := []porcupine.Operation{}
	for _, order := range info.PartialLinearizationsOperations()[0] {
		if len(order) > len(longest) {
			longest = order
		}
	}
	t.Logf("the longest order that the model allows has %d of %d calls; it ends and goes on with", len(longest), len(history))
	for _, o := range longest[max(0, len(longest)-20):] {
		t.Logf("%4d-%4d %s", o.Call, o.Return, describe(o.Input, o.Output))
	}
	t.Log("one of")
	for _, o := range history {
		if !slices.ContainsFunc(longest, func(l porcupine.Operation) bool { return l.Call == o.Call }) && o.Call < longest[len(longest)-1].Call+30 {
			t.Logf("%4d-%4d %s", o.Call, o.Return, describe(o.Input, o.Output))
		}
	}
	t.Fatalf("seed %d: the history is %v, not %v", seed, got, want)
}

// recorder collects the calls of one history.
type recorder struct {
	*world
	mu      sync.Mutex // guards all below
	at      int64      // order of calls and answers
	first   uint64
	batches []uint64
	tokens  []uint64
	history []porcupine.Operation
}

func record16(t *testing.T, seed uint64) []porcupine.Operation {
	w := &world{t: t, fs: vfs.NewLossy(seed), opts: machine.DefaultOptions()}
	w.open()
	defer w.end()
	w.create("q", "lock-ttl", strconv.Itoa(linearLockTTL), "max-attempts", "0")
	bodies := make([]string, linearMessages)
	r := &recorder{world: w, first: w.push("q", bodies...), batches: []uint64{1}, tokens: []uint64{1}} // 1 is the queue's own number
	var clients sync.WaitGroup
	for client := range linearClients {
		clients.Go(func() { r.client(client, rand.New(rand.NewPCG(seed, uint64(client)))) })
	}
	clients.Wait()
	return r.history
}

func (r *recorder) client(client int, rng *rand.Rand) {
	for range linearCalls {
		time.Sleep(time.Duration(rng.IntN(4)) * time.Millisecond) // virtual: they often meet in one millisecond
		c := r.draw(client, rng)
		r.mu.Lock()
		r.at++
		o := porcupine.Operation{ClientId: client, Input: c, Call: r.at}
		r.mu.Unlock()
		a := r.run(c, rng.IntN(2) == 0)
		r.mu.Lock()
		r.at++
		o.Output, o.Return = a, r.at
		r.history = append(r.history, o)
		if a.batch != 0 {
			r.batches = append(r.batches, a.batch)
		}
		if a.token != 0 {
			r.tokens = append(r.tokens, a.token)
		}
		r.mu.Unlock()
	}
}

// draw chooses a command; batches and tokens are mostly young ones, of whoever.
func (r *recorder) draw(client int, rng *rand.Rand) call {
	r.mu.Lock()
	defer r.mu.Unlock()
	young := func(ids []uint64) uint64 { return ids[max(0, len(ids)-1-rng.IntN(4))] }
	c := call{consumer: fmt.Sprint("c", client/2)} // two connections a consumer
	switch p := rng.IntN(10); {
	case p < 2:
		c.what, c.ttl = "lock", int64(1+rng.IntN(8))
	case p < 6:
		c.what, c.ttl, c.count = "consume", int64(1+rng.IntN(8)), 1+rng.IntN(3)
		if rng.IntN(4) == 0 {
			c.token = young(r.tokens)
		}
	case p < 9:
		c.what, c.batch = "ack", young(r.batches)
	default:
		c.what, c.token = "unlock", young(r.tokens)
	}
	return c
}

// run sends one command and waits for its answer.
func (r *recorder) run(c call, block bool) answer {
	a := answer{first: r.first}
	var err error
	switch c.what {
	case "lock":
		type granted struct {
			token uint64
			err   error
		}
		done := make(chan granted, 1)
		req := LockRequest{Queue: []byte("q"), Consumer: []byte(c.consumer), TTLMillis: c.ttl, Block: block, BlockMillis: 5}
		r.set.Lock(req, func(token uint64, after *Future, err error) { done <- granted{token, err} })
		g := <-done
		a.token, err = g.token, g.err
	case "consume":
		req := request("q", c.consumer)
		req.Count, req.LeaseMillis, req.Token, req.HasToken = c.count, c.ttl, c.token, c.token != 0
		type pulled struct {
			b   *Batch
			err error
		}
		done := make(chan pulled, 1) // what the answer rests on may become durable a millisecond later
		r.set.Consume(req, func(b *Batch, after *Future, err error) { done <- pulled{b, err} })
		var b *Batch
		p := <-done
		if b, err = p.b, p.err; b != nil {
			a.batch, a.deadline, a.n = b.ID, b.DeadlineUnixMillis, len(b.Messages)
			for i, m := range b.Messages {
				a.messages[i] = linearMember{m.ID, m.Attempt}
			}
		}
	case "ack":
		a.n, _, err = r.set.Ack([]byte("q"), c.batch, nil)
	case "unlock":
		var released bool
		if released, _, err = r.set.Unlock([]byte("q"), c.token); released {
			a.n = 1
		}
	}
	a.atMillis = time.Now().UnixMilli()
	if err != nil {
		a.code = codeOf(err)
	}
	return a
}

var linearModel = porcupine.Model{
	Init:              func() any { return linearState{last: 1, pool: ^uint64(0)} },
	Step:              linearStep,
	DescribeOperation: describe,
}

func describe(input, output any) string {
	c, a := input.(call), output.(answer)
	out := fmt.Sprintf("%s by %s", c.what, c.consumer)
	for _, f := range []struct {
		name  string
		value uint64
	}{{"token", c.token}, {"batch", c.batch}, {"ms", uint64(c.ttl)}, {"count", uint64(c.count)}} {
		if f.value != 0 {
			out += fmt.Sprintf(" %s %d", f.name, f.value)
		}
	}
	out += fmt.Sprintf(" → at %d: %s token %d, batch %d, n %d", a.atMillis%100_000, a.code, a.token, a.batch, a.n)
	for _, m := range a.messages {
		if m.id != 0 {
			out += fmt.Sprintf(" %d@%d", m.id, m.attempt)
		}
	}
	return out
}

func linearStep(state, input, output any) (bool, any) {
	s, c, a := state.(linearState), input.(call), output.(answer)
	if a.atMillis < s.now {
		return false, s
	}
	s.tick(a.atMillis)
	ok := false
	switch c.what {
	case "lock":
		ok = s.lock(c, a)
	case "consume":
		ok = s.consume(c, a)
	case "ack":
		ok = s.ack(c, a)
	case "unlock":
		ok = s.unlock(c, a)
	}
	return ok, s
}

// tick ends what is over.
func (s *linearState) tick(now int64) {
	s.now = now
	until := s.until
	for i := range s.open {
		if b := &s.open[i]; b.left != 0 {
			until = max(until, b.deadline)
			if b.deadline <= now {
				s.giveBack(b, 1)
			}
		}
	}
	if s.holder != "" && until <= now {
		s.holder, s.token = "", 0
	}
}

// giveBack returns what is left of a batch.
func (s *linearState) giveBack(b *linearBatch, failed uint8) {
	for left := b.left; left != 0; left &= left - 1 {
		s.failed[bits.TrailingZeros64(left)] += failed
	}
	s.pool |= b.left
	*b = linearBatch{}
}

// take gives the free lock to a consumer; token 0 is one that nobody is told.
func (s *linearState) take(consumer string, token uint64, ttl int64) {
	s.holder, s.token, s.ttl = consumer, token, ttl
}

// isToken reports whether the tenure may have this token, and remembers it.
func (s *linearState) isToken(token uint64) bool {
	if s.token == 0 && token > s.last {
		s.token, s.last = token, token
	}
	return s.token == token
}

func (s *linearState) lock(c call, a answer) bool {
	switch {
	case s.holder != "" && s.holder != c.consumer:
		return a.token == 0 && (a.code == "LOCKED" || a.code == "")
	case a.code != "" || a.token == 0:
		return false
	case s.holder == "":
		s.take(c.consumer, 0, c.ttl)
	}
	s.ttl, s.until = c.ttl, a.atMillis+c.ttl
	return s.isToken(a.token)
}

func (s *linearState) consume(c call, a answer) bool {
	if c.token != 0 && (s.holder != c.consumer || !s.isToken(c.token)) {
		return a.code == "WRONGTOKEN"
	}
	if s.holder != "" && s.holder != c.consumer {
		return a.code == "LOCKED"
	}
	if a.code != "" {
		return false
	}
	if s.holder == "" {
		s.take(c.consumer, 0, linearLockTTL)
	}
	s.until = max(s.until, a.atMillis+s.ttl)
	free := slices.IndexFunc(s.open[:], func(b linearBatch) bool { return b.left == 0 })
	if a.batch == 0 {
		return s.pool == 0 || free < 0
	}
	if free < 0 || a.batch <= s.lastOne || a.deadline != a.atMillis+c.ttl || a.n != min(c.count, bits.OnesCount64(s.pool)) {
		return false
	}
	b := linearBatch{id: a.batch, deadline: a.deadline}
	for _, m := range a.messages[:a.n] { // the lowest ids that can be had
		i := bits.TrailingZeros64(s.pool)
		if m.id != a.first+uint64(i) || m.attempt != uint32(s.failed[i])+1 {
			return false
		}
		s.pool &^= 1 << i
		b.left |= 1 << i
	}
	s.open[free], s.lastOne, s.until = b, a.batch, a.atMillis+s.ttl
	return true
}

func (s *linearState) ack(c call, a answer) bool {
	word, bit := c.batch/64%uint64(len(s.done)), uint64(1)<<(c.batch%64)
	i := slices.IndexFunc(s.open[:], func(b linearBatch) bool { return b.left != 0 && b.id == c.batch })
	switch {
	case i >= 0:
		n := bits.OnesCount64(s.open[i].left)
		s.open[i] = linearBatch{}
		s.done[word] |= bit
		s.until = a.atMillis + s.ttl
		return a.code == "" && a.n == n
	case c.batch < 64*uint64(len(s.done)) && s.done[word]&bit != 0:
		s.until = max(s.until, a.atMillis+s.ttl)
		return a.code == "" && a.n == 0
	}
	return a.code == "NOBATCH"
}

func (s *linearState) unlock(c call, a answer) bool {
	if s.holder == "" || !s.isToken(c.token) {
		return a.code == "" && a.n == 0
	}
	for i := range s.open {
		if s.open[i].left != 0 {
			s.giveBack(&s.open[i], 0)
		}
	}
	s.holder, s.token = "", 0
	return a.code == "" && a.n == 1
}
