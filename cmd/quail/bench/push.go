package bench

// Connections that push: a call, then the next when all its replies are there.

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// pushRun is what the connections share.
type pushRun struct {
	loop    *loop
	dialect dialect
	calls   [][]byte // one a queue, encoded once
	replies int      // of a call
	each    int      // messages a reply stands for
	latency *hdrhistogram.Histogram

	endAt     time.Duration // no call begins after it; 0 = no such end
	limit     int64         // no call begins after so many messages; 0 = no such end
	begun     int64
	pushed    int64
	active    int // connections with a call on the way
	repliedAt time.Duration
}

// push pushes, limit messages if it is not 0, otherwise for as long as the run lasts.
func (r *run) push(ctx context.Context, limit int64) (*measured, error) {
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	defer l.close()
	p := &pushRun{loop: l, dialect: r.target.dialect, latency: newHistogram(), limit: limit}
	body := r.body()
	for _, queue := range r.queues {
		var call []byte
		p.replies = 0
		for range r.scenario.pipeline {
			commands, replies, each := p.dialect.push(nil, queue, body, r.scenario.batch)
			call = append(call, commands...)
			p.replies, p.each = p.replies+replies, each
		}
		p.calls = append(p.calls, call)
	}
	producers, err := r.producers(p)
	if err != nil {
		return nil, err
	}
	began := l.now()
	if limit == 0 {
		p.endAt = began + time.Duration(r.seconds)*time.Second
	}
	for _, each := range producers {
		if err := each.begin(); err != nil {
			return nil, err
		}
	}
	if err := l.run(ctx); err != nil {
		return nil, fmt.Errorf("after %d messages: %w", p.pushed, err)
	}
	return &measured{messages: p.pushed, took: p.repliedAt - began, latency: p.latency}, nil
}

// producers connect. Each begins at another queue, and goes round all of them.
func (r *run) producers(p *pushRun) ([]*producer, error) {
	list := make([]*producer, r.scenario.connections)
	for i := range list {
		c, err := r.connect(p.loop)
		if err != nil {
			return nil, err
		}
		list[i] = &producer{run: p, conn: c, queue: i * len(r.queues) / len(list), last: make([]uint64, len(r.queues))}
		c.user = list[i]
	}
	return list, nil
}

// producer is one connection.
type producer struct {
	run     *pushRun
	conn    *conn
	queue   int      // of the call on the way
	last    []uint64 // the latest id that each queue told this connection
	waiting int      // replies of the call that are not there yet
	sentAt  time.Duration
}

// begin sends the next call, if there is to be one.
func (p *producer) begin() error {
	r := p.run
	p.sentAt = r.loop.now()
	if r.endAt != 0 && p.sentAt >= r.endAt || r.limit != 0 && r.begun >= r.limit {
		r.loop.done = r.active == 0
		return nil
	}
	r.active++
	r.begun += int64(r.replies * r.each)
	p.waiting = r.replies
	return p.conn.send(r.calls[p.queue])
}

// reply checks that ids rise: an id that does not means that a message was lost or reported twice.
func (p *producer) reply(raw []byte, now time.Duration) error {
	r := p.run
	id, err := r.dialect.pushed(raw)
	if err != nil {
		return err
	}
	if p.waiting == 0 || id <= p.last[p.queue] {
		return fmt.Errorf("push replied id %d after %d", id, p.last[p.queue])
	}
	p.last[p.queue] = id + uint64(r.each) - 1
	r.pushed += int64(r.each)
	if p.waiting--; p.waiting > 0 {
		return nil
	}
	record(r.latency, now-p.sentAt)
	r.repliedAt = now
	r.active--
	if p.queue++; p.queue == len(r.calls) {
		p.queue = 0
	}
	return p.begin()
}
