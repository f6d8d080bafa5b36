package queue

// Copies of the simulated store. A backup is opened as a store of its own and must hold all that is there. And what the directory
// shows to who reads it while no process runs, as quail check and quail dump do, must be what the process then finds in it.

import (
	"fmt"

	"quail/queue/machine"
	"quail/wal"
)

// backup makes one, and looks what it holds.
func (s *sim) backup() {
	if s.failing || s.halted || s.set.usable() != nil {
		return
	}
	s.copies++
	dir := fmt.Sprintf("/backup%d", s.copies)
	losses := s.losses
	s.committing()
	_, err := s.set.Backup(dir)
	s.tracef("backup: %v", err)
	if s.halted || s.failing || s.losses != losses {
		return
	}
	if err != nil {
		if !s.dirty && !s.rotten {
			s.fail("no backup, and nothing failed: %v", err)
		}
		return
	}
	s.committed()
	s.stats.backups++
	there, over := s.openCopy(dir), map[*letter]bool{}
	for _, l := range s.letters {
		over[l] = s.isOver(l) || l.over != 0 // which may have been taken out since, or not yet
	}
	for _, l := range s.letters {
		if name, found := there[l.body]; found != l.live && !over[l] {
			s.fail("the backup: %.30q is live %v, found %v %s", l.body, l.live, found, name)
		}
		delete(there, l.body)
	}
	for body := range there {
		s.fail("the backup holds %.30q, which was never pushed", body)
	}
	if err := s.fs.RemoveAll(dir); err != nil {
		s.fail("remove backup: %v", err)
	}
}

// openCopy starts a process on a directory, and returns which queue each body is in.
func (s *sim) openCopy(dir string) map[string]string {
	cfg, life := s.config(), s.life
	cfg.Store.FS, cfg.Store.Dir, cfg.Store.ReserveBytes = s.fs, dir, 0
	cfg.Store.Events.JournalFailed = func(err error) { s.fail("the backup's journal failed: %v", err) }
	cfg.Store.Events.LogFailed = func(_ wal.LogName, err error) { s.fail("the backup's log failed: %v", err) }
	cfg.Background = func(string, func()) {} // it is only looked at
	s.freeSpace()
	set, _, err := Open(cfg)
	if err != nil {
		s.fail("the backup does not open: %v", err)
	}
	there := map[string]string{}
	for _, name := range set.Names() {
		list, _, err := peek(set, []byte(name), machine.Gone, 0, 1_000_000)
		if err != nil {
			s.fail("the backup's queue %s: %v", name, err)
		}
		for i := range list {
			if other, twice := there[string(list[i].Body)]; twice {
				s.fail("the backup has %.30q in queue %s and in queue %s", list[i].Body, name, other)
			}
			there[string(list[i].Body)] = name
		}
	}
	if err := set.Close(); err != nil {
		s.fail("the backup does not close: %v", err)
	}
	s.life = life - 1 // config counted one; the process itself goes on
	return there
}

// lookInside reads the directory while no process runs.
func (s *sim) lookInside() {
	s.found = nil
	if !s.exists || s.rotten || !s.chance(4) {
		return
	}
	s.stats.looks++
	d, err := OpenStopped(s.fs, simDataDir)
	if err != nil {
		s.fail("the directory cannot be read: %v", err)
	}
	defer d.Close()
	found := map[string]string{}
	for _, q := range d.Queues {
		err := d.Messages(q, func(m *Stored) error {
			found[string(m.Body)] = q.Name
			return nil
		})
		if err != nil {
			s.fail("queue %s cannot be read: %v", q.Name, err)
		}
	}
	if list := d.Damage(); len(list) > 0 {
		s.fail("check speaks of damage, and nothing rotted: %+v", list[0])
	}
	s.tracef("the directory shows %d messages", len(found))
	s.found = found
}

// compareFound: the process finds what the directory has shown.
func (s *sim) compareFound(there map[*letter]string) {
	if s.found == nil {
		return
	}
	for _, l := range s.letters {
		if l.over == 0 && s.found[l.body] != there[l] {
			s.fail("the directory shows %.30q in queue %q, the process finds it in %q", l.body, s.found[l.body], there[l])
		}
	}
	s.found = nil
}
