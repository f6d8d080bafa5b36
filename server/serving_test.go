package server

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// Without this a connection stands still for ever: what the socket still holds when a loop leaves a connection to its goroutine, or
// the other way round, is announced by no event.
func TestCommandsOfAllKindsInPiecesOfAllSizes(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 0))
			s := start(t)
			s.queues.set(func(q *fakeQueues) { q.discard = true })
			c := s.dial(t)
			var sent, want strings.Builder
			pushed := 0
			for range 200 {
				switch dice.IntN(6) {
				case 0, 1: // run by the loop
					pushed++
					sent.WriteString(cmd("QPUSH", "q", strings.Repeat("x", dice.IntN(200))))
					fmt.Fprintf(&want, ":%d\r\n", pushed)
				case 2: // big
					pushed++
					sent.WriteString(cmd("QPUSH", "q", strings.Repeat("y", dice.IntN(40_000))))
					fmt.Fprintf(&want, ":%d\r\n", pushed)
				case 3: // run by the goroutine
					sent.WriteString(cmd("CLIENT", "GETNAME"))
					want.WriteString("$-1\r\n")
				case 4: // blocks for a moment
					sent.WriteString(cmd("QCONSUME", "q", "c"))
					want.WriteString("*-1\r\n")
				case 5: // not RESP
					sent.WriteString("PING\r\n")
					want.WriteString("+PONG\r\n")
				}
			}
			go func() {
				for rest := sent.String(); rest != ""; {
					n := min(len(rest), 1+dice.IntN(1+dice.IntN(30_000)))
					if _, err := c.conn.Write([]byte(rest[:n])); err != nil {
						return // expect tells
					}
					rest = rest[n:]
				}
			}()
			c.expect(want.String())
		})
	}
}
