package main

// The README's examples, run as they stand there. A stranger's first five minutes are these lines.

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const readmePath = "../../README.md"

func TestReadmeFirstMessage(t *testing.T) {
	needRedisCLI(t)
	_, port := serveExample(t, buildQuail(t))
	const prompt = "127.0.0.1:6389> "
	ran := 0
	for _, exchange := range strings.Split(examples(t, readmePath, "")[0], prompt) {
		command, want, _ := strings.Cut(exchange, "\n")
		if command == "" {
			continue
		}
		out, err := exec.Command("redis-cli", append([]string{"--no-raw", "-p", port}, strings.Fields(command)...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		if !sameReply(string(out), want) {
			t.Errorf("%s\n--- the server says\n%s--- the README says\n%s", command, out, want)
		}
		ran++
	}
	if ran < 3 {
		t.Errorf("only %d commands found", ran)
	}
}

func TestReadmeGoWorker(t *testing.T) {
	address, _ := serveExample(t, buildQuail(t))
	workThrough(t, address, goExample(t, examples(t, readmePath, "go")[0], address))
}

func TestReadmePythonWorker(t *testing.T) {
	python := pythonWithRedis(t)
	address, port := serveExample(t, buildQuail(t))
	workThrough(t, address, pythonExample(python, examples(t, readmePath, "python")[0], port))
}

// workThrough runs a worker until it has acknowledged what is pushed before and after its start.
func workThrough(t *testing.T, address string, worker *exec.Cmd) {
	t.Helper()
	client, ctx := exampleClient(t, address)
	push := func(body string) {
		if err := client.Do(ctx, "QPUSH", "greetings", body).Err(); err != nil {
			t.Fatal(err)
		}
	}
	push("hello")
	lines := startExample(t, worker)
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
