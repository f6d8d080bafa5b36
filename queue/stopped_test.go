package queue

// What check, dump and repair promise, on a real file system: every file of a data directory is damaged in every manner, and each time the
// verdict must agree with what a server makes of it, nothing may be changed, and all that is whole must be saved.

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

func diskConfig(dir string) Config {
	opts := machine.DefaultOptions()
	return Config{
		Store: wal.Config{FS: vfs.OS, Dir: dir, JournalFileBytes: 64 << 10, JournalBytes: 1 << 20, CheckpointBytes: 1 << 20,
			WriteBehindBytes: 1 << 20, SegmentBytes: 4 << 10, OpenLogs: 8, OpenLog: seglog.Open},
		Defaults:     func() *machine.Options { return opts },
		QueuesMax:    func() int { return 1000 },
		AutoCreate:   func() bool { return true },
		PushBytesMax: func() int64 { return 1 << 20 },
	}
}

// live is what a directory holds: queue, id and body of each message.
type live map[string]string

func key(queue string, id uint64) string { return fmt.Sprintf("%s/%d", queue, id) }

// oldStore makes a data directory with a bit of everything: segments, a base and a delta, a journal behind them, messages in all states.
func oldStore(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	set, _, err := Open(diskConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	push := func(queue string, from, to int, o PushOptions) {
		for i := from; i < to; i++ {
			body := fmt.Sprintf("%s %d %s", queue, i, strings.Repeat("x", 200))
			_, f, err := set.PushWith([]byte(queue), [][]byte{[]byte(body)}, o)
			if err != nil || f.Wait() != nil {
				t.Fatal(err)
			}
		}
	}
	pull := func(queue string, ack bool) {
		got := make(chan *Batch, 1)
		set.Consume(ConsumeRequest{Queue: []byte(queue), Consumer: []byte("one"), Count: 5, Bytes: 1 << 20, LeaseMillis: 600_000}, func(b *Batch, _ *Future, err error) { got <- b })
		b := <-got
		if b == nil {
			t.Fatalf("queue %s gave nothing", queue)
		}
		if ack {
			_, f, err := set.Ack([]byte(queue), b.ID, nil)
			if err != nil || f.Wait() != nil {
				t.Fatal(err)
			}
		}
	}
	push("orders", 0, 100, PushOptions{})
	pull("orders", true)
	pull("orders", false)
	push("later", 0, 10, PushOptions{HasDelay: true, DelayMillis: 3_600_000})
	if err := set.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	push("orders", 100, 120, PushOptions{})
	if err := set.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	push("orders", 120, 130, PushOptions{Headers: [][2][]byte{{[]byte("k"), []byte("v")}}})
	push("fresh", 0, 10, PushOptions{})
	pull("orders", true)
	pull("fresh", true)
	set.store.Abandon()
	return dir
}

// served is what a server makes of a directory; an error says that it did not start or that a queue stopped.
func served(dir string) (live, error) {
	set, _, err := Open(diskConfig(dir))
	if err != nil {
		return nil, err
	}
	defer set.Close()
	all := live{}
	for _, name := range set.Names() {
		for from := uint64(1); ; {
			found, _, err := peek(set, []byte(name), machine.Gone, from, 1000)
			if err != nil {
				return all, err
			}
			for _, m := range found {
				all[key(name, m.ID)] = fmt.Sprintf("%v %s", m.State, m.Body)
				from = m.ID + 1
			}
			if len(found) == 0 {
				break
			}
		}
	}
	return all, nil
}

// looked is what OpenStopped makes of a directory.
func looked(t *testing.T, dir string) (all live, sound bool, lost int64) {
	t.Helper()
	s, err := OpenStopped(vfs.OS, dir)
	if err != nil {
		t.Fatalf("open stopped: %v", err)
	}
	defer s.Close()
	all, sound = live{}, true
	for _, q := range s.Queues {
		inv, err := s.Inventory(q)
		if err != nil {
			t.Fatal(err)
		}
		lost += inv.LostMessages
		sound = sound && len(inv.Missing) == 0 && inv.LostMessages == 0 && q.Skipped == 0
		err = s.Messages(q, func(m *Stored) error {
			all[key(q.Name, m.ID)] = fmt.Sprintf("%v %s", m.State, m.Body)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all, sound && len(s.Damage()) == 0, lost
}

func sums(t *testing.T, dir string) string {
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			fmt.Fprintln(&list, path)
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&list, "%s %x\n", path, sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}

func copyDir(t *testing.T, from string) string {
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func same(a, b live) error {
	for k, v := range a {
		if b[k] != v {
			return fmt.Errorf("%s is %.40q and %.40q", k, v, b[k])
		}
	}
	if len(a) != len(b) {
		return fmt.Errorf("%d and %d messages", len(a), len(b))
	}
	return nil
}

// Without this a look at a directory tells of other messages than a server would serve.
func TestStoppedSeesWhatAServerServes(t *testing.T) {
	dir := oldStore(t)
	before := sums(t, dir)
	all, sound, _ := looked(t, dir)
	if !sound {
		t.Error("an undamaged directory is called damaged")
	}
	if sums(t, dir) != before {
		t.Error("a look changed the directory")
	}
	want, err := served(copyDir(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := same(want, all); err != nil {
		t.Error(err)
	}
	if len(want) != 135 {
		t.Fatalf("%d messages, not 135: the test looks at nothing", len(want))
	}
}

// Without this a check runs beside a server, whose files change under it, and reports damage that is none.
func TestStoppedRefusesADirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	set, _, err := Open(diskConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if _, err := OpenStopped(vfs.OS, dir); !errors.Is(err, wal.ErrLocked) {
		t.Errorf("got %v", err)
	}
	if _, err := OpenStopped(vfs.OS, t.TempDir()); !errors.Is(err, wal.ErrNoStore) {
		t.Errorf("an empty directory: %v", err)
	}
}

// harm is one manner of damage.
type harm struct {
	name string
	do   func(path string, data []byte) error
}

func flip(part float64) harm {
	return harm{fmt.Sprintf("flip at %.2f", part), func(path string, data []byte) error {
		data = bytes.Clone(data)
		used := len(bytes.TrimRight(data, "\x00"))
		data[min(int(part*float64(used)), used-1)] ^= 0x10
		return os.WriteFile(path, data, 0o640)
	}}
}

func cutTo(part float64) harm {
	return harm{fmt.Sprintf("cut to %.2f", part), func(path string, data []byte) error {
		return os.Truncate(path, int64(part*float64(len(bytes.TrimRight(data, "\x00")))))
	}}
}

var harms = []harm{flip(0), flip(0.02), flip(0.5), flip(0.9), flip(1), cutTo(0), cutTo(0.5), cutTo(0.99),
	{"removed", func(path string, _ []byte) error { return os.Remove(path) }},
}

// Without this repair leaves out messages that are whole, or makes a directory that does not work, or a check calls sound what a server
// refuses.
func TestRepairOfEveryDamage(t *testing.T) {
	dir := oldStore(t)
	damageAll(t, dir, "")
	// The same without a journal that may still have what a log has lost.
	bare := dir + ".bare"
	s, err := OpenStopped(vfs.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Repair(bare, 4<<10); err != nil {
		t.Fatal(err)
	}
	damageAll(t, bare, "queues")
}

func damageAll(t *testing.T, dir, folder string) {
	want, _, _ := looked(t, dir)
	for _, path := range chosenFiles(t, dir) {
		if !strings.HasPrefix(path, folder) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range harms {
			if len(bytes.TrimRight(data, "\x00")) == 0 {
				continue
			}
			t.Run(path+" "+h.name, func(t *testing.T) {
				hurt := copyDir(t, dir)
				if err := h.do(filepath.Join(hurt, path), data); err != nil {
					t.Fatal(err)
				}
				repairOne(t, hurt, want, folder == "queues")
			})
		}
	}
}

// stillThere counts the messages that are not saved and whose bodies are whole in some file.
func stillThere(t *testing.T, dir string, want, saved live) (n int) {
	var all []byte
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			data, readErr := os.ReadFile(path)
			all, err = append(all, data...), readErr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range want {
		_, body, _ := strings.Cut(v, " ")
		if _, ok := saved[k]; !ok && bytes.Contains(all, []byte(body)) {
			n++
		}
	}
	return n
}

// chosenFiles are all files but most segments.
func chosenFiles(t *testing.T, dir string) (list []string) {
	segments := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "LOCK" {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		if strings.HasPrefix(relative, "queues") {
			if segments++; segments%3 != 1 {
				return err
			}
		}
		list = append(list, relative)
		return err
	})
	if err != nil || len(list) < 5 {
		t.Fatalf("%v, files %q", err, list)
	}
	return list
}

// repairOne checks one damaged directory. exact: only logs are damaged, so it is known what is gone.
func repairOne(t *testing.T, hurt string, want live, exact bool) {
	before := sums(t, hurt)
	all, sound, lost := looked(t, hurt)
	mended := hurt + ".new"
	s, err := OpenStopped(vfs.OS, hurt)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Repair(mended, 4<<10); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if sums(t, hurt) != before {
		t.Fatal("the damaged directory was changed")
	}
	saved, isSound, _ := looked(t, mended)
	if !isSound {
		t.Error("the new directory is not sound")
	}
	if err := same(all, saved); err != nil {
		t.Errorf("dump of the old and of the new directory: %v", err)
	}
	missing := int64(0)
	for k := range want {
		if _, ok := saved[k]; !ok {
			missing++
		}
	}
	t.Logf("sound %v, %d messages gone, %d said so", sound, missing, lost)
	if exact && missing != lost {
		t.Errorf("%d messages are gone, %d are said to be", missing, lost)
	}
	if sound && missing > 0 {
		t.Errorf("%d messages are gone, and the directory is called sound", missing)
	}
	if left := stillThere(t, hurt, want, saved); left > 1 { // one: its header may be what was damaged
		t.Errorf("%d messages are gone, whose bodies are whole in the damaged directory", left)
	}
	if got, err := served(mended); err != nil {
		t.Errorf("no server works on the new directory: %v", err)
	} else if err := same(saved, got); err != nil {
		t.Errorf("served: %v", err)
	}
	got, err := served(hurt)
	switch {
	case sound && err != nil:
		t.Errorf("called sound, but a server says: %v", err)
	case sound && same(want, got) != nil:
		t.Errorf("called sound, but a server has lost something: %v", same(want, got))
	case !sound && err == nil && same(want, got) != nil:
		t.Logf("a server noticed nothing: %v", same(want, got))
	}
}

// Without this a lost directory, which is what a half restored backup looks like, ends in a panic or in silence.
func TestRepairOfMissingDirectories(t *testing.T) {
	dir := oldStore(t)
	want, _, _ := looked(t, dir)
	for _, folder := range []string{"journal", "checkpoints", "queues/0000000000000001", "queues"} {
		hurt := copyDir(t, dir)
		if err := os.RemoveAll(filepath.Join(hurt, folder)); err != nil {
			t.Fatal(err)
		}
		if _, sound, _ := looked(t, hurt); sound {
			t.Errorf("%s is missing, and the directory is called sound", folder)
		}
		repairOne(t, hurt, want, false)
	}
}
