package join

import (
	"math"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
)

// heldBlock is a TraceBlock of spans in heads.
type heldBlock struct {
	rows    []traces.Held
	parents []int32 // nil until they are asked for: every row is a trace of its own
	first   []int32
	ids     []telemetry.TraceID
	lo, hi  int64
	columns *traces.HeldColumns
	known   map[storage.SpanKey]*storage.SpanColumn
	starts  []int64
	lengths []int64
}

var _ storage.TraceBlock = (*heldBlock)(nil)

// newHeldBlock returns an empty block that makes its columns with c.
func newHeldBlock(c *traces.HeldColumns) *heldBlock {
	return &heldBlock{first: []int32{0}, lo: math.MaxInt64, hi: math.MinInt64, columns: c}
}

// grow makes room for n rows that are traces of their own.
func (b *heldBlock) grow(n int) {
	b.rows, b.first, b.ids = slices.Grow(b.rows, n), slices.Grow(b.first, n), slices.Grow(b.ids, n)
}

// add adds rows as a trace: as they are.
func (b *heldBlock) add(id telemetry.TraceID, rows ...traces.Held) {
	if len(rows) == 0 {
		return
	}
	b.rows = append(b.rows, rows...)
	b.first = append(b.first, int32(len(b.rows)))
	b.ids = append(b.ids, id)
}

// settle sorts the rows of a trace as a tree and adds them.
func (b *heldBlock) settle(id telemetry.TraceID, rows []traces.Held, s *storage.Settler) {
	spans := make([]telemetry.Span, len(rows))
	tree := make([]storage.SpanRow, len(rows))
	for i, h := range rows {
		span, parent := h.IDs()
		// DroppedLinks of these spans, which nobody else sees, tells which they are.
		spans[i] = telemetry.Span{SpanID: span, ParentID: parent, Start: h.Start(), DroppedLinks: uint32(i)}
		tree[i].Span = &spans[i]
	}
	base := int32(len(b.rows))
	for _, p := range s.Settle(tree) {
		if p >= 0 {
			p += base
		}
		b.parents = append(b.parents, p)
	}
	sorted := make([]traces.Held, len(rows))
	for i := range tree {
		sorted[i] = rows[tree[i].Span.DroppedLinks]
	}
	b.add(id, sorted...)
}

// span widens the bounds.
func (b *heldBlock) span(lo, hi int64) { b.lo, b.hi = min(b.lo, lo), max(b.hi, hi) }

// Len implements storage.TraceBlock.
func (b *heldBlock) Len() int { return len(b.rows) }

// First implements storage.TraceBlock.
func (b *heldBlock) First() ([]int32, error) { return b.first, nil }

// Bounds implements storage.TraceBlock.
func (b *heldBlock) Bounds() (lo, hi int64) { return b.lo, b.hi }

// Rest implements storage.TraceBlock.
func (*heldBlock) Rest() int64 { return 0 }

// Traces implements storage.TraceBlock.
func (b *heldBlock) Traces() ([]telemetry.TraceID, error) { return b.ids, nil }

// Parents implements storage.TraceBlock.
func (b *heldBlock) Parents() ([]int32, error) {
	if b.parents == nil {
		b.parents = make([]int32, len(b.rows))
		for i, h := range b.rows {
			b.parents[i] = storage.NoParent
			if _, parent := h.IDs(); !parent.IsZero() {
				b.parents[i] = storage.LostParent
			}
		}
	}
	return b.parents, nil
}

// Starts implements storage.TraceBlock.
func (b *heldBlock) Starts() ([]int64, error) {
	if b.starts == nil {
		b.starts = make([]int64, len(b.rows))
		for i, h := range b.rows {
			b.starts[i] = h.Start()
		}
	}
	return b.starts, nil
}

// Durations implements storage.TraceBlock.
func (b *heldBlock) Durations() ([]int64, error) {
	if b.lengths == nil {
		b.lengths = make([]int64, len(b.rows))
		for i, h := range b.rows {
			b.lengths[i] = h.Duration()
		}
	}
	return b.lengths, nil
}

// Column implements storage.TraceBlock.
func (b *heldBlock) Column(key storage.SpanKey) (*storage.SpanColumn, error) {
	c := b.known[key]
	if c == nil {
		c = b.columns.Column(b.rows, key)
		if b.known == nil {
			b.known = make(map[storage.SpanKey]*storage.SpanColumn)
		}
		b.known[key] = c
	}
	return c, nil
}

// Spans implements storage.TraceBlock.
func (b *heldBlock) Spans(rows []int, cols storage.SpanColumns) (*storage.SpanBlock, error) {
	out := &storage.SpanBlock{}
	var as telemetry.Attrs
	for _, i := range rows {
		var s telemetry.Span
		if as = b.rows[i].Span(&s, as[len(as):]); cap(as)-len(as) < 64 {
			as = make(telemetry.Attrs, 0, 1024)
		}
		out.Append(b.rows[i].Resource(), &s, cols)
	}
	return out, nil
}
