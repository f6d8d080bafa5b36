package guard

import "bytes"

// Run is what redcon may have next: commands that can be executed one after the other without looking up.
type Run struct {
	// Raw is the commands as they came, valid until the next call of Next, Space or Filled.
	Raw []byte
	// Args, if not nil, is one command instead, which goes round redcon: a big one, whose memory moves to the caller
	// uncopied or is lent for as long as Raw is, or an inline one. Redcon gets a small stand-in for it, so that its loop still runs every command.
	Args [][]byte
	// Lent says that Args are still in the Input's own buffer.
	Lent bool
}

// Input is the unread bytes of one connection and where its Scanner stands in them. Read the socket into Space, say
// how much came with Filled, and take runs of whole commands with Next.
//
//	buf  [ executed | run | whole commands ... | a command that is not whole ]
//	                ^start                     ^ scanner at work here
//
// The buffer grows with what has arrived, by doubling, so neither one long command nor many small reads cost more than
// a constant number of copies a byte; a declared length only caps that growth. It shrinks when it runs empty.
type Input struct {
	// Limits hold from the next byte that is scanned on.
	Limits Limits
	// EndsRun says whether nothing behind the command with this name may be handed on before it was executed: it may
	// block, close the connection, or change the limits. It must not keep the name.
	EndsRun func(name []byte) bool
	// Borrows, if not nil, says of which commands the caller keeps nothing: a big one of those is lent and not given away, so that a
	// client that sends many costs no new memory each time. It must not keep the name.
	Borrows func(name []byte) bool

	buf     []byte
	start   int // the first byte that was not handed on
	scanner Scanner
	sparse  int // reads in a row that used little of the buffer
}

const (
	inputBytesMin  = 4 << 10   // a fresh buffer
	inputBytesKeep = 256 << 10 // an idle connection keeps no more than this, and no read asks for more at once
	spaceBytesMin  = 1 << 10   // a read for less is not worth its system call
	sparseReadsMax = 64        // after so many small reads the buffer is halved
)

// Buffered is how many bytes wait that Next has not handed on.
func (in *Input) Buffered() int { return len(in.buf) - in.start }

// Next gives the next run, or an empty one if no command is whole, or the error that ends the connection, after every
// command before it was handed on.
func (in *Input) Next() (Run, error) {
	first := in.start
	at := first
	for {
		kind, n, err := in.scanner.Scan(in.buf[at:], &in.Limits)
		switch {
		case err != nil || kind == More:
			return in.take(first, at, at), cut(at > first, err)
		case kind == Empty:
			in.scanner.Reset()
			if at > first {
				return in.take(first, at, at+n), nil
			}
			at += n
			first = at
			in.start = at
			continue
		case kind == Inline || n > BigBytes:
			if at > first {
				return in.take(first, at, at), nil
			}
			return in.takeAlone(kind, n)
		}
		name := in.scanner.Name(in.buf[at:])
		if err := crossProtocol(name); err != nil {
			return in.take(first, at, at), cut(at > first, err)
		}
		if at > first && at+n-first > runBytesMax {
			return in.take(first, at, at), nil
		}
		ends := in.EndsRun(name)
		in.scanner.Reset()
		at += n
		if ends {
			return in.take(first, at, at), nil
		}
	}
}

// cut holds an error back while there are commands before it.
func cut(before bool, err error) error {
	if before {
		return nil
	}
	return err
}

func (in *Input) take(first, end, next int) Run {
	in.start = next
	return Run{Raw: in.buf[first:end]}
}

// takeAlone hands on the one command of n bytes at in.start.
func (in *Input) takeAlone(kind Kind, n int) (Run, error) {
	raw := in.buf[in.start : in.start+n]
	if kind == Inline {
		args, err := splitLine(raw)
		if err != nil {
			return Run{}, err
		}
		if err := crossProtocol(args[0]); err != nil {
			return Run{}, err
		}
		in.start += n
		in.scanner.Reset()
		return Run{Args: args}, nil
	}
	if err := crossProtocol(in.scanner.Name(raw)); err != nil {
		return Run{}, err
	}
	count := in.scanner.Args()
	borrowed := in.Borrows != nil && in.Borrows(in.scanner.Name(raw))
	in.scanner.Reset()
	if borrowed {
		in.start += n
		return Run{Args: splitCommand(raw, count), Lent: true}, nil
	}
	return Run{Args: splitCommand(in.detach(n), count)}, nil
}

// detach takes n bytes from the front, for good: the whole buffer if they fill most of it, else a copy.
func (in *Input) detach(n int) []byte {
	rest := in.buf[in.start+n:]
	if n < cap(in.buf)/4*3 {
		own := bytes.Clone(in.buf[in.start : in.start+n])
		in.start += n
		return own
	}
	own := in.buf[in.start : in.start+n : in.start+n]
	in.buf = append(make([]byte, 0, max(inputBytesMin, len(rest))), rest...)
	in.start = 0
	return own
}

// splitCommand cuts a command that a Scanner found valid into its arguments, which share its memory.
func splitCommand(raw []byte, count int) [][]byte {
	args := make([][]byte, count)
	at := bytes.IndexByte(raw, '\n') + 1
	for i := range args {
		size := 0
		for at++; raw[at] != '\r'; at++ {
			size = size*10 + int(raw[at]-'0')
		}
		at += 2
		args[i] = raw[at : at+size : at+size]
		at += size + 2
	}
	return args
}

func crossProtocol(name []byte) error {
	if len(name) == 4 && bytes.EqualFold(name, []byte("POST")) || len(name) == 5 && bytes.EqualFold(name, []byte("Host:")) {
		return &CrossProtocolError{Command: string(name)}
	}
	return nil
}

// Space is where the next bytes from the socket go: never empty, at most what the buffer can hold now.
func (in *Input) Space() []byte {
	if in.start == len(in.buf) {
		in.rewind()
	}
	if in.full() {
		in.grow()
	}
	return in.buf[len(in.buf):cap(in.buf)]
}

// Filled says that n bytes came into Space.
func (in *Input) Filled(n int) {
	in.buf = in.buf[:len(in.buf)+n]
	if len(in.buf)-in.start > cap(in.buf)/4 {
		in.sparse = 0
	} else {
		in.sparse++
	}
}

// rewind makes an empty buffer begin at its front, and gives memory back that the client no longer fills.
func (in *Input) rewind() {
	size := cap(in.buf)
	switch {
	case size == 0:
		size = inputBytesMin
	case size > inputBytesKeep:
		size = inputBytesKeep
	case in.sparse > sparseReadsMax && size > inputBytesMin:
		size /= 2
		in.sparse = 0
	case len(in.buf) == size && size < inputBytesKeep:
		size *= 2
	}
	if size != cap(in.buf) {
		in.buf = make([]byte, 0, size)
	}
	in.buf, in.start = in.buf[:0], 0
}

// grow makes room behind bytes that are not whole commands yet.
func (in *Input) grow() {
	waiting := in.buf[in.start:]
	if in.movable() {
		in.buf = in.buf[:copy(in.buf, waiting)]
		in.start = 0
		return
	}
	in.buf = append(make([]byte, 0, in.grownBytes()), waiting...)
	in.start = 0
}

// movable says that moving what waits to the front makes room enough, and was paid for by what is gone from there.
func (in *Input) movable() bool {
	waiting := in.Buffered()
	return waiting <= in.start && cap(in.buf)-waiting >= spaceBytesMin
}

// grownBytes is the size of the next buffer.
func (in *Input) grownBytes() int {
	size := 2 * cap(in.buf)
	if need := in.scanner.Need(); need > 0 && need <= size+size/4 {
		size = need // exactly, also if that is a little more than the double: else one more copy would follow
	}
	return max(size, in.Buffered()+spaceBytesMin)
}

// full says that Space must make room.
func (in *Input) full() bool {
	room := cap(in.buf) - len(in.buf)
	if room >= spaceBytesMin {
		return false
	}
	need := in.scanner.Need()
	return room == 0 || need == 0 || in.start+need > cap(in.buf)
}

// MemoryBytes is what the buffer takes.
func (in *Input) MemoryBytes() int { return cap(in.buf) }

// Need is the size of the buffer that the next Space would make to hold what waits, or 0 if that takes no new memory. An empty buffer
// that Space makes larger only for speed does not count: GiveBack keeps it from that.
func (in *Input) Need() int {
	if in.Buffered() == 0 || !in.full() || in.movable() {
		return 0
	}
	return in.grownBytes()
}

// Rest lets go of an empty buffer that is larger than an idle connection may keep.
func (in *Input) Rest() {
	if in.Buffered() == 0 && cap(in.buf) > inputBytesKeep {
		in.buf, in.start = nil, 0
	}
}

// GiveBack makes an empty buffer as small as a fresh one.
func (in *Input) GiveBack() {
	if in.Buffered() == 0 && cap(in.buf) > inputBytesMin {
		in.buf, in.start = nil, 0
	}
}
