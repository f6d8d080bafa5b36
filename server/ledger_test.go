package server

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quail/commands"
)

// small are settings with which few clients reach the bound over all.
var small = []string{"max-push-bytes=512kb", "max-bulk-bytes=1mb", "query-buffer-bytes=1mb", "maxmemory-clients=4mb"}

// half is a command that lacks its last bytes, and those.
func half(size int) (head, rest string) {
	whole := cmd("ECHO", strings.Repeat("x", size))
	return whole[:len(whole)-3], whole[len(whole)-3:]
}

// ledgerWatch notes the most that connections held.
func ledgerWatch(s *Server) (highest func() int64) {
	var most atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				most.Store(max(most.Load(), s.ledger.bytes.Load()))
				runtime.Gosched()
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-done
		return most.Load()
	}
}

// Without this a crowd of clients, each within its own limits, takes all memory of the machine. Who has little to say is served meanwhile.
func TestAllClientsTogetherAreBounded(t *testing.T) {
	s := start(t, small...)
	bystander := s.dial(t)
	highest := ledgerWatch(s.Server)
	head, rest := half(900_000)
	var crowd sync.WaitGroup
	var served, dropped atomic.Int32
	for range 40 {
		c := s.dial(t)
		crowd.Go(func() {
			want := fmt.Sprintf("$%d\r\n", 900_000)
			if _, err := io.WriteString(c.conn, head); err == nil {
				io.WriteString(c.conn, rest)
			}
			if line, err := c.rd.ReadString('\n'); err == nil && line == want {
				served.Add(1)
			} else {
				dropped.Add(1)
			}
			c.conn.Close()
		})
	}
	idle := make(chan struct{})
	go func() { crowd.Wait(); close(idle) }()
	for over := false; !over; {
		bystander.send(cmd("ECHO", "still here"))
		bystander.expect("$10\r\nstill here\r\n")
		select {
		case <-idle:
			over = true
		default:
		}
	}
	if most := highest(); most > 5*mb+40*3*smallBytes { // the third for what is not told yet
		t.Errorf("all together held %d bytes", most)
	}
	if served.Load() == 0 {
		t.Error("nobody was served")
	}
	if n := s.ledger.evicted.Load(); uint64(dropped.Load()) > n {
		t.Errorf("%d dropped, %d counted", dropped.Load(), n)
	}
	bystander.conn.Close()
	eventually(t, "all is given back", func() bool { return s.ledger.bytes.Load() == 0 && !s.ledger.tight.Load() })
}

// crowded starts a server whose memory two clients have filled with commands that lack their last bytes, and a third that waits.
func crowded(t *testing.T) (s *running, full []*client, third *client, rest string) {
	s = start(t, "max-push-bytes=1mb", "max-bulk-bytes=1mb", "query-buffer-bytes=1mb", "maxmemory-clients=2mb")
	s.queues.set(func(q *fakeQueues) { q.discard = true })
	whole := cmd("QPUSH", "q", strings.Repeat("x", 900_000))
	head, rest := whole[:len(whole)-3], whole[len(whole)-3:]
	for i := range 2 {
		full = append(full, s.dial(t))
		full[i].send(head)
		eventually(t, "it has arrived", func() bool { return s.counters.input.Load() >= uint64((i+1)*len(head)) })
	}
	third = s.dial(t)
	go io.WriteString(third.conn, whole)
	eventually(t, "the third waits", func() bool { return s.ledger.waiting.Load() == 1 })
	return s, full, third, rest
}

// Waiting comes first: clients that would get along one after the other are all served.
func TestMemoryIsWaitedForBeforeAnyoneIsClosed(t *testing.T) {
	s, full, third, rest := crowded(t)
	for _, c := range full {
		c.send(rest)
	}
	for _, c := range append(full, third) {
		if line, err := c.rd.ReadString('\n'); err != nil || line[0] != ':' {
			t.Errorf("got %q, %v", line, err)
		}
	}
	if n := s.ledger.evicted.Load(); n != 0 {
		t.Errorf("%d clients closed: %s", n, s.log)
	}
	if info := (admin{s.Server}).Info(); info.ClientsBytesMax != 2*mb || info.ClientsWaiting != 0 {
		t.Errorf("INFO tells of %d bytes and %d waiting", info.ClientsBytesMax, info.ClientsWaiting)
	}
}

// Without this a client that waits for memory holds up a graceful stop, and CLIENT KILL cannot end it; or, if those who fill the memory
// never go on, it waits for ever.
func TestWaitForMemoryEnds(t *testing.T) {
	for _, how := range []string{"kill", "stop", "patience"} {
		t.Run(how, func(t *testing.T) {
			s, _, third, _ := crowded(t)
			switch how {
			case "kill":
				(admin{s.Server}).KillClients(func(commands.ClientInfo) bool { return true })
				eventually(t, "all went", func() bool { return len(s.all()) == 0 })
			case "patience":
				third.expect(":1\r\n")
				if n := s.ledger.evicted.Load(); n != 1 {
					t.Errorf("%d clients closed: %s", n, s.log)
				}
			}
		}) // start's cleanup stops the server, and fails if that does not end
	}
}

// A stranger goes before a client that has given its password, though it holds less.
func TestStrangersGoFirst(t *testing.T) {
	s := start(t, append([]string{"requirepass=secret"}, small...)...)
	known, stranger := s.dial(t), s.dial(t)
	known.send(cmd("AUTH", "secret"))
	known.expect("+OK\r\n")
	head, rest := half(900_000)
	known.send(head)
	some := "*10\r\n" + strings.Repeat("$16384\r\n"+strings.Repeat("x", 16384)+"\r\n", 9)
	stranger.send(some)
	eventually(t, "all has arrived", func() bool { return s.counters.input.Load() >= uint64(len(head)+len(some)) })
	s.evict()
	stranger.expectEnd("")
	known.send(rest)
	known.expect("$900000\r\n")
}

// Without this clients that once sent a lot, and are idle now, keep others from memory.
func TestIdleClientsGiveBack(t *testing.T) {
	s := start(t, small...)
	var idle []*client
	flood := strings.Repeat(cmd("ECHO", strings.Repeat("x", 4000)), 60)
	for range 30 {
		c := s.dial(t)
		idle = append(idle, c)
		for range 4 {
			go io.WriteString(c.conn, flood)
			io.CopyN(io.Discard, c.rd, int64(60*len("$4000\r\n")+60*4002))
		}
	}
	before := s.ledger.bytes.Load()
	s.cfg.Settings.Set([][2]string{{"maxmemory-clients", "2mb"}})
	head, rest := half(400_000)
	c := s.dial(t)
	c.send(head)
	c.send(rest)
	c.expect("$400000\r\n")
	for _, c := range idle {
		c.send("PING\r\n")
		c.expect("+PONG\r\n")
	}
	if n := s.ledger.evicted.Load(); n > 0 {
		t.Errorf("%d closed; idle ones held %d bytes", n, before)
	}
}

// A length that is only declared costs nothing, however many declare one.
func TestDeclaredLengthsCostNothing(t *testing.T) {
	for _, declared := range []string{"*1000000000\r\n", "*1048576\r\n", "*1\r\n$536870912\r\n", "*2\r\n$4\r\nECHO\r\n$16777216\r\n"} {
		for _, password := range []string{"", "secret"} {
			t.Run(fmt.Sprintf("%q password=%q", declared, password), func(t *testing.T) {
				s := start(t, "requirepass="+password)
				const clients = 1000
				watch := watchMemory()
				for range clients {
					s.dial(t).send(declared)
				}
				eventually(t, "all arrived", func() bool {
					return s.counters.input.Load() >= uint64(clients*len(declared))
				})
				watch.check(t)
			})
		}
	}
}

// Consumers of large replies that read nothing: each within output-buffer-bytes, all together within the bound.
func TestUnreadRepliesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		s := startOn(t, ln, small...)
		s.run = func(c *commands.Call) { c.W.Bulk(make([]byte, 100_000)) }
		for range 50 {
			go flood("", "*1\r\n$4\r\nLONG\r\n", mb)(ln.dial(t).conn)
			synctest.Wait()
			time.Sleep(tightEvery) // virtual; else no client would ever be closed
			synctest.Wait()
		}
		if held := s.ledger.bytes.Load(); held > 5*mb+200_000 {
			t.Errorf("%d bytes of replies wait", held)
		}
		for _, c := range s.all() {
			c.kill()
		}
		time.Sleep(killedTime) // for one of which a command is running
		synctest.Wait()
		if held := s.ledger.bytes.Load(); held != 0 {
			t.Errorf("%d bytes are counted with nobody there", held)
		}
		s.shutdown(t)
	})
}
