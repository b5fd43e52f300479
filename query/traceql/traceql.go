// Package traceql answers TraceQL: it finds traces, computes series of numbers from spans, and tells which attributes spans
// have.
//
//	q, err := traceql.Parse(`{ resource.service.name = "shop" } >> { status = error } | select(name)`)
//	eng := traceql.Engine{Limits: traceql.DefaultLimits()}
//	res, err := eng.Search(ctx, view, traceql.SearchQuery{Tenant: t, Query: q, Start: start, End: end, Limit: 20, Spans: 3})
//
// Package syntax has the language, package rows evaluates conditions on columns. This package decides what the store can do
// of a query (which rows a trace must have, which columns are read, whether whole traces are needed), runs pipelines over the
// traces of a block at once, and makes results of what is left.
package traceql

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"iter"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/rows"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

type (
	// Query is a parsed query; its method Metric says whether it is for numbers.
	Query = syntax.Query
	// Error is a mistake in a query.
	Error = syntax.Error
	// Field is an attribute or an intrinsic, such as resource.service.name or span:kind.
	Field = syntax.Field
	// Filter is a set of spans in braces.
	Filter = syntax.Filter
	// Value is what a field is worth.
	Value = rows.Value
)

// Parse reads and checks a query. Errors are of the type *Error.
func Parse(s string) (*Query, error) {
	q, err := syntax.Parse(s)
	if err != nil {
		return nil, err
	}
	return q, syntax.Check(q)
}

// ParseField reads a field, as in the path of the values of a tag. Errors are of the type *Error.
func ParseField(s string) (Field, error) { return syntax.ParseField(s) }

// ParseFilter reads a filter that may be half typed, as editors send it: conditions that are not complete are left out. Nil
// means that there is nothing to filter by.
func ParseFilter(s string) *Filter { return syntax.Salvage(s) }

// Limits bound what a query costs. A query that is over one of them ends with an error that names it.
type Limits struct {
	// Bytes is how many bytes of parts a query may read; 0 for any.
	Bytes int64
	// Spans is how many spans a query may look at; 0 for any.
	Spans int64
	// Series is how many series the result of a query may have; those of compare are not counted.
	Series int
	// Points is how many steps a range query may have.
	Points int
}

// DefaultLimits allows 1,000 series, 11,000 steps, and any number of bytes and spans.
func DefaultLimits() Limits { return Limits{Series: 1000, Points: 11_000} }

const (
	// maxGroups bounds the series in the middle of a computation.
	maxGroups = 200_000
	// maxCells bounds series times steps in the middle of a computation.
	maxCells = 8_000_000
	// maxValues bounds the values of one tag.
	maxValues = 100_000
	// maxCompared bounds the distinct values of one attribute that compare counts.
	maxCompared = 20_000
)

// Engine answers queries. It has no state: a value may be copied and used concurrently.
type Engine struct {
	Limits Limits
}

// Stats is what a query cost.
type Stats struct {
	Traces int64 // looked at, in blocks that were not ruled out
	Spans  int64 // looked at
	Bytes  int64 // of parts, decoded
	Blocks int64 // opened
}

// Attr is a name and a value, of a span, a set of spans or a series.
type Attr struct {
	Key   string
	Value Value
}

// SearchQuery is a query for traces.
type SearchQuery struct {
	Tenant telemetry.Tenant
	Query  *Query
	// Start and End, in nanoseconds: traces are found that are under way at some time between them.
	Start, End int64
	Limit      int // traces to return
	Spans      int // spans to show of each set, the first ones by start
	// After, when not nil, is SearchResult.Next of the page before.
	After *Cursor
}

// SearchResult is the traces that were found.
type SearchResult struct {
	// Traces are those that start last, by start and then by ID; the most recent is the first.
	Traces []Trace
	// Next is nil when these are all, else where the next page begins.
	Next  *Cursor
	Stats Stats
}

// Cursor is a place in the order of SearchResult.Traces.
type Cursor struct {
	Start int64
	Trace telemetry.TraceID
}

// String returns the cursor in a form that fits into URLs.
func (c Cursor) String() string {
	b := binary.BigEndian.AppendUint64(nil, uint64(c.Start))
	return base64.RawURLEncoding.EncodeToString(append(b, c.Trace[:]...))
}

// ParseCursor is the reverse of String.
func ParseCursor(s string) (*Cursor, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != 24 {
		return nil, httpapi.BadDataf("invalid cursor %q: want what the answer before said", s)
	}
	return &Cursor{int64(binary.BigEndian.Uint64(b)), telemetry.TraceID(b[8:])}, nil
}

// NoRoot is the RootService of a trace whose root has not come.
const NoRoot = "<root span not yet received>"

// Trace is a trace that was found.
type Trace struct {
	ID                    telemetry.TraceID
	RootService, RootName string // of the first root
	Start, Duration       int64  // nanoseconds, from the first start to the last end
	Sets                  []SpanSet
	Services              []ServiceStats // of the whole trace, by name
}

// ServiceStats counts the spans of a trace that come from one service.
type ServiceStats struct {
	Service       string
	Spans, Errors int
}

// SpanSet is spans of a trace that a query found.
type SpanSet struct {
	Spans   []Span // the first of them by start
	Matched int    // how many there are
	Attrs   []Attr // what by() grouped by, and what aggregates came to: "by(name)", "avg(duration)"
}

// Span is a span that was found.
type Span struct {
	ID              telemetry.SpanID
	Name            string
	Start, Duration int64
	// Attrs are the fields that the query names, by the name of the attribute without scope; those without a value are left
	// out.
	Attrs []Attr
}

// MetricsQuery is a query for numbers.
type MetricsQuery struct {
	Tenant     telemetry.Tenant
	Query      *Query
	Start, End int64 // nanoseconds
	// Step is the distance of points, in nanoseconds. 0 asks for one point at End that is about all spans behind Start. Else
	// points are at multiples of Step, from the last one at or before Start to the first one at or after End, and each is about
	// the spans that start behind the point before it, up to the point.
	Step int64
	// Exemplars is how many exemplars to return at most; the query's hint may lower it.
	Exemplars int
}

// MetricsResult is series, sorted by their labels.
type MetricsResult struct {
	Series []Series
	Stats  Stats
}

// Series is points with labels.
type Series struct {
	Labels    []Attr // in the order of the query
	Points    []Point
	Exemplars []Exemplar
}

// Point is a number at a time.
type Point struct {
	Time  int64 // nanoseconds
	Value float64
}

// Exemplar is a span that a point is made of.
type Exemplar struct {
	Time  int64 // when the span starts
	Value float64
	Trace telemetry.TraceID
}

// meter reads traces, no more of them than a query may read altogether.
type meter struct {
	view   storage.View
	before storage.ReadStats
	limits Limits
	stats  Stats
}

func newMeter(v storage.View, l Limits) *meter {
	return &meter{view: v, before: v.ReadStats(), limits: l}
}

// cost returns what was read so far.
func (m *meter) cost() Stats {
	now := m.view.ReadStats()
	s := m.stats
	s.Bytes, s.Blocks = now.Bytes-m.before.Bytes, max(s.Blocks, now.Blocks-m.before.Blocks)
	return s
}

func (m *meter) traces(ctx context.Context, q storage.TraceQuery) iter.Seq2[*rows.Block, error] {
	return func(yield func(*rows.Block, error) bool) {
		if m.limits.Bytes > 0 {
			q.MaxBytes = m.limits.Bytes - (m.view.ReadStats().Bytes - m.before.Bytes)
			if q.MaxBytes <= 0 {
				yield(nil, m.overBytes())
				return
			}
		}
		for tb, err := range m.view.Traces(ctx, q) {
			if errors.Is(err, storage.ErrReadLimit) {
				err = m.overBytes()
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(nil, err)
				return
			}
			b, err := rows.NewBlock(tb)
			if err == nil {
				err = m.count(b)
			}
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
}

func (m *meter) count(b *rows.Block) error {
	m.stats.Traces += int64(b.TraceCount())
	m.stats.Spans += int64(b.Len())
	m.stats.Blocks++
	if m.limits.Spans > 0 && m.stats.Spans > m.limits.Spans {
		return limitf("the query looks at more than %d spans, which is the limit: narrow its time range, or ask for an attribute that few spans have", m.limits.Spans)
	}
	return nil
}

func (m *meter) overBytes() error {
	return limitf("the query reads more than %d bytes of parts, which is the limit: narrow its time range, or ask for an attribute that few spans have", m.limits.Bytes)
}

// limitf returns an error of a query that is over a limit.
func limitf(format string, args ...any) error {
	return httpapi.Errorf(httpapi.QueryLimit, format, args...)
}
