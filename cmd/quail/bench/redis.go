package bench

// What the scenarios are in the words of Redis Streams: a queue is a stream with one consumer group, a push XADD, a pull
// XREADGROUP, an acknowledgement XACK. Redis keeps acknowledged messages in the stream; Quail gives their space back.

import (
	"bytes"
	"fmt"
	"strconv"
)

const groupName = "bench"

type redis struct{}

func (redis) name() string { return "Redis" }

func (redis) push(dst []byte, queue string, body []byte, n int) ([]byte, int, int) {
	for range n {
		dst = appendArg(appendArg(appendHead(dst, 5), "XADD"), queue)
		dst = appendArg(appendArg(appendArg(dst, "*"), "b"), body)
	}
	return dst, n, 1
}

func (redis) pushed(raw []byte) (uint64, error) {
	l := looking{rest: raw}
	text := l.bulk()
	if l.err != nil {
		return 0, l.err
	}
	return streamID(text)
}

// sequenceBits are those of an id's second half. A million messages in one millisecond is more than any server takes.
const sequenceBits = 20

// streamID packs MILLIS-SEQUENCE into one number in the same order.
func streamID(text []byte) (uint64, error) {
	dash := bytes.IndexByte(text, '-')
	millis, ok := integer(text[:max(dash, 0)])
	sequence, ok2 := integer(text[dash+1:])
	if !ok || !ok2 || sequence >= 1<<sequenceBits {
		return 0, fmt.Errorf("%.40q is not a stream's id", text)
	}
	return uint64(millis)<<sequenceBits | uint64(sequence), nil
}

func appendStreamID(dst []byte, id uint64) []byte {
	dst = strconv.AppendUint(dst, id>>sequenceBits, 10)
	return strconv.AppendUint(append(dst, '-'), id&(1<<sequenceBits-1), 10)
}

func (redis) group(queue string) []string {
	return []string{"XGROUP", "CREATE", queue, groupName, "0", "MKSTREAM"}
}

func (redis) pull(dst []byte, queue string, count, blockMillis int) []byte {
	args := []string{"XREADGROUP", "GROUP", groupName, consumerName, "COUNT", strconv.Itoa(count)}
	if blockMillis > 0 {
		args = append(args, "BLOCK", strconv.Itoa(blockMillis))
	}
	return appendCommand(dst, append(args, "STREAMS", queue, ">")...)
}

// The reply has a list of streams, here one: its name and its messages, each an id and a list of names and values.
func (redis) pulled(raw []byte, b *batch) error {
	b.clear()
	if isNull(raw) {
		return nil
	}
	l := looking{rest: raw}
	l.array()
	l.array()
	l.bulk()
	for range l.array() {
		l.array()
		text := l.bulk()
		l.array()
		l.bulk()
		body := l.bulk()
		if l.err != nil {
			break
		}
		id, err := streamID(text)
		if err != nil {
			return err
		}
		b.add(id, body)
	}
	return l.err
}

func (redis) ack(dst []byte, queue string, b *batch) []byte {
	var digits [40]byte
	dst = appendArg(appendArg(appendArg(appendHead(dst, 3+len(b.ids)), "XACK"), queue), groupName)
	for _, id := range b.ids {
		dst = appendArg(dst, appendStreamID(digits[:0], id))
	}
	return dst
}

func (redis) drop(queues []string) []string { return append([]string{"DEL"}, queues...) }
