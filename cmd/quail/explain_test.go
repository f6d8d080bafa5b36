package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"quail/commands"
	"quail/server/settings"
	"quail/wal"
	"quail/wal/seglog"
)

// Whoever reads these has a server that is down; an error without a next step costs them the night.
func TestAdvice(t *testing.T) {
	wrapped := func(err error) error {
		return fmt.Errorf("make data directory: %w", &os.PathError{Op: "mkdir", Path: "/data", Err: err})
	}
	for _, c := range []struct{ got, want string }{
		{adviceListen("h:80", &net.OpError{Err: os.NewSyscallError("bind", syscall.EACCES)}), "ports below 1024 need a privilege; choose a higher one than 80"},
		{adviceListen("h:6389", &net.OpError{Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}), "another process listens on h:6389"},
		{adviceListen("h:1", &net.OpError{Err: &net.DNSError{}}), "not known here"},
		{adviceListen("h:1", os.ErrClosed), "check --listen"},
		{adviceData("/data", wrapped(syscall.EACCES)), fmt.Sprintf("the user of this process (uid %d) must be able to write /data", os.Getuid())},
		{adviceData("/data", wrapped(syscall.EROFS)), "read-only"},
		{adviceData("/data", wrapped(syscall.ENOSPC)), "the disk is full"},
		{adviceData("/data", wrapped(syscall.ENOTDIR)), "is a file, not a directory"},
		{adviceData("/data", wrapped(syscall.EMFILE)), "ulimit -n"},
		{adviceData("/data", wrapped(wal.ErrLocked)), "one process at a time"},
		{adviceData("/data", wrapped(&wal.CorruptError{})), `quail check /data lists all damage, quail repair /data NEWDIR saves what is whole`},
		{adviceData("/data", wrapped(&seglog.CorruptError{})), `"Damage" in docs/operations.md`},
		{adviceData("/data", wrapped(syscall.EIO)), "check --data"},
	} {
		if !strings.Contains(c.got, c.want) {
			t.Errorf("got  %s\nwant %s", c.got, c.want)
		}
	}
}

// A server that the whole network may write to must at least say so.
func TestWarnsOfAnOpenServer(t *testing.T) {
	for _, c := range []struct {
		ip, password string
		warns        bool
	}{{"127.0.0.1", "", false}, {"::1", "", false}, {"0.0.0.0", "", true}, {"192.0.2.7", "", true}, {"0.0.0.0", "secret", false}} {
		values, err := settings.New([][2]string{{"requirepass", c.password}})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		users := commands.NewUsers()
		users.SetPassword(c.password)
		warnIfOpen(zerolog.New(&out), values, users, &net.TCPAddr{IP: net.ParseIP(c.ip), Port: 6389})
		if got := strings.Contains(out.String(), "QUAIL_REQUIREPASS"); got != c.warns {
			t.Errorf("%+v: %s", c, out.String())
		}
	}
}

// A stop that hangs must not need kill -9: the second Ctrl-C ends it, and the exit code tells.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGINT
	if code := awaitStop(make(chan int), signals, time.Time{}, zerolog.Nop()); code != exitForced {
		t.Errorf("exit code %d", code)
	}
	stopped := make(chan int, 1)
	stopped <- exitFailed
	if code := awaitStop(stopped, make(chan os.Signal), time.Time{}, zerolog.Nop()); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
}

// Without this a Ctrl-C that reaches the process twice, from the terminal and from whoever started it, cuts off all clients.
func TestSameSignalTwiceIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals, stopped := make(chan os.Signal), make(chan int)
		asked := time.Now()
		code := make(chan int, 1)
		go func() { code <- awaitStop(stopped, signals, asked, zerolog.Nop()) }()
		signals <- syscall.SIGINT
		stopped <- exitOK
		if got := <-code; got != exitOK {
			t.Errorf("exit code %d", got)
		}
		go func() { code <- awaitStop(stopped, signals, asked, zerolog.Nop()) }()
		time.Sleep(sameSignal)
		signals <- syscall.SIGINT
		if got := <-code; got != exitForced {
			t.Errorf("exit code %d of a second signal", got)
		}
	})
}

func TestHealthReachesWhatServeListensOn(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:6389": "127.0.0.1:6389", "0.0.0.0:6389": "127.0.0.1:6389", ":7000": "127.0.0.1:7000",
		"[::]:6389": "[::1]:6389", "queue.example:1": "queue.example:1", "[::1]:5": "[::1]:5",
	} {
		if got := reachable(listen); got != want {
			t.Errorf("%s: %s, not %s", listen, got, want)
		}
	}
}
