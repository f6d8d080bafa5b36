package main

// Why a server did not start, and what to do about it. The error itself says the fact; this adds the next step, since
// whoever reads it has a server that is down.

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"quail/wal"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

// adviceListen is the next step when the address could not be had.
func adviceListen(address string, err error) string {
	_, port, _ := net.SplitHostPort(address)
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("another process listens on %s, perhaps a Quail that runs already (quail health tells); stop it, or choose another address with --listen or QUAIL_LISTEN", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("no network interface of this machine has that address; 127.0.0.1:%s serves this machine alone, 0.0.0.0:%s all interfaces", port, port)
	case errors.Is(err, syscall.EACCES):
		return fmt.Sprintf("ports below 1024 need a privilege; choose a higher one than %s with --listen or QUAIL_LISTEN", port)
	case errors.As(err, &dns):
		return "the host name is not known here; give an IP address with --listen or QUAIL_LISTEN"
	}
	return "check --listen (QUAIL_LISTEN)"
}

// adviceData is the next step when the data directory could not be opened.
func adviceData(directory string, err error) string {
	var damagedStore *wal.CorruptError
	var damagedLog *seglog.CorruptError
	switch {
	case errors.Is(err, wal.ErrLocked), errors.Is(err, vfs.ErrLocked):
		return "a data directory serves one process at a time: stop the other one, or choose another directory with --data or QUAIL_DATA"
	case errors.As(err, &damagedStore), errors.As(err, &damagedLog):
		return fmt.Sprintf("nothing was changed. Copy the directory, and look at the disk; quail check %s lists all damage, quail repair %s NEWDIR saves what is whole into a new directory, "+
			"a backup has the rest; see \"Damage\" in docs/operations.md", directory, directory)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("the user of this process (uid %d) must be able to write %s: change its owner, or choose another directory with --data or QUAIL_DATA", os.Getuid(), directory)
	case errors.Is(err, syscall.EROFS):
		return "that file system is mounted read-only; choose another directory with --data or QUAIL_DATA"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return "part of that path is a file, not a directory; choose another one with --data or QUAIL_DATA"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "the disk is full; the journal needs two files of journal-file-bytes to begin with, and up to journal-bytes in time. Free some space, lower these, or choose another directory with --data or QUAIL_DATA"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "too few file descriptors: raise the limit (ulimit -n), or lower open-logs and max-clients"
	}
	return "check --data (QUAIL_DATA)"
}
