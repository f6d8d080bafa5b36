package wal

// What a start leaves in the journal. A server that was killed may have far more journal to take over than may wait in memory, and
// writing it into the queues' logs can take ten times as long as reading it: with a thousand busy queues each log is opened, and synced
// to be closed again. Nobody needs to wait for that. So past half of WriteBehindBytes the scan only notes where each record lies; reads
// of them go to the journal's file, and the background writer moves them into the logs as it does with what is in memory.
//
//	a queue's records   1 ──────────────── appended │ left in the journal │ tailLSN ──── last
//	                        in its log              │                     │     in memory
//
// A checkpoint writes a queue's log up to its state before it lets the journal go, so a file is never reused while the log lacks
// what lies in it. A reader that looked up the place just before finds other bytes there: each record says what it is, and has a checksum.

import (
	"fmt"
	"slices"
	"sort"

	"quail/wal/record"
	"quail/wal/vfs"
)

// leftBytesMax bounds one leftRun, so that reading from its middle reads little in vain.
const leftBytesMax = 64 << 10

// leftRun is consecutive records of one queue, one behind the other in one journal file.
type leftRun struct {
	first  uint64
	offset int64
	file   uint32 // in Store.leftFiles
	count  uint32
	bytes  uint32
}

func (r *leftRun) end() uint64 { return r.first + uint64(r.count) }

// noteLeft remembers where the scan has met a record. It may be in memory too, for now.
func (q *QueueLog) noteLeft(lsn uint64, file uint32, offset int64, bytes int) {
	if q.isDeleted() {
		return
	}
	q.store.leftBytes.Add(int64(bytes))
	if n := len(q.left); n > 0 {
		r := &q.left[n-1]
		if r.file == file && r.end() == lsn && r.offset+int64(r.bytes) == offset && int(r.bytes)+bytes <= leftBytesMax {
			r.count++
			r.bytes += uint32(bytes)
			return
		}
	}
	q.left = append(q.left, leftRun{first: lsn, offset: offset, file: file, count: 1, bytes: uint32(bytes)})
}

// leaveInJournal takes out of memory what the scan has met so far.
func (s *Store) leaveInJournal() {
	for _, q := range s.writing {
		q.mu.Lock()
		if q.deleted || len(q.tail) == 0 {
			q.mu.Unlock()
			continue
		}
		if len(q.left) == 0 || q.left[0].first > q.tailLSN { // the tail begins with what a checkpoint had set aside: no journal has that
			q.mu.Unlock()
			if q.flush(^uint64(0)) == nil { // a failure is sticky in q, and told when it is certain that the queue is not deleted
				q.forgetLeft()
			}
			continue
		}
		s.pendingBytes.Add(-q.tailBytes())
		q.tail, q.commits = nil, nil
		q.durable, q.tailLSN = q.last, q.last+1
		q.mu.Unlock()
	}
}

// settleLeft forgets the places of what is in memory, at the end of the scan.
func (s *Store) settleLeft() {
	for _, q := range s.logs {
		n := sort.Search(len(q.left), func(i int) bool { return q.left[i].first >= q.tailLSN })
		for i := range q.left[n:] {
			s.leftBytes.Add(-int64(q.left[n+i].bytes))
		}
		if q.left = slices.Clone(q.left[:n]); n == 0 {
			q.left = nil
		}
	}
}

// forgetLeft is called when the log has them, or nobody needs them any more. Called with mu held.
func (q *QueueLog) forgetLeft() {
	for i := range q.left {
		q.store.leftBytes.Add(-int64(q.left[i].bytes))
	}
	q.left = nil
}

// leftFrom are the places of the records from lsn on, none if it was not left in the journal. Called with mu held.
func (q *QueueLog) leftFrom(lsn uint64) []leftRun {
	if len(q.left) == 0 || lsn < q.left[0].first || lsn >= q.tailLSN {
		return nil
	}
	return q.left[sort.Search(len(q.left), func(i int) bool { return q.left[i].end() > lsn }):]
}

// isLeft reports whether that record is to be read from the journal.
func (q *QueueLog) isLeft(lsn uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.leftFrom(lsn) != nil
}

// readLeft appends to dst records from `from` on, at most maxBytes of them but at least one. runs is not empty and begins with the one that
// holds `from`.
func (q *QueueLog) readLeft(runs []leftRun, from uint64, maxBytes int, dst [][]byte) ([][]byte, error) {
	full := false
	bytes := 0
	err := q.eachLeft(runs, func(raw []byte) (more bool, err error) {
		if record.View(raw).LSN < from {
			return true, nil
		}
		if bytes += len(raw); bytes > maxBytes && full {
			return false, nil
		}
		full = true
		dst = append(dst, raw)
		return bytes < maxBytes, nil
	})
	return dst, err
}

// eachLeft visits the records of runs until visit wants no more. It checks that they are what they should be.
func (q *QueueLog) eachLeft(runs []leftRun, visit func(raw []byte) (more bool, err error)) error {
	var f vfs.File
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	for i := range runs {
		r := &runs[i]
		path := q.store.leftFiles[r.file]
		if f == nil || i > 0 && runs[i-1].file != r.file {
			if f != nil {
				f.Close()
			}
			var err error
			if f, err = q.store.cfg.FS.Open(path); err != nil {
				f = nil
				return fmt.Errorf("open journal file: %w", err)
			}
		}
		data := make([]byte, r.bytes)
		if n, err := f.ReadAt(data, r.offset); n < len(data) {
			return fmt.Errorf("read journal file %s at offset %d: %w", path, r.offset, errOrShort(err))
		}
		at := r.offset
		for lsn := r.first; lsn < r.end(); lsn++ {
			rec, n, err := record.Decode(data)
			if err == nil && (rec.LSN != lsn || rec.Incarnation != q.incarnation) {
				err = fmt.Errorf("record %d of incarnation %d stands where record %d of incarnation %d was", rec.LSN, rec.Incarnation, lsn, q.incarnation)
			}
			if err != nil {
				return &CorruptError{File: path, Offset: at, Reason: err.Error()}
			}
			if more, err := visit(data[:n:n]); err != nil || !more {
				return err
			}
			data, at = data[n:], at+int64(n)
		}
	}
	return nil
}

// writeLeft appends to the log what was left in the journal. Called with io held; the log is open.
func (q *QueueLog) writeLeft(a *appender) error {
	q.mu.Lock()
	runs := q.leftFrom(q.appended + 1)
	q.mu.Unlock()
	if len(runs) == 0 {
		return nil
	}
	if err := q.eachLeft(runs, func(raw []byte) (bool, error) { return true, a.add(raw) }); err != nil {
		return err
	}
	return a.flush()
}
