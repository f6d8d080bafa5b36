package bench

// What a reader must know to make anything of the figures: the machine, its disk, the servers.

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// Fact is one line above the table.
type Fact struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

func facts(c *Config, targets []*target, dir string) []Fact {
	list := []Fact{{"machine", fmt.Sprintf("%d cores, %s %s", runtime.NumCPU(), kernel(), runtime.GOARCH)}}
	local := slices.ContainsFunc(targets, func(t *target) bool { return t.child != nil })
	if local {
		list = append(list, Fact{"disk", diskFact(dir)})
	}
	for _, t := range targets {
		text := t.version + " at " + t.address
		if t.child != nil {
			text = t.version + ", " + startedAs(t.dialect)
		}
		list = append(list, Fact{t.dialect.name(), text})
	}
	amount := fmt.Sprintf("%d s a turn", c.Seconds)
	if c.Messages > 0 {
		amount = fmt.Sprintf("%s messages a turn", thousands(float64(c.Messages)))
	}
	return append(list, Fact{"rounds", fmt.Sprintf("%d, %s, bodies of %d bytes", c.Rounds, amount, c.BodyBytes)})
}

func startedAs(d dialect) string {
	if d == dialect(quail{}) {
		return "started here with its defaults (synced before each reply)"
	}
	return "started here with appendonly yes, appendfsync always, save \"\""
}

// diskFact tells what a sync costs where the servers' data is: of a block that is written over, as in a log whose files
// were prepared, and of one that is appended.
func diskFact(dir string) string {
	name := fileSystem(dir)
	if name == "tmpfs" {
		return "tmpfs, which is memory and keeps nothing: choose a --data-dir on a disk"
	}
	over, err := probe(dir, false)
	if err == nil {
		var appended time.Duration
		if appended, err = probe(dir, true); err == nil {
			return fmt.Sprintf("%s, 4 KB and fdatasync: %d µs written over, %d µs appended (medians)", name, over.Microseconds(), appended.Microseconds())
		}
	}
	return fmt.Sprintf("%s, and a probe failed: %v", name, err)
}

// probe is the median time of a write of 4 KB and its fdatasync.
func probe(dir string, appending bool) (time.Duration, error) {
	const times, block = 201, 4096
	file, err := os.OpenFile(filepath.Join(dir, "probe"), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return 0, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if !appending {
		if _, err := file.Write(make([]byte, times*block)); err != nil {
			return 0, err
		}
		if err := file.Sync(); err != nil {
			return 0, err
		}
	}
	var took []time.Duration
	bytes := make([]byte, block)
	for i := range times {
		began := time.Now()
		if _, err := file.WriteAt(bytes, int64(i*block)); err != nil {
			return 0, err
		}
		if err := datasync(file); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[times/2], nil
}
