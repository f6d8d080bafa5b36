package commands

// A command's spec is data. Its arity, the positions of its keys, its syntax line, COMMAND INFO, COMMAND DOCS, the HELP
// texts, its ACL categories and docs/commands.md are all derived from it here and in the files of those names; nothing about
// a command's shape is said twice.

import (
	"strings"
)

// Spec describes one command, or one subcommand of a container such as CLIENT.
type Spec struct {
	// Name is in upper case; a subcommand's is its own word only: SETNAME.
	Name string
	// Summary is one sentence without a full stop.
	Summary string
	// Group is one of the Group constants; a subcommand has its container's.
	Group Group
	// Since is the version that brought the command; empty means the first one.
	Since string
	// Reply says what comes back, in words, for docs/commands.md.
	Reply string
	// Notes are further paragraphs for docs/commands.md.
	Notes []string
	// Fields documents the reply's map, if it is one with fixed keys.
	Fields []Field
	// Errors are the codes, besides ERR, that the command itself can answer with.
	Errors []string
	Args   []Arg
	Flags  Flags
	// Tips are Redis's command tips, for proxies and clients.
	Tips        []string
	Subcommands []*Spec
	// NamesAll says of a call that it may reach queues that its words do not name, for which the user needs access to all.
	NamesAll func(words [][]byte) bool
	// NamesAllHint tells a user without it what that means and what to do instead.
	NamesAllHint string
	// AlsoKeys finds the queues that a call names in other places than its keys, such as an option's value.
	AlsoKeys func(words [][]byte) []Key
	// Run executes the command. A container may have one too, for the call without a subcommand.
	Run func(*Call)

	// Derived by prepare.
	parent     *Spec
	fullName   string // in lower case, with a bar before a subcommand
	arity      int    // as in Redis: negative means at least
	firstKey   int    // 0 = no key
	lastKey    int    // -1 = up to the end
	optionKeys []*Arg // keys that follow an option's token, beside those
	syntax     string
	categories []string
	ordinal    int // place of its counters in Stats
}

// Field is one key of a reply that is a map.
type Field struct {
	Name string
	Type string
	Doc  string
}

// Group is a chapter of docs/commands.md, and the group in COMMAND DOCS.
type Group string

// The groups, in the order of docs/commands.md.
const (
	GroupProducing  Group = "producing"
	GroupConsuming  Group = "consuming"
	GroupManaging   Group = "managing"
	GroupKeys       Group = "generic"
	GroupConnection Group = "connection"
	GroupServer     Group = "server"
)

// sinceFirst is the version of all commands that name none.
const sinceFirst = "0.1.0"

// Flags are a command's traits, with Redis's meaning and names.
type Flags uint32

// The flags. FlagDangerous and FlagKeyDelete and FlagKeyInsert are not shown as flags: they decide ACL categories and key
// flags.
const (
	FlagWrite Flags = 1 << iota
	FlagReadOnly
	FlagDenyOOM
	FlagAdmin
	FlagNoScript
	FlagBlocking
	FlagLoading
	FlagStale
	FlagFast
	FlagNoAuth
	FlagDangerous
	FlagKeyInsert
	FlagKeyDelete
	// FlagPrompt: the command reads no log and waits for nothing but room for what it pushes, so the goroutine that serves many
	// connections may run it.
	FlagPrompt
	// FlagBorrows: the command keeps nothing of its words, so the bytes of a big one stay the connection's.
	FlagBorrows
)

var flagNames = []struct {
	flag Flags
	name string
}{
	{FlagWrite, "write"},
	{FlagReadOnly, "readonly"},
	{FlagDenyOOM, "denyoom"},
	{FlagAdmin, "admin"},
	{FlagNoScript, "noscript"},
	{FlagBlocking, "blocking"},
	{FlagLoading, "loading"},
	{FlagStale, "stale"},
	{FlagFast, "fast"},
	{FlagNoAuth, "no_auth"},
}

// Names lists the flags in Redis's words.
func (f Flags) Names() []string {
	var names []string
	for _, n := range flagNames {
		if f&n.flag != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

// ArgType is the type of an argument, with Redis's names.
type ArgType uint8

// The argument types.
const (
	ArgString ArgType = iota
	ArgInteger
	ArgKey
	ArgPattern
	ArgPureToken // the token alone, no value
	ArgOneOf     // one of Args
	ArgBlock     // all of Args, in order
)

var argTypeNames = [...]string{"string", "integer", "key", "pattern", "pure-token", "oneof", "block"}

func (t ArgType) String() string { return argTypeNames[t] }

// Arg is one argument of a command. With a Token it is an option: the word, then the value.
type Arg struct {
	Name string
	Type ArgType
	// Token is the option's word, in upper case; empty for a positional argument.
	Token string
	// Display is the value's name in the syntax line, if not Name: the unit of a time.
	Display  string
	Optional bool
	Multiple bool
	// Counted marks a Multiple argument that need not be the last: the integer before it says how many there are.
	Counted bool
	// Min and Max bound an integer, both included; a Max of 0 means integerMax.
	Min, Max int64
	// BytesMax, if not 0, bounds a string, which then has at least one byte.
	BytesMax int
	// Text is what the value means, for docs/commands.md: unit, default.
	Text string
	// Args are the parts of ArgOneOf and ArgBlock.
	Args []Arg
}

// max is the largest value of an integer argument.
func (a *Arg) max() int64 {
	if a.Max == 0 {
		return integerMax
	}
	return a.Max
}

// FullName is the name that error messages, statistics and COMMAND INFO use: client|setname.
func (s *Spec) FullName() string { return s.fullName }

// Arity is the number of words with the command's name, or, if negative, at least its absolute value.
func (s *Spec) Arity() int { return s.arity }

// Keys tells where the keys are among the words: first is 0 if there are none, last is -1 if all words up to the end are. A key
// that follows an option's token is not among them; KeysOf finds it too.
func (s *Spec) Keys() (first, last int) { return s.firstKey, s.lastKey }

// Syntax is the line that shows how to call the command.
func (s *Spec) Syntax() string { return s.syntax }

// Categories are the ACL categories, without the @.
func (s *Spec) Categories() []string { return s.categories }

// isOwn says that Redis has no such command.
func (s *Spec) isOwn() bool { return s.fullName[0] == 'q' && s.Name != "QUIT" }

// usage is the syntax, of a container that of its subcommands.
func (s *Spec) usage() string {
	if len(s.Subcommands) == 0 {
		return s.syntax
	}
	lines := make([]string, 0, len(s.Subcommands))
	for _, sub := range s.Subcommands {
		lines = append(lines, sub.syntax)
	}
	return strings.Join(lines, ", or ")
}

// prepare derives all that follows from the spec's data.
func (s *Spec) prepare(parent *Spec) {
	s.parent = parent
	s.fullName = strings.ToLower(s.Name)
	words := 1
	if parent != nil {
		s.fullName = parent.fullName + "|" + s.fullName
		s.Group = parent.Group
		words = 2
	}
	if s.Since == "" {
		s.Since = sinceFirst
	}
	s.arity, s.firstKey, s.lastKey = layout(s.Args, words)
	for i := range s.Args {
		if a := &s.Args[i]; a.Type == ArgKey && a.Token != "" {
			s.optionKeys = append(s.optionKeys, a)
		}
	}
	if len(s.Subcommands) > 0 && s.Run == nil {
		s.arity = -2
	}
	if len(s.Subcommands) > 0 && s.Run != nil {
		s.arity = -1
	}
	s.syntax = strings.ReplaceAll(strings.ToUpper(s.fullName), "|", " ")
	for i := range s.Args {
		s.syntax += " " + s.Args[i].syntax()
	}
	s.categories = categories(s)
	for _, sub := range s.Subcommands {
		sub.prepare(s)
	}
}

// layout counts words: arity as Redis tells it, and where the keys are.
func layout(args []Arg, words int) (arity, firstKey, lastKey int) {
	least, exact := words, true
	for i := range args {
		a := &args[i]
		if a.Type == ArgKey && a.Token == "" && firstKey == 0 {
			firstKey, lastKey = least, least
			if a.Multiple {
				lastKey = -1
			}
		}
		if a.varies() {
			exact = false
		}
		if !a.Optional {
			least += a.words()
		}
	}
	if exact {
		return least, firstKey, lastKey
	}
	return -least, firstKey, lastKey
}

// varies reports whether the argument can take another number of words than words tells.
func (a *Arg) varies() bool {
	if a.Optional || a.Multiple {
		return true
	}
	for i := range a.Args {
		if a.Args[i].varies() || a.Type == ArgOneOf && a.Args[i].words() != a.Args[0].words() {
			return true
		}
	}
	return false
}

// words is the least number of words that the argument takes.
func (a *Arg) words() int {
	n := 0
	if a.Token != "" {
		n++
	}
	switch a.Type {
	case ArgPureToken:
	case ArgOneOf:
		n += a.Args[0].words()
	case ArgBlock:
		for i := range a.Args {
			if !a.Args[i].Optional {
				n += a.Args[i].words()
			}
		}
	default:
		n++
	}
	return n
}

// syntax writes the argument as Redis's documentation does: [TTL ms], body [body ...], <ON | OFF>.
func (a *Arg) syntax() string {
	once := a.syntaxOnce()
	text := once
	if a.Token != "" && a.Type != ArgPureToken {
		text = a.Token + " " + once
	}
	if a.Multiple {
		text += " [" + once + " ...]"
	}
	switch {
	case !a.Optional:
		return text
	case a.Type == ArgOneOf && a.Token == "" && !a.Multiple:
		return "[" + text[1:len(text)-1] + "]" // [A | B], not [<A | B>]
	}
	return "[" + text + "]"
}

func (a *Arg) syntaxOnce() string {
	parts := make([]string, len(a.Args))
	for i := range a.Args {
		parts[i] = a.Args[i].syntax()
	}
	switch a.Type {
	case ArgPureToken:
		return a.Token
	case ArgOneOf:
		return "<" + strings.Join(parts, " | ") + ">"
	case ArgBlock:
		return strings.Join(parts, " ")
	default:
		return a.display()
	}
}

func (a *Arg) display() string {
	if a.Display != "" {
		return a.Display
	}
	return a.Name
}

// categories are derived from flags and group by Redis's own rules, with queue for what works on queues.
func categories(s *Spec) []string {
	var names []string
	add := func(is bool, name string) {
		if is {
			names = append(names, name)
		}
	}
	queues := s.Group == GroupProducing || s.Group == GroupConsuming || s.Group == GroupManaging
	add(s.Group == GroupKeys, "keyspace")
	add(s.Flags&FlagReadOnly != 0, "read")
	add(s.Flags&FlagWrite != 0, "write")
	add(queues || s.Group == GroupKeys, "queue")
	add(s.Group == GroupProducing, "produce")
	add(s.Group == GroupConsuming, "consume")
	add(s.Flags&FlagFast != 0, "fast")
	add(s.Flags&FlagFast == 0, "slow")
	add(s.Flags&FlagBlocking != 0, "blocking")
	add(s.Flags&FlagAdmin != 0, "admin")
	add(s.Flags&(FlagAdmin|FlagDangerous) != 0, "dangerous")
	add(s.Group == GroupConnection, "connection")
	return names
}

// keyFlags say what a command does to its keys, in the words of Redis's key specifications.
func (s *Spec) keyFlags() []string {
	switch {
	case s.Flags&FlagKeyDelete != 0:
		return []string{"RM", "delete"}
	case s.Flags&FlagKeyInsert != 0:
		return []string{"RW", "insert"}
	case s.Flags&FlagWrite != 0:
		return []string{"RW", "access", "update"}
	default:
		return []string{"RO", "access"}
	}
}
