package vfs

import (
	"errors"
	"os"
	"runtime"
	"syscall"
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

// datasync keeps Go's processor for the whole call where there is another one. Go's scheduler takes the processor of a goroutine away
// that is in a system call for more than 20 µs, and a thread of its own looks for such goroutines all the time: for a server that syncs
// five thousand times a second that was measured to be a tenth of its CPU, and a quarter at low rates. The price: while the disk hangs,
// the collector of memory, which stops all goroutines for a moment, waits with it.
func datasync(f *os.File) error {
	if runtime.GOMAXPROCS(0) == 1 {
		return withFD(f, syscall.Fdatasync)
	}
	return withFD(f, func(fd int) error {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_FDATASYNC, uintptr(fd), 0, 0); errno != 0 {
			return errno
		}
		return nil
	})
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
