package commands

import (
	"fmt"
	"testing"

	"quail/commands/resp"
	"quail/queue"
	"quail/queue/machine"
	"quail/wal"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

// BenchmarkScan asks a server with 20,000 queues for one page: a browser of queues asks for two thousand of them. In "after a change" a queue
// was made since the last page.
func BenchmarkScan(b *testing.B) {
	opts := machine.DefaultOptions()
	set, _, err := queue.Open(queue.Config{
		Store: wal.Config{FS: vfs.NewLossy(1), Dir: "/data", JournalFileBytes: 8 << 20, JournalBytes: 64 << 20, CheckpointBytes: 32 << 20,
			WriteBehindBytes: 64 << 20, SegmentBytes: 1 << 20, OpenLogs: 8, OpenLog: seglog.OpenSim},
		Defaults:   func() *machine.Options { return opts },
		QueuesMax:  func() int { return 1_000_000 },
		AutoCreate: func() bool { return true },
	})
	if err != nil {
		b.Fatal(err)
	}
	defer set.Close()
	made := 0
	create := func() {
		after, err := set.Create(fmt.Appendf(nil, "orders-of-customer-%d", made), machine.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if made++; made%100 == 0 && after.Wait() != nil {
			b.Fatal(after.Err())
		}
	}
	for range 20_000 {
		create()
	}
	w := newWorld(3)
	w.env.Queues = set
	c := &Call{W: &resp.Writer{Proto: 3, Buf: make([]byte, 0, 1<<16)}, Conn: w.conn, Env: w.env}
	for _, run := range []struct {
		name  string
		words []string
		each  func()
	}{
		{"page of 10", []string{"SCAN", "0"}, func() {}},
		{"page of 100 in the middle", []string{"QLIST", "4503599627370496"}, func() {}},
		{"page of 10 after a change", []string{"SCAN", "0"}, create},
	} {
		words := make([][]byte, len(run.words))
		for i, w := range run.words {
			words[i] = []byte(w)
		}
		b.Run(run.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				run.each()
				c.W.Buf = c.W.Buf[:0]
				c.Reset(words)
				Run(c)
			}
			if len(c.W.Buf) < 100 {
				b.Fatalf("%q", c.W.Buf)
			}
		})
	}
}
