package commands

import (
	"strconv"
	"strings"
)

var scan = &Spec{
	Name:    "SCAN",
	Summary: "List the names of queues, page by page, as Redis does",
	Group:   GroupKeys,
	Reply:   "array: the next cursor (a bulk string, 0 at the end) and an array of names. See QLIST.",
	Args: []Arg{
		{Name: "cursor", Type: ArgInteger, Text: "0, or the cursor of the last answer."},
		{Name: "pattern", Type: ArgPattern, Token: "MATCH", Optional: true, Text: "As MATCH of QLIST."},
		{Name: "count", Type: ArgInteger, Token: "COUNT", Optional: true, Min: 1, Max: scanCountMax,
			Text: "About how many names a page has. Default: 10."},
		{Name: "type", Token: "TYPE", Optional: true, Text: "`queue`; keys of Redis's own types are not there, so those names list nothing."},
	},
	Flags: FlagReadOnly,
	Tips:  []string{"nondeterministic_output", "request_policy:special", "response_policy:special"},
	Run:   runScan,
}

// scanCount is Redis's default of COUNT.
const scanCount = 10

func runScan(c *Call) {
	cursor, err := strconv.ParseUint(string(c.Args[1]), 10, 64)
	if err != nil {
		c.W.Error("ERR", "invalid cursor")
		return
	}
	count, pattern, wanted := scanCount, "*", []byte("queue")
	for words := c.Args[2:]; len(words) > 0; words = words[2:] {
		if len(words) == 1 {
			c.syntaxErr()
			return
		}
		switch {
		case equalFold(words[0], "COUNT"):
			n, ok := parseInteger(words[1])
			if !ok {
				c.W.Error("ERR", errNotInteger)
				return
			}
			if n < 1 {
				c.syntaxErr()
				return
			}
			count = int(min(n, scanCountMax))
		case equalFold(words[0], "MATCH"):
			p, ok := c.pattern(words[1])
			if !ok {
				return
			}
			pattern = p
		case equalFold(words[0], "TYPE"):
			wanted = words[1]
		default:
			c.syntaxErr()
			return
		}
	}
	scanAs(c, wanted, cursor, count, pattern)
}

// scanAs answers SCAN for one type. Those of Redis are known and never there; a browser filters by them.
func scanAs(c *Call, wanted []byte, cursor uint64, count int, pattern string) {
	switch strings.ToLower(string(wanted)) {
	case "queue":
		next, names := c.page(cursor, count, pattern)
		writePage(c, next, names)
	case "string", "list", "set", "zset", "hash", "stream":
		writePage(c, 0, nil)
	default:
		c.W.Error("ERR", "unknown type name '"+cText(wanted)+"'")
	}
}
