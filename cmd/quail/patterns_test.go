package main

// docs/patterns.md is for pasting, so each of its examples is run as it stands there.

import (
	"context"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

const patternsPath = "../../docs/patterns.md"

// aCommand is a redis-cli whose answer a reader sees. One in $(…) is not at the beginning of a line: a shell reads that answer, raw.
var aCommand = regexp.MustCompile(`(?m)^( *)redis-cli `)

func TestPatternsInTheShell(t *testing.T) {
	needRedisCLI(t)
	quail := buildQuail(t)
	for _, session := range examples(t, patternsPath, "sh") {
		name, _, _ := strings.Cut(session, "\n")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, port := serveExample(t, quail)
			runSession(t, session, port)
		})
	}
}

// runSession runs a session in one shell, and compares what is printed up to each comment with the comment.
func runSession(t *testing.T, session, port string) {
	t.Helper()
	const seen = "--- a comment stands here ---\n"
	var script strings.Builder
	var want []string
	inComment := false
	for line := range strings.Lines(session) {
		text, isComment := strings.CutPrefix(line, "# ")
		switch {
		case !isComment:
			script.WriteString(line)
		case inComment:
			want[len(want)-1] += text
		default:
			want = append(want, text)
			script.WriteString("printf '%s' '" + seen + "'\n")
		}
		inComment = isComment
	}
	if len(want) == 0 {
		t.Fatal("the session says nothing of its replies")
	}
	program := aCommand.ReplaceAllString(strings.ReplaceAll(script.String(), "6389", port), "${1}redis-cli --no-raw ")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "bash", "-uc", program).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := strings.Split(string(out), seen)
	if len(got) != len(want)+1 || got[len(want)] != "" {
		t.Fatalf("the session ends without telling of all replies:\n%s", out)
	}
	for i := range want {
		if !sameReply(got[i], want[i]) {
			t.Errorf("reply %d\n--- the server says\n%s--- the page says\n%s", i+1, got[i], want[i])
		}
	}
}

// Without this the page's worker might stop with messages leased, and the next one would wait for them, or keep the lock.
func TestPatternGracefulStop(t *testing.T) {
	address, _ := serveExample(t, buildQuail(t))
	client, ctx := exampleClient(t, address)
	const messages = 1000
	push := []any{"QPUSH", "letters"}
	for range messages {
		push = append(push, "a letter")
	}
	if err := client.Do(ctx, push...).Err(); err != nil {
		t.Fatal(err)
	}
	worker := goExample(t, examples(t, patternsPath, "go")[0], address)
	lines := startExample(t, worker)
	acknowledged := 0
	for lines.Scan() {
		if acknowledged++; acknowledged == 3 {
			worker.Process.Signal(syscall.SIGTERM)
		}
	}
	if err := worker.Wait(); err != nil || acknowledged < 3 || acknowledged == messages {
		t.Fatalf("it worked through %d messages and ended with %v", acknowledged, err)
	}
	info, err := client.Do(ctx, "QINFO", "letters").Result()
	if err != nil {
		t.Fatal(err)
	}
	fields := info.(map[any]any)
	if fields["lock-holder"] != "" || fields["open-batches"] != int64(0) || fields["total-failed"] != int64(0) ||
		fields["messages"] != int64(messages-acknowledged) {
		t.Errorf("after %d messages the worker left %v", acknowledged, fields)
	}
}

// Without this the page's consumer might pay twice, which is what it is there to prevent.
func TestPatternIdempotentConsumer(t *testing.T) {
	python := pythonWithRedis(t)
	address, port := serveExample(t, buildQuail(t))
	client, ctx := exampleClient(t, address)
	for _, command := range [][]any{{"QCREATE", "payments", "lease", 300}, {"QPUSH", "payments", 1250}} {
		if err := client.Do(ctx, command...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	text, directory := pythonBlock(t, "payments.db"), t.TempDir()
	dying := pythonExample(python, strings.ReplaceAll(text, `client.execute_command("QACK", "payments", number)`, "break"), port)
	dying.Dir = directory
	if out, err := dying.CombinedOutput(); err != nil || string(out) != "message 2, attempt 1: paid\n" {
		t.Fatalf("the first consumer: %v\n%s", err, out)
	}
	next := pythonExample(python, text, port)
	next.Dir = directory
	lines := startExample(t, next)
	if !lines.Scan() || lines.Text() != "message 2, attempt 2: was paid before" {
		t.Fatalf("the second consumer says %q", lines.Text())
	}
}

// Each of these ends by itself and says at its end what it prints.
func TestPatternsInPython(t *testing.T) {
	for _, word := range []string{"fence", "pipeline"} {
		t.Run(word, func(t *testing.T) { comparePythonPattern(t, word) })
	}
}

func comparePythonPattern(t *testing.T, word string) {
	t.Helper()
	python := pythonWithRedis(t)
	_, port := serveExample(t, buildQuail(t))
	text := pythonBlock(t, word)
	_, want, _ := strings.Cut(text, "\n# ")
	out, err := pythonExample(python, text, port).CombinedOutput()
	if err != nil || string(out) != strings.ReplaceAll(want, "\n# ", "\n") {
		t.Fatalf("%v\n--- it says\n%s--- the page says\n# %s", err, out, want)
	}
}

// pythonBlock is the page's example in Python that has this word.
func pythonBlock(t *testing.T, word string) string {
	t.Helper()
	blocks := examples(t, patternsPath, "python")
	i := slices.IndexFunc(blocks, func(b string) bool { return strings.Contains(b, word) })
	if i < 0 {
		t.Fatalf("%s has no example with %q", patternsPath, word)
	}
	return blocks[i]
}

// Without this the line that tells at night why nothing moves cuts off the reason, as one that looked for quotes did.
func TestReasonsOfAllQueues(t *testing.T) {
	needRedisCLI(t)
	_, port := serveExample(t, buildQuail(t))
	reasons := strings.ReplaceAll(examples(t, "../../docs/operations.md", "sh")[0], "6389", port)
	out, err := exec.CommandContext(t.Context(), "bash", "-uc", "redis-cli -p "+port+" QPUSH orders a b >/dev/null && redis-cli -p "+port+" QPUSH 'two words' c >/dev/null;\n"+
		"redis-cli -p "+port+" QCONSUME orders w COUNT 1 >/dev/null\n"+reasons).CombinedOutput()
	if err != nil || !regexp.MustCompile(`(?m)^orders: consumer "w" holds the lock for another \d+ ms, .* QUNLOCK orders \d+$`).Match(out) {
		t.Errorf("%v\n%s", err, out)
	}
}
