// Package vfs is every file operation of the journal, the checkpoints, the repair of queue logs and their own reads and
// syncs, behind one interface with three implementations:
//
//   - OS is the machine's file system.
//   - Failing wraps another one and fails a chosen operation once, so a test can walk through every operation of a
//     run and find the error that nobody looked at.
//   - Lossy lives in memory and knows what was synced. Crash gives the file system as a power cut may leave it: what
//     was synced, and of everything else whatever the dice say. A process that is killed keeps the page cache, so no
//     kill can prove that a sync is where it must be; Lossy does.
//
// The interface is no wider than Quail needs. It has a SyncDir, because a new, renamed or removed name is durable only
// when its directory was synced, which package os leaves to be forgotten.
package vfs

import (
	"errors"
	"io"
	"os"
	"syscall"
	"unsafe"
)

// FS is a file system. Names are paths as package os takes them. All methods may be called from several goroutines.
// Errors are those of package os: errors.Is(err, fs.ErrNotExist) and the like hold for every implementation.
type FS interface {
	// Open opens a file, or a directory to lock it, for reading.
	Open(name string) (File, error)
	// OpenFile opens with the flags of package os: O_RDONLY, O_WRONLY or O_RDWR, with O_APPEND, O_CREATE, O_EXCL, O_TRUNC.
	// A created file is durable only after Sync of the file and SyncDir of its directory. Direct is a hint on top.
	OpenFile(name string, flag int, perm os.FileMode) (File, error)
	// Mkdir makes one directory; durable after SyncDir of its parent.
	Mkdir(name string, perm os.FileMode) error
	// MkdirAll makes a directory and its missing parents; no error if it is there.
	MkdirAll(name string, perm os.FileMode) error
	// Remove removes a file or an empty directory.
	Remove(name string) error
	// RemoveAll removes name and all below it; no error if it is missing.
	RemoveAll(name string) error
	// Rename moves a file or directory, replacing a file that stands at newName, in one step.
	Rename(oldName, newName string) error
	// ReadDir lists a directory in the order of names.
	ReadDir(name string) ([]os.DirEntry, error)
	// Stat describes the file or directory at name.
	Stat(name string) (os.FileInfo, error)
	// SyncDir makes the names in a directory durable: creations, renames and removals.
	SyncDir(name string) error
	// Free is how many bytes can still be written to the file system that holds name, as far as it tells: others write to it
	// too, and a quota may end earlier.
	Free(name string) (bytes int64, err error)
}

// File is an open file. ReadAt and WriteAt may be called from several goroutines.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer
	// Sync makes content and metadata durable. After an error the un-synced content is in doubt for good: the kernel
	// marks pages clean that it could not write, so a second Sync would succeed and prove nothing.
	Sync() error
	// Datasync is Sync without metadata that is not needed to read the content back, such as times. Over a file that
	// neither grows nor has unwritten extents, it costs no metadata commit.
	Datasync() error
	// Truncate sets the size in bytes.
	Truncate(size int64) error
	// Stat describes the file.
	Stat() (os.FileInfo, error)
	// Name is the name the file was opened with.
	Name() string
	// Preallocate makes the file exactly size bytes of zeros, written and synced, so that later writes inside it change
	// no metadata. What the file held is gone.
	Preallocate(size int64) error
	// Allocate makes the file exactly size bytes and takes the space for them, so that removing it gives that space back. What
	// it holds is of no interest, and nothing is synced.
	Allocate(size int64) error
	// Lock takes the exclusive lock of the file or directory (flock), without waiting. It is held until Close.
	// Errors: ErrLocked if another open file, of this process or another, holds it.
	Lock() error
}

// WriteDurably is WriteAt and Datasync, in one call if f was opened with Direct and the machine's file system can. Only p is durable then: a disk
// that can write one block through its cache (FUA) keeps what was written before in there. After an error it is in doubt what of p is there,
// and what will be.
func WriteDurably(f File, p []byte, off int64) (n int, err error) {
	if f, ok := f.(osFile); ok && f.direct {
		return f.writeDurably(p, off)
	}
	if n, err = f.WriteAt(p, off); err != nil || n < len(p) {
		return n, err
	}
	if err = syncRange(f, off, off+int64(n)); err != nil {
		return n, err
	}
	return n, nil
}

// rangeSyncer is a file of a test that is opened with Direct: it syncs no more than WriteDurably promises.
type rangeSyncer interface {
	syncRange(from, to int64) error
}

func syncRange(f File, from, to int64) error {
	if r, ok := f.(rangeSyncer); ok {
		return r.syncRange(from, to)
	}
	return f.Datasync()
}

// directAlign is what memory that is written from past the page cache begins at a multiple of; a page is enough for every disk.
const directAlign = 4096

// DirectBuffer makes an empty buffer for writes to a file that was opened with Direct.
func DirectBuffer(capacity int) []byte {
	b := make([]byte, capacity+directAlign)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (directAlign - 1)
	return b[skip : skip : skip+capacity]
}

// OutOfSpace reports whether err says that the file system is full, or a quota used up: what was refused may work when others
// have given space back.
func OutOfSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// ErrLocked: the file's lock is held through another open file.
var ErrLocked = errors.New("locked by another process")

// zeroes is what Preallocate writes from, one chunk at a time.
var zeroes [1 << 20]byte

// fillZero writes size zero bytes from offset 0.
func fillZero(w io.WriterAt, size int64) error {
	for off := int64(0); off < size; {
		n := min(size-off, int64(len(zeroes)))
		if _, err := w.WriteAt(zeroes[:n], off); err != nil {
			return err
		}
		off += n
	}
	return nil
}
