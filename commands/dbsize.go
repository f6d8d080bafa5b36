package commands

var dbsize = &Spec{
	Name:    "DBSIZE",
	Summary: "Count the queues",
	Group:   GroupKeys,
	Reply:   "integer.",
	Flags:   FlagReadOnly | FlagFast,
	Run:     runDBSize,
}

func runDBSize(c *Call) {
	c.W.Int(int64(c.Env.Queues.Count()))
	c.After(c.Env.Queues.NamesAfter())
}
