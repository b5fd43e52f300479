package forward

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/telemetry"
)

// Config is section "backend" of the agent's configuration.
type Config struct {
	Endpoint string                   `yaml:"endpoint" help:"The URL of the backend's OTLP/HTTP port."`
	Tenant   string                   `yaml:"tenant" help:"The tenant of what the agent itself collects; what arrives over OTLP keeps its own."`
	Headers  map[string]config.Secret `yaml:"headers" help:"Headers of each request, such as Authorization."`
	CAFile   string                   `yaml:"ca_file" help:"The certificates that vouch for the backend; empty for those of the system."`
	CertFile string                   `yaml:"cert_file" help:"The agent's own certificate, with key_file."`
	KeyFile  string                   `yaml:"key_file" help:"The key of cert_file."`
	Timeout  config.Duration          `yaml:"timeout" help:"How long one request may take before it is tried again."`
	MaxQueue config.Size              `yaml:"max_queue" help:"How much of what has no file to wait in (OTLP, scraped metrics) is kept on disk while the backend is away."`
}

// DefaultConfig sends to a Braid on the same machine.
func DefaultConfig() Config {
	return Config{
		Endpoint: "http://127.0.0.1:4318", Tenant: string(telemetry.DefaultTenant),
		Timeout: config.Duration(30 * time.Second), MaxQueue: 1 << 30,
	}
}

// minQueue is the least that makes a queue: some segments of the log.
const minQueue = 8 << 20

// Validate returns all mistakes.
func (c Config) Validate() error {
	var e config.Errors
	u, err := url.Parse(c.Endpoint)
	switch {
	case err != nil:
		e.Field("endpoint", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		e.Field("endpoint", fmt.Errorf("%q is no URL such as http://braid:4318", c.Endpoint))
	case u.User != nil:
		e.Field("endpoint", errors.New("must not hold a password: use headers"))
	case u.RawQuery != "" || u.Fragment != "":
		e.Field("endpoint", errors.New("must end with the path"))
	case strings.HasSuffix(u.Path, "/v1/logs"), strings.HasSuffix(u.Path, "/v1/traces"), strings.HasSuffix(u.Path, "/v1/metrics"):
		e.Field("endpoint", fmt.Errorf("must end before %s", u.Path[strings.LastIndex(u.Path, "/v1/"):]))
	}
	if !telemetry.Tenant(c.Tenant).Valid() {
		e.Field("tenant", fmt.Errorf("%q is not a legal name", c.Tenant))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		e.Field("cert_file", errors.New("needs key_file and the other way round"))
	}
	if c.Timeout <= 0 {
		e.Field("timeout", errors.New("must be positive"))
	}
	if c.MaxQueue < minQueue {
		e.Field("max_queue", fmt.Errorf("must be at least %s", config.Size(minQueue)))
	}
	return e.Err()
}

// tls returns the TLS configuration, or nil for the default one.
func (c Config) tls() (*tls.Config, error) {
	if c.CAFile == "" && c.CertFile == "" {
		return nil, nil //nolint:nilnil // as http.Transport has it
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("setting backend.ca_file: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("setting backend.ca_file: %s holds no certificate", c.CAFile)
		}
	}
	if c.CertFile != "" {
		// Read at each handshake, so that a renewed certificate is used.
		out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("setting backend.cert_file: %w", err)
			}
			return &cert, nil
		}
		if _, err := out.GetClientCertificate(nil); err != nil {
			return nil, err
		}
	}
	return out, nil
}
