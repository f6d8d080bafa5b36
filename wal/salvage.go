package wal

// A new data directory that is written as a whole: what repair saves of a damaged one. It is a base checkpoint and the queues' logs, with a
// journal that was never used and an identity of its own, so that no file of the old directory can ever be taken for one of the new.
// It is written beside its name and renamed when all is synced: what stands under the name is whole.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"quail/wal/seglog"
	"quail/wal/vfs"
)

// ErrExists: the directory is there already, and nothing is written into one.
var ErrExists = errors.New("it exists already; name a directory that does not")

// partialSuffix marks a directory that is being written.
const partialSuffix = ".partial"

// newDir is a data directory that is being written.
type newDir struct {
	fs          vfs.FS
	final, path string
	id          storeID
	states      []checkpointState
}

// beginDir makes final.partial. One that a crash left is removed first.
func beginDir(fs vfs.FS, final string) (*newDir, error) {
	final = filepath.Clean(final)
	if _, err := fs.Stat(final); err == nil {
		return nil, fmt.Errorf("%s: %w", final, ErrExists)
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	d := &newDir{fs: fs, final: final, path: final + partialSuffix}
	if err := fs.RemoveAll(d.path); err != nil {
		return nil, err
	}
	for _, dir := range []string{d.path, d.folder("journal"), d.folder("checkpoints"), d.folder("queues")} {
		if err := fs.Mkdir(dir, 0o750); err != nil {
			fs.RemoveAll(d.path)
			return nil, err
		}
	}
	return d, nil
}

func (d *newDir) folder(name string) string { return filepath.Join(d.path, name) }

// abandon removes what was written.
func (d *newDir) abandon() { d.fs.RemoveAll(d.path) }

// finish writes the checkpoint and gives the directory its name, durably.
func (d *newDir) finish(h checkpointHeader) error {
	h.base = true
	h.number = max(h.number, 1)
	if err := writeIdentity(d.fs, filepath.Join(d.path, "STORE"), d.id); err != nil {
		return err
	}
	data := encodeCheckpoint(h, d.id, d.states)
	if err := writeFileDurably(d.fs, filepath.Join(d.folder("checkpoints"), checkpointName(h.number, true)), data); err != nil {
		return err
	}
	for _, dir := range []string{d.folder("journal"), d.folder("queues"), d.path} {
		if err := d.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	if err := d.fs.Rename(d.path, d.final); err != nil {
		return err
	}
	return d.fs.SyncDir(filepath.Dir(d.final))
}

// Salvaged is a data directory that takes what is saved of a stopped one.
type Salvaged struct {
	dir *newDir
	h   checkpointHeader
	// segmentBytes is the size of a full segment.
	segmentBytes int
}

// Salvage begins a new data directory, which must not exist. Finish or Abandon ends it. Errors: ErrExists; those of the file system.
func (s *Stopped) Salvage(dir string, segmentBytes int) (*Salvaged, error) {
	d, err := beginDir(s.fs, dir)
	if err != nil {
		return nil, err
	}
	d.id = newStoreID()
	// Ids that a lost record reserved may have been used. Blocks that lie further ahead cannot: the next one is reserved when half of one is
	// left.
	h := checkpointHeader{firstNeeded: 1, idsReserved: max(s.ids, 1), clockMillis: s.clock}
	if len(s.Damage) > 0 {
		h.idsReserved += idsSkipped
	}
	return &Salvaged{dir: d, h: h, segmentBytes: segmentBytes}, nil
}

// idsSkipped is how many server-wide ids are left out if records that may have reserved some are lost: a thousand blocks, more than a
// journal can hold of them in practice, and a millionth of all.
const idsSkipped = 1000 * idBlock

// UsedIDs says that all server-wide ids up to last may have been used.
func (n *Salvaged) UsedIDs(last uint64) { n.h.idsReserved = max(n.h.idsReserved, last+1) }

// SalvagedLog takes the records of one queue.
type SalvagedLog struct {
	n           *Salvaged
	incarnation uint64
	log         seglog.Log
	first, last uint64
	batch       [][]byte
	bytes       int
}

// NewLog begins the log of a queue whose first record will be first.
func (n *Salvaged) NewLog(incarnation, first uint64) (*SalvagedLog, error) {
	cfg := seglog.Config{FS: n.dir.fs, Dir: filepath.Join(n.dir.folder("queues"), fmt.Sprintf("%016x", incarnation)), Incarnation: incarnation, SegmentBytes: n.segmentBytes}
	log, _, err := seglog.Open(cfg, first, first-1)
	if err != nil {
		return nil, err
	}
	return &SalvagedLog{n: n, incarnation: incarnation, log: log, first: first, last: first - 1}, nil
}

// Append takes the next record; raw must stay as it is until Finish.
func (l *SalvagedLog) Append(raw []byte) error {
	l.batch = append(l.batch, raw)
	l.last++
	if l.bytes += len(raw); l.bytes >= salvageBytes {
		return l.flush()
	}
	return nil
}

// salvageBytes is how much is appended at once.
const salvageBytes = 1 << 20

func (l *SalvagedLog) flush() error {
	err := l.log.Append(l.batch)
	l.batch, l.bytes = l.batch[:0], 0
	return err
}

// Finish syncs the log and takes over the queue's state, which is after the last record.
func (l *SalvagedLog) Finish(state []byte) error {
	if err := l.flush(); err != nil {
		l.log.Close()
		return err
	}
	if err := l.log.Sync(); err != nil {
		l.log.Close()
		return err
	}
	l.n.dir.states = append(l.n.dir.states, checkpointState{incarnation: l.incarnation, lsn: l.last, first: l.first, logLast: l.last, state: state})
	return l.log.Close()
}

// Finish makes the directory whole and durable.
func (n *Salvaged) Finish() error { return n.dir.finish(n.h) }

// Abandon removes what was written.
func (n *Salvaged) Abandon() { n.dir.abandon() }

// Abandon gives the log up.
func (l *SalvagedLog) Abandon() { l.log.Close() }
