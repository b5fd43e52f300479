// Package syslog receives syslog of RFC 5424 and RFC 3164 over UDP, TCP and TLS.
//
// A sender gets no answer, so messages are gathered for a moment and written together. While the store is overloaded,
// connections are not read from, which their senders notice; datagrams cannot wait and are counted as dropped.
package syslog

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/braidobs/braid/internal/config"
)

// Config is what an operator can set.
type Config struct {
	Listen  []string `yaml:"listen" help:"Where syslog is received: udp://, tcp:// or tls:// with an address. Empty is off."`
	TLSCert string   `yaml:"tls_cert" help:"The file with the certificate of tls:// addresses."`
	TLSKey  string   `yaml:"tls_key" help:"The file with the key of tls:// addresses."`
}

// DefaultConfig receives nothing.
func DefaultConfig() Config { return Config{} }

// Validate returns all mistakes.
func (c Config) Validate() error {
	var e config.Errors
	secure := false
	for i, s := range c.Listen {
		transport, addr, _ := strings.Cut(s, "://")
		switch transport {
		case "udp", "tcp":
		case "tls":
			secure = true
		default:
			e.Field(fmt.Sprintf("listen[%d]", i), fmt.Errorf("%q does not begin with udp://, tcp:// or tls://", s))
			continue
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			e.Field(fmt.Sprintf("listen[%d]", i), fmt.Errorf("%q is not an address: %w", addr, err))
		}
	}
	if secure && c.TLSCert == "" {
		e.Field("tls_cert", errors.New("must be set where listen has a tls:// address"))
	}
	if secure && c.TLSKey == "" {
		e.Field("tls_key", errors.New("must be set where listen has a tls:// address"))
	}
	return e.Err()
}

// certificate reads the files of the certificate anew for each connection, so that one that is renewed is used.
func (c Config) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("certificate of syslog: %w", err)
	}
	return &cert, nil
}
