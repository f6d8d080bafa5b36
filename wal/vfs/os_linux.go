package vfs

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

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

// keepBytesMax is how much may be written while Go's processor is kept: the disk takes a megabyte in a millisecond or more.
const keepBytesMax = 512 << 10

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

// Direct is a flag of OpenFile for a file that WriteDurably writes to: it goes past the page cache where that is known to be safe and quicker.
// Every write must then be whole blocks of 512 bytes, at a multiple of that, from a DirectBuffer; nothing is read through this file.
// One call in place of two was measured to take 0.9 of the time, and the server's S3 and S4 went to 1.15 of their rate.
const Direct = syscall.O_DIRECT

// openDirect opens past the page cache on ext4 and xfs. Others take the flag too, and do not all sync what is written with it.
func openDirect(name string, flag int, perm os.FileMode) (f *os.File, ok bool) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, false
	}
	var s syscall.Statfs_t
	err = withFD(f, func(fd int) error { return syscall.Fstatfs(fd, &s) })
	if err != nil || s.Type != unix.EXT4_SUPER_MAGIC && s.Type != unix.XFS_SUPER_MAGIC {
		f.Close()
		return nil, false
	}
	return f, true
}

// clearDirect makes f an ordinary file.
func clearDirect(f *os.File) error {
	return withFD(f, func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_DIRECT)
		return err
	})
}

// writeSync writes p and syncs it, as datasync does. An error that it gives is the call's own.
func writeSync(f *os.File, p []byte, off int64) (n int, err error) {
	letGo := func() error {
		return withFD(f, func(fd int) (err error) {
			n, err = unix.Pwritev2(fd, [][]byte{p}, off, unix.RWF_DSYNC)
			return err
		})
	}
	if runtime.GOMAXPROCS(0) == 1 || len(p) == 0 || len(p) > keepBytesMax {
		err = letGo()
		return n, err
	}
	err = datasyncs.run(letGo, func() error {
		return withFD(f, func(fd int) error {
			v := unix.Iovec{Base: &p[0]}
			v.SetLen(len(p))
			// The offset in two halves, of which the lower one is all of it in a word of 64 bits.
			low, high := uintptr(off), uintptr(uint64(off)>>32)
			written, _, errno := syscall.RawSyscall6(unix.SYS_PWRITEV2, uintptr(fd), uintptr(unsafe.Pointer(&v)), 1, low, high, unix.RWF_DSYNC)
			if errno != 0 {
				return errno
			}
			n = int(written)
			return nil
		})
	})
	return n, err
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
	return int64(s.Bavail) * int64(s.Bsize), nil
}

func flock(f *os.File) (held bool, err error) {
	err = withFD(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) })
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}
