package commands

// What the queue commands need from the set of queues. *queue.Set is the real one; the tests of this package put a
// scripted one in its place, so that each reply and each error can be asked for by name.

import (
	"quail/queue"
	"quail/queue/machine"
)

// Queues is the set of all queues. See queue.Set for what each method promises. Every error is a *queue.Error, and every
// Future is what the answer rests on: an error waits for it as well.
type Queues interface {
	Push(name []byte, bodies [][]byte) (firstID uint64, after *queue.Future, err error)
	PushWith(name []byte, bodies [][]byte, o queue.PushOptions) (firstID uint64, after *queue.Future, err error)
	Lock(r queue.LockRequest, done func(token uint64, after *queue.Future, err error)) (cancel func())
	Unlock(name []byte, token uint64) (released bool, after *queue.Future, err error)
	Consume(r queue.ConsumeRequest, done func(b *queue.Batch, after *queue.Future, err error)) (cancel func())
	Return(name []byte, batch uint64)
	Ack(name []byte, batch uint64, ids []uint64) (n int, after *queue.Future, err error)
	Nack(name []byte, batch uint64, mode machine.NackMode, delayMillis int64, ids []uint64) (n int, after *queue.Future, err error)
	Extend(name []byte, batch uint64, millis int64) (deadlineUnixMillis int64, after *queue.Future, err error)
	Len(name []byte) (int64, *queue.Future, error)
	Info(name []byte) (*queue.Info, *queue.Future, error)
	Names() []string
	NamesUnsorted() []string
	Count() int
	Exists(name []byte) bool
	NamesAfter() *queue.Future
	Loading() error
	LoadingQueues() int
	Create(name []byte, o machine.Options) (*queue.Future, error)
	Options(name []byte) ([][2]string, *queue.Future, error)
	Configure(name []byte, change machine.Options) (*queue.Future, error)
	Peek(name []byte, state machine.State, from uint64, most int, show func(list []queue.Found)) (*queue.Future, error)
	Get(name []byte, id uint64) (*queue.Found, *queue.Future, error)
	Remove(name []byte, ids []uint64) (n int, after *queue.Future, err error)
	Purge(name []byte, before uint64) (n int64, after *queue.Future, err error)
	Pause(name []byte, pause, push, consume bool) (*queue.Future, error)
	Redrive(name, to []byte, most int) (n int, after *queue.Future, err error)
	Backup(directory string) (queue.BackupReport, error)
	Delete(name []byte) (existed bool, after *queue.Future, err error)
}
