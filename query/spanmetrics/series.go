package spanmetrics

import (
	"math"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// series is one counter on a grid, or a gauge that is always 1.
type series struct {
	labels labels.Labels
	grid   grid
	first  int     // point
	last   int     // point
	totals []int64 // at each step after the origin, every stride; nil for a gauge
	stride int
	at     int
	nanos  bool // the totals are nanoseconds, the values seconds
}

var _ promstorage.Series = (*series)(nil)

// value returns the value at a point.
func (s *series) value(point int) float64 {
	if s.totals == nil {
		return 1
	}
	k := point / 2
	if k == 0 {
		return 0
	}
	n := s.totals[(k-1)*s.stride+s.at]
	if s.nanos {
		return float64(n) / 1e9
	}
	return float64(n)
}

// Labels implements promstorage.Series.
func (s *series) Labels() labels.Labels { return s.labels }

// Iterator implements promstorage.Series.
func (s *series) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	i, ok := it.(*iterator)
	if !ok {
		i = &iterator{}
	}
	*i = iterator{s: s, point: s.first - 1}
	return i
}

// iterator walks over the points of a series.
type iterator struct {
	s     *series
	point int
}

func (it *iterator) kind() chunkenc.ValueType {
	if it.point < it.s.first || it.point > it.s.last {
		return chunkenc.ValNone
	}
	return chunkenc.ValFloat
}

// Next implements chunkenc.Iterator.
func (it *iterator) Next() chunkenc.ValueType {
	it.point = min(it.point+1, it.s.last+1)
	return it.kind()
}

// Seek implements chunkenc.Iterator.
func (it *iterator) Seek(t int64) chunkenc.ValueType { //nolint:govet // the interface is Prometheus's, not io.Seeker
	from := max(it.point, it.s.first)
	it.point = from + sort.Search(max(it.s.last+1-from, 0), func(i int) bool { return it.s.grid.time(from+i) >= t })
	return it.kind()
}

// At implements chunkenc.Iterator.
func (it *iterator) At() (t int64, v float64) { return it.AtT(), it.s.value(it.point) }

// AtT implements chunkenc.Iterator.
func (it *iterator) AtT() int64 {
	if it.kind() == chunkenc.ValNone {
		return math.MinInt64
	}
	return it.s.grid.time(it.point)
}

// AtHistogram implements chunkenc.Iterator; there are none.
func (it *iterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("spanmetrics: a histogram among floats was asked for")
}

// AtFloatHistogram implements chunkenc.Iterator; there are none.
func (it *iterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	panic("spanmetrics: a histogram among floats was asked for")
}

// AtST implements chunkenc.Iterator.
func (it *iterator) AtST() int64 { return 0 }

// Err implements chunkenc.Iterator.
func (it *iterator) Err() error { return nil }

// seriesSet is a promstorage.SeriesSet that is made when it is first read.
type seriesSet struct {
	open func() ([]*series, error)
	list []*series
	at   int
	err  error
}

// Next implements promstorage.SeriesSet.
func (s *seriesSet) Next() bool {
	if s.open != nil {
		s.list, s.err = s.open()
		s.open, s.at = nil, -1
	}
	if s.err != nil || s.at >= len(s.list)-1 {
		return false
	}
	s.at++
	return true
}

// At implements promstorage.SeriesSet.
func (s *seriesSet) At() promstorage.Series { return s.list[s.at] }

// Err implements promstorage.SeriesSet.
func (s *seriesSet) Err() error { return s.err }

// Warnings implements promstorage.SeriesSet.
func (*seriesSet) Warnings() annotations.Annotations { return nil }
