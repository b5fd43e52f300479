package correlate

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Trace is a trace with everything that belongs to it.
type Trace struct {
	TraceID           string        `json:"traceID"`
	StartTimeUnixNano string        `json:"startTimeUnixNano"`
	DurationNanos     int64         `json:"durationNanos"`
	Services          []string      `json:"services"`
	Errors            int           `json:"errors"` // spans with status error
	Spans             []Span        `json:"spans"`  // in the order of their start
	Logs              []Log         `json:"logs"`   // in the order of time
	Entities          []TraceEntity `json:"entities"`
	Truncated         []string      `json:"truncated,omitempty"` // what was left out, and by which setting
	Warnings          []string      `json:"warnings,omitempty"`
	Links             Links         `json:"links"`
}

// Links are paths that ask for parts of the answer again.
type Links struct {
	Trace string `json:"trace,omitempty"`
	Logs  string `json:"logs,omitempty"`
	Self  string `json:"self"`
}

// Span is one span.
type Span struct {
	SpanID            string          `json:"spanID"`
	ParentSpanID      string          `json:"parentSpanID,omitempty"`
	Name              string          `json:"name"`
	Service           string          `json:"service"`
	Pod               string          `json:"pod,omitempty"`
	Kind              string          `json:"kind"`
	Status            string          `json:"status"`
	StatusMessage     string          `json:"statusMessage,omitempty"`
	StartTimeUnixNano string          `json:"startTimeUnixNano"`
	DurationNanos     int64           `json:"durationNanos"`
	Attributes        json.RawMessage `json:"attributes"`         // an object
	Resource          string          `json:"resource,omitempty"` // its ID among the entities' resources
}

// Log is one log record.
type Log struct {
	TimeUnixNano string            `json:"timeUnixNano"`
	Severity     string            `json:"severity,omitempty"`
	Body         string            `json:"body"`
	SpanID       string            `json:"spanID,omitempty"`
	Service      string            `json:"service,omitempty"`
	Pod          string            `json:"pod,omitempty"`
	Stream       map[string]string `json:"stream"`
	Attributes   json.RawMessage   `json:"attributes"` // an object
	Resource     string            `json:"resource,omitempty"`
}

// TraceEntity is a pod or a service that took part in a trace, with its series around it.
type TraceEntity struct {
	Entity
	Spans     int        `json:"spans"`
	Errors    int        `json:"errors"`
	Logs      int        `json:"logs"`
	Resources []Resource `json:"resources"`
	Series    []Series   `json:"series"`
	Link      string     `json:"link"` // path of the resource's own answer
}

// Resource is a set of attributes as it was sent.
type Resource struct {
	ID                string          `json:"id"`
	SchemaURL         string          `json:"schemaURL,omitempty"`
	Attributes        json.RawMessage `json:"attributes"` // an object
	FirstTimeUnixNano string          `json:"firstTimeUnixNano"`
	LastTimeUnixNano  string          `json:"lastTimeUnixNano"`
}

func resourcesOf(e *telemetry.Entity) []Resource {
	out := make([]Resource, 0, len(e.Resources))
	for _, r := range e.Resources {
		out = append(out, Resource{
			ID: r.Resource.ID.String(), SchemaURL: r.Resource.SchemaURL, Attributes: object(r.Resource.Attrs),
			FirstTimeUnixNano: strconv.FormatInt(r.Start, 10), LastTimeUnixNano: strconv.FormatInt(r.End, 10),
		})
	}
	return out
}

func object(as telemetry.Attrs) json.RawMessage { return as.AppendJSON(nil) }

// Trace joins everything to one trace: the log records that carry its ID, the pods and services that ran it, and
// their key series from a window before its start to a window after its end. An unknown trace is NotFound.
func (c *Correlator) Trace(ctx context.Context, tenant telemetry.Tenant, id telemetry.TraceID) (*Trace, error) {
	start := c.now()
	defer func() { c.took.WithLabelValues("trace").Observe(c.now().Sub(start).Seconds()) }()
	v, err := c.reader.View(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	t := &Trace{
		TraceID: id.String(), Spans: []Span{}, Logs: []Log{}, Entities: []TraceEntity{}, Services: []string{},
		Links: Links{Trace: "/api/v2/traces/" + id.String(), Self: "/api/v1/correlate/trace/" + id.String()},
	}
	resources := make(map[telemetry.ResourceID]bool)
	lo, hi, err := c.spans(ctx, v, tenant, id, t, resources)
	if err != nil {
		return nil, err
	}
	if len(t.Spans) == 0 {
		return nil, httpapi.NotFoundf("trace %s is not stored for this tenant", id)
	}
	t.StartTimeUnixNano, t.DurationNanos = strconv.FormatInt(lo, 10), hi-lo
	window := c.cfg.Window.Std().Nanoseconds()
	from, to := bounded(lo)-window, bounded(hi)+window
	streams, err := c.logs(ctx, v, tenant, id, t, resources, from, to)
	if err != nil {
		return nil, err
	}
	if len(streams) > 0 {
		t.Links.Logs = logLink(streams, from, to)
	}
	ids := make([]telemetry.ResourceID, 0, len(resources))
	for r := range resources {
		ids = append(ids, r)
	}
	found, err := Involved(ctx, v, tenant, ids, from, to)
	if err != nil {
		return nil, err
	}
	for i := range found {
		e := &found[i]
		te := TraceEntity{Entity: EntityOf(e), Resources: resourcesOf(e), Link: resourceLink(e.Key, from, to)}
		own := speakersOf(e)
		for j := range t.Spans {
			s := &t.Spans[j]
			if at, _ := strconv.ParseInt(s.StartTimeUnixNano, 10, 64); own.named(s.Resource, at) {
				te.Spans++
				if s.Status == telemetry.StatusError.String() {
					te.Errors++
				}
				if e.Key.Kind == telemetry.EntityPod {
					s.Pod = te.Pod
				}
			}
		}
		for j := range t.Logs {
			l := &t.Logs[j]
			if at, _ := strconv.ParseInt(l.TimeUnixNano, 10, 64); own.named(l.Resource, at) {
				te.Logs++
				if e.Key.Kind == telemetry.EntityPod {
					l.Pod = te.Pod
				}
			}
		}
		if te.Series, err = c.keySeries(ctx, v, tenant, own.ids(), from/1e6, to/1e6); err != nil {
			return nil, err
		}
		t.Entities = append(t.Entities, te)
	}
	t.Warnings = v.Warnings()
	return t, nil
}

// named is covers for a resource known by the text of its ID.
func (s speakers) named(id string, t int64) bool {
	for r, spans := range s {
		if r.String() == id {
			return slices.ContainsFunc(spans, func(x telemetry.ResourceSpan) bool { return t >= x.Start && t <= x.End })
		}
	}
	return false
}

// spans reads the spans of the trace and returns the time that they take.
func (c *Correlator) spans(ctx context.Context, v storage.View, tenant telemetry.Tenant, id telemetry.TraceID, t *Trace, resources map[telemetry.ResourceID]bool) (lo, hi int64, err error) {
	lo, hi = math.MaxInt64, math.MinInt64
	q := storage.SpanQuery{
		Tenant: tenant, Start: math.MinInt64, End: math.MaxInt64, Where: storage.TraceIn{id}, Order: storage.OldestFirst, Limit: c.cfg.MaxSpans + 1,
		Columns: storage.SpanResource | storage.SpanNames | storage.SpanAttrs | storage.SpanMessages,
	}
	for b, err := range v.Spans(ctx, q) {
		if err != nil {
			return 0, 0, err
		}
		for i := range b.Len() {
			if len(t.Spans) == c.cfg.MaxSpans {
				t.Truncated = append(t.Truncated, fmt.Sprintf("spans after the first %d (setting correlate.max_spans)", c.cfg.MaxSpans))
				break
			}
			s := Span{
				SpanID: b.SpanID[i].String(), Name: b.Name[i], Kind: b.Kind[i].String(), Status: b.Status[i].String(), StatusMessage: b.StatusMessage[i],
				StartTimeUnixNano: strconv.FormatInt(b.Start[i], 10), DurationNanos: b.Duration[i], Attributes: object(b.Attrs[i]),
			}
			if !b.ParentID[i].IsZero() {
				s.ParentSpanID = b.ParentID[i].String()
			}
			if r := b.ResourceOf(i); r != nil {
				resources[r.ID] = true
				s.Resource, s.Service = r.ID.String(), r.Attrs.Text("service.name")
				if s.Service != "" && !slices.Contains(t.Services, s.Service) {
					t.Services = append(t.Services, s.Service)
				}
			}
			if b.Status[i] == telemetry.StatusError {
				t.Errors++
			}
			lo, hi = min(lo, b.Start[i]), max(hi, b.Start[i]+b.Duration[i])
			t.Spans = append(t.Spans, s)
		}
	}
	return lo, hi, nil
}

// logs reads the records that carry the trace's ID and returns their streams.
func (c *Correlator) logs(ctx context.Context, v storage.View, tenant telemetry.Tenant, id telemetry.TraceID, t *Trace, resources map[telemetry.ResourceID]bool, from, to int64) ([]telemetry.LabelSet, error) {
	var streams []telemetry.LabelSet
	q := storage.LogQuery{
		Tenant: tenant, Start: from, End: to, Where: storage.TraceIn{id}, Order: storage.OldestFirst, Limit: c.cfg.MaxLogs + 1,
		Columns: storage.LogStream | storage.LogResource | storage.LogBody | storage.LogAttrs | storage.LogSeverity | storage.LogTraceID,
	}
	for b, err := range v.Logs(ctx, q) {
		if err != nil {
			return nil, err
		}
		for i := range b.Len() {
			if len(t.Logs) == c.cfg.MaxLogs {
				t.Truncated = append(t.Truncated, fmt.Sprintf("log records after the first %d (setting correlate.max_logs)", c.cfg.MaxLogs))
				break
			}
			l := Log{
				TimeUnixNano: strconv.FormatInt(b.Time[i], 10), Severity: severity(b.Severity[i], b.SeverityText[i]), Body: b.Body[i].Text(),
				Stream: map[string]string{}, Attributes: object(b.Attrs[i]),
			}
			b.StreamOf(i).Range(func(k, v string) { l.Stream[k] = v })
			if !slices.Contains(streams, b.StreamOf(i)) {
				streams = append(streams, b.StreamOf(i))
			}
			if !b.SpanID[i].IsZero() {
				l.SpanID = b.SpanID[i].String()
			}
			if r := b.ResourceOf(i); r != nil {
				resources[r.ID] = true
				l.Resource, l.Service = r.ID.String(), r.Attrs.Text("service.name")
			}
			t.Logs = append(t.Logs, l)
		}
	}
	return streams, nil
}

// severity returns the text as sent, or the name of OTLP's range that the number lies in.
func severity(n uint8, text string) string {
	if text != "" || n == 0 || n > 24 {
		return text
	}
	return [...]string{"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"}[(n-1)/4]
}

// logLink is a LogQL query for the services that logged under the trace, around it.
func logLink(streams []telemetry.LabelSet, from, to int64) string {
	var services []string
	for _, s := range streams {
		if name := s.Get("service_name"); name != "" && !slices.Contains(services, name) {
			services = append(services, name)
		}
	}
	slices.Sort(services)
	matcher := `service_name=~".+"`
	if len(services) > 0 {
		quoted := make([]string, len(services))
		for i, s := range services {
			quoted[i] = regexpQuote(s)
		}
		matcher = "service_name=~" + strconv.Quote(strings.Join(quoted, "|"))
	}
	return "/loki/api/v1/query_range?" + encode("query", "{"+matcher+"}", "start", strconv.FormatInt(from, 10), "end", strconv.FormatInt(to, 10), "limit", "1000")
}
