package server

import "testing"

// Without this a crowd of clients takes the descriptors that queues need to open their logs.
func TestClientsLeaveDescriptorsForFiles(t *testing.T) {
	for _, c := range []struct{ limit, openLogs, want int64 }{
		{200, 128, 100},     // few: half for files
		{1024, 128, 832},    // open-logs and what the process itself needs are kept
		{1024, 10_000, 512}, // open-logs cannot shut clients out
		{1 << 20, 128, 1<<20 - 192},
		{1, 128, 1},
	} {
		if got := clientsFor(c.limit, c.openLogs); got != c.want {
			t.Errorf("%d descriptors, %d open logs: %d clients, want %d", c.limit, c.openLogs, got, c.want)
		}
	}
}
