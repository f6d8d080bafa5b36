package commands

var selectDB = &Spec{
	Name:    "SELECT",
	Summary: "Choose the database: there is only 0",
	Group:   GroupConnection,
	Reply:   "OK for 0, an error for any other.",
	Args:    []Arg{{Name: "index", Type: ArgInteger}},
	Flags:   FlagFast | FlagLoading | FlagStale,
	Run:     runSelect,
}

func runSelect(c *Call) {
	n, ok := parseInteger(c.Args[1])
	switch {
	case !ok || n < -1<<31 || n >= 1<<31:
		c.W.Error("ERR", errNotInteger)
	case n != 0:
		c.W.Error("ERR", "DB index is out of range")
	default:
		c.W.OK()
	}
}
