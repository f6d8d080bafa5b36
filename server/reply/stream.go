// Package reply sends the replies of one connection in order, each as soon as what it rests on is durable.
//
// A command's reply is encoded at once and handed over with its gate: what must be durable before it may leave. So no
// command waits for the disk, and all replies that one journal group makes ready leave in one write. The package knows
// bytes and gates only; what a reply says is its callers' business.
package reply

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Waiter is told once when a Gate opens; it must not block.
type Waiter interface{ Durable() }

// Gate holds replies back until it is Done. Gates are compared with ==, so that replies with one gate share a slot.
type Gate interface {
	Done() bool
	// Err is asked for only when Done.
	Err() error
	// Notify calls w.Durable once, from another goroutine or at once.
	Notify(w Waiter)
}

// Slot is replies of one gate that follow each other. A nil Gate means that they wait for nothing but their turn.
type Slot struct {
	Gate    Gate
	Bytes   int
	Replies int
}

// Config is what a Stream works with.
type Config struct {
	// Sink is where the bytes go.
	Sink Sink
	// Sender writes for the committer's goroutine.
	Sender Sender
	// WriteTimeout is how long one write of up to writeBytesMax may take before the Stream fails; 0 means no end. The
	// error is then an os.ErrDeadlineExceeded.
	WriteTimeout func() time.Duration
	// Refusal encodes what a client gets instead of a reply whose gate failed.
	Refusal func(dst []byte, err error) []byte
	// Failed is called once when the Stream fails, from any goroutine; it must not block. The replies are lost then.
	Failed func(err error)
	// Patient, if not nil, says whether the client waits for something later anyway, so that replies held back may come with that.
	Patient func() bool
	// Sent, if not nil, is told how many bytes each write sent.
	Sent func(bytes int)
	// Held, if not nil, is told how many bytes more, or less, the Stream holds, in steps of heldStepBytes so that small replies cost
	// nothing: what it was told in all is never further from the truth than that, and exact when nothing is held. It must not block.
	Held func(bytes int)
}

// Sender makes some goroutine the writer of a Stream in place of the caller, which must not make system calls.
type Sender interface{ Send(*Stream) }

// Stream is the ordered replies of one connection.
//
//	buf, more  [ sent | ready         | held back by gates ]
//	                  ^off             ^off+ready             off+size^
//	slots                               one or more, the first one's gate is not done
//
// buf is one buffer for as long as the client reads; what it does not take goes on in the chunks of more (chunk.go). The
// Stream takes whatever it is given: how much that may become is up to its callers, who ask WaitRoom before they run
// more commands.
//
// Whoever finds ready bytes while nobody writes becomes the writer: the connection's own goroutine before it reads
// again, a Sender when a group became durable, or a goroutine made for a client that does not take what it gets. The
// writer takes bytes that nobody else touches, so nothing is copied and no lock is held while it writes.
type Stream struct {
	cfg Config

	mu      sync.Mutex // guards what follows; never held during IO nor while a gate is asked to notify
	changed sync.Cond  // broadcast to wait when something changed that it looks at
	buf     []byte
	more    [][]byte
	off     int
	ready   int
	size    int
	slots   []Slot
	first   int // slots[:first] are done
	writing bool
	waiting bool // the first slot's gate was asked to notify
	waiters int  // goroutines in wait
	told    int  // what Config.Held knows of
	err     error
}

const (
	// writeBytesMax is what a client must take within the write timeout.
	writeBytesMax = 256 << 10
	// slotBytes is what a slot takes of the memory.
	slotBytes = 32
	// heldStepBytes is from what difference on Config.Held is told.
	heldStepBytes = 4 << 10
)

// NewStream makes a Stream without replies.
func NewStream(cfg Config) *Stream {
	s := &Stream{cfg: cfg}
	s.changed.L = &s.mu
	return s
}

// Commit takes encoded replies, cut into slots, behind all earlier ones. It keeps neither slots nor, in general, buf:
// it gives back the buffer to encode the next replies into. The error is why the Stream has failed; it took nothing then.
// Nothing is written before Flush or until a gate opens.
func (s *Stream) Commit(buf []byte, slots []Slot) (next []byte, err error) {
	s.mu.Lock()
	if s.err != nil {
		err = s.err
		s.mu.Unlock()
		return kept(buf), err
	}
	next = s.put(buf)
	for _, slot := range slots {
		s.hold(slot)
	}
	s.advance()
	gate := s.await()
	s.mu.Unlock()
	if gate != nil {
		gate.Notify(s)
	}
	return next, nil
}

// held is what gates hold back, with what its slots take.
func (s *Stream) held() int { return s.size - s.ready + (len(s.slots)-s.first)*slotBytes }

// hold puts one slot behind the others.
func (s *Stream) hold(slot Slot) {
	if len(s.slots) > s.first {
		if last := &s.slots[len(s.slots)-1]; last.Gate == slot.Gate {
			last.Bytes += slot.Bytes
			last.Replies += slot.Replies
			return
		}
	}
	if s.first > 0 && len(s.slots) == cap(s.slots) {
		n := copy(s.slots, s.slots[s.first:])
		clear(s.slots[n:])
		s.slots, s.first = s.slots[:n], 0
	}
	s.slots = append(s.slots, slot)
}

// advance makes ready what no gate holds back any longer.
func (s *Stream) advance() {
	for s.first < len(s.slots) {
		slot := &s.slots[s.first]
		if slot.Gate != nil {
			if !slot.Gate.Done() {
				return
			}
			if err := slot.Gate.Err(); err != nil {
				s.refuse(slot, err)
			}
		}
		s.ready += slot.Bytes
		*slot = Slot{}
		s.first++
	}
	s.slots, s.first = s.slots[:0], 0
	if cap(s.slots)*slotBytes > chunkBytes {
		s.slots = nil
	}
}

// refuse puts the refusal in the place of each of the slot's replies. What is not sent gets a buffer of its own, since a
// writer may be at work in the old ones.
func (s *Stream) refuse(slot *Slot, err error) {
	unsent := append(make([]byte, 0, s.size), s.buf[s.off:]...)
	for _, chunk := range s.more {
		unsent = append(unsent, chunk...)
	}
	var refusals []byte
	for range slot.Replies {
		refusals = s.cfg.Refusal(refusals, err)
	}
	s.buf = slices.Replace(unsent, s.ready, s.ready+slot.Bytes, refusals...)
	s.more, s.off, s.size = nil, 0, len(s.buf)
	s.tell()
	slot.Bytes = len(refusals)
}

// await gives the gate to ask for a notification, if there is one that was not asked. The caller asks it unlocked.
func (s *Stream) await() Gate {
	if s.waiting || s.err != nil || s.first == len(s.slots) {
		return nil
	}
	s.waiting = true
	return s.slots[s.first].Gate
}

// Durable is called when the gate that holds the first reply back has opened.
func (s *Stream) Durable() {
	s.mu.Lock()
	s.waiting = false
	s.advance()
	s.wake()
	gate := s.await()
	write := s.beginWrite()
	s.mu.Unlock()
	if write {
		s.cfg.Sender.Send(s)
	}
	if gate != nil {
		gate.Notify(s)
	}
}

// Patient reports whether the replies that a gate holds back may wait a little longer.
func (s *Stream) Patient() bool { return s.cfg.Patient != nil && s.cfg.Patient() }

// Flush writes what is ready, as far as the client takes it at once.
func (s *Stream) Flush() {
	s.mu.Lock()
	write := s.beginWrite()
	s.mu.Unlock()
	if write {
		s.write()
	}
}

// FlushLater is Flush for a goroutine that must not make system calls: a Sender writes.
func (s *Stream) FlushLater() {
	s.mu.Lock()
	write := s.beginWrite()
	s.mu.Unlock()
	if write {
		s.cfg.Sender.Send(s)
	}
}

// beginWrite makes the caller the writer if there is something to write and no other writer.
func (s *Stream) beginWrite() bool {
	if s.writing || s.ready == 0 || s.err != nil {
		return false
	}
	s.writing = true
	return true
}

// write is the writer as long as the client takes everything at once; what it does not take is left to drain.
func (s *Stream) write() {
	for {
		out, ok := s.next()
		if !ok {
			return
		}
		n, err := s.cfg.Sink.TryWrite(out)
		s.sent(n, err)
		if err == nil && n < len(out) {
			go s.drain()
			return
		}
	}
}

// drain is the writer for a client that is slow to read.
func (s *Stream) drain() {
	for {
		out, ok := s.next()
		if !ok {
			return
		}
		n, err := s.cfg.Sink.Write(out[:min(len(out), writeBytesMax)], s.cfg.WriteTimeout())
		s.sent(n, err)
	}
}

// next gives the writer what is ready; without anything it is the writer no longer.
func (s *Stream) next() ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.ready > 0 {
		return s.buf[s.off:min(s.off+s.ready, len(s.buf))], true
	}
	s.writing = false
	if s.err != nil {
		s.drop()
	}
	s.wake()
	return nil, false
}

// sent accounts for a write of n bytes.
func (s *Stream) sent(n int, err error) {
	if n > 0 && s.cfg.Sent != nil {
		s.cfg.Sent(n)
	}
	if err != nil {
		s.Fail(fmt.Errorf("write to client: %w", err))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.taken(n)
	s.wake()
}

func (s *Stream) wake() {
	if s.waiters > 0 {
		s.changed.Broadcast()
	}
}

// Fail ends the Stream: what was not sent is lost, and every later Commit is refused. Only the first call counts.
func (s *Stream) Fail(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	s.ready = 0
	s.slots, s.first = nil, 0
	if !s.writing {
		s.drop()
	}
	s.changed.Broadcast()
	s.mu.Unlock()
	s.cfg.Failed(err)
}

// Drain flushes and blocks until everything was sent, or the Stream has failed.
func (s *Stream) Drain() error {
	s.Flush()
	return s.wait(func() bool { return s.size == 0 && !s.writing })
}

// Room is how much a Stream may hold before its connection should run no further command.
type Room struct {
	// UnsentBytes bounds what is ready and not sent: the client does not read as fast as it asks.
	UnsentBytes int
	// HeldBytes bounds what gates hold back: the disk does not write as fast as the client asks.
	HeldBytes int
}

// HasRoom says that the Stream holds no more than that. It says so of a failed one, too.
func (s *Stream) HasRoom(room Room) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.within(room)
}

func (s *Stream) within(room Room) bool {
	return s.ready <= room.UnsentBytes && s.held() <= room.HeldBytes
}

// WaitRoom flushes and blocks until the Stream has room, or has failed. It slows down a client that sends commands
// faster than it reads, or than they become durable, so its replies do not fill the memory. The room is asked for again at every look,
// on the caller's goroutine.
func (s *Stream) WaitRoom(room func() Room) error {
	s.Flush()
	return s.wait(func() bool { return s.within(room()) })
}

// Wake makes a WaitRoom look again, since what its room depends on has changed.
func (s *Stream) Wake() {
	s.mu.Lock()
	s.wake()
	s.mu.Unlock()
}

// tell tells Config.Held of what has changed, if it is worth a word. Called with mu held.
func (s *Stream) tell() {
	more := s.size - s.told
	if s.cfg.Held == nil || more == 0 || s.size > 0 && more < heldStepBytes && more > -heldStepBytes {
		return
	}
	s.told = s.size
	s.cfg.Held(more)
}

func (s *Stream) wait(until func() bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiters++
	for s.err == nil && !until() {
		s.changed.Wait()
	}
	s.waiters--
	return s.err
}

// Pending is how many bytes and replies were committed and not sent. A reply that is being sent does not count.
func (s *Stream) Pending() (bytes, replies int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, 0
	}
	for _, slot := range s.slots[s.first:] {
		replies += slot.Replies
	}
	return s.size, replies
}

// Err is why the Stream failed, or nil.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
