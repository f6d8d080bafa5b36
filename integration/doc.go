// Package integration runs the built binary as strangers do: with redis-cli, with client libraries in several languages,
// with kill -9 at the worst moments, with calls that fail, with disks that are full, and with bytes that no honest client sends. What the other folders prove about their
// own part is proved here about the whole: that nothing acknowledged is lost and nothing else appears.
//
// The tests build cmd/quail once. The environment changes what a run does:
//
//	QUAIL_BINARY=path   test this binary instead of building one
//	QUAIL_RACE=1        build with the race detector; limits on memory are not checked then
//	QUAIL_LONG=1        many more cycles and larger floods
//	QUAIL_SEED=n        the random choices of an earlier run, which every run prints
//
// Whatever of redis-cli, Python, PHP, Ruby, Perl, C and Node is not installed is skipped, and the skip says what to install.
package integration
