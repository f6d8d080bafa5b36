package queue

// Random work on a few queues, cut off by power failures. After each restart every queue's state must be, bit for bit,
// the state it had after some record at or behind the last one that was promised: replay decides nothing anew.

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"quail/queue/machine"
)

const seedsDefault = 60

var seeds = flag.Int("seeds", seedsDefault, "number of random runs")

// shadow is what a test knows of one incarnation.
type shadow struct {
	states   map[uint64][]byte // by LSN
	promised uint64            // everything up to here was durable when somebody was told
}

type chaos struct {
	*world
	rng     *rand.Rand
	shadows map[uint64]*shadow
	ids     map[uint64]bool // batch ids and tokens seen
	bodies  map[string]bool // pushed and acknowledged to the producer, not acknowledged by a consumer
	maybe   map[string]bool // ack or push without an answer
	open    []openBatch
	next    int
}

type openBatch struct {
	queue string
	batch *Batch
}

var chaosQueues = []string{"a", "b", "c"}

func TestReplayGivesTheLiveState(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runChaos(t, uint64(seed)) })
		})
	}
}

func runChaos(t *testing.T, seed uint64) {
	c := &chaos{world: newWorld(t, seed), rng: rand.New(rand.NewPCG(seed, 7)), shadows: map[uint64]*shadow{},
		ids: map[uint64]bool{}, bodies: map[string]bool{}, maybe: map[string]bool{}}
	defer c.end()
	for round := range 6 {
		for range 60 + c.rng.IntN(100) {
			c.step()
			c.observe()
		}
		if round%3 == 2 {
			c.restart()
		} else {
			c.powerCut()
		}
		c.open = nil
		c.compare()
	}
	c.drain()
}

func (c *chaos) pick() string { return chaosQueues[c.rng.IntN(len(chaosQueues))] }

func (c *chaos) step() {
	switch p := c.rng.IntN(100); {
	case p < 35:
		c.pushSome()
	case p < 60:
		c.pullSome()
	case p < 80 && len(c.open) > 0:
		c.settleSome()
	case p < 84:
		c.unlock()
	case p < 90:
		time.Sleep(time.Duration(c.rng.IntN(3000)) * time.Millisecond)
	case p < 93:
		c.set.Checkpoint()
	case p < 94:
		c.remove()
	}
}

func (c *chaos) pushSome() {
	bodies := make([][]byte, 1+c.rng.IntN(5))
	for i := range bodies {
		c.next++
		bodies[i] = fmt.Appendf(nil, "%s%d %s", c.pick(), c.next, bytes.Repeat([]byte("x"), c.rng.IntN(2000)))
	}
	_, f, err := c.set.Push([]byte(c.pick()), bodies)
	if err != nil {
		c.t.Fatalf("push: %v", err)
	}
	known := c.maybe
	if c.rng.IntN(4) > 0 { // sometimes nobody waits, and a later power cut may lose it
		if err := f.Wait(); err != nil {
			c.t.Fatalf("push: %v", err)
		}
		known = c.bodies
		c.promise()
	}
	for _, b := range bodies {
		known[string(b)] = true
	}
}

// promise notes that everything committed so far is durable.
func (c *chaos) promise() {
	for _, q := range c.set.byLife {
		if s := c.shadows[q.log.Incarnation()]; s != nil {
			s.promised = max(s.promised, q.log.Durable())
		}
	}
}

func (c *chaos) pullSome() {
	name := c.pick()
	r := request(name, fmt.Sprint("consumer", c.rng.IntN(2)))
	r.Count, r.LeaseMillis = 1+c.rng.IntN(6), 1+int64(c.rng.IntN(20_000))
	if c.rng.IntN(3) == 0 {
		r.Block, r.BlockMillis = true, 1+int64(c.rng.IntN(2000))
	}
	b, err := c.pull(r)
	if code := codeOf(err); err != nil && code != "LOCKED" {
		c.t.Fatalf("pull: %v", err)
	}
	if b == nil {
		return
	}
	if c.ids[b.ID] {
		c.t.Fatalf("batch id %d was used before", b.ID)
	}
	c.ids[b.ID] = true
	for _, m := range b.Messages {
		if !c.bodies[string(m.Body)] && !c.maybe[string(m.Body)] {
			c.t.Fatalf("queue %s delivers %.20q, which was acknowledged or never pushed", name, m.Body)
		}
	}
	c.open = append(c.open, openBatch{name, b})
}

func (c *chaos) settleSome() {
	i := c.rng.IntN(len(c.open))
	o := c.open[i]
	c.open = append(c.open[:i], c.open[i+1:]...)
	var ids []uint64
	if c.rng.IntN(3) == 0 {
		ids = []uint64{o.batch.Messages[c.rng.IntN(len(o.batch.Messages))].ID}
	}
	if c.rng.IntN(3) == 0 {
		mode := []machine.NackMode{machine.Retry, machine.Release}[c.rng.IntN(2)]
		if _, _, err := c.set.Nack([]byte(o.queue), o.batch.ID, mode, int64(c.rng.IntN(3000))-1, ids); err != nil && codeOf(err) != "NOBATCH" && codeOf(err) != "NOQUEUE" {
			c.t.Fatalf("nack: %v", err)
		}
		return
	}
	n, f, err := c.set.Ack([]byte(o.queue), o.batch.ID, ids)
	if err != nil || n == 0 {
		return
	}
	durable := c.rng.IntN(3) > 0
	if durable && f.Wait() != nil {
		c.t.Fatalf("ack: %v", f.Err())
	}
	for _, m := range o.batch.Messages {
		if ids != nil && m.ID != ids[0] {
			continue
		}
		delete(c.bodies, string(m.Body))
		delete(c.maybe, string(m.Body))
		if !durable {
			c.maybe[string(m.Body)] = true
		}
	}
	if durable {
		c.promise()
	}
}

func (c *chaos) unlock() {
	name := []byte(c.pick())
	info, _, err := c.set.Info(name)
	if err != nil || info.Holder == "" {
		return
	}
	if _, _, err := c.set.Unlock(name, info.Token); err != nil {
		c.t.Fatalf("unlock: %v", err)
	}
}

func (c *chaos) remove() {
	name := c.pick()
	existed, f, err := c.set.Delete([]byte(name))
	if err != nil || !existed {
		return
	}
	if err := f.Wait(); err != nil {
		c.t.Fatalf("delete: %v", err)
	}
	// The test does not know which bodies were in it: none of them has to come any more.
	for b := range c.bodies {
		c.maybe[b] = true
	}
	clear(c.bodies)
}

// lives are the queues at this moment: dead letters may make another one in the background.
func (c *chaos) lives() map[uint64]*queue {
	c.set.mu.RLock()
	defer c.set.mu.RUnlock()
	return maps.Clone(c.set.byLife)
}

// observe records every queue's state by its LSN and checks the invariants.
func (c *chaos) observe() {
	for incarnation, q := range c.lives() {
		q.mu.Lock()
		if err := q.m.CheckInvariants(); err != nil {
			c.t.Fatalf("queue %s: %v", q.name, err)
		}
		s := c.shadows[incarnation]
		if s == nil {
			s = &shadow{states: map[uint64][]byte{}}
			c.shadows[incarnation] = s
		}
		state := q.m.Snapshot(nil)
		if old, ok := s.states[q.m.LastLSN()]; ok && !bytes.Equal(old, state) {
			c.t.Fatalf("queue %s: the state after record %d changed without a record", q.name, q.m.LastLSN())
		}
		s.states[q.m.LastLSN()] = state
		q.mu.Unlock()
	}
}

// compare checks what a restart brought back.
func (c *chaos) compare() {
	for incarnation, q := range c.lives() {
		s := c.shadows[incarnation]
		if s == nil {
			continue
		}
		q.mu.Lock()
		lsn, state := q.m.LastLSN(), q.m.Snapshot(nil)
		q.mu.Unlock()
		if lsn < s.promised {
			c.t.Fatalf("queue %s is back at record %d; record %d was promised", q.name, lsn, s.promised)
		}
		if want, ok := s.states[lsn]; ok && !bytes.Equal(want, state) {
			c.t.Fatalf("queue %s: the state after record %d is not what it was", q.name, lsn)
		}
		for later := range s.states {
			if later > lsn {
				delete(s.states, later) // they never became durable, and are decided anew
			}
		}
	}
}

// drain takes everything out: each promised body must come, and nothing that was never pushed.
func (c *chaos) drain() {
	for _, name := range chaosQueues {
		for empty := 0; empty < 3; {
			r := blocking(name, "drain", 120_000)
			b, err := c.pull(r)
			if err != nil {
				c.t.Fatalf("drain: %v", err)
			}
			if b == nil {
				empty++
				continue
			}
			empty = 0
			for _, m := range b.Messages {
				if !c.bodies[string(m.Body)] && !c.maybe[string(m.Body)] {
					c.t.Fatalf("queue %s delivers %.20q, which was acknowledged or never pushed", name, m.Body)
				}
				delete(c.bodies, string(m.Body))
				delete(c.maybe, string(m.Body))
			}
			c.ack(name, b.ID)
		}
	}
	if len(c.bodies) > 0 {
		c.t.Fatalf("%d pushed messages never came", len(c.bodies))
	}
}
