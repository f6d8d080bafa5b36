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
