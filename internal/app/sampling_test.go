package app

import (
	"context"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/correlate/sampling"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/blob/dir"
	"github.com/braidobs/braid/storage/catalog/mem"
	"github.com/braidobs/braid/storage/db"
	"github.com/braidobs/braid/storage/vfs"
	"github.com/braidobs/braid/storage/wal"
	"github.com/braidobs/braid/storage/wal/file"
)

// TestSampling thins out a day in a real store: every trace there is a reason for is kept, every part of it, and what TraceQL
// counts stays what it was.
func TestSampling(t *testing.T) {
	const n, oneIn = 4000, 8
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	var nanos atomic.Int64
	now := func() time.Time { return time.Unix(0, nanos.Load()) }
	nanos.Store(day.Add(30 * time.Hour).UnixNano())
	store := openStore(t, now)
	res := telemetry.NewResource("", telemetry.Attrs{{Key: "service.name", Value: telemetry.String("shop")}})
	const (
		failed, logged, pointed, slow, rare, midnight = 11, 12, 13, 14, 15, 16
	)
	id := func(i int) telemetry.TraceID { return telemetry.TraceID{1, 14: byte(i >> 8), 15: byte(i)} }
	write := func(b telemetry.Batch) {
		b.Tenant, b.Resource = telemetry.DefaultTenant, res
		_, _, err := store.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
		require.NoError(t, err)
	}
	for half := range 2 { // root spans, then their children, in another part
		var b telemetry.Batch
		for i := range n {
			start := day.Add(time.Duration(i)*15*time.Second + time.Duration(half)*time.Millisecond).UnixNano()
			s := telemetry.Span{
				TraceID: id(i), SpanID: telemetry.SpanID{byte(half + 1)}, Name: "GET /", Kind: telemetry.SpanKindServer,
				Start: start, End: start + int64(10*time.Millisecond) + int64(i%100),
			}
			if half == 1 {
				s.ParentID, s.Kind, s.Name = telemetry.SpanID{1}, telemetry.SpanKindClient, "SELECT"
			}
			switch {
			case i == failed && half == 1:
				s.Status = telemetry.StatusError
			case i == slow && half == 0:
				s.End += int64(time.Second)
			case i == rare && half == 0:
				s.Name = "GET /rare"
			case i == midnight && half == 1:
				s.Start -= 2 * int64(time.Hour)
			}
			b.Spans = append(b.Spans, s)
		}
		write(b)
		require.NoError(t, store.Flush(t.Context()))
	}
	write(telemetry.Batch{
		Stream: telemetry.NewLabelSet(labels.FromStrings("service_name", "shop")),
		Logs:   []telemetry.LogRecord{{Time: day.Add(time.Hour).UnixNano(), Severity: 17, TraceID: id(logged), Body: telemetry.String("boom")}},
	})
	write(telemetry.Batch{Series: []telemetry.Series{{
		Labels:    telemetry.NewLabelSet(labels.FromStrings("__name__", "latency")),
		Samples:   []telemetry.Sample{{T: day.Add(time.Hour).UnixMilli(), V: 1}},
		Exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", id(pointed).String()), Value: 1, Ts: day.Add(time.Hour).UnixMilli(), HasTs: true}},
	}}})
	count := func(query string) float64 {
		v, err := store.View(t.Context(), 0)
		require.NoError(t, err)
		defer func() { require.NoError(t, v.Close()) }()
		q, err := traceql.Parse(query)
		require.NoError(t, err)
		eng := traceql.Engine{Limits: traceql.DefaultLimits()}
		r, err := eng.Metrics(t.Context(), v, traceql.MetricsQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: day.Add(-24 * time.Hour).UnixNano(), End: day.Add(48 * time.Hour).UnixNano()})
		require.NoError(t, err)
		require.Len(t, r.Series, 1)
		return r.Series[0].Points[0].Value
	}
	require.InDelta(t, 2*n, count(`{} | count_over_time()`), 0)

	policy := sampling.DefaultPolicy()
	policy.OneIn, policy.Rare = oneIn, 2
	reg := prometheus.NewRegistry()
	s := sampling.New(sampling.Deps{Policy: policy, Store: store, Now: now, Log: slog.New(slog.DiscardHandler), Metrics: reg})
	require.NoError(t, s.Once(t.Context()))
	require.InDelta(t, 2*n, count(`{} | count_over_time() with(extrapolate=false)`), 0, "the day is not over for long enough")
	nanos.Store(day.Add(49 * time.Hour).UnixNano())
	require.NoError(t, s.Once(t.Context()))

	left := count(`{} | count_over_time() with(extrapolate=false)`)
	require.Less(t, left, 2.0*n/oneIn*1.5)
	deviation := math.Sqrt(float64(n) * (oneIn - 1)) // of the number of traces that those kept stand for
	require.InDelta(t, n, count(`{name = "SELECT"} | count_over_time()`), 4*deviation)
	require.InDelta(t, 1, count(`{status = error} | count_over_time()`), 0)
	v, err := store.View(t.Context(), 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, v.Close()) }()
	states := make(map[telemetry.TraceID][]string)
	for b, err := range v.Spans(t.Context(), storage.SpanQuery{Tenant: telemetry.DefaultTenant, Start: math.MinInt64, End: math.MaxInt64, Columns: storage.SpanMessages}) {
		require.NoError(t, err)
		for i := range b.Len() {
			states[b.TraceID[i]] = append(states[b.TraceID[i]], b.State[i])
		}
	}
	for _, i := range []int{failed, logged, pointed, slow, rare, midnight} {
		require.Equal(t, []string{"", ""}, states[id(i)], "trace %d is kept for a reason", i)
	}
	random := 0
	for _, ss := range states {
		require.Len(t, ss, 2, "a trace is kept whole or not at all")
		require.Equal(t, ss[0], ss[1])
		if ss[0] != "" {
			require.InEpsilon(t, 1.0/oneIn, telemetry.Probability(ss[0]), 1e-9)
			random++
		}
	}
	require.Greater(t, random, n/oneIn/2)

	require.NoError(t, s.Once(t.Context()), "a day is sampled once")
	require.InDelta(t, left, count(`{} | count_over_time() with(extrapolate=false)`), 0)
}

func TestSamplingPolicyFile(t *testing.T) {
	c := DefaultConfig()
	c.Sampling.Policy = filepath.Join(t.TempDir(), "policy.yaml")
	require.ErrorContains(t, CheckRules(c, nil), "sampling.policy")
	require.NoError(t, os.WriteFile(c.Sampling.Policy, []byte("one_in: 0\n"), 0o600))
	require.ErrorContains(t, CheckRules(c, nil), "one_in")
	require.NoError(t, os.WriteFile(c.Sampling.Policy, []byte("one_in: 20\n"), 0o600))
	require.NoError(t, CheckRules(c, nil))
}

// openStore opens a store in memory.
func openStore(t *testing.T, now func() time.Time) *db.DB {
	t.Helper()
	disk := vfs.NewMem()
	blobs, err := dir.Open(disk, "blobs")
	require.NoError(t, err)
	store, err := db.Open(t.Context(), db.DefaultConfig(), db.Deps{
		OpenLog: func(at wal.Position) (wal.Log, error) {
			return file.Open(t.Context(), file.Options{FS: disk, Dir: "wal", Shard: shard, AtLeast: at, Now: now})
		},
		Blobs: blobs, Catalog: mem.New(), Now: now,
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, store.Close(context.WithoutCancel(t.Context())))
		require.NoError(t, blobs.Close())
	})
	return store
}
