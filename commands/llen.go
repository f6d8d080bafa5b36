package commands

var llen = &Spec{
	Name:    "LLEN",
	Summary: "Count a queue's messages: the same as QLEN",
	Group:   GroupKeys,
	Reply:   "integer.",
	Errors:  []string{"WALERR"},
	Args:    []Arg{{Name: "queue", Type: ArgKey}},
	Flags:   FlagReadOnly | FlagFast | FlagPrompt,
	Run:     runQLen,
}
