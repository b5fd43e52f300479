package otlp

import (
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/braidobs/braid/internal/telemetry"
)

const (
	serviceName    = "service.name"
	unknownService = "unknown_service"
)

// translateLogs translates log records; those without a time get now.
func translateLogs(ld plog.Logs, c Config, now time.Time) request {
	var req request
	var bs batches
	var scs scopes
	reject := func(n int, err error) {
		req.rejected.Logs += n
		req.refuse(reasonDepth, n, "%v", err)
	}
	for _, rl := range ld.ResourceLogs().All() {
		n := 0
		for _, sl := range rl.ScopeLogs().All() {
			n += sl.LogRecords().Len()
		}
		if n == 0 {
			continue
		}
		i, err := bs.get(rl.Resource(), rl.SchemaUrl())
		if err != nil {
			reject(n, err)
			continue
		}
		b := &bs.list[i]
		if b.Logs == nil {
			b.Stream = stream(b.Resource.Attrs, c.StreamLabels)
			if b.Source != nil {
				b.Stream = agentStream(b.Resource.Attrs)
				b.Source.Ends = make([]uint64, 0, n)
			}
			b.Logs = make([]telemetry.LogRecord, 0, n)
		}
		for _, sl := range rl.ScopeLogs().All() {
			sc, err := scs.get(sl.Scope(), sl.SchemaUrl())
			if err != nil {
				reject(sl.LogRecords().Len(), err)
				continue
			}
			for _, r := range sl.LogRecords().All() {
				out, err := convertLog(r)
				if err != nil {
					reject(1, err)
					continue
				}
				if b.Source != nil {
					if err := takeEndOf(b, &out); err != nil {
						reject(1, err)
						continue
					}
				}
				if out.Time == 0 {
					out.TimeInferred = true
					if out.Time = out.Observed; out.Time == 0 {
						out.Time = now.UnixNano()
						req.timeless = true
					}
				}
				out.Scope = sc
				b.Logs = append(b.Logs, out)
			}
		}
	}
	req.batches = bs.list
	return req
}

// takeEndOf moves the position after a record from its attributes to the batch's source. When a record has none the
// batch counts as a whole.
func takeEndOf(b *telemetry.Batch, r *telemetry.LogRecord) error {
	rest, end, ok, err := takeEnd(r.Attrs)
	switch {
	case err != nil:
		return err
	case !ok:
		b.Source.Ends = nil
	case b.Source.Ends != nil:
		b.Source.Ends = append(b.Source.Ends, end)
	}
	r.Attrs = rest
	return nil
}

func convertLog(r plog.LogRecord) (telemetry.LogRecord, error) {
	out := telemetry.LogRecord{
		Time: nanos(r.Timestamp()), Observed: nanos(r.ObservedTimestamp()), Flags: uint32(r.Flags()),
		TraceID: telemetry.TraceID(r.TraceID()), SpanID: telemetry.SpanID(r.SpanID()),
		SeverityText: r.SeverityText(), EventName: r.EventName(), Dropped: r.DroppedAttributesCount(),
	}
	if n := r.SeverityNumber(); n > 0 && n <= plog.SeverityNumberFatal4 {
		out.Severity = uint8(n)
	}
	var err error
	if out.Body, err = convertValue(r.Body(), 0); err != nil {
		return out, err
	}
	out.Attrs, err = convertAttrs(r.Attributes(), 0)
	return out, err
}

// stream returns the LogQL stream of a resource: those of its attributes that are listed, with dots as underscores.
func stream(as telemetry.Attrs, names []string) telemetry.LabelSet {
	var ls labelSet
	for _, name := range names {
		if v, ok := as.Get(name); ok {
			ls.set(streamLabel(name), strings.ToValidUTF8(v.Text(), "\uFFFD"))
		}
	}
	if name := streamLabel(serviceName); ls.get(name) == "" {
		ls.set(name, unknownService)
	}
	return telemetry.LabelSet(ls.appendTo(nil))
}

// streamLabel returns the label name of an attribute: what LogQL cannot spell becomes an underscore.
func streamLabel(name string) string {
	out := []byte(name)
	for i, c := range out {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9' || i == 0) {
			out[i] = '_'
		}
	}
	return string(out)
}
