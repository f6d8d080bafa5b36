package queue

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"quail/wal"
)

// rewrittenStore makes a data directory in which old messages are left between many that are gone, and the log was rewritten.
func rewrittenStore(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	cfg := diskConfig(dir)
	rewritten := make(chan struct{}, 100)
	cfg.Store.Events.LogRewritten = func(wal.LogRewritten) { rewritten <- struct{}{} }
	cfg.Store.Events.RewriteFailed = func(_ wal.LogName, err error) { t.Errorf("rewrite: %v", err) }
	set, _, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	push := func(body string, o PushOptions) {
		if _, _, err := set.PushWith([]byte("orders"), [][]byte{[]byte(body)}, o); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 600 {
		o := PushOptions{}
		if i%97 == 50 {
			o = PushOptions{HasDelay: true, DelayMillis: 3_600_000}
		}
		push(fmt.Sprintf("orders %d %s", i, strings.Repeat("x", 100)), o)
	}
	for range 12 {
		got := make(chan *Batch, 1)
		set.Consume(ConsumeRequest{Queue: []byte("orders"), Consumer: []byte("one"), Count: 48, Bytes: 1 << 20, LeaseMillis: 600_000, BlockMillis: 10_000, Block: true},
			func(b *Batch, _ *Future, err error) { got <- b })
		b := <-got
		if b == nil {
			t.Fatal("the queue gave nothing")
		}
		if _, f, err := set.Ack([]byte("orders"), b.ID, nil); err != nil || f.Wait() != nil {
			t.Fatal(err)
		}
	}
	if err := set.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	<-rewritten
	push("one more", PushOptions{})
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

var rewrittenName = regexp.MustCompile(`/\d{20}-\d{20}\.\d+$`)

func rewrittenFiles(t *testing.T, dir string) (list []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "queues", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if rewrittenName.MatchString(path) {
			list = append(list, path)
		}
	}
	if len(list) == 0 {
		t.Fatalf("nothing is rewritten: %v", all)
	}
	return list
}

// Without this check reports what was given back as lost, repair makes a directory on which no server starts, and damage in a rewritten
// segment is not found.
func TestStoppedReadsRewrittenLogs(t *testing.T) {
	dir := rewrittenStore(t)
	want, sound, lost := looked(t, dir)
	if !sound || lost != 0 || len(want) < 7 {
		t.Fatalf("%d messages, sound %v, %d lost", len(want), sound, lost)
	}
	repairOne(t, copyDir(t, dir), want, true)
	for _, path := range rewrittenFiles(t, dir) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		step := max(info.Size()/int64(rounds(25)), 1)
		for at := int64(0); at < info.Size(); at += step {
			hurt := copyDir(t, dir)
			path := filepath.Join(hurt, strings.TrimPrefix(path, dir))
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			data[at] ^= 1 << (at % 8)
			if err := os.WriteFile(path, data, 0o640); err != nil {
				t.Fatal(err)
			}
			if _, sound, _ := looked(t, hurt); sound {
				t.Errorf("the flipped byte %d of %s is not noticed", at, filepath.Base(path))
			}
			repairOne(t, hurt, want, false)
		}
	}
}
