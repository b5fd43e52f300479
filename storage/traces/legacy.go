package traces

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces/columns"
)

// legacyColumns are the columns of table "spans" in the first layout of traces, sorted by the trace's first start, trace ID,
// start, arrival.
func legacyColumns() []part.Column {
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

// rowsPart is a part of the first layout: rows with one column of binary attributes.
type rowsPart struct {
	p         *part.Part
	resources []*telemetry.Resource
	scopes    []*telemetry.Scope

	mu     sync.Mutex // guards blocks while they are made
	chunks []legacyBlock
	listed bool
}

// legacyBlock is some traces that lie together.
type legacyBlock struct{ from, to int64 } // rows

// load reads the dictionaries.
func (p *rowsPart) load() error {
	err := p.p.Table("spans").Check(legacyColumns())
	if err != nil {
		return err
	}
	if p.resources, err = part.ReadResources(p.p); err != nil {
		return err
	}
	p.scopes, err = part.ReadScopes(p.p)
	return err
}

// Scan is Source.Scan; all masks of s concern the part.
func (p *rowsPart) Scan(ctx context.Context, s *Scan, emit func(Rows) error) error {
	t := p.p.Table("spans")
	var wanted map[int]bool // blocks that hold wanted traces
	if ids, ok := storage.TracesOf(s.Where); ok {
		wanted = make(map[int]bool)
		if err := p.traceBlocks(ids, t, wanted); err != nil || len(wanted) == 0 {
			return err
		}
	}
	for b := range t.Blocks() {
		if wanted != nil && !wanted[b] {
			continue
		}
		if lo, hi, ok := t.Ints("start", b); ok && (hi < s.Start || lo > s.End) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		blk, kept, err := p.block(t, b, s)
		if err != nil {
			return err
		}
		if blk.Len() > 0 {
			if err := emit(Rows{SpanBlock: blk, place: func(i int) int64 { return t.FirstRow(b) + int64(kept[i]) }}); err != nil {
				return err
			}
		}
	}
	return nil
}

// traceBlocks adds the blocks that hold spans of the traces. A trace may reach over many blocks.
func (p *rowsPart) traceBlocks(ids []telemetry.TraceID, t *part.Table, wanted map[int]bool) error {
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
func (p *rowsPart) block(t *part.Table, b int, s *Scan) (*storage.SpanBlock, []int, error) {
	rd := legacyReader{RowReader: part.RowReader{Table: t, Block: b}, p: p}
	starts := rd.Read("start").Ints
	if rd.Err != nil {
		return nil, nil, rd.Err
	}
	rows := make([]int, 0, len(starts))
	for i, at := range starts {
		if at >= s.Start && at <= s.End {
			rows = append(rows, i)
		}
	}
	s.opened(1, int64(len(starts)), 0)
	if s.Where != nil || len(s.Masks) > 0 {
		test := rd.fill(rows, starts, storage.NeedsOfSpans(s.Where))
		if rd.Err != nil {
			return nil, nil, rd.Err
		}
		kept := rows[:0]
		for i, row := range rows {
			if test.Match(i, s.Where) && !Covered(s.Masks, test.TraceID[i], test.Start[i]) {
				kept = append(kept, row)
			}
		}
		rows = kept
	}
	blk := rd.fill(rows, starts, s.Columns)
	return blk, rows, rd.Err
}

// blocks returns runs of whole traces of about the size of a block.
func (p *rowsPart) blocks() ([]legacyBlock, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listed {
		return p.chunks, nil
	}
	t := p.p.Table("traces")
	if err := t.Check([]part.Column{{Name: "id", Type: part.Fixed, Width: 16}, {Name: "row", Type: part.Int64}, {Name: "rows", Type: part.Int64}}); err != nil {
		return nil, err
	}
	var traces []legacyBlock
	for b := range t.Blocks() {
		at, err := t.Read("row", b)
		if err != nil {
			return nil, err
		}
		n, err := t.Read("rows", b)
		if err != nil {
			return nil, err
		}
		for i, from := range at.Ints {
			if n.Ints[i] < 1 || n.Ints[i] > p.p.Table("spans").Rows() {
				return nil, t.Corrupt("rows", b, "a trace has %d rows", n.Ints[i])
			}
			traces = append(traces, legacyBlock{from, from + n.Ints[i]})
		}
	}
	slices.SortFunc(traces, func(a, b legacyBlock) int { return cmp.Compare(a.from, b.from) })
	var chunks []legacyBlock
	row := int64(0)
	for _, tr := range traces {
		if tr.from != row {
			return nil, t.Corrupt("row", 0, "a trace begins at row %d, want %d", tr.from, row)
		}
		row = tr.to
		if n := len(chunks); n > 0 && tr.to-chunks[n-1].from <= blockRows {
			chunks[n-1].to = tr.to
		} else {
			chunks = append(chunks, tr)
		}
	}
	if all := p.p.Table("spans").Rows(); row != all {
		return nil, t.Corrupt("rows", 0, "traces have %d rows, want %d", row, all)
	}
	p.chunks, p.listed = chunks, true
	return chunks, nil
}

// rows reads the spans of a block.
func (p *rowsPart) rows(c legacyBlock) ([]storage.SpanRow, error) {
	t := p.p.Table("spans")
	out := make([]storage.SpanRow, 0, c.to-c.from)
	for b := t.BlockOf(c.from); b < t.Blocks() && t.FirstRow(b) < c.to; b++ {
		rd := legacyReader{RowReader: part.RowReader{Table: t, Block: b}, p: p}
		starts := rd.Read("start").Ints
		if rd.Err != nil {
			return nil, rd.Err
		}
		var rows []int
		for i := range starts {
			if row := t.FirstRow(b) + int64(i); row >= c.from && row < c.to {
				rows = append(rows, i)
			}
		}
		blk := rd.fill(rows, starts, storage.SpanAll)
		if rd.Err != nil {
			return nil, rd.Err
		}
		spans := make([]telemetry.Span, blk.Len())
		for i := range spans {
			spans[i] = blk.Span(i)
			out = append(out, storage.SpanRow{Resource: blk.ResourceOf(i), Span: &spans[i]})
		}
	}
	return out, nil
}

// traces reads a block as whole traces.
func (p *rowsPart) traces(c legacyBlock) (*storage.TraceRows, error) {
	rows, err := p.rows(c)
	if err != nil {
		return nil, err
	}
	b := storage.NewTraceRows(0)
	for len(rows) > 0 {
		n := slices.IndexFunc(rows, func(r storage.SpanRow) bool { return r.Span.TraceID != rows[0].Span.TraceID })
		if n < 0 {
			n = len(rows)
		}
		b.Add(rows[:n])
		rows = rows[n:]
	}
	return b, nil
}

// info says what the part spans, as far as is known: ends of spans are not.
func (p *rowsPart) info(lo, hi int64) columns.Info {
	return columns.Info{
		Rows: int(p.p.Table("spans").Rows()), Traces: int(p.p.Table("traces").Rows()),
		Start: lo, LastStart: hi, LastFirst: hi, Lo: math.MinInt64, Hi: math.MaxInt64,
	}
}

// legacyReader reads rows of one block of p.
type legacyReader struct {
	part.RowReader
	p *rowsPart
}

// fill reads the columns cols, and those that are always there, of the given rows.
func (r *legacyReader) fill(rows []int, starts []int64, cols storage.SpanColumns) *storage.SpanBlock {
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
