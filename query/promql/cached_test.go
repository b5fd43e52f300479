package promql_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/internal/testkit/randpromql"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

// TestResultsUnderLateData refreshes random queries while random data arrive, some of them late: an engine that keeps
// results answers as one that does not.
func TestResultsUnderLateData(t *testing.T) {
	served := 0.0
	for seed := range uint64(3) {
		rng := rand.New(rand.NewPCG(seed, 4))
		s := testkit.NewStore("c")
		reg := prometheus.NewRegistry()
		cfg := promql.DefaultConfig()
		keeps, err := promql.New(promql.Deps{Config: cfg, Reader: s, Metrics: reg})
		require.NoError(t, err)
		plain := newEngine(t, s, func(c *promql.Config) { c.Columns, c.CacheBytes = false, 0 }, nil)
		var queries []randpromql.Request
		for len(queries) < 60 {
			if r := randpromql.Query(rng); r.Step > 0 {
				r.Start = time.UnixMilli(randpromql.Start)
				r.End = r.Start.Add(10 * time.Minute)
				queries = append(queries, r)
			}
		}
		for _, b := range randpromql.Data(rng) {
			_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
			require.NoError(t, err)
			for i := range queries {
				r := &queries[i]
				want, got := ask(t.Context(), plain, *r), ask2(t.Context(), keeps, *r)
				require.Equal(t, want.err, got.err, r)
				if want.err == "" {
					require.NoError(t, randpromql.Equal(want.a.Value, got.a.Value, 1e-12), r)
					require.ElementsMatch(t, want.warnings, got.warnings, r)
					want.a.Close()
					got.a.Close()
				}
				r.Start = r.Start.Add(time.Duration(rng.IntN(3)) * r.Step)
				r.End = r.End.Add(time.Duration(rng.IntN(12*60)) * time.Second)
				if r.End.Before(r.Start) {
					r.End = r.Start
				}
			}
		}
		served += results(t, reg, "part") + results(t, reg, "hit")
		open, _ := s.OpenViews()
		require.Zero(t, open)
	}
	require.Greater(t, served, 100.0)
}

// ask2 is ask without statistics of each step, which are those of a whole evaluation.
func ask2(ctx context.Context, e *promql.Engine, r randpromql.Request) answer {
	return askFor(ctx, e, r, false)
}

func results(t *testing.T, reg *prometheus.Registry, result string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "braid_promql_cache_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestResults(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := store(t)
	e, err := promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: s, Metrics: reg})
	require.NoError(t, err)
	ask := func(expr string, start, end int64) string {
		a, err := e.Query(t.Context(), promql.Request{
			Tenant: tenant, Expr: expr, Start: time.Unix(start, 0), End: time.Unix(end, 0), Step: 10 * time.Second,
		})
		require.NoError(t, err)
		defer a.Close()
		return a.Value.String()
	}
	count := func(hit, part, miss float64) {
		t.Helper()
		require.Equal(t, []float64{hit, part, miss}, []float64{results(t, reg, "hit"), results(t, reg, "part"), results(t, reg, "miss")})
	}
	write := func(at int64, v float64) {
		_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{{
			Labels:  telemetry.NewLabelSet(labels.FromStrings("__name__", "m", "i", "new")),
			Samples: []telemetry.Sample{{T: at * 1000, V: v}},
		}}}}})
		require.NoError(t, err)
	}
	require.Equal(t, "{} =>\n5000 @[500000]\n5100 @[510000]", ask("sum(m)", 500, 510))
	count(0, 0, 1)
	require.Equal(t, "{} =>\n5000 @[500000]\n5100 @[510000]", ask("sum(m)", 500, 519))
	count(1, 0, 1)
	require.Equal(t, "{} =>\n5100 @[510000]\n5200 @[520000]", ask("sum(m)", 510, 520))
	count(1, 1, 1)
	write(520, 7) // late: the last step changes, the one before does not
	require.Equal(t, "{} =>\n5100 @[510000]\n5207 @[520000]", ask("sum(m)", 510, 520))
	count(1, 2, 1)
	write(100, 3) // all steps may have changed
	require.Contains(t, ask("sum(m)", 210, 520), "2103 @[210000]\n")
	count(1, 2, 2)
	for _, expr := range []string{"m @ end()", "sum(m offset -10s)", "rate(m[1m])", "topk(1, m)", "{i=\"1\"}", "label_replace(m, \"i\", \"x\", \"i\", \"1\")"} {
		_ = ask(expr, 500, 510)
		_ = ask(expr, 500, 510)
	}
	count(1, 2, 4) // rate tells that the name is no counter's, and such an answer is not kept
	require.Positive(t, testutil.CollectAndCount(reg, "braid_promql_cache_bytes"))
}

func TestResultsAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	cfg := promql.DefaultConfig()
	cfg.CacheBytes = 20_000
	e, err := promql.New(promql.Deps{Config: cfg, Reader: store(t), Metrics: reg})
	require.NoError(t, err)
	for i := range 50 {
		a, err := e.Query(t.Context(), promql.Request{
			Tenant: tenant, Expr: "sum(m) + " + strconv.Itoa(i), Start: time.Unix(0, 0), End: time.Unix(600, 0), Step: 10 * time.Second,
		})
		require.NoError(t, err)
		a.Close()
	}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		switch f.GetName() {
		case "braid_promql_cache_bytes":
			require.LessOrEqual(t, f.GetMetric()[0].GetGauge().GetValue(), 20_000.)
			require.Positive(t, f.GetMetric()[0].GetGauge().GetValue())
		case "braid_promql_cache_evictions_total":
			require.Positive(t, f.GetMetric()[0].GetCounter().GetValue())
		}
	}
}
