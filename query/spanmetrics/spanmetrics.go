// Package spanmetrics answers for the metrics that a generator would make from spans (requests, errors and durations of
// services, and the graph of their calls) from the spans themselves, at the time of the query: over any range that has spans,
// by any attribute.
//
//	views := spanmetrics.New(db, spanmetrics.Options{})
//	eng, err := promql.New(promql.Deps{Reader: views, ...})
//
// Reader is a storage.Reader: it answers selectors of the names traces_spanmetrics_*, traces_service_graph_request_* and
// traces_target_info, unless stored series match, and hands on everything else. Recorder writes the same series to the store.
// See docs/guides/span-metrics.md for what they mean.
package spanmetrics

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Options bound what one selector reads.
type Options struct {
	MaxRead int64 // bytes of parts; 0 is any number
}

// Reader is a storage.Reader with the metrics of spans. It is safe for concurrent use.
type Reader struct {
	storage.Reader
	o Options
}

var _ storage.Reader = (*Reader)(nil)

// New returns a reader over r.
func New(r storage.Reader, o Options) *Reader { return &Reader{Reader: r, o: o} }

// View implements storage.Reader.
func (r *Reader) View(ctx context.Context, at storage.Position) (storage.View, error) {
	v, err := r.Reader.View(ctx, at)
	if err != nil {
		return nil, err
	}
	return &view{View: v, o: r.o}, nil
}

// view is a storage.View with the metrics of spans.
type view struct {
	storage.View
	o    Options
	made atomic.Bool
}

var _ storage.ChangeReader = (*view)(nil)

// Made says whether series were read that are not stored, so that what was computed of them cannot be kept until a sample
// changes.
func (v *view) Made() bool { return v.made.Load() }

// Position implements storage.ChangeReader.
func (v *view) Position() storage.Position {
	if c, ok := v.View.(storage.ChangeReader); ok {
		return c.Position()
	}
	return 0
}

// OldestChange implements storage.ChangeReader.
func (v *view) OldestChange(tenant telemetry.Tenant, since storage.Position) (int64, bool) {
	if c, ok := v.View.(storage.ChangeReader); ok {
		return c.OldestChange(tenant, since)
	}
	return 0, false
}

// mine returns the metrics that q asks for, unless stored series match it.
func (v *view) mine(ctx context.Context, q storage.SeriesQuery) ([]metric, error) {
	ms := selected(q.Matchers)
	if len(ms) == 0 || q.Resources != nil {
		return nil, nil
	}
	q.Limit, q.Hints = 1, nil
	stored, err := v.View.LabelSets(ctx, q)
	if err != nil || len(stored) > 0 {
		return nil, err
	}
	v.made.Store(true)
	return ms, nil
}

// compute returns the series of metrics, sorted.
func (v *view) compute(ctx context.Context, q storage.SeriesQuery, ms []metric, g grid) ([]*series, error) {
	var out []*series
	if g.n == 0 {
		return nil, nil
	}
	for _, m := range ms {
		c, err := v.collect(ctx, q, m, g, nil)
		if err != nil {
			return nil, err
		}
		for _, s := range c.finish() {
			if !slices.ContainsFunc(q.Matchers, func(m *labels.Matcher) bool {
				return m.Name == model.BucketLabel && !m.Matches(s.labels.Get(model.BucketLabel))
			}) {
				out = append(out, s)
			}
		}
	}
	slices.SortFunc(out, func(a, b *series) int { return labels.Compare(a.labels, b.labels) })
	return out, nil
}

// collect counts one metric, or finds exemplars of it when a marker is given.
func (v *view) collect(ctx context.Context, q storage.SeriesQuery, m metric, g grid, mk *marker) (*collector, error) {
	var known []storage.SpanKey
	start, end := g.nanos()
	if len(extra(m, q.Matchers)) > 0 {
		var err error
		if known, err = v.SpanKeys(ctx, storage.TraceQuery{Tenant: q.Tenant, Start: start, End: end}); err != nil {
			return nil, err
		}
	}
	c, err := newCollector(m, g, q.Matchers, known)
	if err != nil {
		return nil, err
	}
	c.marker = mk
	return c, c.collect(ctx, v.View, q.Tenant, v.o.MaxRead)
}

// grid returns the grid of a query.
func (v *view) grid(q storage.SeriesQuery) (grid, error) {
	g := newGrid(max(q.Start, -far), min(q.End, far), q.Hints)
	if g.n > maxSteps {
		return g, httpapi.Errorf(httpapi.QueryLimit, "the metrics of spans are counted in steps of %s, and the time range has more than %d of them: shorten it",
			time.Duration(g.step)*time.Millisecond, maxSteps)
	}
	return g, nil
}

// far is beyond the times that nanoseconds can tell, in milliseconds, and so close that they can be told.
const far = 1 << 42

// whole is a grid with one step from start to end, for those who ask for labels alone.
func whole(start, end int64) grid {
	start, end = max(start, -far), min(end, far)
	return grid{origin: start - 1, step: max(end-start+1, 1), n: 1, lo: start, hi: end}
}

// Series implements storage.SeriesReader.
func (v *view) Series(ctx context.Context, q storage.SeriesQuery) promstorage.SeriesSet {
	ms, err := v.mine(ctx, q)
	if err != nil {
		return promstorage.ErrSeriesSet(err)
	}
	if len(ms) == 0 {
		return v.View.Series(ctx, q)
	}
	return &seriesSet{open: func() ([]*series, error) {
		g, err := v.grid(q)
		if err != nil {
			return nil, err
		}
		list, err := v.compute(ctx, q, ms, g)
		return cut(list, q.Limit), err
	}}
}

// Columns implements storage.SeriesReader.
func (v *view) Columns(ctx context.Context, q storage.SeriesQuery, f func(*storage.SeriesBlock) error) error {
	ms, err := v.mine(ctx, q)
	if err != nil {
		return err
	}
	if len(ms) == 0 {
		return v.View.Columns(ctx, q, f)
	}
	g, err := v.grid(q)
	if err != nil {
		return err
	}
	list, err := v.compute(ctx, q, ms, g)
	if err != nil {
		return err
	}
	first, last := g.times()
	if first > last {
		return nil
	}
	times := make([]int64, 0, last-first+1)
	for i := first; i <= last; i++ {
		times = append(times, g.time(i))
	}
	values := make([]float64, len(times))
	for _, s := range list {
		for i := range values {
			values[i] = s.value(first + i)
		}
		if err := f(&storage.SeriesBlock{Labels: telemetry.NewLabelSet(s.labels), Times: times, Values: values}); err != nil {
			return err
		}
	}
	return nil
}

// LabelSets implements storage.SeriesReader.
func (v *view) LabelSets(ctx context.Context, q storage.SeriesQuery) ([]telemetry.LabelSet, error) {
	ms, err := v.mine(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(ms) == 0 {
		return v.View.LabelSets(ctx, q)
	}
	list, err := v.compute(ctx, q, ms, whole(q.Start, q.End))
	if err != nil {
		return nil, err
	}
	out := make([]telemetry.LabelSet, 0, len(list))
	for _, s := range cut(list, q.Limit) {
		out = append(out, telemetry.NewLabelSet(s.labels))
	}
	return out, nil
}

// LabelNames implements storage.SeriesReader.
func (v *view) LabelNames(ctx context.Context, q storage.SeriesQuery) ([]string, error) {
	return v.list(ctx, q, v.View.LabelNames, func(ls labels.Labels, add func(string)) {
		ls.Range(func(l labels.Label) { add(l.Name) })
	}, func() []string {
		out := []string{model.MetricNameLabel, model.BucketLabel}
		for _, m := range metrics() {
			out = append(out, m.labels()...)
		}
		return out
	})
}

// LabelValues implements storage.SeriesReader.
func (v *view) LabelValues(ctx context.Context, name string, q storage.SeriesQuery) ([]string, error) {
	stored := func(ctx context.Context, q storage.SeriesQuery) ([]string, error) {
		return v.View.LabelValues(ctx, name, q)
	}
	return v.list(ctx, q, stored, func(ls labels.Labels, add func(string)) {
		if s := ls.Get(name); s != "" {
			add(s)
		}
	}, func() []string {
		var out []string
		if name == model.MetricNameLabel {
			for _, m := range metrics() {
				out = append(out, m.name)
			}
		}
		return out
	})
}

// list returns what stored tells, or of's from the series of spans that q asks for. Without matchers it adds always when there
// are spans.
func (v *view) list(ctx context.Context, q storage.SeriesQuery, stored func(context.Context, storage.SeriesQuery) ([]string, error),
	of func(labels.Labels, func(string)), always func() []string,
) ([]string, error) {
	ms, err := v.mine(ctx, q)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	add := func(s string) { seen[s] = true }
	if len(ms) > 0 {
		list, err := v.compute(ctx, q, ms, whole(q.Start, q.End))
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			of(s.labels, add)
		}
	} else {
		list, err := stored(ctx, q)
		if err != nil || len(q.Matchers) > 0 {
			return list, err
		}
		more := always()
		if len(more) == 0 {
			return list, nil
		}
		some, err := v.spans(ctx, q)
		if err != nil || !some {
			return list, err
		}
		for _, s := range slices.Concat(list, more) {
			add(s)
		}
	}
	out := make([]string, 0, len(seen))
	for s := range seen {
		out = append(out, s)
	}
	slices.Sort(out)
	return cut(out, q.Limit), nil
}

// spans says whether there are spans in the range.
func (v *view) spans(ctx context.Context, q storage.SeriesQuery) (bool, error) {
	start, end := whole(q.Start, q.End).nanos()
	for b, err := range v.Traces(ctx, storage.TraceQuery{Tenant: q.Tenant, Start: start, End: end, Fragments: true}) {
		if err != nil {
			return false, err
		}
		if lo, hi := b.Bounds(); b.Len() > 0 && lo <= end && hi >= start {
			return true, nil
		}
	}
	return false, nil
}

// Metadata implements storage.SeriesReader.
func (v *view) Metadata(ctx context.Context, tenant telemetry.Tenant, name string) (map[string][]telemetry.Metadata, error) {
	out, err := v.View.Metadata(ctx, tenant, name)
	if err != nil || len(out[name]) > 0 {
		return out, err
	}
	if m, ok := metadata(name); ok {
		return map[string][]telemetry.Metadata{name: {m}}, nil
	}
	return out, nil
}

func cut[T any](s []T, limit int) []T {
	if limit > 0 && len(s) > limit {
		return s[:limit]
	}
	return s
}
