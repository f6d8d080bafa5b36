package vfs

// The space of a Lossy: like a disk it can be full.

import (
	"math"
	"syscall"
)

// SetCapacity bounds the sizes of all files together, in bytes; 0 lifts the bound. It may be set below what there is, as if
// somebody else had filled the disk. A write that does not fit is done as far as it does, and gets ENOSPC, as on Linux. Only
// growing takes space, and a file that was removed takes none.
func (l *Lossy) SetCapacity(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.capacity = bytes
}

// Used is the sizes of all files together, in bytes.
func (l *Lossy) Used() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.root.bytes()
}

// Free implements FS.
func (l *Lossy) Free(name string) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.find("statfs", name); err != nil {
		return 0, err
	}
	return l.free(), nil
}

func (l *Lossy) free() int64 {
	if l.capacity == 0 {
		return math.MaxInt64
	}
	return max(l.capacity-l.root.bytes(), 0)
}

// fit is how much of size bytes at off can be written to n. Called with mu held.
func (l *Lossy) fit(n *node, off int64, size int) (int, error) {
	if l.capacity == 0 {
		return size, nil
	}
	grows := off + int64(size) - int64(len(n.live))
	if lacks := grows - l.free(); grows > 0 && lacks > 0 {
		return int(max(int64(size)-lacks, 0)), syscall.ENOSPC
	}
	return size, nil
}

// bytes is the size of all that can be reached below n.
func (n *node) bytes() int64 {
	total := int64(len(n.live))
	for _, child := range n.names {
		total += child.bytes()
	}
	return total
}
