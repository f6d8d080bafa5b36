package commands

// Run takes a call from its first word to the command's function, with Redis's checks in Redis's order and words: does the
// command exist, has it the right number of words, may this connection run it. Client libraries read these words.

import (
	"strings"

	"quail/commands/resp"
)

// The errors of Redis's own that several commands share.
const (
	errSyntax     = "syntax error"
	errNotInteger = "value is not an integer or out of range"
	errClientName = "Client names cannot contain spaces, newlines or special characters."
)

// Run executes one command: it writes the reply to c.W, or parks the connection. Afterwards c.Gate is what the reply waits
// for.
func Run(c *Call) {
	spec := Lookup(c.Args[0])
	if spec == nil {
		c.Conn.Began(nil)
		c.Env.Stats.countUnknown()
		c.runUnknown()
		return
	}
	if len(spec.Subcommands) > 0 && len(c.Args) > 1 {
		sub := spec.Subcommand(c.Args[1])
		if sub == nil {
			c.Conn.Began(nil)
			c.Env.Stats.countUnknown()
			c.W.Error("ERR", "unknown subcommand '"+cText(c.Args[1])+"'. Try "+spec.Name+" HELP.")
			return
		}
		spec = sub
	}
	c.spec = spec
	c.Conn.Began(spec)
	if n := len(c.Args); spec.arity >= 0 && n != spec.arity || n < -spec.arity {
		c.Env.Stats.countRejected(spec)
		c.wrongArity()
		return
	}
	if spec.Flags&FlagNoAuth == 0 {
		rights := c.Conn.Rights()
		if rights == nil {
			c.Env.Stats.countRejected(spec)
			c.W.Error("NOAUTH", "Authentication required.")
			return
		}
		if !rights.All() && !c.permitted(rights) || c.discarded() {
			return
		}
	}
	if spec.Flags&FlagLoading == 0 {
		if err := c.Env.Queues.Loading(); err != nil {
			c.Env.Stats.countRejected(spec)
			c.ReplyErr(err)
			return
		}
	}
	if c.Env.Monitors.Load() > 0 {
		c.tell()
	}
	before := len(c.W.Buf)
	began, timed := c.Env.Slowlog.begin(c), c.Env.Stats.begin(spec)
	spec.Run(c)
	c.Env.Stats.end(spec, timed, 1)
	c.Env.Slowlog.end(c, began)
	failed := c.failed || len(c.W.Buf) > before && c.W.Buf[before] == '-'
	c.Env.Stats.count(spec, failed)
}

// wrongArity is Redis's wording; Quail's own commands, which nobody knows from Redis, show their syntax behind it.
func (c *Call) wrongArity() {
	text := "wrong number of arguments for '" + c.spec.fullName + "' command"
	if c.spec.isOwn() {
		text += "; " + c.spec.usage()
	}
	c.W.Error("ERR", text)
}

func (c *Call) syntaxErr() { c.W.Error("ERR", errSyntax) }

// unknownCommand is Redis's wording, letter by letter: go-redis, Lettuce and others compare it. At most about 128 bytes of
// the arguments are repeated, each in quotes and followed by a space. Some commands get a hint behind it: see meant.
func unknownCommand(args [][]byte) string {
	var b strings.Builder
	b.WriteString("unknown command '")
	b.WriteString(cText(args[0]))
	b.WriteString("', with args beginning with: ")
	start := b.Len()
	for _, arg := range args[1:] {
		used := b.Len() - start
		if used >= errorEchoBytesMax {
			break
		}
		text := cText(arg)
		b.WriteByte('\'')
		b.WriteString(text[:min(len(text), errorEchoBytesMax-used)])
		b.WriteString("' ")
	}
	if hint := meantBy(args[0]); hint != "" {
		return strings.TrimSuffix(b.String(), " ") + "; " + hint
	}
	return b.String()
}

// cText is a client's word as Redis's %.128s would print it: up to the first zero byte, at most 128 bytes.
func cText(word []byte) string {
	word = clip(word)
	for i, b := range word {
		if b == 0 {
			return string(word[:i])
		}
	}
	return string(word)
}

// help answers with the subcommands of a container, in the form of Redis's HELP texts.
func help(c *Call) {
	container := c.spec.parent
	c.W.Array(1 + 2*len(container.Subcommands))
	c.W.Simple(container.Name + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")
	for _, sub := range container.Subcommands {
		c.W.Simple(strings.TrimPrefix(sub.syntax, container.Name+" "))
		c.W.Simple("    " + sub.Summary + ".")
	}
}

// helpSpec is the HELP subcommand that every container ends with.
func helpSpec() *Spec {
	return &Spec{
		Name:    "HELP",
		Summary: "Print this help",
		Reply:   "array of lines",
		Flags:   FlagLoading | FlagStale,
		Run:     help,
	}
}

// stringArray writes an array of bulk strings.
func stringArray(w *resp.Writer, list []string) {
	w.Array(len(list))
	for _, s := range list {
		w.BulkString(s)
	}
}
