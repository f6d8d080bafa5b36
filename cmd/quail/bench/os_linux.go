package bench

// What the system knows of processes and disks.

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ownAttributes keep a started server from the terminal's Ctrl-C, since it is stopped in order then, and end it with this
// process however that ends.
func ownAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// clockTick is what /proc counts CPU time in; Linux tells programs 100 a second on every architecture.
const clockTick = time.Second / 100

// processCPU is the CPU time of a process and of those of its children that ended.
func processCPU(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may have spaces in it. utime, stime, cutime and cstime are fields 14 to 17 of all, so
	// 11 to 14 after it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 15 {
		return 0, fmt.Errorf("/proc/%d/stat has only %d fields", pid, len(fields))
	}
	var ticks int64
	for _, field := range fields[11:15] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// ownCPU is the CPU time of this process.
func ownCPU() time.Duration {
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// flush writes what the system still holds back of that file system to the disk, so that one server's turn does not pay
// for the other's.
func flush(dir string) {
	if d, err := os.Open(dir); err == nil {
		unix.Syncfs(int(d.Fd()))
		d.Close()
	}
}

var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.F2FS_SUPER_MAGIC: "f2fs",
	unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs",
}

// fileSystem is the kind that a directory is on.
func fileSystem(dir string) string {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return "an unknown file system"
	}
	if name, known := fileSystems[int64(stat.Type)]; known {
		return name
	}
	return fmt.Sprintf("file system 0x%x", stat.Type)
}

func datasync(file *os.File) error { return unix.Fdatasync(int(file.Fd())) }

// kernel is the system's name and release.
func kernel() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "linux"
	}
	return "linux " + string(bytes.TrimRight(name.Release[:], "\x00"))
}
