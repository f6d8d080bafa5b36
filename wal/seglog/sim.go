package seglog

// Writing through the vfs alone, with the same layout as tidwall/wal's, so that a test can fail or lose any operation.

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"quail/wal/vfs"
)

// simWriter holds the tail segment open.
type simWriter struct {
	cfg  Config
	file vfs.File // nil between close and reopen
	size int64    // bytes in the tail
	buf  []byte   // entries not written yet, within one append
}

func newSimWriter(cfg Config) writer { return &simWriter{cfg: cfg} }

func (w *simWriter) reopen(tail *segment, _ uint64) error {
	file, err := w.cfg.FS.OpenFile(filepath.Join(w.cfg.Dir, segmentName(tail.first)), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	w.file, w.size = file, tail.size
	return nil
}

func (w *simWriter) append(lsn uint64, records [][]byte) error {
	full := int64(w.cfg.SegmentBytes)
	if w.size > full {
		if err := w.begin(lsn); err != nil {
			return err
		}
	}
	for i, rec := range records {
		w.buf = binary.AppendUvarint(w.buf, uint64(len(rec)))
		w.buf = append(w.buf, rec...)
		if w.size+int64(len(w.buf)) < full {
			continue
		}
		if err := w.flush(); err != nil {
			return err
		}
		if err := w.begin(lsn + uint64(i) + 1); err != nil {
			return err
		}
	}
	return w.flush()
}

// flush writes the gathered entries at the end of the tail.
func (w *simWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	n, err := w.file.WriteAt(w.buf, w.size)
	w.size += int64(n)
	w.buf = w.buf[:0]
	return err
}

// begin makes a new tail.
func (w *simWriter) begin(lsn uint64) error {
	if err := w.close(); err != nil {
		return err
	}
	name := filepath.Join(w.cfg.Dir, segmentName(lsn))
	file, err := w.cfg.FS.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, filePerm)
	if err != nil {
		return err
	}
	w.file, w.size = file, 0
	return nil
}

func (w *simWriter) close() error {
	if w.file == nil {
		return nil
	}
	file := w.file
	w.file = nil
	return file.Close()
}
