//go:build linux

package integration

// Sessions in redis-cli, as files in testdata/sessions that can be read as usage. Each has a server of its own.
//
// Commands beside testscript's own:
//
//	cli word…            redis-cli against the server, with the output that a person sees; fails on an error reply
//	remember NAME regexp keeps what the first group matches in the last output as $NAME
//	bytes file n         makes a file of n letters
//	crlf file            ends the file's lines with CR LF
//	kill9, start, stop   the server's end and its new start on the same data; stop wants exit code 0
//	waiting queue n      goes on when n consumers wait in the queue
//	logged regexp        the server's log has a match

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

type sessionServer struct{}

func TestSessions(t *testing.T) {
	if _, err := exec.LookPath("redis-cli"); err != nil {
		t.Skip("SKIP: redis-cli is not installed (Debian: redis-tools)")
	}
	program, err := build()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/sessions",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			s := newServer(env.T().(testing.TB))
			if err := s.tryStart(); err != nil {
				return err
			}
			env.Values[sessionServer{}] = s
			env.Vars = append(env.Vars, "PORT="+s.port(), "ADDRESS="+s.addr, "DATA="+s.dir, "QUAIL="+program,
				"PATH="+filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"cli": cmdCLI, "remember": cmdRemember, "bytes": cmdBytes, "crlf": cmdCRLF,
			"kill9": cmdKill9, "start": cmdStart, "stop": cmdStop, "waiting": cmdWaiting, "logged": cmdLogged,
		},
	})
}

func serverOf(ts *testscript.TestScript) *server { return ts.Value(sessionServer{}).(*server) }

// usage checks a command's words.
func usage(ts *testscript.TestScript, neg, mayNegate bool, args []string, n int, form string) {
	if neg && !mayNegate || n >= 0 && len(args) != n {
		ts.Fatalf("usage: %s", form)
	}
}

func cmdCLI(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("redis-cli", append([]string{"-p", serverOf(ts).port(), "-e", "--no-raw"}, args...)...)
	switch {
	case err == nil && neg:
		ts.Fatalf("redis-cli got no error")
	case err != nil && !neg:
		ts.Fatalf("redis-cli: %v", err)
	}
}

func cmdRemember(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, false, args, 2, "remember NAME regexp")
	match := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(match) < 2 {
		ts.Fatalf("no group of %q matches in the last output", args[1])
	}
	ts.Setenv(args[0], match[1])
}

func cmdBytes(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, false, args, 2, "bytes file n")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Repeat("q", n)), 0o644))
}

func cmdCRLF(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, false, args, 1, "crlf file")
	text := strings.ReplaceAll(ts.ReadFile(args[0]), "\n", "\r\n")
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

func cmdKill9(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, false, args, 0, "kill9")
	serverOf(ts).kill()
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	s := serverOf(ts)
	s.args = args
	ts.Check(s.tryStart())
}

func cmdStop(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, false, args, 0, "stop")
	if code := serverOf(ts).stop(syscall.SIGTERM); code != 0 {
		ts.Fatalf("exit code %d", code)
	}
}

// cmdWaiting waits until so many consumers wait: what a script starts in the background is in line then.
func cmdWaiting(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, false, args, 2, "waiting queue n")
	conn, err := serverOf(ts).dial()
	ts.Check(err)
	defer conn.Close()
	last := ""
	if !holdsWithin(10*time.Second, func() bool {
		fields, err := info(conn, args[0])
		last = fmt.Sprint(fields["waiting"], " ", err)
		return err == nil && fields["waiting"] == args[1]
	}) {
		ts.Fatalf("%s consumers wait in %s, not %s", last, args[0], args[1])
	}
}

func cmdLogged(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, true, args, 1, "logged regexp")
	if found := regexp.MustCompile(args[0]).MatchString(serverOf(ts).log()); found == neg {
		ts.Fatalf("the log has a match for %q: %v", args[0], found)
	}
}
