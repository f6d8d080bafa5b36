package commands

import "strings"

var qconfig = &Spec{
	Name:        "QCONFIG",
	Summary:     "Look at the options of a queue and change them",
	Group:       GroupManaging,
	Reply:       "Depends on the subcommand.",
	Subcommands: []*Spec{qconfigGet, qconfigSet, helpSpec()},
}

var qconfigGet = &Spec{
	Name:    "GET",
	Summary: "Return the options of a queue whose names match a pattern",
	Reply:   "map: name and value, as a string. An option that the queue does not set has the server's default.",
	Errors:  []string{"NOQUEUE", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "pattern", Type: ArgPattern, Optional: true, Text: "As MATCH of QLIST, in any case. Default: all."},
	},
	Flags: FlagReadOnly,
	Run:   runQConfigGet,
}

func runQConfigGet(c *Call) {
	var a arguments
	if !c.parse(&a) {
		return
	}
	pattern := "*"
	if a.has("pattern") {
		p, ok := c.pattern(a.word("pattern"))
		if !ok {
			return
		}
		pattern = strings.ToLower(p)
	}
	all, after, err := c.Env.Queues.Options(a.word("queue"))
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	var chosen [][2]string
	for _, pair := range all {
		if MatchPattern(pattern, pair[0]) {
			chosen = append(chosen, pair)
		}
	}
	c.W.Map(len(chosen))
	for _, pair := range chosen {
		c.W.BulkString(pair[0])
		c.W.BulkString(pair[1])
	}
}

var qconfigSet = &Spec{
	Name:    "SET",
	Summary: "Change options of a queue, all of them or none",
	Reply:   "OK.",
	Notes: []string{
		"What is decided from then on follows the new values: the next pull, the next push, the next failed attempt. Batches that " +
			"are open keep their deadlines, and messages in the queue their delay and TTL.",
	},
	Errors:   []string{"NOQUEUE", "WALERR"},
	Args:     []Arg{{Name: "queue", Type: ArgKey}, optionPairsArg(false)},
	AlsoKeys: func(words [][]byte) []Key { return deadLetterQueueIn(words[3:]) },
	Flags:    FlagWrite,
	Run:      runQConfigSet,
}

func runQConfigSet(c *Call) {
	options, ok := c.queueOptions(c.Args[3:])
	if !ok {
		return
	}
	after, err := c.Env.Queues.Configure(c.Args[2], options)
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.OK()
}
