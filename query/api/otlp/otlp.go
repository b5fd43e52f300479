// Package otlp encodes spans as OTLP has them, in protobuf and in JSON, without making its messages first: an answer takes
// little more memory than its bytes.
package otlp

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"slices"
	"strconv"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/wire"
)

// Traces collects spans and encodes them as a TracesData, by resource and scope in the order in which they come first. Its
// zero value is ready.
type Traces struct {
	// JSON encodes as JSON and not as protobuf. It is set before the first span is added.
	JSON bool

	list  []*resource
	known map[resourceKey]*resource
	last  *scope // of the span before
	lastR *telemetry.Resource
	n     int
	size  int
}

type resourceKey struct {
	id      telemetry.ResourceID
	dropped uint32
}

type resource struct {
	res    *telemetry.Resource
	scopes []*scope
}

type scope struct {
	key   string
	scope *telemetry.Scope
	spans []byte
}

// Add adds a span, of which it keeps nothing but the resource and the scope.
func (t *Traces) Add(res *telemetry.Resource, s *telemetry.Span) {
	if t.last == nil || t.lastR != res || t.last.scope != s.Scope {
		t.last, t.lastR = t.find(res, s.Scope), res
	}
	before := len(t.last.spans)
	if t.JSON {
		if before > 0 {
			t.last.spans = append(t.last.spans, ',')
		}
		t.last.spans = AppendSpanJSON(t.last.spans, s)
	} else {
		t.last.spans = wire.AppendMessage(t.last.spans, 2, func(b []byte) []byte { return appendSpan(b, s) })
	}
	t.size += len(t.last.spans) - before
	t.n++
}

// Len returns the number of spans.
func (t *Traces) Len() int { return t.n }

// Size returns the bytes of the spans, without what they are wrapped in.
func (t *Traces) Size() int { return t.size }

func (t *Traces) find(res *telemetry.Resource, sc *telemetry.Scope) *scope {
	var k resourceKey
	if res != nil {
		k = resourceKey{res.ID, res.Dropped}
	}
	r := t.known[k]
	if r == nil {
		if t.known == nil {
			t.known = make(map[resourceKey]*resource)
		}
		r = &resource{res: res}
		t.known[k] = r
		t.list = append(t.list, r)
	}
	key := string(telemetry.AppendScope(nil, sc))
	i := slices.IndexFunc(r.scopes, func(s *scope) bool { return s.key == key })
	if i < 0 {
		i = len(r.scopes)
		r.scopes = append(r.scopes, &scope{key: key, scope: sc})
	}
	return r.scopes[i]
}

// Append appends the encoded TracesData to dst. In JSON it is the object with resourceSpans.
func (t *Traces) Append(dst []byte) []byte {
	if t.JSON {
		return append(t.AppendList(append(dst, `{"resourceSpans":`...)), '}')
	}
	for _, r := range t.list {
		dst = wire.AppendMessage(dst, 1, func(b []byte) []byte {
			b = wire.AppendMessage(b, 1, func(b []byte) []byte { return appendResource(b, r.res) })
			for _, s := range r.scopes {
				b = wire.AppendMessage(b, 2, func(b []byte) []byte {
					b = wire.AppendMessage(b, 1, func(b []byte) []byte { return appendScope(b, s.scope) })
					b = append(b, s.spans...)
					if s.scope != nil {
						b = wire.AppendText(b, 3, s.scope.SchemaURL)
					}
					return b
				})
			}
			if r.res != nil {
				b = wire.AppendText(b, 3, r.res.SchemaURL)
			}
			return b
		})
	}
	return dst
}

// AppendList appends the list of resourceSpans in JSON.
func (t *Traces) AppendList(dst []byte) []byte {
	dst = append(dst, '[')
	for i, r := range t.list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"resource":{`...)
		if r.res != nil {
			dst = appendAttrsJSON(dst, r.res.Attrs)
			dst = appendNumberJSON(dst, "droppedAttributesCount", r.res.Dropped)
		}
		dst = append(dst, `},"scopeSpans":[`...)
		for j, s := range r.scopes {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"scope":{`...)
			if s.scope != nil {
				dst = appendTextJSON(dst, "name", s.scope.Name)
				dst = appendTextJSON(dst, "version", s.scope.Version)
				dst = appendAttrsJSON(dst, s.scope.Attrs)
				dst = appendNumberJSON(dst, "droppedAttributesCount", s.scope.Dropped)
			}
			dst = append(append(append(dst, `},"spans":[`...), s.spans...), ']')
			if s.scope != nil {
				dst = appendTextJSON(dst, "schemaUrl", s.scope.SchemaURL)
			}
			dst = append(dst, '}')
		}
		dst = append(dst, ']')
		if r.res != nil {
			dst = appendTextJSON(dst, "schemaUrl", r.res.SchemaURL)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func appendResource(dst []byte, r *telemetry.Resource) []byte {
	if r == nil {
		return dst
	}
	dst = appendAttrs(dst, 1, r.Attrs)
	return wire.AppendNumber(dst, 2, uint64(r.Dropped))
}

func appendScope(dst []byte, s *telemetry.Scope) []byte {
	if s == nil {
		return dst
	}
	dst = wire.AppendText(dst, 1, s.Name)
	dst = wire.AppendText(dst, 2, s.Version)
	dst = appendAttrs(dst, 3, s.Attrs)
	return wire.AppendNumber(dst, 4, uint64(s.Dropped))
}

func appendSpan(dst []byte, s *telemetry.Span) []byte {
	dst = wire.AppendBytes(dst, 1, s.TraceID[:])
	dst = wire.AppendBytes(dst, 2, s.SpanID[:])
	dst = wire.AppendText(dst, 3, s.State)
	if !s.ParentID.IsZero() {
		dst = wire.AppendBytes(dst, 4, s.ParentID[:])
	}
	dst = wire.AppendText(dst, 5, s.Name)
	dst = wire.AppendNumber(dst, 6, uint64(s.Kind))
	dst = wire.AppendFixed64(dst, 7, uint64(s.Start))
	dst = wire.AppendFixed64(dst, 8, uint64(s.End))
	dst = appendAttrs(dst, 9, s.Attrs)
	dst = wire.AppendNumber(dst, 10, uint64(s.DroppedAttrs))
	for i := range s.Events {
		e := &s.Events[i]
		dst = wire.AppendMessage(dst, 11, func(b []byte) []byte {
			b = wire.AppendFixed64(b, 1, uint64(e.Time))
			b = wire.AppendText(b, 2, e.Name)
			b = appendAttrs(b, 3, e.Attrs)
			return wire.AppendNumber(b, 4, uint64(e.Dropped))
		})
	}
	dst = wire.AppendNumber(dst, 12, uint64(s.DroppedEvents))
	for i := range s.Links {
		l := &s.Links[i]
		dst = wire.AppendMessage(dst, 13, func(b []byte) []byte {
			b = wire.AppendBytes(b, 1, l.TraceID[:])
			b = wire.AppendBytes(b, 2, l.SpanID[:])
			b = wire.AppendText(b, 3, l.State)
			b = appendAttrs(b, 4, l.Attrs)
			b = wire.AppendNumber(b, 5, uint64(l.Dropped))
			return wire.AppendFixed32(b, 6, l.Flags)
		})
	}
	dst = wire.AppendNumber(dst, 14, uint64(s.DroppedLinks))
	// The status stands there in any case, as senders do it: to some readers none is another one than unset.
	dst = wire.AppendMessage(dst, 15, func(b []byte) []byte {
		return wire.AppendNumber(wire.AppendText(b, 2, s.StatusMessage), 3, uint64(s.Status))
	})
	return wire.AppendFixed32(dst, 16, s.Flags)
}

func appendAttrs(dst []byte, field int, as telemetry.Attrs) []byte {
	for i := range as {
		dst = wire.AppendMessage(dst, field, func(b []byte) []byte {
			b = wire.AppendText(b, 1, as[i].Key)
			return wire.AppendMessage(b, 2, func(b []byte) []byte { return AppendValue(b, as[i].Value) })
		})
	}
	return dst
}

// AppendValue appends a value as an AnyValue in protobuf.
func AppendValue(dst []byte, v telemetry.Value) []byte {
	switch v.Kind() {
	case telemetry.KindString:
		return wire.AppendBytes(dst, 1, v.Str())
	case telemetry.KindBool:
		b := byte(0)
		if v.Bool() {
			b = 1
		}
		return append(dst, 2<<3, b)
	case telemetry.KindInt:
		return binary.AppendUvarint(append(dst, 3<<3), uint64(v.Int()))
	case telemetry.KindDouble:
		return binary.LittleEndian.AppendUint64(append(dst, 4<<3|1), math.Float64bits(v.Double()))
	case telemetry.KindBytes:
		return wire.AppendBytes(dst, 7, v.Str())
	case telemetry.KindArray:
		return wire.AppendMessage(dst, 5, func(b []byte) []byte {
			for _, e := range v.Array() {
				b = wire.AppendMessage(b, 1, func(b []byte) []byte { return AppendValue(b, e) })
			}
			return b
		})
	case telemetry.KindMap:
		return wire.AppendMessage(dst, 6, func(b []byte) []byte { return appendAttrs(b, 1, v.Map()) })
	default:
		return dst
	}
}

// comma separates what follows from what stands in the object or list already.
func comma(dst []byte) []byte {
	if c := dst[len(dst)-1]; c != '{' && c != '[' {
		return append(dst, ',')
	}
	return dst
}

func key(dst []byte, name string) []byte {
	return append(append(append(comma(dst), '"'), name...), '"', ':')
}

func appendTextJSON(dst []byte, name, s string) []byte {
	if s == "" {
		return dst
	}
	return telemetry.AppendJSONString(key(dst, name), s)
}

func appendNumberJSON(dst []byte, name string, n uint32) []byte {
	if n == 0 {
		return dst
	}
	return strconv.AppendUint(key(dst, name), uint64(n), 10)
}

func appendTimeJSON(dst []byte, name string, t int64) []byte {
	dst = append(key(dst, name), '"')
	return append(strconv.AppendInt(dst, t, 10), '"')
}

// AppendSpanJSON appends a span as an object of OTLP's JSON: IDs in hexadecimal, times as texts, enums as numbers.
func AppendSpanJSON(dst []byte, s *telemetry.Span) []byte {
	dst = append(dst, '{')
	dst = appendTextJSON(dst, "traceId", s.TraceID.String())
	dst = appendTextJSON(dst, "spanId", s.SpanID.String())
	dst = appendTextJSON(dst, "traceState", s.State)
	if !s.ParentID.IsZero() {
		dst = appendTextJSON(dst, "parentSpanId", s.ParentID.String())
	}
	dst = appendNumberJSON(dst, "flags", s.Flags)
	dst = appendTextJSON(dst, "name", s.Name)
	dst = appendNumberJSON(dst, "kind", uint32(s.Kind))
	dst = appendTimeJSON(dst, "startTimeUnixNano", s.Start)
	dst = appendTimeJSON(dst, "endTimeUnixNano", s.End)
	dst = appendAttrsJSON(dst, s.Attrs)
	dst = appendNumberJSON(dst, "droppedAttributesCount", s.DroppedAttrs)
	if len(s.Events) > 0 {
		dst = append(key(dst, "events"), '[')
		for i := range s.Events {
			e := &s.Events[i]
			dst = append(comma(dst), '{')
			dst = appendTimeJSON(dst, "timeUnixNano", e.Time)
			dst = appendTextJSON(dst, "name", e.Name)
			dst = appendAttrsJSON(dst, e.Attrs)
			dst = append(appendNumberJSON(dst, "droppedAttributesCount", e.Dropped), '}')
		}
		dst = append(dst, ']')
	}
	dst = appendNumberJSON(dst, "droppedEventsCount", s.DroppedEvents)
	if len(s.Links) > 0 {
		dst = append(key(dst, "links"), '[')
		for i := range s.Links {
			l := &s.Links[i]
			dst = append(comma(dst), '{')
			dst = appendTextJSON(dst, "traceId", l.TraceID.String())
			dst = appendTextJSON(dst, "spanId", l.SpanID.String())
			dst = appendTextJSON(dst, "traceState", l.State)
			dst = appendAttrsJSON(dst, l.Attrs)
			dst = appendNumberJSON(dst, "droppedAttributesCount", l.Dropped)
			dst = append(appendNumberJSON(dst, "flags", l.Flags), '}')
		}
		dst = append(dst, ']')
	}
	dst = appendNumberJSON(dst, "droppedLinksCount", s.DroppedLinks)
	dst = append(key(dst, "status"), '{')
	dst = appendTextJSON(dst, "message", s.StatusMessage)
	dst = appendNumberJSON(dst, "code", uint32(s.Status))
	return append(dst, "}}"...)
}

func appendAttrsJSON(dst []byte, as telemetry.Attrs) []byte {
	if len(as) == 0 {
		return dst
	}
	return appendPairs(key(dst, "attributes"), as)
}

func appendPairs(dst []byte, as telemetry.Attrs) []byte {
	dst = append(dst, '[')
	for i := range as {
		dst = append(comma(dst), `{"key":`...)
		dst = telemetry.AppendJSONString(dst, as[i].Key)
		dst = append(AppendValueJSON(append(dst, `,"value":`...), as[i].Value), '}')
	}
	return append(dst, ']')
}

// AppendValueJSON appends a value as an AnyValue in OTLP's JSON.
func AppendValueJSON(dst []byte, v telemetry.Value) []byte {
	switch v.Kind() {
	case telemetry.KindString:
		dst = telemetry.AppendJSONString(append(dst, `{"stringValue":`...), v.Str())
	case telemetry.KindBool:
		dst = strconv.AppendBool(append(dst, `{"boolValue":`...), v.Bool())
	case telemetry.KindInt:
		dst = strconv.AppendInt(append(dst, `{"intValue":"`...), v.Int(), 10)
		dst = append(dst, '"')
	case telemetry.KindDouble:
		dst = v.AppendJSON(append(dst, `{"doubleValue":`...)) // what is no number as a text
	case telemetry.KindBytes:
		dst = base64.StdEncoding.AppendEncode(append(dst, `{"bytesValue":"`...), []byte(v.Str()))
		dst = append(dst, '"')
	case telemetry.KindArray:
		dst = append(dst, `{"arrayValue":{"values":[`...)
		for _, e := range v.Array() {
			dst = AppendValueJSON(comma(dst), e)
		}
		dst = append(dst, "]}"...)
	case telemetry.KindMap:
		dst = append(appendPairs(append(dst, `{"kvlistValue":{"values":`...), v.Map()), '}')
	default:
		dst = append(dst, '{')
	}
	return append(dst, '}')
}
