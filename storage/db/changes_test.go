package db_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/vfs"
)

const millisPerDay = 24 * 3600 * 1000

// sample returns a request with one float of a series at a time.
func sample(name string, t int64) storage.Request {
	return storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{{
		Labels: labelSet("__name__", "m", "i", name), Samples: []telemetry.Sample{{T: t, V: float64(t)}},
	}}}}}
}

// position returns that of a view opened now.
func position(t *testing.T, m *machine) storage.Position {
	t.Helper()
	v, err := m.db.View(t.Context(), 0)
	require.NoError(t, err)
	defer v.Close()
	return v.(storage.ChangeReader).Position()
}

// oldest asks a view opened now for the oldest change.
func oldest(t *testing.T, m *machine, of telemetry.Tenant, since storage.Position) (int64, bool) {
	t.Helper()
	v, err := m.db.View(t.Context(), 0)
	require.NoError(t, err)
	defer v.Close()
	return v.(storage.ChangeReader).OldestChange(of, since)
}

func TestOldestChange(t *testing.T) {
	now := start.UnixMilli()
	series := func(s telemetry.Series) storage.Request {
		s.Labels = labelSet("__name__", "m")
		return storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{s}}}}
	}
	join := func(rs ...storage.Request) (out storage.Request) {
		for _, r := range rs {
			out.Batches = append(out.Batches, r.Batches...)
		}
		return out
	}
	elsewhere := sample("a", now-900)
	elsewhere.Batches[0].Tenant = "other"
	for _, c := range []struct {
		name string
		reqs []storage.Request
		want int64
	}{
		{"nothing", nil, math.MaxInt64},
		{"in order", []storage.Request{sample("a", now), sample("a", now+5), sample("a", now+9)}, now},
		{"late", []storage.Request{sample("a", now), sample("b", now-70), sample("a", now+9)}, now - 70},
		{"weeks late", []storage.Request{sample("a", now), sample("a", now-20*millisPerDay), sample("a", now)}, now - 20*millisPerDay},
		{"several in a request", []storage.Request{join(sample("a", now+1), sample("b", now-3), elsewhere, sample("c", now-2))}, now - 3},
		{"another tenant", []storage.Request{elsewhere}, math.MaxInt64},
		{"histogram", []storage.Request{series(telemetry.Series{Histograms: []telemetry.HistogramSample{{T: now - 4, H: &histogram.Histogram{Count: 1, ZeroCount: 1, Sum: 1}}}})}, now - 4},
		{"no samples", []storage.Request{
			series(telemetry.Series{Metadata: &telemetry.Metadata{Type: telemetry.MetricGauge, Help: "h"}}),
			series(telemetry.Series{Exemplars: []exemplar.Exemplar{{Labels: labels.FromStrings("a", "b"), Ts: now - 50, HasTs: true}}}),
		}, math.MaxInt64},
		{"logs and spans", []storage.Request{{Batches: []telemetry.Batch{{
			Tenant: tenant, Stream: labelSet("a", "b"), Resource: testResource,
			Logs: []telemetry.LogRecord{{Time: 1, Body: telemetry.String("x")}}, Spans: []telemetry.Span{{TraceID: traceID(1), Start: 1, End: 2}},
		}}}}, math.MaxInt64},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(vfs.NewMem())
			requireOpen(t, m)
			_, _, err := m.db.Write(t.Context(), sample("before", now-1000))
			require.NoError(t, err)
			since := position(t, m)
			for _, r := range c.reqs {
				end, _, err := m.db.Write(t.Context(), r)
				require.NoError(t, err)
				require.Equal(t, end, position(t, m))
			}
			for range 2 {
				got, ok := oldest(t, m, tenant, since)
				require.True(t, ok)
				require.Equal(t, c.want, got)
				got, ok = oldest(t, m, tenant, position(t, m))
				require.True(t, ok)
				require.Equal(t, int64(math.MaxInt64), got)
				require.NoError(t, m.db.Flush(t.Context())) // which changes nothing
				require.NoError(t, m.db.Maintain(t.Context()))
			}
		})
	}
}

func TestOldestChangeOfWhatIsRefused(t *testing.T) {
	m := newMachine(vfs.NewMem())
	m.cfg.MaxSeriesPerMetric = 1
	requireOpen(t, m)
	now := start.UnixMilli()
	_, _, err := m.db.Write(t.Context(), sample("a", now))
	require.NoError(t, err)
	since := position(t, m)
	r := sample("b", now-500)
	r.Batches = append(r.Batches, sample("b", now+7).Batches...)
	_, rejected, err := m.db.Write(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, 2, rejected.Samples)
	got, ok := oldest(t, m, tenant, since)
	require.True(t, ok)
	require.Equal(t, now+7, got, "the sample of the series that counts what was refused")
}

func TestOldestChangeAfterDeletes(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	now := start.UnixMilli()
	_, _, err := m.db.Write(t.Context(), sample("a", now))
	require.NoError(t, err)
	before := position(t, m)
	_, err = m.db.Delete(t.Context(), storage.Mask{Tenant: tenant, Signal: storage.Logs, Start: 1, End: math.MaxInt64})
	require.NoError(t, err)
	got, ok := oldest(t, m, tenant, before)
	require.True(t, ok)
	require.Equal(t, int64(math.MaxInt64), got, "logs are no samples")
	_, err = m.db.Delete(t.Context(), storage.Mask{Tenant: tenant, Signal: storage.Metrics, Start: now - 3000, End: now + 3000})
	require.NoError(t, err)
	after := position(t, m)
	for range 2 {
		got, ok = oldest(t, m, tenant, before)
		require.True(t, ok)
		require.Equal(t, now-3000, got)
		got, ok = oldest(t, m, tenant, after)
		require.True(t, ok)
		require.Equal(t, int64(math.MaxInt64), got)
		require.NoError(t, m.db.Maintain(t.Context())) // it takes away what nobody sees any more
	}
}

func TestOldestChangeAfterRetention(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	const day = 24 * time.Hour
	midnight := start.Truncate(day)
	for n := range 5 {
		_, _, err := m.db.Write(t.Context(), sample("a", start.Add(time.Duration(n)*day).UnixMilli()))
		require.NoError(t, err)
	}
	require.NoError(t, m.db.Flush(t.Context()))
	before := position(t, m)
	m.clock.set(midnight.Add(m.cfg.Retention.Std() + 2*day + time.Hour))
	require.NoError(t, m.db.Maintain(t.Context()))
	got, ok := oldest(t, m, tenant, before)
	require.True(t, ok)
	require.Equal(t, midnight.UnixMilli(), got, "of the two days that are gone the first")
	other, ok := oldest(t, m, "other", before)
	require.True(t, ok)
	require.Equal(t, int64(math.MaxInt64), other)
	_, _, err := m.db.Write(t.Context(), sample("a", m.clock.Now().UnixMilli()))
	require.NoError(t, err)
	got, ok = oldest(t, m, tenant, before)
	require.True(t, ok)
	require.Equal(t, midnight.UnixMilli(), got)
	got, ok = oldest(t, m, tenant, position(t, m))
	require.True(t, ok)
	require.Equal(t, int64(math.MaxInt64), got)
}

func TestOldestChangeIsForgottenByARestart(t *testing.T) {
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	now := start.UnixMilli()
	for n := range int64(3) {
		_, _, err := m.db.Write(t.Context(), sample("a", now+n))
		require.NoError(t, err)
	}
	last := position(t, m)
	m.stop()
	require.NoError(t, m.open(t.Context()))
	require.Equal(t, last, position(t, m))
	_, ok := oldest(t, m, tenant, last-1)
	require.False(t, ok)
	_, _, err := m.db.Write(t.Context(), sample("a", now+3))
	require.NoError(t, err)
	_, ok = oldest(t, m, tenant, last-1)
	require.False(t, ok)
	got, ok := oldest(t, m, tenant, last)
	require.True(t, ok)
	require.Equal(t, now+3, got)
}

// TestOldestChangeOfManyRequests writes more than is remembered one by one, some of it late.
func TestOldestChangeOfManyRequests(t *testing.T) {
	for _, late := range []int{0, 3, 300} { // one of how many requests is late
		t.Run(strconv.Itoa(late), func(t *testing.T) {
			m := newMachine(vfs.NewMem())
			m.cfg.HeadBytes = 64 << 20
			requireOpen(t, m)
			rng := testRand(uint64(late))
			type at struct {
				to storage.Position
				t  int64
			}
			var written []at
			first := position(t, m)
			for n := range 4000 {
				x := start.UnixMilli() + int64(n)*1000
				if late > 0 && rng.IntN(late) == 0 {
					x -= rng.Int64N(500_000)
				}
				to, _, err := m.db.Write(t.Context(), sample("a", x))
				require.NoError(t, err)
				written = append(written, at{to, x})
			}
			v, err := m.db.View(t.Context(), 0)
			require.NoError(t, err)
			defer v.Close()
			changes := v.(storage.ChangeReader)
			truth, exact := int64(math.MaxInt64), 0
			for i, w := range slices.Backward(written) {
				got, ok := changes.OldestChange(tenant, w.to)
				require.True(t, ok)
				require.LessOrEqual(t, got, truth)
				if got == truth {
					exact++
				}
				if i > len(written)-500 {
					require.Equal(t, truth, got, "what is recent is known exactly")
				}
				truth = min(truth, w.t)
			}
			if late != 3 { // else nothing had to be joined
				require.Less(t, exact, len(written))
			}
			got, ok := changes.OldestChange(tenant, first)
			require.True(t, ok)
			require.Equal(t, truth, got)
		})
	}
}

// contents is all float samples of a view.
func contents(t *testing.T, v storage.View) map[string]float64 {
	t.Helper()
	out := make(map[string]float64)
	set := v.Series(t.Context(), storage.SeriesQuery{Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64})
	for set.Next() {
		s := set.At()
		it := s.Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			at, x := it.At()
			out[fmt.Sprintf("%d %s", at, s.Labels())] = x
		}
	}
	require.NoError(t, set.Err())
	return out
}

// TestOldestChangeUnderLoad opens views while samples are written, flushed, merged, deleted and dropped by retention:
// what two of them show differently is never older than what the younger tells.
func TestOldestChangeUnderLoad(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			changesUnderLoad(t, seed)
		})
	}
}

func changesUnderLoad(t *testing.T, seed uint64) {
	t.Helper()
	m := newMachine(vfs.NewMem())
	requireOpen(t, m)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	run := func(n uint64, steps int, step func(rng *rand.Rand)) {
		wg.Go(func() {
			rng := testRand(seed*10 + n)
			for i := 0; i < steps && ctx.Err() == nil; i++ {
				step(rng)
			}
		})
	}
	random := func(rng *rand.Rand) int64 {
		now := m.clock.Now().UnixMilli()
		switch n := rng.IntN(200); {
		case n == 0:
			return now - rng.Int64N(m.cfg.Retention.Std().Milliseconds())
		case n < 5:
			return now - rng.Int64N(3_600_000)
		default:
			return now
		}
	}
	write := func(rng *rand.Rand) {
		m.clock.set(m.clock.Now().Add(time.Duration(rng.IntN(60)) * time.Second))
		if _, _, err := m.db.Write(t.Context(), sample(strconv.Itoa(rng.IntN(5)), random(rng))); err != nil && !errors.Is(err, storage.ErrOverloaded) {
			t.Errorf("write: %v", err)
		}
	}
	run(0, 500, write)
	run(1, 500, write)
	run(2, 100, func(rng *rand.Rand) {
		switch rng.IntN(8) {
		case 0:
			lo := m.clock.Now().UnixMilli() - rng.Int64N(3*3_600_000)
			mask := storage.Mask{Tenant: tenant, Signal: storage.Metrics, Start: lo, End: lo + rng.Int64N(7_200_000)}
			if _, err := m.db.Delete(t.Context(), mask); err != nil {
				t.Errorf("delete: %v", err)
			}
		case 1:
			m.clock.set(m.clock.Now().Add(24 * time.Hour))
		case 2, 3:
			if err := m.db.Maintain(t.Context()); err != nil {
				t.Errorf("maintain: %v", err)
			}
		default:
			if err := m.db.Flush(t.Context()); err != nil {
				t.Errorf("flush: %v", err)
			}
		}
	})
	differed := 0
	var old map[string]float64
	var since storage.Position
	rng := testRand(seed*10 + 3)
	for i := range 60 {
		write(rng)
		v, err := m.db.View(t.Context(), 0)
		require.NoError(t, err)
		changes := v.(storage.ChangeReader)
		least, ok := changes.OldestChange(tenant, since)
		require.True(t, ok)
		now := contents(t, v)
		if i > 0 {
			for _, pair := range [][2]map[string]float64{{old, now}, {now, old}} {
				for k, x := range pair[0] {
					if y, ok := pair[1][k]; ok && x == y {
						continue
					}
					var at int64
					_, err := fmt.Sscanf(k, "%d", &at)
					require.NoError(t, err)
					require.GreaterOrEqual(t, at, least, "%s since %d", k, since)
					differed++
				}
			}
		}
		old, since = maps.Clone(now), changes.Position()
		require.NoError(t, v.Close())
	}
	stop()
	wg.Wait()
	require.Positive(t, differed)
}
