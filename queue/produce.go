package queue

import (
	"fmt"
	"slices"
	"strings"

	"quail/queue/machine"
	"quail/wal/record"
)

const (
	// headersBytesMax bounds the headers of one message together, names and values, in bytes: they are kept apart from
	// the body and count towards no queue's max-bytes.
	headersBytesMax = 64 << 10
)

// PushOptions say more about the messages of one push. The zero value is a plain push.
type PushOptions struct {
	// HasDelay: they are ready DelayMillis after the push, whatever the queue's option says.
	HasDelay    bool
	DelayMillis int64
	// AtMillis, if not 0, is when they are ready, unix milliseconds.
	AtMillis int64
	// HasTTL: they are kept TTLMillis from the push on, whatever the queue's option says; 0 is for ever.
	HasTTL    bool
	TTLMillis int64
	// Dedup, if not empty, makes a second push within the queue's dedup-window add nothing. One body only.
	Dedup []byte
	// Headers are names and values for each of the messages.
	Headers [][2][]byte
}

// Push adds one message per body, all or none, and returns the first one's id; the others follow without a gap. It may wait
// while the log's buffers are full. Bodies are not kept.
// Errors: TOOBIG, QFULL, PAUSED, NOQUEUE, WALERR, ERR.
func (s *Set) Push(name []byte, bodies [][]byte) (firstID uint64, after *Future, err error) {
	return s.PushWith(name, bodies, PushOptions{})
}

// PushWith is Push with options. With a deduplication id that is remembered it adds nothing and returns the first message's id.
// Errors: as Push; QFULL also when dedup-max ids are remembered.
func (s *Set) PushWith(name []byte, bodies [][]byte, o PushOptions) (firstID uint64, after *Future, err error) {
	if err := o.check(len(bodies)); err != nil {
		return 0, nil, err
	}
	q, err := s.makeLocked(name)
	if err != nil {
		return 0, nil, err
	}
	defer q.mu.Unlock() // the line is served when the push is durable
	if err := q.refusal(); err != nil {
		return 0, nil, err
	}
	now := q.now()
	if len(o.Dedup) > 0 {
		if id, known := q.m.Duplicate(now, o.Dedup); known {
			q.m.CountDuplicate()
			return id, q.last, nil
		}
	}
	if err := q.admits(now, bodies, &o); err != nil {
		return 0, q.last, err
	}
	m := q.message(now, &o)
	if m.TTLMillis > 0 {
		q.expires(m.PushedMillis + m.TTLMillis)
	}
	q.meta = machine.MessageMeta(q.meta[:0], m)
	firstID = q.m.LastLSN() + 1
	if m.IsPlain() {
		return firstID, q.pushPlain(now, bodies), nil
	}
	e := machine.Effect{Kind: machine.KindMessage, Meta: q.meta}
	recs := newRecs()
	for _, body := range bodies {
		recs = append(recs, q.apply(e, body))
	}
	return firstID, q.hand(recs), nil
}

// pushPlain commits messages that have nothing but a body, the common case, without reading back what it has just encoded.
func (q *queue) pushPlain(now machine.Time, bodies [][]byte) *Future {
	first, total := q.m.LastLSN()+1, int64(0)
	recs := newRecs()
	for i, body := range bodies {
		total += int64(len(body))
		recs = append(recs, record.Record{LSN: first + uint64(i), Incarnation: q.log.Incarnation(), Kind: record.Kind(machine.KindMessage),
			Meta: q.meta, Body: body})
	}
	if err := q.m.ApplyMessages(first, len(bodies), total, now.WallMillis); err != nil {
		panic(fmt.Sprintf("queue %q cannot apply its own push of %d messages: %v", q.name, len(bodies), err))
	}
	return q.hand(recs)
}

func (o *PushOptions) check(bodies int) error {
	switch {
	case len(o.Dedup) > 0 && bodies != 1:
		return refuse("ERR", "count is %d, but must be 1 with DEDUP; push the bodies one by one; nothing was pushed", bodies)
	case len(o.Dedup) > machine.DedupBytesMax:
		return refuse("ERR", "DEDUP has %d bytes, but must have at most %d; nothing was pushed", len(o.Dedup), machine.DedupBytesMax)
	case len(o.Headers) > machine.HeadersMax:
		return refuse("ERR", "HEADERS n is %d, but must be at most %d; nothing was pushed", len(o.Headers), machine.HeadersMax)
	}
	if total := o.headersBytes(); total > headersBytesMax {
		return refuse("TOOBIG", "the headers have %d bytes; at most %d are allowed; put more into the body; nothing was pushed", total, headersBytesMax)
	}
	if len(o.Headers) == 0 {
		return nil
	}
	// They are a map for whoever reads them, so a name that comes twice would hide a value, and one of Quail's own would be believed.
	names := make(map[string]bool, len(o.Headers))
	for _, h := range o.Headers {
		name := string(h[0])
		if names[name] {
			return refuse("ERR", "HEADERS name %q is given twice, but each may come at most once; nothing was pushed", clip(h[0]))
		}
		if strings.HasPrefix(name, headerOrigin) {
			return refuse("ERR", "HEADERS name is %q, but names that begin with %s are set by Quail alone; choose another; nothing was pushed", clip(h[0]), headerOrigin)
		}
		names[name] = true
	}
	return nil
}

// headersBytes is the size of all names and values.
func (o *PushOptions) headersBytes() (total int) {
	for _, h := range o.Headers {
		total += len(h[0]) + len(h[1])
	}
	return total
}

// message is what the records of one push say. Called with mu held.
func (q *queue) message(now machine.Time, o *PushOptions) machine.Message {
	m := machine.Message{PushedMillis: now.WallMillis, Headers: o.Headers, TTLMillis: o.TTLMillis}
	if !o.HasTTL {
		m.TTLMillis = q.option(machine.TTL)
	}
	switch {
	case o.AtMillis > 0:
		if o.AtMillis > now.WallMillis {
			m.DueMillis = o.AtMillis
		}
	case o.HasDelay && o.DelayMillis > 0:
		m.DueMillis = now.WallMillis + o.DelayMillis
	case !o.HasDelay && q.option(machine.Delay) > 0:
		m.DueMillis = now.WallMillis + q.option(machine.Delay)
	}
	if len(o.Dedup) > 0 {
		m.Dedup, m.DedupUntilMillis = slices.Clone(o.Dedup), now.WallMillis+q.option(machine.DedupWindow)
	}
	return m
}

// admits checks a push against the limits before anything is changed.
func (q *queue) admits(now machine.Time, bodies [][]byte, o *PushOptions) error {
	if paused, _ := q.m.Paused(); paused {
		return q.pausedError("pushing to")
	}
	if farthest := now.WallMillis + machine.Specs[machine.Delay].Max; o.AtMillis > farthest {
		return refuse("ERR", "AT is %d, but must be at most %d (unix-ms), ten years from now; nothing was pushed", o.AtMillis, farthest)
	}
	total, each := int64(0), q.option(machine.MaxMessageBytes)
	for i, body := range bodies {
		if int64(len(body)) > each {
			return refuse("TOOBIG", "body %d has %d bytes, max-message-bytes of queue %q is %d; nothing was pushed", i+1, len(body), q.name, each)
		}
		total += int64(len(body))
	}
	// Each message carries the headers, so what counts is what the push becomes.
	if whole, most := total+int64(len(bodies)*o.headersBytes()), q.set.cfg.PushBytesMax(); whole > most {
		return refuse("TOOBIG", "the push has %d bytes with the headers of each message, max-push-bytes is %d; push fewer bodies at once; nothing was pushed", whole, most)
	}
	if len(o.Dedup) > 0 {
		if most := q.option(machine.DedupMax); int64(q.m.DedupLive(now)) >= most {
			return refuse("QFULL", "queue %q remembers %d deduplication ids, as many as dedup-max; push without DEDUP, or wait until dedup-window has passed; nothing was pushed", q.name, most)
		}
	}
	counts := q.m.Counts()
	if most := q.option(machine.MaxMessages); most > 0 && counts.Total()+int64(len(bodies)) > most {
		if n := int64(len(bodies)); n > most {
			return refuse("QFULL", "the push has %d messages and never fits: max-messages of queue %q is %d; push fewer at once, or raise it; nothing was pushed", n, q.name, most)
		}
		return refuse("QFULL", "queue %q holds %d messages, max-messages is %d; consume some first; nothing was pushed", q.name, counts.Total(), most)
	}
	if most := q.option(machine.MaxBytes); most > 0 && counts.TotalBytes()+total > most {
		if total > most {
			return refuse("QFULL", "the push has %d bytes and never fits: max-bytes of queue %q is %d; push fewer at once, or raise it; nothing was pushed", total, q.name, most)
		}
		return refuse("QFULL", "queue %q holds %d bytes, max-bytes is %d; consume some first; nothing was pushed", q.name, counts.TotalBytes(), most)
	}
	return nil
}
