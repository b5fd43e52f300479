package logs

import (
	"context"
	"slices"
	"strconv"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

// legacyColumns are the columns of table "rows" in the first layout of logs, sorted by stream, time and arrival.
func legacyColumns() []part.Column {
	return []part.Column{
		{Name: "stream", Type: part.Int64},
		{Name: "time", Type: part.Int64},
		{Name: "resource", Type: part.Int64},
		{Name: "scope", Type: part.Int64},
		{Name: "kind", Type: part.Int64}, // of the body
		{Name: "body", Type: part.Bytes}, // text as it is, every other kind in its binary form
		{Name: "attrs", Type: part.Bytes},
		{Name: "severity", Type: part.Int64},
		{Name: "severity_text", Type: part.Bytes},
		{Name: "trace", Type: part.Fixed, Width: 16},
		{Name: "span", Type: part.Fixed, Width: 8},
		{Name: "flags", Type: part.Int64},
		{Name: "observed", Type: part.Int64}, // less time
		{Name: "event", Type: part.Bytes},
		{Name: "dropped", Type: part.Int64},
		{Name: "inferred", Type: part.Int64},
	}
}

// rowsPart is a part of the first layout, with one column of bodies and one of attributes.
type rowsPart struct {
	p         *part.Part
	streams   []telemetry.LabelSet
	resources []*telemetry.Resource
	scopes    []*telemetry.Scope
}

// isLegacy says whether a part has the first layout.
func isLegacy(p *part.Part) bool {
	return p.Table("segments").Blocks() == 0 && p.Table("rows").Blocks() > 0
}

// load reads the dictionaries.
func (p *rowsPart) load() error {
	if err := p.p.Table("rows").Check(legacyColumns()); err != nil {
		return err
	}
	names, err := part.ReadStrings(p.p, "streams")
	if err != nil {
		return err
	}
	streams := make([]telemetry.LabelSet, len(names))
	for i, n := range names {
		streams[i] = telemetry.LabelSet(n)
		if err := streams[i].Check(); err != nil {
			return p.p.Table("streams").Corrupt("value", 0, "stream %d: %v", i, err)
		}
	}
	if p.resources, err = part.ReadResources(p.p); err != nil {
		return err
	}
	if p.scopes, err = part.ReadScopes(p.p); err != nil {
		return err
	}
	p.streams = streams
	return nil
}

// Scan is Source.Scan; all masks of s concern the part.
func (p *rowsPart) Scan(ctx context.Context, q *Scan, emit func(Rows) error) error {
	allowed := streamsOf(q.Where, p.streams)
	if allowed != nil && !slices.Contains(allowed, true) {
		return nil
	}
	var rows map[int]bool // blocks that hold wanted traces
	if ids, ok := storage.TracesOf(q.Where); ok {
		rows = make(map[int]bool)
		t := p.p.Table("rows")
		err := part.LookupTraces(p.p, "traces", "row", ids, func(_ telemetry.TraceID, row int64) { rows[t.BlockOf(row)] = true })
		if err != nil || len(rows) == 0 {
			return err
		}
	}
	t := p.p.Table("rows")
	for b := range t.Blocks() {
		if rows != nil && !rows[b] || !p.worth(t, b, q, allowed) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		blk, kept, err := p.block(t, b, q)
		if err != nil {
			return err
		}
		if blk.Len() > 0 {
			if err := emit(Rows{LogBlock: blk, place: func(i int) int64 { return t.FirstRow(b) + int64(kept[i]) }}); err != nil {
				return err
			}
		}
	}
	return nil
}

// worth says whether block b can hold rows of q.
func (p *rowsPart) worth(t *part.Table, b int, q *Scan, allowed []bool) bool {
	if lo, hi, ok := t.Ints("time", b); ok && (hi < q.Start || lo > q.End) {
		return false
	}
	if lo, hi, ok := t.Ints("stream", b); ok && allowed != nil && lo >= 0 && hi < int64(len(allowed)) {
		return slices.Contains(allowed[lo:hi+1], true)
	}
	return true
}

// block reads block b in two steps: the columns that decide, then the wanted columns of the rows that stay.
func (p *rowsPart) block(t *part.Table, b int, q *Scan) (*storage.LogBlock, []int, error) {
	need := q.needs()
	rd := reader{RowReader: part.RowReader{Table: t, Block: b}, p: p}
	times := rd.Read("time").Ints
	if rd.Err != nil {
		return nil, nil, rd.Err
	}
	rows := make([]int, 0, len(times))
	for i, at := range times {
		if at >= q.Start && at <= q.End {
			rows = append(rows, i)
		}
	}
	if q.Where != nil || len(q.Masks) > 0 {
		test := rd.fill(rows, times, need)
		if rd.Err != nil {
			return nil, nil, rd.Err
		}
		kept := rows[:0]
		for i, row := range rows {
			if test.Match(i, q.Where) && !masked(test, i, q.Masks) {
				kept = append(kept, row)
			}
		}
		rows = kept
	}
	cols := q.Columns
	if cols&storage.LogLines != 0 {
		cols |= storage.LogBody
	}
	q.opened(1, len(times), 0)
	blk := rd.fill(rows, times, cols)
	return blk, rows, rd.Err
}

// reader reads rows of one block of p.
type reader struct {
	part.RowReader
	p *rowsPart
}

// fill reads the columns cols of the given rows.
func (r *reader) fill(rows []int, times []int64, cols storage.LogColumns) *storage.LogBlock {
	blk := &storage.LogBlock{Streams: r.p.streams, Resources: r.p.resources, Scopes: r.p.scopes, Time: part.Pick(rows, times, part.Same[int64])}
	if len(rows) == 0 || r.Err != nil {
		return &storage.LogBlock{}
	}
	if cols&storage.LogStream != 0 {
		blk.Stream = r.Indexes("stream", rows, len(r.p.streams))
	}
	if cols&storage.LogResource != 0 {
		blk.Resource = r.Indexes("resource", rows, len(r.p.resources))
	}
	if cols&storage.LogScope != 0 {
		blk.Scope = r.Indexes("scope", rows, len(r.p.scopes))
	}
	if cols&storage.LogBody != 0 {
		blk.Body = r.bodies(rows)
	}
	if cols&storage.LogAttrs != 0 {
		blk.Attrs = part.Decoded(&r.RowReader, "attrs", rows, (*telemetry.Decoder).Attrs)
	}
	if cols&storage.LogSeverity != 0 {
		blk.Severity = part.Pick(rows, r.Read("severity").Ints, func(n int64) uint8 { return uint8(n) })
		blk.SeverityText = part.Pick(rows, r.Read("severity_text").Strs, part.Same[string])
	}
	if cols&storage.LogTraceID != 0 {
		traces, spans := r.Read("trace").Fixed, r.Read("span").Fixed
		blk.Flags = part.Pick(rows, r.Read("flags").Ints, func(n int64) uint32 { return uint32(n) })
		if r.Err == nil {
			blk.TraceID, blk.SpanID = make([]telemetry.TraceID, len(rows)), make([]telemetry.SpanID, len(rows))
			for i, row := range rows {
				copy(blk.TraceID[i][:], traces[row*16:])
				copy(blk.SpanID[i][:], spans[row*8:])
			}
		}
	}
	if cols&storage.LogObserved != 0 {
		blk.Observed = part.Pick(rows, r.Read("observed").Ints, part.Same[int64])
		for i := range blk.Observed {
			blk.Observed[i] += blk.Time[i]
		}
		blk.EventName = part.Pick(rows, r.Read("event").Strs, part.Same[string])
		blk.Dropped = part.Pick(rows, r.Read("dropped").Ints, func(n int64) uint32 { return uint32(n) })
		blk.Inferred = part.Pick(rows, r.Read("inferred").Ints, func(n int64) bool { return n != 0 })
	}
	if r.Err != nil {
		return &storage.LogBlock{}
	}
	return blk
}

func (r *reader) bodies(rows []int) []telemetry.Value {
	kinds, texts := r.Read("kind").Ints, r.Read("body").Strs
	if r.Err != nil {
		return nil
	}
	out := make([]telemetry.Value, len(rows))
	for i, row := range rows {
		if telemetry.Kind(kinds[row]) == telemetry.KindString {
			out[i] = telemetry.String(texts[row])
			continue
		}
		d := telemetry.NewDecoder(texts[row])
		out[i] = d.Value()
		if d.Err() != nil && r.Err == nil {
			r.Err = r.Table.Corrupt("body", r.Block, "row %s: %v", strconv.Itoa(row), d.Err())
		}
	}
	return out
}

func masked(b *storage.LogBlock, i int, masks []Mask) bool {
	for m := range masks {
		k := &masks[m]
		if b.Time[i] >= k.Start && b.Time[i] <= k.End && b.Match(i, k.Where) {
			return true
		}
	}
	return false
}
