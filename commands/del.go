package commands

var del = &Spec{
	Name:    "DEL",
	Summary: "Delete queues: the same as QDEL",
	Group:   GroupKeys,
	Reply:   "integer: how many of them existed.",
	Errors:  []string{"WALERR"},
	Args:    []Arg{{Name: "queue", Type: ArgKey, Multiple: true}},
	Flags:   FlagWrite | FlagKeyDelete,
	Run:     runQDel,
}
