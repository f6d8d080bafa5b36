package wal

// The note of which journal file was begun last. Older files' ends are known from the next file's header; that there was a next
// one, nothing else would tell if the newest file were deleted or replaced by an older copy: what is left would look like a
// journal that ended a file earlier.
//
// The note is written and synced after the file's first group is durable and before anybody is told that it is. So after a
// crash between the two the journal is one file ahead of the note, never behind. A file lasts for megabytes, so the second sync
// is rare.
//
// The file journal/BEGUN has two slots, 4096 bytes apart, that are written in turn, in place: it takes no new space on a full
// disk, and while one is written the other one holds.
//
//	offset  size  field
//	     0     8  magic "QUAILBGN"
//	     8     4  version (1)
//	    12     4  zero
//	    16     8  sequence of a journal file whose header and first group are durable
//	    24     4  CRC32C of bytes 0 to 23, seeded with the store's identity
//	    28   484  zeros

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"quail/wal/vfs"
)

const (
	begunName      = "BEGUN"
	begunVersion   = 1
	begunSlotGap   = 4096 // larger than any sector that a torn write may take along
	begunFileBytes = 2 * begunSlotGap
)

var begunMagic = [8]byte{'Q', 'U', 'A', 'I', 'L', 'B', 'G', 'N'}

// begunNote is used by one goroutine at a time: the one that opens the store, then the journal's.
type begunNote struct {
	fs   vfs.FS
	path string
	id   storeID
	// least is the sequence of a journal file that must be there, that one or a newer one; 0 if none was begun.
	least uint64
	// slot is where the next note goes: not over the newest one that can be read.
	slot int
	file vfs.File // nil until the first note of this run
}

// openBegun reads the note. A directory without one is new, as long as isUsed says nothing else, and gets one.
func openBegun(fs vfs.FS, dir string, id storeID, isUsed func() (bool, error)) (*begunNote, error) {
	n := &begunNote{fs: fs, path: filepath.Join(dir, begunName), id: id}
	data, err := readAll(fs, n.path)
	if errors.Is(err, os.ErrNotExist) {
		used, err := isUsed()
		if err != nil {
			return nil, err
		}
		if used {
			return nil, &CorruptError{File: n.path, Reason: "the note of the newest journal file is missing, and the journal was used"}
		}
		if err := writeFileDurably(fs, n.path, make([]byte, begunFileBytes)); err != nil {
			return nil, fmt.Errorf("make note of the newest journal file: %w", err)
		}
		return n, nil
	}
	if err != nil {
		return nil, err
	}
	if len(data) != begunFileBytes {
		return nil, &CorruptError{File: n.path, Offset: int64(len(data)), Reason: fmt.Sprintf("the file has %d bytes, %d belong there", len(data), begunFileBytes)}
	}
	return n, n.parse(data)
}

// parse takes the higher slot. One that is damaged was being written when the power went, and says nothing that the journal does
// not: the file it speaks of is there.
func (n *begunNote) parse(data []byte) error {
	damaged := -1
	for i := range 2 {
		sequence, err := n.parseSlot(data[i*begunSlotGap : (i+1)*begunSlotGap])
		if err != nil {
			if damaged >= 0 {
				return &CorruptError{File: n.path, Reason: fmt.Sprintf("both notes of the newest journal file are damaged: %v", err)}
			}
			damaged = i
			continue
		}
		if sequence > n.least {
			n.least, n.slot = sequence, 1-i
		}
	}
	if damaged >= 0 {
		n.slot = damaged
	}
	return nil
}

func (n *begunNote) parseSlot(b []byte) (uint64, error) {
	if allZero(b) {
		return 0, nil
	}
	if [8]byte(b[:8]) != begunMagic || binary.LittleEndian.Uint32(b[24:]) != crc32.Update(n.id.seed(), castagnoli, b[:24]) || !allZero(b[28:]) {
		return 0, errors.New("the note fails its checksum")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != begunVersion {
		return 0, fmt.Errorf("note version %d, this is %d", v, begunVersion)
	}
	return binary.LittleEndian.Uint64(b[16:]), nil
}

// write makes the note durable that the file with this sequence is.
func (n *begunNote) write(sequence uint64) error {
	if n.file == nil {
		f, err := n.fs.OpenFile(n.path, os.O_RDWR, 0)
		if err != nil {
			return fmt.Errorf("open note of the newest journal file: %w", err)
		}
		n.file = f
	}
	block := make([]byte, blockBytes)
	copy(block, begunMagic[:])
	binary.LittleEndian.PutUint32(block[8:], begunVersion)
	binary.LittleEndian.PutUint64(block[16:], sequence)
	binary.LittleEndian.PutUint32(block[24:], crc32.Update(n.id.seed(), castagnoli, block[:24]))
	if k, err := n.file.WriteAt(block, int64(n.slot)*begunSlotGap); err != nil || k != len(block) {
		return fmt.Errorf("write note of journal file %d: %w", sequence, errOrShort(err))
	}
	if err := n.file.Datasync(); err != nil {
		return fmt.Errorf("sync note of journal file %d: %w", sequence, err)
	}
	n.least, n.slot = sequence, 1-n.slot
	return nil
}

func (n *begunNote) close() {
	if n.file != nil {
		n.file.Close()
		n.file = nil
	}
}
