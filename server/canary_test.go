package server

import (
	"strings"
	"testing"
)

// Passwords and bodies belong to clients: whoever reads the log, MONITOR or SLOWLOG must not see a password, nor the log a body. Commands
// that are not there are passed over.
func TestSecretsStayOutOfTheLog(t *testing.T) {
	const password, body = "canary-password", "canary-body"
	s := start(t, "requirepass="+password, "log-level=debug")
	watcher := s.dial(t)
	watcher.send(cmd("AUTH", password) + cmd("MONITOR"))
	watcher.rd.ReadString('\n')
	watcher.rd.ReadString('\n')
	said := func(words ...string) string {
		c := s.dial(t)
		c.send(cmd("AUTH", password) + cmd(words...))
		c.closeWrite()
		c.expect("+OK\r\n")
		rest, _ := c.rd.ReadString(0)
		return rest
	}
	for _, words := range [][]string{
		{"AUTH", "wrong-" + password}, {"AUTH", "default", "wrong-" + password}, {"HELLO", "3", "AUTH", "default", "wrong-" + password},
		{"HELLO", "9", "AUTH", "default", password}, {"CONFIG", "SET", "requirepass", password}, {"CONFIG", "GET", "requirepass"},
		{"ACL", "SETUSER", "somebody", ">" + password}, {"ACL", "LIST"}, {"CONFIG", "SET", "requirepass", password, "nothing", "x"},
	} {
		if got := said(words...); strings.Contains(got, password) && !strings.Contains(got, "unknown command") {
			t.Errorf("%s %s answers %q", words[0], words[1], got)
		}
	}
	said("QPUSH", "q", body)
	said("QPUSH", "bad name\n{\"level\":\"error\"}", body)
	said("CLIENT", "SETNAME", "a\n{\"level\":\"error\"}")
	forged := s.dial(t)
	forged.send(cmd("POST", "x", body))
	forged.expectEnd("")
	if got := said("SLOWLOG", "GET"); strings.Contains(got, password) {
		t.Errorf("SLOWLOG tells %q", got)
	}
	watcher.closeWrite()
	if seen, _ := watcher.rd.ReadString(0); strings.Contains(seen, password) {
		t.Errorf("MONITOR tells %q", seen)
	}
	for _, line := range strings.Split(s.log.String(), "\n") {
		if strings.Contains(line, password) || strings.Contains(line, body) || strings.HasPrefix(line, `{"level":"error"}`) {
			t.Errorf("the log tells %q", line)
		}
	}
}
