package db

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	signalmetrics "github.com/braidobs/braid/storage/metrics"
)

// seriesSources returns what may hold series of q in the order of arrival, with the part behind each, nil for heads.
func (v *view) seriesSources(ctx context.Context, q *storage.SeriesQuery) ([]signalmetrics.Source, []*partHandle, error) {
	hs, err := v.handles(ctx, storage.Metrics, q.Tenant, q.Start, q.End)
	if err != nil {
		return nil, nil, err
	}
	srcs := make([]signalmetrics.Source, 0, len(hs)+len(v.metrics))
	for _, h := range hs {
		srcs = append(srcs, h.metrics)
	}
	for _, s := range v.metrics {
		srcs, hs = append(srcs, s.Tenant(q.Tenant)), append(hs, nil)
	}
	return srcs, hs, nil
}

// merge finds the matching series of all sources.
func (v *view) merge(ctx context.Context, q *storage.SeriesQuery, what signalmetrics.What) (*signalmetrics.Merged, error) {
	srcs, hs, err := v.seriesSources(ctx, q)
	if err != nil {
		return nil, err
	}
	masks := metricMasks(v.masksOf(storage.Metrics, q.Tenant))
	sels, of := make([]signalmetrics.Selection, 0, len(srcs)), make([]*partHandle, 0, len(srcs))
	for i, src := range srcs {
		sel, err := src.Select(ctx, q, what, masks)
		if err != nil {
			if err = v.failed(hs[i], err); err != nil {
				return nil, err
			}
			continue
		}
		sels, of = append(sels, sel), append(of, hs[i])
	}
	m := signalmetrics.Merge(sels, func(sel int, err error) error { return v.failed(of[sel], err) })
	v.mu.Lock()
	v.merged = append(v.merged, m)
	v.mu.Unlock()
	return m, nil
}

// Series implements storage.SeriesReader. A series is read when its iterator is asked for, until the view is closed.
func (v *view) Series(ctx context.Context, q storage.SeriesQuery) promstorage.SeriesSet {
	ctx, _ = v.begin(ctx) // it ends with the view
	m, err := v.merge(ctx, &q, signalmetrics.Samples)
	if err != nil {
		return promstorage.ErrSeriesSet(explain(ctx, err))
	}
	if !q.Unordered {
		m.Sort()
	}
	return m.Set(ctx, func() annotations.Annotations {
		var notes annotations.Annotations
		for _, w := range v.Warnings() {
			notes.Add(errors.New(w))
		}
		return notes
	})
}

// Columns implements storage.SeriesReader.
func (v *view) Columns(ctx context.Context, q storage.SeriesQuery, f func(*storage.SeriesBlock) error) error {
	ctx, end := v.begin(ctx)
	defer end()
	m, err := v.merge(ctx, &q, signalmetrics.Samples)
	if err != nil {
		return explain(ctx, err)
	}
	var b storage.SeriesBlock
	err = m.Each(ctx, func(d *signalmetrics.Data) error {
		if len(d.T) == 0 && len(d.Histograms) == 0 {
			return nil
		}
		b = storage.SeriesBlock{Labels: d.Labels, Times: d.T, Values: d.V, Histograms: len(d.Histograms) > 0}
		return f(&b)
	})
	return explain(ctx, err)
}

// LabelSets implements storage.SeriesReader.
func (v *view) LabelSets(ctx context.Context, q storage.SeriesQuery) ([]telemetry.LabelSet, error) {
	ctx, end := v.begin(ctx)
	defer end()
	what := signalmetrics.What(0)
	if len(v.masksOf(storage.Metrics, q.Tenant)) > 0 || q.Resources != nil {
		what = signalmetrics.Samples // whether a delete or a time leaves anything shows in the samples
	}
	m, err := v.merge(ctx, &q, what)
	if err != nil {
		return nil, explain(ctx, err)
	}
	m.Sort()
	out := make([]telemetry.LabelSet, 0, m.Len())
	var b signalmetrics.Buffer
	for i := range m.Len() {
		if q.Limit > 0 && len(out) == q.Limit {
			break
		}
		if what != 0 {
			d, err := m.Read(i, &b)
			if err != nil {
				return nil, explain(ctx, err)
			}
			if len(d.T) == 0 && len(d.Histograms) == 0 {
				continue
			}
		}
		out = append(out, m.Labels(i))
	}
	return out, nil
}

// LabelNames implements storage.SeriesReader.
func (v *view) LabelNames(ctx context.Context, q storage.SeriesQuery) ([]string, error) {
	return v.distinct(ctx, q, func(ctx context.Context, s signalmetrics.Source, q *storage.SeriesQuery, add func(string)) error {
		return s.LabelNames(ctx, q, add)
	}, func(s telemetry.LabelSet, add func(string)) { s.Range(func(name, _ string) { add(name) }) })
}

// LabelValues implements storage.SeriesReader.
func (v *view) LabelValues(ctx context.Context, name string, q storage.SeriesQuery) ([]string, error) {
	return v.distinct(ctx, q, func(ctx context.Context, s signalmetrics.Source, q *storage.SeriesQuery, add func(string)) error {
		return s.LabelValues(ctx, name, q, add)
	}, func(s telemetry.LabelSet, add func(string)) {
		if value := s.Get(name); value != "" {
			add(value)
		}
	})
}

// distinct collects strings from the indexes of all sources, or from the series one by one where deletes or resources
// have a say.
func (v *view) distinct(
	ctx context.Context, q storage.SeriesQuery,
	index func(context.Context, signalmetrics.Source, *storage.SeriesQuery, func(string)) error, each func(telemetry.LabelSet, func(string)),
) ([]string, error) {
	limit := q.Limit
	q.Limit = 0
	seen := make(map[string]bool)
	add := func(s string) { seen[s] = true }
	if q.Resources != nil || len(v.masksOf(storage.Metrics, q.Tenant)) > 0 {
		sets, err := v.LabelSets(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, s := range sets {
			each(s, add)
		}
	} else {
		ctx, end := v.begin(ctx)
		defer end()
		srcs, hs, err := v.seriesSources(ctx, &q)
		if err != nil {
			return nil, explain(ctx, err)
		}
		for i, s := range srcs {
			if err := index(ctx, s, &q, add); err != nil {
				if err = v.failed(hs[i], err); err != nil {
					return nil, explain(ctx, err)
				}
			}
		}
	}
	out := slices.Sorted(maps.Keys(seen))
	if limit > 0 && len(out) > limit {
		out = out[:limit]
	}
	return out, nil
}

// Exemplars implements storage.SeriesReader.
func (v *view) Exemplars(ctx context.Context, q storage.SeriesQuery) ([]exemplar.QueryResult, error) {
	ctx, end := v.begin(ctx)
	defer end()
	m, err := v.merge(ctx, &q, signalmetrics.Exemplars)
	if err != nil {
		return nil, explain(ctx, err)
	}
	m.Sort()
	var out []exemplar.QueryResult
	err = m.Each(ctx, func(d *signalmetrics.Data) error {
		if len(d.Exemplars) == 0 {
			return nil
		}
		es := slices.Clone(d.Exemplars)
		slices.SortStableFunc(es, func(a, b exemplar.Exemplar) int { return cmp.Compare(a.Ts, b.Ts) })
		es = slices.CompactFunc(es, func(a, b exemplar.Exemplar) bool { return a.Equals(b) })
		out = append(out, exemplar.QueryResult{SeriesLabels: d.Labels.Labels(), Exemplars: es})
		return nil
	})
	return out, explain(ctx, err)
}

// SeriesResources implements storage.EntityReader.
func (v *view) SeriesResources(ctx context.Context, q storage.SeriesQuery) (map[telemetry.LabelSet][]telemetry.ResourceID, error) {
	ctx, end := v.begin(ctx)
	defer end()
	m, err := v.merge(ctx, &q, signalmetrics.EvidenceOf|signalmetrics.Samples)
	if err != nil {
		return nil, explain(ctx, err)
	}
	out := make(map[telemetry.LabelSet][]telemetry.ResourceID, m.Len())
	err = m.Each(ctx, func(d *signalmetrics.Data) error {
		if len(d.T) == 0 && len(d.Histograms) == 0 {
			return nil
		}
		var ids []telemetry.ResourceID
		for _, e := range d.Evidence {
			if !slices.Contains(ids, e.Resource.ID) {
				ids = append(ids, e.Resource.ID)
			}
		}
		out[d.Labels] = ids
		return nil
	})
	return out, explain(ctx, err)
}
