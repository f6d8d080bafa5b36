package commands

// The parser of the queue commands' arguments, driven by their specs: positional arguments first, then options in any
// order and any case, each at most once, then what may repeat. Nothing is allocated but a list of ids. Redis's own commands
// do not use it, since each of them has its own wording for what it does not understand.

import (
	"strconv"
	"unicode"
	"unicode/utf8"
)

// argsMax is the highest number of arguments in a spec that parse can fill; the table's check refuses more.
const argsMax = 12

// arguments are the words of one call, told apart.
type arguments struct {
	spec *Spec
	// given has bit i set if spec.Args[i] came; chosen holds, for a OneOf, which.
	given  uint32
	chosen [argsMax]uint8
	words  [argsMax][]byte
	ints   [argsMax]int64
	// rest are the words of the Multiple argument at the end, ids the same as numbers if its type is integer.
	rest [][]byte
	ids  []uint64
}

// parse tells the call's words apart by its spec and checks each integer against its limits. If one does not fit, it
// answers with an error that has the argument's name, what came and what is allowed, and returns false.
func (c *Call) parse(a *arguments) bool {
	a.spec = c.spec
	words := c.Args[1:]
	if c.spec.parent != nil {
		words = c.Args[2:]
	}
	for len(words) > 0 {
		word := words[0]
		i, option := a.next(word)
		if i < 0 {
			c.argumentErr(a.expected(word))
			return false
		}
		arg := &c.spec.Args[i]
		if a.given&(1<<i) != 0 && !arg.Multiple {
			c.argumentErr(twice(arg, word))
			return false
		}
		a.given |= 1 << i
		words = words[1:]
		switch {
		case arg.Type == ArgOneOf:
			a.chosen[i] = uint8(option)
		case arg.Type == ArgPureToken:
		case arg.Token != "":
			if len(words) == 0 {
				c.argumentErr(quote(arg.Token) + " is the last word, but must be followed by " + arg.wants())
				return false
			}
			word, words = words[0], words[1:]
			if !a.take(c, i, word) {
				return false
			}
		case arg.Multiple && arg.Type == ArgInteger:
			if !a.takeID(c, arg, word, len(words)) {
				return false
			}
		case arg.Multiple:
			a.rest = c.Args[len(c.Args)-len(words)-1:]
			return true
		default:
			if !a.take(c, i, word) {
				return false
			}
		}
	}
	return true
}

// next finds the argument that a word begins: an option by its token, otherwise the first positional one that is still to
// come. For a OneOf, option is which one. -1 means that nothing fits.
func (a *arguments) next(word []byte) (i, option int) {
	args := a.spec.Args
	for i := range args {
		if args[i].Token == "" && !args[i].Optional && !args[i].Multiple && a.given&(1<<i) == 0 {
			return i, 0 // required ones come first, whatever they look like
		}
	}
	for i := range args {
		if args[i].Token != "" && equalFold(word, args[i].Token) {
			return i, 0
		}
		if args[i].Type != ArgOneOf {
			continue
		}
		for j := range args[i].Args {
			if equalFold(word, args[i].Args[j].Token) {
				return i, j
			}
		}
	}
	for i := range args {
		// An optional positional argument, such as a cursor, must come before all that follow it in the spec.
		if args[i].Token == "" && args[i].Type != ArgOneOf && (args[i].Multiple || a.given>>i == 0) {
			return i, 0
		}
	}
	return -1, 0
}

// take keeps one value, after checking it if it is an integer.
func (a *arguments) take(c *Call, i int, word []byte) bool {
	arg := &a.spec.Args[i]
	a.words[i] = word
	if arg.Type != ArgInteger {
		return true
	}
	n, ok := parseInteger(word)
	if !ok || n < arg.Min || n > arg.max() {
		c.argumentErr(arg.label() + " is " + quote(string(clip(word))) + ", but must be " + arg.wants())
		return false
	}
	a.ints[i] = n
	return true
}

// takeID adds one of the repeated integers; more is how many words still follow.
func (a *arguments) takeID(c *Call, arg *Arg, word []byte, more int) bool {
	n, ok := parseInteger(word)
	if !ok || n < arg.Min || n > arg.max() {
		c.argumentErr(arg.label() + " is " + quote(string(clip(word))) + ", but must be " + arg.wants())
		return false
	}
	if a.ids == nil {
		a.ids = make([]uint64, 0, more+1)
	}
	a.ids = append(a.ids, uint64(n))
	return true
}

// index finds an argument by its name in the spec. A name that is not there is a mistake in this package.
func (a *arguments) index(name string) int {
	for i := range a.spec.Args {
		if a.spec.Args[i].Name == name {
			return i
		}
	}
	panic("commands: " + a.spec.fullName + " has no argument " + name)
}

// has reports whether the argument came.
func (a *arguments) has(name string) bool { return a.given&(1<<a.index(name)) != 0 }

// integer is the argument's value, or otherwise if it did not come.
func (a *arguments) integer(name string, otherwise int64) int64 {
	i := a.index(name)
	if a.given&(1<<i) == 0 {
		return otherwise
	}
	return a.ints[i]
}

// word is the argument's bytes, nil if it did not come.
func (a *arguments) word(name string) []byte { return a.words[a.index(name)] }

// choice is which token of a OneOf came, empty if none.
func (a *arguments) choice(name string) string {
	i := a.index(name)
	if a.given&(1<<i) == 0 {
		return ""
	}
	return a.spec.Args[i].Args[a.chosen[i]].Token
}

func (c *Call) argumentErr(message string) { c.W.Error("ERR", message) }

// label is the argument's name in an error: its token if it has one.
func (a *Arg) label() string {
	if a.Token != "" {
		return a.Token
	}
	return a.Name
}

// wants says what is allowed.
func (a *Arg) wants() string {
	if a.Type != ArgInteger {
		return "a " + a.display()
	}
	unit := ""
	if a.Display == "ms" || a.Name == "ms" {
		unit = " (ms)"
	}
	return "an integer from " + strconv.FormatInt(a.Min, 10) + " to " + strconv.FormatInt(a.max(), 10) + unit
}

// twice says which option came again, or excludes one that came before.
func twice(arg *Arg, word []byte) string {
	if arg.Type != ArgOneOf {
		return arg.Token + " is given twice, but may come at most once"
	}
	list := ""
	for i := range arg.Args {
		if i > 0 {
			list += " and "
		}
		list += arg.Args[i].Token
	}
	return quote(string(clip(word))) + " is one too many: of " + list + " only one may come, and only once"
}

// expected says what could have stood where word stands.
func (a *arguments) expected(word []byte) string {
	options := ""
	for i := range a.spec.Args {
		arg := &a.spec.Args[i]
		if !arg.Optional || a.given&(1<<i) != 0 || arg.Token == "" && arg.Type != ArgOneOf {
			continue
		}
		if options != "" {
			options += ", "
		}
		options += arg.syntaxBare()
	}
	if options == "" {
		return quote(string(clip(word))) + " is one word too many: " + a.spec.syntax
	}
	return quote(string(clip(word))) + " is not an option of " + a.spec.Name + ", which takes " + options
}

// syntaxBare is the argument's syntax without the brackets of an optional one.
func (a *Arg) syntaxBare() string {
	bare := *a
	bare.Optional = false
	return bare.syntax()
}

// parseInteger reads a whole number below 2^53 as Redis does: digits only, a minus sign in front at most, no leading zero.
func parseInteger(word []byte) (n int64, ok bool) {
	negative := len(word) > 0 && word[0] == '-'
	if negative {
		word = word[1:]
	}
	if len(word) == 0 || len(word) > 16 || (word[0] == '0' && (len(word) > 1 || negative)) {
		return 0, false
	}
	for _, d := range word {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + int64(d-'0')
	}
	if n > integerMax {
		return 0, false
	}
	if negative {
		n = -n
	}
	return n, true
}

// clip cuts a client's word to what an error repeats of it.
func clip(word []byte) []byte {
	if len(word) > errorEchoBytesMax {
		return word[:errorEchoBytesMax]
	}
	return word
}

// quote puts a word into single quotes, with everything that is not printable escaped.
func quote(word string) string {
	out := make([]byte, 0, len(word)+2)
	out = append(out, '\'')
	for len(word) > 0 {
		r, size := utf8.DecodeRuneInString(word)
		switch {
		case r == utf8.RuneError && size == 1, !unicode.IsPrint(r):
			for _, b := range []byte(word[:size]) {
				out = append(out, '\\', 'x', hexDigits[b>>4], hexDigits[b&15])
			}
		default:
			out = append(out, word[:size]...)
		}
		word = word[size:]
	}
	return string(append(out, '\''))
}

const hexDigits = "0123456789abcdef"

// equalFold compares a word with a token in upper case, ASCII letters in any case.
func equalFold(word []byte, token string) bool {
	if len(word) != len(token) {
		return false
	}
	for i, b := range word {
		if 'a' <= b && b <= 'z' {
			b -= 'a' - 'A'
		}
		if b != token[i] {
			return false
		}
	}
	return true
}
