package commands

import (
	"fmt"
	"strings"
	"time"
)

var clientInfo = &Spec{
	Name:    "INFO",
	Summary: "Describe this connection",
	Reply:   "text: one line as in CLIENT LIST.",
	Flags:   flagsAboutSelf,
	Run:     runClientInfo,
}

func runClientInfo(c *Call) {
	var b strings.Builder
	describe(&b, c.Conn.Info(), time.Now())
	c.W.Verbatim("txt", b.String())
}

var clientList = &Spec{
	Name:    "LIST",
	Summary: "Describe all connections",
	Reply:   "text: one line for each connection, with the fields of Redis.",
	Args: []Arg{
		{Name: "client-type", Type: ArgOneOf, Token: "TYPE", Optional: true, Args: clientTypes},
		{Name: "client-id", Type: ArgInteger, Token: "ID", Optional: true, Multiple: true},
	},
	Flags: flagsAboutSelf | FlagAdmin,
	Run:   runClientList,
}

// clientTypes are Redis's. All connections are normal ones.
var clientTypes = []Arg{
	{Name: "normal", Type: ArgPureToken, Token: "NORMAL"},
	{Name: "master", Type: ArgPureToken, Token: "MASTER"},
	{Name: "replica", Type: ArgPureToken, Token: "REPLICA"},
	{Name: "pubsub", Type: ArgPureToken, Token: "PUBSUB"},
}

// parseClientType answers with Redis's error and returns false for a word that is none.
func parseClientType(c *Call, word []byte) (normal, ok bool) {
	if equalFold(word, "SLAVE") { // the old name of REPLICA, which libraries still send
		return false, true
	}
	for i := range clientTypes {
		if equalFold(word, clientTypes[i].Token) {
			return i == 0, true
		}
	}
	c.W.Error("ERR", "Unknown client type '"+cText(word)+"'")
	return false, false
}

func runClientList(c *Call) {
	words := c.Args[2:]
	chosen := func(ClientInfo) bool { return true }
	switch {
	case len(words) == 0:
	case len(words) == 2 && equalFold(words[0], "TYPE"):
		normal, ok := parseClientType(c, words[1])
		if !ok {
			return
		}
		chosen = func(ClientInfo) bool { return normal }
	case len(words) > 1 && equalFold(words[0], "ID"):
		ids := make(map[int64]bool, len(words)-1)
		for _, word := range words[1:] {
			id, ok := parseInteger(word)
			if !ok {
				c.W.Error("ERR", "Invalid client ID")
				return
			}
			ids[id] = true
		}
		chosen = func(info ClientInfo) bool { return ids[info.ID] }
	default:
		c.syntaxErr()
		return
	}
	var b strings.Builder
	now := time.Now()
	for _, info := range c.Env.Server.Clients() {
		if chosen(info) {
			describe(&b, info, now)
		}
	}
	c.W.Verbatim("txt", b.String())
}

// describe writes a connection as Redis does. Fields of what Quail does not have are there with their resting value, since
// tools read all of them.
func describe(b *strings.Builder, info ClientInfo, now time.Time) {
	flags := ""
	if info.Blocked {
		flags += "b"
	}
	if info.NoEvict {
		flags += "e"
	}
	if info.NoTouch {
		flags += "T"
	}
	if flags == "" {
		flags = "N"
	}
	last := info.LastCommand
	if last == "" {
		last = "NULL"
	}
	fmt.Fprintf(b, "id=%d addr=%s laddr=%s fd=-1 name=%s age=%d idle=%d flags=%s db=0 sub=0 psub=0 ssub=0 multi=-1 watch=0 "+
		"qbuf=%d qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=%d omem=%d tot-mem=%d events=r cmd=%s user=%s redir=-1 "+
		"resp=%d lib-name=%s lib-ver=%s\n",
		info.ID, info.RemoteAddr, info.LocalAddr, info.Name, seconds(now.Sub(info.Created)), seconds(now.Sub(info.LastActive)), flags,
		info.QueryBytes, info.OutputReplies, info.OutputBytes, info.QueryBytes+info.OutputBytes, last, info.User,
		info.Proto, info.LibName, info.LibVersion)
}

func seconds(d time.Duration) int64 { return max(int64(d/time.Second), 0) }
