package seglog

import (
	"bytes"
	"testing"
)

// Without this a message that was found shows the bytes of another one.
func TestArenaLendsNothingTwice(t *testing.T) {
	var a Arena
	for range 3 {
		var lent [][]byte
		for i := range 200 {
			lent = append(lent, a.Clone(bytes.Repeat([]byte{byte(i)}, 1+i*100)))
		}
		for i, b := range lent {
			if !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, 1+i*100)) || cap(b) != len(b) {
				t.Fatalf("piece %d has other bytes, or room for some", i)
			}
		}
		a.Reset()
	}
	a.take(arenaKeptMax + 1)
	if a.Reset(); a.block != nil {
		t.Fatal("a large block is kept")
	}
	kept := make([]byte, 1000)
	if n := testing.AllocsPerRun(10, func() { a.Clone(kept); a.Reset() }); n > 0 {
		t.Fatalf("%v allocations", n)
	}
	if none := (*Arena)(nil); len(none.Clone(kept)) != len(kept) {
		t.Fatal("without an arena nothing is copied")
	}
}
