package reply

import "sync"

// Chunks are the memory of a Stream whose client reads more slowly than it asks. One buffer that doubles was rejected: it
// takes three times what it holds whenever it grows, and cannot give back the front that was sent.

const (
	// chunkBytes is the size of a chunk: large enough for few system calls, small enough for a stranger.
	chunkBytes = 64 << 10
	// growBytesMin is what a buffer for a few replies takes.
	growBytesMin = 256
)

// chunks are lent to Streams. An array and not a slice, which would be an allocation each time it is given back.
var chunks = sync.Pool{New: func() any { return new([chunkBytes]byte) }}

func newChunk() []byte { return chunks.Get().(*[chunkBytes]byte)[:0] }

// release gives a chunk back that nobody reads any longer; other memory is left to the collector.
func release(b []byte) {
	if cap(b) == chunkBytes {
		chunks.Put((*[chunkBytes]byte)(b[:chunkBytes]))
	}
}

// put takes replies behind all others, by copying them if they are few, and gives back the buffer for the next ones.
// A writer may be at work: what it reads stays as it is. It counts from off, so the bytes may move with it.
func (s *Stream) put(buf []byte) (next []byte) {
	last := &s.buf
	if len(s.more) > 0 {
		last = &s.more[len(s.more)-1]
	}
	need := s.size + len(buf)
	switch {
	case s.size == 0:
		s.buf, buf, s.off = buf, s.buf, 0
	case len(buf) <= cap(*last)-len(*last):
		*last = append(*last, buf...)
	case len(s.more) == 0 && need <= chunkBytes:
		s.move(need)
		s.buf = append(s.buf, buf...)
	case len(buf) > chunkBytes/2:
		s.more = append(s.more, buf)
		buf = newChunk()
	default:
		s.more = append(s.more, append(newChunk(), buf...))
	}
	s.size = need
	s.tell()
	return kept(buf)
}

// move brings what the only buffer holds to the front, with room for need bytes in all.
func (s *Stream) move(need int) {
	unsent := s.buf[s.off:]
	switch {
	case need <= cap(s.buf) && !s.writing:
		s.buf = s.buf[:copy(s.buf[:cap(s.buf)], unsent)]
	case 2*need >= chunkBytes:
		s.buf = append(newChunk(), unsent...)
	default:
		s.buf = append(make([]byte, 0, max(2*need, growBytesMin)), unsent...)
	}
	s.off = 0
}

// taken lets go of n bytes at the front, which were sent.
func (s *Stream) taken(n int) {
	s.off += n
	s.ready -= n
	s.size -= n
	s.tell()
	if s.off < len(s.buf) {
		return
	}
	s.off = 0
	if len(s.more) == 0 {
		s.buf = kept(s.buf)
		return
	}
	release(s.buf)
	s.buf, s.more[0] = s.more[0], nil
	s.more = s.more[1:]
	if len(s.more) == 0 {
		s.more = nil
	}
}

// drop lets go of everything.
func (s *Stream) drop() {
	s.buf, s.more, s.off, s.size = nil, nil, 0, 0
	s.tell()
}

// kept empties a buffer for the next replies, or lets it go if it has become large.
func kept(buf []byte) []byte {
	if cap(buf) > chunkBytes {
		return nil
	}
	return buf[:0]
}
