package queue

// Why a queue does not move, in one sentence that names the next step: what somebody reads at night.

import (
	"regexp"
	"testing"
	"time"

	"quail/queue/machine"
)

func (w *world) expectReason(queue, pattern string) {
	w.t.Helper()
	info, _, err := w.set.Info([]byte(queue))
	if err != nil {
		w.t.Fatalf("info: %v", err)
	}
	if !regexp.MustCompile("^(?:" + pattern + ")$").MatchString(info.BlockedReason) {
		w.t.Fatalf("the reason is %q, want %q", info.BlockedReason, pattern)
	}
}

func TestBlockedReasons(t *testing.T) {
	inWorld(t, 51, func(w *world) {
		name := []byte("q")
		w.create("q", "max-open-batches", "2", "retry-delay", "2000", "lease", "10000", "lock-ttl", "10000")
		w.expectReason("q", `the queue is empty; push a message`)

		w.pushWith("q", "later", PushOptions{HasDelay: true, DelayMillis: 5000})
		w.expectReason("q", `no message is ready; the next of 1 that are delayed is due in (49\d\d|5000) ms`)

		w.push("q", "a", "b", "c", "d")
		w.expectReason("q", ``)
		r := request("q", "worker")
		r.Count = 1
		first := w.expect(r, "a@1")
		w.expectReason("q", `consumer "worker" holds the lock for another (99\d\d|10000) ms, so only it gets messages; others wait in line with BLOCK, or end the tenure with QUNLOCK q \d+`)

		w.expect(r, "b@1")
		w.expectReason("q", `2 batches are open, as many as max-open-batches allows; wait for consumer "worker" to acknowledge, or (99\d\d|10000) ms until the next lease ends; QUNLOCK q \d+ gives all back at once`)

		if _, err := w.set.Pause(name, true, false, true); err != nil {
			t.Fatal(err)
		}
		w.expectReason("q", `consuming is paused; resume it with QRESUME q`)
		w.set.Pause(name, false, false, true)

		w.ack("q", first.ID)
		r.Count = 10
		w.expect(r, "c@1 d@1")
		w.ack("q", first.ID)
		w.set.Configure(name, options(t, "max-open-batches", "16"))
		w.expectReason("q", `no message is ready; the next of 1 that are delayed is due in (49\d\d|5000) ms`)
		w.set.Remove(name, []uint64{2})
		w.expectReason("q", `all 3 messages are leased by consumer "worker"; wait for it to acknowledge, or (99\d\d|10000) ms until the next lease ends; QUNLOCK q \d+ gives all back at once`)

		info, _, _ := w.set.Info(name)
		w.set.Nack(name, info.Batches[0].Batch, machine.Retry, -1, nil)
		w.set.Nack(name, info.Batches[1].Batch, machine.Retry, -1, nil)
		w.expectReason("q", `no message is ready; the next of 3 that are waiting to be retried is due in (19\d\d|2000) ms`)

		w.set.Configure(name, options(t, "max-open-batches", "1"))
		w.push("q", "e")
		w.expectReason("q", `the order is strict \(max-open-batches 1\) and a failed message is retried in (19\d\d|2000) ms; wait for it`)
		time.Sleep(30 * time.Second) // the tenure has lapsed, the messages are due
		w.expectReason("q", ``)

		w.create("idle")
		if _, err := w.set.Pause([]byte("idle"), true, true, false); err != nil {
			t.Fatal(err)
		}
		w.expectReason("idle", `the queue is empty and pushing is paused; resume it with QRESUME idle PUSH`)
	})
}
