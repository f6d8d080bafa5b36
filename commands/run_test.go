package commands

import (
	"bytes"
	"errors"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"quail/commands/resp"
	"quail/queue"
)

// The client vanishes while its batch is chosen. Without Return the messages would wait out the lease and count as failed.
func TestBatchForAVanishedClientGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(2)
		w.queues.hold = true
		w.queues.batch = &queue.Batch{ID: 17}
		if reply, _ := w.run("QCONSUME", "orders", "w", "BLOCK", "0"); reply != "" {
			t.Fatalf("a parked call wrote %q", reply)
		}
		w.conn.gone = true
		w.queues.later()
		synctest.Wait()
		select {
		case batch := <-w.queues.returned:
			if batch != 17 {
				t.Errorf("batch %d went back", batch)
			}
		default:
			t.Error("the batch did not go back")
		}
	})
}

// A delivered batch must not go back as well: it would be delivered twice.
func TestDeliveredBatchStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(2)
		w.queues.batch = &queue.Batch{ID: 17}
		w.run("QCONSUME", "orders", "w")
		synctest.Wait()
		if len(w.queues.returned) != 0 {
			t.Error("the batch went back")
		}
	})
}

// A client that goes away must not stay in line: it would be handed the lock.
func TestVanishedClientLeavesTheLine(t *testing.T) {
	for _, words := range [][]string{{"QCONSUME", "orders", "w", "BLOCK", "0"}, {"QLOCK", "orders", "w", "BLOCK", "0"}} {
		w := newWorld(3)
		w.queues.hold = true
		w.run(words...)
		w.conn.parked.cancel()
		if w.queues.canceled != 1 {
			t.Errorf("%v was not taken back", words)
		}
	}
}

// DEL of two queues rests on two groups of the journal: both must be durable, and one failure is a failure.
func TestReplyWaitsForAllFutures(t *testing.T) {
	lost := errors.New("lost")
	for _, c := range []struct {
		name          string
		first, second error
	}{{"both", nil, nil}, {"first fails", lost, nil}, {"second fails", nil, lost}} {
		a, b := new(queue.Future), new(queue.Future)
		call := &Call{}
		call.After(nil)
		call.After(a)
		call.After(a)
		if call.Gate() != a {
			t.Fatal("one Future was joined with itself")
		}
		call.After(b)
		b.Complete(c.second)
		if call.Gate().Done() {
			t.Fatalf("%s: done before the first", c.name)
		}
		a.Complete(c.first)
		want := c.first
		if want == nil {
			want = c.second
		}
		if !call.Gate().Done() || call.Gate().Err() != want {
			t.Errorf("%s: done %v with %v", c.name, call.Gate().Done(), call.Gate().Err())
		}
	}
	done, open := new(queue.Future), new(queue.Future)
	done.Complete(nil)
	if join(done, open) != open || join(open, done) != open {
		t.Error("a durable Future is still waited for")
	}
}

// The server uses one Call for many commands: nothing of the last one may stay.
func TestResetForgets(t *testing.T) {
	w := newWorld(2)
	c := &Call{Args: [][]byte{[]byte("QLEN"), []byte("a")}, W: w.conn.w, Conn: w.conn, Env: w.env}
	Run(c)
	if c.Gate() == nil || c.Spec() != qlen {
		t.Fatal("QLEN did not wait for its Future")
	}
	c.Reset([][]byte{[]byte("PING")})
	if c.Gate() != nil || c.IsParked() || c.Spec() != nil {
		t.Error("something stayed")
	}
}

// The exact words, since Lettuce and others compare them; what is repeated of a client's arguments is bounded.
func TestUnknownCommandWording(t *testing.T) {
	w := newWorld(2)
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"foo"}, "unknown command 'foo', with args beginning with: "},
		{[]string{"Foo", "a", "b"}, "unknown command 'Foo', with args beginning with: 'a' 'b' "},
		{[]string{long}, "unknown command '" + long[:128] + "', with args beginning with: "},
		{[]string{"foo", long, "b"}, "unknown command 'foo', with args beginning with: '" + long[:128] + "' "},
		{[]string{"foo", long[:120], long}, "unknown command 'foo', with args beginning with: '" + long[:120] + "' '" + long[:5] + "' "},
		{[]string{"lpush", "q", "a"}, "unknown command 'lpush', with args beginning with: 'q' 'a'; QPUSH adds messages"},
		{[]string{"CLIENT", long}, "unknown subcommand '" + long[:128] + "'. Try CLIENT HELP."},
	} {
		if got, _ := w.run(c.words...); got != "-ERR "+c.want+"\r\n" {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

// Without this a hint sends people to a command that is not there.
func TestHintsNameCommands(t *testing.T) {
	for word, hint := range meant {
		if Lookup([]byte(word)) != nil {
			t.Errorf("%s has a hint and is a command", word)
		}
		for _, named := range regexp.MustCompile(`\bQ[A-Z]+\b`).FindAllString(hint, -1) {
			if Lookup([]byte(named)) == nil {
				t.Errorf("%s: the hint names %s", word, named)
			}
		}
	}
}

func TestInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(2)
		w.queues.names = []string{"a", "b"}
		w.run("PING")
		w.run("ECHO")
		w.run("NOPE")
		w.run("SELECT", "1")
		text, _ := w.run("INFO")
		for _, line := range []string{"# Server", "redis_version:7.4.0", "quail_version:0.1.0", "redis_mode:standalone", "run_id:abab", "\r\ngoroutines:",
			"uptime_in_seconds:90000", "uptime_in_days:1", "tcp_port:6389", "connected_clients:2", "blocked_clients:1", "maxclients:10000",
			"used_memory:3145728", "used_memory_human:3.00M", "used_memory_peak_human:5.00G", "used_memory_rss_human:2.00K", "loading:0",
			"journal_bytes:17", "total_commands_processed:2", "total_error_replies:3", "role:master", "connected_slaves:0",
			"cluster_enabled:0", "db0:keys=2,expires=0,avg_ttl=0"} {
			if !strings.Contains(text, line) {
				t.Errorf("INFO has no %q:\n%s", line, text)
			}
		}
		if strings.Contains(text, "cmdstat_") {
			t.Error("INFO has commandstats without being asked")
		}
		all, _ := w.run("INFO", "everything")
		for _, line := range []string{"cmdstat_ping:calls=1,rejected_calls=0,failed_calls=0", "cmdstat_echo:calls=0,rejected_calls=1,failed_calls=0",
			"cmdstat_select:calls=1,rejected_calls=0,failed_calls=1"} {
			if !strings.Contains(all, line) {
				t.Errorf("INFO everything has no %q", line)
			}
		}
		one, _ := w.run("INFO", "Replication", "nonsense")
		if !strings.Contains(one, "# Replication") || strings.Contains(one, "# Server") {
			t.Errorf("INFO replication: %s", one)
		}
		if none, _ := w.run("INFO", "nonsense"); none != "$0\r\n\r\n" {
			t.Errorf("INFO nonsense: %q", none)
		}
		w.run("CONFIG", "RESETSTAT")
		if stats, _ := w.run("INFO", "stats"); !strings.Contains(stats, "total_commands_processed:1\r\n") || w.settings.reset != 1 {
			t.Errorf("after RESETSTAT: %s", stats)
		}
		w.conn.SetProto(3)
		if text, _ := w.run("INFO", "cluster"); text != "=34\r\ntxt:# Cluster\r\ncluster_enabled:0\r\n\r\n" {
			t.Errorf("over RESP3: %q", text)
		}
	})
}

// QINFO's reply and its documentation come from one list; this holds them to it.
func TestInfoKeysAreDocumented(t *testing.T) {
	w := newWorld(3)
	w.queues.info = &queue.Info{}
	reply, _ := w.run("QINFO", "orders")
	if !strings.HasPrefix(reply, "%"+strconv.Itoa(len(qinfo.Fields))+"\r\n") {
		t.Errorf("the map has another size: %q", reply)
	}
	for _, f := range qinfo.Fields {
		if f.Name != strings.ToLower(f.Name) || strings.ContainsAny(f.Name, "_ ") || !strings.Contains(reply, "\r\n"+f.Name+"\r\n") {
			t.Errorf("key %q", f.Name)
		}
	}
}

// Whatever a client sends, it gets exactly one well-formed reply, or is parked, and nothing panics.
func FuzzRun(f *testing.F) {
	for _, s := range specs {
		words := strings.ReplaceAll(s.fullName, "|", "\x00")
		f.Add(words, true)
		f.Add(words+"\x00orders\x0017", false)
		for i := range s.Args {
			f.Add(words+"\x00orders\x00w\x00"+s.Args[i].Token+"\x0017", i%2 == 0)
		}
	}
	f.Add("QCONSUME\x00q\x00w\x00COUNT\x009007199254740991\x00COUNT", true)
	f.Fuzz(func(t *testing.T, line string, three bool) {
		proto := 2
		if three {
			proto = 3
		}
		w := newWorld(proto)
		w.queues.info = &queue.Info{}
		w.queues.names = []string{"a", "b"}
		words := strings.Split(line, "\x00")
		reply, _ := w.run(words...)
		if strings.EqualFold(words[0], "SHUTDOWN") || strings.EqualFold(words[0], "CLIENT") && reply == "" {
			return // these may have no reply
		}
		rest, err := skipReply([]byte(reply))
		if err != nil || len(rest) > 0 {
			t.Errorf("%q gets %q: %v, and %d bytes more", words, reply, err, len(rest))
		}
		if len(w.queues.calls) > 0 && strings.HasPrefix(reply, "-ERR") {
			t.Errorf("%q was refused with %q after it had asked the queues %v", words, reply, w.queues.calls)
		}
	})
}

// skipReply reads one reply and returns what follows.
func skipReply(b []byte) (rest []byte, err error) {
	line, rest, ok := bytes.Cut(b, []byte("\r\n"))
	if !ok || len(line) == 0 {
		return nil, errors.New("no line")
	}
	kind, text := line[0], string(line[1:])
	switch kind {
	case '+', '-':
		if strings.ContainsAny(text, "\r\n") {
			return nil, errors.New("a line break in a line")
		}
		return rest, nil
	case '_':
		return rest, nil
	case ':':
		_, err := strconv.ParseInt(text, 10, 64)
		return rest, err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n == -1 {
		return rest, err
	}
	switch kind {
	case '$', '=':
		if len(rest) < n+2 || string(rest[n:n+2]) != "\r\n" {
			return nil, errors.New("a bulk string of another length")
		}
		return rest[n+2:], nil
	case '%':
		n *= 2
	case '*', '~':
	default:
		return nil, errors.New("no such kind of reply: " + string(kind))
	}
	for range n {
		if rest, err = skipReply(rest); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// quickQueues does nothing, so that only what the command itself costs is measured.
type quickQueues struct{ *fakeQueues }

func (quickQueues) Push([]byte, [][]byte) (uint64, *queue.Future, error)     { return 1 << 40, nil, nil }
func (quickQueues) Ack([]byte, uint64, []uint64) (int, *queue.Future, error) { return 10, nil, nil }

func quickCall(words ...string) *Call {
	w := newWorld(3)
	w.env.Queues = quickQueues{w.queues}
	c := &Call{W: &resp.Writer{Proto: 3, Buf: make([]byte, 0, 1<<16)}, Conn: w.conn, Env: w.env}
	for _, word := range words {
		c.Args = append(c.Args, []byte(word))
	}
	return c
}

// At hundreds of thousands of pushes a second every allocation here is garbage that shows as latency.
func TestHotCommandsDoNotAllocate(t *testing.T) {
	for _, words := range [][]string{{"QPUSH", "orders", "hello"}, {"qpush", "orders", "a", "b", "c"}, {"QACK", "orders", "17"}, {"PING"}} {
		c := quickCall(words...)
		args := c.Args
		if n := testing.AllocsPerRun(200, func() {
			c.Reset(args)
			c.W.Buf = c.W.Buf[:0]
			Run(c)
		}); n != 0 {
			t.Errorf("%v allocates %v times", words, n)
		}
	}
}

// Without this a reply with large bodies is copied again and again while it grows.
func TestPeekMakesRoomAtOnce(t *testing.T) {
	w := newWorld(3)
	body := make([]byte, 64<<10)
	for range 100 {
		w.queues.found = append(w.queues.found, queue.Found{Message: queue.Message{Body: body}})
	}
	c := &Call{Args: [][]byte{[]byte("QPEEK"), []byte("orders"), []byte("COUNT"), []byte("100")}, W: &resp.Writer{Proto: 3}, Conn: w.conn, Env: w.env}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	Run(c)
	runtime.ReadMemStats(&after)
	if took := int(after.TotalAlloc - before.TotalAlloc); took > len(c.W.Buf)*3/2 {
		t.Errorf("%d bytes allocated for a reply of %d", took, len(c.W.Buf))
	}
}

func benchmark(b *testing.B, words ...string) {
	c := quickCall(words...)
	args := c.Args
	b.ReportAllocs()
	for b.Loop() {
		c.Reset(args)
		c.W.Buf = c.W.Buf[:0]
		Run(c)
	}
}

func BenchmarkQPush(b *testing.B) { benchmark(b, "QPUSH", "orders", strings.Repeat("x", 100)) }
func BenchmarkQAck(b *testing.B)  { benchmark(b, "QACK", "orders", "17") }
func BenchmarkQAckIDs(b *testing.B) {
	benchmark(b, "QACK", "orders", "17", "1001", "1002", "1003", "1004")
}

func BenchmarkLookup(b *testing.B) {
	name := []byte("qpush")
	b.ReportAllocs()
	for b.Loop() {
		Lookup(name)
	}
}

func BenchmarkWriteBatch(b *testing.B) {
	batch := &queue.Batch{ID: 17, DeadlineUnixMillis: 1700000000000}
	for i := range 10 {
		batch.Messages = append(batch.Messages, queue.Message{ID: uint64(1000 + i), Body: make([]byte, 100), Attempt: 1, PushedMillis: 1700000000000})
	}
	w := &resp.Writer{Proto: 3}
	b.ReportAllocs()
	for b.Loop() {
		w.Buf = w.Buf[:0]
		writeBatch(w, batch)
	}
}

// Before the data directory is open nobody knows which queues there are. Without this a client hears that its queue does not exist, or that
// there are none; and one that Redis would answer while it loads, such as ioredis with INFO, does not connect.
func TestLoading(t *testing.T) {
	w := newWorld(2)
	w.queues.starting = &queue.Error{Code: "LOADING", Message: "the server is starting"}
	for _, words := range [][]string{{"QPUSH", "q", "a"}, {"QCONSUME", "q", "c", "BLOCK", "0"}, {"QLIST"}, {"DBSIZE"}, {"SCAN", "0"}, {"KEYS", "*"},
		{"EXISTS", "q"}, {"TYPE", "q"}, {"DEL", "q"}, {"QLEN", "q"}, {"QINFO", "q"}, {"QBACKUP", "/copy"}} {
		if reply, _ := w.run(words...); !strings.HasPrefix(reply, "-LOADING the server is starting") {
			t.Errorf("%v answers %q", words, reply)
		}
	}
	if len(w.queues.calls) > 0 {
		t.Errorf("the queues were asked: %q", w.queues.calls)
	}
	for _, words := range [][]string{{"PING"}, {"HELLO", "3"}, {"HELLO", "2"}, {"ECHO", "x"}, {"SELECT", "0"}, {"CLIENT", "ID"}, {"COMMAND", "COUNT"}, {"TIME"}} {
		if reply, _ := w.run(words...); strings.HasPrefix(reply, "-") {
			t.Errorf("%v answers %q", words, reply)
		}
	}
	text, _ := w.run("INFO", "persistence")
	for _, line := range []string{"loading:1\r\n", "async_loading:0\r\n", "loading_eta_seconds:1\r\n", "loading_start_time:"} {
		if !strings.Contains(text, line) {
			t.Errorf("INFO has no %q:\n%s", line, text)
		}
	}
	w.queues.starting, w.queues.unloaded = nil, 3
	text, _ = w.run("INFO", "persistence")
	for _, line := range []string{"loading:0\r\n", "async_loading:1\r\n", "loading_queues:3\r\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("INFO has no %q:\n%s", line, text)
		}
	}
}

// What Quail alone has, nobody knows by heart. What Redis has must read as there.
func TestWrongNumberOfArgumentsShowsTheSyntax(t *testing.T) {
	w := newWorld(2)
	for line, want := range map[string]string{
		"QCONSUME orders":     "'qconsume' command; " + qconsume.Syntax(),
		"qlen":                "'qlen' command; QLEN queue",
		"QLEN a b":            "'qlen' command; QLEN queue",
		"QCONFIG":             "'qconfig' command; QCONFIG GET queue [pattern], or QCONFIG SET queue option value [option value ...], or QCONFIG HELP",
		"QCONFIG SET":         "'qconfig|set' command; QCONFIG SET queue option value [option value ...]",
		"ECHO":                "'echo' command",
		"CONFIG":              "'config' command",
		"CLIENT SETNAME":      "'client|setname' command",
		"SLOWLOG GET 1 2 3 4": "'slowlog|get' command",
		"LLEN":                "'llen' command",
	} {
		if reply, _ := w.run(strings.Fields(line)...); reply != "-ERR wrong number of arguments for "+want+"\r\n" {
			t.Errorf("%s: %q", line, reply)
		}
	}
	page := Page()
	for _, s := range specs {
		if s.isOwn() != (s.Name[0] == 'Q' && s.Name != "QUIT" || s.parent == qconfig) || s.isOwn() && !strings.Contains(page, "`"+s.Syntax()+"`") {
			t.Errorf("%s: %q", s.FullName(), s.Syntax())
		}
	}
}
