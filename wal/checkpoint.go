package wal

// Checkpoints say how far the queue logs hold everything, so that the journal before that can be reused and a restart
// replays little. One file is a base, the state of all queues, or a delta, the state of those that changed since the file
// before. Each is written aside, synced, renamed and its directory synced, so a file under its final name is whole; if it
// is not, that is corruption.
//
// A file is a header and then records (package record), the last of which is the end:
//
//	offset  size  field
//	     0     8  magic "QUAILCKP"
//	     8     4  version (1)
//	    12     4  flags (1: base)
//	    16    16  store identity
//	    32     8  number of this file; a delta applies to the file numbered one lower
//	    40     8  first journal group that is still needed
//	    48     8  sequence of the newest journal file when it was written: that one or a newer one must be there
//	    56     8  all server-wide ids below this one may have been used
//	    64     8  server clock in milliseconds
//	    72     4  CRC32C of bytes 0 to 71, seeded with the store's identity
//	    76     4  zero
//	    80     …  records: a queue's state (meta: first LSN that its log must keep, last LSN that its log holds;
//	              body: the machine's state), a queue that is gone, the end
//
// A queue whose log failed has records between "last in its log" and its state's LSN; they are set aside in a file of their
// own (aside.go), so that the journal can be reused all the same.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"quail/wal/record"
	"quail/wal/vfs"
)

const (
	checkpointHeaderBytes = 80
	checkpointVersion     = 1
	checkpointFlagBase    = 1

	// A new base is written when this many deltas, or deltas larger than the base and this many bytes, have gathered.
	deltasMax     = 64
	deltaBytesMin = 1 << 20
)

// Kinds of records inside a checkpoint file; they never stand in a journal or a queue log.
const (
	checkpointQueue record.Kind = 1 + iota
	checkpointGone
	checkpointEnd
)

var checkpointMagic = [8]byte{'Q', 'U', 'A', 'I', 'L', 'C', 'K', 'P'}

type checkpointHeader struct {
	base        bool
	number      uint64
	firstNeeded uint64
	sequence    uint64
	idsReserved uint64
	clockMillis int64
}

// checkpointState is one queue as a checkpoint has it.
type checkpointState struct {
	incarnation uint64
	lsn         uint64 // the state is after this record
	first       uint64 // its log is needed from this record on
	logLast     uint64 // and durably holds every one up to this; lower than lsn only if the log failed
	state       []byte
	gone        bool
}

func (h checkpointHeader) put(b []byte, id storeID) {
	copy(b, checkpointMagic[:])
	binary.LittleEndian.PutUint32(b[8:], checkpointVersion)
	var flags uint32
	if h.base {
		flags = checkpointFlagBase
	}
	binary.LittleEndian.PutUint32(b[12:], flags)
	copy(b[16:], id[:])
	binary.LittleEndian.PutUint64(b[32:], h.number)
	binary.LittleEndian.PutUint64(b[40:], h.firstNeeded)
	binary.LittleEndian.PutUint64(b[48:], h.sequence)
	binary.LittleEndian.PutUint64(b[56:], h.idsReserved)
	binary.LittleEndian.PutUint64(b[64:], uint64(h.clockMillis))
	binary.LittleEndian.PutUint32(b[72:], crc32.Update(id.seed(), castagnoli, b[:72]))
}

func parseCheckpointHeader(b []byte, id storeID) (checkpointHeader, error) {
	if len(b) < checkpointHeaderBytes {
		return checkpointHeader{}, errors.New("file is shorter than its header")
	}
	if [8]byte(b[:8]) != checkpointMagic {
		return checkpointHeader{}, errors.New("no checkpoint header")
	}
	if binary.LittleEndian.Uint32(b[72:]) != crc32.Update(id.seed(), castagnoli, b[:72]) || !allZero(b[76:80]) {
		return checkpointHeader{}, errors.New("checkpoint header fails its checksum")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != checkpointVersion {
		return checkpointHeader{}, fmt.Errorf("checkpoint version %d, this is %d", v, checkpointVersion)
	}
	return checkpointHeader{
		base:        binary.LittleEndian.Uint32(b[12:])&checkpointFlagBase != 0,
		number:      binary.LittleEndian.Uint64(b[32:]),
		firstNeeded: binary.LittleEndian.Uint64(b[40:]),
		sequence:    binary.LittleEndian.Uint64(b[48:]),
		idsReserved: binary.LittleEndian.Uint64(b[56:]),
		clockMillis: int64(binary.LittleEndian.Uint64(b[64:])),
	}, nil
}

// encodeCheckpoint renders a whole file. The end record counts the states and sums up their checksums, so that a missing
// or doubled state is noticed.
func encodeCheckpoint(h checkpointHeader, id storeID, states []checkpointState) []byte {
	buf := make([]byte, checkpointHeaderBytes)
	h.put(buf, id)
	sum := id.seed()
	for i := range states {
		s := &states[i]
		r := record.Record{LSN: s.lsn, Incarnation: s.incarnation, Kind: checkpointQueue, Body: s.state}
		if s.gone {
			r.Kind, r.Body = checkpointGone, nil
		}
		r.Meta = binary.LittleEndian.AppendUint64(nil, s.first)
		r.Meta = binary.LittleEndian.AppendUint64(r.Meta, s.logLast)
		start := len(buf)
		buf = record.Append(buf, &r)
		sum = crc32.Update(sum, castagnoli, buf[start+4:start+8])
	}
	end := record.Record{LSN: h.number, Kind: checkpointEnd}
	end.Meta = binary.LittleEndian.AppendUint32(nil, sum)
	end.Meta = binary.LittleEndian.AppendUint32(end.Meta, uint32(len(states)))
	return record.Append(buf, &end)
}

// decodeCheckpoint checks every byte of a file. States share data's memory.
func decodeCheckpoint(path string, data []byte, id storeID) (checkpointHeader, []checkpointState, error) {
	corrupt := func(offset int, format string, args ...any) error {
		return &CorruptError{File: path, Offset: int64(offset), Reason: fmt.Sprintf(format, args...)}
	}
	h, err := parseCheckpointHeader(data, id)
	if err != nil {
		return h, nil, corrupt(0, "%v", err)
	}
	var states []checkpointState
	sum := id.seed()
	for pos := checkpointHeaderBytes; ; {
		r, n, err := record.Decode(data[pos:])
		if err != nil {
			return h, nil, corrupt(pos, "%v", err)
		}
		switch r.Kind {
		case checkpointQueue, checkpointGone:
			if len(r.Meta) != 16 {
				return h, nil, corrupt(pos, "state of incarnation %d has %d bytes of meta, 16 belong there", r.Incarnation, len(r.Meta))
			}
			states = append(states, checkpointState{incarnation: r.Incarnation, lsn: r.LSN, state: r.Body,
				first: binary.LittleEndian.Uint64(r.Meta), logLast: binary.LittleEndian.Uint64(r.Meta[8:]), gone: r.Kind == checkpointGone})
			sum = crc32.Update(sum, castagnoli, data[pos+4:pos+8])
		case checkpointEnd:
			if len(r.Meta) != 8 || r.LSN != h.number || binary.LittleEndian.Uint32(r.Meta) != sum ||
				binary.LittleEndian.Uint32(r.Meta[4:]) != uint32(len(states)) || pos+n != len(data) {
				return h, nil, corrupt(pos, "end of checkpoint %d does not match its %d states", h.number, len(states))
			}
			return h, states, nil
		default:
			return h, nil, corrupt(pos, "unknown kind %d", r.Kind)
		}
		pos += n
	}
}

// checkpoints is the directory of checkpoint files. One goroutine uses it.
type checkpoints struct {
	fs  vfs.FS
	dir string
	id  storeID

	last checkpointHeader
	// One that failed may have its name all the same, behind last. Two of one number would be one too many, and none a gap: so a base
	// leaves a failed delta's number out, and only another base may follow a failed base, under its name.
	failedDelta, failedBase bool
	deltas                  int
	baseBytes               int64
	deltaBytes              int64
	lastBytes               int64
}

func checkpointName(number uint64, base bool) string {
	if base {
		return fmt.Sprintf("%020d.base", number)
	}
	return fmt.Sprintf("%020d.delta", number)
}

type checkpointFile struct {
	number uint64
	base   bool
	path   string
}

// list returns the files by number, and removes those that a crash left unfinished unless readOnly.
func (c *checkpoints) list(readOnly bool) ([]checkpointFile, error) {
	entries, err := c.fs.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint directory: %w", err)
	}
	var files []checkpointFile
	for _, e := range entries {
		path := filepath.Join(c.dir, e.Name())
		if strings.HasSuffix(e.Name(), ".tmp") && !readOnly {
			if err := c.fs.Remove(path); err != nil {
				return nil, fmt.Errorf("remove unfinished checkpoint: %w", err)
			}
			continue
		}
		digits, suffix, _ := strings.Cut(e.Name(), ".")
		number, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || suffix != "base" && suffix != "delta" {
			continue
		}
		files = append(files, checkpointFile{number: number, base: suffix == "base", path: path})
	}
	slices.SortFunc(files, func(a, b checkpointFile) int { return int(int64(a.number - b.number)) })
	return files, nil
}

// load reads the newest base and the deltas behind it. Without any file it returns nothing: the store is new.
func (c *checkpoints) load(readOnly bool) (map[uint64]checkpointState, error) {
	files, err := c.list(readOnly)
	if err != nil {
		return nil, err
	}
	states := map[uint64]checkpointState{}
	if len(files) == 0 {
		c.last.firstNeeded = 1
		return states, nil
	}
	start := slices.IndexFunc(files, func(f checkpointFile) bool { return f.base })
	for i, f := range files {
		if f.base {
			start = i
		}
	}
	if start < 0 {
		return nil, &CorruptError{File: c.dir, Reason: "the base checkpoint is missing"}
	}
	for i, f := range files[start:] {
		if want := files[start].number + uint64(i); f.number != want {
			return nil, &CorruptError{File: c.dir, Reason: fmt.Sprintf("checkpoint %d is missing", want)}
		}
		if err := c.loadFile(f, states); err != nil {
			return nil, err
		}
	}
	return states, nil
}

func (c *checkpoints) loadFile(f checkpointFile, states map[uint64]checkpointState) error {
	data, err := readAll(c.fs, f.path)
	if err != nil {
		return err
	}
	h, list, err := decodeCheckpoint(f.path, data, c.id)
	if err != nil {
		return err
	}
	if h.number != f.number || h.base != f.base {
		return &CorruptError{File: f.path, Reason: fmt.Sprintf("the file says it is checkpoint %d", h.number)}
	}
	for _, s := range list {
		if s.gone {
			delete(states, s.incarnation)
		} else {
			states[s.incarnation] = s
		}
	}
	c.count(h, int64(len(data)))
	return nil
}

func (c *checkpoints) count(h checkpointHeader, size int64) {
	if h.base {
		c.deltas, c.baseBytes, c.deltaBytes = 0, size, 0
	} else {
		c.deltas++
		c.deltaBytes += size
	}
	c.last, c.failedDelta, c.failedBase = h, false, false
	c.lastBytes = size
}

// wantsBase reports whether the next file should hold all queues.
func (c *checkpoints) wantsBase() bool {
	return c.last.number == 0 || c.failedBase || c.deltas >= deltasMax || c.deltaBytes > max(c.baseBytes, deltaBytesMin)
}

// write makes the next checkpoint durable and then removes those that a new base made useless.
func (c *checkpoints) write(h checkpointHeader, states []checkpointState) error {
	h.number = c.last.number + 1
	if h.base && c.failedDelta {
		h.number++
	}
	data := encodeCheckpoint(h, c.id, states)
	path := filepath.Join(c.dir, checkpointName(h.number, h.base))
	if err := writeFileDurably(c.fs, path, data); err != nil {
		c.failedBase, c.failedDelta = c.failedBase || h.base, c.failedDelta || !h.base
		return fmt.Errorf("write checkpoint %d: %w", h.number, err)
	}
	c.count(h, int64(len(data)))
	if !h.base {
		return nil
	}
	files, err := c.list(true)
	if err != nil {
		return err
	}
	for i := len(files) - 1; i >= 0; i-- { // newest first, so that what a crash leaves is still a base with all its deltas, or none
		if files[i].number < h.number {
			if err := c.fs.Remove(files[i].path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove old checkpoint: %w", err)
			}
		}
	}
	return nil
}

// writeFileDurably replaces path as a whole or not at all: write aside, sync, rename, sync the directory.
func writeFileDurably(fs vfs.FS, path string, data []byte) error {
	temp := path + ".tmp"
	if err := writeFile(fs, temp, data); err != nil {
		fs.Remove(temp) // a leftover would only take space, of which there may be none; the next start removes it too
		return err
	}
	if err := fs.Rename(temp, path); err != nil {
		return err
	}
	return fs.SyncDir(filepath.Dir(path))
}

// writeFile writes and syncs a file.
func writeFile(fs vfs.FS, path string, data []byte) error {
	f, err := fs.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
