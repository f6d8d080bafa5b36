package seglog

// What the two implementations share: which segments there are, what of them is synced, and the error that ended the
// log. Only the writing itself is behind the writer interface, because tidwall/wal does that with its own file calls.

import (
	"fmt"
	"path/filepath"
	"sort"
	"sync"

	"quail/wal/record"
	"quail/wal/vfs"
)

const (
	// appendBytes is how much goes to the writer at once, so that a large Append does not need its size again in memory.
	appendBytes = 1 << 20
	// markBytes is the distance of marks in a segment: a read that starts anywhere skips at most so much, and one record.
	markBytes = 16 << 10
	// markedMax is how many segments keep marks: those written or read last. At 1 MB a segment, that is 128 KB of marks, and more than
	// is written between two checkpoints: what is rewritten then is found by them.
	markedMax = 128
	// positionsMax is how many ends of reads are remembered, so that as many sequential readers skip nothing.
	positionsMax = 8
)

// writer puts records into the tail segment and begins a new one when it is full.
type writer interface {
	// append writes records, the first of which has the given LSN, by the rule that layout mirrors.
	append(lsn uint64, records [][]byte) error
	// close gives up the tail's descriptor.
	close() error
	// reopen takes up the tail, at first and after close: it is the last segment in the directory, and ends with LSN last.
	reopen(tail *segment, last uint64) error
}

// segment is one segment file. Its fields but first are guarded by core.mu.
type segment struct {
	first  uint64 // LSN of its first record: its name
	size   int64  // bytes that hold records
	synced int64  // bytes of them that are durable
	marks  []mark // rising; some places where records begin
	gone   bool   // it is not in core.segments any more

	// Of a rewritten segment; zero in others. See rewrite.go.
	span      span
	records   int   // how many it still holds
	bodyBytes int64 // of their bodies
}

// mark is a place where a record begins.
type mark struct {
	lsn    uint64
	offset int64
}

// mark remembers a place if it is far enough behind the last one.
func (s *segment) mark(lsn uint64, offset int64) {
	last := int64(0)
	if n := len(s.marks); n > 0 {
		last = s.marks[n-1].offset
	}
	if offset >= last+markBytes {
		s.marks = append(s.marks, mark{lsn, offset})
	}
}

// before is the last known place at or before a record.
func (s *segment) before(lsn uint64) mark {
	i := sort.Search(len(s.marks), func(i int) bool { return s.marks[i].lsn > lsn })
	if i == 0 {
		return mark{s.first, s.begin()}
	}
	return s.marks[i-1]
}

// core is a Log over a writer.
type core struct {
	cfg Config
	out writer

	// Locks are taken in this order.
	syncMu  sync.Mutex   // one Sync, CutFront or Close at a time: no file goes while it is being synced
	writeMu sync.Mutex   // one user of out at a time
	mu      sync.RWMutex // guards all below; never held during IO

	segments []*segment // at least one; rising, without a gap
	last     uint64
	newNames bool // segments were created since the directory was last synced
	writing  bool // out has taken up the tail; only who holds writeMu changes it
	removed  int  // segments removed since out was opened
	failed   error
	closed   bool
	stray    error // why a file of a failed Rewrite is still there; nothing is rewritten then

	marked    []*segment // those with marks, oldest first
	positions [positionsMax]position
	position  int // the next one to replace
}

// position is where a read ended.
type position struct {
	seg *segment
	mark
}

// open is Open with the given writer.
func open(cfg Config, first, last uint64, newWriter func(Config) writer) (Log, Report, error) {
	first = max(first, 1)
	if last+1 < first {
		return nil, Report{}, fmt.Errorf("open log %s: no log can reach from LSN %d to %d", cfg.Dir, first, last)
	}
	if cfg.SegmentBytes <= 0 {
		cfg.SegmentBytes = SegmentBytesDefault
	}
	p, err := inspect(cfg, first, last)
	if err != nil {
		return nil, Report{}, err
	}
	report, err := p.repair(cfg)
	if err != nil {
		return nil, report, err
	}
	c := &core{cfg: cfg, out: newWriter(cfg), segments: p.segments, last: last}
	if tail := c.tail(); len(tail.marks) > 0 {
		c.marked = append(c.marked, tail)
	}
	return c, report, nil
}

func (c *core) tail() *segment { return c.segments[len(c.segments)-1] }

func (c *core) path(s *segment) string { return filepath.Join(c.cfg.Dir, s.name()) }

// First implements Log.
func (c *core) First() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.segments[0].first
}

// Last implements Log.
func (c *core) Last() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.last
}

// Stats implements Log.
func (c *core) Stats() Stats {
	c.mu.RLock()
	defer c.mu.RUnlock()
	stats := Stats{Segments: len(c.segments)}
	for _, s := range c.segments {
		stats.Bytes += s.size
		if s.span.rewritten() {
			stats.Rewritten++
		}
	}
	if c.writing {
		stats.TailBytes = c.tail().size
	}
	return stats
}

// err is why the log cannot be used, or nil.
func (c *core) err() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.unusable()
}

func (c *core) unusable() error {
	if c.failed == nil && c.closed {
		return ErrClosed
	}
	return c.failed
}

// fail ends the log, with the first error that does so, and returns that.
func (c *core) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		c.failed = err
	}
	return c.failed
}

// Prepare implements Log.
func (c *core) Prepare() error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return c.prepare()
}

// prepare has the writer take up the tail, for the first Append: who only reads pays neither the memory nor the time.
func (c *core) prepare() error {
	c.mu.RLock()
	err, writing, tail, last := c.unusable(), c.writing, c.tail(), c.last
	c.mu.RUnlock()
	if err != nil || writing {
		return err
	}
	if err := c.out.reopen(tail, last); err != nil {
		_ = c.out.close() // what counts is why it cannot be opened
		if vfs.OutOfDescriptors(err) {
			return err // the log is as good as before
		}
		return c.fail(err)
	}
	c.mu.Lock()
	c.writing = true
	c.mu.Unlock()
	return nil
}

// Append implements Log.
func (c *core) Append(records [][]byte) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.prepare(); err != nil {
		return err
	}
	lsn := c.Last() + 1
	if err := c.verify(lsn, records); err != nil {
		return c.fail(fmt.Errorf("append to %s: %w", c.cfg.Dir, err))
	}
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && (n == 0 || size+len(records[n]) <= appendBytes) {
			size += len(records[n])
			n++
		}
		if err := c.out.append(lsn, records[:n]); err != nil {
			return c.fail(fmt.Errorf("append to %s from LSN %d: %w", c.cfg.Dir, lsn, err))
		}
		c.appended(records[:n])
		lsn += uint64(n)
		records = records[n:]
	}
	return nil
}

// verify checks what can be checked without reading the bodies. A record that does not fit is a mistake of the caller,
// and writing on after it would put it on disk.
func (c *core) verify(lsn uint64, records [][]byte) error {
	for i, rec := range records {
		n, err := record.Length(rec)
		if err != nil {
			return fmt.Errorf("LSN %d: %w", lsn+uint64(i), err)
		}
		if n != len(rec) {
			return fmt.Errorf("LSN %d: record of %d bytes says that it has %d", lsn+uint64(i), len(rec), n)
		}
		if view := record.View(rec); view.LSN != lsn+uint64(i) || view.Incarnation != c.cfg.Incarnation {
			return fmt.Errorf("LSN %d, incarnation %d: got LSN %d, incarnation %d",
				lsn+uint64(i), c.cfg.Incarnation, view.LSN, view.Incarnation)
		}
	}
	return nil
}

// appended publishes records that were written. It mirrors the writer's rule, which is tidwall/wal's: before a write, a
// tail larger than a full segment is ended; after each record, one as large.
func (c *core) appended(records [][]byte) {
	full := int64(c.cfg.SegmentBytes)
	c.mu.Lock()
	defer c.mu.Unlock()
	tail := c.tail()
	if tail.size > full {
		tail = c.addSegment()
	}
	for _, rec := range records {
		c.mark(tail, c.last+1, tail.size)
		tail.size += int64(prefixLen(len(rec)) + len(rec))
		c.last++
		if tail.size >= full {
			tail = c.addSegment()
		}
	}
}

func (c *core) addSegment() *segment {
	s := &segment{first: c.last + 1}
	c.segments = append(c.segments, s)
	c.newNames = true
	return s
}

// mark adds to a segment's marks, and drops those of another segment if too many have some. The caller holds mu.
func (c *core) mark(s *segment, lsn uint64, offset int64) {
	if s.gone {
		return
	}
	had := len(s.marks)
	s.mark(lsn, offset)
	if had > 0 || len(s.marks) == 0 {
		return
	}
	if len(c.marked) == markedMax {
		c.marked[0].marks = nil
		c.marked = append(c.marked[:0], c.marked[1:]...)
	}
	c.marked = append(c.marked, s)
}

// Sync implements Log. It runs beside Append: neither waits for the other's IO, but for one thing. tidwall/wal syncs a
// segment that becomes full, and the kernel reports a lost write to one descriptor only; if that was tidwall/wal's, in
// an Append that still runs, then only the Append's error tells. So Sync asks for it at the end.
func (c *core) Sync() error {
	c.syncMu.Lock()
	defer c.syncMu.Unlock()
	if err := c.err(); err != nil {
		return err
	}
	dirty, newNames := c.unsynced()
	if err := c.syncAll(dirty, newNames); err != nil {
		err = fmt.Errorf("sync log: %w", err)
		if !vfs.OutOfDescriptors(err) {
			return c.fail(err)
		}
		c.mu.Lock()
		c.newNames = c.newNames || newNames
		c.mu.Unlock()
		return err
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.unusable(); err != nil {
		return err
	}
	for _, d := range dirty {
		d.seg.synced = d.size
	}
	return nil
}

func (c *core) syncAll(dirty []dirtySegment, newNames bool) error {
	for _, d := range dirty {
		if err := c.syncSegment(d.seg, d.size); err != nil {
			return err
		}
	}
	if newNames {
		return c.cfg.FS.SyncDir(c.cfg.Dir)
	}
	return nil
}

// dirtySegment is a segment with the size up to which it shall be durable.
type dirtySegment struct {
	seg  *segment
	size int64
}

// unsynced lists what must be synced now.
func (c *core) unsynced() (dirty []dirtySegment, newNames bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.segments) - 1; i >= 0; i-- {
		// Every segment before a synced one is synced too, except that an empty one tells nothing.
		if s := c.segments[i]; s.synced < s.size {
			dirty = append(dirty, dirtySegment{s, s.size})
		} else if s.size > 0 {
			break
		}
	}
	newNames, c.newNames = c.newNames, false
	return dirty, newNames
}

// syncSegment syncs a segment on a descriptor of its own, since tidwall/wal's Sync would hold its lock meanwhile. The
// descriptor is opened by name each time: one that is kept goes stale when the file is replaced, and then its sync
// succeeds and protects nothing. A write that was lost before it was opened is reported to it nevertheless, as long as
// nobody was told and the inode stays in memory, which the writer's own descriptor sees to.
func (c *core) syncSegment(s *segment, size int64) (err error) {
	f, err := c.cfg.FS.Open(c.path(s))
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < size {
		return fmt.Errorf("%s has %d bytes, %d were written", f.Name(), info.Size(), size)
	}
	return f.Sync()
}

// Close implements Log.
func (c *core) Close() error {
	c.syncMu.Lock()
	defer c.syncMu.Unlock()
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.mu.Lock()
	closed, failed := c.closed, c.failed
	c.closed = true
	c.mu.Unlock()
	if closed {
		return failed
	}
	if err := c.out.close(); err != nil {
		return c.fail(fmt.Errorf("close log %s: %w", c.cfg.Dir, err))
	}
	return failed
}
