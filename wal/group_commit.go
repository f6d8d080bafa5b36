package wal

import "quail/wal/record"

// Part is the records of one queue in a commit over several.
type Part struct {
	Log     *QueueLog
	Records []record.Record
}

// CommitAll is Commit for several queues: after a crash all their records are there or none. The caller holds the lock of
// every one of them.
func (s *Store) CommitAll(parts ...Part) *Future {
	var recs []record.Record
	for _, p := range parts {
		p.Log.change()
		recs = append(recs, p.Records...)
	}
	raws, f := s.journal.commit(recs, make([][]byte, 0, len(recs)))
	if len(raws) == 0 {
		return f
	}
	for _, p := range parts {
		n := len(p.Records)
		p.Log.committed(raws[:n:n], f)
		raws = raws[n:]
	}
	return f
}
