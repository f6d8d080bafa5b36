package main

// quail health: is a server there, and does it answer? It is what a container's HEALTHCHECK calls, so it must need no
// more than the environment that the server itself was started with, also if that speaks TLS only.

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"quail/server/settings"
)

type healthCmd struct {
	WithinMillis int64       `name:"within" default:"3000" placeholder:"MS" help:"How long to wait for the answer, in milliseconds. Default: 3000."`
	Client       clientFlags `embed:""`
	kong.Plugins
	flags *settings.Flags
}

func (h *healthCmd) Help() string {
	return `Asks as the environment says, so a container's check needs no flags. A server that asks for another password or a client certificate, or that has
no room for one client more (max-clients), is alive: that counts as an answer.

Exit code: 0 it answers and serves queues, 1 it does not, 2 the flags or the environment are wrong.`
}

func newHealth() healthCmd {
	flags := settings.NewFlags(clientSettings...)
	return healthCmd{Plugins: kong.Plugins{flags.Struct()}, flags: flags}
}

func (h *healthCmd) run(p *process) int {
	values, err := settings.New(h.flags.Given())
	if err == nil {
		err = h.Client.check()
	}
	if err != nil {
		fmt.Fprintf(p.stderr, "quail: %v\n", err)
		return exitUsage
	}
	answer, address, err := h.ping(values)
	if err != nil {
		fmt.Fprintf(p.stderr, "quail: no healthy server at %s: %v\n", address, err)
		return exitFailed
	}
	fmt.Fprintf(p.stdout, "%s answers %s\n", address, answer)
	return exitOK
}

// ping asks for a PONG, and whether queues are served yet. A server that asks for a password we were not given is alive: NOAUTH is its answer. So is one that refuses our
// certificate, if we show the server's own for want of another: many are not made for clients.
func (h *healthCmd) ping(values *settings.Values) (answer, address string, err error) {
	server, address, err := h.Client.dial(values, time.Duration(h.WithinMillis)*time.Millisecond)
	if err == nil {
		defer server.Close()
		answer, err = h.ask(server, values)
	}
	if err != nil && strings.Contains(err.Error(), errFull) { // to start it again would cut off those who work with it
		return "that it is busy: " + errFull, address, nil
	}
	if err != nil && h.Client.Cert == "" && h.Client.usesServerFiles(values) && refusesCertificate(err) {
		return "that it wants another client certificate", address, nil
	}
	return answer, address, err
}

// ask sends no password to a server that may be another one: whoever got its port would get that too.
func (h *healthCmd) ask(server *link, values *settings.Values) (string, error) {
	_, password := h.Client.credentials(values)
	if server.doubt != nil {
		password = ""
	} else if err := h.Client.authenticate(server, values); err != nil {
		if h.Client.User == "" && h.Client.Pass == "" && strings.HasPrefix(err.Error(), "WRONGPASS") {
			return "WRONGPASS", nil // a requirepass that is left over beside an aclfile is no reason to start the server again
		}
		return "", fmt.Errorf("it answers %q", "-"+err.Error())
	}
	list, err := server.ask("PING")
	switch {
	case err != nil && password == "" && strings.HasPrefix(err.Error(), "NOAUTH"):
		return "NOAUTH", nil
	case err != nil:
		return "", err
	case len(list) != 1 || list[0] != "PONG":
		return "", fmt.Errorf("it answers %q", list)
	}
	info, err := server.ask("INFO", "persistence")
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "NOPERM"):
		return "PONG", nil // a user who may not run INFO is content with that
	case err != nil:
		return "", err
	}
	return loadState(strings.Join(info, ""))
}

// errFull is what a server says that has max-clients, to whatever is asked first.
const errFull = "ERR max number of clients reached"

// refusesCertificate says so of the alert that a server sends; crypto/tls tells the kind in words alone.
func refusesCertificate(err error) bool {
	var alert *net.OpError
	return errors.As(err, &alert) && alert.Op == "remote error" && strings.Contains(alert.Err.Error(), "certificate")
}

// loadState reads INFO's section Persistence for whether queues are served.
func loadState(info string) (string, error) {
	unloaded := 0
	for line := range strings.SplitSeq(info, "\r\n") {
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
