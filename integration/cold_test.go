//go:build linux

package integration

// A backlog that is not in the page cache: how quickly it is consumed, against one that is and against what the disk gives, and whether
// others wait meanwhile. The flags make it as large as docs/benchmarks.md has it.

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/gomodule/redigo/redis"
	"golang.org/x/sys/unix"
)

var (
	coldBytes = flag.String("cold-bytes", "64mb", "bodies of the backlog in TestColdBacklog")
	coldBody  = flag.Int("cold-body", 1024, "bytes of a body in it")
)

const (
	coldBatch = 100
	// coldReadBytes is how much is read at once to learn what the disk gives.
	coldReadBytes = 1 << 20
	// coldSlowestMax is how long a command of others may take while one consumer reads from the disk, and a machine is busy with
	// something else.
	coldSlowestMax = 5 * time.Second
)

// logFiles are the files of all queues' logs, in the order in which they are consumed.
func logFiles(t *testing.T, s *server) (paths []string, bytes int64) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(s.dir, "queues"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			paths, bytes = append(paths, path), bytes+info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	return paths, bytes
}

// eachFile opens one file after the other.
func eachFile(t *testing.T, paths []string, flags int, do func(f *os.File) error) {
	t.Helper()
	for _, path := range paths {
		f, err := os.OpenFile(path, os.O_RDONLY|flags, 0)
		if err == nil {
			err = errors.Join(do(f), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// dropCache takes files out of the page cache; they are synced first, or they would stay.
func dropCache(t *testing.T, paths []string) {
	t.Helper()
	eachFile(t, paths, 0, func(f *os.File) error {
		return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	})
}

// readFiles reads files whole and returns how many bytes that were.
func readFiles(t *testing.T, paths []string, flags int) (total int64) {
	t.Helper()
	buf := make([]byte, 2*coldReadBytes)
	skip := -uintptr(unsafe.Pointer(&buf[0])) % 4096 // what bypasses the page cache must be aligned
	buf = buf[skip : skip+coldReadBytes]
	eachFile(t, paths, flags, func(f *os.File) error {
		for {
			n, err := f.Read(buf)
			total += int64(n)
			if err == io.EOF || n < len(buf) && err == nil {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	return total
}

// diskRead is what the process has had read from the disk so far, in bytes.
func diskRead(t *testing.T, s *server) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "read_bytes: "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("the kernel does not say what a process has read")
	return 0
}

// quickConsumer consumes without keeping what it gets, so that it takes little of a machine that the server is measured on.
type quickConsumer struct {
	conn  net.Conn
	in    *bufio.Reader
	queue string
	last  int64
	next  int64 // what begins the next body, if every body begins with a number
}

func newQuickConsumer(t *testing.T, s *server, queue string) *quickConsumer {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &quickConsumer{conn: conn, in: bufio.NewReaderSize(conn, 1<<20), queue: queue}
}

// number reads a line that is a number behind one of these signs.
func (c *quickConsumer) number(sign byte) (int64, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if line[0] != sign {
		return 0, fmt.Errorf("got %q, want a line with %c", line, sign)
	}
	return strconv.ParseInt(string(line[1:len(line)-2]), 10, 64)
}

// batch reads a batch of numbered bodies, checks that they are the next ones, and returns its number and how many messages it has.
func (c *quickConsumer) batch() (id, messages int64, err error) {
	var n int64
	read := func(sign byte) {
		if err == nil {
			n, err = c.number(sign)
		}
	}
	read('*')
	read(':')
	id = n
	read(':')
	read('*')
	messages = n
	for i := int64(0); i < messages && err == nil; i++ {
		read('*')
		read(':')
		if err == nil && n <= c.last {
			err = fmt.Errorf("message %d behind %d", n, c.last)
		}
		c.last = n
		read('$')
		if err != nil {
			break
		}
		var body []byte
		if body, err = c.in.Peek(int(n) + 2); err == nil && !bytes.HasPrefix(body, fmt.Appendf(nil, "%012d", c.next)) {
			err = fmt.Errorf("body %.20q, want the one numbered %d", body, c.next)
		}
		c.next++
		c.in.Discard(int(n) + 2)
		read(':') // attempt
		read(':') // pushed
		read('*') // headers
	}
	return id, messages, err
}

// consume takes so many messages in batches of 100 and acknowledges them, each batch with the pull of the next, and returns how
// long that took.
func (c *quickConsumer) consume(t *testing.T, messages int64) time.Duration {
	t.Helper()
	began := time.Now()
	pull := fmt.Sprintf("QCONSUME %s worker COUNT %d BYTES 8388608 BLOCK 30000\r\n", c.queue, coldBatch)
	if _, err := io.WriteString(c.conn, pull); err != nil {
		t.Fatal(err)
	}
	for got := int64(0); got < messages; {
		id, n, err := c.batch()
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", got, messages, err)
		}
		got += n
		out := fmt.Sprintf("QACK %s %d\r\n", c.queue, id)
		if got < messages {
			out += pull
		}
		if _, err := io.WriteString(c.conn, out); err != nil {
			t.Fatal(err)
		}
		if acknowledged, err := c.number(':'); err != nil || acknowledged != n {
			t.Fatalf("acknowledged %d of %d, %v", acknowledged, n, err)
		}
	}
	return time.Since(began)
}

// pushNumbered pushes batches of 100 messages whose bodies begin with their number.
func pushNumbered(t *testing.T, conn redis.Conn, queue string, messages int64, bodyBytes int) {
	t.Helper()
	const window = 10 // batches that are under way together
	rest := strings.Repeat("x", bodyBytes-12)
	sent, got := int64(0), int64(0)
	for got < messages {
		for ; sent < messages && sent < got+window*coldBatch; sent += coldBatch {
			args := []any{queue}
			for i := range int64(coldBatch) {
				args = append(args, fmt.Sprintf("%012d%s", sent+i, rest))
			}
			if err := conn.Send("QPUSH", args...); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
		if _, err := redis.Int64(conn.Receive()); err != nil {
			t.Fatal(err)
		}
		got += coldBatch
	}
}

// bystander measures what others wait for: pushes into the queue that is consumed, and a push, pull and acknowledgement of another.
type bystander struct {
	stop    chan struct{}
	done    sync.WaitGroup
	same    []time.Duration
	other   []time.Duration
	failure error
}

func watchOthers(t *testing.T, s *server, queue string) *bystander {
	t.Helper()
	b := &bystander{stop: make(chan struct{})}
	conn := s.connect(t)
	b.done.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for b.failure == nil {
			select {
			case <-b.stop:
				return
			case <-tick.C:
			}
			began := time.Now()
			_, b.failure = conn.Do("QPUSH", queue, "from a bystander")
			b.same = append(b.same, time.Since(began))
			if b.failure == nil {
				began = time.Now()
				b.failure = b.passOne(conn)
				b.other = append(b.other, time.Since(began))
			}
		}
	})
	return b
}

func (b *bystander) passOne(conn redis.Conn) error {
	if _, err := conn.Do("QPUSH", "other", "one"); err != nil {
		return err
	}
	got, err := consume(conn, "other", "bystander")
	if err != nil || got == nil {
		return fmt.Errorf("pull: %v, %w", got, err)
	}
	_, err = conn.Do("QACK", "other", got.id)
	return err
}

func (b *bystander) end(t *testing.T) string {
	t.Helper()
	close(b.stop)
	b.done.Wait()
	if b.failure != nil {
		t.Fatal(b.failure)
	}
	text := ""
	for _, what := range []struct {
		name  string
		times []time.Duration
	}{{"push to the same queue", b.same}, {"push, pull and acknowledgement of another", b.other}} {
		slices.Sort(what.times)
		n := len(what.times)
		if n == 0 {
			t.Fatal("the bystander did nothing")
		}
		round := func(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
		text += fmt.Sprintf("%s: %v (median), %v (99th percentile), %v (worst of %d); ", what.name, round(what.times[n/2]), round(what.times[n*99/100]),
			round(what.times[n-1]), n)
		if what.times[n-1] > coldSlowestMax {
			t.Errorf("a bystander waited %v for its %s", what.times[n-1], what.name)
		}
	}
	return text
}

// Half of the backlog is consumed cold and warm in turns, a quarter cold while others use the server, and the rest tells what the disk
// gives.
func TestColdBacklog(t *testing.T) {
	const rounds = 5
	slice := max(sizeFlag(t, *coldBytes)/int64(*coldBody)/(4*rounds*coldBatch), 1) * coldBatch
	messages := 4*rounds*slice + coldBatch
	s := startServer(t)
	pushNumbered(t, s.connect(t), "backlog", messages, *coldBody)
	s.stop(syscall.SIGTERM)
	paths, bytes := logFiles(t, s)
	disk := func(flags int) float64 {
		last := paths[len(paths)*3/4:]
		dropCache(t, last)
		began := time.Now()
		n := readFiles(t, last, flags)
		return float64(n) / time.Since(began).Seconds()
	}
	direct, buffered := disk(syscall.O_DIRECT), disk(0)
	perMessage := float64(bytes) / float64(messages)
	s.start()
	c := newQuickConsumer(t, s, "backlog")
	c.consume(t, coldBatch) // which opens the log: that looks at the end of each segment, and is no part of reading it
	drop := func() {
		paths, _ := logFiles(t, s)
		dropCache(t, paths)
	}
	var cold, warm []float64
	fromDisk := int64(0)
	for range rounds {
		drop()
		before := diskRead(t, s)
		cold = append(cold, float64(slice)/c.consume(t, slice).Seconds())
		fromDisk += diskRead(t, s) - before
		paths, _ := logFiles(t, s)
		readFiles(t, paths[:min(len(paths), len(paths)/rounds+16)], 0)
		warm = append(warm, float64(slice)/c.consume(t, slice).Seconds())
	}
	if share := float64(fromDisk) / (float64(rounds*slice) * perMessage); share < 0.9 {
		t.Logf("only %.2f of what was consumed came from the disk: this file system keeps its files in memory", share)
	}
	drop()
	others := watchOthers(t, s, "backlog")
	beside := float64(messages/4) / c.consume(t, messages/4).Seconds()
	waits := others.end(t)

	ratios := make([]float64, rounds)
	for i := range ratios {
		ratios[i] = cold[i] / warm[i]
	}
	t.Logf("the rounds: cold %.0f/s, warm %.0f/s, %.2f", cold, warm, ratios)
	for _, list := range [][]float64{cold, warm, ratios} {
		slices.Sort(list)
	}
	t.Logf("%d messages of %d bytes, log %.0f MB; cold %.0f/s (%.0f MB/s of the log), warm %.0f/s, %.2f in the medians; the disk gives %.0f MB/s past the page cache, %.0f MB/s through it",
		messages, *coldBody, mega(bytes), cold[rounds/2], cold[rounds/2]*perMessage/(1<<20), warm[rounds/2], ratios[rounds/2], direct/(1<<20), buffered/(1<<20))
	t.Logf("beside others: cold %.0f/s; %s", beside, waits)
}
