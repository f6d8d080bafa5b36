package bench

// Servers that are started for a run: as a user would start them for durable messages, on a free port of 127.0.0.1.

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTime = 20 * time.Second // a server that is not ready by then does not start
	stopTime  = 10 * time.Second // a server that has not stopped by then is killed: its data is thrown away anyway
)

type child struct {
	cmd     *exec.Cmd
	address string
	output  *tail
	ended   chan struct{} // closed when the process is gone
}

// start runs the server in a directory of its own below dir, and waits until it answers.
func start(ctx context.Context, program string, d dialect, dir string) (*child, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, strings.ToLower(d.name()))
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(path, arguments(d, address, data)...), address: address, output: &tail{}, ended: make(chan struct{})}
	c.cmd.Dir, c.cmd.Env = data, environment()
	c.cmd.Stdout, c.cmd.Stderr = c.output, c.output
	c.cmd.SysProcAttr = ownAttributes()
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		c.cmd.Wait()
		close(c.ended)
	}()
	if err := c.ready(ctx); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// arguments: Quail as it comes; Redis with every write synced before its reply, which is what Quail does.
func arguments(d dialect, address, data string) []string {
	if d == dialect(quail{}) {
		return []string{"serve", "--listen", address, "--data", data, "--log-format", "json"}
	}
	_, port, _ := net.SplitHostPort(address)
	return []string{"--bind", "127.0.0.1", "--port", port, "--dir", data, "--daemonize", "no", "--logfile", "",
		"--appendonly", "yes", "--appendfsync", "always", "--save", ""}
}

// environment is this process's without the settings of some other Quail.
func environment() []string {
	var kept []string
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "QUAIL_") {
			kept = append(kept, pair)
		}
	}
	return kept
}

// freeAddress is one that nobody listens on now. Should somebody else take it before the server does, the server says so
// and ends.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// ready waits for a PONG.
func (c *child) ready(ctx context.Context) error {
	ask := time.NewTicker(20 * time.Millisecond)
	defer ask.Stop()
	late := time.After(startTime)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ended:
			return fmt.Errorf("%s did not start:\n%s", c.cmd.Path, c.output)
		case <-late:
			return fmt.Errorf("%s does not answer after %v:\n%s", c.cmd.Path, startTime, c.output)
		case <-ask.C:
			if client, err := dial(c.address, "", "", nil); err == nil {
				_, err = client.ask("PING")
				client.close()
				if err == nil {
					return nil
				}
			}
		}
	}
}

// stop ends the process, and returns when it is gone.
func (c *child) stop() {
	c.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(stopTime, func() { c.cmd.Process.Kill() })
	defer kill.Stop()
	<-c.ended
}

// tail keeps the end of what a process writes, for the error if it does not start.
type tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

const tailBytes = 4096

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-tailBytes):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
