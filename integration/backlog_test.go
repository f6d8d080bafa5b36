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

// firstDelivery kills the server and returns how long it takes from its start to a message in a consumer's hands.
func firstDelivery(t *testing.T, s *server, end func(), queue string) time.Duration {
	t.Helper()
	end()
	began := time.Now()
	s.start()
	conn := s.connect(t)
	defer conn.Close()
	batch, err := redis.Values(conn.Do("QCONSUME", queue, "again", "BLOCK", "40000"))
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
	if n, err := redis.Int(s.connect(t).Do("QLEN", "backlog")); n != *backlogMessages/100*100 || err != nil {
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
	if n, err := redis.Int(s.connect(t).Do("QLEN", name(*backlogQueues-1))); n != 99 || err != nil {
		t.Fatalf("%d messages, %v", n, err)
	}
	t.Logf("%d queues of 100 messages: %d MB above an idle server, %d MB when all were consumed from; up %v after kill -9",
		*backlogQueues, (resident-idle)>>20, (all-idle)>>20, up.Round(time.Millisecond))
}
