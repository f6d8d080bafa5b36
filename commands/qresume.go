package commands

var qresume = &Spec{
	Name:    "QRESUME",
	Summary: "End a pause of a queue's producers, its consumers, or both",
	Group:   GroupManaging,
	Reply:   "OK, also if nothing is paused.",
	Notes:   []string{"Consumers that wait get their messages at once."},
	Errors:  []string{"NOQUEUE", "WALERR"},
	Args:    []Arg{{Name: "queue", Type: ArgKey}, sideArg},
	Flags:   FlagWrite,
	Run:     func(c *Call) { setPause(c, false) },
}
