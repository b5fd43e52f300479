package promql_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	engine "github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/internal/testkit/randpromql"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

// answer is what is compared of two engines.
type answer struct {
	a        *promql.Answer
	err      string
	warnings []string
}

func ask(ctx context.Context, e *promql.Engine, r randpromql.Request) answer {
	return askFor(ctx, e, r, true)
}

func askFor(ctx context.Context, e *promql.Engine, r randpromql.Request, stats bool) answer {
	a, err := e.Query(ctx, promql.Request{
		Tenant: tenant, Expr: r.Expr, Start: r.Start, End: r.End, Step: r.Step, Lookback: r.Lookback, PerStepStats: stats,
	})
	if err != nil {
		for c := err; c != nil; c = errors.Unwrap(c) {
			err = c
		}
		return answer{err: err.Error()}
	}
	warnings, infos := a.Warnings.AsStrings(r.Expr, 0, 0)
	return answer{a: a, warnings: append(warnings, infos...)}
}

// TestColumnsEqualEngine asks random queries over random data of an engine with and one without shapes on columns.
func TestColumnsEqualEngine(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			compareColumns(t, seed, 60)
		})
	}
}

func compareColumns(t *testing.T, seed uint64, queries int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	s := testkit.NewStore("c")
	for _, b := range randpromql.Data(rng) {
		_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
		require.NoError(t, err)
	}
	fast := newEngine(t, s, nil, nil)
	plain := newEngine(t, s, func(c *promql.Config) { c.Columns = false }, nil)
	answered := 0
	for range queries {
		r := randpromql.Query(rng)
		want, got := ask(t.Context(), plain, r), ask(t.Context(), fast, r)
		require.Equal(t, want.err, got.err, r)
		if want.err != "" {
			continue
		}
		if again := ask(t.Context(), plain, r); randpromql.Equal(want.a.Value, again.a.Value, 1e-12) != nil {
			continue // it depends on the order of a map
		}
		answered++
		require.NoError(t, randpromql.Equal(want.a.Value, got.a.Value, 1e-12), r)
		require.ElementsMatch(t, want.warnings, got.warnings, r)
		require.Equal(t, want.a.Stats.Samples.TotalSamples, got.a.Stats.Samples.TotalSamples, r)
		require.Equal(t, want.a.Stats.Samples.SamplesRead, got.a.Stats.Samples.SamplesRead, r)
		require.Equal(t, want.a.Stats.Samples.TotalSamplesPerStep, got.a.Stats.Samples.TotalSamplesPerStep, r)
		require.Equal(t, want.a.Stats.Samples.SamplesReadPerStep, got.a.Stats.Samples.SamplesReadPerStep, r)
		want.a.Close()
		got.a.Close()
	}
	require.Greater(t, answered, queries/2, "of the random queries too many are errors")
}

// TestColumnsKeepOrder compares the order of vectors where the engine has one: that of the first members.
func TestColumnsKeepOrder(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 3))
		s := testkit.NewStore("c")
		for _, b := range randpromql.Data(rng) {
			_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
			require.NoError(t, err)
		}
		fast := newEngine(t, s, nil, nil)
		plain := newEngine(t, s, func(c *promql.Config) { c.Columns = false }, nil)
		for _, expr := range []string{
			"sum by (code) (rate(requests_total[5m]))", "rate(requests_total[5m])", "count by (__name__) ({job=~'.+'})",
			"max without (instance) (load)", "topk(3, sum by (instance, kind) (count_over_time(load[1m])))",
		} {
			order := func(e *promql.Engine) (names []string) {
				a, err := e.Query(t.Context(), promql.Request{Tenant: tenant, Expr: expr, End: time.UnixMilli((randpromql.Start + randpromql.End) / 2)})
				require.NoError(t, err)
				defer a.Close()
				for _, s := range a.Value.(engine.Vector) {
					names = append(names, s.Metric.String())
				}
				return names
			}
			require.Equal(t, order(plain), order(fast), expr)
		}
	}
}
