// Package metrics is what an operator's tools ask over HTTP: /metrics for Prometheus, /healthz and /readyz for whoever starts and stops processes.
//
// Nothing is counted here. The page is made of what the server counts anyway when it is asked for, so a server that nobody asks pays nothing. The
// number of lines is bounded: queues past a thousand are counted and not shown.
package metrics

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"quail/commands"
	"quail/queue"
)

// QueuesMax is how many queues have lines of their own: with more, the page and the database that keeps it would grow with the queues.
const QueuesMax = 1000

// Histogram is how often something took at most so long.
type Histogram struct {
	// BoundsSeconds rise; Counts has one more, for what took longer than the last.
	BoundsSeconds []float64
	Counts        []uint64
	SumSeconds    float64
}

// Source is where the numbers come from. Its functions are called at each request, from several goroutines.
type Source struct {
	Info     func() commands.InfoFields
	Commands func() []commands.CommandStats
	// Queues, if not nil, tells of at most so many queues, and how many it left out.
	Queues func(most int) (list []queue.Gauge, left int)
	// Syncs, if not nil, is how long the journal's syncs took.
	Syncs func() Histogram
	// Version is Quail's own.
	Version string
}

// collector makes the lines.
type collector struct {
	source Source
	out    chan<- prometheus.Metric
}

// Describe says nothing, which makes the collector an unchecked one: which lines there are depends on the server.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	c.out = out
	c.server()
	c.commands()
	if c.source.Queues != nil {
		c.queues()
	}
	if c.source.Syncs != nil {
		c.histogram("quail_journal_sync_seconds", "How long the syncs of the journal took; each makes a group of commits durable.", c.source.Syncs(), nil, nil)
	}
}

func (c collector) gauge(name, help string, value float64) {
	c.one(prometheus.GaugeValue, name, help, value)
}
func (c collector) counter(name, help string, value float64) {
	c.one(prometheus.CounterValue, name, help, value)
}

func (c collector) one(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	c.out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, values...)
}

func (c collector) histogram(name, help string, h Histogram, names, values []string) {
	cumulative, total := map[float64]uint64{}, uint64(0)
	for i, count := range h.Counts {
		total += count
		if i < len(h.BoundsSeconds) {
			cumulative[h.BoundsSeconds[i]] = total
		}
	}
	c.out <- prometheus.MustNewConstHistogram(prometheus.NewDesc(name, help, names, nil), total, h.SumSeconds, cumulative, values...)
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

func (c collector) server() {
	info := c.source.Info()
	c.one(prometheus.GaugeValue, "quail_build_info", "Always 1; the label is the version.", 1, "version", c.source.Version)
	c.gauge("quail_start_time_seconds", "When the server started, Unix time.", float64(info.Started.Unix()))
	c.gauge("quail_connected_clients", "Connections.", float64(info.ConnectedClients))
	c.gauge("quail_blocked_clients", "Connections that wait in a blocking command.", float64(info.BlockedClients))
	c.gauge("quail_max_clients", "The setting max-clients.", float64(info.MaxClients))
	c.counter("quail_connections_received_total", "Connections that came.", float64(info.ConnectionsReceived))
	c.counter("quail_connections_rejected_total", "Connections that were refused.", float64(info.ConnectionsRejected))
	c.counter("quail_input_bytes_total", "Bytes that clients sent.", float64(info.InputBytes))
	c.counter("quail_output_bytes_total", "Bytes that were sent to clients.", float64(info.OutputBytes))
	c.gauge("quail_memory_bytes", "Live heap.", float64(info.MemoryBytes))
	c.gauge("quail_resident_bytes", "What the process takes of the machine's memory.", float64(info.ResidentBytes))
	c.gauge("quail_clients_bytes", "What all connections hold of commands and replies.", float64(info.ClientsBytes))
	c.gauge("quail_clients_waiting", "Connections that wait for memory.", float64(info.ClientsWaiting))
	c.counter("quail_clients_evicted_total", "Connections that were closed for want of memory.", float64(info.ClientsEvicted))
	for _, line := range info.Persistence {
		help := "The line " + line[0] + " of INFO persistence; see docs/operations.md."
		switch value, err := strconv.ParseFloat(line[1], 64); {
		case err == nil:
			c.gauge("quail_"+line[0], help, value)
		case strings.HasSuffix(line[0], "_status"):
			c.gauge("quail_"+strings.TrimSuffix(line[0], "_status")+"_ok", help+" 1 is ok, 0 is err.", flag(line[1] == "ok"))
		}
	}
}

func (c collector) commands() {
	for _, s := range c.source.Commands() {
		c.one(prometheus.CounterValue, "quail_commands_total", "Calls of a command that ran.", float64(s.Calls), "command", s.Name)
		c.one(prometheus.CounterValue, "quail_commands_failed_total", "Calls that answered with an error at once.", float64(s.Failed), "command", s.Name)
		c.one(prometheus.CounterValue, "quail_commands_rejected_total", "Calls that did not run: wrong number of words, no password, no permission.", float64(s.Rejected), "command", s.Name)
		if s.Timed.Counts != nil {
			c.histogram("quail_command_seconds", "How long a command ran, without waiting for the disk, for messages or for its client; of quick commands one call in 64 is timed.",
				Histogram{BoundsSeconds: commands.TimeBoundsSeconds, Counts: s.Timed.Counts, SumSeconds: s.Timed.Sum.Seconds()}, []string{"command"}, []string{s.Name})
		}
	}
}

func (c collector) queues() {
	list, left := c.source.Queues(QueuesMax)
	c.gauge("quail_queues", "Queues.", float64(len(list)+left))
	c.gauge("quail_queues_not_shown", "Queues without lines of their own, since there are more than a thousand.", float64(left))
	for i := range list {
		q := &list[i]
		for _, g := range []struct {
			state           string
			messages, bytes int64
		}{{"ready", q.Counts.Ready, q.Counts.ReadyBytes}, {"delayed", q.Counts.Delayed, q.Counts.DelayedBytes},
			{"leased", q.Counts.Leased, q.Counts.LeasedBytes}, {"retrying", q.Counts.Retrying, q.Counts.RetryingBytes}} {
			c.one(prometheus.GaugeValue, "quail_queue_messages", "Messages that are not acknowledged.", float64(g.messages), "queue", q.Name, "state", g.state)
			c.one(prometheus.GaugeValue, "quail_queue_bytes", "Their bodies.", float64(g.bytes), "queue", q.Name, "state", g.state)
		}
		c.one(prometheus.GaugeValue, "quail_queue_waiting_consumers", "Consumers that wait for messages or for the lock.", float64(q.Waiting), "queue", q.Name)
		for _, p := range []struct {
			what string
			is   bool
		}{{"push", q.PushPaused}, {"consume", q.ConsumePaused}} {
			c.one(prometheus.GaugeValue, "quail_queue_paused", "1 if QPAUSE has stopped it.", flag(p.is), "queue", q.Name, "what", p.what)
		}
		c.one(prometheus.GaugeValue, "quail_queue_stopped", "1 if its log failed or is damaged: its commands get errors.", flag(q.Stopped), "queue", q.Name)
		for _, t := range []struct {
			event string
			count int64
		}{{"pushed", int64(q.Counts.Pushed)}, {"delivered", int64(q.Counts.Delivered)}, {"acknowledged", int64(q.Counts.Acknowledged)}, {"failed", int64(q.Counts.Failed)},
			{"expired", int64(q.Counts.Expired)}, {"dead-lettered", int64(q.Counts.DeadLettered)}, {"deduplicated", int64(q.Counts.Deduplicated)}} {
			c.one(prometheus.CounterValue, "quail_queue_events_total", "What happened to messages since the queue was made.", float64(t.count), "queue", q.Name, "event", t.event)
		}
	}
}
