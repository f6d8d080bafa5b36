package queue

import (
	"bytes"
	"testing"
)

// BenchmarkConsume acknowledges a batch of 100 and pulls the next one from a backlog, as a consumer does that sends both in one write. The disk is left out.
func BenchmarkConsume(b *testing.B) {
	const batches = 2000 // a backlog, before it is filled again
	cfg := startConfig(b.TempDir(), 64<<20)
	cfg.Store.NoSync = true
	set, _, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer set.Close()
	name, bodies := []byte("work"), make([][]byte, 100)
	for i := range bodies {
		bodies[i] = bytes.Repeat([]byte("x"), 100)
	}
	fill := func() {
		for range batches {
			_, f, err := set.Push(name, bodies)
			if err == nil {
				err = f.Wait()
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	answer := make(chan *Batch, 1)
	done := func(batch *Batch, _ *Future, err error) {
		if err != nil {
			b.Error(err)
		}
		answer <- batch
	}
	request := ConsumeRequest{Queue: name, Consumer: []byte("c"), Count: 100, Bytes: -1, FillMillis: -1, LeaseMillis: -1, Block: true}
	var batch *Batch
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%batches == 0 {
			b.StopTimer()
			fill()
			b.StartTimer()
		}
		held := set.Hold()
		if batch != nil {
			if _, _, err := set.Ack(name, batch.ID, nil); err != nil {
				b.Fatal(err)
			}
		}
		set.Consume(request, done)
		held.Release()
		if batch = <-answer; batch == nil || len(batch.Messages) != 100 {
			b.Fatal("no full batch")
		}
	}
}
