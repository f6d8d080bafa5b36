package commands

import (
	"slices"
	"strings"
)

var commandList = &Spec{
	Name:    "LIST",
	Summary: "List the names of all commands and subcommands",
	Reply:   "array of names.",
	Args: []Arg{{Name: "filterby", Type: ArgOneOf, Token: "FILTERBY", Optional: true, Args: []Arg{
		{Name: "module-name", Token: "MODULE", Text: "There are none."},
		{Name: "category", Token: "ACLCAT"},
		{Name: "pattern", Type: ArgPattern, Token: "PATTERN"},
	}}},
	Flags: FlagLoading | FlagStale,
	Tips:  []string{"nondeterministic_output_order"},
	Run:   runCommandList,
}

func runCommandList(c *Call) {
	words := c.Args[2:]
	chosen := func(*Spec) bool { return true }
	switch {
	case len(words) == 0:
	case len(words) != 3 || !equalFold(words[0], "FILTERBY"):
		c.syntaxErr()
		return
	case equalFold(words[1], "MODULE"):
		chosen = func(*Spec) bool { return false }
	case equalFold(words[1], "ACLCAT"):
		category := strings.ToLower(string(words[2]))
		chosen = func(s *Spec) bool { return slices.Contains(s.categories, category) }
	case equalFold(words[1], "PATTERN"):
		pattern, ok := c.pattern(words[2])
		if !ok {
			return
		}
		pattern = strings.ToLower(pattern)
		chosen = func(s *Spec) bool { return MatchPattern(pattern, s.fullName) }
	default:
		c.syntaxErr()
		return
	}
	var names []string
	for _, s := range specs {
		if chosen(s) {
			names = append(names, s.fullName)
		}
	}
	stringArray(c.W, names)
}
