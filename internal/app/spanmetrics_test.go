package app

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	prompromql "github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/query/spanmetrics"
	"github.com/braidobs/braid/storage"
)

// TestSpanMetricsOverLayouts asks for metrics of spans of a store with its data in memory, in parts and in both, the spans of
// each trace in several of them, and of the naive store.
func TestSpanMetricsOverLayouts(t *testing.T) {
	begin := time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC)
	requests := spanRequests(rand.New(rand.NewPCG(1, 1)), begin)
	queries := []string{
		"sum by (client, server, connection_type) (increase(traces_service_graph_request_total[30m]))",
		"sum by (client, server) (increase(traces_service_graph_request_failed_total[30m]))",
		"increase(traces_service_graph_request_server_seconds_sum[30m])",
		"histogram_quantile(0.95, sum by (le, service) (rate(traces_spanmetrics_latency_bucket[5m])))",
		`sum by (http_route) (increase(traces_spanmetrics_calls_total{http_route=~".*"}[7m]))`,
		"sum by (service) (increase(traces_spanmetrics_size_total[30m]))",
		"traces_target_info",
	}
	naive := testkit.NewStore("")
	for _, r := range requests {
		_, _, err := naive.Write(t.Context(), testkit.Clone(r))
		require.NoError(t, err)
	}
	want := askSpanMetrics(t, naive, queries, begin)
	for name, flush := range map[string]func(int) bool{
		"head":             func(int) bool { return false },
		"one part":         func(i int) bool { return i == len(requests)-1 },
		"parts":            func(int) bool { return true },
		"head after parts": func(i int) bool { return i < len(requests)/2 },
	} {
		t.Run(name, func(t *testing.T) {
			store, err := openMemory(context.WithoutCancel(t.Context()), func() time.Time { return begin.Add(time.Hour) })
			require.NoError(t, err)
			defer func() { require.NoError(t, store.Close(context.WithoutCancel(t.Context()))) }()
			for i, r := range requests {
				_, rejected, err := store.Write(t.Context(), testkit.Clone(r))
				require.NoError(t, err)
				require.Zero(t, rejected.Total(), rejected.Reasons)
				if flush(i) {
					require.NoError(t, store.Flush(t.Context()))
				}
			}
			require.Equal(t, want, askSpanMetrics(t, store, queries, begin))
		})
	}
}

// spanRequests returns traces whose spans come in six requests.
func spanRequests(rng *rand.Rand, begin time.Time) []storage.Request {
	requests := make([]storage.Request, 6)
	for trace := range 150 {
		at := begin.Add(time.Duration(rng.Int64N(int64(30 * time.Minute)))).UnixNano()
		for i := range 1 + rng.IntN(10) {
			s := telemetry.Span{
				SpanID: telemetry.SpanID{7: byte(i + 1)}, Name: "op", Kind: telemetry.SpanKind(2 + rng.IntN(4)), Status: telemetry.StatusCode(rng.IntN(3)),
				Start: at + rng.Int64N(1e9),
				Attrs: telemetry.NewAttrs([]telemetry.Attr{{Key: "http.route", Value: telemetry.String([]string{"/a", "/b"}[rng.IntN(2)])}}),
			}
			binary.BigEndian.PutUint64(s.TraceID[8:], uint64(trace+1))
			if i > 0 {
				s.ParentID = telemetry.SpanID{7: byte(1 + rng.IntN(i))}
			}
			if rng.IntN(4) == 0 {
				s.Attrs = telemetry.NewAttrs([]telemetry.Attr{{Key: "db.namespace", Value: telemetry.String("orders")}})
			}
			s.End = s.Start + rng.Int64N(3e9)
			res := telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{{Key: "service.name", Value: telemetry.String([]string{"a", "b", "c"}[rng.IntN(3)])}}))
			r := &requests[rng.IntN(len(requests))]
			r.Batches = append(r.Batches, telemetry.Batch{Tenant: telemetry.DefaultTenant, Resource: res, Spans: []telemetry.Span{s}})
		}
	}
	return requests
}

// askSpanMetrics returns the answers as text.
func askSpanMetrics(t *testing.T, r storage.Reader, queries []string, begin time.Time) []string {
	t.Helper()
	e, err := promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: spanmetrics.New(r, spanmetrics.Options{})})
	require.NoError(t, err)
	var out []string
	for _, q := range queries {
		for _, step := range []time.Duration{0, time.Minute} {
			req := promql.Request{Tenant: telemetry.DefaultTenant, Expr: q, Start: begin.Add(5 * time.Minute), End: begin.Add(31 * time.Minute), Step: step}
			a, err := e.Query(t.Context(), req)
			require.NoError(t, err, q)
			switch v := a.Value.(type) { // the last digits depend on the order in which PromQL adds
			case prompromql.Vector:
				require.NotEmpty(t, v, q)
				for _, x := range v {
					out = append(out, fmt.Sprintf("%s %s %d %.10g", q, x.Metric, x.T, x.F))
				}
			case prompromql.Matrix:
				for _, x := range v {
					for _, p := range x.Floats {
						out = append(out, fmt.Sprintf("%s %s %d %.10g", q, x.Metric, p.T, p.F))
					}
				}
			}
			a.Close()
		}
	}
	slices.Sort(out)
	return out
}
