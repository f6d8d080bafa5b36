package wal

// Server-wide ids: batch ids, lock tokens and incarnations come from one sequence that rises for ever. Ids are reserved
// durably in blocks before any is given out, so a crash may skip some and never reuses one: a reused batch id would let an
// old consumer acknowledge somebody else's batch.

import (
	"errors"
	"sync"

	"quail/wal/record"
)

// ErrNoIDs: the next block of ids is not durable yet. It can only happen while the journal is stuck or failing.
var ErrNoIDs = errors.New("the next ids are not durable yet; retry when the journal has caught up")

type idBlocks struct {
	mu       sync.Mutex // guards the fields below; never held during IO
	next     uint64
	reserved uint64 // ids below it may be given out
	asked    uint64 // ids below it are reserved once future is done
	future   *Future
}

// NextID returns an id that was never given out before and never will be again.
func (s *Store) NextID() (uint64, error) {
	b := &s.ids
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked > b.reserved && b.future.Done() && b.future.Err() == nil {
		b.reserved = b.asked
	}
	if b.asked == b.reserved && b.reserved-b.next < idBlock/2 {
		s.reserveLocked()
	}
	if b.next >= b.reserved {
		return 0, ErrNoIDs
	}
	b.next++
	return b.next - 1, nil
}

func (s *Store) reserveLocked() {
	b := &s.ids
	b.asked = b.reserved + idBlock
	_, b.future = s.journal.commit([]record.Record{{LSN: b.asked, Kind: serverReserve}}, nil)
}

// startIDs reserves the first block of this run and waits for it.
func (s *Store) startIDs(reserved uint64) error {
	b := &s.ids
	b.mu.Lock()
	b.next, b.reserved, b.asked = max(reserved, 1), max(reserved, 1), max(reserved, 1)
	s.reserveLocked()
	f, asked := b.future, b.asked
	b.mu.Unlock()
	if err := s.waitFor(f); err != nil {
		return err
	}
	b.mu.Lock()
	b.reserved = asked
	b.mu.Unlock()
	return nil
}

// idsReserved is the lowest id that is certainly unused, for the checkpoint.
func (s *Store) idsReserved() uint64 {
	s.ids.mu.Lock()
	defer s.ids.mu.Unlock()
	return s.ids.asked
}
