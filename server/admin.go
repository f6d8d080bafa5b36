package server

// What commands may ask of the server: commands.Server. It is a type of its own because Shutdown means two things: for
// a command, to ask for a stop; for the process's owner, to carry it out.

import (
	"net"
	"os"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"quail/commands"
	"quail/server/settings"
)

// admin is a Server as commands see it.
type admin struct{ *Server }

var _ commands.Server = admin{}

// counters are the server's own, for INFO.
type counters struct {
	received, rejected, input, output, memoryPeak atomic.Uint64
}

func (n *counters) sent(bytes int) { n.output.Add(uint64(bytes)) }

func (n *counters) reset() {
	for _, counter := range []*atomic.Uint64{&n.received, &n.rejected, &n.input, &n.output, &n.memoryPeak} {
		counter.Store(0)
	}
}

// Clients lists all connections, in the order of their ids.
func (s admin) Clients() []commands.ClientInfo {
	all := s.all()
	slices.SortFunc(all, func(a, b *connection) int { return int(a.id - b.id) })
	infos := make([]commands.ClientInfo, len(all))
	for i, c := range all {
		infos[i] = c.Info()
	}
	return infos
}

// KillClients closes the chosen connections; one that is running a command, such as the caller's, after its reply.
func (s admin) KillClients(choose func(commands.ClientInfo) bool) int {
	killed := 0
	for _, c := range s.all() {
		if choose(c.Info()) {
			c.kill()
			killed++
		}
	}
	return killed
}

func (s admin) killUsers(names []string) {
	if len(names) > 0 {
		s.KillClients(func(info commands.ClientInfo) bool { return slices.Contains(names, info.User) })
	}
}

// RequiresAuth reports whether a new connection must authenticate before anything else.
func (s *Server) RequiresAuth() bool { return !s.env.Users.Default().Rights().Open() }

// Shutdown asks for a graceful stop: the owner of the process watches Done.
func (s admin) Shutdown(save bool) {
	s.askOnce.Do(func() {
		s.skipCheckpoint.Store(!save)
		close(s.asked)
	})
}

// Info is what INFO tells of the process.
func (s admin) Info() commands.InfoFields {
	info := commands.InfoFields{
		Started:             s.started,
		RunID:               s.runID,
		ProcessID:           os.Getpid(),
		ConfigFile:          s.cfg.ConfigFile,
		MaxClients:          int(s.cfg.Settings.Int(settings.MaxClients)),
		ConnectionsReceived: s.counters.received.Load(),
		ConnectionsRejected: s.counters.rejected.Load(),
		InputBytes:          s.counters.input.Load(),
		OutputBytes:         s.counters.output.Load(),
	}
	info.ClientsBytes, info.ClientsBytesMax = s.ledger.bytes.Load(), s.ledger.limit()
	info.ClientsWaiting, info.ClientsEvicted = s.ledger.waiting.Load(), s.ledger.evicted.Load()
	info.Executable, _ = os.Executable()
	if addr, ok := s.Addr().(*net.TCPAddr); ok {
		info.TCPPort = addr.Port
	}
	for _, c := range s.all() {
		info.ConnectedClients++
		if c.blocked() {
			info.BlockedClients++
		}
	}
	info.MemoryBytes, info.ResidentBytes = memory()
	info.MemoryPeakBytes = s.counters.peak(info.MemoryBytes)
	if s.cfg.Persistence != nil {
		info.Persistence = s.cfg.Persistence()
	}
	return info
}

// peak is the highest value seen by any INFO; the heap is not watched in between.
func (n *counters) peak(now uint64) uint64 {
	for {
		before := n.memoryPeak.Load()
		if before >= now || n.memoryPeak.CompareAndSwap(before, now) {
			return max(before, now)
		}
	}
}

// memory reads the live heap and, where the system tells it in /proc, what the process takes of the machine.
func memory() (heap, resident uint64) {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(samples)
	heap = samples[0].Value.Uint64()
	statm, _ := os.ReadFile("/proc/self/statm")
	if fields := strings.Fields(string(statm)); len(fields) > 1 {
		pages, _ := strconv.ParseUint(fields[1], 10, 64)
		resident = pages * uint64(os.Getpagesize())
	}
	return heap, resident
}
