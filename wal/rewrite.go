package wal

// Giving back the space of messages that are gone while older ones still live. The front of a log can only be cut up to its
// oldest live message; one that waits for a day would hold all that came after it. So segments of mostly dead records are
// rewritten without them (seglog, rewrite.go).
//
// What is dead? Up to a queue's cursor everything but the messages that its machine knows as leased, delayed or retrying: records
// of state changes are covered by the checkpoint and never read again. Above the cursor everything stays, since consumers walk
// over it. The machine is asked when a checkpoint is done, and its answer is used once the newest record that it rests on is
// durable: no restart can fall behind that, so what is dead stays dead. Nothing is rewritten that the last checkpoint does not
// cover: a log may be cut back to that.
//
// When? A log is looked at after each checkpoint with which it changed, and all of them once after a start. If it takes more than half
// as much again as its live messages, and two segments, those of its segments are rewritten of which more than half is dead; small
// results are merged with their neighbours, so that a long life does not leave a thousand small files. It is done by one goroutine, in
// steps of a few megabytes that must be read: segments in which nothing lives are not, and of those written lately little more than what
// lives. It pauses nine times as long as it works while the log is near its bound, less the further it is above, and not at all
// from four times that on. Nothing that pushes, acknowledges or consumes waits for it.

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"quail/wal/seglog"
	"quail/wal/vfs"
)

const (
	// rewriteBytes bounds what is read in one step, unless one segment alone is larger, and rewriteSegments how many files it
	// removes: to remove 128 of 1 MB takes some 10 ms, in which the log's next sync waits.
	rewriteBytes    = 8 << 20
	rewriteSegments = 128
	// rewritePause is how much longer than a step the pause after it is, in a log near its bound; at rewriteHaste times the bound there
	// is none. rewritePauseMin is the least pause all the same, so that the syncs of many small steps stay few.
	rewritePause    = 9
	rewriteHaste    = 4
	rewritePauseMin = 20 * time.Millisecond
	// recordOverhead is what a message's record takes in a log besides the body, about, if it has no headers: its header,
	// its length and its fields.
	recordOverhead = 41
	// wasteSegments is how many segments a log may take beyond its live messages and half as much again: the tail, and the one
	// that the cursor is in.
	wasteSegments = 2
	// restEvery is how often the store looks whether a checkpoint is due though little is written, and restDelay how old the last
	// one must be for that: what was acknowledged gives its space back also if no more comes.
	restEvery = 10 * time.Second
	restDelay = time.Minute
	// restSegments is how many segments' worth of journal makes such a checkpoint worth its while.
	restSegments = 1
	// surveyDelay is when, after a start, all logs are looked at.
	surveyDelay = 30 * time.Second
)

// LiveMessage is a message that its queue still needs.
type LiveMessage struct {
	LSN       uint64
	BodyBytes uint32
}

// Live says what a queue needs of its log.
type Live struct {
	// Cursor: above it, everything is needed.
	Cursor uint64
	// Messages are those that are needed up to the cursor, in no order.
	Messages []LiveMessage
	// Count is how many messages the queue has, above the cursor too, and BodyBytes the size of their bodies.
	Count, BodyBytes int64
	// After is the Future of the newest record that this rests on.
	After *Future
}

// LogRewritten tells that space of a queue's log was given back while its front stayed.
type LogRewritten struct {
	LogName
	// Bytes is the size of the log before and after, Segments the number of its files.
	BytesBefore, BytesAfter       int64
	SegmentsBefore, SegmentsAfter int
	// Steps is how many times segments were replaced, Duration how long all took, pauses included.
	Steps    int
	Duration time.Duration
}

// saved notes what a checkpoint covers that has become durable, and looks at the logs in it.
func (s *Store) saved(states []checkpointState) {
	kick := false
	s.mu.Lock()
	for i := range states {
		c := &states[i]
		q := s.logs[c.incarnation]
		if q == nil || c.gone {
			continue
		}
		q.saved.Store(c.logLast)
		if q.bytes.Load() > wasteSegments*int64(s.cfg.SegmentBytes) {
			s.wasteful[c.incarnation] = q
			kick = true
		}
	}
	s.mu.Unlock()
	if kick {
		s.kick(s.rewriteKick)
	}
}

// rewriteLoop rewrites logs in the background, and has a store that rests take its checkpoints.
func (s *Store) rewriteLoop() {
	defer s.background.Done()
	rest := time.NewTicker(restEvery)
	defer rest.Stop()
	survey := time.NewTimer(surveyDelay)
	defer survey.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.rewriteKick:
			s.rewriteWasteful()
		case <-survey.C:
			s.survey()
			s.rewriteWasteful()
		case <-rest.C:
			s.mu.Lock()
			since := time.Since(s.pointTime) // a long time, if there was none yet
			s.mu.Unlock()
			if since >= restDelay && s.journal.written.Load()-s.pointMark.Load() >= restSegments*int64(s.cfg.SegmentBytes) {
				s.kick(s.pointKick)
			}
		}
	}
}

// survey finds out how large the logs are that were not opened yet, from the sizes of their files.
func (s *Store) survey() {
	s.mu.Lock()
	all := make([]*QueueLog, 0, len(s.logs))
	for _, q := range s.logs {
		all = append(all, q)
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *QueueLog) int { return cmp.Compare(a.incarnation, b.incarnation) })
	for _, q := range all {
		if s.isClosing() {
			return
		}
		if q.bytes.Load() == 0 {
			q.bytes.CompareAndSwap(0, s.dirBytes(q.incarnation))
		}
		if q.bytes.Load() > wasteSegments*int64(s.cfg.SegmentBytes) {
			s.mu.Lock()
			s.wasteful[q.incarnation] = q
			s.mu.Unlock()
		}
	}
}

// dirBytes is the size of a log's files, 0 if that cannot be known.
func (s *Store) dirBytes(incarnation uint64) (bytes int64) {
	entries, err := s.cfg.FS.ReadDir(s.logDir(incarnation))
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

func (s *Store) rewriteWasteful() {
	s.mu.Lock()
	list := s.wasteful
	s.wasteful = map[uint64]*QueueLog{}
	s.mu.Unlock()
	for _, incarnation := range slices.Sorted(maps.Keys(list)) {
		q := list[incarnation]
		if s.isClosing() || s.failure() != nil {
			return
		}
		report, err := s.rewriteLog(q)
		s.rewritten(report, err)
	}
}

// rewritten counts and reports.
func (s *Store) rewritten(r LogRewritten, err error) {
	s.mu.Lock()
	s.rewrites += uint64(r.Steps)
	s.rewriteFreed += r.BytesBefore - r.BytesAfter
	if r.Steps > 0 || err != nil {
		s.rewriteErr = err
	}
	s.mu.Unlock()
	if f := s.cfg.Events.LogRewritten; f != nil && r.Steps > 0 {
		f(r)
	}
	if f := s.cfg.Events.RewriteFailed; f != nil && err != nil {
		f(r.LogName, err)
	}
}

// rewriteLog rewrites what is worth it in one log. An error is no failure of the log.
func (s *Store) rewriteLog(q *QueueLog) (report LogRewritten, err error) {
	report.LogName = q.name()
	began := time.Now()
	live, ok := s.source.Live(q.incarnation)
	if !ok || !q.isWasteful(&live) {
		return report, nil
	}
	if s.waitFor(live.After) != nil {
		return report, nil // the queues are about to be rebuilt
	}
	slices.SortFunc(live.Messages, func(a, b LiveMessage) int { return cmp.Compare(a.LSN, b.LSN) })
	for !s.isClosing() && q.Err() == nil {
		step := time.Now()
		more, err := q.rewriteStep(&live, &report)
		if err != nil || !more {
			report.Duration = time.Since(began)
			return report, err
		}
		s.restFor(restAfter(time.Since(step), q.bytes.Load(), q.boundBytes(&live)))
	}
	report.Duration = time.Since(began)
	return report, nil
}

// restAfter is how long to pause after a step that took so long, when the log takes so many bytes and should not take more than bound.
func restAfter(step time.Duration, bytes, bound int64) time.Duration {
	above := float64(bytes-bound) / float64(bound)
	share := 1 - above/(rewriteHaste-1)
	return max(time.Duration(rewritePause*min(max(share, 0), 1)*float64(step)), rewritePauseMin)
}

// restFor waits, unless the store is closed.
func (s *Store) restFor(d time.Duration) {
	if s.cfg.Stepped {
		return
	}
	select {
	case <-s.stop:
	case <-time.After(d):
	}
}

// isWasteful reports whether the log takes much more than its live messages do.
func (q *QueueLog) isWasteful(live *Live) bool { return q.bytes.Load() > q.boundBytes(live) }

// boundBytes is what the log may take before it is rewritten.
func (q *QueueLog) boundBytes(live *Live) int64 {
	needed := live.BodyBytes + live.Count*recordOverhead
	return needed + needed/2 + wasteSegments*int64(q.store.cfg.SegmentBytes)
}

// rewriteStep rewrites one run of segments, if there is one that is worth it.
func (q *QueueLog) rewriteStep(live *Live, report *LogRewritten) (more bool, err error) {
	q.store.rewriting.Lock()
	defer q.store.rewriting.Unlock()
	if q.store.keptForBackup(q) {
		return false, nil // the first checkpoint behind it tries again
	}
	log, err := q.acquire()
	if errors.Is(err, errDeleted) || vfs.OutOfDescriptors(err) {
		return false, nil // gone, or to be tried another time
	}
	if err != nil {
		return false, q.fail("open", err)
	}
	defer q.release()
	before := log.Stats()
	if report.Steps == 0 {
		report.BytesBefore, report.SegmentsBefore = before.Bytes, before.Segments
		report.BytesAfter, report.SegmentsAfter = before.Bytes, before.Segments
	}
	run := q.nextRun(log.Sealed(min(live.Cursor, q.saved.Load()), nil), live.Messages)
	if len(run.segments) == 0 {
		return false, nil
	}
	err = log.Rewrite(run.segments[0].First, run.segments[len(run.segments)-1].Last, run.live)
	after := log.Stats()
	q.bytes.Store(after.Bytes)
	var damage *seglog.CorruptError
	switch {
	case err == nil:
		report.Steps++
		report.BytesAfter += after.Bytes - before.Bytes
		report.SegmentsAfter += after.Segments - before.Segments
		return true, nil
	case errors.Is(err, seglog.ErrOutOfRange), errors.Is(err, seglog.ErrClosed), q.isDeleted(), q.Err() != nil:
		return false, nil // cut off, closed or failed meanwhile: another time, if at all
	case errors.As(err, &damage):
		q.leaveAlone(run.segments, damage.LSN)
	}
	return false, fmt.Errorf("rewrite log of incarnation %d: %w", q.incarnation, err)
}

// leaveAlone remembers that a segment is damaged, where nobody needs it or where a consumer will be told of it.
func (q *QueueLog) leaveAlone(segments []seglog.Sealed, lsn uint64) {
	if q.damagedSegments == nil {
		q.damagedSegments = map[uint64]bool{}
	}
	for _, s := range segments {
		if len(segments) == 1 || s.First <= lsn && lsn <= s.Last {
			q.damagedSegments[s.First] = true
		}
	}
}

// rewriteRun is consecutive segments that become one.
type rewriteRun struct {
	segments []seglog.Sealed
	live     []uint64
	read     int64 // bytes of them that must be read, about
	needed   int64 // bytes of them that live, about
	dead     bool  // one of them is mostly dead
}

// nextRun chooses the first run of segments that is worth a rewrite.
func (q *QueueLog) nextRun(sealed []seglog.Sealed, live []LiveMessage) (run rewriteRun) {
	full := int64(q.store.cfg.SegmentBytes)
	for _, s := range sealed {
		for len(live) > 0 && live[0].LSN < s.First {
			live = live[1:]
		}
		n, bodies := 0, int64(0)
		for n < len(live) && live[n].LSN <= s.Last {
			bodies += int64(live[n].BodyBytes)
			n++
		}
		needed := neededBytes(&s, n, bodies)
		dead := s.Bytes > 2*needed && !(s.Rewritten && n == s.Records)
		small := s.Rewritten && s.Bytes < full/2
		read := s.ReadBytes(n)
		fits := run.read+read <= rewriteBytes && run.needed+needed <= full && len(run.segments) < rewriteSegments
		if q.damagedSegments[s.First] || !dead && !small {
			if run.isWorthIt() {
				return run
			}
			run = rewriteRun{}
		} else {
			if len(run.segments) > 0 && !fits {
				if run.isWorthIt() {
					return run
				}
				run = rewriteRun{}
			}
			run.segments = append(run.segments, s)
			run.read, run.needed, run.dead = run.read+read, run.needed+needed, run.dead || dead
			for _, m := range live[:n] {
				run.live = append(run.live, m.LSN)
			}
		}
		live = live[n:]
	}
	if run.isWorthIt() {
		return run
	}
	return rewriteRun{}
}

func (r *rewriteRun) isWorthIt() bool { return r.dead || len(r.segments) > 1 }

// neededBytes is about how much n messages with such bodies take of a segment. A rewritten one knows what its records take besides
// their bodies: headers may be larger than these, and it would be rewritten for ever.
func neededBytes(s *seglog.Sealed, n int, bodies int64) int64 {
	overhead := int64(recordOverhead)
	if s.Rewritten && s.Records > 0 {
		overhead = (s.Bytes - s.BodyBytes) / int64(s.Records)
	}
	return bodies + int64(n)*overhead
}
