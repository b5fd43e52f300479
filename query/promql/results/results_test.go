package results_test

import (
	"math"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/query/promql/results"
)

func one(name string, from int64, values ...float64) promql.Series {
	s := promql.Series{Metric: labels.FromStrings("name", name)}
	for i, v := range values {
		s.Floats = append(s.Floats, promql.FPoint{T: from + int64(i)*10, F: v})
	}
	return s
}

func TestExtend(t *testing.T) {
	var none *results.Entry
	first := none.Extend(1, results.Grid{From: 100, To: 140, Step: 10}, 90, promql.Matrix{one("b", 100, 1, 2, 3, 4, 5), one("a", 110, 7, 8), one("c", 100, 9)})
	require.Equal(t, promql.Matrix{one("a", 110, 7, 8), one("b", 100, 1, 2, 3, 4, 5), one("c", 100, 9)}, first.Matrix())

	tests := []struct {
		name  string
		grid  results.Grid
		valid int64
		fresh promql.Matrix
		want  promql.Matrix
	}{
		{"the same", results.Grid{From: 100, To: 140, Step: 10}, 140, nil, first.Matrix()},
		{
			"later",
			results.Grid{From: 120, To: 160, Step: 10},
			130,
			promql.Matrix{one("b", 140, 6, 7, 8), one("d", 150, 1)},
			promql.Matrix{one("a", 120, 8), one("b", 120, 3, 4, 6, 7, 8), one("d", 150, 1)},
		},
		{"shorter", results.Grid{From: 120, To: 130, Step: 10}, 130, nil, promql.Matrix{one("a", 120, 8), one("b", 120, 3, 4)}},
		{"ends", results.Grid{From: 130, To: 160, Step: 10}, 140, nil, promql.Matrix{one("b", 130, 4, 5)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want, first.Extend(2, tt.grid, tt.valid, tt.fresh).Matrix())
		})
	}
	g := results.Grid{From: 100, To: 140, Step: 10}
	require.Nil(t, none.Extend(1, g, 90, promql.Matrix{{Histograms: []promql.HPoint{{T: 100, H: &histogram.FloatHistogram{}}}}}))
	require.Nil(t, none.Extend(1, g, 90, promql.Matrix{one("a", 100, math.Float64frombits(value.StaleNaN))}))
}

func TestCacheKeepsTheNewer(t *testing.T) {
	c := results.New(results.Options{Bytes: 1 << 20})
	g := results.Grid{From: 100, To: 100, Step: 10}
	var none *results.Entry
	k := results.Key{Expr: "x"}
	require.Nil(t, c.Get(k))
	c.Put(k, none.Extend(5, g, 90, nil))
	c.Put(k, none.Extend(4, g, 90, nil)) // a query over an older view that took longer
	require.EqualValues(t, 5, c.Get(k).At)
	require.EqualValues(t, 6, c.Get(k).Moved(6).At)
	require.EqualValues(t, 5, c.Get(k).At)
	require.Nil(t, c.Get(results.Key{Expr: "x", Phase: 1}))
	c.Put(k, nil)
	require.Nil(t, c.Get(k))
}

// BenchmarkExtend is a refresh of 200 series over an hour at 15 s by one step.
func BenchmarkExtend(b *testing.B) {
	var m, last promql.Matrix
	for i := range 200 {
		s := one(strconv.Itoa(i), 0)
		for j := range int64(240) {
			s.Floats = append(s.Floats, promql.FPoint{T: j * 10, F: float64(j)})
		}
		m = append(m, s)
		last = append(last, one(strconv.Itoa(i), 2400, 1))
	}
	var none *results.Entry
	e := none.Extend(1, results.Grid{From: 0, To: 2390, Step: 10}, -10, m)
	b.ReportAllocs()
	for b.Loop() {
		_ = e.Extend(2, results.Grid{From: 10, To: 2400, Step: 10}, 2390, last).Matrix()
	}
}
