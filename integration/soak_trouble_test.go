//go:build linux

package integration

// What goes wrong in the soak test, one thing at a time, in random order.

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gomodule/redigo/redis"
)

const (
	soakTroubleShort = 120 * time.Millisecond // between two troubles in a short run
	soakTroubleLong  = 1500 * time.Millisecond
	soakFreezeMax    = 700 // milliseconds for which the process is stopped: longer than leases and locks
	soakBurstMax     = 6   // operations in a row that fail
)

// soakTrouble is what went wrong so far.
type soakTrouble struct {
	killing bool // of this phase: kill -9 may happen
	counts  soakCounts
}

type soakCounts struct {
	kills, stops, freezes, faults, backups, redrives, disconnects, pauses int
}

// makeTrouble returns after the phase's length, with the server up and the disk sound.
func (k *soak) makeTrouble(random *rand.Rand, length time.Duration) {
	every := soakTroubleShort
	if soakFor() > time.Minute {
		every = soakTroubleLong
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < length; <-tick.C {
		if k.trouble.killing && random.IntN(4) == 0 {
			k.die(random)
			continue
		}
		if k.gate != nil && random.IntN(3) == 0 {
			k.failDisk(random)
			continue
		}
		k.disturb(random)
	}
	k.soundDisk()
}

// die is the end of the process and its new start.
func (k *soak) die(random *rand.Rand) {
	if random.IntN(6) == 0 {
		k.soundDisk()
		k.trouble.counts.stops++
		if code := k.s.stop(syscall.SIGTERM); code != 0 {
			k.ledger.complain("exit code %d after SIGTERM", code)
		}
	} else {
		k.trouble.counts.kills++
		k.s.kill() // maybe in the middle of what a fault has begun
		k.soundDisk()
	}
	k.revive()
}

func (k *soak) revive() {
	k.life++
	if err := k.s.tryStart(); err != nil {
		k.t.Fatal(err)
	}
}

// disturb does one of the things that the disk and the process survive as they are.
func (k *soak) disturb(random *rand.Rand) {
	conn, err := k.dial()
	if err != nil {
		return
	}
	defer conn.Close()
	switch random.IntN(7) {
	case 0:
		k.freeze(time.Duration(random.IntN(soakFreezeMax)) * time.Millisecond)
	case 1:
		k.backUp(conn)
	case 2:
		k.trouble.counts.disconnects++
		_, err = conn.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	case 3:
		k.trouble.counts.pauses++
		queue := soakQueues[random.IntN(len(soakQueues))]
		if _, err = conn.Do("QPAUSE", queue); err == nil {
			k.breathe()
			_, err = conn.Do("QRESUME", queue)
		}
	case 4:
		k.delete(conn, soakCrowded, false)
	default:
		k.trouble.counts.redrives++
		_, err = conn.Do("QREDRIVE", soakFragile+".dead")
	}
	k.expected("the owner", err)
}

// freeze is a machine that stands still for a while: leases and locks end meanwhile, and clients' commands pile up.
func (k *soak) freeze(length time.Duration) {
	k.trouble.counts.freezes++
	pid := k.s.pid()
	syscall.Kill(pid, syscall.SIGSTOP)
	<-time.After(length)
	syscall.Kill(pid, syscall.SIGCONT)
}

// failDisk makes operations on files fail, one or a few in a row, beginning with one of the next.
func (k *soak) failDisk(random *rand.Rand) {
	errno := []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EMFILE}[random.IntN(3)]
	skip, burst := random.IntN(40), 1
	if random.IntN(2) == 0 {
		burst = 1 + random.IntN(soakBurstMax)
	}
	k.gate.set(func(c call) verdict {
		if errno == syscall.EMFILE && c.name != "openat" || errno == syscall.ENOSPC && c.name == "unlink" || burst == 0 {
			return verdict{}
		}
		if skip > 0 {
			skip--
			return verdict{}
		}
		burst--
		k.trouble.counts.faults++
		return verdict{errno: errno}
	})
}

// soundDisk ends all faults.
func (k *soak) soundDisk() {
	if k.gate != nil {
		k.gate.set(nil)
	}
}

// backUp takes a backup of the server at work, which must be sound.
func (k *soak) backUp(conn redis.Conn) {
	k.soundDisk()
	k.trouble.counts.backups++
	dir := filepath.Join(k.backups, fmt.Sprint("backup.", k.trouble.counts.backups))
	defer os.RemoveAll(dir)
	if _, err := conn.Do("QBACKUP", dir); err != nil {
		if code(err) != "WALERR" { // the last fault is being mended
			k.ledger.complain("QBACKUP: %v", err)
		}
		return
	}
	if out, err := runQuail("check", dir); err != nil {
		k.ledger.complain("quail check of a backup: %v\n%s", err, out)
	}
}

// runQuail runs another command of the binary.
func runQuail(args ...string) (output []byte, err error) {
	program, err := build()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...)
	cmd.Env = cleanEnv()
	return cmd.CombinedOutput()
}
