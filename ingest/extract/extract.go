// Package extract finds out what a log line says beside its text: the time, the severity, the trace and span it belongs
// to, the message, and all other keys of a line in JSON or logfmt.
//
// It looks at one line at a time, in time proportional to it, and allocates nothing once its buffers have grown. The
// JSON scanner is written by hand: a library would build a tree of each line to take a few keys out of it.
package extract

import (
	"bytes"

	"github.com/braidobs/braid/ingest/stamp"
)

const (
	maxDepth    = 5   // of objects that are flattened; deeper ones stay JSON
	maxKeys     = 256 // of a line
	maxKeyBytes = 256 // of a flattened key
	recheck     = 1000
	warmUp      = 16 // lines at the start that are looked at without prejudice
	changeAfter = 8  // lines in a row that are not of the format before it is given up
)

// Kind is the type of a Value.
type Kind uint8

// The kinds.
const (
	String Kind = iota
	Int
	Float
	Bool
	JSON // an array, or an object that is too deep, as it was written
)

// Value is the value of an attribute.
type Value struct {
	Bytes []byte // of String and JSON; of the others how they were written
	Int   int64
	Float float64
	Kind  Kind
	Bool  bool
}

// Attribute is a key that is none of those with a meaning of their own. Keys of nested objects are joined by dots.
type Attribute struct {
	Key   []byte
	Value Value
	hash  uint32
	role  role
	rank  uint8
}

// Fields is what a line says. Bytes are valid until the line changes or the next call of Parse.
type Fields struct {
	Time         int64 // Unix nanoseconds; 0 when the line tells none
	Severity     int   // as in OpenTelemetry, 1 to 24; 0 when the line tells none
	SeverityText []byte
	TraceID      [16]byte // zero when the line tells none
	SpanID       [8]byte  // zero when the line tells none
	Message      []byte   // nil when the line has no key for it
	Attributes   []Attribute
	Dropped      int // attributes over the limits
	// The keys that Document found Time and Message under; nil when it found none.
	TimeKey, MessageKey []byte
}

// format is how lines are written.
type format uint8

const (
	unknown format = iota
	jsonObject
	logfmt
	klog
	text
)

// Parser reads the lines of one stream. It remembers their format, and looks again when a line is not of it and every
// 1,000 lines. The zero value is ready; it is not for concurrent use.
type Parser struct {
	format  format
	lines   int // since the format was looked at
	total   int // at most warmUp
	misses  int // in a row
	keep    bool
	scratch []byte
	clock   stamp.Parser
}

// Parse replaces out by what the line says. It does not change the line. It reuses out.Attributes.
func (p *Parser) Parse(body []byte, out *Fields) {
	*out = Fields{Attributes: out.Attributes[:0]}
	p.scratch = p.scratch[:0]
	body = bytes.TrimRight(body, "\r\n")
	if p.lines++; p.format == unknown || p.lines > recheck || p.total < warmUp {
		p.lines, p.misses = 0, 0
		p.total = min(p.total+1, warmUp)
		p.format = detect(body)
	}
	if p.try(p.format, body, out) {
		p.misses = 0
		return
	}
	other := detect(body)
	if p.misses++; p.misses >= changeAfter {
		p.format, p.misses, p.lines = other, 0, 0
	}
	if other == p.format || !p.try(other, body, out) {
		p.try(text, body, out)
	}
}

// Document replaces out by what a document in JSON says, and says whether body is one: a single object. Unlike with
// Parse, keys with a meaning stay among the attributes.
func (p *Parser) Document(body []byte, out *Fields) bool {
	*out = Fields{Attributes: out.Attributes[:0]}
	p.scratch, p.keep = p.scratch[:0], true
	ok := p.object(body, out)
	p.keep = false
	if !ok {
		*out = Fields{Attributes: out.Attributes[:0]}
	}
	return ok
}

// Time returns the time that a value tells, in any of the forms that Parse knows: Unix nanoseconds.
func (p *Parser) Time(v Value) (ns int64, ok bool) { return p.time(v) }

// detect tells the format from the start of a line.
func detect(b []byte) format {
	switch {
	case startsObject(b):
		return jsonObject
	case isKlog(b):
		return klog
	case startsLogfmt(b):
		return logfmt
	default:
		return text
	}
}

func startsObject(b []byte) bool {
	b = bytes.TrimLeft(b[:min(len(b), 64)], " \t")
	return len(b) > 0 && b[0] == '{'
}

// try reads the line as of a format; it leaves out empty when the line is not.
func (p *Parser) try(f format, b []byte, out *Fields) bool {
	ok := false
	switch f {
	case jsonObject:
		ok = p.object(b, out)
	case logfmt:
		ok = p.pairs(b, out)
	case klog:
		if ok = isKlog(b); ok {
			p.klog(b, out)
		}
	case text, unknown:
		if f == text && startsObject(b) && p.object(b, out) {
			return true
		}
		*out = Fields{Attributes: out.Attributes[:0]}
		out.Severity, out.SeverityText = levelInText(b)
		return true
	}
	if !ok {
		*out = Fields{Attributes: out.Attributes[:0]}
		p.scratch = p.scratch[:0]
	}
	return ok
}

// role is what a key means.
type role uint8

const (
	noRole role = iota
	timeRole
	levelRole
	messageRole
	traceRole
	spanRole
	parentRole
	roles
)

// roleOf tells the meaning of a key; of several keys with the same the lowest rank counts.
func roleOf(key []byte) (role, uint8) {
	switch string(key) {
	case "ts":
		return timeRole, 0
	case "time":
		return timeRole, 1
	case "timestamp":
		return timeRole, 2
	case "@timestamp":
		return timeRole, 3
	case "@t":
		return timeRole, 4
	case "t":
		return timeRole, 5
	case "level":
		return levelRole, 0
	case "severity":
		return levelRole, 1
	case "lvl":
		return levelRole, 2
	case "log.level":
		return levelRole, 3
	case "@l":
		return levelRole, 4
	case "msg":
		return messageRole, 0
	case "message":
		return messageRole, 1
	case "@m":
		return messageRole, 2
	case "body":
		return messageRole, 3
	case "log":
		return messageRole, 4
	case "trace_id":
		return traceRole, 0
	case "traceId":
		return traceRole, 1
	case "traceid":
		return traceRole, 2
	case "trace.id":
		return traceRole, 3
	case "otelTraceID":
		return traceRole, 4
	case "logging.googleapis.com/trace":
		return traceRole, 5
	case "x-b3-traceid":
		return traceRole, 6
	case "dd.trace_id":
		return traceRole, ddRank
	case "span_id":
		return spanRole, 0
	case "spanId":
		return spanRole, 1
	case "spanid":
		return spanRole, 2
	case "span.id":
		return spanRole, 3
	case "otelSpanID":
		return spanRole, 4
	case "logging.googleapis.com/spanId":
		return spanRole, 5
	case "x-b3-spanid":
		return spanRole, 6
	case "dd.span_id":
		return spanRole, ddRank
	case "traceparent":
		return parentRole, 0
	default:
		return noRole, 0
	}
}

// ddRank is the rank of keys whose IDs are decimal.
const ddRank = 7

// add takes a key and its value; the last one of a key counts.
func (p *Parser) add(out *Fields, key []byte, v Value) {
	if len(key) > maxKeyBytes {
		out.Dropped++
		return
	}
	h := uint32(len(key)) << 16
	if n := len(key); n > 0 {
		h |= uint32(key[n/2])<<8 | uint32(key[n-1]) // enough to tell nearly all keys of a line apart
	}
	for i := range out.Attributes {
		if a := &out.Attributes[i]; a.hash == h && bytes.Equal(a.Key, key) {
			a.Value = v
			return
		}
	}
	if len(out.Attributes) >= maxKeys {
		out.Dropped++
		return
	}
	r, rank := roleOf(key)
	out.Attributes = append(out.Attributes, Attribute{Key: key, Value: v, hash: h, role: r, rank: rank})
}

// finish takes the keys with a meaning out of the attributes. A value that cannot be read stays one.
func (p *Parser) finish(out *Fields) {
	var best [roles]*Attribute
	for i := range out.Attributes {
		if a := &out.Attributes[i]; a.role != noRole && (best[a.role] == nil || a.rank < best[a.role].rank) {
			best[a.role] = a
		}
	}
	used := 0
	take := func(r role, ok bool) {
		if ok && !p.keep {
			best[r].Key = nil
			used++
		}
	}
	if a := best[timeRole]; a != nil {
		var ok bool
		if out.Time, ok = p.time(a.Value); ok && p.keep {
			out.TimeKey = a.Key
		}
		take(timeRole, ok)
	}
	if a := best[levelRole]; a != nil {
		out.Severity, out.SeverityText = level(a.Value)
		take(levelRole, out.Severity > 0)
	}
	if a := best[messageRole]; a != nil && a.Value.Kind == String {
		out.Message = a.Value.Bytes
		if out.Message == nil {
			out.Message = []byte{}
		}
		if p.keep {
			out.MessageKey = a.Key
		}
		take(messageRole, true)
	}
	if a := best[traceRole]; a != nil {
		var ok bool
		out.TraceID, ok = traceID(a.Value, a.rank == ddRank)
		take(traceRole, ok)
	}
	if a := best[spanRole]; a != nil {
		var ok bool
		out.SpanID, ok = spanID(a.Value, a.rank == ddRank)
		take(spanRole, ok)
	}
	if a := best[parentRole]; a != nil && out.TraceID == [16]byte{} {
		trace, span, ok := traceparent(a.Value.Bytes)
		if ok {
			out.TraceID = trace
			if out.SpanID == [8]byte{} {
				out.SpanID = span
			}
		}
		take(parentRole, ok)
	}
	if used == 0 {
		return
	}
	n := 0
	for _, a := range out.Attributes {
		if a.Key != nil {
			out.Attributes[n] = a
			n++
		}
	}
	out.Attributes = out.Attributes[:n]
}
