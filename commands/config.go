package commands

import "errors"

var config = &Spec{
	Name:        "CONFIG",
	Summary:     "Look at the server's settings and change them",
	Group:       GroupServer,
	Reply:       "Depends on the subcommand.",
	Flags:       FlagAdmin | FlagNoScript | FlagLoading | FlagStale,
	Subcommands: []*Spec{configGet, configResetStat, configSet, helpSpec()},
}

var configGet = &Spec{
	Name:    "GET",
	Summary: "Return the settings whose names match a pattern",
	Reply:   "map: name and value. A password that is set is masked.",
	Args:    []Arg{{Name: "parameter", Type: ArgPattern, Multiple: true, Text: "As MATCH of QLIST, in any case."}},
	Flags:   FlagAdmin | FlagNoScript | FlagLoading | FlagStale,
	Run:     runConfigGet,
}

func runConfigGet(c *Call) {
	patterns := make([]string, len(c.Args)-2)
	for i, word := range c.Args[2:] {
		pattern, ok := c.pattern(word)
		if !ok {
			return
		}
		patterns[i] = pattern
	}
	pairs := c.Env.Settings.Match(patterns...)
	c.W.Map(len(pairs))
	for _, pair := range pairs {
		c.W.BulkString(pair[0])
		c.W.BulkString(pair[1])
	}
}

var configSet = &Spec{
	Name:    "SET",
	Summary: "Change settings, all of them or none",
	Reply:   "OK.",
	Notes:   []string{"Which settings can be changed while the server runs, and what they allow, is in config.md. A change is not written to the configuration file."},
	Args: []Arg{{Name: "data", Type: ArgBlock, Multiple: true, Args: []Arg{
		{Name: "parameter"},
		{Name: "value"},
	}}},
	Flags: FlagAdmin | FlagNoScript | FlagLoading | FlagStale,
	Run:   runConfigSet,
}

func runConfigSet(c *Call) {
	words := c.Args[2:]
	if len(words)%2 != 0 {
		c.syntaxErr()
		return
	}
	pairs := make([][2]string, 0, len(words)/2)
	for ; len(words) > 0; words = words[2:] {
		pairs = append(pairs, [2]string{string(words[0]), string(words[1])})
	}
	if err := c.Env.Settings.Set(pairs); err != nil {
		var known *SettingError
		if !errors.As(err, &known) {
			err = errors.New("CONFIG SET failed - " + err.Error())
		}
		c.ReplyErr(err)
		return
	}
	c.W.OK()
}

var configResetStat = &Spec{
	Name:    "RESETSTAT",
	Summary: "Set the counters of INFO to zero",
	Reply:   "OK.",
	Flags:   FlagAdmin | FlagNoScript | FlagLoading | FlagStale,
	Run:     runConfigResetStat,
}

func runConfigResetStat(c *Call) {
	c.Env.Stats.Reset()
	c.Env.Settings.ResetStats()
	c.W.OK()
}
