//go:build linux

package integration

// TLS as people use it: redis-cli, redis-py and a Go library against the binary, with and without a client's certificate, while certificates are exchanged.

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"quail/integration/authority"
)

// tlsServer is a server with a plain port, for the test's own questions, and one for TLS.
func tlsServer(t *testing.T, args ...string) (s *server, a *authority.Authority, port string) {
	t.Helper()
	a, err := authority.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	certify(t, a, "server", "first")
	certify(t, a, "client", "somebody")
	address := freeAddress(t)
	_, port, _ = strings.Cut(address, ":")
	s = newServer(t, append([]string{"--tls-port", port, "--tls-cert-file", a.Path("server.crt"), "--tls-key-file", a.Path("server.key"),
		"--tls-ca-cert-file", a.Path("ca.crt"), "--auth-delay", "0"}, args...)...)
	return s, a, port
}

func certify(t *testing.T, a *authority.Authority, name, commonName string) {
	t.Helper()
	if err := a.Make(name, commonName, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth); err != nil {
		t.Fatal(err)
	}
}

// servedBy is the name in the certificate that a new connection is shown.
func servedBy(t *testing.T, a *authority.Authority, port string) string {
	t.Helper()
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(a.Path("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(a.Path("client.crt"), a.Path("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", "127.0.0.1:"+port, &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestRedisCLIWithTLS(t *testing.T) {
	program, err := exec.LookPath("redis-cli")
	if err != nil || !strings.Contains(must1(helpOf(program)), "--cacert") {
		t.Skip("SKIP: there is no redis-cli that speaks TLS")
	}
	s, a, port := tlsServer(t)
	s.start()
	run := func(args ...string) string {
		out, _ := exec.Command(program, append([]string{"-p", port}, args...)...).CombinedOutput()
		return strings.TrimSpace(string(out))
	}
	trust := []string{"--tls", "--cacert", a.Path("ca.crt")}
	known := append(slices.Clone(trust), "--cert", a.Path("client.crt"), "--key", a.Path("client.key"))
	if got := run(append(slices.Clone(known), "PING")...); got != "PONG" {
		t.Errorf("with a certificate: %q", got)
	}
	if got := run(append(slices.Clone(known), "-3", "QPUSH", "q", strings.Repeat("x", 100_000))...); !strings.HasSuffix(got, "2") {
		t.Errorf("a push: %q", got)
	}
	for what, args := range map[string][]string{"without a certificate": trust, "without the authority": known[:1], "without TLS": nil} {
		if got := run(append(args, "PING")...); strings.Contains(got, "PONG") {
			t.Errorf("%s it is served: %q", what, got)
		}
	}
	s.stop(syscall.SIGTERM)
}

func helpOf(program string) (string, error) {
	out, _ := exec.Command(program, "--help").CombinedOutput()
	return string(out), nil
}

const overTLS = `
import os, redis
files = dict(ssl=True, ssl_ca_certs=os.environ["CA"])
mine = dict(ssl_certfile=os.environ["CERT"], ssl_keyfile=os.environ["KEY"])
address = dict(host="127.0.0.1", port=int(os.environ["PORT"]))
r = redis.Redis(username="shop", password="pw", **address, **files, **mine)
r.execute_command("QPUSH", "orders", b"x" * 300000)
batch = r.execute_command("QCONSUME", "orders", "me", "BLOCK", 5000)
assert batch[2][0][1] == b"x" * 300000
assert r.execute_command("QACK", "orders", batch[0]) == 1
pipe = r.pipeline(transaction=False)
for i in range(2000):
    pipe.execute_command("QPUSH", "orders", str(i))
ids = pipe.execute()
assert len(ids) == 2000 and ids == sorted(ids), ids[:5]
try:
    redis.Redis(**address, **files).ping()
    assert False, "served without a certificate"
except redis.exceptions.ConnectionError:
    pass
try: # a certificate does not replace the password
    redis.Redis(**address, **files, **mine).ping()
    assert False, "served without a password"
except redis.exceptions.AuthenticationError:
    pass
print("done")
`

func TestRedisPyWithTLS(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := probe(nil, python, "-c", "import redis"); err != nil {
		t.Skipf("SKIP: redis-py is not installed (Debian: python3-redis): %v", err)
	}
	s, a, port := tlsServer(t)
	s.start()
	boss := s.connect(t)
	must(t, boss, "ACL", "SETUSER", "shop", "on", ">pw", "~orders", "+@all")
	must(t, boss, "ACL", "SETUSER", "default", "resetpass", ">other")
	cmd := exec.Command(python, "-c", overTLS)
	cmd.Env = append(os.Environ(), "PORT="+port, "CA="+a.Path("ca.crt"), "CERT="+a.Path("client.crt"), "KEY="+a.Path("client.key"))
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "done" {
		t.Errorf("%v\n%s", err, out)
	}
}

// A certificate that expires is replaced without a restart; files that are broken change nothing, however they come.
func TestCertificatesAreExchangedWhileServing(t *testing.T) {
	s, a, port := tlsServer(t)
	s.start()
	boss := s.connect(t)
	if got := servedBy(t, a, port); got != "first" {
		t.Fatalf("served by %q", got)
	}
	certify(t, a, "server", "second")
	s.process.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, replyTimeout, "the second certificate", func() bool { return servedBy(t, a, port) == "second" })
	certify(t, a, "server", "third") // and nobody tells the server
	eventually(t, replyTimeout, "the third certificate", func() bool { return servedBy(t, a, port) == "third" })
	if err := os.WriteFile(a.Path("server.key"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.process.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, replyTimeout, "a line in the log", func() bool { return strings.Contains(s.log(), "cannot load the TLS files") })
	certify(t, a, "other", "fourth")
	text := mustRefuse(t, boss, "ERR", "CONFIG", "SET", "tls-cert-file", a.Path("other.crt"), "timeout", "5000")
	if !strings.Contains(text, "the TLS files in use stay") || !strings.Contains(fmt.Sprintf("%s", must(t, boss, "CONFIG", "GET", "timeout")), "0") {
		t.Errorf("%s", text)
	}
	if got := servedBy(t, a, port); got != "third" {
		t.Errorf("served by %q", got)
	}
	must(t, boss, "CONFIG", "SET", "tls-cert-file", a.Path("other.crt"), "tls-key-file", a.Path("other.key"))
	if got := servedBy(t, a, port); got != "fourth" {
		t.Errorf("after CONFIG SET served by %q", got)
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
