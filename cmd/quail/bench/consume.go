package bench

// A consumer: it pulls a batch, and then acknowledges it and pulls the next one in a single write.

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

type consumer struct {
	loop    *loop
	dialect dialect
	queue   string
	conn    *conn
	want    int64 // it ends after so many messages
	blocks  bool  // its pulls wait for messages; if not, a null means that messages are missing
	pull    []byte
	out     []byte // of the call on the way
	batch   batch
	latency *hdrhistogram.Histogram // from a pull to its batch, if not nil
	arrived func(body []byte, now time.Duration) error

	pulledAt                time.Duration
	arrivedAt               time.Duration // of the latest batch
	acknowledging           int           // messages of the acknowledgement on the way
	delivered, acknowledged int64
	last                    uint64
	endedAt                 time.Duration
}

func newConsumer(r *run, l *loop, want int64, blockMillis int) *consumer {
	x := &consumer{loop: l, dialect: r.target.dialect, queue: r.queues[0], want: want, blocks: blockMillis > 0}
	x.pull = x.dialect.pull(nil, x.queue, pullCount, blockMillis)
	return x
}

// begin sends a pull alone.
func (x *consumer) begin() error {
	x.pulledAt = x.loop.now()
	return x.conn.send(x.pull)
}

func (x *consumer) reply(raw []byte, now time.Duration) error {
	if x.acknowledging > 0 {
		return x.acknowledgedSome(raw, now)
	}
	if err := x.dialect.pulled(raw, &x.batch); err != nil {
		return err
	}
	if len(x.batch.ids) == 0 {
		if !x.blocks {
			return fmt.Errorf("the queue is empty after %d of %d messages", x.delivered, x.want)
		}
		if now-x.arrivedAt > stallTime {
			return fmt.Errorf("nothing is delivered for %v", stallTime)
		}
		return x.begin()
	}
	x.arrivedAt = now
	if x.latency != nil {
		record(x.latency, now-x.pulledAt)
	}
	for i, id := range x.batch.ids {
		if id <= x.last {
			return fmt.Errorf("message %d was delivered after message %d", id, x.last)
		}
		x.last = id
		if x.arrived != nil {
			if err := x.arrived(x.batch.bodies[i], now); err != nil {
				return err
			}
		}
	}
	return x.acknowledge()
}

func (x *consumer) acknowledge() error {
	x.acknowledging = len(x.batch.ids)
	x.delivered += int64(x.acknowledging)
	x.out = x.dialect.ack(x.out[:0], x.queue, &x.batch)
	if x.delivered < x.want {
		x.out = append(x.out, x.pull...)
	}
	x.pulledAt = x.loop.now()
	return x.conn.send(x.out)
}

func (x *consumer) acknowledgedSome(raw []byte, now time.Duration) error {
	l := looking{rest: raw}
	n := l.integer()
	if l.err != nil {
		return l.err
	}
	if n != int64(x.acknowledging) {
		return fmt.Errorf("%d messages of a batch of %d were acknowledged", n, x.acknowledging)
	}
	x.acknowledging = 0
	x.acknowledged += n
	if x.acknowledged >= x.want {
		x.endedAt, x.loop.done = now, true
	}
	return nil
}
