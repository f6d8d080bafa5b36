package bench

// A server that is measured: reached where it runs, or started for the run and stopped after it.

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"
	"time"
)

type target struct {
	dialect  dialect
	address  string
	user     string
	password string
	secure   *tls.Config
	version  string
	child    *child // nil if it ran before
}

// reach finds the server, and starts it first if that is asked for.
func reach(ctx context.Context, s Server, d dialect, dir string) (*target, error) {
	t := &target{dialect: d, address: s.Address, user: s.User, password: s.Password, secure: s.TLS}
	if s.Address == "" {
		started, err := start(ctx, s.Program, d, dir)
		if err != nil {
			return nil, err
		}
		t.child, t.address, t.user, t.password, t.secure = started, started.address, "", "", nil
	}
	fields, err := t.info()
	if err == nil {
		t.version, err = versionOf(d, fields)
	}
	if err != nil {
		t.stop()
		return nil, fmt.Errorf("%s: %w", t.address, err)
	}
	return t, nil
}

// versionOf also makes sure that the two sides are not mixed up: Quail answers much that Redis does.
func versionOf(d dialect, fields map[string]string) (string, error) {
	own, isQuail := fields["quail_version"]
	wanted := d == dialect(quail{})
	switch {
	case isQuail && wanted:
		return own, nil
	case !isQuail && !wanted && fields["redis_version"] != "":
		return fields["redis_version"], nil
	}
	return "", fmt.Errorf("the server there is no %s", d.name())
}

func (t *target) dial() (*client, error) { return dial(t.address, t.user, t.password, t.secure) }

// info is the server's INFO.
func (t *target) info() (map[string]string, error) {
	c, err := t.dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	raw, err := c.ask("INFO")
	if err != nil {
		return nil, err
	}
	l := looking{rest: raw}
	fields := make(map[string]string)
	for line := range bytes.Lines(l.bulk()) {
		if name, text, found := strings.Cut(strings.TrimSpace(string(line)), ":"); found {
			fields[name] = text
		}
	}
	return fields, l.err
}

// cpuTime is what a server used until now, if that can be known.
type cpuTime struct {
	used  time.Duration
	known bool
}

// cpu asks the system about a server that was started here, and any other itself.
func (t *target) cpu() (cpuTime, error) {
	if t.child != nil {
		used, err := processCPU(t.child.cmd.Process.Pid)
		return cpuTime{used, err == nil}, err
	}
	fields, err := t.info()
	if err != nil {
		return cpuTime{}, err
	}
	return infoCPU(fields), nil
}

// infoCPU adds up what INFO tells of CPU time, the server's and its children's.
func infoCPU(fields map[string]string) cpuTime {
	var total cpuTime
	for _, name := range []string{"used_cpu_user", "used_cpu_sys", "used_cpu_user_children", "used_cpu_sys_children"} {
		seconds, err := strconv.ParseFloat(fields[name], 64)
		if err != nil {
			continue
		}
		total.used += time.Duration(seconds * float64(time.Second))
		total.known = true
	}
	return total
}

// settle waits until the server is at rest, at most limit, so that what it does in the background does not fall into
// somebody else's turn. A server that does not tell its CPU time is not waited for.
func (t *target) settle(limit time.Duration) (cpuTime, error) {
	const (
		look = 50 * time.Millisecond
		rest = 10 * time.Millisecond // of CPU time from one look to the next
	)
	before, err := t.cpu()
	for end := time.Now().Add(limit); err == nil && before.known && time.Now().Before(end); {
		time.Sleep(look)
		var after cpuTime
		after, err = t.cpu()
		calm := after.used-before.used <= rest
		before = after
		if calm {
			break
		}
	}
	return before, err
}

// delete removes queues. Where a server was started for the run and is gone, so are they.
func (t *target) delete(queues []string) error {
	c, err := t.dial()
	if err != nil {
		return err
	}
	defer c.close()
	_, err = c.ask(t.dialect.drop(queues)...)
	return err
}

func (t *target) stop() {
	if t.child != nil {
		t.child.stop()
	}
}
