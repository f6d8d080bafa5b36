package main

// The README's examples, run as they stand there. A stranger's first five minutes are these lines.

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

const readmePath = "../../README.md"

// readmeBlocks are the fenced blocks of one language, or of none.
func readmeBlocks(t *testing.T, language string) []string {
	t.Helper()
	readme, err := os.ReadFile(readmePath)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, found := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllStringSubmatch(string(readme), -1) {
		if found[1] == language {
			blocks = append(blocks, found[2])
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("the README has no example in %q", language)
	}
	return blocks
}

// serveForReadme runs a server for one test.
func serveForReadme(t *testing.T) (address, port string) {
	t.Helper()
	s, err := startServer(buildQuail(t), t.TempDir(), os.Environ())
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

// The times of deadlines and pushes differ from day to day; every other byte of a reply is as the README has it.
var unixMillis = regexp.MustCompile(`\b1\d{12}\b`)

func TestReadmeFirstMessage(t *testing.T) {
	_, err := exec.LookPath("redis-cli")
	need(t, err != nil, "redis-cli")
	_, port := serveForReadme(t)
	const prompt = "127.0.0.1:6389> "
	ran := 0
	for _, exchange := range strings.Split(readmeBlocks(t, "")[0], prompt) {
		command, want, _ := strings.Cut(exchange, "\n")
		if command == "" {
			continue
		}
		out, err := exec.Command("redis-cli", append([]string{"--no-raw", "-p", port}, strings.Fields(command)...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		if got := unixMillis.ReplaceAllString(string(out), "T"); got != unixMillis.ReplaceAllString(want, "T") {
			t.Errorf("%s\n--- the server says\n%s--- the README says\n%s", command, out, want)
		}
		ran++
	}
	if ran < 3 {
		t.Errorf("only %d commands found", ran)
	}
}

func TestReadmeGoWorker(t *testing.T) {
	address, _ := serveForReadme(t)
	source := filepath.Join(t.TempDir(), "main.go")
	text := strings.ReplaceAll(readmeBlocks(t, "go")[0], "127.0.0.1:6389", address)
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	worker := filepath.Join(t.TempDir(), "worker")
	if out, err := exec.Command("go", "build", "-o", worker, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	workThrough(t, address, exec.Command(worker))
}

func TestReadmePythonWorker(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, which sees Debian's python3-redis
	need(t, exec.Command(python, "-c", "import redis").Run() != nil, "python3-redis")
	address, port := serveForReadme(t)
	text := strings.ReplaceAll(readmeBlocks(t, "python")[0], "6389", port)
	workThrough(t, address, exec.Command(python, "-c", text))
}

// workThrough runs a worker until it has acknowledged what is pushed before and after its start.
func workThrough(t *testing.T, address string, worker *exec.Cmd) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := redis.NewClient(&redis.Options{Addr: address})
	defer client.Close()
	push := func(body string) {
		if err := client.Do(ctx, "QPUSH", "greetings", body).Err(); err != nil {
			t.Fatal(err)
		}
	}
	push("hello")
	out, err := worker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	worker.Stderr = os.Stderr
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	defer worker.Wait()
	defer worker.Process.Kill()
	kill := time.AfterFunc(patience, func() { worker.Process.Kill() })
	defer kill.Stop()
	lines := bufio.NewScanner(out)
	for _, body := range []string{"hello", "world"} {
		want := regexp.MustCompile(`^message \d+, attempt 1: ` + body + `$`)
		if !lines.Scan() || !want.MatchString(lines.Text()) {
			t.Fatalf("the worker says %q, not %q", lines.Text(), body)
		}
		if body == "hello" {
			push("world")
		}
	}
	for {
		left, err := client.Do(ctx, "QLEN", "greetings").Int()
		if err != nil {
			t.Fatalf("the worker acknowledged nothing: %v", err)
		}
		if left == 0 {
			return
		}
	}
}

// A README whose commands nobody could run would pass every other test.
func TestReadmeNamesWhatCIRuns(t *testing.T) {
	readme, err := os.ReadFile(readmePath)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile("(?s)<!-- test command -->.*?\ngo test [^\n]*\\./\\.\\.\\.\n.*?<!-- end -->").Match(readme) {
		t.Error("the README's test command has lost its marks; .ci/run looks for them")
	}
}
