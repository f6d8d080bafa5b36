package integration

import (
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

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
