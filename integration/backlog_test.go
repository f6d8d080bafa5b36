package integration

// A backlog lies on the disk: what a large one costs in memory, and how soon the server delivers from it after kill -9. The flags
// make it as large as docs/benchmarks.md has it.

import (
	"flag"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

var (
	backlogMessages = flag.Int("backlog", 300_000, "messages in TestBacklogLiesOnTheDisk")
	largeDelayed    = flag.Int("delayed", 50_000, "delayed messages in TestLargeQueueLoadsBehindTheOthers")
	backlogQueues   = flag.Int("queues", 300, "queues in TestManyQueues, each with 100 messages")
)

const (
	// backlogMemoryMax is what a backlog in one queue may add to an idle server, in bytes, whatever its size.
	backlogMemoryMax = 100 << 20
	// queuesMemoryMax is the same for many queues.
	queuesMemoryMax = 150 << 20
)

// pushBacklog pushes batches of 100 messages of 100 bytes, each to the queue that name gives.
func pushBacklog(t *testing.T, conn redis.Conn, batches int, name func(batch int) string) {
	t.Helper()
	const window = 100 // batches that are under way together
	args := make([]any, 101)
	for i := range args {
		args[i] = strings.Repeat("x", 100)
	}
	for sent, got := 0, 0; got < batches; {
		for ; sent < batches && sent < got+window; sent++ {
			args[0] = name(sent)
			if err := conn.Send("QPUSH", args...); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
		for ; got < sent; got++ {
			if _, err := redis.Int64(conn.Receive()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// restMemory waits until the server has come to rest and has at most this much resident memory, in bytes.
func restMemory(t *testing.T, s *server, idle, most int64) int64 {
	t.Helper()
	var resident int64
	eventually(t, time.Minute, fmt.Sprintf("at most %d MB above %d MB", most>>20, idle>>20), func() bool {
		resident = memory(t, s, "VmRSS")
		return resident-idle <= most
	})
	return resident
}

// whenLoaded runs a command, again as long as its queue is being loaded.
func whenLoaded(t *testing.T, conn redis.Conn, words ...any) (reply any, err error) {
	t.Helper()
	eventually(t, time.Minute, "loaded", func() bool {
		reply, err = conn.Do(words[0].(string), words[1:]...)
		return err == nil || !strings.HasPrefix(err.Error(), "LOADING ")
	})
	return reply, err
}

// firstDelivery kills the server and returns how long it takes from its start to a message in a consumer's hands.
func firstDelivery(t *testing.T, s *server, end func(), queue string) time.Duration {
	t.Helper()
	end()
	began := time.Now()
	s.start()
	conn := s.connect(t)
	defer conn.Close()
	batch, err := redis.Values(whenLoaded(t, conn, "QCONSUME", queue, "again", "BLOCK", "40000"))
	if err != nil || len(batch) != 3 {
		t.Fatalf("after the restart: %v, %v", batch, err)
	}
	return time.Since(began)
}

func TestBacklogLiesOnTheDisk(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	idle := memory(t, s, "VmRSS")
	pushBacklog(t, conn, *backlogMessages/100, func(int) string { return "backlog" })
	resident := restMemory(t, s, idle, backlogMemoryMax)
	killed := firstDelivery(t, s, s.kill, "backlog")
	clean := firstDelivery(t, s, func() { s.stop(syscall.SIGTERM) }, "backlog")
	if n, err := redis.Int(whenLoaded(t, s.connect(t), "QLEN", "backlog")); n != *backlogMessages/100*100 || err != nil {
		t.Fatalf("%d messages, %v", n, err)
	}
	t.Logf("%d messages: %d MB above an idle server; first delivery %v after kill -9, %v after a clean stop",
		*backlogMessages, (resident-idle)>>20, killed.Round(time.Millisecond), clean.Round(time.Millisecond))
}

func TestManyQueues(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	idle := memory(t, s, "VmRSS")
	name := func(i int) string { return fmt.Sprintf("queue-%05d", i) }
	pushBacklog(t, conn, *backlogQueues, name)
	resident := restMemory(t, s, idle, queuesMemoryMax)
	for i := range *backlogQueues {
		batch, err := redis.Values(conn.Do("QCONSUME", name(i), "one", "COUNT", 100))
		if err != nil || len(batch) != 3 || len(batch[2].([]any)) != 100 {
			t.Fatalf("queue %d: %v, %v", i, batch, err)
		}
		if n, err := redis.Int(conn.Do("QACK", name(i), batch[0], batch[2].([]any)[0].([]any)[0])); n != 1 || err != nil {
			t.Fatalf("queue %d: %d, %v", i, n, err)
		}
	}
	all := restMemory(t, s, idle, queuesMemoryMax)
	began := time.Now()
	s.kill()
	s.start()
	up := time.Since(began)
	if n, err := redis.Int(whenLoaded(t, s.connect(t), "QLEN", name(*backlogQueues-1))); n != 99 || err != nil {
		t.Fatalf("%d messages, %v", n, err)
	}
	t.Logf("%d queues of 100 messages: %d MB above an idle server, %d MB when all were consumed from; up %v after kill -9",
		*backlogQueues, (resident-idle)>>20, (all-idle)>>20, up.Round(time.Millisecond))
}

// Without this one queue with a large state keeps everybody waiting after a restart, or comes back with less than it had.
func TestLargeQueueLoadsBehindTheOthers(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	for sent := 0; sent < *largeDelayed; sent += 1000 {
		for i := range min(1000, *largeDelayed-sent) {
			if err := conn.Send("QPUSHEX", "large", 1, "x", "DELAY", 3600000, "DEDUP", fmt.Sprint(sent+i)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := conn.Do(""); err != nil {
			t.Fatal(err)
		}
	}
	must(t, conn, "QPUSH", "other", "hello")
	began := time.Now()
	s.kill()
	s.start()
	up := time.Since(began)
	conn = s.connect(t)
	must(t, conn, "QPUSH", "other", "again")
	if batch, err := redis.Values(conn.Do("QCONSUME", "other", "c")); err != nil || len(batch) != 3 {
		t.Fatalf("another queue: %v, %v", batch, err)
	}
	other := time.Since(began)
	if names, err := redis.Int(conn.Do("DBSIZE")); names != 2 || err != nil {
		t.Fatalf("%d queues, %v", names, err)
	}
	_, first := conn.Do("QLEN", "large")
	if first != nil && !strings.HasPrefix(first.Error(), "LOADING ") {
		t.Fatal(first)
	}
	info := infoLines(t, conn, "persistence")
	if n, err := redis.Int(whenLoaded(t, conn, "QLEN", "large")); n != *largeDelayed || err != nil {
		t.Fatalf("%d delayed messages, %v", n, err)
	}
	loaded := time.Since(began)
	if info["loading"] != "0" {
		t.Errorf("INFO says %v while commands are taken", info)
	}
	if info := infoLines(t, conn, "persistence"); info["loading_queues"] != "0" || info["async_loading"] != "0" {
		t.Errorf("INFO says %v when all is loaded", info)
	}
	t.Logf("%d delayed messages with an id: up %v after kill -9, a delivery from another queue after %v, the large queue after %v (first answer: %v)",
		*largeDelayed, up.Round(time.Millisecond), other.Round(time.Millisecond), loaded.Round(time.Millisecond), first)
}

// infoLines reads one section of INFO.
func infoLines(t *testing.T, conn redis.Conn, section string) map[string]string {
	t.Helper()
	text, err := redis.String(conn.Do("INFO", section))
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for line := range strings.SplitSeq(text, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			lines[name] = value
		}
	}
	return lines
}
