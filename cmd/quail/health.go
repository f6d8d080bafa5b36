package main

// quail health: is a server there, and does it answer? It is what a container's HEALTHCHECK calls, so it must need no
// more than the environment that the server itself was started with.

import (
	"bufio"
	"fmt"
	"net"
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

// ping asks for a PONG. A server that asks for a password we were not given is alive: NOAUTH is its answer.
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
	ask := func(request, want string) (string, error) {
		if _, err := conn.Write([]byte(request)); err != nil {
			return "", err
		}
		line, err := replies.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("waiting for its answer: %w", err)
		}
		line = strings.TrimRight(line, "\r\n")
		if line != want {
			return "", fmt.Errorf("it answers %q", line)
		}
		return line, nil
	}
	if password != "" {
		if user == "" {
			user = "default"
		}
		if _, err := ask(fmt.Sprintf("*3\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(user), user, len(password), password), "+OK"); err != nil {
			return "", err
		}
	}
	answer, err := ask("*1\r\n$4\r\nPING\r\n", "+PONG")
	if err != nil && password == "" && strings.Contains(err.Error(), `"-NOAUTH`) {
		return "NOAUTH", nil
	}
	return strings.TrimPrefix(answer, "+"), err
}
