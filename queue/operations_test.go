package queue

// Every file operation of a life of several queues fails once, with EIO and with ENOSPC, and the server goes on by itself: the
// command that met it gets WALERR or its answer, the other queues work, and after a while all do again, with all that was
// acknowledged; then the power goes, and it is there too.

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quail/queue/machine"
	"quail/wal/vfs"
)

// promised is what clients of one run were told. It is used by one goroutine.
type promised struct {
	pushed map[string]map[string]bool // by queue: bodies whose push was answered
	maybe  map[string]map[string]bool // ... got WALERR
	gone   map[string]map[string]bool // ... whose acknowledgement was answered
	tried  map[string]map[string]bool // ... got WALERR
	errors int
	last   error
	cut    bool // the power goes: nothing works any more
}

func newPromised() *promised {
	p := &promised{}
	for _, m := range []*map[string]map[string]bool{&p.pushed, &p.maybe, &p.gone, &p.tried} {
		*m = map[string]map[string]bool{}
		for _, q := range operationQueues {
			(*m)[q] = map[string]bool{}
		}
	}
	return p
}

var operationQueues = []string{"one", "two", "three"}

// manners of failing, by the name of their error.
var operationErrors = map[string]error{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC}

// Without this an error at one place that nobody thought of loses a message, or a queue stays stopped for ever.
func TestEveryOperationFailsUnderQueues(t *testing.T) {
	seen := operationsRun(t, 0, vfs.FailBefore, syscall.EIO)
	kinds := map[string]int{}
	for _, op := range seen {
		kinds[op.Kind]++
	}
	var list []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		list = append(list, fmt.Sprintf("%d %s", kinds[kind], kind))
	}
	t.Logf("%d operations: %s", len(seen), strings.Join(list, ", "))
	for _, kind := range []string{vfs.OpOpen, vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpDatasync, vfs.OpTruncate, vfs.OpRename, vfs.OpRemove, vfs.OpSyncDir, vfs.OpMkdir, vfs.OpPreallocate, vfs.OpAllocate} {
		if kinds[kind] == 0 {
			t.Errorf("no %s among them", kind)
		}
	}
	step := 7
	if os.Getenv("QUAIL_LONG") == "1" {
		step = 1
	}
	runs := 0
	for _, err := range operationErrors {
		for _, how := range []vfs.Failure{vfs.FailBefore, vfs.FailShort, vfs.FailDropped} {
			for n := 1 + runs%step; n <= len(seen); n += step {
				kind := seen[n-1].Kind
				if how == vfs.FailShort && kind != vfs.OpWrite || how == vfs.FailDropped && kind != vfs.OpSync && kind != vfs.OpDatasync {
					continue
				}
				runs++
				operationsRun(t, n, how, err)
			}
		}
	}
	t.Logf("%d runs", runs)
}

func operationsRun(t *testing.T, n int, how vfs.Failure, failure error) (seen []vfs.Op) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, fs: vfs.NewLossy(uint64(n)), opts: machine.DefaultOptions()}
		disk := vfs.NewFailing(w.fs)
		disk.FailAtHow(n, how, failure)
		cfg := w.smallConfig(disk)
		p := newPromised()
		for life := range 3 {
			var err error
			if w.set, _, err = Open(cfg); err != nil { // what failed was the start: the next one works
				w.set, _, err = Open(cfg)
			}
			if err != nil {
				t.Errorf("the second start got %v", err)
				return
			}
			for round := range 4 {
				p.round(w, life*10+round)
			}
			switch life {
			case 0: // killed
				time.Sleep(time.Second)
				p.push(w, "one", "behind the checkpoint")
				time.Sleep(time.Second)
				w.die()
			case 1:
				if err := w.set.Close(); err != nil && !errors.Is(err, failure) {
					t.Errorf("close: %v", err)
				}
			}
		}
		seen = disk.Ops()
		disk.FailAt(0, nil)          // a run may have fewer operations than the one that was counted
		time.Sleep(30 * time.Second) // healing, reopening, space
		if most := 60; p.errors > most {
			t.Errorf("%d commands were refused for one failure", p.errors)
		}
		p.check(w, "after it went on")
		if !t.Failed() {
			w.powerCut()
			p.check(w, "after a power cut")
		}
		w.set.Close()
		if t.Failed() {
			t.Logf("operation %d failed with %v (%d); %v", n, failure, how, p.last)
		}
	})
	return seen
}

// smallConfig has segments, journal files and checkpoints turn over within some messages.
func (w *world) smallConfig(disk vfs.FS) Config {
	cfg := w.config(disk)
	cfg.Store.JournalFileBytes, cfg.Store.JournalBytes, cfg.Store.CheckpointBytes = 16<<10, 128<<10, 40<<10
	cfg.Store.SegmentBytes, cfg.Store.ReserveBytes, cfg.Store.OpenLogs = 4<<10, 48<<10, 2
	return cfg
}

// Without this there is a moment at which a power cut loses or doubles what was acknowledged. The power goes before each n-th
// operation that changes the disk; of what was not synced any part survives.
func TestPowerCutAtEveryOperationUnderQueues(t *testing.T) {
	var changing []int
	for i, op := range operationsRun(t, 0, vfs.FailBefore, syscall.EIO) {
		switch op.Kind {
		case vfs.OpRead, vfs.OpReadDir, vfs.OpStat, vfs.OpFree, vfs.OpOpen, vfs.OpClose, vfs.OpLock:
		default:
			changing = append(changing, i+1)
		}
	}
	step, seeds := 2, 2
	if os.Getenv("QUAIL_LONG") == "1" {
		step, seeds = 1, 10
	}
	runs := 0
	for seed := range seeds {
		for i := seed % step; i < len(changing); i += step {
			runs++
			cutRun(t, changing[i], uint64(seed)<<32+uint64(changing[i]))
		}
	}
	t.Logf("%d operations that change the disk, %d power cuts", len(changing), runs)
}

func cutRun(t *testing.T, n int, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, fs: vfs.NewLossy(seed), opts: machine.DefaultOptions()}
		disk := vfs.NewFailing(w.fs)
		disk.HaltAt(n)
		cfg, p := w.smallConfig(disk), newPromised()
		p.cut = true
		for life := 0; life < 3 && disk.Count() < n; life++ {
			var err error
			if w.set, _, err = Open(cfg); err != nil {
				break
			}
			for round := 0; round < 4 && disk.Count() < n; round++ {
				p.round(w, life*10+round)
			}
			if life == 1 && disk.Count() < n {
				w.set.Close() // the power may go meanwhile
			} else {
				w.die()
			}
		}
		w.fs = w.fs.Crash()
		w.open()
		p.check(w, "after the power cut")
		w.powerCut()
		p.check(w, "after the second")
		w.set.Close()
		if t.Failed() {
			t.Logf("the power went at operation %d, seed %d; %v", n, seed, p.last)
		}
	})
}

// refused counts what a client may get for a failure of the disk, and reports anything else.
func (p *promised) refused(w *world, err error) bool {
	if err == nil {
		return false
	}
	p.errors++
	p.last = err
	var own *Error
	// What the committer hands on, package server answers with WALERR, too.
	if errors.As(err, &own) && !p.cut && own.Code != "WALERR" && own.Code != "NOBATCH" {
		w.t.Errorf("a command got %v", err)
	}
	return true
}

func (p *promised) round(w *world, round int) {
	for _, name := range operationQueues {
		for i := range 6 {
			body := fmt.Sprintf("%s-%d-%d-%s", name, round, i, strings.Repeat("x", 300))
			p.push(w, name, body)
		}
		if round%2 == 1 || name == "one" {
			p.consume(w, name)
		}
	}
	time.Sleep(700 * time.Millisecond) // the background writer
	if err := w.set.Checkpoint(); err != nil && !p.cut && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) {
		w.set.mu.RLock()
		failed := w.set.broken.Load() != nil
		w.set.mu.RUnlock()
		if !failed && !strings.Contains(err.Error(), "failed") {
			w.t.Errorf("checkpoint: %v", err)
		}
	}
}

func (p *promised) push(w *world, name, body string) {
	_, f, err := w.set.Push([]byte(name), split([]string{body}))
	if err == nil {
		err = f.Wait()
	}
	if p.refused(w, err) {
		p.maybe[name][body] = true
		time.Sleep(100 * time.Millisecond)
	} else {
		p.pushed[name][body] = true
	}
}

// consume takes a batch and acknowledges it.
func (p *promised) consume(w *world, name string) {
	b, err := w.pull(request(name, "c"))
	if p.refused(w, err) || b == nil {
		return
	}
	for _, m := range b.Messages {
		if body := string(m.Body); p.gone[name][body] || !p.pushed[name][body] && !p.maybe[name][body] {
			w.t.Errorf("%q is delivered, acknowledged %v", clip(m.Body), p.gone[name][body])
		}
	}
	_, f, err := w.set.Ack([]byte(name), b.ID, nil)
	if err == nil {
		err = f.Wait()
	}
	to := p.gone
	if p.refused(w, err) {
		to = p.tried
	}
	for _, m := range b.Messages {
		to[name][string(m.Body)] = true
	}
}

// check looks at all that is there.
func (p *promised) check(w *world, when string) {
	for _, name := range operationQueues {
		w.push(name, "goes on")
		there := map[string]bool{}
		for from := uint64(0); ; {
			list, _, err := peek(w.set, []byte(name), machine.Gone, from, 50)
			if err != nil {
				w.t.Errorf("%s: %v", when, err)
				return
			}
			for _, m := range list {
				there[string(m.Body)] = true
				from = m.ID + 1
			}
			if len(list) == 0 {
				break
			}
		}
		for body := range p.pushed[name] {
			if !there[body] && !p.gone[name][body] && !p.tried[name][body] {
				w.t.Errorf("%s: %.20q is lost", when, body)
			}
		}
		for body := range there {
			if p.gone[name][body] {
				w.t.Errorf("%s: %.20q is back", when, body)
			} else if body != "goes on" && !p.pushed[name][body] && !p.maybe[name][body] {
				w.t.Errorf("%s: %.20q was never pushed", when, body)
			}
		}
	}
}
