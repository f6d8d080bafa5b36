// Package settings holds what a server can be told: one table, one line a setting (table.go). Flags, environment,
// configuration file, CONFIG GET and SET, and docs/config.md all read that table, so none of them can know a setting
// that the others do not.
package settings

// What a setting is: its name and its bounds, and the typed handles by which code reads it. A handle is made by the
// table's own line, so a misspelt setting or one read as the wrong type does not compile.

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is how a setting's text is read and shown.
type Kind uint8

// The kinds. Integers are whole numbers within Min and Max; sizes may be written 16kb, 1mb; times are whole
// milliseconds; switches are yes or no.
const (
	KindInt Kind = iota
	KindBytes
	KindMillis
	KindBool
	KindText
	KindChoice
)

func (k Kind) String() string {
	return [...]string{"number", "bytes", "milliseconds", "yes or no", "text", "choice"}[k]
}

// Setting is one line of the table.
type Setting struct {
	// Name is what it is called everywhere: --name, QUAIL_NAME (with underscores), name: in the file, CONFIG GET name.
	Name string
	// Group gathers settings of one subject in the help text and in docs/config.md.
	Group string
	Kind  Kind
	// Default is the value if nobody gives one, in the form in which a person would write it.
	Default string
	// Min and Max bound numbers, sizes and times, both included.
	Min, Max int64
	// Choices are the allowed words of a KindChoice.
	Choices []string
	// Unit is what a KindInt counts, for the docs: "clients", "arguments".
	Unit string
	// Doc says what it does and when to change it, in a sentence or two.
	Doc string
	// Live says that CONFIG SET may change it while the server runs.
	Live bool
	// Secret values are shown by no one: not CONFIG GET, not a log line, not an error.
	Secret bool

	index int                     // place in the table and in Values
	check func(text string) error // further rules of a text
}

// Handles: a setting with the type of its value.
type (
	// Int is a setting with a whole number as its value.
	Int struct{ *Setting }
	// Bytes is a setting with a size in bytes as its value.
	Bytes struct{ *Setting }
	// Millis is a setting with a time in milliseconds as its value.
	Millis struct{ *Setting }
	// Bool is a setting that is on or off.
	Bool struct{ *Setting }
	// Text is a setting with a text as its value, free or one of a few words.
	Text struct{ *Setting }
)

// table is filled by the declarations of table.go, in the order in which they stand there, and never changes after.
var table []*Setting

// byName finds a setting by its name in lower case.
var byName = map[string]*Setting{}

// All lists every setting, in the table's order. The slice is the caller's; the settings are not to be changed.
func All() []*Setting { return slices.Clone(table) }

// Lookup finds a setting by its name, in any case; nil if there is none.
func Lookup(name string) *Setting { return byName[strings.ToLower(name)] }

// Env is the name of the environment variable that sets it.
func (s *Setting) Env() string {
	return "QUAIL_" + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
}

// Allowed says which values the setting takes, for errors and docs.
func (s *Setting) Allowed() string {
	switch s.Kind {
	case KindInt:
		return fmt.Sprintf("a whole number from %d to %d", s.Min, s.Max)
	case KindBytes:
		return fmt.Sprintf("a size from %s to %s, such as 4096, 16kb or 1mb", FormatBytes(s.Min), FormatBytes(s.Max))
	case KindMillis:
		return fmt.Sprintf("whole milliseconds from %d to %d", s.Min, s.Max)
	case KindBool:
		return "yes or no"
	case KindChoice:
		return "one of " + strings.Join(s.Choices, ", ")
	default:
		return "text"
	}
}

// Error tells which setting cannot be what it was told to be, what came, and what is allowed.
type Error struct {
	// Name is the setting as it was written.
	Name string
	// Unknown says that there is no such setting, and Meant which one may have been meant, if any.
	Unknown bool
	Meant   string
	// Reason is all but the name. It never holds a secret.
	Reason string
}

func (e *Error) Error() string { return e.Name + ": " + e.Reason }

// misfit makes the error for a value that does not fit; rule is what is allowed, if it is not just the setting's range.
func (s *Setting) misfit(got, rule string) *Error {
	if rule == "" {
		rule = "allowed is " + s.Allowed()
	}
	if s.Secret {
		return &Error{Name: s.Name, Reason: "the value does not fit; " + rule}
	}
	return &Error{Name: s.Name, Reason: fmt.Sprintf("got %q; %s", got, rule)}
}

// meant is the setting that may have been meant by a name that is none, or "".
func meant(name string) string {
	best, bestDistance := "", min(3, len(name)/3+1) // more than two slips of the finger is another word, and so is one in which every second letter is wrong
	for _, s := range table {
		if d := distance(strings.ToLower(name), s.Name); d < bestDistance {
			best, bestDistance = s.Name, d
		}
	}
	return best
}

// unknown makes the error for a name that is no setting, with the one that may have been meant.
func unknown(name string) *Error {
	best := meant(name)
	if best == "" {
		return &Error{Name: name, Unknown: true, Reason: "there is no such setting; CONFIG GET * and docs/config.md list all"}
	}
	return &Error{Name: name, Unknown: true, Meant: best, Reason: "there is no such setting; was " + best + " meant?"}
}

// distance is how many letters must be put in, left out or exchanged to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
