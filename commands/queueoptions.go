package commands

// Queue options as QCREATE and QCONFIG SET take them: names and values in turn, each option at most once.

import (
	"strings"

	"quail/queue/machine"
)

// optionPairsArg are the pairs in a spec.
func optionPairsArg(optional bool) Arg {
	return Arg{Name: "options", Type: ArgBlock, Optional: optional, Multiple: true, Args: []Arg{
		{Name: "option", Text: "One of the queue options below."},
		{Name: "value"},
	}}
}

// queueOptions reads the pairs. If one does not fit, it answers with an error and returns false.
func (c *Call) queueOptions(pairs [][]byte) (o machine.Options, ok bool) {
	for i := 0; i < len(pairs); i += 2 {
		name := strings.ToLower(string(clip(pairs[i])))
		option, known := machine.OptionByName(name)
		switch {
		case !known:
			c.argumentErr(unknownOption(pairs[i]))
			return o, false
		case i+1 == len(pairs):
			c.argumentErr("option " + quote(name) + " has no value; options come in pairs: " + c.spec.syntax)
			return o, false
		case o.IsSet(option):
			c.argumentErr("option " + quote(name) + " is given twice, but may come at most once")
			return o, false
		}
		if err := o.Set(name, string(pairs[i+1])); err != nil {
			c.argumentErr(err.Error())
			return o, false
		}
	}
	return o, true
}

func unknownOption(word []byte) string {
	list := make([]string, len(machine.Specs))
	for i := range machine.Specs {
		list[i] = machine.Specs[i].Name
	}
	return quote(string(clip(word))) + " is no queue option; there are " + strings.Join(list, ", ")
}
