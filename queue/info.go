package queue

// What QINFO tells: numbers, and one sentence for the person who wants to know at night why a queue does not move.

import (
	"fmt"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/record"
)

// oldestScanRecords bounds how far the log is read to find the oldest ready message.
const oldestScanRecords = 4096

// Len is the number of messages that are not acknowledged yet, in any state; 0 for a queue that does not exist.
// Errors: WALERR, ERR.
func (s *Set) Len(name []byte) (int64, *Future, error) {
	if err := s.usable(); err != nil {
		return 0, nil, err
	}
	q := s.find(name)
	if q == nil {
		return 0, s.names.Load(), ValidName(name)
	}
	if err := q.ready(); err != nil {
		return 0, nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.m.Counts().Total(), q.last, nil
}

// Info tells everything about one queue. It may read the log to find the oldest message's age.
// Errors: NOQUEUE, WALERR.
func (s *Set) Info(name []byte) (*Info, *Future, error) {
	q, after, err := s.need(name)
	if err != nil {
		return nil, after, err
	}
	now, err := q.enter()
	if err != nil && q.deleted {
		q.mu.Unlock()
		return nil, nil, err
	}
	if now.WallMillis == 0 { // a failed log: QINFO tells that as the reason, instead of being refused
		now = q.now()
	}
	info, after := q.info(now), q.last
	first, durable := q.m.FirstNeeded(), q.log.Durable()
	ready := info.Counts.Total() > 0
	q.leave()
	if ready {
		info.FirstID, info.OldestAgeMillis = q.oldest(first, durable, now)
	}
	stats := q.log.Stats()
	info.Segments, info.LogBytes = stats.Segments, stats.Bytes
	return info, after, nil
}

func (q *queue) info(now machine.Time) *Info {
	i := &Info{Name: q.name, Incarnation: q.log.Incarnation(), CreatedMillis: q.m.CreatedMillis(), Counts: q.m.Counts(),
		NextID: q.m.LastLSN() + 1, Cursor: q.m.Cursor(), Waiting: len(q.line)}
	i.LiveBytes = i.Counts.TotalBytes()
	if lock, held := q.m.Lock(); held {
		i.Holder, i.Token = lock.Consumer, lock.Token
		i.LockMillisLeft = max(lock.DeadlineMillis-now.ClockMillis, 0)
	}
	i.Batches = q.m.Batches(nil)
	i.PushPaused, i.ConsumePaused = q.m.Paused()
	i.BlockedReason = q.blockedReason(now, i)
	return i
}

// blockedReason is the answer to "why would a pull get nothing now?", empty if it would get something.
func (q *queue) blockedReason(now machine.Time, i *Info) string {
	c := &i.Counts
	if err := q.log.Err(); err != nil {
		if wal.Damaged(err) {
			return fmt.Sprintf("the queue is stopped because its log is damaged (%v); see \"Damage\" in docs/operations.md", err)
		}
		return fmt.Sprintf("the queue is stopped because its log failed (%v); see the server's log, it goes on by itself when the disk is well", err)
	}
	if _, paused := q.m.Paused(); paused {
		return "consuming is paused; resume it with QRESUME " + word(q.name)
	}
	if q.buryFailed != nil {
		return fmt.Sprintf("messages have used up their attempts and cannot be moved to the dead-letter queue %s: %v; it is tried again each second", q.deadName(), q.buryFailed)
	}
	if c.Total() == 0 {
		if push, _ := q.m.Paused(); push {
			return fmt.Sprintf("the queue is empty and pushing is paused; resume it with QRESUME %s PUSH", word(q.name))
		}
		return "the queue is empty; push a message"
	}
	if c.OpenBatches > 0 && int64(c.OpenBatches) >= q.option(machine.MaxOpenBatches) {
		open := "1 batch is"
		if c.OpenBatches > 1 {
			open = fmt.Sprintf("%d batches are", c.OpenBatches)
		}
		return fmt.Sprintf("%s open, as many as max-open-batches allows; wait for consumer %q to acknowledge, %s", open, i.Holder, q.leaseAdvice(now, i))
	}
	if due, ok := q.m.NextRetryWall(); ok && due > now.WallMillis && q.option(machine.MaxOpenBatches) == 1 {
		return fmt.Sprintf("the order is strict (max-open-batches 1) and a failed message is retried in %d ms; wait for it", due-now.WallMillis)
	}
	if c.Ready == 0 {
		if reason := q.notReadyReason(now, i); reason != "" {
			return reason
		}
	}
	if i.Holder != "" {
		return fmt.Sprintf("consumer %q holds the lock for another %d ms, so only it gets messages; others wait in line with BLOCK, or end the tenure with QUNLOCK %s %d",
			i.Holder, i.LockMillisLeft, word(q.name), i.Token)
	}
	return ""
}

// notReadyReason explains why none of the messages can be delivered, or is empty if a returned one can.
func (q *queue) notReadyReason(now machine.Time, i *Info) string {
	c := &i.Counts
	if c.Delayed+c.Retrying > 0 {
		due, ok := q.m.NextDueWall()
		if !ok || due <= now.WallMillis {
			return ""
		}
		kind := "delayed"
		if c.Delayed == 0 {
			kind = "waiting to be retried"
		}
		return fmt.Sprintf("no message is ready; the next of %d that are %s is due in %d ms", c.Delayed+c.Retrying, kind, due-now.WallMillis)
	}
	all := "the only message is"
	if c.Leased > 1 {
		all = fmt.Sprintf("all %d messages are", c.Leased)
	}
	return fmt.Sprintf("%s leased by consumer %q; wait for it to acknowledge, %s", all, i.Holder, q.leaseAdvice(now, i))
}

// leaseAdvice says what else ends leases.
func (q *queue) leaseAdvice(now machine.Time, i *Info) string {
	wait := fmt.Sprintf("or %d ms until the next lease ends", q.nextLeaseEnd(now, i))
	if i.Token == 0 {
		return wait
	}
	return fmt.Sprintf("%s; QUNLOCK %s %d gives all back at once", wait, word(q.name), i.Token)
}

func (q *queue) nextLeaseEnd(now machine.Time, i *Info) int64 {
	next := int64(-1)
	for _, b := range i.Batches {
		if left := max(b.DeadlineMillis-now.ClockMillis, 0); next < 0 || left < next {
			next = left
		}
	}
	return max(next, 0)
}

// oldest finds the first message that is still there and its age. It reads at most oldestScanRecords records.
func (q *queue) oldest(from, durable uint64, now machine.Time) (id uint64, ageMillis int64) {
	for seen := 0; from <= durable && seen < oldestScanRecords; {
		raws := q.log.Memory(from)
		if raws == nil {
			var err error
			if raws, err = q.log.Read(from, returnedRunBytes, nil); err != nil || len(raws) == 0 {
				return 0, 0
			}
		}
		for _, raw := range raws {
			view := record.View(raw)
			seen++
			from++
			if machine.Kind(view.Kind) != machine.KindMessage || !q.live(raw) {
				continue
			}
			m, err := machine.ParseMessage(view.Meta)
			if err != nil {
				return view.LSN, 0
			}
			return view.LSN, max(now.WallMillis-m.PushedMillis, 0)
		}
	}
	return 0, 0
}

func (q *queue) live(raw []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stateOf(raw) != machine.Gone
}
