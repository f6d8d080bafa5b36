package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"quail/server/settings"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.make("authority", "ca")
	return a
}

// make writes NAME.crt and NAME.key, signed by the authority, or by itself if there is none yet.
func (a *authority) make(commonName, file string) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: commonName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		BasicConstraintsValid: true, IsCA: a.cert == nil, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, _ := x509.MarshalPKCS8PrivateKey(key)
	a.write(file+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	a.write(file+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})))
	cert, _ := x509.ParseCertificate(der)
	return cert, key
}

func (a *authority) path(file string) string { return filepath.Join(a.dir, file) }

func (a *authority) write(file, text string) {
	if err := os.WriteFile(a.path(file), []byte(text), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// client is what a client connects with; it shows the certificate of that name, if it is not empty.
func (a *authority) client(name string) *tls.Config {
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AddCert(a.cert)
	if name != "" {
		pair, err := tls.LoadX509KeyPair(a.path(name+".crt"), a.path(name+".key"))
		if err != nil {
			a.t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

// startTLS runs a server with a TLS listener beside the plain one.
func startTLS(t *testing.T, a *authority, given ...string) (s *running, certificates *Certificates, address string) {
	t.Helper()
	a.make("first", "server")
	s = start(t, append([]string{"tls-cert-file=" + a.path("server.crt"), "tls-key-file=" + a.path("server.key"),
		"tls-ca-cert-file=" + a.path("ca.crt")}, given...)...)
	certificates, err := NewCertificates(s.cfg.Settings, s.cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.ServeTLS(ln, certificates.Config)
	return s, certificates, ln.Addr().String()
}

func dialTLS(t *testing.T, address string, config *tls.Config) (*client, *tls.Conn) {
	t.Helper()
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return newClient(t, conn), conn
}

// Records do not end where commands end, nor where a read ends: without care the rest of one waits for the next packet, for ever.
func TestTLSCarriesCommandsOfAllSizes(t *testing.T) {
	a := newAuthority(t)
	a.make("somebody", "client")
	_, _, address := startTLS(t, a, "max-bulk-bytes=16mb")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := a.client("client")
		config.MaxVersion = version
		c, conn := dialTLS(t, address, config)
		if got := conn.ConnectionState().Version; got != version {
			t.Errorf("version %x, want %x", got, version)
		}
		for _, size := range []int{0, 1, 1000, 4085, 16_383, 16_384, 16_385, 100_000, 5 * mb} {
			body := strings.Repeat("y", size)
			go c.conn.Write([]byte(cmd("ECHO", body)))
			c.expect(fmt.Sprintf("$%d\r\n%s\r\n", size, body))
		}
		go c.conn.Write([]byte(strings.Repeat("PING\r\n", 20_000)))
		c.expect(strings.Repeat("+PONG\r\n", 20_000))
		c.send(pull + "PING\r\n")
		c.send(cmd("PING"))
		other, _ := dialTLS(t, address, a.client("client"))
		other.send(cmd("QPUSH", "q", "hello"))
		other.rd.ReadString('\n')
		if line, err := c.rd.ReadString('\n'); err != nil || !strings.HasPrefix(line, "*3") {
			t.Fatalf("the pull got %q, %v", line, err)
		}
		conn.CloseWrite()
		if rest, err := io.ReadAll(c.rd); err != nil || !strings.HasSuffix(string(rest), "+PONG\r\n+PONG\r\n") {
			t.Errorf("at the end %q, %v", rest, err)
		}
	}
}

// A client that reads slowly gets every byte, in order, though its socket takes none for a while.
func TestTLSSlowReader(t *testing.T) {
	a := newAuthority(t)
	_, _, address := startTLS(t, a, "tls-auth-clients=no")
	c, conn := dialTLS(t, address, a.client(""))
	body := strings.Repeat("0123456789abcdef", 1<<16)
	go func() {
		for range 20 {
			io.WriteString(conn, cmd("ECHO", body))
		}
		conn.CloseWrite()
	}()
	want := strings.Repeat(fmt.Sprintf("$%d\r\n%s\r\n", len(body), body), 20)
	if got, err := io.ReadAll(iotestOneKB{c.rd}); err != nil || string(got) != want {
		t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
	}
}

func TestTLSAsksForClientCertificates(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	a.make("somebody", "client")
	stranger.make("nobody", "client")
	forged := a.client("")
	forged.Certificates = stranger.client("client").Certificates
	for _, test := range []struct {
		mode                     string
		without, with, fromOther bool
	}{{"yes", false, true, false}, {"optional", true, true, false}, {"no", true, true, true}} {
		_, _, address := startTLS(t, a, "tls-auth-clients="+test.mode)
		for _, try := range []struct {
			config *tls.Config
			want   bool
		}{{a.client(""), test.without}, {a.client("client"), test.with}, {forged, test.fromOther}} {
			if try.want != pings(address, try.config) {
				t.Errorf("tls-auth-clients %s: served=%v", test.mode, !try.want)
			}
		}
	}
}

// pings says whether a client with that configuration is served.
func pings(address string, config *tls.Config) bool {
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return false
	}
	got := make([]byte, 7)
	_, err = io.ReadFull(conn, got)
	return err == nil && string(got) == "+PONG\r\n"
}

// Without this a certificate that expires stops the service until somebody restarts it; and a broken file does so at once.
func TestTLSFilesAreExchanged(t *testing.T) {
	a := newAuthority(t)
	s, certificates, address := startTLS(t, a, "tls-auth-clients=no")
	stop := make(chan struct{})
	defer close(stop)
	go certificates.Watch(time.Millisecond, stop)
	name := func() string {
		_, conn := dialTLS(t, address, a.client(""))
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	old, _ := dialTLS(t, address, a.client(""))
	a.make("second", "server")
	eventually(t, "the new certificate", func() bool { return name() == "second" })
	a.write("server.crt", "broken")
	eventually(t, "a log line", func() bool { return strings.Contains(s.log.String(), "cannot load the TLS files") })
	if got := name(); got != "second" {
		t.Errorf("a broken file was taken: %q", got)
	}
	a.make("third", "other")
	if err := s.cfg.Settings.Set([][2]string{{"tls-cert-file", a.path("other.crt")}, {"tls-key-file", a.path("other.key")}}); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "third" {
		t.Errorf("after CONFIG SET %q", got)
	}
	old.send("PING\r\n")
	old.expect("+PONG\r\n")
}

// Whoever is told OK believes that the new certificate is in use, and lets the old one expire.
func TestConfigSetRefusesTLSFilesThatDoNotLoad(t *testing.T) {
	a := newAuthority(t)
	s, _, address := startTLS(t, a, "tls-auth-clients=no")
	a.make("second", "other")
	a.write("broken.crt", "broken")
	c := s.dial(t)
	name := func() string {
		_, conn := dialTLS(t, address, a.client(""))
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	for _, words := range [][]string{
		{"tls-cert-file", a.path("other.crt")}, // the key is not its
		{"tls-cert-file", a.path("broken.crt"), "tls-key-file", a.path("other.key")},
		{"tls-cert-file", a.path("none.crt"), "timeout", "1000"},
		{"tls-cert-file", a.path("other.crt"), "tls-key-file", a.path("other.key"), "tls-ca-cert-file", a.path("broken.crt")},
		{"tls-auth-clients", "yes", "tls-ca-cert-file", ""},
	} {
		before := fmt.Sprint(s.cfg.Settings.Match("*"))
		c.send(cmd(append([]string{"CONFIG", "SET"}, words...)...))
		line, err := c.rd.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "-ERR CONFIG SET failed (possibly related to argument 'tls-") || !strings.Contains(line, "the TLS files in use stay") {
			t.Errorf("%q: %q, %v", words, line, err)
		}
		if after := fmt.Sprint(s.cfg.Settings.Match("*")); after != before {
			t.Errorf("%q was refused and changed the settings", words)
		}
		if got := name(); got != "first" {
			t.Errorf("%q: now %q", words, got)
		}
	}
	c.send(cmd("CONFIG", "SET", "tls-cert-file", a.path("other.crt"), "tls-key-file", a.path("other.key")))
	c.expect("+OK\r\n")
	if got := name(); got != "second" { // at once: OK was said
		t.Errorf("after CONFIG SET %q", got)
	}
}

// Without this thousands of connections that never finish their handshake stay for ever, or hold up a stop.
func TestTLSHandshakeDeadline(t *testing.T) {
	a := newAuthority(t)
	s, _, address := startTLS(t, a, "tls-handshake-timeout=100")
	for _, sent := range []string{"", "\x16\x03\x01", "GET / HTTP/1.1\r\n\r\n", cmd("PING")} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, sent)
		conn.SetDeadline(time.Now().Add(patience))
		io.Copy(io.Discard, conn)
		conn.Close()
	}
	eventually(t, "all went", func() bool { return len(s.all()) == 0 })
	s.cfg.Settings.Set([][2]string{{settings.TLSHandshake.Name, "3600000"}})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, "it is there", func() bool { return len(s.all()) == 1 })
} // the cleanup stops the server

// Without this a certificate that is over is found by the clients, each with an error of its own.
func TestEndOfTheCertificateIsTold(t *testing.T) {
	a := newAuthority(t)
	a.make("first", "server") // it holds for an hour
	var log bytes.Buffer
	values, err := settings.New([][2]string{{"tls-cert-file", a.path("server.crt")}, {"tls-key-file", a.path("server.key")}, {"tls-auth-clients", "no"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCertificates(values, zerolog.New(&log))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, at := range []struct {
		when time.Time
		want string // "": nothing
	}{
		{now, ""}, // the start has said so
		{now.Add(2 * warnOfEndEvery), "is over"},
		{now.Add(2*warnOfEndEvery + time.Hour), ""},
		{now.Add(4 * warnOfEndEvery), "is over"},
	} {
		if !strings.Contains(log.String(), "ends soon") {
			t.Fatalf("the start says %q", log.String())
		}
		before := log.Len()
		c.warnOfEnd(at.when)
		if said := log.String()[before:]; !strings.Contains(said, at.want) || at.want == "" && said != "" {
			t.Errorf("%v later the log says %q, want %q", at.when.Sub(now), said, at.want)
		}
	}
	c.warnedOfEnd = time.Time{}
	before := log.Len()
	if c.warnOfEnd(now.Add(-2 * time.Hour)); !strings.Contains(log.String()[before:], "does not hold yet") {
		t.Errorf("before it begins: %q", log.String()[before:])
	}
}
