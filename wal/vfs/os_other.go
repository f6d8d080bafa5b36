//go:build unix && !linux

package vfs

// Where there is no fdatasync and no fallocate, the stronger and the plainer call do.

import (
	"errors"
	"math"
	"os"
	"syscall"
)

func datasync(f *os.File) error { return f.Sync() }

// Direct changes nothing here.
const Direct = 0

func openDirect(string, int, os.FileMode) (f *os.File, ok bool) { return nil, false }

func clearDirect(*os.File) error { return syscall.ENOSYS }

func writeSync(*os.File, []byte, int64) (int, error) { return 0, syscall.ENOSYS }

func willNeed(*os.File, int64, int64) {}

func allocate(*os.File, int64) error { return syscall.ENOSYS }

// freeBytes is not asked for: a full file system is noticed when it refuses a write.
func freeBytes(string) (int64, error) { return math.MaxInt64, nil }

func flock(f *os.File) (held bool, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	var lockErr error
	if err := conn.Control(func(fd uintptr) {
		lockErr = syscall.Flock(int(fd), syscall.LOCK_EX|syscall.LOCK_NB)
	}); err != nil {
		return false, err
	}
	if errors.Is(lockErr, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, lockErr
}
