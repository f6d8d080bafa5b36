package seglog

// What is in a log's directory, and what has to be done so that it holds exactly what the checkpoint says. Nothing here
// changes the disk: damage must leave everything as it was.
//
// A directory can be found in these states, all but the last two of which are ordinary:
//
//	missing or empty            a new log, or one whose first segment was never synced
//	segments below first        CutFront was interrupted; any subset of them may be left, in any order
//	records after last          written after the checkpoint; whole, torn, or zeros, in the tail or in later segments
//	an empty last segment       the one before became full, or everything was cut
//	N-M.g.tmp                   Rewrite was interrupted before its file counted: dropped
//	N-M.g beside what it holds  Rewrite was interrupted behind that: what it stands for is dropped
//	N.TEMP                      tidwall/wal was interrupted while writing a truncated segment: dropped
//	N.START or N.END            tidwall/wal was interrupted in a truncation: completed as the library would
//	a gap, or a short segment   corruption, if what is missing is between first and last
//	damage at or below last     corruption

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// segmentDigits is the length of a segment's name, which is its first LSN.
const segmentDigits = 20

func segmentName(lsn uint64) string { return fmt.Sprintf("%0*d", segmentDigits, lsn) }

// found is one file of the directory that holds records.
type found struct {
	first  uint64 // LSN of its first record, from the name
	span   span   // of a rewritten segment, from the name
	name   string // what it is called now
	rename string // what it must be called; "" = as now
	size   int64  // bytes
}

// finalName is what the file is called once the truncation of tidwall/wal that left it is completed.
func (f *found) finalName() string {
	if f.rename != "" {
		return f.rename
	}
	return f.name
}

// cut is a removal from offset on.
type cut struct {
	found
	offset   int64 // 0 and whole: the file goes
	whole    bool
	records  uint64 // whole valid records in the part that goes
	validEnd int64  // offset where they end; from here to size is torn
}

// plan is what Open has to do, in the order of the fields.
type plan struct {
	missing  bool     // the directory is not there
	temps    []string // names to remove
	replaced []string // names that a completed truncation removes, in order
	covered  []string // names of segments that a rewritten one stands for
	renames  []found
	front    []found // whole segments below first, lowest first
	cuts     []cut   // after last, highest first
	create   bool    // no segment is left: an empty one has to be made

	segments []*segment // what the log consists of afterwards
}

// inspector gathers a plan.
type inspector struct {
	cfg         Config
	first, last uint64
	plan
}

// inspect plans how to bring the directory to [first, last].
func inspect(cfg Config, first, last uint64) (*plan, error) {
	in := &inspector{cfg: cfg, first: first, last: last}
	files, err := in.list()
	if err != nil {
		return nil, err
	}
	files = in.dropFront(files)
	if last < first {
		err = in.emptyLog(files)
	} else {
		err = in.fullLog(files)
	}
	if err != nil {
		return nil, err
	}
	return &in.plan, nil
}

func (in *inspector) path(name string) string { return filepath.Join(in.cfg.Dir, name) }

// list reads the directory and resolves what tidwall/wal's truncations may have left.
func (in *inspector) list() ([]found, error) {
	entries, err := in.cfg.FS.ReadDir(in.cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		in.missing = true
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list log: %w", err)
	}
	var files []found
	start, end := -1, -1
	for _, entry := range entries {
		if sp, aside, ok := parseSpan(entry.Name()); ok {
			if aside {
				in.temps = append(in.temps, entry.Name())
				continue
			}
			if files, err = in.addRewritten(files, entry, sp); err != nil {
				return nil, err
			}
			continue
		}
		lsn, suffix, ok := parseName(entry.Name())
		if !ok {
			continue // not ours and not tidwall/wal's
		}
		if entry.IsDir() {
			return nil, &CorruptError{File: in.path(entry.Name()), LSN: lsn, Reason: "a directory has a segment's name"}
		}
		file := found{first: lsn, name: entry.Name()}
		switch {
		case strings.HasSuffix(suffix, ".TEMP"):
			in.temps = append(in.temps, entry.Name())
			continue
		case suffix == ".START" && start < 0 && end < 0:
			start, file.rename = len(files), segmentName(lsn)
		case suffix == ".END" && start < 0 && end < 0:
			end, file.rename = len(files), segmentName(lsn)
		case suffix != "":
			return nil, &CorruptError{File: in.path(entry.Name()), LSN: lsn, Reason: "two unfinished truncations"}
		}
		info, err := entry.Info()
		if err != nil {
			return nil, fmt.Errorf("list log: %w", err)
		}
		file.size = info.Size()
		files = append(files, file)
	}
	return in.dropCovered(in.finishTruncation(files, start, end))
}

// parseName splits a name into LSN and suffix; ok tells whether tidwall/wal or this package could have given it.
func parseName(name string) (lsn uint64, suffix string, ok bool) {
	if len(name) < segmentDigits {
		return 0, "", false
	}
	suffix = name[segmentDigits:]
	switch suffix {
	case "", ".START", ".END", ".TEMP", ".START.TEMP", ".END.TEMP":
	default:
		return 0, "", false
	}
	lsn, err := strconv.ParseUint(name[:segmentDigits], 10, 64)
	return lsn, suffix, err == nil && lsn > 0
}

// finishTruncation does in the plan what tidwall/wal's Open would do: a START replaces all files before it, an END all
// after it and the segment of the same LSN.
func (in *inspector) finishTruncation(files []found, start, end int) []found {
	drop := func(files []found) {
		for _, f := range files {
			in.replaced = append(in.replaced, f.name)
		}
	}
	switch {
	case start >= 0:
		drop(files[:start])
		files = files[start:]
		in.renames = files[:1:1]
	case end >= 0:
		drop(files[end+1:])
		in.renames = files[end : end+1 : end+1]
		if end > 0 && files[end-1].first == files[end].first {
			files[end-1] = files[end] // the rename replaces it
			end--
		}
		files = files[:end+1]
	}
	return files
}

// dropFront takes away the segments that hold only records below first. Which ones, the next segment's name tells.
func (in *inspector) dropFront(files []found) []found {
	for len(files) > 1 && files[1].first <= in.first {
		in.front = append(in.front, files[0])
		files = files[1:]
	}
	return files
}

// emptyLog plans for a log without records that begins at first: only an empty segment of that name may stay.
func (in *inspector) emptyLog(files []found) error {
	for i := len(files) - 1; i >= 0; i-- {
		f := files[i]
		if f.span.rewritten() {
			if f.span.last >= in.first {
				return in.beyond(f)
			}
			in.front = append(in.front, f)
			continue
		}
		if f.first == in.first {
			c, err := in.measure(f)
			if err != nil {
				return err
			}
			if f.size > 0 {
				in.cuts = append(in.cuts, c)
			}
			in.segments = []*segment{{first: f.first}}
			continue
		}
		// A segment that begins below first may hold records above last too; they go with it, and are torn or whole.
		c, err := in.measure(f)
		if err != nil {
			return err
		}
		if f.first < in.first && c.validEnd == f.size {
			in.front = append(in.front, f)
			continue
		}
		c.whole = true
		in.cuts = append(in.cuts, c)
	}
	in.create = len(in.segments) == 0
	if in.create {
		in.segments = []*segment{{first: in.first}}
	}
	return nil
}

// fullLog plans for a log that must hold [first, last].
func (in *inspector) fullLog(files []found) error {
	if len(files) == 0 || files[0].first > in.first {
		has := "there is no segment"
		if len(files) > 0 {
			has = fmt.Sprintf("the first segment is %s", files[0].name)
		}
		return &CorruptError{File: in.cfg.Dir, LSN: in.first, Reason: fmt.Sprintf(
			"the log must begin at LSN %d, but %s", in.first, has)}
	}
	// The tail is the last segment that does not begin after last.
	tail := len(files) - 1
	for files[tail].first > in.last {
		tail--
	}
	for i, f := range files[:tail] {
		if err := in.addSealed(f, files[i+1].first-1); err != nil {
			return err
		}
	}
	for i := len(files) - 1; i > tail; i-- {
		if files[i].span.rewritten() {
			return in.beyond(files[i])
		}
		c, err := in.measure(files[i])
		if err != nil {
			return err
		}
		c.whole = true
		in.cuts = append(in.cuts, c)
	}
	if !files[tail].span.rewritten() {
		return in.checkTail(files[tail])
	}
	// The empty segment behind it never became durable. A rewritten one is not appended to.
	if files[tail].span.last > in.last {
		return in.beyond(files[tail])
	}
	in.create = true
	err := in.addSealed(files[tail], in.last)
	in.segments = append(in.segments, &segment{first: in.last + 1})
	return err
}

// addSealed checks that a segment before the tail ends with this LSN, and takes it over.
func (in *inspector) addSealed(f found, lsn uint64) error {
	seg := &segment{first: f.first, size: f.size, synced: f.size}
	var err error
	if f.span.rewritten() {
		err = in.checkRewritten(f, lsn, seg)
	} else {
		err = in.checkSealed(f, lsn)
	}
	in.segments = append(in.segments, seg)
	return err
}

// checkSealed checks that a segment before the tail ends with the LSN that the next one's name promises.
func (in *inspector) checkSealed(f found, lsn uint64) error {
	file, err := in.cfg.FS.Open(in.path(f.name))
	if err != nil {
		return fmt.Errorf("check segment: %w", err)
	}
	defer file.Close()
	err = checkEnd(file, f.size, lsn, in.cfg.Incarnation)
	if errors.Is(err, errEntry) {
		return &CorruptError{File: in.path(f.name), Offset: f.size, LSN: lsn,
			Reason: "the segment does not end where the next one begins: it is short, or one between them is missing", Err: err}
	}
	if err != nil {
		return fmt.Errorf("check segment %s: %w", f.name, err)
	}
	return nil
}

// checkTail checks the segment with last, record by record, and plans to cut what follows.
func (in *inspector) checkTail(f found) error {
	file, err := in.cfg.FS.Open(in.path(f.name))
	if err != nil {
		return fmt.Errorf("check tail: %w", err)
	}
	defer file.Close()
	seg := &segment{first: f.first}
	scan := newScanner(file, in.cfg.Incarnation, f.first, 0, f.size)
	for scan.lsn <= in.last {
		seg.mark(scan.lsn, scan.offset)
		if _, err = scan.next(); err != nil {
			break
		}
	}
	switch {
	case err == io.EOF:
		return &CorruptError{File: in.path(f.name), Offset: scan.offset, LSN: scan.lsn,
			Reason: fmt.Sprintf("the log ends here, but the checkpoint says that it reaches LSN %d", in.last)}
	case errors.Is(err, errEntry):
		return &CorruptError{File: in.path(f.name), Offset: scan.offset, LSN: scan.lsn,
			Reason: fmt.Sprintf("damage at or below LSN %d, which is checkpointed", in.last), Err: err}
	case err != nil:
		return fmt.Errorf("check tail: %w", err)
	}
	seg.size, seg.synced = scan.offset, scan.offset
	in.segments = append(in.segments, seg)
	if scan.offset < f.size {
		c, err := in.measureFrom(f, scan)
		if err != nil {
			return err
		}
		in.cuts = append(in.cuts, c)
	}
	return nil
}

// measure tells which part of a file, from the start on, is whole valid records.
func (in *inspector) measure(f found) (cut, error) {
	file, err := in.cfg.FS.Open(in.path(f.name))
	if err != nil {
		return cut{}, fmt.Errorf("check what follows LSN %d: %w", in.last, err)
	}
	defer file.Close()
	return in.measureFrom(f, newScanner(file, in.cfg.Incarnation, f.first, 0, f.size))
}

func (in *inspector) measureFrom(f found, scan *scanner) (cut, error) {
	c := cut{found: f, offset: scan.offset}
	start := scan.lsn
	for {
		_, err := scan.next()
		if err == nil {
			continue
		}
		c.records, c.validEnd = scan.lsn-start, scan.offset
		if err == io.EOF || errors.Is(err, errEntry) {
			return c, nil
		}
		return c, fmt.Errorf("check what follows LSN %d: %w", in.last, err)
	}
}
