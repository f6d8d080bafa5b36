package queue

// What must be so. The simulation knows of each body whether it is there, as things stand and as it was promised: the two differ until the
// answer's Future is done, as it does for the client, who hears nothing before. After a loss each body between the two is there or not,
// and nobody may say which; a look into all queues tells, and from then on it must stay so. All else is exact: each answer is
// compared with what it has to be.

import (
	"bytes"
	"slices"

	"quail/queue/machine"
)

// letter is what is known of one body.
type letter struct {
	body    string
	live    bool // it is there, as things stand
	durable bool // that was promised
	unknown bool // it was lost or not, and nobody has looked yet
	pending int  // how often it came or went without a promise yet
	plain   bool // pushed without a delay and a TTL: then it has its turn
	over    int64
	queue   string // where it was pushed
	life    uint64 // ... in this incarnation
	id      uint64 // ... as this message
	headers [][2][]byte
}

// messageKey is a message: a body that moves to another queue is another message there.
type messageKey struct{ life, id uint64 }

// history is what is known of one message's deliveries.
type history struct {
	times       uint32 // it was delivered
	last        uint32 // the attempt of the last delivery
	exact       bool   // the next delivery is the next attempt, exactly, once the lease has ended
	failed      uint32 // so many attempts have failed at least
	failedSure  uint32 // ... also if the power went now
	leaseEndsBy *lease
}

// lease is a batch as its consumer knows it.
type lease struct {
	queue     string
	life      uint64
	consumer  string
	id        uint64
	until     int64             // server clock
	attempts  map[uint64]uint32 // by message
	left      map[uint64]*letter
	acked     []*letter
	uncertain bool // its lease may be lost, or its tenure was ended
}

// firstPush is what a deduplication id stands for.
type firstPush struct {
	life, id uint64
	until    int64 // wall time
	sure     bool
	over     bool // the window has ended at some time; the clock may have gone back since
}

type knowledge struct {
	letters   []*letter
	byBody    map[string]*letter
	histories map[messageKey]*history
	held      []*lease
	dedup     map[string]*firstPush
	// front is the highest message of a queue's life that was delivered without ever having been delayed or returned.
	front map[uint64]uint64
	// lastID is the newest server-wide id that was seen.
	ids     map[uint64]bool
	next    int
	losses  int
	unlocks int // tenures that were ended by QUNLOCK
	wallMax int64
	// promises are what the clients that wait for an answer will be told, in order.
	promises []promise
	patient  bool // who asks now waits for something later anyway
	// touched are the effects without an answer that no commit has made durable; inFlight those that are being written.
	touched, inFlight []func()
	rotten            bool
	rotHere           rotted
}

func newKnowledge() knowledge {
	return knowledge{byBody: map[string]*letter{}, histories: map[messageKey]*history{}, dedup: map[string]*firstPush{},
		front: map[uint64]uint64{}, ids: map[uint64]bool{}}
}

// promise is what holds as soon as an answer leaves.
type promise struct {
	after   *Future
	keep    func()
	patient bool
}

// promise: once after is done, somebody relies on what keep notes.
func (s *sim) promise(after *Future, keep func()) {
	if !after.Done() {
		after.Notify(simClient{s.patient})
	}
	s.promises = append(s.promises, promise{after, keep, s.patient})
	s.answered()
}

// simClient waits for an answer, and may say that it can wait longer.
type simClient struct{ patient bool }

func (simClient) Durable()        {}
func (c simClient) Patient() bool { return c.patient }

// answered notes what was promised since it looked last. Answers become ready in the order of what they rest on.
func (s *sim) answered() {
	left := s.promises[:0]
	for _, p := range s.promises {
		switch {
		case !p.after.Done():
			left = append(left, p)
		case p.after.Err() == nil:
			p.keep()
		}
	}
	s.promises = left
}

// committing: what was done up to here is about to be durable, if all goes well.
func (s *sim) committing() {
	s.inFlight = append(s.inFlight, s.touched...)
	s.touched = nil
}

// committed: it is.
func (s *sim) committed() {
	for _, f := range s.inFlight {
		f()
	}
	s.inFlight = nil
	s.answered()
}

// settled: everything that was done is durable.
func (s *sim) settled() {
	s.committing()
	s.committed()
	if n := len(s.promises); n > 0 {
		s.fail("all is durable, and %d clients are not told so", n)
	}
}

// lose: what was done since the last commit may be lost or not.
func (s *sim) lose() {
	s.losses++
	s.answered()
	s.promises, s.touched, s.inFlight = nil, nil, nil
	for _, l := range s.letters {
		if l.pending > 0 && l.live != l.durable { // if it is back, others may have passed it meanwhile
			l.unknown, l.plain = true, false
		}
		l.pending = 0
	}
	for _, h := range s.histories {
		h.failed, h.exact = h.failedSure, false
	}
	for _, h := range s.held {
		h.uncertain = true
	}
	// What was resolved of a batch may be open again, so one that was resolved in part is not asked about any more.
	s.held = slices.DeleteFunc(s.held, func(h *lease) bool { return len(h.left) < len(h.attempts) })
	for _, d := range s.dedup {
		d.over = d.over || !d.sure
	}
}

// setLive says whether a letter is there from now on; after is what the answer waits for that says so.
func (s *sim) setLive(l *letter, live bool, after *Future) {
	l.live = live
	l.pending++
	s.promise(after, func() {
		l.durable = live
		l.pending--
	})
}

// setFailed says how many attempts of a message have failed at least.
func (s *sim) setFailed(h *history, failed uint32) {
	h.failed = max(h.failed, failed)
	s.touched = append(s.touched, func() { h.failedSure = max(h.failedSure, failed) })
}

// look finds all messages of all queues, or says that it cannot.
func (s *sim) look() (there map[*letter]string, ok bool) {
	if err := s.set.loadAll(); err != nil {
		s.fail("%v", err)
	}
	there = map[*letter]string{}
	for _, name := range s.set.Names() {
		list, _, err := peek(s.set, []byte(name), machine.Gone, 0, 1_000_000)
		if s.explain(err) {
			return nil, false
		}
		for i := range list {
			body := string(list[i].Body)
			l := s.byBody[body]
			if l == nil {
				s.fail("queue %s holds %.30q, which was never pushed", name, body)
			}
			if twice := there[l]; twice != "" {
				s.fail("%.30q is in queue %s and in queue %s", body, twice, name)
			}
			there[l] = name
		}
	}
	for _, q := range s.queues() {
		s.prolonged(q)
		if err := q.m.CheckInvariants(); err != nil {
			s.fail("queue %s: %v", q.name, err)
		}
	}
	return there, true
}

// isOver: its TTL has ended, so it may be gone without a word.
func (s *sim) isOver(l *letter) bool {
	s.tellTime()
	return l.over != 0 && l.over <= s.wallMax
}

// tellTime notes the latest time that any queue decided at.
func (s *sim) tellTime() {
	if s.set == nil {
		return
	}
	for _, q := range s.set.byLife {
		s.wallMax = max(s.wallMax, q.lastWall)
	}
}

// audit compares what is there with what must be.
func (s *sim) audit() {
	if s.failing || s.halted || s.set.usable() != nil {
		return
	}
	there, ok := s.look()
	if !ok {
		return
	}
	for _, l := range s.letters {
		_, found := there[l]
		switch {
		case found && !l.live:
			s.fail("%.30q was taken away and is in queue %s", l.body, there[l])
		case !found && l.live && s.isOver(l):
			s.endUntold(l)
		case !found && l.live:
			s.fail("%.30q is lost", l.body)
		}
	}
	s.tracef("audit: %d messages", len(there))
}

// endUntold: the letter's TTL is over. Nobody was told, so after a loss, and with a clock that was set back, it may be there again.
func (s *sim) endUntold(l *letter) {
	l.live = false
	l.pending++
	s.touched = append(s.touched, func() {
		l.durable = false
		l.pending--
	})
}

// learn is audit after a loss: it finds out what has survived.
func (s *sim) learn() {
	there, ok := s.look()
	if !ok && !s.rotten { // a log could not be opened while the disk still failed
		s.freeSpace()
		s.set.store.StepHeal()
		if there, ok = s.look(); !ok {
			s.fail("a log is stopped, and the disk is well")
		}
	}
	if !ok {
		s.mend() // a bit rotted, and that was noticed; starting again looks again
		return
	}
	s.compareFound(there)
	survived := 0
	for _, l := range s.letters {
		_, found := there[l]
		switch {
		case l.unknown:
			if l.unknown = false; found {
				survived++
			}
		case found && !l.durable:
			s.fail("%.30q was taken away, durably, and is in queue %s", l.body, there[l])
		case !found && l.durable && !s.isOver(l):
			s.fail("%.30q is lost", l.body)
		case !found && l.durable:
			s.endUntold(l)
			continue
		}
		l.live, l.durable = found, found
	}
	s.tracef("found %d messages, %d of them without a promise", len(there), survived)
}

// delivered checks a batch.
func (s *sim) delivered(q *queue, consumer string, now, wall, until int64, durable uint64, b *Batch) {
	name, life := q.name, q.log.Incarnation()
	s.useID(b.ID)
	s.checkOwner(life, consumer, now)
	h := &lease{queue: name, life: life, consumer: consumer, id: b.ID, until: until, attempts: map[uint64]uint32{}, left: map[uint64]*letter{}}
	fell := false
	for i := range b.Messages {
		m := &b.Messages[i]
		s.tracef("  %s delivers %d to %s in batch %d: %.30q attempt %d", name, m.ID, consumer, b.ID, m.Body, m.Attempt)
		s.stats.delivered++
		l := s.byBody[string(m.Body)]
		switch {
		case l == nil:
			s.fail("queue %s delivers %.30q, which was never pushed", name, m.Body)
		case !l.live && !l.unknown:
			s.fail("queue %s delivers %.30q, which was taken away", name, m.Body)
		case m.ID > durable:
			s.fail("queue %s delivers message %d; only %d is durable", name, m.ID, durable)
		case l.over != 0 && l.over <= wall && l.life == life && l.id == m.ID:
			s.fail("queue %s delivers %.30q at %d; its TTL was over at %d", name, m.Body, wall, l.over)
		}
		if i > 0 && m.ID < b.Messages[i-1].ID {
			if fell {
				s.fail("queue %s: message %d comes after %d", name, m.ID, b.Messages[i-1].ID)
			}
			fell = true
		}
		s.checkHeaders(l, m)
		s.checkAttempt(q, h, m)
		s.checkFront(life, l, m)
		h.left[m.ID], h.attempts[m.ID] = l, m.Attempt
	}
	if name == strictQueue {
		s.checkStrict(b, h)
	}
	s.held = append(s.held, h)
}

// checkHeaders: a message has what it was pushed with; one that moved has more.
func (s *sim) checkHeaders(l *letter, m *Message) {
	for _, want := range l.headers {
		has := slices.ContainsFunc(m.Headers, func(h [2][]byte) bool { return bytes.Equal(h[0], want[0]) && bytes.Equal(h[1], want[1]) })
		if !has {
			s.fail("%.30q lacks header %q: %q", l.body, want, m.Headers)
		}
	}
}

// useID: batch numbers and tokens are given out once.
func (s *sim) useID(id uint64) {
	if s.ids[id] {
		s.fail("number %d was given out before", id)
	}
	s.ids[id] = true
}

// checkOwner: while one consumer has a batch of a queue, no other gets one.
func (s *sim) checkOwner(life uint64, consumer string, now int64) {
	for _, h := range s.held {
		if h.life == life && h.consumer != consumer && !h.uncertain && len(h.left) > 0 && now < h.until {
			s.fail("consumer %s gets a batch at %d; %s has batch %d until %d", consumer, now, h.consumer, h.id, h.until)
		}
	}
}

func (s *sim) checkAttempt(q *queue, b *lease, m *Message) {
	key := messageKey{b.life, m.ID}
	h := s.histories[key]
	if h == nil {
		h = &history{}
		s.histories[key] = h
	}
	failed := m.Attempt - 1
	switch {
	case failed < h.failed || failed > h.times:
		s.fail("queue %s delivers message %d at attempt %d; %d to %d have failed", q.name, m.ID, m.Attempt, h.failed, h.times)
	case h.exact && h.leaseEndsBy != nil && !h.leaseEndsBy.uncertain && m.Attempt != h.last+1:
		s.fail("queue %s delivers message %d at attempt %d; the one before was %d, and failed", q.name, m.ID, m.Attempt, h.last)
	}
	if h.leaseEndsBy != nil && !h.leaseEndsBy.uncertain && h.leaseEndsBy.left[m.ID] != nil && s.set.store.NowMillis() < h.leaseEndsBy.until {
		s.fail("queue %s delivers message %d, which is in batch %d until %d", q.name, m.ID, h.leaseEndsBy.id, h.leaseEndsBy.until)
	}
	s.setFailed(h, failed)
	h.times++
	h.last, h.exact, h.leaseEndsBy = m.Attempt, true, b
}

// checkFront: what was never delivered comes in the order of ids.
func (s *sim) checkFront(life uint64, l *letter, m *Message) {
	if l.life != life || l.id != m.ID || !l.plain || s.histories[messageKey{life, m.ID}].times > 1 {
		return
	}
	if front := s.front[life]; m.ID < front {
		s.fail("message %d is delivered for the first time after message %d of the same queue", m.ID, front)
	}
	s.front[life] = m.ID
}

// checkStrict: a batch of a queue in strict order is its lowest messages, all of them in order.
func (s *sim) checkStrict(b *Batch, h *lease) {
	var want []uint64
	for _, l := range s.letters {
		if l.unknown && l.life == h.life {
			return // nobody has looked yet since the start
		}
		if l.live && l.life == h.life {
			want = append(want, l.id)
		}
	}
	slices.Sort(want)
	for i := range b.Messages {
		if i >= len(want) || b.Messages[i].ID != want[i] {
			s.fail("queue %s, in strict order, delivers message %d; message %d is next", h.queue, b.Messages[i].ID, want[min(i, len(want)-1)])
		}
	}
}
