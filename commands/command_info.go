package commands

import (
	"strconv"

	"quail/commands/resp"
)

var commandInfo = &Spec{
	Name:    "INFO",
	Summary: "Describe commands for programs",
	Reply: "array, for each command: null if it does not exist, or its name, arity, flags, first key, last key, key step, ACL " +
		"categories, tips, key specifications, subcommands.",
	Args:  []Arg{{Name: "command-name", Optional: true, Multiple: true, Text: "Default: all. A subcommand is written as client|id."}},
	Flags: FlagLoading | FlagStale,
	Tips:  []string{"nondeterministic_output_order"},
	Run:   runCommandInfo,
}

func runCommandInfo(c *Call) {
	names := c.Args[2:]
	switch {
	case len(names) == 0:
		writeInfoOfAll(c)
		return
	case c.tooManyNames(names):
		return
	}
	c.W.Array(len(names))
	for _, name := range names {
		if s := lookupFull(name); s != nil {
			writeInfo(c.W, s)
		} else {
			c.W.NullBulk()
		}
	}
}

// tooManyNames answers with an error if COMMAND INFO or DOCS is asked for more than one reply should hold.
func (c *Call) tooManyNames(names [][]byte) bool {
	if len(names) <= commandNamesMax {
		return false
	}
	c.argumentErr(strconv.Itoa(len(names)) + " command names came, but at most " + strconv.Itoa(commandNamesMax) + " may; without any, all commands are described")
	return true
}

func writeInfoOfAll(c *Call) {
	c.W.Array(len(table))
	for _, s := range table {
		writeInfo(c.W, s)
	}
}

func writeInfo(w *resp.Writer, s *Spec) {
	step := 0
	if s.firstKey > 0 {
		step = 1
	}
	w.Array(10)
	w.BulkString(s.fullName)
	w.Int(int64(s.arity))
	flags := s.Flags.Names()
	if len(s.optionKeys) > 0 {
		flags = append(flags, "movablekeys") // a proxy that looks at the first key only would miss one
	}
	simpleSet(w, flags, "")
	w.Int(int64(s.firstKey))
	w.Int(int64(s.lastKey))
	w.Int(int64(step))
	simpleSet(w, s.categories, "@")
	w.Set(len(s.Tips))
	for _, tip := range s.Tips {
		w.BulkString(tip)
	}
	writeKeySpecs(w, s)
	if len(s.Subcommands) == 0 {
		w.Set(0) // Redis answers with an empty set here, though with an array of subcommands otherwise
		return
	}
	w.Array(len(s.Subcommands))
	for _, sub := range s.Subcommands {
		writeInfo(w, sub)
	}
}

// writeKeySpecs tells where the keys are in the words of Redis 7: begin at an index, or behind an option's token, then take a range.
func writeKeySpecs(w *resp.Writer, s *Spec) {
	if s.firstKey == 0 {
		w.Set(0)
		return
	}
	last := int64(0) // counted from the first key
	if s.lastKey < 0 {
		last = -1
	}
	w.Set(1 + len(s.optionKeys))
	w.Map(3)
	w.BulkString("flags")
	simpleSet(w, s.keyFlags(), "")
	w.BulkString("begin_search")
	w.Map(2)
	w.BulkString("type")
	w.BulkString("index")
	w.BulkString("spec")
	w.Map(1)
	w.BulkString("index")
	w.Int(int64(s.firstKey))
	writeKeyRange(w, last)
	for _, option := range s.optionKeys {
		w.Map(3)
		w.BulkString("flags")
		simpleSet(w, optionKeyFlags, "")
		w.BulkString("begin_search")
		w.Map(2)
		w.BulkString("type")
		w.BulkString("keyword")
		w.BulkString("spec")
		w.Map(2)
		w.BulkString("keyword")
		w.BulkString(option.Token)
		w.BulkString("startfrom")
		w.Int(int64(s.lastKey) + 1)
		writeKeyRange(w, 0)
	}
}

// writeKeyRange says that from where the search begins up to last, counted from there, all words are keys.
func writeKeyRange(w *resp.Writer, last int64) {
	w.BulkString("find_keys")
	w.Map(2)
	w.BulkString("type")
	w.BulkString("range")
	w.BulkString("spec")
	w.Map(3)
	w.BulkString("lastkey")
	w.Int(last)
	w.BulkString("keystep")
	w.Int(1)
	w.BulkString("limit")
	w.Int(0)
}

// simpleSet writes a set of simple strings, each with a mark in front.
func simpleSet(w *resp.Writer, list []string, mark string) {
	w.Set(len(list))
	for _, s := range list {
		w.Simple(mark + s)
	}
}
