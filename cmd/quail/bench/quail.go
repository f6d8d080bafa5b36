package bench

// What the scenarios are in Quail's words.

import "strconv"

// dialect is how a server is talked to. Commands are appended to dst; ids are numbers that rise.
type dialect interface {
	name() string
	// push appends the commands that push n messages of that body, and says how many replies they get and how many
	// messages each of these stands for.
	push(dst []byte, queue string, body []byte, n int) (commands []byte, replies, messagesEach int)
	// pushed is the id that a push's reply tells, the first one's if it tells of several.
	pushed(raw []byte) (id uint64, err error)
	// group is the command that makes a consumer's place in a queue, nil if there is no need.
	group(queue string) []string
	// pull appends the command for a batch of at most count messages; it waits up to blockMillis for one if that is not 0.
	pull(dst []byte, queue string, count, blockMillis int) []byte
	// pulled reads the reply into b; b has no messages if it is null.
	pulled(raw []byte, b *batch) error
	// ack appends the command that acknowledges the batch. Its reply is the number of messages.
	ack(dst []byte, queue string, b *batch) []byte
	// drop is the command that deletes queues.
	drop(queues []string) []string
}

// batch is what a pull brought. It is used again for each, and its bodies lie in the connection's buffer.
type batch struct {
	number int64 // Quail's name of it
	ids    []uint64
	bodies [][]byte
}

func (b *batch) clear() { b.number, b.ids, b.bodies = 0, b.ids[:0], b.bodies[:0] }

func (b *batch) add(id uint64, body []byte) {
	b.ids = append(b.ids, id)
	b.bodies = append(b.bodies, body)
}

const consumerName = "bench"

type quail struct{}

func (quail) name() string { return "Quail" }

func (quail) push(dst []byte, queue string, body []byte, n int) ([]byte, int, int) {
	dst = appendArg(appendArg(appendHead(dst, 2+n), "QPUSH"), queue)
	for range n {
		dst = appendArg(dst, body)
	}
	return dst, 1, n
}

func (quail) pushed(raw []byte) (uint64, error) {
	l := looking{rest: raw}
	id := l.integer()
	return uint64(id), l.err
}

func (quail) group(string) []string { return nil }

func (quail) pull(dst []byte, queue string, count, blockMillis int) []byte {
	args := []string{"QCONSUME", queue, consumerName, "COUNT", strconv.Itoa(count)}
	if blockMillis > 0 {
		args = append(args, "BLOCK", strconv.Itoa(blockMillis))
	}
	return appendCommand(dst, args...)
}

// A batch is its number, its deadline and its messages: id, body, attempt, time of the push, headers.
func (quail) pulled(raw []byte, b *batch) error {
	b.clear()
	if isNull(raw) {
		return nil
	}
	l := looking{rest: raw}
	l.array()
	b.number = l.integer()
	l.integer()
	for range l.array() {
		l.array()
		id, body := l.integer(), l.bulk()
		l.integer()
		l.integer()
		for range l.array() {
			l.bulk()
		}
		if l.err != nil {
			break
		}
		b.add(uint64(id), body)
	}
	return l.err
}

func (quail) ack(dst []byte, queue string, b *batch) []byte {
	var digits [20]byte
	dst = appendArg(appendArg(appendHead(dst, 3), "QACK"), queue)
	return appendArg(dst, strconv.AppendInt(digits[:0], b.number, 10))
}

func (quail) drop(queues []string) []string { return append([]string{"QDEL"}, queues...) }
