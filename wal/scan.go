package wal

// Reading the journal back. The files form a chain: each file's header says after which group of the older files it goes
// on. Inside a file, groups stand one behind the other. The end of the newest file is where no valid group follows; what is
// found there decides between a torn tail, which was never acknowledged and is cut, and corruption, which stops the
// server: a bad group is corruption exactly if a valid group with a higher number stands anywhere behind it, because groups
// are written in order and one at a time.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"quail/wal/vfs"
)

// CorruptError is damage that a crash cannot explain. What it names was left as it was.
type CorruptError struct {
	File   string
	Offset int64
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corruption in %s at offset %d: %s; the file was left as it is, restore it from a backup or a replica", e.File, e.Offset, e.Reason)
}

// journalEnd is what a scan of the journal found.
type journalEnd struct {
	lastGroup    uint64 // highest group that counts; 0 if there is none
	lastSequence uint64
	clockMillis  int64 // highest server clock seen
	files        []journalFile
	spares       []string
	nameMax      int // highest number in a file's name
	torn         *TornTail
}

// TornTail reports bytes at the end of a log that a crash left incomplete. They were never acknowledged.
type TornTail struct {
	File   string
	Offset int64
	Bytes  int64
	// SavedAs is the copy that was made of them.
	SavedAs string
	Reason  string
}

// scannedFile is a journal file with its header, as found.
type scannedFile struct {
	journalFile
	fileHeader
	headerErr error
}

type journalScan struct {
	fs          vfs.FS
	dir         string
	damagedDir  string
	id          storeID
	firstNeeded uint64 // groups below it are covered by the checkpoint
	needed      uint64 // sequence of a file that must be there; 0 if none
	readOnly    bool
	visit       func(g *group, file string) error
}

// run visits every needed group in order. It changes nothing but removing unfinished preparations and copying a torn tail aside.
func (s *journalScan) run() (journalEnd, error) {
	end := journalEnd{}
	all, err := s.list(&end)
	if err != nil {
		return end, err
	}
	chain, unused, bad := s.sortOut(all)
	if len(chain) == 0 || chain[len(chain)-1].fileHeader.sequence < s.needed {
		for _, f := range append(unused, bad...) {
			end.spares = append(end.spares, f.path)
		}
		return end, s.missing(bad)
	}
	start := 0
	for i := range chain {
		if chain[i].fileHeader.firstGroup <= s.firstNeeded {
			start = i
		}
	}
	if h := chain[start].fileHeader; h.firstGroup > s.firstNeeded && h.after >= s.firstNeeded {
		return end, s.gap(s.firstNeeded, h.after, bad, chain[start].path, 0)
	}
	end.lastGroup = chain[start].after
	for i := start; i < len(chain); i++ {
		var next *scannedFile
		if i+1 < len(chain) {
			next = &chain[i+1]
		}
		if err := s.walk(&chain[i], next, bad, &end); err != nil {
			return end, err
		}
	}
	for i := range chain {
		f := chain[i].journalFile
		if i < start {
			unused = append(unused, chain[i])
			continue
		}
		end.files = append(end.files, f)
		end.lastSequence = chain[i].fileHeader.sequence
	}
	if err := s.checkBadHeaders(bad, end.lastGroup); err != nil {
		return end, err
	}
	for _, f := range append(unused, bad...) {
		end.spares = append(end.spares, f.path)
	}
	return end, s.syncNewest(chain)
}

// list reads the headers of all journal files. A preparation that a crash interrupted is removed.
func (s *journalScan) list(end *journalEnd) ([]scannedFile, error) {
	entries, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read journal directory: %w", err)
	}
	var all []scannedFile
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		if strings.HasSuffix(e.Name(), ".journal.tmp") && !s.readOnly {
			if err := s.fs.Remove(path); err != nil {
				return nil, fmt.Errorf("remove unfinished journal file: %w", err)
			}
		}
		number, isJournal := strings.CutSuffix(e.Name(), ".journal")
		if !isJournal {
			continue
		}
		if n, err := strconv.Atoi(number); err == nil {
			end.nameMax = max(end.nameMax, n)
		}
		f, err := s.readHeader(path)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

func (s *journalScan) readHeader(path string) (scannedFile, error) {
	f, err := s.fs.Open(path)
	if err != nil {
		return scannedFile{}, fmt.Errorf("open journal file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return scannedFile{}, fmt.Errorf("stat journal file: %w", err)
	}
	out := scannedFile{journalFile: journalFile{path: path, bytes: info.Size()}}
	block := make([]byte, blockBytes)
	if _, err := f.ReadAt(block, 0); errors.Is(err, io.EOF) {
		out.headerErr = errors.New("file is shorter than its header")
		return out, nil
	} else if err != nil {
		return scannedFile{}, fmt.Errorf("read header of journal file %s: %w", path, err)
	}
	out.fileHeader, out.headerErr = parseFileHeader(block, s.id)
	out.journalFile.sequence, out.journalFile.firstGroup = out.fileHeader.sequence, out.fileHeader.firstGroup
	return out, nil
}

// sortOut separates files with a valid header, in sequence, from those never used and those with a damaged header.
func (s *journalScan) sortOut(all []scannedFile) (chain, unused, bad []scannedFile) {
	for _, f := range all {
		switch {
		case f.headerErr == nil:
			chain = append(chain, f)
		case errors.Is(f.headerErr, errUnused) && f.bytes <= blockBytes:
			unused = append(unused, f)
		default:
			bad = append(bad, f) // also a header of zeros: it may be one that was lost, so look for groups behind it
		}
	}
	sort.Slice(chain, func(i, k int) bool { return chain[i].fileHeader.sequence < chain[k].fileHeader.sequence })
	return chain, unused, bad
}

// missing is the outcome when the file that must be there is not: nil for a new store.
func (s *journalScan) missing(bad []scannedFile) error {
	if s.needed == 0 {
		return s.checkBadHeaders(bad, 0)
	}
	for _, f := range bad {
		if !errors.Is(f.headerErr, errUnused) {
			return &CorruptError{File: f.path, Reason: f.headerErr.Error()}
		}
	}
	return &CorruptError{File: s.dir, Reason: fmt.Sprintf("journal file with sequence %d is missing", s.needed)}
}

// gap names the file whose damage best explains that groups from..to are not there.
func (s *journalScan) gap(from, to uint64, bad []scannedFile, path string, offset int64) error {
	for _, f := range bad {
		if g, _ := s.validAbove(f, from-1); g != 0 {
			return &CorruptError{File: f.path, Reason: f.headerErr.Error()}
		}
	}
	return &CorruptError{File: path, Offset: offset, Reason: fmt.Sprintf("groups %d to %d are missing or damaged, later ones are there", from, to)}
}

// walk visits the groups of one file. next, if not nil, says up to which group they count and must be there.
func (s *journalScan) walk(f, next *scannedFile, bad []scannedFile, end *journalEnd) error {
	data, err := readAll(s.fs, f.path)
	if err != nil {
		return err
	}
	end.clockMillis = max(end.clockMillis, f.clockMillis)
	pos, number := int64(blockBytes), f.fileHeader.firstGroup
	var broken error
	for pos < int64(len(data)) && (next == nil || number <= next.after) {
		g, err := parseGroup(data[pos:], s.id)
		if err == nil && g.number != number {
			err = errNoGroup // left behind by an earlier life of the file
			if g.number > number {
				return &CorruptError{File: f.path, Offset: pos, Reason: fmt.Sprintf("group %d stands where group %d belongs", g.number, number)}
			}
		}
		if err != nil {
			broken = err
			break
		}
		end.lastGroup = number
		end.clockMillis = max(end.clockMillis, g.clockMillis)
		if number >= s.firstNeeded && g.records > 0 {
			if err := s.visit(&g, f.path); err != nil {
				return err
			}
		}
		pos += g.span
		number++
	}
	if next != nil {
		if number <= next.after {
			return s.gap(number, next.after, bad, f.path, pos)
		}
		end.lastGroup = next.after
		return nil
	}
	return s.tail(f, data, pos, end, broken)
}

// tail decides what the end of the newest file is.
func (s *journalScan) tail(f *scannedFile, data []byte, pos int64, end *journalEnd, broken error) error {
	for at := pos + blockBytes; at+blockBytes <= int64(len(data)); at += blockBytes {
		h, err := parseGroupHeader(data[at:], s.id)
		if err != nil || h.number <= end.lastGroup {
			continue
		}
		if _, err := parseGroup(data[at:], s.id); err == nil {
			return &CorruptError{File: f.path, Offset: pos, Reason: fmt.Sprintf("group %d: %v; group %d behind it is whole", end.lastGroup+1, broken, h.number)}
		}
	}
	if pos >= int64(len(data)) || broken == nil || s.readOnly {
		return nil
	}
	block := data[pos:min(pos+blockBytes, int64(len(data)))]
	claimed := int64(len(block))
	if h, err := parseGroupHeader(block, s.id); err == nil {
		if h.number <= end.lastGroup {
			return nil // an earlier life of the file
		}
		claimed = min(groupSpan(int(min(h.bytes, uint64(len(data))))), int64(len(data))-pos)
	} else if allZero(block) || oldMiddle(block, end.lastGroup+1) {
		return nil
	}
	saved, err := saveAside(s.fs, s.damagedDir, filepath.Base(f.path), pos, data[pos:pos+claimed])
	if err != nil {
		return err
	}
	end.torn = &TornTail{File: f.path, Offset: pos, Bytes: claimed, SavedAs: saved, Reason: broken.Error()}
	return nil
}

// oldMiddle: the block is no damaged header of the expected group but the middle of a longer group of an earlier life, or
// that of a group whose first block never reached the disk. Neither is worth a report.
func oldMiddle(block []byte, expected uint64) bool {
	return [4]byte(block[:4]) != groupMagic && binary.LittleEndian.Uint64(block[8:]) != expected
}

// checkBadHeaders finds groups that only a damaged header hides. One group right behind the end is a tear: header and first
// group are written together. More is corruption.
func (s *journalScan) checkBadHeaders(bad []scannedFile, last uint64) error {
	for _, f := range bad {
		g, err := s.validAbove(f, last+1)
		if err != nil {
			return err
		}
		if g != 0 {
			return &CorruptError{File: f.path, Reason: fmt.Sprintf("%v; group %d in it is whole", f.headerErr, g)}
		}
	}
	return nil
}

// validAbove returns the number of a whole group in f above last, or 0.
func (s *journalScan) validAbove(f scannedFile, last uint64) (uint64, error) {
	data, err := readAll(s.fs, f.path)
	if err != nil {
		return 0, err
	}
	for at := int64(blockBytes); at+blockBytes <= int64(len(data)); at += blockBytes {
		if h, err := parseGroupHeader(data[at:], s.id); err == nil && h.number > last {
			if _, err := parseGroup(data[at:], s.id); err == nil {
				return h.number, nil
			}
		}
	}
	return 0, nil
}

// syncNewest makes durable what was read: a killed process may have left its last groups in the page cache only, and from
// now on they count.
func (s *journalScan) syncNewest(chain []scannedFile) error {
	if len(chain) == 0 || s.readOnly {
		return nil
	}
	f, err := s.fs.OpenFile(chain[len(chain)-1].path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open journal file: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync journal file %s: %w", f.Name(), err)
	}
	return nil
}

func readAll(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	data := make([]byte, info.Size())
	n, err := f.ReadAt(data, 0)
	if err != nil && !(errors.Is(err, io.EOF) && n == len(data)) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

// saveAside copies bytes that are about to be cut or ignored into the damaged directory and syncs them.
func saveAside(fs vfs.FS, dir, base string, offset int64, data []byte) (string, error) {
	if err := fs.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("make directory for damaged bytes: %w", err)
	}
	var path string
	for n := 1; ; n++ {
		path = filepath.Join(dir, fmt.Sprintf("%s.at-%d.%d", base, offset, n))
		if _, err := fs.Stat(path); errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	f, err := fs.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o640)
	if err != nil {
		return "", fmt.Errorf("save damaged bytes: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, 0); err != nil {
		return "", fmt.Errorf("save damaged bytes in %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return "", fmt.Errorf("sync %s: %w", path, err)
	}
	return path, fs.SyncDir(dir)
}

// barrier begins a new file that says: nothing after group `after` counts. It goes on after a failed write or sync, when the
// old file may hold groups that look whole but never reached the disk.
func (s *journalScan) barrier(after uint64, fileBytes int64) error {
	var end journalEnd
	all, err := s.list(&end)
	if err != nil {
		return err
	}
	h := fileHeader{firstGroup: after + 1, after: after, sequence: 1}
	for _, f := range all {
		if f.headerErr == nil {
			h.sequence = max(h.sequence, f.fileHeader.sequence+1)
			h.clockMillis = max(h.clockMillis, f.clockMillis)
		}
	}
	j := &journal{cfg: journalConfig{fs: s.fs, dir: s.dir, id: s.id}, nameSeq: end.nameMax}
	path, err := j.prepare(fileBytes)
	if err != nil {
		return err
	}
	f, err := s.fs.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open journal file: %w", err)
	}
	defer f.Close()
	block := make([]byte, blockBytes)
	h.put(block, s.id)
	if _, err := f.WriteAt(block, 0); err != nil {
		return fmt.Errorf("write header of journal file %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync journal file %s: %w", path, err)
	}
	return nil
}
