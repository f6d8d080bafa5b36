package commands

import "quail/commands/resp"

var commandDocs = &Spec{
	Name:    "DOCS",
	Summary: "Describe commands for people",
	Reply:   "map: name, and a map of summary, since, group, arguments, subcommands. A name that does not exist is left out.",
	Args:    []Arg{{Name: "command-name", Optional: true, Multiple: true, Text: "Default: all. A subcommand is written as client|id."}},
	Flags:   FlagLoading | FlagStale,
	Tips:    []string{"nondeterministic_output_order"},
	Run:     runCommandDocs,
}

func runCommandDocs(c *Call) {
	chosen := table
	if c.tooManyNames(c.Args[2:]) {
		return
	}
	if len(c.Args) > 2 {
		chosen = nil
		for _, name := range c.Args[2:] {
			if s := lookupFull(name); s != nil {
				chosen = append(chosen, s)
			}
		}
	}
	writeDocsOf(c.W, chosen)
}

func writeDocsOf(w *resp.Writer, list []*Spec) {
	w.Map(len(list))
	for _, s := range list {
		w.BulkString(s.fullName)
		writeDocs(w, s)
	}
}

func writeDocs(w *resp.Writer, s *Spec) {
	fields := 3
	if len(s.Args) > 0 {
		fields++
	}
	if len(s.Subcommands) > 0 {
		fields++
	}
	w.Map(fields)
	w.BulkString("summary")
	w.BulkString(s.Summary)
	w.BulkString("since")
	w.BulkString(s.Since)
	w.BulkString("group")
	w.BulkString(string(s.Group))
	if len(s.Args) > 0 {
		w.BulkString("arguments")
		writeArgs(w, s.Args, new(int))
	}
	if len(s.Subcommands) > 0 {
		w.BulkString("subcommands")
		writeDocsOf(w, s.Subcommands)
	}
}

// writeArgs writes arguments; keys counts those that are keys, in the order of their key specifications.
func writeArgs(w *resp.Writer, args []Arg, keys *int) {
	w.Array(len(args))
	for i := range args {
		writeArg(w, &args[i], keys)
	}
}

// writeArg writes one argument with the keys that Redis has for it, in Redis's order.
func writeArg(w *resp.Writer, a *Arg, keys *int) {
	parts := a.Type == ArgOneOf || a.Type == ArgBlock
	fields := 3 // name, type, and display_text or arguments
	for _, more := range []bool{a.Type == ArgKey, a.Token != "", a.Text != "", a.Optional || a.Multiple} {
		if more {
			fields++
		}
	}
	w.Map(fields)
	w.BulkString("name")
	w.BulkString(a.Name)
	w.BulkString("type")
	w.BulkString(a.Type.String())
	if !parts {
		w.BulkString("display_text")
		w.BulkString(a.display())
	}
	if a.Type == ArgKey {
		w.BulkString("key_spec_index")
		w.Int(int64(*keys))
		*keys++
	}
	if a.Token != "" {
		w.BulkString("token")
		w.BulkString(a.Token)
	}
	if a.Text != "" {
		w.BulkString("summary")
		w.BulkString(a.Text)
	}
	if a.Optional || a.Multiple {
		var flags []string
		if a.Optional {
			flags = append(flags, "optional")
		}
		if a.Multiple {
			flags = append(flags, "multiple")
		}
		w.BulkString("flags")
		simpleSet(w, flags, "")
	}
	if parts {
		w.BulkString("arguments")
		writeArgs(w, a.Args, keys)
	}
}
