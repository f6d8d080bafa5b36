package wal

// Reading the journal back. The files form a chain: each file's header says after which group of the older files it goes
// on. Inside a file, groups stand one behind the other. The end of the newest file is where no valid group follows; what is
// found there decides between a torn tail, which was never acknowledged and is cut, and corruption, which stops the
// server: a bad group is corruption exactly if a whole group behind it says that the bad one was durable when it was written.

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

	unknown bool // nobody can tell what was in what is not there
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corruption in %s at offset %d: %s; the file was left as it is", e.File, e.Offset, e.Reason)
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

// TornTail reports bytes at the end of a log that a crash left incomplete. Those of the journal were never acknowledged; what
// belongs to a queue's log is in the journal, and is written again.
type TornTail struct {
	Queue       string `json:",omitempty"` // whose log it is, if it is known
	Incarnation uint64 // of the queue whose log it is; 0: the journal
	// File is the segment or journal file, Offset where in it the torn bytes began.
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
	header    fileHeader
	headerErr error
}

type journalScan struct {
	fs          vfs.FS
	dir         string
	damagedDir  string
	id          storeID
	firstNeeded uint64 // groups below it are covered by the checkpoint
	needed      uint64 // sequence of a file that must be there, or a newer one; 0 if none
	covered     uint64 // groups below it were covered by a checkpoint that is damaged now; 0 if none is
	logs        string // the directory of the queues' logs if there is no checkpoint that could know them
	readOnly    bool
	visit       func(g *group, file string, offset int64) error
}

// run visits every needed group in order. It changes nothing but removing unfinished preparations, copying a torn tail aside
// and making durable what counts from now on.
func (s *journalScan) run() (journalEnd, error) {
	end := journalEnd{}
	all, err := s.list(&end)
	if err != nil {
		return end, err
	}
	chain, bad := sortOut(all)
	if len(chain) == 0 || chain[len(chain)-1].header.sequence < s.needed {
		if s.needed > 0 {
			return end, s.missing(bad)
		}
	} else if err := s.follow(chain, &end); err != nil {
		var gap *gapError
		if errors.As(err, &gap) {
			return end, s.explain(gap, bad)
		}
		return end, err
	}
	if err := s.checkBadHeaders(bad, &end); err != nil {
		return end, err
	}
	for _, f := range bad {
		end.spares = append(end.spares, f.path)
	}
	// Groups below firstNeeded need not be there: an end mark, or a group that no queue's state rests on, may have been lost.
	// Their numbers must not be given out again all the same, or the next start would take the new groups for covered.
	end.lastGroup = max(end.lastGroup, s.firstNeeded-1)
	return end, nil
}

// isUsed reports whether any file was begun. A log is written behind the journal, so one that no checkpoint knows shows it too.
func (s *journalScan) isUsed() (bool, error) {
	all, err := s.list(&journalEnd{})
	chain, _ := sortOut(all)
	if used := len(chain) > 0 || s.needed > 0; used || err != nil || s.logs == "" {
		return used, err
	}
	logs, err := s.fs.ReadDir(s.logs)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return len(logs) > 0, err
}

// checkSizes: a file's size is durable before its header is written, so none that is shorter was left so by a crash.
func checkSizes(chain []scannedFile) error {
	for _, f := range chain {
		if size := int64(f.header.blocks) * blockBytes; f.bytes < size {
			return &CorruptError{File: f.path, Offset: f.bytes, Reason: fmt.Sprintf("the file ends here, its header says that it has %d bytes", size), unknown: true}
		}
	}
	return nil
}

// follow walks the files from the first needed group on.
func (s *journalScan) follow(chain []scannedFile, end *journalEnd) error {
	start := 0
	for i := range chain {
		if chain[i].header.firstGroup <= s.firstNeeded {
			start = i
		}
	}
	if h := chain[start].header; h.firstGroup > s.firstNeeded && h.after >= s.firstNeeded {
		gap := &gapError{from: s.firstNeeded, to: h.after, path: s.dir, unknown: h.after >= s.covered}
		gap.reason = errors.New("the checkpoint that covered them is damaged or missing")
		if gap.unknown {
			gap.reason = errors.New("the checkpoint that covered them is missing, or the journal files that held them are")
		}
		return gap
	}
	if err := checkSizes(chain[start:]); err != nil {
		return err
	}
	end.lastGroup = chain[start].header.after
	for i := range chain {
		if i < start {
			end.spares = append(end.spares, chain[i].path)
			continue
		}
		var next *scannedFile
		if i+1 < len(chain) {
			next = &chain[i+1]
		}
		if err := s.walk(&chain[i], next, end); err != nil {
			return err
		}
		end.files = append(end.files, chain[i].journalFile)
		end.lastSequence = chain[i].header.sequence
	}
	return nil
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
	out.header, out.headerErr = parseFileHeader(block, s.id)
	out.sequence, out.firstGroup, out.after = out.header.sequence, out.header.firstGroup, out.header.after
	return out, nil
}

// sortOut separates files with a valid header, in sequence, from the others: never used, torn, or damaged. A header of zeros
// too may be one that was lost, so what is behind it is looked at.
func sortOut(all []scannedFile) (chain, bad []scannedFile) {
	for _, f := range all {
		if f.headerErr == nil {
			chain = append(chain, f)
		} else {
			bad = append(bad, f)
		}
	}
	sort.Slice(chain, func(i, k int) bool { return chain[i].sequence < chain[k].sequence })
	return chain, bad
}

// missing is the error when the file that must be there is not.
func (s *journalScan) missing(bad []scannedFile) error {
	for _, f := range bad {
		if !errors.Is(f.headerErr, errUnused) {
			return &CorruptError{File: f.path, Reason: f.headerErr.Error()}
		}
	}
	return &CorruptError{File: s.dir, Reason: fmt.Sprintf("journal file with sequence %d is missing", s.needed)}
}

// gapError: groups from..to were promised and are not there; path and offset are where they were looked for.
type gapError struct {
	from, to uint64
	path     string
	offset   int64
	reason   error
	unknown  bool
}

func (e *gapError) Error() string {
	return fmt.Sprintf("groups %d to %d are missing or damaged (%v), later ones are there", e.from, e.to, e.reason)
}

// explain names the file whose damage best explains the gap.
func (s *journalScan) explain(gap *gapError, bad []scannedFile) error {
	for _, f := range bad {
		found, err := s.hidden(f, gap.from-1)
		if err != nil {
			return err
		}
		if found != nil {
			return &CorruptError{File: f.path, Reason: f.headerErr.Error()}
		}
	}
	return &CorruptError{File: gap.path, Offset: gap.offset, Reason: gap.Error(), unknown: gap.unknown}
}

// walk visits the groups of one file. next, if not nil, says up to which group they count and must be there.
func (s *journalScan) walk(f, next *scannedFile, end *journalEnd) error {
	data, err := readAll(s.fs, f.path)
	if err != nil {
		return err
	}
	end.clockMillis = max(end.clockMillis, f.header.clockMillis)
	w := walker{scan: s, file: f, data: data, pos: blockBytes, number: f.header.firstGroup, durable: f.header.after, end: end}
	if next != nil {
		w.last = next.header.after
		if err := w.groups(); err != nil {
			return err
		}
		if w.number <= w.last {
			reason := errors.New("the file ends before them")
			if w.broken != nil {
				reason = fmt.Errorf("group %d: %w", w.number, w.broken)
			}
			return &gapError{from: w.number, to: w.last, path: f.path, offset: w.pos, reason: reason}
		}
		end.lastGroup = w.last
		return nil
	}
	w.last = ^uint64(0)
	if err := w.groups(); err != nil {
		return err
	}
	if err := w.tail(); err != nil {
		return err
	}
	return w.makeDurable()
}

// walker goes through one file's groups.
type walker struct {
	scan *journalScan
	file *scannedFile
	data []byte
	end  *journalEnd

	last   uint64 // groups above it do not count
	pos    int64  // where the next group is expected
	number uint64 // and which
	broken error  // why it is not there; nil at the end of the file

	durable uint64  // the last group that some group or header says was durable
	places  []int64 // where each group begins, from the file's first on
}

// groups visits whole groups until one is not there.
func (w *walker) groups() error {
	for w.pos < int64(len(w.data)) && w.number <= w.last {
		g, err := parseGroup(w.data[w.pos:], w.scan.id, w.file.sequence)
		if errors.Is(err, errPadding) && w.mayMendPadding(&g) {
			err = nil
		}
		if err == nil && g.number != w.number {
			return &CorruptError{File: w.file.path, Offset: w.pos, Reason: fmt.Sprintf("group %d stands where group %d belongs", g.number, w.number)}
		}
		if err != nil {
			if w.brokenEndMark() {
				w.places = append(w.places, w.pos)
				w.pos += groupSpan(0)
				w.number++
				continue
			}
			w.broken = err
			return nil
		}
		w.places = append(w.places, w.pos)
		w.durable = max(w.durable, g.durable)
		w.end.lastGroup = w.number
		w.end.clockMillis = max(w.end.clockMillis, g.clockMillis)
		if w.number >= w.scan.firstNeeded && g.records > 0 {
			if err := w.scan.visit(&g, w.file.path, w.pos); err != nil {
				return err
			}
		}
		w.pos += g.span
		w.number++
	}
	return nil
}

// mayMendPadding: the group is whole and nothing behind it counts, so it is the last one, and whatever damaged the zeros
// behind it took nothing away.
func (w *walker) mayMendPadding(g *group) bool {
	if promised, _ := durableBehind(w.data, w.pos+blockBytes, w.scan.id, w.file.sequence); w.last != ^uint64(0) || promised >= g.number {
		return false
	}
	clear(g.padding(w.data[w.pos:]))
	return true
}

// brokenEndMark: the expected group is damaged, but it was only an end mark. A real group is durable before the next one is
// written; an end mark is not waited for. So if the group right behind says that the expected one was not durable yet, that
// was an end mark, held nothing, and a power cut may lose it and keep the one behind. It is written again by makeDurable, so
// that in any older file a missing group is corruption.
func (w *walker) brokenEndMark() bool {
	at := w.pos + groupSpan(0)
	if w.last != ^uint64(0) || at >= int64(len(w.data)) {
		return false
	}
	g, err := parseGroup(w.data[at:], w.scan.id, w.file.sequence)
	if err != nil || g.number != w.number+1 || g.durable >= w.number {
		return false
	}
	if promised, _ := durableBehind(w.data, at, w.scan.id, w.file.sequence); promised >= w.number {
		return false
	}
	block := w.data[w.pos:at]
	clear(block)
	h := groupHeader{number: w.number, durable: g.durable, clockMillis: g.clockMillis, sequence: g.sequence, flags: flagEndMark}
	h.put(block, w.scan.id)
	putEndMark(block[groupHeaderBytes:], w.number, groupSum(0).close(block))
	return true
}

// durableBehind is the highest number of a group that is durable according to any whole group from at on, and that group. A
// sequence of 0 stands for any.
func durableBehind(data []byte, at int64, id storeID, sequence uint64) (durable uint64, by groupHeader) {
	for ; at+blockBytes <= int64(len(data)); at += blockBytes {
		h, err := parseGroupHeader(data[at:], id)
		if err != nil || h.durable <= durable || sequence != 0 && h.sequence != uint32(sequence) {
			continue
		}
		if _, err := parseGroup(data[at:], id, uint64(h.sequence)); err == nil {
			durable, by = h.durable, h
		}
	}
	return durable, by
}

// tail decides what the end of the newest file is: the end, a torn group, which nobody was promised and which is copied
// aside, or corruption, if a group behind it shows that it was durable.
func (w *walker) tail() error {
	if w.broken == nil {
		return nil
	}
	s, end := w.scan, w.end
	if promised, by := durableBehind(w.data, w.pos+blockBytes, s.id, w.file.sequence); promised >= w.number {
		return &CorruptError{File: w.file.path, Offset: w.pos,
			Reason: fmt.Sprintf("group %d: %v; group %d behind it is whole and says that it was durable", w.number, w.broken, by.number)}
	}
	block := w.data[w.pos:min(w.pos+blockBytes, int64(len(w.data)))]
	claimed := int64(len(block))
	if h, err := parseGroupHeader(block, s.id); err == nil {
		if h.sequence != uint32(w.file.sequence) {
			return nil // an earlier life of the file
		}
		claimed = min(groupSpan(int(min(h.bytes, uint64(len(w.data))))), int64(len(w.data))-w.pos)
	} else if allZero(block) || foreign(block, w.number, w.file.sequence) {
		return nil
	}
	saved, err := s.saveAside(w.file.path, w.pos, w.data[w.pos:w.pos+claimed])
	if err != nil {
		return err
	}
	end.torn = &TornTail{File: w.file.path, Offset: w.pos, Bytes: claimed, SavedAs: saved, Reason: fmt.Sprintf("group %d: %v", w.number, w.broken)}
	return nil
}

// foreign: the block is no damaged header of the expected group but the middle of a longer group, or a header, of an earlier
// life of the file. That is not worth a report. One damaged field does not make a header foreign.
func foreign(block []byte, number, sequence uint64) bool {
	if len(block) < groupHeaderBytes {
		return false // the file was cut
	}
	fits := 0
	for _, same := range []bool{
		[4]byte(block[:4]) == groupMagic,
		binary.LittleEndian.Uint64(block[8:]) == number,
		binary.LittleEndian.Uint32(block[44:]) == uint32(sequence),
	} {
		if same {
			fits++
		}
	}
	return fits < 2
}

// checkBadHeaders finds groups that only a damaged or lost header hides. Header and first group are written together, so if
// nothing shows that one of the groups was durable, it is a tear: copied aside and forgotten. Otherwise it is corruption.
func (s *journalScan) checkBadHeaders(bad []scannedFile, end *journalEnd) error {
	for _, f := range bad {
		g, err := s.hidden(f, end.lastGroup)
		if err != nil {
			return err
		}
		if g == nil {
			continue
		}
		if g.durable > end.lastGroup {
			return &CorruptError{File: f.path, Reason: fmt.Sprintf("%v; group %d in it is whole and says that group %d was durable", f.headerErr, g.number, g.durable)}
		}
		data, err := readAll(s.fs, f.path)
		if err != nil {
			return err
		}
		size := min(blockBytes+groupSpan(int(g.bytes)), int64(len(data)))
		saved, err := s.saveAside(f.path, 0, data[:size])
		if err != nil {
			return err
		}
		end.torn = &TornTail{File: f.path, Bytes: size, SavedAs: saved, Reason: f.headerErr.Error()}
	}
	return nil
}

// hidden returns a whole group in f above last, preferably one that says that a group above last was durable, or nil.
func (s *journalScan) hidden(f scannedFile, last uint64) (*groupHeader, error) {
	data, err := readAll(s.fs, f.path)
	if err != nil {
		return nil, err
	}
	if durable, by := durableBehind(data, blockBytes, s.id, 0); durable > last {
		return &by, nil
	}
	for at := int64(blockBytes); at+blockBytes <= int64(len(data)); at += blockBytes {
		if h, err := parseGroupHeader(data[at:], s.id); err == nil && h.number > last {
			if _, err := parseGroup(data[at:], s.id, uint64(h.sequence)); err == nil {
				return &h, nil
			}
		}
	}
	return nil, nil
}

// makeDurable writes the last groups again and syncs them. They count from now on, but a process that was killed may have left
// them in the page cache only; and if that process had met a failed sync, the kernel calls those pages clean, so that
// a sync alone would succeed and prove nothing. Writing the same bytes once more makes them dirty.
func (w *walker) makeDurable() error {
	from := w.pos
	switch first := w.file.header.firstGroup; {
	case w.durable < first:
		from = 0 // the header is no older than the first group
	case w.durable-first+1 < uint64(len(w.places)):
		from = w.places[w.durable-first+1]
	}
	s := w.scan
	if s.readOnly {
		return nil
	}
	f, err := s.fs.OpenFile(w.file.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open journal file: %w", err)
	}
	defer f.Close()
	if to := min(w.pos, int64(len(w.data))); from < to {
		if n, err := f.WriteAt(w.data[from:to], from); err != nil || int64(n) != to-from {
			return fmt.Errorf("write the last groups of journal file %s again: %w", f.Name(), errOrShort(err))
		}
	}
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

// saveAside copies what is about to be cut off a journal file; a scan that only looks makes no copy.
func (s *journalScan) saveAside(path string, offset int64, data []byte) (string, error) {
	if s.readOnly {
		return "", nil
	}
	return saveAside(s.fs, s.damagedDir, filepath.Base(path), offset, data)
}

// saveAside copies bytes that are about to be cut or ignored into the damaged directory and syncs them.
func saveAside(fs vfs.FS, dir, base string, offset int64, data []byte) (string, error) {
	if err := fs.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("make directory for damaged bytes: %w", err)
	}
	var path string
	for n := 1; ; n++ {
		path = filepath.Join(dir, fmt.Sprintf("%s.at-%d.%d", base, offset, n))
		_, err := fs.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("look for a name for damaged bytes: %w", err)
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
func (s *journalScan) barrier(after uint64, fileBytes int64, begun *begunNote, room *space) error {
	var end journalEnd
	all, err := s.list(&end)
	if err != nil {
		return err
	}
	h := fileHeader{firstGroup: after + 1, after: after, sequence: 1, blocks: uint32(fileBytes / blockBytes)}
	for _, f := range all {
		if f.headerErr == nil {
			h.sequence = max(h.sequence, f.sequence+1)
			h.clockMillis = max(h.clockMillis, f.header.clockMillis)
		}
	}
	j := &journal{cfg: journalConfig{fs: s.fs, dir: s.dir, id: s.id, space: room}, nameSeq: end.nameMax}
	path, err := j.prepareNow(fileBytes)
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
	return begun.write(h.sequence)
}
