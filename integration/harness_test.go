//go:build linux

package integration

// The server as a process: built once, started on a data directory of its own, killed, stopped and started again.
//
// Nothing here waits for a length of time. A start waits for an answer to PING, a kill for the process to be gone, and
// everything else for a condition with a bound (eventually).

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

const (
	startTimeout = 60 * time.Second // a recovery of a few megabytes, on a busy machine, with the race detector
	stopTimeout  = 30 * time.Second // more than the server's own shutdown-timeout
	replyTimeout = 30 * time.Second // no reply of these tests takes so long unless something hangs
	pollEvery    = 2 * time.Millisecond
)

var (
	raceBuild = os.Getenv("QUAIL_RACE") == "1"
	longRun   = os.Getenv("QUAIL_LONG") == "1"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == gateWord {
		fmt.Fprintln(os.Stderr, runBehindGate(os.Args[2:]))
		os.Exit(1)
	}
	if len(os.Args) == 4 && os.Args[1] == workerWord {
		if err := runWorker(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if builtIn != "" {
		os.RemoveAll(builtIn)
	}
	os.Exit(code)
}

var builtIn string // the directory of the binary that this run built

var build = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("QUAIL_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	dir, err := os.MkdirTemp("", "quail-integration-")
	if err != nil {
		return "", err
	}
	builtIn = dir
	path := filepath.Join(dir, "quail")
	args := []string{"build", "-o", path}
	if raceBuild {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "quail/cmd/quail")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// eventually waits for a condition. It is the only place where these tests let time pass.
func eventually(t testing.TB, within time.Duration, what string, condition func() bool) {
	t.Helper()
	if !holdsWithin(within, condition) {
		t.Fatalf("not within %v: %s", within, what)
	}
}

func holdsWithin(within time.Duration, condition func() bool) bool {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for deadline := time.Now().Add(within); ; <-tick.C {
		if condition() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// seeded returns the random choices of a test, which a failure can repeat with QUAIL_SEED.
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("QUAIL_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("QUAIL_SEED: %v", err)
		}
		seed = n
	}
	t.Logf("QUAIL_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// A server is one data directory and the process that serves it, if one does.
type server struct {
	t       testing.TB
	dir     string
	addr    string
	args    []string
	program string   // another build than the one that is tested; ""
	wrap    []string // a command that runs the binary, such as one that lowers a limit first
	logPath string
	auth    string

	mu      sync.Mutex // guards what follows; never held while waiting
	process *process
	up      chan struct{} // closed while a ready process serves
	deaths  atomic.Int64  // kills and stops so far, counted before the signal is sent
}

// process is one life of a server.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when Wait has returned
	err    error         // of Wait; read after exited
	// logFrom is where its part of the log begins.
	logFrom int64
}

// newServer prepares a server on a free port with an empty data directory; args are further flags.
func newServer(t testing.TB, args ...string) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, dir: filepath.Join(dir, "data"), addr: freeAddress(t), args: args,
		logPath: filepath.Join(dir, "log"), up: make(chan struct{})}
	t.Cleanup(func() {
		s.mu.Lock()
		p := s.process
		s.mu.Unlock()
		if p != nil {
			p.cmd.Process.Kill()
			<-p.exited
		}
		s.checkLog()
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", s.logTail(8<<10))
		}
	})
	return s
}

// startServer is newServer, started.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	s := newServer(t, args...)
	s.start()
	return s
}

// freeAddress finds a port below those that the kernel hands to outgoing connections, so that it stays free between two
// lives of a server.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 200 {
		address := fmt.Sprintf("127.0.0.1:%d", 12_000+rand.IntN(18_000))
		listener, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		listener.Close()
		return address
	}
	t.Fatal("no free port between 12000 and 30000")
	return ""
}

func (s *server) port() string {
	_, port, _ := net.SplitHostPort(s.addr)
	return port
}

// launch starts the process and does not wait for anything.
func (s *server) launch() (*process, error) {
	args := append([]string{"serve", "--listen", s.addr, "--data", s.dir, "--log-format", "json"}, s.args...)
	if s.auth != "" {
		args = append(args, "--requirepass", s.auth)
	}
	program, err := s.program, error(nil)
	if program == "" {
		program, err = build()
	}
	if err != nil {
		return nil, err
	}
	argv := append(slices.Clone(s.wrap), program)
	cmd := exec.Command(argv[0], append(argv[1:], args...)...)
	cmd.Env = cleanEnv()
	log, err := os.OpenFile(s.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	logFrom, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no server outlives a test that timed out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, exited: make(chan struct{}), logFrom: logFrom}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	s.mu.Lock()
	s.process = p
	s.mu.Unlock()
	return p, nil
}

// cleanEnv is the environment without Quail's settings: a developer's own must not change what is tested.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, "QUAIL_") })
}

// start runs the server and returns when it serves queues.
func (s *server) start() {
	s.t.Helper()
	if err := s.tryStart(); err != nil {
		s.t.Fatal(err)
	}
}

// tryStart is start for goroutines that may not end the test.
func (s *server) tryStart() error {
	p, err := s.launch()
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	if !holdsWithin(startTimeout, func() bool { return p.gone() || s.answers(p) }) || p.gone() {
		return fmt.Errorf("the server does not answer %v after its start; its log ends:\n%s", startTimeout, s.logTail(8<<10))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.up)
	return nil
}

// answers reports whether a server is there and serves queues. It says so in its log: asking would need the password, and is answered before.
func (s *server) answers(p *process) bool {
	log, err := os.ReadFile(s.logPath)
	if err != nil || !bytes.Contains(log[min(p.logFrom, int64(len(log))):], []byte("Quail is ready")) {
		return false
	}
	conn, err := net.DialTimeout("tcp", s.addr, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// down takes note that this life ends, before the signal is sent.
func (s *server) down() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaths.Add(1)
	select {
	case <-s.up:
		s.up = make(chan struct{})
	default:
	}
	return s.process
}

// awaitUp waits until a process serves; clients that lost their connection call it before they try again.
func (s *server) awaitUp() bool {
	s.mu.Lock()
	up := s.up
	s.mu.Unlock()
	select {
	case <-up:
		return true
	case <-time.After(startTimeout):
		return false
	}
}

// kill is kill -9. When it returns the process is gone.
func (s *server) kill() {
	p := s.down()
	p.cmd.Process.Kill()
	<-p.exited
}

// stop asks for a graceful end and returns the exit code, -1 if a signal ended the process.
func (s *server) stop(signal syscall.Signal) int {
	s.t.Helper()
	p := s.down()
	if err := p.cmd.Process.Signal(signal); err != nil {
		s.t.Fatalf("signal %v: %v", signal, err)
	}
	return s.exitCode(p)
}

// exitCode waits for the end of a process that has been asked to end.
func (s *server) exitCode(p *process) int {
	s.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		p.cmd.Process.Signal(syscall.SIGQUIT) // its stacks go to the log
		holdsWithin(5*time.Second, p.gone)
		s.t.Fatalf("the server did not stop within %v", stopTimeout)
	}
	return p.cmd.ProcessState.ExitCode()
}

// isUp reports whether the process lives.
func (s *server) isUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process != nil && !s.process.gone()
}

func (s *server) pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.cmd.Process.Pid
}

// log is all that the server wrote so far, in all its lives.
func (s *server) log() string {
	text, _ := os.ReadFile(s.logPath)
	return string(text)
}

func (s *server) logTail(bytesMax int) string {
	text := s.log()
	return text[max(0, len(text)-bytesMax):]
}

var disaster = regexp.MustCompile(`(?m)^(panic: |fatal error: |WARNING: DATA RACE|goroutine \d+ \[running\])`)

// checkLog fails the test if the server ever panicked, whatever its clients saw of it.
func (s *server) checkLog() {
	text := s.log()
	if at := disaster.FindStringIndex(text); at != nil {
		s.t.Errorf("the server's log shows a disaster:\n%s", text[at[0]:min(len(text), at[0]+6<<10)])
	}
}

// dial connects with redigo, which sends nothing but what the test says.
func (s *server) dial() (redis.Conn, error) {
	options := []redis.DialOption{redis.DialConnectTimeout(5 * time.Second), redis.DialReadTimeout(replyTimeout), redis.DialWriteTimeout(replyTimeout)}
	if s.auth != "" {
		options = append(options, redis.DialPassword(s.auth))
	}
	return redis.Dial("tcp", s.addr, options...)
}

// connect is dial for when it must work; the connection is closed with the test.
func (s *server) connect(t testing.TB) redis.Conn {
	t.Helper()
	conn, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// must runs a command that has to succeed.
func must(t testing.TB, conn redis.Conn, command string, args ...any) any {
	t.Helper()
	reply, err := conn.Do(command, args...)
	if err != nil {
		t.Fatalf("%s: %v", line(command, args), err)
	}
	return reply
}

// mustRefuse runs a command that has to fail with one of the contract's codes, and returns the message.
func mustRefuse(t testing.TB, conn redis.Conn, code, command string, args ...any) string {
	t.Helper()
	reply, err := conn.Do(command, args...)
	var refusal redis.Error
	if !errors.As(err, &refusal) || !strings.HasPrefix(string(refusal), code+" ") {
		t.Fatalf("%s: got %v, %v; want -%s", line(command, args), reply, err, code)
	}
	return string(refusal)
}

func line(command string, args []any) string {
	var text bytes.Buffer
	text.WriteString(command)
	for _, arg := range args {
		word := fmt.Sprint(arg)
		if len(word) > 60 {
			word = fmt.Sprintf("%.60s… (%d bytes)", word, len(word))
		}
		text.WriteString(" " + word)
	}
	return text.String()
}

// refused reports whether err is an error reply, which is an answer, and not the loss of a connection, which is none.
func refused(err error) bool {
	var refusal redis.Error
	return errors.As(err, &refusal)
}
