package wal

// Whatever bytes a disk gives back, reading them ends with an error or with what was written, never with a panic, an endless
// loop or an absurd allocation.

import (
	"bytes"
	"testing"

	"quail/wal/record"
)

func fuzzGroup(id storeID, records int) []byte {
	g := newFilling()
	var run []byte
	for i := range records {
		start := len(run)
		run = record.Append(run, &record.Record{LSN: uint64(i + 1), Incarnation: 7, Kind: 1, Body: bytes.Repeat([]byte{byte(i)}, i*50)})
		g.sum = g.sum.add(run[start:])
	}
	b := make([]byte, groupSpan(len(run)))
	groupHeader{number: 5, durable: 4, bytes: uint64(len(run)), records: uint32(records), sequence: 3}.put(b, id)
	copy(b[groupHeaderBytes:], run)
	putEndMark(b[groupHeaderBytes+len(run):], 5, g.sum.close(b))
	return b
}

func FuzzParseGroup(f *testing.F) {
	id := storeID{1, 2, 3}
	f.Add(fuzzGroup(id, 0), uint64(3))
	f.Add(fuzzGroup(id, 1), uint64(3))
	f.Add(fuzzGroup(id, 30), uint64(3))
	f.Add(make([]byte, 2*blockBytes), uint64(0))
	f.Fuzz(func(t *testing.T, data []byte, sequence uint64) {
		g, err := parseGroup(data, id, sequence)
		if err != nil {
			return
		}
		n := uint32(0)
		if err := g.each(func(raw []byte) error {
			n++
			_, _, err := record.Decode(raw)
			return err
		}); err != nil || n != g.records || g.span > int64(len(data)) {
			t.Fatalf("a group that was accepted has %d records, its header says %d: %v", n, g.records, err)
		}
	})
}

func FuzzDecodeCheckpoint(f *testing.F) {
	id := storeID{1, 2, 3}
	f.Add(encodeCheckpoint(checkpointHeader{base: true, number: 1, firstNeeded: 5}, id, nil))
	f.Add(encodeCheckpoint(checkpointHeader{number: 2}, id, []checkpointState{
		{incarnation: 3, lsn: 9, first: 2, logLast: 9, state: []byte("state")}, {incarnation: 4, gone: true}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, states, err := decodeCheckpoint("file", data, id)
		if err != nil {
			return
		}
		if again := encodeCheckpoint(h, id, states); !bytes.Equal(again, data) {
			t.Fatal("a file that was accepted is not what would be written")
		}
	})
}

func FuzzParseFileHeader(f *testing.F) {
	id := storeID{1, 2, 3}
	block := make([]byte, blockBytes)
	fileHeader{sequence: 3, firstGroup: 9, after: 7, clockMillis: 5}.put(block, id)
	f.Add(block)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < blockBytes {
			return
		}
		h, err := parseFileHeader(data[:blockBytes], id)
		if err != nil {
			return
		}
		again := make([]byte, blockBytes)
		h.put(again, id)
		if !bytes.Equal(again, data[:blockBytes]) {
			t.Fatal("a header that was accepted is not what would be written")
		}
	})
}
