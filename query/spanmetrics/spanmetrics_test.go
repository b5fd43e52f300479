package spanmetrics_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	prompromql "github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/query/spanmetrics"
	"github.com/braidobs/braid/storage"
)

func newEngine(t *testing.T, r storage.Reader) *promql.Engine {
	t.Helper()
	e, err := promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: r})
	require.NoError(t, err)
	return e
}

// storeOf returns a store with rows.
func storeOf(t *testing.T, rows []storage.SpanRow) *testkit.Store {
	t.Helper()
	s := testkit.NewStore("")
	_, _, err := s.Write(t.Context(), requestOf(rows))
	require.NoError(t, err)
	return s
}

// instant returns the values of a query at a time, in nanoseconds, by their labels without the name.
func instant(t *testing.T, e *promql.Engine, expr string, at int64) map[string]float64 {
	t.Helper()
	a, err := e.Query(t.Context(), promql.Request{Tenant: tenant, Expr: expr, End: time.Unix(0, at)})
	require.NoError(t, err, expr)
	defer a.Close()
	out := make(map[string]float64)
	for _, s := range a.Value.(prompromql.Vector) {
		if s.F != 0 {
			out[labels.NewBuilder(s.Metric).Del("__name__").Labels().String()] = s.F
		}
	}
	return out
}

func requireClose(t *testing.T, want, got map[string]float64, tolerance float64, msg string) {
	t.Helper()
	for k, v := range want {
		if v == 0 {
			delete(want, k)
		}
	}
	require.Len(t, got, len(want), msg)
	for k, v := range want {
		require.InDelta(t, v, got[k], tolerance*v+1e-12, "%s %s", msg, k)
	}
}

func leSpans() []string {
	return strings.Fields("0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 16.384 +Inf")
}

func leEdges() []string { return strings.Fields("0.1 0.2 0.4 0.8 1.6 3.2 6.4 12.8 +Inf") }

// TestAgainstHandCount asks each metric for the increase over a range, and counts by hand.
func TestAgainstHandCount(t *testing.T) {
	for seed := range uint64(3) {
		rows := randomTraces(rand.New(rand.NewPCG(seed, 1)), 80)
		e := newEngine(t, spanmetrics.New(storeOf(t, rows), spanmetrics.Options{}))
		latency := naiveSpans(rows)
		for _, c := range []struct {
			expr   string
			events []event
			value  func(event) float64
		}{
			{"traces_spanmetrics_calls_total", latency, one},
			{`traces_spanmetrics_calls_total{http_route=~".*"}`, naiveSpans(rows, "http.route"), one},
			{`traces_spanmetrics_calls_total{retries=~".*", cloud_region=~".*"}`, naiveSpans(rows, "retries", "cloud.region"), one},
			{"traces_spanmetrics_latency_count", latency, one},
			{"traces_spanmetrics_latency_sum", latency, seconds},
			{"traces_spanmetrics_latency_bucket", below(latency, leSpans()), one},
			{"traces_service_graph_request_total", naiveEdges(rows, ""), one},
			{"traces_service_graph_request_failed_total", naiveEdges(rows, "failed"), one},
			{"traces_service_graph_request_client_seconds_count", naiveEdges(rows, "client"), one},
			{"traces_service_graph_request_client_seconds_sum", naiveEdges(rows, "client"), seconds},
			{"traces_service_graph_request_server_seconds_bucket", below(naiveEdges(rows, "server"), leEdges()), one},
			{"traces_service_graph_request_server_seconds_sum", naiveEdges(rows, "server"), seconds},
			{"traces_service_graph_request_messaging_system_seconds_sum", naiveEdges(rows, "queue"), seconds},
			{"traces_service_graph_request_messaging_system_seconds_bucket", below(naiveEdges(rows, "queue"), leEdges()), one},
		} {
			for _, r := range []struct{ from, to int64 }{
				{begin - minute, begin + 62*minute}, {begin + 7*minute, begin + 12*minute}, {begin + 7*minute + 1234e6, begin + 9*minute + 1234e6},
			} {
				want := within(c.events, r.from, r.to, c.value)
				got := instant(t, e, fmt.Sprintf("increase(%s[%dms])", c.expr, (r.to-r.from)/1e6), r.to)
				requireClose(t, want, got, 1e-9, fmt.Sprintf("seed %d: %s", seed, c.expr))
			}
		}
	}
}

// TestRange asks at many steps: each window is exact but for the millisecond at its beginning.
func TestRange(t *testing.T) {
	rows := randomTraces(rand.New(rand.NewPCG(5, 1)), 300)
	e := newEngine(t, spanmetrics.New(storeOf(t, rows), spanmetrics.Options{}))
	for _, expr := range []string{
		"sum by (client, server, connection_type) (increase(traces_service_graph_request_total[5m]))",
		"increase(traces_service_graph_request_total[5m])",
	} {
		a, err := e.Query(t.Context(), promql.Request{
			Tenant: tenant, Expr: expr, Start: time.Unix(0, begin), End: time.Unix(0, begin+60*minute), Step: time.Minute,
		})
		require.NoError(t, err)
		defer a.Close()
		edges, steps := naiveEdges(rows, ""), 0
		got := make(map[int64]map[string]float64)
		for _, s := range a.Value.(prompromql.Matrix) {
			for _, p := range s.Floats {
				if got[p.T] == nil {
					got[p.T] = make(map[string]float64)
				}
				if p.F != 0 {
					got[p.T][s.Metric.String()] = p.F
				}
			}
		}
		for at := begin; at <= begin+60*minute; at += minute {
			requireClose(t, within(edges, at-5*minute, at, one), got[at/1e6], 1e-5, expr)
			steps++
		}
		require.Equal(t, 61, steps)
	}
}

func TestQuantile(t *testing.T) {
	rows := randomTraces(rand.New(rand.NewPCG(6, 1)), 200)
	e := newEngine(t, spanmetrics.New(storeOf(t, rows), spanmetrics.Options{}))
	got := instant(t, e, `histogram_quantile(0.95, sum by (le, service) (rate(traces_spanmetrics_latency_bucket[30m])))`, begin+40*minute)
	require.Len(t, got, 5)
	for k, v := range got {
		require.Greater(t, v, 0.5, k)
		require.LessOrEqual(t, v, 16.384, k)
	}
}

func TestLabels(t *testing.T) {
	rows := randomTraces(rand.New(rand.NewPCG(7, 1)), 200)
	v, err := spanmetrics.New(storeOf(t, rows), spanmetrics.Options{}).View(t.Context(), 0)
	require.NoError(t, err)
	defer v.Close()
	name := func(s string) []*labels.Matcher {
		return []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", s)}
	}
	q := storage.SeriesQuery{Tenant: tenant, Start: begin / 1e6, End: (begin + 70*minute) / 1e6}
	values, err := v.LabelValues(t.Context(), "__name__", q)
	require.NoError(t, err)
	require.Contains(t, values, "traces_service_graph_request_total")
	require.Contains(t, values, "traces_spanmetrics_latency_bucket")
	names, err := v.LabelNames(t.Context(), q)
	require.NoError(t, err)
	require.Subset(t, names, []string{"__name__", "client", "connection_type", "le", "server", "service", "span_kind", "span_name", "status_code"})

	old := q
	old.Start, old.End = 0, 1000
	values, err = v.LabelValues(t.Context(), "__name__", old)
	require.NoError(t, err)
	require.Empty(t, values)

	q.Matchers = name("traces_spanmetrics_calls_total")
	values, err = v.LabelValues(t.Context(), "service", q)
	require.NoError(t, err)
	require.Equal(t, []string{"cart", "checkout", "frontend", "payment"}, values)
	q.Limit = 2
	values, err = v.LabelValues(t.Context(), "service", q)
	require.NoError(t, err)
	require.Equal(t, []string{"cart", "checkout"}, values)
	q.Limit = 0
	names, err = v.LabelNames(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, []string{"__name__", "service", "span_kind", "span_name", "status_code"}, names)

	q.Matchers = name("traces_target_info")
	sets, err := v.LabelSets(t.Context(), q)
	require.NoError(t, err)
	require.Len(t, sets, 4)
	require.Equal(t, `{__name__="traces_target_info", cloud_region="eu", instance="cart-0", job="shop/cart"}`, sets[0].Labels().String())

	q.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", "traces_service_graph_.*"), labels.MustNewMatcher(labels.MatchEqual, "client", "user")}
	values, err = v.LabelValues(t.Context(), "connection_type", q)
	require.NoError(t, err)
	require.Equal(t, []string{"virtual_node"}, values)

	meta, err := v.Metadata(t.Context(), tenant, "traces_spanmetrics_latency")
	require.NoError(t, err)
	require.Equal(t, telemetry.MetricHistogram, meta["traces_spanmetrics_latency"][0].Type)
}

// TestStoredSeriesWin writes series of somebody's own generator.
func TestStoredSeriesWin(t *testing.T) {
	s := storeOf(t, randomTraces(rand.New(rand.NewPCG(8, 1)), 50))
	at := (begin + 30*minute) / 1e6
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{{
		Labels: telemetry.NewLabelSet(labels.FromStrings("__name__", "traces_spanmetrics_calls_total", "service", "own")), Samples: []telemetry.Sample{{T: at, V: 7}},
	}}}}})
	require.NoError(t, err)
	e := newEngine(t, spanmetrics.New(s, spanmetrics.Options{}))
	require.Equal(t, map[string]float64{`{service="own"}`: 7}, instant(t, e, "traces_spanmetrics_calls_total", at*1e6))
	require.NotEmpty(t, instant(t, e, `traces_spanmetrics_calls_total{service="cart"}`, at*1e6), "no stored series matches")
	require.NotEmpty(t, instant(t, e, `traces_spanmetrics_calls_total`, at*1e6-10*minute), "nothing is stored there")
	require.NotEmpty(t, instant(t, e, `increase(traces_service_graph_request_total[20m])`, at*1e6), "another metric")
	require.Empty(t, instant(t, e, `{service="cart"}`, at*1e6), "a selector must name a metric")
}

// TestResultsAreNotKept asks twice, with a span in between.
func TestResultsAreNotKept(t *testing.T) {
	s := storeOf(t, randomTraces(rand.New(rand.NewPCG(9, 1)), 20))
	e := newEngine(t, spanmetrics.New(s, spanmetrics.Options{}))
	total := func() float64 {
		a, err := e.Query(t.Context(), promql.Request{
			Tenant: tenant, Expr: "sum(increase(traces_spanmetrics_calls_total[70m]))", Start: time.Unix(0, begin+60*minute), End: time.Unix(0, begin+64*minute), Step: time.Minute,
		})
		require.NoError(t, err)
		defer a.Close()
		return a.Value.(prompromql.Matrix)[0].Floats[4].F
	}
	before := total()
	rows := randomTraces(rand.New(rand.NewPCG(10, 1)), 1)
	rows[0].Span.TraceID[2], rows[0].Span.State = 9, ""
	_, _, err := s.Write(t.Context(), requestOf(rows[:1]))
	require.NoError(t, err)
	require.InDelta(t, before+1, total(), 0.1)
}

func TestLimits(t *testing.T) {
	s := storeOf(t, randomTraces(rand.New(rand.NewPCG(11, 1)), 20))
	e := newEngine(t, spanmetrics.New(s, spanmetrics.Options{}))
	for expr, want := range map[string]string{
		"traces_spanmetrics_calls_total[100000d]": "shorten it",
		`traces_spanmetrics_calls_total{http_route=~".*",retries=~".*",cloud_region=~".*",peer_service=~".*",db_namespace=~".*"}`: "may name at most 4 attributes",
		`traces_spanmetrics_latency_bucket[3000d]`: "times steps",
	} {
		_, err := e.Query(t.Context(), promql.Request{Tenant: tenant, Expr: expr, End: time.Unix(0, begin+30*minute)})
		require.ErrorContains(t, err, want, expr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := e.Query(ctx, promql.Request{Tenant: tenant, Expr: "traces_spanmetrics_calls_total", End: time.Unix(0, begin+30*minute)})
	require.Equal(t, httpapi.Canceled, query.KindOf(err))
}
