package plugin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/grafana-plugin/internal/contract"
	"github.com/braidobs/braid/grafana-plugin/internal/lab"
	"github.com/braidobs/braid/grafana-plugin/pkg/plugin"
)

var (
	record  = flag.Bool("record", false, "ask a real server again and write testdata/answers and testdata/golden")
	rewrite = flag.Bool("rewrite", false, "write testdata/golden of the recorded answers")
)

// recordedAt is when the shop of the recorded answers was.
const recordedAt = "testdata/answers/now.txt"

func goldenCases() map[string]string {
	return map[string]string{
		"metrics_range":     `{"queryType":"metrics","expr":"sum by (service_name) (rate(shop_requests_total[$__rate_interval]))","exemplars":false}`,
		"metrics_legend":    `{"queryType":"metrics","expr":"container_memory_working_set_bytes","legendFormat":"{{k8s_pod_name}} of {{ service_name }}","minStep":"5m"}`,
		"metrics_none":      `{"queryType":"metrics","expr":"no_such_metric"}`,
		"metrics_exemplars": `{"queryType":"metrics","expr":"histogram_quantile(0.9, sum by (le) (rate(http_server_request_duration_seconds_bucket[5m])))","exemplars":true,"minStep":"4m"}`,
		"metrics_native":    `{"expr":"shop_queue_wait_seconds","minStep":"10m"}`,
		"metrics_warning":   `{"expr":"histogram_quantile(7, sum by (le) (rate(http_server_request_duration_seconds_bucket[5m])))","instant":true}`,
		"instant":           `{"queryType":"metrics","expr":"sum by (k8s_pod_name) (container_memory_working_set_bytes)","instant":true}`,
		"instant_table":     `{"queryType":"metrics","expr":"sum by (k8s_pod_name, service_name) (container_memory_working_set_bytes)","instant":true,"format":"table"}`,
		"instant_none":      `{"queryType":"metrics","expr":"no_such_metric","instant":true}`,
		"scalar":            `{"queryType":"metrics","expr":"6*7","instant":true}`,
		"string":            `{"queryType":"metrics","expr":"\"seven\"","instant":true}`,
		"logs":              `{"queryType":"logs","expr":"{service_namespace=\"shop\"}"}`,
		"logs_forward":      `{"queryType":"logs","expr":"{service_name=\"frontend\"} |= \"served\"","direction":"forward","maxLines":3}`,
		"logs_none":         `{"queryType":"logs","expr":"{service_name=\"nobody\"}"}`,
		"trace":             `{"queryType":"trace","traceId":"` + strings.ToUpper(lab.TraceID) + `"}`,
		"trace_logs":        `{"queryType":"traceLogs","traceId":"` + lab.TraceID + `"}`,
		"trace_span_logs":   `{"queryType":"traceLogs","traceId":"` + lab.TraceID + `","spanId":"eee19b7ec3c1b176"}`,
		"trace_metrics":     `{"queryType":"traceMetrics","traceId":"` + lab.TraceID + `"}`,
		"search":            `{"queryType":"search","service":"frontend","tags":"kind=server","limit":5}`,
		"search_slow":       `{"queryType":"search","minDuration":"500ms","tags":"status=error"}`,
		"search_none":       `{"queryType":"search","service":"nobody"}`,
		"traceql":           `{"queryType":"traceql","expr":"{ resource.service.name = \"frontend\" } >> { status = error } | select(kind)","limit":5}`,
		"traceql_none":      `{"queryType":"traceql","expr":"{ name = \"nothing\" }"}`,
		"traceql_series":    `{"queryType":"traceql","expr":"{ kind = server } | rate() by (resource.service.name)","format":"timeseries","exemplars":true,"minStep":"5m","legendFormat":"{{resource.service.name}}"}`,
		"traceql_empty":     `{"queryType":"traceql","expr":"{ name = \"nothing\" } | rate()","format":"timeseries"}`,
		"traceql_instant":   `{"queryType":"traceql","expr":"{ } | quantile_over_time(duration, .9) by (resource.service.name)","format":"timeseries","instant":true}`,
		"resource":          `{"queryType":"resource","resource":"cart","kind":"service"}`,
	}
}

// exchange is one request to the server and its answer.
type exchange struct {
	Path  string          `json:"path"`
	Query string          `json:"query"`
	Kind  string          `json:"contentType"`
	Body  json.RawMessage `json:"body"`
}

// TestGolden asks the queries of goldenCases. The server of the test answers with what a real one answered, and only to
// the very requests that were recorded. -record runs a real server and asks it.
func TestGolden(t *testing.T) {
	if *record {
		recordAnswers(t)
	}
	text, err := os.ReadFile(recordedAt)
	require.NoError(t, err)
	now, err := time.Parse(time.RFC3339, strings.TrimSpace(string(text)))
	require.NoError(t, err)
	for name, q := range goldenCases() {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata/answers", name+".json"))
			require.NoError(t, err)
			var exchanges []exchange
			require.NoError(t, json.Unmarshal(b, &exchanges))
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for _, e := range exchanges {
					if e.Path == r.URL.Path && e.Query == r.URL.Query().Encode() {
						w.Header().Set("Content-Type", e.Kind)
						_, _ = w.Write(e.Body)
						return
					}
				}
				http.Error(w, "not recorded: "+r.URL.String(), http.StatusBadRequest)
			}))
			defer srv.Close()
			got := ask(t, open(t, srv.URL, nil, nil), now, q)
			require.NoError(t, got.Error)
			require.NoError(t, contract.Check(got.Frames))
			for _, f := range got.Frames {
				require.Equal(t, "A", f.RefID)
			}
			golden := filepath.Join("testdata/golden", name+".json")
			out, err := json.MarshalIndent(got.Frames, "", " ")
			require.NoError(t, err)
			if *record || *rewrite {
				require.NoError(t, os.WriteFile(golden, append(out, '\n'), 0o600))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), string(out)+"\n", "go test ./grafana-plugin/pkg/plugin -rewrite accepts the change")
			var back data.Frames // what Grafana does with an answer
			require.NoError(t, json.Unmarshal(out, &back))
		})
	}
}

// recordAnswers runs the server of this module with a shop in it.
func recordAnswers(t *testing.T) {
	t.Helper()
	bin, err := lab.Build(t.Context(), t.TempDir(), "braid", "github.com/braidobs/braid/cmd/braid")
	require.NoError(t, err)
	srv, err := lab.Start(t.Context(), bin, t.TempDir())
	require.NoError(t, err)
	defer srv.Stop()
	now := time.Now().UTC().Truncate(time.Minute)
	require.NoError(t, srv.Fill(t.Context(), now))
	require.NoError(t, os.WriteFile(recordedAt, []byte(now.Format(time.RFC3339)+"\n"), 0o600))
	target, err := url.Parse(srv.URL)
	require.NoError(t, err)
	for name, q := range goldenCases() {
		var exchanges []exchange
		proxy := &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				r.Out.Header.Set("Accept-Encoding", "identity")
			},
			ModifyResponse: func(r *http.Response) error {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return err
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
				exchanges = append(exchanges, exchange{r.Request.URL.Path, r.Request.URL.Query().Encode(), r.Header.Get("Content-Type"), body})
				return nil
			},
		}
		front := httptest.NewServer(proxy)
		got := ask(t, open(t, front.URL, nil, nil), now, q)
		front.Close()
		require.NoError(t, got.Error, name)
		b, err := json.MarshalIndent(exchanges, "", " ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join("testdata/answers", name+".json"), append(b, '\n'), 0o600))
	}
}

// open makes a data source for the server at base.
func open(tb testing.TB, base string, jsonData map[string]any, secure map[string]string) *plugin.Datasource {
	tb.Helper()
	return openWith(tb, prometheus.NewRegistry(), base, jsonData, secure)
}

func openWith(tb testing.TB, reg prometheus.Registerer, base string, jsonData map[string]any, secure map[string]string) *plugin.Datasource {
	tb.Helper()
	factory, err := plugin.Factory(reg)
	require.NoError(tb, err)
	settings, err := json.Marshal(jsonData)
	require.NoError(tb, err)
	inst, err := factory(tb.Context(), backend.DataSourceInstanceSettings{
		ID: 1, UID: "braid-uid", Name: "Braid", Type: plugin.ID, URL: base, JSONData: settings, DecryptedSecureJSONData: secure,
	})
	require.NoError(tb, err)
	ds, ok := inst.(*plugin.Datasource)
	require.True(tb, ok)
	tb.Cleanup(ds.Dispose)
	return ds
}

// ask asks one query about the time of the shop that was at now.
func ask(t *testing.T, ds *plugin.Datasource, now time.Time, q string) backend.DataResponse {
	t.Helper()
	return askContext(t.Context(), t, ds, now, q)
}

func askContext(ctx context.Context, t *testing.T, ds *plugin.Datasource, now time.Time, q string) backend.DataResponse {
	t.Helper()
	out, err := ds.QueryData(ctx, &backend.QueryDataRequest{Queries: []backend.DataQuery{{
		RefID: "A", JSON: []byte(q), Interval: time.Minute, MaxDataPoints: 500,
		TimeRange: backend.TimeRange{From: now.Add(-lab.Minutes * time.Minute), To: now.Add(time.Second)},
	}}})
	require.NoError(t, err)
	return out.Responses["A"]
}
