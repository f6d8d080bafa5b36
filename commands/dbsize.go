package commands

var dbsize = &Spec{
	Name:    "DBSIZE",
	Summary: "Count the queues",
	Group:   GroupKeys,
	Reply:   "integer.",
	Flags:   FlagReadOnly | FlagFast,
	Run:     func(c *Call) { c.W.Int(int64(c.Env.Queues.Count())) },
}
