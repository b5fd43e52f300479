package promql_test

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/storage"
)

// TestResetHints reads native histograms one after the other, by seeking, and from the middle on.
func TestResetHints(t *testing.T) {
	count := func(n uint64, hint histogram.CounterResetHint) telemetry.HistogramSample {
		return telemetry.HistogramSample{H: &histogram.Histogram{
			CounterResetHint: hint, Count: n, Sum: float64(n), PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{int64(n)},
		}}
	}
	stale := telemetry.HistogramSample{H: &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}}
	float := telemetry.HistogramSample{FH: &histogram.FloatHistogram{Count: 9, Sum: 9, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []float64{9}}}
	const unknown, no, gauge = histogram.UnknownCounterReset, histogram.NotCounterReset, histogram.GaugeType
	steps := []struct {
		in   telemetry.HistogramSample
		want histogram.CounterResetHint
	}{
		{count(1, unknown), unknown},
		{count(2, unknown), no},
		{count(3, histogram.CounterReset), unknown}, // the sender knows
		{count(4, unknown), no},
		{count(1, no), unknown}, // it went back, whatever the sender says
		{count(1, unknown), no},
		{count(5, gauge), gauge},
		{count(6, unknown), unknown},
		{stale, unknown},
		{count(7, unknown), unknown},
		{count(8, unknown), no},
		{float, unknown},
		{float, no},
		{count(10, unknown), unknown},
	}
	se := telemetry.Series{Labels: telemetry.NewLabelSet(labels.FromStrings("__name__", "h"))}
	for i, s := range steps {
		s.in.T = int64(i) * 60_000
		se.Histograms = append(se.Histograms, s.in)
	}
	late := telemetry.Series{Labels: se.Labels, Samples: []telemetry.Sample{{T: 20 * 60_000, V: 1}}}
	st := testkit.NewStore("c")
	_, _, err := st.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: []telemetry.Series{se, late}}}})
	require.NoError(t, err)
	q := newEngine(t, st, nil, nil).Queryable(tenant)

	read := func(mint int64, use func(it chunkenc.Iterator)) {
		t.Helper()
		querier, err := q.Querier(mint, math.MaxInt64)
		require.NoError(t, err)
		defer func() { require.NoError(t, querier.Close()) }()
		set := querier.Select(t.Context(), true, &promstorage.SelectHints{Start: mint, End: math.MaxInt64}, labels.MustNewMatcher(labels.MatchEqual, "__name__", "h"))
		require.True(t, set.Next())
		it := set.At().Iterator(nil)
		use(it)
		require.NoError(t, it.Err())
		require.NoError(t, set.Err())
	}
	check := func(it chunkenc.Iterator, kind chunkenc.ValueType) {
		t.Helper()
		if it.AtT() == 20*60_000 {
			require.Equal(t, chunkenc.ValFloat, kind)
			return
		}
		want := steps[it.AtT()/60_000].want
		if kind == chunkenc.ValHistogram {
			_, h := it.AtHistogram(nil)
			require.Equal(t, want, h.CounterResetHint, "%d", it.AtT()/60_000)
		}
		reused := &histogram.FloatHistogram{}
		_, fh := it.AtFloatHistogram(reused)
		require.Same(t, reused, fh)
		require.Equal(t, want, fh.CounterResetHint, "%d", it.AtT()/60_000)
	}
	for first := range steps {
		read(int64(first)*60_000, func(it chunkenc.Iterator) {
			n := 0
			for k := it.Next(); k != chunkenc.ValNone; k = it.Next() {
				check(it, k)
				n++
			}
			require.Equal(t, len(steps)-first+1, n)
		})
		for to := first; to < len(steps); to++ {
			read(int64(first)*60_000, func(it chunkenc.Iterator) {
				at := int64(to)*60_000 - 1
				check(it, it.Seek(at))
				require.Equal(t, int64(to)*60_000, it.AtT())
				check(it, it.Seek(at))
				check(it, it.Next())
			})
		}
	}
}
