//go:build linux

package integration

// A recording of all calls that changed a data directory, in their order. From it the directory can be made again as it was after any
// call, or as a power cut would have left it then: of each file what was synced and any part of what was written later, by sectors,
// and of the names those that were synced and any of the later changes. The losing is done by vfs.Lossy; but what it loses here are
// the calls of the binary, those of tidwall/wal among them, which no vfs sees.

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"quail/wal/vfs"
)

// diskCall is one call with all that is needed to repeat it.
type diskCall struct {
	name       string
	path, from string
	offset     int64
	data       []byte
	flags      uint64
	isDir      bool
	forgotten  bool // of a sync: it failed, and what it should have made durable is taken for that
}

func (c *diskCall) class() string {
	return class(call{name: c.name, path: c.path, writes: true, isDir: c.isDir})
}

// A recording is filled by one gate.
type recording struct {
	mu     sync.Mutex // guards what follows
	calls  []diskCall
	failed error // the first call that could not be recorded
}

// record takes note of a call that is about to pass.
func (r *recording) record(c call) { r.recordAs(c, verdict{}) }

// recordAs records what a verdict leaves of a call. A sync that fails is taken for one that lost what it should have kept, as ext4 does it: it can
// still be read, and no later sync writes it.
func (r *recording) recordAs(c call, v verdict) {
	failed := v.errno != 0 || v.kill
	sync := c.name == "fsync" || c.name == "fdatasync"
	if !c.writes || failed && !v.half && !(sync && !v.kill && !c.isDir) {
		return
	}
	ch := diskCall{name: c.name, path: c.path, from: c.from, isDir: c.isDir, forgotten: sync && failed}
	var err error
	switch c.name {
	case "write", "pwrite", syncedWrite:
		if failed || v.half {
			ch.name = "pwrite" // what is left of it
		}
		if ch.data, err = c.buffer(); err == nil {
			ch.offset, err = c.offset()
			if v.half {
				ch.data = ch.data[:len(ch.data)/2]
			}
		}
	case "openat", "unlink":
		ch.flags = c.args[2]
	case "ftruncate":
		ch.offset = int64(c.args[1])
	case "fallocate":
		ch.offset = int64(c.args[2] + c.args[3])
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && r.failed == nil {
		r.failed = fmt.Errorf("record %s %s: %w", c.name, c.path, err)
	}
	r.calls = append(r.calls, ch)
}

// count is how many calls there are so far.
func (r *recording) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.calls)
}

// disk repeats the first n calls on a disk in memory.
func (r *recording) disk(n int, seed uint64) *vfs.Lossy {
	r.mu.Lock()
	calls := r.calls[:n:n]
	r.mu.Unlock()
	disk := vfs.NewLossy(seed)
	for _, c := range calls {
		c.repeat(disk)
	}
	return disk
}

// repeat does the call. It fails where the call itself did, such as a file that is not there.
func (c *diskCall) repeat(disk *vfs.Lossy) {
	switch c.name {
	case "openat":
		flag := os.O_RDWR
		for bit, name := range map[uint64]int{unix.O_CREAT: os.O_CREATE, unix.O_EXCL: os.O_EXCL, unix.O_TRUNC: os.O_TRUNC} {
			if c.flags&bit != 0 {
				flag |= name
			}
		}
		if f, err := disk.OpenFile(c.path, flag, 0o640); err == nil {
			f.Close()
		}
	case "mkdir":
		_ = disk.Mkdir(c.path, 0o750)
	case "rename":
		_ = disk.Rename(c.from, c.path)
	case "unlink":
		if info, err := disk.Stat(c.path); err == nil && info.IsDir() == (c.flags&unix.AT_REMOVEDIR != 0) {
			_ = disk.Remove(c.path)
		}
	case "fsync", "fdatasync":
		if c.isDir {
			_ = disk.SyncDir(c.path)
			return
		}
		if c.forgotten {
			failing := vfs.NewFailing(disk)
			failing.FailWhen(func(op vfs.Op) bool { return op.Kind == vfs.OpSync }, vfs.FailForgotten, unix.EIO)
			c.on(failing, func(f vfs.File) { _ = f.Sync() })
			return
		}
		c.on(disk, func(f vfs.File) { _ = f.Sync() })
	case "write", "pwrite":
		c.on(disk, func(f vfs.File) { _, _ = f.WriteAt(c.data, c.offset) })
	case syncedWrite:
		c.on(disk, func(f vfs.File) { _, _ = vfs.WriteDurably(f, c.data, c.offset) })
	case "ftruncate":
		c.on(disk, func(f vfs.File) { _ = f.Truncate(c.offset) })
	case "fallocate":
		c.on(disk, func(f vfs.File) {
			if info, err := f.Stat(); err == nil && info.Size() < c.offset {
				_ = f.Truncate(c.offset)
			}
		})
	}
}

func (c *diskCall) on(disk vfs.FS, do func(vfs.File)) {
	if f, err := disk.OpenFile(c.path, os.O_RDWR|vfs.Direct, 0); err == nil { // a file that has no name any more is of no interest
		do(f)
		f.Close()
	}
}

// lay makes a directory that holds what the disk holds.
func lay(disk *vfs.Lossy, dir string) error {
	return each(disk, ".", func(path string, content []byte) error {
		to := filepath.Join(dir, path)
		if content == nil {
			return os.MkdirAll(to, 0o750)
		}
		return os.WriteFile(to, content, 0o640)
	})
}

// each visits all that is below a directory; content is nil for directories.
func each(disk *vfs.Lossy, path string, do func(path string, content []byte) error) error {
	if err := do(path, nil); err != nil {
		return err
	}
	entries, err := disk.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		if e.IsDir() {
			if err := each(disk, name, do); err != nil {
				return err
			}
			continue
		}
		info, err := disk.Stat(name)
		if err != nil {
			return err
		}
		content := make([]byte, info.Size())
		f, err := disk.Open(name)
		if err != nil {
			return err
		}
		if len(content) > 0 {
			_, err = f.ReadAt(content, 0)
		}
		f.Close()
		if err != nil {
			return err
		}
		if err := do(name, content); err != nil {
			return err
		}
	}
	return nil
}

// differs says in what a directory is not what the disk holds: then a call has passed that the gate does not know.
func differs(disk *vfs.Lossy, dir string) error {
	seen := map[string]bool{}
	err := each(disk, ".", func(path string, content []byte) error {
		seen[path] = true
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.IsDir() != (content == nil) {
			return fmt.Errorf("%s is not there: %v", path, err)
		}
		if content == nil {
			return nil
		}
		real, err := os.ReadFile(filepath.Join(dir, path))
		if err == nil && !bytes.Equal(real, content) {
			err = fmt.Errorf("%s has %d other bytes than the %d recorded ones", path, len(real), len(content))
		}
		return err
	})
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(dir, path)
		if err == nil && !seen[below] {
			err = fmt.Errorf("%s was made, and no call that did it was recorded", below)
		}
		return err
	})
}
