package server

// Clients and files share the process's descriptors. A crowd of clients must not take those that the data directory needs:
// a queue whose log finds none stops until there is one.

import (
	"math"
	"syscall"

	"quail/server/settings"
)

// otherFiles is what the process needs besides open logs: the listener, the journal, a checkpoint, reads of logs, the runtime.
const otherFiles = 64

// descriptorLimit is how many descriptors the process may have open. Go has raised the soft limit to the hard one.
func descriptorLimit() int64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) > math.MaxInt32 {
		return math.MaxInt32
	}
	return int64(limit.Cur)
}

// clientsFor is how many clients leave enough descriptors for files. Where there are few, files get half: logs that are
// not in use are closed for each other, clients are not.
func clientsFor(limit, openLogs int64) int64 { return limit - min(openLogs+otherFiles, limit/2) }

// ClientsMax is how many clients are let in: max-clients, or less if descriptors are short.
func (s *Server) ClientsMax() int64 {
	return min(s.cfg.Settings.Int(settings.MaxClients), clientsFor(s.descriptors, s.cfg.Settings.Int(settings.OpenLogs)))
}
