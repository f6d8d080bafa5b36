package main

// quail backup: ask a running server for a copy of its data directory.

import (
	"fmt"
	"time"

	"github.com/alecthomas/kong"

	"quail/server/settings"
)

// backupDial bounds the connection; the backup itself takes as long as it takes.
const backupDial = 5 * time.Second

type backupCmd struct {
	Name   string      `arg:"" name:"name" placeholder:"NAME" help:"What to call it: a new directory in the server's backup-dir, by its name or its whole path."`
	Client clientFlags `embed:""`
	kong.Plugins
	flags *settings.Flags
}

func newBackup() backupCmd {
	flags := settings.NewFlags(clientSettings...)
	return backupCmd{Plugins: kong.Plugins{flags.Struct()}, flags: flags}
}

func (c *backupCmd) Help() string {
	return `Asks a running server, which goes on working, to copy its data directory into a new one below its setting backup-dir. All that was
acknowledged before is in it, all queues as at one moment, and it is synced when this ends. To restore it, start a server on it, or on a
copy of it.

Exit code: 0 it is made, 1 it is not, or a queue in it is damaged, 2 the command line is wrong.

Examples:
  quail serve --backup-dir /backup
  quail backup quail-$(date +%F)
  quail backup --listen 10.0.0.5:6390 --tls --cacert ca.crt --user admin monday
  quail check /backup/monday
  quail serve --data /backup/monday`
}

func (c *backupCmd) run(p *process) int {
	values, err := settings.New(c.flags.Given())
	if err == nil {
		err = c.Client.check()
	}
	if err != nil {
		fmt.Fprintf(p.stderr, "quail: %v\n", err)
		return exitUsage
	}
	report, address, err := c.ask(values)
	if err != nil {
		fmt.Fprintf(p.stderr, "quail backup: the server at %s made none: %v\n", address, err)
		return exitFailed
	}
	fmt.Fprintf(p.stdout, "%s: %s queues, %s bytes, %s ms\n", report["directory"], report["queues"], report["bytes"], report["ms"])
	if report["damaged"] != "0" {
		fmt.Fprintf(p.stderr, "quail backup: the logs of %s queues are damaged, and were copied as they are; quail check %s names them\n", report["damaged"], report["directory"])
		return exitFailed
	}
	return exitOK
}

// ask sends QBACKUP and waits for the answer.
func (c *backupCmd) ask(values *settings.Values) (report map[string]string, address string, err error) {
	server, address, err := c.Client.dial(values, backupDial)
	if err != nil {
		return nil, address, err
	}
	defer server.Close()
	if server.doubt != nil {
		return nil, address, server.doubt
	}
	if err := c.Client.authenticate(server, values); err != nil {
		return nil, address, err
	}
	if err := server.SetDeadline(time.Time{}); err != nil {
		return nil, address, err
	}
	list, err := server.ask("QBACKUP", c.Name)
	if err != nil {
		return nil, address, err
	}
	report = map[string]string{}
	for i := 0; i+1 < len(list); i += 2 {
		report[list[i]] = list[i+1]
	}
	return report, address, nil
}
