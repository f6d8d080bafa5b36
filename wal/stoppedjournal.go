package wal

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"quail/wal/record"
)

// recordPlace is where one record stands, in a journal file or one of records set aside (group 0).
type recordPlace struct {
	offset int64
	group  uint64
	file   int32
}

// readJournal notes where each queue's records are. It reads as a start does; if that finds damage, every group that is whole.
func (s *Stopped) readJournal() error {
	scan := &journalScan{fs: s.fs, dir: s.path("journal"), id: s.id, readOnly: true, firstNeeded: max(s.last.firstNeeded, 1), needed: s.last.sequence, covered: s.pointNeeds}
	if s.last.number == 0 {
		scan.logs = s.path("queues")
	}
	places := map[uint64]map[uint64]recordPlace{}
	err := s.needNote(scan)
	var end journalEnd
	if err == nil {
		scan.visit = func(g *group, file string, offset int64) error { return s.notePlaces(places, g, file, offset) }
		end, err = scan.run()
	}
	var corrupt *CorruptError
	switch {
	case err == nil:
		s.Torn = end.torn
		s.clock = max(s.clock, end.clockMillis)
	case errors.As(err, &corrupt):
		s.guess = true
		clear(places)
		before := len(s.Damage)
		newest, err := s.wholeGroups(scan, places)
		if err != nil {
			return err
		}
		// The newest file's groups are the end of the journal. How many there were no other file tells.
		d := Damage{File: corrupt.File, Offset: corrupt.Offset, Reason: corrupt.Reason, Means: meansNoStart, Unknown: corrupt.unknown || newest < scan.needed}
		s.Damage = slices.Insert(s.Damage, min(before, damageMax-1), d)
	case errors.Is(err, os.ErrNotExist):
		s.guess = true
		s.damaged(Damage{File: scan.dir, Reason: "the directory of the journal is missing", Means: meansNoStart, Unknown: true})
	default:
		return err
	}
	s.cache.path, s.cache.data = "", nil
	s.adopt(places)
	return nil
}

// needNote reads the note of the newest journal file.
func (s *Stopped) needNote(scan *journalScan) error {
	n := &begunNote{path: s.path("journal", begunName), id: s.id}
	data, err := readAll(s.fs, n.path)
	if errors.Is(err, os.ErrNotExist) {
		used, err := scan.isUsed()
		if err == nil && used {
			err = &CorruptError{File: n.path, Reason: "the note of the newest journal file is missing, and the journal was used", unknown: true}
		}
		return err
	}
	if err == nil && len(data) != begunFileBytes {
		err = &CorruptError{File: n.path, Offset: int64(len(data)), Reason: fmt.Sprintf("the file has %d bytes, %d belong there", len(data), begunFileBytes)}
	}
	if err == nil {
		err = n.parse(data)
	}
	scan.needed = max(scan.needed, n.least)
	return err
}

func (s *Stopped) notePlaces(places map[uint64]map[uint64]recordPlace, g *group, file string, offset int64) error {
	index := s.fileIndex(file)
	at := offset + groupHeaderBytes
	return g.each(func(raw []byte) error {
		s.notePlace(places, raw, recordPlace{file: index, offset: at, group: g.number})
		at += int64(len(raw))
		return nil
	})
}

func (s *Stopped) notePlace(places map[uint64]map[uint64]recordPlace, raw []byte, p recordPlace) {
	r := record.View(raw)
	if r.Incarnation == 0 {
		s.ids = max(s.ids, r.LSN)
		return
	}
	if s.gone[r.Incarnation] {
		return
	}
	if q := s.index[r.Incarnation]; q != nil && r.LSN <= q.LSN {
		return // the checkpoint covers it
	}
	list := places[r.Incarnation]
	if list == nil {
		list = map[uint64]recordPlace{}
		places[r.Incarnation] = list
	}
	list[r.LSN] = p
}

// adopt gives each queue its records. One that no checkpoint has and whose first record is not there was deleted before the checkpoint,
// if checkpoints and journal are whole.
func (s *Stopped) adopt(places map[uint64]map[uint64]recordPlace) {
	for incarnation, list := range places {
		q := s.index[incarnation]
		if _, fromStart := list[1]; q == nil && !fromStart && !s.guess {
			if incarnation >= s.last.idsReserved {
				s.damaged(Damage{File: s.path("journal"), Incarnation: incarnation, Reason: "the first record of the queue is not there, later ones are", Means: meansNoStart})
			} else {
				continue
			}
		}
		q = s.queue(incarnation)
		q.known = true
		for lsn, p := range list {
			q.later[lsn] = p
		}
	}
}

// foundGroup is a group of a damaged journal. A broken one has a whole header and some whole records.
type foundGroup struct {
	number, sequence uint64
	file             string
	offset           int64
	broken           bool
}

// wholeGroups notes all groups that count, wherever they stand, and returns the highest sequence of the files that they were written for.
func (s *Stopped) wholeGroups(scan *journalScan, places map[uint64]map[uint64]recordPlace) (newest uint64, err error) {
	found, err := s.findGroups(scan)
	if err != nil {
		return 0, err
	}
	for _, g := range found {
		newest = max(newest, g.sequence)
	}
	found = slices.DeleteFunc(found, func(g foundGroup) bool { return g.number < scan.firstNeeded })
	next := scan.firstNeeded
	if s.last.number == 0 && len(found) > 0 { // no checkpoint says where the journal begins
		next = found[0].number
	}
	for i, g := range found {
		if i+1 < len(found) && found[i+1].number == g.number && !found[i+1].broken {
			continue // of a later sequence
		}
		if g.number > next {
			s.damaged(Damage{File: g.file, Offset: g.offset, Means: meansNoStart, Unknown: true,
				Reason: fmt.Sprintf("groups %d to %d of the journal, before this place, are gone", next, g.number-1)})
		}
		if g.broken {
			s.damaged(Damage{File: g.file, Offset: g.offset, Reason: fmt.Sprintf("group %d of the journal is damaged", g.number), Means: meansNoStart, Unknown: true})
		}
		if err := s.eachFound(g, func(raw []byte, p recordPlace) { s.notePlace(places, raw, p) }); err != nil {
			return 0, err
		}
		next = g.number + 1
	}
	return newest, nil
}

// findGroups lists the groups in all journal files, by number. Groups of an earlier life of a file have an older sequence than its
// newest, and what a later file refuses does not count either.
func (s *Stopped) findGroups(scan *journalScan) ([]foundGroup, error) {
	all, err := scan.list(&journalEnd{})
	if err != nil {
		return nil, err
	}
	var found []foundGroup
	for _, f := range all {
		groups, err := s.groupsOf(f)
		if err != nil {
			return nil, err
		}
		found = append(found, groups...)
	}
	found = slices.DeleteFunc(found, func(g foundGroup) bool {
		return slices.ContainsFunc(all, func(f scannedFile) bool {
			return f.headerErr == nil && f.sequence > g.sequence && g.number > f.after
		})
	})
	slices.SortFunc(found, func(a, b foundGroup) int {
		if a.number != b.number {
			return int(int64(a.number - b.number))
		}
		return int(int64(a.sequence - b.sequence))
	})
	return found, nil
}

// older notes where the journal has records that the checkpoint covers: files that were not used again yet still hold them, and a damaged
// log may not. It is read at most once, when a record is missing.
func (s *Stopped) older() (map[uint64]map[uint64]recordPlace, error) {
	if s.covered != nil {
		return s.covered, nil
	}
	s.covered = map[uint64]map[uint64]recordPlace{}
	found, err := s.findGroups(&journalScan{fs: s.fs, dir: s.path("journal"), id: s.id, readOnly: true})
	if errors.Is(err, os.ErrNotExist) {
		return s.covered, nil
	}
	if err != nil {
		return nil, err
	}
	for _, g := range found {
		err := s.eachFound(g, func(raw []byte, p recordPlace) {
			r := record.View(raw)
			q := s.index[r.Incarnation]
			if q == nil || r.LSN > q.LSN {
				return
			}
			if s.covered[r.Incarnation] == nil {
				s.covered[r.Incarnation] = map[uint64]recordPlace{}
			}
			s.covered[r.Incarnation][r.LSN] = p
		})
		if err != nil {
			return nil, err
		}
	}
	s.cache.path, s.cache.data = "", nil
	return s.covered, nil
}

// groupsOf lists the groups of a file's newest life.
func (s *Stopped) groupsOf(f scannedFile) ([]foundGroup, error) {
	data, err := s.read(f.path)
	if err != nil {
		return nil, err
	}
	var list []foundGroup
	newest := f.sequence
	for at := int64(0); at+blockBytes <= int64(len(data)); {
		h, err := parseGroupHeader(data[at:], s.id)
		if err != nil || f.headerErr == nil && h.sequence != uint32(f.sequence) {
			at += blockBytes
			continue
		}
		g := foundGroup{number: h.number, sequence: uint64(h.sequence), file: f.path, offset: at}
		whole, err := parseGroup(data[at:], s.id, g.sequence)
		g.broken = err != nil && !errors.Is(err, errPadding)
		if at += blockBytes; !g.broken {
			at += whole.span - blockBytes
			newest = max(newest, g.sequence)
		}
		list = append(list, g)
	}
	if f.headerErr == nil {
		return list, nil
	}
	return slices.DeleteFunc(list, func(g foundGroup) bool { return g.sequence != newest }), nil
}

// eachFound visits the whole records of a group, also of a broken one: a message that was pushed is better there than gone.
func (s *Stopped) eachFound(g foundGroup, visit func(raw []byte, p recordPlace)) error {
	data, err := s.read(g.file)
	if err != nil {
		return err
	}
	h, err := parseGroupHeader(data[g.offset:], s.id)
	if err != nil {
		return nil
	}
	s.clock = max(s.clock, h.clockMillis)
	rest := data[g.offset+groupHeaderBytes:]
	rest = rest[:min(uint64(len(rest)), h.bytes)]
	index, at := s.fileIndex(g.file), g.offset+groupHeaderBytes
	for len(rest) > 0 {
		n, err := record.Length(rest)
		if err != nil || n > len(rest) {
			break
		}
		if _, _, err := record.Decode(rest); err == nil {
			visit(rest[:n:n], recordPlace{file: index, offset: at, group: g.number})
		}
		rest, at = rest[n:], at+int64(n)
	}
	return nil
}

// read is readAll with the last file kept.
func (s *Stopped) read(path string) ([]byte, error) {
	if s.cache.path == path {
		return s.cache.data, nil
	}
	data, err := readAll(s.fs, path)
	if err == nil {
		s.cache.path, s.cache.data = path, data
	}
	return data, err
}
