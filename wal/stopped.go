package wal

// A data directory that no server has open, read without changing one byte of it: for looking into it, for checking it, and for saving
// what is left of a damaged one (salvage.go). Where Open stops at the first damage, this notes it and goes on with what is whole.
//
//	stopped.go        lock, identity, checkpoints; what is damaged
//	stoppedjournal.go the journal, and where each queue's records are in it
//	stoppedlog.go     the records of one queue, from wherever they are
//	salvage.go        writing a new data directory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"quail/wal/record"
	"quail/wal/vfs"
)

// ErrNoStore: the directory is no data directory of Quail.
var ErrNoStore = errors.New("this is no data directory of Quail")

// Damage is something that no crash explains, and what it means.
type Damage struct {
	File   string
	Offset int64
	// Incarnation is the queue that it concerns; 0: all of them, or nobody knows which.
	Incarnation uint64
	// From and To are that queue's records that cannot be read there, both included; To is 0 if that is not known.
	From, To uint64
	Reason   string
	Means    string
	// Unknown: no list has what only this held, and nobody can tell whether there was anything.
	Unknown bool
}

// What damage means to whoever has to decide.
const (
	meansNoStart = "the server does not start on this directory"
	meansStopped = "the server starts, and this queue stops when its log is used; the others work"
)

// StoppedQueue is one queue of a stopped data directory.
type StoppedQueue struct {
	Incarnation uint64
	// LSN is the record that State is after; State is nil if no checkpoint has the queue.
	LSN   uint64
	State []byte
	// Its own log must hold the records from First to LogLast. Later ones are in the journal, or set aside.
	First, LogLast uint64

	later map[uint64]recordPlace // records above LogLast
	known bool                   // a checkpoint has it, or its first record is in the journal
}

// Stopped is a data directory that was read. It is for one goroutine.
type Stopped struct {
	// Queues are all queues that left a trace, by rising incarnation; those that are known to be deleted are not among them.
	Queues []*StoppedQueue
	// Damage is what was found so far. Reading the queues' records finds more.
	Damage []Damage
	// Torn is the end of the journal if a crash left it incomplete, or nil: that was never acknowledged, and is no damage.
	Torn *TornTail

	fs    vfs.FS
	dir   string
	lock  vfs.File
	id    storeID
	last  checkpointHeader
	index map[uint64]*StoppedQueue
	gone  map[uint64]bool
	// guess: the checkpoints or the journal are damaged, so what stands behind the checkpoint in a log may be all there is.
	guess bool
	// pointNeeds is the first group that any damaged checkpoint needed: the ones before it were covered.
	pointNeeds uint64
	clock      int64
	ids        uint64
	files      []string // where recordPlaces point to
	handles    map[int32]vfs.File
	// covered is what older found; nil before it was asked.
	covered map[uint64]map[uint64]recordPlace
	cache   struct {
		path string
		data []byte
	}
}

// OpenStopped reads identity, checkpoints and journal of a data directory. No server can open it until Close.
// Errors: ErrLocked if one has; ErrNoStore; those of the file system. Damage is no error.
func OpenStopped(fs vfs.FS, dir string) (*Stopped, error) {
	s := &Stopped{fs: fs, dir: dir, index: map[uint64]*StoppedQueue{}, gone: map[uint64]bool{}, handles: map[int32]vfs.File{}}
	if err := s.takeLock(); err != nil {
		return nil, err
	}
	err := s.identify()
	if err == nil {
		err = s.readCheckpoints()
	}
	if err == nil {
		err = s.readJournal()
	}
	if err == nil {
		err = s.findOrphans()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	for _, q := range s.index {
		s.Queues = append(s.Queues, q)
		s.ids = max(s.ids, q.Incarnation+1)
	}
	slices.SortFunc(s.Queues, func(a, b *StoppedQueue) int { return int(int64(a.Incarnation - b.Incarnation)) })
	return s, nil
}

// Close gives the directory back.
func (s *Stopped) Close() {
	for _, f := range s.handles {
		f.Close()
	}
	if s.lock != nil {
		s.lock.Close()
	}
}

// takeLock asks for the lock on a descriptor that cannot write. A copied directory may have no LOCK; nobody has that open.
func (s *Stopped) takeLock() error {
	f, err := s.fs.Open(filepath.Join(s.dir, "LOCK"))
	if errors.Is(err, os.ErrNotExist) {
		if _, err = s.fs.ReadDir(s.dir); err != nil {
			return err
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("open lock file: %w", err)
	}
	if err := f.Lock(); err != nil {
		f.Close()
		if errors.Is(err, vfs.ErrLocked) {
			err = ErrLocked
		}
		return fmt.Errorf("lock %s: %w", s.dir, err)
	}
	s.lock = f
	return nil
}

func (s *Stopped) damaged(d Damage) {
	if len(s.Damage) < damageMax {
		s.Damage = append(s.Damage, d)
	}
}

// damageMax bounds what is remembered of a directory that is beyond help.
const damageMax = 10_000

func (s *Stopped) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// identify reads STORE. If it is damaged, the identity stands in the headers of all other files too.
func (s *Stopped) identify() error {
	path := s.path("STORE")
	data, err := readAll(s.fs, path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err == nil && len(data) == storeFileBytes && [8]byte(data[:8]) == storeMagic &&
		binary.LittleEndian.Uint32(data[28:]) == crc32.Checksum(data[:28], castagnoli) {
		if v := binary.LittleEndian.Uint32(data[8:]); v != storeVersion {
			return fmt.Errorf("%s has version %d, this version of Quail reads %d", path, v, storeVersion)
		}
		s.id = storeID(data[12:28])
		return nil
	}
	id, found, findErr := s.findIdentity()
	if findErr != nil {
		return findErr
	}
	if !found {
		return fmt.Errorf("%s: %w", s.dir, ErrNoStore)
	}
	s.id = id
	reason := "this is no undamaged identity of a Quail store"
	if err != nil {
		reason = "the store's identity is missing, but its data is there"
	}
	s.damaged(Damage{File: path, Reason: reason, Means: meansNoStart})
	return nil
}

func (s *Stopped) findIdentity() (id storeID, found bool, err error) {
	for _, folder := range []string{"checkpoints", "journal"} {
		names, err := s.names(folder)
		if err != nil {
			return id, false, err
		}
		for _, name := range names {
			head, err := s.head(s.path(folder, name))
			if err != nil {
				return id, false, err
			}
			if len(head) < 32 {
				continue
			}
			id = storeID(head[16:32])
			if folder == "journal" && len(head) == blockBytes {
				_, err = parseFileHeader(head, id)
			} else {
				_, err = parseCheckpointHeader(head, id)
			}
			if err == nil {
				return id, true, nil
			}
		}
	}
	return id, false, nil
}

func (s *Stopped) head(path string) ([]byte, error) {
	f, err := s.fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, blockBytes)
	n, _ := f.ReadAt(head, 0) // a file that cannot be read is found later, and named
	return head[:n], nil
}

// names lists a folder; a missing one is empty.
func (s *Stopped) names(folder string) ([]string, error) {
	entries, err := s.fs.ReadDir(s.path(folder))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read data directory: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

func (s *Stopped) queue(incarnation uint64) *StoppedQueue {
	q := s.index[incarnation]
	if q == nil {
		q = &StoppedQueue{Incarnation: incarnation, First: 1, later: map[uint64]recordPlace{}}
		s.index[incarnation] = q
	}
	return q
}

// readCheckpoints loads the states as a start does; if that finds damage, every state that is whole, the newest of each queue.
func (s *Stopped) readCheckpoints() error {
	points := checkpoints{fs: s.fs, dir: s.path("checkpoints"), id: s.id}
	states, err := points.load(true)
	var corrupt *CorruptError
	switch {
	case errors.Is(err, os.ErrNotExist):
		s.damaged(Damage{File: points.dir, Reason: "the directory of checkpoints is missing", Means: meansNoStart})
		points.last.firstNeeded, s.guess = 1, true
	case errors.As(err, &corrupt):
		s.guess = true
		if states, err = s.wholeStates(&points); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	s.last = points.last
	s.clock, s.ids = s.last.clockMillis, s.last.idsReserved
	for _, c := range states {
		if c.gone {
			s.gone[c.incarnation] = true
			continue
		}
		q := s.queue(c.incarnation)
		q.LSN, q.State, q.First, q.LogLast, q.known = c.lsn, c.state, c.first, c.logLast, true
		if c.logLast < c.lsn {
			if err := s.readAside(q); err != nil {
				return err
			}
		}
	}
	return nil
}

// wholeStates reads what is left of damaged checkpoints. Which journal groups are needed is not known then: all are.
func (s *Stopped) wholeStates(points *checkpoints) (map[uint64]checkpointState, error) {
	files, err := points.list(true)
	if err != nil {
		return nil, err
	}
	states := map[uint64]checkpointState{}
	points.last = checkpointHeader{}
	for i, f := range files {
		data, err := readAll(s.fs, f.path)
		if err != nil {
			return nil, err
		}
		if i > 0 && f.number != files[i-1].number+1 {
			s.damaged(Damage{File: filepath.Join(points.dir, checkpointName(files[i-1].number+1, false)), Reason: "the checkpoint is missing", Means: meansNoStart})
		}
		h, _, err := decodeCheckpoint(f.path, data, s.id)
		var corrupt *CorruptError
		if errors.As(err, &corrupt) {
			s.damaged(Damage{File: f.path, Offset: corrupt.Offset, Reason: corrupt.Reason, Means: meansNoStart})
		} else if err != nil {
			return nil, err
		}
		points.last.idsReserved = max(points.last.idsReserved, h.idsReserved)
		points.last.clockMillis = max(points.last.clockMillis, h.clockMillis)
		s.pointNeeds = max(s.pointNeeds, h.firstNeeded)
		eachWhole(data, func(r record.Record) {
			if r.Kind != checkpointQueue && r.Kind != checkpointGone || len(r.Meta) != 16 || r.Incarnation == 0 {
				return
			}
			if old, there := states[r.Incarnation]; there && old.lsn > r.LSN && r.Kind == checkpointQueue {
				return
			}
			states[r.Incarnation] = checkpointState{incarnation: r.Incarnation, lsn: r.LSN, state: r.Body,
				first: binary.LittleEndian.Uint64(r.Meta), logLast: binary.LittleEndian.Uint64(r.Meta[8:]), gone: r.Kind == checkpointGone}
		})
	}
	if len(files) == 0 || !files[0].base {
		s.damaged(Damage{File: points.dir, Reason: "the base checkpoint is missing", Means: meansNoStart})
	}
	points.last.firstNeeded = 1
	return states, nil
}

// eachWhole visits the undamaged records of a checkpoint, whatever is between them.
func eachWhole(data []byte, visit func(record.Record)) {
	for pos := 0; pos < len(data); {
		at := bytes.IndexByte(data[pos:], record.Magic)
		if at < 0 {
			return
		}
		pos += at
		r, n, err := record.Decode(data[pos:])
		if err != nil {
			pos++
			continue
		}
		visit(r)
		pos += n
	}
}

// readAside notes where the records are that were set aside for a queue whose log failed.
func (s *Stopped) readAside(q *StoppedQueue) error {
	path := s.path("checkpoints", fmt.Sprintf("%016x.aside", q.Incarnation))
	next := q.LogLast + 1
	missing := func(offset int64, reason string) {
		s.damaged(Damage{File: path, Offset: offset, Incarnation: q.Incarnation, From: next, To: q.LSN, Reason: reason, Means: meansNoStart})
	}
	data, err := readAll(s.fs, path)
	if errors.Is(err, os.ErrNotExist) {
		missing(0, "the file is missing")
		return nil
	}
	if err != nil {
		return err
	}
	file := s.fileIndex(path)
	for pos := 0; pos < len(data); {
		r, n, err := record.Decode(data[pos:])
		if err != nil {
			missing(int64(pos), err.Error())
			return nil
		}
		if r.Incarnation == q.Incarnation && r.LSN == next {
			q.later[r.LSN] = recordPlace{file: file, offset: int64(pos), group: 0}
			next++
		}
		pos += n
	}
	if next <= q.LSN {
		missing(int64(len(data)), "the file ends here")
	}
	return nil
}

// findOrphans looks for logs of queues that nothing else tells of. Beside whole checkpoints and a whole journal such a directory is what
// an interrupted deletion left; otherwise it may be the only thing left of a queue.
func (s *Stopped) findOrphans() error {
	names, err := s.names("queues")
	if err != nil {
		return err
	}
	for _, name := range names {
		incarnation, err := strconv.ParseUint(name, 16, 64)
		if err != nil || len(name) != 16 || s.index[incarnation] != nil || s.gone[incarnation] || !s.guess {
			continue
		}
		s.queue(incarnation)
	}
	for incarnation := range s.gone {
		delete(s.index, incarnation)
	}
	return nil
}

// LogDir is where the queue's own log is.
func (s *Stopped) LogDir(q *StoppedQueue) string {
	return s.path("queues", fmt.Sprintf("%016x", q.Incarnation))
}

func (s *Stopped) fileIndex(path string) int32 {
	for i := len(s.files) - 1; i >= 0; i-- {
		if s.files[i] == path {
			return int32(i)
		}
	}
	s.files = append(s.files, path)
	return int32(len(s.files) - 1)
}
