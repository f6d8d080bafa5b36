package seglog

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"

	"quail/wal/record"
)

// rewritten visits the records of a rewritten segment up to end, and tells of those between them that it leaves out. Where it is damaged
// nobody can say which of the records that are not there it has held; all count as lost then that stood before the next whole one.
func (w *walk) rewritten(f found, end uint64) error {
	path := filepath.Join(w.cfg.Dir, f.name)
	file, err := w.cfg.FS.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("walk log: %w", err)
	}
	defer file.Close()
	h, err := readSpanHeader(file)
	sound := err == nil
	switch {
	case errors.Is(err, errEntry):
		w.hole(Hole{File: path, From: f.first, To: f.first - 1, Reason: err.Error()})
	case err != nil:
		return fmt.Errorf("walk segment %s: %w", path, err)
	case h.span != f.span || h.incarnation != w.cfg.Incarnation:
		sound = false
		w.hole(Hole{File: path, From: f.first, To: f.first - 1, Reason: fmt.Sprintf("the header is of %s, incarnation %d", h.name(), h.incarnation)})
	}
	end = min(end, f.span.last)
	records, sum := uint64(0), uint32(0)
	scan := newScanner(file, w.cfg.Incarnation, f.first, spanHeaderBytes, f.size)
	scan.upTo = f.span.last
	for scan.offset < f.size && scan.lsn <= end {
		at := scan.offset
		raw, err := scan.next()
		if err == nil {
			records, sum = records+1, crc32.Update(sum, castagnoli, raw[4:8])
			if err := w.passOver(record.View(raw).LSN); err != nil {
				return err
			}
			w.next = scan.lsn
			if err := w.visit(raw, path, at); err != nil {
				return err
			}
			continue
		}
		if err != io.EOF && !errors.Is(err, errEntry) {
			return fmt.Errorf("walk segment %s: %w", path, err)
		}
		sound = false
		lsn, offset, found, seekErr := w.resync(file, f.size, scan.lsn+1, end, at)
		if seekErr != nil {
			return fmt.Errorf("walk segment %s: %w", path, seekErr)
		}
		to := end
		if found {
			to = lsn - 1
		}
		w.hole(Hole{File: path, Offset: at, From: scan.lsn, To: to, Reason: err.Error()})
		w.next = to + 1
		if !found {
			return nil
		}
		scan = newScanner(file, w.cfg.Incarnation, lsn, offset, f.size)
		scan.upTo = f.span.last
	}
	if sound && end == f.span.last && (records != h.records || sum != h.sum || f.size != h.size) {
		w.hole(Hole{File: path, Offset: scan.offset, From: w.next, To: end, Reason: fmt.Sprintf(
			"the segment has %d records in %d bytes, its header says %d in %d", records, f.size, h.records, h.size)})
		w.next = end + 1
		return nil
	}
	return w.passOver(end + 1)
}

// passOver tells of the records from next to before lsn, which a rewritten segment leaves out.
func (w *walk) passOver(lsn uint64) error {
	from := w.next
	if from >= lsn {
		return nil
	}
	w.next = lsn
	if w.leftOut == nil {
		return nil
	}
	return w.leftOut(from, lsn-1)
}
