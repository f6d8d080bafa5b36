package queue

// Reads of logs for those who pull a backlog or look at messages: few at a time. Each takes milliseconds of a processor even if the disk need
// not be asked, and with a hundred pulls at once everybody else's command stood behind a hundred such goroutines in the scheduler's queue:
// the loop that serves the quick commands waited a quarter of a second for its turn, and 0.9 s on a busy machine.

import (
	"runtime"
	"sync"
	"time"
)

// readTurn is after how long a read counts no more: one that waits for a disk that hangs, or for descriptors, must not hold up other queues.
const readTurn = 100 * time.Millisecond

// reads is who may read now; nil lets all.
type reads chan struct{}

// newReads lets half of the processors read, so that the other half is there for what is quick; with four readers on two processors the loop
// still waited up to 0.12 s. That the disk has few requests at a time costs little: each asks for what will be wanted next, too.
func newReads(cfg *Config) reads {
	if cfg.Background != nil {
		return nil // whoever decides what runs runs one thing at a time, which must not wait for another
	}
	return make(reads, max(1, runtime.GOMAXPROCS(0)/2))
}

// begin waits for a turn, and returns what ends it.
func (r reads) begin() (end func()) {
	if r == nil {
		return func() {}
	}
	r <- struct{}{}
	var once sync.Once
	free := func() { once.Do(func() { <-r }) }
	timer := time.AfterFunc(readTurn, free)
	return func() {
		timer.Stop()
		free()
	}
}
