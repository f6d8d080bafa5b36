package commands

var qpause = &Spec{
	Name:    "QPAUSE",
	Summary: "Stop a queue's producers, its consumers, or both",
	Group:   GroupManaging,
	Reply:   "OK, also if it is paused already.",
	Notes: []string{
		"Pushing to a paused queue gets `-PAUSED`. So does QCONSUME without BLOCK; with it, it waits for QRESUME. Open batches can be acknowledged and " +
			"given back as ever, and delays, leases and locks run on. A pause survives a restart.",
	},
	Errors: []string{"NOQUEUE", "WALERR"},
	Args:   []Arg{{Name: "queue", Type: ArgKey}, sideArg},
	Flags:  FlagWrite,
	Run:    func(c *Call) { setPause(c, true) },
}

// sideArg is the side of a queue that is meant.
var sideArg = Arg{Name: "side", Type: ArgOneOf, Optional: true, Text: "Default: both sides.", Args: []Arg{
	{Name: "push", Type: ArgPureToken, Token: "PUSH"},
	{Name: "consume", Type: ArgPureToken, Token: "CONSUME"},
}}

// setPause pauses the sides that the call names, or resumes them.
func setPause(c *Call, pause bool) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	side := a.choice("side")
	after, err := c.Env.Queues.Pause(a.word("queue"), pause, side != "CONSUME", side != "PUSH")
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.OK()
}
