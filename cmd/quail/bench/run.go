package bench

// One turn: a scenario against a server. Preparing (queues, groups, a backlog) is not measured.

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// run is one turn.
type run struct {
	scenario  *Scenario
	target    *target
	queues    []string
	bodyBytes int
	seconds   int
	messages  int64 // 0 = as many as go into seconds
}

// measured is what came of it.
type measured struct {
	messages int64
	took     time.Duration
	latency  *hdrhistogram.Histogram // microseconds
}

// newHistogram has room for a minute in steps of a microsecond, exact to three digits.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 60_000_000, 3) }

func record(h *hdrhistogram.Histogram, d time.Duration) {
	h.RecordValue(min(max(d.Microseconds(), 1), 60_000_000))
}

func (m *measured) turn() Turn {
	seconds := max(m.took, time.Microsecond).Seconds()
	at := func(percentile float64) float64 { return float64(m.latency.ValueAtPercentile(percentile)) / 1000 }
	return Turn{Messages: m.messages, Seconds: seconds, Rate: float64(m.messages) / seconds, P50: at(50), P99: at(99), P999: at(99.9)}
}

func (r *run) body() []byte {
	body := make([]byte, r.bodyBytes)
	for i := range body {
		body[i] = 'x'
	}
	return body
}

// count is how many messages were asked for, or otherwise so many for each second.
func (r *run) count(perSecond int64) int64 {
	if r.messages > 0 {
		return r.messages
	}
	return int64(r.seconds) * perSecond
}

// prepare makes the queues, so that making them is not what is measured, and what is to be consumed.
func (r *run) prepare(ctx context.Context) error {
	c, err := r.target.dial()
	if err != nil {
		return err
	}
	defer c.close()
	if r.scenario.kind == pushing {
		body := r.body()
		for _, queue := range r.queues {
			command, _, _ := r.target.dialect.push(nil, queue, body, 1)
			if _, err := c.exchange(command); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return nil
	}
	if group := r.target.dialect.group(r.queues[0]); group != nil {
		if _, err := c.ask(group...); err != nil {
			return err
		}
	}
	if r.scenario.kind == consuming {
		_, err := r.push(ctx, r.count(backlogPerSecond))
		return err
	}
	return nil
}

func (r *run) measure(ctx context.Context) (*measured, error) {
	switch r.scenario.kind {
	case consuming:
		return r.consume(ctx)
	case delivering:
		return r.deliver(ctx)
	}
	return r.push(ctx, r.messages)
}

// connect adds a connection to the loop.
func (r *run) connect(l *loop) (*conn, error) {
	c, err := r.target.dial()
	if err != nil {
		return nil, err
	}
	return l.add(c)
}

// consume works through the backlog. The acknowledgement of a batch and the pull of the next one go out in one write.
func (r *run) consume(ctx context.Context) (*measured, error) {
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	defer l.close()
	x := newConsumer(r, l, r.count(backlogPerSecond), 0)
	x.latency = newHistogram()
	if x.conn, err = r.connect(l); err != nil {
		return nil, err
	}
	x.conn.user = x
	began := l.now()
	if err := x.begin(); err != nil {
		return nil, err
	}
	if err := l.run(ctx); err != nil {
		return nil, fmt.Errorf("after %d of %d messages: %w", x.acknowledged, x.want, err)
	}
	return &measured{messages: x.acknowledged, took: x.endedAt - began, latency: x.latency}, nil
}
