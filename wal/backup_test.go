package wal

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"quail/wal/record"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

// heldDisk keeps syncs of the journal waiting, and calls reads before a journal file is read.
type heldDisk struct {
	vfs.FS
	reads func()
	held  atomic.Pointer[chan struct{}] // nil: syncs go through
	wrote chan struct{}                 // gets one for each write to the journal while syncs wait
}

type heldFile struct {
	vfs.File
	disk *heldDisk
}

func isJournal(name string) bool {
	return strings.Contains(name, "journal"+string(filepath.Separator)+"0")
}

func (d *heldDisk) Open(name string) (vfs.File, error) {
	if isJournal(name) && d.reads != nil {
		d.reads()
	}
	return d.FS.Open(name)
}

func (d *heldDisk) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err == nil && isJournal(name) && !strings.Contains(name, partialSuffix) {
		f = heldFile{f, d}
	}
	return f, err
}

func (f heldFile) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(p, at)
	if f.disk.held.Load() != nil {
		select {
		case f.disk.wrote <- struct{}{}:
		default:
		}
	}
	return n, err
}

func (f heldFile) Datasync() error {
	if held := f.disk.held.Load(); held != nil {
		<-*held
	}
	return f.File.Datasync()
}

// A group that is written and not synced yet may be lost or refused: nobody was promised what it says, and a backup that had it would hold messages
// that the server itself may never have. All of it up to the last durable group is in the backup.
func TestBackupEndsAtTheLastDurableGroup(t *testing.T) {
	dir := t.TempDir()
	disk := &heldDisk{FS: vfs.OS, wrote: make(chan struct{}, 1)}
	cfg := testConfig(disk, filepath.Join(dir, "data"))
	cfg.OpenLog = seglog.Open
	w := newWorld()
	s, _, err := w.open(cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	q, err := w.create(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.commit(s, record.Record{Kind: kindPut, Body: []byte("promised before")}).Wait(); err != nil {
		t.Fatal(err)
	}
	held := make(chan struct{})
	var pending *Future
	disk.reads = func() { // the backup has its checkpoint, knows the last durable group, and is about to read
		disk.reads = nil
		disk.held.Store(&held)
		pending = q.commit(s, record.Record{Kind: kindPut, Body: []byte("never promised")})
		<-disk.wrote
	}
	backup := filepath.Join(dir, "backup")
	if _, err := s.Backup(backup); err != nil {
		t.Fatal(err)
	}
	if pending == nil || pending.Done() {
		t.Fatalf("the group was not in flight: %v", pending)
	}
	if found := filesWith(t, backup, "never promised"); len(found) > 0 {
		t.Errorf("the backup has what is not durable, in %v", found)
	}
	if len(filesWith(t, cfg.Dir, "never promised")) == 0 || len(filesWith(t, backup, "promised before")) == 0 {
		t.Error("the test looks in the wrong place")
	}
	disk.held.Store(nil)
	close(held)
	if err := pending.Wait(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// filesWith lists the files that hold a text.
func filesWith(t *testing.T, dir, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(text)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
