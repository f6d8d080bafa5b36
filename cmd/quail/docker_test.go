package main

// The container image, built and run by a real engine. QUAIL_GO_IMAGE may name the base image of the build stage; on a
// machine without a network that is one made by hand, from a Go toolchain and a shell.

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// docker runs the client and returns what it says.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestDockerImage(t *testing.T) {
	if exec.Command("docker", "info").Run() != nil {
		t.Skip("SKIP: no container engine answers")
	}
	name := fmt.Sprintf("quail-test-%d", os.Getpid())
	build := []string{"build", "-t", name, "../.."}
	if base := os.Getenv("QUAIL_GO_IMAGE"); base != "" {
		build = append(build, "--build-arg", "GO_IMAGE="+base, "--network", "none")
	}
	docker(t, build...)
	t.Cleanup(func() {
		exec.Command("docker", "rm", "-f", name).Run()
		exec.Command("docker", "volume", "rm", name, name+"-backups").Run()
		exec.Command("docker", "rmi", name).Run()
	})
	checkImageConfig(t, name)

	// Loopback of this machine, so that no other network is needed and nobody else is served.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	run := func() {
		docker(t, "run", "-d", "--name", name, "--network", "host", "--read-only", "--cap-drop", "ALL",
			"-e", "QUAIL_LISTEN="+address, "-v", name+":/data", "-e", "QUAIL_BACKUP_DIR=/backup", "-v", name+"-backups:/backup", name)
		awaitHealthy(t, name)
	}
	run()
	if replies, err := ask(address, "QPUSH greetings hello"); err != nil || replies != ":2\n" {
		t.Fatalf("%q %v", replies, err)
	}
	// A new volume at /backup belongs to root unless the image has that directory for it to take its owner from.
	docker(t, "exec", name, "/quail", "backup", "monday")
	if found := docker(t, "exec", name, "/quail", "check", "/backup/monday"); !strings.Contains(found, "greetings") || !strings.HasSuffix(found, "sound") {
		t.Errorf("the backup: %s", found)
	}
	if top := docker(t, "top", name, "-eo", "uid,pid,args"); !strings.Contains(top, "65532") {
		t.Errorf("who runs it: %s", top)
	}
	docker(t, "stop", name)
	if code := docker(t, "inspect", "-f", "{{.State.ExitCode}}", name); code != "0" {
		t.Errorf("docker stop must drain and exit 0, not %s\n%s", code, docker(t, "logs", name))
	}
	docker(t, "rm", name)

	// A new container on the old volume, as after an upgrade.
	run()
	if replies, err := ask(address, "QLEN greetings"); err != nil || replies != ":1\n" {
		t.Errorf("%q %v\n%s", replies, err, docker(t, "logs", name))
	}
}

// checkImageConfig holds the image against what README.md and docs/operations.md say of it.
func checkImageConfig(t *testing.T, image string) {
	t.Helper()
	var config struct {
		User, StopSignal string
		Env              []string
		Entrypoint, Cmd  []string
		ExposedPorts     map[string]any
		Volumes          map[string]any
		Healthcheck      struct{ Test []string }
	}
	if err := json.Unmarshal([]byte(docker(t, "inspect", "-f", "{{json .Config}}", image)), &config); err != nil {
		t.Fatal(err)
	}
	if config.User != "65532:65532" || config.StopSignal != "SIGTERM" || config.ExposedPorts["6389/tcp"] == nil ||
		config.Volumes["/data"] == nil || !slices.Equal(config.Healthcheck.Test, []string{"CMD", "/quail", "health"}) ||
		!slices.Contains(config.Env, "QUAIL_LISTEN=0.0.0.0:6389") || !slices.Contains(config.Env, "QUAIL_DATA=/data") {
		t.Errorf("%+v", config)
	}
}

// awaitHealthy asks until the container's own health command says yes. Each question is a process start, so the loop
// does not spin.
func awaitHealthy(t *testing.T, name string) {
	t.Helper()
	for range 200 {
		if exec.Command("docker", "exec", name, "/quail", "health").Run() == nil {
			return
		}
	}
	t.Fatalf("never healthy\n%s", docker(t, "logs", name))
}
