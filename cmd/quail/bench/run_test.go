//go:build linux

package bench

// Runs against a server that is a list of replies: a load generator that does not notice a wrong answer measures
// nothing.

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// answering is a server that gives the commands of each connection these replies, in order, and then closes it, or listens
// without a word.
func answering(t *testing.T, silent bool, commandReplies ...string) *target {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				answer(conn, commandReplies)
				if silent {
					io.Copy(io.Discard, conn)
				}
			})
		}
	})
	return &target{dialect: quail{}, address: listener.Addr().String()}
}

// answer reads commands, which the reader of replies can tell apart as well, and says the next reply to each.
func answer(conn net.Conn, list []string) {
	var in replies
	for len(list) > 0 {
		raw, err := in.next()
		if err != nil {
			return
		}
		if raw == nil {
			n, err := conn.Read(in.room())
			if err != nil {
				return
			}
			in.filled(n)
			continue
		}
		if _, err := conn.Write([]byte(list[0])); err != nil {
			return
		}
		list = list[1:]
	}
}

// pull is a reply of QCONSUME with messages of these ids.
func pull(number int, ids ...int) string {
	var text strings.Builder
	text.WriteString("*3\r\n:" + strconv.Itoa(number) + "\r\n:1\r\n*" + strconv.Itoa(len(ids)) + "\r\n")
	for _, id := range ids {
		text.WriteString("*5\r\n:" + strconv.Itoa(id) + "\r\n$1\r\nx\r\n:1\r\n:1\r\n*0\r\n")
	}
	return text.String()
}

func TestNoticesWhatIsWrong(t *testing.T) {
	one := &Scenario{Name: "T", connections: 1, pipeline: 1, batch: 1, queues: 1}
	hundred := &Scenario{Name: "T", connections: 1, pipeline: 2, batch: 100, queues: 1}
	consumes := &Scenario{Name: "T", kind: consuming, connections: 1, pipeline: 1, batch: 1, queues: 1}
	for _, c := range []struct {
		name     string
		scenario *Scenario
		messages int64
		replies  []string
		want     string // in the error; empty: none
	}{
		{"right", one, 3, []string{":1\r\n", ":2\r\n", ":9\r\n"}, ""},
		{"the same id", one, 3, []string{":1\r\n", ":2\r\n", ":2\r\n"}, "push replied id 2 after 2"},
		{"batches", hundred, 200, []string{":1\r\n", ":101\r\n"}, ""},
		{"batches that overlap", hundred, 200, []string{":1\r\n", ":100\r\n"}, "push replied id 100 after 100"},
		{"an error", one, 3, []string{":1\r\n", "-QFULL no room\r\n"}, "the server refused: QFULL no room"},
		{"not an id", one, 3, []string{"+OK\r\n"}, "an unexpected reply"},
		{"no reply of the protocol", one, 3, []string{"HTTP/1.1 400\r\n"}, "no reply of the Redis protocol"},
		{"the end", one, 3, []string{":1\r\n"}, "the server closed the connection"},
		{"a backlog", consumes, 3, []string{pull(7, 1, 2), ":2\r\n", pull(8, 3), ":1\r\n"}, ""},
		{"a message is missing", consumes, 3, []string{pull(7, 1, 2), ":2\r\n", "*-1\r\n"}, "the queue is empty after 2 of 3 messages"},
		{"a message comes twice", consumes, 3, []string{pull(7, 1, 2), ":2\r\n", pull(8, 2)}, "message 2 was delivered after message 2"},
		{"one is not acknowledged", consumes, 3, []string{pull(7, 1, 2), ":1\r\n"}, "1 messages of a batch of 2 were acknowledged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &run{scenario: c.scenario, target: answering(t, false, c.replies...), queues: []string{"q"}, bodyBytes: 16, seconds: 1, messages: c.messages}
			m, err := r.measure(context.Background())
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want == "" && m.messages != c.messages:
				t.Errorf("%d messages of %d", m.messages, c.messages)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// Ctrl-C must work while the server is silent, too.
func TestEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	r := &run{scenario: Scenarios[0], target: answering(t, true), queues: []string{"q"}, bodyBytes: 16, seconds: 1}
	if _, err := r.measure(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// A socket that takes a part of what is sent must get the rest of it, once.
func TestSendsTheRest(t *testing.T) {
	const bodies, bodyBytes = 200, 60 << 10 // twelve megabytes, more than a socket takes at once
	s := &Scenario{Name: "T", connections: 1, pipeline: 1, batch: bodies, queues: 1}
	r := &run{scenario: s, target: answering(t, false, ":1\r\n", ":201\r\n"), queues: []string{"q"}, bodyBytes: bodyBytes, seconds: 1, messages: 2 * bodies}
	if m, err := r.measure(context.Background()); err != nil || m.messages != 2*bodies {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestOwnProcess(t *testing.T) {
	used, err := processCPU(os.Getpid())
	if err != nil || used < 0 || used > time.Hour {
		t.Errorf("%v, %v", used, err)
	}
	if took, err := probe(t.TempDir(), true); err != nil || took <= 0 {
		t.Errorf("%v, %v", took, err)
	}
}

// A server that does not start must say why in the error, and leave nothing running.
func TestSaysWhyAServerDidNotStart(t *testing.T) {
	c := Config{Quail: Server{Program: "sh"}, Rounds: 1, Seconds: 1, BodyBytes: 16, DataDir: t.TempDir()}
	_, err := Run(context.Background(), c)
	if err == nil || !strings.Contains(err.Error(), "did not start") || !strings.Contains(err.Error(), "serve") {
		t.Errorf("%v", err)
	}
	if left, _ := os.ReadDir(c.DataDir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
