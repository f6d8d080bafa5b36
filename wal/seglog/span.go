package seglog

// The file of a rewritten segment. It stands for the whole span of LSNs of the segments that it replaced, and holds what was
// live of them: the records as they were, each with its length before it, in rising order, behind a header:
//
//	offset  size  field
//	     0     8  magic "QUAILSEG"
//	     8     4  version (1)
//	    12     4  generation: one more than the highest of what it replaced; a plain segment's is 0
//	    16     8  incarnation
//	    24     8  first LSN of the span
//	    32     8  last LSN of the span
//	    40     8  number of records
//	    48     8  size of the file in bytes
//	    56     8  size of the records' bodies together
//	    64     4  CRC32C over all records' CRCs
//	    68     4  CRC32C of bytes 0 to 67
//
// Its name tells the span and the generation, FIRST-LAST.GENERATION, in 20, 20 and any number of decimal digits. So it never
// takes the place of a file that is there: what it replaces stays until the new name is durable, and whoever finds both
// knows from the names alone which one counts. tidwall/wal passes over such names.

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"quail/wal/vfs"
)

const (
	spanHeaderBytes = 72
	spanVersion     = 1
	// asideSuffix ends the name of a file that is being written.
	asideSuffix = ".tmp"
)

var (
	spanMagic  = [8]byte{'Q', 'U', 'A', 'I', 'L', 'S', 'E', 'G'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// span is what the name of a rewritten segment says. The zero value is no rewritten segment.
type span struct {
	first, last uint64
	generation  uint32
}

func (s span) rewritten() bool { return s.generation > 0 }

func (s span) name() string {
	return fmt.Sprintf("%0*d-%0*d.%d", segmentDigits, s.first, segmentDigits, s.last, s.generation)
}

// parseSpan reads the name of a rewritten segment; aside, if it was still being written.
func parseSpan(name string) (s span, aside, ok bool) {
	rest, aside := strings.CutSuffix(name, asideSuffix)
	digits, generation, _ := strings.Cut(rest, ".")
	if len(digits) != 2*segmentDigits+1 || digits[segmentDigits] != '-' {
		return span{}, false, false
	}
	first, err1 := strconv.ParseUint(digits[:segmentDigits], 10, 64)
	last, err2 := strconv.ParseUint(digits[segmentDigits+1:], 10, 64)
	g, err3 := strconv.ParseUint(generation, 10, 32)
	s = span{first, last, uint32(g)}
	return s, aside, err1 == nil && err2 == nil && err3 == nil && first > 0 && first <= last && g > 0 && s.name() == rest
}

// name is what a segment's file is called.
func (s *segment) name() string {
	if s.span.rewritten() {
		return s.span.name()
	}
	return segmentName(s.first)
}

// begin is where the records in a segment's file begin.
func (s *segment) begin() int64 {
	if s.span.rewritten() {
		return spanHeaderBytes
	}
	return 0
}

// spanHeader is what stands at the start of the file.
type spanHeader struct {
	span
	incarnation uint64
	records     uint64
	size        int64
	bodyBytes   int64
	sum         uint32
}

func (h *spanHeader) encode() []byte {
	b := make([]byte, spanHeaderBytes)
	copy(b, spanMagic[:])
	binary.LittleEndian.PutUint32(b[8:], spanVersion)
	binary.LittleEndian.PutUint32(b[12:], h.generation)
	binary.LittleEndian.PutUint64(b[16:], h.incarnation)
	binary.LittleEndian.PutUint64(b[24:], h.first)
	binary.LittleEndian.PutUint64(b[32:], h.last)
	binary.LittleEndian.PutUint64(b[40:], h.records)
	binary.LittleEndian.PutUint64(b[48:], uint64(h.size))
	binary.LittleEndian.PutUint64(b[56:], uint64(h.bodyBytes))
	binary.LittleEndian.PutUint32(b[64:], h.sum)
	binary.LittleEndian.PutUint32(b[68:], crc32.Checksum(b[:68], castagnoli))
	return b
}

func parseSpanHeader(b []byte) (h spanHeader, err error) {
	if len(b) < spanHeaderBytes || [8]byte(b[:8]) != spanMagic || crc32.Checksum(b[:68], castagnoli) != binary.LittleEndian.Uint32(b[68:]) {
		return h, errors.New("the header of the rewritten segment fails its checksum")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != spanVersion {
		return h, fmt.Errorf("the rewritten segment has version %d, this version of Quail reads %d", v, spanVersion)
	}
	return spanHeader{
		span: span{binary.LittleEndian.Uint64(b[24:]), binary.LittleEndian.Uint64(b[32:]),
			binary.LittleEndian.Uint32(b[12:])},
		incarnation: binary.LittleEndian.Uint64(b[16:]),
		records:     binary.LittleEndian.Uint64(b[40:]),
		size:        int64(binary.LittleEndian.Uint64(b[48:])),
		bodyBytes:   int64(binary.LittleEndian.Uint64(b[56:])),
		sum:         binary.LittleEndian.Uint32(b[64:]),
	}, nil
}

// readSpanHeader reads and parses the header of a file.
func readSpanHeader(file vfs.File) (spanHeader, error) {
	buf := make([]byte, spanHeaderBytes)
	n, err := readAt(file, buf, 0)
	if err != nil {
		return spanHeader{}, err
	}
	h, err := parseSpanHeader(buf[:n])
	if err != nil {
		return h, fmt.Errorf("%w: %w", errEntry, err)
	}
	return h, nil
}

// addRewritten takes a rewritten segment into the list of files.
func (in *inspector) addRewritten(files []found, entry fs.DirEntry, sp span) ([]found, error) {
	if entry.IsDir() {
		return nil, &CorruptError{File: in.path(entry.Name()), LSN: sp.first, Reason: "a directory has a segment's name"}
	}
	info, err := entry.Info()
	if err != nil {
		return nil, fmt.Errorf("list log: %w", err)
	}
	return append(files, found{first: sp.first, span: sp, name: entry.Name(), size: info.Size()}), nil
}

// covers reports whether s stands for the records of f. A rewrite takes whole segments, so f begins in it or not at all.
func (s span) covers(f *found) bool {
	if !s.rewritten() || f.first < s.first || f.first > s.last {
		return false
	}
	return !f.span.rewritten() || f.span.last <= s.last && f.span.generation < s.generation
}

// dropCovered takes away what rewritten segments stand for: an interrupted Rewrite had not removed it yet.
func (in *inspector) dropCovered(files []found) ([]found, error) {
	slices.SortStableFunc(files, func(a, b found) int { // of those that begin together, the one that counts comes first
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(b.span.generation, a.span.generation))
	})
	kept := files[:0]
	var before span
	for _, f := range files {
		switch {
		case before.covers(&f):
			in.covered = append(in.covered, f.finalName())
			continue
		case f.first <= before.last:
			return nil, &CorruptError{File: in.path(f.name), LSN: f.first, Reason: fmt.Sprintf("it overlaps the rewritten segment %s", before.name())}
		}
		kept, before = append(kept, f), f.span
	}
	return kept, nil
}

// checkRewritten checks that a rewritten segment is the one that its name says, is whole, and ends with this LSN. Its records are
// checked when they are read.
func (in *inspector) checkRewritten(f found, lsn uint64, seg *segment) error {
	if f.span.last != lsn {
		return &CorruptError{File: in.path(f.name), Offset: f.size, LSN: lsn,
			Reason: "the segment does not end where the next one begins: one between them is missing"}
	}
	file, err := in.cfg.FS.Open(in.path(f.name))
	if err != nil {
		return fmt.Errorf("check segment: %w", err)
	}
	defer file.Close()
	h, err := readSpanHeader(file)
	if err == nil && (h.span != f.span || h.incarnation != in.cfg.Incarnation || h.size != f.size) {
		err = fmt.Errorf("%w: the header is of %s, incarnation %d, %d bytes", errEntry, h.name(), h.incarnation, h.size)
	}
	if errors.Is(err, errEntry) {
		return &CorruptError{File: in.path(f.name), LSN: f.first, Reason: "the rewritten segment is not the one that belongs here", Err: err}
	}
	if err != nil {
		return fmt.Errorf("check segment %s: %w", f.name, err)
	}
	seg.span, seg.records, seg.bodyBytes = h.span, int(h.records), h.bodyBytes
	return nil
}

// beyond: only what a checkpoint covers is ever rewritten.
func (in *inspector) beyond(f found) error {
	return &CorruptError{File: in.path(f.name), LSN: in.last, Reason: fmt.Sprintf(
		"a rewritten segment reaches beyond LSN %d, where the checkpoint says that the log ends", in.last)}
}
