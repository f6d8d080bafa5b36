package commands

var commandGetKeys = &Spec{
	Name:    "GETKEYS",
	Summary: "Find the queue names in a command's words",
	Reply:   "array of names.",
	Args:    []Arg{{Name: "command"}, {Name: "arg", Optional: true, Multiple: true}},
	Flags:   FlagLoading | FlagStale,
	Run:     func(c *Call) { writeKeysOf(c, false) },
}

var commandGetKeysAndFlags = &Spec{
	Name:    "GETKEYSANDFLAGS",
	Summary: "Find the queue names in a command's words, and what happens to each queue",
	Reply:   "array: for each name an array of the name and its flags.",
	Args:    []Arg{{Name: "command"}, {Name: "arg", Optional: true, Multiple: true}},
	Flags:   FlagLoading | FlagStale,
	Run:     func(c *Call) { writeKeysOf(c, true) },
}

func writeKeysOf(c *Call, withFlags bool) {
	words := c.Args[2:]
	s := Lookup(words[0])
	if s != nil && len(s.Subcommands) > 0 && len(words) > 1 {
		s = s.Subcommand(words[1])
	}
	switch {
	case s == nil:
		c.W.Error("ERR", "Invalid command specified")
		return
	case s.firstKey == 0:
		c.W.Error("ERR", "The command has no key arguments")
		return
	case s.arity >= 0 && len(words) != s.arity, len(words) < -s.arity:
		c.W.Error("ERR", "Invalid number of arguments specified for command")
		return
	}
	keys := s.KeysOf(words)
	c.W.Array(len(keys))
	for _, key := range keys {
		if withFlags {
			c.W.Array(2)
			c.W.Bulk(key.Name)
			simpleSet(c.W, key.Flags, "")
			continue
		}
		c.W.Bulk(key.Name)
	}
}
