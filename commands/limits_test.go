package commands

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Without this a pattern of megabytes takes a core for minutes: each name tries it again at each of its bytes.
func TestLongPatternsAreRefused(t *testing.T) {
	w := newWorld(2)
	long := "*[" + strings.Repeat("x", 16<<20)
	found := 0
	for _, s := range specs {
		words := strings.Fields(s.words())
		takes := false
		for i := range s.Args {
			a := &s.Args[i]
			if a.Type == ArgOneOf { // FILTERBY of COMMAND LIST
				for _, choice := range a.Args {
					if choice.Type == ArgPattern {
						words, takes = append(words, a.Token, choice.Token, long), true
					}
				}
				continue
			}
			switch {
			case a.Type == ArgPattern:
				takes = true
				if a.Token != "" {
					words = append(words, a.Token)
				}
				words = append(words, long)
			case !a.Optional || a.Name == "cursor":
				words = append(words, "1")
			}
		}
		if !takes {
			continue
		}
		found++
		began := time.Now()
		reply, _ := w.run(words...)
		if !strings.HasPrefix(reply, "-ERR pattern has 16777218 bytes, but must have at most 1000") {
			t.Errorf("%s: %.100q", s.fullName, reply)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s took %v", s.fullName, took)
		}
	}
	if found < 6 {
		t.Errorf("only %d commands take a pattern", found)
	}
}

// One command has up to a million words. Whatever it repeats, the reply, which is made in one piece, must not be many times as long: it would pass
// every bound that the connection has.
func TestNoReplyIsManyTimesItsCommand(t *testing.T) {
	const repeats = 5_000
	w := newWorld(2)
	for _, s := range specs {
		if s == shutdown || s == monitor || s.Flags&FlagBlocking != 0 {
			continue
		}
		for _, word := range []string{"qpushex", "all", "*", "1", "client"} {
			words := append(strings.Fields(s.words()), slices.Repeat([]string{word}, repeats)...)
			reply, _ := w.run(words...)
			if most := 1<<20 + 100*repeats; len(reply) > most {
				t.Errorf("%s with %d times %q answers %d bytes, allowed are %d", s.fullName, repeats, word, len(reply), most)
			}
		}
	}
}
