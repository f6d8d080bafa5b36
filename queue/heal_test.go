package queue

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/vfs"
)

// Without this a queue whose log had one bad moment refuses everything until the server is restarted, or goes on with other
// messages than those that were acknowledged.
func TestQueueGoesOnAfterItsLogFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, fs: vfs.NewLossy(21), opts: machine.DefaultOptions()}
		failing := vfs.NewFailing(w.fs)
		cfg := w.config(failing)
		reopened := make(chan wal.LogReopened, 1)
		cfg.Store.Events.LogReopened = func(r wal.LogReopened) { reopened <- r }
		set, _, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		w.set = set
		w.push("q", "a", "b")
		w.push("other", "x")
		time.Sleep(time.Second)
		first := w.expect(request("q", "one"), "a@1 b@1")
		standby, _ := w.start(blocking("q", "two", 60_000))
		failing.FailWhen(func(op vfs.Op) bool { return op.Kind == vfs.OpWrite && strings.Contains(op.Path, "/queues/") },
			vfs.FailShort, errors.New("ENOSPC"))
		w.push("q", "c")
		time.Sleep(100 * time.Millisecond) // the background writer's turn
		var refused *Error
		if got := <-standby; !errors.As(got.err, &refused) || refused.Code != "WALERR" {
			t.Fatalf("who waited got %v, %v", got.batch, got.err)
		}
		if _, _, err := set.Push([]byte("q"), split([]string{"refused"})); !errors.As(err, &refused) || refused.Code != "WALERR" {
			t.Fatalf("a push got %v", err)
		}
		w.push("other", "y")
		if r := <-reopened; r.Stopped <= 0 || r.Incarnation != set.find([]byte("q")).log.Incarnation() {
			t.Errorf("reported: %+v", r)
		}
		w.push("q", "d")
		if n, f, err := set.Ack([]byte("q"), first.ID, nil); err != nil || n != 2 || f.Wait() != nil {
			t.Fatalf("the batch that was open: %d, %v", n, err)
		}
		last := w.expect(request("q", "one"), "c@1 d@1")
		time.Sleep(time.Second) // the lease is not waited for
		w.powerCut()
		if _, _, err := w.set.Nack([]byte("q"), last.ID, machine.Release, 0, nil); err != nil {
			t.Fatal(err)
		}
		w.expect(request("q", "one"), "c@1 d@1")
		w.set.Close()
	})
}

// Without this whoever reads the log at night has a number, and must ask each queue for its own to know which one stopped.
func TestALogThatFailsIsNamed(t *testing.T) {
	for _, life := range []struct {
		name   string
		before func(w *world)
	}{
		{"made in this life", func(w *world) {}},
		{"known from a checkpoint", func(w *world) { w.open(); w.push("orders", "a"); w.set.Close() }},
		{"known from the journal", func(w *world) { w.open(); w.push("orders", "a"); w.lose() }},
	} {
		t.Run(life.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{t: t, fs: vfs.NewLossy(22), opts: machine.DefaultOptions()}
				life.before(w)
				failing := vfs.NewFailing(w.fs)
				failed, reopened := make(chan wal.LogName, 1), make(chan wal.LogName, 1)
				cfg := w.config(failing)
				cfg.Store.Events.LogFailed = func(name wal.LogName, _ error) { failed <- name }
				cfg.Store.Events.LogReopened = func(r wal.LogReopened) { reopened <- r.LogName }
				set, _, err := Open(cfg)
				if err != nil {
					t.Fatal(err)
				}
				w.set = set
				failing.FailWhen(func(op vfs.Op) bool { return op.Kind == vfs.OpWrite && strings.Contains(op.Path, "/queues/") },
					vfs.FailShort, errors.New("EIO"))
				if _, pushed, err := set.Push([]byte("orders"), split([]string{"b"})); err == nil { // else what the journal had left was written first, and failed
					pushed.Wait()
				}
				want := wal.LogName{Queue: "orders", Incarnation: set.find([]byte("orders")).log.Incarnation()}
				if got := <-failed; got != want {
					t.Errorf("failed: %+v, want %+v", got, want)
				}
				if got := <-reopened; got != want {
					t.Errorf("goes on: %+v, want %+v", got, want)
				}
				w.set.Close()
			})
		})
	}
}
