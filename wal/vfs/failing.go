package vfs

// A file system that fails one chosen operation, once.
//
// Once, because a disk that keeps failing hides a missing sticky error: the code that should have remembered the first
// failure would meet a second one and look right. A test runs its work over a Failing that fails nothing, takes the
// list of operations, and runs again for each of them.

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// Operations as Op.Kind names them.
const (
	OpOpen        = "open"
	OpCreate      = "create" // an OpenFile with O_CREATE
	OpMkdir       = "mkdir"
	OpRemove      = "remove"
	OpRename      = "rename"
	OpReadDir     = "readdir"
	OpStat        = "stat"
	OpSyncDir     = "syncdir"
	OpRead        = "read"
	OpWrite       = "write"
	OpSync        = "sync"
	OpDatasync    = "datasync"
	OpTruncate    = "truncate"
	OpPreallocate = "preallocate"
	OpAllocate    = "allocate"
	OpFree        = "statfs"
	OpLock        = "lock"
	OpClose       = "close"
)

// Op is one operation that a Failing saw. Path of a rename is its new name.
type Op struct {
	Kind string
	Path string
}

// String reads as "sync /data/journal/1".
func (o Op) String() string { return o.Kind + " " + o.Path }

// Failure is the manner in which an operation fails.
type Failure int

// The manners of failing. One that does not fit the operation acts as FailBefore.
const (
	// FailBefore returns the error without doing anything; a close closes all the same, as a real one does.
	FailBefore Failure = iota
	// FailShort does the first half of a write and returns the error.
	FailShort
	// FailDropped fails a sync as Linux does: what was written to the file since its last sync is gone, the file keeps
	// its size, and in place of the lost bytes is what was there before, or a hole. Over Lossy that is exact; over another
	// file system the bytes written through this Failing become zeros.
	FailDropped
	// FailAfter does the whole operation and then returns the error, as a reply that was lost.
	FailAfter
	// FailForgotten fails a sync in another way of Linux: what was written since the last one can be read as long as the
	// power is on, but is never written, and the next sync succeeds all the same. Over another file system than Lossy it is FailBefore.
	FailForgotten
)

// ErrInjected is a convenient error to fail with.
var ErrInjected = errors.New("injected failure")

// Failing wraps a file system, counts its operations from 1, and fails the chosen one.
type Failing struct {
	inner FS

	mu        sync.Mutex // guards all below; never held during an operation of inner
	ops       []Op
	at        int // 0: none
	when      func(Op) bool
	each      func(Op) (Failure, error)
	how       Failure
	err       error
	halted    bool
	haltAt    int                   // 0: none
	unwritten map[string][][2]int64 // by path: ranges written since the last sync
}

// dropper is a File that can forget what was not synced.
type dropper interface{ dropUnsynced() }

// forgetter is a File that can take what was not synced for written.
type forgetter interface{ forgetUnsynced() }

// NewFailing wraps inner. It fails nothing until it is told to.
func NewFailing(inner FS) *Failing {
	return &Failing{inner: inner, unwritten: map[string][][2]int64{}}
}

// FailAt makes operation n, counted from 1 since NewFailing or Reset, fail once with err, before it does anything.
func (f *Failing) FailAt(n int, err error) { f.FailAtHow(n, FailBefore, err) }

// FailAtHow is FailAt in the given manner.
func (f *Failing) FailAtHow(n int, how Failure, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.how, f.err = n, how, err
}

// FailWhen makes the next operation for which choose is true fail once with err, in the given manner.
func (f *Failing) FailWhen(choose func(Op) bool, how Failure, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.when, f.how, f.err = choose, how, err
}

// FailEach asks decide about every operation to come: it fails in the given manner if the error is not nil. decide must not use this
// file system.
func (f *Failing) FailEach(decide func(Op) (Failure, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.each = decide
}

// HaltAt makes operation n and every later one fail with ErrCrashed, as if the process had died just before it. Over a
// Lossy, call its Crash next.
func (f *Failing) HaltAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.haltAt = n
}

// Ops returns the operations seen so far; operation n is at index n-1.
func (f *Failing) Ops() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Op(nil), f.ops...)
}

// Count is how many operations were seen.
func (f *Failing) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ops)
}

// Reset forgets the operations seen and the failure asked for; files that are open stay usable.
func (f *Failing) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops, f.at, f.when, f.haltAt, f.halted = nil, 0, nil, 0, false
}

// step counts an operation and says how it has to fail: err is nil if it has not to.
func (f *Failing) step(kind, path string) (how Failure, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops = append(f.ops, Op{kind, path})
	if f.haltAt != 0 && len(f.ops) >= f.haltAt {
		f.halted = true
	}
	if f.halted {
		return FailBefore, &os.PathError{Op: kind, Path: path, Err: ErrCrashed}
	}
	if f.each != nil {
		if how, err := f.each(Op{kind, path}); err != nil {
			return how, &os.PathError{Op: kind, Path: path, Err: fmt.Errorf("%w (operation %d)", err, len(f.ops))}
		}
	}
	chosen := f.at != 0 && len(f.ops) == f.at || f.when != nil && f.when(Op{kind, path})
	if !chosen {
		return 0, nil
	}
	f.at, f.when = 0, nil
	return f.how, &os.PathError{Op: kind, Path: path, Err: fmt.Errorf("%w (operation %d)", f.err, len(f.ops))}
}

// do runs an operation that can fail only before or after.
func (f *Failing) do(kind, path string, op func() error) error {
	how, failure := f.step(kind, path)
	if failure != nil && how != FailAfter {
		return failure
	}
	if err := op(); err != nil && failure == nil {
		return err
	}
	return failure
}

func (f *Failing) open(kind, name string, op func() (File, error)) (File, error) {
	how, failure := f.step(kind, name)
	if failure != nil && how != FailAfter {
		return nil, failure
	}
	inner, err := op()
	if failure != nil {
		if err == nil {
			_ = inner.Close() // the failure is what the caller hears
		}
		return nil, failure
	}
	if err != nil {
		return nil, err
	}
	return &failingFile{File: inner, fs: f}, nil
}

// Open implements FS.
func (f *Failing) Open(name string) (File, error) {
	return f.open(OpOpen, name, func() (File, error) { return f.inner.Open(name) })
}

// OpenFile implements FS.
func (f *Failing) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	kind := OpOpen
	if flag&os.O_CREATE != 0 {
		kind = OpCreate
	}
	return f.open(kind, name, func() (File, error) { return f.inner.OpenFile(name, flag, perm) })
}

// Mkdir implements FS.
func (f *Failing) Mkdir(name string, perm os.FileMode) error {
	return f.do(OpMkdir, name, func() error { return f.inner.Mkdir(name, perm) })
}

// MkdirAll implements FS.
func (f *Failing) MkdirAll(name string, perm os.FileMode) error {
	return f.do(OpMkdir, name, func() error { return f.inner.MkdirAll(name, perm) })
}

// Remove implements FS.
func (f *Failing) Remove(name string) error {
	return f.do(OpRemove, name, func() error {
		f.forget(name)
		return f.inner.Remove(name)
	})
}

// RemoveAll implements FS.
func (f *Failing) RemoveAll(name string) error {
	return f.do(OpRemove, name, func() error { return f.inner.RemoveAll(name) })
}

// Rename implements FS.
func (f *Failing) Rename(oldName, newName string) error {
	return f.do(OpRename, newName, func() error {
		f.mu.Lock()
		f.unwritten[newName] = f.unwritten[oldName]
		delete(f.unwritten, oldName)
		f.mu.Unlock()
		return f.inner.Rename(oldName, newName)
	})
}

// ReadDir implements FS.
func (f *Failing) ReadDir(name string) (entries []os.DirEntry, err error) {
	err = f.do(OpReadDir, name, func() (err error) { entries, err = f.inner.ReadDir(name); return err })
	return entries, err
}

// Stat implements FS.
func (f *Failing) Stat(name string) (info os.FileInfo, err error) {
	err = f.do(OpStat, name, func() (err error) { info, err = f.inner.Stat(name); return err })
	return info, err
}

// SyncDir implements FS.
func (f *Failing) SyncDir(name string) error {
	return f.do(OpSyncDir, name, func() error { return f.inner.SyncDir(name) })
}

// Free implements FS.
func (f *Failing) Free(name string) (bytes int64, err error) {
	err = f.do(OpFree, name, func() (err error) { bytes, err = f.inner.Free(name); return err })
	return bytes, err
}

func (f *Failing) forget(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.unwritten, path)
}

// failingFile is an open file of a Failing. What it does not override goes straight to the inner file.
type failingFile struct {
	File
	fs       *Failing
	position int64 // where Write writes next, as far as it can be known
}

func (f *failingFile) wrote(off int64, n int) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	ranges := f.fs.unwritten[f.Name()]
	if k := len(ranges); k > 0 && ranges[k-1][1] == off {
		ranges[k-1][1] += int64(n)
		return
	}
	f.fs.unwritten[f.Name()] = append(ranges, [2]int64{off, off + int64(n)})
}

// Read implements File.
func (f *failingFile) Read(p []byte) (n int, err error) {
	how, failure := f.fs.step(OpRead, f.Name())
	if failure != nil && how != FailAfter {
		return 0, failure
	}
	if n, err = f.File.Read(p); err != nil && failure == nil {
		return n, err
	}
	return n, failure
}

// ReadAt implements File.
func (f *failingFile) ReadAt(p []byte, off int64) (n int, err error) {
	how, failure := f.fs.step(OpRead, f.Name())
	if failure != nil && how != FailAfter {
		return 0, failure
	}
	if n, err = f.File.ReadAt(p, off); err != nil && failure == nil {
		return n, err
	}
	return n, failure
}

// write does a write whole, by half or not at all.
func (f *failingFile) write(p []byte, op func([]byte) (int, error)) (int, error) {
	how, failure := f.fs.step(OpWrite, f.Name())
	if failure != nil {
		switch how {
		case FailShort:
			p = p[:len(p)/2]
		case FailAfter:
		default:
			return 0, failure
		}
	}
	n, err := op(p)
	if err != nil {
		return n, err
	}
	return n, failure
}

// Write implements File.
func (f *failingFile) Write(p []byte) (int, error) {
	return f.write(p, func(p []byte) (int, error) {
		if info, err := f.File.Stat(); err == nil && f.position == 0 {
			f.position = info.Size() // files that are written in sequence are appended to or new
		}
		n, err := f.File.Write(p)
		f.wrote(f.position, n)
		f.position += int64(n)
		return n, err
	})
}

// WriteAt implements File.
func (f *failingFile) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, func(p []byte) (int, error) {
		n, err := f.File.WriteAt(p, off)
		f.wrote(off, n)
		return n, err
	})
}

// sync syncs, or fails and drops.
func (f *failingFile) sync(kind string, op func() error) error {
	how, failure := f.fs.step(kind, f.Name())
	if failure != nil && how != FailAfter {
		if how == FailDropped {
			f.drop()
		}
		if fg, ok := f.File.(forgetter); ok && how == FailForgotten {
			fg.forgetUnsynced()
		}
		return failure
	}
	if err := op(); err != nil {
		return err
	}
	f.fs.forget(f.Name())
	return failure
}

// syncRange implements rangeSyncer: the second operation of WriteDurably.
func (f *failingFile) syncRange(from, to int64) error {
	return f.sync(OpDatasync, func() error { return syncRange(f.File, from, to) })
}

func (f *failingFile) drop() {
	if d, ok := f.File.(dropper); ok {
		d.dropUnsynced()
		return
	}
	f.fs.mu.Lock()
	ranges := f.fs.unwritten[f.Name()]
	delete(f.fs.unwritten, f.Name())
	f.fs.mu.Unlock()
	out, err := f.fs.inner.OpenFile(f.Name(), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer out.Close()
	info, err := out.Stat()
	if err != nil {
		return
	}
	for _, r := range ranges {
		for off := r[0]; off < min(r[1], info.Size()); {
			n := min(min(r[1], info.Size())-off, int64(len(zeroes)))
			if _, err := out.WriteAt(zeroes[:n], off); err != nil {
				return
			}
			off += n
		}
	}
}

// Sync implements File.
func (f *failingFile) Sync() error { return f.sync(OpSync, f.File.Sync) }

// Datasync implements File.
func (f *failingFile) Datasync() error { return f.sync(OpDatasync, f.File.Datasync) }

// Truncate implements File.
func (f *failingFile) Truncate(size int64) error {
	return f.fs.do(OpTruncate, f.Name(), func() error { return f.File.Truncate(size) })
}

// Stat implements File.
func (f *failingFile) Stat() (info os.FileInfo, err error) {
	err = f.fs.do(OpStat, f.Name(), func() (err error) { info, err = f.File.Stat(); return err })
	return info, err
}

// Preallocate implements File.
func (f *failingFile) Preallocate(size int64) error {
	return f.fs.do(OpPreallocate, f.Name(), func() error {
		f.fs.forget(f.Name())
		return f.File.Preallocate(size)
	})
}

// Allocate implements File.
func (f *failingFile) Allocate(size int64) error {
	return f.fs.do(OpAllocate, f.Name(), func() error { return f.File.Allocate(size) })
}

// Lock implements File.
func (f *failingFile) Lock() error { return f.fs.do(OpLock, f.Name(), f.File.Lock) }

// Close implements File. The inner file is closed even when the operation fails.
func (f *failingFile) Close() error {
	_, failure := f.fs.step(OpClose, f.Name())
	if err := f.File.Close(); err != nil && failure == nil {
		return err
	}
	return failure
}
