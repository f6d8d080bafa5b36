package wal

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quail/wal/record"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

// benchSource stands for package queue: it keeps no state.
type benchSource struct{ queues sync.Map }

type benchQueue struct {
	mu   sync.Mutex
	log  *QueueLog
	lsn  uint64
	last *Future
	recs [1]record.Record
}

func (b *benchSource) Snapshot(incarnation uint64) (Snapshot, bool) {
	v, ok := b.queues.Load(incarnation)
	if !ok {
		return Snapshot{}, false
	}
	q := v.(*benchQueue)
	q.mu.Lock()
	defer q.mu.Unlock()
	return Snapshot{LSN: q.lsn, First: q.lsn + 1, After: q.last}, true
}

func (b *benchSource) Live(uint64) (Live, bool) { return Live{}, false }

func (b *benchSource) Load(log *QueueLog, lsn uint64, _ []byte) error {
	b.queues.Store(log.Incarnation(), &benchQueue{log: log, lsn: lsn})
	return nil
}

func (b *benchSource) Replay(log *QueueLog, r record.Record) error {
	v, _ := b.queues.LoadOrStore(log.Incarnation(), &benchQueue{log: log})
	v.(*benchQueue).lsn = r.LSN
	return nil
}

func (q *benchQueue) commit(s *Store, body []byte) *Future {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lsn++
	q.recs[0] = record.Record{LSN: q.lsn, Incarnation: q.log.Incarnation(), Kind: 1, Body: body}
	q.last = s.Commit(q.log, q.recs[:])
	return q.last
}

func benchStore(b *testing.B, dir string, queues int) (*Store, []*benchQueue) {
	cfg := Config{FS: vfs.OS, Dir: dir, JournalFileBytes: 16 << 20, JournalBytes: 256 << 20, CheckpointBytes: 64 << 20,
		WriteBehindBytes: 64 << 20, LazyDelay: 5 * time.Second, SegmentBytes: 1 << 20, OpenLogs: 128, OpenLog: seglog.Open}
	src := &benchSource{}
	s, _, err := Open(cfg, src, src, 0)
	if err != nil {
		b.Fatal(err)
	}
	var list []*benchQueue
	src.queues.Range(func(_, v any) bool { list = append(list, v.(*benchQueue)); return true })
	for len(list) < queues {
		id, err := s.NextID()
		if err != nil {
			b.Fatal(err)
		}
		q := &benchQueue{log: s.NewLog(id, fmt.Sprint("q", id))}
		src.queues.Store(id, q)
		list = append(list, q)
	}
	return s, list
}

// BenchmarkCommit waits for the disk after each record of 100 bytes, as a connection without a pipeline does.
func BenchmarkCommit(b *testing.B) {
	for _, queues := range []int{1, 1000} {
		for _, goroutines := range []int{1, 50} {
			b.Run(fmt.Sprintf("queues=%d/goroutines=%d", queues, goroutines), func(b *testing.B) {
				s, list := benchStore(b, b.TempDir(), queues)
				defer s.Abandon()
				body := make([]byte, 100)
				b.ReportAllocs()
				b.ResetTimer()
				var next atomic.Int64
				var all sync.WaitGroup
				for g := range goroutines {
					all.Go(func() {
						for i := g; next.Add(1) <= int64(b.N); i += 7 {
							if err := s.WaitRoom(); err != nil {
								b.Error(err)
								return
							}
							if err := list[i%len(list)].commit(s, body).Wait(); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}

// BenchmarkCommitPipelined waits only at the end, as pipelines do.
func BenchmarkCommitPipelined(b *testing.B) {
	s, list := benchStore(b, b.TempDir(), 10)
	defer s.Abandon()
	body := make([]byte, 100)
	b.ReportAllocs()
	b.ResetTimer()
	var last *Future
	for i := range b.N {
		if err := s.WaitRoom(); err != nil {
			b.Fatal(err)
		}
		last = list[i%len(list)].commit(s, body)
	}
	if err := last.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkReplay opens a store whose journal holds 200,000 records of 100 bytes behind the checkpoint.
func BenchmarkReplay(b *testing.B) {
	const records = 200_000
	dir := b.TempDir()
	s, list := benchStore(b, dir, 10)
	body := make([]byte, 100)
	for i := range records {
		list[i%len(list)].commit(s, body)
	}
	for _, q := range list {
		if err := q.last.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	s.Abandon()
	b.ResetTimer()
	for range b.N {
		s, _ := benchStore(b, dir, 0)
		b.StopTimer()
		s.Abandon()
		b.StartTimer()
	}
	b.ReportMetric(records*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
