package vfs

// The machine's own file system: package os, with the syncs that it lacks.

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// OS is the machine's file system.
var OS FS = osFS{}

type osFS struct{}

type osFile struct {
	*os.File
	direct bool // see Direct
}

func (osFS) Open(name string) (File, error) { return wrapOS(os.Open(name)) }

func (osFS) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	if flag&Direct != 0 {
		if f, ok := openDirect(name, flag, perm); ok {
			return osFile{f, true}, nil
		}
	}
	return wrapOS(os.OpenFile(name, flag&^Direct, perm))
}

// wrapOS keeps a nil *os.File from becoming a File that is not nil.
func wrapOS(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return osFile{File: f}, nil
}

func (osFS) Mkdir(name string, perm os.FileMode) error    { return os.Mkdir(name, perm) }
func (osFS) MkdirAll(name string, perm os.FileMode) error { return os.MkdirAll(name, perm) }
func (osFS) Remove(name string) error                     { return os.Remove(name) }
func (osFS) RemoveAll(name string) error                  { return os.RemoveAll(name) }
func (osFS) Rename(oldName, newName string) error         { return os.Rename(oldName, newName) }
func (osFS) ReadDir(name string) ([]os.DirEntry, error)   { return os.ReadDir(name) }
func (osFS) Stat(name string) (os.FileInfo, error)        { return os.Stat(name) }

func (osFS) Free(name string) (int64, error) {
	free, err := freeBytes(name)
	if err != nil {
		return 0, &os.PathError{Op: "statfs", Path: name, Err: err}
	}
	return free, nil
}

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Ahead tells that a part of a file will be read soon, so that it can be read before, where the file system takes such hints. It
// does not wait and changes nothing.
func Ahead(f File, offset, size int64) {
	if f, ok := f.(osFile); ok && size > 0 {
		willNeed(f.File, offset, size)
	}
}

func (f osFile) Datasync() error {
	if err := datasync(f.File); err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

// writeDurably writes past the page cache, with the sync in the same call. Where the disk wants larger blocks or the file system has no
// such call, it is done in the usual way.
func (f osFile) writeDurably(p []byte, off int64) (int, error) {
	n, err := writeSync(f.File, p, off)
	// EINVAL: WriteAt makes an ordinary file of it. EPERM: a sandbox does not know the call.
	if err == nil && n < len(p) || unsupported(err) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPERM) {
		var rest int
		n = max(n, 0)
		if rest, err = f.WriteAt(p[n:], off+int64(n)); err == nil {
			err = f.Datasync()
		}
		return n + rest, err
	}
	if err != nil {
		return n, &os.PathError{Op: "write and sync", Path: f.Name(), Err: err}
	}
	return n, nil
}

// WriteAt makes an ordinary file of one whose disk wants larger blocks.
func (f osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	if f.direct && n == 0 && errors.Is(err, syscall.EINVAL) && clearDirect(f.File) == nil {
		return f.File.WriteAt(p, off)
	}
	return n, err
}

// Preallocate reserves the space in one piece where the file system can, and then writes it: reserved space alone is
// made of unwritten extents, and each first write into one costs a metadata commit.
func (f osFile) Preallocate(size int64) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	// That it cannot be reserved is no error, since the blocks are written next anyway.
	if err := allocate(f.File, size); err != nil && !unsupported(err) {
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
	if err := fillZero(f.File, size); err != nil {
		return err
	}
	return f.Sync()
}

func (f osFile) Allocate(size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	err := allocate(f.File, size)
	if unsupported(err) {
		return fillZero(f.File, size)
	}
	if err != nil {
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
	return nil
}

// unsupported: the file system cannot take space without writing.
func unsupported(err error) bool {
	return errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS)
}

func (f osFile) Lock() error {
	held, err := flock(f.File)
	if err != nil {
		return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
	if held {
		return fmt.Errorf("lock %s: %w", f.Name(), ErrLocked)
	}
	return nil
}
