package guard

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tidwall/redcon"

	"quail/server/guard/reference"
)

var testLimits = Limits{ArgsMax: 1000, BulkBytesMax: 1 << 20, CommandBytesMax: 4 << 20}

func newInput(limits Limits) *Input {
	return &Input{Limits: limits, EndsRun: func(name []byte) bool { return len(name) > 0 && name[0]|0x20 == 'b' }}
}

// collect takes all runs that there are, as redcon and the server would.
func collect(t testing.TB, in *Input) (commands [][]string, failure string) {
	for {
		run, err := in.Next()
		if err != nil {
			var cross *CrossProtocolError
			if errors.As(err, &cross) {
				return commands, reference.CrossProtocol
			}
			return commands, strings.TrimPrefix(err.Error(), "Protocol error: ")
		}
		if run.Args == nil && len(run.Raw) == 0 {
			return commands, ""
		}
		if run.Args != nil {
			commands = append(commands, texts(run.Args))
			continue
		}
		before := len(commands)
		commands = append(commands, throughRedcon(t, run.Raw)...)
		for _, command := range commands[before : len(commands)-1] {
			if in.EndsRun([]byte(command[0])) {
				t.Fatalf("a run went on behind %q", command)
			}
		}
	}
}

// throughRedcon parses a run as redcon will: all of it, and into nothing but whole commands.
func throughRedcon(t testing.TB, raw []byte) [][]string {
	rd := redcon.NewReader(bytes.NewReader(raw))
	var commands [][]string
	for total := 0; total < len(raw); {
		cmd, err := rd.ReadCommand()
		if err != nil {
			t.Fatalf("redcon refuses %q: %v", raw, err)
		}
		total += len(cmd.Raw)
		commands = append(commands, texts(cmd.Args))
	}
	return commands
}

func texts(args [][]byte) []string {
	list := make([]string, len(args))
	for i, arg := range args {
		list[i] = string(arg)
	}
	return list
}

// feed gives the input piece by piece and collects after every piece.
func feed(t testing.TB, in *Input, input []byte, pieceMax func() int) (commands [][]string, failure string) {
	for {
		for piece := input[:min(len(input), pieceMax())]; len(piece) > 0; {
			n := copy(in.Space(), piece)
			in.Filled(n)
			piece, input = piece[n:], input[n:]
		}
		some, failed := collect(t, in)
		commands = append(commands, some...)
		if failed != "" || len(input) == 0 {
			return commands, failed
		}
	}
}

func compare(t testing.TB, input []byte, limits Limits, pieceMax func() int) {
	want, wantFailure := reference.Parse(input, reference.Limits{ArgsMax: limits.ArgsMax, BulkBytesMax: limits.BulkBytesMax,
		CommandBytesMax: limits.CommandBytesMax, LineBytesMax: LineBytesMax, Stranger: limits.Stranger})
	got, failure := feed(t, newInput(limits), input, pieceMax)
	if failure != wantFailure || !slices.EqualFunc(got, want, slices.Equal) {
		t.Fatalf("input %.300q:\ngot  %.300q %q\nwant %.300q %q", input, got, failure, want, wantFailure)
	}
}

// boundaries are inputs at the edge of something: of a limit, of a type, of a rule.
func boundaries() [][]byte {
	list := [][]byte{
		{}, []byte("\n"), []byte("\r\n"), []byte("\x00\r\n"), []byte("PING"), []byte("PING\n"), []byte("PING\r\n"),
		[]byte("SET a \"b c\" 'd e'\r\n"), []byte(`SET "\x41\n\r\t\b\a\q\"" '\'\x41'` + "\n"), []byte(`"\x4"` + "\n"),
		[]byte("\"\"\n"), []byte("a\"b\"\n"), []byte("\"a\"b\n"), []byte("\"a\n"), []byte("'a\n"), []byte("'a'b\n"), []byte("\"\\\n"),
		[]byte("*0\r\n"), []byte("*-1\r\n"), []byte("*-9\r\nPING\r\n"), []byte("*-0\r\n"), []byte("*01\r\n"), []byte("*+1\r\n"),
		[]byte("*\r\n"), []byte("*1\n"), []byte("*1\rx"), []byte("*1x\r\n"), []byte("*1\r\nx"), []byte("*1\r\n\r\n"), []byte("*1\r\n$\r\n"),
		[]byte("*1\r\n$-1\r\n"), []byte("*1\r\n$+1\r\na\r\n"), []byte("*1\r\n$4\r\nPINGxx"), []byte("*1\r\n$4\r\nPING\rx"), []byte("*1\r\n$0\r\n\r\n"),
		[]byte("*1\r\n$9223372036854775807\r\n"), []byte("*1\r\n$9223372036854775808\r\n"), []byte("*9000000000000000000\r\n"),
		[]byte("*1\r\n$999999999999999999\r\n"), []byte("*1\r\n$1000000000000000000\r\n"),
		[]byte("*1000000000\r\n"), []byte("*2147483647\r\n"), []byte("*2147483648\r\n"), []byte("*10\r\n$1\r\n"), []byte("*11\r\n$1\r\n"),
		[]byte("*1\r\n$16384\r\n"), []byte("*1\r\n$16385\r\n"), []byte("*1000\r\n"), []byte("*1001\r\n"), []byte("*1\r\n$1048576\r\n"), []byte("*1\r\n$1048577\r\n"),
		[]byte("POST / HTTP/1.1\r\nHost: x\r\n"), []byte("Host: x\r\n"), []byte("hOsT:\n"), encode("post", "/"), encode("PING"), encode("", ""),
		append(encode("PING"), "POST /\r\n"...), append(encode("PING"), "*x\r\n"...), append(encode("BLOCK"), encode("PING")...),
		append([]byte("*0\r\n\r\n"), encode("PING")...), append(encode("PING"), "\r\n*0\r\nPING\r\n"...),
	}
	for _, n := range []int{LineBytesMax - 1, LineBytesMax, LineBytesMax + 1, LineBytesMax + 2} {
		long := strings.Repeat("1", n)
		list = append(list, []byte(long), []byte(long+"\n"), []byte("*"+long), []byte("*"+long+"\r\n"), []byte("*1\r\n$"+long), []byte("*1\r\n$"+long+"\r\n"))
	}
	for _, n := range []int{BigBytes - 30, BigBytes - 24, BigBytes - 20, BigBytes - 10, BigBytes, 5 * BigBytes, runBytesMax - 20, runBytesMax - 10, runBytesMax} {
		list = append(list, slices.Concat(encode("PING"), encode("A", strings.Repeat("x", n)), encode("B", strings.Repeat("y", n)), encode("PING")))
	}
	return list
}

// Without this a client would get another answer when its bytes happen to arrive in other pieces.
func TestPiecesDoNotMatter(t *testing.T) {
	for _, input := range boundaries() {
		for _, stranger := range []bool{false, true} {
			limits := testLimits
			limits.Stranger = stranger
			for _, size := range []int{1, 2, 3, 7, 1000, 4096, 1 << 20} {
				if size < 1000 && len(input) > LineBytesMax/2 && testing.Short() {
					continue
				}
				compare(t, input, limits, func() int { return size })
			}
		}
	}
}

// The fuzzer looks for bytes that the guard and the plain parser read differently, that redcon refuses or that panic.
func FuzzInput(f *testing.F) {
	for _, input := range boundaries() {
		f.Add(input, uint64(1), false)
		f.Add(input, uint64(2), true)
	}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64, stranger bool) {
		limits := Limits{ArgsMax: 20, BulkBytesMax: 20 << 10, CommandBytesMax: 40 << 10, Stranger: stranger}
		random := rand.New(rand.NewPCG(seed, 0))
		compare(t, input, limits, func() int { return 1 + random.IntN(1+random.IntN(200)) })
	})
}

func TestManyCommandsInPieces(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	var input []byte
	for range 2000 {
		args := make([]string, 1+random.IntN(5))
		for i := range args {
			size := random.IntN(60)
			if random.IntN(100) == 0 {
				size = random.IntN(100_000)
			}
			args[i] = strings.Repeat("\r\n*$x"[random.IntN(5):][:1], size)
		}
		input = append(input, encode(args...)...)
		if random.IntN(20) == 0 {
			input = append(input, "\r\n*0\r\nECHO 'a b' c\r\n"...)
		}
	}
	for range 20 {
		compare(t, input, testLimits, func() int { return 1 + random.IntN(1+random.IntN(100_000)) })
	}
}

func TestWording(t *testing.T) {
	for input, want := range map[string]string{
		"*1\r\n$9223372036854775807\r\n":  "Protocol error: invalid bulk length",
		"*9000000000000000000\r\n":        "Protocol error: invalid multibulk length",
		"*1\r\nx":                         "Protocol error: expected '$', got 'x'",
		"SET \"a\r\n":                     "Protocol error: unbalanced quotes in request",
		strings.Repeat("x", 70_000):       "Protocol error: too big inline request",
		"*" + strings.Repeat("1", 70_000): "Protocol error: too big mbulk count string",
	} {
		in := newInput(testLimits)
		_, failure := feed(t, in, []byte(input), func() int { return 4096 })
		if "Protocol error: "+failure != want {
			t.Errorf("%.40q: got %q, want %q", input, failure, want)
		}
		if _, err := in.Next(); err == nil {
			t.Errorf("%.40q: the error was forgotten", input)
		}
	}
}

// Without this a stranger's password check would not free the limits of what is in the same packet.
func TestLimitsChangeBetweenRuns(t *testing.T) {
	in := newInput(testLimits)
	in.Limits.Stranger = true
	in.Filled(copy(in.Space(), slices.Concat(encode("BAUTH"), encode("X", strings.Repeat("x", 1)), encode(strings.Fields(strings.Repeat("a ", 20))...))))
	if run, err := in.Next(); err != nil || string(run.Raw) != string(encode("BAUTH")) {
		t.Fatalf("got %q, %v", run.Raw, err)
	}
	in.Limits.Stranger = false
	commands, failure := collect(t, in)
	if len(commands) != 2 || failure != "" {
		t.Fatalf("got %q, %q", commands, failure)
	}
}

// Without this a few packets that promise much would take all memory.
func TestDeclaredLengthsCostNothing(t *testing.T) {
	limits := Limits{ArgsMax: 1 << 20, BulkBytesMax: 512 << 20, CommandBytesMax: 1 << 30}
	for _, input := range []string{"*1048576\r\n", "*1\r\n$536870912\r\n", "*1048576\r\n$500000000\r\nabc"} {
		allocated := allocatedBy(func() {
			in := newInput(limits)
			feed(t, in, []byte(input), func() int { return 5 })
		})
		if allocated > 64<<10 {
			t.Errorf("%q: %d bytes allocated", input, allocated)
		}
	}
}

func allocatedBy(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Without this a 16 MB body would be copied over and over while it arrives, and its buffer stay for ever.
func TestBigCommandIsLinearAndLetGo(t *testing.T) {
	const size = 16 << 20
	limits := Limits{ArgsMax: 10, BulkBytesMax: size, CommandBytesMax: 2 * size}
	input := encode("QPUSH", "q", strings.Repeat("x", size))
	in := newInput(limits)
	allocated := allocatedBy(func() {
		for rest := input; len(rest) > 0; {
			if run, err := in.Next(); err != nil || len(run.Raw) > 0 || run.Args != nil {
				t.Fatal("a command before its end")
			}
			space := in.Space()
			n := copy(space[:min(len(space), 1400)], rest)
			in.Filled(n)
			rest = rest[n:]
		}
	})
	if allocated > 3*size {
		t.Errorf("%d bytes allocated for %d", allocated, size)
	}
	run, err := in.Next()
	if err != nil || len(run.Args) != 3 || len(run.Args[2]) != size {
		t.Fatalf("got %d arguments, %v", len(run.Args), err)
	}
	in.Space()
	if cap(in.buf) > inputBytesKeep {
		t.Errorf("%d bytes kept", cap(in.buf))
	}
}

// Without this ArgsMax arguments of BulkBytesMax bytes each would be one legal command.
func TestCommandBytes(t *testing.T) {
	limits := Limits{ArgsMax: 100, BulkBytesMax: 1000, CommandBytesMax: 2500}
	fits, tooLong := make([]string, 2), make([]string, 3)
	for i := range tooLong {
		tooLong[i] = strings.Repeat("x", 1000)
		copy(fits, tooLong)
	}
	for size := 1; size < 4000; size += 97 {
		compare(t, slices.Concat(encode(fits...), encode(tooLong...)), limits, func() int { return size })
	}
	if _, failure := feed(t, newInput(limits), encode(tooLong...), func() int { return 4000 }); failure == "" {
		t.Error("too long a command passed")
	}
}

// Without this redcon's own buffers would grow with each client's pipeline; and ours would stay as large as what once
// waited behind a blocked command.
func TestLongPipelineInShortRuns(t *testing.T) {
	in := newInput(testLimits)
	for input := bytes.Repeat(encode("PING"), 100_000); len(input) > 0; {
		n := copy(in.Space(), input)
		in.Filled(n)
		input = input[n:]
	}
	for {
		run, err := in.Next()
		if err != nil || len(run.Raw) > runBytesMax {
			t.Fatalf("a run of %d bytes, %v", len(run.Raw), err)
		}
		if len(run.Raw) == 0 {
			break
		}
	}
	in.Space()
	if cap(in.buf) > inputBytesKeep {
		t.Errorf("%d bytes kept", cap(in.buf))
	}
}

// Without this ten thousand clients that once sent a long pipeline would keep 640 MB for ever.
func TestBufferFollowsTraffic(t *testing.T) {
	in := newInput(testLimits)
	for range 20 {
		space := in.Space()
		full := bytes.Repeat([]byte("\n"), len(space))
		in.Filled(copy(space, full))
		collect(t, in)
	}
	if cap(in.buf) != inputBytesKeep {
		t.Errorf("under load the buffer has %d bytes", cap(in.buf))
	}
	for range 10 * sparseReadsMax {
		in.Filled(copy(in.Space(), encode("PING")))
		collect(t, in)
	}
	if cap(in.buf) != inputBytesMin {
		t.Errorf("in quiet times the buffer has %d bytes", cap(in.buf))
	}
}

// encode is a command as a client library sends it.
func encode(args ...string) []byte {
	var b bytes.Buffer
	b.WriteString("*" + strconv.Itoa(len(args)) + "\r\n")
	for _, arg := range args {
		b.WriteString("$" + strconv.Itoa(len(arg)) + "\r\n" + arg + "\r\n")
	}
	return b.Bytes()
}

func BenchmarkInput(b *testing.B) {
	for _, size := range []int{16, 100, 1000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) {
			one := encode("QPUSH", "orders", strings.Repeat("x", size))
			many := bytes.Repeat(one, max(1, 64<<10/len(one)))
			in := newInput(testLimits)
			in.EndsRun = func([]byte) bool { return false }
			b.SetBytes(int64(len(one)))
			b.ReportAllocs()
			for b.Loop() {
				for rest := many; len(rest) > 0; {
					n := copy(in.Space(), rest)
					in.Filled(n)
					rest = rest[n:]
					for {
						run, err := in.Next()
						if err != nil {
							b.Fatal(err)
						}
						if run.Args == nil && len(run.Raw) == 0 {
							break
						}
					}
				}
			}
			commands := float64(b.N) * float64(len(many)/len(one))
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/commands, "ns/command")
		})
	}
}
