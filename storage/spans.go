package storage

import (
	"context"
	"math"

	"github.com/braidobs/braid/internal/telemetry"
)

// SpanKey names something that spans have values of: a field, or an attribute by scope and name.
type SpanKey struct {
	Scope AttrScope // FieldScope, RecordScope (the span's own), ResourceScope, InstrumentationScope, EventScope or LinkScope
	Field SpanField // with FieldScope
	Name  string    // of the attribute, else ""
}

// Field returns the key of a field.
func Field(f SpanField) SpanKey { return SpanKey{Scope: FieldScope, Field: f} }

// ValueMatch matches span rows with a value of Key that Accept takes: one of several is enough, and a row without any
// does not match. Values are compared as they were sent: the text "1" is not the number 1.
type ValueMatch struct {
	Key SpanKey
	// Accept must be safe for concurrent use.
	Accept func(telemetry.Value) bool
	// Equal, when not nil, is all the values that Accept takes, so that an index can find them; besides them, it may take
	// arrays that have one of them as an element.
	Equal []telemetry.Value
}

func (ValueMatch) predicate() {}

// TraceQuery selects traces.
type TraceQuery struct {
	Tenant telemetry.Tenant
	// Start and End, in nanoseconds: traces that end before Start or start after End are not wanted, but may come where
	// they share a block with others; see TraceBlock.Bounds.
	Start, End int64
	// Need rules traces out: one without a matching row for each of these may be left out, or may not.
	Need []Predicate
	// Keys are those whose columns the caller will read, if it reads the block at all.
	Keys []SpanKey
	// Order is Unordered or NewestFirst; see TraceBlock.Rest.
	Order Order
	// Fragments allows that spans of a trace come as if they were of different traces, and asks Need of each span: one that does
	// not match all of it may be left out, and be the lost parent of others. Cheaper for those who look at spans one by one.
	Fragments bool
	// MaxBytes ends the read with ErrReadLimit when it has read more bytes of parts; 0 for any number.
	MaxBytes int64
}

// TraceBlock is whole traces as columns: rows are spans, those of a trace lie together in the order of Settler.Settle. Each
// trace is in one block only. Columns are decoded when they are asked for. What a block returns must not be changed and is
// valid until the next block is yielded. It is for one goroutine at a time.
//
// A trace is whole as far as its spans start on the days from the one before that of TraceQuery.Start to the one after that
// of TraceQuery.End, in UTC.
type TraceBlock interface {
	// First returns the first row of each trace, and at last the number of rows.
	First() ([]int32, error)
	// Len returns the number of rows.
	Len() int
	// Bounds returns times between which all rows start and end. They may be wider than need be.
	Bounds() (lo, hi int64)
	// Rest returns a time after which no trace of the blocks to come starts, if NewestFirst was asked for.
	Rest() int64
	// Traces returns the ID of each trace.
	Traces() ([]telemetry.TraceID, error)
	// Starts returns the start of each row, in nanoseconds.
	Starts() ([]int64, error)
	// Durations returns the end of each row less its start: below zero where a sender said so.
	Durations() ([]int64, error)
	// Parents returns the row of each row's parent, always a smaller one, or NoParent or LostParent.
	Parents() ([]int32, error)
	// Column returns the values of a key.
	Column(key SpanKey) (*SpanColumn, error)
	// Spans returns rows as they were sent, in the order given.
	Spans(rows []int, cols SpanColumns) (*SpanBlock, error)
}

// What TraceBlock.Parents says of rows without a parent in the block.
const (
	// NoParent is a root: a span that was sent without a parent.
	NoParent = -1
	// LostParent is the root of a fragment: its parent is not stored, or its ancestors are a circle that is cut here, at
	// the span that starts first.
	LostParent = -2
)

// TraceDay is a day of traces of one tenant.
type TraceDay struct {
	Tenant telemetry.Tenant
	Day    int64 // since 1970, in UTC
}

// TraceSampler thins out what is kept of traces.
type TraceSampler interface {
	// TraceDays returns the days that have traces in parts, sorted.
	TraceDays() []TraceDay
	// SampleTraces writes parts of a day anew, those that hold nothing that a View at the position upTo does not show: without
	// the traces for which keep returns 0. A probability below 1 is noted in the trace state of each span of the trace (see
	// telemetry.WithProbability). All of these parts are replaced at once, or none. Deletes are applied on the way. Keep is
	// called from one goroutine, several times for a trace.
	SampleTraces(ctx context.Context, day TraceDay, upTo Position, keep func(telemetry.TraceID) float64) error
}

// SpanColumn is the values of one key in the rows of a block.
type SpanColumn struct {
	// Rows are the rows of the values, ascending; a row with several values (of events and links) comes several times. Nil
	// means that each row has just one.
	Rows []int32
	// Ints, when not nil, are the values: all are integers.
	Ints []int64
	// Dict has the distinct values, and Code the index of each value, when Ints is nil. Dict may hold values that no row has,
	// and is the same slice for blocks that share it.
	Dict []telemetry.Value
	Code []uint32
}

// Len returns the number of values.
func (c *SpanColumn) Len() int { return max(len(c.Ints), len(c.Code)) }

// Value returns value i, which belongs to row Rows[i].
func (c *SpanColumn) Value(i int) telemetry.Value {
	if c.Ints != nil {
		return telemetry.Int(c.Ints[i])
	}
	return c.Dict[c.Code[i]]
}

// Reader returns what reads the column row by row.
func (c *SpanColumn) Reader() ColumnReader { return ColumnReader{c: c} }

// ColumnReader reads a column row by row, in rising order.
type ColumnReader struct {
	c *SpanColumn
	i int
}

// At returns the first value of a row, empty when it has none.
func (r *ColumnReader) At(row int32) telemetry.Value {
	if r.c.Rows == nil {
		return r.c.Value(int(row))
	}
	for r.i < len(r.c.Rows) && r.c.Rows[r.i] < row {
		r.i++
	}
	if r.i < len(r.c.Rows) && r.c.Rows[r.i] == row {
		return r.c.Value(r.i)
	}
	return telemetry.Value{}
}

// Each calls f with each value of key that a span has, in the order in which they were sent.
func (k SpanKey) Each(res *telemetry.Resource, s *telemetry.Span, f func(telemetry.Value)) {
	switch k.Scope {
	case FieldScope:
		k.eachField(s, f)
	case RecordScope:
		k.attr(s.Attrs, f)
	case ResourceScope:
		if res != nil {
			k.attr(res.Attrs, f)
		}
	case InstrumentationScope:
		if s.Scope != nil {
			k.attr(s.Scope.Attrs, f)
		}
	case EventScope:
		for i := range s.Events {
			k.attr(s.Events[i].Attrs, f)
		}
	case LinkScope:
		for i := range s.Links {
			k.attr(s.Links[i].Attrs, f)
		}
	case AnyScope:
		for _, scope := range []AttrScope{RecordScope, InstrumentationScope, ResourceScope} {
			found := false
			SpanKey{Scope: scope, Name: k.Name}.Each(res, s, func(v telemetry.Value) { found = true; f(v) })
			if found {
				return
			}
		}
	}
}

func (k SpanKey) attr(as telemetry.Attrs, f func(telemetry.Value)) {
	if v, ok := as.Get(k.Name); ok {
		f(v)
	}
}

func (k SpanKey) eachField(s *telemetry.Span, f func(telemetry.Value)) {
	switch k.Field {
	case SpanName:
		f(telemetry.String(s.Name))
	case SpanKindField:
		f(telemetry.Int(int64(s.Kind)))
	case SpanStatus:
		f(telemetry.Int(int64(s.Status)))
	case SpanStatusMessage:
		f(telemetry.String(s.StatusMessage))
	case SpanParent:
		if !s.ParentID.IsZero() {
			f(telemetry.String(s.ParentID.String()))
		}
	case SpanIDField:
		f(telemetry.String(s.SpanID.String()))
	case SpanState:
		f(telemetry.String(s.State))
	case ScopeName:
		if s.Scope != nil {
			f(telemetry.String(s.Scope.Name))
		}
	case ScopeVersion:
		if s.Scope != nil {
			f(telemetry.String(s.Scope.Version))
		}
	case EventName:
		for i := range s.Events {
			f(telemetry.String(s.Events[i].Name))
		}
	case EventTime:
		for i := range s.Events {
			f(telemetry.Int(s.Events[i].Time - s.Start))
		}
	case LinkTrace:
		for i := range s.Links {
			f(telemetry.String(s.Links[i].TraceID.String()))
		}
	case LinkSpan:
		for i := range s.Links {
			f(telemetry.String(s.Links[i].SpanID.String()))
		}
	}
}

// needs returns the columns of a SpanBlock that hold the values of k.
func (k SpanKey) needs() SpanColumns {
	switch k.Scope {
	case RecordScope:
		return SpanAttrs
	case ResourceScope:
		return SpanResource
	case InstrumentationScope:
		return SpanScope
	case EventScope:
		return SpanEvents
	case LinkScope:
		return SpanLinks
	case AnyScope:
		return SpanAttrs | SpanScope | SpanResource
	case FieldScope:
		return k.Field.needs()
	default:
		return 0
	}
}

func (f SpanField) needs() SpanColumns {
	switch f {
	case SpanName:
		return SpanNames
	case SpanStatusMessage, SpanState:
		return SpanMessages
	case ScopeName, ScopeVersion:
		return SpanScope
	case EventName, EventTime:
		return SpanEvents
	case LinkTrace, LinkSpan:
		return SpanLinks
	default:
		return 0
	}
}

// match says whether row i of the block has a value that p takes.
func (p ValueMatch) match(b *SpanBlock, i int) bool {
	s := b.Span(i)
	ok := false
	p.Key.Each(b.ResourceOf(i), &s, func(v telemetry.Value) { ok = ok || p.Accept(v) })
	return ok
}

// SpanRow is a span with what it was wrapped in.
type SpanRow struct {
	Resource *telemetry.Resource
	Span     *telemetry.Span
}

// TraceRows is a TraceBlock of spans in memory.
type TraceRows struct {
	rows    []SpanRow
	parents []int32
	first   []int32
	ids     []telemetry.TraceID
	lo, hi  int64
	rest    int64
	settler Settler
	starts  []int64
	lengths []int64
	columns map[SpanKey]*SpanColumn
}

var _ TraceBlock = (*TraceRows)(nil)

// NewTraceRows returns an empty block that returns rest as Rest.
func NewTraceRows(rest int64) *TraceRows {
	return &TraceRows{first: []int32{0}, lo: math.MaxInt64, hi: math.MinInt64, rest: rest}
}

// Add adds a trace: all of its spans, in the order of arrival. It keeps the spans but not the slice, which it sorts. It must
// not be called once the block was yielded.
func (b *TraceRows) Add(rows []SpanRow) {
	if len(rows) == 0 {
		return
	}
	base := int32(len(b.rows))
	for _, p := range b.settler.Settle(rows) {
		if p >= 0 {
			p += base
		}
		b.parents = append(b.parents, p)
	}
	for _, r := range rows {
		b.lo, b.hi = min(b.lo, r.Span.Start), max(b.hi, r.Span.Start, r.Span.End)
	}
	b.rows = append(b.rows, rows...)
	b.first = append(b.first, int32(len(b.rows)))
	b.ids = append(b.ids, rows[0].Span.TraceID)
}

// Len implements TraceBlock.
func (b *TraceRows) Len() int { return len(b.rows) }

// First implements TraceBlock.
func (b *TraceRows) First() ([]int32, error) { return b.first, nil }

// Bounds implements TraceBlock.
func (b *TraceRows) Bounds() (lo, hi int64) { return b.lo, b.hi }

// Rest implements TraceBlock.
func (b *TraceRows) Rest() int64 { return b.rest }

// Traces implements TraceBlock.
func (b *TraceRows) Traces() ([]telemetry.TraceID, error) { return b.ids, nil }

// Parents implements TraceBlock.
func (b *TraceRows) Parents() ([]int32, error) { return b.parents, nil }

// Starts implements TraceBlock.
func (b *TraceRows) Starts() ([]int64, error) {
	if b.starts == nil {
		b.starts = make([]int64, len(b.rows))
		for i := range b.rows {
			b.starts[i] = b.rows[i].Span.Start
		}
	}
	return b.starts, nil
}

// Durations implements TraceBlock.
func (b *TraceRows) Durations() ([]int64, error) {
	if b.lengths == nil {
		b.lengths = make([]int64, len(b.rows))
		for i := range b.rows {
			b.lengths[i] = b.rows[i].Span.End - b.rows[i].Span.Start
		}
	}
	return b.lengths, nil
}

// Column implements TraceBlock.
func (b *TraceRows) Column(key SpanKey) (*SpanColumn, error) {
	if c := b.columns[key]; c != nil {
		return c, nil
	}
	c := &SpanColumn{}
	codes := make(map[telemetry.Value]uint32)
	one := true // each row has one value
	for i, r := range b.rows {
		n := len(c.Code)
		key.Each(r.Resource, r.Span, func(v telemetry.Value) {
			code, ok := codes[v]
			if !ok {
				code = uint32(len(c.Dict))
				codes[v] = code
				c.Dict = append(c.Dict, v)
			}
			c.Code = append(c.Code, code)
			c.Rows = append(c.Rows, int32(i))
		})
		one = one && len(c.Code) == n+1
	}
	if one {
		c.Rows = nil
	} else if c.Rows == nil {
		c.Rows = []int32{}
	}
	if b.columns == nil {
		b.columns = make(map[SpanKey]*SpanColumn)
	}
	b.columns[key] = c
	return c, nil
}

// Spans implements TraceBlock.
func (b *TraceRows) Spans(rows []int, cols SpanColumns) (*SpanBlock, error) {
	out := &SpanBlock{}
	for _, i := range rows {
		out.Append(b.rows[i].Resource, b.rows[i].Span, cols)
	}
	return out, nil
}
