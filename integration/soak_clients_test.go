//go:build linux

package integration

// Producers and consumers of the soak test. Each has a connection of its own and dials again when that is lost.

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/gomodule/redigo/redis"
)

// The queues of the soak test, each for another manner of use.
const (
	soakPlain   = "plain"   // one push at a time
	soakPiped   = "piped"   // pipelines of many pushes
	soakLater   = "later"   // delayed messages
	soakShort   = "short"   // messages with a TTL, which may run out
	soakOnce    = "once"    // deduplicated, repeated until it is answered
	soakFragile = "fragile" // two attempts, then the dead-letter queue, and back
	soakCrowded = "crowded" // deleted under everybody's hands
	soakChurn   = "churn"   // one client makes, fills, empties and deletes it
)

var soakQueues = []string{soakPlain, soakPiped, soakLater, soakShort, soakOnce, soakFragile, soakFragile + ".dead", soakCrowded, soakChurn}

const (
	soakPushMax     = 4   // messages of one push
	soakPipeline    = 12  // pushes of one pipeline
	soakDelayMillis = 600 // the longest delay, and the longest TTL: a phase's end waits for both
)

// soakCodes are what a client may be told while queues are paused, deleted and taken over, and the disk fails.
var soakCodes = []string{"LOCKED", "NOBATCH", "NOQUEUE", "PAUSED", "WALERR", "LOADING"}

// code is an error reply's first word; empty for a lost connection, and for one that a server that is stopping does not take.
func code(err error) string {
	var refusal redis.Error
	if !errors.As(err, &refusal) || strings.HasPrefix(string(refusal), "ERR max number of clients") {
		return ""
	}
	word, _, _ := strings.Cut(string(refusal), " ")
	return word
}

// expected notes an error reply that nothing explains.
func (k *soak) expected(what string, err error) {
	if c := code(err); c != "" && !slices.Contains(soakCodes, c) {
		k.ledger.complain("%s: %v", what, err)
	}
}

// client runs work on connections until the phase is over; work returns when its connection is of no use any more.
func (k *soak) client(random *rand.Rand, work func(conn redis.Conn, random *rand.Rand)) {
	own := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
	k.group.Go(func() {
		for !k.over() {
			if !k.s.awaitUp() {
				k.ledger.complain("the server was away for %v", startTimeout)
				return
			}
			conn, err := k.dial()
			if err != nil {
				k.breathe()
				continue
			}
			work(conn, own)
			conn.Close()
		}
	})
}

// startClients begins a phase.
func (k *soak) startClients(random *rand.Rand) {
	for _, queue := range []string{soakPlain, soakFragile, soakCrowded} {
		k.client(random, k.producer(queue))
	}
	k.client(random, k.producer(soakLater, "DELAY"))
	k.client(random, k.producer(soakShort, "TTL"))
	k.client(random, k.pipeline)
	k.client(random, k.deduplicate)
	k.client(random, k.churnQueue)
	for _, queue := range soakQueues {
		if queue == soakChurn {
			continue
		}
		for _, name := range []string{"one", "other"} {
			k.client(random, func(conn redis.Conn, random *rand.Rand) { k.consumer(conn, random, queue, name) })
		}
	}
}

// producer pushes one by one, with an option whose value is random.
func (k *soak) producer(queue string, option ...any) func(redis.Conn, *rand.Rand) {
	seq := 0
	return func(conn redis.Conn, random *rand.Rand) {
		for k.mayPush() {
			names := k.ledger.names(queue, queue, &seq, 1+random.IntN(soakPushMax), queue == soakShort)
			command, args := "QPUSH", []any{queue}
			if len(option) > 0 {
				command, args = "QPUSHEX", append(args, len(names))
			}
			for _, name := range names {
				args = append(args, soakBody(name))
			}
			if len(option) > 0 {
				args = append(args, option[0], 1+random.IntN(soakDelayMillis))
			}
			id, err := redis.Int64(conn.Do(command, args...))
			if !k.pushed(queue, names, id, err) {
				return
			}
		}
	}
}

// pushed takes note of a push's answer; false means that the connection is lost.
func (k *soak) pushed(queue string, names []string, id int64, err error) bool {
	switch c := code(err); {
	case err == nil:
		k.ledger.pushAnswered(names, id)
	case c == "PAUSED" || c == "NOQUEUE" || c == "LOADING":
		k.ledger.pushRefused(names)
	default:
		k.expected("push to "+queue, err)
		k.ledger.pushUnheard(names)
		return c != ""
	}
	return true
}

// pipeline sends many pushes before it reads the first answer.
func (k *soak) pipeline(conn redis.Conn, random *rand.Rand) {
	for k.mayPush() {
		var sent [][]string
		for range 1 + random.IntN(soakPipeline) {
			names := k.ledger.names(soakPiped, soakPiped, &k.pipedSeq, 1, false)
			sent = append(sent, names)
			conn.Send("QPUSH", soakPiped, soakBody(names[0]))
		}
		err := conn.Flush()
		for _, names := range sent {
			id := int64(0)
			if err == nil || refused(err) {
				id, err = redis.Int64(conn.Receive())
			}
			k.pushed(soakPiped, names, id, err)
		}
		if err != nil && !refused(err) {
			return
		}
	}
}

// deduplicate repeats a push until it hears the answer. The message is there once, whatever happened in between.
func (k *soak) deduplicate(conn redis.Conn, _ *rand.Rand) {
	for k.mayPush() {
		if k.repeat == "" {
			k.repeat = k.ledger.names(soakOnce, soakOnce, &k.onceSeq, 1, false)[0]
		}
		id, err := redis.Int64(conn.Do("QPUSHEX", soakOnce, 1, soakBody(k.repeat), "DEDUP", k.repeat))
		if err != nil {
			k.expected("push to "+soakOnce, err)
			if !refused(err) {
				return
			}
			continue
		}
		k.ledger.pushAnswered([]string{k.repeat}, id)
		k.repeat = ""
	}
}

// consumer pulls, and does with a batch all that a consumer can do, in earnest and by accident.
func (k *soak) consumer(conn redis.Conn, random *rand.Rand, queue, name string) {
	for !k.over() {
		b, err := consume(conn, queue, name, "COUNT", 1+random.IntN(20), "BLOCK", 200)
		if err != nil {
			k.expected("QCONSUME "+queue, err)
			if code(err) == "" {
				return
			}
			k.breathe()
			continue
		}
		if b == nil {
			continue
		}
		k.ledger.pulled(queue, b)
		if !k.resolve(conn, random, queue, name, b) {
			return
		}
	}
}

// resolve ends a batch in one way or another; false ends the connection as well.
func (k *soak) resolve(conn redis.Conn, random *rand.Rand, queue, name string, b *batch) bool {
	sort := random.IntN(40)
	if queue == soakFragile && random.IntN(2) == 0 {
		sort = 2 + random.IntN(3)
	}
	switch sort {
	case 0: // forgotten until its lease ends
		return true
	case 1:
		return k.ack(conn, queue, b, b.messages[:1+random.IntN(len(b.messages))])
	case 2:
		return k.settled(redis.Int64(conn.Do("QNACK", queue, b.id, "RELEASE")))
	case 3:
		return k.settled(redis.Int64(conn.Do("QNACK", queue, b.id)))
	case 4:
		if queue != soakFragile {
			return k.settled(redis.Int64(conn.Do("QNACK", queue, b.id, "DELAY", random.IntN(soakDelayMillis))))
		}
		return k.settled(redis.Int64(conn.Do("QNACK", queue, b.id, "DEAD")))
	case 5: // the consumer dies with its batch
		return false
	case 6:
		if !k.settled(redis.Int64(conn.Do("QEXTEND", queue, b.id, 800))) {
			return false
		}
	case 7:
		return k.ack(conn, queue, b, b.messages) && k.handOver(conn, queue, name)
	}
	return k.ack(conn, queue, b, b.messages)
}

// settled judges an answer whose number does not matter.
func (k *soak) settled(_ int64, err error) bool {
	k.expected("QNACK or QEXTEND", err)
	return err == nil || refused(err)
}

func (k *soak) ack(conn redis.Conn, queue string, b *batch, messages []message) bool {
	args := []any{queue, b.id}
	if len(messages) < len(b.messages) {
		for _, m := range messages {
			args = append(args, m.id)
		}
	}
	n, err := redis.Int64(conn.Do("QACK", args...))
	switch c := code(err); {
	case err == nil:
		k.ledger.ackAnswered(queue, b, messages, n)
	case c == "NOBATCH" || c == "NOQUEUE" || c == "LOADING": // it did nothing
	default:
		k.expected("QACK "+queue, err)
		k.ledger.ackUnheard(messages)
	}
	return err == nil || refused(err)
}

// handOver lets the other consumer take over.
func (k *soak) handOver(conn redis.Conn, queue, name string) bool {
	token, err := redis.Int64(conn.Do("QLOCK", queue, name))
	if err == nil {
		k.handovers.Add(1)
		_, err = conn.Do("QUNLOCK", queue, token)
	}
	k.expected("handing over "+queue, err)
	return err == nil || refused(err)
}

// churnQueue is alone on a queue: it knows what must be in it, and that nothing is left of the one before.
func (k *soak) churnQueue(conn redis.Conn, random *rand.Rand) {
	push := k.producerOnce(soakChurn)
	for k.mayPush() {
		ok := true
		switch random.IntN(5) {
		case 0:
			ok = k.delete(conn, soakChurn, true)
		case 1:
			_, err := conn.Do("QCREATE", soakChurn, "batch-count", 2+random.IntN(50))
			if code(err) != "EXISTS" {
				k.expected("QCREATE", err)
			}
			ok = err == nil || refused(err)
		case 2:
			b, err := consume(conn, soakChurn, "eater")
			k.expected("QCONSUME "+soakChurn, err)
			if ok = err == nil || refused(err); b != nil {
				k.ledger.pulled(soakChurn, b)
				ok = k.ack(conn, soakChurn, b, b.messages)
			}
		default:
			ok = push(conn, random)
		}
		if !ok {
			return
		}
	}
}

func (k *soak) producerOnce(queue string) func(redis.Conn, *rand.Rand) bool {
	return func(conn redis.Conn, random *rand.Rand) bool {
		names := k.ledger.names(queue, queue, &k.churnSeq, 1+random.IntN(soakPushMax), false)
		args := []any{queue}
		for _, name := range names {
			args = append(args, soakBody(name))
		}
		id, err := redis.Int64(conn.Do("QPUSH", args...))
		return k.pushed(queue, names, id, err)
	}
}

// delete deletes a queue, in which alone says that nobody else has a hand.
func (k *soak) delete(conn redis.Conn, queue string, alone bool) bool {
	k.ledger.deletes(queue)
	n, err := redis.Int64(conn.Do("QDEL", queue))
	k.ledger.deleted(queue, err == nil, alone)
	if err == nil && n == 1 {
		k.deletions.Add(1)
	}
	k.expected(fmt.Sprint("QDEL ", queue), err)
	return err == nil || refused(err)
}
