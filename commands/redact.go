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
		if strings.IndexAny(words[2], "><#!") == 0 { // the name was forgotten
			hide(2, 3)
		}
		hide(3, len(words))
	case hello:
		hide(helloShown(words), len(words))
	case configSet:
		// A password's name may be misspelt, or a value be missing before it, so that names and values change places.
		for i := 2; i < len(words); i++ {
			if c.Env.Settings.Secret(words[i]) {
				hide(i+1, len(words))
				break
			}
			if i%2 == 0 && !c.Env.Settings.Known(words[i]) {
				hide(i, i+2)
			}
		}
	}
}

// helloShown is how many words of HELLO may be shown: the version, names that follow SETNAME, the word AUTH, and nothing behind it nor behind what
// does not read so, such as a user's name where AUTH was forgotten.
func helloShown(words []string) int {
	i := 1
	if i < len(words) {
		if _, ok := parseInteger([]byte(words[i])); ok {
			i++
		}
	}
	for i+1 < len(words) && strings.EqualFold(words[i], "SETNAME") {
		i += 2
	}
	if i < len(words) && strings.EqualFold(words[i], "AUTH") {
		i++
	}
	return i
}

// bodies tells which words are messages, or say something of a message's content.
func (s *Spec) bodies(words [][]byte) (from, until int) {
	switch s {
	case qpush:
		return 2, len(words)
	case qpushex:
		if _, ok := parseInteger(words[2]); !ok {
			return 2, len(words) // the count was forgotten
		}
		return 3, len(words) // with the options behind the bodies, which hold headers
	case commandGetKeys, commandGetKeysAndFlags:
		if Lookup(words[2]) == nil {
			return 2, len(words)
		}
		return 3, len(words) // they may be any command's
	case aclDryRun:
		return 4, len(words)
	}
	return 0, 0
}
