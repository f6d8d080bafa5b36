package commands

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

var qbackup = &Spec{
	Name:    "QBACKUP",
	Summary: "Copy all queues into a new directory while the server works",
	Group:   GroupServer,
	Reply: "map: directory; queues, how many it holds; bytes; damaged, how many queues' logs are damaged and were copied as they are; " +
		"ms, how long it took.",
	Notes: []string{
		"All that was acknowledged before the command came is in the backup, and all queues are as at one moment. The reply comes when it is " +
			"whole and synced; until then the directory has another name, which ends in `.partial`. Commands of other connections go on. " +
			"A server is restored by starting one on the directory, or on a copy of it.",
		"Backups go into the directory that the setting `backup-dir` names, and nowhere else: whoever has the administrator's password must not be able " +
			"to write where the server's user may. Without that setting there are none. The name is that of a new directory in it, or its whole path.",
	},
	Errors: []string{"ERR", "WALERR"},
	Args:   []Arg{{Name: "name", Text: "1 to 200 bytes of UTF-8 without control characters or slashes; no dot in front, no `.partial` at the end."}},
	Flags:  FlagAdmin | FlagNoScript,
	Run:    runQBackup,
}

// runQBackup holds up this connection alone.
func runQBackup(c *Call) {
	directory, err := c.Env.backupPath(c.Args[1])
	if err != nil {
		c.ReplyErr(err)
		return
	}
	report, err := c.Env.Queues.Backup(directory)
	if err != nil {
		c.ReplyErr(err)
		return
	}
	c.W.Map(5)
	c.W.BulkString("directory")
	c.W.BulkString(directory)
	for _, field := range []struct {
		name  string
		value int64
	}{
		{"queues", int64(report.Queues)}, {"bytes", report.Bytes}, {"damaged", int64(report.Damaged)}, {"ms", report.Duration.Milliseconds()},
	} {
		c.W.BulkString(field.name)
		c.W.Int(field.value)
	}
}

// backupNameBytesMax leaves room for .partial in a file's name.
const backupNameBytesMax = 200

// backupPath turns a client's word into a path right below backup-dir, and into no other.
func (e *Env) backupPath(word []byte) (string, error) {
	if e.BackupDir == "" {
		return "", errors.New("backups are off: start the server with the setting backup-dir, the directory on its machine that they go into")
	}
	name, whole := strings.CutPrefix(string(word), e.BackupDir+"/")
	switch {
	case validWord([]byte(name), backupNameBytesMax) && name[0] != '.' && !strings.Contains(name, "/") && !strings.HasSuffix(name, ".partial"):
		return filepath.Join(e.BackupDir, name), nil
	case whole || !strings.HasPrefix(name, "/"):
		return "", fmt.Errorf("name: got %s; allowed are 1 to %d bytes of UTF-8 without control characters or slashes, no dot in front and no .partial at the end",
			quote(string(clip(word))), backupNameBytesMax)
	}
	return "", fmt.Errorf("name: %s is not in %s, where the setting backup-dir lets backups go; give a name alone", quote(string(clip(word))), e.BackupDir)
}

// validWord reports whether a word is a short text that fits on one line.
func validWord(word []byte, bytesMax int) bool {
	if len(word) == 0 || len(word) > bytesMax || !utf8.Valid(word) {
		return false
	}
	return !strings.ContainsFunc(string(word), unicode.IsControl)
}
