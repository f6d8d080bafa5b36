package commands

// Page writes docs/commands.md from the table, the queue options from theirs. What the page says is what the server does:
// neither can be changed without the other, and a test fails when the file in the repository is an old one.

import (
	"fmt"
	"strings"

	"quail/queue/machine"
)

const pageHead = `# Commands

<!-- Generated from the table in commands/ by go generate. Do not edit. -->

Quail speaks the Redis protocol, versions 2 and 3. Where there is a queue it is the first argument. Times are milliseconds.
Ids, batch numbers and tokens are integers below 2^53. Option words may be in any case, follow the positional arguments,
come in any order, and each at most once. An argument that does not fit gets ` + "`-ERR`" + ` with the argument's name, what came
and what is allowed; it changes nothing.

A queue's name has 1 to 200 bytes of UTF-8 without control characters and spaces. A body is any bytes.

Null is ` + "`_`" + ` in RESP3. In RESP2 it is ` + "`*-1`" + ` where an array could have stood, and ` + "`$-1`" + ` otherwise. A map is a flat array in RESP2.
`

// errorMeanings are the codes of the contract, in the order of the page.
var errorMeanings = [][2]string{
	{"LOCKED", "Another consumer holds the lock: who, and for how long."},
	{"WRONGTOKEN", "That tenure is over."},
	{"NOBATCH", "The batch expired, was superseded, or is unknown. Do not retry."},
	{"NOQUEUE", "There is no such queue, and this command does not make one."},
	{"EXISTS", "The queue is there with other options."},
	{"PAUSED", "Producers, or consumers, of the queue are stopped. QRESUME ends that."},
	{"QFULL", "A limit of the queue or of the server is reached."},
	{"TOOBIG", "A body, or a whole push, is larger than the limit."},
	{"WALERR", "The log failed. The outcome is unknown."},
	{"LOADING", "The server is starting, or the queue is still being loaded after a start; other queues work. Nothing was done. Retry in a moment."},
	{"NOAUTH", "Authenticate first, with AUTH or HELLO."},
	{"WRONGPASS", "The password, or the user, is not right."},
	{"NOPERM", "The user may not run the command, or not use the queue so. ACL WHOAMI, ACL GETUSER and ACL LOG tell more."},
	{"EXECABORT", "EXEC behind a MULTI that was refused: there are no transactions, and nothing between the two was run."},
	{"NOPROTO", "Only protocols 2 and 3 are spoken."},
	{"ERR", "Anything else: unknown commands, and arguments that do not fit."},
}

// groups are the chapters, in order.
var groups = []struct {
	group Group
	title string
}{
	{GroupProducing, "Producing"},
	{GroupConsuming, "Consuming"},
	{GroupManaging, "Managing"},
	{GroupKeys, "Redis's own commands over keys"},
	{GroupConnection, "The connection"},
	{GroupServer, "The server"},
}

// Page is the text of docs/commands.md.
func Page() string {
	var b strings.Builder
	b.WriteString(pageHead)
	for _, g := range groups {
		fmt.Fprintf(&b, "\n## %s\n", g.title)
		for _, s := range table {
			if s.Group == g.group {
				pageCommand(&b, s, "###")
			}
		}
		if g.group == GroupManaging {
			pageOptions(&b)
		}
	}
	pageErrors(&b)
	return b.String()
}

func pageCommand(b *strings.Builder, s *Spec, level string) {
	fmt.Fprintf(b, "\n%s %s\n\n`%s`\n\n%s.\n", level, strings.ReplaceAll(strings.ToUpper(s.fullName), "|", " "), s.syntax, s.Summary)
	if len(s.Subcommands) == 0 || s.Run != nil {
		fmt.Fprintf(b, "\n**Reply:** %s\n", s.Reply)
	}
	for _, note := range s.Notes {
		fmt.Fprintf(b, "\n%s\n", note)
	}
	if list := documentedArgs(nil, s.Args); len(list) > 0 {
		b.WriteString("\n")
		b.WriteString(strings.Join(list, ""))
	}
	if len(s.Fields) > 0 {
		b.WriteString("\n| Key | Type | |\n|---|---|---|\n")
		for _, f := range s.Fields {
			fmt.Fprintf(b, "| `%s` | %s | %s |\n", f.Name, f.Type, f.Doc)
		}
	}
	if len(s.Errors) > 0 {
		fmt.Fprintf(b, "\n**Errors:** `-%s`\n", strings.Join(s.Errors, "` `-"))
	}
	fmt.Fprintf(b, "\n<sub>arity %d · %s</sub>\n", s.arity, "@"+strings.Join(s.categories, " @"))
	for _, sub := range s.Subcommands {
		pageCommand(b, sub, level+"#")
	}
}

// documentedArgs lists the arguments that need words: a text, or limits that are not obvious.
func documentedArgs(list []string, args []Arg) []string {
	for i := range args {
		a := &args[i]
		limits := ""
		if a.Type == ArgInteger && (a.Max != 0 || a.Min != 0) {
			limits = fmt.Sprintf("%d to %d. ", a.Min, a.max())
			if a.Max == 0 {
				limits = fmt.Sprintf("From %d. ", a.Min)
			}
		}
		if text := strings.TrimSpace(limits + a.Text); text != "" {
			bare := *a
			bare.Optional, bare.Multiple = false, false
			list = append(list, fmt.Sprintf("- `%s`: %s\n", bare.syntax(), text))
		}
		list = documentedArgs(list, a.Args)
	}
	return list
}

func pageOptions(b *strings.Builder) {
	b.WriteString("\n### Queue options\n\nOf QCREATE and QCONFIG. The server's default of each is the setting `default-<option>`.\n\n")
	b.WriteString("| Option | Default | Allowed | |\n|---|---|---|---|\n")
	for _, o := range machine.Specs {
		value, allowed := fmt.Sprint(o.Default), fmt.Sprintf("%d to %d %s", o.Min, o.Max, o.Unit)
		if o.Text {
			value, allowed = "", fmt.Sprintf("%s, at most %d bytes", o.Unit, o.Max)
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", o.Name, value, allowed, o.Doc)
	}
}

func pageErrors(b *strings.Builder) {
	b.WriteString("\n## Errors\n\nA code, the fact, and the next step.\n\n| Code | |\n|---|---|\n")
	for _, e := range errorMeanings {
		fmt.Fprintf(b, "| `-%s` | %s |\n", e[0], e[1])
	}
}
