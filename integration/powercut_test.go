//go:build linux

package integration

// Power cuts of a real file system under the real server. The server is stopped in the middle of its work (SIGSTOP), the
// file system is shut down without writing anything more, not even its own log, the server is killed, the image mounted
// again. Then everything is compared, as after kill -9; but kill -9 keeps the page cache, and this does not.

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const powerQueues = 8

// newPowerCut prepares a server on a disk of its own.
func newPowerCut(t *testing.T, fileSystem string) (*crash, *disk) {
	t.Helper()
	d := newDisk(t, fileSystem, 320) // mkfs.xfs wants 300 at least
	s := newServer(t, crashArgs...)
	s.dir = filepath.Join(d.dir, "data")
	var queues []string
	for i := range powerQueues {
		queues = append(queues, fmt.Sprintf("work.%d", i))
	}
	c := newCrash(t, s, queues)
	c.delayed = "later"
	c.die = func() { cutUnder(s, d) }
	return c, d
}

// cutUnder is the power cut. The replies that the server has sent by then are promises; the clients read them from their sockets afterwards.
func cutUnder(s *server, d *disk) {
	p := s.down()
	p.cmd.Process.Signal(syscall.SIGSTOP)
	if !holdsWithin(startTimeout, func() bool { return stopped(p.cmd.Process.Pid) }) {
		s.t.Errorf("the server does not stop for SIGSTOP")
	}
	d.cutPower()
	p.cmd.Process.Kill()
	<-p.exited
}

// stopped reports whether no thread of a process runs any more. One that waits for the disk stops only when it is done with that;
// cut before, it would come back with EIO and the server would say so, which a server without power cannot.
func stopped(pid int) bool {
	states, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(states) == 0 {
		return false
	}
	for _, path := range states {
		text, err := os.ReadFile(path)
		if err == nil && !bytes.Contains(text, []byte(") T ")) {
			return false
		}
	}
	return true
}

// oneCut is a life, its end and what is left of it.
func (c *crash) oneCut(d *disk, random *rand.Rand) {
	c.life++
	c.live(random)
	d.powerUp()
	c.s.start()
	c.model.nextLife()
	c.audit()
}

// Without this, a sync that is missing, or of the wrong file, or too late, is found by the first user whose power goes.
func TestPowerCutsOfRealFileSystems(t *testing.T) {
	for _, fileSystem := range []string{"ext4", "xfs"} {
		t.Run(fileSystem, func(t *testing.T) {
			random := seeded(t)
			cuts := 10
			if longRun {
				cuts = 50
			}
			c, d := newPowerCut(t, fileSystem)
			began := time.Now()
			c.s.start()
			for range cuts {
				c.oneCut(d, random)
				for _, complaint := range c.model.complaints {
					t.Errorf("cut %d: %s", c.life, complaint)
				}
				if t.Failed() {
					break
				}
			}
			c.s.kill()
			m := c.model
			t.Logf("%d cuts of %s in %v: %d messages pushed, %d acknowledged or deleted, %d queues deleted, %d unheard pushes were there all the same, nothing lost",
				c.life, fileSystem, time.Since(began).Round(time.Millisecond), m.pushes, m.acks, m.deletions, m.survivedUnheard)
		})
	}
}

// The same with a server whose syncs do nothing. It must lose messages: if it does not, the test above proves nothing.
func TestPowerCutsNoticeAServerThatDoesNotSync(t *testing.T) {
	for _, fileSystem := range []string{"ext4", "xfs"} {
		t.Run(fileSystem, func(t *testing.T) {
			c, d := newPowerCut(t, fileSystem)
			g := startBehindGate(t, c.s)
			conn := c.s.connect(t)
			must(t, conn, "QPUSH", "work.0", "made before the syncs stop")
			g.set(func(c call) verdict {
				return verdict{pretend: c.name == "fsync" || c.name == "fdatasync" || c.name == syncedWrite}
			})
			promised := 0
			for ; promised < 200; promised++ {
				must(t, conn, "QPUSH", fmt.Sprint("work.", promised%powerQueues), fmt.Sprint("promised ", promised))
			}
			cutUnder(c.s, d)
			d.powerUp()
			c.s.wrap = nil
			if err := c.s.tryStart(); err != nil {
				t.Logf("lost all: the server does not start: %v", err)
				return
			}
			kept := -1 // the first message was synced
			conn = c.s.connect(t)
			for i := range powerQueues {
				kept += int(must(t, conn, "QLEN", fmt.Sprint("work.", i)).(int64))
			}
			c.s.kill()
			t.Logf("%d of %d acknowledged messages lost without syncs", promised-kept, promised)
			if kept >= promised {
				t.Errorf("nothing was lost of %d messages that no sync protected: cutting the power like this proves nothing", promised)
			}
		})
	}
}
