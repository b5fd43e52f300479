package jaeger

import (
	"encoding/json"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
)

// The older API answers with data, errors and counts around it.

const oldDepth = 20

func appendOldError(dst []byte, code int, message string) []byte {
	dst = append(dst, `{"data":null,"total":0,"limit":0,"offset":0,"errors":[{"code":`...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = telemetry.AppendJSONString(append(dst, `,"msg":`...), message)
	return append(dst, "}]}"...)
}

func structured(data any, total int) ([]byte, error) {
	return json.Marshal(struct {
		Data   any `json:"data"`
		Total  int `json:"total"`
		Limit  int `json:"limit"`
		Offset int `json:"offset"`
		Errors any `json:"errors"`
	}{data, total, 0, 0, nil})
}

// oldTraceJSON is a trace as Jaeger's user interface reads it.
type oldTraceJSON struct {
	TraceID   string                `json:"traceID"`
	Spans     []oldSpan             `json:"spans"`
	Processes map[string]oldProcess `json:"processes"`
	Warnings  []string              `json:"warnings"`

	numbers map[telemetry.ResourceID]string
}

type oldProcess struct {
	Service string   `json:"serviceName"`
	Tags    []oldTag `json:"tags"`
}

type oldTag struct {
	Key   string `json:"key"`
	Type  string `json:"type"`
	Value any    `json:"value"`
}

type oldReference struct {
	Type    string `json:"refType"`
	TraceID string `json:"traceID"`
	SpanID  string `json:"spanID"`
}

type oldLog struct {
	Time   int64    `json:"timestamp"` // microseconds
	Fields []oldTag `json:"fields"`
}

type oldSpan struct {
	TraceID    string         `json:"traceID"`
	SpanID     string         `json:"spanID"`
	Flags      uint32         `json:"flags,omitempty"`
	Name       string         `json:"operationName"`
	References []oldReference `json:"references"`
	Start      int64          `json:"startTime"` // microseconds
	Duration   int64          `json:"duration"`
	Tags       []oldTag       `json:"tags"`
	Logs       []oldLog       `json:"logs"`
	Process    string         `json:"processID"`
	Warnings   []string       `json:"warnings"`
}

// tagOf returns an attribute as a tag: values that Jaeger has no type for as their JSON.
func tagOf(key string, v telemetry.Value) oldTag {
	switch v.Kind() {
	case telemetry.KindBool:
		return oldTag{key, "bool", v.Bool()}
	case telemetry.KindInt:
		return oldTag{key, "int64", v.Int()}
	case telemetry.KindDouble:
		if f := v.Double(); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return oldTag{key, "float64", f}
		}
		return oldTag{key, "string", v.Text()}
	default:
		return oldTag{key, "string", v.Text()}
	}
}

func tagsOf(as telemetry.Attrs, except string) []oldTag {
	out := make([]oldTag, 0, len(as)+4)
	for i := range as {
		if as[i].Key != except {
			out = append(out, tagOf(as[i].Key, as[i].Value))
		}
	}
	return out
}

// add adds a span, following OpenTelemetry's mapping of its fields to Jaeger's tags.
func (t *oldTraceJSON) add(res *telemetry.Resource, s *telemetry.Span) {
	var id telemetry.ResourceID
	if res != nil {
		id = res.ID
	}
	process, ok := t.numbers[id]
	if !ok {
		process = "p" + strconv.Itoa(len(t.numbers)+1)
		t.numbers[id] = process
		p := oldProcess{Tags: []oldTag{}}
		if res != nil {
			p.Service = res.Attrs.Text("service.name")
			p.Tags = tagsOf(res.Attrs, "service.name")
		}
		t.Processes[process] = p
	}
	out := oldSpan{
		TraceID: s.TraceID.String(), SpanID: s.SpanID.String(), Flags: s.Flags & 0xff, Name: s.Name, References: []oldReference{},
		Start: s.Start / 1000, Duration: s.Duration() / 1000, Tags: tagsOf(s.Attrs, ""), Logs: []oldLog{}, Process: process,
	}
	if !s.ParentID.IsZero() {
		out.References = append(out.References, oldReference{"CHILD_OF", out.TraceID, s.ParentID.String()})
	}
	for i := range s.Links {
		out.References = append(out.References, oldReference{"FOLLOWS_FROM", s.Links[i].TraceID.String(), s.Links[i].SpanID.String()})
	}
	text := func(key, value string) {
		if value != "" {
			out.Tags = append(out.Tags, oldTag{key, "string", value})
		}
	}
	if s.Scope != nil {
		text("otel.scope.name", s.Scope.Name)
		text("otel.scope.version", s.Scope.Version)
	}
	if s.Kind != telemetry.SpanKindUnspecified {
		text("span.kind", s.Kind.String())
	}
	switch s.Status {
	case telemetry.StatusError:
		text("otel.status_code", "ERROR")
		out.Tags = append(out.Tags, oldTag{"error", "bool", true})
	case telemetry.StatusOK:
		text("otel.status_code", "OK")
	case telemetry.StatusUnset:
	}
	text("otel.status_description", s.StatusMessage)
	text("w3c.tracestate", s.State)
	for i := range s.Events {
		e := &s.Events[i]
		l := oldLog{Time: e.Time / 1000, Fields: []oldTag{}}
		if e.Name != "" {
			l.Fields = append(l.Fields, oldTag{"event", "string", e.Name})
		}
		l.Fields = append(l.Fields, tagsOf(e.Attrs, "")...)
		out.Logs = append(out.Logs, l)
	}
	if s.End < s.Start {
		out.Warnings = append(out.Warnings, "the span ends before it starts")
	}
	t.Spans = append(t.Spans, out)
}

// traces returns traces in the order of ids; those that are not stored are left out.
func (a *API) oldTraces(c *call, ids []telemetry.TraceID) ([]oldTraceJSON, error) {
	out := []oldTraceJSON{}
	n := 0
	for _, id := range ids {
		t := oldTraceJSON{TraceID: id.String(), Processes: make(map[string]oldProcess), numbers: make(map[telemetry.ResourceID]string)}
		err := trace(c.ctx, c.view, c.tenant, id, func(res *telemetry.Resource, s *telemetry.Span) error {
			if n++; n > a.MaxSpans {
				return a.tooMany()
			}
			t.add(res, s)
			return nil
		})
		if err != nil {
			return nil, err
		}
		if len(t.Spans) > 0 {
			out = append(out, t)
		}
	}
	return out, nil
}

func (a *API) oldTrace(c *call) ([]byte, error) {
	id, err := telemetry.ParseTraceID(c.r.PathValue("id"))
	if err != nil {
		return nil, httpapi.BadDataf("%w", err)
	}
	list, err := a.oldTraces(c, []telemetry.TraceID{id})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, httpapi.NotFoundf("trace not found")
	}
	return structured(list, 0)
}

// oldParams reads what to look for.
func oldParams(q url.Values, now time.Time) (p params, err error) {
	p = newParams()
	p.service, p.operation, p.depth = q.Get("service"), q.Get("operation"), oldDepth
	micros := func(name string, absent int64) (int64, error) {
		v := q.Get(name)
		if v == "" {
			return absent, nil
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n > math.MaxInt64/1000 || n < math.MinInt64/1000 {
			return 0, httpapi.BadDataf("invalid %s %q: want microseconds since 1970", name, v)
		}
		return n * 1000, nil
	}
	if p.start, err = micros("start", math.MinInt64); err != nil {
		return p, err
	}
	if p.end, err = micros("end", math.MaxInt64); err != nil {
		return p, err
	}
	if lookback := q.Get("lookback"); p.start == math.MinInt64 && lookback != "" && lookback != "custom" {
		d, err := time.ParseDuration(strings.Replace(lookback, "d", "h", 1))
		if err != nil {
			return p, httpapi.BadDataf("invalid lookback %q: want a duration like 1h", lookback)
		}
		if strings.HasSuffix(lookback, "d") {
			d *= 24
		}
		p.start = now.Add(-d).UnixNano()
	}
	if p.shortest, err = durationParam(q, "minDuration", p.shortest); err != nil {
		return p, err
	}
	if p.longest, err = durationParam(q, "maxDuration", p.longest); err != nil {
		return p, err
	}
	if v := q.Get("limit"); v != "" {
		if p.depth, err = strconv.Atoi(v); err != nil || p.depth < 1 {
			return p, httpapi.BadDataf("invalid limit %q: want a positive number", v)
		}
	}
	for _, text := range q["tags"] {
		list, err := pairsOf(text)
		if err != nil {
			return p, httpapi.BadDataf("invalid tags %q: %w", text, err)
		}
		p.attrs = append(p.attrs, list...)
	}
	for _, text := range q["tag"] {
		k, v, ok := strings.Cut(text, ":")
		if !ok {
			return p, httpapi.BadDataf("invalid tag %q: want key:value", text)
		}
		p.attrs = append(p.attrs, pair{k, v})
	}
	return p, p.check()
}

func (a *API) oldFind(c *call) ([]byte, error) {
	var ids []telemetry.TraceID
	for _, text := range c.query["traceID"] {
		id, err := telemetry.ParseTraceID(text)
		if err != nil {
			return nil, httpapi.BadDataf("%w", err)
		}
		if ids = append(ids, id); len(ids) > maxDepth {
			return nil, httpapi.BadDataf("more than %d trace IDs", maxDepth)
		}
	}
	if ids == nil {
		p, err := oldParams(c.query, a.Now())
		if err != nil {
			return nil, err
		}
		traces, err := find(c.ctx, c.view, c.tenant, &p)
		if err != nil {
			return nil, err
		}
		for _, t := range traces {
			ids = append(ids, t.id)
		}
	}
	list, err := a.oldTraces(c, ids)
	if err != nil {
		return nil, err
	}
	return structured(list, 0)
}

func (a *API) oldServices(c *call) ([]byte, error) {
	list, err := services(c.ctx, c.view, c.tenant)
	if err != nil {
		return nil, err
	}
	return structured(list, len(list))
}

func (a *API) oldOperationNames(c *call) ([]byte, error) {
	ops, err := a.operationsOf(c, c.r.PathValue("service"), "")
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, op := range ops {
		if n := len(names); n == 0 || names[n-1] != op.Name {
			names = append(names, op.Name)
		}
	}
	return structured(names, len(names))
}

func (a *API) oldOperations(c *call) ([]byte, error) {
	ops, err := a.operationsOf(c, c.query.Get("service"), c.query.Get("spanKind"))
	if err != nil {
		return nil, err
	}
	return structured(ops, len(ops))
}

func (a *API) oldDependencies(c *call) ([]byte, error) {
	millis := func(name string, absent int64) (int64, error) {
		v := c.query.Get(name)
		if v == "" {
			return absent, nil
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n > math.MaxInt64/int64(time.Millisecond) || n < 0 {
			return 0, httpapi.BadDataf("invalid %s %q: want milliseconds", name, v)
		}
		return n, nil
	}
	end, err := millis("endTs", a.Now().UnixMilli())
	if err != nil {
		return nil, err
	}
	lookback, err := millis("lookback", (24 * time.Hour).Milliseconds())
	if err != nil {
		return nil, err
	}
	ds, err := dependencies(c.ctx, c.view, c.tenant, (end-lookback)*1e6, end*1e6)
	if err != nil {
		return nil, err
	}
	type link struct {
		Parent string `json:"parent"`
		Child  string `json:"child"`
		Calls  uint64 `json:"callCount"`
	}
	out := make([]link, 0, len(ds))
	for _, d := range ds {
		out = append(out, link{d.parent, d.child, d.calls})
	}
	return structured(out, 0)
}
