package queue

// The consumers' commands: taking the lock, pulling a batch, and resolving it.

import (
	"errors"

	"quail/queue/machine"
)

func nothing() {}

// Lock takes, renews or waits for the queue's consumer lock. done is called exactly once, maybe before Lock returns, maybe
// later from another goroutine; it must not block. Token 0 stands for null: the wait is over. cancel takes a waiting
// request back; done may still be called once after it, or never.
// Errors: LOCKED, NOQUEUE, QFULL, WALERR, ERR.
func (s *Set) Lock(r LockRequest, done func(token uint64, after *Future, err error)) (cancel func()) {
	if err := validConsumer(r.Consumer); err != nil {
		done(0, nil, err)
		return nothing
	}
	q, now, after, err := s.enterMade(r.Queue)
	if err != nil {
		done(0, after, err)
		return nothing
	}
	lock, held := q.m.Lock()
	w := &waiter{consumer: string(r.Consumer), ttl: r.TTLMillis, gotLock: done}
	switch {
	case held && lock.Consumer == w.consumer:
		g := machine.Grant{Consumer: w.consumer, Token: lock.Token, TTLMillis: lock.TTLMillis}
		if r.TTLMillis > 0 {
			g.TTLMillis = r.TTLMillis
		}
		q.locked = q.commit(q.m.DecideGrant(now, g))
		after := q.locked
		q.leave()
		done(lock.Token, after, nil)
		return nothing
	case held && !s.mayWait(r.Block):
		refusal, after := q.lockedBy(lock, now), q.last
		q.leave()
		done(0, after, refusal)
		return nothing
	}
	return q.enqueue(now, w, r.Block, r.BlockMillis)
}

// enterMade is enter for a queue that is made if it is missing, also if it is deleted just now. Without an error it is locked.
func (s *Set) enterMade(name []byte) (q *queue, now machine.Time, after *Future, err error) {
	for {
		if q, err = s.make(name); err != nil {
			return nil, now, nil, err
		}
		if now, err = q.enter(); err == nil {
			return q, now, nil, nil
		}
		after, gone := q.last, q.deleted && !q.stale
		q.mu.Unlock()
		if !gone {
			return nil, now, after, err
		}
	}
}

func (s *Set) mayWait(block bool) bool { return block && !s.stopping.Load() }

// enqueue puts w in line for at most blockMillis and lets go of the queue.
func (q *queue) enqueue(now machine.Time, w *waiter, block bool, blockMillis int64) (cancel func()) {
	w.waits = q.set.mayWait(block)
	if blockMillis > 0 {
		w.deadline = now.ClockMillis + blockMillis
	}
	cancel, answer := q.join(now, w)
	q.mu.Unlock()
	answer.run()
	return cancel
}

func (q *queue) pausedError(doing string) *Error {
	return refuse("PAUSED", "%s queue %q is paused; resume it with QRESUME %s", doing, q.name, word(q.name))
}

// lockedBy says who is in the way, and for how long.
func (q *queue) lockedBy(lock machine.LockState, now machine.Time) *Error {
	left := max(lock.DeadlineMillis-now.ClockMillis, 0)
	if q.holderWaits(lock.Consumer) {
		return refuse("LOCKED", "consumer %q holds queue %q and waits for messages; wait in line with BLOCK", lock.Consumer, q.name)
	}
	return refuse("LOCKED", "consumer %q holds queue %q for another %d ms; wait in line with BLOCK", lock.Consumer, q.name, left)
}

func (q *queue) wrongToken(token uint64, lock machine.LockState, held bool, now machine.Time) *Error {
	switch {
	case !held:
		return refuse("WRONGTOKEN", "the tenure with token %d of queue %q is over and nobody holds the lock; take it again with QLOCK", token, q.name)
	case lock.Token == token:
		return refuse("WRONGTOKEN", "token %d of queue %q belongs to consumer %q; pull under that name", token, q.name, lock.Consumer)
	}
	return refuse("WRONGTOKEN", "the tenure with token %d of queue %q is over, consumer %q holds the lock for another %d ms; stop working on what you pulled under it",
		token, q.name, lock.Consumer, max(lock.DeadlineMillis-now.ClockMillis, 0))
}

// Unlock ends a tenure: its open batches go back at once and do not count as failed. released is false if that token no
// longer holds. Errors: NOQUEUE, WALERR.
func (s *Set) Unlock(name []byte, token uint64) (released bool, after *Future, err error) {
	q, after, err := s.need(name)
	if err != nil {
		return false, after, err
	}
	now, err := q.enterToSettle()
	defer q.leave()
	if err != nil {
		return false, q.last, err
	}
	lock, held := q.m.Lock()
	if !held || lock.Token != token {
		return false, q.last, nil
	}
	q.endTenure(now, false)
	return true, q.last, nil
}

// Consume pulls one batch, or waits for it. done is called exactly once, maybe before Consume returns, maybe later from
// another goroutine; it must not block. A nil batch without an error stands for null. cancel takes a waiting request back;
// done may still be called once after it, or never.
// Errors: LOCKED, WRONGTOKEN, NOQUEUE, QFULL, WALERR, ERR.
func (s *Set) Consume(r ConsumeRequest, done func(b *Batch, after *Future, err error)) (cancel func()) {
	if err := validConsumer(r.Consumer); err != nil {
		done(nil, nil, err)
		return nothing
	}
	q, now, after, err := s.enterMade(r.Queue)
	if err != nil {
		done(nil, after, err)
		return nothing
	}
	w := &waiter{consumer: string(r.Consumer), pull: &r, gotBatch: done}
	if _, paused := q.m.Paused(); paused && !s.mayWait(r.Block) {
		refusal, after := q.pausedError("consuming from"), q.last
		q.leave()
		done(nil, after, refusal)
		return nothing
	}
	if lock, held := q.m.Lock(); held && lock.Consumer != w.consumer && !r.HasToken && !s.mayWait(r.Block) {
		refusal, after := q.lockedBy(lock, now), q.last
		q.leave()
		done(nil, after, refusal)
		return nothing
	}
	return q.enqueue(now, w, r.Block, r.BlockMillis)
}

// Return gives a batch back whose client went away before it was sent. That is no failed attempt.
func (s *Set) Return(name []byte, batch uint64) {
	// An error means that the batch is not open any more: then nothing is left to give back.
	s.Nack(name, batch, machine.Release, 0, nil)
}

// Ack acknowledges these messages of a batch, or all that are unresolved if ids is nil, and returns how many it was.
// 0 for a batch that its holder resolved already. Errors: NOBATCH, NOQUEUE, WALERR, ERR for an id that was never in the batch.
func (s *Set) Ack(name []byte, batch uint64, ids []uint64) (n int, after *Future, err error) {
	return s.settle(name, batch, func(q *queue, now machine.Time) (int, machine.Effect, bool, error) {
		return q.m.DecideAck(now, batch, ids)
	})
}

// Nack gives messages of a batch back: as a failed attempt after delayMillis (-1: as the queue's options say), or as if
// they had not been delivered. It returns how many went back. Errors: as Ack.
func (s *Set) Nack(name []byte, batch uint64, mode machine.NackMode, delayMillis int64, ids []uint64) (n int, after *Future, err error) {
	q, after, err := s.need(name)
	if err != nil {
		return 0, after, err
	}
	reason := machine.MoveAttempts
	if mode == machine.Dead {
		reason = machine.MoveRefused
	}
	after, err = q.settleMoving(func(now machine.Time, p machine.RetryPolicy) (e machine.Effect, changed bool, err error) {
		if n, e, changed, err = q.m.DecideNack(now, batch, ids, mode, delayMillis, p); err != nil {
			return e, false, q.batchError(batch, err)
		}
		return e, changed, nil
	}, reason)
	if err != nil {
		n = 0
	}
	return n, after, err
}

func (s *Set) settle(name []byte, batch uint64, decide func(*queue, machine.Time) (int, machine.Effect, bool, error)) (int, *Future, error) {
	q, after, err := s.need(name)
	if err != nil {
		return 0, after, err
	}
	now, err := q.enterToSettle()
	defer q.leave()
	if err != nil {
		return 0, q.last, err
	}
	n, e, changed, err := decide(q, now)
	if err != nil {
		return 0, q.last, q.batchError(batch, err)
	}
	if changed {
		q.commitShared(e)
	} else {
		q.m.RenewVolatile(now.ClockMillis + q.tenureTTL()) // only the holder knows the number of a batch that it resolved
	}
	return n, q.last, nil
}

// Extend lets the batch's lease end millis from now and returns that moment as unix milliseconds.
// Errors: NOBATCH, NOQUEUE, WALERR.
func (s *Set) Extend(name []byte, batch uint64, millis int64) (deadlineUnixMillis int64, after *Future, err error) {
	q, after, err := s.need(name)
	if err != nil {
		return 0, after, err
	}
	now, err := q.enterToSettle()
	defer q.leave()
	if err != nil {
		return 0, q.last, err
	}
	deadline, e, err := q.m.DecideExtend(now, batch, millis)
	if err != nil {
		return 0, q.last, q.batchError(batch, err)
	}
	q.commit(e)
	return now.WallMillis + deadline - now.ClockMillis, q.last, nil
}

// batchError words the machine's refusal for the client.
func (q *queue) batchError(batch uint64, err error) *Error {
	var gone *machine.BatchError
	if errors.As(err, &gone) {
		return refuse("NOBATCH", "%v (queue %q)", gone, q.name)
	}
	return refuse("ERR", "%v, queue %q; nothing was changed", err, q.name)
}
