package queue

// The edges of what clients can ask for: names, counts and moments that are only just allowed, or only just not, and changes that
// come between two steps of one command.

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"quail/queue/machine"
	"quail/wal/record"
)

// refuse sends all that one pull gets to the dead-letter queue.
func (w *world) bury(queue string) {
	w.t.Helper()
	b, err := w.pull(request(queue, "c"))
	if err != nil || b == nil {
		w.t.Fatalf("pull from %s: %v, %v", queue, b, err)
	}
	n, f, err := w.set.Nack([]byte(queue), b.ID, machine.Dead, -1, nil)
	if err != nil || n != len(b.Messages) || f.Wait() != nil {
		w.t.Fatalf("nack: %d, %v", n, err)
	}
}

// Without this a dead letter of a queue with a long name stops the process: its dead-letter queue would have a name that is no UTF-8,
// or be the queue itself.
func TestDeadLettersOfQueuesWithLongNames(t *testing.T) {
	for _, name := range []string{
		strings.Repeat("q", nameBytesMax),
		strings.Repeat("é", nameBytesMax/2),
		strings.Repeat("q", nameBytesMax-1),
		strings.Repeat("q", nameBytesMax-len(deadSuffix)),
		strings.Repeat("€", 65) + deadSuffix, // 200 bytes
	} {
		inWorld(t, 40, func(w *world) {
			w.push(name, "a")
			for range 4 { // the dead letter of the dead letter
				w.bury(name)
				before := name
				for _, n := range w.set.Names() {
					if size, _, _ := w.set.Len([]byte(n)); size == 1 {
						name = n
					}
				}
				if name == before || !utf8.ValidString(name) || len(name) > nameBytesMax || !strings.HasSuffix(name, deadSuffix) {
					w.t.Fatalf("dead letters of %q go to %q", before, name)
				}
			}
		})
	}
}

// A message that was redriven is no dead letter any more: without this QREDRIVE of its queue would send it back there.
func TestRedriveLeavesWhatWasRedriven(t *testing.T) {
	inWorld(t, 41, func(w *world) {
		w.push("q", "a", "b")
		w.bury("q")
		if n, _, err := w.set.Redrive([]byte("q.dead"), nil, 0); n != 2 || err != nil {
			w.t.Fatalf("redrive: %d, %v", n, err)
		}
		if n, _, err := w.set.Redrive([]byte("q"), nil, 0); n != 0 || err != nil {
			w.t.Fatalf("redrive of what was redriven: %d, %v", n, err)
		}
		w.expectPeek("q", "a@0:ready b@0:ready")
	})
}

// A push while QPURGE counts, or a QREM, must not be purged uncounted: the queue's numbers would be wrong for ever.
func TestPurgeCountsAgainWhenTheQueueChanged(t *testing.T) {
	inWorld(t, 42, func(w *world) {
		first := w.push("q", "a", "b", "c")
		q := w.set.find([]byte("q"))
		for _, c := range []struct {
			what   string
			before uint64
			change func()
		}{
			{"a removal", first + 3, func() { w.set.Remove([]byte("q"), []uint64{first + 1}) }},
			{"a push up to the id", first + 6, func() { w.push("q", "d", "e", "f", "g") }},
			{"a pull", first + 3, func() { w.pull(request("q", "c")) }},
		} {
			what, before, change := c.what, c.before, c.change
			counted, err := q.countReady(before)
			if err != nil {
				t.Fatal(err)
			}
			change()
			if before > q.m.LastLSN() {
				t.Fatalf("id %d is not reached", before)
			}
			if _, _, done, err := q.purge(before, counted); done || err != nil {
				t.Errorf("%s came between: purged all the same (%v)", what, err)
			}
		}
		if err := q.m.CheckInvariants(); err != nil {
			t.Error(err)
		}
	})
}

func TestPeekPagesAndFiltersByState(t *testing.T) {
	for _, memory := range []bool{true, false} {
		t.Run(fmt.Sprintf("memory=%v", memory), func(t *testing.T) {
			inWorld(t, 43, func(w *world) {
				w.create("q", "batch-count", "2")
				w.push("q", "a", "b", "c", "d", "e")
				late := w.pushWith("q", "late", PushOptions{HasDelay: true, DelayMillis: 60_000})
				w.push("q", "f")
				b := w.expect(request("q", "c"), "a@1 b@1")
				w.expect(request("q", "c"), "c@1 d@1")
				if _, f, err := w.set.Nack([]byte("q"), b.ID, machine.Retry, 60_000, nil); err != nil || f.Wait() != nil {
					t.Fatal(err)
				}
				if !memory {
					w.restart()
				}
				for _, c := range []struct {
					state machine.State
					from  uint64
					most  int
					want  string
				}{
					{machine.Gone, 0, 100, "a:retrying b:retrying c:leased d:leased e:ready late:delayed f:ready"},
					{machine.Gone, late, 100, "late:delayed f:ready"},
					{machine.Gone, 0, 3, "a:retrying b:retrying c:leased"},
					{machine.Ready, 0, 100, "e:ready f:ready"},
					{machine.Ready, 0, 1, "e:ready"},
					{machine.Delayed, 0, 100, "late:delayed"},
					{machine.Delayed, late + 1, 100, ""},
					{machine.Leased, 0, 1, "c:leased"},
					{machine.Retrying, 0, 100, "a:retrying b:retrying"},
					{machine.Gone, 1 << 50, 100, ""},
				} {
					list, _, err := peek(w.set, []byte("q"), c.state, c.from, c.most)
					var parts []string
					for _, f := range list {
						parts = append(parts, fmt.Sprintf("%s:%s", f.Body, f.State))
					}
					if got := strings.Join(parts, " "); err != nil || got != c.want {
						t.Errorf("%s from %d, %d at most: %q, %v, want %q", c.state, c.from, c.most, got, err, c.want)
					}
				}
			})
		})
	}
}

// An answer that does not end would be held in memory whole, and lost at the connection's output limit.
func TestPeekAndRedriveAreBoundedInBytes(t *testing.T) {
	inWorld(t, 44, func(w *world) {
		body := strings.Repeat("x", 1<<20)
		var first uint64
		for i := range 6 {
			if id := w.push("q.dead", body); i == 0 {
				first = id
			}
		}
		list, _, err := peek(w.set, []byte("q.dead"), machine.Gone, first, 100)
		if err != nil || len(list) == 0 || len(list) > lookBytesMax>>20 {
			w.t.Fatalf("%d messages of 1 MB in one answer, %v", len(list), err)
		}
		rest, _, err := peek(w.set, []byte("q.dead"), machine.Gone, list[len(list)-1].ID+1, 100)
		if err != nil || len(list)+len(rest) != 6 {
			w.t.Fatalf("%d and then %d messages, %v", len(list), len(rest), err)
		}
		if n, _, err := w.set.Redrive([]byte("q.dead"), []byte("q"), 0); n != 6 || err != nil {
			w.t.Fatalf("redrive: %d, %v", n, err)
		}
	})
}

func TestPushOptionsHaveLimits(t *testing.T) {
	inWorld(t, 45, func(w *world) {
		pair := func(name, value string) [2][]byte { return [2][]byte{[]byte(name), []byte(value)} }
		many := make([][2][]byte, machine.HeadersMax+1)
		for i := range many {
			many[i] = pair(fmt.Sprint(i), "")
		}
		tenYears := w.opts.Get(machine.Delay, nil) + machine.Specs[machine.Delay].Max
		for _, c := range []struct {
			what   string
			bodies int
			o      PushOptions
			code   string
		}{
			{"a deduplication id of 128 bytes", 1, PushOptions{Dedup: bytes.Repeat([]byte("d"), 128)}, ""},
			{"one of 129 bytes", 1, PushOptions{Dedup: bytes.Repeat([]byte("d"), 129)}, "ERR"},
			{"one for two bodies", 2, PushOptions{Dedup: []byte("d")}, "ERR"},
			{"1024 headers", 1, PushOptions{Headers: many[1:]}, ""},
			{"1025 headers", 1, PushOptions{Headers: many}, "ERR"},
			{"a name twice", 1, PushOptions{Headers: [][2][]byte{pair("a", "1"), pair("b", "2"), pair("a", "3")}}, "ERR"},
			{"a name of Quail's own", 1, PushOptions{Headers: [][2][]byte{pair("quail-origin-id", "1")}}, "ERR"},
			{"64 KB of headers", 1, PushOptions{Headers: [][2][]byte{pair("a", strings.Repeat("x", headersBytesMax-1))}}, ""},
			{"more", 1, PushOptions{Headers: [][2][]byte{pair("a", strings.Repeat("x", headersBytesMax))}}, "TOOBIG"},
			{"headers in each of many messages", 17, PushOptions{Headers: [][2][]byte{pair("a", strings.Repeat("x", headersBytesMax-1))}}, "TOOBIG"},
			{"in ten years", 1, PushOptions{AtMillis: time.Now().UnixMilli() + tenYears}, ""},
			{"later", 1, PushOptions{AtMillis: time.Now().UnixMilli() + tenYears + 1000}, "ERR"},
			{"microseconds", 1, PushOptions{AtMillis: time.Now().UnixMicro()}, "ERR"},
			{"in the past", 1, PushOptions{AtMillis: 1}, ""},
		} {
			before, _, _ := w.set.Len([]byte("q"))
			_, f, err := w.set.PushWith([]byte("q"), make([][]byte, c.bodies), c.o)
			if codeOf(err) != cmp.Or(c.code, "<nil>") || err == nil && f.Wait() != nil {
				t.Errorf("%s: %v, want %q", c.what, err, c.code)
			}
			if after, _, _ := w.set.Len([]byte("q")); err != nil && after != before {
				t.Errorf("%s: refused, and pushed", c.what)
			}
		}
		w.powerCut()
	})
}

// A client that sends QPUSH and QPEEK in one go must find its message: the answer waits for it, it does not leave it out.
func TestALookSeesWhatItsAnswerWaitsFor(t *testing.T) {
	inWorld(t, 46, func(w *world) {
		w.push("q", "a")
		held := w.set.Hold() // or a quick committer is done before anybody looks
		id, _, err := w.set.Push([]byte("q"), split([]string{"b"}))
		if err != nil {
			t.Fatal(err)
		}
		list, after, err := peek(w.set, []byte("q"), machine.Gone, 0, 10)
		if err != nil || len(list) != 2 || after == nil || after.Done() {
			t.Errorf("%d messages, %v", len(list), err)
		}
		held.Release()
		if m, after, err := w.set.Get([]byte("q"), id); err != nil || m == nil || after == nil {
			t.Errorf("QGET of a message just pushed: %v, %v", m, err)
		}
		if n, after, err := w.set.Remove([]byte("q"), []uint64{id}); n != 1 || err != nil || after.Wait() != nil {
			t.Errorf("removed %d, %v", n, err)
		}
		w.powerCut()
		w.expectPeek("q", "a@0:ready")
	})
}

// Without this a dead letter lay in its old queue until somebody came by there, while the consumer of the dead-letter queue waited.
func TestDeadLettersArriveWithNobodyLooking(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		inWorld(t, 47, func(w *world) {
			w.create("q", "max-attempts", "1", "lease", "1000")
			w.push("q", "a")
			w.expect(request("q", "c"), "a@1")
			if restarted {
				w.set.find([]byte("q")).newest().Wait() // the lease: nobody else waits for it
				w.powerCut()
			}
			began := time.Now()
			w.expect(blocking("q.dead", "c", 10_000), "a@1")
			if waited := time.Since(began); waited > 1100*time.Millisecond {
				t.Errorf("restarted %v: came after %v, the lease was 1 s", restarted, waited)
			}
		})
	}
}

// The timer rings for the lease as it was; without setting it anew it would never ring for the lease as it is.
func TestDeadLettersArriveAfterAnExtendedLease(t *testing.T) {
	for _, millis := range []int64{200, 1000} {
		inWorld(t, 49, func(w *world) {
			w.create("q", "max-attempts", "1", "lease", "1000")
			w.push("q", "a")
			b := w.expect(request("q", "c"), "a@1")
			time.Sleep(500 * time.Millisecond)
			if _, f, err := w.set.Extend([]byte("q"), b.ID, millis); err != nil || f.Wait() != nil {
				t.Fatal(err)
			}
			began := time.Now()
			w.expect(blocking("q.dead", "c", 10_000), "a@1")
			if waited := time.Since(began).Milliseconds(); waited < millis || waited > millis+100 {
				t.Errorf("came after %d ms, the lease was %d ms", waited, millis)
			}
		})
	}
}

// A move that cannot be made must be tried again, but not a thousand times a second, and nothing may be lost meanwhile.
func TestAMoveThatFailsIsTriedAgain(t *testing.T) {
	inWorld(t, 48, func(w *world) {
		most := 1
		w.set.cfg.QueuesMax = func() int { return most }
		w.create("q", "max-attempts", "1", "lease", "1000")
		w.push("q", "a")
		w.expect(request("q", "c"), "a@1")
		w.expect(blocking("q", "c", 5000), "null")
		if n, _, _ := w.set.Len([]byte("q")); n != 1 || w.set.Count() != 1 {
			t.Fatalf("%d messages in %d queues", n, w.set.Count())
		}
		most = 2
		w.expect(blocking("q.dead", "c", 5000), "a@1")
		w.expectPeek("q", "")
	})
}

// Somebody lowers max-queues below what is there. Without this the refusal names the limit as the number of queues, and who counts them finds another.
func TestTheRefusalOfAQueueTellsHowManyThereAre(t *testing.T) {
	inWorld(t, 52, func(w *world) {
		w.create("a")
		w.create("b")
		w.set.cfg.QueuesMax = func() int { return 1 }
		_, _, err := w.set.Push([]byte("c"), split([]string{"x"}))
		if codeOf(err) != "QFULL" || !strings.Contains(err.Error(), "there are 2 queues, max-queues is 1") {
			t.Fatalf("got %v", err)
		}
	})
}

// The committer may be quicker than the goroutine that committed: the records are durable before anybody asked to be told. Without
// this the consumer slept on beside its message, or, a moment later, the queue waited for its own lock for ever.
func TestACommitThatIsDurableAtOnceWakesTheLine(t *testing.T) {
	inWorld(t, 50, func(w *world) {
		w.create("q")
		answer, _ := w.start(blocking("q", "c", 10_000))
		synctest.Wait()
		q := w.set.find([]byte("q"))
		began := time.Now()
		q.mu.Lock()
		r := q.apply(machine.Effect{Kind: machine.KindMessage, Meta: machine.MessageMeta(nil, machine.Message{PushedMillis: q.now().WallMillis})}, []byte("a"))
		f := q.store.Commit(q.log, []record.Record{r})
		if err := f.Wait(); err != nil {
			t.Fatal(err)
		}
		q.last = f
		q.await(f)
		q.mu.Unlock()
		if p := <-answer; show(p.batch) != "a@1" || time.Since(began) > time.Second {
			t.Errorf("%q after %v, %v", show(p.batch), time.Since(began), p.err)
		}
	})
}
