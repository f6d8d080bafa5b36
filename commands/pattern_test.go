package commands

import (
	"strings"
	"testing"
)

func TestMatchPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true}, {"*", "abc", true}, {"", "", true}, {"", "a", false}, {"a", "", false},
		{"abc", "abc", true}, {"abc", "abd", false}, {"abc", "ABC", false},
		{"a?c", "abc", true}, {"a?c", "ac", false},
		{"a*c", "ac", true}, {"a*c", "abbbc", true}, {"a*c", "abbb", false}, {"*.dead", "orders.dead", true}, {"**a**", "bab", true},
		{"[abc]x", "bx", true}, {"[abc]x", "dx", false}, {"[^abc]x", "dx", true}, {"[^abc]x", "ax", false},
		{"[a-c]", "b", true}, {"[c-a]", "b", true}, {"[a-c]", "d", false}, {"[abc", "c", true}, {"[", "x", false},
		{"[^", "x", true}, {`[\]]`, "]", true}, {`[\-a]`, "-", true},
		{`\*`, "*", true}, {`\*`, "a", false}, {`a\`, `a\`, true}, {`\a`, "a", true},
		{"ü*", "über", true}, {"*[0-9]", "orders-7", true}, {"*[0-9]", "orders-x", false},
	} {
		if got := MatchPattern(c.pattern, c.name); got != c.want {
			t.Errorf("%q and %q: %v", c.pattern, c.name, got)
		}
	}
}

// Without care this pattern takes longer than the universe is old, and one client stops the server.
func TestMatchPatternIsNotSlow(t *testing.T) {
	if MatchPattern(strings.Repeat("a*", 500)+"b", strings.Repeat("a", 5000)) {
		t.Error("it matches")
	}
}

func FuzzMatchPattern(f *testing.F) {
	f.Add("a*[b-d]?\\x", "abc")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		MatchPattern(pattern, name)
		if !strings.ContainsAny(pattern, `*?[\`) && MatchPattern(pattern, name) != (pattern == name) {
			t.Errorf("%q and %q", pattern, name)
		}
	})
}
