package metrics

import (
	"cmp"
	"slices"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/braidobs/braid/internal/telemetry"
)

// sortPoints puts points into the order of time, keeping the order of arrival among equals.
func sortPoints(ps []Point) {
	for i := 1; i < len(ps); i++ {
		if ps[i].T < ps[i-1].T {
			slices.SortStableFunc(ps, func(a, b Point) int { return cmp.Compare(a.T, b.T) })
			return
		}
	}
}

// dedupe keeps of several points of one time the last, in place.
func dedupe(ps []Point) []Point {
	n := 0
	for i := range ps {
		if n > 0 && ps[n-1].T == ps[i].T {
			ps[n-1] = ps[i]
			continue
		}
		ps[n] = ps[i]
		n++
	}
	return ps[:n]
}

// Merger joins what several sources hold of the same series. Sources are added in the order of arrival.
type Merger struct {
	series map[telemetry.LabelSet]*Data
}

// NewMerger returns an empty merger.
func NewMerger() *Merger { return &Merger{series: make(map[telemetry.LabelSet]*Data)} }

// Add adds what one source holds of a series.
func (m *Merger) Add(d Data) error {
	old := m.series[d.Labels]
	if old == nil {
		m.series[d.Labels] = &d
		return nil
	}
	old.Points = append(old.Points, d.Points...)
	old.Exemplars = append(old.Exemplars, d.Exemplars...)
	old.Evidence = append(old.Evidence, d.Evidence...)
	return nil
}

// Sorted returns the series in the order of their labels, each with its points in order.
func (m *Merger) Sorted() []Series {
	out := make([]Series, 0, len(m.series))
	for _, d := range m.series {
		sortPoints(d.Points)
		out = append(out, Series{Data: *d, lset: d.Labels.Labels()})
		out[len(out)-1].Points = dedupe(d.Points)
	}
	sort.Slice(out, func(i, j int) bool { return labels.Compare(out[i].lset, out[j].lset) < 0 })
	return out
}

// Series is one merged series, in Prometheus's type.
type Series struct {
	Data
	lset labels.Labels
}

var _ promstorage.Series = (*Series)(nil)

// Labels implements promstorage.Series.
func (s *Series) Labels() labels.Labels { return s.lset }

// Iterator implements promstorage.Series.
func (s *Series) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	if old, ok := it.(*iterator); ok {
		*old = iterator{points: s.Points, i: -1}
		return old
	}
	return &iterator{points: s.Points, i: -1}
}

// iterator walks over points. Histograms are copied before they are handed out: callers change them.
type iterator struct {
	points []Point
	i      int
}

func (it *iterator) kind() chunkenc.ValueType {
	if it.i < 0 || it.i >= len(it.points) {
		return chunkenc.ValNone
	}
	switch p := &it.points[it.i]; {
	case p.H != nil:
		return chunkenc.ValHistogram
	case p.FH != nil:
		return chunkenc.ValFloatHistogram
	default:
		return chunkenc.ValFloat
	}
}

// Next implements chunkenc.Iterator.
func (it *iterator) Next() chunkenc.ValueType {
	if it.i < len(it.points) {
		it.i++
	}
	return it.kind()
}

// Seek implements chunkenc.Iterator.
func (it *iterator) Seek(t int64) chunkenc.ValueType { //nolint:govet // the interface is Prometheus's, not io.Seeker
	from := max(it.i, 0)
	if from < len(it.points) && (it.i < 0 || it.points[it.i].T < t) {
		it.i = from + sort.Search(len(it.points)-from, func(i int) bool { return it.points[from+i].T >= t })
	}
	return it.kind()
}

// At implements chunkenc.Iterator.
func (it *iterator) At() (int64, float64) { p := &it.points[it.i]; return p.T, p.V }

// AtHistogram implements chunkenc.Iterator.
func (it *iterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	p := &it.points[it.i]
	if h == nil {
		return p.T, p.H.Copy()
	}
	p.H.CopyTo(h)
	return p.T, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *iterator) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	p := &it.points[it.i]
	if p.H != nil {
		return p.T, p.H.ToFloat(fh)
	}
	if fh == nil {
		return p.T, p.FH.Copy()
	}
	p.FH.CopyTo(fh)
	return p.T, fh
}

// AtT implements chunkenc.Iterator.
func (it *iterator) AtT() int64 { return it.points[it.i].T }

// AtST implements chunkenc.Iterator.
func (it *iterator) AtST() int64 { return it.points[it.i].ST }

// Err implements chunkenc.Iterator.
func (it *iterator) Err() error { return nil }

// Set returns the series as the PromQL engine reads them.
func Set(series []Series, warnings annotations.Annotations) promstorage.SeriesSet {
	return &set{series: series, i: -1, warnings: warnings}
}

type set struct {
	series   []Series
	i        int
	warnings annotations.Annotations
}

func (s *set) Next() bool                        { s.i++; return s.i < len(s.series) }
func (s *set) At() promstorage.Series            { return &s.series[s.i] }
func (s *set) Err() error                        { return nil }
func (s *set) Warnings() annotations.Annotations { return s.warnings }
