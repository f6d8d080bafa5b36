package main

// How much memory the process may leave to garbage, and when it gives memory back.

import (
	"runtime/debug"
	"time"

	"quail/queue"
)

// ballast is never touched, so it takes no memory; but the collector counts it and waits for garbage in proportion. An idle server's own
// heap is a few megabytes, and without ballast a collection would follow on every few megabytes of messages.
var ballast []byte

const (
	ballastBytes = 32 << 20
	// collectPercent makes the collector follow on half as much garbage as there is memory in use, ballast included: a large server
	// takes less memory than with the usual 100, a small one has ballastBytes/2 to fill either way.
	collectPercent = 50
	// restEvery is how long nothing may be committed before the memory that a burst has left is given back.
	restEvery = 5 * time.Second
)

func tuneCollector() {
	ballast = make([]byte, ballastBytes)
	debug.SetGCPercent(collectPercent)
}

// giveBackAtRest gives unused memory back to the system, once each time the server comes to rest, until stop is closed. Go's own
// collector would leave a burst's garbage in place until the next burst.
func giveBackAtRest(queues *queue.Set, stop <-chan struct{}) {
	ticker := time.NewTicker(restEvery)
	defer ticker.Stop()
	seen, given := uint64(0), uint64(0)
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		stats, _ := queues.StoreStats()
		if stats.Group == seen && seen != given {
			given = seen
			debug.FreeOSMemory()
		}
		seen = stats.Group
	}
}
