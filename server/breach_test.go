package server

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// sendTooBig sends a body of so many bytes, of which a server with these settings takes no more than a megabyte.
func sendTooBig(c *client, size int) error {
	return flood("*3\r\n$5\r\nQPUSH\r\n$1\r\nq\r\n$31457280\r\n", "x", size)(c.conn)
}

var smallBulk = []string{"max-bulk-bytes=1mb", "max-push-bytes=1mb"}

// Without this a client whose body is too large gets a reset while it still sends, and nobody learns why.
func TestBodyOverTheLimitIsAnswered(t *testing.T) {
	s := start(t, smallBulk...)
	for range 5 {
		c := s.dial(t)
		c.send("PING\r\n")
		if err := sendTooBig(c, 30*mb); err != nil {
			t.Fatalf("the server did not hear it to the end: %v", err)
		}
		if got, err := io.ReadAll(c.rd); err != nil || string(got) != "+PONG\r\n"+protocolError("invalid bulk length") {
			t.Fatalf("got %q, %v", got, err)
		}
		c.conn.Close()
	}
	var line struct {
		Level, Client, Setting string
		Declared, Limit        int64
	}
	first, _, _ := strings.Cut(s.log.String(), "\n")
	if err := json.Unmarshal([]byte(first), &line); err != nil {
		t.Fatalf("%v in %q", err, first)
	}
	if line.Level != "warn" || !strings.HasPrefix(line.Client, "127.0.0.1:") || line.Setting != "max-bulk-bytes" || line.Declared != 31457280 || line.Limit != 1*mb {
		t.Errorf("the log says %+v", line)
	}
}

// One client that repeats a push that is too large must not fill the disk with lines.
func TestBodiesOverTheLimitAreLoggedOnceASecond(t *testing.T) {
	s := start(t, smallBulk...)
	for range 200 {
		c := s.dial(t)
		if err := sendTooBig(c, 0); err != nil {
			t.Fatal(err)
		}
		c.expectEnd(protocolError("invalid bulk length"))
		c.conn.Close()
	}
	if warned := strings.Count(s.log.String(), `"level":"warn"`); warned == 0 || warned > 5 {
		t.Errorf("%d lines", warned)
	}
}

// To hear such clients to the end is a courtesy for few at a time: it must not become the way to keep the server busy.
func TestFewAreHeardToTheEnd(t *testing.T) {
	s := start(t, smallBulk...)
	for range cap(s.breaches) {
		s.breaches <- struct{}{}
	}
	c := s.dial(t)
	if err := sendTooBig(c, 60*mb); err == nil {
		t.Error("one more than may be was heard to the end")
	}
	for range cap(s.breaches) {
		<-s.breaches
	}
	c = s.dial(t)
	if err := sendTooBig(c, 300*mb); err == nil {
		t.Error("300 MB were heard")
	}
	eventually(t, "the place is free again", func() bool { return len(s.breaches) == 0 })
}

// A stranger is owed nothing, and what it sends is nobody's worry.
func TestStrangersAreNotHeardToTheEnd(t *testing.T) {
	s := start(t, append(smallBulk, "requirepass=secret")...)
	c := s.dial(t)
	if err := sendTooBig(c, 60*mb); err == nil {
		t.Error("it was heard")
	}
	if strings.Contains(s.log.String(), `"level":"warn"`) {
		t.Errorf("logged: %s", s.log.String())
	}
}

// TLS, which must say itself that no more comes.
func TestBodyOverTheLimitIsAnsweredInTLS(t *testing.T) {
	a := newAuthority(t)
	a.make("somebody", "client")
	_, _, address := startTLS(t, a, smallBulk...)
	c, _ := dialTLS(t, address, a.client("client"))
	if err := sendTooBig(c, 30*mb); err != nil {
		t.Fatalf("the server did not hear it to the end: %v", err)
	}
	if got, err := io.ReadAll(c.rd); err != nil || string(got) != protocolError("invalid bulk length") {
		t.Fatalf("got %q, %v", got, err)
	}
}
