package queue

// Records may be durable sooner than their command lets go of the queue's lock. Whoever waits for them must be served all the same.

import (
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
