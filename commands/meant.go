package commands

import "strings"

// meant says which command of Quail does what somebody wants who types one that Redis has for its lists, streams or data. Only words that people
// type are here: client libraries try others (CLUSTER, SENTINEL, GET) to learn what they speak to, and compare the whole text.
var meant = map[string]string{
	"LPUSH": "QPUSH adds messages", "RPUSH": "QPUSH adds messages", "XADD": "QPUSH adds messages, QPUSHEX those with headers",
	"PUBLISH": "QPUSH adds messages, and one consumer gets them", "ZADD": "QPUSHEX adds messages with DELAY",
	"LPOP": wordsOfConsume, "RPOP": wordsOfConsume, "BLPOP": wordsOfBlocking, "BRPOP": wordsOfBlocking, "LMPOP": wordsOfConsume, "BLMPOP": wordsOfBlocking,
	"RPOPLPUSH": wordsOfConsume, "BRPOPLPUSH": wordsOfBlocking, "LMOVE": wordsOfConsume, "BLMOVE": wordsOfBlocking,
	"XREAD": wordsOfBlocking, "XREADGROUP": wordsOfBlocking, "SUBSCRIBE": wordsOfBlocking, "PSUBSCRIBE": wordsOfBlocking,
	"XACK": "QACK acknowledges", "XDEL": "QREM removes single messages", "LREM": "QREM removes single messages",
	"XCLAIM":     "what is not acknowledged comes back by itself; QEXTEND prolongs a lease",
	"XAUTOCLAIM": "what is not acknowledged comes back by itself; QEXTEND prolongs a lease",
	"XGROUP":     "a queue needs no groups: QCONSUME names its consumer, and one at a time has the queue",
	"XPENDING":   "QINFO tells what is leased, QPEEK with STATE LEASED shows it", "XINFO": "QINFO describes a queue",
	"XLEN":   "QLEN counts messages",
	"LRANGE": "QPEEK shows messages without consuming them", "LINDEX": "QGET shows one message", "XRANGE": "QPEEK shows messages without consuming them",
	"XTRIM": "QPURGE takes messages out", "LTRIM": "QPURGE takes messages out",
	"FLUSHALL": "QPURGE empties a queue, QDEL deletes it", "FLUSHDB": "QPURGE empties a queue, QDEL deletes it", "UNLINK": "QDEL deletes a queue",
	"SAVE": wordsOfBackup, "BGSAVE": wordsOfBackup, "BGREWRITEAOF": wordsOfBackup,
	"MULTI": wordsOfTransactions, "EXEC": wordsOfTransactions, "DISCARD": wordsOfTransactions,
	"WATCH": wordsOfTransactions, "UNWATCH": wordsOfTransactions,
	"QPOP": wordsOfConsume, "QPULL": wordsOfConsume, "QGETALL": "QPEEK shows messages without consuming them",
}

const (
	wordsOfConsume      = "QCONSUME pulls messages, QACK acknowledges them"
	wordsOfBlocking     = "QCONSUME pulls messages, with BLOCK it waits for them; QACK acknowledges them"
	wordsOfBackup       = "all is on the disk when the reply comes; QBACKUP makes a copy"
	wordsOfTransactions = "there are no transactions; QPUSH with several bodies adds all or none"
)

// meantBy is what to add to the refusal of an unknown command; "" mostly.
func meantBy(name []byte) string {
	if len(name) > nameBytesMax {
		return ""
	}
	return meant[strings.ToUpper(string(name))]
}
