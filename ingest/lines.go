package ingest

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/braidobs/braid/ingest/extract"
	"github.com/braidobs/braid/internal/telemetry"
)

// MaxLine is the longest body of a log record that is kept whole, in bytes.
const MaxLine = 1 << 20

// Truncated is the attribute of log records whose bodies were cut to MaxLine. It is what the agent calls it, too.
const Truncated = "log.truncated"

// line cuts the body of a record that is too long, and looks into the body for the severity and the trace when the sender
// told neither. The bytes of the body stay as they are.
func (l *limiter) line(r *telemetry.LogRecord) {
	if r.Body.Kind() != telemetry.KindString {
		return
	}
	text := r.Body.Str()
	if len(text) > MaxLine {
		end := MaxLine
		for end > MaxLine-utf8.UTFMax && !utf8.RuneStart(text[end]) {
			end--
		}
		text = strings.Clone(text[:end]) // the whole is not held by it
		r.Body = telemetry.String(text)
		r.Attrs = telemetry.NewAttrs(append(slices.Clone(r.Attrs), telemetry.Attr{Key: Truncated, Value: telemetry.Bool(true)}))
		l.cut++
	}
	if r.Severity != 0 && !r.TraceID.IsZero() {
		return
	}
	found := extract.Find(text)
	if r.Severity == 0 {
		r.Severity = uint8(found.Severity)
	}
	if r.TraceID.IsZero() && r.SpanID.IsZero() {
		r.TraceID, r.SpanID = found.TraceID, found.SpanID
		if r.TraceID.IsZero() {
			r.SpanID = telemetry.SpanID{} // it belongs to nothing
		}
	}
}
