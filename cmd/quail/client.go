package main

// How the commands that talk to a running server reach it: health and backup. The flags for TLS and for users have redis-cli's names, and
// whoever has the server's own settings, such as a container's health check, needs none of them.

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"quail/server/settings"
)

// clientSettings are the server's settings that tell how to reach it.
var clientSettings = []*settings.Setting{settings.Listen.Setting, settings.RequirePass.Setting, settings.TLSPort.Setting, settings.TLSOnly.Setting,
	settings.TLSCert.Setting, settings.TLSKey.Setting, settings.TLSCA.Setting, settings.TLSAuthClients.Setting}

// clientFlags say who the client is.
type clientFlags struct {
	User string `name:"user" env:"QUAIL_USER" placeholder:"NAME" help:"User to authenticate as. Default: default."`
	Pass string `name:"pass" env:"QUAIL_PASSWORD,REDISCLI_AUTH" placeholder:"TEXT" help:"The user's password. Default: requirepass. The environment is safer: a command line can be seen by others."`

	tlsFlags
}

// tlsFlags say how to speak TLS, in redis-cli's words.
type tlsFlags struct {
	TLS      bool   `name:"tls" help:"Speak TLS, to tls-port if that is set, else to the port of listen. Default: if the server is tls-only."`
	SNI      string `name:"sni" placeholder:"HOST" help:"Name that the server's certificate must have. Default: the host of listen."`
	CACert   string `name:"cacert" env:"QUAIL_CLIENT_CACERT" placeholder:"FILE" help:"Authorities that the server's certificate must come from, PEM. Default: the one certificate in tls-cert-file if that is set, else the system's authorities."`
	Cert     string `name:"cert" env:"QUAIL_CLIENT_CERT" placeholder:"FILE" help:"The client's own certificate, PEM. Default: tls-cert-file."`
	Key      string `name:"key" env:"QUAIL_CLIENT_KEY" placeholder:"FILE" help:"The private key of --cert, PEM. Default: tls-key-file."`
	Insecure bool   `name:"insecure" help:"Take any certificate of the server. Whoever is in between can read the password then."`
}

// check finds flags that mean nothing without another.
func (f *tlsFlags) check() error {
	switch {
	case (f.Cert == "") != (f.Key == ""):
		return errors.New("--cert and --key: give both or none")
	case f.Insecure && f.CACert != "":
		return errors.New("--insecure and --cacert: give one of them")
	}
	return nil
}

// link is a connection to a server.
type link struct {
	net.Conn
	replies *bufio.Reader
	// doubt, if not nil, is why the other end may not be the server that was meant: it gets no secret.
	doubt error
}

// dial connects within that time, which also bounds what is asked then, and tells the address also with an error.
func (f *clientFlags) dial(values *settings.Values, within time.Duration) (server *link, address string, err error) {
	secure := f.TLS || values.Bool(settings.TLSOnly)
	address = reachable(values.Text(settings.Listen))
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, address, err
	}
	if port := values.Int(settings.TLSPort); secure && port != 0 {
		address = net.JoinHostPort(host, strconv.FormatInt(port, 10))
	}
	end := time.Now().Add(within)
	conn, err := net.DialTimeout("tcp", address, within)
	if err != nil {
		return nil, address, err
	}
	server = &link{Conn: conn}
	if err := conn.SetDeadline(end); err != nil {
		conn.Close()
		return nil, address, err
	}
	if secure {
		if err := f.secure(server, values, host); err != nil {
			conn.Close()
			return nil, address, err
		}
	}
	server.replies = bufio.NewReader(server)
	return server, address, nil
}

// secure does the handshake.
func (f *tlsFlags) secure(server *link, values *settings.Values, host string) error {
	config, err := f.config(host)
	if err != nil {
		return err
	}
	own := f.usesServerFiles(values)
	if own {
		config.InsecureSkipVerify = true // isOurs looks at it in place of this
		if pair, err := tls.LoadX509KeyPair(values.Text(settings.TLSCert), values.Text(settings.TLSKey)); err == nil && f.Cert == "" {
			config.Certificates = []tls.Certificate{pair}
		}
	}
	conn := tls.Client(server.Conn, config)
	if err := conn.Handshake(); err != nil {
		var unknown x509.UnknownAuthorityError
		if errors.As(err, &unknown) {
			err = fmt.Errorf("%w; name its authority's certificates with --cacert", err)
		}
		return fmt.Errorf("handshake: %w", err)
	}
	server.Conn = conn
	if own {
		server.doubt = isOurs(conn.ConnectionState().PeerCertificates, values)
	}
	return nil
}

// usesServerFiles says that nobody told how to know the server, but that its own files are named here.
func (f *tlsFlags) usesServerFiles(values *settings.Values) bool {
	return f.CACert == "" && !f.Insecure && values.Text(settings.TLSCert) != ""
}

// config is what the flags alone say.
func (f *tlsFlags) config(host string) (*tls.Config, error) {
	config := &tls.Config{ServerName: f.SNI, InsecureSkipVerify: f.Insecure}
	if config.ServerName == "" {
		config.ServerName = host
	}
	if f.CACert != "" {
		pool, err := authorities(f.CACert)
		if err != nil {
			return nil, fmt.Errorf("--cacert: %w", err)
		}
		config.RootCAs = pool
	}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("--cert and --key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func authorities(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return pool, nil
}

// isOurs wants the certificate to be the one of tls-cert-file: the file is the server's own, and its certificate need not have the address that
// it is reached at from the same machine. That one of tls-ca-cert-file has signed it would not do: these sign clients' certificates too.
func isOurs(shown []*x509.Certificate, values *settings.Values) error {
	pair, err := tls.LoadX509KeyPair(values.Text(settings.TLSCert), values.Text(settings.TLSKey))
	if err != nil {
		return fmt.Errorf("tls-cert-file and tls-key-file: %w", err)
	}
	if !shown[0].Equal(pair.Leaf) {
		return fmt.Errorf("its certificate (%q) is not that of tls-cert-file; name its authority with --cacert", shown[0].Subject)
	}
	return nil
}

// authenticate gives the password, if there is one: the flags', or requirepass for the default user.
func (f *clientFlags) authenticate(server *link, values *settings.Values) error {
	user, password := f.credentials(values)
	if password == "" {
		return nil
	}
	_, err := server.ask("AUTH", user, password)
	return err
}

func (f *clientFlags) credentials(values *settings.Values) (user, password string) {
	user, password = f.User, f.Pass
	if password == "" && user == "" {
		password = values.Text(settings.RequirePass)
	}
	if user == "" {
		user = "default"
	}
	return user, password
}

// reachable turns the address that a server listens on into one to connect to: all interfaces include loopback.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}

// ask sends one command and returns its reply as a list of texts.
func (l *link) ask(words ...string) ([]string, error) {
	var request strings.Builder
	fmt.Fprintf(&request, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := io.WriteString(l, request.String()); err != nil {
		return nil, err
	}
	list, err := readReply(l.replies)
	if _, secure := l.Conn.(*tls.Conn); errors.Is(err, io.EOF) && !secure {
		err = fmt.Errorf("%w; if it speaks TLS, say --tls", err)
	}
	return list, err
}

// replyBytesMax bounds one text of an answer: whoever listens in the server's place must not fill the memory.
const replyBytesMax = 1 << 20

// readReply reads texts, numbers and flat arrays of them.
func readReply(replies *bufio.Reader) ([]string, error) {
	line, err := replies.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("waiting for its answer: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return nil, errors.New("it answers an empty line")
	}
	switch n, _ := strconv.Atoi(line[1:]); line[0] {
	case '-':
		if strings.HasPrefix(line, "-NOAUTH ") {
			line += " Say --user and --pass, or set QUAIL_USER and QUAIL_PASSWORD."
		}
		return nil, errors.New(line[1:])
	case '+', ':':
		return []string{line[1:]}, nil
	case '$':
		if n > replyBytesMax {
			return nil, fmt.Errorf("it answers a text of %d bytes", n)
		}
		text := make([]byte, max(n, 0)+2)
		_, err := io.ReadFull(replies, text)
		return []string{string(text[:len(text)-2])}, err
	case '*':
		var list []string
		for range n {
			part, err := readReply(replies)
			if err != nil {
				return nil, err
			}
			list = append(list, part...)
		}
		return list, nil
	}
	return nil, fmt.Errorf("it answers %q", line)
}
