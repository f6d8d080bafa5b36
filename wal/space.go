package wal

// A full disk. Refusing everything then would be the end: only acknowledgements give space back. So the store stops taking
// messages while there is still room for what acknowledging them takes, which is journal, a few records in the queues' logs, and
// a checkpoint, after which consumed segments can go.
//
// It keeps that room as a file, RESERVE, since what is merely free is anybody's. Whenever space is short, pushes are refused from
// that moment on (FullError, before anything is written); when it is so short that what is committed already might not fit, or when
// anything gets ENOSPC, RESERVE is removed and the rest goes on in its space. While the disk is full a checkpoint is taken every
// second in which anything changed, so that what was acknowledged gives its space back. When RESERVE can be made again, and there
// is room besides, pushes are taken again.
//
// If somebody else takes the reserve's space too, nothing is left to go on in: then commands get errors until there is
// space, and what was acknowledged is there all the same.

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"quail/wal/vfs"
)

const (
	// ReserveFiles is how many journal files the reserve is as large as, by default: one or two to acknowledge in before a
	// checkpoint lets go of the older ones, and as much again for logs and the checkpoint itself.
	ReserveFiles = 3
	// spaceDelay is how often a store whose disk is full looks for space.
	spaceDelay = time.Second
	// logSlackBytes is what one queue's log may take of the disk beyond its records: a new segment and its last block.
	logSlackBytes = 8 << 10
	// spaceHealDelay is how soon a log is taken up again that found no space, when the reserve has just given it some.
	spaceHealDelay = 10 * time.Millisecond
)

// FullError refuses what would take new space, before anything of it was written.
type FullError struct {
	// FreeBytes is how much space was left, -1 if that is not known.
	FreeBytes int64
	// NeedBytes is how much must be free for messages to be taken again.
	NeedBytes int64
	// Err is what the file system refused, nil if it was not asked to fill up to the last byte.
	Err error
}

func (e *FullError) Error() string {
	said := "the disk of the data directory is full: "
	if e.Err != nil {
		said += e.Err.Error() + ", "
	}
	if e.FreeBytes >= 0 {
		said += fmt.Sprintf("%d bytes are left, ", e.FreeBytes)
	}
	return said + fmt.Sprintf("%d bytes must be free for messages to be taken (a smaller journal-file-bytes needs less)", e.NeedBytes)
}

// Unwrap returns Err.
func (e *FullError) Unwrap() error { return e.Err }

// OutOfSpace reports whether err says that the disk is full: then it passes as soon as there is space.
func OutOfSpace(err error) bool {
	var full *FullError
	return errors.As(err, &full) || vfs.OutOfSpace(err)
}

// space watches over the disk's. The zero value keeps no reserve and never refuses anything.
type space struct {
	fs      vfs.FS
	dir     string
	reserve int64 // 0: off
	low     int64 // a journal file: pushes are refused when no more than two, the one that is begun and the next spare, would be free behind what is pending
	kick    func()

	full atomic.Pointer[FullError] // why no pushes are taken, nil if they are
	// allowed is how many bytes the journal and the logs may take before somebody must look again: between two looks of the background
	// writer quick producers would fill what is left of the disk.
	allowed atomic.Int64

	mu   sync.Mutex // one change of RESERVE at a time; held during IO
	held bool       // RESERVE is there
}

func (s *Store) newSpace() *space {
	return &space{fs: s.cfg.FS, dir: s.cfg.Dir, reserve: s.cfg.ReserveBytes, low: s.cfg.JournalFileBytes, kick: func() { s.kick(s.fullKick) }}
}

func (p *space) path() string { return filepath.Join(p.dir, "RESERVE") }

// open makes the reserve. Without room for it the store opens all the same, and takes no pushes.
func (p *space) open() {
	if p.reserve == 0 {
		return
	}
	if info, err := p.fs.Stat(p.path()); err != nil || info.Size() != p.reserve {
		if free := p.free(); free < p.reserve+2*p.low { // the run before may have given it back, to have this one start
			p.refuse(&FullError{FreeBytes: free, NeedBytes: p.needs(2 * p.low)}) // the journal is about to take a file and a spare
			return
		}
	}
	if err := p.take(); err != nil {
		p.refuse(&FullError{FreeBytes: -1, NeedBytes: p.needs(0), Err: err})
	}
}

// needs is how much must be free for messages to be taken again: what is pending, the reserve, and three files, which is one more than
// check asks for, so that it does not change its mind at once.
func (p *space) needs(pending int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held {
		return 3*p.low + pending
	}
	return p.reserve + 3*p.low + pending
}

// take makes the reserve if it is not there.
func (p *space) take() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held {
		return nil
	}
	f, err := p.fs.OpenFile(p.path(), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return fmt.Errorf("make reserve: %w", err)
	}
	err = f.Allocate(p.reserve)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		p.fs.Remove(p.path()) // a part of it is no use here, and the space is wanted
		return fmt.Errorf("make reserve of %d bytes: %w", p.reserve, err)
	}
	p.held = true
	return nil
}

// release gives the reserve back and reports whether there was one: then what was refused is worth another try.
func (p *space) release() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.held {
		return false
	}
	p.held = false
	return p.fs.Remove(p.path()) == nil
}

// refuse takes no pushes from now on.
func (p *space) refuse(why *FullError) {
	if p.full.CompareAndSwap(nil, why) && p.kick != nil {
		p.kick()
	}
}

// spent is told of every error that may be ENOSPC. It reports whether it was, and trying again is worth it.
func (p *space) spent(err error) (again bool) {
	if p == nil || p.reserve == 0 || !vfs.OutOfSpace(err) {
		return false
	}
	p.refuse(&FullError{FreeBytes: -1, NeedBytes: p.reserve + 3*p.low, Err: err})
	return p.release()
}

// short is told when space was refused to something that need not have it yet.
func (p *space) short(err error) {
	if p != nil && p.reserve != 0 && vfs.OutOfSpace(err) {
		p.refuse(&FullError{FreeBytes: -1, NeedBytes: p.needs(0), Err: err})
	}
}

// free is what the file system has left. If it cannot tell, it is asked by writing.
func (p *space) free() int64 {
	free, err := p.fs.Free(p.dir)
	if err != nil {
		return math.MaxInt64
	}
	return free
}

// check looks whether the pending bytes and what they may take besides will fit, and stops pushes if not. The reserve is given
// back only if it must be: from then on it is anybody's.
func (p *space) check(pending, slack int64) {
	if p.reserve == 0 {
		return
	}
	free := p.free()
	p.allowed.Store(max(free-2*p.low-slack-pending, 0))
	if free-2*p.low-slack >= pending {
		return
	}
	p.refuse(&FullError{FreeBytes: free, NeedBytes: p.needs(pending)})
	if free < pending+slack/8 {
		p.release()
	}
}

// regained takes pushes again if the reserve can be made and there is room besides.
func (p *space) regained(pending int64) bool {
	free, needs := p.free(), p.needs(pending)
	if free < needs {
		if why := p.full.Load(); why != nil { // for whoever is refused next: what is left, and what is needed, has changed
			p.full.CompareAndSwap(why, &FullError{FreeBytes: free, NeedBytes: needs, Err: why.Err})
		}
		return false
	}
	if p.take() != nil {
		return false
	}
	p.allowed.Store(0) // the first push looks again
	p.full.Store(nil)
	return true
}

// takes notes bytes that were, or will be, written.
func (p *space) takes(bytes int64) {
	if p != nil {
		p.allowed.Add(-bytes)
	}
}

// mustLook reports whether so much was committed since the last check that another one is due.
func (p *space) mustLook() bool {
	return p.reserve != 0 && p.allowed.Load() <= 0 && p.full.Load() == nil
}

// Full is why no messages are taken, a *FullError, or nil if they are.
func (s *Store) Full() error {
	if full := s.space.full.Load(); full != nil {
		return full
	}
	return nil
}

// checkSpace looks ahead: what is committed and in no queue's log yet will take that space.
func (s *Store) checkSpace() {
	s.mu.Lock()
	logs := int64(len(s.writing) + len(s.failed))
	s.mu.Unlock()
	s.space.check(s.pendingBytes.Load()+s.leftBytes.Load(), logs*logSlackBytes)
}

// spaceLoop waits for space while the disk is full, and lets acknowledgements make it.
func (s *Store) spaceLoop() {
	defer s.background.Done()
	timer := time.NewTimer(spaceDelay)
	timer.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.fullKick:
		case <-timer.C:
		}
		if s.attendSpace() {
			timer.Reset(spaceDelay)
		}
	}
}

// attendSpace does what a full disk asks for, and reports whether it is full still.
func (s *Store) attendSpace() (full bool) {
	why := s.space.full.Load()
	if why == nil {
		return false
	}
	if !s.toldFull {
		s.toldFull = true
		s.mu.Lock()
		s.room.Broadcast() // who waits for room is refused
		s.mu.Unlock()
		if f := s.cfg.Events.DiskFull; f != nil {
			f(why)
		}
	}
	if !s.lookForSpace() {
		return true
	}
	s.toldFull = false
	if f := s.cfg.Events.DiskFreed; f != nil {
		f()
	}
	return false
}

// lookForSpace gives back what was acknowledged and reports whether pushes are taken again.
func (s *Store) lookForSpace() bool {
	if s.journal.written.Load() != s.pointMark.Load() && s.failure() == nil {
		s.Checkpoint() // an error was reported, and the next round tries again
	}
	s.mu.Lock()
	left := len(s.failed)
	s.mu.Unlock()
	if left > 0 || s.failure() != nil || !s.space.regained(s.pendingBytes.Load()+s.leftBytes.Load()) {
		return false
	}
	s.journal.askSpare()
	return true
}
