package queue

// What producers, consumers and owners of queues do, and what the answers must be.

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"quail/queue/machine"
)

// The queues: one as it comes, one in strict order, two with a common dead-letter queue, one that is often deleted.
const (
	plainQueue   = "plain"
	strictQueue  = "strict"
	retryQueue   = "retry"
	otherQueue   = "other"
	passingQueue = "passing"
	gravesQueue  = "graves"
)

var (
	simQueues = []string{plainQueue, strictQueue, retryQueue, otherQueue, passingQueue}
	simCodes  = []string{"LOCKED", "WRONGTOKEN", "NOQUEUE", "PAUSED", "QFULL"}
	simWindow = int64(5000)
	// simMessagesMax is how many otherQueue may hold.
	simMessagesMax = int64(15)
	simDraining    = "drain"
)

func (s *sim) createQueues() {
	common := []string{"lease", "2000", "lock-ttl", "3000", "dedup-window", fmt.Sprint(simWindow)}
	for _, name := range simQueues[:4] {
		list := slices.Clone(common)
		if name == otherQueue {
			list = append(list, "max-messages", fmt.Sprint(simMessagesMax))
		}
		switch name {
		case strictQueue:
			list = append(list, "max-open-batches", "1", "max-attempts", "0")
		case retryQueue, otherQueue:
			list = append(list, "max-attempts", fmt.Sprint(1+s.dice.IntN(3)), "dead-letter-queue", gravesQueue, "retry-delay", fmt.Sprint(s.dice.IntN(3)*400))
		}
		for {
			_, err := s.set.Create([]byte(name), options(s.t, list...))
			s.tracef("create %s: %v", name, err)
			if !s.explain(err, "EXISTS") {
				s.commit()
			}
			if !s.halted && !s.failing && (err == nil || codeOf(err) == "EXISTS") {
				break
			}
			s.spaceAgain()
			s.goOn()
		}
	}
}

// goOn waits until the store works again.
func (s *sim) goOn() {
	for len(s.chores) > 0 && !s.halted {
		s.doChore()
	}
	s.catchUp()
	if s.halted {
		s.end(true)
		s.start()
	}
}

// spaceAgain waits until the store has noticed that the disk has space.
func (s *sim) spaceAgain() {
	for try := 0; !s.halted && !s.failing && s.set.usable() == nil && s.set.store.Full() != nil; try++ {
		if try > 100 {
			s.fail("the disk has space, and the store takes no messages: %v", s.set.store.Full())
		}
		s.freeSpace()
		s.fullUntil = time.Time{}
		s.set.store.StepHeal()
		s.set.store.StepSpace()
	}
}

func (s *sim) step() {
	switch p := s.dice.IntN(1000); {
	case p < 180:
		s.push()
	case p < 190:
		s.round()
	case p < 340:
		s.pull()
	case p < 450:
		s.settleOne()
	case p < 480:
		s.extend()
	case p < 510:
		s.lock()
	case p < 530:
		s.unlock()
	case p < 545:
		s.manage()
	case p < 550:
		s.vanish()
	case p < 570:
		s.redrive()
	case p < 580:
		s.deleteQueue()
	case p < 592:
		s.audit()
	case p < 595:
		s.backup()
	case p < 740:
		s.commit()
	case p < 850:
		s.doChore()
	case p < 920:
		s.work()
	case p < 965:
		s.pass()
	case p < 975:
		s.restart()
	case p < 982:
		s.haltIn = 1 + s.dice.IntN(60)
	case p < 985 && s.faulty > 0:
		s.fillDisk()
	case p < 988 && s.faulty > 0:
		s.fullUntil = time.Now().Add(time.Duration(s.dice.IntN(5000)) * time.Millisecond)
	case p < 990:
		s.skew += time.Duration(s.dice.IntN(12_000)-6000) * time.Millisecond
		s.tracef("the wall clock is set to %v", s.skew)
	case p < 995 && s.faulty > 0:
		s.sick = []string{"/queues/", "/journal/", "/checkpoints/", ".delta", ".aside"}[s.dice.IntN(5)]
		s.sickUntil = time.Now().Add(time.Duration(s.dice.IntN(4000)) * time.Millisecond)
		s.tracef("disk: much fails in %s", s.sick)
	case p < 998:
		s.end(s.dice.IntN(4) > 0)
		s.start()
	case s.faulty > 0:
		s.poorUntil = time.Now().Add(time.Duration(s.dice.IntN(3000)) * time.Millisecond)
		s.tracef("disk: there are no descriptors")
	}
}

// round has several commands share a commit, as the server does for those that it reads at once.
func (s *sim) round() {
	life, store := s.life, s.set.store
	held := s.set.Hold()
	s.patient = s.dice.IntN(3) == 0
	defer func() { s.patient = false }()
	s.tracef("a round begins, patient: %v", s.patient)
	for range 1 + s.dice.IntN(6) {
		switch s.dice.IntN(5) {
		case 0, 1:
			s.push()
		case 2:
			s.pull()
		case 3, 4:
			s.settleOne()
		}
		if s.halted || s.life != life {
			return
		}
	}
	s.tracef("the round ends")
	s.committing()
	held.Release()
	if s.halted || s.failing {
		return
	}
	hurries := slices.ContainsFunc(s.promises, func(p promise) bool { return !p.patient && !p.after.Done() })
	if !hurries && slices.ContainsFunc(s.queues(), func(q *queue) bool { return !q.last.Done() }) {
		s.tracef("the round is left to the next commit")
		return
	}
	if s.set.store == store {
		s.committed()
	}
	if n := len(s.promises); n > 0 {
		s.fail("a round is over, and %d clients are not told so", n)
	}
}

// vanish has a client go away: its waiting pull is taken back, or the batch that could not be sent.
func (s *sim) vanish() {
	if len(s.cancels) > 0 && s.chance(2) {
		i := s.dice.IntN(len(s.cancels))
		s.tracef("a client that waits goes away")
		s.cancels[i]()
		s.cancels = slices.Delete(s.cancels, i, i+1)
		return
	}
	h := s.choose()
	if h == nil {
		return
	}
	s.tracef("return %s %d", h.queue, h.id)
	h.uncertain = true // nobody hears whether it went back
	for id := range h.left {
		s.histories[messageKey{h.life, id}].exact = false
	}
	s.set.Return([]byte(h.queue), h.id)
}

func (s *sim) pick() string { return simQueues[s.dice.IntN(len(simQueues))] }

// anyOf is one of all queues, also those for dead letters.
func (s *sim) anyQueue() string {
	if s.chance(5) {
		return []string{gravesQueue, plainQueue + deadSuffix, passingQueue + deadSuffix}[s.dice.IntN(3)]
	}
	return s.pick()
}

// pass lets time pass, often up to the very millisecond at which something ends.
func (s *sim) pass() {
	d := time.Duration(s.dice.IntN(400)) * time.Millisecond
	switch s.dice.IntN(3) {
	case 0:
		d = time.Duration(s.dice.IntN(4000)) * time.Millisecond
	case 1:
		if edges := s.edges(); len(edges) > 0 {
			d = edges[s.dice.IntN(len(edges))]
		}
	}
	time.Sleep(d)
	s.catchUp()
	s.tracef("%v pass", d)
}

// edges are the times until leases and deduplication windows end.
func (s *sim) edges() (list []time.Duration) {
	if s.failing || s.set.usable() != nil {
		return nil
	}
	add := func(millis int64) {
		if millis > 0 {
			list = append(list, time.Duration(millis)*time.Millisecond)
		}
	}
	now := s.set.store.NowMillis()
	for _, h := range s.held {
		add(h.until - now)
	}
	wall := s.set.wallMillis(time.Now())
	for _, key := range slices.Sorted(maps.Keys(s.dedup)) {
		add(s.dedup[key].until - wall)
	}
	return list
}

// hasRoom is what the server asks before each push: without room it would wait for the background, which waits for the driver here.
func (s *sim) hasRoom() bool {
	if s.set.usable() != nil {
		return true // refused at once
	}
	if !s.set.HasRoom() {
		s.commit()
		if s.set.usable() == nil {
			s.set.store.StepWriteBehind()
			s.checkpoint()
		}
	}
	return s.set.usable() != nil || s.set.HasRoom()
}

func (s *sim) push() {
	s.pushTo(s.pick())
}

func (s *sim) pushTo(name string) {
	if !s.hasRoom() {
		return
	}
	var o PushOptions
	count := 1
	switch p := s.dice.IntN(10); {
	case p < 3:
		count = 2 + s.dice.IntN(5)
	case p == 3 && name != strictQueue:
		o.HasDelay, o.DelayMillis = true, int64(s.dice.IntN(3000))
	case p == 4 && name != strictQueue:
		o.HasTTL, o.TTLMillis = true, int64(1+s.dice.IntN(4000))
	case p == 5:
		o.Dedup = fmt.Append(nil, s.dice.IntN(3))
	}
	bodies := make([][]byte, count)
	for i := range bodies {
		s.next++
		text := fmt.Sprintf("%d", s.next)
		if s.chance(4) {
			text += " " + strings.Repeat("x", s.dice.IntN(1500))
		}
		bodies[i] = []byte(text)
	}
	if s.chance(5) {
		o.Headers = [][2][]byte{{[]byte("number"), fmt.Append(nil, s.next)}, {[]byte("empty"), nil}}
	}
	before, lifeBefore, held := uint64(0), uint64(0), int64(0)
	if q := s.find(name); q != nil {
		before, lifeBefore, held = q.m.LastLSN(), q.log.Incarnation(), q.m.Len()
	}
	id, after, err := s.set.PushWith([]byte(name), bodies, o)
	s.tracef("push %s %d %s: %d, %v", name, count, bodies[0][:min(len(bodies[0]), 10)], id, err)
	if fits := name != otherQueue || held+int64(count) <= simMessagesMax; codeOf(err) == "QFULL" == fits && (fits || err == nil && len(o.Dedup) == 0) {
		s.fail("a push of %d to queue %s, which has %d: %v", count, name, held, err)
	}
	if s.explain(err, "PAUSED", "QFULL") {
		return
	}
	q := s.find(name)
	life := q.log.Incarnation()
	if len(o.Dedup) > 0 && !s.isFirstPush(fmt.Sprintf("%d %s", life, o.Dedup), q, id, before, after) {
		return
	}
	if life == lifeBefore && id <= before {
		s.fail("a push to %s gives message %d; %d was there before", name, id, before)
	}
	s.stats.pushed += count
	for i, body := range bodies {
		l := &letter{body: string(body), plain: !o.HasDelay && !o.HasTTL, queue: name, life: life, id: id + uint64(i), headers: o.Headers}
		if o.HasTTL {
			l.over = q.lastWall + o.TTLMillis
		}
		s.letters = append(s.letters, l)
		s.byBody[l.body] = l
		s.setLive(l, true, after)
	}
	if len(o.Dedup) > 0 && s.chance(3) { // a client that was impatient
		again, after, err := s.set.PushWith([]byte(name), bodies, o)
		s.tracef("push %s again: %d, %v", name, again, err)
		if !s.explain(err, "PAUSED", "QFULL") {
			s.isFirstPush(fmt.Sprintf("%d %s", life, o.Dedup), q, again, id, after)
		}
	}
}

// isFirstPush checks the answer to a push with a deduplication id.
func (s *sim) isFirstPush(key string, q *queue, id, before uint64, after *Future) bool {
	known := s.dedup[key]
	isNew := id > before
	if s.tellTime(); known != nil && s.wallMax >= known.until {
		known.over = true
	}
	switch {
	case known == nil && !isNew:
		s.fail("the first push with deduplication id %q gives message %d", key, id)
	case known != nil && !known.over && known.id != id:
		s.fail("a push with deduplication id %q gives message %d; within the window message %d was the first", key, id, known.id)
	case known != nil && known.over && known.sure && q.lastWall >= known.until && !isNew:
		s.fail("a push with deduplication id %q gives message %d at %d; the window ended at %d", key, id, q.lastWall, known.until)
	}
	if isNew {
		f := &firstPush{id: id, until: q.lastWall + q.option(machine.DedupWindow)}
		s.dedup[key] = f
		s.promise(after, func() { f.sure = true })
		return true
	}
	for _, l := range s.letters { // the answer says that the first one is there
		if l.life == q.log.Incarnation() && l.id == id && l.live {
			s.setLive(l, true, after)
		}
	}
	return false
}

func (s *sim) pull() {
	name, consumer := s.anyQueue(), fmt.Sprint("c", s.dice.IntN(2))
	if s.dice.IntN(3) > 0 {
		consumer = "c0"
	}
	r := request(name, consumer)
	r.Count, r.LeaseMillis = 1+s.dice.IntN(5), int64(1+s.dice.IntN(3000))
	if s.chance(3) {
		r.Block, r.BlockMillis = true, int64(1+s.dice.IntN(2000))
	}
	if s.chance(6) {
		r.FillMillis = int64(s.dice.IntN(500))
	}
	if s.chance(4) {
		r.Bytes = int64(s.dice.IntN(2000))
	}
	if q := s.find(name); q != nil && s.chance(6) {
		if lock, held := q.m.Lock(); held {
			r.HasToken, r.Token = true, lock.Token
			s.tokens = append(s.tokens, lock.Token)
		}
	}
	if len(s.tokens) > 0 && s.chance(8) { // maybe of a tenure that is over
		r.HasToken, r.Token = true, s.tokens[len(s.tokens)-1-s.dice.IntN(min(len(s.tokens), 5))]
	}
	life := s.life
	s.tracef("pull %s by %s, block %v", name, consumer, r.Block)
	cancel := s.set.Consume(r, func(b *Batch, after *Future, err error) {
		if s.life != life {
			return
		}
		if s.explain(err, simCodes...) {
			s.tracef("  pull %s by %s: %v", name, consumer, err)
		} else if b != nil {
			s.checkBounds(&r, b)
			if lock, _ := s.find(string(r.Queue)).m.Lock(); r.HasToken && lock.Token != r.Token {
				s.fail("a pull with token %d gets batch %d; the tenure's token is %d", r.Token, b.ID, lock.Token)
			}
			s.delivery(name, consumer, r.LeaseMillis, b)
		}
	})
	if r.Block {
		s.cancels = append(s.cancels, cancel)
	}
}

// checkBounds: a batch is no larger than was asked for.
func (s *sim) checkBounds(r *ConsumeRequest, b *Batch) {
	bytes := int64(0)
	for i := range b.Messages {
		bytes += int64(len(b.Messages[i].Body))
	}
	if n := len(b.Messages); n == 0 || n > r.Count || n > 1 && r.Bytes >= 0 && bytes > r.Bytes {
		s.fail("a pull of %d messages and %d bytes gets %d and %d", r.Count, r.Bytes, n, bytes)
	}
}

// delivery notes a batch that comes within a call.
func (s *sim) delivery(name, consumer string, leaseMillis int64, b *Batch) {
	q, now := s.find(name), s.set.store.NowMillis()
	durable, wall, losses, unlocks := q.log.Durable(), q.lastWall, s.losses, s.unlocks
	s.answers = append(s.answers, func() {
		s.delivered(q, consumer, now, wall, now+leaseMillis, durable, b)
		s.held[len(s.held)-1].uncertain = s.losses != losses || s.failing || s.unlocks != unlocks // QUNLOCK serves the line first, so it may end what it gave
	})
}

func (s *sim) lock() {
	name, consumer := s.pick(), fmt.Sprint("c", s.dice.IntN(3))
	r := LockRequest{Queue: []byte(name), Consumer: []byte(consumer), TTLMillis: int64(s.dice.IntN(3) * 1000)}
	if s.chance(2) {
		r.Block, r.BlockMillis = true, int64(1+s.dice.IntN(2000))
	}
	life, before := s.life, uint64(0)
	if q := s.find(string(r.Queue)); q != nil {
		if lock, held := q.m.Lock(); held && lock.Consumer == consumer {
			before = lock.Token
		}
	}
	s.set.Lock(r, func(token uint64, after *Future, err error) {
		s.tracef("lock %s by %s: %d, %v", name, consumer, token, err)
		if s.life == life && !s.explain(err, simCodes...) && token != 0 && token != before && s.ids[token] && s.find(string(r.Queue)).m.Counts().OpenBatches == 0 {
			s.fail("token %d is the number of a batch", token)
		}
	})
}

func (s *sim) unlock() {
	name := s.pick()
	q := s.find(name)
	if q == nil {
		return
	}
	lock, held := q.m.Lock()
	if !held {
		return
	}
	token := lock.Token + uint64(s.dice.IntN(2))*1000
	released, _, err := s.set.Unlock([]byte(name), token)
	s.tracef("unlock %s %d: %v, %v", name, token, released, err)
	if s.explain(err, simCodes...) || !released {
		return
	}
	s.unlocks++
	for _, h := range s.held {
		h.uncertain = h.uncertain || h.life == q.log.Incarnation()
	}
}

// choose takes a batch, mostly one that is open.
func (s *sim) choose() *lease {
	if len(s.held) == 0 {
		return nil
	}
	i := len(s.held) - 1 - s.dice.IntN(min(len(s.held), 6))
	h := s.held[i]
	if len(s.held) > 40 {
		s.held = slices.Delete(s.held, 0, 20)
	}
	s.find(h.queue) // it may be loaded by what comes, and the lease end later
	return h
}

func (s *sim) settleOne() {
	h := s.choose()
	if h == nil {
		return
	}
	want := slices.Sorted(maps.Keys(h.left))
	var ids []uint64
	if s.chance(3) {
		all := slices.Sorted(maps.Keys(h.attempts))
		ids = []uint64{all[s.dice.IntN(len(all))]}
		want = slices.DeleteFunc(want, func(id uint64) bool { return id != ids[0] })
	}
	if s.dice.IntN(3) > 0 {
		n, after, err := s.set.Ack([]byte(h.queue), h.id, ids)
		s.tracef("ack %s %d %v: %d, %v", h.queue, h.id, ids, n, err)
		s.acked(h, want, n, after, err)
		if s.chance(6) { // a client that was impatient
			n, after, err = s.set.Ack([]byte(h.queue), h.id, nil)
			s.tracef("ack %s %d again: %d, %v", h.queue, h.id, n, err)
			s.acked(h, slices.Sorted(maps.Keys(h.left)), n, after, err)
		}
		return
	}
	mode := []machine.NackMode{machine.Retry, machine.Release, machine.Dead}[s.dice.IntN(3)]
	if mode == machine.Dead && h.queue == strictQueue {
		mode = machine.Release
	}
	delay := int64(-1)
	if h.queue != strictQueue {
		delay = int64(s.dice.IntN(3)-1) * 500
	}
	n, _, err := s.set.Nack([]byte(h.queue), h.id, mode, delay, ids)
	s.tracef("nack %s %d %d %v: %d, %v", h.queue, h.id, mode, ids, n, err)
	for _, id := range s.resolved("nack", h, want, n, err) {
		known := s.histories[messageKey{h.life, id}]
		known.exact = false
		if mode == machine.Retry {
			s.setFailed(known, h.attempts[id])
		}
		delete(h.left, id)
	}
}

// acked notes what an acknowledgement has done. One that is repeated promises the same once more.
func (s *sim) acked(h *lease, want []uint64, n int, after *Future, err error) {
	if err == nil && !h.uncertain {
		for _, l := range h.acked {
			s.setLive(l, false, after)
		}
	}
	for _, id := range s.resolved("ack", h, want, n, err) {
		s.setLive(h.left[id], false, after)
		s.stats.settled++
		h.acked = append(h.acked, h.left[id])
		delete(h.left, id)
	}
}

// resolved checks how many messages a call resolved, and returns which.
func (s *sim) resolved(what string, h *lease, want []uint64, n int, err error) []uint64 {
	q := s.find(h.queue)
	if q == nil || q.log.Incarnation() != h.life { // it was deleted
		if n != 0 && !s.explain(err, "NOQUEUE", "NOBATCH") {
			s.fail("%s of batch %d of a queue that was deleted resolved %d messages", what, h.id, n)
		}
		return nil
	}
	if s.explain(err, "NOBATCH", "NOQUEUE") && codeOf(err) != "NOBATCH" {
		return nil
	}
	over := h.until <= s.set.store.NowMillis()
	switch {
	case h.uncertain && err != nil:
		return nil
	case len(h.left) == 0 && n != 0:
		s.fail("%s of batch %d, which is resolved: %d", what, h.id, n)
	case len(h.left) == 0:
		return nil
	case !h.uncertain && over && err == nil:
		s.fail("%s of batch %d resolved %d messages at %d; its lease ended at %d", what, h.id, n, s.set.store.NowMillis(), h.until)
	case !h.uncertain && !over && err != nil:
		s.fail("%s of batch %d: %v; its lease ends at %d, now is %d", what, h.id, err, h.until, s.set.store.NowMillis())
	case err != nil:
		return nil
	}
	if n != len(want) && !(h.uncertain && n == 0) {
		s.fail("%s of batch %d resolved %d messages of %d", what, h.id, n, len(want))
	}
	return want[:n]
}

func (s *sim) extend() {
	h := s.choose()
	if h == nil {
		return
	}
	millis := int64(1 + s.dice.IntN(3000))
	now := s.set.store.NowMillis()
	_, _, err := s.set.Extend([]byte(h.queue), h.id, millis)
	s.tracef("extend %s %d %d: %v", h.queue, h.id, millis, err)
	if s.explain(err, "NOBATCH", "NOQUEUE") {
		return
	}
	if !h.uncertain && h.until <= now {
		s.fail("batch %d is extended at %d; its lease ended at %d", h.id, now, h.until)
	}
	h.until = now + millis
}

// manage changes a queue's options, pauses it, or takes messages out.
func (s *sim) manage() {
	name := s.pick()
	var err error
	what := s.dice.IntN(5)
	switch what {
	case 0:
		pause := s.chance(3)
		_, err = s.set.Pause([]byte(name), pause, s.chance(2), s.chance(2))
	case 1:
		_, err = s.set.Configure([]byte(name), options(s.t, "batch-count", fmt.Sprint(1+s.dice.IntN(20)), "batch-fill", fmt.Sprint(s.dice.IntN(2)*200)))
	case 2:
		_, err = s.set.Pause([]byte(name), false, true, true)
	case 3:
		err = s.remove(name)
	case 4:
		err = s.purge(name)
	}
	s.tracef("manage %s %d: %v", name, what, err)
	s.explain(err, simCodes...)
}

// listed are the letters in a queue, or an error.
func (s *sim) listed(name string) ([]Found, error) {
	s.poorUntil = time.Time{} // else time could pass, and a lease end, between this and what follows
	list, _, err := peek(s.set, []byte(name), machine.Gone, 0, 1_000_000)
	s.hear() // what was over went back, and on to who waits
	return list, err
}

func (s *sim) remove(name string) error {
	list, err := s.listed(name)
	if err != nil || len(list) == 0 {
		return err
	}
	one := list[s.dice.IntN(len(list))]
	n, after, err := s.set.Remove([]byte(name), []uint64{one.ID})
	if err == nil && (n == 1) != (one.State != machine.Leased) {
		s.fail("removed %d; message %d is %v", n, one.ID, one.State)
	}
	if n == 1 {
		s.setLive(s.byBody[string(one.Body)], false, after)
	}
	return err
}

func (s *sim) purge(name string) error {
	list, err := s.listed(name)
	if err != nil {
		return err
	}
	_, after, err := s.set.Purge([]byte(name), 0)
	if err != nil {
		return err
	}
	for i := range list {
		if list[i].State != machine.Leased {
			s.setLive(s.byBody[string(list[i].Body)], false, after)
		}
	}
	return nil
}

func (s *sim) redrive() {
	if !s.hasRoom() {
		return
	}
	from := []string{gravesQueue, plainQueue + deadSuffix, passingQueue + deadSuffix}[s.dice.IntN(3)]
	var to []byte
	if s.chance(3) {
		to = []byte(plainQueue)
	}
	n, _, err := s.set.Redrive([]byte(from), to, s.dice.IntN(4))
	s.tracef("redrive %s to %q: %d, %v", from, to, n, err)
	s.explain(err, simCodes...)
}

func (s *sim) deleteQueue() {
	list, err := s.listed(passingQueue)
	if err != nil {
		s.explain(err, simCodes...)
		return
	}
	existed, after, err := s.set.Delete([]byte(passingQueue))
	s.tracef("delete %s with %d messages: %v, %v", passingQueue, len(list), existed, err)
	if s.explain(err, simCodes...) || !existed {
		return
	}
	for i := range list {
		s.setLive(s.byBody[string(list[i].Body)], false, after)
	}
	if s.chance(3) { // made again, and saved, before anybody has seen that it went
		s.pushTo(passingQueue)
		s.work()
	}
}

// finish heals everything and takes all messages out: what was promised must come, and nothing else.
func (s *sim) finish() {
	s.calm, s.haltIn = true, 0
	s.freeSpace()
	s.goOn()
	switch s.dice.IntN(3) {
	case 0:
		s.restart()
	case 1:
		s.end(true)
		s.start()
	}
	s.tracef("drain")
	for round := 0; ; round++ {
		if round == 60 {
			s.stuck()
		}
		time.Sleep(4 * time.Second)
		s.goOn()
		s.set.store.StepHeal()
		s.spaceAgain()
		for _, q := range s.queues() {
			q.sweepIfDue()
		}
		if s.commit(); s.emptied() {
			break
		}
		for _, name := range s.set.Names() {
			s.drainOne(name)
		}
	}
	for _, l := range s.letters {
		if l.live && !s.isOver(l) {
			s.fail("%.30q, pushed to %s, never came", l.body, l.queue)
		}
	}
}

func (s *sim) drainOne(name string) {
	if _, err := s.set.Pause([]byte(name), false, true, true); err != nil {
		return // its log is being healed
	}
	r := request(name, simDraining)
	r.Count, r.LeaseMillis = 50, 3000
	first := len(s.held)
	s.set.Consume(r, func(b *Batch, after *Future, err error) {
		if b != nil && err == nil {
			s.delivery(name, simDraining, r.LeaseMillis, b)
		}
	})
	s.goOn()
	s.commit()
	s.goOn()
	for _, h := range s.held[first:] {
		want := slices.Sorted(maps.Keys(h.left))
		n, after, err := s.set.Ack([]byte(h.queue), h.id, nil)
		s.acked(h, want, n, after, err)
	}
	s.commit()
}

func (s *sim) emptied() bool {
	for _, q := range s.queues() {
		if q.m.Len() > 0 {
			return false
		}
	}
	return true
}

// stuck: there are messages, and nobody gets them.
func (s *sim) stuck() {
	for _, q := range s.queues() {
		if q.m.Len() > 0 {
			info, _, err := s.set.Info([]byte(q.name))
			s.fail("queue %s keeps %d messages: %s, %v", q.name, q.m.Len(), info.BlockedReason, err)
		}
	}
}
