package storage

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
)

// Predicate is a filter that languages compile to and the engine pushes down: a closed set. Text is compared
// in the form of telemetry.Value.Text. A nil predicate matches everything.
type Predicate interface{ predicate() }

type (
	// And matches rows that match all of it.
	And []Predicate
	// Or matches rows that match any of it.
	Or []Predicate
	// Not matches rows that do not match P.
	Not struct{ P Predicate }
	// StreamMatch matches log rows whose stream's labels match all matchers.
	StreamMatch []*labels.Matcher
	// ResourceIn matches rows of one of these resources.
	ResourceIn []telemetry.ResourceID
	// TraceIn matches rows that carry one of these trace IDs; the zero ID is none, and no row carries it.
	TraceIn []telemetry.TraceID
	// LineContains matches log rows whose body contains the text.
	LineContains string
	// LineMatch matches log rows whose body the function accepts: a filter that has no push-down of its own.
	// It must be safe for concurrent use and must not retain the line.
	LineMatch func(line string) bool
	// SeverityRange matches log rows with a severity number between Min and Max.
	SeverityRange struct{ Min, Max uint8 }
	// AttrMatch matches rows with an attribute whose text matches; M.Name is the key as sent. An absent
	// attribute matches like an empty text.
	AttrMatch struct {
		Scope AttrScope
		M     *labels.Matcher
	}
	// FieldMatch matches span rows by the text of a field.
	FieldMatch struct {
		Field SpanField
		M     *labels.Matcher // its name is not used
	}
	// DurationRange matches span rows with a duration between Min and Max, in nanoseconds.
	DurationRange struct{ Min, Max int64 }
)

// AttrScope says where an attribute is looked for.
type AttrScope uint8

// The places of attributes. AnyScope tries the record, then the scope, then the resource, and takes the first
// that has the key.
const (
	AnyScope AttrScope = iota
	RecordScope
	InstrumentationScope
	ResourceScope
	EventScope // of spans, in a SpanKey
	LinkScope  // of spans, in a SpanKey
	FieldScope // of spans, in a SpanKey: a field and no attribute
)

// SpanField is a field of a span: FieldMatch compares those up to SpanParent as text, a SpanKey names its values.
type SpanField uint8

// The fields. FieldMatch compares kind and status in lower case ("server", "error"); as values they are integers. IDs are in
// hexadecimal, an absent one is no value.
const (
	SpanName SpanField = iota
	SpanKindField
	SpanStatus
	SpanStatusMessage
	SpanParent
	SpanIDField
	SpanState
	ScopeName
	ScopeVersion
	EventName // one value an event
	EventTime // one value an event: nanoseconds since the start of the span
	LinkTrace // one value a link
	LinkSpan  // one value a link
)

func (And) predicate()           {}
func (Or) predicate()            {}
func (Not) predicate()           {}
func (StreamMatch) predicate()   {}
func (ResourceIn) predicate()    {}
func (TraceIn) predicate()       {}
func (LineContains) predicate()  {}
func (LineMatch) predicate()     {}
func (SeverityRange) predicate() {}
func (AttrMatch) predicate()     {}
func (FieldMatch) predicate()    {}
func (DurationRange) predicate() {}

// TracesOf returns the trace IDs that every row matching p must carry one of, and whether p demands that.
// Engines use it to reach rows through an index.
func TracesOf(p Predicate) ([]telemetry.TraceID, bool) {
	switch p := p.(type) {
	case TraceIn:
		return p, true
	case And:
		for _, q := range p {
			if ids, ok := TracesOf(q); ok {
				return ids, true
			}
		}
	}
	return nil, false
}

// MatchLabels says whether the labels of s match all of ms; an absent label matches like an empty value.
func MatchLabels(s telemetry.LabelSet, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if !m.Matches(s.Get(m.Name)) {
			return false
		}
	}
	return true
}

// NeedsOfLogs returns the columns that p reads.
func NeedsOfLogs(p Predicate) LogColumns {
	switch p := p.(type) {
	case And:
		return needsOf(p, NeedsOfLogs)
	case Or:
		return needsOf(p, NeedsOfLogs)
	case Not:
		return NeedsOfLogs(p.P)
	case StreamMatch:
		return LogStream
	case ResourceIn:
		return LogResource
	case TraceIn:
		return LogTraceID
	case LineContains, LineMatch:
		return LogBody
	case SeverityRange:
		return LogSeverity
	case AttrMatch:
		switch p.Scope {
		case RecordScope:
			return LogAttrs
		case InstrumentationScope:
			return LogScope
		case ResourceScope:
			return LogResource
		default:
			return LogAttrs | LogScope | LogResource
		}
	default:
		return 0
	}
}

// NeedsOfSpans returns the columns that p reads.
func NeedsOfSpans(p Predicate) SpanColumns {
	switch p := p.(type) {
	case And:
		return needsOf(p, NeedsOfSpans)
	case Or:
		return needsOf(p, NeedsOfSpans)
	case Not:
		return NeedsOfSpans(p.P)
	case ResourceIn:
		return SpanResource
	case AttrMatch:
		switch p.Scope {
		case RecordScope:
			return SpanAttrs
		case InstrumentationScope:
			return SpanScope
		case ResourceScope:
			return SpanResource
		default:
			return SpanAttrs | SpanScope | SpanResource
		}
	case FieldMatch:
		switch p.Field {
		case SpanName:
			return SpanNames
		case SpanStatusMessage:
			return SpanMessages
		default:
			return 0
		}
	case ValueMatch:
		return p.Key.needs()
	default:
		return 0
	}
}

func needsOf[C LogColumns | SpanColumns](ps []Predicate, needs func(Predicate) C) C {
	var c C
	for _, p := range ps {
		c |= needs(p)
	}
	return c
}

// Match says whether row i of the block matches p; the columns that p needs must be filled.
func (b *LogBlock) Match(i int, p Predicate) bool {
	switch p := p.(type) {
	case nil:
		return true
	case And:
		for _, q := range p {
			if !b.Match(i, q) {
				return false
			}
		}
		return true
	case Or:
		return slices.ContainsFunc(p, func(q Predicate) bool { return b.Match(i, q) })
	case Not:
		return !b.Match(i, p.P)
	case StreamMatch:
		return MatchLabels(b.Streams[b.Stream[i]], p)
	case ResourceIn:
		r := b.ResourceOf(i)
		return r != nil && slices.Contains(p, r.ID)
	case TraceIn:
		return !b.TraceID[i].IsZero() && slices.Contains(p, b.TraceID[i])
	case LineContains:
		return strings.Contains(b.Body[i].Text(), string(p))
	case LineMatch:
		return p(b.Body[i].Text())
	case SeverityRange:
		return b.Severity[i] >= p.Min && b.Severity[i] <= p.Max
	case AttrMatch:
		return p.Match(b.attrsIf(i, p.Scope), b.scopeIf(i, p.Scope), b.resourceIf(i, p.Scope))
	default:
		return false // a predicate about spans
	}
}

// Match says whether row i of the block matches p; the columns that p needs must be filled.
func (b *SpanBlock) Match(i int, p Predicate) bool {
	switch p := p.(type) {
	case nil:
		return true
	case And:
		for _, q := range p {
			if !b.Match(i, q) {
				return false
			}
		}
		return true
	case Or:
		return slices.ContainsFunc(p, func(q Predicate) bool { return b.Match(i, q) })
	case Not:
		return !b.Match(i, p.P)
	case ResourceIn:
		r := b.ResourceOf(i)
		return r != nil && slices.Contains(p, r.ID)
	case TraceIn:
		return !b.TraceID[i].IsZero() && slices.Contains(p, b.TraceID[i])
	case DurationRange:
		return b.Duration[i] >= p.Min && b.Duration[i] <= p.Max
	case FieldMatch:
		return p.M.Matches(b.fieldText(i, p.Field))
	case AttrMatch:
		return p.Match(b.attrsIf(i, p.Scope), b.scopeIf(i, p.Scope), b.resourceIf(i, p.Scope))
	case ValueMatch:
		return p.match(b, i)
	default:
		return false // a predicate about logs
	}
}

func (b *SpanBlock) fieldText(i int, f SpanField) string {
	switch f {
	case SpanName:
		return b.Name[i]
	case SpanKindField:
		return b.Kind[i].String()
	case SpanStatus:
		return b.Status[i].String()
	case SpanStatusMessage:
		return b.StatusMessage[i]
	case SpanParent:
		if b.ParentID[i].IsZero() {
			return ""
		}
		return b.ParentID[i].String()
	default:
		return ""
	}
}

// Match says whether the attribute matches: its first value in the given places, or an empty text when none has it.
func (p AttrMatch) Match(places ...telemetry.Attrs) bool {
	for _, as := range places {
		if v, ok := as.Get(p.M.Name); ok {
			return p.M.Matches(v.Text())
		}
	}
	return p.M.Matches("")
}
