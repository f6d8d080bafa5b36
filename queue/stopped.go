package queue

// The queues of a data directory that no server has open: their states and messages, read without changing one byte. Where a server would
// stop at damage, this goes on with what is whole, and says what is not.

import (
	"errors"
	"fmt"
	"slices"

	"quail/queue/machine"
	"quail/wal"
	"quail/wal/record"
	"quail/wal/vfs"
)

// lostIDsMax bounds how many lost messages a report names.
const lostIDsMax = 1000

// Stopped is a data directory that was read. It is for one goroutine.
type Stopped struct {
	// Queues are sorted by name.
	Queues []*StoppedQueue
	dir    *wal.Stopped
}

// StoppedQueue is one queue of a stopped data directory, at its last record.
type StoppedQueue struct {
	Name        string
	Incarnation uint64
	// Skipped is how many state changes could not be taken over because records before them are lost. Messages that they acknowledged
	// come again.
	Skipped int64

	m   *machine.Machine
	log *wal.StoppedQueue
	gap bool
}

// Inventory is what a walk over all records of a queue found.
type Inventory struct {
	machine.Counts
	// Records is how many the queue's log and the journal hold, Bytes their size.
	Records, Bytes int64
	// LostMessages is how many live messages cannot be read. LostIDs names those whose ids the state knows, up to a bound: ready ones
	// leave no trace but their number.
	LostMessages int64
	LostIDs      []uint64
	// Missing are the records that cannot be read, both ends included.
	Missing [][2]uint64

	readyBytes int64
	ready      int64
}

// OpenStopped reads a data directory. No server can open it until Close. What is damaged is no error; see Damage.
// Errors: wal.ErrLocked, wal.ErrNoStore, those of the file system.
func OpenStopped(fs vfs.FS, dir string) (*Stopped, error) {
	d, err := wal.OpenStopped(fs, dir)
	if err != nil {
		return nil, err
	}
	s := &Stopped{dir: d}
	for _, log := range d.Queues {
		q, err := s.recover(log)
		if err != nil {
			d.Close()
			return nil, err
		}
		if q != nil {
			s.Queues = append(s.Queues, q)
		}
	}
	s.nameApart()
	slices.SortFunc(s.Queues, func(a, b *StoppedQueue) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return s, nil
}

// Close gives the directory back.
func (s *Stopped) Close() { s.dir.Close() }

// Damage is what was found so far: opening reads checkpoints and journal, Inventory and Messages read the queues' logs.
func (s *Stopped) Damage() []wal.Damage { return s.dir.Damage }

// Torn is the end of the journal if a crash left it incomplete, or nil. That was never acknowledged, and is no damage.
func (s *Stopped) Torn() *wal.TornTail { return s.dir.Torn }

// recover rebuilds the state of one queue; nil if it was deleted, or left nothing.
func (s *Stopped) recover(log *wal.StoppedQueue) (*StoppedQueue, error) {
	q := &StoppedQueue{Incarnation: log.Incarnation, log: log, m: machine.New()}
	if log.State != nil {
		m, err := machine.Restore(log.State)
		if err == nil && m.LastLSN() != log.LSN {
			err = fmt.Errorf("the state is after record %d, the checkpoint says %d", m.LastLSN(), log.LSN)
		}
		if err != nil {
			s.damaged(q, log.LSN, err)
		} else {
			q.m = m
		}
	}
	err := s.dir.Records(log, q.m.LastLSN()+1, func(raw []byte, at wal.Place) error {
		q.missing(record.View(raw).LSN - 1)
		if err := q.apply(record.View(raw)); err != nil {
			s.dir.Damage = append(s.dir.Damage, wal.Damage{File: at.File, Offset: at.Offset, Incarnation: q.Incarnation,
				From: record.View(raw).LSN, To: record.View(raw).LSN, Reason: err.Error(), Means: "the server does not start on this directory"})
		}
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	if q.m.LastLSN() < log.LSN && q.m.LastLSN() > 0 {
		q.missing(log.LSN)
	}
	if q.m.LastLSN() == 0 || q.m.Deleted() {
		return nil, nil
	}
	q.Name = q.m.Name()
	return q, nil
}

func (s *Stopped) damaged(q *StoppedQueue, lsn uint64, err error) {
	s.dir.Damage = append(s.dir.Damage, wal.Damage{File: s.dir.LogDir(q.log), Incarnation: q.Incarnation, To: lsn,
		Reason: fmt.Sprintf("the checkpointed state cannot be used: %v", err), Means: "the server does not start on this directory"})
}

// missing passes over lost records up to lsn. A queue whose first record is among them has no name any more.
func (q *StoppedQueue) missing(lsn uint64) {
	if lsn <= q.m.LastLSN() {
		return
	}
	q.gap = true
	if q.m.LastLSN() == 0 {
		create := machine.CreateMeta(fmt.Sprintf("recovered-%x", q.Incarnation), machine.Options{}, 0)
		if err := q.m.Apply(1, create.Kind, create.Flags, create.Meta, 0); err != nil {
			panic(err) // it does not depend on any input
		}
	}
	q.m.Lost(lsn)
}

// apply takes one record over. Behind a gap only what does not rest on the records before: what else there is speaks of messages that may be
// gone, and at worst leaves out that one was acknowledged.
func (q *StoppedQueue) apply(r record.Record) error {
	kind := machine.Kind(r.Kind)
	if q.gap && !slices.Contains([]machine.Kind{machine.KindMessage, machine.KindConfig, machine.KindPause, machine.KindDelete}, kind) {
		q.Skipped++
		q.m.Lost(r.LSN)
		return nil
	}
	if err := q.m.Apply(r.LSN, kind, r.Flags, r.Meta, len(r.Body)); err != nil {
		q.missing(r.LSN)
		q.Skipped++
		return err
	}
	return nil
}

// nameApart gives queues of one name different ones: the deletion of all but the newest is lost.
func (s *Stopped) nameApart() {
	newest := map[string]uint64{}
	for _, q := range s.Queues {
		newest[q.Name] = max(newest[q.Name], q.Incarnation)
	}
	for _, q := range s.Queues {
		if newest[q.Name] == q.Incarnation {
			continue
		}
		s.dir.Damage = append(s.dir.Damage, wal.Damage{File: s.dir.LogDir(q.log), Incarnation: q.Incarnation,
			Reason: fmt.Sprintf("a newer queue has the same name %q", q.Name), Means: "the older one was deleted, and the record of that is lost"})
		q.Name = fmt.Sprintf("recovered-%x", q.Incarnation)
		q.m.Rename(q.Name)
	}
}

// Stored is a message as it was found. Body and headers are valid until the next one.
type Stored struct {
	ID      uint64
	Body    []byte
	State   machine.State
	Attempt uint32
	machine.Message
	wal.Place
}

// AllHeaders are the message's headers as a consumer gets them: with those that say where a dead letter came from.
func (m *Stored) AllHeaders() [][2][]byte { return headersOf(&m.Message) }

// Messages visits the live messages of a queue, lowest id first. Memory does not grow with the ready backlog.
// Errors: those of the file system, and of visit.
func (s *Stopped) Messages(q *StoppedQueue, visit func(m *Stored) error) error {
	_, err := s.walk(q, q.m.FirstNeeded(), visit, nil, nil)
	return err
}

// Inventory reads all records of a queue, and notes what is damaged.
func (s *Stopped) Inventory(q *StoppedQueue) (*Inventory, error) {
	return s.walk(q, q.log.First, nil, nil, nil)
}

// walk reads the records from one LSN on. each and missing, which may be nil, are told of every record that is there, and is not.
func (s *Stopped) walk(q *StoppedQueue, from uint64, visit func(*Stored) error, each func(raw []byte) error, missing func(from, to uint64) error) (*Inventory, error) {
	inv := &Inventory{Counts: q.m.Counts()}
	known := map[uint64]place{}
	q.m.Tracked(0, q.m.LastLSN(), func(id uint64, state machine.State, attempts uint32) { known[id] = place{state, attempts} })
	var failed error
	lack := func(from, to uint64) {
		inv.Missing = append(inv.Missing, [2]uint64{from, to})
		if missing != nil && failed == nil {
			failed = missing(from, to)
		}
	}
	err := s.dir.Records(q.log, from, func(raw []byte, at wal.Place) error {
		inv.Records++
		inv.Bytes += int64(len(raw))
		if failed == nil && each != nil {
			failed = each(raw)
		}
		if failed != nil || machine.Kind(raw[2]) != machine.KindMessage {
			return failed
		}
		return inv.message(q, known, raw, at, visit)
	}, lack)
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	for id := range known {
		if inv.LostMessages++; len(inv.LostIDs) < lostIDsMax {
			inv.LostIDs = append(inv.LostIDs, id)
		}
	}
	slices.Sort(inv.LostIDs)
	inv.LostMessages += max(0, inv.Ready-inv.ready)
	if ready := inv.Ready; !q.gap && inv.ready != ready && len(inv.Missing) == 0 {
		s.dir.Damage = append(s.dir.Damage, wal.Damage{File: s.dir.LogDir(q.log), Incarnation: q.Incarnation,
			Reason: fmt.Sprintf("the state says that %d messages are ready, the log has %d", ready, inv.ready), Means: "please report this: state and log never differ"})
	}
	return inv, nil
}

// message judges one message. Those that live are taken out of known.
func (inv *Inventory) message(q *StoppedQueue, known map[uint64]place, raw []byte, at wal.Place, visit func(*Stored) error) error {
	r := record.View(raw)
	p, ok := known[r.LSN]
	if !ok {
		if r.LSN <= q.m.Cursor() || q.m.Removed(r.LSN) || machine.IsDelayed(r.Flags, r.Meta) {
			return nil
		}
		p.state = machine.Ready
		inv.ready++
		inv.readyBytes += int64(len(r.Body))
	}
	delete(known, r.LSN)
	if visit == nil {
		return nil
	}
	message, err := machine.ParseMessage(r.Meta)
	if err != nil {
		return fmt.Errorf("message %d of queue %q, %s at offset %d: %w", r.LSN, q.Name, at.File, at.Offset, err)
	}
	return visit(&Stored{ID: r.LSN, Body: r.Body, State: p.state, Attempt: p.attempt, Message: message, Place: at})
}

// StoredRecord is a record as it was found.
type StoredRecord struct {
	LSN, Incarnation uint64
	Kind             machine.Kind
	Bytes            int
	wal.Place
}

// Records visits the records of a queue that can be read, from the first one that its log must keep.
func (s *Stopped) Records(q *StoppedQueue, visit func(StoredRecord) error) error {
	return s.dir.Records(q.log, q.log.First, func(raw []byte, at wal.Place) error {
		r := record.View(raw)
		return visit(StoredRecord{LSN: r.LSN, Incarnation: r.Incarnation, Kind: machine.Kind(r.Kind), Bytes: len(raw), Place: at})
	}, nil)
}

// Repair writes what can be read into a new data directory, which must not exist, and returns what each queue kept, in the order of
// s.Queues. The old directory stays as it is. Ids, states, leases and options stay; a lost record's place is taken by one that says
// nothing. Errors: wal.ErrExists, those of the file system.
func (s *Stopped) Repair(dir string, segmentBytes int) ([]*Inventory, error) {
	var list []*Inventory
	to, err := s.dir.Salvage(dir, segmentBytes)
	if err != nil {
		return nil, err
	}
	for _, q := range s.Queues {
		inv, err := s.save(q, to)
		if err != nil {
			to.Abandon()
			return nil, fmt.Errorf("save queue %q: %w", q.Name, err)
		}
		list = append(list, inv)
	}
	if err := to.Finish(); err != nil {
		to.Abandon()
		return nil, err
	}
	return list, nil
}

// save writes one queue's log and state.
func (s *Stopped) save(q *StoppedQueue, to *wal.Salvaged) (*Inventory, error) {
	first := q.m.FirstNeeded()
	log, err := to.NewLog(q.Incarnation, first)
	if err != nil {
		return nil, err
	}
	next := first
	stand := func(_, last uint64) error {
		for ; next <= last; next++ {
			if err := log.Append(standIn(q.Incarnation, next)); err != nil {
				return err
			}
		}
		return nil
	}
	have := map[uint64]bool{}
	inv, err := s.walk(q, first, func(m *Stored) error {
		if m.State != machine.Ready {
			have[m.ID] = true
		}
		return nil
	}, func(raw []byte) error {
		lsn := record.View(raw).LSN
		if err := stand(next, lsn-1); err != nil { // left out when the log was rewritten
			return err
		}
		next = lsn + 1
		return log.Append(slices.Clone(raw))
	}, stand)
	if err == nil {
		err = stand(next, q.m.LastLSN())
	}
	if err != nil {
		log.Abandon()
		return nil, err
	}
	q.m.Salvage(func(id uint64) bool { return !have[id] }, inv.ready, inv.readyBytes)
	inv.Counts = q.m.Counts()
	to.UsedIDs(max(q.m.LastIDs()))
	state := q.m.Snapshot(nil)
	if _, err := machine.Restore(state); err != nil {
		log.Abandon()
		return nil, errors.Join(errors.New("what is left makes no state of a queue; please report this"), err)
	}
	return inv, log.Finish(state)
}

// standIn takes the place of a lost record: a pause that is never read as one, since the state is after it.
func standIn(incarnation, lsn uint64) []byte {
	r := record.Record{LSN: lsn, Incarnation: incarnation, Kind: record.Kind(machine.KindPause), Meta: []byte{0}}
	return record.Append(nil, &r)
}
