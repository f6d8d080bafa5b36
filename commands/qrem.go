package commands

var qrem = &Spec{
	Name:    "QREM",
	Summary: "Remove single messages",
	Group:   GroupManaging,
	Reply:   "integer: how many were removed. Leased messages stay; ids that are not there count nothing.",
	Errors:  []string{"NOQUEUE", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "id", Type: ArgInteger, Min: 1, Multiple: true},
	},
	Flags: FlagWrite,
	Run:   runQRem,
}

func runQRem(c *Call) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	n, after, err := c.Env.Queues.Remove(a.word("queue"), a.ids)
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.Int(int64(n))
}
