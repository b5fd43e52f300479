package spanmetrics_test

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/spanmetrics"
	"github.com/braidobs/braid/storage"
)

// bucketOf returns the label le of the bucket that a duration in nanoseconds falls into.
func bucketOf(length int64, le []string) string {
	for _, l := range le {
		if bound, _ := strconv.ParseFloat(l, 64); float64(length)/1e9 <= bound {
			return l
		}
	}
	return ""
}

// TestExemplars looks for the exemplars of a metric: in each part of the range, each series has the span of the smallest trace
// ID, whatever order spans are stored in.
func TestExemplars(t *testing.T) {
	rows := randomTraces(rand.New(rand.NewPCG(8, 1)), 300)
	byLabels := make(map[string][]storage.SpanRow) // of traces_spanmetrics_latency_bucket by route, without the name
	for _, r := range rows {
		e := naiveSpans([]storage.SpanRow{r}, "http.route")[0]
		e.labels["le"] = bucketOf(e.length, leSpans())
		k := labels.FromMap(withoutEmpty(e.labels)).String()
		byLabels[k] = append(byLabels[k], r)
	}
	lo, hi := (begin+10*minute)/1e6, (begin+50*minute)/1e6
	step := (hi - lo) / 100
	part := func(r storage.SpanRow) int64 { return (hi*1e6 - end(r)) / (step * 1e6) }
	want := make(map[string]map[int64]storage.SpanRow)
	for k, rs := range byLabels {
		for _, r := range rs {
			if end(r) < lo*1e6 || end(r) > hi*1e6 {
				continue
			}
			if want[k] == nil {
				want[k] = make(map[int64]storage.SpanRow)
			}
			x, ok := want[k][part(r)]
			if !ok || bytes.Compare(r.Span.TraceID[:], x.Span.TraceID[:]) < 0 {
				want[k][part(r)] = r
			}
		}
	}
	v, err := spanmetrics.New(storeOf(t, rows), spanmetrics.Options{}).View(t.Context(), 0)
	require.NoError(t, err)
	defer v.Close()
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(`traces_spanmetrics_latency_bucket{http_route=~".*"}`)
	require.NoError(t, err)
	got, err := v.Exemplars(t.Context(), storage.SeriesQuery{Tenant: tenant, Start: lo, End: hi, Matchers: ms})
	require.NoError(t, err)
	require.Len(t, got, len(want))
	spans := make(map[string]storage.SpanRow)
	for _, r := range rows {
		spans[r.Span.TraceID.String()+r.Span.SpanID.String()] = r
	}
	for _, s := range got {
		k := labels.NewBuilder(s.SeriesLabels).Del("__name__").Labels().String()
		require.Len(t, s.Exemplars, len(want[k]), k)
		last := int64(0)
		for _, e := range s.Exemplars {
			r, ok := spans[e.Labels.Get("trace_id")+e.Labels.Get("span_id")]
			require.True(t, ok, "%s", e.Labels)
			require.Equal(t, want[k][part(r)].Span.TraceID, r.Span.TraceID, k)
			require.InDelta(t, float64(end(r)-r.Span.Start)/1e9, e.Value, 1e-12)
			require.Equal(t, end(r)/1e6, e.Ts)
			require.GreaterOrEqual(t, e.Ts, last)
			last = e.Ts
		}
	}
}

// TestExemplarsOfOthers asks for those of calls, for metrics that have none, and where the store has some.
func TestExemplarsOfOthers(t *testing.T) {
	rows := randomTraces(rand.New(rand.NewPCG(9, 1)), 100)
	store := storeOf(t, rows)
	for _, b := range []telemetry.Batch{
		{Tenant: tenant, Series: []telemetry.Series{{
			Labels:    telemetry.NewLabelSet(labels.FromStrings("__name__", "traces_spanmetrics_calls_total", "service", "stored")),
			Samples:   []telemetry.Sample{{T: begin / 1e6, V: 1}},
			Exemplars: []exemplar.Exemplar{{Ts: begin / 1e6, HasTs: true, Value: 1, Labels: labels.FromStrings("trace_id", "aa")}},
		}}},
	} {
		_, _, err := store.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
		require.NoError(t, err)
	}
	v, err := spanmetrics.New(store, spanmetrics.Options{}).View(t.Context(), 0)
	require.NoError(t, err)
	defer v.Close()
	for selector, check := range map[string]func(n int){
		`traces_service_graph_request_total`:                           func(n int) { require.Positive(t, n) },
		`traces_service_graph_request_server_seconds_bucket{le="6.4"}`: func(n int) { require.Positive(t, n) },
		`traces_spanmetrics_latency_bucket{service="nobody"}`:          func(n int) { require.Zero(t, n) },
		`traces_spanmetrics_latency_sum`:                               func(n int) { require.Zero(t, n) },
		`traces_spanmetrics_size_total`:                                func(n int) { require.Zero(t, n) },
		`traces_target_info`:                                           func(n int) { require.Zero(t, n) },
		`other`:                                                        func(n int) { require.Zero(t, n) },
		`traces_spanmetrics_calls_total`:                               func(n int) { require.Equal(t, 1, n, "the stored one") },
		`traces_spanmetrics_calls_total{service!="stored"}`:            func(n int) { require.Positive(t, n) },
	} {
		ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
		require.NoError(t, err)
		got, err := v.Exemplars(t.Context(), storage.SeriesQuery{Tenant: tenant, Start: begin / 1e6, End: (begin + 62*minute) / 1e6, Matchers: ms})
		require.NoError(t, err, selector)
		check(len(got))
		for _, r := range got {
			for _, m := range ms {
				require.True(t, m.Matches(r.SeriesLabels.Get(m.Name)), "%s: %s", selector, r.SeriesLabels)
			}
		}
	}
}
