package integration

import (
	"flag"
	"io/fs"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

var (
	churnSeconds = flag.Int("churn-seconds", 3, "how long TestOldMessagesDoNotHoldTheDiskOfABusyQueue lasts")
	churnBytes   = flag.String("churn-bytes", "40mb", "bodies a second in it")
	churnBody    = flag.Int("churn-body", 1024, "bytes of a body in it")
)

// sizeFlag reads a size as the server's settings have it.
func sizeFlag(t *testing.T, text string) int64 {
	t.Helper()
	units := map[string]int64{"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}
	unit := int64(1)
	if n := len(text); n > 2 && units[text[n-2:]] > 0 {
		text, unit = text[:n-2], units[text[n-2:]]
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 {
		t.Fatalf("no size: %q", text)
	}
	return n * unit
}

// logBytes is what the queues' logs take of the disk.
func logBytes(t *testing.T, s *server) (bytes int64, files int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(s.dir, "queues"), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // it goes while it is looked at
		}
		if info, err := e.Info(); err == nil {
			bytes += info.Size()
			files++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes, files
}

// One message of a thousand is left for an hour, the others are consumed: the log must not keep the space of all. And when the last one is
// gone, the log gives everything back.
func TestOldMessagesDoNotHoldTheDisk(t *testing.T) {
	const segment, body, rounds, batch = 64 << 10, 100, 100, 1000
	s := startServer(t, "--segment-bytes", "64kb", "--journal-bytes", "8mb", "--journal-file-bytes", "1mb", "--checkpoint-bytes", "1mb")
	conn := s.connect(t)
	args := []any{"orders"}
	for range batch - 1 {
		args = append(args, strings.Repeat("x", body))
	}
	churn := func() {
		t.Helper()
		must(t, conn, "QPUSH", args...)
		b, err := consume(conn, "orders", "worker", "COUNT", batch, "BYTES", 1<<20)
		if err != nil || b == nil || len(b.messages) != batch-1 {
			t.Fatalf("%v, %+v", err, b)
		}
		must(t, conn, "QACK", "orders", b.id)
	}
	for range rounds {
		must(t, conn, "QPUSHEX", "orders", 1, strings.Repeat("x", body), "DELAY", 3_600_000)
		churn()
	}
	const live = rounds * body
	settle := func(what string, most int64) {
		t.Helper()
		for range 3 { // what comes behind a checkpoint is seen by the next one
			for range 12 {
				churn() // a checkpoint comes when enough is written
			}
			within := false
			for end := time.Now().Add(10 * time.Second); !within && time.Now().Before(end); runtime.Gosched() {
				bytes, _ := logBytes(t, s)
				within = bytes <= most
			}
			if within {
				return
			}
		}
		bytes, files := logBytes(t, s)
		t.Fatalf("%s: %d bytes in %d files, at most %d are allowed", what, bytes, files, most)
	}
	settle("one message of a thousand lives", 2*live+3*segment)
	bytes, files := logBytes(t, s)
	t.Logf("%d messages of %d bytes live, %d came and went: %d bytes in %d files", rounds, body, rounds*(batch-1), bytes, files)
	fields, err := info(conn, "orders")
	if err != nil || fields["messages"] != "100" {
		t.Fatalf("%v, %v", fields["messages"], err)
	}
	s.stop(syscall.SIGKILL)
	s.start()
	conn = s.connect(t)
	ids, err := redis.Values(conn.Do("QPEEK", "orders", "COUNT", 1000))
	if err != nil || len(ids) != rounds {
		t.Fatalf("after a restart: %d messages, %v", len(ids), err)
	}
	must(t, conn, "QPURGE", "orders")
	settle("nothing lives", 3*segment)
}

// traffic pushes bodies into a queue at a steady rate and consumes them as they come, but for each thousandth, which is put off for
// an hour.
type traffic struct {
	t       *testing.T
	queue   string
	body    string
	perPush int // messages
	kept    atomic.Int64
	gone    atomic.Int64
	stop    chan struct{}
	done    sync.WaitGroup
}

const (
	churnTick = 10 * time.Millisecond
	keepEvery = 1000
)

func startTraffic(t *testing.T, s *server, bodyBytes int, bytesPerSecond int64) *traffic {
	t.Helper()
	c := &traffic{t: t, queue: "orders", body: strings.Repeat("x", bodyBytes), stop: make(chan struct{})}
	c.perPush = max(1, int(bytesPerSecond*int64(churnTick)/int64(time.Second)/int64(bodyBytes)))
	c.done.Add(2)
	producer, consumer := s.connect(t), s.connect(t)
	go c.produce(producer)
	go c.consume(consumer)
	return c
}

func (c *traffic) end() {
	close(c.stop)
	c.done.Wait()
}

func (c *traffic) produce(conn redis.Conn) {
	defer c.done.Done()
	args := []any{c.queue}
	for range c.perPush {
		args = append(args, c.body)
	}
	tick := time.NewTicker(churnTick)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
		if _, err := conn.Do("QPUSH", args...); err != nil {
			c.t.Errorf("push: %v", err)
			return
		}
	}
}

func (c *traffic) consume(conn redis.Conn) {
	defer c.done.Done()
	for seen := 0; ; {
		b, err := consume(conn, c.queue, "worker", "COUNT", 2*c.perPush, "BYTES", 4<<20, "BLOCK", 1000)
		if err != nil {
			c.t.Errorf("consume: %v", err)
			return
		}
		if b == nil {
			select {
			case <-c.stop:
				return
			default:
				continue
			}
		}
		kept := 0
		for _, m := range b.messages {
			if seen++; seen%keepEvery == 0 {
				if n, err := redis.Int(conn.Do("QNACK", c.queue, b.id, "DELAY", 3_600_000, "RELEASE", m.id)); n != 1 || err != nil {
					c.t.Errorf("put off: %d, %v", n, err)
					return
				}
				kept++
			}
		}
		if n, err := redis.Int(conn.Do("QACK", c.queue, b.id)); n != len(b.messages)-kept || err != nil {
			c.t.Errorf("acknowledge: %d of %d, %v", n, len(b.messages)-kept, err)
			return
		}
		c.kept.Add(int64(kept))
		c.gone.Add(int64(len(b.messages) - kept))
	}
}

// The same while messages come and go without a pause.
func TestOldMessagesDoNotHoldTheDiskOfABusyQueue(t *testing.T) {
	const segment = 1 << 20
	s := startServer(t)
	c := startTraffic(t, s, *churnBody, sizeFlag(t, *churnBytes))
	most, above := int64(0), int64(0)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	samples := 0
	for end := time.Now().Add(time.Duration(*churnSeconds) * time.Second); time.Now().Before(end) && !t.Failed(); samples++ {
		<-tick.C
		bytes, _ := logBytes(t, s)
		allowed := 2*c.kept.Load()*int64(*churnBody) + 3*segment
		t.Logf("SAMPLE %d %d", bytes>>10, allowed>>10)
		most, above = max(most, bytes), max(above, bytes-allowed)
	}
	c.end()
	t.Logf("%d messages came and went, %d were left; %d samples: the logs had at most %.1f MB, at most %.1f MB above the bound",
		c.gone.Load(), c.kept.Load(), samples, float64(most)/(1<<20), float64(above)/(1<<20))
}
