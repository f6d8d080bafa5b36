package commands

// What of a command may be shown to others, in SLOWLOG and MONITOR: no password, and of a message only how long it is.

import (
	"fmt"
	"strings"
)

const (
	redacted = "(redacted)"

	// shownWordsMax and shownWordBytesMax bound what is shown; the words as in Redis's SLOWLOG, and a queue's name fits.
	shownWordsMax     = 32
	shownWordBytesMax = 256
)

// shown gives the words of a call as they may be shown; of the call itself nothing is kept or changed.
func (c *Call) shown() []string {
	args, rest := c.Args, 0
	if len(args) > shownWordsMax {
		rest = len(args) - shownWordsMax + 1
		args = args[:shownWordsMax-1]
	}
	words := make([]string, len(args), len(args)+1)
	bodies, until := c.spec.bodies(c.Args)
	for i, word := range args {
		switch {
		case i >= bodies && i < until:
			words[i] = fmt.Sprintf("(%d bytes)", len(word))
		case len(word) > shownWordBytesMax:
			words[i] = fmt.Sprintf("%s... (%d more bytes)", word[:shownWordBytesMax], len(word)-shownWordBytesMax)
		default:
			words[i] = string(word)
		}
	}
	c.hideSecrets(words)
	if rest > 0 {
		words = append(words, fmt.Sprintf("... (%d more arguments)", rest))
	}
	return words
}

func (c *Call) hideSecrets(words []string) {
	hide := func(from, until int) {
		for i := from; i < min(until, len(words)); i++ {
			words[i] = redacted
		}
	}
	switch c.spec {
	case auth:
		hide(1, len(words))
	case aclSetUser:
		hide(3, len(words))
	case hello:
		for i := 2; i < len(words); i++ {
			if strings.EqualFold(words[i], "AUTH") {
				hide(i+1, i+3)
				break
			}
		}
	case configSet:
		for i := 2; i+1 < len(words); i += 2 {
			if c.Env.Settings.Secret(words[i]) {
				hide(i+1, i+2)
			}
		}
	}
}

// bodies tells which words are messages, or say something of a message's content.
func (s *Spec) bodies(words [][]byte) (from, until int) {
	switch s {
	case qpush:
		return 2, len(words)
	case qpushex:
		return 3, len(words) // with the options behind the bodies, which hold headers
	}
	return 0, 0
}
