package bench

// The protocol as a load generator needs it: commands are bytes that are encoded once, and replies are found by their end
// and looked into where they lie, so that neither costs memory or copies.

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

const (
	readBytes     = 256 << 10 // room for one read
	replyBytesMax = 64 << 20  // a longer reply is an error, not a reason to take all memory
)

// appendHead begins a command of so many arguments.
func appendHead(dst []byte, args int) []byte {
	dst = strconv.AppendInt(append(dst, '*'), int64(args), 10)
	return append(dst, '\r', '\n')
}

func appendArg[T string | []byte](dst []byte, arg T) []byte {
	dst = strconv.AppendInt(append(dst, '$'), int64(len(arg)), 10)
	dst = append(dst, '\r', '\n')
	return append(append(dst, arg...), '\r', '\n')
}

// appendCommand encodes a whole command.
func appendCommand(dst []byte, args ...string) []byte {
	dst = appendHead(dst, len(args))
	for _, arg := range args {
		dst = appendArg(dst, arg)
	}
	return dst
}

// replies cuts what was read into replies. A reply that came in part is not scanned again from its beginning: where the
// scan stands and how many values are open is all that it needs to go on.
type replies struct {
	buf        []byte
	start, end int // what is read and not handed out yet
	pos        int // scanned up to here
	open       int // values that the reply at start still lacks
}

// room is where to read to. What next handed out is gone after it.
func (r *replies) room() []byte {
	switch {
	case r.start == r.end:
		r.start, r.end, r.pos = 0, 0, 0
	case r.end == len(r.buf) && r.start > 0:
		copy(r.buf, r.buf[r.start:r.end])
		r.end, r.pos, r.start = r.end-r.start, r.pos-r.start, 0
	}
	if r.end == len(r.buf) {
		r.buf = append(r.buf, make([]byte, max(readBytes, len(r.buf)))...)
	}
	return r.buf[r.end:]
}

// filled says how much of room was read.
func (r *replies) filled(n int) { r.end += n }

var errReply = errors.New("the server sent what is no reply of the Redis protocol")

// next is the next whole reply, or nil if more must be read.
func (r *replies) next() ([]byte, error) {
	if r.open == 0 {
		if r.start == r.end {
			return nil, nil
		}
		r.open, r.pos = 1, r.start
	}
	for r.open > 0 {
		size, values, err := value(r.buf[r.pos:r.end])
		if err == nil && r.end-r.start > replyBytesMax {
			err = fmt.Errorf("a reply is longer than %d bytes", replyBytesMax)
		}
		if err != nil || size == 0 {
			return nil, err
		}
		r.pos += size
		r.open += values - 1
	}
	raw := r.buf[r.start:r.pos]
	r.start = r.pos
	return raw, nil
}

// value measures the value at the front of b: its bytes, without those of an array's values, and how many values follow.
// Size 0 means that it is not there whole.
func value(b []byte) (size, values int, err error) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return 0, 0, nil
	}
	if end < 2 || b[end-1] != '\r' {
		return 0, 0, errReply
	}
	size = end + 1
	switch b[0] {
	case '+', '-', ':':
		return size, 0, nil
	case '$', '*':
		n, ok := integer(b[1 : end-1])
		if !ok || n > replyBytesMax {
			return 0, 0, errReply
		}
		if b[0] == '*' {
			return size, int(max(n, 0)), nil
		}
		if n >= 0 {
			size += int(n) + 2
		}
		if size > len(b) {
			return 0, 0, nil
		}
		return size, 0, nil
	}
	return 0, 0, errReply
}

// integer reads a whole number, without the memory that a conversion to string may take.
func integer(b []byte) (n int64, ok bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return n, true
}

// looking goes through the values of a whole reply. After the first that is not what was expected it answers zeros, and
// err says so.
type looking struct {
	rest []byte
	err  error
}

// take is the next value's text, if it is of that type.
func (l *looking) take(kind byte) []byte {
	if l.err != nil {
		return nil
	}
	size, _, err := value(l.rest)
	if err != nil || size == 0 || l.rest[0] != kind {
		l.err = fmt.Errorf("an unexpected reply: %.80q", l.rest)
		return nil
	}
	text := l.rest[1 : size-2]
	if kind == '$' {
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	l.rest = l.rest[size:]
	return text
}

func (l *looking) number(kind byte) int64 {
	n, ok := integer(l.take(kind))
	if !ok && l.err == nil {
		l.err = errReply
	}
	return n
}

func (l *looking) integer() int64 { return l.number(':') }
func (l *looking) array() int     { return int(l.number('*')) }
func (l *looking) bulk() []byte   { return l.take('$') }

// isNull is true for the null of either kind.
func isNull(raw []byte) bool {
	return len(raw) == 5 && (raw[0] == '*' || raw[0] == '$') && raw[1] == '-'
}
