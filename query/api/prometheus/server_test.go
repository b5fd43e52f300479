package prometheus_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/api/prometheus"
	"github.com/braidobs/braid/storage"
)

func TestParseQuery(t *testing.T) {
	h := handler(t, store(t), nil)
	for _, tt := range []struct{ expr, want string }{
		{"1", `{"type":"numberLiteral","val":"1"}`},
		{`"a"`, `{"type":"stringLiteral","val":"a"}`},
		{"-(x)", `{"type":"unaryExpr","op":"-","expr":{"type":"parenExpr","expr":{"type":"vectorSelector","name":"x",
			"matchers":[{"name":"__name__","value":"x","type":"="}],"offset":0,"offsetExpr":null,"timestamp":null,"startOrEnd":null,"anchored":false,"smoothed":false}}}`},
		{"x[5m] offset 1m", `{"type":"matrixSelector","name":"x","matchers":[{"name":"__name__","value":"x","type":"="}],"range":300000,"rangeExpr":null,
			"offset":60000,"offsetExpr":null,"timestamp":null,"startOrEnd":null,"anchored":false,"smoothed":false}`},
		{`count(1 > bool 2) without (a)`, ""}, // an error of types
		{`{a="b"} @ 5 * on (a) group_left (b) {c="d"} @ end()`, `{"type":"binaryExpr","op":"*","bool":false,
			"matching":{"card":"many-to-one","labels":["a"],"on":true,"include":["b"],"fillValues":{"lhs":null,"rhs":null}},
			"lhs":{"type":"vectorSelector","name":"","matchers":[{"name":"a","value":"b","type":"="}],"offset":0,"offsetExpr":null,"timestamp":5000,"startOrEnd":null,"anchored":false,"smoothed":false},
			"rhs":{"type":"vectorSelector","name":"","matchers":[{"name":"c","value":"d","type":"="}],"offset":0,"offsetExpr":null,"timestamp":null,"startOrEnd":"end","anchored":false,"smoothed":false}}`},
		{"quantile without (a) (0.5, vector(1))", `{"type":"aggregation","op":"quantile","grouping":["a"],"without":true,"param":{"type":"numberLiteral","val":"0.5"},
			"expr":{"type":"call","func":{"name":"vector","argTypes":["scalar"],"variadic":0,"returnType":"vector"},"args":[{"type":"numberLiteral","val":"1"}]}}`},
		{"sum(vector(1))", `{"type":"aggregation","op":"sum","grouping":[],"without":false,"param":null,
			"expr":{"type":"call","func":{"name":"vector","argTypes":["scalar"],"variadic":0,"returnType":"vector"},"args":[{"type":"numberLiteral","val":"1"}]}}`},
		{"(1)[5m:1m+1m]", ""},
		{"vector(1)[5m:(1m+step())]", `{"type":"subquery","expr":{"type":"call","func":{"name":"vector","argTypes":["scalar"],"variadic":0,"returnType":"vector"},
			"args":[{"type":"numberLiteral","val":"1"}]},"range":300000,"rangeExpr":null,"offset":0,"offsetExpr":null,"step":0,
			"stepExpr":{"type":"durationExpr","op":"+","lhs":{"type":"numberLiteral","val":"60","duration":true},"rhs":{"type":"durationExpr","op":"step","lhs":null,"rhs":null,"wrapped":false},"wrapped":true},
			"timestamp":null,"startOrEnd":null}`},
	} {
		code, body := do(t, h, http.MethodPost, "/api/v1/parse_query", url.Values{"query": {tt.expr}}.Encode())
		if tt.want == "" {
			require.Equal(t, http.StatusBadRequest, code, body)
			require.Contains(t, body, `invalid parameter \"query\"`)
			continue
		}
		require.Equal(t, http.StatusOK, code, body)
		require.JSONEq(t, `{"status":"success","data":`+tt.want+`}`, body, tt.expr)
	}
}

// federal is a store with a sample of each kind.
func federal(t *testing.T) storage.Reader {
	t.Helper()
	float := func(v float64, at int64, pairs ...string) telemetry.Series {
		s := series(pairs...)
		s.Samples = []telemetry.Sample{{T: 60_000, V: 7}, {T: at, V: v}}
		return s
	}
	native, custom := series("__name__", "h", "a", "exponential"), series("__name__", "h", "a", "custom")
	native.Histograms = []telemetry.HistogramSample{{T: 90_000, H: &histogram.Histogram{
		Schema: 1, Count: 3, Sum: 4, ZeroThreshold: 0.5, ZeroCount: 1, PositiveSpans: []histogram.Span{{Offset: 1, Length: 1}}, PositiveBuckets: []int64{2},
	}}}
	custom.Histograms = []telemetry.HistogramSample{{T: 90_000, FH: &histogram.FloatHistogram{
		Schema: histogram.CustomBucketsSchema, Count: 6, Sum: 9, CustomValues: []float64{1, 2, 5}, PositiveSpans: []histogram.Span{{Length: 1}, {Offset: 1, Length: 2}}, PositiveBuckets: []float64{1, 2, 3},
	}}}
	s := testkit.NewStore("c")
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{
		float(1.5, 119_000, "__name__", "b", "x", "1"), float(2, 120_000, "__name__", "a", "instance", "i", "x", "2"),
		float(math.Float64frombits(value.StaleNaN), 100_000, "__name__", "a", "x", "stale"), float(3, 120_000, "x", "nameless"), native, custom,
	}}}})
	require.NoError(t, err)
	return s
}

func TestFederate(t *testing.T) {
	h := handler(t, federal(t), nil)
	code, body := do(t, h, http.MethodGet, "/federate?match[]=b&match[]=%7Bx%3D~%22.%2B%22%7D&match[]=h", "")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, `# TYPE a untyped
a{instance="i",x="2"} 2 120000
# TYPE b untyped
b{x="1",instance=""} 1.5 119000
# TYPE h histogram
h_bucket{a="custom",instance="",le="1"} 1 90000
h_bucket{a="custom",instance="",le="2"} 1 90000
h_bucket{a="custom",instance="",le="5"} 3 90000
h_bucket{a="custom",instance="",le="+Inf"} 6 90000
h_sum{a="custom",instance=""} 9 90000
h_count{a="custom",instance=""} 6 90000
`, body)

	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/federate?match[]=h", http.NoBody)
	r.Header.Set("Accept", `application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited`)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var f dto.MetricFamily
	require.NoError(t, expfmt.NewDecoder(w.Body, expfmt.ResponseFormat(w.Header())).Decode(&f))
	require.Equal(t, dto.MetricType_HISTOGRAM, f.GetType())
	require.Len(t, f.GetMetric(), 2)
	x := f.GetMetric()[1].GetHistogram()
	require.InDelta(t, 3, x.GetSampleCountFloat(), 0)
	require.Equal(t, []float64{2}, x.GetPositiveCount())
	require.Equal(t, int32(1), x.GetSchema())

	code, body = do(t, h, http.MethodGet, "/federate?match[]=%7B", "")
	require.Equal(t, http.StatusBadRequest, code)
	require.Contains(t, body, "parse error")
	code, body = do(t, h, http.MethodGet, "/federate", "")
	require.Equal(t, http.StatusOK, code)
	require.Empty(t, body)
}

// TestCardinality wants the numbers of the head of the stock database.
func TestCardinality(t *testing.T) {
	db := teststorage.New(t)
	s := testkit.NewStore("c")
	g := testkit.NewGen(9, testkit.Options{
		Tenants: []telemetry.Tenant{tenant}, Signals: []storage.Signal{storage.Metrics}, InOrder: true, Start: time.Unix(60, 0), Step: time.Second,
	})
	for range 20 {
		req := g.Request(60)
		app := db.Appender(t.Context())
		for i := range req.Batches {
			b := &req.Batches[i] // JSON has no bytes that are not UTF-8
			b.Series = slices.DeleteFunc(b.Series, func(se telemetry.Series) bool { return strings.Contains(string(se.Labels), "\xff") })
			for j := range req.Batches[i].Series {
				se := &req.Batches[i].Series[j]
				_, err := app.Append(0, se.Labels.Labels(), 60_000, 1)
				require.NoError(t, err)
				se.Samples, se.Histograms, se.Exemplars = []telemetry.Sample{{T: 60_000, V: 1}}, nil, nil
			}
		}
		require.NoError(t, app.Commit())
		_, _, err := s.Write(t.Context(), req)
		require.NoError(t, err)
	}
	stats := db.Head().Stats(model.MetricNameLabel, 10_000)
	type counts []struct {
		Name  string
		Value uint64
	}
	var out struct {
		Data struct {
			HeadStats struct {
				NumSeries     uint64
				NumLabelPairs int
			}
			SeriesCountByMetricName, LabelValueCountByLabelName, MemoryInBytesByLabelName counts
			SeriesCountByLabelValuePair, SeriesCountByLabelName                           counts
			SeriesCountByFocusLabelValue                                                  counts
		}
	}
	h := handler(t, s, nil)
	ask := func(params string) {
		t.Helper()
		out.Data.SeriesCountByFocusLabelValue = nil
		code, body := do(t, h, http.MethodGet, "/api/v1/status/tsdb?"+params, "")
		require.Equal(t, http.StatusOK, code, body)
		require.NoError(t, json.Unmarshal([]byte(body), &out))
	}
	same := func(want []index.Stat, got counts) {
		t.Helper()
		texts := func(n int, f func(i int) (string, uint64)) map[string]uint64 {
			m := make(map[string]uint64)
			for i := range n {
				name, v := f(i)
				m[name] = v
			}
			return m
		}
		require.Equal(t,
			texts(len(want), func(i int) (string, uint64) { return want[i].Name, want[i].Count }),
			texts(len(got), func(i int) (string, uint64) { return got[i].Name, got[i].Value }))
		for i := 1; i < len(got); i++ {
			require.GreaterOrEqual(t, got[i-1].Value, got[i].Value)
		}
	}
	ask("limit=10000")
	require.Positive(t, stats.NumSeries)
	require.Equal(t, stats.NumSeries, out.Data.HeadStats.NumSeries)
	require.Equal(t, stats.IndexPostingStats.NumLabelPairs, out.Data.HeadStats.NumLabelPairs)
	same(stats.IndexPostingStats.CardinalityMetricsStats, out.Data.SeriesCountByMetricName)
	same(stats.IndexPostingStats.CardinalityLabelStats, out.Data.LabelValueCountByLabelName)
	same(stats.IndexPostingStats.LabelValueStats, out.Data.MemoryInBytesByLabelName)
	same(stats.IndexPostingStats.LabelValuePairsStats, out.Data.SeriesCountByLabelValuePair)

	all := out.Data.SeriesCountByMetricName
	ask("limit=1")
	require.Equal(t, all[:1], out.Data.SeriesCountByMetricName)
	require.Equal(t, out.Data.HeadStats.NumSeries, out.Data.SeriesCountByLabelName[0].Value)

	metric := all[0]
	ask("limit=100&label=job&metric=" + url.QueryEscape(metric.Name))
	require.Equal(t, metric.Value, out.Data.HeadStats.NumSeries)
	require.Len(t, out.Data.SeriesCountByMetricName, 1)
	sum := uint64(0)
	for _, c := range out.Data.SeriesCountByFocusLabelValue {
		sum += c.Value
	}
	require.Positive(t, sum)
	require.LessOrEqual(t, sum, metric.Value)
	ask("match[]=" + url.QueryEscape(`{__name__="`+metric.Name+`"}`))
	require.Equal(t, metric.Value, out.Data.HeadStats.NumSeries)
	ask("start=300&end=400")
	require.Zero(t, out.Data.HeadStats.NumSeries)
	require.Empty(t, out.Data.SeriesCountByMetricName)
	for _, params := range []string{"limit=0", "limit=10001", "limit=x", "start=x", "start=2&end=1", "match[]=%7B"} {
		code, body := do(t, h, http.MethodGet, "/api/v1/status/tsdb?"+params, "")
		require.Equal(t, http.StatusBadRequest, code, body)
	}
}

func TestStatus(t *testing.T) {
	began := time.Unix(100, 0)
	h := handlerWith(t, store(t), nil, func(d *prometheus.Deps) {
		d.Status = prometheus.Status{
			Config: func() (string, error) { return "data: ./x\n", nil }, Flags: map[string]string{"query.timeout": "2m"}, Began: began,
			Corrupt: func() int64 { return 3 }, Retention: "30d",
		}
	})
	ok := func(path, data string) {
		t.Helper()
		_, body := do(t, h, http.MethodGet, "/api/v1/"+path, "")
		require.JSONEq(t, `{"status":"success","data":`+data+`}`, body)
	}
	ok("status/config", `{"yaml":"data: ./x\n"}`)
	ok("status/flags", `{"query.timeout":"2m"}`)
	ok("status/walreplay", `{"min":0,"max":0,"current":0}`)
	var out struct {
		Data struct {
			StartTime, ServerTime, LastConfigTime time.Time
			CWD, Hostname, StorageRetention       string
			ReloadConfigSuccess                   bool
			CorruptionCount, GoroutineCount       int
		}
	}
	_, body := do(t, h, http.MethodGet, "/api/v1/status/runtimeinfo", "")
	require.NoError(t, json.Unmarshal([]byte(body), &out))
	require.Equal(t, []time.Time{began.UTC(), time.Unix(120, 0).UTC(), began.UTC()}, []time.Time{out.Data.StartTime, out.Data.ServerTime, out.Data.LastConfigTime})
	require.Equal(t, 3, out.Data.CorruptionCount)
	require.Equal(t, "30d", out.Data.StorageRetention)
	require.True(t, out.Data.ReloadConfigSuccess)
	require.Positive(t, out.Data.GoroutineCount)
	require.NotEmpty(t, out.Data.CWD)
}

// fakeTargets are two targets of two jobs.
type fakeTargets struct{}

func (fakeTargets) Pools() []string { return []string{"node", "app"} }

func (fakeTargets) Active() []prometheus.Target {
	return []prometheus.Target{
		{
			Discovered: labels.FromStrings("__address__", "a:1", "job", "app"), Labels: labels.FromStrings("instance", "a:1", "job", "app"), Pool: "app",
			URL: "http://a:1/metrics", Health: "down", LastError: "no", LastScrape: time.Unix(110, 0).UTC(), LastDuration: 1500 * time.Millisecond, Interval: "15s", Timeout: "10s",
			Metadata: func() []prometheus.TargetMetadata { return nil },
		},
		{
			Labels: labels.FromStrings("instance", "b:1", "job", "node"), Pool: "node", Health: "up",
			Metadata: func() []prometheus.TargetMetadata {
				return []prometheus.TargetMetadata{
					{Metric: "x", Metadata: telemetry.Metadata{Type: telemetry.MetricGauge, Help: "An x."}}, {Metric: "y", Metadata: telemetry.Metadata{Unit: "seconds"}},
				}
			},
		},
	}
}

func TestTargets(t *testing.T) {
	h := handlerWith(t, store(t), nil, func(d *prometheus.Deps) { d.Targets = fakeTargets{} })
	ask := func(path, data string) {
		t.Helper()
		code, body := do(t, h, http.MethodGet, "/api/v1/"+path, "")
		require.Equal(t, http.StatusOK, code, body)
		require.JSONEq(t, `{"status":"success","data":`+data+`}`, body)
	}
	ask("scrape_pools", `{"scrapePools":["app","node"]}`)
	app := `{"discoveredLabels":{"__address__":"a:1","job":"app"},"labels":{"instance":"a:1","job":"app"},"scrapePool":"app","scrapeUrl":"http://a:1/metrics",
		"globalUrl":"http://a:1/metrics","lastError":"no","lastScrape":"1970-01-01T00:01:50Z","lastScrapeDuration":1.5,"health":"down","scrapeInterval":"15s","scrapeTimeout":"10s"}`
	ask("targets?scrapePool=app", `{"activeTargets":[`+app+`],"droppedTargets":[],"droppedTargetCounts":{"app":0,"node":0}}`)
	ask("targets?scrapePool=app&state=active", `{"activeTargets":[`+app+`],"droppedTargets":[],"droppedTargetCounts":null}`)
	ask("targets?state=dropped", `{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{"app":0,"node":0}}`)
	x := `{"target":{"instance":"b:1","job":"node"},"metric":"x","type":"gauge","help":"An x.","unit":""}`
	ask("targets/metadata", `[`+x+`,{"target":{"instance":"b:1","job":"node"},"metric":"y","type":"unknown","help":"","unit":"seconds"}]`)
	ask("targets/metadata?metric=x", `[{"target":{"instance":"b:1","job":"node"},"type":"gauge","help":"An x.","unit":""}]`)
	ask("targets/metadata?match_target=%7Bjob%3D%22app%22%7D", `[]`)
	ask("targets/metadata?limit=0", `[]`)
	for _, params := range []string{"limit=x", "match_target=%7B"} {
		code, _ := do(t, h, http.MethodGet, "/api/v1/targets/metadata?"+params, "")
		require.Equal(t, http.StatusBadRequest, code)
	}
	h = handler(t, store(t), nil)
	ask("scrape_pools", `{"scrapePools":[]}`)
	ask("targets", `{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}`)
	ask("targets/metadata", `[]`)
}

// fakeAdmin notes deletes and fails when told to.
type fakeAdmin struct {
	storage.Admin
	masks []storage.Mask
	err   error
}

func (a *fakeAdmin) Delete(_ context.Context, m storage.Mask) (uint64, error) {
	a.masks = append(a.masks, m)
	return 1, a.err
}

func TestAdmin(t *testing.T) {
	fake, forgot, cleaned := &fakeAdmin{}, 0, 0
	h := handlerWith(t, store(t), nil, func(d *prometheus.Deps) {
		d.Admin = &prometheus.Admin{
			Store: fake, Deleted: func() { forgot++ }, Clean: func(context.Context) error { cleaned++; return fake.err },
			Snapshot: func(context.Context) (string, error) { return "20260102T030405Z-0011", fake.err },
		}
	})
	ask := func(method, path string, want int) string {
		t.Helper()
		code, body := do(t, h, method, "/api/v1/admin/tsdb/"+path, "")
		require.Equal(t, want, code, body)
		return body
	}
	require.Empty(t, ask(http.MethodPost, "delete_series?match[]=up&match[]=%7Bjob%3D%22a%22%7D&start=10&end=20", http.StatusNoContent))
	require.Len(t, fake.masks, 2)
	require.Equal(t, []int64{10_000, 20_000}, []int64{fake.masks[1].Start, fake.masks[1].End})
	require.Equal(t, storage.Metrics, fake.masks[1].Signal)
	require.Equal(t, tenant, fake.masks[1].Tenant)
	require.Equal(t, `job="a"`, fake.masks[1].Matchers[0].String())
	require.Equal(t, 1, forgot)
	ask(http.MethodPut, "delete_series?match[]=up", http.StatusNoContent)
	require.Less(t, fake.masks[2].Start, int64(-1<<50))
	require.Contains(t, ask(http.MethodPost, "delete_series", http.StatusBadRequest), "no match[] parameter provided")
	for _, params := range []string{"match[]=%7B", "match[]=up&start=x", "match[]=up&start=2&end=1"} {
		ask(http.MethodPost, "delete_series?"+params, http.StatusBadRequest)
	}
	ask(http.MethodPost, "clean_tombstones", http.StatusNoContent)
	require.Equal(t, 1, cleaned)
	require.Contains(t, ask(http.MethodPost, "snapshot?skip_head=true", http.StatusOK), `{"name":"20260102T030405Z-0011"}`)
	ask(http.MethodPost, "snapshot?skip_head=x", http.StatusBadRequest)
	fake.err = errors.New("boom")
	for _, path := range []string{"delete_series?match[]=up", "clean_tombstones", "snapshot"} {
		require.NotContains(t, ask(http.MethodPost, path, http.StatusInternalServerError), "boom")
	}
	require.Equal(t, 2, forgot, "not when nothing was deleted")

	h = handler(t, store(t), nil)
	for _, path := range []string{"delete_series?match[]=up", "clean_tombstones", "snapshot"} {
		require.Contains(t, ask(http.MethodPost, path, http.StatusServiceUnavailable), `"error":"admin APIs disabled","errorType":"unavailable"`)
	}
}

// stuck is a store whose views come when the query ends.
type stuck struct{ asked chan struct{} }

func (s stuck) View(ctx context.Context, _ storage.Position) (storage.View, error) {
	s.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestRunningQueries(t *testing.T) {
	s := stuck{make(chan struct{})}
	h := handler(t, s, nil)
	type answer struct {
		code int
		body string
	}
	ended := make(chan answer)
	go func() {
		code, body := do(t, h, http.MethodGet, "/api/v1/query_range?query=up&start=0&end=60&step=15", "")
		ended <- answer{code, body}
	}()
	<-s.asked
	_, body := do(t, h, http.MethodGet, "/api/v1/status/active_queries", "")
	require.JSONEq(t, `{"status":"success","data":{"queries":[{"id":"1","query":"up","start":"1970-01-01T00:00:00Z","end":"1970-01-01T00:01:00Z","step":15,
		"began":"1970-01-01T00:02:00Z","seconds":0}]}}`, body)
	code, _ := do(t, h, http.MethodDelete, "/api/v1/status/active_queries/x", "")
	require.Equal(t, http.StatusBadRequest, code)
	code, _ = do(t, h, http.MethodDelete, "/api/v1/status/active_queries/1", "")
	require.Equal(t, http.StatusNoContent, code)
	got := <-ended
	require.Equal(t, 499, got.code)
	require.Contains(t, got.body, `"error":"the query was stopped on request","errorType":"canceled"`)
	code, _ = do(t, h, http.MethodDelete, "/api/v1/status/active_queries/1", "")
	require.Equal(t, http.StatusNotFound, code)
}
