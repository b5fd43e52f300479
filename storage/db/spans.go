package db

import (
	"context"
	"errors"
	"iter"
	"math"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/join"
)

// spanSources returns what may hold spans of a tenant that start in a time range, in the order of arrival, with the part
// behind each, nil for heads.
func (v *view) spanSources(ctx context.Context, t telemetry.Tenant, lo, hi int64) ([]traces.Source, []*partHandle, error) {
	hs, err := v.handles(ctx, storage.Traces, t, lo, hi)
	if err != nil {
		return nil, nil, err
	}
	srcs := make([]traces.Source, 0, len(hs)+len(v.traces))
	for _, h := range hs {
		srcs = append(srcs, h.traces)
	}
	for _, s := range v.traces {
		srcs, hs = append(srcs, s.Tenant(t)), append(hs, nil)
	}
	return srcs, hs, nil
}

// Spans implements storage.SpanReader.
func (v *view) Spans(ctx context.Context, q storage.SpanQuery) iter.Seq2[*storage.SpanBlock, error] {
	return func(yield func(*storage.SpanBlock, error) bool) {
		ctx, end := v.begin(ctx)
		defer end()
		srcs, hs, err := v.spanSources(ctx, q.Tenant, q.Start, q.End)
		if err != nil {
			yield(nil, explain(ctx, err))
			return
		}
		scan := traces.Scan{SpanQuery: q, Masks: traceMasks(v.masksOf(storage.Traces, q.Tenant)), Cost: &storage.ReadStats{}}
		defer func() { v.cost(scan.Cost) }()
		read := reading[*storage.SpanBlock]{v: v, ctx: ctx, handles: hs, yield: yield}
		if q.Order != storage.Unordered {
			read.one(traces.Collect(ctx, srcs, scan, read.failed))
			return
		}
		read.all(func(i int, emit func(*storage.SpanBlock) error) error {
			return srcs[i].Scan(ctx, &scan, func(r traces.Rows) error { return emit(r.SpanBlock) })
		})
	}
}

// traceQuery returns what a read of whole traces reads: the spans of the days around its range.
func (v *view) traceQuery(q storage.TraceQuery) join.Query {
	out := join.Query{TraceQuery: q, Lo: math.MinInt64, Hi: math.MaxInt64, Masks: traceMasks(v.masksOf(storage.Traces, q.Tenant)), Cost: &storage.ReadStats{}}
	if q.Start > math.MinInt64+3*nanosPerDay {
		out.Lo = (dayOf(q.Start, nanosPerDay) - 1) * nanosPerDay
	}
	if q.End < math.MaxInt64-3*nanosPerDay {
		out.Hi = (dayOf(q.End, nanosPerDay)+2)*nanosPerDay - 1
	}
	return out
}

// Traces implements storage.SpanReader.
func (v *view) Traces(ctx context.Context, q storage.TraceQuery) iter.Seq2[storage.TraceBlock, error] {
	return func(yield func(storage.TraceBlock, error) bool) {
		ctx, end := v.begin(ctx)
		defer end()
		tq := v.traceQuery(q)
		srcs, hs, err := v.spanSources(ctx, q.Tenant, tq.Lo, tq.Hi)
		if err != nil {
			yield(nil, explain(ctx, err))
			return
		}
		defer func() { v.cost(tq.Cost) }()
		read := reading[storage.TraceBlock]{v: v, ctx: ctx, handles: hs, yield: yield}
		for b, err := range join.Read(ctx, srcs, tq, v.d.shared, read.failed) {
			if err != nil {
				yield(nil, explain(ctx, err))
				return
			}
			if !yield(&watched{TraceBlock: b, v: v, parts: hs}, nil) {
				return
			}
		}
	}
}

// watched is a block that sets a part aside which turns out to be corrupt when a column is asked for: the block cannot
// answer, but the next query does, from the rest.
type watched struct {
	storage.TraceBlock
	v     *view
	parts []*partHandle
}

func (b *watched) seen(err error) {
	if c, ok := errors.AsType[*part.CorruptError](err); ok {
		for _, h := range b.parts {
			if h != nil && h.meta.Name == c.File {
				b.v.d.quarantine(h, err)
				b.v.warn(err.Error())
			}
		}
	}
}

// First implements storage.TraceBlock.
func (b *watched) First() ([]int32, error) {
	c, err := b.TraceBlock.First()
	b.seen(err)
	return c, err
}

// Traces implements storage.TraceBlock.
func (b *watched) Traces() ([]telemetry.TraceID, error) {
	c, err := b.TraceBlock.Traces()
	b.seen(err)
	return c, err
}

// Starts implements storage.TraceBlock.
func (b *watched) Starts() ([]int64, error) {
	c, err := b.TraceBlock.Starts()
	b.seen(err)
	return c, err
}

// Durations implements storage.TraceBlock.
func (b *watched) Durations() ([]int64, error) {
	c, err := b.TraceBlock.Durations()
	b.seen(err)
	return c, err
}

// DurationsOf is storage.DurationsOf.
func (b *watched) DurationsOf(set []uint64) ([]int64, error) {
	c, err := storage.DurationsOf(b.TraceBlock, set)
	b.seen(err)
	return c, err
}

// Parents implements storage.TraceBlock.
func (b *watched) Parents() ([]int32, error) {
	c, err := b.TraceBlock.Parents()
	b.seen(err)
	return c, err
}

// Column implements storage.TraceBlock.
func (b *watched) Column(key storage.SpanKey) (*storage.SpanColumn, error) {
	c, err := b.TraceBlock.Column(key)
	b.seen(err)
	return c, err
}

// Spans implements storage.TraceBlock.
func (b *watched) Spans(rows []int, cols storage.SpanColumns) (*storage.SpanBlock, error) {
	c, err := b.TraceBlock.Spans(rows, cols)
	b.seen(err)
	return c, err
}

// SpanKeys implements storage.SpanReader.
func (v *view) SpanKeys(ctx context.Context, q storage.TraceQuery) ([]storage.SpanKey, error) {
	ctx, end := v.begin(ctx)
	defer end()
	tq := v.traceQuery(q)
	srcs, hs, err := v.spanSources(ctx, q.Tenant, tq.Lo, tq.Hi)
	if err != nil {
		return nil, explain(ctx, err)
	}
	defer func() { v.cost(tq.Cost) }()
	keys, err := join.Keys(ctx, srcs, tq, v.d.shared, func(src int, err error) error { return v.failed(hs[src], err) })
	return keys, explain(ctx, err)
}

// SpanValues implements storage.SpanReader.
func (v *view) SpanValues(ctx context.Context, key storage.SpanKey, q storage.TraceQuery, limit int) ([]telemetry.Value, error) {
	ctx, end := v.begin(ctx)
	defer end()
	tq := v.traceQuery(q)
	srcs, hs, err := v.spanSources(ctx, q.Tenant, tq.Lo, tq.Hi)
	if err != nil {
		return nil, explain(ctx, err)
	}
	defer func() { v.cost(tq.Cost) }()
	vals, err := join.Values(ctx, srcs, tq, key, limit, v.d.shared, func(src int, err error) error { return v.failed(hs[src], err) })
	return vals, explain(ctx, err)
}
