package queue

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quail/queue/machine"
)

// Without this a consumer of a backlog stands still each time that the disk is asked for more; and if a lock were held meanwhile, so
// would everybody else.
func TestBacklogIsReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		const total = 3000
		for n := 0; n < total; n += 10 {
			var bodies []string
			for i := range 10 {
				bodies = append(bodies, fmt.Sprintf("%d %s", n+i, strings.Repeat("x", 1000)))
			}
			w.push("orders", bodies...)
		}
		if err := w.set.Close(); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex // guards reads and held
		reads, held, holding := 0, []func(){}, false
		cfg := w.config(w.fs)
		cfg.Background = func(who string, f func()) {
			mu.Lock()
			defer mu.Unlock()
			if strings.HasPrefix(who, "read ") {
				reads++
				if holding {
					held = append(held, f)
					return
				}
			}
			go f()
		}
		set, _, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		w.set = set
		r := blocking("orders", "one", 0)
		r.Count, r.Bytes = 10, 1<<20
		next := 0
		take := func() {
			t.Helper()
			b, err := w.pull(r)
			if err != nil || b == nil || len(b.Messages) != 10 {
				t.Fatalf("batch from message %d on: %v, %v", next, b, err)
			}
			for _, m := range b.Messages {
				if n, _, _ := strings.Cut(string(m.Body), " "); n != fmt.Sprint(next) {
					t.Fatalf("message %s, want %d", n, next)
				}
				next++
			}
			w.ack("orders", b.ID)
		}
		take()
		synctest.Wait()
		if reads != 2 {
			t.Fatalf("after the first batch there were %d reads, want the one it waited for and the next", reads)
		}
		mu.Lock()
		holding = true
		mu.Unlock()
		for size := 0; size < 2*reachBytes-reachBytes/4; size += 10 * 1050 { // all of it is in memory
			take()
		}
		if len(held) != 1 {
			t.Fatalf("%d reads are under way, want one", len(held))
		}
		w.push("orders", "behind all") // none of these waits for the disk
		w.push("other", "one")
		w.expect(request("other", "two"), "one@1")
		mu.Lock()
		holding = false
		go held[0]()
		mu.Unlock()
		for next < total {
			take()
		}
		w.expect(request("orders", "one"), "behind all@1")
		q := w.set.find([]byte("orders"))
		synctest.Wait()
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.reach.size != 0 || q.reach.raws != nil {
			t.Errorf("%d bytes are counted of %d records at the end", q.reach.size, len(q.reach.raws))
		}
	})
}

// Without this a server with thousands of backlogs keeps a megabyte for each, for as long as its consumer does not come back for the rest.
func TestReadingAheadIsBoundedForAllQueuesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		const queues, each, most = 40, 60, 512 << 10
		for n := range queues {
			for i := 0; i < each; i += 10 {
				var bodies []string
				for j := range 10 {
					bodies = append(bodies, fmt.Sprintf("%d %s", i+j, strings.Repeat("x", 1000)))
				}
				w.push(fmt.Sprint("orders", n), bodies...)
			}
		}
		if err := w.set.Close(); err != nil {
			t.Fatal(err)
		}
		w.open()
		w.set.aheads.bytesMax = most
		for i := range each { // all queues in turn, so that each forgets what the others need the room for
			for n := range queues {
				name := fmt.Sprint("orders", n)
				r := blocking(name, "one", 0)
				r.Count = 1
				b, err := w.pull(r)
				if err != nil || b == nil || len(b.Messages) != 1 || !strings.HasPrefix(string(b.Messages[0].Body), fmt.Sprintf("%d ", i)) {
					t.Fatalf("message %d of queue %s: %v, %v", i, name, b, err)
				}
				w.ack(name, b.ID)
			}
			synctest.Wait()
			kept := 0
			for n := range queues {
				q := w.set.find([]byte(fmt.Sprint("orders", n)))
				q.mu.Lock()
				kept += q.reach.size
				q.mu.Unlock()
			}
			if kept > most || kept != w.set.aheads.bytes {
				t.Fatalf("after message %d of each the queues keep %d bytes, %d are counted, want at most %d", i, kept, w.set.aheads.bytes, most)
			}
		}
		for n := range queues {
			if existed, _, err := w.set.Delete([]byte(fmt.Sprint("orders", n))); err != nil || !existed {
				t.Fatal(existed, err)
			}
		}
		if a := &w.set.aheads; a.bytes != 0 || a.queue.Len() != 0 {
			t.Errorf("%d bytes of %d queues are counted that are deleted", a.bytes, a.queue.Len())
		}
	})
}

// Without this a hundred pulls of backlogs put a hundred goroutines, each with milliseconds of work, before everybody else's command.
func TestFewReadAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.end()
		w.push("orders", "a")
		if err := w.set.Close(); err != nil {
			t.Fatal(err)
		}
		cfg := w.config(w.fs)
		cfg.Background = nil
		set, _, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		w.set = set
		var ends []func()
		for range cap(set.reads) { // others read
			ends = append(ends, set.reads.begin())
		}
		var got *Batch
		var looked []Found
		set.Consume(request("orders", "one"), func(b *Batch, _ *Future, _ error) { got = b })
		go func() { looked, _, _ = peek(set, []byte("orders"), machine.Gone, 0, 1) }()
		synctest.Wait()
		if got != nil || looked != nil {
			t.Errorf("a log was read beside %d others", cap(set.reads))
		}
		ends[0]()
		synctest.Wait()
		if got == nil || len(got.Messages) != 1 || len(looked) != 1 {
			t.Errorf("got %v and %v when one of the others was done", got, looked)
		}
		for _, end := range ends {
			end() // the first for the second time
		}
		if len(set.reads) != 0 {
			t.Errorf("%d still count as reading", len(set.reads))
		}
	})
}

// Without this one read that the disk does not answer keeps everybody from reading.
func TestAReadThatHangsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReads(&Config{})
		var hanging []func()
		for range cap(r) {
			hanging = append(hanging, r.begin())
		}
		began := time.Now()
		end := r.begin()
		if waited := time.Since(began); waited != readTurn {
			t.Errorf("another read waited %v, want %v", waited, readTurn)
		}
		for _, one := range hanging {
			one()
		}
		end()
		if len(r) != 0 {
			t.Errorf("%d count as reading at the end", len(r))
		}
	})
}
