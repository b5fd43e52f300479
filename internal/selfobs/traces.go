package selfobs

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/braidobs/braid/internal/telemetry"
)

// sampler drops what is started under a suppressed context and leaves the rest to another.
type sampler struct{ sdktrace.Sampler }

// ShouldSample decides on one span.
func (s sampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if Suppressed(p.ParentContext) {
		return sdktrace.SamplingResult{
			Decision:   sdktrace.Drop,
			Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState(),
		}
	}
	return s.Sampler.ShouldSample(p)
}

// processor puts spans that ended into the buffer.
type processor Obs

var _ sdktrace.SpanProcessor = (*processor)(nil)

// OnStart does nothing.
func (p *processor) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd keeps a copy of the span.
func (p *processor) OnEnd(s sdktrace.ReadOnlySpan) {
	if s.SpanContext().IsSampled() {
		(*Obs)(p).addSpan(span(s))
	}
}

// Shutdown does nothing: the buffer belongs to Obs.
func (p *processor) Shutdown(context.Context) error { return nil }

// ForceFlush does nothing.
func (p *processor) ForceFlush(context.Context) error { return nil }

func span(s sdktrace.ReadOnlySpan) telemetry.Span {
	sc, status, scope := s.SpanContext(), s.Status(), s.InstrumentationScope()
	out := telemetry.Span{
		TraceID: telemetry.TraceID(sc.TraceID()), SpanID: telemetry.SpanID(sc.SpanID()),
		ParentID: telemetry.SpanID(s.Parent().SpanID()), State: sc.TraceState().String(), Flags: uint32(sc.TraceFlags()),
		Name: s.Name(), Start: s.StartTime().UnixNano(), End: s.EndTime().UnixNano(),
		StatusMessage: status.Description, Attrs: attrs(s.Attributes()),
		Scope:        &telemetry.Scope{Name: scope.Name, Version: scope.Version, SchemaURL: scope.SchemaURL},
		DroppedAttrs: uint32(s.DroppedAttributes()), DroppedEvents: uint32(s.DroppedEvents()), DroppedLinks: uint32(s.DroppedLinks()),
	}
	switch s.SpanKind() {
	case trace.SpanKindServer:
		out.Kind = telemetry.SpanKindServer
	case trace.SpanKindClient:
		out.Kind = telemetry.SpanKindClient
	case trace.SpanKindProducer:
		out.Kind = telemetry.SpanKindProducer
	case trace.SpanKindConsumer:
		out.Kind = telemetry.SpanKindConsumer
	default:
		out.Kind = telemetry.SpanKindInternal
	}
	switch status.Code {
	case codes.Ok:
		out.Status = telemetry.StatusOK
	case codes.Error:
		out.Status = telemetry.StatusError
	default:
	}
	for _, e := range s.Events() {
		out.Events = append(out.Events, telemetry.Event{
			Time: e.Time.UnixNano(), Name: e.Name, Attrs: attrs(e.Attributes), Dropped: uint32(e.DroppedAttributeCount),
		})
	}
	for _, l := range s.Links() {
		out.Links = append(out.Links, telemetry.Link{
			TraceID: telemetry.TraceID(l.SpanContext.TraceID()), SpanID: telemetry.SpanID(l.SpanContext.SpanID()),
			State: l.SpanContext.TraceState().String(), Flags: uint32(l.SpanContext.TraceFlags()),
			Attrs: attrs(l.Attributes), Dropped: uint32(l.DroppedAttributeCount),
		})
	}
	return out
}

func attrs(kvs []attribute.KeyValue) telemetry.Attrs {
	out := make([]telemetry.Attr, 0, len(kvs))
	for _, kv := range kvs {
		out = append(out, telemetry.Attr{Key: string(kv.Key), Value: value(kv.Value)})
	}
	return telemetry.NewAttrs(out)
}

func value(v attribute.Value) telemetry.Value {
	switch v.Type() {
	case attribute.BOOL:
		return telemetry.Bool(v.AsBool())
	case attribute.INT64:
		return telemetry.Int(v.AsInt64())
	case attribute.FLOAT64:
		return telemetry.Double(v.AsFloat64())
	case attribute.STRING:
		return telemetry.String(v.AsString())
	case attribute.BOOLSLICE:
		return array(v.AsBoolSlice(), telemetry.Bool)
	case attribute.INT64SLICE:
		return array(v.AsInt64Slice(), telemetry.Int)
	case attribute.FLOAT64SLICE:
		return array(v.AsFloat64Slice(), telemetry.Double)
	case attribute.STRINGSLICE:
		return array(v.AsStringSlice(), telemetry.String)
	default:
		return telemetry.String(v.String())
	}
}

func array[T any](in []T, f func(T) telemetry.Value) telemetry.Value {
	out := make([]telemetry.Value, len(in))
	for i, x := range in {
		out[i] = f(x)
	}
	return telemetry.Array(out)
}
