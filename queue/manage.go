package queue

// Looking into a queue and changing it without consuming: options, pauses, single messages, purges. The log is read without the
// queue's lock (look.go); what was read is checked against the state again before anything is changed.

import (
	"slices"

	"quail/queue/machine"
	"quail/wal/record"
)

// stateOf tells where the message of this record is. It looks at every waiting message. Called with mu held.
func (q *queue) stateOf(raw []byte) machine.State {
	view := record.View(raw)
	if machine.IsDelayed(view.Flags, view.Meta) {
		state, _ := q.m.StateOfDelayed(view.LSN)
		return state
	}
	state, _ := q.m.StateOf(view.LSN)
	return state
}

// Found is a message as QPEEK and QGET show it. Attempt 0: it was never delivered.
type Found struct {
	Message
	State machine.State
}

func (s *seen) found() Found {
	view := record.View(s.raw)
	return Found{State: s.state, Message: Message{ID: view.LSN, Body: view.Body, Attempt: s.attempt,
		PushedMillis: s.message.PushedMillis, Headers: headersOf(&s.message)}}
}

// Peek shows up to most messages from id `from` on, lowest id first; of one state, or of any if state is Gone. It shows fewer if
// their records have more than lookBytesMax bytes, but at least one if there is one. They are valid while show runs, which is not called if
// there is an error. It changes nothing. Errors: NOQUEUE, WALERR.
func (s *Set) Peek(name []byte, state machine.State, from uint64, most int, show func(list []Found)) (*Future, error) {
	q, after, err := s.upToNow(name)
	if err != nil {
		return after, err
	}
	l := lend()
	defer l.free()
	end := s.reads.begin()
	list, _, err := q.look(wanted{state: state, from: from, most: most}, l)
	end()
	if err != nil {
		return q.newest(), err
	}
	found := make([]Found, 0, len(list))
	for i := range list {
		found = append(found, list[i].found())
	}
	after = q.newest()
	show(found)
	return after, nil
}

// upToNow finds a queue and records what has expired in it.
func (s *Set) upToNow(name []byte) (*queue, *Future, error) {
	q, after, err := s.need(name)
	if err != nil {
		return nil, after, err
	}
	_, err = q.enter()
	after = q.last
	q.leave()
	return q, after, err
}

// Get shows one message, or nil if it is not there. Errors: NOQUEUE, WALERR.
func (s *Set) Get(name []byte, id uint64) (*Found, *Future, error) {
	q, after, err := s.upToNow(name)
	if err != nil {
		return nil, after, err
	}
	raw, err := q.readMessage(id)
	if err != nil || raw == nil {
		return nil, q.newest(), err
	}
	one := seen{raw: raw, place: q.places(id, [][]byte{raw}, machine.Gone)[0]}
	if one.state == machine.Gone {
		return nil, q.newest(), nil
	}
	if one.message, err = machine.ParseMessage(record.View(raw).Meta); err != nil {
		return nil, q.newest(), q.damaged(err)
	}
	found := one.found()
	return &found, q.newest(), nil
}

// Remove takes single messages out and returns how many; leased ones stay. Errors: NOQUEUE, WALERR, ERR.
func (s *Set) Remove(name []byte, ids []uint64) (n int, after *Future, err error) {
	q, after, err := s.need(name)
	if err != nil {
		return 0, after, err
	}
	list, err := q.lookUp(ids)
	if err != nil {
		return 0, nil, err
	}
	_, err = q.enter()
	defer q.leave()
	if err != nil {
		return 0, q.last, err
	}
	n, e, changed, err := q.m.DecideRemove(list, machine.ByOwner)
	if err != nil {
		return 0, q.last, refuse("ERR", "%v; nothing was changed", err)
	}
	if changed {
		q.commit(e)
	}
	return n, q.last, nil
}

// lookUp reads the records of those ids that are messages, in rising order, each once.
func (q *queue) lookUp(ids []uint64) ([]machine.Removal, error) {
	var list []machine.Removal
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		raw, err := q.readMessage(id)
		if err != nil {
			return nil, err
		}
		if raw != nil {
			list = append(list, removalOf(raw))
		}
	}
	return list, nil
}

// readMessage returns the record with this id if it is a message that may still be there.
func (q *queue) readMessage(id uint64) ([]byte, error) {
	q.mu.Lock()
	known := id >= q.m.FirstNeeded() && id <= q.m.LastLSN()
	q.mu.Unlock()
	if !known {
		return nil, nil
	}
	raw, err := q.readOne(id)
	if err != nil || raw == nil || machine.Kind(raw[2]) != machine.KindMessage {
		return nil, err
	}
	return raw, nil
}

func removalOf(raw []byte) machine.Removal {
	view := record.View(raw)
	return machine.Removal{ID: view.LSN, SizeBytes: uint32(len(view.Body)), Delayed: machine.IsDelayed(view.Flags, view.Meta)}
}

// Purge takes out everything that is not leased, or what has an id below before if that is not 0; it returns how many.
// Errors: NOQUEUE, WALERR, ERR.
func (s *Set) Purge(name []byte, before uint64) (n int64, after *Future, err error) {
	q, after, err := s.need(name)
	if err != nil {
		return 0, after, err
	}
	if before == 0 {
		before = ^uint64(0)
	}
	for range moveTriesMax {
		counted, err := q.countReady(before)
		if err != nil {
			return 0, nil, err
		}
		if n, after, done, err := q.purge(before, counted); done || err != nil {
			return n, after, err
		}
	}
	return 0, nil, refuse("ERR", "queue %q is being consumed too quickly to be purged below an id; nothing was changed; pause it with QPAUSE, or retry", q.name)
}

// readyCount is how many ready messages the walk would find below an id, and what the count rests on: they are as many as long as
// nothing was delivered or taken out, and nothing was pushed below the id.
type readyCount struct {
	messages, bytes int64
	cursor, last    uint64
	taken           int64
}

// takenOut counts what has left a queue otherwise than through a batch.
func takenOut(t *machine.Totals) int64 { return t.Removed + t.Expired + t.DeadLettered + t.Redriven }

// countReady reads the log from the cursor on.
func (q *queue) countReady(before uint64) (c readyCount, err error) {
	q.mu.Lock()
	counts := q.m.Counts()
	c = readyCount{cursor: q.m.Cursor(), last: q.m.LastLSN(), taken: takenOut(&counts.Totals)}
	q.mu.Unlock()
	if before > c.last {
		return c, nil // then it is all, and need not be counted
	}
	for at := c.cursor + 1; at < before; {
		raws, err := q.readSome(nil, at)
		if err != nil || raws == nil {
			return c, err // consumed meanwhile: purge sees that
		}
		raws = raws[:min(uint64(len(raws)), before-at)]
		for i, p := range q.places(at, raws, machine.Ready) {
			if p.state == machine.Ready {
				c.messages++
				c.bytes += int64(len(record.View(raws[i]).Body))
			}
		}
		at += uint64(len(raws))
	}
	return c, nil
}

// purge takes out what is below before. done is false if the count does not hold any more.
func (q *queue) purge(before uint64, c readyCount) (n int64, after *Future, done bool, err error) {
	if _, err := q.enter(); err != nil {
		defer q.leave()
		return 0, q.last, true, err
	}
	defer q.leave()
	if counts := q.m.Counts(); before <= q.m.LastLSN() &&
		(before > c.last || q.m.Cursor() != c.cursor || takenOut(&counts.Totals) != c.taken) {
		return 0, nil, false, nil
	}
	n, e, changed := q.m.DecidePurge(before, c.messages, c.bytes)
	if changed {
		q.commit(e)
	}
	return n, q.last, true, nil
}

// Configure gives a queue the options that change sets, all or none; its others stay. Errors: NOQUEUE, ERR, WALERR.
func (s *Set) Configure(name []byte, change machine.Options) (*Future, error) {
	q, after, err := s.need(name)
	if err != nil {
		return after, err
	}
	_, err = q.enter()
	defer q.leave()
	if err != nil {
		return q.last, err
	}
	o := *q.m.Options()
	o.Override(&change)
	if err := supported(q.name, &o); err != nil {
		return q.last, err
	}
	if !o.Equal(q.m.Options()) {
		q.commit(machine.ConfigMeta(o))
	}
	return q.last, nil
}

// Options returns the options in force for a queue, as names and values. Errors: NOQUEUE, WALERR.
func (s *Set) Options(name []byte) ([][2]string, *Future, error) {
	q, after, err := s.need(name)
	if err != nil {
		return nil, after, err
	}
	_, err = q.enter()
	defer q.leave()
	if err != nil {
		return nil, q.last, err
	}
	var list [][2]string
	for o := range machine.Specs {
		value := q.m.Options().Value(machine.Option(o), s.cfg.Defaults())
		if machine.Option(o) == machine.DeadLetterQueue {
			value = q.deadName()
		}
		list = append(list, [2]string{machine.Specs[o].Name, value})
	}
	return list, q.last, nil
}

// Pause stops or resumes sides of a queue. It survives a restart. Errors: NOQUEUE, WALERR.
func (s *Set) Pause(name []byte, pause bool, push, consume bool) (*Future, error) {
	q, after, err := s.need(name)
	if err != nil {
		return after, err
	}
	_, err = q.enter()
	defer q.leave()
	if err != nil {
		return q.last, err
	}
	p, c := q.m.Paused()
	if push {
		p = pause
	}
	if consume {
		c = pause
	}
	if e, changed := q.m.DecidePause(p, c); changed {
		q.commit(e)
	}
	return q.last, nil
}
