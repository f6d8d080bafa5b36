package machine

// The kinds of records, and what a decision hands to whoever writes them.

import "strconv"

// Kind says what a record states. The numbers are part of the format: a kind is never renumbered and a number never reused.
type Kind uint8

const (
	// KindReserve is the server's own record (incarnation 0); no queue has one.
	KindReserve Kind = 1
	// KindCreate makes the queue. It is the first record of every queue and the only one of its kind.
	KindCreate Kind = 2
	// KindMessage is a message; its LSN is the message's id.
	KindMessage Kind = 3
	// KindLease opens a batch.
	KindLease Kind = 4
	// KindSettle resolves messages of one batch: acknowledged, or given back.
	KindSettle Kind = 5
	// KindExtend moves a batch's deadline.
	KindExtend Kind = 6
	// KindLock starts, renews, ends or hands over a tenure.
	KindLock Kind = 7
	// KindExpire ends batches whose deadline has passed.
	KindExpire Kind = 8
	// KindConfig replaces the queue's options.
	KindConfig Kind = 9
	// KindPause pauses or resumes the queue's sides.
	KindPause Kind = 10
	// KindPurge removes everything below an id that is not leased.
	KindPurge Kind = 11
	// KindRemove removes single messages: at their owner's wish, or because their TTL is over.
	KindRemove Kind = 12
	// KindMove takes messages out that were pushed to another queue in the same group.
	KindMove Kind = 13
	// KindDelete is the last record of a queue.
	KindDelete Kind = 14
)

var kindNames = [...]string{
	KindReserve: "reservation", KindCreate: "creation", KindMessage: "message", KindLease: "lease", KindSettle: "settlement",
	KindExtend: "extension", KindLock: "lock change", KindExpire: "expiry", KindConfig: "change of options", KindPause: "pause",
	KindPurge: "purge", KindRemove: "removal", KindMove: "move", KindDelete: "deletion",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// payloadVersion is the version of the fields in meta. It stands in the record's flags, so that it costs a message no byte;
// a reader refuses a version that it does not know.
const payloadVersion = 0

// Effect is a record to be: what a decision wants to change. It has no effect until Apply gets it.
type Effect struct {
	Kind  Kind
	Flags uint8
	Meta  []byte
}
