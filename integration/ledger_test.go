//go:build linux

package integration

// The ledger knows what every client did and was told, and so which deliveries are allowed. It is the judge of the test
// of real input.

import (
	"fmt"
	"sync"
	"time"
)

// messageKey names a message for ever: no queue of that test is deleted.
type messageKey struct {
	queue string
	id    int64
}

// delivery is the last time that a message was handed to a consumer.
type delivery struct {
	path       string
	times      int
	deaths     int64 // of the server when the batch was asked for
	deadline   time.Time
	acked      bool // QACK was answered: it must never come again
	ackUnheard bool // a QACK was sent and not answered
}

type ledger struct {
	mu         sync.Mutex // guards what follows
	mayPush    map[string]int
	pushed     map[messageKey]string         // pushes that were answered with this id
	idsOf      map[string]map[int64]struct{} // of a path
	deliveries map[messageKey]*delivery
	complaints []string

	redeliveries, pushedTwice, unheardPushes, unheardAcks, lostBatches int
}

func newLedger() *ledger {
	return &ledger{mayPush: make(map[string]int), pushed: make(map[messageKey]string),
		idsOf: make(map[string]map[int64]struct{}), deliveries: make(map[messageKey]*delivery)}
}

const complaintsMax = 20 // the first ones tell what is wrong; the rest only bury them

func (l *ledger) complain(format string, args ...any) {
	if len(l.complaints) < complaintsMax {
		l.complaints = append(l.complaints, fmt.Sprintf(format, args...))
	}
}

// push takes note of a push of these paths before it is sent: from now on each may be in its queue once more.
func (l *ledger) push(paths ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, path := range paths {
		l.mayPush[path]++
	}
}

// pushAnswered takes note of the id that the server gave.
func (l *ledger) pushAnswered(queue, path string, id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := messageKey{queue, id}
	if other, used := l.pushed[key]; used {
		l.complain("id %d of %s was given to %s and to %s", id, queue, other, path)
	}
	l.pushed[key] = path
}

// pushUnheard takes note that a push of these paths had no answer, and will be repeated.
func (l *ledger) pushUnheard(paths ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unheardPushes += len(paths)
}

// delivered judges one message of a batch. deathsBefore and deathsNow are how often the server had died when the batch was
// asked for and when it came, at the time now.
func (l *ledger) delivered(key messageKey, path string, deathsBefore, deathsNow int64, deadline, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if pushed, ok := l.pushed[key]; ok && pushed != path {
		l.complain("message %d of %s was pushed as %s and came as %s", key.id, key.queue, pushed, path)
	}
	l.judgePushes(key, path)
	d := l.deliveries[key]
	if d == nil {
		l.deliveries[key] = &delivery{path: path, times: 1, deaths: deathsBefore, deadline: deadline}
		return
	}
	l.redeliveries++
	switch {
	case d.path != path:
		l.complain("message %d of %s came as %s and as %s", key.id, key.queue, d.path, path)
	case d.acked:
		l.complain("message %d of %s (%s) came again after its acknowledgement was answered", key.id, key.queue, path)
	case deathsNow > d.deaths: // unacknowledged when the server died
	case !now.Before(d.deadline): // its lease ended
	case d.ackUnheard:
	default:
		l.complain("message %d of %s (%s) came again %v before its lease ended", key.id, key.queue, path, d.deadline.Sub(now))
	}
	d.times++
	d.deaths, d.deadline = deathsBefore, deadline
}

// judgePushes complains of a path that is in its queue more often than it was pushed.
func (l *ledger) judgePushes(key messageKey, path string) {
	ids := l.idsOf[path]
	if ids == nil {
		ids = make(map[int64]struct{})
		l.idsOf[path] = ids
	}
	if _, known := ids[key.id]; known {
		return
	}
	ids[key.id] = struct{}{}
	if len(ids) > 1 {
		l.pushedTwice++
	}
	if allowed := l.mayPush[path]; len(ids) > allowed {
		l.complain("%s came as %d messages and was pushed %d times", path, len(ids), allowed)
	}
}

// ackAnswered takes note of QACK's count. Less than the whole batch is right only if an earlier QACK had no answer.
func (l *ledger) ackAnswered(queue string, b *batch, n int64, repeated bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n != int64(len(b.messages)) && !(repeated && n == 0) {
		l.complain("QACK %s %d answered %d, the batch has %d messages", queue, b.id, n, len(b.messages))
	}
	for _, m := range b.messages {
		l.deliveries[messageKey{queue, m.id}].acked = true
	}
}

func (l *ledger) ackUnheard(queue string, b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unheardAcks++
	for _, m := range b.messages {
		l.deliveries[messageKey{queue, m.id}].ackUnheard = true
	}
}

// batchLost judges -NOBATCH: only the server's death or the end of the lease takes a batch away.
func (l *ledger) batchLost(queue string, b *batch, deathsBefore, deathsNow int64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lostBatches++
	if deathsNow == deathsBefore && now.Before(b.deadline()) {
		l.complain("batch %d of %s is gone %v before its lease ended, and the server did not die", b.id, queue, b.deadline().Sub(now))
	}
}
