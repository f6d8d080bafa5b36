//go:build linux

package integration

// The soak test's ledger: the total-queue check over hours. What was acknowledged to a producer must come out (lost), nothing else may
// (unexpected), and nothing comes after its acknowledgement was answered. Its memory is that of one phase: a phase ends with all queues
// empty, so of former phases there is nothing to know but that none of their messages may ever come again.

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
)

// soakBodyBytesMax bounds the padding of a body; its length follows from its name, so a body that was cut or mixed up is noticed.
const soakBodyBytesMax = 2_000

// soakEntry is what is known of one message.
type soakEntry struct {
	queue     string
	id        int64 // 0: not known yet
	heard     bool  // its push was answered
	delivered bool
	gone      bool  // its acknowledgement was answered
	goneBatch int64 // ... for this batch; an older one may have been on its way
	doubt     bool  // an acknowledgement of it was asked for and not answered
	excused   bool  // it may vanish: it has a TTL, or its queue may have been deleted
}

// soakLedger judges what clients of one run see.
type soakLedger struct {
	mu         sync.Mutex // guards what follows
	phase      int
	open       map[string]*soakEntry
	deleting   map[string]bool // queues whose deletion is under way
	complaints []string

	pushed, delivered, acked, unheardPushes, unheardAcks, excused, dead int64
}

func newSoakLedger() *soakLedger {
	return &soakLedger{open: make(map[string]*soakEntry), deleting: make(map[string]bool)}
}

func (l *soakLedger) complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(format, args...)
}

func (l *soakLedger) note(format string, args ...any) {
	if len(l.complaints) < complaintsMax {
		l.complaints = append(l.complaints, fmt.Sprintf("phase %d: ", l.phase)+fmt.Sprintf(format, args...))
	}
}

// soakBody is the body of the message of that name.
func soakBody(name string) string {
	sum := fnv.New32a()
	sum.Write([]byte(name))
	n := int(sum.Sum32() % soakBodyBytesMax)
	return name + "|" + strings.Repeat(string(rune('a'+n%26)), n)
}

// names gives so many new messages names, before they are pushed.
func (l *soakLedger) names(queue, producer string, seq *int, n int, mayVanish bool) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := make([]string, n)
	for i := range names {
		*seq++
		names[i] = fmt.Sprintf("%d/%s/%d", l.phase, producer, *seq)
		l.open[names[i]] = &soakEntry{queue: queue, excused: mayVanish || l.deleting[queue]}
	}
	return names
}

// pushAnswered: they must come out, under these ids.
func (l *soakLedger) pushAnswered(names []string, firstID int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pushed += int64(len(names))
	for i, name := range names {
		e := l.open[name]
		e.heard = true
		l.identify(e, name, firstID+int64(i))
	}
}

// pushRefused: they are not there, and never will be.
func (l *soakLedger) pushRefused(names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		delete(l.open, name)
	}
}

func (l *soakLedger) pushUnheard(names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unheardPushes += int64(len(names))
}

func (l *soakLedger) identify(e *soakEntry, name string, id int64) {
	if e.queue == soakFragile {
		return // it gets another id each time it is moved
	}
	if e.id != 0 && e.id != id {
		l.note("%s of %s has the ids %d and %d", name, e.queue, e.id, id)
	}
	e.id = id
}

// pulled judges a batch.
func (l *soakLedger) pulled(queue string, b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	home, isDead := strings.CutSuffix(queue, ".dead")
	for _, m := range b.messages {
		l.delivered++
		name, _, _ := strings.Cut(m.body, "|")
		e := l.open[name]
		if e == nil {
			l.unexpected(queue, name, m)
			continue
		}
		if isDead {
			l.dead++
		}
		switch {
		case m.body != soakBody(name):
			l.note("message %d of %s is not what was pushed: %s", m.id, queue, brief(m.body))
		case e.queue != home:
			l.note("%s was pushed to %s and came from %s", name, e.queue, queue)
		case e.gone && b.id > e.goneBatch:
			l.note("%s of %s came again in batch %d after it was gone with batch %d", name, queue, b.id, e.goneBatch)
		}
		e.delivered = true
		l.identify(e, name, m.id)
	}
}

func (l *soakLedger) unexpected(queue, name string, m message) {
	text, _, _ := strings.Cut(name, "/")
	if phase, err := strconv.Atoi(text); err == nil && phase < l.phase {
		l.note("message %d of %s, %q, came when phase %d was long over", m.id, queue, name, phase)
		return
	}
	l.note("message %d of %s is one that nobody pushed: %s", m.id, queue, brief(m.body))
}

// ackAnswered judges QACK's count.
func (l *soakLedger) ackAnswered(queue string, b *batch, messages []message, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n != int64(len(messages)) {
		l.note("QACK of %d messages of batch %d of %s answered %d", len(messages), b.id, queue, n)
	}
	l.acked += n
	for _, m := range messages {
		name, _, _ := strings.Cut(m.body, "|")
		e := l.open[name]
		if e == nil {
			continue // judged when it was pulled
		}
		if e.gone {
			l.note("%s of %s was acknowledged in batch %d and in batch %d", name, queue, e.goneBatch, b.id)
		}
		e.gone, e.goneBatch = true, b.id
	}
}

func (l *soakLedger) ackUnheard(messages []message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unheardAcks += int64(len(messages))
	for _, m := range messages {
		name, _, _ := strings.Cut(m.body, "|")
		if e := l.open[name]; e != nil {
			e.doubt = true
		}
	}
}

// deletes: a queue is about to be deleted, and what others push to it until deleted may vanish with it.
func (l *soakLedger) deletes(queue string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deleting[queue] = true
	for _, e := range l.open {
		if e.queue == queue && !e.gone && !e.excused {
			e.excused = true
			l.excused++
		}
	}
}

// deleted: the answer came, or none will. Without others that push, none of the queue's messages may come any more.
func (l *soakLedger) deleted(queue string, answered, alone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.deleting, queue)
	if !answered || !alone {
		return
	}
	for _, e := range l.open {
		if e.queue == queue {
			e.gone, e.goneBatch = true, 0
		}
	}
}

// endPhase is called when all queues are empty: what was not delivered by now is lost.
func (l *soakLedger) endPhase() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, e := range l.open {
		if (e.heard || e.delivered) && !e.gone && !e.doubt && !e.excused {
			l.note("%s, message %d of %s, is lost (push answered: %v, delivered: %v)", name, e.id, e.queue, e.heard, e.delivered)
		}
	}
	clear(l.open)
	l.phase++
}

// takeComplaints hands over what was found since the last call.
func (l *soakLedger) takeComplaints() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.complaints
	l.complaints = nil
	return list
}
