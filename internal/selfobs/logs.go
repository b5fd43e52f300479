package selfobs

import (
	"context"
	"encoding"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/braidobs/braid/internal/telemetry"
)

// handler writes records to the output, and from info on to the buffer.
type handler struct {
	out    slog.Handler
	obs    *Obs
	now    func() time.Time
	attrs  []telemetry.Attr // of With, named with their groups
	prefix string           // of the open groups, with a dot at the end
}

// Enabled says whether the output wants the level.
func (h *handler) Enabled(ctx context.Context, l slog.Level) bool { return h.out.Enabled(ctx, l) }

// Handle writes one record.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	sc := trace.SpanContextFromContext(ctx)
	if r.Level >= slog.LevelInfo && !Suppressed(ctx) {
		h.obs.addLog(h.record(r, sc))
	}
	if sc.IsValid() && sc.IsSampled() { // an ID that can be looked up
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()))
	}
	return h.out.Handle(ctx, r)
}

func (h *handler) record(r slog.Record, sc trace.SpanContext) telemetry.LogRecord {
	attrs := slices.Clone(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		attrs = appendAttr(attrs, h.prefix, a)
		return true
	})
	now := h.now()
	t := r.Time
	if t.IsZero() {
		t = now
	}
	return telemetry.LogRecord{
		Time: t.UnixNano(), Observed: now.UnixNano(),
		Severity: severity(r.Level), SeverityText: r.Level.String(),
		TraceID: telemetry.TraceID(sc.TraceID()), SpanID: telemetry.SpanID(sc.SpanID()), Flags: uint32(sc.TraceFlags()),
		Body: telemetry.String(r.Message), Attrs: telemetry.NewAttrs(attrs),
	}
}

// WithAttrs returns a handler that adds attrs to every record.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.out = h.out.WithAttrs(attrs)
	c.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		c.attrs = appendAttr(c.attrs, h.prefix, a)
	}
	return &c
}

// WithGroup returns a handler that puts what is added later into a group.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.out = h.out.WithGroup(name)
	c.prefix += name + "."
	return &c
}

// severity is OTLP's number of a level: slog's levels are four apart, as OTLP's are.
func severity(l slog.Level) uint8 { return uint8(min(max(int(l)+9, 1), 24)) }

func appendAttr(dst []telemetry.Attr, prefix string, a slog.Attr) []telemetry.Attr {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, g := range v.Group() {
			dst = appendAttr(dst, prefix, g)
		}
		return dst
	}
	if a.Key == "" {
		return dst
	}
	return append(dst, telemetry.Attr{Key: prefix + a.Key, Value: logValue(v)})
}

func logValue(v slog.Value) telemetry.Value {
	switch v.Kind() {
	case slog.KindBool:
		return telemetry.Bool(v.Bool())
	case slog.KindInt64:
		return telemetry.Int(v.Int64())
	case slog.KindFloat64:
		return telemetry.Double(v.Float64())
	case slog.KindAny:
		switch x := v.Any().(type) {
		case encoding.TextMarshaler: // as slog's own handlers do
			if b, err := x.MarshalText(); err == nil {
				return telemetry.String(string(b))
			}
			return telemetry.String(fmt.Sprintf("!%T", x))
		case error:
			return telemetry.String(x.Error())
		default:
			return telemetry.String(fmt.Sprintf("%+v", x))
		}
	default:
		return telemetry.String(v.String())
	}
}
