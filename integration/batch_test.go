//go:build linux

package integration

// Replies as the contract has them, read with suspicion: a reply of another shape fails the test that got it.

import (
	"fmt"
	"time"

	"github.com/gomodule/redigo/redis"
)

// batch is QCONSUME's reply.
type batch struct {
	id                 int64
	deadlineUnixMillis int64
	messages           []message
}

type message struct {
	id         int64
	body       string
	attempt    int64
	pushedUnix int64
}

func (b *batch) ids() []int64 {
	var ids []int64
	for _, m := range b.messages {
		ids = append(ids, m.id)
	}
	return ids
}

func (b *batch) deadline() time.Time { return time.UnixMilli(b.deadlineUnixMillis) }

// parseBatch reads QCONSUME's reply; nil means null, no messages.
func parseBatch(reply any, err error) (*batch, error) {
	if err != nil || reply == nil {
		return nil, err
	}
	parts, ok := reply.([]any)
	if !ok || len(parts) != 3 {
		return nil, fmt.Errorf("a batch has three elements, this is %v", reply)
	}
	b := &batch{}
	if b.id, ok = parts[0].(int64); !ok {
		return nil, fmt.Errorf("batch id is %T", parts[0])
	}
	if b.deadlineUnixMillis, ok = parts[1].(int64); !ok {
		return nil, fmt.Errorf("deadline is %T", parts[1])
	}
	list, ok := parts[2].([]any)
	if !ok || len(list) == 0 {
		return nil, fmt.Errorf("batch %d has no messages: %v", b.id, parts[2])
	}
	for _, entry := range list {
		m, err := parseMessage(entry)
		if err != nil {
			return nil, fmt.Errorf("batch %d: %w", b.id, err)
		}
		if n := len(b.messages); n > 0 && m.id <= b.messages[n-1].id {
			return nil, fmt.Errorf("batch %d: message %d comes after %d: out of order", b.id, m.id, b.messages[n-1].id)
		}
		b.messages = append(b.messages, m)
	}
	return b, nil
}

// parseMessage takes bodies as bytes or as text and headers as a list or as a map: clients differ, in RESP2 and RESP3 too.
func parseMessage(entry any) (m message, err error) {
	fields, ok := entry.([]any)
	if !ok || len(fields) != 5 {
		return m, fmt.Errorf("a message has five elements, this is %v", entry)
	}
	switch body := fields[1].(type) {
	case []byte:
		m.body = string(body)
	case string:
		m.body = body
	default:
		return m, fmt.Errorf("body is %T", fields[1])
	}
	ints := []*int64{&m.id, nil, &m.attempt, &m.pushedUnix}
	for i, into := range ints {
		if into == nil {
			continue
		}
		if *into, ok = fields[i].(int64); !ok {
			return m, fmt.Errorf("element %d of a message is %T", i, fields[i])
		}
	}
	switch headers := fields[4].(type) {
	case []any, map[any]any:
	default:
		return m, fmt.Errorf("headers are %T", headers)
	}
	if m.id < 1 || m.attempt < 1 || m.pushedUnix < 1 {
		return m, fmt.Errorf("message %d, attempt %d, pushed %d", m.id, m.attempt, m.pushedUnix)
	}
	return m, nil
}

// consume pulls with redigo.
func consume(conn redis.Conn, args ...any) (*batch, error) {
	return parseBatch(conn.Do("QCONSUME", args...))
}

// info is QINFO as a map of texts.
func info(conn redis.Conn, queue string) (map[string]string, error) {
	pairs, err := redis.Values(conn.Do("QINFO", queue))
	if err != nil {
		return nil, err
	}
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("QINFO has %d elements", len(pairs))
	}
	fields := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		name, err := redis.String(pairs[i], nil)
		if err != nil {
			return nil, err
		}
		if value, ok := pairs[i+1].([]byte); ok {
			fields[name] = string(value)
		} else {
			fields[name] = fmt.Sprint(pairs[i+1])
		}
	}
	return fields, nil
}
