package commands

// Conversations: the files in testdata read as a session with the server. Each is played twice, over RESP2 and RESP3.
//
//	given …       what the world around the commands answers from here on
//	> QPUSH q a   a command, its words as a shell would split them
//	call …        what the command asked of the queues
//	gated         the reply waits until the disk has what it rests on
//	:7            the reply: lines of the protocol, with a space for each line end
//	2| … 3| …     the same where the two protocols differ
//
// go test -run TestConversations -update writes what is answered now; read the difference before it is committed.

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"quail/queue"
	"quail/queue/machine"
)

var update = flag.Bool("update", false, "write expected output instead of comparing it")

func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) { // the clock stands still, so ages and times can be written down
				got := converse(t, string(want))
				if *update {
					if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				} else if got != string(want) {
					t.Errorf("%s does not read so any more; it would be:\n%s", file, firstDifference(string(want), got))
				}
			})
		})
	}
}

// converse plays the script and returns it with the answers of now.
func converse(t *testing.T, script string) string {
	two, three := newWorld(2), newWorld(3)
	var out strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" || line[0] == '#':
			out.WriteString(line + "\n")
		case strings.HasPrefix(line, "given "):
			out.WriteString(line + "\n")
			words := split(t, line[len("given "):])
			two.given(t, words)
			three.given(t, words)
		case strings.HasPrefix(line, "> "):
			out.WriteString(line + "\n")
			words := split(t, line[2:])
			out.WriteString(say(two, three, words))
		}
	}
	return out.String()
}

func say(two, three *world, words []string) string {
	var out strings.Builder
	two.queues.calls, three.queues.calls = nil, nil
	reply2, gated := two.run(words...)
	reply3, _ := three.run(words...)
	for _, call := range two.queues.calls {
		out.WriteString("call " + call + "\n")
	}
	if gated {
		out.WriteString("gated\n")
	}
	if reply2 == reply3 {
		out.WriteString(show(reply2) + "\n")
	} else {
		out.WriteString("2| " + show(reply2) + "\n3| " + show(reply3) + "\n")
	}
	if two.conn.closing {
		out.WriteString("closed\n")
	}
	if two.server.killed != nil {
		fmt.Fprintf(&out, "killed %v\n", two.server.killed)
	}
	if two.server.stopped != "" {
		out.WriteString("stopped " + two.server.stopped + "\n")
	}
	two.conn.closing, two.server.killed, two.server.stopped = false, nil, ""
	return out.String()
}

// show writes a reply on one line.
func show(reply string) string {
	if reply == "" {
		return "(no reply)"
	}
	reply = strings.ReplaceAll(strings.TrimSuffix(reply, "\r\n"), "\r\n", " ")
	quoted := strconv.Quote(reply)
	return strings.TrimRight(strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`), " ")
}

// given sets what the world answers. The queue's error ends with the next given of any kind.
func (w *world) given(t *testing.T, words []string) {
	q := w.queues
	q.err, q.batch, q.found, w.settings.err = nil, nil, nil, nil
	switch words[0] {
	case "number": // an id, a count, a token, a time
		q.number, _ = strconv.ParseInt(words[1], 10, 64)
	case "null":
		q.number = 0
	case "error":
		q.err = &queue.Error{Code: words[1], Message: words[2]}
	case "queues":
		q.names = words[1:]
	case "batch":
		q.batch = &queue.Batch{ID: 17, DeadlineUnixMillis: 1700000030000, Messages: []queue.Message{
			{ID: 4, Body: []byte("hello"), Attempt: 1, PushedMillis: 1700000000000},
			{ID: 5, Body: []byte("a\r\nb\x00"), Attempt: 3, PushedMillis: 1700000000001,
				Headers: [][2][]byte{{[]byte("from"), []byte("shop")}, {[]byte("empty"), nil}}},
		}}
	case "found":
		q.found = []queue.Found{
			{State: machine.Retrying, Message: queue.Message{ID: 4, Body: []byte("hello"), Attempt: 2, PushedMillis: 1700000000000,
				Headers: [][2][]byte{{[]byte("from"), []byte("shop")}}}},
			{State: machine.Ready, Message: queue.Message{ID: 9, PushedMillis: 1700000000001}},
		}
	case "info":
		q.info = &queue.Info{Name: "orders", Incarnation: 3, CreatedMillis: 1600000000000, Holder: "w1", Token: 41, LockMillisLeft: 900,
			OldestAgeMillis: 50, FirstID: 4, NextID: 9, Cursor: 8, Batches: make([]machine.BatchInfo, 2), Waiting: 1, Segments: 2,
			LogBytes: 1000, LiveBytes: 600, BlockedReason: "all 4 messages are leased"}
	case "password":
		w.env.Users.SetPassword(words[1])
		w.conn.needsPassword, w.conn.authenticated = true, false
	case "setting-error":
		w.settings.err = &SettingError{Name: words[1], Unknown: words[2] == "unknown", Reason: words[2]}
		if len(words) > 3 {
			w.settings.err.(*SettingError).Meant = words[3]
		}
	default:
		t.Fatalf("given what? %q", words)
	}
}

// split takes a line apart at spaces; double quotes hold a word together and take Go's escapes.
func split(t *testing.T, line string) (words []string) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if line[0] != '"' {
			word, rest, _ := strings.Cut(line, " ")
			words, line = append(words, word), rest
			continue
		}
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			t.Fatalf("in %s: %v", line, err)
		}
		word, _ := strconv.Unquote(quoted)
		words, line = append(words, word), line[len(quoted):]
	}
	return words
}

// firstDifference shows the lines around the first one that differs.
func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d\nwant %s\ngot  %s", i+1, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines instead of %d", len(b), len(a))
}
