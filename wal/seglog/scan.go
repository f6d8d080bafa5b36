package seglog

// Walking the records of one segment: forward, checking each one, and once backward, to find the last.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"quail/wal/record"
	"quail/wal/vfs"
)

const (
	// prefixBytesMax is the longest length prefix: a record has at most 32 + 2 GB bytes, which is 2^31 and a little.
	prefixBytesMax = 5
	// scanBytes is how much a scan reads at once. A larger record is read whole.
	scanBytes = 128 << 10
	// endBytes is where the search for a segment's last record begins: most records are smaller.
	endBytes = 4 << 10
)

// errEntry is wrapped by everything that can be wrong with an entry.
var errEntry = errors.New("no valid record")

// prefixLen is the length in bytes of the prefix of a record of size bytes.
func prefixLen(size int) int {
	return max(1, (bits.Len(uint(size))+6)/7)
}

// entryLen reads the length prefix and the header's lengths at the start of buf, and returns how long the whole entry
// is. more is true if buf is too short to tell.
func entryLen(buf []byte) (prefix, size int, more bool, err error) {
	claimed, n := binary.Uvarint(buf)
	if n < 0 || n > prefixBytesMax || len(buf) >= prefixBytesMax && n == 0 {
		return 0, 0, false, fmt.Errorf("%w: the length prefix is none", errEntry)
	}
	if n > 0 && (claimed < record.HeaderBytes || n != prefixLen(int(claimed))) {
		return 0, 0, false, fmt.Errorf("%w: the length prefix says %d", errEntry, claimed)
	}
	if n == 0 || len(buf) < n+record.HeaderBytes {
		return 0, 0, true, nil
	}
	size, err = record.Length(buf[n:])
	if err != nil {
		return 0, 0, false, fmt.Errorf("%w: %w", errEntry, err)
	}
	if uint64(size) != claimed {
		return 0, 0, false, fmt.Errorf("%w: the length prefix says %d, the header %d", errEntry, claimed, size)
	}
	return n, size, false, nil
}

// checkRecord decodes buf, which must be exactly one record, and checks that it is the one expected.
func checkRecord(buf []byte, lsn, incarnation uint64) error {
	rec, n, err := record.Decode(buf)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errEntry, err)
	case n != len(buf):
		return fmt.Errorf("%w: %d bytes, the header says %d", errEntry, len(buf), n)
	case rec.LSN != lsn:
		return fmt.Errorf("%w: its LSN is %d", errEntry, rec.LSN)
	case rec.Incarnation != incarnation:
		return fmt.Errorf("%w: its incarnation is %d, this queue's is %d", errEntry, rec.Incarnation, incarnation)
	}
	return nil
}

// scanner walks the entries of a file from a known place. Every record it returns was checked.
type scanner struct {
	file        vfs.File
	incarnation uint64
	end         int64  // offset where the file's valid bytes end
	offset      int64  // of the next entry
	lsn         uint64 // of the next entry
	upTo        uint64 // of a rewritten segment: the next entry may have any LSN from lsn to this; 0: of a plain one

	buf   []byte // a part of the file
	from  int64  // offset of buf[0]
	chunk int    // how many bytes to read at once
	fresh bool   // read into new memory each time, since records are handed out
	arena *Arena // who lends that
}

func newScanner(file vfs.File, incarnation uint64, lsn uint64, offset, end int64) *scanner {
	return &scanner{file: file, incarnation: incarnation, end: end, offset: offset, lsn: lsn, chunk: scanBytes}
}

// peek tells how long the next entry says it is, or io.EOF at the end. Errors are those of next.
func (s *scanner) peek() (prefix, size int, err error) {
	if s.offset == s.end {
		return 0, 0, io.EOF
	}
	window, err := s.window(prefixBytesMax + record.HeaderBytes)
	if err != nil {
		return 0, 0, err
	}
	prefix, size, more, err := entryLen(window)
	if err != nil {
		return 0, 0, err
	}
	if more || s.end-s.offset < int64(prefix+size) {
		return 0, 0, fmt.Errorf("%w: it is cut short, %d bytes are left", errEntry, s.end-s.offset)
	}
	return prefix, size, nil
}

// next returns the next record, or io.EOF at the end. Unless s.fresh, it is valid until the following call. An error
// that wraps errEntry says that no valid record is at s.offset; any other is of the file.
func (s *scanner) next() ([]byte, error) {
	prefix, size, err := s.peek()
	if err != nil {
		return nil, err
	}
	window, err := s.window(prefix + size)
	if err != nil {
		return nil, err
	}
	rec := window[prefix : prefix+size : prefix+size]
	lsn := s.claimed(rec)
	if err := checkRecord(rec, lsn, s.incarnation); err != nil {
		return nil, err
	}
	s.offset += int64(prefix + size)
	s.lsn = lsn + 1
	return rec, nil
}

// claimed is the LSN that rec must have: the next one, or in a rewritten segment what it says itself, if that can be.
func (s *scanner) claimed(rec []byte) uint64 {
	if lsn := binary.LittleEndian.Uint64(rec[8:]); s.lsn < lsn && lsn <= s.upTo {
		return lsn
	}
	return s.lsn
}

// peekLSN is the LSN that the next entry claims, unchecked.
func (s *scanner) peekLSN() (uint64, error) {
	prefix, _, err := s.peek()
	if err != nil {
		return 0, err
	}
	window, err := s.window(prefix + record.HeaderBytes)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(window[prefix+8:]), nil
}

// window returns the bytes from the current offset on: at least size of them, or all that are left.
func (s *scanner) window(size int) ([]byte, error) {
	left := s.end - s.offset
	if have := s.from + int64(len(s.buf)) - s.offset; have >= min(int64(size), left) {
		return s.buf[s.offset-s.from:], nil
	}
	want := int(min(left, int64(max(size, s.chunk))))
	switch {
	case s.fresh:
		s.buf = s.arena.take(want)
	case cap(s.buf) < want:
		s.buf = make([]byte, want)
	}
	s.buf = s.buf[:want]
	s.from = s.offset
	n, err := readAt(s.file, s.buf, s.from)
	if err == nil && n < want {
		// The file is shorter than it was when its size was asked for.
		err = fmt.Errorf("%w: the file ends at offset %d", errEntry, s.from+int64(n))
	}
	if err != nil {
		s.buf = nil
		return nil, err
	}
	return s.buf, nil
}

// readAt reads what there is: the end of the file is no error.
func readAt(file vfs.File, buf []byte, offset int64) (int, error) {
	n, err := file.ReadAt(buf, offset)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// checkEnd looks for the record with the given LSN at the very end of a file of size bytes. It reads backward, so its
// cost depends on that record and not on the segment. It proves that the segment is neither short nor another queue's;
// that the records before are whole only a walk can prove, which Read does anyway.
func checkEnd(file vfs.File, size int64, lsn, incarnation uint64) error {
	var damage error
	for window := int64(endBytes); ; window *= 16 {
		window = min(window, size)
		buf := make([]byte, window)
		n, err := readAt(file, buf, size-window)
		if err != nil {
			return err
		}
		buf = buf[:n]
		for i := len(buf) - record.HeaderBytes; i >= 0; i-- {
			if buf[i] != record.Magic || binary.LittleEndian.Uint64(buf[i+8:]) != lsn {
				continue
			}
			if n, err := record.Length(buf[i:]); err != nil || n != len(buf)-i {
				continue
			}
			// A body can hold what looks like a record, so one that fails does not end the search.
			if damage = checkRecord(buf[i:], lsn, incarnation); damage == nil {
				return nil
			}
		}
		if window == size && damage != nil {
			return damage
		}
		if window == size {
			return fmt.Errorf("%w: LSN %d does not end here", errEntry, lsn)
		}
	}
}
