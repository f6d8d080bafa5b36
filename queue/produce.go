package queue

import (
	"quail/queue/machine"
)

// Push adds one message per body, all or none, and returns the first one's id; the others follow without a gap. It may wait
// while the log's buffers are full. Bodies are not kept.
// Errors: TOOBIG, QFULL, PAUSED, NOQUEUE, WALERR, ERR.
func (s *Set) Push(name []byte, bodies [][]byte) (firstID uint64, after *Future, err error) {
	q, err := s.make(name)
	if err != nil {
		return 0, nil, err
	}
	if err := q.store.WaitRoom(); err != nil {
		return 0, nil, walError(err)
	}
	q.mu.Lock()
	defer q.mu.Unlock() // the line is served when the push is durable
	if err := q.refusal(); err != nil {
		return 0, nil, err
	}
	if err := q.admits(bodies); err != nil {
		return 0, q.last, err
	}
	q.meta = machine.MessageMeta(q.meta[:0], machine.Message{PushedMillis: q.now().WallMillis})
	e := machine.Effect{Kind: machine.KindMessage, Meta: q.meta}
	recs := q.recs[:0]
	for _, body := range bodies {
		recs = append(recs, q.apply(e, body))
	}
	firstID = recs[0].LSN
	return firstID, q.hand(recs), nil
}

// admits checks a push against the limits before anything is changed.
func (q *queue) admits(bodies [][]byte) error {
	total, each := int64(0), q.option(machine.MaxMessageBytes)
	for i, body := range bodies {
		if int64(len(body)) > each {
			return refuse("TOOBIG", "body %d has %d bytes, max-message-bytes of queue %q is %d; nothing was pushed", i+1, len(body), q.name, each)
		}
		total += int64(len(body))
	}
	if most := q.set.cfg.PushBytesMax(); total > most {
		return refuse("TOOBIG", "the push has %d bytes, max-push-bytes is %d; push fewer bodies at once; nothing was pushed", total, most)
	}
	counts := q.m.Counts()
	if most := q.option(machine.MaxMessages); most > 0 && counts.Total()+int64(len(bodies)) > most {
		return refuse("QFULL", "queue %q holds %d messages, max-messages is %d; consume some first; nothing was pushed", q.name, counts.Total(), most)
	}
	if most := q.option(machine.MaxBytes); most > 0 && counts.TotalBytes()+total > most {
		return refuse("QFULL", "queue %q holds %d bytes, max-bytes is %d; consume some first; nothing was pushed", q.name, counts.TotalBytes(), most)
	}
	return nil
}
