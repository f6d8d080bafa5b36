// Package resp writes replies of the Redis protocol, versions 2 and 3.
//
// A Writer appends to one byte slice, so a reply is encoded once, at the moment it is decided, and the connection sends
// these very bytes later. What a client of version 2 cannot read is written in the form that Redis itself uses for it: a
// map as a flat array, a set as an array, a boolean as 0 or 1, a double and a verbatim string as bulk strings.
package resp

import (
	"math"
	"slices"
	"strconv"
)

// Writer encodes replies. The zero Writer is ready to use and speaks version 2.
type Writer struct {
	// Proto is the protocol version, 2 or 3; everything but 3 counts as 2.
	Proto int
	// Buf holds what was written so far. Its owner may cut or take it between replies.
	Buf []byte
}

// Grow makes room for n more bytes, so that a large reply of known size is not copied while it grows.
func (w *Writer) Grow(n int) { w.Buf = slices.Grow(w.Buf, n) }

func (w *Writer) header(kind byte, n int64) {
	w.Buf = append(w.Buf, kind)
	w.Buf = strconv.AppendInt(w.Buf, n, 10)
	w.Buf = append(w.Buf, '\r', '\n')
}

// Int writes an integer.
func (w *Writer) Int(n int64) { w.header(':', n) }

// Bulk writes a bulk string of any bytes. A nil slice is an empty string, not null.
func (w *Writer) Bulk(b []byte) {
	w.header('$', int64(len(b)))
	w.Buf = append(w.Buf, b...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// BulkString writes a bulk string.
func (w *Writer) BulkString(s string) {
	w.header('$', int64(len(s)))
	w.Buf = append(w.Buf, s...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// Simple writes a simple string such as OK. Line breaks become spaces, since they would end the reply early.
func (w *Writer) Simple(s string) {
	w.Buf = append(w.Buf, '+')
	w.line(s)
}

// Error writes an error: a code in capitals, a space and a message. Line breaks in the message become spaces: a client's own
// bytes may be part of it, and could otherwise forge a second reply.
func (w *Writer) Error(code, message string) {
	w.Buf = append(w.Buf, '-')
	w.Buf = append(w.Buf, code...)
	w.Buf = append(w.Buf, ' ')
	w.line(message)
}

func (w *Writer) line(s string) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\r' || c == '\n' {
			c = ' '
		}
		w.Buf = append(w.Buf, c)
	}
	w.Buf = append(w.Buf, '\r', '\n')
}

// Array opens an array; its n elements follow.
func (w *Writer) Array(n int) { w.header('*', int64(n)) }

// Map opens a map; its n keys, each followed by its value, follow.
func (w *Writer) Map(n int) {
	if w.Proto == 3 {
		w.header('%', int64(n))
		return
	}
	w.header('*', int64(n)*2)
}

// Set opens a set; its n elements follow.
func (w *Writer) Set(n int) {
	if w.Proto == 3 {
		w.header('~', int64(n))
		return
	}
	w.header('*', int64(n))
}

// Push opens an out-of-band message of n elements, of which the first names its kind. Version 2 has none, so it is an array
// there.
func (w *Writer) Push(n int) {
	if w.Proto == 3 {
		w.header('>', int64(n))
		return
	}
	w.header('*', int64(n))
}

// NullArray writes null where an array could have stood: *-1 in version 2.
func (w *Writer) NullArray() { w.null("*-1\r\n") }

// NullBulk writes null where a string or a number could have stood: $-1 in version 2.
func (w *Writer) NullBulk() { w.null("$-1\r\n") }

func (w *Writer) null(inVersion2 string) {
	if w.Proto == 3 {
		w.Buf = append(w.Buf, '_', '\r', '\n')
		return
	}
	w.Buf = append(w.Buf, inVersion2...)
}

// Bool writes a boolean; 1 or 0 in version 2.
func (w *Writer) Bool(b bool) {
	switch {
	case w.Proto == 3 && b:
		w.Buf = append(w.Buf, "#t\r\n"...)
	case w.Proto == 3:
		w.Buf = append(w.Buf, "#f\r\n"...)
	case b:
		w.Int(1)
	default:
		w.Int(0)
	}
}

// Double writes a floating-point number; a bulk string in version 2. Infinities are inf and -inf, not-a-number is nan.
func (w *Writer) Double(f float64) {
	var scratch [32]byte
	var digits []byte
	switch {
	case math.IsInf(f, 1):
		digits = append(scratch[:0], "inf"...)
	case math.IsInf(f, -1):
		digits = append(scratch[:0], "-inf"...)
	case math.IsNaN(f):
		digits = append(scratch[:0], "nan"...)
	default:
		digits = strconv.AppendFloat(scratch[:0], f, 'g', -1, 64)
	}
	if w.Proto != 3 {
		w.Bulk(digits)
		return
	}
	w.Buf = append(w.Buf, ',')
	w.Buf = append(w.Buf, digits...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// Verbatim writes text that is meant to be shown as it is. The format has three letters, txt or mkd; version 2 gets a bulk
// string without it.
func (w *Writer) Verbatim(format, text string) {
	if w.Proto != 3 {
		w.BulkString(text)
		return
	}
	w.header('=', int64(len(text))+4)
	w.Buf = append(w.Buf, format[:3]...)
	w.Buf = append(w.Buf, ':')
	w.Buf = append(w.Buf, text...)
	w.Buf = append(w.Buf, '\r', '\n')
}

// OK writes the simple string OK.
func (w *Writer) OK() { w.Buf = append(w.Buf, "+OK\r\n"...) }
