package queue

// Moving messages from one queue to another: to the dead-letter queue when their attempts are used up or a consumer refuses
// them, and back with QREDRIVE. Both queues are locked and their records are one atomic group, so a crash neither loses nor
// doubles a message. The bodies may have to be read from the log first, which is never done under a lock: so a move
// decides, lets go, reads, locks both queues, and decides again.

import (
	"cmp"
	"slices"
	"strconv"
	"unicode/utf8"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/record"
)

const (
	// moveTriesMax bounds how often a move starts again because the queue changed while it read.
	moveTriesMax = 100
	// buryRetryMillis is how long a move to the dead-letter queue that could not be made waits before it is tried again: its reason,
	// such as max-queues, stays for a while.
	buryRetryMillis = 1000
	// redriveStep is how many messages are moved in one group.
	redriveStep = 100
	// deadSuffix makes the name of a dead-letter queue that no option names.
	deadSuffix = ".dead"
)

// Headers that a consumer of a dead-letter queue finds on a message, behind those of its producer.
const (
	headerOrigin         = "quail-origin-"
	headerOriginQueue    = headerOrigin + "queue"
	headerOriginID       = headerOrigin + "id"
	headerOriginAttempts = headerOrigin + "attempts"
	headerOriginReason   = headerOrigin + "reason"
)

// headersOf is what a consumer sees of a message's headers.
func headersOf(m *machine.Message) [][2][]byte {
	if m.Origin.ID == 0 || m.Origin.Reason == machine.MoveRedrive {
		return m.Headers
	}
	reason := "max-attempts"
	if m.Origin.Reason == machine.MoveRefused {
		reason = "refused"
	}
	return append(slices.Clip(m.Headers),
		[2][]byte{[]byte(headerOriginQueue), m.Origin.Queue},
		[2][]byte{[]byte(headerOriginID), strconv.AppendUint(nil, m.Origin.ID, 10)},
		[2][]byte{[]byte(headerOriginAttempts), strconv.AppendUint(nil, uint64(m.Origin.Attempts), 10)},
		[2][]byte{[]byte(headerOriginReason), []byte(reason)})
}

// deadName is the name of this queue's dead-letter queue. Called with mu held.
func (q *queue) deadName() string {
	if name := q.m.Options().Value(machine.DeadLetterQueue, q.set.cfg.Defaults()); name != "" && name != q.name {
		return name
	}
	return deadNameOf(q.name)
}

// deadNameOf appends deadSuffix, to a shortened name if need be: one of whole characters, and never so that the name stays.
func deadNameOf(name string) string {
	dead := name + deadSuffix
	for most := nameBytesMax - len(deadSuffix); len(dead) > nameBytesMax || dead == name; most-- {
		if utf8.RuneStart(name[most]) {
			dead = name[:most] + deadSuffix
		}
	}
	return dead
}

// lockBoth locks two queues in the order of their incarnations, so that two moves in opposite directions cannot wait for each
// other.
func lockBoth(a, b *queue) {
	if a.log.Incarnation() > b.log.Incarnation() {
		a, b = b, a
	}
	a.mu.Lock()
	b.mu.Lock()
}

// decision is made with the queue's lock held, and may be made again. The policy knows which messages are not to be moved since
// their TTL is over.
type decision func(now machine.Time, p machine.RetryPolicy) (e machine.Effect, changed bool, err error)

// plan is what a decision comes to.
type plan struct {
	effect  machine.Effect
	changed bool
	dead    []uint64 // to be moved
	missing []uint64 // of those: records that must be read first
}

// decide makes a decision, again until no message is moved whose TTL is over: that is found out only from its record. bodies are
// the records that were read; those in memory are added. Called with mu held.
func (q *queue) decide(now machine.Time, decide decision, bodies map[uint64][]byte) (plan, error) {
	policy := q.retryPolicy()
	for {
		e, changed, err := decide(now, policy)
		if err != nil || !changed {
			return plan{}, err
		}
		p := plan{effect: e, changed: true, dead: q.m.Dead(e, nil)}
		p.missing = q.collect(p.dead, bodies)
		over := len(policy.Expired)
		for _, id := range p.dead {
			if raw := bodies[id]; raw != nil && isOver(now, raw) {
				policy.Expired = append(policy.Expired, id)
			}
		}
		if len(policy.Expired) == over {
			return p, nil
		}
		slices.Sort(policy.Expired)
	}
}

// isOver reports whether the message's TTL is over. One that cannot be read is found out where it is moved.
func isOver(now machine.Time, raw []byte) bool {
	m, err := machine.ParseMessage(record.View(raw).Meta)
	return err == nil && m.IsOver(now)
}

// settleMoving carries out a decision that may send messages to the dead-letter queue. It may read the log.
func (q *queue) settleMoving(decide decision, reason machine.MoveReason) (after *Future, err error) {
	bodies := map[uint64][]byte{}
	for range moveTriesMax {
		now, err := q.enterToSettle()
		if err != nil {
			after := q.last
			q.leave()
			return after, err
		}
		p, err := q.decide(now, decide, bodies)
		if err != nil || !p.changed {
			after := q.last
			q.leave()
			return after, err
		}
		if len(p.dead) == 0 {
			after := q.commit(p.effect)
			q.leave()
			return after, nil
		}
		name := q.deadName()
		q.leave()
		if err := q.read(p.missing, bodies); err != nil {
			return nil, err
		}
		target, err := q.set.deadQueue(name)
		if err != nil {
			return nil, err
		}
		if after, done, err := q.moveDead(target, decide, reason, bodies); done || err != nil {
			return after, err
		}
	}
	return nil, refuse("ERR", "queue %q changed too often while its messages were moved; retry", q.name)
}

// collect puts the records that are in memory into bodies and returns the ids of the others. Called with mu held.
func (q *queue) collect(ids []uint64, bodies map[uint64][]byte) (missing []uint64) {
	for _, id := range ids {
		if bodies[id] != nil {
			continue
		}
		if raw := q.byID(id); raw != nil {
			bodies[id] = raw
		} else {
			missing = append(missing, id)
		}
	}
	return missing
}

// read fetches records from the log. Called without a lock.
func (q *queue) read(ids []uint64, bodies map[uint64][]byte) error {
	for _, id := range ids {
		raw, err := q.readOne(id)
		if err != nil {
			return err
		}
		if raw != nil { // else it was resolved meanwhile, and the decision is made anew without it
			bodies[id] = raw
		}
	}
	return nil
}

// deadQueue returns the queue to move to, and makes it if need be, whatever auto-create says.
func (s *Set) deadQueue(name string) (*queue, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	full := s.store.Full()
	s.mu.RUnlock()
	if full != nil { // a move writes the bodies again: it takes the space that acknowledgements need
		return nil, roomError(full)
	}
	q, _, err := s.create([]byte(name), machine.Options{})
	return q, err
}

// moveDead decides again with both queues locked. done is false if something is missing that must be read first.
func (q *queue) moveDead(target *queue, decide decision, reason machine.MoveReason, bodies map[uint64][]byte) (after *Future, done bool, err error) {
	lockBoth(q, target)
	defer target.leave()
	defer q.leave()
	if err := q.refusal(); err != nil {
		return q.last, true, err
	}
	if target.deleted {
		return nil, false, nil
	}
	if err := target.refusal(); err != nil {
		return q.last, true, err
	}
	p, err := q.decide(q.now(), decide, bodies)
	if err != nil || !p.changed {
		return q.last, true, err
	}
	if len(p.missing) > 0 {
		return nil, false, nil
	}
	if len(p.dead) == 0 { // their TTL has ended meanwhile
		return q.commit(p.effect), true, nil
	}
	moved := make([]moving, 0, len(p.dead))
	for _, id := range p.dead {
		_, attempts := q.m.StateOf(id)
		moved = append(moved, moving{raw: bodies[id], attempts: attempts})
	}
	return q.commitMove(target, p.effect, moved, reason), true, nil
}

// moving is one message on its way.
type moving struct {
	raw      []byte
	attempts uint32
}

// commitMove applies e to q, pushes the messages to target, and commits both as one group. Both are locked.
func (q *queue) commitMove(target *queue, e machine.Effect, list []moving, reason machine.MoveReason) *Future {
	taken := []record.Record{q.apply(e, nil)}
	pushed := make([]record.Record, 0, len(list))
	for _, m := range list {
		view := record.View(m.raw)
		msg, err := machine.ParseMessage(view.Meta)
		if err != nil {
			panic("queue " + q.name + " has a message that was checked and cannot be read: " + err.Error())
		}
		moved := machine.Message{PushedMillis: msg.PushedMillis, Headers: msg.Headers, Origin: machine.Origin{
			Incarnation: q.log.Incarnation(), ID: view.LSN, Attempts: m.attempts, Reason: reason, Queue: []byte(q.name)}}
		pushed = append(pushed, target.apply(machine.Effect{Kind: machine.KindMessage, Meta: machine.MessageMeta(nil, moved)}, view.Body))
	}
	f := q.store.CommitAll(wal.Part{Log: q.log, Records: taken}, wal.Part{Log: target.log, Records: pushed})
	q.last, target.last = f, f
	if len(q.line) > 0 {
		q.await(f)
	}
	if len(target.line) > 0 {
		target.await(f)
	}
	return f
}

// bury expires batches whose messages have used up their attempts, in the background: their bodies may have to be read.
// Called with mu held.
func (q *queue) bury(now machine.Time) {
	if q.burying || now.ClockMillis < q.buryAfter {
		return
	}
	q.burying = true
	q.set.inBackground("bury", q.log.Incarnation(), func() {
		_, err := q.settleMoving(func(now machine.Time, p machine.RetryPolicy) (machine.Effect, bool, error) {
			e, changed := q.m.DecideExpire(now, p)
			return e, changed, nil
		}, machine.MoveAttempts)
		q.mu.Lock()
		q.burying, q.buryFailed = false, err
		if err != nil {
			q.buryAfter = q.store.NowMillis() + buryRetryMillis
		}
		q.mu.Unlock()
		q.serve()
	})
}

// Redrive moves up to most messages (0: all) of a dead-letter queue back to where they came from, or to the queue `to`, with no
// failed attempts, and returns how many. Leased ones stay. Errors: NOQUEUE, PAUSED, QFULL, WALERR, ERR.
func (s *Set) Redrive(name, to []byte, most int) (n int, after *Future, err error) {
	q, after, err := s.need(name)
	if err != nil {
		return 0, after, err
	}
	if to != nil {
		if err := ValidName(to); err != nil {
			return 0, nil, err
		}
		if string(to) == q.name {
			return 0, nil, refuse("ERR", "queue %q cannot be redriven to itself; name another with TO", q.name)
		}
	}
	next := uint64(0)
	for most == 0 || n < most {
		step := redriveStep
		if most > 0 {
			step = min(step, most-n)
		}
		var list []seen
		list, next, err = q.look(wanted{from: next, most: step, choose: func(s *seen) bool {
			return s.state != machine.Leased && (to != nil || s.isDeadLetter())
		}}, new(lent)) // not lent again: what is moved goes on in a commit
		if err != nil {
			return n, cmp.Or(after, q.newest()), err
		}
		moved, f, err := q.redriveStep(list, to)
		if f != nil {
			after = f // a later group is durable only if all earlier ones are
		}
		n += moved
		if err != nil || next == 0 {
			return n, cmp.Or(after, q.newest()), err
		}
	}
	return n, after, nil
}

// isDeadLetter: it was moved here because it failed or was refused, and not back by QREDRIVE.
func (s *seen) isDeadLetter() bool {
	return s.message.Origin.ID != 0 && s.message.Origin.Reason != machine.MoveRedrive
}

// redriveStep moves these messages, those of one origin together.
func (q *queue) redriveStep(list []seen, to []byte) (n int, after *Future, err error) {
	for len(list) > 0 {
		name := to
		if name == nil {
			name = list[0].message.Origin.Queue
		}
		k := 1
		for k < len(list) && (to != nil || string(list[k].message.Origin.Queue) == string(name)) {
			k++
		}
		target, err := q.set.make(name)
		if err != nil {
			return n, after, err
		}
		if err := q.store.WaitRoom(); err != nil {
			return n, after, roomError(err)
		}
		moved, f, err := q.redriveTo(target, list[:k])
		if f != nil {
			after = f
		}
		n += moved
		if err != nil {
			return n, after, err
		}
		list = list[k:]
	}
	return n, after, nil
}

// statesOf tells where these messages, with rising ids, are by now. It looks at every waiting message once. Called with mu held.
func (q *queue) statesOf(list []seen) []machine.State {
	ids := make([]uint64, len(list))
	for i := range list {
		ids[i] = record.View(list[i].raw).LSN
	}
	states := make([]machine.State, len(list))
	q.m.Tracked(ids[0], ids[len(ids)-1], func(id uint64, s machine.State, _ uint32) {
		if i, found := slices.BinarySearch(ids, id); found {
			states[i] = s
		}
	})
	cursor := q.m.Cursor()
	for i, id := range ids {
		view := record.View(list[i].raw)
		if states[i] == machine.Gone && id > cursor && !q.m.Removed(id) && !machine.IsDelayed(view.Flags, view.Meta) {
			states[i] = machine.Ready
		}
	}
	return states
}

// redriveTo moves as many of these as the target takes; the error says why not all.
func (q *queue) redriveTo(target *queue, list []seen) (int, *Future, error) {
	lockBoth(q, target)
	defer target.leave()
	defer q.leave()
	if err := cmp.Or(q.refusal(), target.refusal()); err != nil {
		return 0, q.last, err
	}
	states := q.statesOf(list)
	var removals []machine.Removal
	var moved []moving
	for i, s := range list {
		if states[i] == machine.Gone || states[i] == machine.Leased {
			continue
		}
		removals = append(removals, removalOf(s.raw))
		moved = append(moved, moving{raw: s.raw})
	}
	fit, full := target.fits(moved)
	if fit == 0 {
		return 0, q.last, full
	}
	removals, moved = removals[:fit], moved[:fit]
	n, e, _, err := q.m.DecideMove(removals, machine.MoveRedrive, target.log.Incarnation())
	if err != nil {
		return 0, q.last, refuse("ERR", "%v", err)
	}
	if n != len(moved) {
		panic("queue " + q.name + " moves other messages than it chose")
	}
	return n, q.commitMove(target, e, moved, machine.MoveRedrive), full
}

// fits says how many of these messages, the first ones, the queue has room for, and why not for all. A dead letter has nowhere else to go and is
// always taken; what is redriven may stay where it is, so to its target it is a push. Called with mu held.
func (q *queue) fits(list []moving) (n int, err error) {
	if paused, _ := q.m.Paused(); paused && len(list) > 0 {
		return 0, q.pausedError("redriving to")
	}
	counts := q.m.Counts()
	messages, bytes := counts.Total(), counts.TotalBytes()
	maxMessages, maxBytes := q.option(machine.MaxMessages), q.option(machine.MaxBytes)
	for ; n < len(list); n++ {
		size := int64(len(record.View(list[n].raw).Body))
		if maxMessages > 0 && messages+1 > maxMessages {
			return n, refuse("QFULL", "queue %q holds %d messages, max-messages is %d; consume some and redrive the rest", q.name, messages, maxMessages)
		}
		if maxBytes > 0 && bytes+size > maxBytes {
			return n, refuse("QFULL", "queue %q holds %d bytes, max-bytes is %d; consume some and redrive the rest", q.name, bytes, maxBytes)
		}
		messages, bytes = messages+1, bytes+size
	}
	return n, nil
}
