package storage

import (
	"github.com/braidobs/braid/internal/telemetry"
)

// LogColumns is a set of columns of a LogBlock.
type LogColumns uint32

// The columns of logs that can be left out.
const (
	LogStream LogColumns = 1 << iota
	LogResource
	LogScope
	LogBody
	LogAttrs
	LogSeverity            // number and text
	LogTraceID             // trace ID, span ID and flags
	LogObserved            // observed time, event name, dropped count and whether the time was inferred
	LogAll      LogColumns = 1<<iota - 1
)

// LogBlock is rows of logs as columns. Columns that were not asked for are nil. Stream, Resource and Scope are
// indexes into the dictionaries of the block; the first Resource and Scope of a dictionary may be nil.
type LogBlock struct {
	Streams   []telemetry.LabelSet
	Resources []*telemetry.Resource
	Scopes    []*telemetry.Scope

	Time         []int64
	Stream       []uint32
	Resource     []uint32
	Scope        []uint32
	Body         []telemetry.Value
	Lines        *Lines // see LogLines
	Attrs        []telemetry.Attrs
	Severity     []uint8
	SeverityText []string
	TraceID      []telemetry.TraceID
	SpanID       []telemetry.SpanID
	Flags        []uint32
	Observed     []int64
	EventName    []string
	Dropped      []uint32
	Inferred     []bool
}

// Len returns the number of rows.
func (b *LogBlock) Len() int { return len(b.Time) }

// StreamOf returns the stream of row i.
func (b *LogBlock) StreamOf(i int) telemetry.LabelSet { return b.Streams[b.Stream[i]] }

// StreamIf is StreamOf, and "" when the column was not asked for.
func (b *LogBlock) StreamIf(i int) telemetry.LabelSet {
	if b.Stream == nil {
		return ""
	}
	return b.Streams[b.Stream[i]]
}

// ResourceOf returns the resource of row i, nil when it has none or the column was not asked for.
func (b *LogBlock) ResourceOf(i int) *telemetry.Resource {
	if b.Resource == nil {
		return nil
	}
	return b.Resources[b.Resource[i]]
}

// ScopeOf returns the scope of row i, nil when it has none or the column was not asked for.
func (b *LogBlock) ScopeOf(i int) *telemetry.Scope {
	if b.Scope == nil {
		return nil
	}
	return b.Scopes[b.Scope[i]]
}

func (b *LogBlock) attrsIf(i int, s AttrScope) telemetry.Attrs {
	if s == AnyScope || s == RecordScope {
		return b.Attrs[i]
	}
	return nil
}

func (b *LogBlock) scopeIf(i int, s AttrScope) telemetry.Attrs {
	if sc := b.ScopeOf(i); sc != nil && (s == AnyScope || s == InstrumentationScope) {
		return sc.Attrs
	}
	return nil
}

func (b *LogBlock) resourceIf(i int, s AttrScope) telemetry.Attrs {
	if r := b.ResourceOf(i); r != nil && (s == AnyScope || s == ResourceScope) {
		return r.Attrs
	}
	return nil
}

// Append adds a row with the columns cols. Equal neighbours share dictionary entries.
func (b *LogBlock) Append(stream telemetry.LabelSet, res *telemetry.Resource, r *telemetry.LogRecord, cols LogColumns) {
	b.Time = append(b.Time, r.Time)
	if cols&LogStream != 0 {
		if n := len(b.Streams); n == 0 || b.Streams[n-1] != stream {
			b.Streams = append(b.Streams, stream)
		}
		b.Stream = append(b.Stream, uint32(len(b.Streams)-1))
	}
	if cols&LogResource != 0 {
		b.Resources, b.Resource = intern(b.Resources, b.Resource, res)
	}
	if cols&LogScope != 0 {
		b.Scopes, b.Scope = intern(b.Scopes, b.Scope, r.Scope)
	}
	if cols&LogBody != 0 {
		b.Body = append(b.Body, r.Body)
	}
	if cols&LogAttrs != 0 {
		b.Attrs = append(b.Attrs, r.Attrs)
	}
	if cols&LogSeverity != 0 {
		b.Severity = append(b.Severity, r.Severity)
		b.SeverityText = append(b.SeverityText, r.SeverityText)
	}
	if cols&LogTraceID != 0 {
		b.TraceID = append(b.TraceID, r.TraceID)
		b.SpanID = append(b.SpanID, r.SpanID)
		b.Flags = append(b.Flags, r.Flags)
	}
	if cols&LogObserved != 0 {
		b.Observed = append(b.Observed, r.Observed)
		b.EventName = append(b.EventName, r.EventName)
		b.Dropped = append(b.Dropped, r.Dropped)
		b.Inferred = append(b.Inferred, r.TimeInferred)
	}
}

func intern[T comparable](dict []T, column []uint32, v T) ([]T, []uint32) {
	if n := len(dict); n == 0 || dict[n-1] != v {
		dict = append(dict, v)
	}
	return dict, append(column, uint32(len(dict)-1))
}

// Record returns row i; columns that were not asked for are zero.
func (b *LogBlock) Record(i int) telemetry.LogRecord {
	r := telemetry.LogRecord{Time: b.Time[i], Scope: b.ScopeOf(i)}
	if b.Body != nil {
		r.Body = b.Body[i]
	}
	if b.Attrs != nil {
		r.Attrs = b.Attrs[i]
	}
	if b.Severity != nil {
		r.Severity, r.SeverityText = b.Severity[i], b.SeverityText[i]
	}
	if b.TraceID != nil {
		r.TraceID, r.SpanID, r.Flags = b.TraceID[i], b.SpanID[i], b.Flags[i]
	}
	if b.Observed != nil {
		r.Observed, r.EventName, r.Dropped, r.TimeInferred = b.Observed[i], b.EventName[i], b.Dropped[i], b.Inferred[i]
	}
	return r
}

// SpanColumns is a set of columns of a SpanBlock.
type SpanColumns uint32

// The columns of spans that can be left out.
const (
	SpanResource SpanColumns = 1 << iota
	SpanScope
	SpanNames
	SpanAttrs
	SpanEvents
	SpanLinks
	SpanMessages             // status message, trace state, flags and dropped counts
	SpanAll      SpanColumns = 1<<iota - 1
)

// SpanBlock is rows of spans as columns; see LogBlock.
type SpanBlock struct {
	Resources []*telemetry.Resource
	Scopes    []*telemetry.Scope

	TraceID  []telemetry.TraceID
	SpanID   []telemetry.SpanID
	ParentID []telemetry.SpanID
	Start    []int64
	Duration []int64
	Kind     []telemetry.SpanKind
	Status   []telemetry.StatusCode

	Resource      []uint32
	Scope         []uint32
	Name          []string
	Attrs         []telemetry.Attrs
	Events        [][]telemetry.Event
	Links         [][]telemetry.Link
	StatusMessage []string
	State         []string
	Flags         []uint32
	Dropped       [][3]uint32 // attributes, events, links
}

// Len returns the number of rows.
func (b *SpanBlock) Len() int { return len(b.Start) }

// ResourceOf returns the resource of row i, nil when it has none or the column was not asked for.
func (b *SpanBlock) ResourceOf(i int) *telemetry.Resource {
	if b.Resource == nil {
		return nil
	}
	return b.Resources[b.Resource[i]]
}

// ScopeOf returns the scope of row i, nil when it has none or the column was not asked for.
func (b *SpanBlock) ScopeOf(i int) *telemetry.Scope {
	if b.Scope == nil {
		return nil
	}
	return b.Scopes[b.Scope[i]]
}

func (b *SpanBlock) attrsIf(i int, s AttrScope) telemetry.Attrs {
	if s == AnyScope || s == RecordScope {
		return b.Attrs[i]
	}
	return nil
}

func (b *SpanBlock) scopeIf(i int, s AttrScope) telemetry.Attrs {
	if sc := b.ScopeOf(i); sc != nil && (s == AnyScope || s == InstrumentationScope) {
		return sc.Attrs
	}
	return nil
}

func (b *SpanBlock) resourceIf(i int, s AttrScope) telemetry.Attrs {
	if r := b.ResourceOf(i); r != nil && (s == AnyScope || s == ResourceScope) {
		return r.Attrs
	}
	return nil
}

// Append adds a row with the columns cols. Equal neighbours share dictionary entries.
func (b *SpanBlock) Append(res *telemetry.Resource, s *telemetry.Span, cols SpanColumns) {
	b.TraceID = append(b.TraceID, s.TraceID)
	b.SpanID = append(b.SpanID, s.SpanID)
	b.ParentID = append(b.ParentID, s.ParentID)
	b.Start = append(b.Start, s.Start)
	b.Duration = append(b.Duration, s.End-s.Start)
	b.Kind = append(b.Kind, s.Kind)
	b.Status = append(b.Status, s.Status)
	if cols&SpanResource != 0 {
		b.Resources, b.Resource = intern(b.Resources, b.Resource, res)
	}
	if cols&SpanScope != 0 {
		b.Scopes, b.Scope = intern(b.Scopes, b.Scope, s.Scope)
	}
	if cols&SpanNames != 0 {
		b.Name = append(b.Name, s.Name)
	}
	if cols&SpanAttrs != 0 {
		b.Attrs = append(b.Attrs, s.Attrs)
	}
	if cols&SpanEvents != 0 {
		b.Events = append(b.Events, s.Events)
	}
	if cols&SpanLinks != 0 {
		b.Links = append(b.Links, s.Links)
	}
	if cols&SpanMessages != 0 {
		b.StatusMessage = append(b.StatusMessage, s.StatusMessage)
		b.State = append(b.State, s.State)
		b.Flags = append(b.Flags, s.Flags)
		b.Dropped = append(b.Dropped, [3]uint32{s.DroppedAttrs, s.DroppedEvents, s.DroppedLinks})
	}
}

// Span returns row i; columns that were not asked for are zero.
func (b *SpanBlock) Span(i int) telemetry.Span {
	s := telemetry.Span{
		TraceID: b.TraceID[i], SpanID: b.SpanID[i], ParentID: b.ParentID[i], Start: b.Start[i],
		End: b.Start[i] + b.Duration[i], Kind: b.Kind[i], Status: b.Status[i], Scope: b.ScopeOf(i),
	}
	if b.Name != nil {
		s.Name = b.Name[i]
	}
	if b.Attrs != nil {
		s.Attrs = b.Attrs[i]
	}
	if b.Events != nil {
		s.Events = b.Events[i]
	}
	if b.Links != nil {
		s.Links = b.Links[i]
	}
	if b.State != nil {
		s.StatusMessage, s.State, s.Flags = b.StatusMessage[i], b.State[i], b.Flags[i]
		s.DroppedAttrs, s.DroppedEvents, s.DroppedLinks = b.Dropped[i][0], b.Dropped[i][1], b.Dropped[i][2]
	}
	return s
}
