// Package queue makes queues out of a state machine and a log: it decides commands under one lock a queue, commits what they
// change, delivers messages up to what is durable, and keeps the line of waiting consumers.
//
//	set.go      the set of all queues: names, creation, deletion, recovery
//	queue.go    one queue: its lock, machine and log, and how a change is committed
//	produce.go  pushing
//	consume.go  the commands of consumers: lock, pull, acknowledge
//	line.go     consumers that wait, and how they are served
//	gather.go   choosing the messages of a batch, from memory and from the log
//	aheads.go   the bound of what is read ahead for all queues together
//	reads.go    how many read at a time
//	info.go     what QINFO tells
//	types.go    requests and answers
package queue

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/record"
)

const (
	// nameBytesMax bounds a queue's name.
	nameBytesMax = 200
	// consumerBytesMax bounds a consumer's name; it is kept in the machine and in records.
	consumerBytesMax = 200
	// retryOpenDelay is how long the set waits between attempts to open its store again after a failure.
	retryOpenDelay = time.Second
)

// Config says where the queues live and what holds for all of them. The functions are asked at each use, so a setting may
// change while the server runs.
type Config struct {
	Store wal.Config
	// Defaults holds the server's default for every queue option.
	Defaults func() *machine.Options
	// QueuesMax bounds the number of queues. AutoCreate: a queue is made at its first use.
	QueuesMax  func() int
	AutoCreate func() bool
	// PushBytesMax bounds the bodies of one push together, in bytes.
	PushBytesMax func() int64
	// LoadAtOnceBytes is how much a queue may have to be loaded by the command that asks for it first; 0: 64 KB. With -1 none is.
	LoadAtOnceBytes int
	// Loaded is told when all queues are loaded, after a start and after the store was opened again. It may be nil.
	Loaded func(LoadReport)
	// StoreReopened is told when the store works again after a journal failure. It may be nil.
	StoreReopened func(Report)
	// Background, if not nil, is given what would run on a goroutine of its own, f, to run it once, whenever it likes but not within
	// the call. who names it. A simulation decides so in which order things happen; with it the TTL sweep does not run by itself, and
	// Store.Stepped is wanted too.
	Background func(who string, f func())
	// WallMillis, if not nil, is the wall clock at that moment, unix milliseconds: a simulation sets it forward and back.
	WallMillis func(at time.Time) int64
}

// Report says what opening found.
type Report struct {
	Queues int
	wal.Recovery
	Duration time.Duration
}

// Set is all queues of one server. It is safe for concurrent use.
type Set struct {
	cfg Config

	// broken is why the store cannot be used now; commands are refused with it until the store is open again.
	broken atomic.Pointer[Error]

	mu      sync.RWMutex // guards the fields below; never held during IO
	store   *wal.Store
	byName  map[string]*queue
	byLife  map[uint64]*queue // by incarnation, also those whose deletion is not durable yet
	closing bool
	loader  *loader // of what store had when it was opened

	// opening is held by Open, during IO.
	opening sync.Mutex
	ending  atomic.Bool // Open gives up
	opened  atomic.Bool // store was set once

	// names is the newest commit that made or deleted a queue: what an answer about which queues there are rests on.
	names atomic.Pointer[Future]

	// listed is byName's names, nil if nobody has asked since they changed. The slice is never changed.
	listed atomic.Pointer[[]string]

	aheads     aheads      // what the queues have read ahead
	reads      reads       // how many read at a time
	stopping   atomic.Bool // pulls do not wait any more
	background sync.WaitGroup
	closed     chan struct{}
}

// New makes a Set that refuses everything with LOADING until it is opened.
func New(cfg Config) *Set {
	s := &Set{cfg: cfg, closed: make(chan struct{}), reads: newReads(&cfg)}
	s.broken.Store(notOpen)
	return s
}

// Open opens the data directory. When it returns, the names of all queues are known and commands are taken; the queues themselves are loaded
// behind them, and Config.Loaded is told when that is over. Close ends it early.
// Errors: wal.ErrLocked, *wal.CorruptError, *seglog.CorruptError, those of the file system.
func (s *Set) Open() (Report, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.ending.Load() {
		return Report{}, errStopping
	}
	report, err := s.openStore(0)
	if wal.OutOfSpace(err) { // the store has just given its reserve back, to be opened in
		s.background.Wait() // for what its failed journal has set off
		s.broken.Store(notOpen)
		report, err = s.openStore(0)
	}
	if err != nil {
		return report, err
	}
	if s.cfg.Background == nil {
		s.background.Go(s.keepSweeping)
	}
	return report, nil
}

// Open makes a Set and opens it, and loads all queues.
func Open(cfg Config) (*Set, Report, error) {
	s := New(cfg)
	report, err := s.Open()
	if err != nil {
		return nil, report, err
	}
	if err := s.loadAll(); err != nil {
		s.Close()
		return nil, report, err
	}
	return s, report, nil
}

// loadAll loads what is not loaded yet.
func (s *Set) loadAll() error {
	s.mu.RLock()
	all := inOrder(s.byLife)
	s.mu.RUnlock()
	for _, q := range all {
		if err := q.load(); err != nil {
			return err
		}
	}
	return nil
}

// wallMillis is the wall clock at that moment, unix milliseconds.
func (s *Set) wallMillis(at time.Time) int64 {
	if s.cfg.WallMillis != nil {
		return s.cfg.WallMillis(at)
	}
	return at.UnixMilli()
}

// inBackground runs f beside commands.
func (s *Set) inBackground(what string, incarnation uint64, f func()) {
	if s.cfg.Background == nil {
		go f()
		return
	}
	s.cfg.Background(fmt.Sprintf("%s %d", what, incarnation), f)
}

// openStore opens the store and replaces all queues by what it recovers.
func (s *Set) openStore(resumeAfter uint64) (Report, error) {
	began := time.Now()
	r := &recovery{set: s, byName: map[string]*queue{}, byLife: map[uint64]*queue{}, published: make(chan struct{})}
	cfg := s.cfg.Store
	report := cfg.Events.JournalFailed
	opening := &opening{set: s}
	cfg.Events.JournalFailed = func(err error) {
		opening.journalFailed(err)
		if report != nil {
			report(err)
		}
	}
	failed, reopened := cfg.Events.LogFailed, cfg.Events.LogReopened
	cfg.Events.LogFailed = func(name wal.LogName, err error) {
		s.logChanged(name.Incarnation)
		if failed != nil {
			failed(name, err)
		}
	}
	cfg.Events.LogReopened = func(r wal.LogReopened) {
		s.logChanged(r.Incarnation)
		if reopened != nil {
			reopened(r)
		}
	}
	store, found, err := wal.Open(cfg, r, r, resumeAfter)
	if err != nil {
		return Report{Recovery: found}, err
	}
	defer close(r.published)
	all := inOrder(r.byLife)
	for _, q := range all {
		q.store = store
	}
	l := newLoader(s, all, found.Records > 0)
	s.mu.Lock()
	s.store, s.byName, s.byLife, s.loader = store, r.byName, r.byLife, l
	s.namesChanged()
	s.opened.Store(true)
	s.names.Store(nil) // what it said is either recovered or gone
	out := Report{Queues: len(r.byName), Recovery: found}
	s.mu.Unlock()
	opening.done()
	l.start()
	out.Duration = time.Since(began)
	return out, nil
}

// opening keeps back a failure of the journal while its store is being opened: then wal.Open says so, and whoever called it tries again.
// Were the store opened again for it, too, two would be at work on one directory.
type opening struct {
	set *Set

	mu     sync.Mutex // guards the fields below
	failed error      // kept back
	over   bool       // the store is the Set's
}

func (o *opening) journalFailed(err error) {
	o.mu.Lock()
	over := o.over
	o.failed = err
	o.mu.Unlock()
	if over {
		o.set.journalFailed(err)
	}
}

// done says that the store is the Set's and works, unless its journal has failed by now.
func (o *opening) done() {
	o.mu.Lock()
	o.over = true
	failed := o.failed
	if failed == nil {
		o.set.broken.Store(nil) // under the lock: a failure from now on must not be overwritten
	}
	o.mu.Unlock()
	if failed != nil {
		o.set.journalFailed(failed)
	}
}

// recovery rebuilds the queues while the store opens. Nobody else sees its queues before the store is open: commands may be
// looking at those of a store that has failed meanwhile.
type recovery struct {
	set       *Set
	byName    map[string]*queue
	byLife    map[uint64]*queue
	published chan struct{} // closed when the queues are the Set's
}

// Snapshot waits until the queues are the Set's: a checkpoint that looked at older ones would save the wrong states.
func (r *recovery) Snapshot(incarnation uint64) (wal.Snapshot, bool) {
	<-r.published
	return r.set.Snapshot(incarnation)
}

func (r *recovery) Load(log *wal.QueueLog, lsn uint64, state []byte) error {
	if r.set.ending.Load() {
		return errStopping
	}
	name, err := machine.NameOf(state)
	if err != nil {
		return err
	}
	log.Name(name)
	q := newQueue(r.set, name, log, nil)
	q.unloaded.Store(&unloaded{lsn: lsn, state: state})
	r.byLife[log.Incarnation()] = q
	r.name(q)
	return nil
}

// name gives q its name, unless a later queue has it: the journal may tell of a whole life that was over before the checkpoint, and
// that another queue has followed.
func (r *recovery) name(q *queue) {
	if other := r.byName[q.name]; other == nil || other.log.Incarnation() < q.log.Incarnation() {
		r.byName[q.name] = q
	}
}

func (r *recovery) Replay(log *wal.QueueLog, rec record.Record) error {
	if r.set.ending.Load() {
		return errStopping
	}
	q := r.byLife[log.Incarnation()]
	if q == nil {
		q = newQueue(r.set, "", log, nil)
		q.unloaded.Store(&unloaded{})
		r.byLife[log.Incarnation()] = q
	}
	if err := q.unloaded.Load().add(&rec); err != nil {
		return err
	}
	switch machine.Kind(rec.Kind) {
	case machine.KindCreate:
		name, err := machine.NameOfCreate(rec.Meta)
		if err != nil {
			return fmt.Errorf("replay record %d of incarnation %d: %w", rec.LSN, rec.Incarnation, err)
		}
		q.name = name
		log.Name(name)
		r.name(q)
	case machine.KindDelete:
		if r.byName[q.name] == q {
			delete(r.byName, q.name)
		}
		delete(r.byLife, log.Incarnation())
		log.Delete()
	}
	return nil
}

// Snapshot serves the store's checkpoints; see wal.Source.
func (s *Set) Snapshot(incarnation uint64) (wal.Snapshot, bool) {
	s.mu.RLock()
	q := s.byLife[incarnation]
	s.mu.RUnlock()
	if q == nil {
		return wal.Snapshot{}, false
	}
	if err := q.load(); err != nil { // the checkpoint fails, and the journal keeps all
		return wal.Snapshot{After: failedWith(err)}, true
	}
	snap, state, ok := q.freeze()
	if state != nil {
		snap.State = state.Encode(nil)
	}
	return snap, ok
}

// freeze takes what a checkpoint needs, but for the encoding, which can take long.
func (q *queue) freeze() (snap wal.Snapshot, state *machine.Frozen, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stale { // its store has failed: nothing of it may be saved, and it is not deleted
		return wal.Snapshot{After: failedFuture}, nil, true
	}
	if q.deleted {
		return wal.Snapshot{After: q.last}, nil, false
	}
	return wal.Snapshot{LSN: q.m.LastLSN(), First: q.m.FirstNeeded(), After: q.last}, q.m.Freeze(), true
}

// failedFuture stops a checkpoint of a store that is about to be abandoned.
var failedFuture = failedWith(errors.New("the store has failed and is being reopened"))

func failedWith(err error) *Future {
	f := wal.NewFuture()
	f.Complete(err)
	return f
}

// find returns the queue or nil. The lookup does not allocate.
func (s *Set) find(name []byte) *queue {
	s.mu.RLock()
	q := s.byName[string(name)]
	s.mu.RUnlock()
	return q
}

// need returns the queue or the refusal that there is none.
func (s *Set) need(name []byte) (*queue, *Future, error) {
	if err := s.usable(); err != nil {
		return nil, nil, err
	}
	if q := s.find(name); q != nil {
		return q, nil, q.ready()
	}
	return nil, s.names.Load(), noQueue(name)
}

// NamesAfter is what an answer about which queues there are must wait for: the newest creation or deletion.
func (s *Set) NamesAfter() *Future { return s.names.Load() }

func noQueue(name []byte) *Error {
	return refuse("NOQUEUE", "queue %q does not exist; if it should, a push or QCREATE makes it", clip(name))
}

// usable is nil unless the store has failed and is not open again yet.
func (s *Set) usable() error {
	if err := s.broken.Load(); err != nil {
		return err
	}
	return nil
}

// make returns the queue, and makes it with the default options if it is missing.
func (s *Set) make(name []byte) (*queue, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if q := s.find(name); q != nil {
		return q, q.ready()
	}
	if err := ValidName(name); err != nil {
		return nil, err
	}
	if !s.cfg.AutoCreate() {
		return nil, refuse("NOQUEUE", "queue %q does not exist and auto-create is off; make it with QCREATE", clip(name))
	}
	q, _, err := s.create(name, machine.Options{})
	return q, err
}

// makeLocked is make for a push: it waits until the log has room, and returns the queue locked. A queue that is deleted in
// between is made again, as if the push had come after the deletion.
func (s *Set) makeLocked(name []byte) (*queue, error) {
	for {
		q, err := s.make(name)
		if err != nil {
			return nil, err
		}
		if err := q.store.WaitRoom(); err != nil {
			return nil, roomError(err)
		}
		q.mu.Lock()
		if !q.deleted || q.stale {
			return q, nil
		}
		q.mu.Unlock()
	}
}

// create makes the queue if there is none of that name and reports whether it did. The one that there is, is loaded.
func (s *Set) create(name []byte, o machine.Options) (q *queue, made bool, err error) {
	q, made, err = s.findOrCreate(name, o)
	if err == nil && !made {
		err = q.ready()
	}
	return q, made, err
}

func (s *Set) findOrCreate(name []byte, o machine.Options) (*queue, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Asked again under the lock: a queue that is made while the store is being reopened would be one of the old store, and
	// its first record would be lost.
	if err := s.usable(); err != nil {
		return nil, false, err
	}
	if q := s.byName[string(name)]; q != nil {
		return q, false, nil
	}
	if most := s.cfg.QueuesMax(); len(s.byName) >= most {
		return nil, false, refuse("QFULL", "there are %d queues, max-queues is %d; delete some with QDEL or raise max-queues", len(s.byName), most)
	}
	if err := s.store.Full(); err != nil {
		return nil, false, roomError(err)
	}
	incarnation, err := s.store.NextID()
	if err != nil {
		return nil, false, walError(err)
	}
	q := newQueue(s, string(name), s.store.NewLog(incarnation, string(name)), machine.New())
	q.store = s.store
	s.byName[q.name] = q
	s.byLife[incarnation] = q
	s.namesChanged()
	q.mu.Lock() // nobody else knows the queue yet; the store's checkpoints do
	defer q.mu.Unlock()
	s.names.Store(q.commit(machine.CreateMeta(q.name, o, q.now().WallMillis)))
	return q, true, nil
}

// Create makes a queue with these options. If it is there with the same ones, that is no error.
// Errors: EXISTS, QFULL, ERR, WALERR.
func (s *Set) Create(name []byte, o machine.Options) (*Future, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if err := ValidName(name); err != nil {
		return nil, err
	}
	if err := supported(string(name), &o); err != nil {
		return nil, err
	}
	q, made, err := s.create(name, o)
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !made && !q.m.Options().Equal(&o) {
		return q.last, refuse("EXISTS", "queue %q exists with other options; use it as it is, or change them with QCONFIG SET %s option value", clip(name), word(q.name))
	}
	return q.last, nil
}

// supported refuses options that cannot work together.
func supported(name string, o *machine.Options) error {
	if o.IsSet(machine.DeadLetterQueue) && o.Dead != "" {
		if o.Dead == name {
			return refuse("ERR", "dead-letter-queue of queue %q cannot be the queue itself; name another", name)
		}
		return ValidName([]byte(o.Dead))
	}
	return nil
}

// Delete removes a queue with all its messages. Consumers that wait on it get NOQUEUE.
func (s *Set) Delete(name []byte) (existed bool, after *Future, err error) {
	if err := s.usable(); err != nil {
		return false, nil, err
	}
	q := s.find(name)
	if q != nil {
		if err := q.ready(); err != nil {
			return false, nil, err
		}
	}
	s.mu.Lock()
	if err := s.usable(); err != nil { // asked again under the lock, as in create
		s.mu.Unlock()
		return false, nil, err
	}
	if now := s.byName[string(name)]; now != q { // it was made or deleted meanwhile, or the store opened again
		s.mu.Unlock()
		return s.Delete(name)
	}
	if q == nil {
		s.mu.Unlock()
		return false, s.names.Load(), nil
	}
	delete(s.byName, string(name))
	s.namesChanged()
	q.mu.Lock()
	after = q.commit(machine.Effect{Kind: machine.KindDelete})
	s.names.Store(after)
	q.deleted = true
	q.forgetAhead()
	q.stopTimer()
	done := q.emptyLine(noQueue(name))
	q.mu.Unlock()
	s.mu.Unlock()
	after.Notify(&deletion{set: s, q: q, after: after})
	done.run()
	return true, after, nil
}

// deletion lets go of a queue once its deletion is durable.
type deletion struct {
	set   *Set
	q     *queue
	after *Future
}

func (d *deletion) Durable() {
	if d.after.Err() != nil {
		return // the store is about to be reopened, and the queue is there again
	}
	d.set.mu.Lock()
	delete(d.set.byLife, d.q.log.Incarnation())
	d.set.mu.Unlock()
	d.q.log.Delete()
}

// Names returns the names of all queues, sorted bytewise.
func (s *Set) Names() []string {
	names := slices.Clone(s.NamesUnsorted())
	sort.Strings(names)
	return names
}

// NamesUnsorted returns the names of all queues in any order. They are shared, and must not be changed: until a queue is made or deleted
// everybody gets the same slice, and then another one.
func (s *Set) NamesUnsorted() []string {
	s.mu.RLock() // what is made and kept under it is not older than a change, which takes the whole lock
	defer s.mu.RUnlock()
	if s.listed.Load() == nil {
		names := slices.AppendSeq(make([]string, 0, len(s.byName)), maps.Keys(s.byName))
		s.listed.CompareAndSwap(nil, &names)
	}
	return *s.listed.Load()
}

// namesChanged lets go of the list of names. Called with mu held.
func (s *Set) namesChanged() { s.listed.Store(nil) }

// Count is the number of queues.
func (s *Set) Count() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.byName)
}

// Exists reports whether there is a queue of that name.
func (s *Set) Exists(name []byte) bool { return s.find(name) != nil }

// Checkpoint saves all states now, so that the next start has little to replay. It waits for the disk.
func (s *Set) Checkpoint() error {
	s.mu.RLock()
	store := s.store
	s.mu.RUnlock()
	if store == nil {
		return notOpen
	}
	return store.Checkpoint()
}

func (s *Set) checkpointSoon() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.store.CheckpointSoon()
}

// Backup copies all queues into a new directory on the server's machine, while commands go on; see wal.Store.Backup. It waits for the
// disk. Errors: ERR, WALERR.
func (s *Set) Backup(dir string) (BackupReport, error) {
	if !filepath.IsAbs(dir) {
		return BackupReport{}, refuse("ERR", "directory: got %q; give an absolute path, on the server's machine", clip([]byte(dir)))
	}
	if err := s.usable(); err != nil {
		return BackupReport{}, err
	}
	s.mu.RLock()
	store := s.store
	s.mu.RUnlock()
	report, err := store.Backup(filepath.Clean(dir))
	if err != nil {
		return report, refuse("ERR", "no backup was made: %v", err)
	}
	return report, nil
}

// Held is a round of commands whose commits gather; see Set.Hold.
type Held struct{ store *wal.Store }

// Hold lets the commits of a round of commands gather until Release. It waits for nothing.
func (s *Set) Hold() Held {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.store == nil {
		return Held{}
	}
	s.store.Hold()
	return Held{s.store}
}

// Release commits what has gathered, on the caller's goroutine: it waits for the disk.
func (h Held) Release() {
	if h.store != nil {
		h.store.Release()
	}
}

// HasRoom reports whether a push would go on at once, instead of waiting until the background writer has caught up.
func (s *Set) HasRoom() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.store == nil || s.store.HasRoom()
}

// Idle says that no command has come for a moment.
func (s *Set) Idle() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.store != nil {
		s.store.MarkEnd()
	}
}

// StoreStats tells how the store is, for the operator. err is why commands are refused at the moment, or nil.
func (s *Set) StoreStats() (stats wal.Stats, err error) {
	s.mu.RLock()
	store := s.store
	s.mu.RUnlock()
	if store == nil {
		return wal.Stats{}, nil
	}
	return store.Stats(), s.usable()
}

// WakeAll answers null to all waiting pulls and lets no later one wait: the first step of a graceful stop.
func (s *Set) WakeAll() {
	s.stopping.Store(true)
	s.mu.RLock()
	all := inOrder(s.byLife)
	s.mu.RUnlock()
	for _, q := range all {
		q.mu.Lock()
		done := q.emptyLine(nil)
		q.mu.Unlock()
		done.run()
	}
}

// Close takes a checkpoint and closes the store. Commands must have ended. A start that is under way is given up, as by a crash; queues
// that are not loaded yet are not waited for unless the checkpoint needs them.
func (s *Set) Close() error {
	s.WakeAll()
	s.ending.Store(true)
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return errors.New("the queues are closed already")
	}
	s.closing = true
	close(s.closed)
	s.mu.Unlock()
	s.opening.Lock() // Open is over
	defer s.opening.Unlock()
	s.mu.RLock()
	store, l := s.store, s.loader
	s.mu.RUnlock()
	if l != nil {
		l.end()
	}
	s.background.Wait()
	if store == nil {
		return nil
	}
	if s.broken.Load() != nil {
		return nil // the store was abandoned; what is durable is in the journal
	}
	s.broken.Store(refuse("WALERR", "the server is shutting down; retry with another connection"))
	return store.Close()
}

// logChanged wakes the queue's waiters: its log failed, and they hear of it, or it works again, and they are served.
func (s *Set) logChanged(incarnation uint64) {
	s.inBackground("log changed", incarnation, func() {
		s.mu.RLock()
		q := s.byLife[incarnation]
		s.mu.RUnlock()
		if q != nil {
			q.serve()
		}
	})
}

// journalFailed runs on the committer's goroutine, before the failed commits hear of it. All states may hold changes that
// are not durable, so all are discarded and rebuilt from what is.
func (s *Set) journalFailed(err error) {
	s.broken.Store(walError(err))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return
	}
	s.background.Add(1)
	s.inBackground("reopen", 0, s.reopenStore)
}

func (s *Set) reopenStore() {
	defer s.background.Done()
	s.mu.Lock()
	old, queues, l := s.store, inOrder(s.byLife), s.loader
	s.mu.Unlock()
	l.end()
	for _, q := range queues {
		q.mu.Lock()
		q.deleted, q.stale = true, true // whoever still holds the pointer is refused
		q.forgetAhead()
		q.stopTimer()
		done := q.emptyLine(s.broken.Load())
		q.mu.Unlock()
		done.run()
	}
	old.Abandon()
	for resume := old.DurableGroup(); ; {
		report, err := s.openStore(resume)
		if err == nil {
			if s.cfg.StoreReopened != nil {
				s.cfg.StoreReopened(report)
			}
			return
		}
		s.broken.Store(walError(err))
		select {
		case <-s.closed:
			return
		case <-time.After(retryOpenDelay):
		}
	}
}

// inOrder lists queues in the order of their making.
func inOrder(byLife map[uint64]*queue) []*queue {
	list := make([]*queue, 0, len(byLife))
	for _, incarnation := range slices.Sorted(maps.Keys(byLife)) {
		list = append(list, byLife[incarnation])
	}
	return list
}

// ValidName reports why name cannot be a queue's: it must be 1 to 200 bytes of UTF-8 without control characters or spaces.
func ValidName(name []byte) error {
	if len(name) == 0 || len(name) > nameBytesMax {
		return refuse("ERR", "queue name has %d bytes; 1 to %d are allowed", len(name), nameBytesMax)
	}
	if !utf8.Valid(name) {
		return refuse("ERR", "queue name %q is not UTF-8; choose another", clip(name))
	}
	for _, c := range string(name) {
		if isSpaceOrControl(c) {
			return refuse("ERR", "queue name %q has a control character or space; choose another", clip(name))
		}
	}
	return nil
}

func validConsumer(name []byte) error {
	if len(name) == 0 || len(name) > consumerBytesMax {
		return refuse("ERR", "consumer name has %d bytes; 1 to %d are allowed", len(name), consumerBytesMax)
	}
	return nil
}

// isSpaceOrControl covers Unicode's spaces and both blocks of control characters, and the line separators.
func isSpaceOrControl(c rune) bool {
	switch {
	case c <= ' ', c >= 0x7f && c <= 0xa0, c == 0x1680, c >= 0x2000 && c <= 0x200f, c >= 0x2028 && c <= 0x202f, c == 0x205f,
		c == 0x3000, c == 0xfeff:
		return true
	}
	return false
}

// clip bounds what of a client's text is repeated in an error.
func clip(text []byte) string {
	const most = 64
	if len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(text)
}

func walError(err error) *Error {
	return refuse("WALERR", "the log failed, the outcome is unknown: %v; retry with DEDUP once the disk is well", err)
}

// roomError says why no message is taken. On a full disk nothing was written, and the outcome is known.
func roomError(err error) *Error {
	var full *wal.FullError
	if errors.As(err, &full) {
		return refuse("WALERR", "%v; nothing was changed; consuming and acknowledging go on and give space back; make room and retry", full)
	}
	return walError(err)
}

// word is a name as it is typed in redis-cli: in quotes where it needs them.
func word(name string) string {
	if !strings.ContainsAny(name, `"'`) {
		return name
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}
