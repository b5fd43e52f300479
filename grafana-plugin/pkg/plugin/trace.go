package plugin

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/grafana/grafana-plugin-sdk-go/data"
)

// The JSON of OTLP, as far as it is shown.
type (
	otlpTrace struct {
		Trace struct {
			ResourceSpans []otlpResourceSpans `json:"resourceSpans"`
		} `json:"trace"`
	}
	otlpResourceSpans struct {
		Resource struct {
			Attributes []otlpKeyValue `json:"attributes"`
		} `json:"resource"`
		ScopeSpans []struct {
			Scope struct {
				Name    string `json:"name"`
				Version string `json:"version"`
			} `json:"scope"`
			Spans []otlpSpan `json:"spans"`
		} `json:"scopeSpans"`
	}
	otlpSpan struct {
		TraceID      string         `json:"traceId"`
		SpanID       string         `json:"spanId"`
		ParentSpanID string         `json:"parentSpanId"`
		TraceState   string         `json:"traceState"`
		Name         string         `json:"name"`
		Kind         otlpEnum       `json:"kind"`
		Start        nanos          `json:"startTimeUnixNano"`
		End          nanos          `json:"endTimeUnixNano"`
		Attributes   []otlpKeyValue `json:"attributes"`
		Events       []struct {
			At         nanos          `json:"timeUnixNano"`
			Name       string         `json:"name"`
			Attributes []otlpKeyValue `json:"attributes"`
		} `json:"events"`
		Links []struct {
			TraceID    string         `json:"traceId"`
			SpanID     string         `json:"spanId"`
			Attributes []otlpKeyValue `json:"attributes"`
		} `json:"links"`
		Status struct {
			Code    otlpEnum `json:"code"`
			Message string   `json:"message"`
		} `json:"status"`
	}
	otlpKeyValue struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		String *string         `json:"stringValue"`
		Bool   *bool           `json:"boolValue"`
		Int    json.RawMessage `json:"intValue"`
		Double json.RawMessage `json:"doubleValue"`
		Bytes  *string         `json:"bytesValue"`
		Array  *struct {
			Values []otlpValue `json:"values"`
		} `json:"arrayValue"`
		Map *struct {
			Values []otlpKeyValue `json:"values"`
		} `json:"kvlistValue"`
	}
	// otlpEnum is a number, or one of the names that OTLP gives to kinds and codes.
	otlpEnum int64
)

func (e *otlpEnum) UnmarshalJSON(b []byte) error {
	switch s := strings.Trim(string(b), `"`); s {
	case "SPAN_KIND_INTERNAL", "STATUS_CODE_OK":
		*e = 1
	case "SPAN_KIND_SERVER", "STATUS_CODE_ERROR":
		*e = 2
	case "SPAN_KIND_CLIENT":
		*e = 3
	case "SPAN_KIND_PRODUCER":
		*e = 4
	case "SPAN_KIND_CONSUMER":
		*e = 5
	case "null", "SPAN_KIND_UNSPECIFIED", "STATUS_CODE_UNSET":
		*e = 0
	default:
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return err
		}
		*e = otlpEnum(n)
	}
	return nil
}

func (e otlpEnum) kind() string {
	switch e {
	case 1:
		return "internal"
	case 2:
		return "server"
	case 3:
		return "client"
	case 4:
		return "producer"
	case 5:
		return "consumer"
	}
	return "unspecified"
}

// maxExact is the largest whole number that a browser keeps as it is.
const maxExact = 1 << 53

// plain appends the value as JSON that needs no type to be read. Numbers that a browser would round become strings.
func (v *otlpValue) plain(b []byte) []byte {
	switch {
	case v.String != nil:
		return appendString(b, *v.String)
	case v.Bool != nil:
		return strconv.AppendBool(b, *v.Bool)
	case len(v.Int) > 0:
		s := strings.Trim(string(v.Int), `"`)
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && n < maxExact && n > -maxExact {
			return strconv.AppendInt(b, n, 10)
		}
		return appendString(b, s)
	case len(v.Double) > 0:
		s := strings.Trim(string(v.Double), `"`)
		if f, err := strconv.ParseFloat(s, 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return strconv.AppendFloat(b, f, 'g', -1, 64)
		}
		return appendString(b, s)
	case v.Bytes != nil:
		return appendString(b, *v.Bytes)
	case v.Array != nil:
		b = append(b, '[')
		for i := range v.Array.Values {
			if i > 0 {
				b = append(b, ',')
			}
			b = v.Array.Values[i].plain(b)
		}
		return append(b, ']')
	case v.Map != nil:
		b = append(b, '{')
		for i := range v.Map.Values {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, v.Map.Values[i].Key), ':')
			b = v.Map.Values[i].Value.plain(b)
		}
		return append(b, '}')
	}
	return append(b, `""`...)
}

func appendString(b []byte, s string) []byte {
	q, err := json.Marshal(s)
	if err != nil { // a string can always be encoded
		return append(b, `""`...)
	}
	return append(b, q...)
}

// tags are attributes as the trace view reads them: [{"key": ..., "value": ...}].
func tags(kvs []otlpKeyValue) json.RawMessage {
	b := []byte{'['}
	for i := range kvs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(append(b, `{"key":`...), kvs[i].Key), `,"value":`...)
		b = append(kvs[i].Value.plain(b), '}')
	}
	return append(b, ']')
}

// traceID reads an ID that a person typed or a link carries.
func traceID(s string) (string, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	if s == "" {
		return "", badRequest("the trace ID is empty")
	}
	bad := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
	if len(s) > 32 || bad >= 0 {
		return "", badRequest("%q is not a trace ID: up to 32 hexadecimal digits are one", clip(s))
	}
	return s, nil
}

// trace answers a trace by its ID.
func (d *Datasource) trace(ctx context.Context, q *query) (data.Frames, error) {
	id, err := traceID(q.TraceID)
	if err != nil {
		return nil, err
	}
	body, err := d.client.get(ctx, "/api/v2/traces/"+id, url.Values{})
	if err != nil {
		return nil, err
	}
	f, err := d.traceFrame(body)
	if err != nil {
		return nil, err
	}
	f.Meta.ExecutedQueryString = "Trace: " + id
	return data.Frames{f}, nil
}

// spanRow is a span with what it has of its resource and scope.
type spanRow struct {
	*otlpSpan
	service, namespace, library, version string
	resource                             json.RawMessage
}

// traceFrame has one row for each span, in the order of their starts.
func (d *Datasource) traceFrame(body []byte) (*data.Frame, error) {
	var t otlpTrace
	if err := d.client.decode(body, &t); err != nil {
		return nil, err
	}
	var rows []spanRow
	for i := range t.Trace.ResourceSpans {
		rs := &t.Trace.ResourceSpans[i]
		row := spanRow{resource: tags(rs.Resource.Attributes), service: "unknown_service"}
		for j := range rs.Resource.Attributes {
			switch kv := &rs.Resource.Attributes[j]; {
			case kv.Value.String == nil:
			case kv.Key == "service.name":
				row.service = *kv.Value.String
			case kv.Key == "service.namespace":
				row.namespace = *kv.Value.String
			}
		}
		for j := range rs.ScopeSpans {
			row.library, row.version = rs.ScopeSpans[j].Scope.Name, rs.ScopeSpans[j].Scope.Version
			for k := range rs.ScopeSpans[j].Spans {
				row.otlpSpan = &rs.ScopeSpans[j].Spans[k]
				rows = append(rows, row)
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b spanRow) int { return cmp.Compare(a.Start, b.Start) })
	return d.spanFrame(rows), nil
}

func (d *Datasource) spanFrame(rows []spanRow) *data.Frame {
	f := data.NewFrame("trace")
	f.Meta = &data.FrameMeta{PreferredVisualization: data.VisTypeTrace, Custom: map[string]string{"traceFormat": "otlp"}}
	if len(rows) == 0 {
		return f
	}
	id := rows[0].TraceID // of all of them: the server answers one trace
	text := func(name string, get func(r *spanRow) string) *data.Field {
		c := make([]string, len(rows))
		for i := range rows {
			c[i] = get(&rows[i])
		}
		return data.NewField(name, nil, c)
	}
	number := func(name string, get func(r *spanRow) float64) *data.Field {
		c := make([]float64, len(rows))
		for i := range rows {
			c[i] = get(&rows[i])
		}
		return data.NewField(name, nil, c)
	}
	raw := func(name string, get func(r *spanRow) json.RawMessage) *data.Field {
		c := make([]json.RawMessage, len(rows))
		for i := range rows {
			c[i] = get(&rows[i])
		}
		return data.NewField(name, nil, c)
	}
	parents, codes := make([]*string, len(rows)), make([]int64, len(rows))
	for i := range rows {
		if p := rows[i].ParentSpanID; p != "" {
			parents[i] = &p
		}
		codes[i] = int64(rows[i].Status.Code)
		if codes[i] < 0 || codes[i] > 2 {
			codes[i] = 0
		}
	}
	f.Fields = []*data.Field{
		withLinks(text("traceID", func(r *spanRow) string { return r.TraceID }),
			d.link("Logs of this trace", map[string]any{"queryType": typeTraceLogs, "traceId": id}),
			d.link("Metrics around this trace", map[string]any{"queryType": typeTraceMetrics, "traceId": id})),
		withLinks(text("spanID", func(r *spanRow) string { return r.SpanID }),
			d.link("Logs of this span", map[string]any{"queryType": typeTraceLogs, "traceId": id, "spanId": "${__value.raw}"})),
		data.NewField("parentSpanID", nil, parents),
		text("operationName", func(r *spanRow) string { return r.Name }),
		text("serviceName", func(r *spanRow) string { return r.service }),
		text("serviceNamespace", func(r *spanRow) string { return r.namespace }),
		raw("serviceTags", func(r *spanRow) json.RawMessage { return r.resource }),
		withUnit(number("startTime", func(r *spanRow) float64 { return r.Start.millis() }), "dateTimeAsIso"),
		withUnit(number("duration", func(r *spanRow) float64 { return max(r.End-r.Start, 0).millis() }), "ms"),
		raw("logs", spanEvents),
		raw("references", spanReferences),
		raw("tags", func(r *spanRow) json.RawMessage { return tags(r.Attributes) }),
		text("kind", func(r *spanRow) string { return r.Kind.kind() }),
		data.NewField("statusCode", nil, codes),
		text("statusMessage", func(r *spanRow) string { return r.Status.Message }),
		text("instrumentationLibraryName", func(r *spanRow) string { return r.library }),
		text("instrumentationLibraryVersion", func(r *spanRow) string { return r.version }),
		text("traceState", func(r *spanRow) string { return r.TraceState }),
	}
	return f
}

func spanEvents(r *spanRow) json.RawMessage {
	type event struct {
		Timestamp float64         `json:"timestamp"`
		Name      string          `json:"name"`
		Fields    json.RawMessage `json:"fields"`
	}
	out := make([]event, len(r.Events))
	for i := range r.Events {
		out[i] = event{Timestamp: r.Events[i].At.millis(), Name: r.Events[i].Name, Fields: tags(r.Events[i].Attributes)}
	}
	return rawObject(out)
}

func spanReferences(r *spanRow) json.RawMessage {
	type reference struct {
		TraceID string          `json:"traceID"`
		SpanID  string          `json:"spanID"`
		Tags    json.RawMessage `json:"tags"`
	}
	out := make([]reference, len(r.Links))
	for i := range r.Links {
		out[i] = reference{TraceID: r.Links[i].TraceID, SpanID: r.Links[i].SpanID, Tags: tags(r.Links[i].Attributes)}
	}
	return rawObject(out)
}
