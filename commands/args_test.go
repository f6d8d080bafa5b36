package commands

import (
	"runtime"
	"strings"
	"testing"
)

func TestParseInteger(t *testing.T) {
	for word, want := range map[string]int64{"0": 0, "1": 1, "-1": -1, "9007199254740991": integerMax, "-9007199254740991": -integerMax} {
		if n, ok := parseInteger([]byte(word)); !ok || n != want {
			t.Errorf("%q: %d, %v", word, n, ok)
		}
	}
	for _, word := range []string{"", "-", "-0", "+1", "01", "1 ", " 1", "1.0", "1e3", "0x1", "9007199254740992", "99999999999999999999", "١"} {
		if n, ok := parseInteger([]byte(word)); ok {
			t.Errorf("%q is read as %d", word, n)
		}
	}
}

// What a client sent comes back in errors: it must be short and must not be able to draw on the reader's terminal.
func TestQuote(t *testing.T) {
	for word, want := range map[string]string{
		"abc": `'abc'`, "": `''`, "a'b": `'a'b'`, "\x1b[31m": `'\x1b[31m'`, "ü": `'ü'`, "\xff": `'\xff'`, "\u202e": `'\xe2\x80\xae'`,
	} {
		if got := quote(word); got != want {
			t.Errorf("%q: %s", word, got)
		}
	}
	w := newWorld(2)
	long := strings.Repeat("9", 100_000)
	for _, words := range [][]string{{"QUNLOCK", "orders", long}, {"QCREATE", "orders", "lease", long}, {"QCONFIG", "SET", "orders", "dead-letter-queue", long},
		{"QPUSHEX", "orders", long, "a"}, {"QPUSHEX", "orders", "1", "a", "DEDUP", long}, {"QPEEK", "orders", "STATE", long}} {
		if reply, _ := w.run(words...); len(reply) > 300 || reply[0] != '-' {
			t.Errorf("%s is answered with %d bytes", words[0], len(reply))
		}
	}
	if reply, _ := w.run("QCONFIG", "SET", "orders", long, "1"); len(reply) > 600 || reply[0] != '-' {
		t.Errorf("an unknown option is answered with %d bytes", len(reply))
	}
}

func FuzzParseInteger(f *testing.F) {
	f.Add("123")
	f.Fuzz(func(t *testing.T, word string) {
		if n, ok := parseInteger([]byte(word)); ok && (n > integerMax || n < -integerMax) {
			t.Errorf("%q: %d", word, n)
		}
	})
}

// A count is a client's claim. Whoever allocated for it would die of QPUSHEX q 9007199254740991 x.
func TestNothingIsAllocatedForADeclaredCount(t *testing.T) {
	for _, words := range [][]string{{"QPUSHEX", "orders", "9007199254740991", "a"}, {"QPUSHEX", "orders", "1", "a", "HEADERS", "1024", "b", "c"}} {
		w := newWorld(2)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		reply, _ := w.run(words...)
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<10 || reply[0] != '-' {
			t.Errorf("%v allocates %d bytes and gets %q", words, grown, reply)
		}
	}
}
