package queue

// Answers that came too early, not at all, or wrong: each was found by random work, and is pinned down here.

import (
	"fmt"
	"testing"
	"testing/synctest"

	"quail/queue/machine"
	"quail/wal/record"
)

// Without this a blocked consumer sleeps on over the message that it waits for, or the queue stands still for ever: being told
// that records are durable takes the queue's lock, so it must not happen in the call that waits for them with the lock held.
func TestRecordsThatAreDurableAtOnceAreServed(t *testing.T) {
	inWorld(t, 40, func(w *world) {
		waiting, _ := w.start(blocking("q", "c", 60_000))
		synctest.Wait()
		q := w.set.find([]byte("q"))
		q.mu.Lock()
		e := machine.Effect{Kind: machine.KindMessage, Meta: machine.MessageMeta(nil, machine.Message{PushedMillis: q.now().WallMillis})}
		f := q.store.Commit(q.log, []record.Record{q.apply(e, []byte("a"))})
		for !f.Done() {
			synctest.Wait() // the disk is quicker than this command
		}
		q.await(f)
		q.mu.Unlock()
		synctest.Wait()
		select {
		case p := <-waiting:
			if got := show(p.batch); got != "a@1" {
				t.Fatalf("pulled %q, %v", got, p.err)
			}
		default:
			t.Fatal("the message is durable and the consumer that waits for it was not served")
		}
	})
}

// Without this an operator is told that nothing is left to redrive, the power goes, and what somebody else redrove just before is
// among the dead letters again.
func TestRedriveOfNothingWaitsForWhatItSaw(t *testing.T) {
	inWorld(t, 41, func(w *world) {
		w.push("q", "a")
		b := w.expect(request("q", "c"), "a@1")
		if n, f, err := w.set.Nack([]byte("q"), b.ID, machine.Dead, -1, nil); n != 1 || err != nil || f.Wait() != nil {
			t.Fatalf("nack: %d, %v", n, err)
		}
		n, first, err := w.set.Redrive([]byte("q.dead"), nil, 0)
		if n != 1 || err != nil {
			t.Fatalf("redrive: %d, %v", n, err)
		}
		n, second, err := w.set.Redrive([]byte("q.dead"), nil, 0)
		if n != 0 || err != nil || second != first {
			t.Fatalf("a second redrive: %d, %v; it waits for the first: %v", n, err, second == first)
		}
	})
}

// Without this a consumer believes that the queue is empty, when it lost the lock while its pull waited for the disk.
func TestPullThatLosesTheLockWhileItReadsSaysSo(t *testing.T) {
	inWorld(t, 42, func(w *world) {
		w.push("q", "a")
		w.restart()
		w.set.Lock(LockRequest{Queue: []byte("q"), Consumer: []byte("c")}, func(uint64, *Future, error) {})
		info, _, err := w.set.Info([]byte("q"))
		if err != nil {
			t.Fatal(err)
		}
		q := w.set.find([]byte("q"))
		q.mu.Lock()
		q.fetching = true // the disk is slow
		q.mu.Unlock()
		standby, _ := w.start(blocking("q", "d", 1000))
		slow, _ := w.start(request("q", "c"))
		if released, _, err := w.set.Unlock([]byte("q"), info.Token); !released || err != nil {
			t.Fatalf("unlock: %v, %v", released, err)
		}
		q.mu.Lock()
		q.fetching = false
		q.mu.Unlock()
		q.serve()
		if p := <-slow; codeOf(p.err) != "LOCKED" {
			t.Errorf("the pull of the consumer that lost the lock: %q, %v", show(p.batch), p.err)
		}
		if p := <-standby; show(p.batch) != "a@1" {
			t.Errorf("the standby's pull: %q, %v", show(p.batch), p.err)
		}
	})
}

// Without this an old consumer acknowledges, after a restart, a batch of somebody else that has the number of its own.
func TestBatchesAndTokensAreNeverNumberedTwice(t *testing.T) {
	inWorld(t, 43, func(w *world) {
		last := uint64(0)
		newer := func(what string, id uint64) {
			if id <= last {
				t.Fatalf("%s %d was given out after %d", what, id, last)
			}
			last = id
		}
		for life := range 6 {
			name := fmt.Sprint("q", life) // each in a queue of its own, which knows of no other's numbers
			w.push(name, "a")
			b := w.expect(request(name, "c"), "a@1")
			info, _, err := w.set.Info([]byte(name))
			if err != nil {
				t.Fatal(err)
			}
			newer("token", info.Token)
			newer("batch", b.ID)
			if life%2 == 0 {
				w.powerCut()
			} else {
				w.restart()
			}
		}
	})
}
