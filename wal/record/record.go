// Package record is the format of one log record, the unit that the journal and the queue logs share.
//
// A record is encoded once, when it is committed; the same bytes go into the journal's group and, later, into the
// queue's own log, so a record can be checked wherever it is found and is never translated.
//
//	offset  size  field
//	     0     1  magic 0xA9: no other byte can start a record
//	     1     1  version of this layout (1)
//	     2     1  kind: what the record says; its meaning belongs to the queue's machine
//	     3     1  flags: belong to the kind
//	     4     4  CRC32C over the whole record with these four bytes left out
//	     8     8  LSN: position in the queue's log, from 1, without gaps
//	    16     8  incarnation: which life of which queue (0: the server's own records)
//	    24     4  length of meta in bytes
//	    28     4  length of body in bytes
//	    32     …  meta: the kind's own fields
//	     …     …  body: a message's body, untouched
//
// All integers are little-endian. The incarnation stands in every record, so that a stray segment of a deleted queue is
// noticed even when its LSNs fit. A record is never empty: its header alone has 32 bytes, so a zeroed tail is no record.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Sizes and marks of the layout.
const (
	Magic       = 0xA9
	Version     = 1
	HeaderBytes = 32
	// BytesMax bounds meta and body each, so that no length read from a disk can ask for an absurd allocation.
	BytesMax = 1 << 30
)

// What a buffer that is no whole, undamaged record turns out to be. Decode wraps them with the values it saw.
var (
	// ErrShort: the buffer ends before the record does.
	ErrShort = errors.New("record is cut short")
	// ErrMagic: the first byte starts no record.
	ErrMagic = errors.New("no record starts here")
	// ErrVersion: the record is of a layout that this version of Quail does not know.
	ErrVersion = errors.New("record has an unknown version")
	// ErrChecksum: the bytes are not those that were written.
	ErrChecksum = errors.New("record fails its checksum")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Kind says what a record states. Package machine defines the kinds.
type Kind uint8

// Record is one decoded record. Meta and Body are slices of the buffer it was decoded from, or the caller's own when it
// is about to be encoded.
type Record struct {
	LSN         uint64
	Incarnation uint64
	Kind        Kind
	Flags       uint8
	Meta        []byte
	Body        []byte
}

// Size is the encoded length in bytes.
func (r *Record) Size() int { return HeaderBytes + len(r.Meta) + len(r.Body) }

// Append encodes r at the end of dst and returns the extended slice.
// Meta and Body must each be at most BytesMax bytes; the caller has checked that against its own, smaller limits.
func Append(dst []byte, r *Record) []byte {
	start := len(dst)
	var header [HeaderBytes]byte
	header[0] = Magic
	header[1] = Version
	header[2] = byte(r.Kind)
	header[3] = r.Flags
	binary.LittleEndian.PutUint64(header[8:], r.LSN)
	binary.LittleEndian.PutUint64(header[16:], r.Incarnation)
	binary.LittleEndian.PutUint32(header[24:], uint32(len(r.Meta)))
	binary.LittleEndian.PutUint32(header[28:], uint32(len(r.Body)))
	dst = append(dst, header[:]...)
	dst = append(dst, r.Meta...)
	dst = append(dst, r.Body...)
	binary.LittleEndian.PutUint32(dst[start+4:], checksum(dst[start:]))
	return dst
}

// Length returns the encoded length that the record at the start of buf claims, in bytes, without checking its CRC.
// Errors: ErrShort, ErrMagic, ErrVersion, or ErrChecksum if a length is above BytesMax.
func Length(buf []byte) (int, error) {
	if len(buf) == 0 {
		return 0, ErrShort
	}
	if buf[0] != Magic {
		return 0, fmt.Errorf("%w: first byte is %#02x", ErrMagic, buf[0])
	}
	if len(buf) < HeaderBytes {
		return 0, fmt.Errorf("%w: %d of %d header bytes", ErrShort, len(buf), HeaderBytes)
	}
	if buf[1] != Version {
		return 0, fmt.Errorf("%w: %d, this is %d", ErrVersion, buf[1], Version)
	}
	meta := binary.LittleEndian.Uint32(buf[24:])
	body := binary.LittleEndian.Uint32(buf[28:])
	if meta > BytesMax || body > BytesMax {
		return 0, fmt.Errorf("%w: lengths %d and %d", ErrChecksum, meta, body)
	}
	return HeaderBytes + int(meta) + int(body), nil
}

// Decode checks the record at the start of buf and returns it with its encoded length. Meta and Body share buf's memory.
// Errors: ErrShort, ErrMagic, ErrVersion, ErrChecksum.
func Decode(buf []byte) (Record, int, error) {
	n, err := Length(buf)
	if err != nil {
		return Record{}, 0, err
	}
	if len(buf) < n {
		return Record{}, 0, fmt.Errorf("%w: %d of %d bytes", ErrShort, len(buf), n)
	}
	buf = buf[:n:n]
	if want, got := binary.LittleEndian.Uint32(buf[4:]), checksum(buf); want != got {
		return Record{}, 0, fmt.Errorf("%w: CRC32C is %#08x, the record says %#08x", ErrChecksum, got, want)
	}
	return View(buf), n, nil
}

// View reads the fields of a record that was checked before; buf must be exactly one record.
func View(buf []byte) Record {
	meta := int(binary.LittleEndian.Uint32(buf[24:]))
	return Record{
		Kind:        Kind(buf[2]),
		Flags:       buf[3],
		LSN:         binary.LittleEndian.Uint64(buf[8:]),
		Incarnation: binary.LittleEndian.Uint64(buf[16:]),
		Meta:        buf[HeaderBytes : HeaderBytes+meta : HeaderBytes+meta],
		Body:        buf[HeaderBytes+meta:],
	}
}

// checksum is CRC32C over everything but the checksum's own four bytes.
func checksum(buf []byte) uint32 {
	crc := crc32.Update(0, castagnoli, buf[:4])
	return crc32.Update(crc, castagnoli, buf[8:])
}
