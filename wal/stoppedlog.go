package wal

import (
	"fmt"
	"io"
	"slices"

	"quail/wal/record"
	"quail/wal/seglog"
)

// Place is where a record was found.
type Place struct {
	File   string
	Offset int64
	// Group is the journal group that holds it; 0 outside the journal.
	Group uint64
}

// Guessing reports whether checkpoints or journal are damaged: what follows the checkpoint in a queue's log then counts too.
func (s *Stopped) Guessing() bool { return s.guess }

// Records visits the records of q from the LSN from on that can be read, in order; raw is valid until the next call. missing, which
// may be nil, is told of each run of records that should be there and is not, before visit is called for a later one. What is damaged is added
// to s.Damage. An error of visit ends it. Errors: those of the file system, and of visit.
func (s *Stopped) Records(q *StoppedQueue, from uint64, visit func(raw []byte, at Place) error, missing func(from, to uint64)) error {
	w := &recordWalk{s: s, q: q, next: max(from, q.First), visit: visit, missing: missing}
	last := q.LogLast
	if s.guess {
		last = ^uint64(0)
	}
	if w.next > last { // the log has none of them
		last = 0
	}
	cfg := seglog.Config{FS: s.fs, Dir: s.LogDir(q), Incarnation: q.Incarnation}
	err := seglog.Walk(cfg, q.First, last, func(raw []byte, file string, offset int64) error {
		lsn := record.View(raw).LSN
		if lsn < w.next {
			return nil
		}
		if err := w.fill(lsn); err != nil {
			return err
		}
		return w.give(raw, Place{File: file, Offset: offset})
	}, func(h seglog.Hole) {
		s.hole(q, h)
	}, w.leave)
	if err != nil {
		return err
	}
	end := q.LSN
	for lsn := range q.later {
		end = max(end, lsn)
	}
	return w.fill(end + 1)
}

// hole notes damage of a log. Behind what a checkpoint promised there is none: the journal has it.
func (s *Stopped) hole(q *StoppedQueue, h seglog.Hole) {
	if h.To > q.LogLast && h.From > q.LogLast && q.LogLast > 0 {
		return
	}
	d := Damage{File: h.File, Offset: h.Offset, Incarnation: q.Incarnation, From: h.From, To: h.To, Reason: h.Reason, Means: meansStopped}
	if h.To < h.From {
		d.From, d.To = 0, 0
	}
	if q.LogLast > 0 {
		d.To = min(d.To, q.LogLast)
	}
	if !slices.Contains(s.Damage, d) {
		s.damaged(d)
	}
}

// readRecord reads one record that was checked before.
func (s *Stopped) readRecord(p recordPlace) ([]byte, error) {
	f := s.handles[p.file]
	if f == nil {
		var err error
		if f, err = s.fs.Open(s.files[p.file]); err != nil {
			return nil, err
		}
		s.handles[p.file] = f
	}
	buf := make([]byte, 4096)
	n, err := f.ReadAt(buf, p.offset)
	if err != nil && err != io.EOF {
		return nil, err
	}
	size, err := record.Length(buf[:n])
	if err == nil && size > n {
		buf = make([]byte, size)
		if n, err = f.ReadAt(buf, p.offset); err == io.EOF && n == size {
			err = nil
		}
	}
	if err == nil {
		_, _, err = record.Decode(buf[:n])
	}
	if err != nil {
		return nil, fmt.Errorf("%s at offset %d: %w; somebody writes to the directory", f.Name(), p.offset, err)
	}
	return buf[:size], nil
}

type recordWalk struct {
	s       *Stopped
	q       *StoppedQueue
	next    uint64
	visit   func(raw []byte, at Place) error
	missing func(from, to uint64)
}

func (w *recordWalk) give(raw []byte, at Place) error {
	w.next = record.View(raw).LSN + 1
	return w.visit(raw, at)
}

// leave passes over records that a rewritten segment has left out: nobody needs them.
func (w *recordWalk) leave(from, to uint64) error {
	if to < w.next {
		return nil
	}
	if err := w.fill(from); err != nil {
		return err
	}
	w.next = max(w.next, to+1)
	return nil
}

// fill visits what the journal, or what was set aside, has of the records below to.
func (w *recordWalk) fill(to uint64) error {
	if err := w.fillFrom(w.q.later, to); err != nil {
		return err
	}
	return w.lack(to)
}

// fillFrom visits the records below to that stand at these places; what is between them is missing.
func (w *recordWalk) fillFrom(places map[uint64]recordPlace, to uint64) error {
	for _, lsn := range placed(places, w.next, to) {
		if err := w.lack(lsn); err != nil {
			return err
		}
		if err := w.giveFrom(places[lsn]); err != nil {
			return err
		}
	}
	return nil
}

func (w *recordWalk) giveFrom(p recordPlace) error {
	raw, err := w.s.readRecord(p)
	if err != nil {
		return err
	}
	return w.give(raw, Place{File: w.s.files[p.file], Offset: p.offset, Group: p.group})
}

// placed lists the LSNs from one on and below another that have a place.
func placed(places map[uint64]recordPlace, from, to uint64) (lsns []uint64) {
	if to <= from {
		return nil
	}
	if to-from < uint64(len(places)) {
		for lsn := from; lsn < to; lsn++ {
			if _, ok := places[lsn]; ok {
				lsns = append(lsns, lsn)
			}
		}
		return lsns
	}
	for lsn := range places {
		if from <= lsn && lsn < to {
			lsns = append(lsns, lsn)
		}
	}
	slices.Sort(lsns)
	return lsns
}

// lack is called when the records from next to before to are nowhere they should be. What the journal still has of them is visited, of the
// others missing is told.
func (w *recordWalk) lack(to uint64) error {
	if w.next >= to {
		return nil
	}
	older, err := w.s.older()
	if err != nil {
		return err
	}
	places := older[w.q.Incarnation]
	for _, lsn := range placed(places, w.next, to) {
		w.miss(lsn)
		if err := w.giveFrom(places[lsn]); err != nil {
			return err
		}
	}
	w.miss(to)
	return nil
}

func (w *recordWalk) miss(to uint64) {
	if w.next < to {
		if w.missing != nil {
			w.missing(w.next, to-1)
		}
		w.next = to
	}
}
