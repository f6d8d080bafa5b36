package guard

import "bytes"

// Kind is what a Scanner found.
type Kind uint8

const (
	// More: the command is not whole yet.
	More Kind = iota
	// Command: a whole RESP array of bulk strings, valid to its last byte.
	Command
	// Inline: a whole line that is not blank.
	Inline
	// Empty: an array of no elements or a blank line, which Redis ignores.
	Empty
)

// step is where in a command a Scanner stands.
type step uint8

const (
	atStart  step = iota
	inCount       // in the line after '*'
	inSize        // in the line after '$'
	inBulk        // in an argument's bytes or the line break behind them
	inInline      // in a line that does not begin with '*'
	finished      // kind, pos and err tell the outcome
)

// Scanner finds the end of one command in bytes that arrive piece by piece. It keeps where it stands, so that no byte
// is looked at twice however small the pieces are: a client cannot make the server work more than it sends.
// The zero value is ready; it holds offsets only, never bytes.
type Scanner struct {
	step step
	kind Kind
	pos  int // the next byte to look at, counted from the command's first
	line int // where the current length line begins
	args int // arguments the command has
	left int // arguments still to come
	end  int // inBulk: behind the line break that ends the argument

	nameStart, nameEnd int // the first argument
	err                error
}

// Scan looks at b, which begins with the command's first byte and holds all that has arrived so far: the same bytes as
// at the call before, and maybe more behind them. It gives the kind and length of the command, or More, or the error,
// and gives the same again until Reset.
func (s *Scanner) Scan(b []byte, limits *Limits) (Kind, int, error) {
	for {
		var more bool
		switch s.step {
		case atStart:
			if len(b) == 0 {
				return More, 0, nil
			}
			s.begin(b[0])
		case inCount:
			more = s.scanCount(b, limits)
		case inSize:
			more = s.scanSize(b, limits)
		case inBulk:
			more = s.scanBulk(b)
		case inInline:
			more = s.scanInline(b)
		case finished:
			return s.kind, s.pos, s.err
		}
		if more {
			return More, 0, nil
		}
	}
}

// Reset makes the Scanner ready for the next command.
func (s *Scanner) Reset() { *s = Scanner{} }

// Name gives the first argument of the command that Scan found in b. An inline command's name it does not know.
func (s *Scanner) Name(b []byte) []byte { return b[s.nameStart:s.nameEnd] }

// Args is how many arguments the command that Scan found has.
func (s *Scanner) Args() int { return s.args }

// Need is how many bytes from the command's first Scan must see to go on, if an argument's length tells, else 0. It
// rests on what the client declared: grow towards it, never allocate it.
func (s *Scanner) Need() int {
	if s.step == inBulk {
		return s.end
	}
	return 0
}

func (s *Scanner) begin(first byte) {
	if first == '*' {
		s.step, s.pos, s.line = inCount, 1, 0
		return
	}
	s.step = inInline
}

func (s *Scanner) finish(kind Kind, length int) {
	s.step, s.kind, s.pos = finished, kind, length
}

func (s *Scanner) fail(err error) {
	s.step, s.kind, s.pos, s.err = finished, More, 0, err
}

func (s *Scanner) scanCount(b []byte, limits *Limits) (more bool) {
	count, ok, more := s.number(b, errArgs, errArgsLine)
	if more || s.step == finished {
		return more
	}
	switch {
	case !ok:
		s.fail(errArgs)
	case count > int64(limits.ArgsMax) && !(limits.Stranger && count <= 1<<31-1):
		s.fail(errTooManyArgs(count, limits.ArgsMax))
	case limits.Stranger && count > StrangerArgsMax:
		s.fail(errArgsStranger)
	case count <= 0:
		s.finish(Empty, s.pos)
	default:
		s.args, s.left = int(count), int(count)
		s.step, s.line = inSize, s.pos
	}
	return false
}

func (s *Scanner) scanSize(b []byte, limits *Limits) (more bool) {
	if s.pos == s.line {
		if s.pos >= len(b) {
			return true
		}
		if b[s.pos] != '$' {
			s.fail(errNoDollar(b[s.pos]))
			return false
		}
		s.pos++
	}
	size, ok, more := s.number(b, errBulk, errBulkLine)
	if more || s.step == finished {
		return more
	}
	switch {
	case !ok || size < 0:
		s.fail(errBulk)
	case size > int64(limits.BulkBytesMax):
		s.fail(errTooLongBulk(size, limits.BulkBytesMax))
	case limits.Stranger && size > StrangerBulkBytesMax:
		s.fail(errBulkStranger)
	case int64(s.pos)+size+2 > int64(limits.CommandBytesMax):
		s.fail(errCommandBytes(int64(s.pos)+size+2, limits.CommandBytesMax))
	default:
		if s.left == s.args {
			s.nameStart, s.nameEnd = s.pos, s.pos+int(size)
		}
		s.end = s.pos + int(size) + 2
		s.step = inBulk
	}
	return false
}

func (s *Scanner) scanBulk(b []byte) (more bool) {
	if len(b) < s.end {
		return true
	}
	if b[s.end-2] != '\r' || b[s.end-1] != '\n' {
		s.fail(errBulk)
		return false
	}
	s.pos = s.end
	s.left--
	if s.left == 0 {
		s.finish(Command, s.pos)
		return false
	}
	s.step, s.line = inSize, s.pos
	return false
}

// number reads the length line that begins at s.line with its mark ('*' or '$'), and moves behind its line break.
func (s *Scanner) number(b []byte, broken, tooLong error) (n int64, ok, more bool) {
	for s.pos < len(b) && b[s.pos] != '\r' {
		s.pos++
	}
	if s.pos-s.line > LineBytesMax {
		s.fail(tooLong)
		return 0, false, false
	}
	if s.pos+1 >= len(b) {
		return 0, false, true
	}
	digits := b[s.line+1 : s.pos]
	if b[s.pos+1] != '\n' {
		s.fail(broken)
		return 0, false, false
	}
	s.pos += 2
	n, ok = parseLength(digits)
	return n, ok, false
}

// parseLength reads a decimal number as strictly as Redis does: no sign but '-', no leading zero, nothing around it.
// Numbers of more than 18 digits are refused; every limit is far below.
func parseLength(b []byte) (int64, bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 18 || (b[0] == '0' && (len(b) > 1 || negative)) {
		return 0, false
	}
	n := int64(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return n, true
}

func (s *Scanner) scanInline(b []byte) (more bool) {
	n := bytes.IndexByte(b[s.pos:], '\n')
	if n < 0 {
		s.pos = len(b)
		if s.pos > LineBytesMax {
			s.fail(errInlineTooLong)
			return false
		}
		return true
	}
	length := s.pos + n + 1
	switch {
	case length-1 > LineBytesMax:
		s.fail(errInlineTooLong)
	case blank(b[:length]):
		s.finish(Empty, length)
	default:
		s.finish(Inline, length)
	}
	return false
}
