package vfs

import (
	"os"
	"testing"
)

// Without this the simulation would believe a sync that is tried again after it failed: on such a file system it succeeds, and protects nothing.
func TestForgottenBytesAreReadAndNeverWritten(t *testing.T) {
	disk := NewLossy(1)
	failing := NewFailing(disk)
	f, err := failing.OpenFile("/f", os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if _, err := f.WriteAt([]byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := failing.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	write("new")
	failing.FailWhen(func(op Op) bool { return op.Kind == OpSync }, FailForgotten, ErrInjected)
	if err := f.Sync(); err == nil {
		t.Fatal("the sync did not fail")
	}
	if err := f.Sync(); err != nil {
		t.Fatalf("the second sync: %v", err)
	}
	content := func(disk FS) string {
		f, err := disk.Open("/f")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		buf := make([]byte, 3)
		if _, err := f.ReadAt(buf, 0); err != nil {
			t.Fatal(err)
		}
		return string(buf)
	}
	if got := content(disk); got != "new" {
		t.Errorf("while the power is on it reads %q", got)
	}
	if got := content(disk.Crash()); got != "old" {
		t.Errorf("after a power cut it reads %q", got)
	}
}
