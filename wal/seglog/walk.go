package seglog

// Walking a log that nobody has open, for whoever looks into a stopped data directory or saves what is left of a damaged one.
// Nothing is changed, and damage does not end the walk: it goes on at the next record that is whole.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"quail/wal/record"
	"quail/wal/vfs"
)

// Hole is a place where records should be and none can be read.
type Hole struct {
	File   string
	Offset int64
	// From and To are the LSNs that are missing there, both included. To is below From if no record is missing: something is in
	// the way all the same, and stops the server.
	From, To uint64
	Reason   string
}

// Walk visits the whole records of a log in the order of their LSNs: those from the beginning of its first needed segment on up to
// last. File and offset are where the record's length stands; raw is valid until the next call. hole is told of everything that a log
// which must hold first to last should not have, leftOut, which may be nil, of records that nobody needed when their segment was
// rewritten. An error of visit or leftOut ends the walk.
// Errors: those of the file system, and of visit.
func Walk(cfg Config, first, last uint64, visit func(raw []byte, file string, offset int64) error, hole func(Hole), leftOut func(from, to uint64) error) error {
	if last < first {
		return nil
	}
	in := &inspector{cfg: cfg, first: first, last: last}
	files, err := in.list()
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		hole(Hole{File: corrupt.File, From: first, To: last, Reason: corrupt.Reason})
		return nil
	}
	if err != nil {
		return err
	}
	files = in.dropFront(files)
	w := walk{cfg: cfg, next: first, last: last, visit: visit, hole: hole, leftOut: leftOut}
	for i, f := range files {
		if f.first > last {
			break
		}
		end := last
		if i+1 < len(files) {
			end = min(last, files[i+1].first-1)
		}
		if f.first > w.next {
			hole(Hole{File: filepath.Join(cfg.Dir, segmentName(w.next)), From: w.next, To: f.first - 1, Reason: "the segment is missing"})
		}
		w.next = f.first
		if f.span.rewritten() {
			err = w.rewritten(f, end)
		} else {
			err = w.segment(f, end, i+1 < len(files))
		}
		if err != nil {
			return err
		}
	}
	if w.next <= last && last < ^uint64(0) {
		hole(Hole{File: filepath.Join(cfg.Dir, segmentName(w.next)), From: w.next, To: last, Reason: "the segment is missing"})
	}
	return nil
}

type walk struct {
	cfg        Config
	next, last uint64
	visit      func(raw []byte, file string, offset int64) error
	hole       func(Hole)
	leftOut    func(from, to uint64) error
}

// segment visits the records of one segment up to end. sealed: another segment follows, so nothing may stand behind end.
func (w *walk) segment(f found, end uint64, sealed bool) error {
	path := filepath.Join(w.cfg.Dir, f.name)
	file, err := w.cfg.FS.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("walk log: %w", err)
	}
	defer file.Close()
	scan := newScanner(file, w.cfg.Incarnation, f.first, 0, f.size)
	for scan.lsn <= end {
		at := scan.offset
		raw, err := scan.next()
		if err == nil {
			w.next = scan.lsn
			if err := w.visit(raw, path, at); err != nil {
				return err
			}
			continue
		}
		if err != io.EOF && !errors.Is(err, errEntry) {
			return fmt.Errorf("walk segment %s: %w", path, err)
		}
		if end == ^uint64(0) {
			return w.behind(file, path, f.size, scan.lsn, at)
		}
		lsn, offset, found, seekErr := w.resync(file, f.size, scan.lsn+1, end, at)
		if seekErr != nil {
			return fmt.Errorf("walk segment %s: %w", path, seekErr)
		}
		to := end
		if found {
			to = lsn - 1
		}
		reason := err.Error()
		if err == io.EOF {
			reason = "the segment ends here"
		}
		w.hole(Hole{File: path, Offset: at, From: scan.lsn, To: to, Reason: reason})
		w.next = to + 1
		if !found {
			return nil
		}
		scan = newScanner(file, w.cfg.Incarnation, lsn, offset, f.size)
	}
	if sealed && end < w.last && scan.offset != f.size {
		w.hole(Hole{File: path, Offset: scan.offset, From: end + 1, To: end, Reason: fmt.Sprintf("%d bytes follow the segment's last record", f.size-scan.offset)})
	}
	return nil
}

// behind goes on past damage where nobody knows how many records there should be: whole ones count, the rest is no hole, as
// the end of a log that was not synced is torn.
func (w *walk) behind(file vfs.File, path string, size int64, lsn uint64, at int64) error {
	for {
		next, offset, found, err := w.resync(file, size, lsn+1, ^uint64(0)-1, at)
		if err != nil || !found {
			return err
		}
		scan := newScanner(file, w.cfg.Incarnation, next, offset, size)
		for {
			from := scan.offset
			raw, err := scan.next()
			if err != nil {
				lsn, at = scan.lsn, from+1
				break
			}
			w.next = scan.lsn
			if err := w.visit(raw, path, from); err != nil {
				return err
			}
		}
	}
}

// resync finds the next whole entry of this log behind damage, with an LSN of from to to, the least of which is expected. It is found by
// its record's magic; the length in front of it has to fit too.
func (w *walk) resync(file vfs.File, size int64, from, to uint64, at int64) (lsn uint64, offset int64, found bool, err error) {
	buf := make([]byte, scanBytes)
	for start := at; start < size; {
		n, err := readAt(file, buf[:min(int64(len(buf)), size-start)], start)
		if err != nil {
			return 0, 0, false, err
		}
		for i := 0; i+record.HeaderBytes <= n; i++ {
			if buf[i] != record.Magic || binary.LittleEndian.Uint64(buf[i+16:]) != w.cfg.Incarnation {
				continue
			}
			lsn := binary.LittleEndian.Uint64(buf[i+8:])
			if length, err := record.Length(buf[i:]); err != nil || lsn < from || lsn > to || start+int64(i)+int64(length) > size {
				continue
			} else if offset := start + int64(i) - int64(prefixLen(length)); offset >= at && w.isEntry(file, size, lsn, offset) {
				return lsn, offset, true, nil
			}
		}
		if n < len(buf) {
			return 0, 0, false, nil
		}
		start += int64(n - record.HeaderBytes + 1)
	}
	return 0, 0, false, nil
}

func (w *walk) isEntry(file vfs.File, size int64, lsn uint64, offset int64) bool {
	_, err := newScanner(file, w.cfg.Incarnation, lsn, offset, size).next()
	return err == nil
}

// Segments lists the names of the segments that hold records from first to last, in order.
func Segments(cfg Config, first, last uint64) ([]string, error) {
	in := &inspector{cfg: cfg, first: first, last: last}
	files, err := in.list()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range in.dropFront(files) {
		if f.first <= last {
			names = append(names, f.name)
		}
	}
	return names, nil
}

// EntryBytes is how much of a segment a record of size bytes takes.
func EntryBytes(size int) int64 { return int64(prefixLen(size) + size) }
