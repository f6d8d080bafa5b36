package seglog

const (
	// arenaBytesMin is the first block of an Arena.
	arenaBytesMin = 64 << 10
	// arenaKeptMax is the largest block that an Arena keeps when it is reset.
	arenaKeptMax = 2 << 20
)

// Arena lends memory for records that are all used up at the same time, again and again: of what a look into a log takes, new memory was the
// most expensive, for the processor clears it and the collector follows. The zero value is ready, nil lends new memory each time. It is
// for one goroutine.
type Arena struct {
	block []byte // its length is lent
}

// take lends n bytes, with anything in them, until Reset.
func (a *Arena) take(n int) []byte {
	if a == nil {
		return make([]byte, n)
	}
	if cap(a.block)-len(a.block) < n { // who has parts of the old block keeps it until Reset
		a.block = make([]byte, 0, max(arenaBytesMin, 2*cap(a.block), n))
	}
	at := len(a.block)
	a.block = a.block[:at+n]
	return a.block[at : at+n : at+n]
}

// Clone copies b.
func (a *Arena) Clone(b []byte) []byte {
	c := a.take(len(b))
	copy(c, b)
	return c
}

// Reset takes back all that was lent.
func (a *Arena) Reset() {
	if a.block = a.block[:0]; cap(a.block) > arenaKeptMax {
		a.block = nil
	}
}
