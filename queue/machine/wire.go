package machine

// Reading and writing the fields of records. Everything is an unsigned varint, or bytes after their length. Fields come from
// a disk that may lie, so the reader bounds every value, and no count is believed that the bytes left could not hold.

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var (
	errGap      = errors.New("records must follow each other without a gap")
	errCut      = errors.New("its fields are cut short")
	errTooHigh  = errors.New("a value is above 2^53")
	errTrailing = errors.New("there are bytes after its last field")
	errCount    = errors.New("a count is more than the bytes can hold")
	errOrder    = errors.New("ids do not rise")
)

// reader takes fields off the front of rest. After an error all further fields are zero; done tells.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.rest = nil
}

// value is one integer of at most ValueMax.
func (r *reader) value() uint64 {
	v, n := binary.Uvarint(r.rest)
	switch {
	case n == 0:
		r.fail(errCut)
		return 0
	case n < 0 || v > ValueMax:
		r.fail(errTooHigh)
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// millis is a time or a duration.
func (r *reader) millis() int64 { return int64(r.value()) }

// upTo is one integer of at most most.
func (r *reader) upTo(most uint64) uint64 {
	v := r.value()
	if v > most {
		r.fail(fmt.Errorf("a field is %d; at most %d is possible", v, most))
		return 0
	}
	return v
}

// count is a number of things that follow, each of at least one byte.
func (r *reader) count() int { return r.countOf(1) }

// countOf is a number of things that follow, each of at least so many bytes.
func (r *reader) countOf(bytesMin int) int {
	v := r.value()
	if v > uint64(len(r.rest)/bytesMin) {
		r.fail(errCount)
		return 0
	}
	return int(v)
}

// text is a length and so many bytes, at most most; it shares the record's memory.
func (r *reader) text(most int) []byte {
	n := r.count()
	if n > most {
		r.fail(fmt.Errorf("a text has %d bytes; at most %d are possible", n, most))
		return nil
	}
	if r.err != nil {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// above is an id written as its distance from the one before.
func (r *reader) above(before uint64) uint64 {
	d := r.value()
	if d == 0 {
		r.fail(errOrder)
		return before
	}
	if d > ValueMax-before {
		r.fail(errTooHigh)
		return before
	}
	return before + d
}

// done is the first error, also if fields are left over.
func (r *reader) done() error {
	if r.err == nil && len(r.rest) > 0 {
		r.err = errTrailing
	}
	return r.err
}

func put(dst []byte, v uint64) []byte { return binary.AppendUvarint(dst, v) }

// putMillis writes a time; one outside the format's range becomes the nearest inside.
func putMillis(dst []byte, v int64) []byte {
	return binary.AppendUvarint(dst, uint64(min(max(v, 0), ValueMax)))
}

func putText[T string | []byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// plus adds two times and stops at the format's range.
func plus(a, b int64) int64 {
	a, b = min(max(a, 0), ValueMax), min(max(b, 0), ValueMax)
	return min(a+b, ValueMax)
}
