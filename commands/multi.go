package commands

// There are no transactions, but client libraries make them unasked: redis-py's pipeline() sends MULTI, the commands and EXEC in one write and
// looks at the replies afterwards. Were MULTI alone refused, the commands would run as if it had not been there and the library would report an
// error all the same; who repeats the whole after that has everything twice. So what follows a refused MULTI is refused too, up to the EXEC,
// which gets Redis's answer for a transaction with an error in it: libraries then report the first error, MULTI's. Letting MULTI pass and
// running the commands at EXEC was rejected: they would look like a unit and be none.

const (
	errAfterMulti = "not run, since it follows a MULTI that was refused; EXEC or DISCARD ends that"
	errExecAbort  = "Transaction discarded because of previous errors."
)

// runUnknown answers a command that does not exist. MULTI, EXEC and DISCARD are such, but for what MULTI does to those behind it.
func (c *Call) runUnknown() {
	alone := len(c.Args) == 1 // with words behind it, it would not be one for Redis either
	switch name := c.Args[0]; {
	case alone && equalFold(name, "MULTI"):
		c.Conn.SetDiscarding(true)
	case !alone || !c.Conn.Discarding():
	case equalFold(name, "EXEC"):
		c.Conn.SetDiscarding(false)
		c.W.Error("EXECABORT", errExecAbort)
		return
	case equalFold(name, "DISCARD"):
		c.Conn.SetDiscarding(false)
		c.W.OK()
		return
	}
	c.W.Error("ERR", unknownCommand(c.Args))
}

// discarded answers, and returns true, if the call follows a MULTI that was refused.
func (c *Call) discarded() bool {
	if !c.Conn.Discarding() {
		return false
	}
	c.Env.Stats.countRejected(c.spec)
	c.W.Error("ERR", errAfterMulti)
	return true
}
