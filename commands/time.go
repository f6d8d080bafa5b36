package commands

import (
	"strconv"
	"time"
)

var timeNow = &Spec{
	Name:    "TIME",
	Summary: "Return the server's wall clock",
	Group:   GroupServer,
	Reply:   "array of two bulk strings: unix seconds, and the microseconds of that second.",
	Flags:   FlagFast | FlagLoading | FlagStale,
	Tips:    []string{"nondeterministic_output"},
	Run:     runTime,
}

func runTime(c *Call) {
	now := time.Now()
	stringArray(c.W, []string{strconv.FormatInt(now.Unix(), 10), strconv.Itoa(now.Nanosecond() / 1000)})
}
