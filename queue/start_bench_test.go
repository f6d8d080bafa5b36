package queue

// How long a start takes, and what of it everybody waits for. Run by hand: see docs/benchmarks.md.

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

// startConfig is a server's, but for the journal: there may be as much of it as the test wants, without a checkpoint.
func startConfig(dir string, checkpointBytes int64) Config {
	opts := machine.DefaultOptions()
	return Config{
		Store: wal.Config{FS: vfs.OS, Dir: dir, JournalFileBytes: 16 << 20, JournalBytes: 1 << 30, CheckpointBytes: checkpointBytes,
			WriteBehindBytes: 64 << 20, LazyDelay: 5 * time.Second, SegmentBytes: 1 << 20, OpenLogs: 1024, OpenLog: seglog.Open},
		Defaults:     func() *machine.Options { return opts },
		QueuesMax:    func() int { return 100_000 },
		AutoCreate:   func() bool { return true },
		PushBytesMax: func() int64 { return 16 << 20 },
	}
}

// crash ends the set as kill -9 would.
func crash(set *Set) {
	w := world{set: set}
	w.die()
}

// BenchmarkStart makes a data directory, ends the process as kill -9 does, and opens it again: open-ms is when commands are taken, loaded-ms
// when the last queue is loaded.
func BenchmarkStart(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 100)
	bodies := make([][]byte, 100)
	for i := range bodies {
		bodies[i] = body
	}
	push := func(b *testing.B, set *Set, pushes, queues int) {
		var last *Future
		for i := range pushes {
			_, f, err := set.Push(fmt.Appendf(nil, "queue-%05d", i%queues), bodies)
			if err != nil {
				b.Fatal(err)
			}
			last = f
			if i%1000 == 999 {
				last.Wait()
			}
		}
		last.Wait()
	}
	scenario := func(name string, checkpoint bool, fill func(b *testing.B, set *Set)) {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				dir := b.TempDir()
				set, _, err := Open(startConfig(dir, 1<<40))
				if err != nil {
					b.Fatal(err)
				}
				fill(b, set)
				if checkpoint {
					if err := set.Checkpoint(); err != nil {
						b.Fatal(err)
					}
				}
				crash(set)
				b.StartTimer()
				began := time.Now()
				cfg, loaded := startConfig(dir, 64<<20), make(chan LoadReport, 1)
				cfg.Loaded = func(r LoadReport) { loaded <- r }
				set = New(cfg)
				report, err := set.Open()
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(time.Since(began).Milliseconds()), "open-ms")
				if r := <-loaded; r.Err != nil {
					b.Fatal(r.Err)
				}
				b.ReportMetric(float64(time.Since(began).Milliseconds()), "loaded-ms")
				b.ReportMetric(float64(report.Bytes>>20), "journal-MB")
				b.ReportMetric(0, "ns/op")
				b.StopTimer()
				crash(set)
			}
		})
	}
	scenario("journal", false, func(b *testing.B, set *Set) { push(b, set, 14_000, 1000) })
	scenario("busy", false, func(b *testing.B, set *Set) { push(b, set, 14_000, 1) })
	scenario("queues", true, func(b *testing.B, set *Set) { push(b, set, 10_000, 10_000) })
	scenario("state", true, func(b *testing.B, set *Set) { fillState(b, set, 2_000_000) })
}

// fillState gives one queue so many delayed messages, half of them with a deduplication id.
func fillState(b *testing.B, set *Set, messages int) {
	b.Helper()
	at := time.Now().Add(time.Hour).UnixMilli()
	var last *Future
	for i := range messages {
		o := PushOptions{AtMillis: at + int64(i)*7919%600_000}
		if i%2 == 0 {
			o.Dedup = fmt.Appendf(nil, "order-%012d", i)
		}
		_, f, err := set.PushWith([]byte("later"), [][]byte{[]byte("x")}, o)
		if err != nil {
			b.Fatal(err)
		}
		if last = f; i%10_000 == 0 {
			last.Wait()
		}
	}
	if err := last.Wait(); err != nil {
		b.Fatal(err)
	}
}
