package commands

import "sync/atomic"

// Stats counts what happened to each command, for INFO and the metrics. One is shared by all connections of a server.
type Stats struct {
	commands []counters // at Spec.ordinal
	unknown  atomic.Uint64
}

type counters struct {
	calls    atomic.Uint64
	failed   atomic.Uint64
	rejected atomic.Uint64
}

// CommandStats are the counts of one command, since the start or since CONFIG RESETSTAT.
type CommandStats struct {
	// Name is the full name in lower case: client|list.
	Name string
	// Calls ran; Failed of them answered at once with an error. Rejected ones did not run: wrong number of words, or no AUTH.
	Calls, Failed, Rejected uint64
}

// NewStats returns counters at zero.
func NewStats() *Stats { return &Stats{commands: make([]counters, len(specs))} }

func (s *Stats) count(spec *Spec, failed bool) {
	s.commands[spec.ordinal].calls.Add(1)
	if failed {
		s.commands[spec.ordinal].failed.Add(1)
	}
}

// countCalls counts calls that did not fail.
func (s *Stats) countCalls(spec *Spec, calls int) { s.commands[spec.ordinal].calls.Add(uint64(calls)) }

func (s *Stats) countRejected(spec *Spec) { s.commands[spec.ordinal].rejected.Add(1) }

func (s *Stats) countUnknown() { s.unknown.Add(1) }

// Commands lists the counts of all commands that were called or rejected, in the order of the table.
func (s *Stats) Commands() []CommandStats {
	var list []CommandStats
	for i := range s.commands {
		c := &s.commands[i]
		one := CommandStats{Name: specs[i].fullName, Calls: c.calls.Load(), Failed: c.failed.Load(), Rejected: c.rejected.Load()}
		if one.Calls+one.Rejected > 0 {
			list = append(list, one)
		}
	}
	return list
}

// Totals are the calls of all commands, and the errors: failed, rejected and unknown.
func (s *Stats) Totals() (calls, errors uint64) {
	errors = s.unknown.Load()
	for i := range s.commands {
		c := &s.commands[i]
		calls += c.calls.Load()
		errors += c.failed.Load() + c.rejected.Load()
	}
	return calls, errors
}

// Reset sets all counts to zero.
func (s *Stats) Reset() {
	s.unknown.Store(0)
	for i := range s.commands {
		s.commands[i].calls.Store(0)
		s.commands[i].failed.Store(0)
		s.commands[i].rejected.Store(0)
	}
}
