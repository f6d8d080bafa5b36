package commands

// INFO in Redis's form and with Redis's names where Quail has the same thing, since libraries and dashboards read them:
// ioredis will not speak until it has seen loading:0. What Redis has no word for stands beside it in the same sections.

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"
)

var info = &Spec{
	Name:    "INFO",
	Summary: "Tell about the server, in sections",
	Group:   GroupServer,
	Reply:   "text: lines of name:value, with a line # Section before each section.",
	Args: []Arg{{Name: "section", Optional: true, Multiple: true,
		Text: "server, clients, memory, persistence, stats, replication, commandstats, cluster, keyspace; default (all but commandstats), all, everything."}},
	Flags: FlagLoading | FlagStale | FlagDangerous,
	Tips:  []string{"nondeterministic_output", "request_policy:all_shards", "response_policy:special"},
	Run:   runInfo,
}

type infoSection struct {
	title string
	// extra sections come only when they are named, or with all and everything.
	extra bool
	write func(*infoText)
}

// infoText gathers the lines of one INFO.
type infoText struct {
	strings.Builder
	env    *Env
	server InfoFields
	now    time.Time
}

func (t *infoText) line(name string, value any) { fmt.Fprintf(t, "%s:%v\r\n", name, value) }

var infoSections = []infoSection{
	{"Server", false, infoServer},
	{"Clients", false, infoClients},
	{"Memory", false, infoMemory},
	{"Persistence", false, infoPersistence},
	{"Stats", false, infoStats},
	{"Replication", false, infoReplication},
	{"Commandstats", true, infoCommandStats},
	{"Cluster", false, infoCluster},
	{"Keyspace", false, infoKeyspace},
}

func runInfo(c *Call) {
	text := infoText{env: c.Env, server: c.Env.Server.Info(), now: time.Now()}
	for i := range infoSections {
		section := &infoSections[i]
		if !section.wanted(c.Args[1:]) {
			continue
		}
		if text.Len() > 0 {
			text.WriteString("\r\n")
		}
		text.WriteString("# " + section.title + "\r\n")
		section.write(&text)
	}
	c.W.Verbatim("txt", text.String())
}

// wanted is true if one of the words names the section. A word that names none is passed over, as in Redis.
func (s *infoSection) wanted(words [][]byte) bool {
	if len(words) == 0 {
		return !s.extra
	}
	name := strings.ToUpper(s.title)
	for _, word := range words {
		if equalFold(word, name) || equalFold(word, "ALL") || equalFold(word, "EVERYTHING") ||
			equalFold(word, "DEFAULT") && !s.extra {
			return true
		}
	}
	return false
}

func infoServer(t *infoText) {
	s := &t.server
	uptime := seconds(t.now.Sub(s.Started))
	t.line("redis_version", RedisVersion)
	t.line("quail_version", t.env.Version)
	t.line("redis_mode", "standalone")
	t.line("os", runtime.GOOS+" "+runtime.GOARCH)
	t.line("arch_bits", strconv.IntSize)
	t.line("go_version", runtime.Version())
	t.line("process_id", s.ProcessID)
	t.line("run_id", s.RunID)
	t.line("tcp_port", s.TCPPort)
	t.line("server_time_usec", t.now.UnixMicro())
	t.line("uptime_in_seconds", uptime)
	t.line("uptime_in_days", uptime/(24*3600))
	t.line("executable", s.Executable)
	t.line("config_file", s.ConfigFile)
	t.line("goroutines", runtime.NumGoroutine())
}

func infoClients(t *infoText) {
	t.line("connected_clients", t.server.ConnectedClients)
	t.line("cluster_connections", 0)
	t.line("maxclients", t.server.MaxClients)
	t.line("blocked_clients", t.server.BlockedClients)
}

func infoMemory(t *infoText) {
	s := &t.server
	t.line("used_memory", s.MemoryBytes)
	t.line("used_memory_human", humanBytes(s.MemoryBytes))
	t.line("used_memory_rss", s.ResidentBytes)
	t.line("used_memory_rss_human", humanBytes(s.ResidentBytes))
	t.line("used_memory_peak", s.MemoryPeakBytes)
	t.line("used_memory_peak_human", humanBytes(s.MemoryPeakBytes))
	t.line("mem_clients_normal", s.ClientsBytes)
	t.line("maxmemory_clients", s.ClientsBytesMax)
	t.line("clients_waiting_for_memory", s.ClientsWaiting)
	t.line("maxmemory", 0)
	t.line("maxmemory_human", "0B")
	t.line("maxmemory_policy", "noeviction")
}

func infoPersistence(t *infoText) {
	starting, unloaded := t.env.Queues.Loading() != nil, t.env.Queues.LoadingQueues()
	t.line("loading", oneIf(starting))
	t.line("async_loading", oneIf(unloaded > 0))
	t.line("loading_queues", unloaded)
	if starting {
		t.line("loading_start_time", t.server.Started.Unix())
		t.line("loading_eta_seconds", loadingETA)
	}
	for _, pair := range t.server.Persistence {
		t.line(pair[0], pair[1])
	}
}

// loadingETA is when a client should look again, in seconds: ioredis reads it, and asks once a second without it.
const loadingETA = 1

func oneIf(on bool) int {
	if on {
		return 1
	}
	return 0
}

func infoStats(t *infoText) {
	s := &t.server
	calls, failures := t.env.Stats.Totals()
	t.line("total_connections_received", s.ConnectionsReceived)
	t.line("total_commands_processed", calls)
	t.line("total_net_input_bytes", s.InputBytes)
	t.line("total_net_output_bytes", s.OutputBytes)
	t.line("rejected_connections", s.ConnectionsRejected)
	t.line("total_error_replies", failures)
	t.line("expired_keys", 0)
	t.line("evicted_keys", 0)
	t.line("evicted_clients", s.ClientsEvicted)
}

func infoReplication(t *infoText) {
	t.line("role", "master")
	t.line("connected_slaves", 0)
	t.line("master_failover_state", "no-failover")
	t.line("master_replid", t.server.RunID)
	t.line("master_repl_offset", 0)
}

func infoCommandStats(t *infoText) {
	for _, c := range t.env.Stats.Commands() {
		t.line("cmdstat_"+c.Name, fmt.Sprintf("calls=%d,rejected_calls=%d,failed_calls=%d", c.Calls, c.Rejected, c.Failed))
	}
}

func infoCluster(t *infoText) { t.line("cluster_enabled", 0) }

func infoKeyspace(t *infoText) {
	if n := t.env.Queues.Count(); n > 0 {
		t.line("db0", fmt.Sprintf("keys=%d,expires=0,avg_ttl=0", n))
	}
}

// humanBytes writes a size as Redis does: 512B, 1.50K, 2.00M, 3.25G.
func humanBytes(n uint64) string {
	switch {
	case n < 1<<10:
		return strconv.FormatUint(n, 10) + "B"
	case n < 1<<20:
		return fmt.Sprintf("%.2fK", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.2fM", float64(n)/(1<<20))
	default:
		return fmt.Sprintf("%.2fG", float64(n)/(1<<30))
	}
}
