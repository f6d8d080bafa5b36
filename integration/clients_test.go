//go:build linux

package integration

// The protocol in the wild: the same short conversation with real client libraries, with and without a password. Each
// connects, pulls from an empty queue, pushes bodies of any bytes, pulls, is refused by the lock, acknowledges twice,
// acknowledges what is not there, waits for a message, and leaves the queue empty.
//
// The libraries of other languages run the programs in testdata/clients. Whoever lets the last pull wait gets the message
// "wake up" from here once it is in line; it waits in another queue, <queue>/wait, so that nothing else is taken for that.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

// execute runs one command on some client and returns its reply in redigo's or go-redis's types; a null is nil.
type execute func(words ...any) (any, error)

func TestGoClients(t *testing.T) {
	open, locked := startServer(t), newServer(t)
	locked.auth = "open sesame"
	locked.start()
	for _, s := range []*server{open, locked} {
		name := "open/"
		if s.auth != "" {
			name = "password/"
		}
		t.Run(name+"go-redis RESP3", func(t *testing.T) { converse(t, s, "go3", goRedis(t, s, 3)) })
		t.Run(name+"go-redis RESP2", func(t *testing.T) { converse(t, s, "go2", goRedis(t, s, 2)) })
		t.Run(name+"rueidis RESP3", func(t *testing.T) { converse(t, s, "ru3", rueidisClient(t, s, false)) })
		t.Run(name+"rueidis RESP2", func(t *testing.T) { converse(t, s, "ru2", rueidisClient(t, s, true)) })
		t.Run(name+"redigo", func(t *testing.T) {
			conn := s.connect(t)
			converse(t, s, "redigo", func(words ...any) (any, error) { return conn.Do(words[0].(string), words[1:]...) })
		})
	}
}

func goRedis(t *testing.T, s *server, protocol int) execute {
	client := goredis.NewClient(&goredis.Options{Addr: s.addr, Password: s.auth, Protocol: protocol, ClientName: "go-redis",
		ReadTimeout: replyTimeout, MaxRetries: -1})
	t.Cleanup(func() { client.Close() })
	return func(words ...any) (any, error) {
		reply, err := client.Do(context.Background(), words...).Result()
		if errors.Is(err, goredis.Nil) {
			return nil, nil
		}
		return reply, err
	}
}

func rueidisClient(t *testing.T, s *server, resp2 bool) execute {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.addr}, Password: s.auth, ClientName: "rueidis",
		DisableCache: true, AlwaysRESP2: resp2, ForceSingleClient: true, DisableRetry: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return func(words ...any) (any, error) {
		command := client.B().Arbitrary(words[0].(string))
		for _, word := range words[1:] {
			command = command.Args(fmt.Sprint(word))
		}
		// Blocking commands go over a connection of their own, as the library's manual says.
		completed := command.Build()
		if slices.Contains(words, "BLOCK") {
			completed = client.B().Arbitrary(completed.Commands()...).Blocking()
		}
		reply, err := client.Do(context.Background(), completed).ToAny()
		if rueidis.IsRedisNil(err) {
			return nil, nil
		}
		return mapsAsAny(reply), err
	}
}

// mapsAsAny turns rueidis's maps, which have texts as keys, into those of the other clients.
func mapsAsAny(reply any) any {
	switch r := reply.(type) {
	case []any:
		for i := range r {
			r[i] = mapsAsAny(r[i])
		}
	case map[string]any:
		m := make(map[any]any)
		for key, value := range r {
			m[key] = value
		}
		return m
	}
	return reply
}

// converse is the conversation, for clients in Go.
func converse(t *testing.T, s *server, queue string, run execute) {
	number := func(want int64, words ...any) {
		t.Helper()
		if reply, err := run(words...); err != nil || reply != want {
			t.Fatalf("%v: got %v, %v; want %d", words, reply, err, want)
		}
	}
	refusal := func(code string, words ...any) {
		t.Helper()
		reply, err := run(words...)
		if err == nil || code != "ERR" && !strings.HasPrefix(err.Error(), code+" ") { // some clients drop ERR from the text
			t.Fatalf("%v: got %v, %v; want -%s", words, reply, err, code)
		}
	}
	pull := func(words ...any) *batch {
		t.Helper()
		b, err := parseBatch(run(words...))
		if err != nil {
			t.Fatalf("%v: %v", words, err)
		}
		return b
	}
	number(0, "QLEN", queue)
	if b := pull("QCONSUME", queue, "me"); b != nil {
		t.Fatalf("an empty queue gave %+v", b)
	}
	bodies := []string{"first\r\n\x00\xff", "", "third"}
	first, err := run("QPUSH", queue, bodies[0], bodies[1], bodies[2])
	if err != nil {
		t.Fatal(err)
	}
	b := pull("QCONSUME", queue, "me")
	if !slices.Equal(bodiesOf(b.messages), bodies) || b.messages[0].id != first {
		t.Fatalf("pushed %q from %v on, got %+v", bodies, first, b)
	}
	refusal("LOCKED", "QCONSUME", queue, "other")
	number(3, "QACK", queue, b.id)
	number(0, "QACK", queue, b.id)
	refusal("NOBATCH", "QACK", queue, 999_999_999)
	refusal("ERR", "QACK", queue, "not-a-number")
	number(0, "QLEN", queue)
	queue += "/wait"
	go wakeUp(t, s, queue)
	b = pull("QCONSUME", queue, "me", "BLOCK", 15_000)
	if b == nil || b.messages[0].body != "wake up" {
		t.Fatalf("waited for a message and got %+v", b)
	}
	number(1, "QACK", queue, b.id)
	number(0, "QLEN", queue)
}

// wakeUp pushes a message once somebody waits for it.
func wakeUp(t testing.TB, s *server, queue string) {
	conn, err := s.dial()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	if !holdsWithin(15*time.Second, func() bool {
		fields, err := info(conn, queue)
		return err == nil && fields["waiting"] == "1"
	}) {
		t.Errorf("nobody waits in %s", queue)
		return
	}
	if _, err := conn.Do("QPUSH", queue, "wake up"); err != nil {
		t.Error(err)
	}
}

// foreign is a client library of another language.
type foreign struct {
	name    string
	install string // what to install where it is missing
	prepare func(t *testing.T) (command []string, err error)
}

var foreignClients = []foreign{
	{name: "redis-py", install: "Debian: python3-redis", prepare: func(t *testing.T) ([]string, error) {
		var err error
		for _, python := range []string{"python3", "/usr/bin/python3"} {
			if err = probe(nil, python, "-c", "import redis"); err == nil {
				return []string{python, "testdata/clients/conversation.py"}, nil
			}
		}
		return nil, err
	}},
	{name: "phpredis", install: "Debian: php-cli php-redis", prepare: func(t *testing.T) ([]string, error) {
		return []string{"php", "testdata/clients/conversation.php"}, probe(nil, "php", "-r", "exit(class_exists('Redis') ? 0 : 1);")
	}},
	{name: "redis-rb", install: "Debian: ruby-redis", prepare: func(t *testing.T) ([]string, error) {
		return []string{"ruby", "testdata/clients/conversation.rb"}, probe(nil, "ruby", "-e", "require 'redis'")
	}},
	{name: "Perl's Redis", install: "Debian: libredis-perl", prepare: func(t *testing.T) ([]string, error) {
		return []string{"perl", "testdata/clients/conversation.pl"}, probe(nil, "perl", "-MRedis", "-e", "1")
	}},
	{name: "hiredis", install: "Debian: gcc libhiredis-dev", prepare: compileHiredis},
	{name: "node-redis", install: nodeInstall, prepare: func(t *testing.T) ([]string, error) {
		return []string{"node", "testdata/clients/node-redis.js"}, nodeModule("redis")
	}},
	{name: "ioredis", install: nodeInstall, prepare: func(t *testing.T) ([]string, error) {
		return []string{"node", "testdata/clients/ioredis.js"}, nodeModule("ioredis")
	}},
}

const nodeInstall = "Node 20, then: npm install --no-package-lock --prefix integration/testdata/clients"

// probe runs a program that tells by its exit code whether a client is installed.
func probe(env []string, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), replyTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		text, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("%w %s", err, text)
	}
	return nil
}

func nodeModule(name string) error {
	dir, err := filepath.Abs("testdata/clients")
	if err != nil {
		return err
	}
	return probe([]string{"NODE_PATH=" + os.Getenv("NODE_PATH")}, "node", "-e", fmt.Sprintf("require(require.resolve(%q, {paths: [%q, ...module.paths, ...(process.env.NODE_PATH || '').split(':')]}))", name, dir))
}

func compileHiredis(t *testing.T) ([]string, error) {
	if err := probe(nil, "gcc", "-include", "hiredis/hiredis.h", "-E", "-x", "c", "/dev/null"); err != nil {
		return nil, err
	}
	program := filepath.Join(t.TempDir(), "conversation")
	if err := probe(nil, "gcc", "-Wall", "-o", program, "testdata/clients/conversation.c", "-lhiredis"); err != nil {
		t.Fatal(err)
	}
	return []string{program}, nil
}

func TestForeignClients(t *testing.T) {
	open, locked := startServer(t), newServer(t)
	locked.auth = "open sesame"
	locked.start()
	for _, client := range foreignClients {
		t.Run(client.name, func(t *testing.T) {
			command, err := client.prepare(t)
			if err != nil {
				t.Skipf("SKIP: %s is not installed (%s): %v", client.name, client.install, err)
			}
			for _, s := range []*server{open, locked} {
				converseForeign(t, s, client, command)
			}
		})
	}
}

// converseForeign runs a client's program against a server and wakes it up.
func converseForeign(t *testing.T, s *server, client foreign, command []string) {
	queue := "clients/" + strings.Map(func(r rune) rune {
		if r == ' ' {
			return '-'
		}
		return r
	}, client.name)
	ctx, cancel := context.WithTimeout(context.Background(), 2*replyTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	host, port, _ := strings.Cut(s.addr, ":")
	cmd.Env = append(os.Environ(), "HOST="+host, "PORT="+port, "PASSWORD="+s.auth, "QUEUE="+queue)
	woken := make(chan struct{})
	go func() {
		defer close(woken)
		wakeUp(t, s, queue+"/wait")
	}()
	out, err := cmd.CombinedOutput()
	<-woken
	if err != nil || strings.TrimSpace(string(out)) != "done" {
		t.Errorf("with password %q: %v\n%s", s.auth, err, out)
	}
}
