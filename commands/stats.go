package commands

import (
	"sync/atomic"
	"time"
)

// Stats counts what happened to each command, for INFO and the metrics. One is shared by all connections of a server.
type Stats struct {
	commands []counters // at Spec.ordinal
	unknown  atomic.Uint64
	// Timing says that run times are wanted.
	Timing atomic.Bool
}

type counters struct {
	calls    atomic.Uint64
	failed   atomic.Uint64
	rejected atomic.Uint64
	times    [len(timeBounds) + 1]atomic.Uint64
	nanos    atomic.Int64
}

// timeBounds are what run times are sorted by.
var timeBounds = [...]time.Duration{10 * time.Microsecond, 30 * time.Microsecond, 100 * time.Microsecond, 300 * time.Microsecond, time.Millisecond,
	3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond, time.Second, 10 * time.Second}

// TimeBoundsSeconds are the bounds of Times.Counts.
var TimeBoundsSeconds = func() (list []float64) {
	for _, bound := range timeBounds {
		list = append(list, bound.Seconds())
	}
	return list
}()

// Times are how long calls ran.
type Times struct {
	// Counts has one more than TimeBoundsSeconds, for what took longer; nil if no call was timed.
	Counts []uint64
	Sum    time.Duration
}

// timedShare: of quick commands one call in so many is timed. Looking at the clock twice at each was measured to cost them a twentieth.
const timedShare = 64

// begin is the time before a call, or 0 if it is not timed.
func (s *Stats) begin(spec *Spec) time.Duration {
	if !s.Timing.Load() || spec.Flags&FlagPrompt != 0 && s.commands[spec.ordinal].calls.Load()%timedShare != 0 {
		return 0
	}
	return time.Since(processStart)
}

// end notes the time since begin, in which so many calls ran.
func (s *Stats) end(spec *Spec, began time.Duration, calls int) {
	if began == 0 {
		return
	}
	took := (time.Since(processStart) - began) / time.Duration(calls)
	i := 0
	for i < len(timeBounds) && took > timeBounds[i] {
		i++
	}
	s.commands[spec.ordinal].times[i].Add(1)
	s.commands[spec.ordinal].nanos.Add(int64(took))
}

// CommandStats are the counts of one command, since the start or since CONFIG RESETSTAT.
type CommandStats struct {
	// Name is the full name in lower case: client|list.
	Name string
	// Calls ran; Failed of them answered at once with an error. Rejected ones did not run: wrong number of words, or no AUTH.
	Calls, Failed, Rejected uint64
	Timed                   Times
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
		if sum := c.nanos.Load(); sum > 0 {
			one.Timed = Times{make([]uint64, len(c.times)), time.Duration(sum)}
			for j := range c.times {
				one.Timed.Counts[j] = c.times[j].Load()
			}
		}
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
		for j := range s.commands[i].times {
			s.commands[i].times[j].Store(0)
		}
		s.commands[i].nanos.Store(0)
	}
}
