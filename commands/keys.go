package commands

var keys = &Spec{
	Name:    "KEYS",
	Summary: "List the names of all queues that match a pattern",
	Group:   GroupKeys,
	Reply:   "array of names, sorted. QLIST answers in pages instead.",
	Args:    []Arg{{Name: "pattern", Type: ArgPattern, Text: "As MATCH of QLIST."}},
	Flags:   FlagReadOnly | FlagDangerous,
	Run:     runKeys,
}

func runKeys(c *Call) {
	pattern, ok := c.pattern(c.Args[1])
	if !ok {
		return
	}
	var matching []string
	for _, name := range c.names() {
		if MatchPattern(pattern, name) {
			matching = append(matching, name)
		}
	}
	stringArray(c.W, matching)
}
