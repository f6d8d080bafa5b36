package queue

// Delays, TTL, deduplication, dead letters, pauses and what an operator does to a queue, each across restarts too.

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quail/queue/machine"
)

func (w *world) pushWith(queue, body string, o PushOptions) uint64 {
	w.t.Helper()
	id, f, err := w.set.PushWith([]byte(queue), [][]byte{[]byte(body)}, o)
	if err == nil {
		err = f.Wait()
	}
	if err != nil {
		w.t.Fatalf("push: %v", err)
	}
	return id
}

func (w *world) create(queue string, list ...string) {
	w.t.Helper()
	if _, err := w.set.Create([]byte(queue), options(w.t, list...)); err != nil {
		w.t.Fatalf("create: %v", err)
	}
}

// options sets options, given as names and values in turn.
func options(t testing.TB, list ...string) (o machine.Options) {
	t.Helper()
	for i := 0; i < len(list); i += 2 {
		if err := o.Set(list[i], list[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func (w *world) peek(queue string) string {
	w.t.Helper()
	list, _, err := peek(w.set, []byte(queue), machine.Gone, 0, 100)
	if err != nil {
		w.t.Fatalf("peek: %v", err)
	}
	var parts []string
	for _, f := range list {
		parts = append(parts, fmt.Sprintf("%s@%d:%s", f.Body, f.Attempt, f.State))
	}
	return strings.Join(parts, " ")
}

func (w *world) expectPeek(queue, want string) {
	w.t.Helper()
	if got := w.peek(queue); got != want {
		w.t.Fatalf("queue %s holds %q, want %q", queue, got, want)
	}
}

// inWorld runs f in virtual time and closes what it leaves open.
func inWorld(t *testing.T, seed uint64, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed)
		defer w.end()
		f(w)
	})
}

func TestDelayedMessageComesWhenItIsDue(t *testing.T) {
	inWorld(t, 20, func(w *world) {
		w.pushWith("q", "late", PushOptions{HasDelay: true, DelayMillis: 1000})
		w.push("q", "now")
		now := w.expect(request("q", "c"), "now@1")
		w.expectPeek("q", "late@0:delayed now@1:leased")
		w.ack("q", now.ID) // a lease alone may go with the power, and the message come again
		w.powerCut()
		began := time.Now()
		w.expect(blocking("q", "c", 5000), "late@1")
		if waited := time.Since(began); waited > 1100*time.Millisecond {
			w.t.Fatalf("came after %v, the delay is 1 s", waited)
		}
	})
}

func TestExpiredMessagesAreNotDelivered(t *testing.T) {
	inWorld(t, 21, func(w *world) {
		w.pushWith("q", "short", PushOptions{HasTTL: true, TTLMillis: 1000})
		w.push("q", "long")
		w.pushWith("q", "delayed", PushOptions{HasTTL: true, TTLMillis: 1500, HasDelay: true, DelayMillis: 1200})
		time.Sleep(2 * time.Second)
		w.expect(request("q", "c"), "long@1")
		info, _, _ := w.set.Info([]byte("q"))
		if info.Counts.Expired != 2 || info.Counts.Total() != 1 {
			w.t.Fatalf("counts %+v", info.Counts)
		}
	})
}

// Without this a consumer loses work in hand because its TTL passes meanwhile.
func TestTTLDoesNotActWhileLeased(t *testing.T) {
	inWorld(t, 22, func(w *world) {
		w.pushWith("q", "a", PushOptions{HasTTL: true, TTLMillis: 1000})
		b := w.expect(request("q", "c"), "a@1")
		time.Sleep(5 * time.Second)
		if n := w.ack("q", b.ID); n != 1 {
			w.t.Fatalf("acknowledged %d, want 1", n)
		}
	})
}

// Without this dead-letter queues fill with messages that nobody wants any more.
func TestExpiredOnItsLastAttemptIsRemoved(t *testing.T) {
	for _, refused := range []bool{false, true} {
		t.Run(fmt.Sprintf("refused=%v", refused), func(t *testing.T) {
			inWorld(t, 29, func(w *world) {
				w.create("q", "max-attempts", "1", "lease", "2000")
				w.pushWith("q", "short", PushOptions{HasTTL: true, TTLMillis: 1000})
				w.push("q", "long")
				b := w.expect(request("q", "c"), "short@1 long@1")
				time.Sleep(1500 * time.Millisecond)
				if refused {
					if n, f, err := w.set.Nack([]byte("q"), b.ID, machine.Dead, -1, nil); n != 2 || err != nil || f.Wait() != nil {
						w.t.Fatalf("nack: %d, %v", n, err)
					}
				}
				time.Sleep(time.Second)
				w.expect(request("q", "c"), "null")
				synctest.Wait()
				w.powerCut()
				w.expectPeek("q.dead", "long@0:ready")
				if info, _, _ := w.set.Info([]byte("q")); info.Counts.Expired != 1 || info.Counts.DeadLettered != 1 || info.Counts.Total() != 0 {
					w.t.Fatalf("counts %+v", info.Counts)
				}
			})
		})
	}
}

// Without this a producer that retries after a lost reply pushes twice.
func TestDeduplicationIsExactAtTheEdgeOfTheWindow(t *testing.T) {
	inWorld(t, 23, func(w *world) {
		w.create("q", "dedup-window", "1000", "dedup-max", "2")
		d := PushOptions{Dedup: []byte("x")}
		first := w.pushWith("q", "a", d)
		time.Sleep(999 * time.Millisecond)
		w.powerCut()
		if again := w.pushWith("q", "a", d); again != first {
			w.t.Fatalf("a repeated push gave id %d, the first was %d", again, first)
		}
		w.pushWith("q", "b", PushOptions{Dedup: []byte("y")})
		if _, _, err := w.set.PushWith([]byte("q"), split([]string{"c"}), PushOptions{Dedup: []byte("z")}); codeOf(err) != "QFULL" {
			w.t.Fatalf("past dedup-max: %v", err)
		}
		time.Sleep(time.Millisecond)
		if again := w.pushWith("q", "a", d); again == first {
			w.t.Fatal("the id is remembered at the end of the window")
		}
	})
}

func TestExhaustedAttemptsGoToTheDeadLetterQueue(t *testing.T) {
	for _, memory := range []bool{true, false} {
		t.Run(fmt.Sprintf("memory=%v", memory), func(t *testing.T) {
			inWorld(t, 24, func(w *world) {
				w.create("q", "max-attempts", "2", "lease", "1000")
				w.pushWith("q", "bad", PushOptions{Headers: [][2][]byte{{[]byte("k"), []byte("v")}}})
				w.push("q", "good")
				if !memory {
					w.restart()
				}
				w.expect(blocking("q", "c", 1000), "bad@1 good@1")
				time.Sleep(1100 * time.Millisecond)
				b := w.expect(blocking("q", "c", 1000), "bad@2 good@2")
				w.ack("q", b.ID, b.Messages[1].ID)
				time.Sleep(1100 * time.Millisecond)
				w.expect(blocking("q", "c", 1000), "null")
				w.powerCut()
				dead := w.expect(blocking("q.dead", "c", 1000), "bad@1")
				if got := fmt.Sprintf("%s", dead.Messages[0].Headers); got != "[[k v] [quail-origin-queue q] [quail-origin-id 2] [quail-origin-attempts 2] [quail-origin-reason max-attempts]]" {
					w.t.Fatalf("headers %s", got)
				}
				w.expectPeek("q", "")
			})
		})
	}
}

// A message that has nowhere to go would be lost or hold up its queue: so limits and pauses of a dead-letter queue do not count for
// moves, and there is no TTL there. Its own failures go one queue further.
func TestADeadLetterQueueTakesWhatComes(t *testing.T) {
	inWorld(t, 23, func(w *world) {
		w.create("q", "max-attempts", "1", "ttl", "60000")
		w.create("q.dead", "max-messages", "1", "max-attempts", "1")
		if _, err := w.set.Pause([]byte("q.dead"), true, true, false); err != nil {
			w.t.Fatal(err)
		}
		w.push("q", "a", "b")
		w.nack("q", w.expect(request("q", "c"), "a@1 b@1").ID)
		time.Sleep(2 * time.Minute)
		w.expectPeek("q.dead", "a@0:ready b@0:ready")
		r := request("q.dead", "c")
		r.Count = 1
		w.nack("q.dead", w.expect(r, "a@1").ID)
		w.expectPeek("q.dead.dead", "a@0:ready")
	})
}

func (w *world) nack(queue string, batch uint64) {
	w.t.Helper()
	if _, f, err := w.set.Nack([]byte(queue), batch, machine.Retry, -1, nil); err != nil || f.Wait() != nil {
		w.t.Fatalf("nack: %v", err)
	}
}

// Without this whoever may redrive fills a queue past the bound that its owner set, and while it is closed.
func TestRedriveKeepsTheLimitsOfItsTarget(t *testing.T) {
	inWorld(t, 63, func(w *world) {
		w.create("q", "max-attempts", "1", "max-messages", "3", "max-bytes", "5")
		w.push("q", "a", "b", "c")
		w.nack("q", w.expect(request("q", "c"), "a@1 b@1 c@1").ID)
		w.push("q", "d", "ef")
		redrive := func(code string) {
			w.t.Helper()
			_, f, err := w.set.Redrive([]byte("q.dead"), nil, 0)
			if codeOf(err) != code || f != nil && f.Wait() != nil {
				w.t.Fatalf("redrive: %v", err)
			}
		}
		pause := func(pause bool) {
			w.t.Helper()
			if _, err := w.set.Pause([]byte("q"), pause, true, false); err != nil {
				w.t.Fatal(err)
			}
		}
		pause(true)
		redrive("PAUSED")
		w.expectPeek("q", "d@0:ready ef@0:ready")
		pause(false)
		redrive("QFULL")
		w.powerCut()
		w.expectPeek("q", "d@0:ready ef@0:ready a@0:ready")
		w.expectPeek("q.dead", "b@0:ready c@0:ready")
		w.ack("q", w.expect(request("q", "c"), "d@1 ef@1 a@1").ID)
		w.push("q", "ghij")
		redrive("QFULL")
		w.expectPeek("q", "ghij@0:ready b@0:ready")
		w.ack("q", w.expect(request("q", "c"), "ghij@1 b@1").ID)
		redrive("<nil>")
		w.expectPeek("q", "c@0:ready")
		w.expectPeek("q.dead", "")
	})
}

func TestRefusedMessagesAndRedrive(t *testing.T) {
	inWorld(t, 25, func(w *world) {
		w.push("q", "a", "b", "c")
		b := w.expect(request("q", "c"), "a@1 b@1 c@1")
		n, f, err := w.set.Nack([]byte("q"), b.ID, machine.Dead, -1, []uint64{b.Messages[0].ID, b.Messages[2].ID})
		if n != 2 || err != nil || f.Wait() != nil {
			w.t.Fatalf("nack: %d, %v", n, err)
		}
		w.restart()
		w.expectPeek("q.dead", "a@0:ready c@0:ready")
		if n, _, err := w.set.Redrive([]byte("q.dead"), nil, 1); n != 1 || err != nil {
			w.t.Fatalf("redrive: %d, %v", n, err)
		}
		if n, f, err := w.set.Redrive([]byte("q.dead"), []byte("other"), 0); n != 1 || err != nil || f.Wait() != nil {
			w.t.Fatalf("redrive: %d, %v", n, err)
		}
		w.powerCut()
		w.expectPeek("q.dead", "")
		w.expectPeek("other", "c@0:ready")
		w.expect(request("q", "c"), "a@1")
	})
}

func TestPausesSurviveARestart(t *testing.T) {
	inWorld(t, 26, func(w *world) {
		w.push("q", "a")
		if _, err := w.set.Pause([]byte("q"), true, true, true); err != nil {
			w.t.Fatal(err)
		}
		w.restart()
		if _, _, err := w.set.Push([]byte("q"), split([]string{"b"})); codeOf(err) != "PAUSED" {
			w.t.Fatalf("push: %v", err)
		}
		if _, err := w.pull(request("q", "c")); codeOf(err) != "PAUSED" || !strings.Contains(err.Error(), "QRESUME q") {
			w.t.Fatalf("pull: %v", err) // the next step, ready to be typed
		}
		waiting, _ := w.start(blocking("q", "c", 10_000))
		synctest.Wait()
		if info, _, _ := w.set.Info([]byte("q")); !strings.Contains(info.BlockedReason, "QRESUME") {
			w.t.Fatalf("blocked-reason %q", info.BlockedReason)
		}
		if _, err := w.set.Pause([]byte("q"), false, false, true); err != nil {
			w.t.Fatal(err)
		}
		if p := <-waiting; show(p.batch) != "a@1" {
			w.t.Fatalf("after QRESUME CONSUME: %q, %v", show(p.batch), p.err)
		}
	})
}

func TestRemoveGetAndPurge(t *testing.T) {
	for _, memory := range []bool{true, false} {
		t.Run(fmt.Sprintf("memory=%v", memory), func(t *testing.T) {
			inWorld(t, 27, func(w *world) {
				first := w.push("q", "a", "b", "c", "d", "e")
				w.pushWith("q", "late", PushOptions{HasDelay: true, DelayMillis: 1000})
				if !memory {
					w.restart()
				}
				r := request("q", "c")
				r.Count = 1
				w.expect(r, "a@1")
				n, f, err := w.set.Remove([]byte("q"), []uint64{first, first + 1, first + 3, first + 3, first + 5, 999, 1})
				if n != 3 || err != nil || f.Wait() != nil {
					w.t.Fatalf("removed %d, %v; a leased message stays, and what is no message counts nothing", n, err)
				}
				if m, _, err := w.set.Get([]byte("q"), first+2); err != nil || m == nil || string(m.Body) != "c" {
					w.t.Fatalf("get: %v, %v", m, err)
				}
				if m, _, err := w.set.Get([]byte("q"), first+1); err != nil || m != nil {
					w.t.Fatalf("get of a removed message: %v, %v", m, err)
				}
				w.powerCut()
				w.expectPeek("q", "a@1:leased c@0:ready e@0:ready")
				if n, _, err := w.set.Purge([]byte("q"), first+3); n != 1 || err != nil {
					w.t.Fatalf("purged %d, %v", n, err)
				}
				w.expectPeek("q", "a@1:leased e@0:ready")
				if n, f, err := w.set.Purge([]byte("q"), 0); n != 1 || err != nil || f.Wait() != nil {
					w.t.Fatalf("purged %d, %v", n, err)
				}
				w.powerCut()
				w.expectPeek("q", "a@1:leased")
			})
		})
	}
}

func TestConfigureHoldsFromTheNextDecisionOn(t *testing.T) {
	inWorld(t, 28, func(w *world) {
		w.push("q", "a", "b")
		w.create("q2", "lease", "7000", "dead-letter-queue", "lost")
		for _, queue := range []string{"q", "q2"} {
			if f, err := w.set.Configure([]byte(queue), options(t, "batch-count", "1")); err != nil || f.Wait() != nil {
				w.t.Fatal(err)
			}
		}
		w.powerCut()
		w.expect(request("q", "c"), "a@1")
		list, _, err := w.set.Options([]byte("q2"))
		if text := fmt.Sprint(list); err != nil || !strings.Contains(text, "[batch-count 1]") || !strings.Contains(text, "[lease 7000]") ||
			!strings.Contains(text, "[dead-letter-queue lost]") || !strings.Contains(text, "[lock-ttl 30000]") {
			w.t.Fatalf("options %v, %v", list, err)
		}
		if _, err := w.set.Configure([]byte("q"), options(t, "batch-count", "2", "dead-letter-queue", "q")); codeOf(err) != "ERR" {
			w.t.Fatalf("a queue that is its own dead-letter queue: %v", err)
		}
		w.expect(request("q", "c"), "b@1")
	})
}

// Without this a queue that nobody consumes fills its limit and its disk with messages that nobody may get any more.
func TestExpiredMessagesGoWithoutAPull(t *testing.T) {
	inWorld(t, 31, func(w *world) {
		w.create("q", "max-messages", "3")
		w.pushWith("q", "a", PushOptions{HasTTL: true, TTLMillis: 1000})
		w.push("q", "stays")
		w.pushWith("q", "b", PushOptions{HasTTL: true, TTLMillis: 60_000, HasDelay: true, DelayMillis: 50_000})
		time.Sleep(2500 * time.Millisecond)
		w.expectPeek("q", "stays@0:ready b@0:delayed")
		w.push("q", "room again")
		w.restart()
		time.Sleep(60 * time.Second)
		w.expectPeek("q", "stays@0:ready room again@0:ready")
		if info, _, _ := w.set.Info([]byte("q")); info.Counts.Expired != 2 {
			w.t.Fatalf("counts %+v", info.Counts)
		}
	})
}

// Without this the log of a queue with a TTL and no consumer is never cut: something is always ready behind what expired.
func TestExpiredFrontMovesTheCursor(t *testing.T) {
	inWorld(t, 32, func(w *world) {
		w.create("q", "ttl", "5000")
		for range 30 {
			w.push("q", "x", "y")
			time.Sleep(time.Second)
		}
		info, _, _ := w.set.Info([]byte("q"))
		if info.Counts.Total() > 14 || info.Cursor < info.NextID-20 {
			w.t.Fatalf("%d messages, cursor %d of %d", info.Counts.Total(), info.Cursor, info.NextID)
		}
		w.powerCut()
		time.Sleep(10 * time.Second)
		w.expectPeek("q", "")
	})
}

// Without this whoever watches the dead-letter queue hears of a poison message only when somebody touches the queue it came from.
func TestDeadLettersComeWithoutACommand(t *testing.T) {
	inWorld(t, 33, func(w *world) {
		w.create("q", "max-attempts", "1", "lease", "1000")
		w.push("q", "bad")
		w.expect(request("q", "c"), "bad@1")
		w.restart()
		w.expect(blocking("q.dead", "watch", 5000), "bad@1")
	})
}

// Without this a queue stands still for ever, or burns a core, while its dead-letter queue cannot be made.
func TestDeadLetterQueueThatCannotBeMade(t *testing.T) {
	inWorld(t, 34, func(w *world) {
		w.create("q", "max-attempts", "1", "lease", "1000")
		w.push("q", "bad")
		w.queuesMax = 1
		w.expect(request("q", "c"), "bad@1")
		began := time.Now()
		w.expect(blocking("q", "c", 10_000), "null")
		info, _, _ := w.set.Info([]byte("q"))
		if !strings.Contains(info.BlockedReason, "q.dead") || !strings.Contains(info.BlockedReason, "max-queues") {
			w.t.Fatalf("after %v the reason is %q", time.Since(began), info.BlockedReason)
		}
		w.queuesMax = 1000
		w.expect(blocking("q.dead", "watch", 5000), "bad@1")
		w.expectPeek("q", "")
	})
}

// Without this every restart of the server changes the active consumer of queues in which nothing happens.
func TestIdleHolderKeepsItsTenureOverARestart(t *testing.T) {
	inWorld(t, 35, func(w *world) {
		w.create("q", "lock-ttl", "1000")
		for range 4 { // longer than the TTL, and no record of it
			w.expect(blocking("q", "holder", 800), "null")
		}
		w.restart()
		if _, err := w.pull(request("q", "other")); err == nil || !strings.Contains(err.Error(), "LOCKED") {
			w.t.Fatalf("another consumer got the lock at once: %v", err)
		}
		w.expect(request("q", "holder"), "null")
		w.expect(blocking("q", "other", 2000), "null")
		w.push("q", "a")
		w.expect(request("q", "other"), "a@1")
	})
}

// peek is Set.Peek with messages that stay.
func peek(set *Set, name []byte, state machine.State, from uint64, most int) (found []Found, after *Future, err error) {
	after, err = set.Peek(name, state, from, most, func(list []Found) {
		for _, f := range list {
			f.Body = bytes.Clone(f.Body)
			f.Headers = slices.Clone(f.Headers)
			for i, h := range f.Headers {
				f.Headers[i] = [2][]byte{bytes.Clone(h[0]), bytes.Clone(h[1])}
			}
			found = append(found, f)
		}
	})
	return found, after, err
}

// Without this a look shows what another look has read: the memory of one is lent to the next.
func TestLooksAtTheSameTimeShowTheirOwn(t *testing.T) {
	const queues, looks, messages = 4, 100, 20
	cfg := startConfig(t.TempDir(), 64<<20)
	cfg.Store.NoSync = true
	set, _, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	names, bodies := make([][]byte, queues), make([][][]byte, queues)
	for i := range queues {
		names[i] = fmt.Append(nil, "q", i)
		for k := range messages {
			bodies[i] = append(bodies[i], bytes.Repeat([]byte{byte('a' + i), byte('0' + k)}, 1+k*500))
		}
		_, f, err := set.Push(names[i], bodies[i])
		if err == nil {
			err = f.Wait()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Close(); err != nil { // so that all is read from the logs
		t.Fatal(err)
	}
	if set, _, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	var group sync.WaitGroup
	for i := range queues {
		if i%2 == 0 { // of these some are leased, which are read by their ids
			leased := make(chan struct{})
			set.Consume(ConsumeRequest{Queue: names[i], Consumer: []byte("c"), Count: 7, Bytes: -1, FillMillis: -1, LeaseMillis: -1}, func(*Batch, *Future, error) { close(leased) })
			<-leased
		}
		group.Go(func() {
			for n := range looks {
				first := n % messages
				_, err := set.Peek(names[i], machine.Gone, uint64(1+first), messages, func(list []Found) {
					if len(list) == 0 {
						t.Error("nothing was found")
					}
					runtime.Gosched() // to whoever would be lent the same
					for _, f := range list {
						if !slices.ContainsFunc(bodies[i], func(b []byte) bool { return bytes.Equal(b, f.Body) }) {
							t.Errorf("message %d of queue %d has the wrong body", f.ID, i)
						}
					}
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}
