// Package bench drives a Quail and a Redis (Streams) through the same scenarios in one run and compares them. It is what
// "quail bench" does, and a client like any other: it knows nothing of the server but the protocol.
//
// Two things make figures of two servers comparable, and the package is built around them. The servers take turns, round
// by round and in alternating order, so that what else the machine does meanwhile meets both. And the load generator is
// cheap: one thread, an epoll loop, commands encoded beforehand and replies checked without building values, since on a
// small machine what the generator burns is missing to the server.
package bench

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Bounds of a Config. They keep a run finite and its memory small: a run holds a backlog of MessagesMax messages in the
// server, and one call's bodies in memory.
const (
	RoundsMax    = 100
	SecondsMax   = 600
	MessagesMax  = 10_000_000
	BodyBytesMin = 16 // a message carries its own number, so that its way can be timed
	BodyBytesMax = 64 << 10
)

// Config says what is measured, against which servers.
type Config struct {
	Quail, Redis Server
	// Scenarios are names of the table Scenarios, in any order; none means all.
	Scenarios []string
	// Rounds is how often each server runs each scenario, 1 to RoundsMax.
	Rounds int
	// Seconds is how long one turn of a server pushes, 1 to SecondsMax.
	Seconds int
	// Messages, if not 0, ends a turn after so many messages instead of after Seconds, at most MessagesMax.
	Messages int64
	// BodyBytes is the size of a body where the scenario does not say, BodyBytesMin to BodyBytesMax.
	BodyBytes int
	// DataDir is where the servers that are started here get their temporary directories, removed at the end.
	DataDir string
	// Progress gets a line a turn.
	Progress io.Writer
}

// Server is one side of the comparison: one that runs already, at Address, or a program that is started for the run with
// a temporary data directory and a free port of 127.0.0.1. With neither it is left out.
type Server struct {
	Address  string      // host:port
	Program  string      // path of the program, used if Address is empty
	User     string      // for Address; empty is default
	Password string      // for Address; servers started here have none
	TLS      *tls.Config // for Address; nil speaks plainly
}

// given is true if the server is to be measured.
func (s Server) given() bool { return s.Address != "" || s.Program != "" }

// Check returns an error that names what does not fit, and nil if Run may be called.
func (c *Config) Check() error {
	for _, b := range []struct {
		name          string
		got, min, max int64
	}{
		{"rounds", int64(c.Rounds), 1, RoundsMax},
		{"seconds", int64(c.Seconds), 1, SecondsMax},
		{"messages", c.Messages, 0, MessagesMax},
		{"body-bytes", int64(c.BodyBytes), BodyBytesMin, BodyBytesMax},
	} {
		if b.got < b.min || b.got > b.max {
			return fmt.Errorf("%s: got %d; allowed is %d to %d", b.name, b.got, b.min, b.max)
		}
	}
	if !c.Quail.given() && !c.Redis.given() {
		return fmt.Errorf("there is no server to measure")
	}
	_, err := chosen(c.Scenarios)
	return err
}

// Run measures and reports. It starts and stops the servers that Config asks for, and removes all that it made, queues
// in servers that ran already included, whether it ends well, with an error, or because ctx does.
func Run(ctx context.Context, c Config) (report *Report, err error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	scenarios, _ := chosen(c.Scenarios)
	unique := make([]byte, 4)
	rand.Read(unique)
	prefix := "quail-bench-" + hex.EncodeToString(unique)
	dir, err := os.MkdirTemp(c.DataDir, prefix+"-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the servers' data: %w", err)
	}
	defer os.RemoveAll(dir)
	if dir, err = filepath.Abs(dir); err != nil { // servers run in directories of their own
		return nil, err
	}

	var targets []*target
	defer func() {
		for _, t := range targets {
			t.stop()
		}
	}()
	for _, side := range []struct {
		server  Server
		dialect dialect
	}{{c.Quail, quail{}}, {c.Redis, redis{}}} {
		if !side.server.given() {
			continue
		}
		t, err := reach(ctx, side.server, side.dialect, dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", side.dialect.name(), err)
		}
		targets = append(targets, t)
	}
	report = &Report{Facts: facts(&c, targets, dir)}
	for _, s := range scenarios {
		for _, t := range targets {
			report.Results = append(report.Results, &Result{Scenario: s, Server: t.dialect.name()})
		}
	}
	return report, rounds(ctx, &c, prefix, dir, scenarios, targets, report)
}

// rounds gives every server its turns. The order within a pair changes from round to round: whoever comes second finds
// the disk as the first one left it.
func rounds(ctx context.Context, c *Config, prefix, dir string, scenarios []*Scenario, targets []*target, report *Report) error {
	order := slices.Clone(targets)
	for round := range c.Rounds {
		for _, s := range scenarios {
			for _, t := range order {
				flush(dir)
				name := fmt.Sprintf("%s-%s-%d", prefix, strings.ToLower(s.Name), round)
				turn, err := takeTurn(ctx, c, s, t, name)
				if ctx.Err() != nil {
					return fmt.Errorf("interrupted in round %d of %d", round+1, c.Rounds)
				}
				if err != nil {
					return fmt.Errorf("%s, %s, round %d: %w", s.Name, t.dialect.name(), round+1, err)
				}
				report.result(s, t.dialect.name()).add(turn)
				fmt.Fprintf(c.Progress, "round %d/%d  %s  %-5s  %10s messages/s  p50 %s ms  p99 %s ms\n", round+1, c.Rounds,
					s.Name, t.dialect.name(), thousands(turn.Rate), millis(turn.P50), millis(turn.P99))
			}
		}
		slices.Reverse(order)
	}
	return nil
}

// takeTurn runs one scenario once against one server, and removes its queues.
func takeTurn(ctx context.Context, c *Config, s *Scenario, t *target, name string) (turn Turn, err error) {
	r := &run{scenario: s, target: t, queues: s.queueNames(name), bodyBytes: s.bodyBytes(c.BodyBytes)}
	r.seconds, r.messages = c.Seconds, c.Messages
	defer func() {
		if deleteErr := t.delete(r.queues); err == nil && deleteErr != nil {
			err = fmt.Errorf("delete the queues of the round: %w", deleteErr)
		}
		t.settle(settleTime)
	}()
	if err := r.prepare(ctx); err != nil {
		return turn, fmt.Errorf("prepare: %w", err)
	}
	before, err := t.settle(settleTime)
	if err != nil {
		return turn, err
	}
	own := ownCPU()
	measured, err := r.measure(ctx)
	if err != nil {
		return turn, err
	}
	own = ownCPU() - own
	// What the server still has to do for these messages in the background belongs to their price.
	after, err := t.settle(settleTime)
	if err != nil {
		return turn, err
	}
	turn = measured.turn()
	turn.GeneratorShare = own.Seconds() / turn.Seconds
	if before.known && after.known {
		turn.ServerCPU = (after.used - before.used).Seconds() / float64(turn.Messages) * 1e6
	}
	return turn, nil
}

// settleTime bounds the wait for a server that does not come to rest after its turn.
const settleTime = 3 * time.Second
