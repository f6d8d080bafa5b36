package wal

// Taking a checkpoint: note where the journal is, snapshot the queues that changed, make their logs durable up to there, write
// the states, and only then let the journal and the logs' fronts go.

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"quail/wal/vfs"
)

// retryDelay is the time between a failed checkpoint and the next try.
const retryDelay = time.Second

// Checkpoint saves the states of all queues that changed since the last one. On an error the journal keeps everything
// and the next checkpoint tries again. It waits for the disk; commits go on meanwhile.
func (s *Store) Checkpoint() error {
	s.checkpoint.Lock()
	defer s.checkpoint.Unlock()
	_, err := s.takeCheckpoint(s.points.wantsBase())
	return err
}

// takeCheckpoint returns the states that it saved: all of them for a base. Called with checkpoint held.
func (s *Store) takeCheckpoint(base bool) ([]checkpointState, error) {
	began := time.Now()
	if err := s.failure(); err != nil {
		return nil, fmt.Errorf("checkpoint: the journal has failed: %w", err) // states may rest on what is lost
	}
	s.checkSpace()
	mark := s.journal.written.Load()
	h := checkpointHeader{base: base, firstNeeded: s.journal.nextGroup()}
	list, gone := s.takeChanged(h.base)
	states, err := s.saveStates(list)
	if err == nil {
		s.mu.Lock()
		gone, s.gone = append(gone, s.gone...), nil // also those whose deletion saveStates met
		s.mu.Unlock()
		err = s.removeGone(gone)
	}
	if err == nil {
		h.sequence = s.journal.begun.Load()
		h.idsReserved = s.idsReserved()
		h.clockMillis = s.NowMillis()
		if err = s.points.write(h, states); err != nil && s.space.spent(err) {
			err = s.points.write(h, states)
		}
	}
	if err != nil {
		s.giveBack(list, gone)
		s.mu.Lock()
		s.pointErr = err
		s.room.Broadcast()
		s.mu.Unlock()
		if s.cfg.Events.CheckpointFailed != nil {
			s.cfg.Events.CheckpointFailed(err)
		}
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	s.pointMark.Store(mark)
	s.journal.recycle(h.firstNeeded)
	for _, q := range gone { // not before: until now the last checkpoint needed it, and a start reads it at once
		s.removeAside(q.incarnation)
	}
	s.cutFronts(states)
	s.saved(states)
	s.mu.Lock()
	s.pointErr = nil
	s.pointCount++
	s.pointTime = time.Now()
	s.room.Broadcast()
	s.mu.Unlock()
	if s.cfg.Events.CheckpointDone != nil {
		s.cfg.Events.CheckpointDone(CheckpointReport{Queues: len(states), Bytes: s.points.lastBytes, Duration: time.Since(began)})
	}
	return states, nil
}

// takeChanged resets the set of changed queues and returns it, or all queues for a base.
func (s *Store) takeChanged(all bool) (list, gone []*QueueLog) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.changed {
		q.mu.Lock()
		q.changed = false
		q.mu.Unlock()
		if !all || s.logs[q.incarnation] == nil {
			list = append(list, q)
		}
	}
	if all {
		for _, q := range s.logs {
			list = append(list, q)
		}
	}
	s.changed = map[uint64]*QueueLog{}
	gone, s.gone = s.gone, nil
	slices.SortFunc(list, func(a, b *QueueLog) int { return cmp.Compare(a.incarnation, b.incarnation) }) // files are written in this order
	return list, gone
}

func (s *Store) giveBack(list, gone []*QueueLog) {
	for _, q := range list {
		q.change()
	}
	s.mu.Lock()
	s.gone = append(s.gone, gone...)
	s.mu.Unlock()
}

func (s *Store) saveStates(list []*QueueLog) ([]checkpointState, error) {
	states := make([]checkpointState, 0, len(list))
	for _, q := range list {
		snap, ok := s.source.Snapshot(q.incarnation)
		if err := s.waitFor(snap.After); err != nil {
			return nil, fmt.Errorf("records of queue %q, incarnation %d: %w", q.queue, q.incarnation, err)
		}
		if !ok {
			if err := s.failure(); err != nil {
				return nil, err // the queues are being discarded, not deleted
			}
			if q.Last() == 0 {
				q.change() // made, and its first record not committed yet
				continue
			}
			q.Delete()
			states = append(states, checkpointState{incarnation: q.incarnation, gone: true})
			continue
		}
		logLast, err := q.sync(snap.LSN)
		if q.isDeleted() { // after the snapshot: what was not in its log yet is forgotten
			states = append(states, checkpointState{incarnation: q.incarnation, gone: true})
			continue
		}
		if vfs.OutOfDescriptors(err) && q.Err() == nil {
			return nil, err // nothing is wrong with the log
		}
		if err != nil {
			err := s.setAside(q, logLast, snap.LSN)
			if err != nil && s.space.spent(err) {
				err = s.setAside(q, logLast, snap.LSN)
			}
			if err != nil {
				return nil, fmt.Errorf("set records of queue %q, incarnation %d, aside: %w", q.queue, q.incarnation, err)
			}
		}
		states = append(states, checkpointState{incarnation: q.incarnation, lsn: snap.LSN,
			first: min(snap.First, logLast+1), logLast: min(logLast, snap.LSN), state: snap.State})
	}
	return states, nil
}

// waitFor waits for a Future that may be one that nobody has waited for yet.
func (s *Store) waitFor(f *Future) error {
	if !f.Done() {
		if s.cfg.Stepped {
			s.journal.writeNext()
		} else {
			s.journal.wake()
		}
	}
	return f.Wait()
}

// removeGone removes the directories of deleted queues, durably before the journal files that know of the deletion are
// reused.
func (s *Store) removeGone(gone []*QueueLog) error {
	if len(gone) == 0 {
		return nil
	}
	for _, q := range gone {
		if err := q.removeFiles(); err != nil {
			return fmt.Errorf("remove log of deleted queue: %w", err)
		}
	}
	if err := s.cfg.FS.SyncDir(s.queuesDir()); err != nil {
		return fmt.Errorf("sync directory of queues: %w", err)
	}
	return nil
}

func (s *Store) cutFronts(states []checkpointState) {
	for i := range states {
		c := &states[i]
		s.mu.Lock()
		q := s.logs[c.incarnation]
		s.mu.Unlock()
		if q == nil || c.gone {
			continue
		}
		q.asideFirst = 0
		if c.logLast < c.lsn {
			q.asideFirst = c.logLast + 1
		}
		if q.Err() != nil || s.keptForBackup(q) {
			continue
		}
		q.cutFront(c.first) // a failure is sticky in q and was reported
		if c.logLast == c.lsn {
			s.removeAside(c.incarnation)
		}
	}
}

// checkpoints runs them in the background: when enough journal has gathered, or space is wanted.
func (s *Store) checkpointLoop() {
	defer s.background.Done()
	retry := time.NewTimer(retryDelay)
	retry.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.pointKick:
		case <-retry.C:
		}
		// Checkpoint has reported an error. Pushes that wait for room give no second kick, so try again unasked.
		if err := s.Checkpoint(); err != nil && s.failure() == nil {
			retry.Reset(retryDelay)
		}
	}
}
