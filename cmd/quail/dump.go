package main

// quail dump: the messages, or the records, of a data directory as JSON lines, for jq and for moving them elsewhere.

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"
	"unicode/utf8"

	"quail/queue"
	"quail/queue/machine"
	"quail/wal/vfs"
)

type dumpCmd struct {
	Dir     string `arg:"" placeholder:"DIR" help:"The data directory. It is only read."`
	Queue   string `arg:"" optional:"" placeholder:"QUEUE" help:"Only this queue. Default: all."`
	Records bool   `name:"records" help:"Print the records of the log instead of messages: each with file, offset and number."`
}

func (c *dumpCmd) Help() string {
	return `Prints the messages of a data directory that no server has open, one JSON object a line, queue by queue, lowest id first.
"body" is the body if it is UTF-8, otherwise "body_base64" has it. Memory does not grow with the number of ready messages.

Exit code: 0 done, 1 done as far as the damage allows, 2 it could not be read.

Examples:
  quail dump /var/lib/quail orders | jq -r .body
  quail dump /backup/quail | jq -c 'select(.state == "retrying") | [.queue, .id, .attempts]'
  quail dump --records /var/lib/quail orders | tail -1`
}

// dumpedMessage is one line. Its names are for scripts and do not change.
type dumpedMessage struct {
	Queue      string      `json:"queue"`
	ID         uint64      `json:"id"`
	State      string      `json:"state"`
	Pushed     string      `json:"pushed"`
	PushedMs   int64       `json:"pushed_unix_ms"`
	Attempts   uint32      `json:"attempts"`
	DueMs      int64       `json:"due_unix_ms,omitempty"`
	TTLMs      int64       `json:"ttl_ms,omitempty"`
	Dedup      string      `json:"dedup,omitempty"`
	Headers    [][2]string `json:"headers,omitempty"`
	Body       *string     `json:"body,omitempty"`
	BodyBase64 []byte      `json:"body_base64,omitempty"`
}

type dumpedRecord struct {
	Queue  string `json:"queue"`
	LSN    uint64 `json:"lsn"`
	Kind   string `json:"kind"`
	Bytes  int    `json:"bytes"`
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Group  uint64 `json:"group,omitempty"`
}

func (c *dumpCmd) run(p *process) int {
	stopped, err := queue.OpenStopped(vfs.OS, c.Dir)
	if err != nil {
		return cannotRead(p, "dump", c.Dir, err)
	}
	defer stopped.Close()
	signal.Ignore(syscall.SIGPIPE) // a closed pipe is then an error that ends the dump, and not the process
	out := bufio.NewWriterSize(p.stdout, 64<<10)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	found := false
	for _, q := range stopped.Queues {
		if c.Queue != "" && q.Name != c.Queue {
			continue
		}
		found = true
		if err == nil && c.Records {
			err = stopped.Records(q, func(r queue.StoredRecord) error {
				return lines.Encode(dumpedRecord{q.Name, r.LSN, r.Kind.String(), r.Bytes, r.File, r.Offset, r.Group})
			})
		} else if err == nil {
			err = stopped.Messages(q, func(m *queue.Stored) error { return lines.Encode(lineOf(q.Name, m)) })
		}
	}
	if err == nil {
		err = out.Flush()
	}
	switch {
	case isBrokenPipe(err):
		return exitOK // whoever read has seen enough
	case err != nil:
		return cannotRead(p, "dump", c.Dir, err)
	case !found && c.Queue != "":
		fmt.Fprintf(p.stderr, "quail dump: there is no queue %q in %s; quail check lists them\n", c.Queue, c.Dir)
		return checkUnknown
	case len(stopped.Damage()) > 0:
		fmt.Fprintf(p.stderr, "quail dump: %s is damaged, this is what is whole; quail check tells more\n", c.Dir)
		return checkDamaged
	}
	return exitOK
}

func lineOf(name string, m *queue.Stored) dumpedMessage {
	line := dumpedMessage{Queue: name, ID: m.ID, State: m.State.String(), Pushed: time.UnixMilli(m.PushedMillis).UTC().Format("2006-01-02T15:04:05.000Z"),
		PushedMs: m.PushedMillis, Attempts: m.Attempt, TTLMs: m.TTLMillis, Dedup: string(m.Dedup)}
	if m.State == machine.Delayed {
		line.DueMs = m.DueMillis
	}
	for _, h := range m.AllHeaders() {
		line.Headers = append(line.Headers, [2]string{string(h[0]), string(h[1])})
	}
	if text := string(m.Body); utf8.ValidString(text) {
		line.Body = &text
	} else {
		line.BodyBase64 = m.Body
	}
	return line
}

// isBrokenPipe reports whether whoever read the output is gone.
func isBrokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }
