package main

// What the tests of the documents' examples share: finding the examples, a server to run them against, and the clients.

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

var fencedBlock = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

// examples are the fenced blocks of one language, or of none.
func examples(t *testing.T, path, language string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, found := range fencedBlock.FindAllStringSubmatch(string(text), -1) {
		if found[1] == language {
			blocks = append(blocks, found[2])
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("%s has no example in %q", path, language)
	}
	return blocks
}

// serveExample runs a server for one example.
func serveExample(t *testing.T, quail string) (address, port string) {
	t.Helper()
	s, err := startServer(quail, t.TempDir(), os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if code, log := s.end(syscall.SIGTERM); code != exitOK {
			t.Errorf("exit code %d\n%s", code, log)
		}
	})
	return s.address, s.address[strings.LastIndex(s.address, ":")+1:]
}

// need skips a test that lacks a tool, and fails it where everything must be there.
func need(t *testing.T, lacking bool, tool string) {
	t.Helper()
	if lacking && os.Getenv("CI") != "" {
		t.Fatalf("%s is missing", tool)
	} else if lacking {
		t.Skipf("SKIP: %s is missing", tool)
	}
}

func needRedisCLI(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath("redis-cli")
	need(t, err != nil, "redis-cli")
}

// pythonWithRedis is a Python that has redis-py: Debian's own, which sees Debian's python3-redis, or whichever comes first.
func pythonWithRedis(t *testing.T) string {
	t.Helper()
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(python, "-c", "import redis").Run() == nil {
			return python
		}
	}
	need(t, true, "python3-redis")
	return ""
}

func pythonExample(python, text, port string) *exec.Cmd {
	return exec.Command(python, "-c", strings.ReplaceAll(text, "6389", port))
}

// goExample builds a program that talks to the server at address.
func goExample(t *testing.T, text, address string) *exec.Cmd {
	t.Helper()
	source, program := filepath.Join(t.TempDir(), "main.go"), filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte(strings.ReplaceAll(text, "127.0.0.1:6389", address)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return exec.Command(program)
}

// Moments and spans of time differ from run to run; every other byte of a reply is as the page has it.
var (
	unixMillis = regexp.MustCompile(`\b1\d{12}\b`)
	span       = regexp.MustCompile(`\b\d+(\.\ds ago| ms\b)`)
)

func sameReply(got, want string) bool {
	plain := func(s string) string { return span.ReplaceAllString(unixMillis.ReplaceAllString(s, "T"), "S") }
	return plain(got) == plain(want)
}

func exampleClient(t *testing.T, address string) (*redis.Client, context.Context) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	client := redis.NewClient(&redis.Options{Addr: address})
	t.Cleanup(func() { client.Close(); cancel() })
	return client, ctx
}

// startExample starts a program, which is killed at the end of the test if it runs on, and returns its lines.
func startExample(t *testing.T, program *exec.Cmd) *bufio.Scanner {
	t.Helper()
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	program.Stderr = os.Stderr
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(patience, func() { program.Process.Kill() })
	t.Cleanup(func() {
		kill.Stop()
		program.Process.Kill()
		program.Wait()
	})
	return bufio.NewScanner(out)
}
