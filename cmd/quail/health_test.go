package main

import (
	"bytes"
	"io"
	"net"
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
		got, err := loadState(c.info)
		if got != c.want || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("INFO of %q: %q, %v", c.info, got, err)
		}
	}
}

// Without this an orchestrator restarts a server that has as many clients as it may, and cuts off all of them.
func TestHealthOfAFullServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "-ERR max number of clients reached\r\n")
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	for _, password := range [][]string{nil, {"--pass", "secret"}} { // it is the answer to whatever is asked first
		var out, failed bytes.Buffer
		args := append([]string{"health", "--listen", listener.Addr().String()}, password...)
		if code := run(args, &out, &failed); code != exitOK || !strings.Contains(out.String(), "it is busy") {
			t.Errorf("%v: exit code %d\n%s%s", password, code, out.String(), failed.String())
		}
	}
}
