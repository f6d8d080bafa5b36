package server

import (
	"strings"
	"testing"
)

// secrets are sent in every way in which a client can send them; none may be seen by others.
var secrets = cmd("AUTH", "default", "hush-auth") + cmd("HELLO", "2", "AUTH", "default", "hush-hello") +
	cmd("ACL", "SETUSER", "u", ">hush-user") + cmd("CONFIG", "SET", "RequirePass", "hush-config") + cmd("AUTH", "hush-config") +
	cmd("CONFIG", "SET", "requirepass", "") + cmd("QPUSH", "orders", "hush-body", "hush-body") +
	cmd("QPUSHEX", "orders", "1", "hush-body", "HEADERS", "1", "a", "hush-header")

func sendSecrets(t *testing.T, s *running) {
	t.Helper()
	c := s.dial(t)
	c.send(secrets + cmd("ECHO", "done"))
	for {
		line, err := c.rd.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "done\r\n" {
			return
		}
	}
}

// An operator who looks for slow commands must not read passwords and messages.
func TestSlowlogShowsNoSecret(t *testing.T) {
	s := start(t, "slowlog-log-slower-than=0", "auth-delay=0")
	sendSecrets(t, s)
	c := s.dial(t)
	c.send(cmd("SLOWLOG", "LEN") + cmd("SLOWLOG", "GET", "-1") + cmd("ECHO", "end"))
	var all strings.Builder
	for !strings.HasSuffix(all.String(), "\r\nend\r\n") {
		line, err := c.rd.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(line)
	}
	got := all.String()
	if strings.Contains(got, "hush") || !strings.Contains(got, "(redacted)") || !strings.Contains(got, "(9 bytes)") || !strings.HasPrefix(got, ":9\r\n*") {
		t.Errorf("got %q", got)
	}
	c.send(cmd("CONFIG", "SET", "slowlog-max-len", "2") + cmd("SLOWLOG", "LEN") + cmd("CONFIG", "SET", "slowlog-log-slower-than", "-1") +
		cmd("SLOWLOG", "RESET") + cmd("SLOWLOG", "LEN") + cmd("SLOWLOG", "GET", "-2"))
	c.expect("+OK\r\n:2\r\n+OK\r\n+OK\r\n:0\r\n-ERR count should be greater than or equal to -1\r\n")
}

// A monitor sees what others run, no secret, and nothing more after RESET.
func TestMonitor(t *testing.T) {
	s := start(t, "auth-delay=0")
	m := s.dial(t)
	m.send(cmd("MONITOR"))
	m.expect("+OK\r\n")
	sendSecrets(t, s)
	var all strings.Builder
	for !strings.Contains(all.String(), `"ECHO" "done"`) {
		line, err := m.rd.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(line)
	}
	got := all.String()
	if strings.Contains(got, "hush") || strings.Contains(got, "CONFIG") || !strings.Contains(got, `] "QPUSH" "orders" "(9 bytes)" "(9 bytes)"`+"\r\n") ||
		!strings.Contains(got, `"AUTH" "(redacted)" "(redacted)"`) || !strings.Contains(got, `"HELLO" "2" "AUTH" "(redacted)" "(redacted)"`) {
		t.Errorf("got %s", got)
	}
	m.send(cmd("RESET"))
	for { // its own RESET is shown before it runs
		line, err := m.rd.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "+RESET\r\n" {
			break
		}
	}
	other := s.dial(t)
	other.send(cmd("PING"))
	other.expect("+PONG\r\n")
	m.send(cmd("PING"))
	m.expect("+PONG\r\n")
}

// A monitor that does not read must not make the server hold all that others send.
func TestSlowMonitorIsDropped(t *testing.T) {
	s := start(t, "output-buffer-bytes=64kb")
	m := s.dial(t)
	m.send(cmd("MONITOR"))
	m.expect("+OK\r\n")
	other := s.dial(t)
	dropped := func() bool { return strings.Contains(s.log.String(), "MONITOR too slowly") }
	ping, pong := strings.Repeat(cmd("PING", strings.Repeat("x", 200)), 100), strings.Repeat("$200\r\n"+strings.Repeat("x", 200)+"\r\n", 100)
	for range 2000 { // the system's own buffers take some megabytes
		other.send(ping)
		other.expect(pong)
		if dropped() {
			break
		}
	}
	if !dropped() {
		t.Fatal("never dropped")
	}
	eventually(t, "the monitor is gone", func() bool { return s.env.Monitors.Load() == 0 && len(s.all()) == 1 })
}
