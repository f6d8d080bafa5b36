package queue

// Rot: every byte of every file of a data directory is changed, one at a time, in a bit or two. Whatever it hits, no wrong message is
// delivered and none is missing without a word: either all is there, or an error names file and offset, and the other queues go on.

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/vfs"
)

// Without this a body that changed on the disk is delivered, or messages vanish in silence.
func TestRotIsNeverDelivered(t *testing.T) {
	step := 61
	if os.Getenv("QUAIL_LONG") == "1" {
		step = 1
	}
	r := newRotten(t)
	for _, path := range slices.Sorted(maps.Keys(r.files)) {
		data := r.files[path]
		outcomes := map[string]int{}
		for at := 0; at < len(data); at += step {
			bit := byte(1) << ((at*5 + at/8) % 8)
			data[at] ^= bit
			outcomes[r.look(t, path)]++
			data[at] ^= bit
			if t.Failed() {
				t.Fatalf("byte %d of %s, bits %08b", at, path, bit)
			}
		}
		t.Logf("%s, %d bytes: %v", path, len(data), outcomes)
	}
}

// rotten is a data directory, with what its queues hold.
type rotten struct {
	files map[string][]byte
	held  map[string][]string
}

func newRotten(t *testing.T) *rotten {
	r := &rotten{files: map[string][]byte{}, held: map[string][]string{}}
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, fs: vfs.NewLossy(41), opts: machine.DefaultOptions()}
		w.open()
		for i := range 120 {
			name := fmt.Sprintf("q%d", i%3)
			body := fmt.Sprintf("%d-%s", i, strings.Repeat("y", 400))
			w.push(name, body)
			r.held[name] = append(r.held[name], body)
			if i == 80 {
				if err := w.set.Checkpoint(); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.die()
		r.take(t, w.fs, "/data")
	})
	return r
}

func (r *rotten) take(t *testing.T, fs vfs.FS, dir string) {
	entries, err := fs.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			r.take(t, fs, path)
			continue
		}
		f, err := fs.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		r.files[path] = data
	}
}

// look opens the directory as it is now, in which one file is damaged, and looks at everything.
func (r *rotten) look(t *testing.T, damaged string) (outcome string) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, fs: vfs.NewLossy(1), opts: machine.DefaultOptions()}
		for path, data := range r.files {
			if err := w.fs.MkdirAll(filepath.Dir(path), 0o750); err != nil {
				t.Fatal(err)
			}
			f, err := w.fs.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(data, 0); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		torn := false
		cfg := w.config(w.fs)
		cfg.Store.Events.TornTail = func(wal.TornTail) { torn = true }
		set, _, err := Open(cfg)
		if err != nil {
			if !named(err, damaged) {
				t.Errorf("the start got %v", err)
			}
			outcome = "not started"
			return
		}
		w.set = set
		defer w.die()
		outcome = "whole"
		stopped := 0
		for name, want := range r.held {
			got, err := bodiesOf(set, name)
			if err != nil {
				stopped++
				outcome = "one queue stopped"
				if !named(err, damaged) {
					t.Errorf("queue %s got %v", name, err)
				}
				continue
			}
			switch {
			case slices.Equal(got, want):
			case torn && len(got) == len(want)-1 && slices.Equal(got, want[:len(got)]):
				outcome = "last push cut and reported" // rot there is no different from a tear
			default:
				t.Errorf("queue %s has %d messages, %d were pushed, and they differ", name, len(got), len(want))
			}
		}
		if stopped > 1 {
			t.Errorf("%d queues stopped for one byte", stopped)
		}
	})
	return outcome
}

// named: the error tells a person which file it is.
func named(err error, path string) bool {
	var own *Error
	text := err.Error()
	damaged := wal.Damaged(err) || errors.As(err, &own)
	return damaged && strings.Contains(text, "offset") && (strings.Contains(text, filepath.Base(path)) || strings.Contains(text, filepath.Dir(path)))
}

func bodiesOf(set *Set, name string) (bodies []string, err error) {
	for from := uint64(0); ; {
		list, _, err := peek(set, []byte(name), machine.Gone, from, 1000)
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			return bodies, nil
		}
		for _, m := range list {
			bodies = append(bodies, string(m.Body))
			from = m.ID + 1
		}
	}
}
