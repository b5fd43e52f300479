package app

import (
	"context"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit/randpromql"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

// TestResultsUnderLateData refreshes random queries while random data arrive in the store, some of them late, and some
// are deleted, the data in memory, in parts, and in both: an engine that keeps results answers as one that does not.
func TestResultsUnderLateData(t *testing.T) {
	for _, layout := range []struct {
		name  string
		flush func(batch int) bool // whether the head becomes parts after the batch
	}{
		{"head", func(int) bool { return false }},
		{"parts", func(int) bool { return true }},
		{"head after parts", func(batch int) bool { return batch%2 == 0 }},
	} {
		t.Run(layout.name, func(t *testing.T) {
			t.Parallel()
			served := 0.0
			for seed := range uint64(2) {
				t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
					served += refreshOverLayout(t, seed, layout.flush)
				})
			}
			require.Greater(t, served, 20.0)
		})
	}
}

// refreshOverLayout returns how many answers came from what was kept.
func refreshOverLayout(t *testing.T, seed uint64, flush func(batch int) bool) float64 {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 5))
	store, err := openMemory(context.WithoutCancel(t.Context()), func() time.Time { return time.UnixMilli(randpromql.End) })
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close(context.WithoutCancel(t.Context()))) }()
	reg := prometheus.NewRegistry()
	keeps, err := promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: store, Metrics: reg})
	require.NoError(t, err)
	cfg := promql.DefaultConfig()
	cfg.Columns, cfg.CacheBytes = false, 0
	plain, err := promql.New(promql.Deps{Config: cfg, Reader: store})
	require.NoError(t, err)
	var queries []randpromql.Request
	for len(queries) < 20 {
		if r := randpromql.Query(rng); r.Step > 0 {
			r.Start = time.UnixMilli(randpromql.Start)
			r.End = r.Start.Add(10 * time.Minute)
			queries = append(queries, r)
		}
	}
	for i, b := range randpromql.Data(rng) {
		_, rejected, err := store.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
		require.NoError(t, err)
		require.Zero(t, rejected.Total(), rejected.Reasons)
		if rng.IntN(3) == 0 {
			from := randpromql.Start + rng.Int64N(randpromql.End-randpromql.Start)
			_, err := store.Delete(t.Context(), storage.Mask{
				Tenant: telemetry.DefaultTenant, Signal: storage.Metrics, Start: from, End: from + rng.Int64N(300_000),
				Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "instance", "i"+strconv.Itoa(rng.IntN(3)))},
			})
			require.NoError(t, err)
		}
		if flush(i) {
			require.NoError(t, store.Flush(t.Context()))
		}
		for j := range queries {
			r := &queries[j]
			refresh(t, plain, keeps, *r)
			r.Start = r.Start.Add(time.Duration(rng.IntN(3)) * r.Step)
			r.End = r.End.Add(time.Duration(rng.IntN(6*60)) * time.Second)
			if r.End.Before(r.Start) {
				r.End = r.Start
			}
		}
	}
	return fromResults(t, reg)
}

// refresh compares the answers of two engines.
func refresh(t *testing.T, plain, keeps *promql.Engine, r randpromql.Request) {
	t.Helper()
	ask := func(e *promql.Engine) (*promql.Answer, error) {
		return e.Query(t.Context(), promql.Request{
			Tenant: telemetry.DefaultTenant, Expr: r.Expr, Start: r.Start, End: r.End, Step: r.Step, Lookback: r.Lookback,
		})
	}
	want, err := ask(plain)
	got, gotErr := ask(keeps)
	if err != nil {
		require.Error(t, gotErr, r)
		require.Equal(t, root(err), root(gotErr), r)
		return
	}
	require.NoError(t, gotErr, r)
	defer want.Close()
	defer got.Close()
	again, err := ask(plain)
	require.NoError(t, err)
	defer again.Close()
	if randpromql.Equal(want.Value, again.Value, 1e-12) == nil { // else it depends on the order of a map
		require.NoError(t, randpromql.Equal(want.Value, got.Value, 1e-12), r)
		require.ElementsMatch(t, notesOf(want), notesOf(got), r)
	}
}

// fromResults returns how many answers came from what was kept, as a whole or in part.
func fromResults(t *testing.T, reg *prometheus.Registry) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "braid_promql_cache_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if result := m.GetLabel()[0].GetValue(); result == "hit" || result == "part" {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}
