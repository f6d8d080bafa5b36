package queue

// Looking into a queue in which very much waits.

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"quail/queue/machine"
)

// pushWaiting pushes so many delayed messages, the last of which are due first: the order in which a look has most to do.
func (w *world) pushWaiting(queue string, count int) {
	w.t.Helper()
	const together = 500
	for i := 0; i < count; i += together {
		bodies := make([][]byte, together)
		for k := range bodies {
			bodies[k] = []byte(fmt.Sprint(i + k))
		}
		_, f, err := w.set.PushWith([]byte(queue), bodies, PushOptions{HasDelay: true, DelayMillis: int64(1e9 - i)})
		if err == nil {
			err = f.Wait()
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// Without this a few clients that may only read stop a queue with millions of delayed messages, and fill the memory: one message was found by
// gathering all of them.
func TestALookKeepsWhatItShows(t *testing.T) {
	const waiting, bytesMax = 50_000, 2 << 20
	inWorld(t, 60, func(w *world) {
		w.pushWaiting("q", waiting)
		time.Sleep(time.Minute) // virtual: what is behind the pushes is done
		synctest.Wait()
		var before, after runtime.MemStats
		for _, state := range []machine.State{machine.Gone, machine.Delayed, machine.Retrying, machine.Leased, machine.Ready} {
			runtime.ReadMemStats(&before)
			list, _, err := peek(w.set, []byte("q"), state, 0, 1)
			runtime.ReadMemStats(&after)
			want := 0
			if state == machine.Gone || state == machine.Delayed {
				want = 1
			}
			if err != nil || len(list) != want {
				t.Fatalf("%s: %d messages, %v", state, len(list), err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > bytesMax {
				t.Errorf("%s: to find a message took %d KB", state, took>>10)
			}
		}
	})
}

// What is found step by step is all there is, once and by rising id.
func TestALookFindsAllThatWaits(t *testing.T) {
	const waiting = 2*chooseStep + 500
	inWorld(t, 61, func(w *world) {
		w.pushWaiting("q", waiting)
		from, shown := uint64(0), 0
		for {
			list, _, err := peek(w.set, []byte("q"), machine.Delayed, from, 3_333)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range list {
				if string(f.Body) != fmt.Sprint(shown) {
					t.Fatalf("message %d is %q", shown, f.Body)
				}
				shown, from = shown+1, f.ID+1
			}
			if len(list) == 0 {
				break
			}
		}
		if shown != waiting {
			t.Fatalf("%d messages are shown of %d", shown, waiting)
		}
		// None of them was moved here, so the move looks at each and takes none, and then all.
		if n, f, err := w.set.Redrive([]byte("q"), nil, 0); n != 0 || err != nil || f != nil && f.Wait() != nil {
			t.Fatalf("%d messages are moved back, %v", n, err)
		}
		if n, f, err := w.set.Redrive([]byte("q"), []byte("other"), 0); n != waiting || err != nil || f.Wait() != nil {
			t.Fatalf("%d messages are moved, %v", n, err)
		}
	})
}
