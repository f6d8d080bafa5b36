package vfs

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// withFD runs op on f's descriptor, again while a signal interrupts it, and keeps the descriptor alive meanwhile.
func withFD(f *os.File, op func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var opErr error
	err = conn.Control(func(fd uintptr) {
		for {
			if opErr = op(int(fd)); opErr != syscall.EINTR {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return opErr
}

func datasync(f *os.File) error { return withFD(f, syscall.Fdatasync) }

// willNeed has a part of a file read into the page cache, and does not wait for it.
func willNeed(f *os.File, offset, size int64) {
	_ = withFD(f, func(fd int) error { return unix.Fadvise(fd, offset, size, unix.FADV_WILLNEED) }) // a hint: without it all is as good, only slower
}

// allocate takes the blocks of the first size bytes.
func allocate(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	return withFD(f, func(fd int) error { return syscall.Fallocate(fd, 0, 0, size) })
}

// freeBytes leaves out what is kept for root.
func freeBytes(name string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(name, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}

func flock(f *os.File) (held bool, err error) {
	err = withFD(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) })
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}
