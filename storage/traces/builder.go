package traces

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces/columns"
)

// Builder makes one part, of one tenant and one day: either of the spans of a head (AddDay) or of other parts (AddPart).
type Builder struct {
	ctx    context.Context //nolint:containedctx // of the merge that the builder is for
	layout columns.Layout
	head   *Tenant
	from   int64 // times of head
	to     int64
	inputs []input
	keep   func(telemetry.TraceID) float64 // nil for all; see Sample
	rows   int64
	lo, hi int64
}

// input is a part that is merged.
type input struct {
	p     *Part
	masks []Mask
}

// NewBuilder returns an empty builder. Write ends with the error of ctx when that is cancelled.
func NewBuilder(ctx context.Context, l columns.Layout) *Builder {
	return &Builder{ctx: ctx, layout: l, lo: math.MaxInt64, hi: math.MinInt64}
}

const nanosPerDay = 24 * 3600 * 1_000_000_000

func dayOf(t int64) int64 {
	if t >= 0 {
		return t / nanosPerDay
	}
	return -((-(t + 1))/nanosPerDay + 1)
}

// Days returns the days, counted from the epoch, on which spans start.
func (t *Tenant) Days() []int64 {
	days := make(map[int64]bool)
	for i := range t.entries {
		e := &t.entries[i]
		if first, last := dayOf(e.lo), dayOf(e.hi); last-first <= 1 {
			days[first], days[last] = true, true // both have one
			continue
		}
		for _, r := range t.rows[e.base : e.base+e.rows] {
			days[dayOf(r.start)] = true
		}
	}
	out := make([]int64, 0, len(days))
	for d := range days {
		out = append(out, d)
	}
	slices.Sort(out)
	return out
}

// AddDay adds the spans of a tenant that start on a day, which has some. It may be called once.
func (b *Builder) AddDay(t *Tenant, day int64) {
	b.head, b.from, b.to = t, day*nanosPerDay, (day+1)*nanosPerDay-1
	if day < dayOf(math.MinInt64)+1 {
		b.from = math.MinInt64
	}
	if day > dayOf(math.MaxInt64)-1 {
		b.to = math.MaxInt64
	}
}

// AddPart adds everything of p that no mask covers. Parts come in the order of their arrival, and are read when the
// builder writes.
func (b *Builder) AddPart(p *Part, masks []Mask) error {
	if err := p.load(); err != nil {
		return err
	}
	b.inputs = append(b.inputs, input{p: p, masks: p.pending(masks)})
	return nil
}

// Sample leaves out traces of parts for which keep returns 0, and notes a probability below 1 in what is kept.
func (b *Builder) Sample(keep func(telemetry.TraceID) float64) { b.keep = keep }

// Empty says whether there is nothing worth a part; known after Write.
func (b *Builder) Empty() bool { return b.rows == 0 }

// spanSize is about what a span takes in memory.
const spanSize = 512

// Rows returns the number of spans, about their size in memory, and the smallest and largest start; known after Write.
func (b *Builder) Rows() (rows, bytes, lo, hi int64) { return b.rows, b.rows * spanSize, b.lo, b.hi }

func (b *Builder) count(rows int, lo, hi int64) {
	b.rows += int64(rows)
	b.lo, b.hi = min(b.lo, lo), max(b.hi, hi)
}

// Write writes the tables of docs/format/part.md, section traces. The builder is spent.
func (b *Builder) Write(w *part.Writer) error {
	cw := columns.NewWriter(w, b.layout)
	if b.head != nil {
		if err := b.flush(cw); err != nil {
			return err
		}
	}
	if err := b.merge(cw); err != nil {
		return err
	}
	return cw.Close()
}

// flushed is a trace of a head.
type flushed struct {
	id       telemetry.TraceID
	start    int64
	from, to int32 // of the rows
}

// flush writes the spans of a head.
func (b *Builder) flush(w *columns.Writer) error {
	var (
		traces []flushed
		rows   []int32
	)
	for _, tr := range b.head.Traces() {
		if tr.hi < b.from || tr.lo > b.to {
			continue
		}
		f := flushed{id: tr.id, start: math.MaxInt64, from: int32(len(rows))}
		rows = b.head.chain(rows, tr.last)
		kept := rows[:f.from]
		for _, row := range rows[f.from:] {
			if at := b.head.rows[row].start; at >= b.from && at <= b.to {
				f.start = min(f.start, at)
				b.count(1, at, at)
				kept = append(kept, row)
			}
		}
		rows = kept
		if f.to = int32(len(rows)); f.to > f.from {
			traces = append(traces, f)
		}
	}
	slices.SortFunc(traces, func(x, y flushed) int { return cmp.Or(cmp.Compare(x.start, y.start), bytes.Compare(x.id[:], y.id[:])) })
	var (
		settler storage.Settler
		all     []telemetry.Span
		as      telemetry.Attrs
		spans   []storage.SpanRow
	)
	for i, f := range traces {
		if i%256 == 0 && b.ctx.Err() != nil {
			return b.ctx.Err()
		}
		n := int(f.to - f.from)
		spans, as, all = spans[:0], as[:0], slices.Grow(all[:0], n)[:n]
		for k, row := range rows[f.from:f.to] {
			as = b.head.unpack(row, &all[k], as)
			spans = append(spans, storage.SpanRow{Resource: b.head.at(row).res, Span: &all[k]})
		}
		if err := w.Add(spans, settler.Settle(spans)); err != nil {
			return err
		}
		if w.Full() {
			if err := w.End(); err != nil {
				return err
			}
		}
	}
	return w.End()
}
