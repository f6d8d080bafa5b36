//go:build linux

package integration

// The model knows what must, may and must not be in the queues after a crash. Clients tell it what they are about to do, and
// then what the server answered; what was asked and never answered may have happened or not, but whole or not at all.

import (
	"fmt"
	"slices"
	"sync"
)

// body is one message that may be in a queue. Bodies are unique, so a body is its message's name.
type body struct {
	queue   string
	id      int64
	heard   bool // its push was answered
	there   bool // answered, delivered or seen: it must be there until it is acknowledged
	gone    bool // its acknowledgement, or its queue's deletion, was answered
	pushed  *unit
	removed *unit // the acknowledgement that was asked for last
	nacks   [2]int64
}

// unit is what must happen to several bodies together: a push, an acknowledgement, a deletion.
type unit struct {
	name   string
	bodies []string
}

type tenure struct {
	queue, consumer string
	ended           bool
}

// oldBatch is a batch of a former life, with what an acknowledgement of it must say now.
type oldBatch struct {
	queue    string
	id       int64
	resolved bool // QACK or QNACK of all of it was answered: 0; otherwise -NOBATCH
}

type model struct {
	mu         sync.Mutex // guards what follows
	bodies     map[string]*body
	idFloor    map[string]int64 // highest id of each queue in former lives
	idHighest  map[string]int64
	used       map[int64]string // batch ids and tokens of this life
	floor      int64            // the highest of them in former lives
	highest    int64
	tokens     map[int64]*tenure
	old        []oldBatch
	complaints []string

	pushes, acks, delivered, batches, grants, survivedUnheard, deletions int
}

func newModel() *model {
	return &model{bodies: make(map[string]*body), idFloor: make(map[string]int64), idHighest: make(map[string]int64),
		used: make(map[int64]string), tokens: make(map[int64]*tenure)}
}

func (m *model) complain(format string, args ...any) {
	if len(m.complaints) < complaintsMax {
		m.complaints = append(m.complaints, fmt.Sprintf(format, args...))
	}
}

// brief keeps a message readable.
func brief(body string) string { return fmt.Sprintf("%.40q (%d bytes)", body, len(body)) }

// pushAsked: these bodies may be there from now on.
func (m *model) pushAsked(queue string, bodies []string) *unit {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := &unit{name: "push to " + queue, bodies: bodies}
	for _, text := range bodies {
		m.bodies[text] = &body{queue: queue, pushed: u}
	}
	return u
}

// pushAnswered: they must be there, under these ids.
func (m *model) pushAnswered(u *unit, firstID int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pushes += len(u.bodies)
	for i, text := range u.bodies {
		b := m.bodies[text]
		b.heard = true
		m.identify(b, text, firstID+int64(i))
		if floor := m.idFloor[b.queue]; b.id <= floor {
			m.complain("%s got id %d in %s, which had given %d before the crash", brief(text), b.id, b.queue, floor)
		}
	}
}

// identify notes that a body is there under an id.
func (m *model) identify(b *body, text string, id int64) {
	if b.there && b.id != id {
		m.complain("%s has id %d in %s and came with id %d", brief(text), b.id, b.queue, id)
	}
	b.there, b.id = true, id
	m.idHighest[b.queue] = max(m.idHighest[b.queue], id)
}

// pulled judges a batch that a consumer got.
func (m *model) pulled(queue string, b *batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.batches++
	m.fresh(b.id, fmt.Sprintf("batch of %s", queue))
	for _, msg := range b.messages {
		m.delivered++
		known := m.bodies[msg.body]
		switch {
		case known == nil || known.queue != queue:
			m.complain("%s of %s is a phantom: never pushed there, or acknowledged before a crash", brief(msg.body), queue)
			continue
		case known.gone:
			m.complain("%s of %s was delivered after its acknowledgement was answered", brief(msg.body), queue)
		case msg.attempt < 1+known.nacks[1] || msg.attempt > 1+known.nacks[0]:
			m.complain("%s of %s is at attempt %d, after %d to %d failed ones", brief(msg.body), queue, msg.attempt, known.nacks[1], known.nacks[0])
		}
		m.identify(known, msg.body, msg.id)
	}
}

// fresh notes a batch id or a token, none of which may ever come twice.
func (m *model) fresh(number int64, what string) {
	if other, twice := m.used[number]; twice {
		m.complain("number %d was given twice: %s, and %s", number, other, what)
	}
	if number <= m.floor {
		m.complain("number %d (%s) is not above %d, which was given before a crash", number, what, m.floor)
	}
	m.used[number] = what
	m.highest = max(m.highest, number)
}

// granted judges a token.
func (m *model) granted(queue, consumer string, token int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tokens[token]
	if t == nil {
		m.grants++
		m.fresh(token, fmt.Sprintf("token of %s for %s", queue, consumer))
		m.tokens[token] = &tenure{queue: queue, consumer: consumer}
		return
	}
	if t.queue != queue || t.consumer != consumer || t.ended {
		m.complain("token %d of %s for %s was that of %s for %s (ended: %v)", token, queue, consumer, t.queue, t.consumer, t.ended)
	}
}

// adopt notes a token that was given before the crash without anybody hearing of it.
func (m *model) adopt(queue, consumer string, token int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.tokens[token]; t != nil || token <= 0 {
		m.complain("token %d of %s for %s is not a new one: %+v", token, queue, consumer, t)
	}
	m.tokens[token] = &tenure{queue: queue, consumer: consumer}
	m.floor = max(m.floor, token)
}

// released: a QUNLOCK of the token was answered.
func (m *model) released(token int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.tokens[token]; t != nil {
		t.ended = true
	}
}

// removalAsked: these bodies may be gone from now on, all or none.
func (m *model) removalAsked(name string, bodies []string) *unit {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := &unit{name: name, bodies: bodies}
	for _, text := range bodies {
		if b := m.bodies[text]; b != nil {
			b.removed = u
		}
	}
	return u
}

func (m *model) removalAnswered(u *unit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acks += len(u.bodies)
	for _, text := range u.bodies {
		if b := m.bodies[text]; b != nil {
			b.gone = true
		}
	}
}

// removalRefused: they must still be there.
func (m *model) removalRefused(u *unit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, text := range u.bodies {
		if b := m.bodies[text]; b != nil && b.removed == u {
			b.removed = nil
		}
	}
}

// nack counts failed attempts: asked first, then answered.
func (m *model) nack(bodies []string, answered bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, text := range bodies {
		if b := m.bodies[text]; b != nil && answered {
			b.nacks[1]++
		} else if b != nil {
			b.nacks[0]++
		}
	}
}

// remember keeps a batch for the time after the crash.
func (m *model) remember(queue string, id int64, resolved bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.old = append(m.old, oldBatch{queue, id, resolved})
}

// forgetQueue: the queue is about to be deleted. Ids begin anew, and its batches may be unknown to the next one.
func (m *model) forgetQueue(queue string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deletions++
	m.idFloor[queue], m.idHighest[queue] = 0, 0
	m.old = slices.DeleteFunc(m.old, func(o oldBatch) bool { return o.queue == queue })
}

// oldBatches hands over the remembered batches.
func (m *model) oldBatches() []oldBatch {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.old
	m.old = nil
	return old
}

// alive lists what must or may be in a queue.
func (m *model) alive(queue string) (texts []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for text, b := range m.bodies {
		if b.queue == queue && !b.gone {
			texts = append(texts, text)
		}
	}
	return texts
}

// compare judges all that is in a queue after a crash, and settles what was open: from here on it is as found.
func (m *model) compare(queue string, found []message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	present := make(map[string]int64)
	for _, msg := range found {
		if _, twice := present[msg.body]; twice {
			m.complain("%s is in %s twice", brief(msg.body), queue)
		}
		present[msg.body] = msg.id // what it is was judged when it was pulled
	}
	for text, b := range m.bodies {
		if b.queue != queue {
			continue
		}
		_, there := present[text]
		if !there && b.there && b.removed == nil {
			m.complain("%s, message %d of %s, is lost", brief(text), b.id, queue)
		}
		if !there && !b.there {
			m.allOrNone(b.pushed, present, "went in")
		}
		if there && b.removed != nil {
			m.allOrNone(b.removed, present, "went out")
		}
	}
	m.settle(queue, present)
}

// allOrNone checks that a unit whose one body is absent (push) or present (removal) has no body that is the other.
func (m *model) allOrNone(u *unit, present map[string]int64, how string) {
	if u == nil {
		return
	}
	in := 0
	for _, text := range u.bodies {
		_, there := present[text]
		if b := m.bodies[text]; there || how == "went in" && b != nil && b.there {
			in++
		}
	}
	if in != 0 && in != len(u.bodies) {
		m.complain("%s of %d messages %s in part: %d are there", u.name, len(u.bodies), how, in)
	}
}

// settle makes what was found the truth.
func (m *model) settle(queue string, present map[string]int64) {
	for text, b := range m.bodies {
		if b.queue != queue {
			continue
		}
		id, there := present[text]
		if !there {
			delete(m.bodies, text)
			continue
		}
		if b.pushed != nil && !b.heard {
			m.survivedUnheard++
		}
		b.there, b.id, b.removed, b.pushed = true, id, nil, nil
		b.nacks[0], b.nacks[1] = max(b.nacks[0], b.nacks[1]), min(b.nacks[0], b.nacks[1])
	}
}

// nextLife begins after a crash: numbers of former lives may not come again.
func (m *model) nextLife() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.floor = max(m.floor, m.highest)
	for queue, highest := range m.idHighest {
		m.idFloor[queue] = max(m.idFloor[queue], highest)
	}
	clear(m.used)
}
