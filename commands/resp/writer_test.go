package resp

import (
	"math"
	"testing"
)

func TestEveryTypeInBothProtocols(t *testing.T) {
	for _, c := range []struct {
		name       string
		write      func(w *Writer)
		two, three string
	}{
		{"int", func(w *Writer) { w.Int(-7) }, ":-7\r\n", ""},
		{"int", func(w *Writer) { w.Int(math.MaxInt64) }, ":9223372036854775807\r\n", ""},
		{"bulk", func(w *Writer) { w.Bulk([]byte("a\r\nb")) }, "$4\r\na\r\nb\r\n", ""},
		{"nil bulk", func(w *Writer) { w.Bulk(nil) }, "$0\r\n\r\n", ""},
		{"bulk string", func(w *Writer) { w.BulkString("") }, "$0\r\n\r\n", ""},
		{"simple", func(w *Writer) { w.Simple("a\r\nb") }, "+a  b\r\n", ""},
		{"ok", func(w *Writer) { w.OK() }, "+OK\r\n", ""},
		{"error", func(w *Writer) { w.Error("ERR", "a\r\n+OK") }, "-ERR a  +OK\r\n", ""},
		{"array", func(w *Writer) { w.Array(0) }, "*0\r\n", ""},
		{"map", func(w *Writer) { w.Map(2) }, "*4\r\n", "%2\r\n"},
		{"set", func(w *Writer) { w.Set(2) }, "*2\r\n", "~2\r\n"},
		{"push", func(w *Writer) { w.Push(2) }, "*2\r\n", ">2\r\n"},
		{"null array", func(w *Writer) { w.NullArray() }, "*-1\r\n", "_\r\n"},
		{"null bulk", func(w *Writer) { w.NullBulk() }, "$-1\r\n", "_\r\n"},
		{"true", func(w *Writer) { w.Bool(true) }, ":1\r\n", "#t\r\n"},
		{"false", func(w *Writer) { w.Bool(false) }, ":0\r\n", "#f\r\n"},
		{"double", func(w *Writer) { w.Double(1.5) }, "$3\r\n1.5\r\n", ",1.5\r\n"},
		{"double", func(w *Writer) { w.Double(0.1) }, "$3\r\n0.1\r\n", ",0.1\r\n"},
		{"infinity", func(w *Writer) { w.Double(math.Inf(1)) }, "$3\r\ninf\r\n", ",inf\r\n"},
		{"minus infinity", func(w *Writer) { w.Double(math.Inf(-1)) }, "$4\r\n-inf\r\n", ",-inf\r\n"},
		{"not a number", func(w *Writer) { w.Double(math.NaN()) }, "$3\r\nnan\r\n", ",nan\r\n"},
		{"verbatim", func(w *Writer) { w.Verbatim("txt", "ab") }, "$2\r\nab\r\n", "=6\r\ntxt:ab\r\n"},
	} {
		two, three := &Writer{}, &Writer{Proto: 3}
		c.write(two)
		c.write(three)
		if c.three == "" {
			c.three = c.two
		}
		if string(two.Buf) != c.two || string(three.Buf) != c.three {
			t.Errorf("%s: %q and %q", c.name, two.Buf, three.Buf)
		}
	}
}

func TestGrowMakesRoom(t *testing.T) {
	w := &Writer{Buf: []byte("+OK\r\n")}
	w.Grow(1000)
	if cap(w.Buf) < 1005 || string(w.Buf) != "+OK\r\n" {
		t.Errorf("capacity %d, %q", cap(w.Buf), w.Buf)
	}
}
