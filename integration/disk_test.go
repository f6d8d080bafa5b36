//go:build linux

package integration

// A disk of our own: a file system in an image file, mounted through a loop device. It can lose its power and can be full,
// and the machine's own file systems do not notice.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A disk is one image and where it is mounted. A tmpfs has no image.
type disk struct {
	t         testing.TB
	image     string
	dir       string
	megabytes int64
}

// newDisk makes and mounts one, or skips the test where mounts are not permitted or mkfs is missing.
func newDisk(t testing.TB, fileSystem string, megabytes int64) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root may mount a file system of its own")
	}
	if fileSystem == "tmpfs" {
		d := &disk{t: t, dir: t.TempDir(), megabytes: megabytes}
		if err := d.tryMount(); err != nil {
			t.Skipf("SKIPPED: a tmpfs cannot be mounted here: %v", err)
		}
		t.Cleanup(d.unmount)
		return d
	}
	mkfs, err := exec.LookPath("mkfs." + fileSystem)
	if err != nil {
		t.Skipf("SKIPPED: mkfs.%s is not installed (Debian: e2fsprogs, xfsprogs)", fileSystem)
	}
	d := &disk{t: t, image: filepath.Join(t.TempDir(), fileSystem+".img"), dir: filepath.Join(t.TempDir(), "mounted")}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, megabytes<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", d.image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v\n%s", fileSystem, err, out)
	}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.tryMount(); err != nil {
		t.Skipf("SKIPPED: an image cannot be mounted here: %v", err)
	}
	t.Cleanup(d.unmount)
	return d
}

func (d *disk) tryMount() error {
	args := []string{"-o", "loop", d.image, d.dir}
	if d.image == "" {
		args = []string{"-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", d.megabytes), "tmpfs", d.dir}
	}
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// unmount is for the end of a test and between two mounts; it is no error if nothing is mounted.
func (d *disk) unmount() {
	d.t.Helper()
	eventually(d.t, 20*time.Second, "the image is not in use any more", func() bool {
		err := unix.Unmount(d.dir, 0)
		return err == nil || err == unix.EINVAL
	})
}

// cutPower ends the file system in the middle of things: nothing of what is only in memory reaches the image any more, the
// file system's own log included. Whoever still runs on it gets EIO.
func (d *disk) cutPower() {
	const ioctlShutdown, noLogFlush = 0x8004587d, 2 // FS_IOC_SHUTDOWN, FS_SHUTDOWN_FLAGS_NOLOGFLUSH
	root, err := os.Open(d.dir)
	if err != nil {
		d.t.Errorf("open the root of the file system: %v", err) // not Fatal: the goroutine may be any client's
		return
	}
	defer root.Close()
	if err := unix.IoctlSetPointerInt(int(root.Fd()), ioctlShutdown, noLogFlush); err != nil {
		d.t.Errorf("shut the file system down: %v", err)
	}
}

// powerUp mounts the image again; the file system recovers from its own log.
func (d *disk) powerUp() {
	d.t.Helper()
	d.unmount()
	if err := d.tryMount(); err != nil {
		d.t.Fatal(err)
	}
}
