//go:build linux

package integration

// Tests over the whole table of commands: what must hold for every one of them holds for one that is added tomorrow. Calls are made from the
// specs; each way to choose among alternatives is called, with all options.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gomodule/redigo/redis"

	"quail/commands"
)

// fill gives an argument that is a text its value.
type fill func(a *commands.Arg) string

// callsOf are all ways to call a command with all of its options, one for each choice among alternatives.
func callsOf(s *commands.Spec, value fill) (calls [][]string) {
	for choice := range 8 {
		words := strings.Split(strings.ToUpper(s.FullName()), "|")
		for i := range s.Args {
			words = append(words, wordsOf(&s.Args[i], choice, value)...)
		}
		if !slices.ContainsFunc(calls, func(other []string) bool { return slices.Equal(other, words) }) {
			calls = append(calls, words)
		}
	}
	return calls
}

func wordsOf(a *commands.Arg, choice int, value fill) (words []string) {
	if a.Token != "" {
		words = append(words, a.Token)
	}
	switch a.Type {
	case commands.ArgPureToken:
	case commands.ArgInteger:
		words = append(words, "1")
	case commands.ArgOneOf:
		words = append(words, wordsOf(&a.Args[choice%len(a.Args)], choice, value)...)
	case commands.ArgBlock:
		for i := range a.Args {
			words = append(words, wordsOf(&a.Args[i], choice, value)...)
		}
	default:
		words = append(words, value(a))
	}
	return words
}

// everyCommand calls f with each command and subcommand but those that end the server or the connection.
func everyCommand(f func(s *commands.Spec)) {
	for _, s := range commands.Table() {
		if slices.Contains([]string{"SHUTDOWN", "QUIT", "RESET", "MONITOR"}, s.Name) {
			continue
		}
		if s.Run != nil {
			f(s)
		}
		for _, sub := range s.Subcommands {
			f(sub)
		}
	}
}

// caller runs commands on a connection that it makes again when a command has ended it.
type caller struct {
	t      *testing.T
	s      *server
	begin  []string // sent on each new connection
	conn   redis.Conn
	called int
}

func (c *caller) do(words []string) (reply any, err error) {
	c.t.Helper()
	if c.conn == nil || c.conn.Err() != nil {
		conn, err := c.s.dial()
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { conn.Close() })
		c.conn = conn
		if len(c.begin) > 0 {
			must(c.t, conn, c.begin[0], anys(c.begin[1:])...)
		}
	}
	c.called++
	if words[0] == "CLIENT" && (slices.Contains(words, "OFF") || slices.Contains(words, "SKIP")) {
		return nil, nil // no reply would come
	}
	return c.conn.Do(words[0], anys(words[1:])...)
}

func anys(words []string) []any {
	list := make([]any, len(words))
	for i, word := range words {
		list[i] = word
	}
	return list
}

// A user whose rules name a:* and who may run everything that is not dangerous must not look at, add to or take from b:secret, by whichever
// command and in whatever place of its words.
func TestNoCommandReachesBeyondThePatterns(t *testing.T) {
	s := startServer(t, "--auth-delay", "0")
	boss := s.connect(t)
	must(t, boss, "ACL", "SETUSER", "tenant", "on", "nopass", "~a:*", "+@all", "-@dangerous")
	must(t, boss, "QCREATE", "b:secret", "max-attempts", "1")
	must(t, boss, "QPUSH", "b:secret", "b-body", "b-body")
	must(t, boss, "QCREATE", "b:dead", "dead-letter-queue", "b:secret")
	must(t, boss, "QPUSH", "a:mine", "mine", "mine", "mine")
	must(t, boss, "QCREATE", "a:source", "dead-letter-queue", "a:dead", "max-attempts", "1")
	must(t, boss, "QPUSH", "a:source", "failed")
	b, err := parseBatch(boss.Do("QCONSUME", "a:source", "me"))
	if err != nil {
		t.Fatal(err)
	}
	must(t, boss, "QNACK", "a:source", b.id, "DEAD")
	state := func() string {
		var all strings.Builder
		for _, words := range [][]any{{"QPEEK", "b:secret"}, {"QCONFIG", "GET", "b:secret"}, {"QPEEK", "b:dead"}, {"QCONFIG", "GET", "b:dead"}, {"KEYS", "b*"}} {
			fmt.Fprintf(&all, "%s\n", must(t, boss, words[0].(string), words[1:]...))
		}
		lock, _ := redis.StringMap(boss.Do("QINFO", "b:secret"))
		fmt.Fprintf(&all, "%s %s\n", lock["lock-holder"], lock["pushed"])
		return all.String()
	}
	before := state()
	tenant := &caller{t: t, s: s, begin: []string{"AUTH", "tenant", "x"}}
	if _, err := tenant.do([]string{"QLEN", "b:secret"}); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
		t.Fatalf("the rules do not hold at all: %v", err)
	}
	if _, err := tenant.do([]string{"QLEN", "a:mine"}); err != nil {
		t.Fatal(err)
	}
	for _, firstKey := range []string{"b:secret", "a:mine", "a:dead", "a:source"} {
		everyCommand(func(spec *commands.Spec) {
			first := true
			for _, words := range callsOf(spec, func(a *commands.Arg) string {
				switch {
				case a.Type == commands.ArgKey && first:
					first = false
					return firstKey
				case a.Name == "option":
					return "dead-letter-queue"
				case a.Name == "username":
					return "tenant"
				case a.Name == "command":
					return "QPEEK"
				}
				return "b:secret"
			}) {
				first = true
				reply, err := tenant.do(words)
				if strings.Contains(fmt.Sprintf("%s %v", reply, err), "b-body") {
					t.Errorf("%q shows a message", words)
				}
				if spec.FullName() == "qdel" || spec.FullName() == "del" {
					must(t, boss, "QPUSH", "a:mine", "mine")
				}
			}
			if after := state(); after != before {
				t.Errorf("%s reached beyond a:*:\n%s", spec.FullName(), after)
				before = after
			}
			for _, name := range must(t, boss, "KEYS", "a*").([]any) {
				if options := fmt.Sprintf("%s", must(t, boss, "QCONFIG", "GET", name, "dead-letter-queue")); strings.Contains(options, "b:") {
					t.Errorf("%s: failed messages of %s go to %s", spec.FullName(), name, options)
				}
			}
		})
	}
	if tenant.called < 150 {
		t.Errorf("only %d calls", tenant.called)
	}
}

// canaries are what nobody but the sender and the consumers may see.
var canaries = regexp.MustCompile(`(?i)canary-(body|header|dedup|password)`)

// canary puts a secret wherever a command takes one.
func canary(a *commands.Arg) string {
	switch a.Name {
	case "option": // of a queue; its value, which comes next, is none
		return "lease"
	case "body":
		return "canary-body"
	case "dedup":
		return "canary-dedup"
	case "value": // of headers, settings and options
		return "canary-header"
	case "password", "arg":
		return "canary-password"
	case "rule":
		return ">canary-password"
	case "parameter":
		return "requirepas" // the right one would change what the test works with
	case "command":
		return "AUTH"
	case "username":
		return "default"
	}
	return "plain"
}

// onlookers collect what others can see of the commands that run.
type onlookers struct {
	mu   sync.Mutex // guards seen
	seen strings.Builder
}

// watchCommands starts a MONITOR.
func watchCommands(t *testing.T, s *server) *onlookers {
	t.Helper()
	w := dialWire(t, s, s.auth != "")
	w.send(t, "*1\r\n$7\r\nMONITOR\r\n")
	w.expect(t, "+OK")
	o := &onlookers{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			line, err := w.in.ReadString('\n')
			o.mu.Lock()
			o.seen.WriteString(line)
			o.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		w.Close()
		<-done
	})
	return o
}

func (o *onlookers) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen.String()
}

// Whoever reads the log, MONITOR, SLOWLOG, ACL LOG, INFO or the list of clients must not see a password, a message, a header's value or a deduplication
// id, whichever command it came with; nor if a word was forgotten, so that the others stand in the wrong place.
func TestNoCommandShowsItsSecrets(t *testing.T) {
	s := newServer(t, "--requirepass", hostilePassword, "--auth-delay", "0", "--log-level", "debug", "--slowlog-log-slower-than", "0", "--slowlog-max-len", "100000")
	s.auth = hostilePassword
	s.start()
	monitor := watchCommands(t, s)
	client := &caller{t: t, s: s}
	everyCommand(func(spec *commands.Spec) {
		if spec.FullName() == "client|kill" {
			return // it would kill the monitor
		}
		for _, words := range callsOf(spec, canary) {
			if i := slices.Index(words, "lease"); i > 0 {
				words[i+1] = "5"
			}
			client.do(words)
			for drop := 1; drop < len(words); drop++ {
				if words[drop] == "plain" {
					continue // a queue's name that is missing makes a name of the body, which nothing can know
				}
				client.do(slices.Delete(slices.Clone(words), drop, drop+1))
			}
			client.do(append(slices.Clone(words), "plain"))
			client.do(append([]string{words[0] + "x"}, words[1:]...))
		}
	})
	for _, words := range [][]string{
		{"HELLO", "3", "SETNAME", "AUTH", "AUTH", "default", "canary-password"},
		{"HELLO", "3", "AUTH", "default", "x", "AUTH", "default", "canary-password"},
		{"HELLO", "AUTH", "default", "canary-password"},
		{"CONFIG", "SET", "timeout", "requirepass", "canary-password", "x"},
		{"CONFIG", "SET", "requirepass", "canary-password", "nothing", "x"},
		{"QPUSH", "q", strings.Repeat("canary-body", 1000)},
		{"QPUSHEX", "q", "2", "DELAY", "canary-body", "DEDUP", "canary-dedup"},
		{"POST", "canary-body"},
	} {
		client.do(words)
	}
	if client.called < 300 {
		t.Fatalf("only %d calls", client.called)
	}
	conn := s.connect(t)
	must(t, conn, "ECHO", "the end of it")
	eventually(t, replyTimeout, "the monitor sees the end", func() bool { return strings.Contains(monitor.text(), "the end of it") })
	all := map[string]string{"MONITOR": monitor.text(), "the log": s.log()}
	for _, words := range [][]any{{"SLOWLOG", "GET", "-1"}, {"ACL", "LOG", "1000"}, {"ACL", "LIST"}, {"INFO", "everything"}, {"CLIENT", "LIST"}, {"CONFIG", "GET", "*"}} {
		all[fmt.Sprint(words)] = fmt.Sprintf("%s", must(t, conn, words[0].(string), words[1:]...))
	}
	if !strings.Contains(all["[SLOWLOG GET -1]"], "QPUSHEX") || !strings.Contains(all["MONITOR"], "QPUSHEX") {
		t.Error("the test looks in the wrong place")
	}
	for where, text := range all {
		for _, line := range strings.Split(text, "\n") {
			if at := canaries.FindStringIndex(line); at != nil {
				t.Errorf("%s tells %.300q", where, line[max(0, at[0]-150):])
			}
		}
	}
	if code := s.stop(15); code != 0 {
		t.Errorf("exit code %d", code)
	}
	out, _ := exec.Command(must1(build()), "check", s.dir).CombinedOutput()
	if found := canaries.Find(out); found != nil {
		t.Errorf("quail check tells %q", found)
	}
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// forger is a name that would be a line of its own, and would colour a terminal, in anything that shows it as it is.
const forger = "x\r\n{\"level\":\"error\",\"message\":\"forged\"}\n\x1b[31m\"';\x00"

// Whoever reads the log, MONITOR or the list of clients in a terminal must not be deceived by a name that a client has chosen.
func TestNoCommandForgesLines(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		s := newServer(t, "--auth-delay", "0", "--log-level", "debug", "--log-format", format, "--slowlog-log-slower-than", "0")
		s.start()
		monitor := watchCommands(t, s)
		client := &caller{t: t, s: s}
		everyCommand(func(spec *commands.Spec) {
			if spec.FullName() == "client|kill" {
				return
			}
			for _, words := range callsOf(spec, func(*commands.Arg) string { return forger }) {
				client.do(words)
			}
		})
		conn := s.connect(t)
		must(t, conn, "ECHO", "the end of it")
		eventually(t, replyTimeout, "the monitor sees the end", func() bool { return strings.Contains(monitor.text(), "the end of it") })
		lists := fmt.Sprintf("%s", must(t, conn, "CLIENT", "LIST")) + fmt.Sprintf("%s", must(t, conn, "INFO", "everything"))
		for where, text := range map[string]string{"MONITOR": monitor.text(), "the log": s.log(), "CLIENT LIST": lists} {
			if strings.Contains(text, "\x1b") || strings.Contains(text, "\x00") {
				t.Errorf("%s, %s: shows a control character", where, format)
			}
			for _, line := range strings.Split(text, "\n") {
				if strings.HasPrefix(line, `{"level":"error","message":"forged"`) {
					t.Errorf("%s, %s: forged: %q", where, format, line)
				}
			}
		}
		s.stop(15)
	}
}

// The binary itself: each byte of the ACL file of a server changed once. It must not start, or let exactly those do what they could before; and what it says
// must name the file, and what to do.
func TestBinaryRefusesADamagedACLFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.acl")
	if err := os.WriteFile(path, []byte("user default off\nuser admin on >pw ~* +@all\nuser shop on >shop-pw ~orders* +@produce\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, "--aclfile", path, "--auth-delay", "0")
	s.start()
	admin := s.connect(t)
	must(t, admin, "AUTH", "admin", "pw")
	must(t, admin, "ACL", "SAVE")
	users := fmt.Sprintf("%s", must(t, admin, "ACL", "LIST"))
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	random := seeded(t)
	load := func(what string, damaged []byte) {
		t.Helper()
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := admin.Do("ACL", "LOAD")
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "no change to the previously active ACL rules") {
			t.Errorf("%s: ACL LOAD says %v", what, err)
		}
		if now := fmt.Sprintf("%s", must(t, admin, "ACL", "LIST")); now != users {
			t.Fatalf("%s: now %s", what, now)
		}
	}
	for i := range content {
		damaged := slices.Clone(content)
		damaged[i] ^= 1 << random.IntN(8)
		load(fmt.Sprintf("byte %d", i), damaged)
	}
	for i := 0; i < len(content); i += 7 {
		load(fmt.Sprintf("cut at %d", i), content[:i])
	}
	s.stop(15)
	damaged := slices.Clone(content)
	damaged[strings.Index(string(content), "~orders")+7] = 'x'
	for name, c := range map[string]struct {
		content []byte
		want    []string
	}{
		"rot":        {damaged, []string{"cannot load the ACL file", path, "is damaged: its checksum is missing or does not fit", "put back a copy", `next=`}},
		"a bad rule": {[]byte("user default off\nuser a on +nonesuch >canary-password\n"), []string{path + ":2", "+nonesuch", "docs/security.md"}},
		"empty":      {nil, []string{path, "has no line for the user default", "add \\\"user default off\\\""}},
		"cut":        {content[:30], []string{path, "has no line for the user default"}},
	} {
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(must1(build()), "--listen", s.addr, "--data", filepath.Join(t.TempDir(), "other"), "--aclfile", path).CombinedOutput()
		if err == nil {
			t.Errorf("%s: it started", name)
		}
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: it does not say %q:\n%s", name, want, out)
			}
		}
		if canaries.Match(out) {
			t.Errorf("%s: a password is shown:\n%s", name, out)
		}
	}
	os.Remove(path)
	out, _ := exec.Command(must1(build()), "--listen", s.addr, "--aclfile", path).CombinedOutput()
	if !strings.Contains(string(out), path+": no such file") || !strings.Contains(string(out), "next=") {
		t.Errorf("a missing file: %s", out)
	}
}
