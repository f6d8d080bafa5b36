package queue

// What a million delayed messages cost, and how exactly they come. Run by hand: see docs/benchmarks.md.

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

var delayedMessages = flag.Int("delayed", 100_000, "delayed messages in BenchmarkDelayed")

// benchSet is a set of queues on the real disk.
func benchSet(b *testing.B, dir string) *Set {
	b.Helper()
	opts := machine.DefaultOptions()
	set, _, err := Open(Config{
		Store: wal.Config{FS: vfs.OS, Dir: dir, JournalFileBytes: 16 << 20, JournalBytes: 256 << 20, CheckpointBytes: 64 << 20,
			WriteBehindBytes: 64 << 20, SegmentBytes: 1 << 20, OpenLogs: 128, OpenLog: seglog.Open},
		Defaults:     func() *machine.Options { return opts },
		QueuesMax:    func() int { return 1000 },
		AutoCreate:   func() bool { return true },
		PushBytesMax: func() int64 { return 16 << 20 },
	})
	if err != nil {
		b.Fatal(err)
	}
	return set
}

func heapBytes() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse)
}

// BenchmarkDelayed fills a queue with messages that are due in an hour, restarts, and then measures how late 2,000 messages
// come that are due within four seconds, while a consumer waits.
func BenchmarkDelayed(b *testing.B) {
	dir, name := b.TempDir(), []byte("later")
	set := benchSet(b, dir)
	before := heapBytes()
	pushDelayed(b, set, name, *delayedMessages, func(i int) int64 { return 3_600_000 + int64(i)*7919%600_000 })
	if err := set.Checkpoint(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric((heapBytes()-before)/float64(*delayedMessages), "heap-B/message")
	if err := set.Close(); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	set = benchSet(b, dir)
	b.ReportMetric(float64(time.Since(began).Milliseconds()), "restart-ms")
	b.ReportMetric((heapBytes()-before)/float64(*delayedMessages), "heap-B/message-restarted")

	pushDelayed(b, set, name, 2000, func(i int) int64 { return 1000 + 2*int64(i) })
	late := lateness(b, set, name, 2000)
	slices.Sort(late)
	b.ReportMetric(late[len(late)/2], "late-p50-ms")
	b.ReportMetric(late[len(late)*99/100], "late-p99-ms")
	b.ReportMetric(late[len(late)-1], "late-max-ms")
	b.ReportMetric(0, "ns/op")
	if err := set.Close(); err != nil {
		b.Fatal(err)
	}
}

// pushDelayed pushes n messages, each due delay(i) ms from now, and waits until they are durable. A body is its due time.
func pushDelayed(b *testing.B, set *Set, name []byte, n int, delay func(int) int64) {
	var last *Future
	base := time.Now().UnixMilli()
	for i := range n {
		at := base + delay(i)
		_, f, err := set.PushWith(name, [][]byte{fmt.Appendf(nil, "%0100d", at)}, PushOptions{AtMillis: at})
		if err != nil {
			b.Fatal(err)
		}
		last = f
	}
	if err := last.Wait(); err != nil {
		b.Fatal(err)
	}
}

// lateness pulls until it has n messages and returns how late each was delivered, in milliseconds.
func lateness(b *testing.B, set *Set, name []byte, n int) (late []float64) {
	answer := make(chan *Batch, 1)
	for len(late) < n {
		set.Consume(ConsumeRequest{Queue: name, Consumer: []byte("c"), Count: 100, Bytes: 1 << 20, FillMillis: 0, LeaseMillis: -1,
			Block: true, BlockMillis: 10_000}, func(batch *Batch, after *Future, err error) {
			if err != nil {
				b.Error(err)
			}
			answer <- batch
		})
		batch := <-answer
		if batch == nil {
			b.Fatalf("nothing came after %d messages", len(late))
		}
		now := float64(time.Now().UnixMicro()) / 1000
		for _, m := range batch.Messages {
			due, err := strconv.ParseInt(string(m.Body), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			late = append(late, now-float64(due))
		}
		if _, _, err := set.Ack(name, batch.ID, nil); err != nil {
			b.Fatal(err)
		}
	}
	return late
}
