package main

// quail bench that is stopped: testdata/script/bench.txtar has the runs that end by themselves.

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Ctrl-C in the middle must leave neither a server, nor its data, nor queues in somebody's server.
func TestBenchInterrupted(t *testing.T) {
	quail := buildQuail(t)
	s, err := startServer(quail, t.TempDir(), os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	defer s.end(syscall.SIGTERM)
	for name, args := range map[string][]string{
		"a server of its own":    {"--scenarios", "S1"},
		"a server that ran":      {"--scenarios", "S6", "--quail", s.address},
		"while a consumer waits": {"--scenarios", "S5", "--quail", s.address},
	} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			code, log := interrupt(t, directory, quail, append([]string{"bench", "--redis", "none", "--rounds", "100", "--seconds", "1"}, args...)...)
			if code != exitFailed || !strings.Contains(log, "quail: interrupted in round 2 of 100") {
				t.Errorf("exit code %d\n%s", code, log)
			}
			if left, err := os.ReadDir(directory); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if replies, err := ask(s.address, "DBSIZE"); err != nil || replies != ":0\n" {
				t.Errorf("queues that are left: %s, %v", replies, err)
			}
		})
	}
}

// interrupt runs a command, sends SIGINT after the first round, and returns how it ended.
func interrupt(t *testing.T, directory, program string, args ...string) (code int, log string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = directory
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer kill.Stop()
	var text strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		text.WriteString(lines.Text() + "\n")
		if strings.HasPrefix(lines.Text(), "round 1/") {
			cmd.Process.Signal(syscall.SIGINT)
		}
	}
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), text.String()
}
