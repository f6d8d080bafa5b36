package queue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"quail/queue/machine"
	"quail/wal/vfs"
)

// Without this a list of queues goes on naming one that was deleted, or leaves out one whose making was answered; and who walks through an older
// list finds other names in it.
func TestNamesFollowEveryChange(t *testing.T) {
	inWorld(t, 41, func(w *world) {
		want := map[string]bool{}
		check := func(what string) {
			w.t.Helper()
			got := slices.Sorted(slices.Values(w.set.NamesUnsorted()))
			if !slices.Equal(got, w.set.Names()) || len(got) != len(want) || slices.ContainsFunc(got, func(name string) bool { return !want[name] }) {
				w.t.Fatalf("%s: %v", what, got)
			}
		}
		check("none")
		for i := range 20 {
			name := fmt.Sprintf("q%d", i)
			old := w.set.NamesUnsorted()
			before := slices.Clone(old)
			want[name] = true
			w.push(name, "a")
			check("made " + name)
			if !slices.Equal(old, before) {
				w.t.Fatalf("an older list was changed: %v", old)
			}
			if i%3 == 0 {
				delete(want, name)
				if _, after, err := w.set.Delete([]byte(name)); err != nil || after.Wait() != nil {
					w.t.Fatal(err)
				}
				check("deleted " + name)
			}
		}
		if a, b := w.set.NamesUnsorted(), w.set.NamesUnsorted(); &a[0] != &b[0] {
			w.t.Error("two lists, and nothing has changed between")
		}
		w.restart()
		check("after a restart")
	})
}

// Without this a queue whose making was not durable when the journal failed is named for ever, though it is not there.
func TestNamesAfterTheStoreWasOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, fs: vfs.NewLossy(42), opts: machine.DefaultOptions()}
		failing := vfs.NewFailing(w.fs)
		cfg := w.config(failing)
		reopened := make(chan Report, 1)
		cfg.StoreReopened = func(r Report) { reopened <- r }
		set, _, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		w.set = set
		w.push("there", "a")
		failing.FailWhen(func(op vfs.Op) bool { return op.Kind == vfs.OpWrite && strings.Contains(op.Path, "/journal/") }, vfs.FailBefore, errors.New("EIO"))
		_, after, err := set.Push([]byte("new"), split([]string{"b"}))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(set.NamesUnsorted()); n != 2 {
			t.Fatalf("%d names, want 2: the answer waits for the journal", n)
		}
		if after.Wait() == nil {
			t.Fatal("the journal did not fail")
		}
		<-reopened
		if got := set.NamesUnsorted(); !slices.Equal(got, []string{"there"}) {
			t.Errorf("named: %v", got)
		}
		set.Close()
	})
}
