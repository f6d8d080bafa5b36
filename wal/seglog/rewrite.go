package seglog

// Rewriting segments whose records are mostly dead, so that a few old live ones do not pin the space of all.
//
// The live records go, as they are, into one new file that stands for the whole span of the old ones (span.go). tidwall/wal
// never learns of it: it reads only the tail, as in cut.go. Of a dead record nothing is left, not even a stub; with small
// bodies stubs would be most of the file.
//
// The steps, and what Open finds if the power goes at each:
//
//	sync the directory        nothing new. It ends whatever an earlier attempt that failed may have left undecided
//	write FIRST-LAST.G.tmp    the old segments, and a .tmp that it removes
//	sync the file             the same
//	rename to FIRST-LAST.G    either of the two; the content is durable already
//	sync the directory        the new file beside all old ones: it stands for them, they are removed
//	remove the old segments   the same with any of them
//
// Up to the second sync of the directory a failure leaves the old segments in force, behind it the new one is. Readers hold no
// lock: they open by name, and whoever finds the old name gone looks again.

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"

	"quail/wal/record"
	"quail/wal/vfs"
)

// writeBytes is how much of a new segment is written at once.
const writeBytes = 256 << 10

// ReadBytes is about how much Rewrite reads of the segment if so many records of it live.
func (s *Sealed) ReadBytes(live int) int64 {
	if s.Marked || live == 0 {
		return min(s.Bytes, int64(live)*(markBytes+readBytesMin))
	}
	return s.Bytes
}

// Sealed implements Log.
func (c *core) Sealed(upTo uint64, dst []Sealed) []Sealed {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for i, s := range c.segments[:len(c.segments)-1] {
		last := c.segments[i+1].first - 1
		if last > upTo || s.synced < s.size {
			break
		}
		dst = append(dst, Sealed{First: s.first, Last: last, Bytes: s.size, Marked: len(s.marks) > 0,
			Rewritten: s.span.rewritten(), Records: s.records, BodyBytes: s.bodyBytes})
	}
	return dst
}

// Rewrite implements Log.
func (c *core) Rewrite(first, last uint64, live []uint64) error {
	old, err := c.sealedSpan(first, last)
	if err != nil {
		return err
	}
	if err := c.cfg.FS.SyncDir(c.cfg.Dir); err != nil {
		return fmt.Errorf("rewrite log: %w", err)
	}
	seg := &segment{first: first, span: span{first: first, last: last}}
	for _, s := range old {
		seg.span.generation = max(seg.span.generation, s.span.generation)
	}
	seg.span.generation++
	aside := c.path(seg) + asideSuffix
	err = c.writeAside(aside, seg, old, live)
	if err == nil {
		err = c.replace(aside, seg, old)
	} else {
		_ = c.cfg.FS.Remove(aside) // it only takes space; the next Open tries again
	}
	if err != nil {
		return fmt.Errorf("rewrite log: %w", err)
	}
	return nil
}

// sealedSpan returns the sealed, synced segments that hold exactly these records.
func (c *core) sealedSpan(first, last uint64) ([]*segment, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if err := c.unusable(); err != nil {
		return nil, err
	}
	if c.stray != nil {
		return nil, fmt.Errorf("rewrite log %s: an earlier attempt has left a file that cannot be removed: %w", c.cfg.Dir, c.stray)
	}
	i, found := slices.BinarySearchFunc(c.segments, first, byFirst)
	j, ends := slices.BinarySearchFunc(c.segments, last+1, byFirst)
	if !found || !ends || i >= j {
		return nil, fmt.Errorf("rewrite log %s from LSN %d to %d, which are no whole sealed segments: %w", c.cfg.Dir, first, last, ErrOutOfRange)
	}
	for _, s := range c.segments[i:j] {
		if s.synced < s.size {
			return nil, fmt.Errorf("rewrite log %s from LSN %d to %d, which are not synced: %w", c.cfg.Dir, first, last, ErrOutOfRange)
		}
	}
	return slices.Clone(c.segments[i:j]), nil
}

// writeAside writes the new segment's file and syncs it.
func (c *core) writeAside(name string, seg *segment, old []*segment, live []uint64) (err error) {
	file, err := c.cfg.FS.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, filePerm)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
	}()
	w := sparseWriter{file: file, offset: spanHeaderBytes}
	for i, s := range old {
		end := seg.span.last + 1
		if i+1 < len(old) {
			end = old[i+1].first
		}
		n, _ := slices.BinarySearch(live, end)
		if err := c.copyLive(&w, s, end, live[:n]); err != nil {
			return err
		}
		live = live[n:]
	}
	if len(live) > 0 {
		return fmt.Errorf("live LSN %d is not in the span %d to %d: %w", live[0], seg.span.first, seg.span.last, ErrOutOfRange)
	}
	if err := w.flush(); err != nil {
		return err
	}
	seg.size, seg.synced, seg.records, seg.bodyBytes = w.offset, w.offset, w.records, w.bodyBytes
	h := spanHeader{span: seg.span, incarnation: c.cfg.Incarnation, records: uint64(w.records), size: w.offset, bodyBytes: w.bodyBytes, sum: w.sum}
	if _, err := file.WriteAt(h.encode(), 0); err != nil {
		return err
	}
	return file.Sync()
}

// copyLive copies the records in live from one segment, which ends before LSN end. It reads from the last known place before each, and
// steps over what lies between: the lengths and LSNs there must fit, the bodies are neither read nor checked. What lies behind the last
// one nobody looks at, and a segment in which nothing lives is not even opened.
func (c *core) copyLive(w *sparseWriter, s *segment, end uint64, live []uint64) error {
	if len(live) == 0 {
		return nil
	}
	file, err := c.cfg.FS.Open(c.path(s))
	if err != nil {
		return err
	}
	defer file.Close()
	known := c.known(s)
	scan := newScanner(file, c.cfg.Incarnation, s.first, s.begin(), s.size)
	scan.upTo = s.span.last
	if len(known.marks) > 0 {
		scan.chunk = markBytes + readBytesMin
	}
	st := stretch{seg: s, end: end}
	for len(live) > 0 {
		if near := known.before(live[0]); near.lsn > scan.lsn {
			scan.lsn, scan.offset = near.lsn, near.offset
		}
		lsn, err := scan.peekLSN()
		switch {
		case err == nil && lsn == live[0]:
			var rec []byte
			if rec, err = scan.next(); err == nil {
				live = live[1:]
				err = w.add(rec)
			}
		case err == nil && lsn < live[0]:
			err = scan.stepOver(lsn)
		case err == nil || err == io.EOF:
			err = fmt.Errorf("%w: LSN %d is not there", errEntry, live[0])
			scan.lsn = live[0]
		}
		if err != nil {
			return c.readError(st, scan, err)
		}
	}
	return nil
}

// known is what is known of the places in a segment now.
func (c *core) known(s *segment) *segment {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return &segment{first: s.first, span: s.span, marks: s.marks} // marks are only ever appended to, or dropped whole
}

// stepOver passes the next entry, whose LSN was peeked, without reading its body.
func (s *scanner) stepOver(lsn uint64) error {
	prefix, size, err := s.peek()
	if err != nil {
		return err
	}
	if lsn != s.lsn && (lsn < s.lsn || lsn > s.upTo) {
		return fmt.Errorf("%w: its LSN is %d", errEntry, lsn)
	}
	s.offset += int64(prefix + size)
	s.lsn = lsn + 1
	return nil
}

// sparseWriter gathers the records of a new segment.
type sparseWriter struct {
	file      vfs.File
	offset    int64 // where buf goes
	buf       []byte
	records   int
	bodyBytes int64
	sum       uint32
}

func (w *sparseWriter) add(rec []byte) error {
	w.buf = binary.AppendUvarint(w.buf, uint64(len(rec)))
	w.buf = append(w.buf, rec...)
	w.records++
	w.bodyBytes += int64(len(record.View(rec).Body))
	w.sum = crc32.Update(w.sum, castagnoli, rec[4:8])
	if len(w.buf) < writeBytes {
		return nil
	}
	return w.flush()
}

func (w *sparseWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	n, err := w.file.WriteAt(w.buf, w.offset)
	w.offset += int64(n)
	w.buf = w.buf[:0]
	return err
}

// replace puts the new segment in the place of the old ones.
func (c *core) replace(aside string, seg *segment, old []*segment) error {
	c.syncMu.Lock()
	defer c.syncMu.Unlock()
	name := c.path(seg)
	err := c.stillThere(old)
	if err == nil {
		err = c.cfg.FS.Rename(aside, name)
	}
	if err == nil {
		err = c.cfg.FS.SyncDir(c.cfg.Dir)
	}
	if err != nil {
		c.takeBack(aside, name)
		return err
	}
	c.mu.Lock()
	i := slices.Index(c.segments, old[0])
	c.segments = slices.Concat(c.segments[:i], []*segment{seg}, c.segments[i+len(old):])
	c.forget(old)
	c.mu.Unlock()
	var failed error
	for _, s := range old { // one that stays only takes space, until the next Open
		if err := c.cfg.FS.Remove(c.path(s)); failed == nil {
			failed = err
		}
	}
	return failed
}

// stillThere checks that the segments were not cut off and the log is in order. The caller holds syncMu, so it stays so.
func (c *core) stillThere(old []*segment) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if err := c.unusable(); err != nil {
		return err
	}
	for _, s := range old {
		if s.gone {
			return fmt.Errorf("the segments were cut off meanwhile: %w", ErrOutOfRange)
		}
	}
	return nil
}

// takeBack removes what a failed attempt has made. If the power brings it back, it is a file that stands for segments which are all
// there; but one that stays while others are rewritten could overlap theirs, so then nothing is rewritten any more.
func (c *core) takeBack(aside, name string) {
	for _, path := range []string{aside, name} {
		if err := c.cfg.FS.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			c.mu.Lock()
			c.stray = fmt.Errorf("%s: %w", filepath.Base(path), err)
			c.mu.Unlock()
		}
	}
}

func byFirst(s *segment, lsn uint64) int { return cmp.Compare(s.first, lsn) }
