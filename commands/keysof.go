package commands

// Which of a command's words are keys: what ACL patterns look at, and COMMAND GETKEYS answers with.

// Key is a queue's name among the words of a command.
type Key struct {
	Name []byte
	// Flags say what the command does to the queue, in the words of Redis's key specifications.
	Flags []string
}

// optionKeyFlags are those of a key that follows an option's token.
var optionKeyFlags = []string{"RW", "insert"}

// KeysOf lists the keys among the words of one call, which has as many words as the command needs; the words begin with the
// command's name. An option is found by its token as Redis finds it: the first such word behind the last fixed key.
func (s *Spec) KeysOf(words [][]byte) []Key {
	if s.firstKey == 0 {
		return nil
	}
	last := s.lastKey
	if last < 0 {
		last = len(words) - 1
	}
	var keys []Key
	for _, name := range words[s.firstKey : last+1] {
		keys = append(keys, Key{name, s.keyFlags()})
	}
	for _, option := range s.optionKeys {
		for i := last + 1; i+1 < len(words); i++ {
			if equalFold(words[i], option.Token) {
				keys = append(keys, Key{words[i+1], optionKeyFlags})
				break
			}
		}
	}
	return keys
}
