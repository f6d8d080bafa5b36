package server

// Millions of inputs that no honest client sends. See fuzzed_inputs_test.go for what they are, and fuzzed_world_test.go for what they are
// tried on. An input that fails is named by seed and number, and can be tried again alone.

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quail/commands"
	"quail/server/guard"
	"quail/server/guard/reference"
)

var (
	fuzzInputs = flag.Int64("inputs", 2_000_000, "how many inputs TestFuzzedInputs tries, half of them with and half without the loop")
	fuzzSeed   = flag.Uint64("input-seed", 0, "seed of TestFuzzedInputs; 0 takes one from the clock")
	fuzzFirst  = flag.Int64("first-input", 0, "number of TestFuzzedInputs's first input: a long run can go on where the last one ended")
)

const (
	// fuzzChunk is how many inputs one world sees. Chunks are tried whole, so an input meets what those before it have left.
	fuzzChunk = 2_000
	// fuzzHeapMax is what the heap may grow by: worlds of a few megabytes, and what attacks add, which is bounded.
	fuzzHeapMax = 192 << 20
	// fuzzSocketsEvery: one chunk of so many goes through real sockets, which is slow.
	fuzzSocketsEvery = 200
)

// fuzzer is one run of the test.
type fuzzer struct {
	t       *testing.T
	seed    uint64
	next    atomic.Int64 // chunk
	last    int64
	started uint64 // heap bytes
	peak    atomic.Uint64

	inputs, commands, errors, answers, compared, sockets atomic.Int64
}

// Without this, somebody who only connects finds the bytes that nobody has thought of: those that stop the process, or make it answer
// something else when they arrive in other pieces.
func TestFuzzedInputs(t *testing.T) {
	f := &fuzzer{t: t, seed: *fuzzSeed, started: heapBytes()}
	if f.seed == 0 {
		f.seed = uint64(time.Now().UnixNano())
	}
	inputs := *fuzzInputs / 2
	first := *fuzzFirst / 2
	if testing.Short() {
		inputs /= 10
	}
	f.next.Store(first / fuzzChunk)
	f.last = (first + inputs + fuzzChunk - 1) / fuzzChunk
	began := time.Now()
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(f.work)
	}
	workers.Wait()
	n := f.inputs.Load()
	t.Logf("-input-seed=%d, from input %d on: %d inputs in %v, %.0f a second; %d commands, %d replies, %d errors among them; %d inputs whole and in pieces, %d of them through sockets; heap %.1f MB more at most",
		f.seed, first, n, time.Since(began).Round(time.Millisecond), float64(n)/time.Since(began).Seconds(), f.commands.Load(), f.answers.Load(), f.errors.Load(), f.compared.Load(), f.sockets.Load(),
		(float64(f.peak.Load())-float64(f.started))/(1<<20))
	if peak := f.peak.Load(); peak > f.started+fuzzHeapMax {
		t.Errorf("the heap grew by %d MB; at most %d", (peak-f.started)>>20, fuzzHeapMax>>20)
	}
}

func heapBytes() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// work tries chunks until there are none left.
func (f *fuzzer) work() {
	g := newGenerator()
	for !f.t.Failed() {
		chunk := f.next.Add(1) - 1
		if chunk >= f.last {
			return
		}
		if chunk%fuzzSocketsEvery == fuzzSocketsEvery/2 {
			f.tryOnSockets(g, chunk)
		} else {
			f.tryChunk(g, chunk)
		}
	}
}

// number tells one input from all others, also from those of the other pass.
func number(chunk int64, i int) uint64 {
	n := uint64(chunk*fuzzChunk + int64(i))
	if inRounds {
		n |= 1 << 63
	}
	return n
}

// failed says what is wrong with an input and how its chunk is tried again.
func (f *fuzzer) failed(number uint64, format string, args ...any) {
	chunk := int64(number&^(1<<63)) / fuzzChunk
	f.t.Errorf("input %d, "+format+"\ntry the chunk again: -input-seed=%d -first-input=%d -inputs=%d",
		append(append([]any{number}, args...), f.seed, 2*chunk*fuzzChunk, 2*fuzzChunk)...)
}

func (f *fuzzer) tryChunk(g *generator, chunk int64) {
	steady, strangers := chunk%4 == 1, chunk%8 == 2
	w := newFuzzWorld(f.t, !steady && !strangers, strangers)
	defer w.close(f.t)
	for i := range fuzzChunk {
		f.tryInput(w, g, number(chunk, i), steady, strangers)
		if f.t.Failed() {
			return
		}
		if i%64 == 0 {
			for now := heapBytes(); ; {
				if peak := f.peak.Load(); now <= peak || f.peak.CompareAndSwap(peak, now) {
					break
				}
			}
		}
	}
}

// tryInput tries one input, in random pieces.
func (f *fuzzer) tryInput(w *fuzzWorld, g *generator, number uint64, steady, strangers bool) {
	input := g.make(f.seed, number)
	defer func() {
		if p := recover(); p != nil {
			f.failed(number, "%.2000q: panic: %v\n%s", input, p, debug.Stack())
		}
	}()
	pieces := g.pieces()
	out := w.try(input, pieces)
	f.inputs.Add(1)
	f.commands.Add(int64(len(w.ran)))
	want, failure := reference.Parse(input, fuzzLimits(strangers))
	if err := f.judge(w.ran, want, failure, out); err != nil && !(len(input) > fuzzCommandMax && isWaiting(w.ran)) {
		f.failed(number, "%.2000q: %v\nran    %.2000q\nwanted %.2000q, and %q\ngot    %.2000q", input, err, w.ran, want, failure, out)
		return
	}
	if !steady || mention(w.ran, "MONITOR", "ACL") { // what others do, and did before, is in these answers
		return
	}
	f.compared.Add(1)
	if whole := w.try(input, func() int { return len(input) }); !alike(whole, out, failure) {
		f.failed(number, "%.2000q: in pieces it is answered\n%.2000q\nand whole\n%.2000q", input, out, whole)
	}
}

// isWaiting says that the last command may have waited, if only for the push before it to be durable. When more than query-buffer-bytes come
// behind it, the connection is closed.
func isWaiting(ran [][]string) bool {
	return len(ran) > 0 && mention(ran[len(ran)-1:], "QCONSUME", "QLOCK")
}

func fuzzLimits(strangers bool) reference.Limits {
	return reference.Limits{ArgsMax: fuzzArgsMax, BulkBytesMax: fuzzBulkMax, CommandBytesMax: fuzzCommandMax, LineBytesMax: guard.LineBytesMax, Stranger: strangers}
}

// alike compares two answers to one input. A forged request ends its connection at once, and replies before it that have not left are lost.
func alike(a, b []byte, failure string) bool {
	one, other := sketch(a), sketch(b)
	if failure == reference.CrossProtocol {
		return strings.HasPrefix(one, other) || strings.HasPrefix(other, one)
	}
	return one == other
}

// pieces draws how an input arrives: byte by byte, in small pieces, or nearly whole. Many pieces take long: few inputs have them, and no long ones.
func (g *generator) pieces() func() int {
	most := []int{1, 3, 20, 20, 200, 200, 200, 100_000, 100_000, 100_000}[g.random.IntN(10)]
	if len(g.input) > 1_000 {
		most = max(most, len(g.input)/5)
	}
	return func() int { return 1 + g.random.IntN(most) }
}

// enders may be the last command that runs although more would follow: they close the connection, or wait.
var enders = []string{"QUIT", "SHUTDOWN", "CLIENT", "QCONSUME", "QLOCK", "AUTH", "HELLO"}

// judge compares what ran and what was answered with what the other parser reads.
func (f *fuzzer) judge(ran, want [][]string, failure string, out []byte) error {
	if len(ran) > len(want) {
		return fmt.Errorf("%d commands ran", len(ran))
	}
	for i, command := range ran {
		if !strings.EqualFold(command[0], want[i][0]) || !slices.Equal(command[1:], want[i][1:]) { // those that run together have the first one's name
			return fmt.Errorf("command %d is another one", i)
		}
	}
	whole := len(ran) == len(want)
	if !whole && (len(ran) == 0 || !mention(ran[len(ran)-1:], enders...)) {
		return fmt.Errorf("only %d commands ran", len(ran))
	}
	replies, last, err := countReplies(out)
	if err != nil {
		return err
	}
	f.answers.Add(int64(replies))
	f.errors.Add(int64(bytes.Count(out, []byte("\r\n-"))))
	if mention(ran, "CLIENT", "MONITOR", "SHUTDOWN") {
		return nil // they decide themselves what is answered
	}
	wanted := len(ran)
	if whole && failure != "" && failure != reference.CrossProtocol {
		closed := len(ran) > 0 && mention(ran[len(ran)-1:], enders...)
		if text := "-ERR Protocol error: " + inOneLine.Replace(failure) + "\r\n"; string(last) == text {
			wanted++
		} else if !closed {
			return fmt.Errorf("the last reply is %q, want %q", last, text)
		}
	}
	parks := isWaiting(ran) || len(ran) > 0 && mention(ran[len(ran)-1:], "AUTH", "HELLO")
	cut := failure == reference.CrossProtocol // closed at once, whatever waits
	if replies != wanted && !(parks && replies == wanted-1) && !(cut && replies < wanted) {
		return fmt.Errorf("%d replies, want %d", replies, wanted)
	}
	return nil
}

// inOneLine is what an error does to a client's line breaks.
var inOneLine = strings.NewReplacer("\r", " ", "\n", " ")

// countReplies reads a stream of replies, which must be whole, and returns the last one's bytes.
func countReplies(out []byte) (n int, last []byte, err error) {
	for rest := out; len(rest) > 0; n++ {
		last = rest
		if rest, err = skipReply(rest); err != nil {
			return n, nil, fmt.Errorf("reply %d is not well-formed: %w", n, err)
		}
		last = last[:len(last)-len(rest)]
	}
	return n, last, nil
}

// skipReply reads one reply of RESP2 or RESP3.
func skipReply(b []byte) (rest []byte, err error) {
	line, rest, ok := bytes.Cut(b, []byte("\r\n"))
	if !ok || len(line) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	if bytes.ContainsAny(line, "\r\n") {
		return nil, fmt.Errorf("a line break in %q", line)
	}
	kind, text := line[0], string(line[1:])
	switch kind {
	case '+', '-', ',', '(':
		return rest, nil
	case '_', '#':
		if kind == '_' && text != "" || kind == '#' && text != "t" && text != "f" {
			return nil, fmt.Errorf("%q", line)
		}
		return rest, nil
	case ':':
		_, err := strconv.ParseInt(text, 10, 64)
		return rest, err
	}
	size, err := strconv.Atoi(text)
	if err != nil || size < -1 || strconv.Itoa(size) != text {
		return nil, fmt.Errorf("%q is no length", line)
	}
	switch kind {
	case '$', '=', '!':
		if size < 0 {
			return rest, nil
		}
		if len(rest) < size+2 || string(rest[size:size+2]) != "\r\n" {
			return nil, fmt.Errorf("a string of another length than %d", size)
		}
		return rest[size+2:], nil
	case '%':
		size *= 2
	case '*', '~', '>':
	default:
		return nil, fmt.Errorf("%q begins no reply", line)
	}
	for range size {
		if rest, err = skipReply(rest); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// sketch leaves of each reply what does not change from one run to the next: its kind, and an error's words without figures.
func sketch(out []byte) string {
	var b strings.Builder
	for rest := out; len(rest) > 0; {
		line, _, _ := bytes.Cut(rest, []byte("\r\n"))
		b.WriteByte(line[0])
		if line[0] == '-' {
			for _, c := range line {
				if c < '0' || c > '9' {
					b.WriteByte(c)
				}
			}
		}
		next, err := skipReply(rest)
		if err != nil {
			return b.String() + "?" + err.Error()
		}
		rest = next
	}
	return b.String()
}

// tryOnSockets gives a chunk to a server that listens: each input whole, and again in pieces.
func (f *fuzzer) tryOnSockets(g *generator, chunk int64) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Error(err)
		return
	}
	w := newFuzzWorld(f.t, false, false)
	var mu sync.Mutex // connections run beside each other here
	run := w.Server.run
	w.Server.run = func(c *commands.Call) { mu.Lock(); defer mu.Unlock(); run(c) }
	w.Server.runTogether = func(c *commands.Call) bool { mu.Lock(); defer mu.Unlock(); return w.runSome(c) }
	served := make(chan error, 1)
	go func() { served <- w.Serve(ln) }()
	for i := range fuzzChunk {
		input := g.make(f.seed, number(chunk, i))
		mu.Lock()
		w.ran = w.ran[:0]
		mu.Unlock()
		whole, err := askOver(ln.Addr().String(), input, func() int { return len(input) })
		mu.Lock()
		volatile := mention(w.ran, "MONITOR", "CLIENT", "SHUTDOWN", "ACL")
		mu.Unlock()
		var parts []byte
		if err == nil {
			parts, err = askOver(ln.Addr().String(), input, g.pieces())
		}
		f.inputs.Add(1)
		f.sockets.Add(1)
		if err == nil {
			_, _, err = countReplies(whole)
		}
		if err != nil {
			f.failed(number(chunk, i), "%.2000q: %v", input, err)
			break
		}
		f.compared.Add(1)
		_, failure := reference.Parse(input, fuzzLimits(false))
		if !volatile && !alike(whole, parts, failure) {
			f.failed(number(chunk, i), "%.2000q: in pieces it is answered\n%.2000q\nand whole\n%.2000q", input, parts, whole)
			break
		}
	}
	w.close(f.t)
	if err := <-served; err != nil {
		f.t.Error(err)
	}
}

// askOver sends an input over a connection of its own, and reads until the server closes.
func askOver(address string, input []byte, next func() int) ([]byte, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	go func() {
		for rest := input; len(rest) > 0; {
			n, err := conn.Write(rest[:min(len(rest), max(1, next()))])
			if err != nil {
				break // the server had enough
			}
			rest = rest[n:]
		}
		conn.(*net.TCPConn).CloseWrite()
	}()
	out, err := io.ReadAll(conn)
	if err != nil && os.IsTimeout(err) {
		return nil, fmt.Errorf("the server does not close: %w", err)
	}
	return out, nil // what was lost with a reset, the comparison notices
}
