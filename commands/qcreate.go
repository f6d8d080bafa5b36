package commands

import (
	"strings"

	"quail/queue/machine"
)

var qcreate = &Spec{
	Name:    "QCREATE",
	Summary: "Make a queue with options",
	Group:   GroupManaging,
	Reply:   "OK, also if the queue is there with the same options.",
	Notes: []string{
		"An option that is not given has the server's default, now and when that default changes later. Sizes may be written " +
			"as 16kb or 1mb.",
	},
	Errors: []string{"EXISTS", "QFULL", "WALERR"},
	Args: []Arg{
		{Name: "queue", Type: ArgKey},
		{Name: "options", Type: ArgBlock, Optional: true, Multiple: true, Args: []Arg{
			{Name: "option", Text: "One of the queue options below."},
			{Name: "value"},
		}},
	},
	Flags: FlagWrite | FlagKeyInsert,
	Run:   runQCreate,
}

func runQCreate(c *Call) {
	var options machine.Options
	pairs := c.Args[2:]
	if len(pairs)%2 != 0 {
		c.argumentErr("option " + quote(string(clip(pairs[len(pairs)-1]))) + " has no value; options come in pairs: " + c.spec.syntax)
		return
	}
	for i := 0; i < len(pairs); i += 2 {
		name := strings.ToLower(string(pairs[i]))
		if _, known := machine.OptionByName(name); !known {
			c.argumentErr(unknownOption(pairs[i]))
			return
		}
		if err := options.Set(name, string(pairs[i+1])); err != nil {
			c.argumentErr(err.Error())
			return
		}
		// Known names only come this far, so the pairs before this one are few.
		for j := 0; j < i; j += 2 {
			if strings.EqualFold(string(pairs[j]), name) {
				c.argumentErr("option " + quote(name) + " is given twice, but may come at most once")
				return
			}
		}
	}
	after, err := c.Env.Queues.Create(c.Args[1], options)
	c.After(after)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.OK()
}

func unknownOption(word []byte) string {
	list := make([]string, len(machine.Specs))
	for i := range machine.Specs {
		list[i] = machine.Specs[i].Name
	}
	return quote(string(clip(word))) + " is no queue option; there are " + strings.Join(list, ", ")
}
