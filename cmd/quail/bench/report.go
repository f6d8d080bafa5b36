package bench

// The figures of a run, as a table to read and as JSON. The table is Markdown, so that it can be kept as it is.

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Turn is one scenario, run once by one server.
type Turn struct {
	Messages int64   `json:"messages"`
	Seconds  float64 `json:"seconds"`
	Rate     float64 `json:"messages_per_second"`
	// P50, P99 and P999 are percentiles, in milliseconds, of the time of a call; at a steady rate, of a message's way.
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p999_ms"`
	// ServerCPU is in seconds for a million messages, background work included; 0 = unknown.
	ServerCPU float64 `json:"server_cpu_s_per_million"`
	// GeneratorShare is the share of one core that the load generator used. Near 1, it is what was measured.
	GeneratorShare float64 `json:"generator_cpu_share"`
}

// Result has the turns of one server in one scenario, and their medians.
type Result struct {
	Scenario *Scenario `json:"scenario"`
	Server   string    `json:"server"`
	Turns    []Turn    `json:"turns"`
	Median   Turn      `json:"median"`
}

// Report is the outcome of a run.
type Report struct {
	Facts   []Fact    `json:"facts"`
	Results []*Result `json:"results"`
}

func (r *Report) result(s *Scenario, server string) *Result {
	i := slices.IndexFunc(r.Results, func(x *Result) bool { return x.Scenario == s && x.Server == server })
	if i < 0 {
		return nil
	}
	return r.Results[i]
}

func (r *Result) add(t Turn) {
	r.Turns = append(r.Turns, t)
	of := func(field func(*Turn) float64) float64 {
		var values []float64
		for i := range r.Turns {
			values = append(values, field(&r.Turns[i]))
		}
		return median(values)
	}
	r.Median = Turn{
		Messages:       int64(of(func(t *Turn) float64 { return float64(t.Messages) })),
		Seconds:        of(func(t *Turn) float64 { return t.Seconds }),
		Rate:           of(func(t *Turn) float64 { return t.Rate }),
		P50:            of(func(t *Turn) float64 { return t.P50 }),
		P99:            of(func(t *Turn) float64 { return t.P99 }),
		P999:           of(func(t *Turn) float64 { return t.P999 }),
		ServerCPU:      of(func(t *Turn) float64 { return t.ServerCPU }),
		GeneratorShare: of(func(t *Turn) float64 { return t.GeneratorShare }),
	}
}

// median is 0 of nothing, and the mean of the two in the middle of an even number.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// ratio is the median of the rounds' ratios, so that a round in which the machine was busy counts for both servers. At a
// steady rate it compares the 99th percentiles, elsewhere the rates.
func ratio(of, to *Result) float64 {
	var values []float64
	for i := range min(len(of.Turns), len(to.Turns)) {
		above, below := of.Turns[i].Rate, to.Turns[i].Rate
		if of.Scenario.kind == delivering {
			above, below = of.Turns[i].P99, to.Turns[i].P99
		}
		if below > 0 {
			values = append(values, above/below)
		}
	}
	return median(values)
}

// WriteTable writes facts and medians.
func (r *Report) WriteTable(w io.Writer) error {
	var text strings.Builder
	for _, fact := range r.Facts {
		fmt.Fprintf(&text, "- %s: %s\n", fact.Name, fact.Text)
	}
	text.WriteString("\n")
	rows := [][]string{{"scenario", "server", "messages/s", "Quail : Redis", "p50 ms", "p99 ms", "p99.9 ms", "server CPU s/million", "generator CPU"}}
	for _, result := range r.Results {
		rows = append(rows, r.row(result))
	}
	writeRows(&text, rows)
	_, err := io.WriteString(w, text.String())
	return err
}

func (r *Report) row(result *Result) []string {
	s, m := result.Scenario, &result.Median
	compared := ""
	if other := r.result(s, redis{}.name()); result.Server == (quail{}).name() && other != nil {
		compared = strconv.FormatFloat(ratio(result, other), 'f', 2, 64)
		if s.kind == delivering {
			compared += " (p99)"
		}
	}
	cpu := "unknown"
	if m.ServerCPU > 0 {
		cpu = strconv.FormatFloat(m.ServerCPU, 'f', 2, 64)
	}
	return []string{s.Name + " " + s.Title, result.Server, thousands(m.Rate), compared, millis(m.P50), millis(m.P99), millis(m.P999),
		cpu, fmt.Sprintf("%.0f %%", m.GeneratorShare*100)}
}

// writeRows aligns a table, so that it reads well in a terminal too: the first two columns left, figures right.
func writeRows(text *strings.Builder, rows [][]string) {
	const leftColumns = 2
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 4)
		}
	}
	for n, row := range rows {
		for i, cell := range row {
			padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i < leftColumns {
				cell += padding
			} else {
				cell = padding + cell
			}
			text.WriteString("| " + cell + " ")
		}
		text.WriteString("|\n")
		if n > 0 {
			continue
		}
		for i, width := range widths {
			if i < leftColumns {
				text.WriteString("|" + strings.Repeat("-", width+2))
			} else {
				text.WriteString("|" + strings.Repeat("-", width+1) + ":")
			}
		}
		text.WriteString("|\n")
	}
}

// thousands writes a whole number with commas.
func thousands(n float64) string {
	digits := strconv.FormatInt(int64(n+0.5), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func millis(n float64) string { return strconv.FormatFloat(n, 'f', 2, 64) }
