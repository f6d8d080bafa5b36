package vfs

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Without this a disk that stays slow has one of Go's processors for itself, and the collector of memory stops everybody, who does not need
// the disk too, for as long as each sync takes.
func TestSyncLetsGoOfTheProcessorWhileTheDiskIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p patience
		failure := errors.New("no disk")
		for n, step := range []struct {
			takes time.Duration
			keeps bool // what this call is to do: it knows only the one before
			err   error
		}{{keepMax / 10, true, nil}, {time.Minute, true, nil}, {time.Second, false, failure}, {keepMax / 10, false, nil}, {keepMax / 10, true, failure}} {
			kept := false
			call := func(keeps bool) func() error {
				return func() error {
					kept = keeps
					time.Sleep(step.takes)
					return step.err
				}
			}
			if err := p.run(call(false), call(true)); err != step.err || kept != step.keeps {
				t.Errorf("call %d: kept the processor: %v, want %v; error %v, want %v", n, kept, step.keeps, err, step.err)
			}
		}
	})
}
