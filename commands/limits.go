package commands

// What a client can ask for has an end, and each end is named here with its reason. The limits on counts and sizes of
// arguments themselves are the server's, which sees them first.

import (
	"quail/commands/acl"
	"quail/queue/machine"
)

const (
	// integerMax is the largest id, time, count or token: beyond 2^53-1 a client that keeps numbers as doubles, as
	// JavaScript's do, would read back another number.
	integerMax = 1<<53 - 1

	// blockMillisMax is the longest finite wait, a year: a longer one is a wrong unit. Without end is BLOCK 0.
	blockMillisMax = 365 * 24 * 3600 * 1000

	// commandNamesMax bounds the names of one COMMAND INFO or DOCS. Each gets kilobytes, all in one reply: a million of them, which fit into
	// one command, would be gigabytes.
	commandNamesMax = 1000

	// patternBytesMax bounds a glob pattern, here as in the rules of users; a queue's name has at most 200 bytes. A class of 16 MB in brackets,
	// tried at each byte of 300 names, was seen to take a core for minutes, long after the client had left.
	patternBytesMax = acl.PatternBytesMax

	// scanCountMax bounds COUNT of SCAN and QLIST; a page must not hold the others up.
	scanCountMax = 100_000

	// errorEchoBytesMax is how much of a client's own word an error repeats, as in Redis.
	errorEchoBytesMax = 128
)

// optionMax is the limit of an argument that stands in for a queue option: the option's own, so that neither can ask for more
// than the other.
func optionMax(o machine.Option) int64 { return machine.Specs[o].Max }
