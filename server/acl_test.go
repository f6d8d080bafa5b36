package server

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quail/commands"
	"quail/wal/vfs"
)

const wrongPass = "-WRONGPASS invalid username-password pair or user is disabled.\r\n"

// Whoever guesses waits for each answer, and nobody else does.
func TestWrongPasswordWaits(t *testing.T) {
	const delay = 300 * time.Millisecond
	s := start(t, "requirepass=secret", "auth-delay=300")
	guesser, other := s.dial(t), s.dial(t)
	began := time.Now()
	guesser.send(cmd("AUTH", "wrong") + cmd("AUTH", "secret") + cmd("PING"))
	other.send(cmd("AUTH", "secret") + cmd("PING"))
	other.expect("+OK\r\n+PONG\r\n")
	if took := time.Since(began); took >= delay {
		t.Errorf("another connection waited %v", took)
	}
	guesser.expect(wrongPass)
	if took := time.Since(began); took < delay {
		t.Errorf("the answer came after %v", took)
	}
	guesser.expect("+OK\r\n+PONG\r\n")
	guesser.send(cmd("HELLO", "3", "AUTH", "default", "wrong"))
	guesser.expect(wrongPass)
}

// Without a bound each of ten thousand strangers could make the server hold query-buffer-bytes, 64 MB, while it waits.
func TestStrangerCannotFillTheMemoryWhileItWaits(t *testing.T) {
	s := start(t, "requirepass=secret", "auth-delay=5000")
	c := s.dial(t)
	c.send(cmd("AUTH", "wrong"))
	eventually(t, "the connection waits", func() bool { return (admin{s.Server}).Info().BlockedClients == 1 })
	began := time.Now()
	go c.conn.Write([]byte(strings.Repeat(cmd("AUTH", "wrong"), 10_000)))
	c.expectEnd("")
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it was closed after %v only", took)
	}
}

// A user that was deleted, or may do less, is so at once, on connections that are open too.
func TestChangesHoldForOpenConnections(t *testing.T) {
	s := start(t, "auth-delay=0")
	boss, worker := s.dial(t), s.dial(t)
	boss.send(cmd("ACL", "SETUSER", "worker", "on", ">pw", "~*", "+@all"))
	boss.expect("+OK\r\n")
	worker.send(cmd("AUTH", "worker", "pw") + cmd("QLEN", "orders"))
	worker.expect("+OK\r\n:0\r\n")
	boss.send(cmd("ACL", "SETUSER", "worker", "-qlen"))
	boss.expect("+OK\r\n")
	worker.send(cmd("QLEN", "orders"))
	worker.expect("-NOPERM this user has no permissions to run the 'qlen' command\r\n")
	boss.send(cmd("ACL", "SETUSER", "worker", "+qlen", "off", "resetpass"))
	boss.expect("+OK\r\n")
	worker.send(cmd("QLEN", "orders"))
	worker.expect(":0\r\n") // as in Redis: off is for those who come
	boss.send(cmd("ACL", "DELUSER", "worker"))
	boss.expect(":1\r\n")
	worker.expectEnd("")
}

// After a failed load all goes on as before; after a good one those who changed must come again.
func TestACLLoadClosesWhoChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.acl")
	write := func(content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("user default on nopass ~* +@all\nuser a on >a ~* +@all\nuser b on >b ~* +@all\n")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	users := commands.NewUsers()
	file := NewACLFile(vfs.OS, path, users, noPassword)
	if _, _, err := file.Load(); err != nil {
		t.Fatal(err)
	}
	s := startWith(t, ln, func(c *Config) { c.Users, c.ACLFile = users, file })
	t.Cleanup(func() { s.shutdown(t) })
	boss, a, b := s.dial(t), s.dial(t), s.dial(t)
	a.send(cmd("AUTH", "a", "a"))
	a.expect("+OK\r\n")
	b.send(cmd("AUTH", "b", "b"))
	b.expect("+OK\r\n")
	write("user default on nopass ~* +@all\nuser a on +nonesuch\n")
	boss.send(cmd("ACL", "LOAD"))
	boss.expect("-ERR " + path + ":2: Error in applying operation '+nonesuch': Unknown command or category name in ACL. " +
		"WARNING: ACL errors detected, no change to the previously active ACL rules was performed\r\n")
	b.send(cmd("PING"))
	b.expect("+PONG\r\n")
	write("user default on nopass ~* +@all\nuser a on >a ~* +@all\nuser b on >b ~b +@all\n")
	boss.send(cmd("ACL", "LOAD"))
	boss.expect("+OK\r\n")
	b.expectEnd("")
	a.send(cmd("PING"))
	a.expect("+PONG\r\n")
	boss.send(cmd("ACL", "SAVE") + cmd("ACL", "LOAD") + cmd("ACL", "USERS"))
	boss.expect("+OK\r\n+OK\r\n*3\r\n$1\r\na\r\n$1\r\nb\r\n$7\r\ndefault\r\n")
}

// Without this CONFIG SET requirepass answers OK, and the password that everybody was told does not let them in: at once where the default user is
// off, and else from the next start or ACL LOAD on. Where the file leaves the default user to requirepass, it changes the password.
func TestRequirepassIsRefusedWhereTheACLFileDecides(t *testing.T) {
	const refused = "-ERR CONFIG SET failed (possibly related to argument 'requirepass') - the aclfile has the user default, and it wins over requirepass; " +
		"change the password with ACL SETUSER default resetpass >…, and keep it with ACL SAVE\r\n"
	path := filepath.Join(t.TempDir(), "users.acl")
	if err := os.WriteFile(path, []byte("user boss on >boss ~* +@all\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	users := commands.NewUsers()
	file := NewACLFile(vfs.OS, path, users, func() string { return "first" })
	if _, _, err := file.Load(); err != nil {
		t.Fatal(err)
	}
	s := startWith(t, ln, func(c *Config) { c.Users, c.ACLFile = users, file }, "requirepass=first", "auth-delay=0")
	t.Cleanup(func() { s.shutdown(t) })
	boss := s.dial(t)
	boss.send(cmd("AUTH", "boss", "boss") + cmd("CONFIG", "SET", "requirepass", "second") + cmd("AUTH", "second") + cmd("AUTH", "boss", "boss"))
	boss.expect("+OK\r\n+OK\r\n+OK\r\n+OK\r\n")
	boss.send(cmd("ACL", "SAVE") + cmd("CONFIG", "SET", "timeout", "7", "requirepass", "third") + cmd("AUTH", "second") + cmd("AUTH", "boss", "boss"))
	boss.expect("+OK\r\n" + refused + "+OK\r\n+OK\r\n") // the file that was saved has the default user
	if err := os.WriteFile(path, []byte("user boss on >boss ~* +@all\nuser default off\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	boss.send(cmd("ACL", "LOAD") + cmd("CONFIG", "SET", "requirepass", "third") + cmd("CONFIG", "GET", "timeout"))
	boss.expect("+OK\r\n" + refused + "*2\r\n$7\r\ntimeout\r\n$1\r\n0\r\n")
}

// fromAfar is a listener whose clients seem to come from another machine.
type fromAfar struct{ net.Listener }

type afar struct{ net.Conn }

func (afar) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4000} }

func (l fromAfar) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return afar{conn}, nil
}

// A server that somebody opened to the network by mistake must not be one that anybody can empty.
func TestProtectedMode(t *testing.T) {
	for _, c := range []struct {
		given  []string
		served string
	}{
		{nil, ""},
		{[]string{"protected-mode=no"}, "+PONG\r\n"},
		{[]string{"requirepass=secret"}, "-NOAUTH Authentication required.\r\n"},
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := startOn(t, fromAfar{ln}, c.given...)
		client := s.dial(t)
		if c.served == "" {
			client.expectEnd(protectedRefusal)
			if !strings.Contains(s.log.String(), "protected-mode") {
				t.Errorf("not logged: %s", s.log)
			}
		} else {
			client.send(cmd("PING"))
			client.expect(c.served)
		}
		client.conn.Close()
		s.shutdown(t)
	}
}
