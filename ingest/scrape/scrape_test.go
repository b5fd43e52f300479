package scrape_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/scrape"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start scrapes a target every 100 milliseconds into a store.
func start(t *testing.T, jobs ...scrape.Static) (*scrape.Scraper, *testkit.Store) {
	t.Helper()
	store := testkit.NewStore("")
	cfg := scrape.DefaultConfig()
	cfg.Interval, cfg.Timeout, cfg.Static = config.Duration(100*time.Millisecond), config.Duration(100*time.Millisecond), jobs
	require.NoError(t, cfg.Validate())
	s, err := scrape.New(cfg, scrape.Deps{
		Pipeline: ingest.New(ingest.DefaultConfig(), ingest.Deps{Writer: store, Now: time.Now, Metrics: prometheus.NewRegistry()}),
		Tenant:   telemetry.DefaultTenant, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		http.DefaultClient.CloseIdleConnections()
	})
	return s, store
}

// last returns the kind of the last sample of each series of a name, and the sample.
func last(t *testing.T, s *testkit.Store, name string) map[string]chunkenc.Iterator {
	t.Helper()
	v, err := s.View(t.Context(), 0)
	require.NoError(t, err)
	defer v.Close()
	out := make(map[string]chunkenc.Iterator)
	set := v.Series(t.Context(), storage.SeriesQuery{
		Tenant: telemetry.DefaultTenant, End: math.MaxInt64, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", name)},
	})
	for set.Next() {
		it := set.At().Iterator(nil)
		n := 0
		for it.Next() != chunkenc.ValNone {
			n++
		}
		it = set.At().Iterator(nil)
		for range n {
			it.Next()
		}
		out[set.At().Labels().String()] = it
	}
	require.NoError(t, set.Err())
	return out
}

func floats(t *testing.T, s *testkit.Store, name string) map[string]float64 {
	t.Helper()
	out := make(map[string]float64)
	for key, it := range last(t, s, name) {
		_, out[key] = it.At()
	}
	return out
}

// serve returns the address of a target.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestFormats(t *testing.T) {
	for _, tt := range []struct{ name, kind, body string }{
		{"text", "text/plain; version=0.0.4", "# HELP a_total How many.\n# TYPE a_total counter\na_total{x=\"1\"} 5\n"},
		{"OpenMetrics", "application/openmetrics-text; version=1.0.0; charset=utf-8", "# HELP a How many.\n# TYPE a counter\na_total{x=\"1\"} 5 # {trace_id=\"0a\"} 2\n# EOF\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.kind)
				fmt.Fprint(w, tt.body)
			})
			s, store := start(t, scrape.Static{Job: "app", Targets: []string{addr}, Labels: map[string]string{"zone": "z"}})
			key := labels.FromStrings("__name__", "a_total", "instance", addr, "job", "app", "x", "1", "zone", "z").String()
			require.Eventually(t, func() bool { return len(floats(t, store, "a_total")) > 0 }, 20*time.Second, 10*time.Millisecond)
			require.Equal(t, map[string]float64{key: 5}, floats(t, store, "a_total"))
			require.Equal(t, map[string]float64{strings.Replace(strings.Replace(key, "a_total", "up", 1), `, x="1"`, "", 1): 1}, floats(t, store, "up"))
			v, err := store.View(t.Context(), 0)
			require.NoError(t, err)
			defer v.Close()
			md, err := v.Metadata(t.Context(), telemetry.DefaultTenant, "a_total")
			require.NoError(t, err)
			require.Equal(t, map[string][]telemetry.Metadata{"a_total": {{Type: telemetry.MetricCounter, Help: "How many."}}}, md)
			ex, err := v.Exemplars(t.Context(), storage.SeriesQuery{Tenant: telemetry.DefaultTenant, End: math.MaxInt64})
			require.NoError(t, err)
			require.Equal(t, tt.name == "OpenMetrics", len(ex) == 1)

			targets := s.Targets()
			require.Len(t, targets, 1)
			require.Equal(t, "up", targets[0].Health)
			require.Equal(t, "http://"+addr+"/metrics", targets[0].URL)
			require.NotZero(t, targets[0].Last)
			require.Equal(t, "100ms", targets[0].Interval)
			require.Equal(t, labels.FromStrings("instance", addr, "job", "app", "zone", "z").String(), targets[0].Labels.String())
			require.Len(t, targets[0].Families(), 1)
			require.Equal(t, telemetry.MetricCounter, targets[0].Families()[0].Type)
			require.Equal(t, []string{"app"}, s.Jobs())
		})
	}
}

func TestNativeHistograms(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "native", NativeHistogramBucketFactor: 1.1})
	reg.MustRegister(h)
	for _, v := range []float64{0, 1, 2, 300, -4} {
		h.Observe(v)
	}
	addr := serve(t, promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP)
	_, store := start(t, scrape.Static{Job: "app", Targets: []string{addr}})
	require.Eventually(t, func() bool { return len(last(t, store, "native")) > 0 }, 20*time.Second, 10*time.Millisecond)
	for _, it := range last(t, store, "native") {
		_, got := it.AtHistogram(nil)
		require.Equal(t, uint64(5), got.Count)
		require.InDelta(t, 299, got.Sum, 0)
		require.NotEmpty(t, got.NegativeBuckets)
		require.NotZero(t, it.AtST(), "the histogram was created at a time")
	}
}

// TestStaleness wants the end of what is not there any more: of one series, and of a target.
func TestStaleness(t *testing.T) {
	var phase atomic.Int64
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		switch phase.Load() {
		case 0:
			fmt.Fprint(w, "a 1\nb 2\n")
		case 1:
			fmt.Fprint(w, "a 1\n")
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	s, store := start(t, scrape.Static{Job: "app", Targets: []string{addr}, Path: "/x"})
	stale := func(name string) bool {
		for _, v := range floats(t, store, name) {
			return value.IsStaleNaN(v)
		}
		return false
	}
	require.Eventually(t, func() bool { return len(floats(t, store, "b")) > 0 }, 20*time.Second, 10*time.Millisecond)
	phase.Store(1)
	require.Eventually(t, func() bool { return stale("b") }, 20*time.Second, 10*time.Millisecond)
	require.False(t, stale("a"))
	phase.Store(2)
	require.Eventually(t, func() bool { return stale("a") }, 20*time.Second, 10*time.Millisecond)
	for _, v := range floats(t, store, "up") {
		require.Zero(t, v)
	}
	require.Eventually(t, func() bool {
		target := s.Targets()[0]
		return target.Health == "down" && target.Err != nil && strings.Contains(target.Err.Error(), "500")
	}, 20*time.Second, 10*time.Millisecond)
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		change func(*scrape.Config)
		want   string
	}{
		{func(c *scrape.Config) { c.Timeout = c.Interval + 1 }, "timeout"},
		{func(c *scrape.Config) { c.Interval = 0 }, "interval"},
		{func(c *scrape.Config) { c.MaxSamples = 0 }, "max_samples"},
		{func(c *scrape.Config) { c.Static = []scrape.Static{{Job: "a"}} }, "static[0].targets"},
		{func(c *scrape.Config) { c.Static = []scrape.Static{{Targets: []string{"a:1"}}} }, "static[0].job"},
		{func(c *scrape.Config) {
			c.Static = []scrape.Static{{Job: "a", Targets: []string{"a:1"}}, {Job: "a", Targets: []string{"a:1"}}}
		}, "static[1].job"},
		{func(c *scrape.Config) {
			c.Static = []scrape.Static{{Job: "a", Targets: []string{"a:1"}, Path: "x"}}
		}, "static[0].path"},
	} {
		c := scrape.DefaultConfig()
		require.NoError(t, c.Validate())
		tt.change(&c)
		require.ErrorContains(t, c.Validate(), tt.want)
	}
}
