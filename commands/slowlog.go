package commands

// SLOWLOG: commands that took long to run. The wait for the disk, for a message or for the client is not counted: what is
// looked for are commands that keep others waiting.

import (
	"sync"
	"sync/atomic"
	"time"
)

// Slowlog is a bounded list of slow commands. As it is made, it keeps none.
type Slowlog struct {
	// thresholdMicros is what a command may take unnoticed; negative notices none.
	thresholdMicros atomic.Int64
	most            atomic.Int64

	mu     sync.Mutex // guards what follows; never held during IO
	next   int64
	latest []slowEntry // newest first
}

type slowEntry struct {
	id           int64
	at           time.Time
	micros       int64
	words        []string
	client, name string
}

// Configure sets what a command may take, in microseconds, -1 for anything, and how many entries are kept.
func (s *Slowlog) Configure(thresholdMicros, most int64) {
	s.thresholdMicros.Store(thresholdMicros)
	s.most.Store(most)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest = s.latest[:min(int64(len(s.latest)), most)]
}

// processStart is what durations are counted from: reading the monotonic clock alone is cheaper than time.Now.
var processStart = time.Now()

const (
	// promptWords and promptMicros: a prompt command of so few words takes some microseconds. Looking at the clock twice was
	// measured to cost it a twentieth, so that is left out unless somebody asks for commands as quick as that.
	promptWords  = 64
	promptMicros = 1000
)

// ignoresPrompt reports whether prompt commands of few words are not measured.
func (s *Slowlog) ignoresPrompt() bool {
	threshold := s.thresholdMicros.Load()
	return threshold >= promptMicros || threshold < 0 || s.most.Load() == 0
}

// begin is the time before the call, or 0 if it is not measured.
func (s *Slowlog) begin(c *Call) time.Duration {
	prompt := c.spec.Flags&FlagPrompt != 0 && len(c.Args) < promptWords
	if prompt && s.ignoresPrompt() || s.thresholdMicros.Load() < 0 || s.most.Load() == 0 {
		return 0
	}
	return time.Since(processStart)
}

// end notes the call if it took too long since begin.
func (s *Slowlog) end(c *Call, began time.Duration) {
	threshold := s.thresholdMicros.Load()
	if began == 0 || threshold < 0 {
		return
	}
	if micros := (time.Since(processStart) - began).Microseconds(); micros >= threshold {
		s.add(c, micros)
	}
}

func (s *Slowlog) add(c *Call, micros int64) {
	entry := slowEntry{at: time.Now(), micros: micros, words: c.shown(), client: c.Conn.Info().RemoteAddr, name: c.Conn.Name()}
	s.mu.Lock()
	defer s.mu.Unlock()
	most := int(s.most.Load())
	if most == 0 {
		return // since begin
	}
	entry.id = s.next
	s.next++
	if len(s.latest) < most {
		s.latest = append(s.latest, slowEntry{})
	}
	copy(s.latest[1:], s.latest)
	s.latest[0] = entry
}

var slowlog = &Spec{
	Name:        "SLOWLOG",
	Summary:     "Look at commands that took long",
	Group:       GroupServer,
	Reply:       "Depends on the subcommand.",
	Flags:       FlagAdmin | FlagLoading | FlagStale,
	Subcommands: []*Spec{slowlogGet, slowlogLen, slowlogReset, helpSpec()},
}

var slowlogGet = &Spec{
	Name:    "GET",
	Summary: "List slow commands, the latest first",
	Reply: "array, for each command: id, unix time in seconds, microseconds, words, client's address, client's name. Passwords are redacted, " +
		"and of messages and headers only the length is shown.",
	Notes: []string{"Settings: `slowlog-log-slower-than`, `slowlog-max-len`. The wait for the disk is not counted."},
	Args:  []Arg{{Name: "count", Type: ArgInteger, Optional: true, Text: "Default: 10; -1: all."}},
	Flags: FlagAdmin | FlagLoading | FlagStale,
	Run:   runSlowlogGet,
}

func runSlowlogGet(c *Call) {
	most := int64(10)
	if len(c.Args) > 3 {
		c.wrongArity()
		return
	}
	if len(c.Args) == 3 {
		n, ok := parseInteger(c.Args[2])
		if !ok || n < -1 {
			c.W.Error("ERR", "count should be greater than or equal to -1")
			return
		}
		most = n
	}
	s := c.Env.Slowlog
	s.mu.Lock()
	list := append([]slowEntry(nil), s.latest...)
	s.mu.Unlock()
	if most >= 0 {
		list = list[:min(most, int64(len(list)))]
	}
	c.W.Array(len(list))
	for _, e := range list {
		c.W.Array(6)
		c.W.Int(e.id)
		c.W.Int(e.at.Unix())
		c.W.Int(e.micros)
		stringArray(c.W, e.words)
		c.W.BulkString(e.client)
		c.W.BulkString(e.name)
	}
}

var slowlogLen = &Spec{
	Name:    "LEN",
	Summary: "Count the slow commands that are listed",
	Reply:   "integer.",
	Flags:   FlagAdmin | FlagLoading | FlagStale,
	Run: func(c *Call) {
		c.Env.Slowlog.mu.Lock()
		defer c.Env.Slowlog.mu.Unlock()
		c.W.Int(int64(len(c.Env.Slowlog.latest)))
	},
}

var slowlogReset = &Spec{
	Name:    "RESET",
	Summary: "Forget the slow commands",
	Reply:   "OK.",
	Flags:   FlagAdmin | FlagLoading | FlagStale,
	Run: func(c *Call) {
		c.Env.Slowlog.mu.Lock()
		c.Env.Slowlog.latest = nil
		c.Env.Slowlog.mu.Unlock()
		c.W.OK()
	},
}
