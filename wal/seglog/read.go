package seglog

// Reading, on descriptors of its own: tidwall/wal's Read checks nothing, waits behind its writes, and races with itself
// on cold segments. A descriptor lives for one segment of one call, so it can neither go stale nor be one too many.
//
// A record has no entry in any index; it is found by walking from a known place before it. Known are the beginning of
// each segment, its marks, and where the last reads ended, so a reader that goes on where it stopped skips nothing.

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"sync"

	"quail/wal/record"
	"quail/wal/vfs"
)

// Bounds of how much Read asks the file for at once: at least a page, and no more than it is a pity to keep in memory
// because of one record in it.
const (
	readBytesMin = 4 << 10
	readBytesMax = 256 << 10
	// aheadBytes is what a read must ask for at least to be one of a backlog, which goes on: then as much again is wanted from the disk
	// meanwhile, in the next segment too.
	aheadBytes = 256 << 10
)

// errGap: a rewritten segment leaves the record out.
var errGap = errors.New("the record was left out of the rewritten segment")

// skipBuffers are for the records that are walked over.
var skipBuffers = sync.Pool{New: func() any { return new([]byte) }}

// stretch is the part of a segment that a read may use, as it was at one moment.
type stretch struct {
	seg   *segment
	next  *segment // the one behind it, nil if there is none
	size  int64    // where the segment's records end
	end   uint64   // LSN that follows the segment's last record
	start mark     // where to begin walking
}

// Read implements Log.
func (c *core) Read(from uint64, maxBytes int, dst [][]byte) ([][]byte, error) {
	return c.ReadInto(nil, from, maxBytes, dst)
}

// ReadInto implements Log.
func (c *core) ReadInto(arena *Arena, from uint64, maxBytes int, dst [][]byte) ([][]byte, error) {
	lsn := from
	for {
		st, more, err := c.stretch(lsn)
		if !more || errors.Is(err, ErrOutOfRange) && lsn > from {
			return dst, nil // the end, or the rest was cut off meanwhile
		}
		if err != nil {
			return dst, err
		}
		before := len(dst)
		dst, err = c.readStretch(arena, st, lsn, &maxBytes, lsn == from, dst)
		lsn += uint64(len(dst) - before)
		if errors.Is(err, fs.ErrNotExist) && c.isGone(st.seg) {
			continue // cut off or rewritten between stretch and here
		}
		if errors.Is(err, errGap) {
			if lsn > from {
				return dst, nil
			}
			return dst, fmt.Errorf("read LSN %d of log %s, which is not needed any more: %w", from, c.cfg.Dir, ErrOutOfRange)
		}
		if vfs.OutOfDescriptors(err) {
			return dst[:before], err // the log is as good as before
		}
		if err != nil {
			return dst[:before], c.fail(err)
		}
		if lsn < st.end || maxBytes < record.HeaderBytes {
			return dst, nil
		}
	}
}

// ahead has the disk bring what a reader of a backlog asks for now and next.
func (c *core) ahead(file vfs.File, st stretch, bytes int64) {
	here := min(bytes, st.size-st.start.offset)
	vfs.Ahead(file, st.start.offset, here)
	if here == bytes || st.next == nil || c.cfg.FS != vfs.OS {
		return // others take no hints, and a file that is opened for nothing is one more thing that fails
	}
	if next, err := c.cfg.FS.Open(c.path(st.next)); err == nil { // if it is gone or there is no descriptor, it is read without a hint
		vfs.Ahead(next, 0, bytes-here)
		next.Close()
	}
}

func (c *core) isGone(s *segment) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return s.gone
}

// stretch finds the segment with a record; more is false if the record is the one after the last.
func (c *core) stretch(lsn uint64) (st stretch, more bool, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if err := c.unusable(); err != nil {
		return st, true, err
	}
	if lsn < c.segments[0].first || lsn > c.last+1 {
		return st, true, fmt.Errorf("read LSN %d of log %s, which holds %d to %d: %w",
			lsn, c.cfg.Dir, c.segments[0].first, c.last, ErrOutOfRange)
	}
	if lsn == c.last+1 {
		return st, false, nil
	}
	i := sort.Search(len(c.segments), func(i int) bool { return c.segments[i].first > lsn }) - 1
	st.seg, st.end = c.segments[i], c.last+1
	st.size, st.start = st.seg.size, st.seg.before(lsn)
	if i+1 < len(c.segments) {
		st.next = c.segments[i+1]
		st.end = st.next.first
	}
	for _, p := range c.positions {
		if p.seg == st.seg && p.lsn <= lsn && p.lsn > st.start.lsn {
			st.start = p.mark
		}
	}
	return st, true, nil
}

// readStretch reads records of one segment. It takes what it read from *left; atLeastOne overrides that once.
func (c *core) readStretch(arena *Arena, st stretch, lsn uint64, left *int, atLeastOne bool, dst [][]byte) ([][]byte, error) {
	file, err := c.cfg.FS.Open(c.path(st.seg))
	if err != nil {
		return dst, fmt.Errorf("read log: %w", err)
	}
	defer file.Close()
	if *left >= aheadBytes {
		c.ahead(file, st, 2*int64(*left))
	}
	var marks []mark
	scan, err := c.skip(file, st, lsn, &marks)
	if err == nil {
		scan.arena = arena
		dst, err = take(scan, st, left, atLeastOne, dst, &marks)
	}
	if err == nil && scan.lsn == st.end && scan.offset != st.size {
		err = fmt.Errorf("%w: %d bytes follow the segment's last record", errEntry, st.size-scan.offset)
	}
	if errors.Is(err, errGap) {
		return dst, err
	}
	if err != nil {
		return dst, c.readError(st, scan, err)
	}
	c.remember(st.seg, scan, marks)
	return dst, nil
}

// skip walks to a record, and returns a scanner there.
func (c *core) skip(file vfs.File, st stretch, lsn uint64, marks *[]mark) (*scanner, error) {
	scan := newScanner(file, c.cfg.Incarnation, st.start.lsn, st.start.offset, st.size)
	scan.upTo = st.seg.span.last
	if scan.lsn == lsn {
		scan.fresh = true
		return scan, nil
	}
	buf := skipBuffers.Get().(*[]byte)
	scan.buf, scan.from, scan.chunk = (*buf)[:0], scan.offset, markBytes+readBytesMin
	var err error
	for scan.lsn < lsn && err == nil {
		if scan.upTo > 0 {
			var next uint64
			if next, err = scan.peekLSN(); err == io.EOF {
				err = errGap
			}
			if err != nil || next >= lsn {
				break
			}
		}
		note(marks, scan)
		_, err = scan.next()
	}
	if err == nil {
		scan.lsn = lsn // in a rewritten segment what is between may be left out
	}
	if cap(scan.buf) <= scanBytes {
		*buf = scan.buf[:0]
	}
	skipBuffers.Put(buf)
	scan.buf, scan.from, scan.fresh = nil, scan.offset, true
	return scan, err
}

// take reads records while they fit.
func take(scan *scanner, st stretch, left *int, atLeastOne bool, dst [][]byte, marks *[]mark) ([][]byte, error) {
	for scan.lsn < st.end && (atLeastOne || *left >= record.HeaderBytes) {
		scan.chunk = min(max(*left, readBytesMin), readBytesMax)
		if scan.upTo > 0 {
			scan.chunk = readBytesMin // what follows may be left out, or far from what is asked for
		}
		if left, err := scan.leftOut(); left || err != nil {
			if left && atLeastOne {
				err = errGap
			}
			return dst, err
		}
		_, size, err := scan.peek()
		if err != nil {
			return dst, err
		}
		if size > *left && !atLeastOne {
			*left = 0
			return dst, nil
		}
		note(marks, scan)
		rec, err := scan.next()
		if err != nil {
			return dst, err
		}
		dst = append(dst, rec)
		*left -= size
		atLeastOne = false
	}
	return dst, nil
}

// leftOut reports whether a rewritten segment does not hold the record with s.lsn. The record that shows it is checked.
func (s *scanner) leftOut() (bool, error) {
	if s.upTo == 0 {
		return false, nil
	}
	lsn, err := s.peekLSN()
	if err == io.EOF {
		return true, nil
	}
	if err != nil || lsn == s.lsn {
		return false, err
	}
	at := *s
	if _, err = at.next(); err != nil {
		return false, err // a record that is damaged shows nothing
	}
	return true, nil
}

// note collects a place to remember, about every markBytes.
func note(marks *[]mark, scan *scanner) {
	if n := len(*marks); n == 0 || scan.offset >= (*marks)[n-1].offset+markBytes {
		*marks = append(*marks, mark{scan.lsn, scan.offset})
	}
}

// readError names the place. What is wrong with the bytes is corruption, for all of them were written whole.
func (c *core) readError(st stretch, scan *scanner, err error) error {
	if errors.Is(err, errEntry) || errors.Is(err, io.EOF) {
		return &CorruptError{File: c.path(st.seg), Offset: scan.offset, LSN: scan.lsn,
			Reason: fmt.Sprintf("damage below LSN %d", st.end), Err: err}
	}
	return fmt.Errorf("read log: %w", err)
}

// remember keeps what a read learned about where records are.
func (c *core) remember(s *segment, scan *scanner, marks []mark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.gone {
		return // cut off or rewritten meanwhile
	}
	for _, m := range marks {
		c.mark(s, m.lsn, m.offset)
	}
	for i := range c.positions {
		if c.positions[i].seg == s && len(marks) > 0 && c.positions[i].mark == marks[0] {
			c.positions[i].mark = mark{scan.lsn, scan.offset} // the same reader, going on
			return
		}
	}
	c.positions[c.position] = position{s, mark{scan.lsn, scan.offset}}
	c.position = (c.position + 1) % positionsMax
}
