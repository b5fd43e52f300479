package plugin_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

const up = `{"queryType":"metrics","expr":"up"}`

func respond(code int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
}

// TestFailures: what can be wrong between Grafana and Braid becomes a message that says what to do, and counts as
// downstream.
func TestFailures(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		json    map[string]any
		secure  map[string]string
		status  int
		want    []string
	}{
		{"a page", respond(200, "text/html; charset=utf-8", "<html><head><title>Welcome to nginx!</title>"), nil, nil, 502, []string{"is not a Braid server", "Welcome to nginx!", "Enter the URL"}},
		{"no such path", respond(404, "text/plain", "404 page not found\n"), nil, nil, 502, []string{"is not a Braid server: it has no /api/v1/query_range"}},
		{"a page that is missing", respond(404, "text/html", "<h1>nope"), nil, nil, 502, []string{"is not a Braid server"}},
		{"a page with an error", respond(503, "text/html", "<h1>nope"), nil, nil, 502, []string{"it answers with a page (503)"}},
		{"plain text", respond(200, "text/plain", "hello"), nil, nil, 502, []string{`"text/plain" instead of JSON`}},
		{"half an answer", respond(200, "application/json", `{"status":"success","data":{`), nil, nil, 502, []string{"is not understood"}},
		{"JSON of something else", respond(200, "application/json", `{"cluster_name":"elastic"}`), nil, nil, 502, []string{"is not a Braid server"}},
		{"bad sample", respond(200, "application/json", `{"data":{"resultType":"matrix","result":[{"metric":{},"values":[["x","1"]]}]}}`), nil, nil, 502, []string{"is not understood"}},
		{"no token", respond(401, "application/json", `{"error":"who"}`), nil, nil, 401, []string{"no token or password is set"}},
		{"wrong token", respond(403, "text/plain", "no"), nil, map[string]string{"token": "x"}, 403, []string{"refuses the request (403)", "check the token"}},
		{"a login", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://sso.example/login", http.StatusFound)
		}, nil, nil, 502, []string{"redirects to https://sso.example/login"}},
		{"fault", respond(500, "application/json", `{"status":"error","error":"internal error 7f3a"}`), nil, nil, 500, []string{"answers 500: internal error 7f3a"}},
		{"overloaded", respond(503, "text/plain", "too many queries wait"), nil, nil, 503, []string{"answers 503: too many queries wait"}},
		{"bad query", respond(400, "application/json", `{"error":"1:5: parse error: unclosed left parenthesis"}`), nil, nil, 400, []string{"1:5: parse error"}},
		{"limit", respond(422, "application/json", `{"error":"over promql.max_samples"}`), nil, nil, 422, []string{"promql.max_samples"}},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("{"))
		}, nil, nil, 502, []string{"cannot be reached from Grafana", "unexpected EOF"}},
		{"long message", respond(500, "text/plain", strings.Repeat("x", 10000)), nil, nil, 500, []string{"xxx..."}},
		{"too large", respond(200, "application/json", `{"data":"`+strings.Repeat("x", 2<<20)+`"}`), map[string]any{"maxResponseMiB": 1}, nil, 502, []string{"larger than the 1 MiB of maxResponseMiB", "narrow"}},
		{"bad tenant", respond(200, "application/json", `{}`), map[string]any{"tenant": "a b"}, nil, 400, []string{`tenant: "a b" is no tenant`}},
		{"bad settings", respond(200, "application/json", `{}`), map[string]any{"timeInterval": "soon", "maxLines": -1, "maxResponseMiB": 1e6}, nil, 400, []string{"timeInterval", "maxLines", "maxResponseMiB"}},
		{"bad certificate", respond(200, "application/json", `{}`), map[string]any{"tlsAuthWithCACert": true}, map[string]string{"tlsCACert": "x"}, 400, []string{"HTTP settings"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(tt.handler)
			defer srv.Close()
			got := ask(t, open(t, srv.URL, tt.json, tt.secure), time.Now(), up)
			require.Error(t, got.Error)
			for _, w := range tt.want {
				require.Contains(t, got.Error.Error(), w)
			}
			require.Equal(t, backend.Status(tt.status), got.Status)
			require.Equal(t, backend.ErrorSourceDownstream, got.ErrorSource)
			require.Less(t, len(got.Error.Error()), 1000)
		})
	}
}

func TestURL(t *testing.T) {
	tests := []struct{ name, url, want string }{
		{"none", "", "the URL is missing"},
		{"no scheme", "localhost:9090", "must begin with http://"},
		{"other scheme", "ftp://localhost", "must begin with http://"},
		{"no host", "http://", "must begin with http://"},
		{"password", "http://u:p@localhost", "must not hold a password"},
		{"garbage", "http://a b", "cannot be read"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ds := open(t, tt.url, nil, nil)
			got := ask(t, ds, time.Now(), up)
			require.ErrorContains(t, got.Error, tt.want)
			require.Equal(t, backend.ErrorSourceDownstream, got.ErrorSource)
			health, err := ds.CheckHealth(t.Context(), &backend.CheckHealthRequest{})
			require.NoError(t, err)
			require.Equal(t, backend.HealthStatusError, health.Status)
			require.Contains(t, health.Message, tt.want)
		})
	}
}

func TestNobodyListens(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	got := ask(t, open(t, "http://"+ln.Addr().String(), nil, nil), time.Now(), up)
	require.ErrorContains(t, got.Error, "cannot be reached from Grafana")
	require.ErrorContains(t, got.Error, "Is it running")
	require.NotContains(t, got.Error.Error(), "query_range", "the query's URL is noise")
}

// TestSilentServer: one that accepts and says nothing is given up after the timeout of the data source.
func TestSilentServer(t *testing.T) {
	end := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-end:
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(end)
	got := ask(t, open(t, srv.URL, map[string]any{"timeout": 1}, nil), time.Now(), up)
	require.ErrorContains(t, got.Error, "did not answer in time")
	require.Equal(t, backend.StatusTimeout, got.Status)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got = askContext(ctx, t, open(t, srv.URL, nil, nil), time.Now(), up)
	require.ErrorContains(t, got.Error, "the query was cancelled")
}

func TestTooLargeIsCounted(t *testing.T) {
	srv := httptest.NewServer(respond(200, "application/json", strings.Repeat("x", 1<<20+1)))
	defer srv.Close()
	reg := prometheus.NewRegistry()
	ask(t, openWith(t, reg, srv.URL, map[string]any{"maxResponseMiB": 1}, nil), time.Now(), up)
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP braid_plugin_responses_too_large_total Answers of Braid that were given up because they exceed maxResponseMiB of the data source.
# TYPE braid_plugin_responses_too_large_total counter
braid_plugin_responses_too_large_total 1
`)))
}

// TestHeaders: the tenant, the token and long queries arrive.
func TestHeaders(t *testing.T) {
	var got atomic.Pointer[http.Request]
	var form atomic.Value
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		got.Store(r)
		form.Store(r.Form.Get("query"))
		respond(200, "application/json", `{"data":{"resultType":"matrix","result":[]}}`)(w, r)
	}))
	defer srv.Close()
	ds := open(t, srv.URL+"/braid/?x=1", map[string]any{"tenant": "a|b"}, map[string]string{"token": " s3cret\n"})
	require.NoError(t, ask(t, ds, time.Now(), up).Error)
	r := got.Load()
	require.Equal(t, "a|b", r.Header.Get("X-Scope-OrgID"))
	require.Equal(t, "Bearer s3cret", r.Header.Get("Authorization"))
	require.Equal(t, "/braid/api/v1/query_range", r.URL.Path)
	require.Equal(t, "GET", r.Method)
	long := strings.Repeat("a", 5000)
	require.NoError(t, ask(t, ds, time.Now(), `{"expr":"`+long+`"}`).Error)
	require.Equal(t, "POST", got.Load().Method)
	require.Equal(t, long, form.Load())
}

// TestBadQueries never reach the server.
func TestBadQueries(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("must not be asked") }))
	defer srv.Close()
	ds := open(t, srv.URL, nil, nil)
	tests := []struct{ name, query, want string }{
		{"no JSON", `{`, "malformed"},
		{"wrong type", `{"expr":5}`, "malformed"},
		{"unknown type", `{"queryType":"sql"}`, `"sql" is not one of`},
		{"empty PromQL", `{"queryType":"metrics","expr":" "}`, "PromQL query is empty"},
		{"empty LogQL", `{"queryType":"logs"}`, "LogQL query is empty"},
		{"empty TraceQL", `{"queryType":"traceql"}`, "TraceQL query is empty"},
		{"limit of TraceQL", `{"queryType":"traceql","expr":"{}","limit":-1}`, "limit must not be negative"},
		{"step", `{"expr":"up","minStep":"-1s"}`, "minStep"},
		{"lines", `{"queryType":"logs","expr":"{a=\"b\"}","maxLines":-1}`, "maxLines"},
		{"direction", `{"queryType":"logs","expr":"{a=\"b\"}","direction":"up"}`, `"up" is neither`},
		{"no ID", `{"queryType":"trace"}`, "trace ID is empty"},
		{"path for an ID", `{"queryType":"trace","traceId":"../../x"}`, "is not a trace ID"},
		{"long ID", `{"queryType":"traceLogs","traceId":"` + strings.Repeat("a", 33) + `"}`, "is not a trace ID"},
		{"limit", `{"queryType":"search","limit":-1}`, "limit must not be negative"},
		{"tags", `{"queryType":"search","tags":"` + strings.Repeat("a", 70000) + `"}`, "longer than"},
		{"no name", `{"queryType":"resource"}`, "is missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ask(t, ds, time.Now(), tt.query)
			require.ErrorContains(t, got.Error, tt.want)
			require.Equal(t, backend.StatusBadRequest, got.Status)
			require.Equal(t, backend.ErrorSourceDownstream, got.ErrorSource)
		})
	}
}

// TestOthersLive: of several queries, those that are right are answered.
func TestOthersLive(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("query") == "bad" {
			respond(400, "application/json", `{"error":"no"}`)(w, r)
			return
		}
		respond(200, "application/json", `{"data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[2,"2"],[1,"1"],[2,"3"],[3,"NaN"]]}]}}`)(w, r)
	}))
	defer srv.Close()
	ds := open(t, srv.URL, nil, nil)
	req := &backend.QueryDataRequest{}
	for i := range 40 {
		expr := "good"
		if i%2 == 1 {
			expr = "bad"
		}
		req.Queries = append(req.Queries, backend.DataQuery{
			RefID: strconv.Itoa(i), JSON: []byte(`{"expr":"` + expr + `"}`), TimeRange: backend.TimeRange{From: time.Unix(0, 0), To: time.Unix(1e9, 0)},
		})
	}
	out, err := ds.QueryData(t.Context(), req)
	require.NoError(t, err)
	require.Len(t, out.Responses, 40)
	for id, a := range out.Responses {
		if a.Error == nil {
			require.Equal(t, 3, a.Frames[0].Rows(), "each time once, in order")
			require.Equal(t, time.Unix(1, 0).UTC(), a.Frames[0].At(0, 0))
		} else {
			require.Equal(t, backend.ErrorSourceDownstream, a.ErrorSource)
		}
		require.Equal(t, a.Error != nil, id[len(id)-1]%2 == 1)
	}
}

// TestExemplarsMayFail: the series are shown without them, with a notice.
func TestExemplarsMayFail(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "exemplars") {
			asked.Add(1)
			respond(500, "text/plain", "broken")(w, r)
			return
		}
		respond(200, "application/json", `{"data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"]]}]}}`)(w, r)
	}))
	defer srv.Close()
	ds := open(t, srv.URL, nil, nil)
	got := ask(t, ds, time.Now(), `{"expr":"up","exemplars":true}`)
	require.NoError(t, got.Error)
	require.Len(t, got.Frames, 1)
	require.Contains(t, got.Frames[0].Meta.Notices[0].Text, "exemplars: Braid")
	require.EqualValues(t, 1, asked.Load())
	// An alert rule has no use for them.
	out, err := ds.QueryData(t.Context(), &backend.QueryDataRequest{
		Headers: map[string]string{"FromAlert": "true"},
		Queries: []backend.DataQuery{{RefID: "A", JSON: []byte(`{"expr":"up","exemplars":true}`), TimeRange: backend.TimeRange{To: time.Unix(100, 0), From: time.Unix(0, 0)}}},
	})
	require.NoError(t, err)
	require.NoError(t, out.Responses["A"].Error)
	require.EqualValues(t, 1, asked.Load())
}

// TestStep: what is asked of the server for what Grafana asks of the plugin.
func TestStep(t *testing.T) {
	var query atomic.Value
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query.Store(r.URL.Query().Get("query") + " " + r.URL.Query().Get("start") + " " + r.URL.Query().Get("end") + " " + r.URL.Query().Get("step"))
		respond(200, "application/json", `{"data":{"resultType":"matrix","result":[]}}`)(w, r)
	}))
	defer srv.Close()
	ds := open(t, srv.URL, map[string]any{"timeInterval": "15s"}, nil)
	tests := []struct {
		name, query string
		interval    time.Duration
		points      int64
		span        time.Duration
		want        string
	}{
		{"as asked", `{"expr":"rate(x[$__interval])"}`, 30 * time.Second, 0, time.Hour, "rate(x[30s]) 999990.000 1003590.000 30.000"},
		{"rate", `{"expr":"rate(x[$__rate_interval])"}`, time.Second, 0, time.Hour, "rate(x[60s]) 1000000.000 1003600.000 1.000"},
		{"rate, wide", `{"expr":"rate(x[${__rate_interval}])"}`, time.Minute, 0, time.Hour, "rate(x[75s]) 999960.000 1003560.000 60.000"},
		{"range", `{"expr":"x[$__range] $__range_s $__range_ms $__interval_ms"}`, time.Minute, 0, time.Hour, "x[3600s] 3600 3600000 60000 999960.000 1003560.000 60.000"},
		{"below a second", `{"expr":"x[$__interval]"}`, 1500 * time.Microsecond, 0, 10 * time.Second, "x[2ms] 1000000.000 1000010.000 0.002"},
		{"least", `{"expr":"x","minStep":"5m"}`, time.Second, 0, time.Hour, "x 999900.000 1003500.000 300.000"},
		{"none", `{"expr":"x"}`, 0, 360, time.Hour, "x 1000000.000 1003600.000 10.000"},
		{"more than the server gives", `{"expr":"x"}`, time.Second, 0, 30 * 24 * time.Hour, "x 999896.894 3591899.236 235.658"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from := time.Unix(1000000, 0)
			out, err := ds.QueryData(t.Context(), &backend.QueryDataRequest{Queries: []backend.DataQuery{{
				RefID: "A", JSON: []byte(tt.query), Interval: tt.interval, MaxDataPoints: tt.points, TimeRange: backend.TimeRange{From: from, To: from.Add(tt.span)},
			}}})
			require.NoError(t, err)
			require.NoError(t, out.Responses["A"].Error)
			require.Equal(t, tt.want, query.Load())
		})
	}
}

func TestHealth(t *testing.T) {
	server := func(sum, build string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/api/v1/query" && r.URL.Query().Get("query") == "1+1" {
				respond(200, "application/json", `{"data":{"resultType":"scalar","result":[1,"`+sum+`"]}}`)(w, r)
				return
			}
			respond(200, "application/json", `{"data":`+build+`}`)(w, r)
		}
	}
	tests := []struct {
		name    string
		handler http.HandlerFunc
		status  backend.HealthStatus
		want    string
	}{
		{"good", server("2", `{"branch":"braid","revision":"v0.3.0","version":"3.15.0"}`), backend.HealthStatusOk, "Braid v0.3.0 answers queries (tenant team-a)"},
		{"Prometheus", server("2", `{"branch":"HEAD","version":"3.15.0"}`), backend.HealthStatusError, "is not a Braid server: it speaks PromQL"},
		{"bad sums", server("3", `{"branch":"braid"}`), backend.HealthStatusError, "1+1 is 3"},
		{"page", respond(200, "text/html", "<title>x</title>"), backend.HealthStatusError, "is not a Braid server"},
		{"no token", respond(401, "text/plain", ""), backend.HealthStatusError, "no token or password is set"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewServer(tt.handler)
			defer srv.Close()
			got, err := open(t, srv.URL, map[string]any{"tenant": "team-a"}, nil).CheckHealth(t.Context(), &backend.CheckHealthRequest{})
			require.NoError(t, err)
			require.Equal(t, tt.status, got.Status, got.Message)
			require.Contains(t, got.Message, tt.want)
		})
	}
}

type collect struct{ got *backend.CallResourceResponse }

func (c *collect) Send(r *backend.CallResourceResponse) error { c.got = r; return nil }

// TestResources: only the listed paths are there, and only the listed parameters go on.
func TestResources(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := json.Marshal([]string{r.URL.EscapedPath(), r.URL.Query().Encode()})
		respond(200, "application/json", `{"data":`+string(b)+`}`)(w, r)
	}))
	defer srv.Close()
	ds := open(t, srv.URL, nil, nil)
	tests := []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "metrics?match[]=up&start=1&end=2&x=y", 200, `["/api/v1/label/__name__/values","end=2\u0026match%5B%5D=up\u0026start=1"]`},
		{"GET", "labels", 200, `["/api/v1/labels",""]`},
		{"GET", "label-values?name=job", 200, `["/api/v1/label/job/values",""]`},
		{"GET", "label-values?name=a%2F..%2F..%2Fb", 200, `["/api/v1/label/a%2F..%2F..%2Fb/values",""]`},
		{"GET", "log-labels?query=%7Ba%3D%22b%22%7D", 200, `["/loki/api/v1/labels","query=%7Ba%3D%22b%22%7D"]`},
		{"GET", "log-label-values?name=pod", 200, `["/loki/api/v1/label/pod/values",""]`},
		{"GET", "trace-tags", 200, `["/api/search/tags",""]`},
		{"GET", "trace-tag-values?name=service.name", 200, `["/api/search/tag/service.name/values",""]`},
		{"GET", "label-values", 400, `name must have`},
		{"GET", "label-values?name=..", 400, `name must have`},
		{"POST", "labels", 405, ""},
		{"GET", "api/v1/query?query=up", 404, ""},
		{"GET", "../../admin", 307, ""}, // of the path as it is cleaned, which is none of ours either
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			path, _, _ := strings.Cut(tt.path, "?")
			var c collect
			require.NoError(t, ds.CallResource(t.Context(), &backend.CallResourceRequest{Path: path, URL: tt.path, Method: tt.method}, &c))
			require.Equal(t, tt.status, c.got.Status)
			require.Contains(t, string(c.got.Body), tt.want)
		})
	}
	broken := open(t, "", nil, nil)
	var c collect
	require.NoError(t, broken.CallResource(t.Context(), &backend.CallResourceRequest{Path: "labels", URL: "labels", Method: "GET"}, &c))
	require.Equal(t, 400, c.got.Status)
	require.Contains(t, string(c.got.Body), "the URL is missing")
}
