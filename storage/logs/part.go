package logs

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
)

func (s *streamRows) sort() {
	slices.SortStableFunc(s.rows, func(a, b headRow) int { return cmp.Compare(a.rec.Time, b.rec.Time) })
}

func sortInt32(ns []int32) { slices.Sort(ns) }

// Builder collects the log records of one part: of one tenant and one day.
type Builder struct {
	streams map[telemetry.LabelSet]*streamRows
	rows    int64
	bytes   int64
	lo, hi  int64
}

// NewBuilder returns an empty builder.
func NewBuilder() *Builder {
	return &Builder{streams: make(map[telemetry.LabelSet]*streamRows), lo: math.MaxInt64, hi: math.MinInt64}
}

// Add adds one record, which it keeps. Records of a stream with the same time stay in the order of Add.
func (b *Builder) Add(stream telemetry.LabelSet, res *telemetry.Resource, r *telemetry.LogRecord) {
	s := b.streams[stream]
	if s == nil {
		s = &streamRows{stream: stream}
		b.streams[stream] = s
	}
	s.rows = append(s.rows, headRow{res: res, rec: r})
	b.rows++
	b.bytes += int64(r.Size())
	b.lo, b.hi = min(b.lo, r.Time), max(b.hi, r.Time)
}

// AddPart adds everything of p that no mask covers.
func (b *Builder) AddPart(ctx context.Context, p *Part, masks []Mask) error {
	q := storage.LogQuery{Start: math.MinInt64, End: math.MaxInt64, Columns: storage.LogAll}
	return p.Scan(ctx, &q, masks, func(blk *storage.LogBlock) error {
		recs := make([]telemetry.LogRecord, blk.Len())
		for i := range recs {
			recs[i] = blk.Record(i)
			b.Add(blk.StreamOf(i), blk.ResourceOf(i), &recs[i])
		}
		return nil
	})
}

// Empty says whether there is nothing worth a part.
func (b *Builder) Empty() bool { return b.rows == 0 }

// Rows returns the number of records, their size in memory, and the smallest and largest time.
func (b *Builder) Rows() (rows, bytes, lo, hi int64) { return b.rows, b.bytes, b.lo, b.hi }

// rowColumns are the columns of table "rows", sorted by stream, time and arrival.
func rowColumns() []part.Column {
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

// Write writes the tables of docs/format/part.md, section logs. The builder is spent.
func (b *Builder) Write(w *part.Writer) error {
	streams := make([]*streamRows, 0, len(b.streams))
	for _, s := range b.streams {
		s.sort()
		streams = append(streams, s)
	}
	slices.SortFunc(streams, func(x, y *streamRows) int { return cmp.Compare(x.stream, y.stream) })
	names := make([]string, len(streams))
	for i, s := range streams {
		names[i] = string(s.stream)
	}
	if err := part.WriteStrings(w, "streams", names); err != nil {
		return err
	}
	w.Begin(part.Schema{Name: "rows", Columns: rowColumns()})
	var (
		resources part.Resources
		scopes    part.Scopes
		ids       []telemetry.TraceID
		numbers   []int64
		row       int64
		buf       []byte
	)
	blk := newRowBlock()
	for si, s := range streams {
		for i := range s.rows {
			r := s.rows[i].rec
			if !r.TraceID.IsZero() {
				ids = append(ids, r.TraceID)
				numbers = append(numbers, row)
			}
			row++
			buf = telemetry.AppendAttrs(buf[:0], r.Attrs)
			blk.add(int64(si), int64(resources.Add(s.rows[i].res)), int64(scopes.Add(r.Scope)), r, string(buf))
			if blk.full() {
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
	return part.WriteTraceIndex(w, "traces", ids, []string{"row"}, numbers)
}

// rowBlock is a block of table "rows" that is being filled.
type rowBlock struct {
	v    []part.Vector
	n    int
	size int
}

func newRowBlock() *rowBlock { return &rowBlock{v: make([]part.Vector, len(rowColumns()))} }

// rowBytes is about how many bytes of text a block holds: small enough that one line does not cost a megabyte.
const rowBytes = 512 << 10

func (b *rowBlock) full() bool { return b.n >= part.BlockRows || b.size >= rowBytes }

func (b *rowBlock) add(stream, res, scope int64, r *telemetry.LogRecord, attrs string) {
	body := r.Body.Str()
	if k := r.Body.Kind(); k != telemetry.KindString {
		body = string(telemetry.AppendValue(nil, r.Body))
	}
	inferred := int64(0)
	if r.TimeInferred {
		inferred = 1
	}
	v := b.v
	v[0].Ints = append(v[0].Ints, stream)
	v[1].Ints = append(v[1].Ints, r.Time)
	v[2].Ints = append(v[2].Ints, res)
	v[3].Ints = append(v[3].Ints, scope)
	v[4].Ints = append(v[4].Ints, int64(r.Body.Kind()))
	v[5].Strs = append(v[5].Strs, body)
	v[6].Strs = append(v[6].Strs, attrs)
	v[7].Ints = append(v[7].Ints, int64(r.Severity))
	v[8].Strs = append(v[8].Strs, r.SeverityText)
	v[9].Fixed = append(v[9].Fixed, r.TraceID[:]...)
	v[10].Fixed = append(v[10].Fixed, r.SpanID[:]...)
	v[11].Ints = append(v[11].Ints, int64(r.Flags))
	v[12].Ints = append(v[12].Ints, r.Observed-r.Time)
	v[13].Strs = append(v[13].Strs, r.EventName)
	v[14].Ints = append(v[14].Ints, int64(r.Dropped))
	v[15].Ints = append(v[15].Ints, inferred)
	b.n++
	b.size += len(body) + len(attrs) + 64
}

func (b *rowBlock) flush(w *part.Writer) error {
	err := w.Block(b.n, b.v...)
	for i := range b.v {
		b.v[i] = part.Vector{Ints: b.v[i].Ints[:0], Strs: b.v[i].Strs[:0], Fixed: b.v[i].Fixed[:0]}
	}
	b.n, b.size = 0, 0
	return err
}

// Part is a part of logs, open for reading.
type Part struct {
	p      *part.Part
	to     storage.Position
	lo, hi int64

	mu        sync.Mutex // guards the dictionaries while they are loaded
	loaded    atomic.Bool
	streams   []telemetry.LabelSet
	resources []*telemetry.Resource
	scopes    []*telemetry.Scope
}

var _ Source = (*Part)(nil)

// OpenPart returns the logs of p, whose records all came before to and have times from lo to hi.
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
	if err := p.p.Table("rows").Check(rowColumns()); err != nil {
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
	p.loaded.Store(true)
	return nil
}

// streamsOf narrows the streams by what p demands of all rows; nil means all.
func streamsOf(p storage.Predicate, streams []telemetry.LabelSet) []bool {
	switch p := p.(type) {
	case storage.StreamMatch:
		ok := make([]bool, len(streams))
		for i, s := range streams {
			ok[i] = storage.MatchLabels(s, p)
		}
		return ok
	case storage.And:
		var all []bool
		for _, q := range p {
			ok := streamsOf(q, streams)
			if all == nil {
				all = ok
				continue
			}
			for i := range ok {
				all[i] = all[i] && ok[i]
			}
		}
		return all
	default:
		return nil
	}
}

// Scan implements Source.
func (p *Part) Scan(ctx context.Context, q *storage.LogQuery, masks []Mask, emit func(*storage.LogBlock) error) error {
	masks = p.pending(masks)
	if err := p.load(); err != nil {
		return err
	}
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
		blk, err := p.block(t, b, q, masks)
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

// pending returns the masks that the part was not rewritten for.
func (p *Part) pending(masks []Mask) []Mask {
	var some []Mask
	for _, m := range masks {
		if p.to <= m.Position && m.Start <= p.hi && m.End >= p.lo {
			some = append(some, m)
		}
	}
	return some
}

// worth says whether block b can hold rows of q.
func (p *Part) worth(t *part.Table, b int, q *storage.LogQuery, allowed []bool) bool {
	if lo, hi, ok := t.Ints("time", b); ok && (hi < q.Start || lo > q.End) {
		return false
	}
	if lo, hi, ok := t.Ints("stream", b); ok && allowed != nil && lo >= 0 && hi < int64(len(allowed)) {
		return slices.Contains(allowed[lo:hi+1], true)
	}
	return true
}

// block reads block b in two steps: the columns that decide, then the wanted columns of the rows that stay.
func (p *Part) block(t *part.Table, b int, q *storage.LogQuery, masks []Mask) (*storage.LogBlock, error) {
	need := storage.NeedsOfLogs(q.Where)
	for i := range masks {
		need |= storage.NeedsOfLogs(masks[i].Where)
	}
	rd := reader{RowReader: part.RowReader{Table: t, Block: b}, p: p}
	times := rd.Read("time").Ints
	if rd.Err != nil {
		return nil, rd.Err
	}
	rows := make([]int, 0, len(times))
	for i, at := range times {
		if at >= q.Start && at <= q.End {
			rows = append(rows, i)
		}
	}
	if q.Where != nil || len(masks) > 0 {
		test := rd.fill(rows, times, need)
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
	blk := rd.fill(rows, times, q.Columns)
	return blk, rd.Err
}

// reader reads rows of one block of p.
type reader struct {
	part.RowReader
	p *Part
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

// Streams implements Source.
func (p *Part) Streams(q *storage.LogQuery, masks []Mask, f func(telemetry.LabelSet)) error {
	if err := p.load(); err != nil {
		return err
	}
	if len(p.pending(masks)) > 0 || q.Start > p.lo || q.End < p.hi {
		sq := *q
		sq.Columns = storage.LogStream
		seen := make([]bool, len(p.streams))
		return p.Scan(context.Background(), &sq, masks, func(b *storage.LogBlock) error {
			for _, i := range b.Stream {
				if !seen[i] {
					seen[i] = true
					f(b.Streams[i])
				}
			}
			return nil
		})
	}
	for _, s := range p.streams {
		f(s)
	}
	return nil
}
