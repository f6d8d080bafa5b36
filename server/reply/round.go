package reply

import "sync"

// Round is the Sender of connections that one goroutine serves in rounds: what becomes ready while a round is open is written
// by that goroutine when the round closes, without waking another. Outside of a round the Senders write.
type Round struct {
	otherwise *Senders

	mu      sync.Mutex // guards what follows; never held during IO
	open    bool
	streams []*Stream
	spare   []*Stream // the other list, while one is being written
}

// NewRound makes a Round that is closed.
func NewRound(otherwise *Senders) *Round { return &Round{otherwise: otherwise} }

// Open begins a round.
func (r *Round) Open() {
	r.mu.Lock()
	r.open = true
	r.mu.Unlock()
}

// Send implements Sender.
func (r *Round) Send(s *Stream) {
	r.mu.Lock()
	if r.open {
		r.streams = append(r.streams, s)
		r.mu.Unlock()
		return
	}
	r.mu.Unlock()
	r.otherwise.Send(s)
}

// Close ends the round and writes, as far as the clients take it at once.
func (r *Round) Close() {
	r.mu.Lock()
	r.open = false
	list := r.streams
	r.streams, r.spare = r.spare[:0], nil
	r.mu.Unlock()
	for _, s := range list {
		s.write()
	}
	clear(list)
	r.mu.Lock()
	r.spare = list[:0]
	r.mu.Unlock()
}
