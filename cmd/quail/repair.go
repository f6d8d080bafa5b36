package main

// quail repair: what is whole in a damaged data directory, in a new one.

import (
	"errors"
	"fmt"

	"quail/queue"
	"quail/wal"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

type repairCmd struct {
	Dir    string `arg:"" placeholder:"DIR" help:"The damaged data directory. It is only read."`
	NewDir string `arg:"" name:"newdir" placeholder:"NEWDIR" help:"Where to put what is whole. It must not exist; the directory that it is in must."`
	JSON   bool   `name:"json" help:"Print one JSON object."`
}

func (c *repairCmd) Help() string {
	return `Saves all messages that can be read from a damaged data directory into a new one, and lists what is gone: file, offset, records, and
messages where their ids are known. The damaged directory is not changed. A server starts on the new one. Ids, states and options stay;
where records between are lost, messages that were acknowledged may come again. Prefer a backup if it is recent enough.

Exit code: 0 nothing was lost, 1 something was, 2 it could not be done.

Examples:
  quail repair /var/lib/quail /var/lib/quail.repaired
  quail check /var/lib/quail.repaired`
}

func (c *repairCmd) run(p *process) int {
	stopped, err := queue.OpenStopped(vfs.OS, c.Dir)
	if err != nil {
		return cannotRead(p, "repair", c.Dir, err)
	}
	defer stopped.Close()
	kept, err := stopped.Repair(absolute(c.NewDir), seglog.SegmentBytesDefault)
	if err != nil {
		next := "nothing was changed; make room, or name another new directory"
		if errors.Is(err, wal.ErrExists) {
			next = "nothing is ever written into a directory that exists"
		}
		fmt.Fprintf(p.stderr, "quail repair: %v\n%s\n", err, next)
		return checkUnknown
	}
	r := report{Directory: absolute(c.NewDir), Queues: []queueReport{}, Damage: []damageEntry{}}
	for i, q := range stopped.Queues {
		r.add(q, kept[i])
	}
	r.finish(stopped)
	if c.JSON {
		err = printJSON(p.stdout, r)
	} else {
		err = r.printSaved(p)
	}
	if err != nil && !isBrokenPipe(err) {
		fmt.Fprintf(p.stderr, "quail: %v\n", err)
	}
	if !r.Sound {
		return checkDamaged
	}
	return checkSound
}

// printSaved is the report for people.
func (r *report) printSaved(p *process) error {
	for _, d := range r.Damage {
		fmt.Fprintf(p.stdout, "damage: %s at offset %d: %s\n", d.File, d.Offset, d.Reason)
	}
	r.printGone(p.stdout)
	for _, q := range r.Queues {
		fmt.Fprintf(p.stdout, "saved: queue %s, %d messages of %d bytes\n", q.Name, q.Messages, q.Bytes)
	}
	_, err := fmt.Fprintf(p.stdout, "%d queues with %d messages are in %s\n", len(r.Queues), r.Messages, r.Directory)
	return err
}
