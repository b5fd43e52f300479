package traces

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

// Builder collects the spans of one part: of one tenant and one day.
type Builder struct {
	traces map[telemetry.TraceID]*traceRows
	rows   int64
	bytes  int64
	lo, hi int64
}

type traceRows struct {
	id    telemetry.TraceID
	start int64 // of its first span
	rows  []headRow
}

type headRow struct {
	res  *telemetry.Resource
	span *telemetry.Span
}

// NewBuilder returns an empty builder.
func NewBuilder() *Builder {
	return &Builder{traces: make(map[telemetry.TraceID]*traceRows), lo: math.MaxInt64, hi: math.MinInt64}
}

// Add adds one span, which it keeps.
func (b *Builder) Add(res *telemetry.Resource, s *telemetry.Span) {
	t := b.traces[s.TraceID]
	if t == nil {
		t = &traceRows{id: s.TraceID, start: s.Start}
		b.traces[s.TraceID] = t
	}
	t.start = min(t.start, s.Start)
	t.rows = append(t.rows, headRow{res: res, span: s})
	b.rows++
	b.bytes += int64(s.Size())
	b.lo, b.hi = min(b.lo, s.Start), max(b.hi, s.Start)
}

// AddPart adds everything of p that no mask covers.
func (b *Builder) AddPart(ctx context.Context, p *Part, masks []Mask) error {
	q := storage.SpanQuery{Start: math.MinInt64, End: math.MaxInt64, Columns: storage.SpanAll}
	return p.Scan(ctx, &q, masks, func(blk *storage.SpanBlock) error {
		spans := make([]telemetry.Span, blk.Len())
		for i := range spans {
			spans[i] = blk.Span(i)
			b.Add(blk.ResourceOf(i), &spans[i])
		}
		return nil
	})
}

// Empty says whether there is nothing worth a part.
func (b *Builder) Empty() bool { return b.rows == 0 }

// Rows returns the number of spans, their size in memory, and the smallest and largest start.
func (b *Builder) Rows() (rows, bytes, lo, hi int64) { return b.rows, b.bytes, b.lo, b.hi }

// spanColumns are the columns of table "spans", sorted by the trace's first start, trace ID, start, arrival.
func spanColumns() []part.Column {
	return []part.Column{
		{Name: "trace", Type: part.Fixed, Width: 16},
		{Name: "span", Type: part.Fixed, Width: 8},
		{Name: "parent", Type: part.Fixed, Width: 8},
		{Name: "start", Type: part.Int64},
		{Name: "duration", Type: part.Int64},
		{Name: "kind", Type: part.Int64},
		{Name: "status", Type: part.Int64},
		{Name: "resource", Type: part.Int64},
		{Name: "scope", Type: part.Int64},
		{Name: "name", Type: part.Bytes},
		{Name: "attrs", Type: part.Bytes},
		{Name: "events", Type: part.Bytes},
		{Name: "links", Type: part.Bytes},
		{Name: "message", Type: part.Bytes},
		{Name: "state", Type: part.Bytes},
		{Name: "flags", Type: part.Int64},
		{Name: "dropped_attrs", Type: part.Int64},
		{Name: "dropped_events", Type: part.Int64},
		{Name: "dropped_links", Type: part.Int64},
	}
}

// Write writes the tables of docs/format/part.md, section traces. The builder is spent.
func (b *Builder) Write(w *part.Writer) error {
	traces := make([]*traceRows, 0, len(b.traces))
	for _, t := range b.traces {
		slices.SortStableFunc(t.rows, func(x, y headRow) int { return cmp.Compare(x.span.Start, y.span.Start) })
		traces = append(traces, t)
	}
	slices.SortFunc(traces, func(x, y *traceRows) int {
		return cmp.Or(cmp.Compare(x.start, y.start), bytes.Compare(x.id[:], y.id[:]))
	})
	w.Begin(part.Schema{Name: "spans", Columns: spanColumns()})
	var (
		resources part.Resources
		scopes    part.Scopes
		ids       = make([]telemetry.TraceID, 0, len(traces))
		numbers   [2][]int64 // first row, number of rows
		row       int64
	)
	blk := &spanBlock{v: make([]part.Vector, len(spanColumns()))}
	for _, t := range traces {
		ids = append(ids, t.id)
		numbers[0], numbers[1] = append(numbers[0], row), append(numbers[1], int64(len(t.rows)))
		for _, r := range t.rows {
			row++
			blk.add(int64(resources.Add(r.res)), int64(scopes.Add(r.span.Scope)), r.span)
			if blk.n >= part.BlockRows || blk.size >= spanBytes {
				if err := blk.flush(w); err != nil {
					return err
				}
			}
		}
	}
	if err := blk.flush(w); err != nil {
		return err
	}
	if err := resources.Write(w); err != nil {
		return err
	}
	if err := scopes.Write(w); err != nil {
		return err
	}
	return part.WriteTraceIndex(w, "traces", ids, []string{"row", "rows"}, numbers[0], numbers[1])
}

// spanBytes is about how many bytes of text a block holds.
const spanBytes = 512 << 10

// spanBlock is a block of table "spans" that is being filled.
type spanBlock struct {
	v       []part.Vector
	n, size int
	buf     []byte
}

func (b *spanBlock) str(c int, s string) {
	b.v[c].Strs = append(b.v[c].Strs, s)
	b.size += len(s)
}

func (b *spanBlock) num(c int, n int64) { b.v[c].Ints = append(b.v[c].Ints, n) }

func (b *spanBlock) add(res, scope int64, s *telemetry.Span) {
	b.v[0].Fixed = append(b.v[0].Fixed, s.TraceID[:]...)
	b.v[1].Fixed = append(b.v[1].Fixed, s.SpanID[:]...)
	b.v[2].Fixed = append(b.v[2].Fixed, s.ParentID[:]...)
	b.num(3, s.Start)
	b.num(4, s.End-s.Start)
	b.num(5, int64(s.Kind))
	b.num(6, int64(s.Status))
	b.num(7, res)
	b.num(8, scope)
	b.str(9, s.Name)
	b.buf = telemetry.AppendAttrs(b.buf[:0], s.Attrs)
	b.str(10, string(b.buf))
	b.buf = telemetry.AppendEvents(b.buf[:0], s.Events)
	b.str(11, string(b.buf))
	b.buf = telemetry.AppendLinks(b.buf[:0], s.Links)
	b.str(12, string(b.buf))
	b.str(13, s.StatusMessage)
	b.str(14, s.State)
	b.num(15, int64(s.Flags))
	b.num(16, int64(s.DroppedAttrs))
	b.num(17, int64(s.DroppedEvents))
	b.num(18, int64(s.DroppedLinks))
	b.n++
	b.size += 64
}

func (b *spanBlock) flush(w *part.Writer) error {
	err := w.Block(b.n, b.v...)
	for i := range b.v {
		b.v[i] = part.Vector{Ints: b.v[i].Ints[:0], Strs: b.v[i].Strs[:0], Fixed: b.v[i].Fixed[:0]}
	}
	b.n, b.size = 0, 0
	return err
}

// Part is a part of traces, open for reading.
type Part struct {
	p      *part.Part
	to     storage.Position
	lo, hi int64

	mu        sync.Mutex // guards the dictionaries while they are loaded
	loaded    atomic.Bool
	resources []*telemetry.Resource
	scopes    []*telemetry.Scope
}

var _ Source = (*Part)(nil)

// OpenPart returns the spans of p, which all came before to and start from lo to hi.
func OpenPart(p *part.Part, to storage.Position, lo, hi int64) *Part {
	return &Part{p: p, to: to, lo: lo, hi: hi}
}

// Bounds implements Source.
func (p *Part) Bounds() (int64, int64) { return p.lo, p.hi }

// Resources returns the resources of the part.
func (p *Part) Resources() ([]*telemetry.Resource, error) {
	err := p.load()
	return p.resources, err
}

// load reads the dictionaries once. A try that failed is made again: the error may be one of the disk.
func (p *Part) load() error {
	if p.loaded.Load() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loaded.Load() {
		return nil
	}
	err := p.p.Table("spans").Check(spanColumns())
	if err != nil {
		return err
	}
	if p.resources, err = part.ReadResources(p.p); err != nil {
		return err
	}
	if p.scopes, err = part.ReadScopes(p.p); err != nil {
		return err
	}
	p.loaded.Store(true)
	return nil
}

// Scan implements Source.
func (p *Part) Scan(ctx context.Context, q *storage.SpanQuery, masks []Mask, emit func(*storage.SpanBlock) error) error {
	var pending []Mask
	for _, m := range masks {
		if p.to <= m.Position && m.Start <= p.hi && m.End >= p.lo {
			pending = append(pending, m)
		}
	}
	if err := p.load(); err != nil {
		return err
	}
	t := p.p.Table("spans")
	var wanted map[int]bool // blocks that hold wanted traces
	if ids, ok := storage.TracesOf(q.Where); ok {
		wanted = make(map[int]bool)
		if err := p.traceBlocks(ids, t, wanted); err != nil || len(wanted) == 0 {
			return err
		}
	}
	for b := range t.Blocks() {
		if wanted != nil && !wanted[b] {
			continue
		}
		if lo, hi, ok := t.Ints("start", b); ok && (hi < q.Start || lo > q.End) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		blk, err := p.block(t, b, q, pending)
		if err != nil {
			return err
		}
		if blk.Len() > 0 {
			if err := emit(blk); err != nil {
				return err
			}
		}
	}
	return nil
}

// traceBlocks adds the blocks that hold spans of the traces. A trace may reach over many blocks.
func (p *Part) traceBlocks(ids []telemetry.TraceID, t *part.Table, wanted map[int]bool) error {
	counts := make(map[telemetry.TraceID]int64)
	if err := part.LookupTraces(p.p, "traces", "rows", ids, func(id telemetry.TraceID, n int64) { counts[id] = n }); err != nil {
		return err
	}
	return part.LookupTraces(p.p, "traces", "row", ids, func(id telemetry.TraceID, row int64) {
		for b := t.BlockOf(row); b < t.Blocks() && t.FirstRow(b) < row+counts[id]; b++ {
			wanted[b] = true
		}
	})
}

// block reads block b in two steps: the columns that decide, then the wanted columns of the rows that stay.
func (p *Part) block(t *part.Table, b int, q *storage.SpanQuery, masks []Mask) (*storage.SpanBlock, error) {
	rd := reader{RowReader: part.RowReader{Table: t, Block: b}, p: p}
	starts := rd.Read("start").Ints
	if rd.Err != nil {
		return nil, rd.Err
	}
	rows := make([]int, 0, len(starts))
	for i, at := range starts {
		if at >= q.Start && at <= q.End {
			rows = append(rows, i)
		}
	}
	if q.Where != nil || len(masks) > 0 {
		need := storage.NeedsOfSpans(q.Where)
		for i := range masks {
			need |= storage.NeedsOfSpans(masks[i].Where)
		}
		test := rd.fill(rows, starts, need)
		if rd.Err != nil {
			return nil, rd.Err
		}
		kept := rows[:0]
		for i, row := range rows {
			if test.Match(i, q.Where) && !masked(test, i, 0, masks) {
				kept = append(kept, row)
			}
		}
		rows = kept
	}
	blk := rd.fill(rows, starts, q.Columns)
	return blk, rd.Err
}

// reader reads rows of one block of p.
type reader struct {
	part.RowReader
	p *Part
}

// fill reads the columns cols, and those that are always there, of the given rows.
func (r *reader) fill(rows []int, starts []int64, cols storage.SpanColumns) *storage.SpanBlock {
	if len(rows) == 0 || r.Err != nil {
		return &storage.SpanBlock{}
	}
	blk := &storage.SpanBlock{Resources: r.p.resources, Scopes: r.p.scopes, Start: part.Pick(rows, starts, part.Same[int64])}
	traces, spans, parents := r.Read("trace").Fixed, r.Read("span").Fixed, r.Read("parent").Fixed
	blk.Duration = part.Pick(rows, r.Read("duration").Ints, part.Same[int64])
	blk.Kind = part.Pick(rows, r.Read("kind").Ints, func(n int64) telemetry.SpanKind { return telemetry.SpanKind(n) })
	blk.Status = part.Pick(rows, r.Read("status").Ints, func(n int64) telemetry.StatusCode { return telemetry.StatusCode(n) })
	if r.Err != nil {
		return &storage.SpanBlock{}
	}
	blk.TraceID, blk.SpanID, blk.ParentID = make([]telemetry.TraceID, len(rows)), make([]telemetry.SpanID, len(rows)), make([]telemetry.SpanID, len(rows))
	for i, row := range rows {
		copy(blk.TraceID[i][:], traces[row*16:])
		copy(blk.SpanID[i][:], spans[row*8:])
		copy(blk.ParentID[i][:], parents[row*8:])
	}
	if cols&storage.SpanResource != 0 {
		blk.Resource = r.Indexes("resource", rows, len(r.p.resources))
	}
	if cols&storage.SpanScope != 0 {
		blk.Scope = r.Indexes("scope", rows, len(r.p.scopes))
	}
	if cols&storage.SpanNames != 0 {
		blk.Name = part.Pick(rows, r.Read("name").Strs, part.Same[string])
	}
	if cols&storage.SpanAttrs != 0 {
		blk.Attrs = part.Decoded(&r.RowReader, "attrs", rows, (*telemetry.Decoder).Attrs)
	}
	if cols&storage.SpanEvents != 0 {
		blk.Events = part.Decoded(&r.RowReader, "events", rows, (*telemetry.Decoder).Events)
	}
	if cols&storage.SpanLinks != 0 {
		blk.Links = part.Decoded(&r.RowReader, "links", rows, (*telemetry.Decoder).Links)
	}
	if cols&storage.SpanMessages != 0 {
		blk.StatusMessage = part.Pick(rows, r.Read("message").Strs, part.Same[string])
		blk.State = part.Pick(rows, r.Read("state").Strs, part.Same[string])
		blk.Flags = part.Pick(rows, r.Read("flags").Ints, func(n int64) uint32 { return uint32(n) })
		as, es, ls := r.Read("dropped_attrs").Ints, r.Read("dropped_events").Ints, r.Read("dropped_links").Ints
		if r.Err == nil {
			blk.Dropped = make([][3]uint32, len(rows))
			for i, row := range rows {
				blk.Dropped[i] = [3]uint32{uint32(as[row]), uint32(es[row]), uint32(ls[row])}
			}
		}
	}
	if r.Err != nil {
		return &storage.SpanBlock{}
	}
	return blk
}
