package wal

// How the journal lays bytes out. A journal file is one header block and then groups, each starting at a multiple of
// 512 bytes, the unit that disks write whole, so that a torn group never touches its neighbours' bytes:
//
//	┌────────────┬──────────────┬─────────┬──────────┬────────┬─────────┬ ─ ─
//	│ file header│ group header │ records │ end mark │ zeros  │ group … │
//	└────────────┴──────────────┴─────────┴──────────┴────────┴─────────┴ ─ ─
//	0           512                                           multiple of 512
//
// A group is there whole or not at all. Its header and its end mark carry its number; the end mark sums up the checksums
// of all records, so bytes that an earlier life of the file left behind can never complete a group, not even when
// they are undamaged records of the same length. All checksums of headers and marks are seeded with the store's random
// identity: nobody can forge a group inside a message's body.
//
// Every group also says which file sequence it was written for, so a group that an earlier life of the file left behind
// never counts, not even if its number fits; and which group was the last durable one when it was written, so recovery
// knows of each group before it whether it had been promised to anybody.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"quail/wal/record"
)

const (
	// blockBytes is the alignment of groups: the smallest unit that storage writes whole.
	blockBytes       = 512
	fileHeaderBytes  = 72
	groupHeaderBytes = 56
	endMarkBytes     = 16
	journalVersion   = 1

	flagEndMark = 1 // an empty group whose only use is to show that the one before it was complete
)

var (
	fileMagic  = [8]byte{'Q', 'U', 'A', 'I', 'L', 'J', 'N', 'L'}
	groupMagic = [4]byte{'Q', 'G', 'R', 'P'}
	endMagic   = [4]byte{'Q', 'E', 'N', 'D'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// storeID is the random identity that a data directory gets when it is made.
type storeID [16]byte

// seed starts a checksum that only this store's own writes can match.
func (id storeID) seed() uint32 { return crc32.Checksum(id[:], castagnoli) }

// fileHeader opens every journal file; it is written and synced together with the file's first group.
//
//	offset  size  field
//	     0     8  magic "QUAILJNL"
//	     8     4  version (1)
//	    12     4  block size (512)
//	    16    16  store identity
//	    32     8  sequence: order of the files, whatever their names
//	    40     8  number of the first group here
//	    48     8  after: number of the last group before this file that counts; later ones in older files are ignored
//	    56     8  server clock when the file was begun, milliseconds
//	    64     4  size of the file in blocks: a shorter one was cut
//	    68     4  CRC32C of bytes 0 to 67
//	    72   440  zeros
type fileHeader struct {
	sequence    uint64
	firstGroup  uint64
	after       uint64
	clockMillis int64
	blocks      uint32
}

func (h fileHeader) put(block []byte, id storeID) {
	clear(block[:blockBytes])
	copy(block, fileMagic[:])
	binary.LittleEndian.PutUint32(block[8:], journalVersion)
	binary.LittleEndian.PutUint32(block[12:], blockBytes)
	copy(block[16:], id[:])
	binary.LittleEndian.PutUint64(block[32:], h.sequence)
	binary.LittleEndian.PutUint64(block[40:], h.firstGroup)
	binary.LittleEndian.PutUint64(block[48:], h.after)
	binary.LittleEndian.PutUint64(block[56:], uint64(h.clockMillis))
	binary.LittleEndian.PutUint32(block[64:], h.blocks)
	binary.LittleEndian.PutUint32(block[68:], crc32.Update(id.seed(), castagnoli, block[:68]))
}

// errUnused: the block is all zeros, the file was prepared and never begun.
var errUnused = errors.New("never used")

func parseFileHeader(block []byte, id storeID) (fileHeader, error) {
	if allZero(block) {
		return fileHeader{}, errUnused
	}
	if [8]byte(block[:8]) != fileMagic {
		return fileHeader{}, errors.New("no journal file header")
	}
	if binary.LittleEndian.Uint32(block[68:]) != crc32.Update(id.seed(), castagnoli, block[:68]) {
		if [16]byte(block[16:32]) != id {
			return fileHeader{}, errors.New("file header fails its checksum, or the file belongs to another store")
		}
		return fileHeader{}, errors.New("file header fails its checksum")
	}
	if v := binary.LittleEndian.Uint32(block[8:]); v != journalVersion {
		return fileHeader{}, fmt.Errorf("journal version %d, this is %d", v, journalVersion)
	}
	if b := binary.LittleEndian.Uint32(block[12:]); b != blockBytes {
		return fileHeader{}, fmt.Errorf("block size %d, this is %d", b, blockBytes)
	}
	if !allZero(block[fileHeaderBytes:blockBytes]) {
		return fileHeader{}, errors.New("file header's padding is not zero")
	}
	return fileHeader{
		sequence:    binary.LittleEndian.Uint64(block[32:]),
		firstGroup:  binary.LittleEndian.Uint64(block[40:]),
		after:       binary.LittleEndian.Uint64(block[48:]),
		clockMillis: int64(binary.LittleEndian.Uint64(block[56:])),
		blocks:      binary.LittleEndian.Uint32(block[64:]),
	}, nil
}

// groupHeader opens a group.
//
//	offset  size  field
//	     0     4  magic "QGRP"
//	     4     2  version (1)
//	     6     2  flags (1: empty end-mark group)
//	     8     8  number, rising by one
//	    16     8  number of the last group that was durable when this one was written
//	    24     8  server clock when it was written, milliseconds
//	    32     8  length of all records in bytes
//	    40     4  number of records
//	    44     4  sequence of the file, its low half
//	    48     4  CRC32C of bytes 0 to 47
//	    52     4  zero
type groupHeader struct {
	number      uint64
	durable     uint64
	clockMillis int64
	bytes       uint64
	records     uint32
	sequence    uint32
	flags       uint16
}

// groupSpan is how much of the file a group with that many record bytes takes.
func groupSpan(recordBytes int) int64 {
	n := int64(groupHeaderBytes) + int64(recordBytes) + endMarkBytes
	return (n + blockBytes - 1) / blockBytes * blockBytes
}

func (h groupHeader) put(b []byte, id storeID) {
	copy(b, groupMagic[:])
	binary.LittleEndian.PutUint16(b[4:], journalVersion)
	binary.LittleEndian.PutUint16(b[6:], h.flags)
	binary.LittleEndian.PutUint64(b[8:], h.number)
	binary.LittleEndian.PutUint64(b[16:], h.durable)
	binary.LittleEndian.PutUint64(b[24:], uint64(h.clockMillis))
	binary.LittleEndian.PutUint64(b[32:], h.bytes)
	binary.LittleEndian.PutUint32(b[40:], h.records)
	binary.LittleEndian.PutUint32(b[44:], h.sequence)
	binary.LittleEndian.PutUint32(b[48:], crc32.Update(id.seed(), castagnoli, b[:48]))
	binary.LittleEndian.PutUint32(b[52:], 0)
}

// putEndMark closes a group: magic, CRC32C over the group's number, length and all records' checksums, number.
func putEndMark(b []byte, number uint64, sum uint32) {
	copy(b, endMagic[:])
	binary.LittleEndian.PutUint32(b[4:], sum)
	binary.LittleEndian.PutUint64(b[8:], number)
}

// groupSum binds the records to this group: their checksums in order, after the group header's own.
type groupSum uint32

func (s groupSum) add(rec []byte) groupSum {
	return groupSum(crc32.Update(uint32(s), castagnoli, rec[4:8]))
}

// close mixes the header's checksum in, so that the same records in another group have another sum.
func (s groupSum) close(header []byte) uint32 {
	return crc32.Update(uint32(s), castagnoli, header[:groupHeaderBytes-4])
}

// errNoGroup: there is no sign of a group at this place.
var errNoGroup = errors.New("no group starts here")

// parseGroupHeader reads only the header. A wrong magic is errNoGroup: zeros, or the middle of a longer, older group.
func parseGroupHeader(b []byte, id storeID) (groupHeader, error) {
	if len(b) < groupHeaderBytes || [4]byte(b[:4]) != groupMagic {
		return groupHeader{}, errNoGroup
	}
	if binary.LittleEndian.Uint32(b[48:]) != crc32.Update(id.seed(), castagnoli, b[:48]) ||
		binary.LittleEndian.Uint32(b[52:]) != 0 {
		return groupHeader{}, errors.New("group header fails its checksum")
	}
	if v := binary.LittleEndian.Uint16(b[4:]); v != journalVersion {
		return groupHeader{}, fmt.Errorf("group version %d, this is %d", v, journalVersion)
	}
	return groupHeader{
		flags:       binary.LittleEndian.Uint16(b[6:]),
		number:      binary.LittleEndian.Uint64(b[8:]),
		durable:     binary.LittleEndian.Uint64(b[16:]),
		clockMillis: int64(binary.LittleEndian.Uint64(b[24:])),
		bytes:       binary.LittleEndian.Uint64(b[32:]),
		records:     binary.LittleEndian.Uint32(b[40:]),
		sequence:    binary.LittleEndian.Uint32(b[44:]),
	}, nil
}

// group is one whole, checked group as recovery reads it.
type group struct {
	groupHeader
	payload []byte // all records, one behind the other, each checked
	span    int64  // bytes it takes in the file
}

// parseGroup checks the group at the start of data, every byte of it, and returns it with its records undecoded but
// checked. data may reach to the end of the file. A group that was written for another sequence is errNoGroup. With errPadding
// the group is returned all the same. Errors do not name the group: whoever asked knows which one belongs here.
func parseGroup(data []byte, id storeID, sequence uint64) (group, error) {
	h, err := parseGroupHeader(data, id)
	if err != nil {
		return group{}, err
	}
	if h.sequence != uint32(sequence) {
		return group{}, fmt.Errorf("%w: an earlier life of the file left group %d here", errNoGroup, h.number)
	}
	if h.bytes > uint64(len(data)) || groupHeaderBytes+int(h.bytes)+endMarkBytes > len(data) {
		return group{}, fmt.Errorf("it claims %d bytes, the file has %d left", h.bytes, len(data))
	}
	g := group{groupHeader: h, payload: data[groupHeaderBytes : groupHeaderBytes+int(h.bytes)], span: groupSpan(int(h.bytes))}
	var sum groupSum
	var records uint32
	for rest := g.payload; len(rest) > 0; records++ {
		_, n, err := record.Decode(rest)
		if err != nil {
			return group{}, fmt.Errorf("record %d in it: %w", records, err)
		}
		sum = sum.add(rest[:n])
		rest = rest[n:]
	}
	if records != h.records {
		return group{}, fmt.Errorf("it has %d records, its header says %d", records, h.records)
	}
	end := data[groupHeaderBytes+int(h.bytes):]
	if [4]byte(end[:4]) != endMagic || binary.LittleEndian.Uint64(end[8:]) != h.number {
		return group{}, errors.New("it has no end mark")
	}
	if binary.LittleEndian.Uint32(end[4:]) != sum.close(data) {
		return group{}, errors.New("it fails its checksum")
	}
	if padding := g.padding(data); int64(len(data)) < g.span || !allZero(padding) {
		return g, errPadding
	}
	return g, nil
}

// padding is what is between g's end mark and the next block, as far as data reaches.
func (g *group) padding(data []byte) []byte {
	return data[groupHeaderBytes+len(g.payload)+endMarkBytes : min(g.span, int64(len(data)))]
}

// errPadding: the group is whole, but the zeros behind it are not. Whatever wrote there may have hit more.
var errPadding = errors.New("the padding behind it is damaged")

// each calls f with every record of g; the bytes were checked before.
func (g *group) each(f func(raw []byte) error) error {
	for rest := g.payload; len(rest) > 0; {
		n, err := record.Length(rest)
		if err != nil {
			return err
		}
		if err := f(rest[:n:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
