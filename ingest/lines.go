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

// streamSeverity returns the severity that the labels of a stream tell, or 0.
func streamSeverity(stream telemetry.LabelSet) uint8 {
	var f extract.Finder
	stream.Range(f.Add)
	return uint8(f.Severity)
}

// line cuts the body of a record that is too long, and looks for the severity and the trace where the sender told none:
// in the attributes, in the labels of the stream, then in the body. What it finds there stays as it is.
func (l *limiter) line(r *telemetry.LogRecord, ofStream uint8) {
	text := ""
	if r.Body.Kind() == telemetry.KindString {
		text = r.Body.Str()
	}
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
	told := func() bool { return r.Severity != 0 && !r.TraceID.IsZero() }
	take := func(found *extract.Found) {
		if r.Severity == 0 {
			r.Severity = uint8(found.Severity)
		}
		if r.TraceID.IsZero() && r.SpanID.IsZero() && found.TraceID != [16]byte{} { // a span alone belongs to nothing
			r.TraceID, r.SpanID = found.TraceID, found.SpanID
		}
	}
	if !told() && len(r.Attrs) > 0 {
		var f extract.Finder
		for i := range r.Attrs {
			switch v := r.Attrs[i].Value; v.Kind() {
			case telemetry.KindString:
				f.Add(r.Attrs[i].Key, v.Str())
			default:
			}
		}
		take(&f.Found)
	}
	if r.Severity == 0 {
		r.Severity = ofStream
	}
	if !told() {
		found := extract.Find(text)
		take(&found)
	}
}
