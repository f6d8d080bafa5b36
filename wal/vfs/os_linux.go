package vfs

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

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

// keepMax is how long a sync may take for the next one to keep Go's processor. The usual ones take a tenth of that.
const keepMax = time.Millisecond

// datasyncs is how the last sync went.
var datasyncs patience

// datasync keeps Go's processor for the whole call where there is another one and the disk is quick. Go's scheduler takes the processor of a
// goroutine away that is in a system call for more than 20 µs, and a thread of its own looks for such goroutines all the time: for a server
// that syncs five thousand times a second that was measured to be a tenth of its CPU, and a quarter at low rates. The price: the collector of
// memory, which stops all goroutines for a moment, waits for the call. So it is paid once, when a disk begins to be slow, and not while it is.
func datasync(f *os.File) error {
	letGo := func() error { return withFD(f, syscall.Fdatasync) }
	if runtime.GOMAXPROCS(0) == 1 {
		return letGo()
	}
	return datasyncs.run(letGo, func() error {
		return withFD(f, func(fd int) error {
			if _, _, errno := syscall.RawSyscall(syscall.SYS_FDATASYNC, uintptr(fd), 0, 0); errno != 0 {
				return errno
			}
			return nil
		})
	})
}

// patience chooses between two ways of one call by how long the last one took. The zero value takes it to be quick.
type patience struct{ isSlow atomic.Bool }

func (p *patience) run(letGo, keep func() error) error {
	call := keep
	if p.isSlow.Load() {
		call = letGo
	}
	began := time.Now()
	err := call()
	p.isSlow.Store(time.Since(began) > keepMax)
	return err
}

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
