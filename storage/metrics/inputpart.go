package metrics

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

// partInput is a part that is merged into another one. Its rows (histograms, exemplars, evidence) are in memory, its
// samples are not.
type partInput struct {
	sel   *selected
	keys  []key
	masks [][]Mask // of each series, nil for no masks at all
	buf   Buffer
}

// input opens a part for a merge without what masks cover.
func (p *Part) input(ctx context.Context, masks []Mask) (input, error) {
	q := everything()
	if p.legacy() {
		sel, err := p.selectLegacy(ctx, q, Samples|Exemplars|EvidenceOf, masks)
		if err != nil {
			return nil, err
		}
		return newMemoryInput(sel.data), nil
	}
	pending := p.pending(masks)
	sel, err := p.selectSeries(ctx, q, Samples|Exemplars|EvidenceOf, nil)
	if err != nil {
		return nil, err
	}
	in := &partInput{sel: sel, keys: make([]key, len(sel.ids))}
	if len(pending) > 0 {
		in.masks = make([][]Mask, len(sel.ids))
		if err := in.cover(p, pending); err != nil {
			return nil, err
		}
	}
	for i, ls := range sel.labels {
		in.keys[i] = keyOf(ls)
		if i > 0 && in.keys[i-1].compare(&in.keys[i]) >= 0 {
			return nil, p.p.Table(tableIndex).Corrupt("data", i/groupSeries, "series %d is out of order", i)
		}
	}
	return in, nil
}

// cover notes which masks cover which series, and leaves out the series of which nothing is left.
func (in *partInput) cover(p *Part, pending []Mask) error {
	s := in.sel
	n := 0
	for i, ls := range s.labels {
		masks := covering(pending, ls)
		if len(masks) > 0 {
			left, err := in.left(s.ids[i], masks)
			if err != nil {
				return err
			}
			if !left {
				continue
			}
		}
		s.ids[n], s.labels[n], in.masks[n] = s.ids[i], ls, masks
		n++
	}
	s.ids, s.labels, in.masks, in.keys = s.ids[:n], s.labels[:n], in.masks[:n], in.keys[:n]
	s.windows = p.windowsIn(&p.idx, minTime, maxTime)
	return nil
}

// left says whether the masks leave anything of a series.
func (in *partInput) left(id int64, masks []Mask) (bool, error) {
	s := in.sel
	d := Data{Histograms: slices.Clone(s.histograms[id]), Exemplars: slices.Clone(s.exemplars[id])}
	if d.hide(masks); !d.empty() {
		return true, nil
	}
	for i := range s.windows {
		w := &s.windows[i]
		at, err := w.find(id)
		if err != nil || at < 0 {
			if err != nil {
				return false, err
			}
			continue
		}
		ts, err := s.times.get(uint32(w.page.times[at]))
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(ts, func(t int64) bool { return !hidden(masks, t) }) {
			return true, nil
		}
	}
	return false, nil
}

func (in *partInput) len() int                                 { return len(in.keys) }
func (in *partInput) at(i int) *key                            { return &in.keys[i] }
func (in *partInput) labels(i int) (telemetry.LabelSet, error) { return in.sel.labels[i], nil }

func (in *partInput) bounds() (lo, hi int64) {
	lo, hi = maxTime, minTime
	for _, w := range in.sel.p.idx.windows {
		lo, hi = min(lo, w.lo), max(hi, w.hi)
	}
	return lo, hi
}

func (in *partInput) floats(i int, lo, hi int64) (Columns, error) {
	s := in.sel
	if lo != s.start || hi != s.end {
		s.start, s.end = lo, hi
		s.windows = s.p.windowsIn(&s.p.idx, lo, hi)
		clear(s.times.all)
		clear(s.joined)
	}
	var d Data
	if err := s.floats(s.ids[i], &in.buf, &d); err != nil {
		return d.Columns, err
	}
	if in.masks != nil && len(in.masks[i]) > 0 {
		d.T = slices.Clone(d.T)
		d.hide(in.masks[i])
	}
	return d.Columns, nil
}

func (in *partInput) others(i int) (Data, error) {
	s := in.sel
	id := s.ids[i]
	d := Data{Labels: s.labels[i], Histograms: s.histograms[id], Exemplars: s.exemplars[id], Evidence: s.evidence[id]}
	if in.masks != nil && len(in.masks[i]) > 0 {
		d.Histograms, d.Exemplars = slices.Clone(d.Histograms), slices.Clone(d.Exemplars)
		d.hide(in.masks[i])
	}
	return d, nil
}

// selectLegacy reads series from a part of the first layout into memory.
func (p *Part) selectLegacy(ctx context.Context, q *storage.SeriesQuery, what What, masks []Mask) (*memory, error) {
	names, err := part.ReadStrings(p.p, tableSeries)
	if err != nil {
		return nil, err
	}
	if _, err := p.open(); err != nil {
		return nil, err
	}
	var ids []int64
	for i, n := range names {
		ls := telemetry.LabelSet(n)
		if !storage.MatchLabels(ls, q.Matchers) {
			continue
		}
		if err := ls.Check(); err != nil {
			return nil, p.p.Table(tableSeries).Corrupt("value", 0, "series %d: %v", i, err)
		}
		ids = append(ids, int64(i))
	}
	if len(ids) == 0 {
		return &memory{}, nil
	}
	points, err := p.histograms(ids, q.Start, q.End)
	if err != nil {
		return nil, err
	}
	floats, err := p.legacyFloats(ctx, ids, q)
	if err != nil {
		return nil, err
	}
	var exemplars map[int64][]exemplar.Exemplar
	if what&Exemplars != 0 {
		if exemplars, err = p.exemplars(ids, q.Start, q.End); err != nil {
			return nil, err
		}
	}
	var evidence map[int64][]Evidence
	if what&EvidenceOf != 0 || q.Resources != nil {
		if evidence, err = p.evidence(ids, q.Start, q.End); err != nil {
			return nil, err
		}
	}
	pending := p.pending(masks)
	out := &memory{}
	for _, id := range ids {
		d := Data{Labels: telemetry.LabelSet(names[id]), Exemplars: exemplars[id], Evidence: evidence[id]}
		d.fromPoints(append(floats[id], points[id]...))
		d.hide(covering(pending, d.Labels))
		if d.empty() || q.Resources != nil && !vouched(d.Evidence, q.Resources) {
			continue
		}
		out.data = append(out.data, d)
	}
	return out, nil
}

// legacyFloats reads the float samples of a part of the first layout.
func (p *Part) legacyFloats(ctx context.Context, ids []int64, q *storage.SeriesQuery) (map[int64][]Point, error) {
	t, err := p.table(tableSamples)
	if err != nil {
		return nil, err
	}
	out := make(map[int64][]Point)
	w := wanted{ids: ids}
	err = scanRows(t, p.idx.series, ids, true, q.Start, q.End, func(b int, of []int64) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		times, err := t.Read("time", b)
		if err != nil {
			return err
		}
		starts, err := t.Read("start", b)
		if err != nil {
			return err
		}
		values, err := t.Read("value", b)
		if err != nil {
			return err
		}
		for i, n := range of {
			if at := times.Ints[i]; at >= q.Start && at <= q.End && w.has(n) {
				out[n] = append(out[n], Point{T: at, ST: telemetry.UnpackStart(at, uint64(starts.Ints[i])), V: values.Floats[i]})
			}
		}
		return nil
	})
	return out, err
}
