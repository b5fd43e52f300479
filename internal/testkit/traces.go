package testkit

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"maps"
	"math"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

const dayNanos = int64(86400e9)

// whole returns the time range in which a trace is whole for a query: see storage.TraceBlock.
func whole(start, end int64) (lo, hi int64) {
	lo, hi = math.MinInt64, math.MaxInt64
	if start > math.MinInt64+3*dayNanos {
		lo = floorDay(start) - dayNanos
	}
	if end < math.MaxInt64-3*dayNanos {
		hi = floorDay(end) + 2*dayNanos - 1
	}
	return lo, hi
}

func floorDay(t int64) int64 {
	d := t % dayNanos
	if d < 0 {
		d += dayNanos
	}
	return t - d
}

// Traces implements storage.SpanReader: it looks at every span, and uses neither q.Need nor q.Fragments.
func (v *view) Traces(ctx context.Context, q storage.TraceQuery) iter.Seq2[storage.TraceBlock, error] {
	return func(yield func(storage.TraceBlock, error) bool) {
		traces, err := v.traces(ctx, q)
		if err != nil {
			yield(nil, err)
			return
		}
		const each = 50
		for some := range slices.Chunk(traces, each) {
			if err := v.check(ctx); err != nil {
				yield(nil, err)
				return
			}
			b := storage.NewTraceRows(firstStart(some[len(some)-1]))
			for _, rows := range some {
				b.Add(rows)
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

// traces returns the spans of the traces in the range, in the order of arrival; the trace that starts last is the first.
func (v *view) traces(ctx context.Context, q storage.TraceQuery) ([][]storage.SpanRow, error) {
	if err := v.check(ctx); err != nil {
		return nil, err
	}
	lo, hi := whole(q.Start, q.End)
	byID := make(map[telemetry.TraceID][]storage.SpanRow)
	for b := range v.of(q.Tenant) {
		for i := range b.Spans {
			if s := &b.Spans[i]; s.Start >= lo && s.Start <= hi {
				byID[s.TraceID] = append(byID[s.TraceID], storage.SpanRow{Resource: b.Resource, Span: s})
			}
		}
	}
	maps.DeleteFunc(byID, func(_ telemetry.TraceID, rows []storage.SpanRow) bool {
		end := int64(math.MinInt64)
		for _, r := range rows {
			end = max(end, r.Span.Start, r.Span.End)
		}
		return firstStart(rows) > q.End || end < q.Start
	})
	return slices.SortedFunc(maps.Values(byID), func(a, b []storage.SpanRow) int {
		return cmp.Or(cmp.Compare(firstStart(b), firstStart(a)), bytes.Compare(a[0].Span.TraceID[:], b[0].Span.TraceID[:]))
	}), nil
}

func firstStart(rows []storage.SpanRow) int64 {
	t := int64(math.MaxInt64)
	for _, r := range rows {
		t = min(t, r.Span.Start)
	}
	return t
}

// SpanKeys implements storage.SpanReader.
func (v *view) SpanKeys(ctx context.Context, q storage.TraceQuery) ([]storage.SpanKey, error) {
	traces, err := v.traces(ctx, q)
	keys := make(map[storage.SpanKey]bool)
	for _, rows := range traces {
		for _, r := range rows {
			add := func(scope storage.AttrScope, as telemetry.Attrs) {
				for i := range as {
					keys[storage.SpanKey{Scope: scope, Name: as[i].Key}] = true
				}
			}
			add(storage.RecordScope, r.Span.Attrs)
			if r.Resource != nil {
				add(storage.ResourceScope, r.Resource.Attrs)
			}
			if r.Span.Scope != nil {
				add(storage.InstrumentationScope, r.Span.Scope.Attrs)
			}
			for i := range r.Span.Events {
				add(storage.EventScope, r.Span.Events[i].Attrs)
			}
			for i := range r.Span.Links {
				add(storage.LinkScope, r.Span.Links[i].Attrs)
			}
		}
	}
	return slices.SortedFunc(maps.Keys(keys), func(a, b storage.SpanKey) int {
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Name, b.Name))
	}), err
}

// SpanValues implements storage.SpanReader.
func (v *view) SpanValues(ctx context.Context, key storage.SpanKey, q storage.TraceQuery, limit int) ([]telemetry.Value, error) {
	traces, err := v.traces(ctx, q)
	seen := make(map[telemetry.Value]bool)
	var out []telemetry.Value
	for _, rows := range traces {
		for _, r := range rows {
			key.Each(r.Resource, r.Span, func(val telemetry.Value) {
				if !seen[val] && (limit == 0 || len(out) < limit) {
					seen[val] = true
					out = append(out, val)
				}
			})
		}
	}
	return out, err
}
