package queue

// Scenarios on a set of queues over a file system in memory: what a consumer gets, and what is still there after a power cut.

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

// world is one data directory and the set that has it open.
type world struct {
	t    *testing.T
	fs   *vfs.Lossy
	set  *Set
	opts *machine.Options
	// queuesMax bounds the queues of the set; 0 is 1,000.
	queuesMax int
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, fs: vfs.NewLossy(seed), opts: machine.DefaultOptions()}
	w.open()
	return w
}

func (w *world) config(fs vfs.FS) Config {
	return Config{
		Store: wal.Config{FS: fs, Dir: "/data", JournalFileBytes: 64 << 10, JournalBytes: 1 << 20, CheckpointBytes: 256 << 10,
			WriteBehindBytes: 1 << 20, SegmentBytes: 16 << 10, OpenLogs: 8, OpenLog: seglog.OpenSim},
		Defaults:     func() *machine.Options { return w.opts },
		QueuesMax:    func() int { return cmp.Or(w.queuesMax, 1000) },
		AutoCreate:   func() bool { return true },
		PushBytesMax: func() int64 { return 1 << 20 },
	}
}

func (w *world) open() {
	w.t.Helper()
	set, _, err := Open(w.config(w.fs))
	if err != nil {
		w.t.Fatalf("open: %v", err)
	}
	w.set = set
}

// end closes the set that is open at the end of a test, also of one that failed: else nobody could read the failure for the
// goroutines that are left. It is deferred. After a panic a queue may be locked for ever, and closing would wait for it.
func (w *world) end() {
	if p := recover(); p != nil {
		panic(p)
	}
	w.set.Close()
}

// restart closes and opens again.
func (w *world) restart() {
	w.t.Helper()
	if err := w.set.Close(); err != nil {
		w.t.Fatalf("close: %v", err)
	}
	w.open()
}

// powerCut loses what was not synced and opens what is left.
func (w *world) powerCut() {
	w.t.Helper()
	w.lose()
	w.open()
}

// lose switches the power off: the set is dead, and of its files there is what was synced, and dice for the rest.
func (w *world) lose() {
	crashed := w.fs.Crash()
	w.die()
	w.fs = crashed
}

// die ends the process, but not the page cache.
func (w *world) die() {
	w.set.mu.Lock()
	w.set.closing = true // a dead process reopens nothing
	close(w.set.closed)
	w.set.mu.Unlock()
	w.set.WakeAll()
	w.set.background.Wait()
	w.set.store.Abandon()
}

func (w *world) push(queue string, bodies ...string) uint64 {
	w.t.Helper()
	id, f, err := w.set.Push([]byte(queue), split(bodies))
	if err == nil {
		err = f.Wait()
	}
	if err != nil {
		w.t.Fatalf("push: %v", err)
	}
	return id
}

func split(bodies []string) [][]byte {
	out := make([][]byte, len(bodies))
	for i := range bodies {
		out[i] = []byte(bodies[i])
	}
	return out
}

// pulled is the answer of one pull.
type pulled struct {
	batch *Batch
	err   error
}

func (w *world) start(r ConsumeRequest) (chan pulled, func()) {
	answer := make(chan pulled, 1)
	cancel := w.set.Consume(r, func(b *Batch, after *Future, err error) {
		w.checkDurable(r.Queue, b)
		go func() {
			if e := after.Wait(); e != nil && err == nil {
				err = e
			}
			answer <- pulled{b, err}
		}()
	})
	return answer, cancel
}

// checkDurable: a message that is delivered and then lost would have been consumed without ever being pushed.
func (w *world) checkDurable(queue []byte, b *Batch) {
	if b == nil {
		return
	}
	durable := w.set.find(queue).log.Durable()
	for _, m := range b.Messages {
		if m.ID > durable {
			w.t.Errorf("message %d is delivered, and only %d is durable", m.ID, durable)
		}
	}
}

func request(queue, consumer string) ConsumeRequest {
	return ConsumeRequest{Queue: []byte(queue), Consumer: []byte(consumer), Count: -1, Bytes: -1, FillMillis: -1, LeaseMillis: -1}
}

func blocking(queue, consumer string, millis int64) ConsumeRequest {
	r := request(queue, consumer)
	r.Block, r.BlockMillis = true, millis
	return r
}

func (w *world) pull(r ConsumeRequest) (*Batch, error) {
	answer, _ := w.start(r)
	p := <-answer
	return p.batch, p.err
}

// show writes a batch as "id:body@attempt …", and no batch as "null".
func show(b *Batch) string {
	if b == nil {
		return "null"
	}
	var parts []string
	for _, m := range b.Messages {
		parts = append(parts, fmt.Sprintf("%s@%d", m.Body, m.Attempt))
	}
	return strings.Join(parts, " ")
}

func (w *world) expect(r ConsumeRequest, want string) *Batch {
	w.t.Helper()
	b, err := w.pull(r)
	if err != nil {
		w.t.Fatalf("pull: %v", err)
	}
	if got := show(b); got != want {
		w.t.Fatalf("pulled %q, want %q", got, want)
	}
	return b
}

func (w *world) ack(queue string, batch uint64, ids ...uint64) int {
	w.t.Helper()
	n, f, err := w.set.Ack([]byte(queue), batch, ids)
	if err == nil {
		err = f.Wait()
	}
	if err != nil {
		w.t.Fatalf("ack: %v", err)
	}
	return n
}

func codeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func TestPushConsumeAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.push("orders", "a", "b", "c")
		r := request("orders", "worker")
		r.Count = 2
		first := w.expect(r, "a@1 b@1")
		second := w.expect(r, "c@1")
		w.expect(r, "null")
		if n := w.ack("orders", first.ID); n != 2 {
			t.Fatalf("acknowledged %d, want 2", n)
		}
		if n := w.ack("orders", first.ID); n != 0 {
			t.Fatalf("a second ack of a resolved batch counts %d, want 0", n)
		}
		if n := w.ack("orders", second.ID, second.Messages[0].ID); n != 1 {
			t.Fatalf("acknowledged %d, want 1", n)
		}
		if n, _, _ := w.set.Len([]byte("orders")); n != 0 {
			t.Fatalf("%d messages are left", n)
		}
		w.set.Close()
	})
}

// Without this a backlog that lies on disk only is lost or reordered after a restart.
func TestBacklogSurvivesRestartsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		const messages = 5000
		for i := 0; i < messages; i += 100 {
			bodies := make([]string, 100)
			for k := range bodies {
				bodies[k] = fmt.Sprintf("%06d %s", i+k, strings.Repeat("x", (i+k)%200))
			}
			w.push("q", bodies...)
		}
		w.restart()
		seen := 0
		for seen < messages {
			r := request("q", "c")
			r.Count = 37
			b, err := w.pull(r)
			if err != nil || b == nil {
				t.Fatalf("after %d messages: %v, %v", seen, b, err)
			}
			for _, m := range b.Messages {
				if want := fmt.Sprintf("%06d", seen); !strings.HasPrefix(string(m.Body), want) {
					t.Fatalf("message %q came where %s belongs", m.Body[:6], want)
				}
				seen++
			}
			w.ack("q", b.ID)
			if seen%1000 < 37 {
				w.powerCut()
			}
		}
		w.expect(request("q", "c"), "null")
		w.set.Close()
	})
}

// Without this a message is lost if the consumer that has it dies, or is delivered out of its old place.
func TestExpiredBatchComesBackFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.push("q", "a", "b", "c", "d")
		r := request("q", "one")
		r.Count, r.LeaseMillis = 3, 1000
		b := w.expect(r, "a@1 b@1 c@1")
		if w.ack("q", b.ID, b.Messages[1].ID) != 1 {
			t.Fatal("b was not acknowledged")
		}
		time.Sleep(1001 * time.Millisecond)
		if _, _, err := w.set.Ack([]byte("q"), b.ID, nil); codeOf(err) != "NOBATCH" {
			t.Fatalf("ack of an expired batch: %v", err)
		}
		r.Count = 10
		w.expect(r, "a@2 c@2 d@1")
		w.set.Close()
	})
}

// Without this two consumers work on one queue at the same time.
func TestStandbyTakesOverWhenTheLockLapses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		w.push("q", "a")
		w.expect(request("q", "one"), "a@1")
		if _, err := w.pull(request("q", "two")); codeOf(err) != "LOCKED" {
			t.Fatalf("second consumer: %v", err)
		}
		began := time.Now()
		w.expect(blocking("q", "two", 60_000), "a@2")
		if waited := time.Since(began); waited < 29*time.Second || waited > 31*time.Second {
			t.Fatalf("took over after %v, the lock and the lease last 30 s", waited)
		}
		w.set.Close()
	})
}

func TestBlockedPullGetsWhatIsPushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		answer, _ := w.start(blocking("q", "c", 0))
		synctest.Wait()
		w.push("q", "a")
		if p := <-answer; show(p.batch) != "a@1" {
			t.Fatalf("got %q, %v", show(p.batch), p.err)
		}
		w.expect(blocking("q", "c", 50), "null")
		w.set.Close()
	})
}

// Without this a message that a vanished client would have got waits for nobody, or the lock stays with the dead.
func TestCanceledPullLeavesTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		_, cancel := w.start(blocking("q", "gone", 0))
		synctest.Wait()
		live, _ := w.start(blocking("q", "live", 0))
		synctest.Wait()
		time.Sleep(31 * time.Second) // the lock of a waiting holder does not lapse
		cancel()
		synctest.Wait()
		w.push("q", "a")
		if p := <-live; show(p.batch) != "a@1" {
			t.Fatalf("got %q, %v", show(p.batch), p.err)
		}
		w.set.Close()
	})
}

func TestUnlockHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 7)
		w.push("q", "a", "b")
		b := w.expect(request("q", "one"), "a@1 b@1")
		next, _ := w.start(blocking("q", "two", 0))
		synctest.Wait()
		info, _, err := w.set.Info([]byte("q"))
		if err != nil || info.Holder != "one" || info.Waiting != 1 {
			t.Fatalf("info %+v, %v", info, err)
		}
		if ok, _, err := w.set.Unlock([]byte("q"), info.Token); !ok || err != nil {
			t.Fatalf("unlock: %v, %v", ok, err)
		}
		if p := <-next; show(p.batch) != "a@1 b@1" {
			t.Fatalf("got %q, %v: released messages do not count as failed", show(p.batch), p.err)
		}
		if _, _, err := w.set.Ack([]byte("q"), b.ID, nil); codeOf(err) != "NOBATCH" {
			t.Fatalf("ack of a superseded batch: %v", err)
		}
		r := request("q", "two")
		r.HasToken, r.Token = true, info.Token
		if _, err := w.pull(r); codeOf(err) != "WRONGTOKEN" {
			t.Fatalf("pull with an old token: %v", err)
		}
		w.set.Close()
	})
}

// Without this a lease counts the time that the server was down, and a message is delivered twice for nothing.
func TestLeasesAndLocksSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 8)
		w.push("q", "a")
		b := w.expect(request("q", "one"), "a@1")
		w.set.store.Checkpoint()
		if err := w.set.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		w.open()
		if _, err := w.pull(request("q", "two")); codeOf(err) != "LOCKED" {
			t.Fatalf("after the restart: %v", err)
		}
		if w.ack("q", b.ID) != 1 {
			t.Fatal("the batch did not survive the restart")
		}
		w.set.Close()
	})
}

func TestDeleteAnswersThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 9)
		w.push("q", "a")
		b := w.expect(request("q", "c"), "a@1")
		answer, _ := w.start(blocking("q", "other", 0))
		synctest.Wait()
		if existed, f, err := w.set.Delete([]byte("q")); !existed || err != nil || f.Wait() != nil {
			t.Fatalf("delete: %v, %v", existed, err)
		}
		if p := <-answer; codeOf(p.err) != "NOQUEUE" {
			t.Fatalf("waiter got %v", p.err)
		}
		if _, _, err := w.set.Ack([]byte("q"), b.ID, nil); codeOf(err) != "NOQUEUE" {
			t.Fatalf("late ack: %v", err)
		}
		w.push("q", "new")
		if _, _, err := w.set.Ack([]byte("q"), b.ID, nil); codeOf(err) != "NOBATCH" {
			t.Fatalf("late ack after it was made again: %v", err)
		}
		w.powerCut()
		w.expect(request("q", "c"), "new@1")
		w.set.Close()
	})
}

func TestFillHoldsABatchOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		r := blocking("q", "c", 10_000)
		r.Count, r.FillMillis = 3, 500
		answer, _ := w.start(r)
		synctest.Wait()
		w.push("q", "a")
		time.Sleep(200 * time.Millisecond)
		w.push("q", "b")
		began := time.Now()
		if p := <-answer; show(p.batch) != "a@1 b@1" {
			t.Fatalf("got %q", show(p.batch))
		}
		if waited := time.Since(began); waited < 250*time.Millisecond || waited > 350*time.Millisecond {
			t.Fatalf("the batch went %v after b; 500 ms after a were asked for", waited)
		}
		w.push("q", "c", "d", "e")
		w.expect(r, "c@1 d@1 e@1") // a full batch goes at once
		w.set.Close()
	})
}

// Wall time never goes back in a queue, so after the clock was set back it stands still. Without this a batch is held open for as
// long as that lasts, an hour for an hour.
func TestFillEndsThoughTheClockWasSetBack(t *testing.T) {
	inWorld(t, 11, func(w *world) {
		w.push("q", "a")
		q := w.set.find([]byte("q"))
		q.mu.Lock()
		q.lastWall += time.Hour.Milliseconds() // what it read before it was set back
		q.mu.Unlock()
		w.ack("q", w.expect(request("q", "c"), "a@1").ID)
		w.push("q", "b")
		r := blocking("q", "c", 10_000)
		r.FillMillis = 500
		began := time.Now()
		w.expect(r, "b@1")
		if waited := time.Since(began); waited < 450*time.Millisecond || waited > 600*time.Millisecond {
			w.t.Errorf("the batch went after %v; 500 ms were asked for", waited)
		}
	})
}

// Without this a failed journal leaves changes in memory that were refused, and a later reply rests on them.
func TestJournalFailureDiscardsWhatWasNotDurable(t *testing.T) {
	for how, name := range map[vfs.Failure]string{vfs.FailBefore: "before", vfs.FailAfter: "after"} {
		t.Run(name, func(t *testing.T) { testJournalFailure(t, how) })
	}
}

func testJournalFailure(t *testing.T, how vfs.Failure) {
	w := &world{t: t, fs: vfs.NewLossy(11), opts: machine.DefaultOptions()}
	failing := vfs.NewFailing(w.fs)
	reopened := make(chan Report, 1)
	cfg := w.config(failing)
	cfg.StoreReopened = func(r Report) { reopened <- r }
	set, _, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.set = set
	w.push("q", "safe")
	failing.FailWhen(func(op vfs.Op) bool { return op.Kind == vfs.OpDatasync }, how, errors.New("EIO"))
	_, f, err := set.Push([]byte("q"), [][]byte{[]byte("lost")})
	if err == nil {
		err = f.Wait()
	}
	if err == nil {
		t.Fatal("the push succeeded though its sync failed")
	}
	<-reopened
	w.push("q", "later")
	w.expect(request("q", "c"), "safe@1 later@1")
	set.Close()
}

// Without this a due message that cannot be delivered yet makes the queue's timer spin, and a blocked consumer costs a core.
func TestDueMessageBehindOpenBatchesDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		var o machine.Options
		o.SetValue(machine.MaxOpenBatches, 2)
		if _, err := w.set.Create([]byte("q"), o); err != nil {
			t.Fatal(err)
		}
		w.push("q", "a", "b", "c")
		r := request("q", "one")
		r.Count = 1
		first := w.expect(r, "a@1")
		if _, _, err := w.set.Nack([]byte("q"), first.ID, machine.Retry, 100, nil); err != nil {
			t.Fatal(err)
		}
		w.expect(r, "b@1")
		third := w.expect(r, "c@1")
		answer, _ := w.start(blocking("q", "one", 20_000))
		time.Sleep(5 * time.Second)
		q := w.set.find([]byte("q"))
		q.mu.Lock()
		ahead := q.timerAt - q.store.NowMillis()
		q.mu.Unlock()
		if ahead < 1000 {
			t.Fatalf("the timer rings in %d ms though nothing can change by then", ahead)
		}
		w.ack("q", third.ID)
		if p := <-answer; show(p.batch) != "a@2" {
			t.Fatalf("got %q, %v", show(p.batch), p.err)
		}
		w.set.Close()
	})
}

// Without this a retrying message lets a later one overtake it in a queue with strict order.
func TestStrictOrderWaitsForTheRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 13)
		var o machine.Options
		o.SetValue(machine.MaxOpenBatches, 1)
		o.SetValue(machine.RetryDelay, 1000)
		if _, err := w.set.Create([]byte("q"), o); err != nil {
			t.Fatal(err)
		}
		w.push("q", "a", "b")
		r := blocking("q", "one", 20_000)
		r.Count = 1
		first := w.expect(r, "a@1")
		if _, _, err := w.set.Nack([]byte("q"), first.ID, machine.Retry, -1, nil); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		second := w.expect(r, "a@2")
		if waited := time.Since(began); waited != time.Second {
			t.Fatalf("came back after %v, retry-delay is 1 s", waited)
		}
		w.ack("q", second.ID)
		w.expect(r, "b@1")
		w.set.Close()
	})
}

// Without this a consumer that waits for its own expired batch waits until somebody else touches the queue.
func TestWaitingHolderGetsItsExpiredBatchBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 14)
		w.push("q", "a")
		r := request("q", "me")
		r.LeaseMillis = 60_000 // longer than the lock's TTL
		w.expect(r, "a@1")
		began := time.Now()
		w.expect(blocking("q", "me", 0), "a@2")
		if waited := time.Since(began); waited != time.Minute {
			t.Fatalf("came back after %v, the lease is one minute", waited)
		}
		w.set.Close()
	})
}

// Without this listing queues while a failed store is reopened kills the process, or says that no queue is there.
func TestQueuesAreThereWhileTheStoreIsReopened(t *testing.T) {
	w := &world{t: t, fs: vfs.NewLossy(15), opts: machine.DefaultOptions()}
	failing := vfs.NewFailing(w.fs)
	reopened := make(chan Report, 1)
	cfg := w.config(failing)
	cfg.StoreReopened = func(r Report) { reopened <- r }
	set, _, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.set = set
	for i := range 50 {
		w.push(fmt.Sprint("q", i), "a")
	}
	failing.FailWhen(func(op vfs.Op) bool { return op.Kind == vfs.OpDatasync }, vfs.FailBefore, errors.New("EIO"))
	set.Push([]byte("new"), split([]string{"b"}))
	for done := false; !done; {
		select {
		case <-reopened:
			done = true
		default:
			if n := len(set.Names()); n < 50 || !set.Exists([]byte("q7")) {
				t.Fatalf("%d queues while the store is reopened, 50 are there", n)
			}
		}
	}
	if err := set.NamesAfter().Err(); err != nil {
		t.Fatalf("answers about names still rest on the failed commit: %v", err)
	}
	set.Close()
}

// Without this a producer is told that there is no queue, though pushing makes one, since somebody deletes it at that moment.
func TestPushesWhileTheQueueIsDeleted(t *testing.T) {
	w := newWorld(t, 16)
	defer func() { w.set.Close() }()
	name := []byte("q")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for deleted := 0; deleted < 2000; {
			if existed, _, _ := w.set.Delete(name); existed {
				deleted++
			} else {
				runtime.Gosched()
			}
		}
	}()
	for pushed := 0; ; pushed++ {
		select {
		case <-ended:
			return
		default:
		}
		if _, _, err := w.set.Push(name, [][]byte{[]byte("x")}); err != nil {
			t.Fatalf("push %d: %v", pushed, err)
		}
	}
}

// Without this a group that becomes durable between a look at it and the wish to be told of it stops the queue for ever, or
// leaves whoever waits without an answer.
func TestAwaitingWhatIsDurableAlready(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 22)
		w.push("q", "a")
		q := w.set.find([]byte("q"))
		r := request("q", "one")
		var got *Batch
		answered := false
		q.mu.Lock()
		done := q.last
		q.line = append(q.line, &waiter{consumer: "one", pull: &r, gotBatch: func(b *Batch, _ *Future, err error) {
			got, answered = b, err == nil
		}})
		q.await(done)
		q.mu.Unlock()
		synctest.Wait()
		if !answered || got == nil || len(got.Messages) != 1 {
			t.Errorf("the waiter got %v, answered: %v", got, answered)
		}
		w.set.Close()
	})
}

// A pull that comes while the only message is on its way to the disk would otherwise sleep until its BLOCK ends: a queue with
// little traffic would deliver its last message seconds late, or never with BLOCK 0.
func TestPullIsServedWhenAPushBeforeItIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer func() { w.set.Close() }()
		for i := range 1000 {
			began := time.Now()
			if _, _, err := w.set.Push([]byte("q"), split([]string{"hello"})); err != nil {
				t.Fatal(err)
			}
			b, err := w.pull(blocking("q", "c", 60_000))
			if err != nil || b == nil || time.Since(began) >= time.Second {
				t.Fatalf("push %d: %+v, %v after %v", i, b, err, time.Since(began))
			}
			if _, _, err := w.set.Ack([]byte("q"), b.ID, nil); err != nil {
				t.Fatal(err)
			}
		}
	})
}
