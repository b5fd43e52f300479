package traceql

import (
	"context"
	"errors"
	"slices"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/rows"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

// TagsQuery asks which attributes there are.
type TagsQuery struct {
	Tenant     telemetry.Tenant
	Start, End int64   // nanoseconds
	Filter     *Filter // of the spans that have them; nil for all
	Scope      string  // span, resource, event, link, instrumentation or intrinsic; "" for all
}

// Tags is the names in one scope, sorted.
type Tags struct {
	Scope string
	Names []string
}

// Intrinsics returns the names of the intrinsics that have values worth listing.
func Intrinsics() []string {
	return []string{
		"duration", "event:name", "event:timeSinceStart", "instrumentation:name", "instrumentation:version", "kind", "name",
		"rootName", "rootServiceName", "span:duration", "span:kind", "span:name", "span:status", "span:statusMessage", "status",
		"statusMessage", "trace:duration", "trace:rootName", "trace:rootService", "traceDuration",
	}
}

// Tags tells which attributes spans have, by scope. Without a filter it may tell of some that only spans near the range have.
func (e *Engine) Tags(ctx context.Context, v storage.View, q TagsQuery) ([]Tags, Stats, error) {
	m := newMeter(v, e.Limits)
	names := map[syntax.Scope][]string{}
	tq := storage.TraceQuery{Tenant: q.Tenant, Start: q.Start, End: q.End}
	if q.Scope != "intrinsic" {
		found, err := v.SpanKeys(ctx, tq)
		if err != nil {
			return nil, Stats{}, err
		}
		if found, err = m.having(ctx, tq, q.Filter, found); err != nil {
			return nil, Stats{}, err
		}
		for _, k := range found {
			if s := scopeOf(k.Scope); s != syntax.Unscoped {
				names[s] = append(names[s], k.Name)
			}
		}
	}
	var out []Tags
	known := q.Scope == "" || q.Scope == "intrinsic"
	for _, s := range []syntax.Scope{syntax.SpanScope, syntax.ResourceScope, syntax.EventScope, syntax.LinkScope, syntax.InstrumentationScope} {
		if q.Scope != "" && q.Scope != s.String() {
			continue
		}
		known = true
		if len(names[s]) > 0 {
			out = append(out, Tags{s.String(), names[s]})
		}
	}
	if !known {
		return nil, Stats{}, httpapi.BadDataf("invalid scope %q: want span, resource, event, link, instrumentation or intrinsic", q.Scope)
	}
	if q.Scope == "" || q.Scope == "intrinsic" {
		out = append(out, Tags{"intrinsic", Intrinsics()})
	}
	return out, m.cost(), nil
}

func scopeOf(s storage.AttrScope) syntax.Scope {
	switch s {
	case storage.RecordScope:
		return syntax.SpanScope
	case storage.ResourceScope:
		return syntax.ResourceScope
	case storage.EventScope:
		return syntax.EventScope
	case storage.LinkScope:
		return syntax.LinkScope
	case storage.InstrumentationScope:
		return syntax.InstrumentationScope
	default:
		return syntax.Unscoped
	}
}

// having returns those of keys that spans have which the filter leaves.
func (m *meter) having(ctx context.Context, tq storage.TraceQuery, f *Filter, keys []storage.SpanKey) ([]storage.SpanKey, error) {
	if f == nil || f.Cond == nil {
		return keys, nil
	}
	has := make([]bool, len(keys))
	missing := len(keys)
	err := m.filtered(ctx, tq, f, nil, keys, func(b *rows.Block, set rows.Set) error {
		for i, k := range keys {
			if has[i] {
				continue
			}
			any, err := b.AnyOf(k, set)
			if err != nil {
				return err
			}
			if any {
				has[i] = true
				missing--
			}
		}
		if missing == 0 {
			return errEnough
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []storage.SpanKey
	for i, k := range keys {
		if has[i] {
			out = append(out, k)
		}
	}
	return out, nil
}

// filtered calls f with the rows of each block that the filter leaves and that start in the range, until f returns errEnough.
// It reads fields and keys besides what the filter needs.
func (m *meter) filtered(ctx context.Context, tq storage.TraceQuery, filter *Filter, read []syntax.Field, ks []storage.SpanKey, f func(*rows.Block, rows.Set) error) error {
	p := planOf(filter)
	tq.Need, tq.Keys, tq.Fragments = p.need, keys(append(read, p.fields...), ks...), !p.whole && !rows.Whole(read...)
	for b, err := range m.traces(ctx, tq) {
		if err != nil {
			return err
		}
		st := state{rows: b.All().Clone()}
		if err := run(p.stages, b, &st); err != nil {
			return err
		}
		if lo, hi := b.Bounds(); lo < tq.Start || hi > tq.End {
			starts, err := b.Starts()
			if err != nil {
				return err
			}
			within := make(rows.Set, len(st.rows))
			st.rows.Each(func(i int) {
				if starts[i] >= tq.Start && starts[i] <= tq.End {
					within.Add(i)
				}
			})
			st.rows = within
		}
		if st.rows.Empty() {
			continue
		}
		if err := f(b, st.rows); errors.Is(err, errEnough) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// errEnough ends a read early.
var errEnough = errors.New("enough")

// ValuesQuery asks what a field is worth.
type ValuesQuery struct {
	Tenant     telemetry.Tenant
	Start, End int64 // nanoseconds
	Field      Field
	Filter     *Filter // of the spans; nil for all
	Limit      int     // 0 for as many as there may be
}

// ValuesResult is the distinct values of a field, sorted.
type ValuesResult struct {
	Values []Value
	// Complete says that these are all; else there are more than the limit.
	Complete bool
	Stats    Stats
}

// Values tells the distinct values of a field. Without a filter it may tell of some that only spans near the range have.
// Status and kind have all the values that they can have.
func (e *Engine) Values(ctx context.Context, v storage.View, q ValuesQuery) (*ValuesResult, error) {
	limit := q.Limit
	if limit <= 0 || limit > maxValues {
		limit = maxValues
	}
	m := newMeter(v, e.Limits)
	out := &ValuesResult{Complete: true}
	seen := make(map[Value]bool)
	add := func(val Value) bool {
		for _, val := range rows.Elements(val) {
			if seen[val] {
				continue
			}
			if len(seen) >= limit {
				out.Complete = false
				return false
			}
			val = rows.Keep(val)
			seen[val] = true
			out.Values = append(out.Values, val)
		}
		return true
	}
	tq := storage.TraceQuery{Tenant: q.Tenant, Start: q.Start, End: q.End}
	var err error
	if ks, ok := rows.Listed(q.Field); ok && (q.Filter == nil || q.Filter.Cond == nil) {
		err = listed(ctx, v, ks, q.Field, tq, limit, add)
	} else {
		err = m.values(ctx, tq, q, add)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out.Values, Value.Compare)
	out.Stats = m.cost()
	return out, nil
}

// listed adds the values that the store has of keys.
func listed(ctx context.Context, v storage.View, ks []storage.SpanKey, f Field, tq storage.TraceQuery, limit int, add func(Value) bool) error {
	switch t := syntax.TypeOf(f); t {
	case syntax.TypeStatus, syntax.TypeKind:
		last := int64(telemetry.StatusError)
		if t == syntax.TypeKind {
			last = int64(telemetry.SpanKindConsumer)
		}
		for n := range last + 1 {
			add(Value{Type: t, Value: telemetry.Int(n)})
		}
		return nil
	default:
	}
	for _, k := range ks {
		vals, err := v.SpanValues(ctx, k, tq, limit+1)
		if err != nil {
			return err
		}
		for _, val := range vals {
			if !add(rows.Typed(val)) {
				return nil
			}
		}
	}
	return nil
}

// values adds the values of the spans that the filter leaves.
func (m *meter) values(ctx context.Context, tq storage.TraceQuery, q ValuesQuery, add func(Value) bool) error {
	f := q.Filter
	if f == nil {
		f = &Filter{}
	}
	measure := rows.NewMeasure(q.Field)
	return m.filtered(ctx, tq, f, []syntax.Field{q.Field}, nil, func(b *rows.Block, set rows.Set) error {
		if err := measure.Load(b); err != nil {
			return err
		}
		full := false
		set.Each(func(i int) {
			if !full {
				measure.Values(i, func(v Value) { full = full || !add(v) })
			}
		})
		if full {
			return errEnough
		}
		return nil
	})
}
