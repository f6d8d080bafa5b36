//go:build linux

package integration

// A gate through which every system call goes that changes the disk. The server is started under a seccomp filter that
// hands those calls to this process and waits for its verdict: let it pass, let it fail, pretend that it succeeded, or kill
// the server in front of it.
//
// Why not strace -e inject: it counts calls a thread, and a Go program's threads change with the weather, so that "the n-th
// write" is another call each time and may be several; and it cannot tell the files of one queue from the network.
// Here all threads go through one counter, and only files below the data directory count. Both see what the vfs of the tests
// cannot: the calls that tidwall/wal makes by itself.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// gateWord is the first argument of this test binary when it is to start a program behind the gate.
const gateWord = "behind-the-gate"

// gateCalls are the calls that Go's os package and the server use to change files, and the names that faults have. Go uses the
// newer form of each, openat and not open, on all machines.
var gateCalls = map[int32]string{
	unix.SYS_OPENAT: "openat", unix.SYS_WRITE: "write", unix.SYS_PWRITE64: "pwrite", unix.SYS_PWRITEV2: syncedWrite, unix.SYS_FSYNC: "fsync",
	unix.SYS_FDATASYNC: "fdatasync", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_FALLOCATE: "fallocate",
	unix.SYS_RENAMEAT: "rename", unix.SYS_RENAMEAT2: "rename", unix.SYS_UNLINKAT: "unlink", unix.SYS_MKDIRAT: "mkdir",
}

// syncedWrite is a write of one piece with the sync in the same call.
const syncedWrite = "pwrite+sync"

// call is one system call that waits at the gate.
type call struct {
	name   string
	path   string // below the data directory, relative to it
	from   string // of a rename, in the same way
	writes bool   // false only for an openat that neither makes nor cuts the file
	isDir  bool   // of an fsync: it is that of a directory
	pid    uint32
	args   [6]uint64
}

// verdict says what happens to a call; the zero value lets it pass.
type verdict struct {
	errno   syscall.Errno // the call fails with this and does nothing
	pretend bool          // the call succeeds and does nothing; of one that writes and syncs, the sync is left out
	kill    bool          // the process is killed, and the call does nothing
	half    bool          // a write does its first half, and says so; with kill, nobody hears of it
}

// A gate judges the calls of one server's lives.
type gate struct {
	t        testing.TB
	listener *net.UnixListener
	dir      string // the server's data directory

	mu    sync.Mutex // guards judge; held while a call waits, so that there is one order of calls
	judge func(call) verdict
	done  sync.WaitGroup
}

type (
	bpfInstruction struct {
		code   uint16
		jt, jf uint8
		k      uint32
	}
	bpfProgram struct {
		length uint16
		filter *bpfInstruction
	}
	seccompNotice struct {
		id         uint64
		pid, flags uint32
		nr         int32
		arch       uint32
		ip         uint64
		args       [6]uint64
	}
	seccompReply struct {
		id    uint64
		val   int64
		err   int32
		flags uint32
	}
)

const (
	seccompReturnAllow  = 0x7fff0000
	seccompReturnNotify = 0x7fc00000
	seccompNewListener  = 1 << 3
	seccompWaitKillable = 1 << 5 // a call that waits is not interrupted by Go's own signals, and so is seen once
	seccompReceive      = 0xc0502100
	seccompSend         = 0xc0182101
	seccompContinue     = 1
)

// runBehindGate is the other end: it is this binary, started anew, which puts itself behind the filter, sends the filter's
// descriptor to the socket args[0] and becomes the program args[1:].
func runBehindGate(args []string) error {
	runtime.LockOSThread() // the filter belongs to the thread, and the thread that execs is the one that lives on
	conn, err := net.Dial("unix", args[0])
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := []bpfInstruction{{code: 0x20}} // load the call's number
	for nr := range gateCalls {
		filter = append(filter, bpfInstruction{code: 0x15, jf: 1, k: uint32(nr)}, bpfInstruction{code: 0x06, k: seccompReturnNotify})
	}
	filter = append(filter, bpfInstruction{code: 0x06, k: seccompReturnAllow})
	program := bpfProgram{length: uint16(len(filter)), filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, seccompNewListener|seccompWaitKillable, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		conn.(*net.UnixConn).Close()
		return fmt.Errorf("seccomp: %w", errno)
	}
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte{1}, unix.UnixRights(int(fd)), nil); err != nil {
		return err
	}
	return syscall.Exec(args[1], args[1:], os.Environ())
}

// behindGate puts the server's next lives behind a gate that lets everything pass, or skips the test where the kernel does not
// allow it.
func behindGate(t testing.TB, s *server) *gate {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "gate") // a socket's path has a short limit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{t: t, listener: listener, dir: s.dir}
	s.wrap = []string{self, gateWord, filepath.Join(dir, "s")}
	go g.accept()
	t.Cleanup(func() {
		listener.Close()
		g.set(nil)
	})
	return g
}

// set changes the judge; nil lets everything pass.
func (g *gate) set(judge func(call) verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.judge = judge
}

func (g *gate) accept() {
	for {
		conn, err := g.listener.AcceptUnix()
		if err != nil {
			return
		}
		oob := make([]byte, 64)
		_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
		conn.Close()
		if err != nil || n == 0 {
			continue // the launcher says why, in the server's log
		}
		messages, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil || len(messages) != 1 {
			continue
		}
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			go g.serve(fds[0])
		}
	}
}

// serve answers for one life.
func (g *gate) serve(fd int) {
	defer unix.Close(fd)
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			if poll[0].Revents != 0 {
				return // everybody behind the gate is gone
			}
			continue
		}
		var notice seccompNotice
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), seccompReceive, uintptr(unsafe.Pointer(&notice))); errno != 0 {
			continue // the caller died meanwhile
		}
		reply := g.answer(&notice)
		unix.Syscall(unix.SYS_IOCTL, uintptr(fd), seccompSend, uintptr(unsafe.Pointer(&reply)))
	}
}

func (g *gate) answer(notice *seccompNotice) seccompReply {
	reply := seccompReply{id: notice.id, flags: seccompContinue}
	c, below := g.describe(notice)
	if !below {
		return reply
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.judge == nil {
		return reply
	}
	v := g.judge(c)
	if v.half {
		n, err := c.writeInstead(2)
		if err != nil && c.process() != 0 { // else somebody has killed it meanwhile
			g.t.Errorf("half of a write to %s: %v", c.path, err)
		}
		reply.flags, reply.val = 0, int64(n)
	}
	switch {
	case v.kill:
		unix.Kill(int(notice.pid), unix.SIGKILL) // the thread's id serves as the process's
		reply.flags, reply.val, reply.err = 0, 0, -int32(unix.EIO)
	case v.pretend && c.name == syncedWrite:
		n, err := c.writeInstead(1)
		if err != nil && c.process() != 0 {
			g.t.Errorf("a write to %s without its sync: %v", c.path, err)
		}
		reply.flags, reply.val = 0, int64(n)
	case v.pretend:
		reply.flags = 0
	case v.errno != 0:
		reply.flags, reply.err = 0, -int32(v.errno)
	}
	return reply
}

// describe tells a call's file, and whether it lies below the data directory.
func (g *gate) describe(notice *seccompNotice) (c call, below bool) {
	c.name, c.writes, c.pid, c.args = gateCalls[notice.nr], true, notice.pid, notice.args
	path := ""
	switch c.name {
	case "openat":
		c.writes = notice.args[2]&(unix.O_CREAT|unix.O_TRUNC) != 0
		path = pathArgument(notice.pid, notice.args[0], notice.args[1])
	case "unlink", "mkdir":
		path = pathArgument(notice.pid, notice.args[0], notice.args[1])
	case "rename":
		path = pathArgument(notice.pid, notice.args[2], notice.args[3])
		c.from = strings.TrimPrefix(pathArgument(notice.pid, notice.args[0], notice.args[1]), g.dir+"/")
	default:
		path, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", notice.pid, int32(notice.args[0])))
	}
	if path == g.dir {
		path += "/."
	}
	c.path, below = strings.CutPrefix(path, g.dir+"/")
	if below && c.name == "fsync" {
		info, err := os.Stat(path)
		c.isDir = err == nil && info.IsDir()
	}
	return c, below
}

// isWrite tells the calls that have a buffer.
func (c *call) isWrite() bool {
	return c.name == "write" || c.name == "pwrite" || c.name == syncedWrite
}

// buffer reads what a write is to write from the caller's memory.
func (c *call) buffer() ([]byte, error) {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", c.pid))
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	address, size := c.args[1], c.args[2]
	if c.name == syncedWrite {
		if c.args[2] != 1 || c.args[5] != unix.RWF_DSYNC {
			return nil, fmt.Errorf("a write of %d pieces with the flags %#x", c.args[2], c.args[5])
		}
		piece := make([]byte, 16) // two words
		if _, err := memory.ReadAt(piece, int64(address)); err != nil {
			return nil, err
		}
		address, size = binary.NativeEndian.Uint64(piece), binary.NativeEndian.Uint64(piece[8:])
	}
	buffer := make([]byte, size)
	_, err = memory.ReadAt(buffer, int64(address))
	return buffer, err
}

// offset is where a write is to write: the position of the open file, its end, or the call's argument.
func (c *call) offset() (int64, error) {
	if c.name != "write" {
		return int64(c.args[3]), nil
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", c.pid, int32(c.args[0])))
	if err != nil {
		return 0, err
	}
	var position, flags int64
	if _, err := fmt.Sscanf(string(text), "pos:\t%d\nflags:\t%o\n", &position, &flags); err != nil {
		return 0, err
	}
	if flags&unix.O_APPEND != 0 {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", c.pid, int32(c.args[0])))
		if err != nil {
			return 0, err
		}
		position = info.Size()
	}
	return position, nil
}

// writeInstead does the first part of a write in the caller's place, without a sync: on the caller's own open file, so that its position moves
// too, or, if the call has a position, on the same file opened anew, which takes pieces of all sizes.
func (c *call) writeInstead(parts int) (int, error) {
	buffer, err := c.buffer()
	if err != nil {
		return 0, err
	}
	buffer = buffer[:len(buffer)/parts]
	if c.name != "write" {
		file, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/%d", c.pid, int32(c.args[0])), os.O_WRONLY, 0)
		if err != nil {
			return 0, err
		}
		defer file.Close()
		return file.WriteAt(buffer, int64(c.args[3]))
	}
	process, err := unix.PidfdOpen(int(c.process()), 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, int(int32(c.args[0])), 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.Write(fd, buffer)
}

// process is the process of the thread that calls.
func (c *call) process() (pid uint32) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid))
	_, rest, _ := strings.Cut(string(text), "Tgid:")
	fmt.Sscan(rest, &pid)
	return pid
}

// pathArgument reads a path from the caller's memory.
func pathArgument(pid uint32, dirFD, address uint64) string {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return ""
	}
	defer memory.Close()
	buffer := make([]byte, unix.PathMax)
	n, _ := memory.ReadAt(buffer, int64(address))
	text, _, _ := bytes.Cut(buffer[:n], []byte{0})
	path := string(text)
	if !filepath.IsAbs(path) && int32(dirFD) != unix.AT_FDCWD {
		base, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, int32(dirFD)))
		path = filepath.Join(base, path)
	}
	return path
}

// startBehindGate is start, but it skips the test where the kernel has no such gate.
func startBehindGate(t testing.TB, s *server) *gate {
	t.Helper()
	g := behindGate(t, s)
	if err := s.tryStart(); err != nil {
		if strings.Contains(s.log(), "seccomp: ") {
			t.Skip("SKIPPED: the kernel does not let a process watch another one's system calls (seccomp, Linux 5.19)")
		}
		t.Fatal(err)
	}
	return g
}
