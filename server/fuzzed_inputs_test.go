package server

// What clients could send, made by chance from a seed and a number: the same two give the same bytes. Most inputs are pipelines of real
// commands, whose words lie at the edge of what is allowed; then bytes are changed. What is changed at random only would hardly ever be a
// command, and so try nothing but the parser.

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"strings"

	"quail/commands"
	"quail/queue/machine"
	"quail/server/guard"
)

// The limits of the servers that are tried, small so that inputs at their edge are small.
const (
	fuzzArgsMax    = 50
	fuzzBulkMax    = 4 << 10
	fuzzCommandMax = 64 << 10
)

// fuzzNumbers are at the edge of something, or no numbers.
var fuzzNumbers = []string{"0", "1", "2", "3", "9", "10", "11", "49", "50", "51", "100", "1023", "1024", "1025", "-1", "-0", "+1", "00", "01", "007", "",
	" 1", "1 ", "1.5", "1e3", "0x10", "NaN", "inf", "-9", "４", "4095", "4096", "4097", "16383", "16384", "16385", "65535", "65536", "1048576", "1048577",
	"2147483647", "2147483648", "-2147483648", "4294967295", "4294967296", "9007199254740991", "9007199254740992", "999999999999999999", "1000000000000000000",
	"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616",
	"99999999999999999999999999", strings.Repeat("9", 400)}

// fuzzNames are names of queues, consumers and users, good and bad, and patterns.
var fuzzNames = []string{"q", "a", "b", "orders", "q.dead", "a.dead", "w", "default", "", " ", "\x00", "a\x00b", "a b", "a\r\nb", "\n", "\xff", "\xc3", "\xc0\xaf", "\xed\xa0\x80",
	"\xf4\x90\x80\x80", "é", "日本", "\u2028", "\u202e", "\ufeff", "../../etc/passwd", "/", ".", "..", "a/b", "*", "?", "[", "[a", "[^", "[a-", "\\", "a*b*c*d*e", "***************",
	strings.Repeat("n", 128), strings.Repeat("n", 129), strings.Repeat("n", 199), strings.Repeat("n", 200), strings.Repeat("n", 201), strings.Repeat("é", 100), strings.Repeat("é", 100) + "e",
	"~*", "+@all", "-@all", "&*", "%R~a", ">secret", "#" + strings.Repeat("0", 64), "(+@read", "allkeys", "nopass", "on", "off", "resetpass"}

// fuzzRaw are beginnings and whole commands that break the protocol, or nearly do.
var fuzzRaw = []string{"\n", "\r\n", "\x00\r\n", "PING", "PING\n", "PING\r", "*0\r\n", "*-1\r\n", "*-9\r\n", "*-0\r\n", "*01\r\n", "*+1\r\n", "*\r\n", "*1\n", "*1\rx", "*1x\r\n", "*1\r\nx", "*1\r\n\r\n",
	"*1\r\n$\r\n", "*1\r\n$-1\r\n", "*1\r\n$+1\r\na\r\n", "*1\r\n$01\r\na\r\n", "*1\r\n$4\r\nPINGxx", "*1\r\n$4\r\nPING\rx", "*1\r\n$4\r\nPING\n", "*1\r\n$4\nPING\r\n", "*1\r\n$0\r\n\r\n",
	"*1\r\n$9223372036854775807\r\n", "*1\r\n$9223372036854775808\r\n", "*1\r\n$-9223372036854775808\r\n", "*9223372036854775807\r\n", "*9000000000000000000\r\n", "*1000000000\r\n", "*2147483647\r\n",
	"*2147483648\r\n", "*4294967297\r\n$4\r\nPING\r\n", "*1\r\n$4294967300\r\nPING\r\n", "*50\r\n", "*51\r\n", "*10\r\n", "*11\r\n", "*1\r\n$4096\r\n", "*1\r\n$4097\r\n", "*1\r\n$16384\r\n", "*1\r\n$16385\r\n",
	"*2\r\n*1\r\n$4\r\nPING\r\n$1\r\na\r\n", "*1\r\n*1\r\n", "*1\r\n:1\r\n", "*1\r\n+PING\r\n", "*1\r\n_\r\n", "*1\r\n#t\r\n", "*1\r\n,1.5\r\n", "*1\r\n(123\r\n", "*1\r\n!4\r\nPING\r\n", "*1\r\n=8\r\ntxt:PING\r\n",
	"%1\r\n$4\r\nPING\r\n$1\r\na\r\n", "~1\r\n$4\r\nPING\r\n", ">1\r\n$4\r\nPING\r\n", "|1\r\n+a\r\n+b\r\n", "$4\r\nPING\r\n", "+PING\r\n", ":1\r\n", "-ERR\r\n", "*?\r\n", "*1\r\n$?\r\n;4\r\nPING\r\n;0\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\n\r\n", "Host: x\r\n", "hOsT:\n", "GET / HTTP/1.1\r\n\r\n", "*1\r\n$4\r\npost\r\n", "*1\r\n$5\r\nHost:\r\n",
	"SET \"a b\" 'c d'\r\n", "SET \"\\x41\\n\\q\\\"\" '\\'\\x41'\n", "\"\\x4\"\n", "\"\"\n", "''\n", "a\"b\"\n", "\"a\"b\n", "\"a\n", "'a\n", "\"\\\n", "PING \"\x00\"\r\n", "PING\x00PING\r\n", "\tPING\v\f\r\n",
	"*1\r\n$4\r\nQUIT\r\n*1\r\n$4\r\nPING\r\n", "QUIT\r\nPING\r\n", "*1\r\n$5\r\nRESET\r\n", "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n", "CLIENT REPLY OFF\r\nPING\r\nCLIENT REPLY ON\r\n", "CLIENT REPLY SKIP\r\nPING\r\n",
	"MULTI\r\n", "*1\r\n$5\r\nmulti\r\n", "*1\r\n$5\r\nMULTI\r\n*3\r\n$5\r\nQPUSH\r\n$1\r\nq\r\n$1\r\na\r\n*1\r\n$4\r\nEXEC\r\n", "EXEC\r\n", "DISCARD\r\n"}

// generator makes inputs. Its buffers are used again.
type generator struct {
	pcg     rand.PCG
	random  *rand.Rand
	specs   []*commands.Spec // with the subcommands
	words   [][]byte
	input   []byte
	options []string // of queues
}

func newGenerator() *generator {
	g := &generator{}
	g.random = rand.New(&g.pcg)
	for _, s := range commands.Table() {
		g.specs = append(g.specs, s)
		g.specs = append(g.specs, s.Subcommands...)
	}
	for _, o := range machine.Specs {
		g.options = append(g.options, o.Name)
	}
	return g
}

// make gives the input of that number, valid until the next call.
func (g *generator) make(seed, number uint64) []byte {
	g.pcg.Seed(seed, number)
	g.input = g.input[:0]
	for range 1 + g.random.IntN(4) {
		switch g.random.IntN(64) {
		case 0, 1, 2, 3, 4, 5, 6, 7:
			g.input = append(g.input, fuzzRaw[g.random.IntN(len(fuzzRaw))]...)
		case 8, 9, 10, 11:
			g.input = append(g.input, "*1\r\n$4\r\nPING\r\n"...)
		case 12:
			g.pushes()
		default:
			g.command()
			if g.random.IntN(6) == 0 {
				g.inline()
			} else {
				g.array()
			}
		}
	}
	if g.random.IntN(400) == 0 {
		g.long()
	}
	if g.random.IntN(5) < 2 {
		for range 1 + g.random.IntN(5) {
			g.change()
		}
	}
	return g.input
}

// pushes are what may run together, now and then with another in between.
func (g *generator) pushes() {
	name := g.name()
	for range 2 + g.random.IntN(40) {
		g.words = append(g.words[:0], []byte("QPUSH"), name, g.any())
		if g.random.IntN(50) == 0 {
			g.words = append(g.words, g.any())
		}
		g.array()
	}
}

// command draws the words of one.
func (g *generator) command() {
	spec := g.specs[g.random.IntN(len(g.specs))]
	for range 2 { // what lists all commands is slow, and always the same
		if strings.HasPrefix(spec.FullName(), "command") || spec.Name == "INFO" {
			spec = g.specs[g.random.IntN(len(g.specs))]
		}
	}
	container, sub, _ := strings.Cut(spec.FullName(), "|")
	g.words = append(g.words[:0], []byte(container))
	if sub != "" {
		g.words = append(g.words, []byte(sub))
	}
	if g.random.IntN(4) == 0 {
		g.words[0] = bytes.ToUpper(g.words[0])
	}
	g.arguments(spec.Args)
	switch g.random.IntN(24) {
	case 0:
		g.words = g.words[:1+g.random.IntN(len(g.words))]
	case 1:
		g.words = append(g.words, g.any())
	case 2:
		g.words[g.random.IntN(len(g.words))] = g.any()
	}
}

func (g *generator) arguments(args []commands.Arg) {
	for i := range args {
		a := &args[i]
		if a.Optional && g.random.IntN(2) == 0 {
			continue
		}
		g.argument(a)
		for a.Multiple && g.random.IntN(3) > 0 && len(g.words) < fuzzArgsMax+2 {
			g.argument(a)
		}
	}
}

func (g *generator) argument(a *commands.Arg) {
	if a.Token != "" {
		g.words = append(g.words, []byte(a.Token))
	}
	switch a.Type {
	case commands.ArgPureToken:
	case commands.ArgOneOf:
		g.argument(&a.Args[g.random.IntN(len(a.Args))])
	case commands.ArgBlock:
		g.arguments(a.Args)
	case commands.ArgInteger:
		g.words = append(g.words, g.number(a))
	case commands.ArgKey, commands.ArgPattern:
		g.words = append(g.words, g.name())
	default:
		g.words = append(g.words, g.text())
	}
}

// number is mostly one that the argument takes, so that what stands behind it matters.
func (g *generator) number(a *commands.Arg) []byte {
	switch g.random.IntN(6) {
	case 0:
		return []byte(fuzzNumbers[g.random.IntN(len(fuzzNumbers))])
	case 1:
		edge := a.Min
		if g.random.IntN(2) == 0 {
			edge = a.Max
		}
		return strconv.AppendInt(nil, edge+int64(g.random.IntN(3))-1, 10)
	default:
		return strconv.AppendInt(nil, int64(g.random.IntN(20)), 10)
	}
}

func (g *generator) name() []byte {
	if g.random.IntN(3) > 0 {
		return []byte(fuzzNames[g.random.IntN(4)])
	}
	return []byte(fuzzNames[g.random.IntN(len(fuzzNames))])
}

func (g *generator) text() []byte {
	switch g.random.IntN(8) {
	case 0:
		return []byte(g.options[g.random.IntN(len(g.options))])
	case 1:
		return []byte(fuzzNumbers[g.random.IntN(len(fuzzNumbers))])
	case 2, 3:
		return g.name()
	case 4:
		body := make([]byte, g.random.IntN(200))
		for i := range body {
			body[i] = byte(g.random.Uint32())
		}
		return body
	case 5:
		if g.random.IntN(8) == 0 {
			return bytes.Repeat([]byte("x"), fuzzBulkMax-1+g.random.IntN(3))
		}
	}
	return []byte("body")
}

func (g *generator) any() []byte {
	if g.random.IntN(3) == 0 {
		return []byte(fuzzNumbers[g.random.IntN(len(fuzzNumbers))])
	}
	return g.text()
}

func (g *generator) array() {
	g.input = append(g.input, '*')
	g.input = strconv.AppendInt(g.input, int64(len(g.words)), 10)
	g.input = append(g.input, "\r\n"...)
	for _, w := range g.words {
		g.input = append(g.input, '$')
		g.input = strconv.AppendInt(g.input, int64(len(w)), 10)
		g.input = append(g.input, "\r\n"...)
		g.input = append(g.input, w...)
		g.input = append(g.input, "\r\n"...)
	}
}

// inline writes a line, with quotes where they are needed, or not.
func (g *generator) inline() {
	for i, w := range g.words {
		if i > 0 {
			g.input = append(g.input, ' ')
		}
		if g.random.IntN(3) == 0 {
			g.input = strconv.AppendQuote(g.input, string(w))
		} else {
			g.input = append(g.input, w...)
		}
	}
	if g.random.IntN(2) == 0 {
		g.input = append(g.input, '\r')
	}
	g.input = append(g.input, '\n')
}

// long adds something at a limit that is too large to be there often.
func (g *generator) long() {
	size := []int{guard.LineBytesMax - 1, guard.LineBytesMax, guard.LineBytesMax + 1, guard.LineBytesMax + 2}[g.random.IntN(4)]
	head := []string{"", "*", "*1\r\n$", "PING "}[g.random.IntN(4)]
	g.input = append(g.input, head...)
	g.input = append(g.input, bytes.Repeat([]byte("1"), size-g.random.IntN(2)*len(head))...)
	if g.random.IntN(2) == 0 {
		g.input = append(g.input, "\r\n"...)
	}
}

// change changes a few bytes.
func (g *generator) change() {
	if len(g.input) == 0 {
		return
	}
	at := g.random.IntN(len(g.input))
	switch g.random.IntN(9) {
	case 0:
		g.input[at] = byte(g.random.Uint32())
	case 1:
		g.input[at] ^= 1 << g.random.IntN(8)
	case 2:
		g.input[at] = "0123456789$*\r\n-+: \"'\x00_#,(!=%~>|"[g.random.IntN(30)]
	case 3:
		g.input = append(g.input[:at], g.input[min(len(g.input), at+1+g.random.IntN(9)):]...)
	case 4:
		g.insert(at, []byte{byte(g.random.Uint32())})
	case 5:
		g.insert(at, []byte([]string{"\r\n", "\n", "\x00", "\xff", "-", "0", "*1\r\n", "$0\r\n", "QUIT\r\n"}[g.random.IntN(9)]))
	case 6:
		g.length(at)
	case 7:
		end := min(len(g.input), at+g.random.IntN(30))
		g.insert(at, bytes.Clone(g.input[at:end]))
	case 8:
		if g.random.IntN(3) == 0 {
			g.input = g.input[:at]
		}
	}
}

func (g *generator) insert(at int, piece []byte) {
	n := len(g.input)
	g.input = append(g.input, piece...)
	copy(g.input[at+len(piece):], g.input[at:n])
	copy(g.input[at:], piece)
}

// length puts another number in place of the next length.
func (g *generator) length(at int) {
	mark := bytes.IndexAny(g.input[at:], "$*")
	if mark < 0 {
		return
	}
	from := at + mark + 1
	to := from
	for to < len(g.input) && g.input[to] >= '0' && g.input[to] <= '9' {
		to++
	}
	number := fuzzNumbers[g.random.IntN(len(fuzzNumbers))]
	if n, err := strconv.Atoi(string(g.input[from:to])); err == nil && g.random.IntN(2) == 0 {
		number = strconv.Itoa(n + g.random.IntN(3) - 1)
	}
	g.input = append(g.input[:from], g.input[to:]...)
	g.insert(from, []byte(number))
}
