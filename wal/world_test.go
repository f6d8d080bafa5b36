package wal

// The world that the store's tests live in: a set of small queues that commit, snapshot and replay as package queue does,
// and a memory of everything that was ever committed and of what was acknowledged. After each restart verify compares.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"quail/wal/record"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

const (
	kindPut    record.Kind = 1 // a body
	kindCut    record.Kind = 2 // meta: the first LSN that is still needed
	kindDelete record.Kind = 3
	kindDrop   record.Kind = 4 // meta: LSNs that nobody needs any more
)

// world outlives stores. It is safe for concurrent use.
type world struct {
	mu      sync.Mutex
	queues  map[uint64]*life
	idMax   uint64
	deleted map[uint64]bool     // their deletion was acknowledged or found
	lost    map[uint64][]uint64 // LSNs whose group a test destroyed
}

// life is one incarnation of a queue: what was committed, and the state as package queue would keep it.
type life struct {
	mu      sync.Mutex // the lock under which the queue commits
	log     *QueueLog
	lsn     uint64
	first   uint64
	sum     uint32 // over all records
	last    *Future
	dead    bool // a deletion was committed
	loaded  bool // seen by the recovery that is going on
	deadSum bool // deletion was replayed

	records [][]byte        // by LSN, from 1
	dropped map[uint64]bool // what they say
	sums    []uint32
	commits []testCommit
	found   uint64 // LSN that the last recovery had found: all up to it stays
}

type testCommit struct {
	first, last uint64
	future      *Future
	deletes     bool
}

func newWorld() *world {
	return &world{queues: map[uint64]*life{}, deleted: map[uint64]bool{}, lost: map[uint64][]uint64{}}
}

func testConfig(fs vfs.FS, dir string) Config {
	return Config{FS: fs, Dir: dir, JournalFileBytes: 64 << 10, JournalBytes: 256 << 10, CheckpointBytes: 100 << 10,
		WriteBehindBytes: 256 << 10, SegmentBytes: 16 << 10, OpenLogs: 3, OpenLog: seglog.OpenSim}
}

// Snapshot implements Source.
func (w *world) Snapshot(incarnation uint64) (Snapshot, bool) {
	w.mu.Lock()
	q := w.queues[incarnation]
	w.mu.Unlock()
	if q == nil {
		return Snapshot{}, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.dead {
		return Snapshot{After: q.last}, false
	}
	state := binary.LittleEndian.AppendUint64(nil, q.lsn)
	state = binary.LittleEndian.AppendUint64(state, q.first)
	state = binary.LittleEndian.AppendUint32(state, q.sum)
	return Snapshot{LSN: q.lsn, First: q.first, State: state, After: q.last}, true
}

// Live implements Source: the world walks over nothing, so its cursor is always at the end.
func (w *world) Live(incarnation uint64) (Live, bool) {
	w.mu.Lock()
	q := w.queues[incarnation]
	w.mu.Unlock()
	if q == nil {
		return Live{}, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l := Live{Cursor: q.lsn, After: q.last}
	for lsn := q.first; lsn <= q.lsn; lsn++ {
		if !q.dropped[lsn] {
			body := len(record.View(q.records[lsn-1]).Body)
			l.Messages = append(l.Messages, LiveMessage{LSN: lsn, BodyBytes: uint32(body)})
			l.BodyBytes += int64(body)
			l.Count++
		}
	}
	return l, !q.dead
}

// Load implements Replayer.
func (w *world) Load(log *QueueLog, lsn uint64, state []byte) error {
	q := w.queues[log.Incarnation()]
	if q == nil {
		return fmt.Errorf("incarnation %d was never made", log.Incarnation())
	}
	if len(state) != 20 || binary.LittleEndian.Uint64(state) != lsn {
		return fmt.Errorf("incarnation %d: state %x is not one after record %d", log.Incarnation(), state, lsn)
	}
	q.log, q.lsn, q.loaded = log, lsn, true
	q.first = binary.LittleEndian.Uint64(state[8:])
	q.sum = binary.LittleEndian.Uint32(state[16:])
	return nil
}

// Replay implements Replayer.
func (w *world) Replay(log *QueueLog, r record.Record) error {
	q := w.queues[log.Incarnation()]
	if q == nil {
		return fmt.Errorf("incarnation %d was never made", log.Incarnation())
	}
	if !q.loaded {
		q.log, q.lsn, q.first, q.sum, q.loaded = log, 0, 1, 0, true
	}
	if r.LSN != q.lsn+1 {
		return fmt.Errorf("incarnation %d: record %d replayed after %d", log.Incarnation(), r.LSN, q.lsn)
	}
	q.apply(&r)
	if r.Kind == kindDelete {
		q.deadSum = true
		log.Delete()
	}
	return nil
}

func (q *life) apply(r *record.Record) []byte {
	raw := record.Append(nil, r)
	q.lsn = r.LSN
	q.sum = crc32.Update(q.sum, castagnoli, raw)
	if r.Kind == kindCut {
		q.first = binary.LittleEndian.Uint64(r.Meta)
	}
	return raw
}

// openOne opens a store in which one queue is made. The caller abandons it.
func (w *world) openOne(t testing.TB, cfg Config) (*Store, *life) {
	t.Helper()
	s, _, err := w.open(cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	q, err := w.create(s)
	if err != nil {
		s.Abandon()
		t.Fatal(err)
	}
	return s, q
}

// create makes a queue with one record.
func (w *world) create(s *Store) (*life, error) {
	id, err := w.nextID(s)
	if err != nil {
		return nil, err
	}
	q := &life{first: 1}
	q.mu.Lock()
	defer q.mu.Unlock()
	w.mu.Lock()
	q.log = s.NewLog(id, fmt.Sprint("q", id))
	w.queues[id] = q
	w.mu.Unlock()
	q.commitLocked(s, record.Record{Kind: kindPut, Body: []byte("first")})
	return q, nil
}

func (w *world) nextID(s *Store) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id, err := s.NextID()
	if err != nil {
		return 0, err
	}
	if id <= w.idMax {
		return 0, fmt.Errorf("%w: id %d was given out, %d before", errWrong, id, w.idMax)
	}
	w.idMax = id
	return id, nil
}

func (q *life) commit(s *Store, recs ...record.Record) *Future {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.commitLocked(s, recs...)
}

func (q *life) commitLocked(s *Store, recs ...record.Record) *Future {
	if q.dead {
		return nil
	}
	c := testCommit{first: q.lsn + 1}
	for i := range recs {
		recs[i].LSN, recs[i].Incarnation = q.lsn+1, q.log.Incarnation()
		q.records = append(q.records, q.apply(&recs[i]))
		q.note(&recs[i])
		q.sums = append(q.sums, q.sum)
		c.deletes = c.deletes || recs[i].Kind == kindDelete
	}
	q.dead = c.deletes
	c.last, c.future = q.lsn, s.Commit(q.log, recs)
	q.last = c.future
	q.commits = append(q.commits, c)
	return c.future
}

// errWrong marks what must never happen.
var errWrong = errors.New("broken promise")

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errWrong, fmt.Sprintf(format, args...))
}

// open opens the store and compares all that it finds with what was promised; then it takes what was found for the truth.
func (w *world) open(cfg Config, resumeAfter uint64) (*Store, Recovery, error) {
	for _, q := range w.queues {
		q.loaded, q.deadSum = false, false
	}
	s, rec, err := Open(cfg, w, w, resumeAfter)
	if err != nil {
		return nil, rec, err
	}
	if err := w.verify(); err != nil {
		s.Abandon()
		return nil, rec, err
	}
	return s, rec, nil
}

// verify compares every queue with what was promised. What was not acknowledged may be there or not, but as whole groups.
func (w *world) verify() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	there, missing := map[*Future]string{}, map[*Future]string{}
	ids := make([]uint64, 0, len(w.queues))
	for id := range w.queues {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		q := w.queues[id]
		if w.deleted[id] {
			if q.loaded && !q.deadSum {
				return wrong("queue %d is back, its deletion was acknowledged", id)
			}
			continue
		}
		if err := w.verifyLife(id, q, there, missing); err != nil {
			return fmt.Errorf("queue %d: %w", id, err)
		}
	}
	for f, what := range there {
		if other, ok := missing[f]; ok && f != nil {
			return wrong("a group is there by half: %s is there, %s is not", what, other)
		}
	}
	return nil
}

func (w *world) verifyLife(id uint64, q *life, there, missing map[*Future]string) error {
	q.mu.Lock() // a checkpoint may be taking its snapshot
	defer q.mu.Unlock()
	found := uint64(0)
	if q.loaded {
		found = q.lsn
	} else if q.found > 0 || len(q.commits) > 0 && acknowledged(q.commits[0]) {
		// Gone is right only if a deletion was committed: then a checkpoint may have forgotten the queue.
		if n := len(q.commits); n == 0 || !q.commits[n-1].deletes {
			return wrong("it is gone, %d records were acknowledged before", max(q.found, 1))
		}
		w.deleted[id] = true
		return nil
	}
	if found < q.found {
		return wrong("it ends at record %d, an earlier start had found %d", found, q.found)
	}
	boundary := found == q.found
	for _, c := range q.commits {
		what := fmt.Sprintf("queue %d, records %d to %d", id, c.first, c.last)
		boundary = boundary || c.last == found
		if c.last <= found {
			there[c.future] = what
			continue
		}
		missing[c.future] = what
		if acknowledged(c) {
			return wrong("it ends at record %d, %d was acknowledged", found, c.last)
		}
	}
	if !boundary {
		return wrong("it ends at record %d, inside a commit", found)
	}
	if found > uint64(len(q.records)) {
		return wrong("it ends at record %d, %d were committed", found, len(q.records))
	}
	if found > 0 && q.sum != q.sums[found-1] {
		return wrong("its state is not the one after record %d", found)
	}
	q.records, q.sums, q.commits, q.found = q.records[:found], q.sums[:found], nil, found
	q.dropped = nil
	for _, raw := range q.records {
		r := record.View(raw)
		q.note(&r)
	}
	q.dead, q.last = q.deadSum, nil
	if q.deadSum {
		w.deleted[id] = true
		return nil
	}
	if found == 0 {
		delete(w.queues, id)
		return nil
	}
	return q.compare()
}

func acknowledged(c testCommit) bool {
	return c.future != nil && c.future.Done() && c.future.Err() == nil
}

// note remembers what a record says is not needed any more.
func (q *life) note(r *record.Record) {
	if r.Kind != kindDrop {
		return
	}
	if q.dropped == nil {
		q.dropped = map[uint64]bool{}
	}
	for meta := r.Meta; len(meta) > 0; meta = meta[8:] {
		q.dropped[binary.LittleEndian.Uint64(meta)] = true
	}
}

// drop says of most records that they are not needed any more.
func (q *life) drop(s *Store, dice *rand.Rand) *Future {
	q.mu.Lock()
	defer q.mu.Unlock()
	var meta []byte
	for lsn := q.first; lsn <= q.lsn && len(meta) < 16<<10; lsn++ {
		if !q.dropped[lsn] && dice.IntN(5) > 0 {
			meta = binary.LittleEndian.AppendUint64(meta, lsn)
		}
	}
	return q.commitLocked(s, record.Record{Kind: kindDrop, Meta: meta})
}

// compare reads every record that is still needed and compares it with what was committed.
func (q *life) compare() error {
	for at := q.first; at <= q.lsn; {
		if q.dropped[at] {
			at++
			continue
		}
		raws, err := q.read(at)
		if err != nil {
			return err
		}
		if len(raws) == 0 {
			return wrong("record %d is neither in memory nor in the log", at)
		}
		for _, raw := range raws {
			if at > q.lsn {
				return wrong("record %d was never committed", at)
			}
			if !bytes.Equal(raw, q.records[at-1]) {
				return wrong("record %d is not what was committed", at)
			}
			at++
		}
	}
	return nil
}

// read is how a consumer reads: from memory, or else from the log; in between the record may have moved.
func (q *life) read(at uint64) ([][]byte, error) {
	for range 3 {
		if raws := q.log.Memory(at); len(raws) > 0 {
			return raws, nil
		}
		raws, err := q.log.Read(at, 8<<10, nil)
		if err != nil || len(raws) > 0 {
			return raws, err
		}
	}
	return nil, nil
}

// alive lists the queues that can be committed to.
func (w *world) alive() []*life {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []*life
	ids := make([]uint64, 0, len(w.queues))
	for id := range w.queues {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if !w.deleted[id] && !w.queues[id].dead {
			list = append(list, w.queues[id])
		}
	}
	return list
}

func randomBody(dice *rand.Rand, sizeMax int) []byte {
	body := make([]byte, dice.IntN(sizeMax))
	for i := range body {
		body[i] = byte(dice.Uint32())
	}
	return body
}
