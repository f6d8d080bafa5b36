package reply

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fakeGate opens when the test says so.
type fakeGate struct {
	mu      sync.Mutex // guards what follows
	done    bool
	err     error
	waiters []Waiter
	asked   int
}

func (g *fakeGate) Done() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.done
}

func (g *fakeGate) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

func (g *fakeGate) Notify(w Waiter) {
	g.mu.Lock()
	g.asked++
	if !g.done {
		g.waiters = append(g.waiters, w)
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	w.Durable()
}

func (g *fakeGate) open(err error) {
	g.mu.Lock()
	if g.done {
		g.mu.Unlock()
		return
	}
	g.done, g.err = true, err
	waiters := g.waiters
	g.waiters = nil
	g.mu.Unlock()
	for _, w := range waiters {
		w.Durable()
	}
}

// fakeSink takes what it is allowed to take.
type fakeSink struct {
	mu     sync.Mutex // guards what follows
	cond   sync.Cond
	got    bytes.Buffer
	writes int
	room   int // bytes that are taken without waiting
	err    error
}

func newSink(room int) *fakeSink {
	s := &fakeSink{room: room}
	s.cond.L = &s.mu
	return s
}

func (s *fakeSink) take(p []byte) (int, error) {
	n := min(len(p), s.room)
	s.room -= n
	s.got.Write(p[:n])
	if n > 0 {
		s.writes++
	}
	return n, s.err
}

func (s *fakeSink) TryWrite(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.take(p)
}

func (s *fakeSink) Write(p []byte, timeout time.Duration) (total int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > total && err == nil {
		var n int
		if n, err = s.take(p[total:]); n == 0 && err == nil {
			s.cond.Wait()
		}
		total += n
	}
	return total, err
}

func (s *fakeSink) allow(room int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room, s.err = room, err
	s.cond.Broadcast()
}

func (s *fakeSink) text() (string, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.String(), s.writes
}

const plenty = 1 << 30

type fixture struct {
	*Stream
	sink    *fakeSink
	senders *Senders
	failure atomic.Value
}

func newFixture(t testing.TB, room int) *fixture {
	f := &fixture{sink: newSink(room), senders: NewSenders(2)}
	f.Stream = NewStream(Config{
		Sink:         f.sink,
		Sender:       f.senders,
		WriteTimeout: func() time.Duration { return time.Second },
		Refusal:      func(dst []byte, err error) []byte { return append(dst, "-"+err.Error()+"\n"...) },
		Failed: func(err error) {
			if !f.failure.CompareAndSwap(nil, err.Error()) {
				t.Error("failed twice")
			}
		},
	})
	return f
}

// add commits one reply.
func (f *fixture) add(text string, gate Gate) error {
	_, err := f.Commit([]byte(text), []Slot{{Gate: gate, Bytes: len(text), Replies: 1}})
	return err
}

// expect compares what the client got, and in how many writes unless that is -1.
func (f *fixture) expect(t *testing.T, want string, writes int) {
	t.Helper()
	synctest.Wait()
	if got, n := f.sink.text(); got != want || writes >= 0 && n != writes {
		t.Fatalf("got %q in %d writes, want %q in %d", got, n, want, writes)
	}
}

// Without this a PING behind a push would be answered first, and the client would take it for the push's answer.
func TestOrderAndOneWriteAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, plenty)
		defer f.senders.Stop()
		one, two := new(fakeGate), new(fakeGate)
		f.add("a", nil)
		for range 100 {
			f.add("b", one)
		}
		f.add("c", nil)
		f.add("d", two)
		f.add("e", one)
		f.Flush()
		f.expect(t, "a", 1)
		two.open(nil)
		f.expect(t, "a", 1)
		one.open(nil)
		f.expect(t, "a"+strings.Repeat("b", 100)+"cde", 2)
		if one.asked+two.asked != 1 {
			t.Errorf("asked %d and %d times to be told", one.asked, two.asked)
		}
	})
}

// Without this a client would take a lost push for a durable one.
func TestFailedGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, plenty)
		defer f.senders.Stop()
		bad, good := new(fakeGate), new(fakeGate)
		f.add("first ", nil)
		f.add("lost", bad)
		f.add("lost too", bad)
		f.add("ping ", nil)
		f.add("kept ", good)
		f.add("lost as well", bad)
		good.open(nil)
		bad.open(errors.New("disk"))
		f.expect(t, "first -disk\n-disk\nping kept -disk\n", 1)
	})
}

// Without this a client that does not read would fill the memory, or hold up the goroutine that tells it.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 3)
		defer f.senders.Stop()
		gate, room := new(fakeGate), Room{UnsentBytes: 100, HeldBytes: plenty}
		f.add("abcdef", gate)
		gate.open(nil) // returns although the client takes three bytes only
		f.expect(t, "abc", 1)
		f.add(strings.Repeat("x", 900), nil)
		if bytes, _ := f.Pending(); bytes != 903 {
			t.Errorf("pending: %d", bytes)
		}
		if f.HasRoom(room) {
			t.Error("room for more")
		}
		through := make(chan error, 1)
		go func() { through <- f.WaitRoom(func() Room { return room }) }()
		for range 2 {
			synctest.Wait()
			select {
			case err := <-through:
				t.Fatalf("did not wait: %v", err)
			default:
			}
			f.sink.allow(400, nil)
		}
		synctest.Wait()
		f.sink.allow(150, nil)
		if err := <-through; err != nil {
			t.Error(err)
		}
		f.sink.allow(0, nil)
		f.add(strings.Repeat("x", 200), nil)
		go func() { through <- f.WaitRoom(func() Room { return room }) }()
		synctest.Wait()
		f.sink.allow(0, net.ErrClosed)
		if err := <-through; !errors.Is(err, net.ErrClosed) {
			t.Errorf("waited for a client that is gone: %v", err)
		}
	})
}

// Without this what was sent long ago would stay in the memory of a client that is always a little behind.
func TestAlwaysBehind(t *testing.T) {
	for _, size := range []int{100, 1000, chunkBytes / 2, 3 * chunkBytes} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t, 0)
			defer f.senders.Stop()
			var want strings.Builder
			add := func(i int) {
				piece := strings.Repeat(string(rune('a'+i%26)), size)
				want.WriteString(piece)
				f.add(piece, nil)
			}
			add(0)
			f.Flush()
			for i := range 40 * chunkBytes / size {
				add(i)
				f.sink.allow(size, nil) // the other piece stays
				synctest.Wait()
			}
			f.mu.Lock()
			memory := cap(f.buf)
			for _, chunk := range f.more {
				memory += cap(chunk)
			}
			f.mu.Unlock()
			if memory > 4*max(size, chunkBytes) {
				t.Errorf("%d bytes for replies of %d", memory, size)
			}
			f.sink.allow(plenty, nil)
			if err := f.Drain(); err != nil {
				t.Fatal(err)
			}
			if got, _ := f.sink.text(); got != want.String() {
				t.Errorf("%d of %d bytes came, or others", len(got), want.Len())
			}
		})
	}
}

func TestSlowReaderCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 3)
		defer f.senders.Stop()
		f.add("abcdef", nil)
		f.Flush()
		f.add("ghi", nil)
		f.Flush()
		f.expect(t, "abc", 1)
		f.sink.allow(plenty, nil)
		if err := f.Drain(); err != nil {
			t.Fatal(err)
		}
		f.expect(t, "abcdefghi", -1)
	})
}

// Without this a reply longer than the limit, such as one large batch, could never be sent.
func TestOneLongReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, plenty)
		defer f.senders.Stop()
		long := strings.Repeat("x", 100_000)
		if err := f.add(long, nil); err != nil {
			t.Fatal(err)
		}
		f.Flush()
		f.expect(t, long, 1)
		if cap(f.buf) > chunkBytes {
			t.Errorf("%d bytes kept", cap(f.buf))
		}
	})
}

// Without this commands that come faster than the disk is would fill the memory with replies that wait for it.
func TestWaitForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, plenty)
		defer f.senders.Stop()
		gate := new(fakeGate)
		f.add(strings.Repeat("x", 10_000), gate)
		through := make(chan error, 1)
		go func() { through <- f.WaitRoom(func() Room { return Room{UnsentBytes: plenty, HeldBytes: 5000} }) }()
		synctest.Wait()
		select {
		case <-through:
			t.Fatal("did not wait")
		default:
		}
		gate.open(nil)
		if err := <-through; err != nil {
			t.Fatal(err)
		}
	})
}

// Without this the goroutine of a client that is gone would wait for ever.
func TestWriteErrorWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 0)
		defer f.senders.Stop()
		never := new(fakeGate)
		f.add("abc", nil)
		f.add("def", never)
		drained := make(chan error, 1)
		go func() { drained <- f.Drain() }()
		synctest.Wait()
		f.sink.allow(0, errors.New("reset"))
		if err := <-drained; err == nil || !strings.Contains(err.Error(), "reset") {
			t.Errorf("got %v", err)
		}
		never.open(nil) // must not harm
		if err := f.add("x", nil); err == nil {
			t.Error("a failed stream took a reply")
		}
	})
}

// Whatever gates, pieces and flushes: the client gets every reply once, in order, or the refusal in its place.
func TestRandomGates(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			f := newFixture(t, plenty)
			defer f.senders.Stop()
			var want strings.Builder
			var gates []*fakeGate
			var failing []bool
			for i := range 300 {
				if len(gates) == 0 || random.IntN(5) == 0 {
					gates = append(gates, new(fakeGate))
					failing = append(failing, random.IntN(4) == 0)
				}
				text := fmt.Sprintf("%d;", i)
				if random.IntN(60) == 0 { // over the end of a chunk, or one of its own
					text += strings.Repeat(text, random.IntN(chunkBytes)/len(text))
				}
				switch k := random.IntN(len(gates) + 1); {
				case k == len(gates):
					f.add(text, nil)
					want.WriteString(text)
				case failing[k]:
					f.add(text, gates[k])
					want.WriteString("-disk\n")
				default:
					f.add(text, gates[k])
					want.WriteString(text)
				}
				if random.IntN(4) == 0 {
					f.sink.allow(random.IntN(1+random.IntN(2*chunkBytes)), nil)
					f.Flush()
				}
				if random.IntN(10) == 0 {
					openOne(random, gates, failing)
				}
			}
			f.sink.allow(plenty, nil)
			for i, gate := range gates {
				go gate.open(outcome(failing[i]))
			}
			if err := f.Drain(); err != nil {
				t.Fatal(err)
			}
			if got, _ := f.sink.text(); got != want.String() {
				t.Fatalf("seed %d:\ngot  %q\nwant %q", seed, got, want.String())
			}
		})
	}
}

func openOne(random *rand.Rand, gates []*fakeGate, failing []bool) {
	i := random.IntN(len(gates))
	go gates[i].open(outcome(failing[i]))
}

func outcome(failing bool) error {
	if failing {
		return errors.New("disk")
	}
	return nil
}

// A real socket whose other end does not read: TryWrite must come back, Write must give up.
func TestSocketSink(t *testing.T) {
	client, server := socketPair(t)
	sink := NewSink(server)
	chunk := make([]byte, 1<<20)
	total := 0
	for {
		n, err := sink.TryWrite(chunk)
		if err != nil {
			t.Fatal(err)
		}
		total += n
		if n < len(chunk) {
			break
		}
	}
	if _, err := sink.Write(chunk, time.Millisecond); err == nil {
		t.Error("a client that does not read took everything")
	}
	server.Close()
	if n, _ := io.Copy(io.Discard, client); n < int64(total) {
		t.Errorf("%d of %d bytes came", n, total)
	}
	if _, err := sink.TryWrite(chunk); err == nil {
		t.Error("wrote to a closed connection")
	}
}

func socketPair(t testing.TB) (client, server net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// One reply: committed, held by a gate, sent when it opens.
func BenchmarkCommit(b *testing.B) {
	for _, pipeline := range []int{1, 16, 1000} {
		b.Run(fmt.Sprintf("pipeline=%d", pipeline), func(b *testing.B) {
			f := newFixture(b, 0)
			f.cfg.Sink = nullSink{}
			buf := make([]byte, 0, 4096)
			slots := make([]Slot, 1)
			gate := new(fakeGate)
			b.ReportAllocs()
			for b.Loop() {
				gate.done = false
				for range pipeline {
					slots[0] = Slot{Gate: gate, Bytes: 6, Replies: 1}
					buf, _ = f.Commit(append(buf, ":1234\n"...), slots)
				}
				gate.done = true
				f.Durable()
				f.waiting = false
				gate.waiters = gate.waiters[:0]
			}
			f.Drain()
			f.senders.Stop()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(pipeline), "ns/reply")
		})
	}
}

type nullSink struct{}

func (nullSink) TryWrite(p []byte) (int, error)               { return len(p), nil }
func (nullSink) Write(p []byte, _ time.Duration) (int, error) { return len(p), nil }
