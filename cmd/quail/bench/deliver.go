package bench

// The way of a message at a steady rate. Pushes go out by the clock, whether the replies of those before are there or
// not, so that a server that stops for a while has the wait of every message counted that came meanwhile. A message
// carries its number, and the consumer finds by it when it was sent.

import (
	"context"
	"fmt"
	"time"
)

type delivery struct {
	run       *run
	loop      *loop
	producers []*steady
	consumer  *consumer
	total     int
	sentAt    []time.Duration // by number
	began     time.Duration
	measured  *measured
}

// numberDigits is how much of a body the number takes.
const numberDigits = BodyBytesMin

// steady is a connection that pushes by the clock.
type steady struct {
	delivery *delivery
	conn     *conn
	command  []byte // its body is rewritten for each push
	body     []byte // where in command
	last     uint64
}

func (r *run) deliver(ctx context.Context) (*measured, error) {
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	defer l.close()
	total := min(r.count(deliverPerSecond), deliverSecondsMax*deliverPerSecond)
	d := &delivery{run: r, loop: l, total: int(total), sentAt: make([]time.Duration, 0, total), measured: &measured{latency: newHistogram()}}
	if err := d.connect(); err != nil {
		return nil, err
	}
	if err := d.consumer.begin(); err != nil {
		return nil, err
	}
	l.tick = d.tick
	d.began = l.now()
	if err := l.poller.every(time.Second / deliverPerSecond); err != nil {
		return nil, err
	}
	if err := l.run(ctx); err != nil {
		return nil, fmt.Errorf("%d of %d messages pushed, %d delivered: %w", len(d.sentAt), d.total, d.consumer.delivered, err)
	}
	d.measured.messages, d.measured.took = d.consumer.acknowledged, d.consumer.endedAt-d.began
	return d.measured, nil
}

func (d *delivery) connect() (err error) {
	r := d.run
	d.consumer = newConsumer(r, d.loop, int64(d.total), pullBlockMillis)
	d.consumer.arrived = d.arrived
	if d.consumer.conn, err = r.connect(d.loop); err != nil {
		return err
	}
	d.consumer.conn.user = d.consumer
	for range r.scenario.connections {
		p := &steady{delivery: d}
		p.command, _, _ = r.target.dialect.push(nil, r.queues[0], r.body(), 1)
		p.body = p.command[len(p.command)-2-r.bodyBytes : len(p.command)-2] // the last argument, for both servers
		if p.conn, err = r.connect(d.loop); err != nil {
			return err
		}
		p.conn.user = p
		d.producers = append(d.producers, p)
	}
	return nil
}

// tick sends what is due: one message usually, more after the clock was late.
func (d *delivery) tick() error {
	due := min(int((d.loop.now()-d.began)*deliverPerSecond/time.Second), d.total)
	for n := len(d.sentAt); n < due; n++ {
		p := d.producers[n%len(d.producers)]
		for digit, rest := numberDigits-1, n; digit >= 0; digit, rest = digit-1, rest/10 {
			p.body[digit] = byte('0' + rest%10)
		}
		d.sentAt = append(d.sentAt, d.loop.now())
		if err := p.conn.send(p.command); err != nil {
			return err
		}
	}
	return nil
}

// arrived gets each message from the consumer.
func (d *delivery) arrived(body []byte, now time.Duration) error {
	if len(body) != d.run.bodyBytes {
		return fmt.Errorf("a body of %d bytes came back with %d", d.run.bodyBytes, len(body))
	}
	number, ok := integer(body[:numberDigits])
	if !ok || number >= int64(len(d.sentAt)) {
		return fmt.Errorf("a message that was not pushed was delivered: %.40q", body)
	}
	record(d.measured.latency, now-d.sentAt[number])
	return nil
}

func (p *steady) reply(raw []byte, _ time.Duration) error {
	id, err := p.delivery.run.target.dialect.pushed(raw)
	if err == nil && id <= p.last {
		err = fmt.Errorf("push replied id %d after %d", id, p.last)
	}
	p.last = id
	return err
}
