package main

// quail backup: ask a running server for a copy of its data directory.

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

// backupDial bounds the connection; the backup itself takes as long as it takes.
const backupDial = 5 * time.Second

type backupCmd struct {
	NewDir string `arg:"" name:"newdir" placeholder:"NEWDIR" help:"Where to put it, on the server's machine. It must not exist; the directory that it is in must."`
	kong.Plugins
	flags *settings.Flags
}

func newBackup() backupCmd {
	flags := settings.NewFlags(settings.Listen.Setting, settings.RequirePass.Setting)
	return backupCmd{Plugins: kong.Plugins{flags.Struct()}, flags: flags}
}

func (c *backupCmd) Help() string {
	return `Copies the data directory of a running server, which goes on working. All that was acknowledged before is in it, all queues as at
one moment, and it is synced when this ends. To restore it, start a server on it, or on a copy of it.

Exit code: 0 it is made, 1 it is not, or a queue in it is damaged, 2 the command line is wrong.

Examples:
  quail backup /backup/quail-$(date +%F)
  quail backup --listen 10.0.0.5:7379 /backup/monday && quail check /backup/monday
  quail serve --data /backup/monday`
}

func (c *backupCmd) run(p *process) int {
	values, err := settings.New(c.flags.Given())
	if err != nil {
		fmt.Fprintf(p.stderr, "quail: %v\n", err)
		return exitUsage
	}
	address := reachable(values.Text(settings.Listen))
	report, err := askBackup(address, values.Text(settings.RequirePass), absolute(c.NewDir))
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

// askBackup sends QBACKUP and waits for the answer.
func askBackup(address, password, dir string) (map[string]string, error) {
	conn, err := net.DialTimeout("tcp", address, backupDial)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	replies := bufio.NewReader(conn)
	if password != "" {
		if _, err := askServer(conn, replies, "AUTH", password); err != nil {
			return nil, err
		}
	}
	list, err := askServer(conn, replies, "QBACKUP", dir)
	if err != nil {
		return nil, err
	}
	report := map[string]string{}
	for i := 0; i+1 < len(list); i += 2 {
		report[list[i]] = list[i+1]
	}
	return report, nil
}

// askServer sends one command and returns its reply as a list of texts.
func askServer(conn io.Writer, replies *bufio.Reader, words ...string) ([]string, error) {
	var request strings.Builder
	fmt.Fprintf(&request, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := io.WriteString(conn, request.String()); err != nil {
		return nil, err
	}
	return readReply(replies)
}

// readReply reads texts, numbers and flat arrays of them.
func readReply(replies *bufio.Reader) ([]string, error) {
	line, err := replies.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("waiting for its answer: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return nil, errors.New("it answers an empty line")
	}
	switch n, _ := strconv.Atoi(line[1:]); line[0] {
	case '-':
		return nil, errors.New(line[1:])
	case '+', ':':
		return []string{line[1:]}, nil
	case '$':
		text := make([]byte, max(n, 0)+2)
		_, err := io.ReadFull(replies, text)
		return []string{string(text[:len(text)-2])}, err
	case '*':
		var list []string
		for range n {
			part, err := readReply(replies)
			if err != nil {
				return nil, err
			}
			list = append(list, part...)
		}
		return list, nil
	}
	return nil, fmt.Errorf("it answers %q", line)
}
