package queue

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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
		for size := 0; size < 2*readAheadBytes-readAheadBytes/4; size += 10 * 1050 { // all of it is in memory
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
