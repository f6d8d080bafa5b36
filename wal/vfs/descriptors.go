package vfs

import (
	"errors"
	"syscall"
)

// OutOfDescriptors reports whether err says that the process or the machine has no file descriptor left. Nothing was done
// then, and the same call works once another file is closed.
func OutOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
