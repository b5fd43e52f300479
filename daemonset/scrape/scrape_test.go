package scrape_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/daemonset/kube"
	"github.com/braidobs/braid/daemonset/scrape"
	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a scraper whose OTLP goes through Braid's receiver into the naive store.
type rig struct {
	store *testkit.Store
	pods  *kube.Table
	fail  atomic.Bool
}

func newRig(t *testing.T, change func(*scrape.Config)) *rig {
	t.Helper()
	r := &rig{store: testkit.NewStore(""), pods: kube.NewTable()}
	recv := otlp.New(otlp.DefaultConfig(), otlp.Deps{
		Pipeline: ingest.New(ingest.DefaultConfig(), ingest.Deps{Writer: r.store, Now: time.Now, Metrics: prometheus.NewRegistry()}), Now: time.Now,
	})
	h := recv.Handler(storage.Metrics)
	cfg := scrape.DefaultConfig()
	cfg.Interval, cfg.Timeout = config.Duration(100*time.Millisecond), config.Duration(100*time.Millisecond)
	change(&cfg)
	require.NoError(t, cfg.Validate())
	s, err := scrape.New(cfg, scrape.Deps{
		Pods: r.pods, Node: "n1", Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		Send: func(ctx context.Context, md pmetric.Metrics, _ int) error {
			if r.fail.Load() {
				return context.DeadlineExceeded
			}
			body, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
			if err != nil {
				return err
			}
			req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/metrics", strings.NewReader(string(body)))
			req.Header.Set("Content-Type", "application/x-protobuf")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if w.Code != http.StatusOK || w.Body.Len() > 0 {
				return fmt.Errorf("%d: %s", w.Code, w.Body)
			}
			return nil
		},
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return r
}

type sample struct {
	t int64
	v float64
	h *histogram.Histogram
}

// series returns the samples of all series by their labels.
func (r *rig) series(t *testing.T, metric string) map[string][]sample {
	t.Helper()
	v, err := r.store.View(t.Context(), 0)
	require.NoError(t, err)
	defer v.Close()
	set := v.Series(t.Context(), storage.SeriesQuery{
		Tenant: telemetry.DefaultTenant, Start: 0, End: math.MaxInt64, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", metric)},
	})
	out := map[string][]sample{}
	for set.Next() {
		key := set.At().Labels().String()
		it := set.At().Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			if typ == chunkenc.ValHistogram {
				ts, h := it.AtHistogram(nil)
				out[key] = append(out[key], sample{t: ts, h: h})
				continue
			}
			ts, f := it.At()
			out[key] = append(out[key], sample{t: ts, v: f})
		}
	}
	require.NoError(t, set.Err())
	return out
}

func host(t *testing.T, srv *httptest.Server) string {
	t.Helper()
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	return u.Host
}

const page = `# HELP node_cpu Seconds.
# TYPE node_cpu counter
node_cpu{cpu="0",mode="idle"} 12.5
node_cpu{cpu="0",mode="user"} NaN
# TYPE latency histogram
latency_bucket{le="0.5"} 1
latency_bucket{le="+Inf"} 3
latency_sum 2.5
latency_count 3
# TYPE quantiles summary
quantiles{quantile="0.5"} 7
quantiles_sum 8
quantiles_count 9
# TYPE requests_total counter
requests_total{instance="mine"} 4
weird{path="a\"b\\c\n"} -Inf
`

func TestStatic(t *testing.T) {
	var gone atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if gone.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprint(w, page)
	}))
	defer srv.Close()
	r := newRig(t, func(c *scrape.Config) {
		c.Static = []scrape.Static{{Job: "node", Targets: []string{host(t, srv)}, Labels: map[string]string{"rack": "r1"}}}
	})
	require.Eventually(t, func() bool { return len(r.series(t, "up")) == 1 }, 20*time.Second, 10*time.Millisecond)
	id := []string{"instance", host(t, srv), "job", "node", "rack", "r1"}
	with := func(pairs ...string) string { return labels.FromStrings(append(pairs, id...)...).String() }
	want := map[string]float64{
		with("__name__", "up"): 1,
		with("__name__", "node_cpu", "cpu", "0", "mode", "idle"):        12.5,
		with("__name__", "node_cpu", "cpu", "0", "mode", "user"):        math.NaN(),
		with("__name__", "latency_bucket", "le", "0.5"):                 1,
		with("__name__", "latency_bucket", "le", "+Inf"):                3,
		with("__name__", "latency_sum"):                                 2.5,
		with("__name__", "latency_count"):                               3,
		with("__name__", "quantiles", "quantile", "0.5"):                7,
		with("__name__", "quantiles_sum"):                               8,
		with("__name__", "quantiles_count"):                             9,
		with("__name__", "weird", "path", "a\"b\\c\n"):                  math.Inf(-1),
		with("__name__", "requests_total", "exported_instance", "mine"): 4,
	}
	got := r.series(t, ".+")
	for key, v := range want {
		require.Contains(t, got, key)
		if math.IsNaN(v) {
			require.True(t, math.IsNaN(got[key][0].v))
			require.False(t, value.IsStaleNaN(got[key][0].v))
			continue
		}
		require.Equal(t, math.Float64bits(v), math.Float64bits(got[key][0].v), key)
	}
	require.Len(t, got, len(want)+4, "and Prometheus's own: scrape_duration_seconds and its kin")
	v, err := r.store.View(t.Context(), 0)
	require.NoError(t, err)
	meta, err := v.Metadata(t.Context(), telemetry.DefaultTenant, "")
	require.NoError(t, err)
	require.NoError(t, v.Close())
	require.Equal(t, telemetry.MetricCounter, meta["node_cpu"][0].Type)
	require.Equal(t, "Seconds.", meta["node_cpu"][0].Help)
	require.Equal(t, telemetry.MetricHistogram, meta["latency"][0].Type)

	gone.Store(true)
	idle := with("__name__", "node_cpu", "cpu", "0", "mode", "idle")
	last := func() sample { s := r.series(t, ".+"); return s[idle][len(s[idle])-1] }
	require.Eventually(t, func() bool { return value.IsStaleNaN(last().v) }, 20*time.Second, 10*time.Millisecond)
	up := r.series(t, "up")[with("__name__", "up")]
	require.Zero(t, up[len(up)-1].v)
}

func TestHistograms(t *testing.T) {
	reg := prometheus.NewRegistry()
	native := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "native", Help: "Native.", NativeHistogramBucketFactor: 1.1})
	reg.MustRegister(native)
	for _, v := range []float64{0.001, 0.5, 0.5, 100, -3, 0} {
		native.(prometheus.ExemplarObserver).ObserveWithExemplar(v, prometheus.Labels{"trace_id": "0102030405060708090a0b0c0d0e0f10", "other": "x"})
	}
	srv := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	defer srv.Close()
	r := newRig(t, func(c *scrape.Config) { c.Static = []scrape.Static{{Job: "app", Targets: []string{host(t, srv)}}} })
	require.Eventually(t, func() bool { return len(r.series(t, "native")) == 1 }, 20*time.Second, 10*time.Millisecond)
	for key, samples := range r.series(t, "native") {
		h := samples[0].h
		require.NotNil(t, h)
		require.EqualValues(t, 6, h.Count)
		require.InDelta(t, 98.001, h.Sum, 1e-9)
		require.EqualValues(t, 3, h.Schema)
		require.EqualValues(t, 1, h.ZeroCount)
		require.Contains(t, key, `job="app"`)
		// The buckets are those that the client has.
		fams, err := reg.Gather()
		require.NoError(t, err)
		want := &histogram.Histogram{Schema: 3, ZeroThreshold: h.ZeroThreshold, ZeroCount: 1, Count: 6, Sum: h.Sum}
		for _, s := range fams[0].GetMetric()[0].GetHistogram().GetPositiveSpan() {
			want.PositiveSpans = append(want.PositiveSpans, histogram.Span{Offset: s.GetOffset(), Length: s.GetLength()})
		}
		want.PositiveBuckets = fams[0].GetMetric()[0].GetHistogram().GetPositiveDelta()
		for _, s := range fams[0].GetMetric()[0].GetHistogram().GetNegativeSpan() {
			want.NegativeSpans = append(want.NegativeSpans, histogram.Span{Offset: s.GetOffset(), Length: s.GetLength()})
		}
		want.NegativeBuckets = fams[0].GetMetric()[0].GetHistogram().GetNegativeDelta()
		require.True(t, want.ToFloat(nil).Compact(0).Equals(h.ToFloat(nil).Compact(0)), "%s\n%s", want, h)
	}
	v, err := r.store.View(t.Context(), 0)
	require.NoError(t, err)
	defer v.Close()
	ex, err := v.Exemplars(t.Context(), storage.SeriesQuery{Tenant: telemetry.DefaultTenant, Start: 0, End: math.MaxInt64, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "native")}})
	require.NoError(t, err)
	require.NotEmpty(t, ex)
	require.Equal(t, labels.FromStrings("other", "x", "trace_id", "0102030405060708090a0b0c0d0e0f10").String(), ex[0].Exemplars[0].Labels.String())
}

func TestPodsAndKubelet(t *testing.T) {
	var paths atomic.Pointer[string]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all := r.URL.Path
		if old := paths.Load(); old != nil {
			all = *old + " " + all
		}
		paths.Store(&all)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprint(w, "x{pod=\"inner\"} 1\n")
	}))
	defer srv.Close()
	addr := netip.MustParseAddrPort(host(t, srv))
	r := newRig(t, func(c *scrape.Config) { c.Kubelet = srv.URL })
	put := func(uid string, running bool, annotations map[string]string, ports ...kube.Port) {
		annotations["prometheus.io/scrape"] = "true"
		r.pods.Put(&kube.Pod{
			UID: uid, Namespace: "shop", Name: "cart-" + uid, Node: "n1", IPs: []netip.Addr{addr.Addr()}, Running: running, OwnerName: "cart",
			Annotations: annotations, Containers: []kube.Container{{Name: "main", Ports: ports}},
		})
	}
	put("1", true, map[string]string{"prometheus.io/port": strconv.Itoa(int(addr.Port())), "prometheus.io/path": "/custom"}, kube.Port{Number: int32(addr.Port())})
	put("2", false, map[string]string{"prometheus.io/port": strconv.Itoa(int(addr.Port()))})
	require.Eventually(t, func() bool { return len(r.series(t, "x")) == 3 }, 20*time.Second, 10*time.Millisecond)
	require.Contains(t, *paths.Load(), "/custom")
	require.Contains(t, *paths.Load(), "/metrics/cadvisor")
	key := labels.FromStrings("__name__", "x", "container", "main", "exported_pod", "inner", "instance", addr.String(), "job", "cart", "namespace", "shop", "node", "n1", "pod", "cart-1").String()
	require.Contains(t, r.series(t, "x"), key)
	require.Contains(t, r.series(t, "x"), labels.FromStrings("__name__", "x", "instance", "n1", "job", "kubelet", "metrics_path", "/metrics/cadvisor", "node", "n1", "pod", "inner").String())

	// A pod that goes leaves stale markers, after the scraper has waited for a successor.
	r.pods.Delete("1", time.Now())
	require.Eventually(t, func() bool {
		s := r.series(t, "x")[key]
		return value.IsStaleNaN(s[len(s)-1].v)
	}, 30*time.Second, 20*time.Millisecond)
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		change func(*scrape.Config)
		want   string
	}{
		{func(c *scrape.Config) { c.Timeout = c.Interval + 1 }, "timeout"},
		{func(c *scrape.Config) { c.Interval = 0 }, "interval"},
		{func(c *scrape.Config) { c.MaxBody = 0 }, "max_body"},
		{func(c *scrape.Config) { c.MaxSamples = 0 }, "max_samples"},
		{func(c *scrape.Config) { c.Kubelet = "10.0.0.1:10250" }, "no URL such as"},
		{func(c *scrape.Config) { c.Static = []scrape.Static{{Job: "pods", Targets: []string{"a:1"}}} }, "static[0].job"},
		{func(c *scrape.Config) { c.Static = []scrape.Static{{Job: "a"}} }, "static[0].targets"},
		{func(c *scrape.Config) { c.Static = []scrape.Static{{Job: "a", Targets: []string{"http://a"}}} }, "static[0].targets"},
		{func(c *scrape.Config) {
			c.Static = []scrape.Static{{Job: "a", Targets: []string{"a:1"}, Scheme: "ftp"}}
		}, "ftp"},
		{func(c *scrape.Config) {
			c.Static = []scrape.Static{{Job: "a", Targets: []string{"a:1"}, Labels: map[string]string{"": "x"}}}
		}, "static[0].labels"},
	} {
		c := scrape.DefaultConfig()
		require.NoError(t, c.Validate())
		tt.change(&c)
		require.ErrorContains(t, c.Validate(), tt.want)
	}
}
