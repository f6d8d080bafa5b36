package queue

// Queues that are being loaded after a start: they say so, the others work, and nothing is lost or decided meanwhile.

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/vfs"
)

// slowWorld is a world whose queues are loaded when the test says so, however small they are.
type slowWorld struct {
	*world
	loads   map[uint64]func() // by incarnation
	reports []LoadReport
}

func newSlowWorld(t *testing.T) *slowWorld {
	return &slowWorld{world: newWorld(t, 1)}
}

// reopen opens what the set before has left.
func (w *slowWorld) reopen() {
	w.t.Helper()
	w.loads, w.reports = map[uint64]func(){}, nil
	cfg := w.config(w.fs)
	cfg.LoadAtOnceBytes = -1
	cfg.Loaded = func(r LoadReport) { w.reports = append(w.reports, r) }
	cfg.Background = func(who string, f func()) {
		if what, of, _ := strings.Cut(who, " "); what == "load" {
			var life uint64
			fmt.Sscan(of, &life)
			w.loads[life] = f
			return
		}
		go f()
	}
	w.set = New(cfg)
	report, err := w.set.Open()
	if err != nil {
		w.t.Fatalf("open: %v", err)
	}
	if report.Queues != len(w.loads) || w.set.LoadingQueues() != len(w.loads) {
		w.t.Fatalf("%d queues, %d are to be loaded, %d are said to be", report.Queues, len(w.loads), w.set.LoadingQueues())
	}
}

func (w *slowWorld) load(names ...string) {
	for _, name := range names {
		w.loads[w.set.find([]byte(name)).log.Incarnation()]()
	}
}

// cut ends the process and begins another, which finds what was synced.
func (w *slowWorld) cut() {
	w.t.Helper()
	w.lose()
	w.reopen()
}

func (w *slowWorld) states() map[string]string {
	states := map[string]string{}
	for _, q := range inOrder(w.set.byLife) {
		states[q.name] = string(q.m.Snapshot(nil))
	}
	return states
}

// Without this one large queue holds up everybody's start, or answers with a state that is not there yet.
func TestOneQueueLoadsTheOthersWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSlowWorld(t)
		defer w.end()
		w.push("large", "a", "b")
		w.push("small", "c")
		before := w.states()
		w.cut()
		w.load("small")
		if got := w.stateOf("small"); got != before["small"] {
			t.Error("queue small has another state than before")
		}
		w.push("small", "d")
		w.push("new", "e")
		b, err := w.pull(request("small", "c"))
		if err != nil || len(b.Messages) != 2 {
			t.Fatalf("queue small delivers %+v, %v", b, err)
		}
		for name, err := range w.everyCommand("large") {
			if codeOf(err) != "LOADING" || !strings.Contains(err.Error(), "retry") {
				t.Errorf("%s on a queue that is being loaded: %v", name, err)
			}
		}
		if got := fmt.Sprint(w.set.Names()); got != "[large new small]" || w.set.Count() != 3 || !w.set.Exists([]byte("large")) {
			t.Errorf("there are %s", got)
		}
		if w.set.Loading() != nil || w.set.LoadingQueues() != 1 || len(w.reports) != 0 {
			t.Errorf("the server loads %v, %d queues, told %v", w.set.Loading(), w.set.LoadingQueues(), w.reports)
		}
		w.load("large")
		if got := w.stateOf("large"); got != before["large"] {
			t.Error("queue large has another state than before")
		}
		if len(w.reports) != 1 || w.reports[0].Queues != 2 || w.reports[0].Err != nil || w.reports[0].Messages != 3 {
			t.Errorf("told %+v", w.reports)
		}
		if b, err := w.pull(request("large", "c")); err != nil || len(b.Messages) != 2 {
			t.Errorf("queue large delivers %+v, %v", b, err)
		}
	})
}

func (w *slowWorld) stateOf(name string) string {
	return string(w.set.find([]byte(name)).m.Snapshot(nil))
}

// everyCommand runs each command on one queue and returns what it says.
func (w *slowWorld) everyCommand(queue string) map[string]error {
	name, said := []byte(queue), map[string]error{}
	_, _, said["Push"] = w.set.Push(name, [][]byte{[]byte("x")})
	_, said["Consume"] = w.pull(request(queue, "c"))
	blocked := request(queue, "c")
	blocked.Block = true
	_, said["Consume with BLOCK"] = w.pull(blocked)
	w.set.Lock(LockRequest{Queue: name, Consumer: []byte("c")}, func(_ uint64, _ *Future, err error) { said["Lock"] = err })
	_, _, said["Unlock"] = w.set.Unlock(name, 1)
	_, _, said["Ack"] = w.set.Ack(name, 1, nil)
	_, _, said["Nack"] = w.set.Nack(name, 1, machine.Retry, -1, nil)
	_, _, said["Extend"] = w.set.Extend(name, 1, 1)
	_, _, said["Len"] = w.set.Len(name)
	_, _, said["Info"] = w.set.Info(name)
	_, said["Create"] = w.set.Create(name, machine.Options{})
	_, _, said["Options"] = w.set.Options(name)
	_, said["Configure"] = w.set.Configure(name, machine.Options{})
	_, _, said["Peek"] = peek(w.set, name, machine.Gone, 0, 1)
	_, _, said["Get"] = w.set.Get(name, 1)
	_, _, said["Remove"] = w.set.Remove(name, []uint64{1})
	_, _, said["Purge"] = w.set.Purge(name, 0)
	_, said["Pause"] = w.set.Pause(name, true, true, true)
	_, _, said["Redrive"] = w.set.Redrive(name, nil, 0)
	_, _, said["Delete"] = w.set.Delete(name)
	return said
}

// Without this an acknowledged message is lost if the server dies, or saves its state, while it still loads some queues.
func TestEndWhileLoading(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, w *slowWorld){
		"power cut":                  func(t *testing.T, w *slowWorld) { w.cut() },
		"power cut after checkpoint": func(t *testing.T, w *slowWorld) { w.check(w.set.Checkpoint()); w.cut() },
		"clean stop":                 func(t *testing.T, w *slowWorld) { w.check(w.set.Close()); w.reopen() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newSlowWorld(t)
				defer w.end()
				w.push("a", "1")
				w.check(w.set.Checkpoint())
				w.push("a", "2")
				w.push("b", "3")
				w.push("gone", "4")
				before := w.states()
				w.cut()
				w.load("gone")
				if _, f, err := w.set.Delete([]byte("gone")); err != nil || f.Wait() != nil {
					t.Fatal(err)
				}
				w.push("gone", "5")
				anew := w.stateOf("gone")
				end(t, w)
				w.load("a", "b", "gone")
				if got := w.stateOf("gone"); got != anew {
					t.Error("the queue that was made again has another state")
				}
				delete(before, "gone")
				for name := range before {
					if w.stateOf(name) != before[name] {
						t.Errorf("queue %s has another state", name)
					}
				}
			})
		})
	}
}

func (w *slowWorld) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// Without this a consumer whose lease would have lasted loses its batch, with a failed attempt, to a start that took its time.
func TestLeaseIsProlongedByLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSlowWorld(t)
		defer w.end()
		w.push("q", "a")
		r := request("q", "c")
		r.LeaseMillis = 3000
		b, err := w.pull(r)
		w.check(err)
		w.check(w.set.Checkpoint())
		w.cut()
		time.Sleep(5 * time.Second)
		w.load("q")
		time.Sleep(2 * time.Second)
		if n, f, err := w.set.Ack([]byte("q"), b.ID, nil); n != 1 || err != nil || f.Wait() != nil {
			t.Errorf("acknowledging 2 s after a start that took 5: %d, %v", n, err)
		}
	})
}

// Without this a message is lost on its way to a dead-letter queue that is not loaded, or nobody tells why it stays.
func TestDeadLetterQueueIsLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSlowWorld(t)
		defer w.end()
		w.push("q", "a")
		w.push("q.dead", "old")
		b, err := w.pull(request("q", "c"))
		w.check(err)
		w.check(w.set.Checkpoint())
		w.cut()
		w.load("q")
		if _, _, err := w.set.Nack([]byte("q"), b.ID, machine.Dead, -1, nil); codeOf(err) != "LOADING" || !strings.Contains(err.Error(), "q.dead") {
			t.Errorf("refusing a message: %v", err)
		}
		if n, _, err := w.set.Len([]byte("q")); n != 1 || err != nil {
			t.Errorf("then queue q has %d messages, %v", n, err)
		}
		w.load("q.dead")
		if n, f, err := w.set.Nack([]byte("q"), b.ID, machine.Dead, -1, nil); n != 1 || err != nil || f.Wait() != nil {
			t.Errorf("refusing it again: %d, %v", n, err)
		}
		if n, _, err := w.set.Len([]byte("q.dead")); n != 2 || err != nil {
			t.Errorf("then queue q.dead has %d messages, %v", n, err)
		}
	})
}

// Without this a state that is no state makes a queue of nonsense, or a checkpoint lets go of the journal that it came from.
func TestQueueThatCannotBeLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSlowWorld(t)
		defer w.end()
		w.push("bad", "a")
		w.push("good", "b")
		w.cut()
		bad := w.set.find([]byte("bad"))
		bad.unloaded.Load().later[0] = 200 // no kind of record
		w.load("bad", "good")
		if len(w.reports) != 1 || w.reports[0].Err == nil || !strings.Contains(w.reports[0].Err.Error(), `"bad"`) {
			t.Errorf("told %+v", w.reports)
		}
		if err := w.set.Checkpoint(); err == nil || !strings.Contains(err.Error(), `"bad"`) {
			t.Errorf("a checkpoint: %v", err)
		}
		w.push("good", "c")
		w.cut()
		w.load("bad", "good")
		if n, _, err := w.set.Len([]byte("bad")); n != 1 || err != nil {
			t.Errorf("after another start queue bad has %d messages, %v", n, err)
		}
	})
}

// Without this a command comes before the names are known and is told that its queue does not exist, or the process panics.
func TestBeforeOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSlowWorld(t)
		w.push("q", "a")
		w.check(w.set.Close())
		w.set = New(w.config(w.fs))
		for name, err := range w.everyCommand("q") {
			if codeOf(err) != "LOADING" {
				t.Errorf("%s before the data directory is open: %v", name, err)
			}
		}
		if codeOf(w.set.Loading()) != "LOADING" {
			t.Errorf("Loading: %v", w.set.Loading())
		}
		w.set.Hold().Release()
		w.set.Idle()
		w.set.HasRoom()
		if _, err := w.set.StoreStats(); err != nil {
			t.Errorf("StoreStats: %v", err)
		}
		if _, err := w.set.Backup("/copy"); codeOf(err) != "LOADING" {
			t.Errorf("Backup: %v", err)
		}
		w.check(w.set.Close())
		if _, err := w.set.Open(); !errors.Is(err, errStopping) {
			t.Errorf("Open after Close: %v", err)
		}
		w.open()
		if n, _, err := w.set.Len([]byte("q")); n != 1 || err != nil {
			t.Errorf("queue q has %d messages, %v", n, err)
		}
		w.check(w.set.Close())
	})
}

// Without this a stop during a long start has to wait for its end.
func TestStopWhileOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSlowWorld(t)
		w.push("q", "a")
		w.lose()
		cfg := w.config(w.fs)
		set := New(cfg)
		closed := make(chan error, 1)
		set.cfg.Store.FS = openHook{FS: w.fs, opens: func(path string) {
			if strings.HasSuffix(path, ".journal") && len(closed) == 0 && !set.ending.Load() {
				go func() { closed <- set.Close() }()
				for !set.ending.Load() {
					runtime.Gosched()
				}
			}
		}}
		if _, err := set.Open(); !errors.Is(err, errStopping) {
			t.Errorf("Open says %v", err)
		}
		if err := <-closed; err != nil {
			t.Errorf("Close says %v", err)
		}
		w.open()
		if n, _, err := w.set.Len([]byte("q")); n != 1 || err != nil {
			t.Errorf("queue q has %d messages, %v", n, err)
		}
		w.check(w.set.Close())
	})
}

// openHook is told of each file that is opened for reading.
type openHook struct {
	vfs.FS
	opens func(path string)
}

func (h openHook) Open(path string) (vfs.File, error) {
	h.opens(path)
	return h.FS.Open(path)
}

// Without this a small queue waits for a large one, and what somebody asks for comes last.
func TestLoadingOrder(t *testing.T) {
	set := New(Config{})
	var list []*queue
	for i, size := range []int{30, 10, 20, 40} {
		q := &queue{set: set, name: fmt.Sprint(i)}
		q.unloaded.Store(&unloaded{state: make([]byte, size)})
		list = append(list, q)
	}
	l := newLoader(set, list, false)
	var got []string
	for q := l.take(); q != nil; q = l.take() {
		if got = append(got, q.name); q.name == "1" {
			l.want(list[3])
			l.want(list[3])
		}
		q.unloaded.Store(nil)
	}
	if want := []string{"1", "3", "2", "0"}; !slices.Equal(got, want) {
		t.Errorf("loaded in the order %v, want %v", got, want)
	}
}

// Without this who asks for a queue while its loading fails reads what the loader is just letting go of, and may see any size: half of it says
// that a queue with a million delayed messages is loaded by the command itself.
func TestSizeIsReadWhileLoadingFails(t *testing.T) {
	set := New(Config{LoadAtOnceBytes: 1})
	q := &queue{set: set, name: "q", log: new(wal.QueueLog)}
	q.unloaded.Store(&unloaded{state: []byte("no state"), later: []byte("no record")})
	newLoader(set, []*queue{q}, false)
	failed := make(chan error)
	go func() { failed <- q.load() }()
	for code := "LOADING"; code == "LOADING"; {
		if code = codeOf(q.ready()); code != "LOADING" && code != "WALERR" {
			t.Fatalf("who asks gets %q", code)
		}
	}
	if err := <-failed; err == nil {
		t.Error("it was loaded")
	}
}
