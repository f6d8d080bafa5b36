package wal

// A store whose background work is done step by step. A simulation that shall be the same each time cannot leave it to goroutines, whose
// order nobody decides. What they do is in functions that wait for nothing but the disk; so with Config.Stepped none of them is
// started, and the simulation calls the functions itself, in an order that it draws.

// StepCommit is the committer's step: it writes and syncs what has been committed since the last one, as one group, and tells its
// waiters. If there is nothing, it writes an end mark when one is due.
func (s *Store) StepCommit() {
	if s.journal.writeNext() == nextMark {
		s.journal.markEnd()
	}
}

// StepWriteBehind is the background writer's step: what is durable goes into the queues' logs.
func (s *Store) StepWriteBehind() { s.writeOnce() }

// StepSpare prepares a spare journal file.
func (s *Store) StepSpare() { s.journal.prepareSpare() }

// StepSpace looks for space if the disk is full, and reports whether it is full still.
func (s *Store) StepSpace() (full bool) { return s.attendSpace() }

// StepHeal tries once to take failed logs up again, and returns how many there still are.
func (s *Store) StepHeal() (left int) { return s.heal() }

// StepRewrite gives back the space that the last checkpoints have shown to be wasted. With survey it looks at all logs first, as a store does a
// while after its start.
func (s *Store) StepRewrite(survey bool) {
	if survey {
		s.survey()
	}
	s.rewriteWasteful()
}
