package wal

// Records set aside. A queue whose log failed cannot take its records over from the journal. So that one broken queue does
// not keep the journal from being reused, a checkpoint copies what that queue still needs into a file of its own.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"quail/wal/record"
)

// asideRingsMax is how much one failed queue may have set aside, in sizes of the journal: one for what the ring holds when the
// log fails, the others for later starts at which it failed again.
const asideRingsMax = 4

func (s *Store) asidePath(incarnation uint64) string {
	return filepath.Join(s.points.dir, fmt.Sprintf("%016x.aside", incarnation))
}

func (s *Store) removeAside(incarnation uint64) {
	s.cfg.FS.Remove(s.asidePath(incarnation)) // usually there is none; one left over is ignored by the next start
}

// setAside makes the records after logLast up to lsn durable outside the queue's log. They come from memory, from what was set
// aside before, and from the journal. What the last checkpoint needs of it stays: if the power goes before the next one is durable, that
// is the one that counts, whatever the log has got since. Past asideRingsMax the checkpoint fails and the journal keeps everything, until pushes to
// all queues wait.
func (s *Store) setAside(q *QueueLog, logLast, lsn uint64) error {
	if q.asideFirst != 0 {
		logLast = min(logLast, q.asideFirst-1)
	}
	found := map[uint64][]byte{}
	keep := func(raw []byte) error {
		r := record.View(raw)
		if r.Incarnation == q.incarnation && r.LSN > logLast && r.LSN <= lsn {
			found[r.LSN] = raw
		}
		return nil
	}
	if data, err := readAll(s.cfg.FS, s.asidePath(q.incarnation)); err == nil {
		if err := eachRecord(s.asidePath(q.incarnation), data, keep); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, raw := range q.Memory(max(logLast+1, q.firstInMemory())) {
		if err := keep(raw); err != nil {
			return err
		}
	}
	if uint64(len(found)) < lsn-logLast { // reading the whole ring is the last resort
		if err := s.eachJournalRecord(keep); err != nil {
			return err
		}
	}
	var data []byte
	for at := logLast + 1; at <= lsn; at++ {
		raw, ok := found[at]
		if !ok {
			return fmt.Errorf("record %d is neither in the log nor in the journal", at)
		}
		if int64(len(data)+len(raw)) > asideRingsMax*s.cfg.JournalBytes {
			return fmt.Errorf("more than %d bytes would have to be set aside", asideRingsMax*s.cfg.JournalBytes)
		}
		data = append(data, raw...)
	}
	return writeFileDurably(s.cfg.FS, s.asidePath(q.incarnation), data)
}

func (q *QueueLog) firstInMemory() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.tailLSN
}

// eachJournalRecord reads the ring's files as they are now, up to the last durable group.
func (s *Store) eachJournalRecord(f func(raw []byte) error) error {
	s.journal.filesMu.Lock()
	files := append([]journalFile(nil), s.journal.files...)
	s.journal.filesMu.Unlock()
	durable := s.journal.durable.Load()
	for i, file := range files {
		last := durable
		if i+1 < len(files) && files[i+1].firstGroup != 0 {
			last = min(last, files[i+1].after) // what is behind it failed, though it may look whole
		}
		data, err := readAll(s.cfg.FS, file.path)
		if err != nil {
			return err
		}
		for pos, number := int64(blockBytes), file.firstGroup; number <= last && pos < int64(len(data)); number++ {
			g, err := parseGroup(data[pos:], s.id, file.sequence)
			if err != nil || g.number != number {
				break
			}
			if err := g.each(f); err != nil {
				return err
			}
			pos += g.span
		}
	}
	return nil
}

// eachRecord checks and visits the records of a file that holds nothing else.
func eachRecord(path string, data []byte, f func(raw []byte) error) error {
	for pos := 0; pos < len(data); {
		_, n, err := record.Decode(data[pos:])
		if err != nil {
			return &CorruptError{File: path, Offset: int64(pos), Reason: err.Error()}
		}
		if err := f(data[pos : pos+n : pos+n]); err != nil {
			return err
		}
		pos += n
	}
	return nil
}

// loadAside gives q the records between its log's end and its checkpointed state. There may be more, of a checkpoint that did not become
// durable: those before are in the log, those behind in the journal.
func (s *Store) loadAside(q *QueueLog, lsn uint64) error {
	path := s.asidePath(q.incarnation)
	data, err := readAll(s.cfg.FS, path)
	if err != nil {
		return err
	}
	err = eachRecord(path, data, func(raw []byte) error {
		if record.View(raw).LSN > lsn {
			return nil
		}
		return q.restore(raw)
	})
	if err != nil {
		return err
	}
	if q.last != lsn {
		return &CorruptError{File: path, Offset: int64(len(data)), Reason: fmt.Sprintf("records up to %d are needed, the last is %d", lsn, q.last)}
	}
	return nil
}
