package main

import (
	"bufio"
	"fmt"
	"strings"
	"testing"
)

// Without this an orchestrator sends clients to a server that refuses everything, or restarts one that only loads a large queue.
func TestHealthTellsLoading(t *testing.T) {
	for _, c := range []struct{ info, want, wrong string }{
		{"# Persistence\r\nloading:0\r\nasync_loading:0\r\nloading_queues:0\r\n", "PONG", ""},
		{"# Persistence\r\nloading:0\r\nasync_loading:1\r\nloading_queues:3\r\n", "PONG, and still loads 3 of its queues", ""},
		{"# Persistence\r\nloading:1\r\nloading_queues:0\r\n", "", "it is starting"},
		{"# Persistence\r\njournal_failed:0\r\n", "PONG", ""}, // an older server
	} {
		got, err := loadState(fmt.Sprintf("$%d", len(c.info)), bufio.NewReader(strings.NewReader(c.info+"\r\n")))
		if got != c.want || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("INFO of %q: %q, %v", c.info, got, err)
		}
	}
	if got, err := loadState("-NOPERM no permission", bufio.NewReader(strings.NewReader(""))); got != "PONG" || err != nil {
		t.Errorf("a user who may not run INFO: %q, %v", got, err)
	}
	if _, err := loadState("$100", bufio.NewReader(strings.NewReader("short"))); err == nil {
		t.Error("a server that dies in its answer is called healthy")
	}
}
