package machine

// The fields of a message's record. Most messages have one: when they were pushed.
//
//	fields      1 byte   which of the following stand there
//	pushed      varint   unix milliseconds
//	due         varint   bit 0: not delivered before this, unix milliseconds
//	ttl         varint   bit 1: milliseconds after the push
//	dedup       text     bit 2: the deduplication id, and a varint: until when it is remembered, unix milliseconds
//	headers     varint   bit 3: their number, and for each a text for the name and one for the value
//	origin      …        bit 4: incarnation, id, attempts, reason as varints, and the queue's name as text

import (
	"errors"
	"fmt"
)

const (
	// DedupBytesMax bounds a deduplication id in bytes.
	DedupBytesMax = 128
	// HeadersMax bounds the number of headers of one message.
	HeadersMax = 1024
	// HeaderBytesMax bounds a header's name, and its value, in bytes.
	HeaderBytesMax = 1 << 20
)

const (
	fieldDue = 1 << iota
	fieldTTL
	fieldDedup
	fieldHeaders
	fieldOrigin
	fieldsKnown = 1<<iota - 1
)

// Message is what a record says about a message besides its body.
type Message struct {
	// PushedMillis is when it was pushed, in unix milliseconds.
	PushedMillis int64
	// DueMillis is when it may first be delivered, in unix milliseconds; 0 is at once, in its turn.
	DueMillis int64
	// TTLMillis is how long it is kept, counted from the push; 0 is for ever.
	TTLMillis int64
	// Dedup is the deduplication id; empty is none. It is remembered until DedupUntilMillis (unix).
	Dedup            []byte
	DedupUntilMillis int64
	// Headers are names and values.
	Headers [][2][]byte
	// Origin says where a moved message came from; its ID is 0 if this one was pushed.
	Origin Origin
}

// IsOver reports whether the message's TTL is over: at that millisecond it is.
func (m *Message) IsOver(now Time) bool {
	return m.TTLMillis > 0 && m.PushedMillis+m.TTLMillis <= now.WallMillis
}

// Origin is where a moved message came from.
type Origin struct {
	Incarnation uint64
	ID          uint64
	Attempts    uint32
	Reason      MoveReason
	Queue       []byte
}

// MoveReason says why a message was moved to another queue.
type MoveReason uint8

const (
	// MoveAttempts: its last attempt failed.
	MoveAttempts MoveReason = iota
	// MoveRefused: a consumer sent it to the dead-letter queue.
	MoveRefused
	// MoveRedrive: an operator moved it back.
	MoveRedrive
	moveReasons
)

// IsPlain reports whether the message has no delay, TTL, deduplication id, headers and origin; see ApplyMessages.
func (m *Message) IsPlain() bool {
	return m.DueMillis == 0 && m.TTLMillis == 0 && len(m.Dedup) == 0 && len(m.Headers) == 0 && m.Origin.ID == 0
}

// MessageMeta appends the fields of msg's record to dst. Without delay, TTL, deduplication id, headers and origin they have
// at most 8 bytes.
func MessageMeta(dst []byte, msg Message) []byte {
	fields := byte(0)
	if msg.DueMillis > 0 {
		fields |= fieldDue
	}
	if msg.TTLMillis > 0 {
		fields |= fieldTTL
	}
	if len(msg.Dedup) > 0 {
		fields |= fieldDedup
	}
	if len(msg.Headers) > 0 {
		fields |= fieldHeaders
	}
	if msg.Origin.ID != 0 {
		fields |= fieldOrigin
	}
	dst = putMillis(append(dst, fields), msg.PushedMillis)
	if fields == 0 {
		return dst
	}
	return messageExtras(dst, fields, &msg)
}

func messageExtras(dst []byte, fields byte, msg *Message) []byte {
	if fields&fieldDue != 0 {
		dst = putMillis(dst, msg.DueMillis)
	}
	if fields&fieldTTL != 0 {
		dst = putMillis(dst, msg.TTLMillis)
	}
	if fields&fieldDedup != 0 {
		dst = putMillis(putText(dst, msg.Dedup), msg.DedupUntilMillis)
	}
	if fields&fieldHeaders != 0 {
		dst = put(dst, uint64(len(msg.Headers)))
		for _, h := range msg.Headers {
			dst = putText(putText(dst, h[0]), h[1])
		}
	}
	if fields&fieldOrigin != 0 {
		dst = put(put(dst, msg.Origin.Incarnation), msg.Origin.ID)
		dst = put(put(dst, uint64(msg.Origin.Attempts)), uint64(msg.Origin.Reason))
		dst = putText(dst, msg.Origin.Queue)
	}
	return dst
}

// IsDelayed reports whether the message with these flags and fields was pushed with a delay. The walk passes such a message
// by, for ever: it is delivered through PeekReturned.
func IsDelayed(flags uint8, meta []byte) bool {
	return flags == payloadVersion && len(meta) > 0 && meta[0]&fieldDue != 0
}

// ParseMessage reads the fields of a message's record. Dedup, Headers and Origin.Queue share meta's memory.
func ParseMessage(meta []byte) (Message, error) {
	r := reader{rest: meta}
	var msg Message
	fields := parseMessage(&r, &msg)
	if fields&fieldHeaders != 0 {
		parseHeaders(&r, &msg)
	}
	if fields&fieldOrigin != 0 {
		parseOrigin(&r, &msg)
	}
	if err := r.done(); err != nil {
		return Message{}, fmt.Errorf("fields of a message: %w", err)
	}
	return msg, nil
}

// parseMessage reads the fields that the machine itself needs, up to the headers.
func parseMessage(r *reader, msg *Message) (fields byte) {
	if len(r.rest) == 0 {
		r.fail(errCut)
		return 0
	}
	fields = r.rest[0]
	r.rest = r.rest[1:]
	if fields&^fieldsKnown != 0 {
		r.fail(errUnknownField)
		return 0
	}
	msg.PushedMillis = r.millis()
	if fields&fieldDue != 0 {
		msg.DueMillis = r.millis()
		r.refuseEmpty(msg.DueMillis == 0)
	}
	if fields&fieldTTL != 0 {
		msg.TTLMillis = r.millis()
		r.refuseEmpty(msg.TTLMillis == 0)
	}
	if fields&fieldDedup != 0 {
		msg.Dedup = r.text(DedupBytesMax)
		r.refuseEmpty(len(msg.Dedup) == 0)
		msg.DedupUntilMillis = r.millis()
	}
	return fields
}

var (
	errUnknownField = errors.New("a message has fields that this version does not know")
	errEmptyField   = errors.New("a field stands there and is empty")
)

// refuseEmpty keeps the format unambiguous: a field that says nothing is left out.
func (r *reader) refuseEmpty(empty bool) {
	if empty {
		r.fail(errEmptyField)
	}
}

// headers is the number of headers that follow.
func (r *reader) headers() int {
	n := r.count()
	if n > HeadersMax {
		r.fail(fmt.Errorf("%d headers; at most %d are possible", n, HeadersMax))
	}
	r.refuseEmpty(n == 0)
	if r.err != nil {
		return 0
	}
	return n
}

// parseHeaders reads the headers into one allocation, of a size that the bytes at hand justify.
func parseHeaders(r *reader, msg *Message) {
	msg.Headers = make([][2][]byte, r.headers())
	for i := range msg.Headers {
		msg.Headers[i] = [2][]byte{r.text(HeaderBytesMax), r.text(HeaderBytesMax)}
	}
}

func parseOrigin(r *reader, msg *Message) {
	msg.Origin.Incarnation = r.value()
	msg.Origin.ID = r.value()
	r.refuseEmpty(msg.Origin.ID == 0)
	msg.Origin.Attempts = uint32(r.upTo(failedMax))
	msg.Origin.Reason = MoveReason(r.upTo(uint64(moveReasons) - 1))
	msg.Origin.Queue = r.text(NameBytesMax)
}

// checkHeaders passes over headers and origin and notices damage, without keeping anything.
func checkHeaders(r *reader, fields byte) {
	if fields&fieldHeaders != 0 {
		for n := r.headers(); n > 0 && r.err == nil; n-- {
			r.text(HeaderBytesMax)
			r.text(HeaderBytesMax)
		}
	}
	if fields&fieldOrigin != 0 {
		var msg Message
		parseOrigin(r, &msg)
	}
}

func (m *Machine) applyMessage(lsn uint64, meta []byte, bodyBytes int) error {
	r := reader{rest: meta}
	var msg Message
	fields := parseMessage(&r, &msg)
	checkHeaders(&r, fields)
	if err := r.done(); err != nil {
		return err
	}
	if fields&fieldDedup != 0 {
		if err := m.dedup.remember(lsn, &msg); err != nil {
			return err
		}
	}
	m.totals.Pushed++
	m.wall = max(m.wall, msg.PushedMillis)
	if fields&fieldTTL != 0 {
		m.expiry = max(m.expiry, msg.PushedMillis+msg.TTLMillis)
	}
	if fields&fieldDue != 0 {
		m.wait(waiting{id: lsn, dueMillis: msg.DueMillis, sizeBytes: uint32(bodyBytes)})
		return nil
	}
	m.ready++
	m.readyBytes += int64(bodyBytes)
	return nil
}
