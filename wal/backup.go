package wal

// A copy of the data directory while it is in use. Copying the files from outside does not do: a journal file is used again while it is
// read, a segment goes between listing and reading, a checkpoint is replaced by one that needs other files.
//
// A backup is a checkpoint of its own, the journal behind it up to one durable group, and the logs up to what that checkpoint promises.
// The checkpoint comes first, and begins after the backup was asked for, so all that was acknowledged before is in it. The journal is
// copied while no other checkpoint can let its files be used again. Together they are what a power cut just then would have left: atomic
// over all queues, also for messages that move from one to another. Then only the logs are left, the larger part by far: their records
// do not change, and they are neither cut nor rewritten while they are copied. Commits go on all the time.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"quail/wal/seglog"
	"quail/wal/vfs"
)

// ErrBackupRuns: one backup at a time.
var ErrBackupRuns = errors.New("a backup is being made already; ask again when it is done")

// ErrInside: a backup inside the data directory would go with it.
var ErrInside = errors.New("a backup must not be inside the data directory")

// errStopped ends a backup when the store closes.
var errStopped = errors.New("the store was closed before the backup was whole")

// BackupReport says what a backup holds.
type BackupReport struct {
	Queues   int
	Bytes    int64
	Duration time.Duration
	// Damaged is how many queues' logs are damaged. They were copied as they are.
	Damaged int
	// Held is how long checkpoints had to wait. Commits never do.
	Held time.Duration
}

// Backup copies the store into a new directory, on which a server can be started. What is under that name is whole and synced; before, it has
// another. Errors: ErrExists, ErrBackupRuns, ErrInside; those of the file system; why no checkpoint could be made.
func (s *Store) Backup(dir string) (BackupReport, error) {
	if !s.backup.TryLock() {
		return BackupReport{}, ErrBackupRuns
	}
	defer s.backup.Unlock()
	if s.isClosing() {
		return BackupReport{}, errStopped
	}
	if inside, err := filepath.Rel(s.cfg.Dir, dir); err == nil && inside != ".." && !strings.HasPrefix(inside, ".."+string(filepath.Separator)) {
		return BackupReport{}, fmt.Errorf("%s: %w", dir, ErrInside)
	}
	began := time.Now()
	d, err := beginDir(s.cfg.FS, dir)
	if err != nil {
		return BackupReport{}, fmt.Errorf("backup: %w", err)
	}
	b := &backup{s: s, d: d}
	err = b.begin()
	s.rewriting.Lock() // what was being rewritten when the backup began is done behind this; what comes later sees it
	s.rewriting.Unlock()
	if err == nil {
		err = b.copyLogs()
	}
	s.cutAgain()
	if err == nil {
		err = d.finish(b.header)
	}
	if err != nil {
		d.abandon()
		return BackupReport{}, fmt.Errorf("backup: %w", err)
	}
	b.report.Queues = len(d.states)
	b.report.Duration = time.Since(began)
	return b.report, nil
}

// keptForBackup reports whether a backup needs the log as it is, and remembers that its front is still to be cut, and its segments are to
// be rewritten.
func (s *Store) keptForBackup(q *QueueLog) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uncut != nil {
		s.uncut[q] = true
	}
	return s.uncut != nil
}

// cutAgain lets the next checkpoint cut the fronts that were kept.
func (s *Store) cutAgain() {
	s.mu.Lock()
	kept := s.uncut
	s.uncut = nil
	s.mu.Unlock()
	for q := range kept {
		q.change()
	}
}

// backup is one that is being made.
type backup struct {
	s      *Store
	d      *newDir
	header checkpointHeader
	states []checkpointState
	report BackupReport
}

// begin takes the checkpoint and copies the journal behind it.
func (b *backup) begin() error {
	s := b.s
	s.checkpoint.Lock()
	defer s.checkpoint.Unlock()
	began := time.Now()
	defer func() { b.report.Held = time.Since(began) }()
	states, err := s.takeCheckpoint(true)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.uncut = map[*QueueLog]bool{}
	s.mu.Unlock()
	b.header, b.states, b.d.id = s.points.last, states, s.id
	for i := range states {
		if c := &states[i]; !c.gone && c.logLast < c.lsn {
			path := s.asidePath(c.incarnation)
			if err := b.copyFile(path, filepath.Join(b.d.folder("checkpoints"), filepath.Base(path))); err != nil {
				return err
			}
		}
	}
	return b.copyJournal()
}

// copyJournal copies the files up to the last durable group. What is behind it is being written, and left out.
func (b *backup) copyJournal() error {
	s := b.s
	s.journal.filesMu.Lock()
	files := append([]journalFile(nil), s.journal.files...)
	s.journal.filesMu.Unlock()
	durable := s.journal.durable.Load()
	newest := uint64(0)
	for i, file := range files {
		if file.firstGroup == 0 || file.firstGroup > durable {
			break
		}
		last := durable
		if i+1 < len(files) && files[i+1].firstGroup != 0 {
			last = min(last, files[i+1].after)
		}
		if err := b.copyGroups(file, last); err != nil {
			return err
		}
		newest = file.sequence
	}
	note := &begunNote{fs: s.cfg.FS, path: filepath.Join(b.d.folder("journal"), begunName), id: s.id}
	if err := writeFileDurably(s.cfg.FS, note.path, make([]byte, begunFileBytes)); err != nil {
		return err
	}
	defer note.close()
	if newest == 0 {
		return nil
	}
	return note.write(newest)
}

func (b *backup) copyGroups(file journalFile, last uint64) error {
	data, err := readAll(b.s.cfg.FS, file.path)
	if err != nil {
		return err
	}
	pos := int64(blockBytes)
	for number := file.firstGroup; number <= last && pos < int64(len(data)); number++ {
		g, err := parseGroup(data[pos:], b.s.id, file.sequence)
		if err != nil || g.number != number {
			return &CorruptError{File: file.path, Offset: pos, Reason: fmt.Sprintf("group %d was durable, and is not there: %v", number, err)}
		}
		pos += g.span
	}
	clear(data[pos:])
	b.report.Bytes += int64(len(data))
	return writeFileDurably(b.s.cfg.FS, filepath.Join(b.d.folder("journal"), filepath.Base(file.path)), data)
}

// copyLogs copies the logs up to what the checkpoint promises. A queue that is deleted meanwhile is left out.
func (b *backup) copyLogs() error {
	for _, c := range b.states {
		if c.gone {
			continue
		}
		err := b.copyLog(c)
		if err != nil && !b.s.isKnown(c.incarnation) {
			if err := b.s.cfg.FS.RemoveAll(b.logDir(c.incarnation)); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		b.d.states = append(b.d.states, c)
	}
	return nil
}

// isKnown reports whether the queue was not deleted.
func (s *Store) isKnown(incarnation uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs[incarnation] != nil
}

func (b *backup) logDir(incarnation uint64) string {
	return filepath.Join(b.d.folder("queues"), fmt.Sprintf("%016x", incarnation))
}

func (b *backup) copyLog(c checkpointState) error {
	if c.logLast < c.first {
		return nil
	}
	fs, to := b.s.cfg.FS, b.logDir(c.incarnation)
	if err := fs.Mkdir(to, 0o750); err != nil {
		return err
	}
	cfg := b.s.segmentConfig(c.incarnation)
	segments, err := seglog.Segments(cfg, c.first, c.logLast)
	if err != nil {
		return err
	}
	for _, name := range segments {
		if b.s.isClosing() {
			return errStopped
		}
		if err := b.copyFile(filepath.Join(cfg.Dir, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	if err := b.verify(cfg, to, c); err != nil {
		return err
	}
	return fs.SyncDir(to)
}

// verify reads the copy, and cuts off what stands behind the checkpoint: that was being written.
func (b *backup) verify(cfg seglog.Config, dir string, c checkpointState) error {
	cfg.Dir = dir
	var damage *seglog.Hole
	var tail string
	var end int64
	err := seglog.Walk(cfg, c.first, c.logLast, func(raw []byte, file string, offset int64) error {
		tail, end = file, offset+seglog.EntryBytes(len(raw))
		return nil
	}, func(h seglog.Hole) { damage = &h }, nil)
	if err != nil {
		return err
	}
	if damage != nil {
		if !b.s.isKnown(c.incarnation) {
			return errStopped // it is being removed
		}
		b.report.Damaged++
		return nil
	}
	if tail == "" {
		return nil
	}
	f, err := b.s.cfg.FS.OpenFile(tail, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(end); err != nil {
		return err
	}
	return f.Sync()
}

// copyFile copies a file as it is now, and syncs it.
func (b *backup) copyFile(from, to string) error {
	src, err := b.s.cfg.FS.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := b.s.cfg.FS.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, copyBytes))
	b.report.Bytes += n
	if err == nil {
		err = dst.Sync()
	}
	return closeAfter(dst, err)
}

// copyBytes is how much is copied at once.
const copyBytes = 256 << 10

func closeAfter(f vfs.File, err error) error {
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
