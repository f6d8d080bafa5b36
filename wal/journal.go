package wal

// The commit journal: the one place where durability is paid for. Commits of all queues gather in a group while the
// group before it is being written and synced; then they go to the disk in one write and one fdatasync. So a thousand
// connections, or a pipeline of a thousand pushes, or a thousand queues share a sync.
//
// Files are preallocated, zeroed and recycled, so that a sync has no metadata to commit. group.go draws their bytes,
// scan.go reads them back.

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"quail/wal/record"
	"quail/wal/vfs"
)

const (
	// chunkBytes is the size of the buffers that small records are encoded into. A record that the queue log has not
	// taken over yet keeps its chunk alive, so larger chunks would pin more memory for a slow queue.
	chunkBytes = 64 << 10
	// largeBytes is where a commit gets a buffer of its own, encoded before the journal is locked.
	largeBytes = 8 << 10
	// scratchBytesMax is how much of the write buffer is kept from one group to the next.
	scratchBytesMax = 4 << 20
	// soonDelay is how long records that need not hurry may wait for others, and at most once more.
	soonDelay = time.Millisecond
	// endMarkDelay is how long the journal waits for the next group before it writes an empty one behind the last.
	endMarkDelay = 2 * time.Millisecond
)

// errClosed is what a commit gets after Close.
var errClosed = errors.New("the journal is closed")

type journalConfig struct {
	fs        vfs.FS
	dir       string
	id        storeID
	fileBytes int64
	// spareFilesMax bounds how many recycled files are kept.
	spareFilesMax int
	// clock is the server clock in milliseconds; every group carries it.
	clock func() int64
	// begun is told of each file's first durable group.
	begun *begunNote
	// noSync leaves fdatasync out. It exists so that the power-cut test can show that it would notice.
	noSync bool
	// stepped starts no goroutine; see Config.Stepped.
	stepped bool
	// committed is called after each durable group, when its Future is done, so that the background writer it wakes finds
	// the group durable; failed once, when the journal breaks.
	committed func()
	failed    func(error)
	// space is told when there is none for another file; nil in tests.
	space *space
}

// journalFile is one file of the ring that holds groups.
type journalFile struct {
	path       string
	bytes      int64
	sequence   uint64
	firstGroup uint64 // 0 until its first group is written
	after      uint64 // see fileHeader
}

// haste is how quickly a commit shall be durable.
type haste uint8

const (
	atOnce haste = iota // somebody waits
	shared              // who waits may be Patient
	soon                // nobody waits
)

// filling is the group that commits are added to.
type filling struct {
	kicked  bool // the writing goroutine was woken for it
	urgent  bool // it has records that shall be durable at once
	shared  bool // it has records of haste shared
	due     bool // its records have waited for others long enough
	future  *Future
	runs    [][]byte // records in order; a run is one or more of them, contiguous in memory
	bytes   int
	records uint32
	sum     groupSum
}

// journal is safe for concurrent use. One goroutine writes.
type journal struct {
	cfg  journalConfig
	kick chan struct{} // there is something to write
	done chan struct{} // the writing goroutine has ended

	mu       sync.Mutex // guards the fields below; never held during IO
	cur      *filling
	holds    int    // that are not released: commits wake nobody meanwhile
	soonFor  uint64 // the group that wakeSoon was asked for; 0 if it will not be called
	overrun  bool   // ... but somebody waits for the disk in between, so they do
	chunk    []byte // where small records are encoded; runs and queue logs share its memory
	runStart int    // where cur's last run begins in chunk, if runInChunk
	inChunk  bool
	next     uint64 // number of the next group to be taken
	failure  error  // sticky
	closed   bool

	durable atomic.Uint64 // number of the last durable group
	begun   atomic.Uint64 // sequence of the newest file that has a durable header
	written atomic.Int64  // bytes written to the journal since it was opened
	syncs   syncTimes

	filesMu sync.Mutex // guards files and spares; never held during IO
	files   []journalFile
	spares  []string // prepared or recycled, all of cfg.fileBytes
	used    atomic.Int64
	nameSeq int
	preps   chan struct{} // asks for a spare to be prepared
	// preparing has room for who prepares a spare: whoever needs it meanwhile waits for it, instead of zeroing another one.
	preparing chan struct{}
	running   sync.WaitGroup

	writer   sync.Mutex // held by whoever writes a group, also during IO; guards the rest
	unmarked bool       // the last group has no end mark behind it
	// lastGroup is when it was written.
	lastGroup time.Time
	file      vfs.File
	pos       int64
	size      int64
	sequence  uint64
	scratch   []byte
	// mark is the end mark in front of pos that nothing has synced. The next group in this file writes it once more: a disk may keep it in
	// its cache while it writes what is behind it, and a hole in front of a durable group is damage.
	mark []byte
}

// newJournal starts the writing goroutine. end says where recovery found the end; the first group goes into a new file.
func newJournal(cfg journalConfig, end journalEnd) *journal {
	j := &journal{
		cfg: cfg, kick: make(chan struct{}, 1), done: make(chan struct{}),
		preps: make(chan struct{}, 1), preparing: make(chan struct{}, 1), cur: newFilling(), next: end.lastGroup + 1, sequence: end.lastSequence,
		files: end.files, spares: end.spares, nameSeq: end.nameMax,
	}
	j.durable.Store(end.lastGroup)
	j.begun.Store(end.lastSequence)
	for _, f := range j.files {
		j.used.Add(f.bytes)
	}
	if !cfg.stepped {
		j.running.Go(j.prepareSpares)
		go j.write()
	}
	return j
}

func newFilling() *filling { return &filling{future: NewFuture()} }

// commit adds recs to the group that is filling, all or none, and appends each record's encoded bytes to raws. The bytes
// stay valid and must not be changed. It never waits for the disk. After a failure it returns no bytes and a failed Future.
func (j *journal) commit(recs []record.Record, raws [][]byte) ([][]byte, *Future) {
	return j.add(recs, raws, atOnce)
}

// add is commit. What need not hurry goes with the next group that must, or with one of its own after soonDelay.
func (j *journal) add(recs []record.Record, raws [][]byte, how haste) ([][]byte, *Future) {
	if len(recs) == 0 {
		return nil, nil // nothing would ever complete a Future
	}
	size := 0
	for i := range recs {
		size += recs[i].Size()
	}
	var own []byte
	if size >= largeBytes {
		own = make([]byte, 0, size)
		own, raws = encode(own, recs, raws)
	}
	j.mu.Lock()
	if err := j.refusal(); err != nil {
		j.mu.Unlock()
		f := NewFuture()
		f.Complete(err)
		return nil, f
	}
	g := j.cur
	if own != nil {
		g.runs = append(g.runs, own)
		j.inChunk = false
	} else {
		raws = j.encodeInChunk(g, recs, raws, size)
	}
	for _, raw := range raws[len(raws)-len(recs):] {
		g.sum = g.sum.add(raw)
	}
	wake := how != soon && !g.kicked && (j.holds == 0 || j.overrun)
	g.kicked, g.urgent, g.shared = g.kicked || wake, g.urgent || how == atOnce, g.shared || how == shared
	if how == soon && !g.kicked && j.soonFor == 0 {
		j.wakeLater()
	}
	g.bytes += size
	g.records += uint32(len(recs))
	f := g.future
	j.mu.Unlock()
	if wake {
		j.wake()
	}
	return raws, f
}

func encode(dst []byte, recs []record.Record, raws [][]byte) ([]byte, [][]byte) {
	for i := range recs {
		start := len(dst)
		dst = record.Append(dst, &recs[i])
		raws = append(raws, dst[start:len(dst):len(dst)])
	}
	return dst, raws
}

// encodeInChunk is called with mu held. Encoding 100 bytes takes less time than handing a buffer over.
func (j *journal) encodeInChunk(g *filling, recs []record.Record, raws [][]byte, size int) [][]byte {
	if cap(j.chunk)-len(j.chunk) < size {
		j.chunk = make([]byte, 0, chunkBytes)
		j.inChunk = false
	}
	if !j.inChunk {
		j.runStart, j.inChunk = len(j.chunk), true
		g.runs = append(g.runs, nil)
	}
	j.chunk, raws = encode(j.chunk, recs, raws)
	g.runs[len(g.runs)-1] = j.chunk[j.runStart:]
	return raws
}

// refusal is why nothing can be committed now, or nil. Called with mu held.
func (j *journal) refusal() error {
	if j.failure != nil {
		return j.failure
	}
	if j.closed {
		return errClosed
	}
	return nil
}

func (j *journal) wake() {
	select {
	case j.kick <- struct{}{}:
	default:
	}
}

// nextGroup is a number such that every record committed before this call is in a lower group, or in that one or a later
// one only if it was committed to the group that is filling now. A state taken after this call therefore covers all lower ones.
func (j *journal) nextGroup() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next
}

// take hands the filled group to the writer, or nil if it is empty.
func (j *journal) take() (g *filling, number uint64, closed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.cur.records == 0 {
		return nil, 0, j.closed || j.failure != nil
	}
	g, number = j.cur, j.next
	j.cur = newFilling()
	j.inChunk = false
	j.next++
	return g, number, false
}

// wakeLater is called with mu held.
func (j *journal) wakeLater() {
	j.soonFor = j.next
	time.AfterFunc(soonDelay, j.wakeSoon)
}

// wakeSoon has records written that did not hurry, if they still wait. A hold is left alone, since its release writes them: a group
// taken in the middle of a round makes the round's rest wait for two syncs.
func (j *journal) wakeSoon() {
	j.mu.Lock()
	isThis := j.soonFor == j.next
	j.soonFor = 0
	wake := false
	switch {
	case j.cur.records == 0 || j.cur.kicked:
	case !isThis: // those that it was set for went with others; these have only come
		j.wakeLater()
	default:
		j.cur.due, wake = true, j.holds == 0
	}
	j.mu.Unlock()
	if wake {
		j.wake()
	}
}

// canWait reports whether g, which is or was filling, may be left to share the sync of the next commit that hurries. Called
// without mu: who waits is asked, and may be under a lock that commits are made under.
func (j *journal) canWait(g *filling) bool {
	j.mu.Lock()
	hurries, isAsked := g.urgent || g.kicked || g.due, g.shared
	j.mu.Unlock()
	if hurries {
		return false
	}
	if patient, waiters := g.future.patience(); !patient || isAsked && waiters == 0 { // those who asked have yet to say that they wait
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.cur == g && j.soonFor == 0 {
		j.wakeLater()
	}
	return true
}

// hold lets the commits of a round gather: they wake nobody until release.
func (j *journal) hold() {
	j.mu.Lock()
	j.holds++
	j.mu.Unlock()
}

// release ends a hold and commits what has gathered on the caller's goroutine: handing it to another one would cost two
// switches between threads, more than all else that a small commit takes. If a group is being written just now, the writing
// goroutine takes this one too. The waiters of the group are told on the goroutine that commits.
func (j *journal) release() {
	j.mu.Lock()
	j.holds--
	if j.holds == 0 {
		j.overrun = false
	}
	pending, last := j.cur.records > 0, j.cur // also those of other holds: were they left to the last one, holds that overlap for ever would starve all
	j.mu.Unlock()
	if pending && j.canWait(last) {
		return
	}
	switch {
	case !j.writer.TryLock():
		if pending {
			j.wake()
		}
	case pending:
		defer j.writer.Unlock()
		if g, number, _ := j.take(); g != nil && !j.commitGroup(g, number) {
			j.wake() // the writing goroutine ends
		}
	default:
		late := j.unmarked && time.Since(j.lastGroup) > endMarkDelay
		j.writer.Unlock()
		if late {
			j.wake()
		}
	}
}

// ignoreHolds makes commits wake the writing goroutine in spite of holds, until the last is released: somebody is about to
// wait for the disk, maybe who holds.
func (j *journal) ignoreHolds() {
	j.mu.Lock()
	j.overrun = j.holds > 0
	j.mu.Unlock()
	j.wake()
}

// write is the committer's loop: one group, one write, one sync.
func (j *journal) write() {
	defer close(j.done)
	defer j.cfg.begun.close()
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	for {
		switch j.writeNext() {
		case nextNever:
			return
		case nextKicked:
			<-j.kick
		case nextMark:
			timer.Reset(endMarkDelay)
			select {
			case <-j.kick:
				timer.Stop()
			case <-timer.C:
				j.markEnd()
			}
		}
	}
}

// nextWrite is when the committer looks for a group again.
type nextWrite uint8

const (
	nextNow    nextWrite = iota // it has just written one
	nextKicked                  // when it is woken: there is nothing to write
	nextMark                    // the same, but the last group has no end mark yet
	nextNever                   // the journal has failed or is closed
)

// writeNext writes one group if there is one.
func (j *journal) writeNext() nextWrite {
	j.writer.Lock()
	defer j.writer.Unlock()
	g, number, closed := j.take()
	switch {
	case g != nil:
		if !j.commitGroup(g, number) {
			j.closeFile()
			return nextNever
		}
		return nextNow
	case closed:
		if j.unmarked && j.sound() {
			j.endMark()
		}
		j.closeFile()
		return nextNever
	case j.unmarked:
		return nextMark
	}
	return nextKicked
}

// sound reports whether the journal has not failed.
func (j *journal) sound() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failure == nil
}

// markEnd writes an end mark unless a group came meanwhile.
func (j *journal) markEnd() {
	j.writer.Lock()
	defer j.writer.Unlock()
	if j.unmarked && j.sound() {
		j.unmarked = !j.endMark()
	}
}

// commitGroup reports whether the journal may go on. Called with writer held, as all below it.
func (j *journal) commitGroup(g *filling, number uint64) bool {
	durably := !j.cfg.noSync
	err := j.put(g, number, 0, durably)
	if err == nil && j.begun.Load() != j.sequence {
		err = j.cfg.begun.write(j.sequence)
	}
	if err != nil {
		j.unmarked = false
		j.fail(err, g)
		return false
	}
	j.durable.Store(number)
	j.begun.Store(j.sequence)
	j.unmarked, j.lastGroup = true, time.Now()
	g.future.Complete(nil)
	if j.cfg.committed != nil {
		j.cfg.committed()
	}
	return true
}

// endMark writes an empty group behind the last one and does not wait for it: if it is there after a restart, the
// last real group was complete, and damage in it is rot, not a tear.
func (j *journal) endMark() bool {
	if j.file == nil || j.size-j.pos < groupSpan(0) {
		return true // the next file's header says the same
	}
	j.mu.Lock()
	if j.cur.records > 0 {
		j.mu.Unlock()
		return true
	}
	number := j.next
	j.next++
	j.mu.Unlock()
	if err := j.put(newFilling(), number, flagEndMark, false); err != nil {
		j.fail(err, nil)
		return false
	}
	return true // durable stays: nothing has synced this group, so no later file may rely on it
}

// put writes one group where the last one ended, or at the start of the next file.
func (j *journal) put(g *filling, number uint64, flags uint16, durably bool) error {
	span := groupSpan(g.bytes)
	at := j.pos
	fresh := j.file == nil || j.size-j.pos < span
	if fresh {
		if err := j.rotate(span); err != nil {
			return err
		}
		at = 0
	}
	buf := j.scratch[:0]
	if need := int(span) + 2*blockBytes; cap(buf) < need {
		buf = vfs.DirectBuffer(need + need/4)
	}
	durable, clock := j.durable.Load(), j.cfg.clock()
	if fresh {
		buf = append(buf, make([]byte, blockBytes)...)
		j.mark = nil // the header says where the file before ends
		fileHeader{sequence: j.sequence, firstGroup: number, after: durable, clockMillis: clock, blocks: uint32(j.size / blockBytes)}.put(buf, j.cfg.id)
	}
	if durably && j.mark != nil {
		buf = append(buf, j.mark...)
		at -= int64(len(j.mark))
	}
	start := len(buf)
	buf = append(buf, make([]byte, groupHeaderBytes)...)
	h := groupHeader{number: number, durable: durable, clockMillis: clock, bytes: uint64(g.bytes), records: g.records,
		sequence: uint32(j.sequence), flags: flags}
	h.put(buf[start:], j.cfg.id)
	header := start
	for _, run := range g.runs {
		buf = append(buf, run...)
	}
	end := len(buf)
	buf = append(buf, make([]byte, int(span)-(end-start))...)
	putEndMark(buf[end:], number, g.sum.close(buf[header:]))
	if cap(buf) <= scratchBytesMax {
		j.scratch = buf
	} else {
		j.scratch = nil
	}
	var n int
	var err error
	if durably {
		began := time.Now()
		n, err = vfs.WriteDurably(j.file, buf, at)
		j.syncs.add(time.Since(began))
	} else {
		n, err = j.file.WriteAt(buf, at)
	}
	if err != nil || n != len(buf) {
		return fmt.Errorf("write group %d to journal file %s at %d: %d of %d bytes: %w", number, j.file.Name(), at, n, len(buf), errOrShort(err))
	}
	j.pos = at + int64(len(buf))
	j.mark = nil
	if flags&flagEndMark != 0 {
		j.mark = bytes.Clone(buf)
	}
	j.written.Add(int64(len(buf)))
	j.cfg.space.takes(int64(len(buf)))
	if fresh {
		j.filesMu.Lock()
		newest := &j.files[len(j.files)-1]
		newest.firstGroup, newest.after = number, durable
		j.filesMu.Unlock()
	}
	return nil
}

func errOrShort(err error) error {
	if err == nil {
		return errors.New("short write")
	}
	return err
}

// fail makes the failure sticky: this group and all that were decided on its state are lost together. A failed sync is
// never retried, because the kernel may have dropped the pages and would report success.
func (j *journal) fail(err error, g *filling) {
	j.mu.Lock()
	j.failure = err
	pending := j.cur
	j.cur = newFilling()
	j.mu.Unlock()
	if j.cfg.failed != nil {
		j.cfg.failed(err)
	}
	if g != nil {
		g.future.Complete(err)
	}
	pending.future.Complete(err)
}

// rotate makes the next file current: a spare one, or a larger one made now if span does not fit.
func (j *journal) rotate(span int64) error {
	j.closeFile()
	size := j.cfg.fileBytes
	var path string
	if need := span + blockBytes; need > size {
		size = need
		var err error
		if path, err = j.prepareNow(size); err != nil {
			return err
		}
	} else {
		var err error
		if path, err = j.takeSpare(); err != nil {
			return err
		}
	}
	f, err := j.cfg.fs.OpenFile(path, os.O_RDWR|vfs.Direct, 0o640)
	if err != nil {
		return fmt.Errorf("open journal file: %w", err)
	}
	j.sequence++
	j.file, j.pos, j.size = f, 0, size
	j.filesMu.Lock()
	j.files = append(j.files, journalFile{path: path, bytes: size, sequence: j.sequence})
	j.filesMu.Unlock()
	j.used.Add(size)
	return nil
}

func (j *journal) closeFile() {
	if j.file != nil {
		j.file.Close()
		j.file = nil
	}
}

// takeSpare makes a file on the spot only if the preparing goroutine has not kept up.
func (j *journal) takeSpare() (string, error) {
	defer j.askSpare()
	if path := j.popSpare(); path != "" {
		return path, nil
	}
	j.preparing <- struct{}{}
	defer func() { <-j.preparing }()
	if path := j.popSpare(); path != "" {
		return path, nil
	}
	return j.prepareNow(j.cfg.fileBytes)
}

// popSpare takes a spare file if there is one.
func (j *journal) popSpare() (path string) {
	j.filesMu.Lock()
	defer j.filesMu.Unlock()
	if n := len(j.spares); n > 0 {
		path = j.spares[n-1]
		j.spares = j.spares[:n-1]
	}
	return path
}

// prepareNow is prepare for a file that is needed now: it may take the reserve's space.
func (j *journal) prepareNow(size int64) (string, error) {
	path, err := j.prepare(size)
	if err != nil && j.cfg.space.spent(err) {
		path, err = j.prepare(size)
	}
	return path, err
}

func (j *journal) askSpare() {
	select {
	case j.preps <- struct{}{}:
	default:
	}
}

// prepareSpares keeps one file ready, so that the committer does not wait for 16 MB of zeros.
func (j *journal) prepareSpares() {
	j.askSpare()
	for {
		select {
		case <-j.done:
			return
		case <-j.preps:
		}
		j.prepareSpare()
	}
}

// prepareSpare makes a spare if there is none. An error is no failure yet: the writer tries itself when it needs the file, and reports that.
func (j *journal) prepareSpare() {
	j.preparing <- struct{}{}
	defer func() { <-j.preparing }()
	j.filesMu.Lock()
	enough := len(j.spares) > 0
	j.filesMu.Unlock()
	if enough {
		return
	}
	path, err := j.prepare(j.cfg.fileBytes)
	j.cfg.space.short(err)
	if err == nil {
		j.filesMu.Lock()
		j.spares = append(j.spares, path)
		j.filesMu.Unlock()
	}
}

// prepare makes a zeroed file of size bytes, durable under its name before it is used.
func (j *journal) prepare(size int64) (string, error) {
	j.filesMu.Lock()
	j.nameSeq++
	path := filepath.Join(j.cfg.dir, fmt.Sprintf("%08d.journal", j.nameSeq))
	j.filesMu.Unlock()
	temp := path + ".tmp"
	err := func() error {
		f, err := j.cfg.fs.OpenFile(temp, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o640)
		if err != nil {
			return err
		}
		if err := f.Preallocate(size); err != nil {
			f.Close()
			return err
		}
		if err := f.Sync(); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		if err := j.cfg.fs.Rename(temp, path); err != nil {
			return err
		}
		return j.cfg.fs.SyncDir(j.cfg.dir)
	}()
	if err != nil {
		j.cfg.fs.Remove(temp) // a leftover would only take space; the next start removes it too
		return "", fmt.Errorf("prepare journal file %s of %d bytes: %w", path, size, err)
	}
	return path, nil
}

// recycle gives back the files whose groups are all below firstNeeded. A checkpoint has made them useless.
func (j *journal) recycle(firstNeeded uint64) {
	var drop []string
	j.filesMu.Lock()
	for len(j.files) > 1 && j.files[1].firstGroup != 0 && j.files[1].firstGroup <= firstNeeded {
		f := j.files[0]
		j.files = j.files[1:]
		j.used.Add(-f.bytes)
		if f.bytes == j.cfg.fileBytes && len(j.spares) < j.cfg.spareFilesMax {
			j.spares = append([]string{f.path}, j.spares...)
		} else {
			drop = append(drop, f.path)
		}
	}
	j.filesMu.Unlock()
	for _, path := range drop {
		j.cfg.fs.Remove(path) // if it stays, the next start finds it below the checkpoint and reuses it
	}
}

// full reports whether the ring takes more than limit bytes and a checkpoint can do something about it. The file that is
// being written can never be recycled: a single one that a huge group made larger than the limit must not stop everything.
func (j *journal) full(limit int64) bool {
	if j.used.Load() <= limit {
		return false
	}
	j.filesMu.Lock()
	defer j.filesMu.Unlock()
	return len(j.files) > 1
}

// close commits what is pending and ends the writing goroutine. The error is the sticky failure, if there was one.
func (j *journal) close() error {
	j.mu.Lock()
	j.closed = true
	err := j.failure
	j.mu.Unlock()
	if j.cfg.stepped {
		for j.writeNext() != nextNever {
		}
		j.cfg.begun.close()
	} else {
		j.wake()
		<-j.done
		j.running.Wait()
	}
	if err == nil {
		j.mu.Lock()
		err = j.failure
		j.mu.Unlock()
	}
	return err
}
