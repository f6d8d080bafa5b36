package vfs

// The files of Lossy: their two contents, and open files.

import (
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
)

// sectorBytes is what a disk writes as a whole: a power cut leaves each sector old or new, never half.
const sectorBytes = 512

// content is what a file holds. Where no bit of dirty is set, live and synced agree as far as both reach, but for what forget left.
type content struct {
	live   []byte   // what reads see
	synced []byte   // what is on the disk
	dirty  []uint64 // one bit a sector that was written or cut since the last sync
}

// mark notes that bytes [from, to) differ from what is on the disk.
func (c *content) mark(from, to int64) {
	if from >= to {
		return
	}
	last := (to - 1) / sectorBytes
	for int64(len(c.dirty)) <= last/64 {
		c.dirty = append(c.dirty, 0)
	}
	for s := from / sectorBytes; s <= last; s++ {
		c.dirty[s/64] |= 1 << (s % 64)
	}
}

func (c *content) writeAt(p []byte, off int64) {
	if end := off + int64(len(p)); end > int64(len(c.live)) {
		c.mark(int64(len(c.live)), off) // the gap reads as zeros
		c.live = resize(c.live, end)
	}
	copy(c.live[off:], p)
	c.mark(off, off+int64(len(p)))
}

func (c *content) truncate(size int64) {
	old := int64(len(c.live))
	c.live = resize(c.live, size)
	c.mark(min(old, size), max(old, size))
}

// resize cuts b or extends it with zeros, growing its memory in steps.
func resize(b []byte, size int64) []byte {
	old := int64(len(b))
	if size <= old {
		clear(b[size:]) // so that a later extension finds zeros
		return b[:size]
	}
	if size > int64(cap(b)) {
		grown := make([]byte, size, max(size, 2*int64(cap(b))))
		copy(grown, b)
		return grown
	}
	return b[:size]
}

// eachDirty calls do with the bounds of every dirty sector, within the larger of both contents.
func (c *content) eachDirty(do func(from, to int64)) {
	size := int64(max(len(c.live), len(c.synced)))
	for i, word := range c.dirty {
		for ; word != 0; word &= word - 1 {
			from := (int64(i)*64 + int64(bits.TrailingZeros64(word))) * sectorBytes
			if from < size {
				do(from, min(from+sectorBytes, size))
			}
		}
	}
}

// sync brings what is on the disk up to date.
func (c *content) sync() {
	size := int64(len(c.live))
	c.synced = resize(c.synced, size)
	c.eachDirty(func(from, to int64) { copy(c.synced[from:min(to, size)], c.live[from:]) })
	clear(c.dirty)
}

// syncRange brings a part of what is on the disk up to date, in whole sectors.
func (c *content) syncRange(from, to int64) {
	if int64(len(c.synced)) < min(to, int64(len(c.live))) {
		c.sync() // a size that is not durable: the file system has to do more
		return
	}
	from, to = from/sectorBytes*sectorBytes, min((to+sectorBytes-1)/sectorBytes*sectorBytes, int64(len(c.live)), int64(len(c.synced)))
	copy(c.synced[from:to], c.live[from:to])
	for s := from / sectorBytes; s*sectorBytes < to && s/64 < int64(len(c.dirty)); s++ {
		c.dirty[s/64] &^= 1 << (s % 64)
	}
}

// drop is what a failed sync does: the size stays, and un-synced bytes read as they are on the disk, or as a hole.
func (c *content) drop() {
	c.eachDirty(func(from, to int64) {
		to = min(to, int64(len(c.live)))
		if from >= to {
			return
		}
		clear(c.live[from:to])
		if from < int64(len(c.synced)) {
			copy(c.live[from:to], c.synced[from:])
		}
	})
}

// forget is what a failed sync does on ext4: un-synced bytes can be read still, but the kernel takes them for written, and no later sync
// writes them.
func (c *content) forget() { clear(c.dirty) }

// crash is what is found on the disk after a power cut: each un-synced sector is there with probability keep, and of an
// un-synced change of size nothing, all, or the part up to some byte.
func (c *content) crash(dice *rand.Rand, keep float64) content {
	size := int64(len(c.synced))
	if live := int64(len(c.live)); live != size && dice.Float64() < keep {
		if size = live; live > int64(len(c.synced)) && dice.IntN(2) == 0 {
			size = int64(len(c.synced)) + dice.Int64N(live-int64(len(c.synced))+1)
		}
	}
	disk := make([]byte, size)
	copy(disk, c.synced)
	c.eachDirty(func(from, to int64) {
		if dice.Float64() >= keep || from >= size {
			return
		}
		clear(disk[from:min(to, size)])
		if from < int64(len(c.live)) {
			copy(disk[from:min(to, size)], c.live[from:])
		}
	})
	return content{live: disk, synced: append([]byte(nil), disk...)}
}

// lossyFile is an open file of a Lossy.
type lossyFile struct {
	fs     *Lossy
	node   *node
	name   string
	flag   int
	offset int64 // of Read and Write
	closed bool
}

// begin takes the lock and checks that the file can be used; the caller unlocks.
func (f *lossyFile) begin(op string, write bool) error {
	f.fs.mu.Lock()
	var err error
	access := f.flag & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
	switch {
	case f.fs.crashed:
		err = ErrCrashed
	case f.closed:
		err = os.ErrClosed
	case write && access == os.O_RDONLY, op == "read" && access == os.O_WRONLY:
		err = syscall.EBADF
	case f.node.dir && (write || op == "read"):
		err = syscall.EISDIR
	}
	if err != nil {
		return &os.PathError{Op: op, Path: f.name, Err: err}
	}
	return nil
}

func (f *lossyFile) readAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, &os.PathError{Op: "read", Path: f.name, Err: syscall.EINVAL}
	}
	if off >= int64(len(f.node.live)) {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	return copy(p, f.node.live[off:]), nil
}

// Read implements File.
func (f *lossyFile) Read(p []byte) (int, error) {
	err := f.begin("read", false)
	defer f.fs.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := f.readAt(p, f.offset)
	f.offset += int64(n)
	return n, err
}

// ReadAt implements File.
func (f *lossyFile) ReadAt(p []byte, off int64) (int, error) {
	err := f.begin("read", false)
	defer f.fs.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := f.readAt(p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Write implements File.
func (f *lossyFile) Write(p []byte) (int, error) {
	err := f.begin("write", true)
	defer f.fs.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if f.flag&os.O_APPEND != 0 {
		f.offset = int64(len(f.node.live))
	}
	n, err := f.fs.fit(f.node, f.offset, len(p))
	f.node.writeAt(p[:n], f.offset)
	f.offset += int64(n)
	if err != nil {
		return n, &os.PathError{Op: "write", Path: f.name, Err: err}
	}
	return n, nil
}

// WriteAt implements File.
func (f *lossyFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.begin("write", true)
	defer f.fs.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if off < 0 || f.flag&os.O_APPEND != 0 {
		return 0, &os.PathError{Op: "write", Path: f.name, Err: syscall.EINVAL}
	}
	n, err := f.fs.fit(f.node, off, len(p))
	f.node.writeAt(p[:n], off)
	if err != nil {
		return n, &os.PathError{Op: "write", Path: f.name, Err: err}
	}
	return n, nil
}

// Sync implements File.
func (f *lossyFile) Sync() error {
	err := f.begin("sync", false)
	defer f.fs.mu.Unlock()
	if err == nil {
		f.node.sync()
	}
	return err
}

// Datasync implements File. The size is needed to read the content back, so it is Sync.
func (f *lossyFile) Datasync() error { return f.Sync() }

// syncRange implements rangeSyncer.
func (f *lossyFile) syncRange(from, to int64) error {
	if Direct == 0 || f.flag&Direct == 0 {
		return f.Datasync()
	}
	err := f.begin("sync", false)
	defer f.fs.mu.Unlock()
	if err == nil {
		f.node.syncRange(from, to)
	}
	return err
}

// dropUnsynced implements dropper, for Failing.
func (f *lossyFile) dropUnsynced() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.node.drop()
}

// forgetUnsynced implements forgetter, for Failing.
func (f *lossyFile) forgetUnsynced() {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.node.forget()
}

// Truncate implements File.
func (f *lossyFile) Truncate(size int64) error {
	err := f.begin("truncate", true)
	defer f.fs.mu.Unlock()
	if err != nil {
		return err
	}
	if size < 0 {
		return &os.PathError{Op: "truncate", Path: f.name, Err: syscall.EINVAL}
	}
	f.node.truncate(size)
	return nil
}

// Stat implements File.
func (f *lossyFile) Stat() (os.FileInfo, error) {
	err := f.begin("stat", false)
	defer f.fs.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return f.node.info(filepath.Base(f.name)), nil
}

// Name implements File.
func (f *lossyFile) Name() string { return f.name }

// Preallocate implements File.
func (f *lossyFile) Preallocate(size int64) error {
	err := f.begin("fallocate", true)
	defer f.fs.mu.Unlock()
	if err != nil {
		return err
	}
	f.node.truncate(0)
	if _, err := f.fs.fit(f.node, 0, int(size)); err != nil {
		return &os.PathError{Op: "fallocate", Path: f.name, Err: err}
	}
	f.node.truncate(size)
	f.node.sync()
	return nil
}

// Allocate implements File.
func (f *lossyFile) Allocate(size int64) error {
	err := f.begin("fallocate", true)
	defer f.fs.mu.Unlock()
	if err != nil {
		return err
	}
	if _, err := f.fs.fit(f.node, 0, int(size)); err != nil {
		return &os.PathError{Op: "fallocate", Path: f.name, Err: err}
	}
	f.node.truncate(size)
	return nil
}

// Lock implements File.
func (f *lossyFile) Lock() error {
	err := f.begin("flock", false)
	defer f.fs.mu.Unlock()
	if err != nil {
		return err
	}
	if f.node.locked != nil && f.node.locked != f {
		return fmt.Errorf("lock %s: %w", f.name, ErrLocked)
	}
	f.node.locked = f
	return nil
}

// Close implements File.
func (f *lossyFile) Close() error {
	err := f.begin("close", false)
	defer f.fs.mu.Unlock()
	if err != nil {
		return err
	}
	f.closed = true
	if f.node.locked == f {
		f.node.locked = nil
	}
	return nil
}
