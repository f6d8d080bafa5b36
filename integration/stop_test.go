//go:build linux

package integration

// The graceful stop: whoever waits is answered, what is in flight is finished, and the next start has nothing to replay.

import (
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/gomodule/redigo/redis"
)

var (
	readyLine  = regexp.MustCompile(`"queues":\d+,"replayed_records":(\d+)`)
	loadedLine = regexp.MustCompile(`"queues":\d+,"messages":(\d+),"took_ms":\d+,[^\n]*"message":"all queues are loaded"`)
)

// lastStart returns what the newest start-up lines tell.
func lastStart(t *testing.T, s *server) (messages, replayed int64) {
	t.Helper()
	eventually(t, startTimeout, "both start-up lines", func() bool {
		log := s.log()
		places := readyLine.FindAllStringSubmatchIndex(log, -1)
		if len(places) == 0 {
			return false
		}
		last := places[len(places)-1]
		loaded := loadedLine.FindStringSubmatch(log[last[0]:])
		if loaded == nil {
			return false
		}
		replayed, _ = strconv.ParseInt(log[last[2]:last[3]], 10, 64)
		messages, _ = strconv.ParseInt(loaded[1], 10, 64)
		return true
	})
	return messages, replayed
}

// Without this, every deployment costs its clients errors, and every start a recovery.
func TestGracefulStopUnderLoad(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			s := startServer(t)
			conn := s.connect(t)
			_, blocked := pullAway(t, s, "empty", "worker", "BLOCK", 0)
			must(t, conn, "QLOCK", "held", "holder")
			_, standby := pullAway(t, s, "held", "standby", "BLOCK", 0)
			awaitLine(t, conn, "empty", 1)
			awaitLine(t, conn, "held", 1)
			acked := pushUntilTheEnd(t, s, 8, 400, func() { s.down().cmd.Process.Signal(signal) })
			for name, outcome := range map[string]<-chan pulled{"consumer": blocked, "standby": standby} {
				if p := receive(t, outcome); p.batch != nil {
					t.Errorf("the waiting %s got %+v", name, p.batch)
				}
			}
			if code := s.exitCode(s.process); code != 0 {
				t.Errorf("exit code %d", code)
			}
			s.start()
			messages, replayed := lastStart(t, s)
			if replayed != 0 {
				t.Errorf("%d records were replayed after a graceful stop", replayed)
			}
			// One push at a time on each connection: whatever ran was answered, so nothing more is there either.
			if messages != acked {
				t.Errorf("%d pushes were answered, %d messages are there", acked, messages)
			}
			t.Logf("%d pushes answered", acked)
		})
	}
}

// pushUntilTheEnd pushes from several connections until the server closes them, and calls stop at the n-th answer.
func pushUntilTheEnd(t *testing.T, s *server, connections int, n int64, stop func()) int64 {
	t.Helper()
	var acked atomic.Int64
	var group sync.WaitGroup
	for worker := range connections {
		conn := s.connect(t)
		group.Go(func() {
			for i := range 1_000_000 {
				if _, err := redis.Int64(conn.Do("QPUSH", fmt.Sprintf("load.%d", worker%3), fmt.Sprintf("%d/%d", worker, i))); err != nil {
					if refused(err) {
						t.Errorf("QPUSH during the stop: %v", err)
					}
					return
				}
				if acked.Add(1) == n {
					stop()
				}
			}
		})
	}
	group.Wait()
	return acked.Load()
}

// A pipeline that is being worked on when the signal comes: its commands are answered in order, up to some point, and what
// was answered is there.
func TestGracefulStopInsideAPipeline(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	const depth = 20_000
	sent := make(chan error, 1)
	go func() {
		for i := range depth {
			if err := conn.Send("QPUSH", "pipe", fmt.Sprint(i)); err != nil {
				sent <- err
				return
			}
		}
		sent <- conn.Flush()
	}()
	acked := int64(0)
	for acked < depth {
		if _, err := redis.Int64(conn.Receive()); err != nil {
			if refused(err) {
				t.Errorf("answer %d: %v", acked, err)
			}
			break
		}
		if acked++; acked == 100 {
			s.down().cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	<-sent
	if code := s.exitCode(s.process); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.start()
	messages, replayed := lastStart(t, s)
	if messages < acked || messages > depth {
		t.Errorf("%d of %d pushes were answered, %d messages are there", acked, depth, messages)
	}
	if replayed != 0 {
		t.Errorf("%d records were replayed after a graceful stop", replayed)
	}
	t.Logf("%d of %d pushes answered, %d messages there", acked, depth, messages)
}

// SHUTDOWN is the same from inside.
func TestShutdownCommand(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	must(t, conn, "QPUSH", "q", "a")
	p := s.down()
	if reply, err := conn.Do("SHUTDOWN"); refused(err) {
		t.Fatalf("SHUTDOWN: %v, %v", reply, err)
	}
	if code := s.exitCode(p); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.start()
	if messages, replayed := lastStart(t, s); messages != 1 || replayed != 0 {
		t.Errorf("%d messages, %d records replayed", messages, replayed)
	}
}

// Clients of a queue stay connected for weeks: a stop must not wait for them to leave.
func TestIdleConnectionsDoNotHoldUpAStop(t *testing.T) {
	s := startServer(t)
	for range 100 {
		s.connect(t)
	}
	conn := s.connect(t)
	must(t, conn, "QPUSH", "q", "a")
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := conn.Do("PING"); err == nil {
		t.Error("a connection outlived its server")
	}
}
