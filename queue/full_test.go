package queue

// A full disk, through a file system in memory with a bounded number of bytes: messages are refused, what is there is consumed
// and acknowledged, and that gives the space back.

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/vfs"
)

const (
	fullQueues  = 20
	fullReserve = 3 * 64 << 10 // bytes
)

// fillDisk pushes to many queues until the disk is full, and returns how many messages each took.
func fillDisk(w *world) (counts []int) {
	counts = make([]int, fullQueues)
	refusals := 0
	body := strings.Repeat("x", 700)
	for n := 0; n < 100_000; n++ {
		i := n % fullQueues
		_, f, err := w.set.Push(fullName(i), split([]string{body}))
		if err == nil {
			err = f.Wait()
		}
		if err == nil {
			counts[i]++
			refusals = 0
			if n%50 == 0 {
				time.Sleep(50 * time.Millisecond) // virtual: the background writer's turn
			}
			continue
		}
		var refused *Error
		if !errors.As(err, &refused) || refused.Code != "WALERR" || !strings.Contains(refused.Message, "full") || !strings.Contains(refused.Message, "nothing was changed") {
			w.t.Fatalf("a push to a full disk got %v", err)
		}
		if refusals++; refusals == 2 {
			return counts
		}
		time.Sleep(5 * time.Second) // what it was afraid of may have taken less space
	}
	w.t.Fatal("the disk is never full")
	return nil
}

func fullName(i int) []byte { return fmt.Appendf(nil, "q%d", i) }

func (w *world) fullConfig(reserve int64) Config {
	cfg := w.config(w.fs)
	cfg.Store.ReserveBytes, cfg.Store.CheckpointBytes = reserve, 1<<30 // checkpoints are taken for want of space alone
	return cfg
}

// endFull closes the set also after a failure, of which nobody could read for the goroutines that are left.
func (w *world) endFull() {
	if w.set != nil {
		w.set.Close()
	}
}

// drain consumes and acknowledges all of a queue and returns how many messages that were.
func (w *world) drain(name []byte) (n int) {
	w.t.Helper()
	for {
		r := request(string(name), "c")
		r.Count = 7
		b, err := w.pull(r)
		if err != nil {
			w.t.Fatalf("a pull on a full disk got %v", err)
		}
		if b == nil {
			return n
		}
		acked, f, err := w.set.Ack(name, b.ID, nil)
		if err == nil {
			err = f.Wait()
		}
		if err != nil || acked != len(b.Messages) {
			w.t.Fatalf("acknowledged %d of %d on a full disk: %v", acked, len(b.Messages), err)
		}
		n += acked
		time.Sleep(10 * time.Millisecond)
	}
}

// Without this a full disk cannot be emptied by consuming: nobody may acknowledge, so nothing is ever given back.
func TestFullDiskTakesAcknowledgements(t *testing.T) {
	for _, restart := range []string{"runs on", "restart", "power cut"} {
		t.Run(restart, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { fullDisk(t, restart) })
		})
	}
}

func fullDisk(t *testing.T, restart string) {
	w := &world{t: t, fs: vfs.NewLossy(31), opts: machine.DefaultOptions()}
	defer w.endFull()
	w.fs.SetCapacity(4 << 20)
	failures := 0
	open := func() {
		cfg := w.fullConfig(fullReserve)
		cfg.Store.Events.LogFailed = func(_ wal.LogName, err error) { failures++; t.Logf("log failed: %v", err) }
		cfg.Store.Events.JournalFailed = func(err error) { failures++; t.Logf("journal failed: %v", err) }
		var err error
		if w.set, _, err = Open(cfg); err != nil {
			t.Fatal(err)
		}
	}
	open()
	counts := fillDisk(w)
	leased := w.expectSome("q0")
	left := int64(0)
	if _, err := w.fs.Stat("/data/RESERVE"); err != nil {
		left = fullReserve // it was given back: that is the space to go on in
	}
	w.fs.SetCapacity(w.fs.Used() + left) // somebody else takes what was free besides
	if _, _, err := w.set.Push(fullName(1), split([]string{"refused"})); codeOf(err) != "WALERR" {
		t.Fatalf("a push got %v", err)
	}
	if _, err := w.set.Create([]byte("new"), machine.Options{}); codeOf(err) != "WALERR" {
		t.Fatalf("a new queue got %v", err)
	}
	switch restart {
	case "restart":
		w.set.Close()
		open()
	case "power cut":
		w.lose()
		failures = 0
		open()
	}
	n, f, err := w.set.Ack(fullName(0), leased.ID, nil)
	if err == nil {
		err = f.Wait()
	}
	if err != nil && !(restart == "power cut" && codeOf(err) == "NOBATCH") {
		t.Fatalf("the batch that was out: %v", err)
	}
	counts[0] -= n
	for i, want := range counts {
		if got := w.drain(fullName(i)); got != want {
			t.Fatalf("%d messages of queue %d were there, %d were acknowledged", got, i, want)
		}
		time.Sleep(300 * time.Millisecond)
	}
	time.Sleep(5 * time.Second)
	synctest.Wait()
	w.push("q3", "there is space again")
	w.expect(request("q3", "c"), "there is space again@1")
	if failures > 0 {
		t.Errorf("%d times something failed on the way", failures)
	}
	if err := w.set.Close(); err != nil {
		t.Error(err)
	}
}

// Without this producers that are quicker than the background writer looks are told yes for what the logs then find no space for.
func TestQuickProducersAreRefusedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, fs: vfs.NewLossy(31), opts: machine.DefaultOptions()}
		defer w.endFull()
		w.fs.SetCapacity(4 << 20)
		cfg := w.fullConfig(fullReserve)
		cfg.Store.JournalBytes, cfg.Store.WriteBehindBytes = 64<<20, 64<<20
		cfg.Store.Events.LogFailed = func(_ wal.LogName, err error) { t.Errorf("log failed: %v", err) }
		var err error
		if w.set, _, err = Open(cfg); err != nil {
			t.Fatal(err)
		}
		pushed := 0
		for {
			_, f, err := w.set.Push([]byte("q"), split([]string{strings.Repeat("x", 700)}))
			if err == nil {
				err = f.Wait()
			}
			if codeOf(err) == "WALERR" && pushed > 100 {
				break
			}
			if err != nil {
				t.Fatalf("push %d: %v", pushed, err)
			}
			pushed++ // no time passes, so the background writer has no turn of its own
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := w.drain([]byte("q")); got != pushed {
			t.Errorf("%d messages were there, %d were acknowledged", got, pushed)
		}
	})
}

// expectSome leases one batch.
func (w *world) expectSome(queue string) *Batch {
	w.t.Helper()
	b, err := w.pull(request(queue, "c"))
	if err != nil || b == nil {
		w.t.Fatalf("pulled %v, %v", b, err)
	}
	time.Sleep(10 * time.Millisecond) // the lease is not waited for
	return b
}

// Without this a log that meets the full disk unforeseen, because of a quota or since somebody else was quicker, refuses
// acknowledgements until there is space.
func TestSuddenlyFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, fs: vfs.NewLossy(32), opts: machine.DefaultOptions()}
		defer w.endFull()
		failing := vfs.NewFailing(w.fs)
		cfg := w.config(failing)
		cfg.Store.ReserveBytes = fullReserve
		set, _, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		w.set = set
		w.push("q", "a", "b")
		time.Sleep(time.Second)
		first := w.expect(request("q", "one"), "a@1 b@1")
		failing.FailWhen(func(op vfs.Op) bool { return op.Kind == vfs.OpWrite && strings.Contains(op.Path, "/queues/") },
			vfs.FailShort, syscall.ENOSPC)
		w.push("q", "c")
		for set.find([]byte("q")).log.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		if n, f, err := set.Ack([]byte("q"), first.ID, nil); err != nil || n != 2 || f.Wait() != nil {
			t.Fatalf("while the log is out of order: %d, %v", n, err)
		}
		if _, _, err := set.Push([]byte("other"), split([]string{"refused"})); codeOf(err) != "WALERR" {
			t.Fatalf("a push got %v", err)
		}
		time.Sleep(100 * time.Millisecond)
		w.expect(request("q", "one"), "c@1")
		time.Sleep(3 * time.Second)
		w.push("other", "taken again")
		w.powerCut()
		w.expect(request("q", "one"), "null")
		w.expect(request("other", "one"), "taken again@1")
		w.set.Close()
	})
}

// Without this dead letters take the space that acknowledgements need, or are lost for lack of it.
func TestDeadLettersWaitForSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, fs: vfs.NewLossy(33), opts: machine.DefaultOptions()}
		defer w.endFull()
		w.fs.SetCapacity(4 << 20)
		set, _, err := Open(w.fullConfig(fullReserve))
		if err != nil {
			t.Fatal(err)
		}
		w.set = set
		counts := fillDisk(w)
		b := w.expectSome("q0")
		if _, _, err := set.Nack(fullName(0), b.ID, machine.Dead, -1, nil); codeOf(err) != "WALERR" {
			t.Fatalf("moving to the dead-letter queue got %v", err)
		}
		for i := 1; i < fullQueues; i++ {
			if got := w.drain(fullName(i)); got != counts[i] {
				t.Fatalf("%d of %d", got, counts[i])
			}
		}
		time.Sleep(5 * time.Second)
		n, f, err := set.Nack(fullName(0), b.ID, machine.Dead, -1, nil)
		if err != nil || n != len(b.Messages) || f.Wait() != nil {
			t.Fatalf("when there is space: %d, %v", n, err)
		}
		set.Close()
	})
}
