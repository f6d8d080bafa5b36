package queue

// The types that commands hand in and get back. They carry no behaviour; queue.go and set.go do the work.

import (
	"fmt"

	"quail/queue/machine"
	"quail/wal"
)

// Future tells when what a reply rests on is durable; see wal.Future. A nil Future means: nothing to wait for.
type Future = wal.Future

// BackupReport says what a backup holds; see wal.BackupReport.
type BackupReport = wal.BackupReport

// Error is a refusal as a client sees it: "-" Code " " Message. Every error that Set returns is one.
type Error struct {
	// Code is one of the stable words of the contract: LOCKED, WRONGTOKEN, NOBATCH, NOQUEUE, EXISTS, PAUSED, QFULL,
	// TOOBIG, WALERR, LOADING, ERR.
	Code string
	// Message states the fact and the next step, without a line break.
	Message string
}

func (e *Error) Error() string { return e.Code + " " + e.Message }

func refuse(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// LockRequest asks for a queue's consumer lock.
type LockRequest struct {
	Queue    []byte
	Consumer []byte
	// TTLMillis is how long the lock holds without renewal; 0 means the queue's lock-ttl.
	TTLMillis int64
	// Block waits in line while another consumer holds the lock: BlockMillis long, or without end if that is 0.
	Block       bool
	BlockMillis int64
}

// ConsumeRequest asks for one batch.
type ConsumeRequest struct {
	Queue    []byte
	Consumer []byte
	// Token, if HasToken, makes the pull fail unless that very tenure still holds.
	Token    uint64
	HasToken bool
	// Count and Bytes bound the batch; FillMillis is how long it may be held open to grow; LeaseMillis is the time to
	// acknowledge it. -1 means the queue's own option.
	Count       int
	Bytes       int64
	FillMillis  int64
	LeaseMillis int64
	// Block waits for a message: BlockMillis long, or without end if that is 0.
	Block       bool
	BlockMillis int64
}

// Batch is what one pull got.
type Batch struct {
	ID                 uint64
	DeadlineUnixMillis int64
	Messages           []Message
}

// Message is one message as a consumer sees it. Body and Headers share memory with the log's buffers: read only.
type Message struct {
	ID           uint64
	Body         []byte
	Attempt      uint32
	PushedMillis int64
	Headers      [][2][]byte
}

// Info is all that QINFO tells about one queue.
type Info struct {
	Name            string
	Incarnation     uint64
	CreatedMillis   int64
	Counts          machine.Counts
	OldestAgeMillis int64
	FirstID         uint64
	NextID          uint64
	Cursor          uint64
	Holder          string
	Token           uint64
	LockMillisLeft  int64
	Batches         []machine.BatchInfo
	// Waiting is the number of consumers that wait in line, for the lock or for messages.
	Waiting   int
	Segments  int
	LogBytes  int64
	LiveBytes int64
	// PushPaused and ConsumePaused: somebody said QPAUSE.
	PushPaused, ConsumePaused bool
	// BlockedReason says in one sentence why a pull would get nothing now; empty if it would get something.
	BlockedReason string
}
