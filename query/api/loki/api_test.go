package loki_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/api/loki"
	"github.com/braidobs/braid/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenant = telemetry.DefaultTenant

func handler(r storage.Reader, now time.Time) http.Handler {
	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	api := loki.New(loki.Deps{Config: loki.DefaultConfig(), Reader: r, Now: func() time.Time { return now }, Version: "v0.1.0"})
	api.Register(rt)
	api.RegisterStreams(rt)
	return rt
}

func do(ctx context.Context, h http.Handler, method, path, params string, header ...string) *httptest.ResponseRecorder {
	target := "/loki/api/v1/" + path
	if rest, ok := strings.CutPrefix(path, "../../.."); ok {
		target = rest
	}
	r := httptest.NewRequestWithContext(ctx, method, target, http.NoBody)
	if method == http.MethodPost || method == http.MethodPut {
		r = httptest.NewRequestWithContext(ctx, method, target, strings.NewReader(params))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		r.URL.RawQuery = params
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func set(pairs ...string) telemetry.LabelSet {
	return telemetry.NewLabelSet(labels.FromStrings(pairs...))
}

func line(at int64, text string) telemetry.LogRecord {
	return telemetry.LogRecord{Time: at, Body: telemetry.String(text)}
}

func str(k, v string) telemetry.Attr { return telemetry.Attr{Key: k, Value: telemetry.String(v)} }

// now is when the tests ask: 3 µs after the first line was written in 1970.
func now() time.Time { return time.Unix(0, 3000) }

func store(t *testing.T) *testkit.Store {
	t.Helper()
	s := testkit.NewStore("c")
	rich := telemetry.LogRecord{
		Time: 2000, Body: telemetry.String("order \"7\" placed"), Severity: 13, SeverityText: "Warn", TraceID: telemetry.TraceID{1}, SpanID: telemetry.SpanID{2},
		Scope: &telemetry.Scope{Name: "shop/orders"},
		Attrs: telemetry.NewAttrs([]telemetry.Attr{str("user.id", "u1"), str("app", "other"), str("none", ""), {Key: "n", Value: telemetry.Int(3)}}),
	}
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{
		{Tenant: tenant, Stream: set("app", "a", "level", "error"), Logs: []telemetry.LogRecord{line(1000, "a one"), line(1001, "a two"), line(2500, "a three")}},
		{
			Tenant: tenant, Stream: set("app", "b", "service_name", "shop"), Logs: []telemetry.LogRecord{rich},
			Resource: telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{str("service.name", "shop"), str("k8s.pod.name", "p-0"), str("user.id", "from the resource")})),
		},
		{Tenant: "other", Stream: set("app", "secret"), Logs: []telemetry.LogRecord{line(1000, "not yours")}},
	}})
	require.NoError(t, err)
	return s
}

// data is what an answer has without its statistics, which must be there.
func data(t *testing.T, body []byte) string {
	t.Helper()
	var out struct {
		Status string
		Data   map[string]json.RawMessage
	}
	require.NoError(t, json.Unmarshal(body, &out), "%s", body)
	require.Equal(t, "success", out.Status)
	var st struct {
		Summary *struct{ ExecTime, TotalBytesProcessed, TotalLinesProcessed, TotalEntriesReturned *float64 }
	}
	require.NoError(t, json.Unmarshal(out.Data["stats"], &st))
	require.NotNil(t, st.Summary)
	require.NotNil(t, st.Summary.TotalBytesProcessed)
	require.NotNil(t, st.Summary.TotalEntriesReturned)
	delete(out.Data, "stats")
	b, err := json.Marshal(out.Data)
	require.NoError(t, err)
	return string(b)
}

func answer(result string) string { return `{"resultType":"streams","result":` + result + `}` }

func TestQueryRange(t *testing.T) {
	s := store(t)
	h := handler(s, now())
	a := `"app":"a","detected_level":"error","level":"error"`
	tests := []struct{ name, params, want string }{
		{"backward", `query={app="a"}`, answer(`[{"stream":{` + a + `},"values":[["2500","a three"],["1001","a two"],["1000","a one"]]}]`)},
		{"forward", `query={app="a"}&direction=forward&step=500ms`, answer(`[{"stream":{` + a + `},"values":[["1000","a one"],["1001","a two"],["2500","a three"]]}]`)},
		{"limit", `query={app="a"}&limit=1`, `{"resultType":"streams","cursor":"2500.1","result":[{"stream":{` + a + `},"values":[["2500","a three"]]}]}`},
		{"limit forward", `query={app="a"}&limit=1&direction=FORWARD`, `{"resultType":"streams","cursor":"1000.1","result":[{"stream":{` + a + `},"values":[["1000","a one"]]}]}`},
		{"page", `query={app="a"}&limit=1&cursor=2500.1`, `{"resultType":"streams","cursor":"1001.1","result":[{"stream":{` + a + `},"values":[["1001","a two"]]}]}`},
		{"last page", `query={app="a"}&cursor=1001.1`, answer(`[{"stream":{` + a + `},"values":[["1000","a one"]]}]`)},
		{"interval", `query={app="a"}&direction=forward&interval=0.0000005`, answer(`[{"stream":{` + a + `},"values":[["1000","a one"],["2500","a three"]]}]`)},
		{"interval backward", `query={app="a"}&interval=0.0000015`, answer(`[{"stream":{` + a + `},"values":[["2500","a three"],["1000","a one"]]}]`)},
		{"stages", `query={app="a"} | pattern "<_> <n>" | n = "two" | line_format "{{.n}}!" | drop level`, answer(`[{"stream":{"app":"a","detected_level":"error","n":"two"},"values":[["1001","two!"]]}]`)},
		{"end excluded", `query={app="a"}&start=1001&start=x&end=1970-01-01T00:00:00.0000025Z`, ""},
		{"filters", `query={app=~"a|b"} |= "a" or "zzz" != "three" |~ "o[nx]e"`, answer(`[{"stream":{` + a + `},"values":[["1000","a one"]]}]`)},
		{"everything becomes labels", `query={app="b"}`, answer(`[{"stream":{"app":"b","app_extracted":"other","detected_level":"warn","k8s_pod_name":"p-0","n":"3","scope_name":"shop/orders","service_name":"shop",` +
			`"severity_number":"13","severity_text":"Warn","span_id":"0200000000000000","trace_id":"01000000000000000000000000000000","user_id":"u1"},"values":[["2000","order \"7\" placed"]]}]`)},
		{"nothing", `query={app="none"}`, answer(`[]`)},
		{"empty range", `query={app="a"}&start=5000000000000&end=5000000000000`, answer(`[]`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, err := url.ParseQuery(strings.ReplaceAll(tt.params, "&start=x", ""))
			require.NoError(t, err)
			if tt.want == "" { // 1001 would be seconds: nanoseconds have more digits
				q.Set("start", "00000001001")
				tt.want = answer(`[{"stream":{` + a + `},"values":[["1001","a two"]]}]`)
			}
			w := do(t.Context(), h, http.MethodGet, "query_range", q.Encode())
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			require.JSONEq(t, tt.want, data(t, w.Body.Bytes()))
			require.Equal(t, w.Body.String(), do(t.Context(), h, http.MethodPost, "query_range", q.Encode()).Body.String())
		})
	}
	open, _ := s.OpenViews()
	require.Zero(t, open)
}

func TestCategorizedLabels(t *testing.T) {
	w := do(t.Context(), handler(store(t), now()), http.MethodGet, "query_range", url.Values{"query": {`{app=~".+"}`}, "direction": {"forward"}}.Encode(),
		"X-Loki-Response-Encoding-Flags", "other, categorize-labels")
	var out struct {
		Data struct {
			EncodingFlags []string
			Result        []struct {
				Stream map[string]string
				Values [][3]any
			}
		}
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out))
	require.Equal(t, []string{"categorize-labels"}, out.Data.EncodingFlags)
	require.Len(t, out.Data.Result, 2)
	require.Equal(t, map[string]string{"app": "a", "level": "error"}, out.Data.Result[0].Stream)
	require.Len(t, out.Data.Result[0].Values, 3)
	require.Equal(t, map[string]any{"structuredMetadata": map[string]any{"detected_level": "error"}}, out.Data.Result[0].Values[0][2])
	require.Equal(t, map[string]string{"app": "b", "service_name": "shop"}, out.Data.Result[1].Stream)
	require.Equal(t, map[string]any{"structuredMetadata": map[string]any{
		"app_extracted": "other", "detected_level": "warn", "k8s_pod_name": "p-0", "n": "3", "scope_name": "shop/orders", "severity_number": "13",
		"severity_text": "Warn", "span_id": "0200000000000000", "trace_id": "01000000000000000000000000000000", "user_id": "u1",
	}}, out.Data.Result[1].Values[0][2])
}

func TestNumbers(t *testing.T) {
	h := handler(store(t), now())
	for _, tt := range []struct{ path, params, want string }{
		{"query", `query=vector(1)+vector(1)&time=4000000000`, `{"resultType":"vector","result":[{"metric":{},"value":[4000000000,"2"]}]}`}, // as Grafana tests a data source
		{"query", `query=1+1&time=4000000000.5`, `{"resultType":"scalar","result":[4000000000.5,"2"]}`},
		{"query", `query=sum by (app) (count_over_time({app=~".+"}[1h]))&time=1`, `{"resultType":"vector","result":[{"metric":{"app":"a"},"value":[1,"3"]},{"metric":{"app":"b"},"value":[1,"1"]}]}`},
		{"query", `query=topk(1, sum by (app) (count_over_time({app=~".+"}[1h])))&time=1`, `{"resultType":"vector","result":[{"metric":{"app":"a"},"value":[1,"3"]}]}`},
		{"query", `query=count_over_time({app="none"}[1h])`, `{"resultType":"vector","result":[]}`},
		{"query_range", `query=sum(bytes_over_time({app="a"}[1s]))&start=0&end=2&step=1`, `{"resultType":"matrix","result":[{"metric":{},"values":[[1,"17"]]}]}`},
		{"query_range", `query=1/0&start=0&end=1&step=500ms`, `{"resultType":"matrix","result":[{"metric":{},"values":[[0,"NaN"],[0.5,"NaN"],[1,"NaN"]]}]}`},
		{"query_range", `query=vector(1)&start=0&end=300000`, ""},
	} {
		q, err := url.ParseQuery(strings.ReplaceAll(tt.params, "+", "%2B"))
		require.NoError(t, err)
		w := do(t.Context(), h, http.MethodGet, tt.path, q.Encode())
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		if tt.want != "" {
			require.JSONEq(t, tt.want, data(t, w.Body.Bytes()), tt.params)
			continue
		}
		var out struct {
			Data struct{ Result []struct{ Values [][]any } }
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out))
		require.Len(t, out.Data.Result[0].Values, 251, "without a step there are about 250")
	}
}

func TestInstant(t *testing.T) {
	w := do(t.Context(), handler(store(t), now()), http.MethodGet, "query", url.Values{"query": {`{app="a"}`}, "limit": {"1"}}.Encode())
	require.Contains(t, w.Body.String(), `"values":[["2500","a three"]]`)
}

func TestLabels(t *testing.T) {
	s := store(t)
	h := handler(s, now())
	tests := []struct{ path, params, want string }{
		{"labels", "", `["app","level","service_name"]`},
		{"labels", "query=" + url.QueryEscape(`{app="a"}`), `["app","level"]`},
		{"labels", "query=%7B%7D", `["app","level","service_name"]`},
		{"labels", "start=1&end=2", `[]`},
		{"labels", "since=1h", `["app","level","service_name"]`},
		{"label/app/values", "", `["a","b"]`},
		{"label/app/values", "query=" + url.QueryEscape(`{level="error"}`), `["a"]`},
		{"label/nope/values", "", `[]`},
		{"series", "", `[{"app":"a","level":"error"},{"app":"b","service_name":"shop"}]`},
		{"series", "match[]=" + url.QueryEscape(`{app="b"}`) + "&match[]=" + url.QueryEscape(`{service_name=~"sh.*"}`), `[{"app":"b","service_name":"shop"}]`},
		{"series", "match[]=%7B%7D", `[{"app":"a","level":"error"},{"app":"b","service_name":"shop"}]`},
	}
	for _, tt := range tests {
		t.Run(tt.path+"?"+tt.params, func(t *testing.T) {
			w := do(t.Context(), h, http.MethodGet, tt.path, tt.params)
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			require.JSONEq(t, `{"status":"success","data":`+tt.want+`}`, w.Body.String())
			require.Equal(t, w.Body.String(), do(t.Context(), h, http.MethodPost, tt.path, tt.params).Body.String())
		})
	}
	open, _ := s.OpenViews()
	require.Zero(t, open)
}

func TestBuildInfo(t *testing.T) {
	w := do(t.Context(), handler(store(t), now()), http.MethodGet, "status/buildinfo", "")
	require.Contains(t, w.Body.String(), `"version":"3.5.0","revision":"v0.1.0"`)
}

func TestErrors(t *testing.T) {
	h := handler(store(t), now())
	sel := "query=" + url.QueryEscape(`{app="a"}`)
	for _, tt := range []struct{ path, params, text string }{
		{"query_range", "", "the query is empty"},
		{"query_range", "query=" + url.QueryEscape(`{app="a"} | json |`), `parse error at line 1, col 19: unexpected the end of the query`},
		{"query_range", "query=" + url.QueryEscape(`rate({app="a"}[1s])`) + "&start=0&end=1000000&step=1", "limit is 11000: ask for a larger step"},
		{"query_range", sel + "&step=0", `invalid parameter "step"`},
		{"query_range", sel + "&interval=x", `invalid parameter "interval"`},
		{"query_range", sel + "&cursor=7", `invalid parameter "cursor"`},
		{"index/volume", sel + "&limit=9999", `invalid parameter "limit"`},
		{"index/volume", sel + "&aggregateBy=x", `invalid parameter "aggregateBy"`},
		{"index/volume_range", sel + "&start=0&end=1000000&step=1", "limit is 11000"},
		{"index/stats", "query=" + url.QueryEscape(`rate({app="a"}[1s])`), "a selector is wanted"},
		{"patterns", "query=x", "parse error"},
		{"detected_fields", "query=x", "parse error"},
		{"format_query", "query=x", "parse error"},
		{"../../../api/v1/logs/search", "", `invalid parameter "text"`},
		{"../../../api/v1/logs/context", sel + "&time=x", `invalid parameter "time"`},
		{"../../../api/v1/logs/export", "", "the query is empty"},
		{"../../../api/v1/logs/export", "query=vector(1)", "only lines can be exported"},
		{"../../../api/v1/logs/export", sel + "&direction=x", `invalid parameter "direction"`},
		{"tail", sel + "&delay_for=9", `invalid parameter "delay_for"`},
		{"tail", "query=vector(1)", "only lines can be tailed"},
		{"query_range", sel + "&limit=0", `invalid parameter "limit"`},
		{"query_range", sel + "&limit=x", `invalid parameter "limit"`},
		{"query_range", sel + "&limit=5001", "limit 5001 is over loki.max_lines (5000)"},
		{"query_range", sel + "&direction=up", `invalid parameter "direction"`},
		{"query_range", sel + "&start=x", `invalid parameter "start"`},
		{"query_range", sel + "&end=9999-01-01T00:00:00Z", `invalid parameter "end"`},
		{"query_range", sel + "&end=9999999999", "beyond the year 2261"},
		{"query_range", sel + "&start=5&end=4", `invalid parameter "end"`},
		{"query_range", sel + "&since=-5s", `invalid parameter "since"`},
		{"query_range", sel + "&step=x", `invalid parameter "step"`},
		{"query_range", "query=%zz", "malformed parameters"},
		{"query", sel + "&time=x", `invalid parameter "time"`},
		{"query", "query=sum(", "parse error at line 1, col 5"},
		{"labels", "query=x", "parse error at line 1, col 1"},
		{"labels", "end=x", `invalid parameter "end"`},
		{"series", "match[]=x", "parse error"},
	} {
		w := do(t.Context(), h, http.MethodGet, tt.path, tt.params)
		require.Equal(t, http.StatusBadRequest, w.Code, tt.params)
		require.Contains(t, w.Body.String(), tt.text)
		require.True(t, strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain"))
	}
}

// TestEveryLineOnce reads generated logs back in pages, forwards and backwards.
func TestEveryLineOnce(t *testing.T) {
	g := testkit.NewGen(5, testkit.Options{Signals: []storage.Signal{storage.Logs}, Tenants: []telemetry.Tenant{tenant}, Numbered: true})
	s := testkit.NewStore("c")
	for range 30 {
		_, _, err := s.Write(t.Context(), g.Request(30))
		require.NoError(t, err)
	}
	h := handler(s, time.Unix(0, g.Now()).Add(time.Minute))
	for _, direction := range []string{"forward", "backward"} {
		for _, flags := range []string{"", "categorize-labels"} {
			w := do(t.Context(), h, http.MethodGet, "query_range",
				url.Values{"query": {`{service_name=~".+"}`}, "limit": {"5000"}, "direction": {direction}}.Encode(), "X-Loki-Response-Encoding-Flags", flags)
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			var out struct {
				Data struct {
					Result []struct{ Values [][]any }
				}
			}
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &out))
			seen := make(map[string]bool)
			for _, st := range out.Data.Result {
				last := ""
				for _, v := range st.Values {
					at := v[0].(string)
					if last != "" {
						require.True(t, direction == "forward" && at >= last || direction == "backward" && at <= last)
					}
					last = at
					text := v[1].(string)
					n := text[strings.LastIndex(text, " seq="):]
					require.False(t, seen[n], n)
					seen[n] = true
				}
			}
			want := 0
			v, err := s.View(t.Context(), 0)
			require.NoError(t, err)
			for b, err := range v.Logs(t.Context(), storage.LogQuery{Tenant: tenant, End: time.Now().UnixNano() * 2, Columns: storage.LogStream}) {
				require.NoError(t, err)
				for i := range b.Len() {
					if b.StreamOf(i).Get("service_name") != "" {
						want++
					}
				}
			}
			require.NoError(t, v.Close())
			require.Len(t, seen, want)
			require.Greater(t, want, 500)
		}
	}
}

type broken struct{}

func (broken) View(context.Context, storage.Position) (storage.View, error) {
	return nil, errors.New("disk on fire")
}

func TestFaultsAreHidden(t *testing.T) {
	h := handler(broken{}, now())
	for _, path := range []string{"labels", "series", "query_range?x"} {
		w := do(t.Context(), h, http.MethodGet, strings.TrimSuffix(path, "?x"), "query="+url.QueryEscape(`{a="b"}`))
		require.Equal(t, http.StatusInternalServerError, w.Code)
		require.NotContains(t, w.Body.String(), "fire")
	}
}

func TestWarnings(t *testing.T) {
	s := store(t)
	s.Warn("part 7 is corrupt")
	w := do(t.Context(), handler(s, now()), http.MethodGet, "query_range", "query="+url.QueryEscape(`{app="a"}`))
	require.Contains(t, w.Body.String(), `"warnings":["part 7 is corrupt"]`)
}

func TestConfig(t *testing.T) {
	require.NoError(t, loki.DefaultConfig().Validate())
	require.ErrorContains(t, loki.Config{}.Validate(), "max_lines")
}

func FuzzQuery(f *testing.F) {
	f.Add(`query=` + url.QueryEscape(`{pod=~".+"} |= "a" !~ "b|c"`) + `&limit=10&direction=forward&start=0&end=4000000000`)
	f.Add(`query=vector(1)%2Bvector(1)&time=1.5`)
	f.Add(`query=` + url.QueryEscape(`topk(3, sum by (pod) (rate({pod=~".+"} | json | __error__="" [5m])))`) + `&start=1772600000&end=1772604000&step=60&targetLabels=pod&aggregateBy=labels`)
	f.Add(`query=` + url.QueryEscape(`{pod=~".+"}`) + `&text=a&time=1772600000&before=3&after=0&cursor=5.1&interval=1s&line_limit=10`)
	f.Add(`since=5m&end=2026-03-04T05:06:07Z&match[]=` + url.QueryEscape(`{a="b"}`))
	s := testkit.NewStore("c")
	_, _, err := s.Write(f.Context(), testkit.NewGen(1, testkit.Options{}).Request(100))
	require.NoError(f, err)
	h := handler(s, time.Date(2026, 3, 4, 6, 0, 0, 0, time.UTC))
	f.Fuzz(func(t *testing.T, params string) {
		for _, path := range []string{
			"query", "query_range", "labels", "label/pod/values", "series", "index/stats", "index/volume", "index/volume_range", "patterns", "detected_fields",
			"detected_field/level/values", "detected_labels", "format_query", "../../../api/v1/logs/search", "../../../api/v1/logs/context",
		} {
			w := do(t.Context(), h, http.MethodGet, path, params)
			require.NotEqual(t, http.StatusInternalServerError, w.Code, w.Body)
			if w.Code == http.StatusOK {
				require.True(t, json.Valid(w.Body.Bytes()), w.Body)
			}
		}
		open, _ := s.OpenViews()
		require.Zero(t, open)
	})
}
