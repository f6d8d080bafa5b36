package integration

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
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
	churnSeconds    = flag.Int("churn-seconds", 3, "how long TestOldMessagesDoNotHoldTheDiskOfABusyQueue lasts")
	churnBytes      = flag.String("churn-bytes", "40mb", "bodies a second in it")
	churnBody       = flag.Int("churn-body", 1024, "bytes of a body in it")
	churnCheckpoint = flag.String("churn-checkpoint", "16mb", "checkpoint-bytes of its server")
	rewriteControl  = flag.String("rewrite-control", "", "a build that does not rewrite, for TestRewritingSlowsNobody")
	rewriteRounds   = flag.Int("rewrite-rounds", 5, "rounds in it")
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
	pushed  atomic.Int64
	kept    atomic.Int64
	gone    atomic.Int64
	stop    chan struct{}
	done    sync.WaitGroup
}

const (
	churnTick      = 40 * time.Millisecond // between two pushes of a producer
	churnProducers = 4
	keepEvery      = 1000
)

func startTraffic(t *testing.T, s *server, bodyBytes int, bytesPerSecond int64) *traffic {
	t.Helper()
	c := &traffic{t: t, queue: "orders", body: strings.Repeat("x", bodyBytes), stop: make(chan struct{})}
	c.perPush = max(1, int(bytesPerSecond*int64(churnTick)/int64(time.Second)/int64(bodyBytes)/churnProducers))
	c.done.Add(1 + churnProducers)
	for range churnProducers {
		go c.produce(s.connect(t))
	}
	go c.consume(s.connect(t))
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
		c.pushed.Add(int64(c.perPush))
	}
}

func (c *traffic) consume(conn redis.Conn) {
	defer c.done.Done()
	err := conn.Send("QCONSUME", c.pull()...)
	for seen := 0; err == nil; {
		if err = conn.Flush(); err != nil {
			break
		}
		b, failed := parseBatch(conn.Receive())
		if err = failed; err != nil {
			break
		}
		if b == nil {
			select {
			case <-c.stop:
				return
			default:
			}
			err = conn.Send("QCONSUME", c.pull()...)
			continue
		}
		kept := 0
		for _, m := range b.messages {
			if seen++; seen%keepEvery == 0 {
				conn.Send("QNACK", c.queue, b.id, "DELAY", 3_600_000, "RELEASE", m.id)
				kept++
			}
		}
		conn.Send("QACK", c.queue, b.id)
		conn.Send("QCONSUME", c.pull()...)
		if err = conn.Flush(); err != nil {
			break
		}
		for range kept {
			if n, failed := redis.Int(conn.Receive()); n != 1 || failed != nil {
				err = fmt.Errorf("put off: %d, %w", n, failed)
			}
		}
		if n, failed := redis.Int(conn.Receive()); n != len(b.messages)-kept || failed != nil {
			err = fmt.Errorf("acknowledge: %d of %d, %w", n, len(b.messages)-kept, failed)
		}
		c.kept.Add(int64(kept))
		c.gone.Add(int64(len(b.messages) - kept))
	}
	c.t.Errorf("consumer: %v", err)
}

// pull is the arguments of QCONSUME.
func (c *traffic) pull() []any {
	return []any{c.queue, "worker", "COUNT", 2 * c.perPush, "BYTES", 4 << 20, "BLOCK", 500}
}

// live is the size of what is pushed and not acknowledged.
func (c *traffic) live() int64 { return (c.pushed.Load() - c.gone.Load()) * int64(len(c.body)) }

// The same while messages come and go without a pause. What a checkpoint does not cover yet cannot be given back: so much more may
// the log have, and what comes while a checkpoint is taken and what it shows is rewritten.
func TestOldMessagesDoNotHoldTheDiskOfABusyQueue(t *testing.T) {
	const segment = 1 << 20
	checkpoint, rate := sizeFlag(t, *churnCheckpoint), sizeFlag(t, *churnBytes)
	s := startServer(t, "--checkpoint-bytes", *churnCheckpoint)
	c := startTraffic(t, s, *churnBody, rate)
	most, above, sum := int64(0), int64(0), int64(0)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	samples := int64(0)
	for end := time.Now().Add(time.Duration(*churnSeconds) * time.Second); time.Now().Before(end) && !t.Failed(); samples++ {
		<-tick.C
		bytes, _ := logBytes(t, s)
		most, above = max(most, bytes), max(above, bytes-2*c.live()-3*segment)
		sum += bytes
	}
	c.end()
	text := fmt.Sprintf("%d messages of %d bytes came and went, %.1f MB a second, %d were left; in %d samples the logs had %.1f MB on average, "+
		"at most %.1f MB, and at most %.1f MB more than twice what lives and three segments; a checkpoint every %s", c.gone.Load(), *churnBody,
		float64(c.gone.Load()*int64(*churnBody))/float64(*churnSeconds<<20), c.kept.Load(), samples, mega(sum/max(samples, 1)), mega(most), mega(above), *churnCheckpoint)
	if above > checkpoint+2*rate { // two seconds: somebody else may use the machine
		t.Fatal(text)
	}
	t.Log(text)
}

func mega(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// benchRate is what quail bench measures of a scenario against a running server, in messages a second.
func benchRate(t *testing.T, s *server, scenario string, seconds int) float64 {
	t.Helper()
	program, err := build()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "bench", "--quail", s.addr, "--redis", "none", "--scenarios", scenario, "--rounds", "1",
		"--seconds", strconv.Itoa(seconds), "--json").Output()
	if err != nil {
		t.Fatalf("bench: %v", err)
	}
	var report struct {
		Results []struct {
			Median struct {
				Rate float64 `json:"messages_per_second"`
			} `json:"median"`
		} `json:"results"`
	}
	if err := json.Unmarshal(out, &report); err != nil || len(report.Results) != 1 {
		t.Fatalf("bench says %s, %v", out, err)
	}
	return report.Results[0].Median.Rate
}

// What rewriting costs others: S1 of quail bench beside a queue that must be rewritten all the time, against a build that does not
// rewrite, in turns.
func TestRewritingSlowsNobody(t *testing.T) {
	if *rewriteControl == "" {
		t.Skip("SKIPPED: -rewrite-control names no build to compare with")
	}
	var ratios []float64
	for round := range *rewriteRounds {
		rates := map[bool]float64{}
		for turn := range 2 {
			control := (round+turn)%2 == 0
			t.Run(fmt.Sprintf("round %d, control %v", round, control), func(t *testing.T) {
				s := newServer(t)
				if control {
					s.program = *rewriteControl
				}
				s.start()
				c := startTraffic(t, s, *churnBody, sizeFlag(t, *churnBytes))
				eventually(t, time.Minute, "the second checkpoint", func() bool { return c.gone.Load()*int64(*churnBody) > 200<<20 })
				began, before := time.Now(), c.gone.Load()
				rates[control] = benchRate(t, s, "S1", *churnSeconds)
				passed := mega((c.gone.Load()-before)*int64(*churnBody)) / time.Since(began).Seconds()
				bytes, files := logBytes(t, s)
				c.end()
				s.stop(syscall.SIGTERM)
				t.Logf("control %v: S1 %.0f/s, beside it %.1f MB/s came and went; the log has %.1f MB in %d files", control, rates[control], passed, mega(bytes), files)
			})
		}
		ratios = append(ratios, rates[false]/rates[true])
		t.Logf("round %d: %.3f", round, ratios[round])
	}
	slices.Sort(ratios)
	t.Logf("S1 with rewriting : without: %.3f in the median of %.3f", (ratios[(len(ratios)-1)/2]+ratios[len(ratios)/2])/2, ratios)
}
