//go:build linux

package integration

// A full disk, for real: a small file system of our own, filled by pushes and by somebody else's file. What has to hold: a push is refused
// and says why, everything else goes on, and pushes are taken again by themselves when there is space.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

const (
	fullPushesMax = 4_000 // far more than the disks hold
	fullBodyBytes = 20_000
	fullHealTime  = 5 * time.Second
	// fullReserveBytes is the server's reserve: three journal files of the least size.
	fullReserveBytes = 3 << 20
)

// fill takes all that is left, as a file of somebody else. It leaves what the server has just given back of its reserve: that somebody takes that
// too is another test.
func (d *disk) fill(data string) (bytes int64) {
	bytes = d.fillUp()
	if _, err := os.Stat(filepath.Join(data, "RESERVE")); err == nil {
		return bytes
	}
	if err := os.Truncate(d.foreign(), max(bytes-fullReserveBytes, 0)); err != nil {
		d.t.Fatal(err)
	}
	return max(bytes-fullReserveBytes, 0)
}

// fillUp takes all, to the last byte, and returns how large the file is.
func (d *disk) fillUp() int64 {
	d.t.Helper()
	f, err := os.OpenFile(d.foreign(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) >= 512; {
		_, err := f.Write(block)
		if errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			d.t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil { // what is allocated late is taken now
		d.t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		d.t.Fatal(err)
	}
	return info.Size()
}

func (d *disk) foreign() string { return filepath.Join(d.dir, "foreign") }

// pushUntilFull pushes to all queues until one is refused, and returns how many were taken.
func (tr *tour) pushUntilFull() (taken int) {
	tr.t.Helper()
	for i := range fullPushesMax {
		err := tr.tryPush(tourQueues[i%len(tourQueues)], fullBodyBytes)
		if err == nil {
			taken++
			continue
		}
		if !strings.HasPrefix(err.Error(), "WALERR ") || !strings.Contains(err.Error(), "full") && !strings.Contains(err.Error(), "no space") {
			tr.t.Fatalf("a push to a full disk got: %v", err)
		}
		return taken
	}
	tr.t.Fatalf("%d pushes of %d bytes fit on the disk", fullPushesMax, fullBodyBytes)
	return 0
}

// mustRead asks all that can be asked. A queue whose log met the end of the space unforeseen is taken up again in the reserve's, at once.
func (tr *tour) mustRead() {
	tr.t.Helper()
	for _, queue := range tourQueues {
		must(tr.t, tr.conn, "QINFO", queue)
		if n := must(tr.t, tr.conn, "QLEN", queue).(int64); n == 0 {
			tr.t.Errorf("%s has no messages", queue)
		}
		var list []any
		var err error
		if !holdsWithin(fullHealTime, func() bool {
			list, err = redis.Values(tr.conn.Do("QPEEK", queue, "COUNT", 3))
			return err == nil && len(list) > 0
		}) {
			tr.t.Errorf("QPEEK %s: %d messages, %v", queue, len(list), err)
		}
	}
	must(tr.t, tr.conn, "INFO")
}

// drainAll pulls and acknowledges everything. Nothing of that may be refused.
func (tr *tour) drainAll() (messages int) {
	tr.t.Helper()
	for _, queue := range tourQueues {
		for range fullPushesMax {
			before := len(tr.events)
			if err := tr.tryTake(queue, 7, true); err != nil {
				tr.t.Fatalf("a pull from %s or its acknowledgement: %v", queue, err)
			}
			if len(tr.events) == before {
				break
			}
			messages += len(tr.events[before].batch.messages)
		}
	}
	return messages
}

type fullCase struct {
	fileSystem string
	megabytes  int64
	foreign    string // when somebody else's file comes: "first", or "last", when pushes are refused already
	restart    string
}

// Without this a full disk is a dead end: what would give space back is refused for lack of space, or the server does not start again, or
// takes no pushes until somebody restarts it.
func TestFullDiskOfRealFileSystems(t *testing.T) {
	for _, c := range []fullCase{
		{"tmpfs", 24, "last", "runs on"}, {"tmpfs", 24, "last", "killed"}, {"tmpfs", 24, "first", "stopped"},
		{"ext4", 32, "last", "runs on"}, {"ext4", 32, "first", "killed"}, {"ext4", 32, "last", "stopped"},
		{"xfs", 320, "first", "killed"},
	} {
		t.Run(fmt.Sprintf("%s, the other file comes %s, the server is %s", c.fileSystem, c.foreign, c.restart), func(t *testing.T) { fullRun(t, c) })
	}
}

func fullRun(t *testing.T, c fullCase) {
	began := time.Now()
	d := newDisk(t, c.fileSystem, c.megabytes)
	s := newServer(t, tourArgs...)
	s.dir = filepath.Join(d.dir, "data")
	t.Cleanup(func() { // before the disk is unmounted
		if s.isUp() {
			s.kill()
		}
	})
	s.start()
	tr := newTour(t, s)
	tr.trouble = func() string { return "the disk" }
	tr.connect()
	for i := range 80 {
		if err := tr.tryPush(tourQueues[i%len(tourQueues)], fullBodyBytes); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.tryTake("keep", 2, false); err != nil {
		t.Fatal(err)
	}
	foreign := int64(0)
	if c.foreign == "first" {
		foreign = d.fill(s.dir)
	}
	taken := 80 + tr.pushUntilFull()
	if c.foreign == "last" {
		foreign = d.fill(s.dir)
	}
	if _, err := tr.conn.Do("QCREATE", "another"); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("making a queue on a full disk got %v", err)
	}
	tr.mustRead()
	switch c.restart {
	case "killed":
		s.kill()
		s.start()
		tr.connect()
	case "stopped":
		s.stop(syscall.SIGTERM)
		s.start()
		tr.connect()
	}
	tr.mustRead()
	tr.settle()
	for _, queue := range tourQueues { // what was leased
		if token := fieldOf(t, tr.conn, queue, "lock-token"); token != "0" {
			must(t, tr.conn, "QUNLOCK", queue, token)
		}
	}
	drained := tr.drainAll()
	if drained < taken {
		t.Errorf("%d messages were taken, %d came out", taken, drained)
	}
	if c.foreign == "first" {
		d.fill(s.dir) // xfs gives some back late, when files are closed that it had made room for
		tr.pushUntilFull()
		if err := os.Remove(d.foreign()); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Now()
	eventually(t, tourHealTime, "pushes are taken again", func() bool { return tr.tryPush("work", fullBodyBytes) == nil })
	back := time.Since(at)
	for _, queue := range tourQueues {
		if err := tr.tryPush(queue, fullBodyBytes, fullBodyBytes); err != nil {
			t.Error(err)
		}
	}
	s.kill()
	tr.settle()
	s.start()
	tr.mustAudit()
	s.kill()
	t.Logf("%d messages taken until it was full, %d MB of somebody else, %d drained; pushes again after %v; %v in all",
		taken, foreign>>20, drained, back.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

// Without this somebody who takes even the reserve's space costs more than the time until it is back: messages, or the start.
func TestDiskFullToTheLastByte(t *testing.T) {
	for _, fileSystem := range []string{"tmpfs", "ext4"} {
		t.Run(fileSystem, func(t *testing.T) {
			d := newDisk(t, fileSystem, 32)
			s := newServer(t, tourArgs...)
			s.dir = filepath.Join(d.dir, "data")
			t.Cleanup(func() {
				if s.isUp() {
					s.kill()
				}
			})
			s.start()
			tr := newTour(t, s)
			tr.trouble = func() string { return "the disk" }
			tr.connect()
			taken, refused, refusedStarts := 0, 0, 0
			for round := range 6 {
				for i := range 60 { // as far as it goes
					if err := tr.tryPush(tourQueues[i%len(tourQueues)], fullBodyBytes); err == nil {
						taken++
					} else if refused++; !strings.HasPrefix(err.Error(), "WALERR ") {
						t.Fatal(err)
					}
				}
				for _, queue := range tourQueues {
					if err := tr.tryTake(queue, 3, true); err != nil && !strings.HasPrefix(err.Error(), "WALERR ") {
						t.Fatal(err)
					}
				}
				if round > 0 {
					d.fillUp()
				}
				if round%2 == 0 {
					continue
				}
				s.kill()
				tr.settle()
				err := s.tryStart()
				if err != nil && !strings.Contains(s.logTail(2<<10), "the disk is full; ") {
					t.Fatal(err)
				}
				if err != nil { // there must be room for one journal file; it says so
					refusedStarts++
					break
				}
				tr.connect()
			}
			if err := os.Remove(d.foreign()); err != nil {
				t.Fatal(err)
			}
			if refusedStarts > 0 {
				s.start()
			}
			tr.awaitHealthy()
			tr.mustAudit()
			s.kill()
			tr.settle()
			s.start()
			tr.mustAudit()
			s.kill()
			t.Logf("%d messages taken, %d refused; %d starts refused", taken, refused, refusedStarts)
		})
	}
}

func fieldOf(t testing.TB, conn redis.Conn, queue, field string) string {
	t.Helper()
	fields, err := info(conn, queue)
	if err != nil {
		t.Fatal(err)
	}
	return fields[field]
}
