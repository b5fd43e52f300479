package instrument

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// mirror writes log records as JSON lines with the trace context, the way a container writes them to its standard
// error for an agent to tail.
type mirror struct{ slog.Handler }

func newMirror(w io.Writer, id Identity) slog.Handler {
	return mirror{slog.NewJSONHandler(w, nil).WithAttrs([]slog.Attr{
		slog.String("service", id.Service), slog.String("pod", id.Pod),
	})}
}

// Handle adds trace_id and span_id of the context's span.
func (m mirror) Handle(ctx context.Context, r slog.Record) error {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	return m.Handler.Handle(ctx, r)
}

func (m mirror) WithAttrs(attrs []slog.Attr) slog.Handler { return mirror{m.Handler.WithAttrs(attrs)} }

func (m mirror) WithGroup(name string) slog.Handler { return mirror{m.Handler.WithGroup(name)} }
