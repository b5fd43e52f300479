package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/braidobs/braid/grafana-plugin/internal/contract"
	"github.com/braidobs/braid/grafana-plugin/internal/host"
	"github.com/braidobs/braid/grafana-plugin/internal/lab"
)

// rig is the real plugin, launched as Grafana launches it, beside a real server with a shop in it. The server is behind
// a proxy that wants a token, for the server itself has no tokens yet.
type rig struct {
	binary string // of the plugin
	host   *host.Host
	log    *safeBuffer
	url    string // the proxy's
	now    time.Time
}

const token = "s3cret"

type safeBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	if testing.Short() {
		t.Skip("it builds two binaries")
	}
	dir := t.TempDir()
	r := &rig{log: &safeBuffer{}, now: time.Now().UTC().Truncate(time.Second)}
	var err error
	r.binary, err = lab.Build(t.Context(), dir, "gpx_braid", "github.com/braidobs/braid/grafana-plugin/pkg")
	require.NoError(t, err)
	server, err := lab.Build(t.Context(), dir, "braid", "github.com/braidobs/braid/cmd/braid")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	srv, err := lab.Start(ctx, server, t.TempDir())
	require.NoError(t, err)
	t.Cleanup(srv.Stop)
	require.NoError(t, srv.Fill(ctx, r.now))
	guard, err := lab.Guard(srv.URL, token)
	require.NoError(t, err)
	front := httptest.NewServer(guard)
	t.Cleanup(front.Close)
	r.url = front.URL
	r.launch(t)
	return r
}

func (r *rig) launch(t *testing.T) {
	t.Helper()
	h, err := host.Launch(t.Context(), r.binary, r.log)
	require.NoError(t, err, r.log)
	t.Cleanup(h.Kill)
	r.host = h
}

// as is what Grafana passes along with each request. Updated settings make a new instance.
func (r *rig) as(base, secret string, updated int64) backend.PluginContext {
	secure := map[string]string{}
	if secret != "" {
		secure["token"] = secret
	}
	return backend.PluginContext{
		Namespace: "default", PluginID: "braidobs-braid-datasource", PluginVersion: "0.1.0", User: &backend.User{Login: "admin", Role: "Admin"},
		DataSourceInstanceSettings: &backend.DataSourceInstanceSettings{
			ID: 1, UID: "braid-uid", Name: "Braid", URL: base, JSONData: []byte(`{}`), DecryptedSecureJSONData: secure, Updated: time.Unix(1700000000+updated, 0),
		},
	}
}

func (r *rig) good() backend.PluginContext { return r.as(r.url, token, 0) }

func (r *rig) query(id, q string) backend.DataQuery {
	return backend.DataQuery{
		RefID: id, JSON: []byte(q), MaxDataPoints: 200, Interval: time.Minute,
		TimeRange: backend.TimeRange{From: r.now.Add(-lab.Minutes * time.Minute), To: r.now.Add(time.Second)},
	}
}

func TestPluginInGrafanasPlace(t *testing.T) {
	r := newRig(t)

	t.Run("health", func(t *testing.T) {
		for i, tt := range []struct {
			name, base, secret string
			status             pluginv2.CheckHealthResponse_HealthStatus
			want               string
		}{
			{"token", r.url, token, pluginv2.CheckHealthResponse_OK, "answers queries (tenant default)"},
			{"no token", r.url, "", pluginv2.CheckHealthResponse_ERROR, "no token or password is set"},
			{"wrong token", r.url, "guess", pluginv2.CheckHealthResponse_ERROR, "check the token"},
			{"nobody there", "http://127.0.0.1:1", "", pluginv2.CheckHealthResponse_ERROR, "cannot be reached"},
			{"no URL", "", "", pluginv2.CheckHealthResponse_ERROR, "the URL is missing"},
		} {
			got, err := r.host.CheckHealth(t.Context(), r.as(tt.base, tt.secret, int64(100+i)))
			require.NoError(t, err, tt.name)
			require.Equal(t, tt.status, got.GetStatus(), got.GetMessage())
			require.Contains(t, got.GetMessage(), tt.want)
		}
	})

	t.Run("queries", func(t *testing.T) {
		kinds := []struct {
			query  string
			frames int
			kind   data.FrameType
			rows   int // of the first frame
		}{
			{`{"queryType":"metrics","expr":"sum by (service_name) (rate(shop_requests_total[5m]))"}`, 3, data.FrameTypeTimeSeriesMulti, 0},
			{`{"queryType":"metrics","expr":"sum(container_memory_working_set_bytes)","instant":true}`, 1, data.FrameTypeNumericMulti, 1},
			{`{"queryType":"logs","expr":"{service_namespace=\"shop\"}"}`, 1, data.FrameTypeLogLines, 13},
			{`{"queryType":"trace","traceId":"` + lab.TraceID + `"}`, 1, "", 4},
			{`{"queryType":"traceLogs","traceId":"` + lab.TraceID + `"}`, 1, data.FrameTypeLogLines, 5},
			{`{"queryType":"traceMetrics","traceId":"` + lab.TraceID + `"}`, 12, data.FrameTypeTimeSeriesMulti, 0},
			{`{"queryType":"search","service":"frontend"}`, 1, data.FrameTypeTable, 7},
			{`{"queryType":"resource","resource":"cart","kind":"service"}`, 9, data.FrameTypeTable, 1},
		}
		req := &backend.QueryDataRequest{PluginContext: r.good(), Headers: map[string]string{"FromAlert": "true"}}
		for i, k := range kinds {
			req.Queries = append(req.Queries, r.query(fmt.Sprint("Q", i), k.query))
		}
		req.Queries = append(req.Queries, r.query("BAD", `{"queryType":"metrics","expr":"sum("}`))
		out, err := r.host.QueryData(t.Context(), req)
		require.NoError(t, err)
		for i, k := range kinds {
			got := out.Responses[fmt.Sprint("Q", i)]
			require.NoError(t, got.Error, k.query)
			require.NoError(t, contract.Check(got.Frames), k.query)
			require.Len(t, got.Frames, k.frames, k.query)
			require.Equal(t, k.kind, got.Frames[0].Meta.Type, k.query)
			if k.rows > 0 {
				require.Equal(t, k.rows, got.Frames[0].Rows(), k.query)
			}
			for _, f := range got.Frames {
				b, err := json.Marshal(f)
				require.NoError(t, err)
				var back data.Frame
				require.NoError(t, json.Unmarshal(b, &back))
				again, err := json.Marshal(&back)
				require.NoError(t, err)
				require.JSONEq(t, string(b), string(again), "a frame must survive Grafana's JSON")
			}
		}
		bad := out.Responses["BAD"]
		require.ErrorContains(t, bad.Error, "parse error")
		require.Equal(t, backend.StatusBadRequest, bad.Status)
		require.Equal(t, backend.ErrorSourceDownstream, bad.ErrorSource)
	})

	t.Run("links", func(t *testing.T) {
		// The link on a log line, followed with the value it is on, finds the trace; the link on a span finds its lines.
		follow := func(from data.Frames, field, title string, row int) data.Frames {
			f, _ := from[0].FieldByName(field)
			require.NotNil(t, f)
			v, ok := f.ConcreteAt(row)
			require.True(t, ok)
			for _, l := range f.Config.Links {
				if l.Title != title {
					continue
				}
				b, err := json.Marshal(l.Internal.Query)
				require.NoError(t, err)
				out, err := r.host.QueryData(t.Context(), &backend.QueryDataRequest{
					PluginContext: r.good(), Queries: []backend.DataQuery{r.query("L", strings.ReplaceAll(string(b), "${__value.raw}", fmt.Sprint(v)))},
				})
				require.NoError(t, err)
				require.NoError(t, out.Responses["L"].Error)
				return out.Responses["L"].Frames
			}
			require.Fail(t, "no link "+title)
			return nil
		}
		out, err := r.host.QueryData(t.Context(), &backend.QueryDataRequest{
			PluginContext: r.good(), Queries: []backend.DataQuery{r.query("A", `{"queryType":"logs","expr":"{service_name=\"frontend\"} |= \"upstream\""}`)},
		})
		require.NoError(t, err)
		trace := follow(out.Responses["A"].Frames, "traceID", "Open trace", 0)
		require.Equal(t, 4, trace[0].Rows())
		require.Equal(t, 5, follow(trace, "traceID", "Logs of this trace", 0)[0].Rows())
		require.Len(t, follow(trace, "traceID", "Metrics around this trace", 0), 12)
		ofSpan := follow(trace, "spanID", "Logs of this span", 3)
		require.Equal(t, 1, ofSpan[0].Rows())
		body, _ := ofSpan[0].FieldByName("body")
		require.Contains(t, body.At(0), "deadlock found")

		// What is related to a service leads on to a resource of its own, by its ID.
		out, err = r.host.QueryData(t.Context(), &backend.QueryDataRequest{
			PluginContext: r.good(), Queries: []backend.DataQuery{r.query("A", `{"queryType":"resource","resource":"cart","kind":"service"}`)},
		})
		require.NoError(t, err)
		related := out.Responses["A"].Frames[1:2]
		kinds, _ := related[0].FieldByName("kind")
		require.Equal(t, 4, related[0].Rows())
		for i := range related[0].Rows() {
			opened := follow(related, "id", "Open resource", i)
			kind, _ := opened[0].FieldByName("kind")
			require.Equal(t, kinds.At(i), kind.At(0))
		}
	})

	t.Run("resources", func(t *testing.T) {
		for path, want := range map[string]string{
			"metrics": "shop_requests_total", "label-values?name=service_name": "cart", "labels?match[]=shop_requests_total": "route",
			"log-labels": "service_name", "log-label-values?name=service_name": "database", "trace-tags": "http.request.method", "trace-tag-values?name=service.name": "frontend",
		} {
			p, _, _ := strings.Cut(path, "?")
			got, err := r.host.Resource(t.Context(), &backend.CallResourceRequest{PluginContext: r.good(), Path: p, URL: path, Method: http.MethodGet})
			require.NoError(t, err, path)
			require.Equal(t, http.StatusOK, got.Status, "%s: %s", path, got.Body)
			var list []string
			require.NoError(t, json.Unmarshal(got.Body, &list))
			require.Contains(t, list, want, path)
		}
		got, err := r.host.Resource(t.Context(), &backend.CallResourceRequest{PluginContext: r.good(), Path: "api/v1/query", URL: "api/v1/query?query=up", Method: http.MethodGet})
		require.NoError(t, err)
		require.Equal(t, http.StatusNotFound, got.Status)
	})

	t.Run("dashboard", func(t *testing.T) {
		// Every panel of the dashboard that comes with the plugin has something to show.
		b, err := os.ReadFile("../src/dashboards/first.json")
		require.NoError(t, err)
		var board struct {
			Panels []struct {
				Title   string            `json:"title"`
				Targets []json.RawMessage `json:"targets"`
			} `json:"panels"`
		}
		require.NoError(t, json.Unmarshal([]byte(strings.NewReplacer("$service", "cart", "$trace", lab.TraceID).Replace(string(b))), &board))
		require.Len(t, board.Panels, 7)
		for _, p := range board.Panels {
			require.NotEmpty(t, p.Targets, p.Title)
			for _, target := range p.Targets {
				out, err := r.host.QueryData(t.Context(), &backend.QueryDataRequest{PluginContext: r.good(), Queries: []backend.DataQuery{r.query("A", string(target))}})
				require.NoError(t, err)
				require.NoError(t, out.Responses["A"].Error, p.Title)
				require.Positive(t, out.Responses["A"].Frames[0].Rows(), p.Title)
			}
		}
	})

	t.Run("settings", func(t *testing.T) {
		// A changed token takes effect with the next request.
		ask := func(pc backend.PluginContext) backend.DataResponse {
			out, err := r.host.QueryData(t.Context(), &backend.QueryDataRequest{PluginContext: pc, Queries: []backend.DataQuery{r.query("A", `{"expr":"1"}`)}})
			require.NoError(t, err)
			return out.Responses["A"]
		}
		require.NoError(t, ask(r.good()).Error)
		got := ask(r.as(r.url, "other", 1))
		require.ErrorContains(t, got.Error, "check the token")
		require.Equal(t, backend.StatusUnauthorized, got.Status)
		require.Equal(t, backend.ErrorSourceDownstream, got.ErrorSource)
		require.ErrorContains(t, ask(r.as("http://127.0.0.1:1", token, 2)).Error, "cannot be reached")
		require.NoError(t, ask(r.as(r.url, token, 3)).Error)
	})

	t.Run("concurrent", func(t *testing.T) {
		var g errgroup.Group
		for i := range 100 {
			g.Go(func() error {
				id := fmt.Sprint("R", i)
				out, err := r.host.QueryData(t.Context(), &backend.QueryDataRequest{
					PluginContext: r.good(), Queries: []backend.DataQuery{r.query(id, fmt.Sprintf(`{"expr":"vector(%d)","instant":true}`, i))},
				})
				if err != nil {
					return err
				}
				got := out.Responses[id]
				if got.Error != nil {
					return got.Error
				}
				if v := got.Frames[0].At(0, 0); v != float64(i) {
					return fmt.Errorf("query %d got %v", i, v)
				}
				return nil
			})
		}
		require.NoError(t, g.Wait())
	})

	t.Run("metrics", func(t *testing.T) {
		text, err := r.host.Metrics(t.Context())
		require.NoError(t, err)
		require.Contains(t, text, "braid_plugin_responses_too_large_total 0")
	})

	t.Run("killed", func(t *testing.T) {
		p, err := os.FindProcess(r.host.PID())
		require.NoError(t, err)
		require.NoError(t, p.Kill())
		require.Eventually(t, r.host.Exited, 10*time.Second, 10*time.Millisecond)
		_, err = r.host.CheckHealth(t.Context(), r.good())
		require.Error(t, err)
		r.launch(t)
		got, err := r.host.CheckHealth(t.Context(), r.good())
		require.NoError(t, err)
		require.Equal(t, pluginv2.CheckHealthResponse_OK, got.GetStatus(), got.GetMessage())
	})
	require.NotContains(t, r.log.String(), "panic")
}
