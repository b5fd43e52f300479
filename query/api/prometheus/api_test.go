package prometheus_test

import (
	"encoding/json"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/api/prometheus"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

const tenant = telemetry.DefaultTenant

func handler(t *testing.T, r storage.Reader, change func(*promql.Config)) http.Handler {
	t.Helper()
	return handlerWith(t, r, change, func(*prometheus.Deps) {})
}

// handlerWith is handler with more to depend on.
func handlerWith(t *testing.T, r storage.Reader, change func(*promql.Config), more func(*prometheus.Deps)) http.Handler {
	t.Helper()
	cfg := promql.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	log := slog.New(slog.DiscardHandler)
	now := func() time.Time { return time.Unix(120, 0) }
	eng, err := promql.New(promql.Deps{Config: cfg, Reader: r, Log: log, Now: now})
	require.NoError(t, err)
	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	deps := prometheus.Deps{Engine: eng, Reader: r, Now: now, Version: "v0.1.0"}
	more(&deps)
	prometheus.New(deps).Register(rt)
	return rt
}

func do(t *testing.T, h http.Handler, method, target, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func series(pairs ...string) telemetry.Series {
	return telemetry.Series{Labels: telemetry.NewLabelSet(labels.FromStrings(pairs...))}
}

func store(t *testing.T) *testkit.Store {
	t.Helper()
	up := series("__name__", "up", "job", "a")
	up.Samples = []telemetry.Sample{{T: 60_000, V: 1}, {T: 120_500, V: math.NaN()}}
	up.Metadata = &telemetry.Metadata{Type: telemetry.MetricGauge, Help: "Is it up?"}
	down := series("__name__", "up", "job", "b", "http.route", "/größe \"x\"")
	down.Samples = []telemetry.Sample{{T: 60_000, V: 0}, {T: 120_000, V: 1e-9}}
	down.Metadata = &telemetry.Metadata{Type: telemetry.MetricGauge, Help: "Is it?", Unit: "bool"}
	down.Exemplars = []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "abc"), Value: 0.5, Ts: 61_002, HasTs: true}}
	native := series("__name__", "latency")
	native.Metadata = &telemetry.Metadata{Type: telemetry.MetricHistogram, Unit: "seconds", Help: "Latency."}
	native.Histograms = []telemetry.HistogramSample{{T: 60_000, FH: &histogram.FloatHistogram{
		ZeroThreshold: 0.5, ZeroCount: 1, Count: 6, Sum: 7.5, PositiveSpans: []histogram.Span{{Offset: 1, Length: 3}}, PositiveBuckets: []float64{2, 0, 3},
	}}}
	s := testkit.NewStore("c")
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{up, down, native}}}})
	require.NoError(t, err)
	return s
}

func TestAnswers(t *testing.T) {
	s := store(t)
	h := handler(t, s, nil)
	ok := func(data string) string { return `{"status":"success","data":` + data + `}` }
	tests := []struct {
		name, target, want string
	}{
		{"vector", "query?query=up&time=60", ok(`{"resultType":"vector","result":[` +
			`{"metric":{"__name__":"up","http.route":"/größe \"x\"","job":"b"},"value":[60,"0"]},` +
			`{"metric":{"__name__":"up","job":"a"},"value":[60,"1"]}]}`)},
		{"now", "query?query=up%7Bjob%3D%22b%22%7D", ok(`{"resultType":"vector","result":[{"metric":{"__name__":"up","http.route":"/größe \"x\"","job":"b"},"value":[120,"1e-09"]}]}`)},
		{"empty vector", "query?query=nothing&time=60", ok(`{"resultType":"vector","result":[]}`)},
		{"scalar in 1970", "query?query=1%2B1&time=0", ok(`{"resultType":"scalar","result":[0,"2"]}`)},
		{"string", "query?query=%22a%22&time=1970-01-01T00:00:01.5Z", ok(`{"resultType":"string","result":[1.500,"a"]}`)},
		{"range selector", "query?query=up%7Bjob%3D%22a%22%7D%5B5m%5D&time=121", ok(`{"resultType":"matrix","result":[{"metric":{"__name__":"up","job":"a"},"values":[[60,"1"],[120.500,"NaN"]]}]}`)},
		{"matrix", "query_range?query=sum(up)&start=60&end=1970-01-01T00:02:00Z&step=1m", ok(`{"resultType":"matrix","result":[{"metric":{},"values":[[60,"1"],[120,"1.000000001"]]}]}`)},
		{"native histogram", "query?query=latency&time=60", ok(`{"resultType":"vector","result":[{"metric":{"__name__":"latency"},"histogram":[60,{"count":"6","sum":"7.5","buckets":[[3,"-0.5","0.5","1"],[0,"1","2","2"],[0,"4","8","3"]]}]}]}`)},
		{"native histograms", "query?query=latency%5B1m%5D&time=60", ok(`{"resultType":"matrix","result":[{"metric":{"__name__":"latency"},"histograms":[[60,{"count":"6","sum":"7.5","buckets":[[3,"-0.5","0.5","1"],[0,"1","2","2"],[0,"4","8","3"]]}]]}]}`)},
		{"limit", "query?query=up&time=60&limit=1", `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","http.route":"/größe \"x\"","job":"b"},"value":[60,"0"]}]},"warnings":["results truncated due to limit"]}`},
		{"infos", "query?query=rate(up[5m])&time=1", ok(`{"resultType":"vector","result":[]}`)},
		{"labels", "labels", ok(`["__name__","http.route","job"]`)},
		{"labels of two selectors", "labels?match[]=latency&match[]=up%7Bjob%3D%22a%22%7D", ok(`["__name__","job"]`)},
		{"labels in a time", "labels?start=300", ok(`[]`)},
		{"labels with a limit", "labels?limit=2", `{"status":"success","data":["__name__","http.route"],"warnings":["results truncated due to limit"]}`},
		{"values", "label/job/values", ok(`["a","b"]`)},
		{"values of nothing", "label/nope/values", ok(`[]`)},
		{"values of an escaped name", "label/U__http_2e_route/values?match[]=up", ok(`["/größe \"x\""]`)},
		{"series", "series?match[]=latency&match[]=%7Bjob%3D%22a%22%7D&match[]=up%7Bjob%3D%22a%22%7D", ok(`[{"__name__":"latency"},{"__name__":"up","job":"a"}]`)},
		{"series with a limit", "series?match[]=up&limit=1", `{"status":"success","data":[{"__name__":"up","http.route":"/größe \"x\"","job":"b"}],"warnings":["results truncated due to limit"]}`},
		{"metadata", "metadata", ok(`{"latency":[{"type":"histogram","unit":"seconds","help":"Latency."}],"up":[{"type":"gauge","unit":"","help":"Is it up?"},{"type":"gauge","unit":"bool","help":"Is it?"}]}`)},
		{"metadata of one", "metadata?metric=up&limit_per_metric=1", ok(`{"up":[{"type":"gauge","unit":"","help":"Is it up?"}]}`)},
		{"metadata of none", "metadata?limit=0", ok(`{}`)},
		{"exemplars", "query_exemplars?query=rate(up[1m])/up&start=0&end=100", ok(`[{"seriesLabels":{"__name__":"up","http.route":"/größe \"x\"","job":"b"},"exemplars":[{"labels":{"trace_id":"abc"},"value":"0.5","timestamp":61.002}]}]`)},
		{"exemplars of no series", "query_exemplars?query=1", ok(`[]`)},
		{"format", "format_query?query=sum(up)by(job)", ok(`"sum by (job) (up)"`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, body := do(t, h, http.MethodGet, "/api/v1/"+tt.target, "")
			require.Equal(t, http.StatusOK, code, body)
			require.Equal(t, tt.want, body)
			path, params, _ := strings.Cut(tt.target, "?")
			if strings.HasPrefix(path, "label/") || path == "metadata" {
				return
			}
			_, posted := do(t, h, http.MethodPost, "/api/v1/"+path, params)
			require.Equal(t, body, posted)
		})
	}
	open, _ := s.OpenViews()
	require.Zero(t, open)
}

func TestInfos(t *testing.T) {
	s := store(t)
	s.Warn("part 7 is corrupt")
	_, body := do(t, handler(t, s, nil), http.MethodGet, "/api/v1/query?query=rate(up[5m])&time=121", "")
	require.Contains(t, body, `"warnings":["part 7 is corrupt"],"infos":["PromQL info: metric might not be a counter`)
	_, body = do(t, handler(t, s, nil), http.MethodGet, "/api/v1/labels", "")
	require.Contains(t, body, `],"warnings":["part 7 is corrupt"]}`)
}

func TestStats(t *testing.T) {
	_, body := do(t, handler(t, store(t), nil), http.MethodGet, "/api/v1/query_range?query=up&start=0&end=120&step=60&stats=all", "")
	var out struct {
		Data struct {
			Stats struct {
				Timings map[string]float64
				Samples struct {
					TotalQueryableSamples        int
					TotalQueryableSamplesPerStep [][2]int
				}
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &out))
	require.Equal(t, 4, out.Data.Stats.Samples.TotalQueryableSamples)
	require.Equal(t, [][2]int{{0, 0}, {60, 2}, {120, 2}}, out.Data.Stats.Samples.TotalQueryableSamplesPerStep)
	require.Contains(t, out.Data.Stats.Timings, "execTotalTime")
	require.Contains(t, body, `"read":{"series":2,"samples":3,"bytes":0}}`)
	_, body = do(t, handler(t, store(t), nil), http.MethodGet, "/api/v1/query?query=up&time=120&stats=true", "")
	require.Contains(t, body, `"stats":{"timings"`)
	require.NotContains(t, body, `"read"`, "what Prometheus tells, and no more")
}

func TestBuildInfo(t *testing.T) {
	_, body := do(t, handler(t, store(t), nil), http.MethodGet, "/api/v1/status/buildinfo", "")
	var out struct {
		Data struct {
			Version, Revision string
			Features          map[string]any
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &out))
	require.Equal(t, "v0.1.0", out.Data.Revision)
	require.NotNil(t, out.Data.Features)
	require.Empty(t, out.Data.Features)
}

func TestErrors(t *testing.T) {
	s := store(t)
	h := handler(t, s, func(c *promql.Config) { c.MaxSamples = 4 })
	tests := []struct {
		name, target string
		code         int
		kind, text   string
	}{
		{"syntax", "query?query=up(", 400, "bad_data", `invalid parameter "query": 1:4: parse error`},
		{"time", "query?query=up&time=x", 400, "bad_data", `invalid parameter "time"`},
		{"not a time", "query?query=up&time=NaN", 400, "bad_data", `invalid parameter "time"`},
		{"timeout", "query?query=up&timeout=x", 400, "bad_data", `invalid parameter "timeout"`},
		{"lookback", "query?query=up&lookback_delta=x", 400, "bad_data", `lookback delta`},
		{"limit", "query?query=up&limit=-1", 400, "bad_data", `invalid parameter "limit"`},
		{"no start", "query_range?query=up&end=1&step=1", 400, "bad_data", `invalid parameter "start"`},
		{"no end", "query_range?query=up&start=1&step=1", 400, "bad_data", `invalid parameter "end"`},
		{"end before start", "query_range?query=up&start=2&end=1&step=1", 400, "bad_data", "must not be before"},
		{"step", "query_range?query=up&start=1&end=1&step=0", 400, "bad_data", `invalid parameter "step"`},
		{"step overflow", "query_range?query=up&start=1&end=1&step=1e30", 400, "bad_data", "overflows"},
		{"points", "query_range?query=up&start=0&end=11001&step=1", 400, "bad_data", "11,000 points"},
		{"execution", "query?query=label_replace(up,%22a%22,%22%22,%22b%22,%22(%22)&time=60", 422, "execution", "invalid regular expression"},
		{"samples", "query_range?query=up&start=0&end=240&step=30", 422, "execution", "promql.max_samples (4)"},
		{"out of time", "query?query=up&timeout=0.000000001", 503, "timeout", "the request gave it"},
		{"series without match", "series", 400, "bad_data", "no match[]"},
		{"empty matcher", "labels?match[]=%7Ba%3D%22%22%7D", 400, "bad_data", "non-empty matcher"},
		{"match", "labels?match[]=%7B", 400, "bad_data", `1:2: parse error`},
		{"match of series", "series?match[]=%7B", 400, "bad_data", `invalid parameter "match[]": 1:2: parse error`},
		{"label name", "label/%FF/values", 400, "bad_data", "invalid label name"},
		{"metadata", "metadata?limit=x", 400, "bad_data", "limit must be a number"},
		{"exemplars", "query_exemplars?query=(", 400, "bad_data", "parse error"},
		{"exemplars backwards", "query_exemplars?query=up&start=2&end=1", 400, "bad_data", "before"},
		{"form", "query?query=%zz", 400, "bad_data", "form"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, body := do(t, h, http.MethodGet, "/api/v1/"+tt.target, "")
			require.Equal(t, tt.code, code, body)
			var out struct{ Status, ErrorType, Error string }
			require.NoError(t, json.Unmarshal([]byte(body), &out))
			require.Equal(t, "error", out.Status)
			require.Equal(t, tt.kind, out.ErrorType)
			require.Contains(t, out.Error, tt.text)
		})
	}
	open, _ := s.OpenViews()
	require.Zero(t, open)
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{"query=up&time=60", "query=sum(up)&start=0&end=60&step=1m&limit=1", "match[]=up&match[]={a!=\"\"}", "stats=all&lookback_delta=5m&timeout=1s&query=up"} {
		f.Add(s)
	}
	s := testkit.NewStore("c")
	_, _, err := s.Write(f.Context(), testkit.NewGen(1, testkit.Options{}).Request(50))
	require.NoError(f, err)
	eng, err := promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: s})
	require.NoError(f, err)
	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	prometheus.New(prometheus.Deps{Engine: eng, Reader: s, Now: func() time.Time { return time.Unix(120, 0) }}).Register(rt)
	f.Fuzz(func(t *testing.T, params string) {
		if q, err := url.ParseQuery(params); err == nil && len(q.Get("query")) > 40 {
			t.Skip("PromQL's parser has its own fuzzing, and long queries take long")
		}
		for _, path := range []string{"query", "query_range", "series", "labels", "label/a/values", "metadata", "query_exemplars"} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/"+path, http.NoBody)
			r.URL.RawQuery = params
			w := httptest.NewRecorder()
			rt.ServeHTTP(w, r)
			require.True(t, json.Valid(w.Body.Bytes()), w.Body.String())
			require.NotEqual(t, http.StatusInternalServerError, w.Code, w.Body.String())
		}
		open, _ := s.OpenViews()
		require.Zero(t, open)
	})
}
