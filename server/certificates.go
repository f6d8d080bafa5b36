package server

// What TLS connections are made with, from files that may change while the server runs: an expiring certificate is replaced without a
// restart. Connections that are open go on with what they began with. Files that do not load change nothing.

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"quail/server/settings"
)

// CertificatesEvery is how often the files are looked at for a change.
const CertificatesEvery = 5 * time.Second

// Certificates gives each new connection the TLS configuration in force. It is safe for concurrent use.
type Certificates struct {
	values  *settings.Values
	log     zerolog.Logger
	current atomic.Pointer[tls.Config]

	mu          sync.Mutex // guards what follows; serialises loading
	seen        string     // what the files looked like when they were loaded last
	warnedOfEnd time.Time  // see warnOfEnd
}

// NewCertificates loads the files that the settings name. A CONFIG SET that names others is refused if they do not load.
func NewCertificates(values *settings.Values, log zerolog.Logger) (*Certificates, error) {
	c := &Certificates{values: values, log: log, seen: look(values)}
	loaded, err := loadTLS(values)
	if err != nil {
		return nil, err
	}
	c.current.Store(loaded)
	c.warnOfEnd(time.Now())
	values.Try([]*settings.Setting{settings.TLSCert.Setting, settings.TLSKey.Setting, settings.TLSCA.Setting, settings.TLSAuthClients.Setting,
		settings.TLSProtocols.Setting}, c.try)
	return c, nil
}

// try loads what CONFIG SET names, before it is said to be done: an operator who is told OK believes that the new certificate is in use.
func (c *Certificates) try(next *settings.Values) (apply func(), err error) {
	seen := look(next)
	loaded, err := loadTLS(next)
	if err != nil {
		return nil, fmt.Errorf("%w; the TLS files in use stay", err)
	}
	return func() { c.use(loaded, seen) }, nil
}

func (c *Certificates) use(loaded *tls.Config, seen string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = seen
	c.loaded(loaded)
}

// loaded puts in force what was loaded. Called with mu held.
func (c *Certificates) loaded(config *tls.Config) {
	c.current.Store(config)
	c.warnedOfEnd = time.Time{}
	c.log.Info().Str("tls-cert-file", c.values.Text(settings.TLSCert)).Msg("loaded the TLS files; new connections use them")
}

// Config is what a new connection is made with.
func (c *Certificates) Config() *tls.Config { return c.current.Load() }

// Reload loads the files again. If that fails, what was in force stays, and the log says why.
func (c *Certificates) Reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = look(c.values)
	loaded, err := loadTLS(c.values)
	if err != nil {
		c.log.Error().Err(err).Msg("cannot load the TLS files; new connections get the certificate that was loaded before")
		return
	}
	c.loaded(loaded)
}

const (
	// endsSoon is how long before the end of the server's certificate the log begins to say so: time enough to have another one made.
	endsSoon = 14 * 24 * time.Hour
	// warnOfEndEvery is how often it says so.
	warnOfEndEvery = 24 * time.Hour
)

// warnOfEnd tells that the server's certificate is not valid, or not much longer: clients would refuse it, each with words of its own.
func (c *Certificates) warnOfEnd(now time.Time) {
	leaf := c.current.Load().Certificates[0].Leaf
	if leaf == nil || now.Sub(c.warnedOfEnd) < warnOfEndEvery {
		return
	}
	line := c.log.Warn().Str("tls-cert-file", c.values.Text(settings.TLSCert))
	switch {
	case now.After(leaf.NotAfter):
		line.Time("ended", leaf.NotAfter).Msg("the server's certificate is over, clients refuse it: put another one in its place")
	case now.Before(leaf.NotBefore):
		line.Time("begins", leaf.NotBefore).Msg("the server's certificate does not hold yet, clients refuse it: look at the clock")
	case leaf.NotAfter.Sub(now) < endsSoon:
		line.Time("ends", leaf.NotAfter).Msg("the server's certificate ends soon: put another one in its place, it is taken up without a restart")
	default:
		return
	}
	c.warnedOfEnd = now
}

// Watch reloads when a file has changed, and tells when the certificate ends, looking once an interval, until stop is closed. Looking finds what watching for events
// misses: files that are exchanged through a link above them.
func (c *Certificates) Watch(every time.Duration, stop <-chan struct{}) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		c.mu.Lock()
		changed := look(c.values) != c.seen
		c.mu.Unlock()
		if changed {
			c.Reload()
		}
		c.mu.Lock()
		c.warnOfEnd(time.Now())
		c.mu.Unlock()
	}
}

// look tells the files apart from what they were.
func look(values *settings.Values) string {
	var all strings.Builder
	for _, s := range []settings.Text{settings.TLSCert, settings.TLSKey, settings.TLSCA} {
		if info, err := os.Stat(values.Text(s)); err == nil {
			fmt.Fprintf(&all, "%d %d;", info.ModTime().UnixNano(), info.Size())
		} else {
			all.WriteString("none;")
		}
	}
	return all.String()
}

func loadTLS(values *settings.Values) (*tls.Config, error) {
	if values.Text(settings.TLSCert) == "" || values.Text(settings.TLSKey) == "" {
		return nil, errors.New("tls-cert-file and tls-key-file must both be set: TLS needs the server's certificate and its key")
	}
	certificate, err := tls.LoadX509KeyPair(values.Text(settings.TLSCert), values.Text(settings.TLSKey))
	if err != nil {
		return nil, fmt.Errorf("tls-cert-file and tls-key-file: %w", err)
	}
	low, high := settings.TLSVersions(values.Text(settings.TLSProtocols))
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: low, MaxVersion: high}
	switch values.Text(settings.TLSAuthClients) {
	case "yes":
		config.ClientAuth = tls.RequireAndVerifyClientCert
	case "optional":
		config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	file := values.Text(settings.TLSCA)
	if file == "" {
		if config.ClientAuth != tls.NoClientCert {
			return nil, errors.New("tls-ca-cert-file: needed to check the certificates of clients; set it, or tls-auth-clients to no")
		}
		return config, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tls-ca-cert-file: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("tls-ca-cert-file: no certificate in %s", file)
	}
	return config, nil
}
