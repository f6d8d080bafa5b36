package main

// The command as a person meets it: testdata/script has conversations with it. A script starts servers with "start",
// which waits for the ready line and puts the address into $ADDR, and ends them with "finish SIGNAL CODE".

import (
	"bufio"
	"crypto/x509"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"quail/integration/authority"
	"quail/server/settings"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"quail": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":   startCmd,
			"finish":  finishCmd,
			"ask":     askCmd,
			"damage":  damageCmd,
			"certify": certifyCmd,
		},
	})
}

// patience bounds every wait for a process; it is only spent when something is wrong.
const patience = 60 * time.Second

// served is a running "quail serve".
type served struct {
	cmd     *exec.Cmd
	address string
	logged  chan string // the whole log, when the process has closed it
}

var readyLine = regexp.MustCompile(`Quail is ready.*address=(\S+)`)

// startServer runs quail with a free port and waits until it is ready.
func startServer(quail, directory string, env []string, args ...string) (*served, error) {
	s := &served{cmd: exec.Command(quail, append([]string{"--listen", "127.0.0.1:0"}, args...)...), logged: make(chan string, 1)}
	s.cmd.Dir, s.cmd.Env = directory, env
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan string, 1)
	go func() {
		var log strings.Builder
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			log.WriteString(lines.Text() + "\n")
			if found := readyLine.FindStringSubmatch(lines.Text()); found != nil {
				ready <- found[1]
			}
		}
		s.logged <- log.String()
	}()
	select {
	case s.address = <-ready:
		return s, nil
	case log := <-s.logged:
		s.cmd.Wait()
		return nil, fmt.Errorf("it did not start:\n%s", log)
	case <-time.After(patience):
		s.cmd.Process.Kill()
		return nil, fmt.Errorf("not ready in time:\n%s", <-s.logged)
	}
}

// end sends a signal and returns the exit code and the log.
func (s *served) end(signal os.Signal) (code int, log string) {
	s.cmd.Process.Signal(signal)
	kill := time.AfterFunc(patience, func() { s.cmd.Process.Kill() })
	defer kill.Stop()
	log = <-s.logged
	s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode(), log
}

// servers has the server that a script started last.
var servers sync.Map // *testscript.TestScript to *served

func startCmd(ts *testscript.TestScript, neg bool, args []string) {
	quail, err := exec.LookPath("quail")
	ts.Check(err)
	env := append(os.Environ(), "QUAIL_DATA="+ts.MkAbs("data"))
	for _, s := range settings.All() {
		if text := ts.Getenv(s.Env()); text != "" {
			env = append(env, s.Env()+"="+text)
		}
	}
	for _, name := range []string{"QUAIL_CONFIG", "QUAIL_PASSWORD"} {
		if text := ts.Getenv(name); text != "" {
			env = append(env, name+"="+text)
		}
	}
	s, err := startServer(quail, ts.MkAbs("."), env, args...)
	if err != nil {
		ts.Fatalf("%v", err)
	}
	ts.Setenv("ADDR", s.address)
	ts.Setenv("PID", strconv.Itoa(s.cmd.Process.Pid))
	servers.Store(ts, s)
	ts.Defer(func() { s.cmd.Process.Kill() })
}

func finishCmd(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: finish SIGNAL CODE")
	}
	signal := map[string]os.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "0": syscall.Signal(0)}[args[0]]
	found, _ := servers.Load(ts)
	code, log := found.(*served).end(signal)
	ts.Check(os.WriteFile(ts.MkAbs("log"), []byte(log), 0o644))
	ts.Logf("%s", log)
	if strconv.Itoa(code) != args[1] {
		ts.Fatalf("exit code %d, not %s", code, args[1])
	}
}

// damageCmd changes one byte, at the offset, of the first file below a directory.
func damageCmd(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: damage DIRECTORY OFFSET")
	}
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	path := ""
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && path == "" {
			path = name
		}
		return err
	}))
	data, err := os.ReadFile(path)
	ts.Check(err)
	data[offset] ^= 1
	ts.Check(os.WriteFile(path, data, 0o640))
}

// certifyCmd makes an authority ca, server certificates, one of them (plain-server) not for clients, and one for a client, each with its key, and
// puts a free port into $PORT.
func certifyCmd(ts *testscript.TestScript, neg bool, args []string) {
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	a, err := authority.New(ts.MkAbs("."))
	ts.Check(err)
	ts.Check(a.Make("server", "server", both...))
	ts.Check(a.Make("other", "other", both...))
	ts.Check(a.Make("plain-server", "server", x509.ExtKeyUsageServerAuth))
	ts.Check(a.Make("client", "somebody", x509.ExtKeyUsageClientAuth))
	free, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, _ := net.SplitHostPort(free.Addr().String())
	ts.Check(free.Close())
	ts.Setenv("PORT", port)
}

// askCmd sends each argument as one inline command and writes the first line of each reply to the file "replies".
func askCmd(ts *testscript.TestScript, neg bool, args []string) {
	replies, err := ask(ts.Getenv("ADDR"), args...)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("replies"), []byte(replies), 0o644))
}

func ask(address string, lines ...string) (string, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	in := bufio.NewReader(conn)
	var replies strings.Builder
	for _, line := range lines {
		if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
			return "", err
		}
		reply, err := in.ReadString('\n')
		if err == io.EOF {
			return replies.String() + "(closed)\n", nil
		}
		if err != nil {
			return replies.String(), fmt.Errorf("%s: %w", line, err)
		}
		replies.WriteString(strings.TrimRight(reply, "\r\n") + "\n")
	}
	return replies.String(), nil
}

// buildQuail builds the command once for the tests that run it outside a script.
func buildQuail(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "quail")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}
