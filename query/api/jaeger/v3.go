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
	"github.com/braidobs/braid/query/api/otlp"
)

func appendV3Error(dst []byte, code int, message string) []byte {
	dst = strconv.AppendInt(append(dst, `{"error":{"httpCode":`...), int64(code), 10)
	dst = telemetry.AppendJSONString(append(dst, `,"message":`...), message)
	return append(dst, "}}"...)
}

// param returns a parameter, which has two spellings: startTime and start_time.
func param(q url.Values, name string) (value, spelled string) {
	if v := q.Get(name); v != "" {
		return v, name
	}
	var snake strings.Builder
	for _, c := range name {
		if c >= 'A' && c <= 'Z' {
			snake.WriteByte('_')
			c += 'a' - 'A'
		}
		snake.WriteRune(c)
	}
	return q.Get(snake.String()), snake.String()
}

func timeParam(q url.Values, name string, absent int64) (int64, error) {
	v, spelled := param(q, name)
	if v == "" {
		return absent, nil
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		return 0, httpapi.BadDataf("invalid %s %q: want a time like 2026-01-02T15:04:05.999Z", spelled, v)
	}
	return t.UnixNano(), nil
}

func durationParam(q url.Values, name string, absent int64) (int64, error) {
	v, spelled := param(q, name)
	if v == "" {
		return absent, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		return 0, httpapi.BadDataf("invalid %s %q: want a duration like 1.5s or 100ms", spelled, v)
	}
	return int64(d), nil
}

// v3Params reads what to look for.
func v3Params(q url.Values) (p params, err error) {
	p = newParams()
	p.service, _ = param(q, "query.serviceName")
	p.operation, _ = param(q, "query.operationName")
	if p.start, err = timeParam(q, "query.startTimeMin", p.start); err != nil {
		return p, err
	}
	if p.end, err = timeParam(q, "query.startTimeMax", p.end); err != nil {
		return p, err
	}
	if p.shortest, err = durationParam(q, "query.durationMin", p.shortest); err != nil {
		return p, err
	}
	if p.longest, err = durationParam(q, "query.durationMax", p.longest); err != nil {
		return p, err
	}
	depth, spelled := param(q, "query.searchDepth")
	if depth == "" {
		depth, spelled = param(q, "query.numTraces")
	}
	if depth != "" {
		if p.depth, err = strconv.Atoi(depth); err != nil || p.depth < 1 {
			return p, httpapi.BadDataf("invalid %s %q: want a positive number", spelled, depth)
		}
	}
	if text := q.Get("query.attributes"); text != "" {
		if p.attrs, err = pairsOf(text); err != nil {
			return p, httpapi.BadDataf("invalid query.attributes: %w", err)
		}
	}
	if q.Get("query.filter") != "" {
		return p, httpapi.BadDataf("query.filter is not supported; use query.attributes, or TraceQL at /api/search")
	}
	return p, p.check()
}

// pairsOf reads an object of texts.
func pairsOf(text string) (out []pair, err error) {
	var m map[string]string
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, httpapi.BadDataf("want a JSON object of texts: %w", err)
	}
	for k, v := range m {
		out = append(out, pair{k, v})
	}
	return out, nil
}

// collect adds a trace to an answer.
func (a *API) collect(c *call, t *otlp.Traces, id telemetry.TraceID) error {
	return trace(c.ctx, c.view, c.tenant, id, func(res *telemetry.Resource, s *telemetry.Span) error {
		if t.Len() >= a.MaxSpans {
			return a.tooMany()
		}
		t.Add(res, s)
		return nil
	})
}

func (a *API) tooMany() error {
	return httpapi.Errorf(httpapi.QueryLimit, "the traces have more than %d spans (setting tempo.max_spans): ask for fewer traces, or read a large one over gRPC, where it comes in pieces", a.MaxSpans)
}

func (a *API) v3Trace(c *call) ([]byte, error) {
	id, err := telemetry.ParseTraceID(c.r.PathValue("id"))
	if err != nil {
		return nil, httpapi.BadDataf("%w", err)
	}
	t := otlp.Traces{JSON: true}
	if err := a.collect(c, &t, id); err != nil {
		return nil, err
	}
	if t.Len() == 0 {
		return nil, httpapi.NotFoundf("trace %s not found", id)
	}
	return append(t.Append([]byte(`{"result":`)), '}'), nil
}

func (a *API) v3Find(c *call) ([]byte, error) {
	p, err := v3Params(c.query)
	if err != nil {
		return nil, err
	}
	traces, err := find(c.ctx, c.view, c.tenant, &p)
	if err != nil {
		return nil, err
	}
	if len(traces) == 0 {
		return nil, httpapi.NotFoundf("No traces found")
	}
	t := otlp.Traces{JSON: true}
	for _, f := range traces {
		if err := a.collect(c, &t, f.id); err != nil {
			return nil, err
		}
	}
	return append(t.Append([]byte(`{"result":`)), '}'), nil
}

func (a *API) v3Summaries(c *call) ([]byte, error) {
	p, err := v3Params(c.query)
	if err != nil {
		return nil, err
	}
	traces, err := find(c.ctx, c.view, c.tenant, &p)
	if err != nil {
		return nil, err
	}
	list, err := summaries(c.ctx, c.view, c.tenant, traces)
	if err != nil {
		return nil, err
	}
	type service struct {
		Name   string `json:"name"`
		Spans  int    `json:"spanCount"`
		Errors int    `json:"errorSpanCount"`
	}
	type trace struct {
		TraceID  string    `json:"traceId"`
		Service  string    `json:"rootServiceName"`
		Name     string    `json:"rootOperationName"`
		Start    string    `json:"minStartTimeUnixNano"`
		End      string    `json:"maxEndTimeUnixNano"`
		Spans    int       `json:"spanCount"`
		Errors   int       `json:"errorSpanCount"`
		Orphans  int       `json:"orphanSpanCount"`
		Services []service `json:"services"`
	}
	var out struct {
		Summaries []trace `json:"summaries"`
	}
	out.Summaries = []trace{}
	for _, s := range list {
		t := trace{
			TraceID: s.id.String(), Service: s.rootService, Name: s.rootName, Start: strconv.FormatInt(s.start, 10), End: strconv.FormatInt(s.end, 10),
			Spans: s.spans, Errors: s.errors, Orphans: s.orphans,
		}
		for _, x := range s.services {
			t.Services = append(t.Services, service{x.name, x.spans, x.errors})
		}
		out.Summaries = append(out.Summaries, t)
	}
	return json.Marshal(out)
}

func (a *API) v3Services(c *call) ([]byte, error) {
	list, err := services(c.ctx, c.view, c.tenant)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string][]string{"services": list})
}

// jsonOperation is an operation in the answers of both APIs.
type jsonOperation struct {
	Name string `json:"name"`
	Kind string `json:"spanKind"`
}

func (a *API) operationsOf(c *call, service, kind string) ([]jsonOperation, error) {
	if service == "" {
		return nil, httpapi.BadDataf("the parameter service is missing")
	}
	k := telemetry.SpanKind(0)
	if kind != "" {
		var ok bool
		if k, ok = kindOf(kind); !ok {
			return nil, httpapi.BadDataf("invalid span kind %q: want server, client, producer, consumer or internal", kind)
		}
	}
	ops, err := operations(c.ctx, c.view, c.tenant, service, k)
	out := make([]jsonOperation, 0, len(ops))
	for _, op := range ops {
		name := ""
		if op.kind != telemetry.SpanKindUnspecified {
			name = op.kind.String()
		}
		out = append(out, jsonOperation{op.name, name})
	}
	return out, err
}

func (a *API) v3Operations(c *call) ([]byte, error) {
	kind, _ := param(c.query, "spanKind")
	ops, err := a.operationsOf(c, c.query.Get("service"), kind)
	if err != nil {
		return nil, err
	}
	for i := range ops { // this API knows no unspecified kind
		if ops[i].Kind == "" {
			ops[i].Kind = telemetry.SpanKindInternal.String()
		}
	}
	return json.Marshal(map[string][]jsonOperation{"operations": ops})
}

func (a *API) v3Dependencies(c *call) ([]byte, error) {
	start, err := timeParam(c.query, "startTime", math.MinInt64)
	if err != nil {
		return nil, err
	}
	end, err := timeParam(c.query, "endTime", math.MaxInt64)
	if err != nil {
		return nil, err
	}
	ds, err := dependencies(c.ctx, c.view, c.tenant, start, end)
	if err != nil {
		return nil, err
	}
	type link struct {
		Parent string `json:"parent"`
		Child  string `json:"child"`
		Calls  string `json:"callCount"` // a text, as protobuf's JSON has 64 bits
	}
	out := make([]link, 0, len(ds))
	for _, d := range ds {
		out = append(out, link{d.parent, d.child, strconv.FormatUint(d.calls, 10)})
	}
	return json.Marshal(map[string][]link{"dependencies": out})
}
