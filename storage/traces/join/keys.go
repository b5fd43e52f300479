package join

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/columns"
	"github.com/braidobs/braid/storage/traces/places"
)

// Keys returns the keys of attributes that the traces have which reach into the range of q, sorted, and perhaps those of
// others that lie in the same segments. It takes what Read does.
func Keys(ctx context.Context, sources []traces.Source, q Query, shared *Shared, failed func(src int, err error) error) ([]storage.SpanKey, error) {
	keys := make(map[storage.SpanKey]bool)
	add := func(scope storage.AttrScope, as telemetry.Attrs) {
		for i := range as {
			keys[storage.SpanKey{Scope: scope, Name: as[i].Key}] = true
		}
	}
	r := &reader{Query: q, shared: shared, failed: failed, cost: q.Cost}
	err := r.around(ctx, sources, func(g *columns.Segment) error {
		ks, err := g.Keys()
		for _, k := range ks {
			keys[k] = true
		}
		return err
	}, func(res *telemetry.Resource, s *telemetry.Span) bool {
		add(storage.RecordScope, s.Attrs)
		if res != nil {
			add(storage.ResourceScope, res.Attrs)
		}
		if s.Scope != nil {
			add(storage.InstrumentationScope, s.Scope.Attrs)
		}
		for i := range s.Events {
			add(storage.EventScope, s.Events[i].Attrs)
		}
		for i := range s.Links {
			add(storage.LinkScope, s.Links[i].Attrs)
		}
		return true
	})
	return slices.SortedFunc(maps.Keys(keys), func(a, b storage.SpanKey) int {
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Name, b.Name))
	}), err
}

// Values returns at most limit distinct values that a key has in the traces that Keys goes by; 0 for all.
func Values(ctx context.Context, sources []traces.Source, q Query, key storage.SpanKey, limit int, shared *Shared, failed func(src int, err error) error) ([]telemetry.Value, error) {
	seen := make(map[telemetry.Value]bool)
	var out []telemetry.Value
	more := func() bool { return limit == 0 || len(out) < limit }
	add := func(v telemetry.Value) bool {
		if more() && !seen[v] {
			seen[v] = true
			out = append(out, v)
		}
		return more()
	}
	r := &reader{Query: q, shared: shared, failed: failed, cost: q.Cost}
	err := r.around(ctx, sources, func(g *columns.Segment) error {
		if !more() {
			return nil
		}
		return g.Values(key, add)
	}, func(res *telemetry.Resource, s *telemetry.Span) bool {
		key.Each(res, s, func(v telemetry.Value) { add(v) })
		return more()
	})
	return out, err
}

// around calls segment for the segments with spans of traces that reach into the range, and span for spans of others, until
// it returns false.
func (r *reader) around(ctx context.Context, sources []traces.Source, segment func(*columns.Segment) error, span func(*telemetry.Resource, *telemetry.Span) bool) error {
	parts, held, err := r.prepare(sources)
	if err != nil {
		return err
	}
	near := make(map[*unit]bool)
	for _, u := range r.units {
		near[u] = r.overlaps(u.Info.Lo, u.Info.Hi)
	}
	inside := func(lo, hi int64, at []places.Place) bool {
		for _, f := range at {
			in := r.units[f.Unit].Info
			lo, hi = min(lo, in.Lo), max(hi, in.Hi)
		}
		return r.overlaps(lo, hi)
	}
	if held > r.shared.traces { // what lies in several places is not looked for: all places count
		for _, u := range r.units {
			near[u] = true
		}
	} else {
		known, err := r.table(ctx, parts, r.units, held)
		if err != nil {
			return err
		}
		for _, at := range known.More {
			if inside(math.MaxInt64, math.MinInt64, at) {
				for _, f := range at {
					near[r.units[f.Unit]] = true
				}
			}
		}
		for _, h := range r.heads {
			for _, tr := range h.Traces() {
				id := tr.ID()
				lo, hi, _ := tr.Bounds()
				if at := known.Find(&id); inside(lo, hi, at) {
					for _, f := range at {
						near[r.units[f.Unit]] = true
					}
				}
			}
		}
	}
	for _, u := range r.units {
		if u.broken || !near[u] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.about(ctx, u, segment, span); err != nil {
			if err = r.lost(u, err); err != nil {
				return err
			}
		}
	}
	for _, h := range r.heads {
		if err := h.Each(ctx, r.Lo, r.Hi, span); err != nil {
			return err
		}
	}
	return nil
}

// about tells of one unit.
func (r *reader) about(ctx context.Context, u *unit, segment func(*columns.Segment) error, span func(*telemetry.Resource, *telemetry.Span) bool) error {
	g, err := u.Segment()
	if err != nil {
		return err
	}
	if g != nil {
		return segment(g)
	}
	n, err := u.Blocks()
	if err != nil {
		return err
	}
	for i := range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		rows, err := u.Rows(i)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if !span(row.Resource, row.Span) {
				return nil
			}
		}
	}
	return nil
}
