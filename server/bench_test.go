package server

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
)

// committing is a journal that takes no time: a goroutine that completes one Future after the other, so that the cost of
// the connections is all there is to see.
func committing(q *fakeQueues) (stop func()) {
	q.set(func(q *fakeQueues) { q.manual, q.pushed = true, nil })
	quit := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case <-quit:
				q.commit(nil)
				return
			default:
				q.commit(nil)
			}
		}
	})
	return func() { close(quit); done.Wait() }
}

// BenchmarkPush measures the way of a push through a connection: socket, guard, redcon, command, Future, reply.
func BenchmarkPush(b *testing.B) {
	for _, clients := range []int{1, 50} {
		for _, pipeline := range []int{1, 16, 1000} {
			b.Run(fmt.Sprintf("clients=%d/pipeline=%d", clients, pipeline), func(b *testing.B) {
				s := start(b)
				s.queues.set(func(q *fakeQueues) { q.discard = true })
				defer committing(s.queues)()
				drive(b, s, clients, pipeline, cmd("QPUSH", "orders", strings.Repeat("x", 100)))
			})
		}
	}
}

// BenchmarkPing is the same without a Future.
func BenchmarkPing(b *testing.B) {
	for _, pipeline := range []int{1, 16, 1000} {
		b.Run(fmt.Sprintf("clients=50/pipeline=%d", pipeline), func(b *testing.B) {
			drive(b, start(b), 50, pipeline, cmd("PING"))
		})
	}
}

// BenchmarkLargePush moves 1 MB bodies.
func BenchmarkLargePush(b *testing.B) {
	s := start(b)
	s.queues.set(func(q *fakeQueues) { q.discard = true })
	b.SetBytes(1 << 20)
	drive(b, s, 2, 1, cmd("QPUSH", "orders", strings.Repeat("x", 1<<20)))
}

// drive sends b.N commands over so many connections, each with so many on the way.
func drive(b *testing.B, s *running, clients, pipeline int, command string) {
	batch := []byte(strings.Repeat(command, pipeline))
	conns := make([]net.Conn, clients)
	for i := range conns {
		conns[i] = s.dial(b).conn
	}
	b.ReportAllocs()
	b.ResetTimer()
	var done sync.WaitGroup
	for i, conn := range conns {
		rounds := b.N / clients / pipeline
		if i == 0 {
			rounds += (b.N - rounds*clients*pipeline + pipeline - 1) / pipeline
		}
		done.Go(func() {
			rd := bufio.NewReaderSize(conn, 64<<10)
			for range rounds {
				if _, err := conn.Write(batch); err != nil {
					b.Error(err)
					return
				}
				for range pipeline {
					if _, err := rd.ReadSlice('\n'); err != nil {
						b.Error(err)
						return
					}
				}
			}
		})
	}
	done.Wait()
}
