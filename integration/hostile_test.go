//go:build linux

package integration

// Bytes that no honest client sends, on the real binary, before and after AUTH. Each row was seen to kill, stall or bloat a
// server built on redcon alone. Whatever comes: the process lives, its memory stays within bounds, and another client's
// PINGs go on.

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

const (
	memoryAboveIdleMax = 64 << 20
	pingSlowestMax     = 10 * time.Second // of the other client, on two cores that all other tests keep busy; a few milliseconds are usual
	floodBytes         = 600 << 20        // what an attack tries to send before it gives up
	hostilePassword    = "open sesame"
)

// attack is one row. It has the raw connection, and says what it expects with t.
type attack struct {
	name   string
	before bool // makes sense before AUTH
	after  bool // and after it
	run    func(t *testing.T, w *wire)
}

// wire is a bare connection.
type wire struct {
	net.Conn
	in     *bufio.Reader
	s      *server
	authed bool
}

// dialWire connects without a word, or with a password.
func dialWire(t *testing.T, s *server, authenticate bool) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w := &wire{Conn: conn, in: bufio.NewReader(conn), s: s, authed: authenticate}
	deadline := 2 * replyTimeout
	if longRun { // eight million writes of a byte each
		deadline *= 5
	}
	w.SetDeadline(time.Now().Add(deadline))
	if authenticate {
		w.send(t, "*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n", len(hostilePassword), hostilePassword)
		w.expect(t, "+OK")
	}
	return w
}

// send writes all of it, in one packet if it is small.
func (w *wire) send(t *testing.T, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(w, format, args...); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// expect reads lines that begin like this.
func (w *wire) expect(t *testing.T, prefixes ...string) {
	t.Helper()
	for _, prefix := range prefixes {
		line, err := w.in.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, prefix) {
			t.Fatalf("got %q, %v; want %q", line, err, prefix)
		}
	}
}

// pong expects the answer to PING of someone who may or may not run it.
func (w *wire) pong() string {
	if w.authed {
		return "+PONG"
	}
	return "-NOAUTH "
}

// expectEnd reads until the server closes, and returns what came before.
func (w *wire) expectEnd(t *testing.T) string {
	t.Helper()
	rest, err := io.ReadAll(io.LimitReader(w.in, 1<<20))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection is still open; it said %q", rest)
	}
	return string(rest)
}

// expectProtocolError wants an error in Redis's wording, and then the end.
func (w *wire) expectProtocolError(t *testing.T, wording string) {
	t.Helper()
	rest := w.expectEnd(t)
	if !strings.HasPrefix(rest, "-ERR Protocol error: "+wording) {
		t.Errorf("got %q, want a protocol error: %s", rest, wording)
	}
}

// flood sends a piece again and again until the server has had enough, and returns how much it took.
func (w *wire) flood(t *testing.T, piece []byte) (sent int64) {
	t.Helper()
	for sent < floodBytes {
		n, err := w.Write(piece)
		sent += int64(n)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("the server neither takes more than %d bytes nor closes", sent)
			}
			return sent
		}
	}
	return sent
}

// floodUnread floods without reading any reply. A server may then take no more, if it closes when nothing moves; the bound
// is on its memory.
func (w *wire) floodUnread(t *testing.T, piece []byte) (sent int64, stalled bool) {
	t.Helper()
	for sent < floodBytes {
		w.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := w.Write(piece)
		sent += int64(n)
		if err != nil {
			return sent, errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
	return sent, false
}

var attacks = []attack{
	{"a bulk of 2^63-1 bytes", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*1\r\n$9223372036854775807\r\n")
		w.expectEnd(t)
	}},
	{"a negative bulk", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*1\r\n$-1\r\n")
		w.expectProtocolError(t, "invalid bulk length")
	}},
	{"a bulk length that is no number", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*1\r\n$4x\r\nPING\r\n")
		w.expectProtocolError(t, "invalid bulk length")
	}},
	{"9000000000000000000 arguments", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*9000000000000000000\r\n")
		w.expectEnd(t)
	}},
	{"a billion arguments", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*1000000000\r\n")
		w.expectEnd(t)
	}},
	{"a billion arguments, and the client leaves", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*1000000000\r\n")
		w.Close()
		expectIdle(t, w.s)
	}},
	{"arguments without a dollar", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*1\r\nPING\r\n")
		w.expectProtocolError(t, "expected '$', got 'P'")
	}},
	{"600 MB without a line break", true, true, func(t *testing.T, w *wire) {
		if sent := w.flood(t, bytes.Repeat([]byte("x"), 1<<20)); sent >= floodBytes {
			t.Errorf("the server took all %d bytes", sent)
		}
	}},
	{"600 MB inside a length", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*")
		if sent := w.flood(t, bytes.Repeat([]byte("1"), 1<<20)); sent >= floodBytes {
			t.Errorf("the server took all %d bytes", sent)
		}
	}},
	{"a bulk of 600 MB", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*2\r\n$4\r\nECHO\r\n$%d\r\n", floodBytes)
		if sent := w.flood(t, bytes.Repeat([]byte("x"), 1<<20)); sent >= floodBytes {
			t.Errorf("the server took all %d bytes", sent)
		}
	}},
	{"a stranger's bulk of 17 KB", true, false, func(t *testing.T, w *wire) {
		w.send(t, "*2\r\n$4\r\nAUTH\r\n$17000\r\n")
		w.expectProtocolError(t, "unauthenticated bulk length")
	}},
	{"a stranger's eleven arguments", true, false, func(t *testing.T, w *wire) {
		w.send(t, "*11\r\n")
		w.expectProtocolError(t, "unauthenticated multibulk length")
	}},
	{"one byte at a time", true, true, func(t *testing.T, w *wire) {
		// Before AUTH a command can have 16 KB at most; then the next one begins, so the count of writes is the same.
		size, times := 1_000_000, 1
		if longRun {
			size = 8_000_000
		}
		if !w.authed {
			size, times = 16_000, size/16_000
		}
		var command bytes.Buffer
		writeCommand(&command, "ECHO", strings.Repeat("y", size))
		go io.Copy(io.Discard, w.in)
		for range times {
			for i := range command.Len() {
				if _, err := w.Write(command.Bytes()[i : i+1]); err != nil {
					t.Fatalf("after %d bytes: %v", i, err)
				}
			}
		}
	}},
	{"a big body, byte by byte at its end", false, true, func(t *testing.T, w *wire) {
		var command bytes.Buffer
		writeCommand(&command, "ECHO", strings.Repeat("y", 1_000_000))
		text := command.Bytes()
		w.Write(text[:len(text)-1000])
		for i := len(text) - 1000; i < len(text); i++ {
			w.Write(text[i : i+1])
		}
		w.expect(t, "$1000000")
	}},
	{"commands before a protocol error in one packet", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*1\r\n$4\r\nPING\r\nPING\r\n*1\r\n$4\r\nPING\r\n*1\r\nx\r\n*1\r\n$4\r\nPING\r\n")
		w.expect(t, w.pong(), w.pong(), w.pong(), "-ERR Protocol error: ")
		if rest := w.expectEnd(t); rest != "" {
			t.Errorf("more after the protocol error: %q", rest)
		}
	}},
	{"commands after QUIT", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nQUIT\r\n*3\r\n$5\r\nQPUSH\r\n$9\r\nafterquit\r\n$1\r\nx\r\n")
		w.expect(t, w.pong(), "+OK")
		if rest := w.expectEnd(t); rest != "" {
			t.Errorf("more after QUIT: %q", rest)
		}
		expectNoMessage(t, w.s, "afterquit")
	}},
	{"empty commands", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*0\r\n*-1\r\n\r\n\n   \r\n*0\r\n*1\r\n$4\r\nPING\r\n")
		w.expect(t, w.pong())
	}},
	{"a flood of empty commands", true, true, func(t *testing.T, w *wire) {
		go io.Copy(io.Discard, w.in)
		for range 64 {
			if _, err := w.Write(bytes.Repeat([]byte("*0\r\n\r\n"), 100_000)); err != nil {
				t.Fatal(err)
			}
		}
	}},
	{"a command with an empty name", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*1\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n")
		w.expect(t, "-", w.pong())
	}},
	{"line breaks in a command's name", true, true, func(t *testing.T, w *wire) {
		w.send(t, "*2\r\n$7\r\nA\r\n+OK\r\r\n$4\r\nb\r\nc\r\n*1\r\n$4\r\nPING\r\n")
		w.expect(t, "-", w.pong()) // the echo of the name must not forge a reply
	}},
	{"quotes without an end", true, true, func(t *testing.T, w *wire) {
		w.send(t, "ECHO \"half\r\n")
		w.expectProtocolError(t, "unbalanced quotes in request")
	}},
	{"a page that makes a browser post", true, true, func(t *testing.T, w *wire) {
		w.send(t, "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 20\r\n\r\nQPUSH http x\r\n")
		if rest := w.expectEnd(t); strings.Contains(rest, ":") {
			t.Errorf("an answer for a browser: %q", rest)
		}
		expectNoMessage(t, w.s, "http")
		eventually(t, 5*time.Second, "the attack is logged", func() bool { return strings.Contains(w.s.log(), "POST") })
	}},
	{"a Host header", true, true, func(t *testing.T, w *wire) {
		w.send(t, "Host: 127.0.0.1\r\nQPUSH http x\r\n")
		if rest := w.expectEnd(t); strings.Contains(rest, ":") {
			t.Errorf("an answer for a browser: %q", rest)
		}
		expectNoMessage(t, w.s, "http")
	}},
	{"half a command, and the client leaves", true, true, func(t *testing.T, w *wire) {
		for range 200 {
			half := dialWire(t, w.s, w.authed)
			half.send(t, "*3\r\n$5\r\nQPUSH\r\n$4\r\nhalf\r\n$10\r\nabc")
			half.Close()
		}
	}},
	{"a flood of commands whose replies are not read", true, true, func(t *testing.T, w *wire) {
		var commands bytes.Buffer
		size := 4096
		for commands.Len() < 1<<20 {
			writeCommand(&commands, "ECHO", strings.Repeat("z", size))
		}
		sent, stalled := w.floodUnread(t, commands.Bytes())
		t.Logf("took %d MB, stalled: %v", sent>>20, stalled)
	}},
	{"a flood of small commands whose replies are not read", true, true, func(t *testing.T, w *wire) {
		piece := bytes.Repeat([]byte("*1\r\n$4\r\nPING\r\n"), 1<<16)
		sent, stalled := w.floodUnread(t, piece)
		t.Logf("took %d MB, stalled: %v", sent>>20, stalled)
	}},
	{"a flood of pushes whose replies are not read", false, true, func(t *testing.T, w *wire) {
		var commands bytes.Buffer
		for range 1 << 14 {
			writeCommand(&commands, "QPUSH", "flood", "x")
		}
		for range 20 {
			w.SetWriteDeadline(time.Now().Add(10 * time.Second))
			if _, err := w.Write(commands.Bytes()); err != nil {
				break
			}
		}
		watcher := dialWire(t, w.s, true)
		watcher.send(t, "*2\r\n$4\r\nQDEL\r\n$5\r\nflood\r\n")
		watcher.expect(t, ":1")
	}},
	{"a pull of more than can be read, by one who does not read", false, true, func(t *testing.T, w *wire) {
		var push bytes.Buffer
		writeCommand(&push, "QPUSH", "large", strings.Repeat("b", 2<<20))
		for range 8 {
			w.Write(push.Bytes())
			w.expect(t, ":")
		}
		for i := range 8 {
			w.send(t, "QCONSUME large me COUNT 1 LEASE %d\r\n", 60_000+i)
		}
		watcher := dialWire(t, w.s, true)
		watcher.send(t, "QDEL large\r\n")
		watcher.expect(t, ":1")
	}},
	{"many arguments, each of them small", false, true, func(t *testing.T, w *wire) {
		var command bytes.Buffer
		const n = 100_000
		fmt.Fprintf(&command, "*%d\r\n$5\r\nQPUSH\r\n$4\r\nmany\r\n", n+2)
		command.Write(bytes.Repeat([]byte("$1\r\nm\r\n"), n))
		w.Write(command.Bytes())
		w.expect(t, ":")
		w.send(t, "QDEL many\r\n")
		w.expect(t, ":1")
	}},
	{"more arguments than allowed", false, true, func(t *testing.T, w *wire) {
		w.send(t, "*1048577\r\n")
		w.expectProtocolError(t, "invalid multibulk length")
	}},
	{"random bytes", true, true, func(t *testing.T, w *wire) {
		random := seeded(t)
		for range 300 {
			sendGarbage(t, w.s, w.authed, random)
		}
	}},
}

// sendGarbage sends a mutilated pipeline on a connection of its own.
func sendGarbage(t *testing.T, s *server, authenticate bool, random *rand.Rand) {
	var text bytes.Buffer
	for range 1 + random.IntN(5) {
		words := []string{"QPUSH", "garbage", "body"}[:1+random.IntN(3)]
		if random.IntN(2) == 0 {
			words[0] = []string{"PING", "HELLO", "CLIENT", "COMMAND", "QCONSUME", "QACK", "INFO", "RESET", "\x00"}[random.IntN(9)]
		}
		writeCommand(&text, words...)
	}
	raw := text.Bytes()
	for range random.IntN(8) {
		at := random.IntN(len(raw))
		switch random.IntN(4) {
		case 0:
			raw[at] = byte(random.Uint32())
		case 1:
			raw = append(raw[:at:at], raw[min(len(raw)-1, at+1+random.IntN(9)):]...)
		case 2:
			raw[at] = "0123456789$*\r\n-+:"[random.IntN(17)]
		case 3:
			raw = append(raw[:at:at], append([]byte{byte(random.Uint32())}, raw[at:]...)...)
		}
	}
	w := dialWire(t, s, authenticate)
	defer w.Close()
	w.Write(raw)
	w.Conn.(*net.TCPConn).CloseWrite()
	w.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, w.in); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the server does not close after %q", raw)
	}
}

// Without this, anyone who can connect can stop every queue, without a password.
func TestHostileInput(t *testing.T) {
	for _, authenticate := range []bool{false, true} {
		for _, a := range attacks {
			if authenticate && !a.after || !authenticate && !a.before {
				continue
			}
			name := "before AUTH/" + a.name
			if authenticate {
				name = "after AUTH/" + a.name
			}
			t.Run(name, func(t *testing.T) {
				s := newServer(t) // its own, so that one attack's memory is not another's
				s.auth = hostilePassword
				s.start()
				idle := startWatch(t, s)
				w := dialWire(t, s, authenticate)
				a.run(t, w)
				idle.check(t)
			})
		}
	}
}

func expectNoMessage(t *testing.T, s *server, queue string) {
	t.Helper()
	w := dialWire(t, s, true)
	w.send(t, "QLEN %s\r\n", queue)
	w.expect(t, ":0")
}

// watch is the other client, which must not notice anything, and the process's memory.
type watch struct {
	s         *server
	idleBytes int64
	pings     atomic.Int64
	slowest   atomic.Int64 // nanoseconds
	failed    atomic.Pointer[error]
}

// startWatch begins with the PINGs and measures the memory of a server that has done a little work.
func startWatch(t *testing.T, s *server) *watch {
	t.Helper()
	w := &watch{s: s}
	conn := s.connect(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			began := time.Now()
			if _, err := conn.Do("PING"); err != nil {
				w.failed.Store(&err)
				return
			}
			w.slowest.Store(max(w.slowest.Load(), int64(time.Since(began))))
			w.pings.Add(1)
		}
	}()
	t.Cleanup(func() { close(stop); <-stopped })
	eventually(t, 10*time.Second, "a hundred PINGs", func() bool { return w.pings.Load() >= 100 })
	w.idleBytes = memory(t, s, "VmRSS")
	return w
}

// check judges an attack.
func (w *watch) check(t *testing.T) {
	t.Helper()
	if !w.s.isUp() {
		t.Fatal("the process is gone")
	}
	before := w.pings.Load()
	if !holdsWithin(10*time.Second, func() bool { return w.pings.Load() >= before+10 }) {
		t.Error("the other client's PINGs stopped")
	}
	if err := w.failed.Load(); err != nil {
		t.Fatalf("the other client was disturbed: %v", *err)
	}
	slowest := time.Duration(w.slowest.Load())
	peak := memory(t, w.s, "VmHWM")
	above := peak - w.idleBytes
	t.Logf("memory %.1f MB above idle, slowest PING %v", float64(above)/(1<<20), slowest.Round(10*time.Microsecond))
	if above > memoryAboveIdleMax && !raceBuild {
		t.Errorf("memory rose %d MB above idle (%d MB); at most %d", above>>20, w.idleBytes>>20, memoryAboveIdleMax>>20)
	}
	if slowest > pingSlowestMax {
		t.Errorf("the other client waited %v for a PONG", slowest)
	}
}

// memory reads a line of /proc/pid/status, in bytes.
func memory(t *testing.T, s *server, field string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no %s in /proc/%d/status", field, s.pid())
	return 0
}

// cpuTicks is the processor time that the process used so far, in hundredths of a second.
func cpuTicks(t *testing.T, s *server) int64 {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid()))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return user + system
}

// expectIdle wants a stretch in which the process answers twenty spaced PINGs and hardly uses the processor otherwise.
func expectIdle(t *testing.T, s *server) {
	t.Helper()
	const window = 300 * time.Millisecond
	began, ticks := time.Now(), cpuTicks(t, s)
	if !holdsWithin(10*time.Second, func() bool {
		if time.Since(began) < window {
			return false
		}
		used := cpuTicks(t, s) - ticks
		began, ticks = time.Now(), cpuTicks(t, s)
		return used < 20 // of 30 for one core that burns; the watching client costs some as well
	}) {
		t.Error("the process uses a whole core with nothing to do")
	}
}

// One client more than allowed is refused with an error, and the others do not notice.
func TestClientLimit(t *testing.T) {
	s := startServer(t, "--max-clients", "20")
	var wires []*wire
	for range 20 {
		w := dialWire(t, s, false)
		w.send(t, "PING\r\n")
		w.expect(t, "+PONG")
		wires = append(wires, w)
	}
	for range 50 {
		w := dialWire(t, s, false)
		if said := w.expectEnd(t); !strings.HasPrefix(said, "-ERR max number of clients reached") {
			t.Fatalf("the client too many was told %q", said)
		}
	}
	for _, w := range wires {
		w.send(t, "PING\r\n")
		w.expect(t, "+PONG")
	}
	wires[0].Close()
	eventually(t, 5*time.Second, "a place is free again", func() bool {
		conn, err := s.dial()
		if err != nil {
			return false
		}
		defer conn.Close()
		_, err = conn.Do("PING")
		return err == nil
	})
}

// With no descriptor left, accepting fails again and again: it must neither spin nor stop for ever.
func TestDescriptorsRunOut(t *testing.T) {
	s := newServer(t)
	s.wrap = []string{"sh", "-c", `ulimit -n 200; exec "$0" "$@"`}
	s.start()
	conn := s.connect(t)
	must(t, conn, "QPUSH", "q", "a")
	var crowd []net.Conn
	for range 400 {
		c, err := net.DialTimeout("tcp", s.addr, time.Second)
		if err != nil {
			break
		}
		t.Cleanup(func() { c.Close() })
		crowd = append(crowd, c)
	}
	eventually(t, 10*time.Second, "the crowd is refused or kept out", func() bool {
		return strings.Contains(s.log(), "cannot accept") || strings.Contains(s.log(), "refused a connection")
	})
	must(t, conn, "PING")
	expectIdle(t, s)
	must(t, conn, "QPUSH", "q", "b")
	// New queues need files of their own. A crowd of clients must not take these: a log that fails stops its queue.
	// The bodies are large enough together that the logs are written at once.
	for i := range 20 {
		must(t, conn, "QPUSH", fmt.Sprintf("new.%d", i), strings.Repeat("d", 4<<10))
	}
	for i := range 20 {
		queue := fmt.Sprintf("new.%d", i)
		eventually(t, 15*time.Second, queue+" has a file", func() bool {
			fields, err := info(conn, queue)
			if err != nil {
				t.Fatalf("while descriptors are short: %v", err)
			}
			return fields["log-segments"] != "0"
		})
		must(t, conn, "QPUSH", queue, "e")
	}
	for _, c := range crowd {
		c.Close()
	}
	eventually(t, 10*time.Second, "new clients are let in again", func() bool {
		late, err := redis.Dial("tcp", s.addr, redis.DialConnectTimeout(time.Second), redis.DialReadTimeout(time.Second))
		if err != nil {
			return false
		}
		defer late.Close()
		_, err = late.Do("PING")
		return err == nil
	})
	must(t, conn, "QPUSH", "q", "c")
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.wrap = nil
	s.start()
	if messages, _ := lastStart(t, s); messages != 43 {
		t.Errorf("%d messages are there, 43 were acknowledged", messages)
	}
}

// A reader that takes nothing is dropped, and what it had leased comes back.
func TestSlowReaderIsDropped(t *testing.T) {
	s := startServer(t, "--output-buffer-bytes", "4mb", "--write-timeout", "500", "--default-lease", "1000", "--default-lock-ttl", "500")
	conn := s.connect(t)
	for range 16 {
		must(t, conn, "QPUSH", "large", strings.Repeat("b", 2<<20))
	}
	slow := dialWire(t, s, false)
	slow.Conn.(*net.TCPConn).SetReadBuffer(4096)
	for range 16 {
		slow.send(t, "QCONSUME large slow COUNT 1\r\n")
	}
	eventually(t, 20*time.Second, "the slow reader is dropped", func() bool {
		list, err := redis.String(conn.Do("CLIENT", "LIST"))
		return err == nil && strings.Count(list, "id=") == 1
	})
	seen := make(map[int64]bool)
	for range 100 {
		b, err := consume(conn, "large", "quick", "COUNT", 1, "BLOCK", 20_000)
		if err != nil || b == nil {
			t.Fatalf("after %d messages: %v, %v", len(seen), b, err)
		}
		seen[b.messages[0].id] = true
		must(t, conn, "QACK", "large", b.id)
		if n := must(t, conn, "QLEN", "large"); n == int64(0) {
			break
		}
	}
	if len(seen) != 16 {
		t.Errorf("%d of 16 messages came back", len(seen))
	}
}

// The limit on what waits for a slow reader must not be one on what a reader may ask for: here, a batch of 64 MB.
func TestLargeBatchesReachTheirReader(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	const n, size = 8, 8 << 20
	body := strings.Repeat("b", size)
	for range n {
		must(t, conn, "QPUSH", "large", body)
	}
	for range 2 {
		conn.Send("QCONSUME", "large", "me", "COUNT", n, "BYTES", n*size, "LEASE", 60_000)
		conn.Send("PING")
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
		b, err := parseBatch(conn.Receive())
		if err != nil || b == nil || len(b.messages) != n {
			t.Fatalf("got %v", err)
		}
		for _, m := range b.messages {
			if len(m.body) != size {
				t.Errorf("message %d has %d bytes", m.id, len(m.body))
			}
		}
		if pong, err := redis.String(conn.Receive()); err != nil || pong != "PONG" {
			t.Fatalf("behind the batch: %q, %v", pong, err)
		}
		must(t, conn, "QNACK", "large", b.id, "RELEASE")
	}
}

// Client libraries send a whole pipeline and only then read. The replies of a long one must have room.
func TestLongPipelineBeforeReading(t *testing.T) {
	s := startServer(t)
	w := dialWire(t, s, false)
	const n = 100_000
	var pipeline bytes.Buffer
	for range n {
		writeCommand(&pipeline, "QPUSH", "long", "x")
	}
	if _, err := w.Write(pipeline.Bytes()); err != nil {
		t.Fatal(err)
	}
	for range n {
		w.expect(t, ":")
	}
}

// A pipeline of a thousand pushes is answered in order, and shares its syncs: waiting for each would take seconds.
func TestPipelinedPushesAreAnsweredInOrder(t *testing.T) {
	s := startServer(t)
	conn := s.connect(t)
	const depth = 1000
	for i := range depth {
		if i%100 == 99 {
			conn.Send("QPUSH", "") // refused: its error has its place too
		} else {
			conn.Send("QPUSH", "piped", fmt.Sprint(i))
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	for i := range depth {
		id, err := redis.Int64(conn.Receive())
		switch {
		case i%100 == 99 && refused(err):
		case i%100 == 99 || err != nil || last != 0 && id != last+1:
			t.Fatalf("answer %d: %d, %v; the one before was %d", i, id, err, last)
		default:
			last = id
		}
	}
}
