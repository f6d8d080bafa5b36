package commands

var qbackup = &Spec{
	Name:    "QBACKUP",
	Summary: "Copy all queues into a new directory while the server works",
	Group:   GroupServer,
	Reply: "map: directory; queues, how many it holds; bytes; damaged, how many queues' logs are damaged and were copied as they are; " +
		"ms, how long it took.",
	Notes: []string{
		"All that was acknowledged before the command came is in the backup, and all queues are as at one moment. The reply comes when it is " +
			"whole and synced; until then the directory has another name, which ends in `.partial`. Commands of other connections go on. " +
			"A server is restored by starting one on the directory, or on a copy of it.",
		"The directory is one on the server's machine, an absolute path. It must not exist, and the directory that it is in must.",
	},
	Errors: []string{"ERR", "WALERR"},
	Args:   []Arg{{Name: "directory"}},
	Flags:  FlagAdmin | FlagNoScript,
	Run:    runQBackup,
}

// runQBackup holds up this connection alone.
func runQBackup(c *Call) {
	directory := string(c.Args[1])
	report, err := c.Env.Queues.Backup(directory)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.Map(5)
	c.W.BulkString("directory")
	c.W.BulkString(directory)
	for _, field := range []struct {
		name  string
		value int64
	}{
		{"queues", int64(report.Queues)}, {"bytes", report.Bytes}, {"damaged", int64(report.Damaged)}, {"ms", report.Duration.Milliseconds()},
	} {
		c.W.BulkString(field.name)
		c.W.Int(field.value)
	}
}
