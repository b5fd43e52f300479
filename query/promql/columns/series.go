package columns

import (
	"math"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// seriesSet hands a shape to the engine. The shape is computed when the first series is asked for.
type seriesSet struct {
	open   func() ([]group, annotations.Annotations, error)
	grid   Grid
	groups []group
	notes  annotations.Annotations
	at     int
	err    error
}

// Next implements promstorage.SeriesSet.
func (s *seriesSet) Next() bool {
	if s.open != nil {
		s.groups, s.notes, s.err = s.open()
		s.open, s.at = nil, -1
	}
	if s.err != nil || s.at >= len(s.groups)-1 {
		return false
	}
	s.at++
	return true
}

// At implements promstorage.SeriesSet.
func (s *seriesSet) At() promstorage.Series {
	return &series{labels: s.groups[s.at].labels.Labels(), grid: s.grid, row: s.groups[s.at].row}
}

// Err implements promstorage.SeriesSet.
func (s *seriesSet) Err() error { return s.err }

// Warnings implements promstorage.SeriesSet.
func (s *seriesSet) Warnings() annotations.Annotations { return s.notes }

// series has one sample at each step: a value, or a staleness marker for none.
type series struct {
	labels labels.Labels
	grid   Grid
	row    []float64
}

// Labels implements promstorage.Series.
func (s *series) Labels() labels.Labels { return s.labels }

// Iterator implements promstorage.Series.
func (s *series) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	if r, ok := it.(*iterator); ok {
		*r = iterator{grid: s.grid, row: s.row, i: -1}
		return r
	}
	return &iterator{grid: s.grid, row: s.row, i: -1}
}

// iterator walks over the steps.
type iterator struct {
	grid Grid
	row  []float64
	i    int
}

// Next implements chunkenc.Iterator.
func (it *iterator) Next() chunkenc.ValueType {
	it.i = min(it.i+1, len(it.row))
	return it.kind()
}

func (it *iterator) kind() chunkenc.ValueType {
	if it.i < 0 || it.i >= len(it.row) {
		return chunkenc.ValNone
	}
	return chunkenc.ValFloat
}

// Seek implements chunkenc.Iterator.
func (it *iterator) Seek(t int64) chunkenc.ValueType { //nolint:govet // the interface is Prometheus's, not io.Seeker
	i := 0
	if t > it.grid.Start {
		i = sort.Search(len(it.row), func(i int) bool { return it.grid.Start+int64(i)*it.grid.Step >= t })
	}
	it.i = max(it.i, i)
	return it.kind()
}

// At implements chunkenc.Iterator.
func (it *iterator) At() (t int64, v float64) { return it.AtT(), it.row[it.i] }

// AtT implements chunkenc.Iterator.
func (it *iterator) AtT() int64 {
	if it.i < 0 {
		return math.MinInt64
	}
	return it.grid.Start + int64(it.i)*it.grid.Step
}

// AtHistogram implements chunkenc.Iterator; there are none.
func (it *iterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("columns: a histogram among floats was asked for")
}

// AtFloatHistogram implements chunkenc.Iterator; there are none.
func (it *iterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	panic("columns: a histogram among floats was asked for")
}

// AtST implements chunkenc.Iterator; values that were computed have no start.
func (it *iterator) AtST() int64 { return 0 }

// Err implements chunkenc.Iterator.
func (it *iterator) Err() error { return nil }
