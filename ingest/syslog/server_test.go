package syslog_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/syslog"
	"github.com/braidobs/braid/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// writer is a storage.Writer that keeps what it is given, and fails as often as it is told.
type writer struct {
	mu       sync.Mutex // guards what follows
	requests []storage.Request
	keys     []storage.Key // of all attempts
	fail     []error
	closed   chan struct{} // writes wait for it; nil for not
}

func (w *writer) Write(_ context.Context, r storage.Request) (storage.Position, storage.Rejected, error) {
	if w.closed != nil {
		<-w.closed
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys = append(w.keys, r.Key)
	if len(w.fail) > 0 {
		err := w.fail[0]
		w.fail = w.fail[1:]
		return 0, storage.Rejected{}, err
	}
	w.requests = append(w.requests, r)
	return 1, r.Rejected, nil
}

// lines returns what was written, one record a line, sorted.
func (w *writer) lines() (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		for _, b := range r.Batches {
			for i := range b.Logs {
				l := &b.Logs[i]
				out = append(out, fmt.Sprintf("%s %s %d %s %.20q %s", b.Stream.Labels(), b.Resource.Attrs.AppendJSON(nil), l.Severity, l.SeverityText, l.Body.Text(), l.Attrs.AppendJSON(nil)))
			}
		}
	}
	sort.Strings(out)
	return out
}

type rig struct {
	*writer
	*syslog.Server
	reg  *prometheus.Registry
	stop func()
}

func start(t *testing.T, w *writer, c syslog.Config) *rig {
	t.Helper()
	require.NoError(t, c.Validate())
	r := &rig{writer: w, reg: prometheus.NewRegistry()}
	pipe := ingest.New(ingest.DefaultConfig(), ingest.Deps{Writer: w, Now: time.Now})
	r.Server = syslog.New(c, syslog.Deps{Pipeline: pipe, Now: time.Now, Log: slog.New(slog.DiscardHandler), Metrics: r.reg})
	require.NoError(t, r.Listen(t.Context()))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(r.stop)
	return r
}

func (r *rig) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	fs, err := r.reg.Gather()
	require.NoError(t, err)
	for _, f := range fs {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// certificate writes one for the loopback address and returns its files.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	require.NoError(t, err)
	kb, err := x509.MarshalECPrivateKey(k)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: kb}), 0o600))
	pool = x509.NewCertPool()
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool.AddCert(c)
	return cert, key, pool
}

func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), network, addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_, err := c.Write([]byte(text))
	require.NoError(t, err)
}

func TestTransports(t *testing.T) {
	cert, key, pool := certificate(t)
	r := start(t, &writer{}, syslog.Config{Listen: []string{"udp://127.0.0.1:0", "tcp://127.0.0.1:0", "tls://127.0.0.1:0"}, TLSCert: cert, TLSKey: key})
	at := time.Now().UTC().Format(time.RFC3339)
	udp := dial(t, "udp", r.Addrs()[0])
	send(t, udp, "<11>1 "+at+" h1 cron 7 ID1 [x@1 a=\"b\"] udp one")
	send(t, udp, "just text")
	tcp := dial(t, "tcp", r.Addrs()[1])
	send(t, tcp, "<14>1 "+at+" h2 app - - - tcp one\n<14>1 "+at+" h2 app - - - tcp two\n")
	counted := "<14>1 " + at + " h2 app - - - two\nlines"
	send(t, tcp, fmt.Sprintf("%d %s", len(counted), counted))
	send(t, tcp, "<14>1 "+at+" h2 app - - - "+strings.Repeat("x", 2<<20)+"\n")
	secure := tls.Client(dial(t, "tcp", r.Addrs()[2]), &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
	send(t, secure, "<8>1 "+at+" h3 app - - - tls one\n")
	plain := dial(t, "tcp", r.Addrs()[2])
	send(t, plain, "<8>1 not secure\n\n\n")
	want := []string{
		`{host="127.0.0.1", service_name="unknown_service"} {"host.name":"127.0.0.1"} 0  "just text" {}`,
		`{host="h1", service_name="cron"} {"host.name":"h1","service.name":"cron"} 17 err "udp one" {"syslog.facility":"user","syslog.msgid":"ID1","syslog.procid":"7","x@1.a":"b"}`,
		`{host="h2", service_name="app"} {"host.name":"h2","service.name":"app"} 9 info "tcp one" {"syslog.facility":"user"}`,
		`{host="h2", service_name="app"} {"host.name":"h2","service.name":"app"} 9 info "tcp two" {"syslog.facility":"user"}`,
		`{host="h2", service_name="app"} {"host.name":"h2","service.name":"app"} 9 info "two\nlines" {"syslog.facility":"user"}`,
		`{host="h2", service_name="app"} {"host.name":"h2","service.name":"app"} 9 info "xxxxxxxxxxxxxxxxxxxx" {"log.truncated":true,"syslog.facility":"user"}`,
		`{host="h3", service_name="app"} {"host.name":"h3","service.name":"app"} 21 emerg "tls one" {"syslog.facility":"user"}`,
	}
	require.Eventually(t, func() bool { return len(r.lines()) == len(want) }, 5*time.Second, 10*time.Millisecond)
	require.Equal(t, want, r.lines())
	require.InDelta(t, 2, r.metric(t, "braid_syslog_messages_total", "udp"), 0)
	require.InDelta(t, 4, r.metric(t, "braid_syslog_messages_total", "tcp"), 0)
	require.InDelta(t, 1, r.metric(t, "braid_syslog_messages_total", "tls"), 0)
	require.Eventually(t, func() bool { return r.metric(t, "braid_syslog_dropped_total", "bad_handshake") == 1 }, 5*time.Second, 10*time.Millisecond)
	require.NoError(t, secure.Close())
	require.NoError(t, tcp.Close())
	require.Eventually(t, func() bool { return r.metric(t, "braid_syslog_connections", "") == 0 }, 5*time.Second, 10*time.Millisecond)
}

// While the store asks for patience nothing that came over a connection is lost: the batch is sent again under its key.
func TestOverload(t *testing.T) {
	w := &writer{fail: []error{&storage.Overloaded{RetryAfter: time.Millisecond}, storage.ErrOverloaded}}
	r := start(t, w, syslog.Config{Listen: []string{"tcp://127.0.0.1:0"}})
	send(t, dial(t, "tcp", r.Addrs()[0]), "one\ntwo\n")
	require.Eventually(t, func() bool { return len(w.lines()) == 2 }, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, w.keys[0], w.keys[1])
	require.Equal(t, w.keys[0], w.keys[2])
	require.NotZero(t, w.keys[0])
	require.InDelta(t, 0, r.metric(t, "braid_syslog_dropped_total", "refused"), 0)

	w.mu.Lock()
	w.fail = []error{storage.ErrClosed}
	w.mu.Unlock()
	send(t, dial(t, "tcp", r.Addrs()[0]), "three\n")
	require.Eventually(t, func() bool { return r.metric(t, "braid_syslog_dropped_total", "refused") == 1 }, 10*time.Second, 10*time.Millisecond)
}

// A store that hangs stops connections from being read; datagrams are dropped and counted. At the stop what has arrived is
// written.
func TestBackPressure(t *testing.T) {
	w := &writer{closed: make(chan struct{})}
	r := start(t, w, syslog.Config{Listen: []string{"udp://127.0.0.1:0", "tcp://127.0.0.1:0"}})
	udp, tcp := dial(t, "udp", r.Addrs()[0]), dial(t, "tcp", r.Addrs()[1])
	big := strings.Repeat("y", 1<<20) + "\n"
	require.NoError(t, tcp.SetWriteDeadline(time.Now().Add(700*time.Millisecond)))
	sent := 0
	for range 200 {
		if _, err := tcp.Write([]byte(big)); err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			break
		}
		sent++
	}
	require.Less(t, sent, 100, "the sender was not held back")
	require.Eventually(t, func() bool {
		send(t, udp, strings.Repeat("z", 60_000))
		return r.metric(t, "braid_syslog_dropped_total", "queue_full") > 0
	}, 5*time.Second, time.Millisecond)
	close(w.closed)
	require.Eventually(t, func() bool { return len(w.lines()) >= 30 }, 10*time.Second, 10*time.Millisecond)
	r.stop()
	require.GreaterOrEqual(t, len(w.lines()), 30)
}

func TestListenErrors(t *testing.T) {
	busy, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	for _, c := range []syslog.Config{
		{Listen: []string{"udp://127.0.0.1:0", "tcp://" + busy.Addr().String()}},
		{Listen: []string{"tls://127.0.0.1:0"}, TLSCert: "none", TLSKey: "none"},
	} {
		s := syslog.New(c, syslog.Deps{Now: time.Now})
		require.ErrorContains(t, s.Listen(t.Context()), "listen on "+c.Listen[len(c.Listen)-1])
		require.Empty(t, s.Addrs())
	}
}

func TestConfig(t *testing.T) {
	require.NoError(t, syslog.DefaultConfig().Validate())
	require.NoError(t, syslog.Config{Listen: []string{"udp://:514", "tcp://[::1]:601", "tls://h:6514"}, TLSCert: "c", TLSKey: "k"}.Validate())
	err := syslog.Config{Listen: []string{"h:1", "udp://h", "tls://:1", "unix:///dev/log"}}.Validate()
	for _, want := range []string{"listen[0]", "listen[1]", "listen[3]", "tls_cert", "tls_key"} {
		require.ErrorContains(t, err, want)
	}
	reg := prometheus.NewRegistry()
	syslog.New(syslog.DefaultConfig(), syslog.Deps{Metrics: reg})
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}
