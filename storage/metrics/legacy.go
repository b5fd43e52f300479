package metrics

import (
	"context"

	"github.com/prometheus/prometheus/model/exemplar"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

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
