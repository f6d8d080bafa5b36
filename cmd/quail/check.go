package main

// quail check: is a stopped or copied data directory sound, and what is in it? Nothing in it is changed, so it may be mounted read-only.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"quail/queue"
	"quail/wal"
	"quail/wal/vfs"
)

// Exit codes of quail check, as those of fsck and cmp: whoever calls it from a script must tell damage from a mistyped name.
const (
	checkSound   = 0
	checkDamaged = 1
	checkUnknown = 2
)

type checkCmd struct {
	Dir  string `arg:"" placeholder:"DIR" help:"The data directory. It is only read."`
	JSON bool   `name:"json" help:"Print one JSON object."`
}

func (c *checkCmd) Help() string {
	return `Reads every record of a data directory that no server has open: a stopped server's, a copy, or a backup.

Exit code: 0 it is sound, 1 there is damage, 2 it could not be told (no such directory, a server has it open, a read failed).

Examples:
  quail check /var/lib/quail
  quail check --json /backup/quail | jq .sound`
}

// report is what quail check prints with --json. Its names are for scripts and do not change.
type report struct {
	Sound       bool          `json:"sound"`
	Directory   string        `json:"directory"`
	Messages    int64         `json:"messages"`
	Bytes       int64         `json:"bytes"`
	Queues      []queueReport `json:"queues"`
	Damage      []damageEntry `json:"damage"`
	DamageCount int           `json:"damage_count"`
	TornFile    string        `json:"torn_file,omitempty"`
	TornOffset  int64         `json:"torn_offset,omitempty"`
	TornBytes   int64         `json:"torn_bytes,omitempty"`
}

type queueReport struct {
	Name          string      `json:"name"`
	Incarnation   string      `json:"incarnation"`
	Messages      int64       `json:"messages"`
	Bytes         int64       `json:"bytes"`
	Ready         int64       `json:"ready"`
	Delayed       int64       `json:"delayed"`
	Leased        int64       `json:"leased"`
	Retrying      int64       `json:"retrying"`
	DeadLettered  int64       `json:"dead_lettered"`
	Records       int64       `json:"records"`
	RecordBytes   int64       `json:"record_bytes"`
	LostMessages  int64       `json:"lost_messages,omitempty"`
	LostIDs       []uint64    `json:"lost_ids,omitempty"`
	Missing       [][2]uint64 `json:"missing_records,omitempty"`
	UnknownEvents int64       `json:"skipped_changes,omitempty"`
}

type damageEntry struct {
	File        string `json:"file"`
	Offset      int64  `json:"offset"`
	Queue       string `json:"queue,omitempty"`
	Incarnation string `json:"incarnation,omitempty"`
	FirstRecord uint64 `json:"first_record,omitempty"`
	LastRecord  uint64 `json:"last_record,omitempty"`
	Reason      string `json:"reason"`
	Means       string `json:"means"`
	UnknownLoss bool   `json:"unknown_loss,omitempty"`
}

func (c *checkCmd) run(p *process) int {
	stopped, err := queue.OpenStopped(vfs.OS, c.Dir)
	if err != nil {
		return cannotRead(p, "check", c.Dir, err)
	}
	defer stopped.Close()
	r := report{Directory: absolute(c.Dir), Queues: []queueReport{}, Damage: []damageEntry{}}
	for _, q := range stopped.Queues {
		inv, err := stopped.Inventory(q)
		if err != nil {
			return cannotRead(p, "check", c.Dir, err)
		}
		r.add(q, inv)
	}
	r.finish(stopped)
	if c.JSON {
		err = printJSON(p.stdout, r)
	} else {
		err = r.print(p.stdout)
	}
	switch {
	case err != nil && !isBrokenPipe(err):
		fmt.Fprintf(p.stderr, "quail: %v\n", err)
		return checkUnknown
	case !r.Sound:
		return checkDamaged
	}
	return checkSound
}

// cannotRead reports why a stopped data directory could not be read, and what to do.
func cannotRead(p *process, command, dir string, err error) int {
	next := "check the path and the permissions"
	switch {
	case errors.Is(err, wal.ErrLocked):
		next = "a server has it open: stop that first, or take a backup with quail backup and look at that"
	case errors.Is(err, wal.ErrNoStore):
		next = "a data directory has a file STORE and the folders journal, checkpoints and queues"
	}
	fmt.Fprintf(p.stderr, "quail %s: cannot read %s: %v\n%s\n", command, dir, err, next)
	return checkUnknown
}

func printJSON(out io.Writer, value any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

func (r *report) add(q *queue.StoppedQueue, inv *queue.Inventory) {
	r.Messages += inv.Total()
	r.Bytes += inv.TotalBytes()
	r.Queues = append(r.Queues, queueReport{Name: q.Name, Incarnation: incarnation(q.Incarnation), Messages: inv.Total(), Bytes: inv.TotalBytes(),
		Ready: inv.Ready, Delayed: inv.Delayed, Leased: inv.Leased, Retrying: inv.Retrying, DeadLettered: inv.DeadLettered,
		Records: inv.Records, RecordBytes: inv.Bytes, LostMessages: inv.LostMessages, LostIDs: inv.LostIDs, Missing: inv.Missing, UnknownEvents: q.Skipped})
}

func (r *report) finish(stopped *queue.Stopped) {
	names := map[uint64]string{}
	for _, q := range stopped.Queues {
		names[q.Incarnation] = q.Name
	}
	r.Sound = true
	for _, d := range stopped.Damage() {
		r.Sound = false
		e := damageEntry{File: d.File, Offset: d.Offset, Reason: d.Reason, Means: d.Means, FirstRecord: d.From, LastRecord: d.To, UnknownLoss: d.Unknown}
		if d.Incarnation > 0 {
			e.Incarnation, e.Queue = incarnation(d.Incarnation), names[d.Incarnation]
		}
		r.Damage = append(r.Damage, e)
	}
	for _, q := range r.Queues {
		r.Sound = r.Sound && q.LostMessages == 0 && len(q.Missing) == 0 && q.UnknownEvents == 0
	}
	r.DamageCount = len(r.Damage)
	if t := stopped.Torn(); t != nil {
		r.TornFile, r.TornOffset, r.TornBytes = t.File, t.Offset, t.Bytes
	}
}

// incarnation is a queue's number as its directory is named.
func incarnation(n uint64) string { return fmt.Sprintf("%016x", n) }

// print is the report for people.
func (r *report) print(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "messages\tbytes\tready\tdelayed\tleased\tretrying\tdead-lettered\t  queue\n")
	for _, q := range r.Queues {
		fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t  %s\n", q.Messages, q.Bytes, q.Ready, q.Delayed, q.Leased, q.Retrying, q.DeadLettered, q.Name)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d queues, %d messages of %d bytes in %s\n", len(r.Queues), r.Messages, r.Bytes, r.Directory)
	if r.TornFile != "" {
		fmt.Fprintf(out, "the last write to the journal was not finished (%s at offset %d, %d bytes): it was never acknowledged, the next start cuts it off\n", r.TornFile, r.TornOffset, r.TornBytes)
	}
	for _, d := range r.Damage {
		fmt.Fprintf(out, "damage: %s at offset %d: %s\n", d.File, d.Offset, d.Reason)
		if d.Queue != "" {
			fmt.Fprintf(out, "  queue %s", d.Queue)
			if d.LastRecord > 0 {
				fmt.Fprintf(out, ", records %d to %d", d.FirstRecord, d.LastRecord)
			}
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "  %s\n", d.Means)
	}
	r.printGone(out)
	verdict := "sound"
	if !r.Sound {
		verdict = "DAMAGED: nothing was changed; quail repair saves what is whole into a new directory, see \"Damage\" in docs/operations.md"
	}
	_, err := fmt.Fprintln(out, verdict)
	return err
}

// printGone lists what cannot be read, queue by queue.
func (r *report) printGone(out io.Writer) {
	if slices.ContainsFunc(r.Damage, func(d damageEntry) bool { return d.UnknownLoss }) {
		fmt.Fprintln(out, "gone: an unknown number of messages, perhaps none, of any queue: the journal is not whole, and no list has what only it held")
	}
	for _, q := range r.Queues {
		for _, m := range q.Missing {
			fmt.Fprintf(out, "gone: queue %s, records %d to %d\n", q.Name, m[0], m[1])
		}
		if q.LostMessages > 0 {
			fmt.Fprintf(out, "gone: queue %s, %d messages\n", q.Name, q.LostMessages)
		}
		for _, id := range q.LostIDs {
			fmt.Fprintf(out, "gone: queue %s, message %d\n", q.Name, id)
		}
		if q.UnknownEvents > 0 {
			fmt.Fprintf(out, "gone: queue %s, %d state changes behind lost records: messages that they acknowledged come again\n", q.Name, q.UnknownEvents)
		}
	}
}
