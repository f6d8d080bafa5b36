package queue

// The simulated process and its disk. The process is a Set that does nothing by itself: what would run in the background is gathered in a
// list, and the driver draws what runs next. So what is slow, early or late is the seed's choice, as it is the disk's and the scheduler's
// in life. Timers ring on goroutines of their own, but all they do is to add to the list, which is sorted before anything is drawn from it.

import (
	"errors"
	"hash"
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

const (
	simSteps   = 220
	simDataDir = "/data"
	// simReserve is what runs with a reserve have of it: its default, in journal files.
	simReserve = wal.ReserveFiles * (8 << 10)
	// simOpensMax is how often a start may fail, with the disk failing, before the disk is left in peace.
	simOpensMax = 3
	// simChoresMax and simOperationsMax are far above what a run takes: past them something is done over and over.
	simChoresMax     = 20_000
	simOperationsMax = 300_000
)

// simSums are checksums in an error.
var simSums = regexp.MustCompile(`0x[0-9a-f]+`)

// sim is one run.
type sim struct {
	t     *testing.T
	dice  *rand.Rand
	began time.Time
	hash  hash.Hash64
	lines []string
	stats simStats

	fs   *vfs.Lossy
	disk *vfs.Failing
	set  *Set
	// life counts the starts; chores of an earlier life are not taken.
	life int
	skew time.Duration // of the wall clock
	// started is when the queues of the store that is open were first served.
	started time.Time

	mu     sync.Mutex // guards chores: timers add to them
	chores []chore
	done   int // chores

	cancels []func() // of pulls that wait
	tokens  []uint64 // of tenures, some of them over
	// answers are the batches that came during a call, in order: they are compared when it is known what the call itself did.
	answers []func()

	// The disk's faults.
	quiet      bool      // nothing fails now
	calm       bool      // nothing fails any more: the run is about to end
	faulty     float64   // how likely an operation fails, in this run
	fullUntil  time.Time // the disk refuses all that grows, though it has space
	cappedTill time.Time // the disk has little space left, or none; zero: enough
	poorUntil  time.Time // there are no file descriptors
	sickUntil  time.Time // much fails in files with sick in their path
	sick       string
	operations int
	haltIn     int // operations until everything stops; 0: not planned
	halted     bool
	dirty      bool // something has failed in this life
	// forgotten: what a failed sync left can be read and is on no disk. Only the process that met the error knows; one that follows would
	// take it for durable. So until the store goes on, the process does not end but with the power.
	forgotten bool
	reserve   int64
	segment   int
	copies    int
	exists    bool              // the store was opened once
	found     map[string]string // what was found in the directory while no process ran: queues by body; nil if nobody looked
	lazy      time.Duration

	reopened bool // the store went on after a journal failure, and nobody has looked yet
	failing  bool // the journal has failed and the store has not gone on

	knowledge
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{t: t, dice: rand.New(rand.NewPCG(seed, 23)), began: time.Now(), hash: fnv.New64a(), fs: vfs.NewLossy(seed), knowledge: newKnowledge()}
	if s.dice.IntN(3) > 0 {
		s.faulty = []float64{0.0005, 0.002, 0.01}[s.dice.IntN(3)]
	}
	if s.chance(2) {
		s.reserve = simReserve
	}
	switch s.segment = 2 << 10; s.dice.IntN(6) {
	case 0, 1, 2:
		s.segment = 512
	case 3:
		s.segment = 24 << 10
	}
	s.lazy = []time.Duration{0, 300 * time.Millisecond, 5 * time.Second}[s.dice.IntN(3)]
	return s
}

func (s *sim) run() {
	s.start()
	s.createQueues()
	for range simSteps {
		s.step()
		s.catchUp()
		if s.halted {
			s.end(s.dice.IntN(4) > 0)
			s.start()
		}
	}
	s.finish()
}

// chance is true once in n times.
func (s *sim) chance(n int) bool { return s.dice.IntN(n) == 0 }

// config is that of one life.
func (s *sim) config() Config {
	s.life++
	life, defaults := s.life, machine.DefaultOptions()
	return Config{
		Store: wal.Config{FS: s.disk, Dir: simDataDir, JournalFileBytes: 8 << 10, JournalBytes: 48 << 10, CheckpointBytes: 1 << 30,
			WriteBehindBytes: 32 << 10, SegmentBytes: s.segment, OpenLogs: 3, OpenLog: seglog.OpenSim, Stepped: true,
			ReserveBytes: s.reserve, LazyDelay: s.lazy,
			Events: wal.Events{
				JournalFailed: func(err error) { s.journalFailed(err) },
				LogFailed:     func(name wal.LogName, err error) { s.logFailed(name, err) },
				LogReopened:   func(r wal.LogReopened) { s.tracef("log %d goes on, %d records anew", r.Incarnation, r.Records) },
				DiskFull:      func(why *wal.FullError) { s.tracef("%v", why) },
				DiskFreed:     func() { s.tracef("the disk has space again") },
				TornTail:      func(torn wal.TornTail) { s.tracef("torn tail of %s at %d: %s", torn.File, torn.Offset, torn.Reason) },
			}},
		Defaults:     func() *machine.Options { return defaults },
		QueuesMax:    func() int { return 100 },
		AutoCreate:   func() bool { return true },
		PushBytesMax: func() int64 { return 1 << 20 },
		// A run's queues are small, and would all be loaded at once.
		LoadAtOnceBytes: []int{-1, 0, 300}[s.dice.IntN(3)],
		Loaded: func(r LoadReport) {
			if s.life == life && r.Err != nil {
				s.fail("a queue cannot be loaded: %v", r.Err)
			}
		},
		StoreReopened: func(Report) {
			if !s.failing {
				s.fail("the store was opened again, and it had not failed")
			}
			s.reopened, s.failing, s.forgotten, s.started = true, false, false, time.Now()
		},
		Background: func(who string, f func()) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.life == life {
				s.chores = append(s.chores, chore{who, f})
			}
		},
		WallMillis: func(at time.Time) int64 { return at.Add(s.skew).UnixMilli() },
	}
}

func (s *sim) journalFailed(err error) {
	s.tracef("journal failed: %v", err)
	s.stats.journalFailures++
	s.failing = true
	s.lose()
}

func (s *sim) logFailed(name wal.LogName, err error) {
	s.tracef("log %d failed: %v", name.Incarnation, err)
	s.stats.logFailures++
	if wal.Damaged(err) && !s.rotten {
		s.fail("log %d of %q is called damaged, and nothing rotted: %v", name.Incarnation, name.Queue, err)
	}
}

// start starts the process, as often as it takes, and looks what is there.
func (s *sim) start() {
	for try := 0; ; try++ {
		s.failing, s.reopened, s.chores, s.answers, s.cancels = false, false, nil, nil, nil
		s.lookInside()
		s.disk, s.halted, s.dirty = vfs.NewFailing(s.fs), false, !s.cappedTill.IsZero()
		s.disk.FailEach(s.fault)
		if s.quiet = s.quiet || try >= simOpensMax; s.quiet {
			s.freeSpace()
		}
		s.haltIn = 0
		if !s.quiet && !s.calm && s.chance(6) {
			s.haltIn = 1 + s.dice.IntN(150)
		}
		s.set = New(s.config())
		report, err := s.set.Open()
		if err == nil {
			s.exists, s.started = true, time.Now()
			s.tracef("started: %d queues, %d records replayed", report.Queues, report.Records)
			break
		}
		s.tracef("start failed: %s", simSums.ReplaceAllString(err.Error(), "…")) // some are seeded with the store's random identity
		switch {
		case wal.Damaged(err) && !s.rotten:
			s.fail("the store is called damaged, and nothing rotted: %v", err)
		case wal.Damaged(err):
			s.mend()
		case !s.dirty:
			s.fail("the store does not open, and nothing failed: %v", err)
		}
		if s.halted {
			s.cutPower()
		} else {
			s.kill()
		}
	}
	s.haltIn = 0
	if !s.quiet && !s.calm && !s.rotten && s.whileLoading() {
		return
	}
	s.haltIn, s.quiet = 0, true
	if len(s.promises)+len(s.touched) > 0 { // a look tells what is there, not what is durable
		s.commit()
	}
	s.learn()
	s.quiet = false
}

// whileLoading has commands come before all queues are loaded, and the process end meanwhile: then it is true, and the process was started
// anew.
func (s *sim) whileLoading() (anew bool) {
	for n := s.dice.IntN(40); n > 0 && s.set.LoadingQueues() > 0; n-- {
		s.found = nil // what the directory showed is over
		switch s.dice.IntN(16) {
		case 0, 1, 2:
			s.probe()
		case 3, 4, 5:
			s.push()
		case 6, 7:
			s.pull()
		case 8, 9:
			s.settleOne()
		case 10:
			s.commit()
		case 11:
			s.work()
		case 12:
			s.pass()
		case 13, 14:
			s.doChore()
		case 15:
			switch s.dice.IntN(8) {
			case 0:
				s.haltIn = 1 + s.dice.IntN(60)
			case 1:
				s.end(s.dice.IntN(4) > 0)
				s.start()
				return true
			case 2:
				s.restartNow()
				return true
			}
		}
		s.catchUp()
		if s.halted {
			s.end(s.dice.IntN(4) > 0)
			s.start()
			return true
		}
		if s.failing {
			s.goOn()
			return true // it has looked at what there is when the store went on, or was started anew
		}
	}
	return false
}

// probe asks a queue that is not loaded, and too large to be at once. Nothing may come of it, and its name is known all the same.
func (s *sim) probe() {
	var unloaded []*queue
	for _, q := range s.queues() {
		if u := q.unloaded.Load(); u != nil && u.bytes() > s.set.cfg.loadAtOnceBytes() && s.set.find([]byte(q.name)) == q {
			unloaded = append(unloaded, q)
		}
	}
	if len(unloaded) == 0 || s.set.usable() != nil {
		return
	}
	q := unloaded[s.dice.IntN(len(unloaded))]
	name := []byte(q.name)
	_, _, pushed := s.set.Push(name, [][]byte{[]byte("never")})
	_, _, counted := s.set.Len(name)
	_, _, told := s.set.Info(name)
	_, _, deleted := s.set.Delete(name)
	_, created := s.set.Create(name, machine.Options{})
	_, _, acked := s.set.Ack(name, 1, nil)
	_, _, redriven := s.set.Redrive(name, nil, 0)
	var pulled error
	s.set.Consume(request(q.name, "c0"), func(_ *Batch, _ *Future, err error) { pulled = err })
	for _, err := range []error{pushed, counted, told, deleted, created, acked, redriven, pulled} {
		if codeOf(err) != "LOADING" {
			s.fail("queue %s is not loaded, and a command gets %v", q.name, err)
		}
	}
	if !s.set.Exists(name) || !slices.Contains(s.set.Names(), q.name) {
		s.fail("queue %s is not loaded, and not named", q.name)
	}
	s.stats.probes++
	s.tracef("queue %s is being loaded", q.name)
}

// find returns a queue that is there and loaded.
func (s *sim) find(name string) *queue {
	q := s.set.find([]byte(name))
	if q == nil || q.ready() != nil {
		return nil
	}
	s.prolonged(q)
	return q
}

// prolonged notes how much later leases end since their queue was not loaded for a while. That is no more than the while since the start.
func (s *sim) prolonged(q *queue) {
	for _, b := range q.m.Batches(nil) {
		for _, h := range s.held {
			if late := b.DeadlineMillis - h.until; h.life == q.log.Incarnation() && h.id == b.Batch && late > 0 && late <= time.Since(s.started).Milliseconds() {
				h.until = b.DeadlineMillis
			}
		}
	}
}

// prolongedAll is for the end of a life, in which nobody may have asked for what was loaded.
func (s *sim) prolongedAll() {
	for _, q := range s.queues() {
		if q.isLoaded() {
			s.prolonged(q)
		}
	}
}

// end ends the process without a word: the power goes, or it is killed.
func (s *sim) end(power bool) {
	s.prolongedAll()
	s.life++ // no timer of it adds chores any more
	s.chores = nil
	if power {
		s.cutPower()
	} else {
		s.tracef("kill")
		s.stats.kills++
		s.kill()
	}
	s.lose()
	s.down()
}

func (s *sim) cutPower() {
	s.tracef("power cut")
	s.stats.powerCuts++
	s.fs, s.forgotten = s.fs.Crash(), false
}

// kill ends the process alone, if that can be.
func (s *sim) kill() {
	if s.forgotten {
		s.cutPower()
		return
	}
	s.fs.Kill()
}

// down lets time pass while no process runs.
func (s *sim) down() {
	if s.chance(3) {
		time.Sleep(time.Duration(s.dice.IntN(20_000)) * time.Millisecond)
	}
	if s.chance(6) {
		s.skew += time.Duration(s.dice.IntN(10_000)-5000) * time.Millisecond
	}
}

// restart ends the process in order and starts it again; sometimes a bit rots meanwhile.
func (s *sim) restart() {
	for len(s.chores) > 0 { // what goes on while the process stops
		s.doChore()
	}
	if !s.halted {
		s.restartNow()
	}
}

// restartNow is restart while chores wait, such as queues to be loaded.
func (s *sim) restartNow() {
	s.prolongedAll()
	s.tracef("stop")
	err := s.set.Close()
	if s.halted {
		return
	}
	s.prolongedAll() // of what was loaded by the stop
	clean := err == nil && !s.failing
	s.tracef("stopped: %v", err)
	s.stats.cleanStarts++
	s.life++
	s.chores = nil
	if clean {
		s.settled()
	} else {
		s.lose()
	}
	s.kill()
	s.down()
	if clean && s.chance(3) {
		s.rot()
		s.quiet = true
	}
	s.start()
	s.mend()
}

// fault decides about one operation of the disk. It draws only for those that change something or can fail in life.
func (s *sim) fault(op vfs.Op) (vfs.Failure, error) {
	s.hash.Write([]byte(op.Kind))
	s.hash.Write([]byte(op.Path))
	if s.operations++; s.operations > simOperationsMax {
		s.fail("the disk was asked %d times, and there is no end", s.operations)
	}
	switch {
	case s.halted:
		return vfs.FailBefore, vfs.ErrCrashed
	case s.haltIn > 0:
		if s.haltIn--; s.haltIn == 0 {
			s.halt(op)
			return []vfs.Failure{vfs.FailBefore, vfs.FailShort, vfs.FailAfter}[s.dice.IntN(3)], vfs.ErrCrashed
		}
	}
	if time.Now().After(s.cappedTill) { // here too: a store that is opened again tries until there is space
		s.freeSpace()
	}
	if s.quiet || s.calm || op.Kind == vfs.OpLock || op.Kind == vfs.OpClose {
		return 0, nil
	}
	opens := op.Kind == vfs.OpOpen || op.Kind == vfs.OpCreate || op.Kind == vfs.OpSyncDir || op.Kind == vfs.OpReadDir
	if opens && time.Now().Before(s.poorUntil) && s.chance(2) {
		return s.injected(op, vfs.FailBefore, syscall.EMFILE)
	}
	grows := op.Kind == vfs.OpCreate || op.Kind == vfs.OpMkdir || op.Kind == vfs.OpPreallocate || op.Kind == vfs.OpAllocate || op.Kind == vfs.OpWrite && !strings.HasSuffix(op.Path, ".journal")
	if grows && time.Now().Before(s.fullUntil) {
		return s.injected(op, vfs.FailShort, syscall.ENOSPC)
	}
	if time.Now().Before(s.sickUntil) && strings.Contains(op.Path, s.sick) && s.chance(3) {
		return s.injected(op, vfs.FailBefore, syscall.EIO)
	}
	if s.faulty == 0 || s.dice.Float64() >= s.faulty {
		return 0, nil
	}
	how := []vfs.Failure{vfs.FailBefore, vfs.FailShort, vfs.FailDropped, vfs.FailAfter, vfs.FailForgotten}[s.dice.IntN(5)]
	if how == vfs.FailForgotten && (op.Kind == vfs.OpSync || op.Kind == vfs.OpDatasync) {
		s.forgotten = true
	}
	return s.injected(op, how, syscall.EIO)
}

func (s *sim) injected(op vfs.Op, how vfs.Failure, err error) (vfs.Failure, error) {
	s.tracef("disk: %v fails, manner %d: %v", op, how, err)
	s.stats.faults++
	s.dirty = true
	return how, err
}

// fillDisk leaves little space, or none, as if somebody else had taken it.
func (s *sim) fillDisk() {
	left := int64(s.dice.IntN(100 << 10))
	if s.chance(3) {
		left = int64(s.dice.IntN(4 << 10))
	}
	s.fs.SetCapacity(max(s.fs.Used()+left, 1))
	s.cappedTill = time.Now().Add(time.Duration(s.dice.IntN(6000)) * time.Millisecond)
	s.dirty = true
	s.stats.fullDisks++
	s.tracef("disk: %d bytes are left", left)
}

// freeSpace ends a lack of space.
func (s *sim) freeSpace() {
	if !s.cappedTill.IsZero() {
		s.tracef("disk: there is space")
		s.fs.SetCapacity(0)
		s.cappedTill = time.Time{}
	}
}

// halt stops the process at an operation: nothing that it does reaches the disk any more, and it does not try for ever.
func (s *sim) halt(op vfs.Op) {
	s.tracef("disk: the process ends at %v", op)
	s.halted, s.dirty = true, true
	if s.set == nil {
		return
	}
	s.set.mu.Lock()
	defer s.set.mu.Unlock()
	if !s.set.closing {
		s.set.closing = true
		close(s.set.closed)
	}
}

// catchUp follows a step: timers that rang have added their chores, and a store that went on is looked at.
func (s *sim) catchUp() {
	synctest.Wait()
	if time.Now().After(s.cappedTill) {
		s.freeSpace()
	}
	s.mu.Lock()
	slices.SortStableFunc(s.chores, func(a, b chore) int { return strings.Compare(a.who, b.who) })
	s.mu.Unlock()
	s.hear()
	if s.reopened && !s.halted {
		s.reopened = false
		s.lose() // also what was answered in between
		quiet := s.quiet
		s.quiet = true
		s.tracef("the store goes on")
		s.learn()
		s.quiet = quiet
	}
}

// hear compares the batches that have come.
func (s *sim) hear() {
	s.tellTime()
	for _, answer := range s.answers {
		answer()
	}
	s.answers = nil
}

// doChore does one thing of the background.
func (s *sim) doChore() {
	s.catchUp()
	if len(s.chores) == 0 {
		return
	}
	i := s.dice.IntN(len(s.chores))
	c := s.chores[i]
	s.chores = slices.Delete(s.chores, i, i+1)
	s.tracef("chore: %s", c.who)
	if s.done++; s.done > simChoresMax {
		s.fail("%d things were done in the background, and there is no end", s.done)
	}
	c.do()
	s.catchUp()
}

// commit has the journal write what there is.
func (s *sim) commit() {
	if s.failing {
		return
	}
	s.tracef("commit")
	waiting := len(s.promises)
	s.committing()
	s.set.store.StepCommit()
	if !s.failing && !s.halted {
		s.committed()
		if n := len(s.promises); n > 0 && waiting > 0 {
			s.fail("a commit is done, and %d clients are not told so", n)
		}
	}
}

// work does one piece of what the store does in the background.
func (s *sim) work() {
	if s.failing || s.set.usable() != nil {
		return
	}
	switch s.dice.IntN(11) {
	case 9, 10:
		s.rewrite()
	case 8:
		s.tracef("look for space: full %v", s.set.store.StepSpace())
	case 0, 1, 2:
		s.tracef("write behind")
		s.set.store.StepWriteBehind()
	case 3, 4:
		s.checkpoint()
	case 5:
		s.set.store.StepSpare()
	case 6:
		s.tracef("heal: %d left", s.set.store.StepHeal())
	case 7:
		for _, q := range s.queues() {
			q.sweepIfDue()
		}
	}
}

func (s *sim) checkpoint() {
	s.committing()
	err := s.set.Checkpoint() // it commits what it needs
	s.tracef("checkpoint: %v", err)
	if err == nil && !s.failing && !s.halted {
		s.committed()
	}
}

// rewrite gives back space of messages that are gone. It would commit what it needs, and nobody could tell how much that was.
func (s *sim) rewrite() {
	if s.commit(); s.failing || s.halted || s.set.usable() != nil {
		return
	}
	before := s.set.store.Stats()
	s.set.store.StepRewrite(s.dice.IntN(4) == 0)
	after := s.set.store.Stats()
	s.tracef("rewrite: %d steps, %d bytes freed, %v", after.Rewrites-before.Rewrites, after.RewriteFreedBytes-before.RewriteFreedBytes, after.RewriteErr)
	s.stats.rewrites += int(after.Rewrites - before.Rewrites)
}

// queues are those of this moment, in order.
func (s *sim) queues() []*queue { return inOrder(s.set.byLife) }

// rotted is one flipped bit, with what its sector looked like afterwards.
type rotted struct {
	file   string
	offset int64
	bit    uint
	sector []byte
}

// rot flips a bit somewhere in the data directory.
func (s *sim) rot() {
	var files []string
	s.walk(simDataDir, &files)
	if len(files) == 0 {
		return
	}
	r := rotted{file: files[s.dice.IntN(len(files))], bit: uint(s.dice.IntN(8))}
	data := s.content(r.file)
	if len(data) == 0 {
		return
	}
	r.offset = int64(s.dice.IntN(len(data)))
	if err := s.fs.Rot(r.file, r.offset, r.bit); err != nil {
		return // not synced: the next start writes it anew
	}
	r.sector = s.sector(&r)
	s.rotten, s.rotHere = true, r
	s.stats.rots++
	s.tracef("rot: bit %d of byte %d of %s", r.bit, r.offset, r.file)
}

func (s *sim) walk(dir string, files *[]string) {
	entries, err := s.fs.ReadDir(dir)
	if err != nil {
		s.fail("read %s: %v", dir, err)
	}
	for _, e := range entries {
		if path := dir + "/" + e.Name(); e.IsDir() {
			s.walk(path, files)
		} else {
			*files = append(*files, path)
		}
	}
}

func (s *sim) content(file string) []byte {
	f, err := s.fs.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	data := make([]byte, info.Size())
	n, _ := f.ReadAt(data, 0)
	return data[:n]
}

func (s *sim) sector(r *rotted) []byte {
	data := s.content(r.file)
	from := r.offset / 512 * 512
	if from >= int64(len(data)) {
		return nil
	}
	return slices.Clone(data[from:min(from+512, int64(len(data)))])
}

// mend flips a rotten bit back, as one restores a backup: with the process stopped. A sector that was written since is left alone.
func (s *sim) mend() {
	if !s.rotten {
		return
	}
	running := s.set != nil
	if running {
		s.quiet = true
		s.set.Close()
		s.life++
		s.chores = nil
		s.kill()
		s.lose()
	}
	if now := s.sector(&s.rotHere); now != nil && slices.Equal(now, s.rotHere.sector) {
		if err := s.fs.Rot(s.rotHere.file, s.rotHere.offset, s.rotHere.bit); err != nil {
			s.fail("mend: %v", err)
		}
	}
	s.tracef("mended")
	s.rotten = false
	if running {
		s.start()
	}
}

// isWALError: the log failed, or the store.
func isWALError(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == "WALERR"
}

func (s *sim) explain(err error, allowed ...string) bool {
	switch {
	case err == nil:
		return false
	case codeOf(err) == "LOADING" && s.set.LoadingQueues() > 0:
	case slices.Contains(allowed, codeOf(err)):
	case isWALError(err) && (s.halted || s.failing || s.dirty || s.rotten):
	default:
		s.fail("%v", err)
	}
	return true
}
