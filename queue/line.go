package queue

// The line: consumers that wait, for the lock or for messages, in the order of their arrival. Whatever may let one of them go
// on (records that became durable, a resolved batch, a released lock, a timer, a finished read) serves the whole line once.

import (
	"slices"
	"time"

	"quail/queue/machine"
)

// waiter is one QLOCK or QCONSUME that has no answer yet.
type waiter struct {
	consumer string
	ttl      int64 // of the lock it would take; 0: the queue's lock-ttl
	// waits: the client gave BLOCK. deadline is when that ends, on the server clock; 0 is never.
	waits    bool
	deadline int64
	// fillUntil is until when a batch that is not full is held open; 0 if none is.
	fillUntil int64
	// fillMost is the latest that can be, counted from when there was first something to hold open; 0 if there is nothing.
	fillMost int64
	// settle is the LSN that must be durable before "nothing" is an answer; 0 until the answer would be that.
	settle uint64

	pull     *ConsumeRequest // nil for QLOCK
	gotBatch func(*Batch, *Future, error)
	gotLock  func(uint64, *Future, error)
}

func (w *waiter) expired(now machine.Time) bool {
	return !w.waits || w.deadline != 0 && now.ClockMillis >= w.deadline
}

// answers are calls to clients, made after the queue's lock is let go.
type answers []func()

func (a answers) run() {
	for _, f := range a {
		f()
	}
}

func (w *waiter) null(after *Future) func() {
	if w.pull != nil {
		return func() { w.gotBatch(nil, after, nil) }
	}
	return func() { w.gotLock(0, after, nil) }
}

func (w *waiter) refuse(err error, after *Future) func() {
	if w.pull != nil {
		return func() { w.gotBatch(nil, after, err) }
	}
	return func() { w.gotLock(0, after, err) }
}

// join puts w in line, serves it at once if that is possible, and returns how to take it out again.
func (q *queue) join(now machine.Time, w *waiter) (cancel func(), done answers) {
	q.line = append(q.line, w)
	pending := !q.last.Done()
	done = q.serveLine(now)
	if pending && len(q.line) > 0 {
		q.await(q.last) // what was committed when nobody waited has nobody else who tells of it
	}
	return func() { q.quit(w) }, done
}

// quit takes w out of line: its client is gone. The lock may lapse now that its holder does not wait any more.
func (q *queue) quit(w *waiter) {
	q.mu.Lock()
	i := slices.Index(q.line, w)
	if i >= 0 {
		q.line = slices.Delete(q.line, i, i+1)
	}
	q.mu.Unlock()
	if i >= 0 {
		q.serve()
	}
}

// holderWaits reports whether a pull of that consumer is in line. Called with mu held.
func (q *queue) holderWaits(consumer string) bool {
	return slices.ContainsFunc(q.line, func(w *waiter) bool { return w.pull != nil && w.consumer == consumer })
}

// emptyLine answers everybody: with err, or with null if it is nil. Called with mu held.
func (q *queue) emptyLine(err *Error) answers {
	var done answers
	for _, w := range q.line {
		if err == nil {
			done = append(done, w.null(q.last))
		} else {
			done = append(done, w.refuse(err, q.last))
		}
	}
	q.line = nil
	q.stopTimer()
	return done
}

// serveLine gives each waiter what it can have now, and arms the timer for the rest. Called with mu held.
func (q *queue) serveLine(now machine.Time) answers {
	var done answers
	stay := q.line[:0]
	for _, w := range q.line {
		if answer := q.attend(now, w); answer != nil {
			done = append(done, answer)
		} else {
			stay = append(stay, w)
		}
	}
	clear(q.line[len(stay):])
	q.line = stay
	q.arm(now)
	return done
}

// attend returns w's answer, or nil if it must wait.
func (q *queue) attend(now machine.Time, w *waiter) func() {
	lock, held := q.m.Lock()
	if w.pull != nil && w.pull.HasToken && (!held || lock.Token != w.pull.Token || lock.Consumer != w.consumer) {
		return w.refuse(q.wrongToken(w.pull.Token, lock, held, now), q.last)
	}
	if held && lock.Consumer != w.consumer {
		switch {
		case !w.waits: // it lost the lock while it waited for the disk: null would say that nothing is there
			return w.refuse(q.lockedBy(lock, now), q.last)
		case w.expired(now):
			return w.null(q.last)
		}
		return nil
	}
	if !held {
		if err := q.grant(now, w); err != nil {
			return w.refuse(walError(err), q.last)
		}
		lock, _ = q.m.Lock()
	}
	if w.pull == nil {
		token, after := lock.Token, q.locked
		return func() { w.gotLock(token, after, nil) }
	}
	return q.deliver(now, w)
}

// grant gives the free lock to w.
func (q *queue) grant(now machine.Time, w *waiter) error {
	g, err := q.grantFor(w)
	if err != nil {
		return err
	}
	q.locked = q.commit(q.m.DecideGrant(now, *g))
	return nil
}

func (q *queue) grantFor(w *waiter) (*machine.Grant, error) {
	token, err := q.store.NextID()
	if err != nil {
		return nil, err
	}
	ttl := w.ttl
	if ttl == 0 {
		ttl = q.option(machine.LockTTL)
	}
	return &machine.Grant{Consumer: w.consumer, Token: token, TTLMillis: ttl}, nil
}

// endTenure takes the lock from its holder and hands it to the first in line, in one record, so that nobody comes between.
// A waiter that insists on an old token can take no lock.
func (q *queue) endTenure(now machine.Time, lapsed bool) {
	var next *machine.Grant
	for _, w := range q.line {
		if w.pull == nil || !w.pull.HasToken {
			next, _ = q.grantFor(w) // without an id the lock is free, and the next event tries again
			break
		}
	}
	f := q.commit(q.m.DecideUnlock(now, next, lapsed))
	if next != nil {
		q.locked = f
	}
}

// deliver answers a pull by the holder of the lock, or returns nil if it must wait.
func (q *queue) deliver(now machine.Time, w *waiter) func() {
	q.m.RenewVolatile(now.ClockMillis + q.tenureTTL())
	w.fillUntil = 0
	if _, paused := q.m.Paused(); !paused && int64(q.m.Counts().OpenBatches) < q.option(machine.MaxOpenBatches) {
		g := q.gather(now, w)
		defer g.free()
		switch {
		case g.err != nil && len(g.picks) == 0:
			return w.refuse(refuse("WALERR", "queue %q: %v; the queue cannot go on, see the server's log", q.name, g.err), q.last)
		case g.reading:
			return nil
		case len(g.picks) > 0 && q.mayGo(now, w, &g):
			return q.lease(now, w, &g)
		case len(g.picks) > 0:
			return nil
		}
	}
	w.fillMost = 0
	if !w.expired(now) {
		return nil
	}
	if w.settle == 0 {
		w.settle = q.log.Last()
	}
	if q.log.Durable() < w.settle {
		q.await(q.last)
		return nil
	}
	return w.null(q.last)
}

// tenureTTL is the TTL that the present tenure was granted with.
func (q *queue) tenureTTL() int64 {
	lock, _ := q.m.Lock()
	return lock.TTLMillis
}

// mayGo reports whether the batch goes now: it is full, its oldest message has waited for FILL, or BLOCK has ended.
func (q *queue) mayGo(now machine.Time, w *waiter, g *gathered) bool {
	fill := w.pull.FillMillis
	if fill < 0 {
		fill = q.option(machine.BatchFill)
	}
	if fill == 0 || g.full || g.hasReturned || w.waits && w.expired(now) || q.set.stopping.Load() {
		return true
	}
	if w.fillMost == 0 {
		w.fillMost = now.ClockMillis + fill
	}
	// The age of a message is in wall time, which stands still after the clock was set back; so the server clock bounds the wait.
	left := min(g.oldestPushed+fill-now.WallMillis, w.fillMost-now.ClockMillis)
	if left <= 0 {
		return true
	}
	w.fillUntil = now.ClockMillis + left
	return false
}

// arm sets the queue's one timer to the next moment that anybody in line waits for. Called with mu held.
func (q *queue) arm(now machine.Time) {
	if len(q.line) == 0 {
		q.armAlone()
		return
	}
	next := int64(0)
	sooner := func(at int64) {
		if at != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	for _, w := range q.line {
		sooner(w.fillUntil)
		if w.waits && w.settle == 0 {
			sooner(w.deadline)
		}
	}
	if at, ok := q.m.NextDeadline(); ok && !q.burying {
		lock, held := q.m.Lock()
		// A lock whose holder waits does not lapse, but its batches expire all the same, also when they outlive the lock.
		if !held || q.m.Counts().OpenBatches > 0 || !q.holderWaits(lock.Consumer) {
			sooner(max(at, q.buryAfter))
		}
	}
	sooner(q.nextDue(now))
	if next == 0 {
		q.stopTimer()
		return
	}
	if next == q.timerAt {
		return
	}
	q.setTimer(next, now.ClockMillis)
}

// armAlone arms the timer when nobody waits in line. Then only the end of a lease matters, and it because messages whose attempts
// are used up belong into the dead-letter queue, where somebody may wait for them. A timer that is armed for an earlier moment stays: that
// it rings once for nothing costs less than setting it with each batch. Called with mu held.
func (q *queue) armAlone() {
	if q.burying || q.m.Counts().OpenBatches == 0 || q.option(machine.MaxAttempts) == 0 || q.set.stopping.Load() {
		return
	}
	if at, _ := q.m.NextDeadline(); q.timerAt == 0 || at < q.timerAt {
		q.setTimer(max(at, q.buryAfter), q.store.NowMillis())
	}
}

// setTimer lets the timer ring at this time of the server clock. Called with mu held.
func (q *queue) setTimer(next, clockMillis int64) {
	wait := time.Duration(max(next-clockMillis, 1)) * time.Millisecond
	q.timerAt = next
	if q.timer == nil {
		ring := q.ring // on the timer's own goroutine
		if q.set.cfg.Background != nil {
			ring = func() { q.set.inBackground("ring", q.log.Incarnation(), q.ring) }
		}
		q.timer = time.AfterFunc(wait, ring)
	} else {
		q.timer.Reset(wait)
	}
}

// nextDue is when the next message comes due that somebody could wait for, 0 if none does. What is due already needs no
// timer: it waits for another event, such as a resolved batch, and a timer in the past would only spin.
func (q *queue) nextDue(now machine.Time) int64 {
	at, ok := q.m.NextDueWall()
	if ok && at <= now.WallMillis {
		ok = false
		if q.option(machine.MaxOpenBatches) == 1 {
			at, ok = q.m.NextRetryWall()
		}
	}
	if !ok || at <= now.WallMillis {
		return 0
	}
	return now.ClockMillis + at - now.WallMillis
}

func (q *queue) ring() {
	q.mu.Lock()
	q.timerAt = 0
	q.mu.Unlock()
	q.serve()
}

func (q *queue) stopTimer() {
	if q.timer != nil {
		q.timer.Stop()
	}
	q.timerAt = 0
}
