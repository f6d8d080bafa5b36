package wal

import (
	"errors"
	"testing"
)

// told counts how often it was told.
type told int

func (n *told) Durable() { *n++ }

// A caller that holds the waiter's lock and is called back from its own call waits for itself, and the committer, and with it
// every queue, for both.
func TestNotifyLaterNeverCallsAtOnce(t *testing.T) {
	f := NewFuture()
	var before, after told
	if !f.NotifyLater(&before) || before != 0 {
		t.Error("a pending outcome is taken for known")
	}
	f.Complete(errors.New("no disk"))
	if before != 1 {
		t.Errorf("told %d times", before)
	}
	if f.NotifyLater(&after) || after != 0 {
		t.Errorf("a known outcome is taken for pending, or told: %d", after)
	}
	f.Notify(&after)
	if after != 1 {
		t.Errorf("told %d times", after)
	}
	if (*Future)(nil).NotifyLater(&after) || after != 1 {
		t.Error("nothing to wait for is waited for")
	}
}
