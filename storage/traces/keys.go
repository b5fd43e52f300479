package traces

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Keys returns the keys of attributes that the traces have which reach into the range of q, sorted, and perhaps those of
// others that lie in the same segments. It takes what Read does.
func Keys(ctx context.Context, sources []Source, q Query, shared *Shared, failed func(src int, err error) error) ([]storage.SpanKey, error) {
	keys := make(map[storage.SpanKey]bool)
	add := func(scope storage.AttrScope, as telemetry.Attrs) {
		for i := range as {
			keys[storage.SpanKey{Scope: scope, Name: as[i].Key}] = true
		}
	}
	r := &reader{Query: q, shared: shared, failed: failed, cost: q.Cost}
	err := r.around(ctx, sources, func(u *unit) error {
		g, err := u.open()
		if err != nil {
			return err
		}
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
func Values(ctx context.Context, sources []Source, q Query, key storage.SpanKey, limit int, shared *Shared, failed func(src int, err error) error) ([]telemetry.Value, error) {
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
	err := r.around(ctx, sources, func(u *unit) error {
		if !more() {
			return nil
		}
		g, err := u.open()
		if err != nil {
			return err
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
func (r *reader) around(ctx context.Context, sources []Source, segment func(*unit) error, span func(*telemetry.Resource, *telemetry.Span) bool) error {
	parts, traces, err := r.prepare(sources)
	if err != nil {
		return err
	}
	near := make(map[*unit]bool)
	for _, u := range r.units {
		near[u] = r.overlaps(u.info.Lo, u.info.Hi)
	}
	inside := func(lo, hi int64, at []fragment) bool {
		for _, f := range at {
			in := r.units[f.unit].info
			lo, hi = min(lo, in.Lo), max(hi, in.Hi)
		}
		return r.overlaps(lo, hi)
	}
	if traces > r.shared.traces { // what lies in several places is not looked for: all places count
		for _, u := range r.units {
			near[u] = true
		}
	} else {
		table, err := r.table(ctx, parts, r.units, traces)
		if err != nil {
			return err
		}
		for _, at := range table.more {
			if inside(math.MaxInt64, math.MinInt64, at) {
				for _, f := range at {
					near[r.units[f.unit]] = true
				}
			}
		}
		for _, h := range r.heads {
			for _, tr := range h.traces() {
				if at := table.find(&tr.id); inside(tr.lo, tr.end, at) {
					for _, f := range at {
						near[r.units[f.unit]] = true
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
		for i := range h.entries {
			e := &h.entries[i]
			if i%64 == 63 && ctx.Err() != nil {
				return ctx.Err()
			}
			for k := range e.spans {
				if s := &e.spans[k]; s.Start >= r.Lo && s.Start <= r.Hi && !span(e.res, s) {
					return nil
				}
			}
		}
	}
	return nil
}

// about tells of one unit.
func (r *reader) about(ctx context.Context, u *unit, segment func(*unit) error, span func(*telemetry.Resource, *telemetry.Span) bool) error {
	if !u.isLegacy() {
		return segment(u)
	}
	bs, err := u.list()
	if err != nil {
		return err
	}
	for i := range bs {
		if err := ctx.Err(); err != nil {
			return err
		}
		rows, err := u.part.legacy.rows(bs[i])
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
