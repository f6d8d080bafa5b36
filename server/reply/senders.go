package reply

import "sync"

// Senders are a few goroutines that write for the committer: when a group of commits is durable, the committer only
// names the connections that have something to send, and goes on to the next group while the Senders make the system
// calls. Writing from its own goroutine was rejected: a thousand connections would cost milliseconds a group, and one
// goroutine a connection costs as many wake-ups.
type Senders struct {
	mu      sync.Mutex // guards what follows; never held during IO
	work    sync.Cond
	streams []*Stream
	stopped bool
	running sync.WaitGroup
}

// senderStreamsMax is how many connections one Sender takes at a time, so that the others find work too.
const senderStreamsMax = 16

// NewSenders starts n goroutines. Stop ends them.
func NewSenders(n int) *Senders {
	s := new(Senders)
	s.work.L = &s.mu
	for range n {
		s.running.Go(s.run)
	}
	return s
}

// Send makes one of them the writer of the Stream, in place of the caller. After Stop a goroutine of its own does it.
func (s *Senders) Send(stream *Stream) {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		go stream.write()
		return
	}
	s.streams = append(s.streams, stream)
	s.mu.Unlock()
	s.work.Signal()
}

func (s *Senders) run() {
	var mine [senderStreamsMax]*Stream
	for {
		s.mu.Lock()
		for len(s.streams) == 0 && !s.stopped {
			s.work.Wait()
		}
		if len(s.streams) == 0 {
			s.mu.Unlock()
			return
		}
		n := copy(mine[:], s.streams)
		rest := copy(s.streams, s.streams[n:])
		clear(s.streams[rest:])
		s.streams = s.streams[:rest]
		s.mu.Unlock()
		for _, stream := range mine[:n] {
			stream.write()
		}
		clear(mine[:])
	}
}

// Stop ends the goroutines once they have sent what they were given.
func (s *Senders) Stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.work.Broadcast()
	s.running.Wait()
}
