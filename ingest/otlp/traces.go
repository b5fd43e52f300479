package otlp

import (
	"errors"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Reasons that records are rejected for while they are translated, the values of the label reason.
const (
	reasonID        = "invalid_id"
	reasonDepth     = "too_deep"
	reasonName      = "invalid_name"
	reasonHistogram = "invalid_histogram"
	reasonTemporal  = "invalid_temporality"
	reasonLabels    = "too_many_labels"
)

// request is a translated request.
type request struct {
	batches  []telemetry.Batch
	rejected storage.Rejected
	refused  map[string]int // by reason
	timeless bool           // some record had no time of its own
}

func (r *request) refuse(reason string, n int, format string, args ...any) {
	if r.refused == nil {
		r.refused = make(map[string]int)
	}
	r.refused[reason] += n
	r.rejected.Reason(format, args...)
}

var (
	errTraceID = errors.New("a span has no valid trace ID")
	errSpanID  = errors.New("a span has no valid span ID")
)

// rejectSpans counts n spans that cannot be translated.
func (r *request) rejectSpans(n int, err error) {
	reason := reasonID
	if errors.Is(err, errDepth) {
		reason = reasonDepth
	}
	r.rejected.Spans += n
	r.refuse(reason, n, "%v", err)
}

// translateTraces translates spans.
func translateTraces(td ptrace.Traces) request {
	var req request
	var bs batches
	var scs scopes
	for _, rs := range td.ResourceSpans().All() {
		n := 0
		for _, ss := range rs.ScopeSpans().All() {
			n += ss.Spans().Len()
		}
		if n == 0 {
			continue
		}
		i, err := bs.get(rs.Resource(), rs.SchemaUrl())
		if err != nil {
			req.rejectSpans(n, err)
			continue
		}
		b := &bs.list[i]
		if b.Spans == nil {
			b.Spans = make([]telemetry.Span, 0, n)
		}
		for _, ss := range rs.ScopeSpans().All() {
			sc, err := scs.get(ss.Scope(), ss.SchemaUrl())
			if err != nil {
				req.rejectSpans(ss.Spans().Len(), err)
				continue
			}
			for _, s := range ss.Spans().All() {
				out, err := convertSpan(s)
				if err != nil {
					req.rejectSpans(1, err)
					continue
				}
				req.timeless = req.timeless || out.Start == 0
				out.Scope = sc
				b.Spans = append(b.Spans, out)
			}
		}
	}
	req.batches = bs.list
	return req
}

func convertSpan(s ptrace.Span) (telemetry.Span, error) {
	out := telemetry.Span{
		TraceID: telemetry.TraceID(s.TraceID()), SpanID: telemetry.SpanID(s.SpanID()), ParentID: telemetry.SpanID(s.ParentSpanID()),
		Flags: s.Flags(), Start: nanos(s.StartTimestamp()), End: nanos(s.EndTimestamp()),
		Name: s.Name(), State: s.TraceState().AsRaw(), StatusMessage: s.Status().Message(),
		DroppedAttrs: s.DroppedAttributesCount(), DroppedEvents: s.DroppedEventsCount(), DroppedLinks: s.DroppedLinksCount(),
	}
	if out.TraceID.IsZero() {
		return out, errTraceID
	}
	if out.SpanID.IsZero() {
		return out, errSpanID
	}
	if k := s.Kind(); k >= 0 && k <= ptrace.SpanKindConsumer {
		out.Kind = telemetry.SpanKind(k)
	}
	if c := s.Status().Code(); c >= 0 && c <= ptrace.StatusCodeError {
		out.Status = telemetry.StatusCode(c)
	}
	var err error
	if out.Attrs, err = convertAttrs(s.Attributes(), 0); err != nil {
		return out, err
	}
	if n := s.Events().Len(); n > 0 {
		out.Events = make([]telemetry.Event, 0, n)
		for _, e := range s.Events().All() {
			attrs, err := convertAttrs(e.Attributes(), 0)
			if err != nil {
				return out, err
			}
			out.Events = append(out.Events, telemetry.Event{
				Time: nanos(e.Timestamp()), Name: e.Name(), Attrs: attrs, Dropped: e.DroppedAttributesCount(),
			})
		}
	}
	if n := s.Links().Len(); n > 0 {
		out.Links = make([]telemetry.Link, 0, n)
		for _, l := range s.Links().All() {
			attrs, err := convertAttrs(l.Attributes(), 0)
			if err != nil {
				return out, err
			}
			out.Links = append(out.Links, telemetry.Link{
				TraceID: telemetry.TraceID(l.TraceID()), SpanID: telemetry.SpanID(l.SpanID()), State: l.TraceState().AsRaw(),
				Flags: l.Flags(), Attrs: attrs, Dropped: l.DroppedAttributesCount(),
			})
		}
	}
	return out, nil
}

// nanos returns a time as the model keeps it. Times beyond the year 2262 become the last one that it can hold.
func nanos(t pcommon.Timestamp) int64 {
	const last = 1<<63 - 1
	return int64(min(uint64(t), last))
}

// millis returns a time as samples keep it.
func millis(t pcommon.Timestamp) int64 { return nanos(t) / 1_000_000 }
