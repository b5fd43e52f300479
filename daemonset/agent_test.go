package daemonset_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/daemonset"
	"github.com/braidobs/braid/daemonset/scrape"
	"github.com/braidobs/braid/daemonset/tail"
	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend is Braid's receiver over the naive store; before, when set, may answer instead.
type backend struct {
	store  *testkit.Store
	url    string
	before atomic.Pointer[func(w http.ResponseWriter, r *http.Request, body []byte) bool]
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{store: testkit.NewStore("")}
	s := otlp.New(otlp.DefaultConfig(), otlp.Deps{
		Pipeline: ingest.New(ingest.DefaultConfig(), ingest.Deps{Writer: b.store, Now: time.Now, Metrics: prometheus.NewRegistry()}), Now: time.Now,
	})
	mux := http.NewServeMux()
	for pattern, h := range s.Routes() {
		mux.Handle(pattern, h)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := b.before.Load(); f != nil {
			body, err := io.ReadAll(r.Body)
			if err != nil || (*f)(w, r, body) {
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	b.url = srv.URL
	return b
}

// record is a line as it was stored.
type record struct {
	body     string
	stream   string
	severity uint8
	trace    string
	attrs    telemetry.Attrs
	resource telemetry.Attrs
}

func (b *backend) records(t *testing.T) (out []record) {
	t.Helper()
	v, err := b.store.View(t.Context(), 0)
	require.NoError(t, err)
	defer v.Close()
	for blk, err := range v.Logs(t.Context(), storage.LogQuery{Tenant: telemetry.DefaultTenant, Start: 0, End: 1 << 62, Columns: storage.LogAll, Order: storage.OldestFirst}) {
		require.NoError(t, err)
		for i := range blk.Len() {
			r := blk.Record(i)
			out = append(out, record{
				body: r.Body.Str(), stream: blk.StreamOf(i).Labels().String(), severity: r.Severity, trace: r.TraceID.String(),
				attrs: r.Attrs, resource: blk.ResourceOf(i).Attrs,
			})
		}
	}
	return out
}

func text(as telemetry.Attrs, key string) string {
	v, _ := as.Get(key)
	return v.Text()
}

// start runs an agent until the test ends, or the returned func is called.
func start(t *testing.T, url, state, pods string, change func(*daemonset.Config)) (string, func()) {
	t.Helper()
	cfg := daemonset.DefaultConfig()
	cfg.State, cfg.Backend.Endpoint, cfg.Logs.PodsDir, cfg.Cluster = state, url, pods, "c1"
	cfg.Server.HTTP = "127.0.0.1:0"
	cfg.Server.Drain = config.Duration(time.Second)
	if change != nil {
		change(&cfg)
	}
	banner := &lines{first: make(chan struct{})}
	a, err := daemonset.New(cfg, daemonset.Options{Version: "test", Banner: banner, Log: io.Discard, Now: time.Now, SelfUID: "self"})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	select {
	case <-banner.first:
	case err := <-done:
		t.Fatalf("the agent ended: %v", err)
	}
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(stop)
	_, rest, _ := strings.Cut(banner.text, "own status  ")
	base, _, _ := strings.Cut(rest, "/ and")
	return base, stop
}

// lines keeps the first thing written.
type lines struct {
	text  string
	first chan struct{}
}

func (l *lines) Write(b []byte) (int, error) {
	if l.text == "" {
		l.text = string(b)
		close(l.first)
	}
	return len(b), nil
}

func write(t *testing.T, pods, pod string, lines ...string) {
	t.Helper()
	dir := filepath.Join(pods, pod, "main")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	f, err := os.OpenFile(filepath.Join(dir, "0.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	require.NoError(t, err)
	for _, l := range lines {
		_, err := fmt.Fprintf(f, "%s stdout F %s\n", time.Now().UTC().Format(time.RFC3339Nano), l)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
}

func get(t *testing.T, link string, into any) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link, nil)
	require.NoError(t, err)
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	if into != nil {
		require.NoError(t, json.Unmarshal(b, into), string(b))
	}
	return resp.StatusCode
}

func TestAgent(t *testing.T) {
	b := newBackend(t)
	pods, state := t.TempDir(), t.TempDir()
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "x 1") }))
	defer target.Close()
	host := filepath.Join(t.TempDir(), "app.log")
	require.NoError(t, os.WriteFile(host, []byte("level=warn msg=hello\n"), 0o600))
	base, stop := start(t, b.url, state, pods, func(c *daemonset.Config) {
		c.Scrape.Interval, c.Scrape.Timeout = config.Duration(200*time.Millisecond), config.Duration(200*time.Millisecond)
		c.Scrape.Static = []scrape.Static{{Job: "t", Targets: []string{strings.TrimPrefix(target.URL, "http://")}}}
		c.Logs.Sources = []tail.Source{{Name: "app", Include: []string{host}, Format: "auto", Attributes: map[string]string{"team": "shop"}}}
	})
	write(t, pods, "shop_cart-1_u1", `{"level":"error","msg":"no","trace_id":"0102030405060708090a0b0c0d0e0f10","order":{"id":7}}`, "plain", strings.Repeat("y", 20))
	write(t, pods, "braid_agent-1_self", "my own log feeds itself")
	require.Eventually(t, func() bool { return len(b.records(t)) == 4 }, 30*time.Second, 20*time.Millisecond)
	byBody := map[string]record{}
	for _, r := range b.records(t) {
		byBody[r.body] = r
		require.NotContains(t, r.body, "own log")
		_, leaked := r.resource.Get(otlp.SourceStream)
		require.False(t, leaked)
		require.Equal(t, "c1", text(r.resource, "k8s.cluster.name"))
	}
	js := byBody[`{"level":"error","msg":"no","trace_id":"0102030405060708090a0b0c0d0e0f10","order":{"id":7}}`]
	require.EqualValues(t, 17, js.severity)
	require.Equal(t, "0102030405060708090a0b0c0d0e0f10", js.trace)
	require.Equal(t, "7", text(js.attrs, "order.id"))
	require.Equal(t, "stdout", text(js.attrs, "log.iostream"))
	require.Equal(t, `{container="main", namespace="shop", pod="cart-1", service_name="main"}`, js.stream)
	require.Equal(t, "u1", text(js.resource, "k8s.pod.uid"))
	file := byBody["level=warn msg=hello"]
	require.Equal(t, "shop", text(file.resource, "team"))
	require.EqualValues(t, 13, file.severity)
	require.Contains(t, file.stream, `filename="`+host+`"`)

	require.Eventually(t, func() bool {
		v, err := b.store.View(t.Context(), 0)
		require.NoError(t, err)
		defer v.Close()
		names, err := v.LabelValues(t.Context(), "__name__", storage.SeriesQuery{Tenant: telemetry.DefaultTenant, Start: 0, End: 1 << 62})
		require.NoError(t, err)
		return strings.Contains(strings.Join(names, " "), "up x")
	}, 30*time.Second, 20*time.Millisecond, "scraped metrics go through the queue")

	require.Equal(t, http.StatusOK, get(t, base+"/-/ready", nil))
	require.Equal(t, http.StatusOK, get(t, base+"/-/healthy", nil))
	var st struct{ Data daemonset.Status }
	get(t, base+"/api/v1/status", &st)
	require.Len(t, st.Data.Streams, 2)
	require.Equal(t, "up", st.Data.Targets[0].Health)
	stop()

	// What was written while the agent was away comes once; what was acknowledged does not come again.
	write(t, pods, "shop_cart-1_u1", "later")
	_, _ = start(t, b.url, state, pods, nil)
	require.Eventually(t, func() bool { return len(b.records(t)) == 5 }, 30*time.Second, 20*time.Millisecond)
}

// TestPoison has a backend that refuses every request that holds one line: the lines around it arrive.
func TestPoison(t *testing.T) {
	b := newBackend(t)
	var tries atomic.Int64
	refuse := func(w http.ResponseWriter, _ *http.Request, body []byte) bool {
		plain, err := decompress(body)
		if err == nil && strings.Contains(plain, "poison") {
			tries.Add(1)
			http.Error(w, "I will not have it", http.StatusBadRequest)
			return true
		}
		return false
	}
	b.before.Store(&refuse)
	pods := t.TempDir()
	var lines []string
	for i := range 40 {
		lines = append(lines, fmt.Sprintf("line %d", i))
	}
	lines[23] = "poison"
	write(t, pods, "shop_cart-1_u1", lines...)
	base, _ := start(t, b.url, t.TempDir(), pods, nil)
	require.Eventually(t, func() bool { return len(b.records(t)) == 39 }, 30*time.Second, 20*time.Millisecond)
	require.LessOrEqual(t, tries.Load(), int64(10), "it is found by halves")
	var st struct{ Data daemonset.Status }
	require.Eventually(t, func() bool {
		get(t, base+"/api/v1/status", &st)
		return len(st.Data.Streams) == 1 && st.Data.Streams[0].Lag == 0
	}, 30*time.Second, 20*time.Millisecond, "the stream goes on")
}

// TestStopsWithoutBackend ends an agent whose backend hangs: it must not hang as well, and nothing is lost.
func TestStopsWithoutBackend(t *testing.T) {
	b := newBackend(t)
	release := make(chan struct{})
	var calls atomic.Int64
	hang := func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		calls.Add(1)
		select {
		case <-r.Context().Done():
		case <-release:
		}
		return true
	}
	b.before.Store(&hang)
	defer close(release)
	pods, state := t.TempDir(), t.TempDir()
	write(t, pods, "shop_cart-1_u1", "line")
	_, stop := start(t, b.url, state, pods, nil)
	require.Eventually(t, func() bool { return calls.Load() > 0 }, 30*time.Second, 5*time.Millisecond)
	began := time.Now()
	stop()
	require.Less(t, time.Since(began), 20*time.Second)
	b.before.Store(nil)
	_, _ = start(t, b.url, state, pods, nil)
	require.Eventually(t, func() bool { return len(b.records(t)) == 1 }, 30*time.Second, 20*time.Millisecond)
}

func TestConfig(t *testing.T) {
	cfg := daemonset.DefaultConfig()
	require.NoError(t, config.Validate(&cfg))
	cfg.State, cfg.Server.OTLPGRPC, cfg.OTLP.MaxBody, cfg.Backend.Endpoint, cfg.Scrape.Interval = "", "x", 0, "x", 0
	err := config.Validate(&cfg)
	for _, want := range []string{"state", "server.otlp_grpc", "otlp.max_body", "backend.endpoint", "scrape.interval"} {
		require.ErrorContains(t, err, want)
	}
	var out bytes.Buffer
	require.NoError(t, config.Example(&out, daemonset.DefaultConfig()))
	for _, k := range config.Keys(daemonset.DefaultConfig()) {
		leaf := k[strings.LastIndexByte(k, '.')+1:]
		require.Contains(t, out.String(), leaf+":")
	}
}

func decompress(b []byte) (string, error) {
	d, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return "", err
	}
	defer d.Close()
	out, err := io.ReadAll(d)
	return string(out), err
}
