package commands

// The parser of the queue commands' arguments, driven by their specs: positional arguments first, then options in any
// order and any case, each at most once, then what may repeat. What repeats before the end is counted: the number before it
// says how many words are its own, so none of them is taken for an option. Nothing is allocated but a list of ids, and that for words
// that came, never for a number that was declared. Redis's own commands do not use the parser, since each of them has its own
// wording for what it does not understand.

import (
	"strconv"
	"strings"
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
	// rest are the words of the Multiple argument, ids the same as numbers if its type is integer.
	rest [][]byte
	ids  []uint64
	// counted are the words of the counted block that an option brings, such as HEADERS.
	counted [][]byte
}

// parse tells the call's words apart by its spec and checks each integer against its limits. If one does not fit, it
// answers with an error that has the argument's name, what came and what is allowed, and returns false.
func (c *Call) parse(a *arguments) bool {
	a.spec = c.spec
	words, ok := c.Args[1:], true
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
		case arg.Type == ArgOneOf && arg.Token == "":
			a.chosen[i] = uint8(option)
			if words, ok = a.takeValue(c, i, &arg.Args[option], words); !ok {
				return false
			}
		case arg.Type == ArgBlock && arg.Token != "":
			if words, ok = a.takeBlock(c, arg, words); !ok {
				return false
			}
		case arg.Token != "":
			if words, ok = a.takeValue(c, i, arg, words); !ok {
				return false
			}
		case arg.Counted:
			n := a.ints[i-1]
			if n > int64(len(words))+1 {
				c.argumentErr(tooFew(&a.spec.Args[i-1], n, arg.Name, len(words)+1))
				return false
			}
			start := len(c.Args) - len(words) - 1
			a.rest = c.Args[start : start+int(n)]
			words = words[n-1:]
		case arg.Multiple && arg.Type == ArgInteger:
			if !a.takeID(c, arg, word, len(words)) {
				return false
			}
		case arg.Multiple:
			a.rest = c.Args[len(c.Args)-len(words)-1:]
			return true
		default:
			if !a.take(c, i, arg, word) {
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
		if args[i].Token == "" && !args[i].Optional && (!args[i].Multiple || args[i].Counted) && a.given&(1<<i) == 0 {
			return i, 0 // required ones come first, whatever they look like
		}
	}
	for i := range args {
		if args[i].Token != "" && equalFold(word, args[i].Token) {
			return i, 0
		}
		if args[i].Type != ArgOneOf || args[i].Token != "" {
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
		if args[i].Token == "" && args[i].Type != ArgOneOf && (args[i].Multiple && !args[i].Counted || a.given>>i == 0) {
			return i, 0
		}
	}
	return -1, 0
}

// takeValue keeps what follows an option's token, if anything does, at the place of argument i: arg is that argument, or one of its
// alternatives. It returns the words behind.
func (a *arguments) takeValue(c *Call, i int, arg *Arg, words [][]byte) (rest [][]byte, ok bool) {
	if arg.Type == ArgPureToken {
		return words, true
	}
	if len(words) == 0 {
		c.argumentErr(quote(arg.Token) + " is the last word, but must be followed by " + arg.wants())
		return nil, false
	}
	return words[1:], a.take(c, i, arg, words[0])
}

// takeBlock keeps what follows the token of a counted block: how many there are, and then their words.
func (a *arguments) takeBlock(c *Call, arg *Arg, words [][]byte) (rest [][]byte, ok bool) {
	number, each := &arg.Args[0], arg.Args[1].words()
	if len(words) == 0 {
		c.argumentErr(quote(arg.Token) + " is the last word, but must be followed by " + number.wants())
		return nil, false
	}
	n, ok := parseInteger(words[0])
	if !ok || n < number.Min || n > number.max() {
		c.argumentErr(arg.Token + " " + number.unfit(words[0]))
		return nil, false
	}
	words = words[1:]
	if n > int64(len(words)/each) {
		c.argumentErr(arg.Token + " " + tooFew(number, n, arg.Args[1].syntaxOnce(), len(words)/each))
		return nil, false
	}
	a.counted = words[:n*int64(each)]
	return words[n*int64(each):], true
}

// tooFew says that a number declares more than came.
func tooFew(number *Arg, n int64, what string, came int) string {
	return number.label() + " is " + strconv.FormatInt(n, 10) + ", but only " + strconv.Itoa(came) + " of " + quote(what) + " came; it must be how many follow"
}

// take keeps one value at the place of argument i, after checking it.
func (a *arguments) take(c *Call, i int, arg *Arg, word []byte) bool {
	a.words[i] = word
	ok := true
	switch {
	case arg.Type == ArgInteger:
		a.ints[i], ok = parseInteger(word)
		ok = ok && a.ints[i] >= arg.Min && a.ints[i] <= arg.max()
	case arg.Type == ArgOneOf:
		ok = false
		for j := range arg.Args {
			if equalFold(word, arg.Args[j].Token) {
				a.chosen[i], ok = uint8(j), true
			}
		}
	case arg.BytesMax > 0:
		ok = len(word) > 0 && len(word) <= arg.BytesMax
	}
	if !ok {
		c.argumentErr(arg.unfit(word))
	}
	return ok
}

// takeID adds one of the repeated integers; more is how many words still follow.
func (a *arguments) takeID(c *Call, arg *Arg, word []byte, more int) bool {
	n, ok := parseInteger(word)
	if !ok || n < arg.Min || n > arg.max() {
		c.argumentErr(arg.unfit(word))
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

// unfit says that this word cannot be the argument, and what is allowed. Of a word whose length is wrong it says that.
func (a *Arg) unfit(word []byte) string {
	if a.BytesMax > 0 {
		return a.label() + " has " + strconv.Itoa(len(word)) + " bytes, but must be " + a.wants()
	}
	return a.label() + " is " + quote(string(clip(word))) + ", but must be " + a.wants()
}

// wants says what is allowed.
func (a *Arg) wants() string {
	switch {
	case a.BytesMax > 0:
		return "1 to " + strconv.Itoa(a.BytesMax) + " bytes"
	case a.Type == ArgOneOf:
		return "one of " + strings.Trim(a.syntaxOnce(), "<>")
	case a.Type != ArgInteger:
		return "a " + a.display()
	}
	unit := ""
	if a.Display == "ms" || a.Display == "unix-ms" || a.Name == "ms" {
		unit = " (" + a.display() + ")"
	}
	return "an integer from " + strconv.FormatInt(a.Min, 10) + " to " + strconv.FormatInt(a.max(), 10) + unit
}

// twice says which option came again, or excludes one that came before.
func twice(arg *Arg, word []byte) string {
	if arg.Type != ArgOneOf || arg.Token != "" {
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
