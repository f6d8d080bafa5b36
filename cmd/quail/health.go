package main

// quail health: is a server there, and does it answer? It is what a container's HEALTHCHECK calls, so it must need no
// more than the environment that the server itself was started with.

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"quail/server/settings"
)

type healthCmd struct {
	WithinMillis int64  `name:"within" default:"3000" placeholder:"MS" help:"How long to wait for the answer, in milliseconds. Default: 3000."`
	User         string `name:"user" env:"QUAIL_USER" placeholder:"NAME" help:"User to authenticate as. Default: default."`
	Pass         string `name:"pass" env:"QUAIL_PASSWORD,REDISCLI_AUTH" placeholder:"TEXT" help:"The user's password. Default: requirepass. The environment is safer: a command line can be seen by others."`
	kong.Plugins
	flags *settings.Flags
}

func newHealth() healthCmd {
	flags := settings.NewFlags(settings.Listen.Setting, settings.RequirePass.Setting)
	return healthCmd{Plugins: kong.Plugins{flags.Struct()}, flags: flags}
}

func (h *healthCmd) run(p *process) int {
	values, err := settings.New(h.flags.Given())
	if err != nil {
		fmt.Fprintf(p.stderr, "quail: %v\n", err)
		return exitUsage
	}
	address := reachable(values.Text(settings.Listen))
	password := h.Pass
	if password == "" && h.User == "" {
		password = values.Text(settings.RequirePass)
	}
	answer, err := ping(address, h.User, password, time.Duration(h.WithinMillis)*time.Millisecond)
	if err != nil {
		fmt.Fprintf(p.stderr, "quail: no healthy server at %s: %v\n", address, err)
		return exitFailed
	}
	fmt.Fprintf(p.stdout, "%s answers %s\n", address, answer)
	return exitOK
}

// reachable turns the address that a server listens on into one to connect to: all interfaces include loopback.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}

// ping asks for a PONG, and whether queues are served yet. A server that asks for a password we were not given is alive: NOAUTH is its
// answer.
func ping(address, user, password string, within time.Duration) (string, error) {
	conn, err := net.DialTimeout("tcp", address, within)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	replies := bufio.NewReader(conn)
	ask := func(words ...string) (string, error) {
		request := fmt.Appendf(nil, "*%d\r\n", len(words))
		for _, word := range words {
			request = fmt.Appendf(request, "$%d\r\n%s\r\n", len(word), word)
		}
		if _, err := conn.Write(request); err != nil {
			return "", err
		}
		line, err := replies.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("waiting for its answer: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	expect := func(want string, words ...string) error {
		line, err := ask(words...)
		if err == nil && line != want {
			err = fmt.Errorf("it answers %q", line)
		}
		return err
	}
	if password != "" {
		if user == "" {
			user = "default"
		}
		if err := expect("+OK", "AUTH", user, password); err != nil {
			return "", err
		}
	}
	if err := expect("+PONG", "PING"); err != nil {
		if password == "" && strings.Contains(err.Error(), `"-NOAUTH`) {
			return "NOAUTH", nil
		}
		return "", err
	}
	head, err := ask("INFO", "persistence")
	if err != nil {
		return "", err
	}
	return loadState(head, replies)
}

// loadState reads INFO's section Persistence, whose first line is head, for whether queues are served. A user who may not run INFO is
// content with the PONG.
func loadState(head string, replies *bufio.Reader) (string, error) {
	size, err := strconv.Atoi(strings.TrimPrefix(head, "$"))
	if err != nil || size < 0 || size > infoBytesMax {
		return "PONG", nil
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(replies, text); err != nil {
		return "", fmt.Errorf("waiting for its answer: %w", err)
	}
	unloaded := 0
	for line := range strings.SplitSeq(string(text), "\r\n") {
		switch name, value, _ := strings.Cut(line, ":"); {
		case name == "loading" && value == "1":
			return "", errors.New("it is starting and reads its data directory")
		case name == "loading_queues":
			unloaded, _ = strconv.Atoi(value)
		}
	}
	if unloaded > 0 {
		return fmt.Sprintf("PONG, and still loads %d of its queues", unloaded), nil
	}
	return "PONG", nil
}

// infoBytesMax bounds the section that is read.
const infoBytesMax = 64 << 10
