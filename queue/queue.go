package queue

// One queue. Every command takes the queue's lock, decides on the machine's state, applies what changes, hands the
// records to the journal, and lets go of the lock; only then is anything waited for. So two commands never decide on the same old
// state, and no lock is held during IO.

import (
	"container/list"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/record"
)

type queue struct {
	set   *Set
	store *wal.Store
	name  string
	log   *wal.QueueLog
	// unloaded is nil once m is there; see load.go.
	unloaded atomic.Pointer[unloaded]
	loader   *loader

	mu       sync.Mutex       // guards the fields below; never held during IO
	m        *machine.Machine // nil until the queue is loaded
	last     *Future          // of the newest commit: what a reply decided on this state waits for
	locked   *Future          // of the newest lock grant: what a delivery waits for
	deleted  bool
	stale    bool  // its store has failed; another object has taken its place, or will
	lastWall int64 // wall time never goes back, whatever the machine's clock does
	line     []*waiter
	reach    reach // messages that were read ahead from the log
	fetching bool
	// aheadBytes is how much of reach the Set counts, and aheadAt where; see aheads.
	aheadBytes int
	aheadAt    *list.Element
	burying    bool // a move to the dead-letter queue is under way
	// buryFailed is why the last one could not be made, nil if it was; nothing lapses until one is. The next is tried at buryAfter,
	// server clock.
	buryFailed error
	buryAfter  int64
	sweepAt    int64 // when a message's TTL ends next, unix milliseconds; 0 if none does
	timer      *time.Timer
	timerAt    int64 // server clock, milliseconds; 0 when not armed
	awaited    *Future
	walked     uint64 // no record up to here and above the cursor can be delivered by the walk
	meta       []byte // scratch for a push
}

func newQueue(s *Set, name string, log *wal.QueueLog, m *machine.Machine) *queue {
	return &queue{set: s, name: name, log: log, m: m}
}

// now is the time for one decision. Called with mu held.
func (q *queue) now() machine.Time {
	at := time.Now()
	q.lastWall = max(q.lastWall, q.set.wallMillis(at))
	return machine.Time{ClockMillis: q.store.ClockMillis(at), WallMillis: q.lastWall}
}

// commit applies effects to the machine and hands them to the journal as one atomic group. Called with mu held.
func (q *queue) commit(effects ...machine.Effect) *Future {
	recs := newRecs()
	for _, e := range effects {
		recs = append(recs, q.apply(e, nil))
	}
	return q.hand(recs)
}

// apply makes one record of e, with a body if it is a message. A decision that the machine cannot apply is a mistake in
// the program: going on would write a log that cannot be replayed, so the process stops while the log is still right.
func (q *queue) apply(e machine.Effect, body []byte) record.Record {
	lsn := q.m.LastLSN() + 1
	if err := q.m.Apply(lsn, e.Kind, e.Flags, e.Meta, len(body)); err != nil {
		panic(fmt.Sprintf("queue %q cannot apply its own decision (kind %d, record %d): %v", q.name, e.Kind, lsn, err))
	}
	return record.Record{LSN: lsn, Incarnation: q.log.Incarnation(), Kind: record.Kind(e.Kind), Flags: e.Flags, Meta: e.Meta, Body: body}
}

// commitSoon is commit for what nobody waits for. Called with mu held.
func (q *queue) commitSoon(e machine.Effect) {
	recs := append(newRecs(), q.apply(e, nil))
	q.handed(recs, q.store.CommitSoon(q.log, recs))
}

// commitShared is commit for what nobody but who asked for it waits for. Called with mu held.
func (q *queue) commitShared(e machine.Effect) {
	recs := append(newRecs(), q.apply(e, nil))
	q.handed(recs, q.store.CommitShared(q.log, recs))
}

// hand gives applied records to the journal. Called with mu held.
func (q *queue) hand(recs []record.Record) *Future {
	return q.handed(recs, q.store.Commit(q.log, recs))
}

// recsPool lends scratch to commits: kept by each queue, it would cost ten thousand queues more than their messages do.
var recsPool = sync.Pool{New: func() any { return new([]record.Record) }}

// recsKept is how many records scratch may have room for to be lent again.
const recsKept = 1024

func newRecs() []record.Record { return (*recsPool.Get().(*[]record.Record))[:0] }

func putRecs(recs []record.Record) {
	if cap(recs) <= recsKept {
		recs = recs[:0]
		recsPool.Put(&recs)
	}
}

// handed notes a commit. Called with mu held.
func (q *queue) handed(recs []record.Record, f *Future) *Future {
	q.last = f
	clear(recs) // bodies and metas are copied by now; do not keep them alive
	putRecs(recs)
	if len(q.line) > 0 {
		q.await(q.last)
	}
	return q.last
}

// await has the waiters served when f is done, which it was not when the caller looked at the log. It may be by now: then
// nobody would tell, and a call from here would wait for the lock that it is under. After an error there is nothing to
// serve them with; whoever hears of it empties the line. Called with mu held.
func (q *queue) await(f *Future) {
	if f == nil || q.awaited == f {
		return
	}
	q.awaited = f
	if !f.NotifyLater(q) && f.Err() == nil {
		q.set.inBackground("serve", q.log.Incarnation(), q.serve)
	}
}

// Durable implements wal.Waiter: records became durable that somebody waits for.
func (q *queue) Durable() { q.serve() }

// Patient implements wal.Patient: with nothing to deliver nobody in the line has to be served soon, but for those who do not block and wait for what is durable to tell
// that there is nothing. Otherwise they may wait for messages that are durable before these records are.
func (q *queue) Patient() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !slices.ContainsFunc(q.line, func(w *waiter) bool { return w.settle != 0 }) && (len(q.line) == 0 || q.m.Counts().Ready == 0)
}

// refusal is why this queue cannot be used, or nil. Called with mu held.
func (q *queue) refusal() error {
	if q.deleted {
		if err := q.set.usable(); err != nil {
			return err
		}
		return noQueue([]byte(q.name))
	}
	if err := q.log.Err(); err != nil {
		if wal.Damaged(err) {
			return refuse("WALERR", "queue %q is stopped, its log is damaged: %v; the other queues work; see \"Damage\" in docs/operations.md", q.name, err)
		}
		return refuse("WALERR", "queue %q is stopped, its log failed: %v; the other queues work; it goes on by itself when the cause is gone, retry then", q.name, err)
	}
	return nil
}

// option is the queue's own value or the server's default.
func (q *queue) option(o machine.Option) int64 { return q.m.Options().Get(o, q.set.cfg.Defaults()) }

func (q *queue) retryPolicy() machine.RetryPolicy {
	return machine.RetryPolicy{
		DelayMillis:    q.option(machine.RetryDelay),
		Backoff:        q.option(machine.RetryBackoff),
		DelayMaxMillis: q.option(machine.RetryDelayMax),
		AttemptsMax:    q.option(machine.MaxAttempts),
	}
}

// tick records what has expired. It comes first in every command, so that no decision rests on a lease or a lock that is
// over. Called with mu held.
func (q *queue) tick(now machine.Time) {
	if e, changed := q.m.DecideExpire(now, q.retryPolicy()); changed {
		if len(q.m.Dead(e, nil)) > 0 {
			q.bury(now) // their batches stay open until the move is made; the machine refuses late acks by itself
			return
		}
		q.commit(e)
	}
	lock, held := q.m.Lock()
	if held && now.ClockMillis >= lock.DeadlineMillis && !q.holderWaits(lock.Consumer) {
		q.endTenure(now, true)
	}
}

// enter locks the queue for one command and brings its state up to now. The caller unlocks.
func (q *queue) enter() (machine.Time, error) {
	q.mu.Lock()
	if err := q.refusal(); err != nil {
		return machine.Time{}, err
	}
	now := q.now()
	q.tick(now)
	return now, nil
}

// enterToSettle is enter for commands that resolve what was delivered. They need the journal and not the queue's log, so a log that
// found the disk full does not stop them: they are what makes room. Damage and other failures do.
func (q *queue) enterToSettle() (machine.Time, error) {
	now, err := q.enter()
	if err != nil && !q.deleted && wal.OutOfSpace(q.log.Err()) && !wal.Damaged(q.log.Err()) {
		now, err = q.now(), nil
		q.tick(now)
	}
	return now, err
}

// leave serves the line if the command changed something for it, unlocks, and then runs the answers.
func (q *queue) leave() {
	var done answers
	switch {
	case q.deleted:
	case len(q.line) > 0:
		done = q.serveLine(q.now())
	default:
		q.armAlone()
	}
	q.mu.Unlock()
	done.run()
}

// serve is leave for those who come from outside: a timer, the committer, a finished read.
func (q *queue) serve() {
	if !q.isLoaded() {
		return // nobody can wait for it
	}
	q.mu.Lock()
	if q.deleted {
		q.mu.Unlock()
		return
	}
	if err := q.refusal(); err != nil {
		done := q.emptyLine(err.(*Error))
		q.mu.Unlock()
		done.run()
		return
	}
	q.tick(q.now())
	q.leave()
}
