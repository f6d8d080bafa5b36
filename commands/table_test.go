package commands

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Without these a command would show up in COMMAND DOCS, or in docs/commands.md, as half a command.
func TestEverySpecIsWhole(t *testing.T) {
	known := map[Group]bool{}
	for _, g := range groups {
		known[g.group] = true
	}
	codes := map[string]bool{}
	for _, e := range errorMeanings {
		codes[e[0]] = true
	}
	seen := map[string]bool{}
	for _, s := range specs {
		if s.Name != strings.ToUpper(s.Name) || len(s.Name) > nameBytesMax || seen[s.fullName] {
			t.Errorf("%s: the name is not in upper case, too long, or there twice", s.fullName)
		}
		seen[s.fullName] = true
		if s.Summary == "" || strings.HasSuffix(s.Summary, ".") || s.Reply == "" || !known[s.Group] || s.Since == "" {
			t.Errorf("%s lacks summary, reply or group, or its summary ends with a full stop", s.fullName)
		}
		if s.Run == nil && len(s.Subcommands) == 0 {
			t.Errorf("%s does nothing", s.fullName)
		}
		for _, f := range s.Fields {
			if f.Name == "" || f.Type == "" || f.Doc == "" {
				t.Errorf("%s: field %q lacks its type or its meaning", s.fullName, f.Name)
			}
		}
		for _, code := range s.Errors {
			if !codes[code] {
				t.Errorf("%s: error %s is not explained on the page", s.fullName, code)
			}
		}
		if s.firstKey > 0 && s.Flags&(FlagWrite|FlagReadOnly) == 0 {
			t.Errorf("%s has keys, but neither reads nor writes", s.fullName)
		}
		checkArgs(t, s)
	}
}

// parse takes what repeats only at the end, and has room for so many arguments only.
func checkArgs(t *testing.T, s *Spec) {
	for i := range s.Args {
		if a := &s.Args[i]; a.Counted && (i == 0 || s.Args[i-1].Type != ArgInteger || s.Args[i-1].Min < 1) {
			t.Errorf("%s: no number of at least 1 before %s says how many there are", s.fullName, a.Name)
		}
	}
	if len(s.Args) > argsMax {
		t.Errorf("%s has more than %d arguments", s.fullName, argsMax)
	}
	for i := range s.Args {
		a := &s.Args[i]
		if a.Name == "" || a.Token != strings.ToUpper(a.Token) || a.Multiple && !a.Counted && i != len(s.Args)-1 {
			t.Errorf("%s: argument %d lacks a name, or its token is not in upper case, or it repeats before the end", s.fullName, i)
		}
		if a.Type == ArgInteger && a.Min > a.max() {
			t.Errorf("%s: no value of %s is allowed", s.fullName, a.Name)
		}
	}
}

// A queue command without a key would slip past ACL patterns, and past the hash slots of later.
func TestQueueCommandsHaveTheQueueFirst(t *testing.T) {
	for _, s := range table {
		queues := s.Group == GroupProducing || s.Group == GroupConsuming || s.Group == GroupManaging
		if queues && s != qlist && s != qconfig && s.firstKey != 1 {
			t.Errorf("%s: the first key is word %d", s.Name, s.firstKey)
		}
		for _, sub := range s.Subcommands {
			if queues && sub.Name != "HELP" && sub.firstKey != 2 {
				t.Errorf("%s: the first key is word %d", sub.fullName, sub.firstKey)
			}
		}
	}
}

func TestDerivedShapes(t *testing.T) {
	for _, c := range []struct {
		name        string
		arity       int
		first, last int
		syntax      string
	}{
		{"qpush", -3, 1, 1, "QPUSH queue body [body ...]"},
		{"qpushex", -4, 1, 1, "QPUSHEX queue count body [body ...] [DELAY ms | AT unix-ms] [TTL ms] [DEDUP id] [HEADERS n name value [name value ...]]"},
		{"qlock", -3, 1, 1, "QLOCK queue consumer [TTL ms] [BLOCK ms]"},
		{"qunlock", 3, 1, 1, "QUNLOCK queue token"},
		{"qconsume", -3, 1, 1, "QCONSUME queue consumer [TOKEN token] [COUNT count] [BYTES bytes] [FILL ms] [BLOCK ms] [LEASE ms]"},
		{"qack", -3, 1, 1, "QACK queue batch [id [id ...]]"},
		{"qnack", -3, 1, 1, "QNACK queue batch [DELAY ms] [RELEASE | DEAD] [id [id ...]]"},
		{"qextend", 4, 1, 1, "QEXTEND queue batch ms"},
		{"qcreate", -2, 1, 1, "QCREATE queue [option value [option value ...]]"},
		{"qconfig", -2, 0, 0, "QCONFIG"},
		{"qconfig|get", -3, 2, 2, "QCONFIG GET queue [pattern]"},
		{"qconfig|set", -5, 2, 2, "QCONFIG SET queue option value [option value ...]"},
		{"qpeek", -2, 1, 1, "QPEEK queue [STATE <READY | DELAYED | LEASED | RETRYING>] [FROM id] [COUNT n]"},
		{"qget", 3, 1, 1, "QGET queue id"},
		{"qrem", -3, 1, 1, "QREM queue id [id ...]"},
		{"qpurge", -2, 1, 1, "QPURGE queue [BEFORE id]"},
		{"qpause", -2, 1, 1, "QPAUSE queue [PUSH | CONSUME]"},
		{"qresume", -2, 1, 1, "QRESUME queue [PUSH | CONSUME]"},
		{"qredrive", -2, 1, 1, "QREDRIVE dead-queue [TO queue] [COUNT n]"},
		{"qdel", -2, 1, -1, "QDEL queue [queue ...]"},
		{"qlist", -1, 0, 0, "QLIST [cursor] [MATCH pattern] [COUNT count]"},
		{"qlen", 2, 1, 1, "QLEN queue"},
		{"exists", -2, 1, -1, "EXISTS queue [queue ...]"},
		{"scan", -2, 0, 0, "SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]"},
		{"ping", -1, 0, 0, "PING [message]"},
		{"quit", -1, 0, 0, "QUIT [ignored [ignored ...]]"},
		{"auth", -2, 0, 0, "AUTH [username] password"},
		{"hello", -1, 0, 0, "HELLO [protover [AUTH username password] [SETNAME clientname]]"},
		{"client", -2, 0, 0, "CLIENT"},
		{"client|setname", 3, 0, 0, "CLIENT SETNAME connection-name"},
		{"client|setinfo", 4, 0, 0, "CLIENT SETINFO <LIB-NAME libname | LIB-VER libver>"},
		{"client|reply", 3, 0, 0, "CLIENT REPLY <ON | OFF | SKIP>"},
		{"client|kill", -3, 0, 0, ""},
		{"client|list", -2, 0, 0, "CLIENT LIST [TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id [client-id ...]]"},
		{"config|get", -3, 0, 0, "CONFIG GET parameter [parameter ...]"},
		{"config|set", -4, 0, 0, "CONFIG SET parameter value [parameter value ...]"},
		{"command", -1, 0, 0, "COMMAND"},
		{"command|getkeys", -3, 0, 0, "COMMAND GETKEYS command [arg [arg ...]]"},
		{"qbackup", 2, 0, 0, "QBACKUP name"},
		{"info", -1, 0, 0, "INFO [section [section ...]]"},
		{"shutdown", -1, 0, 0, "SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] [ABORT]"},
	} {
		s := lookupFull([]byte(c.name))
		if s == nil {
			t.Errorf("%s does not exist", c.name)
			continue
		}
		if first, last := s.Keys(); s.Arity() != c.arity || first != c.first || last != c.last {
			t.Errorf("%s: arity %d, keys %d to %d; want %d, %d to %d", c.name, s.Arity(), first, last, c.arity, c.first, c.last)
		}
		if c.syntax != "" && s.Syntax() != c.syntax {
			t.Errorf("%s: %s\nwant %s", c.name, s.Syntax(), c.syntax)
		}
	}
}

func TestLookup(t *testing.T) {
	for _, name := range []string{"QPUSH", "qpush", "qPuSh"} {
		if Lookup([]byte(name)) != qpush {
			t.Errorf("%s is not found", name)
		}
	}
	for _, name := range []string{"", "QPUSH ", "QPUSHE", "client|id", strings.Repeat("Q", 1000)} {
		if Lookup([]byte(name)) != nil {
			t.Errorf("%q is found", name)
		}
	}
	name := []byte("qConsume")
	if n := testing.AllocsPerRun(100, func() { Lookup(name) }); n != 0 {
		t.Errorf("Lookup allocates %v times", n)
	}
}

// The server ends a run of commands after a blocking one: a command too few here and a later command would overtake it.
func TestBlocking(t *testing.T) {
	var blocking []string
	for _, s := range specs {
		if FlagsOf([]byte(s.fullName))&FlagBlocking != 0 {
			blocking = append(blocking, s.Name)
		}
	}
	if !slices.Equal(blocking, []string{"QLOCK", "QCONSUME"}) {
		t.Errorf("blocking are %v", blocking)
	}
}

const pageFile = "../docs/commands.md"

// Without this the page would tell people what the server did last year.
func TestPageIsFresh(t *testing.T) {
	if *update {
		if err := os.WriteFile(pageFile, []byte(Page()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	page, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != Page() {
		t.Errorf("%s is stale: run go generate in commands\n%s", pageFile, firstDifference(string(page), Page()))
	}
}
