package metrics_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/metrics"
)

func ls(pairs ...string) telemetry.LabelSet {
	return telemetry.NewLabelSet(labels.FromStrings(pairs...))
}

func everything() *storage.SeriesQuery {
	return &storage.SeriesQuery{Tenant: "a", Start: math.MinInt64, End: math.MaxInt64}
}

// TestRepeatedFloatAfterHistogram: the last that arrived wins, also when it repeats the float before a histogram.
func TestRepeatedFloatAfterHistogram(t *testing.T) {
	s := newStore(t)
	h := s.begin()
	for _, in := range []telemetry.Series{
		{Samples: []telemetry.Sample{{T: 5, V: 1}}},
		{Histograms: []telemetry.HistogramSample{{T: 5, H: tsdbutil.GenerateTestHistogram(1)}}},
		{Samples: []telemetry.Sample{{T: 5, V: 1}}},
	} {
		in.Labels = ls("__name__", "x")
		s.write(h, telemetry.Batch{Tenant: "a", Series: []telemetry.Series{in}})
	}
	check(t, s.sources(), nil, s.want, s.want, everything())
}

// TestLongCommonBeginning: values that share a long beginning are found by an equality matcher.
func TestLongCommonBeginning(t *testing.T) {
	s := newStore(t)
	b := telemetry.Batch{Tenant: "a"}
	for i := range 3000 {
		b.Series = append(b.Series, telemetry.Series{
			Labels: ls("__name__", "x", "id", common()+fmt.Sprintf("%05d", i)), Samples: []telemetry.Sample{{T: 5, V: 1}},
		})
	}
	s.write(s.begin(), b)
	s.flush(0)
	for _, i := range []int{0, 511, 512, 1500, 2999} {
		q := everything()
		q.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "id", common()+fmt.Sprintf("%05d", i))}
		m := selectAll(t, s.sources(), q, metrics.Samples, nil)
		require.Equal(t, 1, m.Len(), "value %d", i)
	}
}

// TestDeletedLabelsStay: what a delete covers as a whole leaves no label names and values behind in the part that is written anew.
func TestDeletedLabelsStay(t *testing.T) {
	s := newStore(t)
	h := s.begin()
	s.write(h, telemetry.Batch{Tenant: "a", Series: []telemetry.Series{
		{Labels: ls("__name__", "gone", "user", "alice@example.org"), Samples: []telemetry.Sample{{T: 5, V: 1}}},
		{Labels: ls("__name__", "kept", "job", "j"), Samples: []telemetry.Sample{{T: 5, V: 1}}},
	}})
	s.remove(metrics.Mask{Start: math.MinInt64, End: math.MaxInt64, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "gone")}})
	s.flush(0)
	s.merge(0, 1, true)
	var got []string
	for _, src := range s.sources() {
		require.NoError(t, src.LabelNames(context.Background(), everything(), func(n string) { got = append(got, n) }))
		require.NoError(t, src.LabelValues(context.Background(), "__name__", everything(), func(v string) { got = append(got, v) }))
		require.NoError(t, src.LabelValues(context.Background(), "user", everything(), func(v string) { got = append(got, v) }))
	}
	require.Equal(t, "__name__ job kept", strings.Join(got, " "))
}
