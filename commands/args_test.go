package commands

import (
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
	reply, _ := w.run("QUNLOCK", "orders", strings.Repeat("9", 100_000))
	if len(reply) > 300 {
		t.Errorf("an error of %d bytes", len(reply))
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
