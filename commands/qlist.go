package commands

var qlist = &Spec{
	Name:    "QLIST",
	Summary: "List the names of queues, page by page",
	Group:   GroupManaging,
	Reply:   "array: the next cursor (a bulk string, 0 at the end) and an array of names.",
	Notes: []string{
		"Begin with cursor 0 and call again with the cursor of the answer until it is 0. A queue that exists from the first page " +
			"to the last is named exactly once; one that is made or deleted meanwhile may be named or not. The order is fixed, but " +
			"has no meaning. A cursor costs the server nothing and never expires.",
	},
	Args: []Arg{
		{Name: "cursor", Type: ArgInteger, Optional: true, Text: "Where to go on. Default: 0, the start."},
		{Name: "pattern", Type: ArgPattern, Token: "MATCH", Optional: true,
			Text: "Only names that match: `*` any bytes, `?` one byte, `[a-z]` one of a class, `\\` takes the next byte literally."},
		{Name: "count", Type: ArgInteger, Token: "COUNT", Optional: true, Min: 1, Max: scanCountMax,
			Text: "About how many names a page has. Default: 100."},
	},
	Flags: FlagReadOnly,
	Run:   runQList,
}

// qlistCount is the default of COUNT: names are short, and few servers have more queues than this.
const qlistCount = 100

func runQList(c *Call) {
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
		pattern = p
	}
	next, names := c.page(uint64(a.integer("cursor", 0)), int(a.integer("count", qlistCount)), pattern)
	writePage(c, next, names)
}
