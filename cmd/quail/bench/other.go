//go:build !linux

package bench

// The load generator is built on epoll, and its figures on /proc. Elsewhere Quail builds, and this command says that it
// cannot run here.

import (
	"crypto/tls"
	"errors"
	"os"
	"runtime"
	"syscall"
	"time"
)

var errSystem = errors.New("quail bench runs on Linux only; it can measure servers elsewhere with --quail and --redis")

const timerIndex = -1

type event struct {
	index              int
	readable, writable bool
}

type poller struct{}

func newPoller() (*poller, error) { return nil, errSystem }

func (*poller) close()                         {}
func (*poller) add(int, int) error             { return errSystem }
func (*poller) wantWrite(int, int, bool) error { return errSystem }
func (*poller) every(time.Duration) error      { return errSystem }
func (*poller) wait(int) ([]event, error)      { return nil, errSystem }

func readFD(int, []byte) (int, error)       { return 0, errSystem }
func writeFD(int, []byte) (int, error)      { return 0, errSystem }
func endWrites(int) error                   { return errSystem }
func closeFD(int)                           {}
func takeFD(syscall.Conn) (int, error)      { return -1, errSystem }
func relay(*tls.Conn) (int, error)          { return -1, errSystem }
func ownAttributes() *syscall.SysProcAttr   { return nil }
func processCPU(int) (time.Duration, error) { return 0, errSystem }
func ownCPU() time.Duration                 { return 0 }
func flush(string)                          {}
func fileSystem(string) string              { return "an unknown file system" }
func datasync(file *os.File) error          { return file.Sync() }
func kernel() string                        { return runtime.GOOS }
