package app

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit/randpromql"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

// TestColumnsOverLayouts asks random queries over random data of an engine with and one without shapes on columns, the
// data in memory, in several parts, and in both.
func TestColumnsOverLayouts(t *testing.T) {
	for _, layout := range []struct {
		name  string
		flush func(batch int) bool // whether the head becomes parts after the batch
	}{
		{"head", func(int) bool { return false }},
		{"one part", func(batch int) bool { return batch == 5 }},
		{"parts", func(int) bool { return true }},
		{"head after parts", func(batch int) bool { return batch%2 == 0 && batch < 5 }},
	} {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(2) {
				t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
					compareOverLayout(t, seed, layout.flush)
				})
			}
		})
	}
}

func compareOverLayout(t *testing.T, seed uint64, flush func(batch int) bool) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 2))
	store, err := openMemory(context.WithoutCancel(t.Context()), func() time.Time { return time.UnixMilli(randpromql.End) })
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close(context.WithoutCancel(t.Context()))) }()
	for i, b := range randpromql.Data(rng) {
		_, rejected, err := store.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
		require.NoError(t, err)
		require.Zero(t, rejected.Total(), rejected.Reasons)
		if flush(i) {
			require.NoError(t, store.Flush(t.Context()))
		}
	}
	engine := func(columns bool) *promql.Engine {
		cfg := promql.DefaultConfig()
		cfg.Columns = columns
		e, err := promql.New(promql.Deps{Config: cfg, Reader: store})
		require.NoError(t, err)
		return e
	}
	fast, plain := engine(true), engine(false)
	ask := func(e *promql.Engine, r randpromql.Request) (*promql.Answer, error) {
		return e.Query(t.Context(), promql.Request{
			Tenant: telemetry.DefaultTenant, Expr: r.Expr, Start: r.Start, End: r.End, Step: r.Step, Lookback: r.Lookback, PerStepStats: true,
		})
	}
	for range 60 {
		r := randpromql.Query(rng)
		want, err := ask(plain, r)
		got, gotErr := ask(fast, r)
		if err != nil {
			require.Error(t, gotErr, r)
			require.Equal(t, root(err), root(gotErr), r)
			continue
		}
		require.NoError(t, gotErr, r)
		again, err := ask(plain, r)
		require.NoError(t, err)
		if randpromql.Equal(want.Value, again.Value, 1e-12) == nil { // else it depends on the order of a map
			require.NoError(t, randpromql.Equal(want.Value, got.Value, 1e-12), r)
			require.ElementsMatch(t, notesOf(want), notesOf(got), r)
			require.Equal(t, want.Stats.Samples.TotalSamplesPerStep, got.Stats.Samples.TotalSamplesPerStep, r)
			require.Equal(t, want.Stats.Samples.SamplesReadPerStep, got.Stats.Samples.SamplesReadPerStep, r)
		}
		want.Close()
		got.Close()
		again.Close()
	}
}

func root(err error) string {
	for c := err; c != nil; c = errors.Unwrap(c) {
		err = c
	}
	return err.Error()
}

func notesOf(a *promql.Answer) []string {
	warnings, infos := a.Warnings.AsStrings("", 0, 0)
	return append(warnings, infos...)
}
