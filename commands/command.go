package commands

// COMMAND: the table, told to clients and proxies in the shapes of Redis 7. Each shape is derived from the specs.

var command = &Spec{
	Name:    "COMMAND",
	Summary: "Describe the server's commands",
	Group:   GroupServer,
	Reply:   "array: without a subcommand, every command as in COMMAND INFO.",
	Flags:   FlagLoading | FlagStale,
	Tips:    []string{"nondeterministic_output_order"},
	Subcommands: []*Spec{
		commandCount,
		commandDocs,
		commandGetKeys,
		commandGetKeysAndFlags,
		commandInfo,
		commandList,
		helpSpec(),
	},
	Run: func(c *Call) { writeInfoOfAll(c) },
}

var commandCount = &Spec{
	Name:    "COUNT",
	Summary: "Count the commands",
	Reply:   "integer; subcommands do not count.",
	Flags:   FlagLoading | FlagStale,
	Run:     func(c *Call) { c.W.Int(int64(len(table))) },
}
