//go:build linux

package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// get asks the server's own HTTP; a host that is not empty goes into Host:.
func get(t *testing.T, address, method, path, host string) (code int, body string) {
	t.Helper()
	request, err := http.NewRequest(method, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		request.Host = host
	}
	client := http.Client{Timeout: replyTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	all, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(all)
}

func TestMetrics(t *testing.T) {
	admin := freeAddress(t)
	s := newServer(t, "--admin-listen", admin, "--requirepass", hostilePassword)
	s.auth = hostilePassword
	s.start()
	conn := s.connect(t)
	for i := range 1100 {
		must(t, conn, "QCREATE", fmt.Sprintf("queue-%04d", i))
	}
	must(t, conn, "QPUSH", "queue-0000", "canary-body", "canary-body", "canary-body")
	if b, err := parseBatch(conn.Do("QCONSUME", "queue-0000", "me", "COUNT", 1)); err != nil || b == nil {
		t.Fatal(err)
	}
	for range 70 {
		must(t, conn, "PING")
	}
	mustRefuse(t, conn, "NOQUEUE", "QACK", "none", 1)
	code, page := get(t, admin, "GET", "/metrics", "")
	if code != 200 {
		t.Fatalf("%d %s", code, page)
	}
	for _, want := range []string{
		`quail_queue_messages{queue="queue-0000",state="leased"} 1`, `quail_queue_messages{queue="queue-0000",state="ready"} 2`,
		`quail_queue_bytes{queue="queue-0000",state="ready"} 22`, `quail_queue_events_total{event="pushed",queue="queue-0000"} 3`,
		`quail_queues 1100`, `quail_queues_not_shown 100`, `quail_commands_total{command="ping"} 7\d`, `quail_commands_failed_total{command="qack"} 1`,
		`quail_command_seconds_count{command="ping"} 2`, `quail_command_seconds_bucket{command="qcreate",le="0.001"} \d+`,
		`quail_journal_sync_seconds_count [1-9]\d*`, `quail_journal_sync_seconds_bucket{le="10"} [1-9]\d*`, `quail_journal_failed 0`, `quail_last_checkpoint_ok 1`,
		`quail_connected_clients 1`, `quail_build_info{version="[^"]+"} 1`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(page) {
			t.Errorf("no line %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%.6000s", page)
	}
	if found := canaries.FindString(page); found != "" || strings.Contains(page, hostilePassword) {
		t.Errorf("the page shows %q", found)
	}
	for _, try := range []struct {
		method, path, host string
		code               int
	}{
		{"GET", "/healthz", "", 200}, {"GET", "/readyz", "", 200}, {"GET", "/readyz", "localhost:1", 200}, {"GET", "/", "", 404}, {"POST", "/metrics", "", 405},
		{"GET", "/metrics", "evil.example", 403}, {"GET", "/healthz", "evil.example:6391", 403}, {"GET", "/metrics", "192.0.2.1", 403}, {"GET", "/metrics", "[::1]:80", 200},
		{"GET", "/healthz", "[::1]", 200}, {"GET", "/healthz", "127.0.0.1", 200}, {"GET", "/healthz", "LOCALHOST", 200}, {"GET", "/healthz", "LocalHost:6391", 200},
		{"GET", "/healthz", "[::2]", 403}, {"GET", "/healthz", "localhost.evil.example", 403}, {"GET", "/healthz", "127.0.0.1.evil.example:80", 403},
		{"GET", "/healthz", "[::1].evil.example", 403}, {"GET", "/healthz", "[localhost", 403}, {"GET", "/healthz", "localhost:1:2", 403},
		{"GET", "/../../etc/passwd", "", 404}, {"GET", "/debug/pprof/", "", 404},
	} {
		code, body := get(t, admin, try.method, try.path, try.host)
		if code != try.code && !(try.code == 404 && code/100 == 3) {
			t.Errorf("%s %s of %q: %d %.100s", try.method, try.path, try.host, code, body)
		}
	}
	// Who connects and says nothing, or asks slowly, takes no more than a few connections for a few seconds.
	for range 40 {
		idle, err := net.DialTimeout("tcp", admin, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
	}
	must(t, conn, "PING")
	if code, _ := get(t, admin, "GET", "/healthz", ""); code != 200 {
		t.Errorf("behind idle connections: %d", code)
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Without this nobody but the clients of a queue learns that it is stopped; or one bad queue takes a whole server out of service.
func TestMetricsOfAStoppedQueue(t *testing.T) {
	admin := freeAddress(t)
	s := newServer(t, "--admin-listen", admin)
	s.start()
	conn := s.connect(t)
	must(t, conn, "QPUSH", "bad", "one", "two", "three")
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	logs, err := filepath.Glob(filepath.Join(s.dir, "queues", "*", "0*"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("%v, %v", logs, err)
	}
	data, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(logs[0], data, 0o640); err != nil {
		t.Fatal(err)
	}
	s.start()
	conn = s.connect(t)
	must(t, conn, "QPUSH", "good", "one")
	mustRefuse(t, conn, "WALERR", "QPEEK", "bad", "COUNT", 10)
	if lines := infoLines(t, conn, "persistence"); lines["stopped_queues"] != "1" {
		t.Errorf("stopped_queues is %q", lines["stopped_queues"])
	}
	_, page := get(t, admin, "GET", "/metrics", "")
	for _, want := range []string{`quail_queue_stopped{queue="bad"} 1`, `quail_queue_stopped{queue="good"} 0`, `quail_stopped_queues 1`} {
		if !strings.Contains(page, "\n"+want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	if code, body := get(t, admin, "GET", "/readyz", ""); code != 200 {
		t.Errorf("/readyz: %d %s", code, body)
	}
	must(t, conn, "QDEL", "bad")
	if lines := infoLines(t, conn, "persistence"); lines["stopped_queues"] != "0" {
		t.Errorf("when it is deleted stopped_queues is %q", lines["stopped_queues"])
	}
}
