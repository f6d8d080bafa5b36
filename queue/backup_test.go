package queue

// Backups of a store that is hard at work: pushes, acknowledgements, queues that come and go, messages that move from queue to queue,
// checkpoints that turn the journal over and cut logs. What was acknowledged before the backup began must be in it.

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"quail/queue/machine"
	"quail/wal/vfs"
)

// load is what keeps a set busy, and what it was promised.
type load struct {
	t    *testing.T
	set  *Set
	stop chan struct{}
	done sync.WaitGroup
	// gate is held for reading by whoever works, so a test can look at a backup in peace.
	gate sync.RWMutex

	mu sync.Mutex
	// there has every message whose push was acknowledged and that nobody has begun to acknowledge, by its body; moving are
	// those that may be gone at any moment.
	there map[string]bool
	count int
	grown *sync.Cond
}

func startLoad(t *testing.T, set *Set) *load {
	l := &load{t: t, set: set, stop: make(chan struct{}), there: map[string]bool{}}
	l.grown = sync.NewCond(&l.mu)
	for i := range 4 {
		l.done.Go(func() { l.work(fmt.Sprintf("work%d", i)) })
	}
	l.done.Go(l.refuse)
	l.done.Go(l.comeAndGo)
	return l
}

func (l *load) end() {
	close(l.stop)
	l.done.Wait()
}

func (l *load) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// step runs one step of work.
func (l *load) step(f func()) {
	l.gate.RLock()
	defer l.gate.RUnlock()
	f()
}

// wait returns once n more messages were pushed.
func (l *load) wait(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for until := l.count + n; l.count < until && !l.t.Failed(); {
		l.grown.Wait()
	}
}

// promised is what must be in a backup that begins now.
func (l *load) promised() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.there)
}

// taken takes out what was acknowledged meanwhile.
func (l *load) stillPromised(before map[string]bool) map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(before, func(body string, _ bool) bool { return !l.there[body] })
	return before
}

func (l *load) push(queue, body string) {
	_, f, err := l.set.Push([]byte(queue), [][]byte{[]byte(body)})
	if err != nil || f.Wait() != nil {
		l.t.Errorf("push: %v", err)
		return
	}
	l.mu.Lock()
	l.there[body] = true
	l.count++
	l.grown.Broadcast()
	l.mu.Unlock()
}

func (l *load) pull(queue string, count int) *Batch {
	got := make(chan *Batch, 1)
	l.set.Consume(ConsumeRequest{Queue: []byte(queue), Consumer: []byte("one"), Count: count, Bytes: 1 << 20, LeaseMillis: 600_000},
		func(b *Batch, _ *Future, err error) { got <- b })
	return <-got
}

// work pushes and acknowledges; one in ten stays for ever.
func (l *load) work(queue string) {
	for i := 0; !l.stopped() && !l.t.Failed(); i++ {
		l.step(func() {
			body := fmt.Sprintf("%s %d %s", queue, i, strings.Repeat("x", 300))
			if i%10 == 0 {
				l.push("kept", body)
				return
			}
			l.push(queue, body)
			l.ack(queue)
		})
	}
}

func (l *load) ack(queue string) {
	b := l.pull(queue, 1)
	if b == nil {
		l.t.Error("nothing to pull")
		return
	}
	l.mu.Lock()
	for _, m := range b.Messages {
		delete(l.there, string(m.Body))
	}
	l.mu.Unlock()
	if _, f, err := l.set.Ack([]byte(queue), b.ID, nil); err != nil || f.Wait() != nil {
		l.t.Errorf("ack: %v", err)
	}
}

// refuse moves messages to a dead-letter queue: they are in one of both, at any moment.
func (l *load) refuse() {
	for i := 0; !l.stopped() && !l.t.Failed(); i++ {
		l.step(func() {
			l.push("moves", fmt.Sprintf("moves %d", i))
			if b := l.pull("moves", 1); b != nil {
				if _, f, err := l.set.Nack([]byte("moves"), b.ID, machine.Dead, 0, nil); err != nil || f.Wait() != nil {
					l.t.Errorf("nack: %v", err)
				}
			}
			if i%8 == 0 { // else the backlog of dead letters grows for ever
				l.purge("moves.dead")
			}
		})
	}
}

// comeAndGo makes queues and deletes them.
func (l *load) comeAndGo() {
	for i := 0; !l.stopped() && !l.t.Failed(); i++ {
		l.step(func() {
			name := []byte(fmt.Sprintf("short%d", i%5))
			for k := range 30 {
				if _, f, err := l.set.Push(name, [][]byte{[]byte(strings.Repeat("y", 300+k))}); err != nil || f.Wait() != nil {
					l.t.Errorf("push: %v", err)
				}
			}
			if _, f, err := l.set.Delete(name); err != nil || f.Wait() != nil {
				l.t.Errorf("delete: %v", err)
			}
		})
	}
}

// purge empties a queue of messages that begin with its name.
func (l *load) purge(queue string) {
	l.mu.Lock()
	maps.DeleteFunc(l.there, func(body string, _ bool) bool {
		return strings.HasPrefix(queue, body[:strings.IndexByte(body, ' ')]+".")
	})
	l.mu.Unlock()
	if _, f, err := l.set.Purge([]byte(queue), 0); err != nil || f.Wait() != nil {
		l.t.Errorf("purge: %v", err)
	}
}

// bodies are the messages in a directory, with how often each is there.
func bodies(t *testing.T, dir string) (all map[string]int, sound bool) {
	t.Helper()
	messages, sound, _ := looked(t, dir)
	all = map[string]int{}
	for _, v := range messages {
		_, body, _ := strings.Cut(v, " ")
		all[body]++
	}
	return all, sound
}

func missingFrom(all map[string]int, promised map[string]bool) (n int, one string) {
	for body := range promised {
		if all[body] == 0 {
			n, one = n+1, body
		}
	}
	return n, one
}

// Without this a restored backup lacks messages that were acknowledged before it began, or does not start at all.
func TestBackupUnderLoad(t *testing.T) {
	cfg := diskConfig(filepath.Join(t.TempDir(), "data"))
	cfg.Store.CheckpointBytes = 128 << 10
	set, _, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	l := startLoad(t, set)
	for round := range rounds(6) {
		l.wait(300)
		promised := l.promised()
		dir := filepath.Join(t.TempDir(), "backup")
		report, err := set.Backup(dir)
		if err != nil {
			t.Fatal(err)
		}
		promised = l.stillPromised(promised)
		l.gate.Lock()
		all, sound := bodies(t, dir)
		if !sound {
			t.Errorf("round %d: the backup is not sound", round)
		}
		if n, one := missingFrom(all, promised); n > 0 || len(promised) == 0 {
			t.Errorf("round %d: %d of %d messages are missing, one is %.30q", round, n, len(promised), one)
		}
		if report.Damaged > 0 || report.Queues < 5 || report.Bytes == 0 {
			t.Errorf("round %d: %+v", round, report)
		}
		for body, n := range all {
			if n > 1 && strings.HasPrefix(body, "moves") {
				t.Errorf("round %d: %q is there %d times", round, body, n)
			}
		}
		before, _, _ := looked(t, dir)
		if after, err := served(dir); err != nil {
			t.Errorf("round %d: restored: %v", round, err)
		} else if err := same(before, after); err != nil {
			t.Errorf("round %d: restored: %v", round, err)
		}
		l.gate.Unlock()
	}
	l.end()
}

// rounds is how often a test repeats what is different each time.
func rounds(short int) int {
	if os.Getenv("QUAIL_LONG") == "" {
		return short
	}
	return 10 * short
}

// Without this somebody who copies the files of a running server learns too late what that is worth. It asserts nothing about chance: a
// plain copy may be good. What it must never be is wrong and called sound.
func TestPlainCopyUnderLoad(t *testing.T) {
	cfg := diskConfig(filepath.Join(t.TempDir(), "data"))
	cfg.Store.CheckpointBytes = 128 << 10
	set, _, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	l := startLoad(t, set)
	unsound, short := 0, 0
	n := rounds(6)
	for range n {
		l.wait(300)
		promised := l.promised()
		dir := filepath.Join(t.TempDir(), "copy")
		if err := copySlowly(cfg.Store.Dir, dir); err != nil {
			t.Fatal(err)
		}
		promised = l.stillPromised(promised)
		l.gate.Lock()
		all, sound := bodies(t, dir)
		l.gate.Unlock()
		lost, _ := missingFrom(all, promised)
		if lost > 0 {
			short++
		}
		if !sound {
			unsound++
		} else if lost > 0 {
			t.Errorf("%d of %d messages are missing from a copy that is called sound", lost, len(promised))
		}
	}
	l.end()
	t.Logf("of %d plain copies %d were damaged, %d lacked acknowledged messages", n, unsound, short)
}

// copySlowly copies as cp -a does: name by name, each folder listed when its turn comes. Files that go meanwhile are passed over.
func copySlowly(from, to string) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o750); err != nil {
		return err
	}
	for _, e := range entries {
		a, b := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if e.IsDir() {
			if err := copySlowly(a, b); err != nil {
				return err
			}
			continue
		}
		data, err := os.ReadFile(a)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(b, data, 0o640)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Without this a backup overwrites another one, or grows into itself.
func TestBackupRefusals(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	set, _, err := Open(diskConfig(data))
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	there := t.TempDir()
	for dir, want := range map[string]string{
		there:                            "exists already",
		filepath.Join(data, "backup"):    "inside the data directory",
		data:                             "inside the data directory",
		"relative":                       "absolute path",
		filepath.Join(there, "no", "no"): "no such file",
	} {
		if _, err := set.Backup(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", dir, err, want)
		}
	}
	entries, err := os.ReadDir(there)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if _, err := set.Backup(filepath.Join(there, "empty")); err != nil {
		t.Errorf("a store without messages: %v", err)
	}
	if s, err := OpenStopped(vfs.OS, filepath.Join(there, "empty")); err != nil {
		t.Error(err)
	} else {
		s.Close()
	}
}
