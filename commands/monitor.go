package commands

// MONITOR: a client sees all commands that run. While nobody looks, a command pays for one load of a counter.

import (
	"fmt"
	"strings"
	"time"
)

var monitor = &Spec{
	Name:    "MONITOR",
	Summary: "Show all commands as they run, until RESET or QUIT",
	Group:   GroupServer,
	Reply: "OK, then a line for each command: unix time, database, client's address, words. Passwords are redacted, of messages and headers " +
		"only the length is shown, and administrative commands are left out.",
	Notes: []string{"A monitor that does not read as fast as commands come is disconnected when `output-buffer-bytes` wait for it."},
	Flags: FlagAdmin | FlagNoScript | FlagLoading | FlagStale,
	Run: func(c *Call) {
		c.Conn.Monitor()
		c.W.OK()
	},
}

// tell shows the call to all monitors.
func (c *Call) tell() {
	if c.spec.Flags&FlagAdmin != 0 || c.spec.parent != nil && c.spec.parent.Flags&FlagAdmin != 0 {
		return // as in Redis: what operators do is not for every onlooker
	}
	var line strings.Builder
	now := time.Now()
	fmt.Fprintf(&line, "+%d.%06d [0 %s]", now.Unix(), now.Nanosecond()/1000, c.Conn.Info().RemoteAddr)
	for _, word := range c.shown() {
		line.WriteByte(' ')
		quoteWord(&line, word)
	}
	line.WriteString("\r\n")
	c.Env.Server.Tell([]byte(line.String()))
}

// quoteWord writes a word as redis-cli and MONITOR of Redis do, so that no byte of it can end the line.
func quoteWord(b *strings.Builder, word string) {
	b.WriteByte('"')
	for i := range len(word) {
		switch c := word[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\a':
			b.WriteString(`\a`)
		case c == '\b':
			b.WriteString(`\b`)
		case c < ' ' || c > '~':
			fmt.Fprintf(b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
}
