package testkit

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// metricName is the label of a series' name.
const metricName = "__name__"

// point is one sample: a float, or a histogram when h or fh is set.
type point struct {
	t, st int64
	v     float64
	h     *histogram.Histogram
	fh    *histogram.FloatHistogram
}

// oneSeries is everything about one series inside the time of a query.
type oneSeries struct {
	key       telemetry.LabelSet
	labels    labels.Labels
	points    []point
	exemplars []exemplar.Exemplar
	resources []telemetry.ResourceID
}

func sorted(sets map[telemetry.LabelSet]bool) []telemetry.LabelSet {
	var out []telemetry.LabelSet
	for s, ok := range sets {
		if ok {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b telemetry.LabelSet) int { return labels.Compare(a.Labels(), b.Labels()) })
	return out
}

// collect returns the matching series, sorted, also those that have exemplars only.
func (v *view) collect(ctx context.Context, q *storage.SeriesQuery) ([]*oneSeries, error) {
	if err := v.check(ctx); err != nil {
		return nil, err
	}
	type span struct{ lo, hi int64 }
	found := make(map[telemetry.LabelSet]*oneSeries)
	vouch := make(map[telemetry.LabelSet]map[telemetry.ResourceID]span)
	for b := range v.of(q.Tenant) {
		for i := range b.Series {
			se := &b.Series[i]
			if !storage.MatchLabels(se.Labels, q.Matchers) {
				continue
			}
			one := found[se.Labels]
			if one == nil {
				one = &oneSeries{key: se.Labels, labels: se.Labels.Labels()}
				found[se.Labels], vouch[se.Labels] = one, make(map[telemetry.ResourceID]span)
			}
			one.add(se, q.Start, q.End)
			res := b.Resource
			if res == nil {
				res = telemetry.LabelResource(se.Labels)
			}
			if lo, hi := bounds(se); res != nil && lo <= hi {
				if old, ok := vouch[se.Labels][res.ID]; ok {
					lo, hi = min(lo, old.lo), max(hi, old.hi)
				}
				vouch[se.Labels][res.ID] = span{lo, hi}
			}
		}
	}
	var out []*oneSeries
	for key, one := range found {
		for id, sp := range vouch[key] {
			if sp.lo <= q.End && sp.hi >= q.Start {
				one.resources = append(one.resources, id)
			}
		}
		slices.SortFunc(one.resources, func(a, b telemetry.ResourceID) int { return slices.Compare(a[:], b[:]) })
		if q.Resources != nil && !slices.ContainsFunc(one.resources, func(id telemetry.ResourceID) bool { return slices.Contains(q.Resources, id) }) {
			continue
		}
		one.sort()
		if len(one.points) > 0 || len(one.exemplars) > 0 {
			out = append(out, one)
		}
	}
	slices.SortFunc(out, func(a, b *oneSeries) int { return labels.Compare(a.labels, b.labels) })
	return out, nil
}

// withSamples is collect without the series that have exemplars only.
func (v *view) withSamples(ctx context.Context, q *storage.SeriesQuery) ([]*oneSeries, error) {
	all, err := v.collect(ctx, q)
	return slices.DeleteFunc(all, func(s *oneSeries) bool { return len(s.points) == 0 }), err
}

func (s *oneSeries) add(se *telemetry.Series, lo, hi int64) {
	for _, p := range se.Samples {
		if p.T >= lo && p.T <= hi {
			s.points = append(s.points, point{t: p.T, st: p.ST, v: p.V})
		}
	}
	for _, p := range se.Histograms {
		if p.T >= lo && p.T <= hi {
			s.points = append(s.points, point{t: p.T, st: p.ST, h: p.H, fh: p.FH})
		}
	}
	for _, e := range se.Exemplars {
		if e.Ts >= lo && e.Ts <= hi {
			s.exemplars = append(s.exemplars, e)
		}
	}
}

// sort puts samples in order and keeps of several at one time the last.
func (s *oneSeries) sort() {
	slices.SortStableFunc(s.points, func(a, b point) int { return cmp.Compare(a.t, b.t) })
	kept := s.points[:0]
	for i, p := range s.points {
		if i+1 == len(s.points) || s.points[i+1].t != p.t {
			kept = append(kept, p)
		}
	}
	s.points = kept
	slices.SortStableFunc(s.exemplars, func(a, b exemplar.Exemplar) int { return cmp.Compare(a.Ts, b.Ts) })
	s.exemplars = slices.CompactFunc(s.exemplars, func(a, b exemplar.Exemplar) bool { return a.Equals(b) })
}

// Series implements storage.SeriesReader.
func (v *view) Series(ctx context.Context, q storage.SeriesQuery) promstorage.SeriesSet {
	all, err := v.withSamples(ctx, &q)
	if err != nil {
		return promstorage.ErrSeriesSet(err)
	}
	v.count(all)
	var notes annotations.Annotations
	for _, w := range v.warnings {
		notes.Add(errors.New(w))
	}
	return &seriesSet{series: all, at: -1, notes: notes}
}

// Columns implements storage.SeriesReader.
func (v *view) Columns(ctx context.Context, q storage.SeriesQuery, f func(*storage.SeriesBlock) error) error {
	all, err := v.withSamples(ctx, &q)
	if err != nil {
		return err
	}
	v.count(all)
	for _, s := range all {
		b := storage.SeriesBlock{Labels: s.key}
		for _, p := range s.points {
			if p.h != nil || p.fh != nil {
				b.Histograms = true
				continue
			}
			b.Times = append(b.Times, p.t)
			b.Values = append(b.Values, p.v)
		}
		if err := f(&b); err != nil {
			return err
		}
	}
	return nil
}

// count notes what was read.
func (v *view) count(all []*oneSeries) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stats.Series += int64(len(all))
	for _, s := range all {
		v.stats.Samples += int64(len(s.points))
	}
}

// LabelSets implements storage.SeriesReader.
func (v *view) LabelSets(ctx context.Context, q storage.SeriesQuery) ([]telemetry.LabelSet, error) {
	all, err := v.withSamples(ctx, &q)
	if err != nil {
		return nil, err
	}
	out := make([]telemetry.LabelSet, 0, len(all))
	for _, s := range all {
		out = append(out, s.key)
	}
	return cut(out, q.Limit), nil
}

func cut[T any](s []T, limit int) []T {
	if limit > 0 && len(s) > limit {
		return s[:limit]
	}
	return s
}

// LabelNames implements storage.SeriesReader.
func (v *view) LabelNames(ctx context.Context, q storage.SeriesQuery) ([]string, error) {
	return v.distinct(ctx, q, func(s telemetry.LabelSet, add func(string)) {
		s.Range(func(name, _ string) { add(name) })
	})
}

// LabelValues implements storage.SeriesReader.
func (v *view) LabelValues(ctx context.Context, name string, q storage.SeriesQuery) ([]string, error) {
	return v.distinct(ctx, q, func(s telemetry.LabelSet, add func(string)) {
		if value := s.Get(name); value != "" {
			add(value)
		}
	})
}

func (v *view) distinct(ctx context.Context, q storage.SeriesQuery, each func(telemetry.LabelSet, func(string))) ([]string, error) {
	all, err := v.withSamples(ctx, &q)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, s := range all {
		each(s.key, func(x string) { seen[x] = true })
	}
	return cut(slices.Sorted(maps.Keys(seen)), q.Limit), nil
}

// Exemplars implements storage.SeriesReader.
func (v *view) Exemplars(ctx context.Context, q storage.SeriesQuery) ([]exemplar.QueryResult, error) {
	all, err := v.collect(ctx, &q)
	if err != nil {
		return nil, err
	}
	var out []exemplar.QueryResult
	for _, s := range all {
		if len(s.exemplars) > 0 {
			out = append(out, exemplar.QueryResult{SeriesLabels: s.labels, Exemplars: s.exemplars})
		}
	}
	return out, nil
}

// SeriesResources implements storage.EntityReader.
func (v *view) SeriesResources(ctx context.Context, q storage.SeriesQuery) (map[telemetry.LabelSet][]telemetry.ResourceID, error) {
	all, err := v.withSamples(ctx, &q)
	if err != nil {
		return nil, err
	}
	out := make(map[telemetry.LabelSet][]telemetry.ResourceID, len(all))
	for _, s := range all {
		out[s.key] = s.resources
	}
	return out, nil
}

// Metadata implements storage.SeriesReader: everything ever told about a family, without repetition, in the
// order of arrival.
func (v *view) Metadata(ctx context.Context, tenant telemetry.Tenant, metric string) (map[string][]telemetry.Metadata, error) {
	if err := v.check(ctx); err != nil {
		return nil, err
	}
	out := make(map[string][]telemetry.Metadata)
	for b := range v.of(tenant) {
		for i := range b.Series {
			m := b.Series[i].Metadata
			if m == nil {
				continue
			}
			family := familyName(b.Series[i].Labels.Get(metricName), m.Type)
			if (metric == "" || metric == family) && !slices.Contains(out[family], *m) {
				out[family] = append(out[family], *m)
			}
		}
	}
	return out, nil
}

// familyName returns the name that the parts of a classic histogram or a summary have in common.
func familyName(name string, t telemetry.MetricType) string {
	switch t {
	case telemetry.MetricHistogram, telemetry.MetricGaugeHistogram:
		if cut, ok := strings.CutSuffix(name, "_bucket"); ok && cut != "" {
			return cut
		}
	case telemetry.MetricSummary:
	default:
		return name
	}
	for _, suffix := range []string{"_count", "_sum"} {
		if cut, ok := strings.CutSuffix(name, suffix); ok && cut != "" {
			return cut
		}
	}
	return name
}

// seriesSet hands series to the PromQL engine.
type seriesSet struct {
	series []*oneSeries
	at     int
	notes  annotations.Annotations
}

// Next implements promstorage.SeriesSet.
func (s *seriesSet) Next() bool { s.at++; return s.at < len(s.series) }

// At implements promstorage.SeriesSet.
func (s *seriesSet) At() promstorage.Series { return s.series[s.at] }

// Err implements promstorage.SeriesSet.
func (s *seriesSet) Err() error { return nil }

// Warnings implements promstorage.SeriesSet.
func (s *seriesSet) Warnings() annotations.Annotations { return s.notes }

// Labels implements promstorage.Series.
func (s *oneSeries) Labels() labels.Labels { return s.labels }

// Iterator implements promstorage.Series.
func (s *oneSeries) Iterator(chunkenc.Iterator) chunkenc.Iterator {
	return &pointIterator{points: s.points, i: -1}
}

// pointIterator walks over points and hands out copies of histograms, because callers change them.
type pointIterator struct {
	points []point
	i      int
}

func (it *pointIterator) kind() chunkenc.ValueType {
	if it.i < 0 || it.i >= len(it.points) {
		return chunkenc.ValNone
	}
	switch p := it.points[it.i]; {
	case p.h != nil:
		return chunkenc.ValHistogram
	case p.fh != nil:
		return chunkenc.ValFloatHistogram
	default:
		return chunkenc.ValFloat
	}
}

// Next implements chunkenc.Iterator.
func (it *pointIterator) Next() chunkenc.ValueType {
	it.i = min(it.i+1, len(it.points))
	return it.kind()
}

// Seek implements chunkenc.Iterator.
func (it *pointIterator) Seek(t int64) chunkenc.ValueType { //nolint:govet // the interface is Prometheus's, not io.Seeker
	it.i = max(it.i, 0)
	for it.i < len(it.points) && it.points[it.i].t < t {
		it.i++
	}
	return it.kind()
}

// At implements chunkenc.Iterator.
func (it *pointIterator) At() (t int64, v float64) { return it.points[it.i].t, it.points[it.i].v }

// AtHistogram implements chunkenc.Iterator.
func (it *pointIterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	p := it.points[it.i]
	return p.t, p.h.Copy()
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *pointIterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	p := it.points[it.i]
	if p.h != nil {
		return p.t, p.h.ToFloat(nil)
	}
	return p.t, p.fh.Copy()
}

// AtT implements chunkenc.Iterator.
func (it *pointIterator) AtT() int64 { return it.points[it.i].t }

// AtST implements chunkenc.Iterator.
func (it *pointIterator) AtST() int64 { return it.points[it.i].st }

// Err implements chunkenc.Iterator.
func (it *pointIterator) Err() error { return nil }
