package commands

var qdel = &Spec{
	Name:    "QDEL",
	Summary: "Delete queues with all their messages",
	Group:   GroupManaging,
	Reply:   "integer: how many of them existed.",
	Notes: []string{
		"Messages and files are gone, leased messages too. A consumer that waits gets `-NOQUEUE`. A late acknowledgement gets " +
			"`-NOQUEUE`, or `-NOBATCH` if a queue of that name was made again.",
	},
	Errors: []string{"WALERR"},
	Args:   []Arg{{Name: "queue", Type: ArgKey, Multiple: true}},
	Flags:  FlagWrite | FlagKeyDelete,
	Run:    runQDel,
}

// runQDel deletes one queue after the other. If one fails, the reply is its error, though others before it are gone: a
// client that repeats the call loses nothing by that.
func runQDel(c *Call) {
	existing := int64(0)
	for _, name := range c.Args[1:] {
		existed, after, err := c.Env.Queues.Delete(name)
		c.After(after)
		if err != nil {
			c.ReplyErr(err)
			return
		}
		if existed {
			existing++
		}
	}
	c.W.Int(existing)
}
