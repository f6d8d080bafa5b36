package queue

import (
	"bytes"
	"testing"

	"quail/queue/machine"
)

// BenchmarkPeek looks at ten messages of 64 KB that are leased and long in the log, as an operator does, and who asks for much that it will not read.
func BenchmarkPeek(b *testing.B) {
	const messages, bodyBytes = 10, 64 << 10
	cfg := startConfig(b.TempDir(), 64<<20)
	cfg.Store.NoSync = true
	set, _, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	name, bodies := []byte("work"), make([][]byte, messages)
	for i := range bodies {
		bodies[i] = bytes.Repeat([]byte("x"), bodyBytes)
	}
	_, pushed, err := set.Push(name, bodies)
	if err == nil {
		err = pushed.Wait()
	}
	if err != nil {
		b.Fatal(err)
	}
	if err := set.Close(); err != nil { // a checkpoint, so that they are read from the log
		b.Fatal(err)
	}
	if set, _, err = Open(cfg); err != nil {
		b.Fatal(err)
	}
	defer set.Close()
	leased := make(chan struct{})
	set.Consume(ConsumeRequest{Queue: name, Consumer: []byte("c"), Count: messages, Bytes: -1, FillMillis: -1, LeaseMillis: -1}, func(*Batch, *Future, error) { close(leased) })
	<-leased
	b.SetBytes(messages * bodyBytes)
	b.ReportAllocs()
	for b.Loop() {
		found := 0
		_, err := set.Peek(name, machine.Gone, 0, messages, func(list []Found) { found = len(list) })
		if err != nil || found != messages {
			b.Fatalf("%d messages, %v", found, err)
		}
	}
}
