package seglog

// Removing the front of a log.
//
// tidwall/wal's TruncateFront writes the rest of the boundary segment anew, under its lock, and leaves more states behind
// when it is interrupted. Since nothing is read through tidwall/wal here, its view of the front does not matter: whole
// segments are simply unlinked, oldest first, beneath it. It only remembers their names, so now and then it is opened
// anew to forget them, and at once when the tail itself is replaced.
//
// If the power goes meanwhile, any subset of the unlinked segments may be back, and the new empty segment may be missing.
// All of them are below the first LSN that the caller's checkpoint needs, so Open removes and makes what is left to do.

import (
	"fmt"
	"slices"
	"sort"
)

// reopenAfter is how many removed segments tidwall/wal may remember; each costs it about 200 bytes.
const reopenAfter = 4096

// CutFront implements Log.
func (c *core) CutFront(first uint64) error {
	c.syncMu.Lock()
	defer c.syncMu.Unlock()
	if err := c.err(); err != nil {
		return err
	}
	if last := c.Last(); first > last+1 {
		return fmt.Errorf("cut log %s below %d, last is %d: %w", c.cfg.Dir, first, last, ErrOutOfRange)
	}
	c.writeMu.Lock()
	c.mu.RLock()
	drained := first == c.last+1 && c.tail().size > 0
	reopen := drained || c.removed >= reopenAfter
	c.mu.RUnlock()
	if !reopen {
		c.writeMu.Unlock() // Append need not wait for the removals
		return c.finalIfFailed(c.removeBefore(first))
	}
	defer c.writeMu.Unlock()
	return c.finalIfFailed(c.cutClosed(first, drained))
}

func (c *core) finalIfFailed(err error) error {
	if err != nil {
		return c.fail(fmt.Errorf("cut log %s: %w", c.cfg.Dir, err))
	}
	return nil
}

// cutClosed removes segments with the writer closed, which the next Append opens again. If the log is drained, an empty segment becomes the tail.
func (c *core) cutClosed(first uint64, drained bool) error {
	c.mu.Lock()
	c.writing = false
	c.mu.Unlock()
	if err := c.out.close(); err != nil {
		return err
	}
	if drained {
		s := &segment{first: first}
		if err := createEmpty(c.cfg.FS, c.path(s)); err != nil {
			return err
		}
		c.mu.Lock()
		c.segments = append(c.segments, s)
		c.mu.Unlock()
	}
	if err := c.removeBefore(first); err != nil {
		return err
	}
	c.mu.Lock()
	c.removed = 0
	c.mu.Unlock()
	return nil
}

// removeBefore removes the segments that hold only records below first, and syncs the directory. Reads stop finding
// them before they go.
func (c *core) removeBefore(first uint64) error {
	gone := c.forgetBefore(first)
	if len(gone) == 0 {
		return nil
	}
	for _, s := range gone {
		if err := c.cfg.FS.Remove(c.path(s)); err != nil {
			return err
		}
	}
	return c.cfg.FS.SyncDir(c.cfg.Dir)
}

// forgetBefore takes the segments that can go out of the list.
func (c *core) forgetBefore(first uint64) []*segment {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep := sort.Search(len(c.segments), func(i int) bool { return c.segments[i].first > first }) - 1
	if keep <= 0 {
		return nil
	}
	gone := c.segments[:keep:keep]
	c.segments = append([]*segment(nil), c.segments[keep:]...)
	c.forget(gone)
	return gone
}

// forget drops what is remembered of segments that were taken out of the list. The caller holds mu.
func (c *core) forget(gone []*segment) {
	c.removed += len(gone)
	for _, s := range gone {
		s.gone, s.marks = true, nil
	}
	c.marked = slices.DeleteFunc(c.marked, func(s *segment) bool { return s.gone })
	for i := range c.positions {
		if s := c.positions[i].seg; s != nil && s.gone {
			c.positions[i] = position{}
		}
	}
}
