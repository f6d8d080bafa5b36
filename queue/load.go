package queue

// Loading: a start reads which queues there are, and serves at once. What takes long is done behind it, queue by queue: to make a
// machine of a state with a million delayed messages, and to apply what the journal has behind it. Until then the queue answers LOADING,
// and all others work.
//
//	checkpoint ─▶ name, state ──┐
//	                            ├─ unloaded ──▶ machine.Restore, Apply … ──▶ loaded
//	journal ────▶ later records ┘
//
// No command ever holds a queue that is not loaded: whoever looks one up by name passes ready. A queue whose turn is soon over is loaded
// there, by the command itself, so in life only a large one is ever heard to say LOADING. The loader takes the small ones first, for most
// queues to wait briefly, and before them those that somebody has asked for. A checkpoint needs every state that it saves, and loads it if
// nobody has: so the journal is not let go before.

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"quail/queue/machine"
	"quail/wal/record"
)

const (
	// loadAtOnceBytes is how much a queue may have to be loaded by the command that asks for it: a few milliseconds.
	loadAtOnceBytes = 64 << 10
	// graceMin is how long a queue must have been unloaded for its leases to be prolonged by that time.
	graceMin = 100 * time.Millisecond
)

// unloaded is what a queue is to be made of.
type unloaded struct {
	began time.Time // since when it could have been served
	lsn   uint64    // that state is after
	state []byte    // as the checkpoint has it; nil if it has not
	// later are the records behind it without their bodies: kind, flags, length of meta, length of body, meta.
	later   []byte
	records uint64
	// size is about how many bytes of both there are to work through, once all are there; 0 when nothing is to be done with them any more.
	// It can be read by whoever asks for the queue, while state and later belong to who holds mu.
	size atomic.Int64

	mu  sync.Mutex // held while the queue is loaded
	err error      // why it cannot be
}

// bytes is about how much there is to do.
func (u *unloaded) bytes() int { return int(u.size.Load()) }

// add takes over a record of the journal.
func (u *unloaded) add(r *record.Record) error {
	if next := u.lsn + u.records + 1; r.LSN != next {
		return fmt.Errorf("record %d of incarnation %d comes where record %d belongs", r.LSN, r.Incarnation, next)
	}
	u.records++
	u.later = append(u.later, byte(r.Kind), r.Flags)
	u.later = binary.AppendUvarint(u.later, uint64(len(r.Meta)))
	u.later = binary.AppendUvarint(u.later, uint64(len(r.Body)))
	u.later = append(u.later, r.Meta...)
	return nil
}

// restore makes the machine.
func (u *unloaded) restore() (*machine.Machine, error) {
	m := machine.New()
	if u.state != nil {
		var err error
		if m, err = machine.Restore(u.state); err != nil {
			return nil, err
		}
		if m.LastLSN() != u.lsn {
			return nil, fmt.Errorf("the state is after record %d, the checkpoint says %d", m.LastLSN(), u.lsn)
		}
	}
	for rest, lsn := u.later, u.lsn; len(rest) > 0; {
		lsn++
		kind, flags := machine.Kind(rest[0]), rest[1]
		meta, n := binary.Uvarint(rest[2:])
		body, k := binary.Uvarint(rest[2+n:])
		rest = rest[2+n+k:]
		if err := m.Apply(lsn, kind, flags, rest[:meta], int(body)); err != nil {
			return nil, fmt.Errorf("replay record %d: %w", lsn, err)
		}
		rest = rest[meta:]
	}
	return m, nil
}

// ready is nil if the queue is loaded. If it is small it is by then; else it is the next to be.
func (q *queue) ready() error {
	u := q.unloaded.Load()
	if u == nil {
		return nil
	}
	if u.bytes() <= q.set.cfg.loadAtOnceBytes() {
		if err := q.load(); err != nil {
			return walError(err)
		}
		return nil
	}
	q.loader.want(q)
	return refuse("LOADING", "queue %q is being loaded after a start, the other queues work; retry in a moment", clip([]byte(q.name)))
}

func (c *Config) loadAtOnceBytes() int { return cmp.Or(c.LoadAtOnceBytes, loadAtOnceBytes) }

// isLoaded is for those who can do without the queue.
func (q *queue) isLoaded() bool { return q.unloaded.Load() == nil }

// load loads the queue, if nobody has; whoever comes meanwhile waits.
func (q *queue) load() error {
	u := q.unloaded.Load()
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err != nil || q.isLoaded() {
		return u.err
	}
	m, err := u.restore()
	if err != nil {
		u.err = fmt.Errorf("load queue %q, incarnation %d: %w", q.name, q.log.Incarnation(), err)
		u.state, u.later = nil, nil
		u.size.Store(0) // whoever asks hears why at once
		q.loader.done(0, u.err)
		return u.err
	}
	messages := m.Len() // later commands change it
	q.mu.Lock()
	q.m = m
	if !q.stale {
		q.begin(time.Since(u.began))
	}
	q.mu.Unlock()
	q.unloaded.Store(nil)
	q.loader.done(messages, nil)
	return nil
}

// begin starts what runs by itself in a queue that was just loaded, waited after it could have been served. Called with mu held.
func (q *queue) begin(waited time.Duration) {
	if q.m.ExpiryWall() > 0 && q.m.Len() > 0 {
		q.expires(1)
	}
	if waited >= graceMin {
		q.prolong(waited.Milliseconds())
	}
	// The holder may have renewed by pulls that got nothing, of which no record tells: it gets its time anew, instead of losing the
	// tenure to whoever comes back first.
	q.m.RenewVolatile(q.store.NowMillis() + q.tenureTTL())
	q.armAlone()
}

// prolong gives the holders of leases back the time in which they could not acknowledge. Called with mu held.
func (q *queue) prolong(millis int64) {
	var effects []machine.Effect
	for _, b := range q.m.Batches(nil) {
		effects = append(effects, q.m.DecideGrace(b.Batch, millis))
	}
	for _, e := range effects {
		q.commitSoon(e)
	}
}

// loader loads the queues of one start, one at a time: the other processors serve.
type loader struct {
	set    *Set
	began  time.Time
	queues int
	// replayed: there were records behind the checkpoint.
	replayed bool
	// left is how many are not loaded yet.
	left atomic.Int64

	mu       sync.Mutex // guards the fields below; never held during IO
	next     []*queue   // smallest first
	wanted   []*queue   // somebody has asked for them
	messages int64      // in those that are loaded
	ended    bool       // nobody needs the rest any more
	err      error      // the first failure
}

// newLoader loads these queues, in the order of their making.
func newLoader(s *Set, list []*queue, replayed bool) *loader {
	l := &loader{set: s, began: time.Now(), queues: len(list), next: slices.Clone(list), replayed: replayed}
	for _, q := range list {
		u := q.unloaded.Load()
		u.size.Store(int64(len(u.state) + len(u.later)))
	}
	slices.SortStableFunc(l.next, func(a, b *queue) int { return a.unloaded.Load().bytes() - b.unloaded.Load().bytes() })
	l.left.Store(int64(len(list)))
	for _, q := range list {
		q.loader = l
		q.unloaded.Load().began = l.began
	}
	return l
}

// start begins to load behind the commands.
func (l *loader) start() {
	if l.left.Load() == 0 {
		l.tell()
		return
	}
	if l.set.cfg.Background == nil {
		l.set.background.Go(l.run)
		return
	}
	for _, q := range l.next {
		l.set.inBackground("load", q.log.Incarnation(), func() {
			if !l.isOver() {
				q.load()
			}
		})
	}
}

func (l *loader) run() {
	for q := l.take(); q != nil; q = l.take() {
		q.load() // an error is told by done
	}
}

// take returns the next queue to load, nil if there is none.
func (l *loader) take() *queue {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.ended {
		var q *queue
		switch {
		case len(l.wanted) > 0:
			q, l.wanted = l.wanted[0], l.wanted[1:]
		case len(l.next) > 0:
			q, l.next = l.next[0], l.next[1:]
		default:
			return nil
		}
		if !q.isLoaded() {
			return q
		}
	}
	return nil
}

// want lets q be the next.
func (l *loader) want(q *queue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.wanted, q) {
		l.wanted = append(l.wanted, q)
	}
}

// end leaves unloaded what is.
func (l *loader) end() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
}

func (l *loader) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// done is told of each queue, loaded or not.
func (l *loader) done(messages int64, err error) {
	l.mu.Lock()
	l.messages += messages
	first := err != nil && l.err == nil
	if first {
		l.err = err
	}
	failed := l.err != nil
	l.mu.Unlock()
	if err == nil && l.left.Add(-1) == 0 && !failed || first {
		l.tell()
	}
}

// tell tells the end of loading.
func (l *loader) tell() {
	l.mu.Lock()
	report := LoadReport{Queues: l.queues, Messages: l.messages, Duration: time.Since(l.began), Err: l.err}
	l.mu.Unlock()
	if report.Err == nil && l.replayed {
		l.set.checkpointSoon()
	}
	if f := l.set.cfg.Loaded; f != nil {
		f(report)
	}
}

// LoadReport tells that all queues are loaded, or that one cannot be.
type LoadReport struct {
	Queues int
	// Messages is how many there were in each queue when it had been loaded.
	Messages int64
	Duration time.Duration
	// Err is why a queue cannot be loaded: its state, whole by its checksum, is none that this program can have written. No checkpoint can be
	// taken any more, so the process should end and the directory be looked at.
	Err error
}

// errStopping ends a start.
var errStopping = errors.New("the server is stopping")

// notOpen is what every command gets before it is known which queues there are.
var notOpen = refuse("LOADING", "the server is starting and reads its data directory; retry in a moment")

// Loading is why nothing can be answered about any queue yet, nil once the names of all are known.
func (s *Set) Loading() error {
	if !s.opened.Load() {
		return notOpen
	}
	return nil
}

// LoadingQueues is how many queues are not loaded yet.
func (s *Set) LoadingQueues() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.loader == nil {
		return 0
	}
	return int(s.loader.left.Load())
}
