package wal

// Opening a data directory: take the lock, load the checkpoint, replay the journal behind it, go on in a new journal file.

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"quail/wal/record"
	"quail/wal/vfs"
)

// ErrLocked: another process has this data directory open.
var ErrLocked = errors.New("the data directory is in use by another process; stop that one or choose another directory")

const (
	storeFileBytes = 32
	storeVersion   = 1
)

var storeMagic = [8]byte{'Q', 'U', 'A', 'I', 'L', 'D', 'I', 'R'}

// Replayer rebuilds the queues' states while a store opens. All calls come from one goroutine.
type Replayer interface {
	// Load hands over one queue as the checkpoint has it: its state after record lsn. The state's memory may be kept.
	Load(q *QueueLog, lsn uint64, state []byte) error
	// Replay hands over the next record of q. For the first record of a new incarnation q was just made. When the
	// record says that the queue is deleted, Replay calls q.Delete.
	Replay(q *QueueLog, r record.Record) error
}

// Recovery says what opening found.
type Recovery struct {
	Groups  uint64 // journal groups replayed
	Records uint64
	Bytes   int64
	Torn    *TornTail
	New     bool // the directory was empty
}

// Open opens or makes the data directory. resumeAfter is 0, or, after a journal failure in this process, the last durable
// group: everything behind it is ignored, though it may look whole in the page cache.
// The store takes snapshots from source, which must be ready when Open returns; r is called before.
// Errors: ErrLocked, *CorruptError, those of the file system, and what r returned. After one that is OutOfSpace it has given
// the reserve back, and is worth trying once more.
func Open(cfg Config, source Source, r Replayer, resumeAfter uint64) (*Store, Recovery, error) {
	s := &Store{cfg: cfg, start: time.Now(), logs: map[uint64]*QueueLog{}, changed: map[uint64]*QueueLog{},
		wasteful: map[uint64]*QueueLog{}, rewriteKick: make(chan struct{}, 1), source: source,
		writeKick: make(chan struct{}, 1), pointKick: make(chan struct{}, 1),
		healKick: make(chan struct{}, 1), fullKick: make(chan struct{}, 1), stop: make(chan struct{})}
	s.room = sync.NewCond(&s.mu)
	var rec Recovery
	var err error
	if rec.New, err = s.prepare(); err != nil {
		return nil, rec, err
	}
	s.space = s.newSpace()
	s.space.open()
	s.recovering = true
	if err = s.recover(r, &rec, resumeAfter); err != nil {
		s.space.spent(err) // the next try has that space
		s.release()
		return nil, rec, err
	}
	s.recovering = false
	for _, q := range s.logs {
		if err := q.Err(); err != nil {
			s.logFailed(q, err)
		}
	}
	s.awaitBytes()
	if !cfg.Stepped {
		s.background.Add(5)
		go s.rewriteLoop()
		go s.spaceLoop()
		go s.writeBehind()
		go s.checkpointLoop()
		go s.healLoop()
	}
	if rec.Records > 0 {
		s.kick(s.writeKick)
	}
	return s, rec, nil
}

// CheckpointSoon asks for a checkpoint in the background: after a start that has replayed records, once the states are there, so that the next
// one need not.
func (s *Store) CheckpointSoon() { s.kick(s.pointKick) }

// prepare makes the directories, takes the lock and reads or makes the store's identity.
func (s *Store) prepare() (isNew bool, err error) {
	disk, dir := s.cfg.FS, s.cfg.Dir
	for _, d := range []string{dir, s.journalDir(), s.checkpointDir(), filepath.Join(dir, "queues")} {
		if err := s.makeDir(d); err != nil {
			return false, fmt.Errorf("make data directory: %w", err)
		}
	}
	if s.lock, err = disk.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o640); err != nil {
		return false, fmt.Errorf("open lock file: %w", err)
	}
	if err := s.lock.Lock(); err != nil {
		s.lock.Close()
		if errors.Is(err, vfs.ErrLocked) {
			err = ErrLocked
		}
		return false, fmt.Errorf("lock %s: %w", dir, err)
	}
	if isNew, err = s.identify(); err == nil {
		err = s.syncNames()
	}
	if err != nil {
		s.lock.Close()
	}
	return isNew, err
}

// makeDir makes a directory that is durable, with its parents.
func (s *Store) makeDir(dir string) error {
	fs := s.cfg.FS
	if _, err := fs.Stat(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := s.makeDir(parent); err != nil {
		return err
	}
	if err := fs.Mkdir(dir, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return fs.SyncDir(parent)
}

// syncNames makes durable what a killed process may have left as names in the page cache only. From now on they count: journal
// files that a checkpoint covers are about to be reused, and without this a power cut could bring back the checkpoint before it.
func (s *Store) syncNames() error {
	for _, dir := range []string{s.cfg.Dir, s.journalDir(), s.checkpointDir(), s.queuesDir()} {
		if err := s.cfg.FS.SyncDir(dir); err != nil {
			return fmt.Errorf("sync directory %s: %w", dir, err)
		}
	}
	parent := filepath.Dir(s.cfg.Dir)
	if err := s.cfg.FS.SyncDir(parent); err != nil && !errors.Is(err, os.ErrPermission) { // a mount's parent may be closed to us
		return fmt.Errorf("sync parent of the data directory: %w", err)
	}
	return nil
}

func (s *Store) journalDir() string    { return filepath.Join(s.cfg.Dir, "journal") }
func (s *Store) checkpointDir() string { return filepath.Join(s.cfg.Dir, "checkpoints") }
func (s *Store) queuesDir() string     { return filepath.Join(s.cfg.Dir, "queues") }

// identify reads the file STORE, or makes it in a directory that has nothing of Quail yet.
//
//	offset  size  field
//	     0     8  magic "QUAILDIR"
//	     8     4  version (1)
//	    12    16  identity, random
//	    28     4  CRC32C of bytes 0 to 27
func (s *Store) identify() (isNew bool, err error) {
	path := filepath.Join(s.cfg.Dir, "STORE")
	data, err := readAll(s.cfg.FS, path)
	if errors.Is(err, os.ErrNotExist) {
		return true, s.newIdentity(path)
	}
	if err != nil {
		return false, err
	}
	if len(data) != storeFileBytes || [8]byte(data[:8]) != storeMagic ||
		binary.LittleEndian.Uint32(data[28:]) != crc32.Checksum(data[:28], castagnoli) {
		return false, &CorruptError{File: path, Reason: "this is no undamaged identity of a Quail store"}
	}
	if v := binary.LittleEndian.Uint32(data[8:]); v != storeVersion {
		return false, fmt.Errorf("%s has version %d, this version of Quail reads %d", path, v, storeVersion)
	}
	s.id = storeID(data[12:28])
	return false, nil
}

func (s *Store) newIdentity(path string) error {
	for _, dir := range []string{s.journalDir(), s.checkpointDir(), s.queuesDir()} {
		entries, err := s.cfg.FS.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("read data directory: %w", err)
		}
		if len(entries) > 0 {
			return &CorruptError{File: path, Reason: "the store's identity is missing, but its data is there"}
		}
	}
	s.id = newStoreID()
	return writeIdentity(s.cfg.FS, path, s.id)
}

func newStoreID() (id storeID) {
	rand.Read(id[:])
	return id
}

func writeIdentity(fs vfs.FS, path string, id storeID) error {
	data := make([]byte, storeFileBytes)
	copy(data, storeMagic[:])
	binary.LittleEndian.PutUint32(data[8:], storeVersion)
	copy(data[12:], id[:])
	binary.LittleEndian.PutUint32(data[28:], crc32.Checksum(data[:28], castagnoli))
	if err := writeFileDurably(fs, path, data); err != nil {
		return fmt.Errorf("write identity of the store: %w", err)
	}
	return nil
}

// recover loads the checkpoint and replays the journal.
func (s *Store) recover(r Replayer, rec *Recovery, resumeAfter uint64) error {
	s.points = checkpoints{fs: s.cfg.FS, dir: s.checkpointDir(), id: s.id}
	states, err := s.points.load(false)
	if err != nil {
		return err
	}
	for _, incarnation := range slices.Sorted(maps.Keys(states)) { // in order, so that a simulated start is the same each time
		c := states[incarnation]
		q := s.newLog(c)
		s.logs[c.incarnation] = q
		if c.logLast < c.lsn {
			q.asideFirst = c.logLast + 1
			if err := s.loadAside(q, c.lsn); err != nil {
				return err
			}
		}
		if err := r.Load(q, c.lsn, c.state); err != nil {
			return fmt.Errorf("load checkpointed state of incarnation %d: %w", c.incarnation, err)
		}
	}
	scan := &journalScan{fs: s.cfg.FS, dir: s.journalDir(), damagedDir: filepath.Join(s.cfg.Dir, "damaged"), id: s.id,
		firstNeeded: s.points.last.firstNeeded, needed: s.points.last.sequence}
	if s.points.last.number == 0 {
		scan.logs = s.queuesDir()
	}
	if s.begun, err = openBegun(s.cfg.FS, s.journalDir(), s.id, scan.isUsed); err != nil {
		return err
	}
	scan.needed = max(scan.needed, s.begun.least)
	if resumeAfter > 0 {
		if err := scan.barrier(resumeAfter, s.cfg.JournalFileBytes, s.begun, s.space); err != nil {
			return err
		}
	}
	reserved := s.points.last.idsReserved
	scan.visit = func(g *group, file string, offset int64) error {
		rec.Groups++
		rec.Bytes += int64(g.bytes)
		err := s.replayGroup(g, place{file, offset + groupHeaderBytes}, r, rec, &reserved)
		var out *orderError
		if errors.As(err, &out) {
			return &CorruptError{File: file, Offset: offset, Reason: fmt.Sprintf("group %d: %v", g.number, err)}
		}
		return err
	}
	end, err := scan.run()
	if err != nil {
		return err
	}
	s.settleLeft()
	rec.Torn = end.torn
	if end.torn != nil && s.cfg.Events.TornTail != nil {
		s.cfg.Events.TornTail(*end.torn)
	}
	s.clock0, s.start = max(end.clockMillis, s.points.last.clockMillis), time.Now() // until now time counted for nobody
	if err := s.startJournal(&end); err != nil {
		return err
	}
	return s.startIDs(reserved)
}

// place is where in a file something begins.
type place struct {
	file   string
	offset int64
}

func (s *Store) replayGroup(g *group, at place, r Replayer, rec *Recovery, reserved *uint64) error {
	if n := len(s.leftFiles); n == 0 || s.leftFiles[n-1] != at.file {
		s.leftFiles = append(s.leftFiles, at.file)
	}
	file := uint32(len(s.leftFiles) - 1)
	next := at.offset
	err := g.each(func(raw []byte) error {
		offset := next
		next += int64(len(raw))
		view := record.View(raw)
		if view.Incarnation == 0 {
			*reserved = max(*reserved, view.LSN)
			return nil
		}
		q := s.logs[view.Incarnation]
		if q == nil {
			if view.LSN != 1 && view.Incarnation >= s.points.last.idsReserved {
				return &CorruptError{File: s.journalDir(), Reason: fmt.Sprintf("group %d: record %d of incarnation %d, whose first record is not there",
					g.number, view.LSN, view.Incarnation)}
			}
			if view.LSN != 1 {
				return nil // of a queue that the checkpoint knows to be deleted
			}
			q = s.NewLog(view.Incarnation, "")
		}
		if view.LSN <= q.last {
			return nil // the checkpoint covers it
		}
		rec.Records++
		if err := q.restore(raw); err != nil {
			return err
		}
		q.noteLeft(view.LSN, file, offset, len(raw))
		return r.Replay(q, view)
	})
	if err == nil && s.pendingBytes.Load() > s.cfg.WriteBehindBytes/2 {
		s.leaveInJournal()
	}
	return err
}

// startJournal removes ring files of another size and starts the committer.
func (s *Store) startJournal(end *journalEnd) error {
	var spares []string
	spareMax := int(s.cfg.JournalBytes / s.cfg.JournalFileBytes)
	for _, path := range end.spares {
		info, err := s.cfg.FS.Stat(path)
		if err != nil {
			return fmt.Errorf("stat journal file: %w", err)
		}
		if info.Size() == s.cfg.JournalFileBytes && len(spares) < spareMax {
			spares = append(spares, path)
		} else if err := s.cfg.FS.Remove(path); err != nil {
			return fmt.Errorf("remove journal file: %w", err)
		}
	}
	end.spares = spares
	s.journal = newJournal(journalConfig{fs: s.cfg.FS, dir: s.journalDir(), id: s.id, fileBytes: s.cfg.JournalFileBytes,
		spareFilesMax: spareMax, clock: s.NowMillis, begun: s.begun, noSync: s.cfg.NoSync, stepped: s.cfg.Stepped,
		committed: s.groupCommitted, failed: s.journalFailed, space: s.space}, *end)
	return nil
}
