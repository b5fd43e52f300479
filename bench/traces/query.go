package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/braidobs/braid/bench/harness"
)

// kindOf is what a question is about.
type kindOf uint8

const (
	search kindOf = iota
	hit           // a trace by ID
	miss
	metrics // over the whole time, in steps of a minute
	values
	tags
	graph
)

// question is one that is measured.
type question struct {
	name    string
	kind    kindOf
	traceql string     // or the tag of values
	jaeger  url.Values // as the HTTP API of Jaeger has it; nil when it cannot be asked there
	// match counts the spans of a trace that answer it; nil when they are not counted.
	match func(t *trace) int
}

// needleUser has a trace in eight thousand.
const needleUser = "user-needle"

func spansWhere(f func(s *span) bool) func(*trace) int {
	return func(t *trace) int {
		n := 0
		for i := range t.spans {
			if f(&t.spans[i]) {
				n++
			}
		}
		return n
	}
}

// below counts spans that match b with an ancestor, or only a parent, that matches a.
func below(parent bool, a, b func(s *span) bool) func(*trace) int {
	return func(t *trace) int {
		at := make(map[[8]byte]int, len(t.spans))
		for i := range t.spans {
			at[t.spans[i].id] = i
		}
		n := 0
		for i := range t.spans {
			if !b(&t.spans[i]) {
				continue
			}
			for p := t.spans[i].parent; p != [8]byte{}; p = t.spans[at[p]].parent {
				if a(&t.spans[at[p]]) {
					n++
					break
				}
				if parent {
					break
				}
			}
		}
		return n
	}
}

func questions() []question {
	service := func(name string) func(*span) bool { return func(s *span) bool { return s.service == name } }
	return []question{
		{name: "by ID, hit", kind: hit},
		{name: "by ID, miss", kind: miss},
		{
			name: "service, operation, duration, tag", traceql: `{ resource.service.name = "checkout" && name = "POST /api/orders" && duration > 30ms && span.http.response.status_code = 200 }`,
			jaeger: url.Values{"service": {"checkout"}, "operation": {"POST /api/orders"}, "minDuration": {"30ms"}, "tags": {`{"http.response.status_code":"200"}`}},
			match: spansWhere(func(s *span) bool {
				return s.service == "checkout" && s.name == "POST /api/orders" && s.end-s.start > 30e6 && s.code == 200
			}),
		},
		{
			name: "needle attribute", traceql: `{ span.user.id = "` + needleUser + `" }`, jaeger: url.Values{"service": {"gateway"}, "tags": {`{"user.id":"` + needleUser + `"}`}},
			match: spansWhere(func(s *span) bool { return s.user == needleUser }),
		},
		{
			name: "service and 5xx", traceql: `{ resource.service.name = "cart" && span.http.response.status_code >= 500 }`,
			jaeger: url.Values{"service": {"cart"}, "tags": {`{"http.response.status_code":"500"}`}},
			match:  spansWhere(func(s *span) bool { return s.service == "cart" && s.code >= 500 }),
		},
		{
			name: "structural >>", traceql: `{ resource.service.name = "frontend" } >> { span.db.system.name = "postgresql" && status = error }`,
			match: below(false, service("frontend"), func(s *span) bool { return s.system == "postgresql" && s.failed }),
		},
		{
			name: "structural >", traceql: `{ resource.service.name = "checkout" && kind = client } > { resource.service.name = "payment" && duration > 10ms }`,
			match: below(true, func(s *span) bool { return s.service == "checkout" && s.kind == kindClient }, func(s *span) bool { return s.service == "payment" && s.end-s.start > 10e6 }),
		},
		{name: "structural, no match", traceql: `{ resource.service.name = "email" } >> { resource.service.name = "frontend" }`, match: below(false, service("email"), service("frontend"))},
		{name: "rate by service", kind: metrics, traceql: `{ } | rate() by (resource.service.name)`},
		{name: "p95 of a service", kind: metrics, traceql: `{ resource.service.name = "checkout" } | quantile_over_time(duration, 0.95)`},
		{name: "tag values", kind: values, traceql: "resource.service.name"},
		{name: "tag names", kind: tags},
		{name: "service graph", kind: graph},
	}
}

// ask asks a question for the n-th time: each ends at a time of its own, so that no cache of results helps anybody. It returns
// nil when the server has no way to be asked.
func (q *question) ask(ctx context.Context, t *target, l *load, s sent, n int) ([]byte, error) {
	end := l.end.Add(time.Duration(n)*time.Second + 10*time.Minute)
	begin := l.end.Add(-l.duration - time.Minute)
	seconds := func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
	micros := func(t time.Time) string { return strconv.FormatInt(t.UnixMicro(), 10) }
	span := url.Values{"start": {seconds(begin)}, "end": {seconds(end)}}
	jaegerAPI := t.name != braid && t.name != tempo
	switch q.kind {
	case hit, miss:
		id := s.ids[(n*37)%len(s.ids)]
		if q.kind == miss {
			id[0], id[5] = byte(n), ^id[5]
		}
		path := "/api/v2/traces/"
		switch t.name {
		case jaeger:
			path = "/api/v3/traces/"
		case victoriaTraces:
			path = t.prefix + "/api/traces/"
		}
		return t.get(ctx, path+hex.EncodeToString(id[:]), nil, q.kind == miss)
	case search:
		if jaegerAPI {
			if q.jaeger == nil {
				return nil, nil
			}
			if t.name == jaeger {
				return t.get(ctx, "/api/v3/traces", v3(q.jaeger, begin, end), true)
			}
			v := url.Values{"start": {micros(begin)}, "end": {micros(end)}, "limit": {"20"}}
			maps.Copy(v, q.jaeger)
			return t.get(ctx, t.prefix+"/api/traces", v, false)
		}
		span.Set("q", q.traceql)
		span.Set("limit", "20")
		return t.get(ctx, "/api/search", span, false)
	case metrics:
		if jaegerAPI {
			return nil, nil
		}
		span.Set("q", q.traceql)
		span.Set("step", "60s")
		return t.get(ctx, "/api/metrics/query_range", span, false)
	case values:
		switch t.name {
		case jaeger:
			return t.get(ctx, "/api/v3/services", nil, false)
		case victoriaTraces:
			return t.get(ctx, t.prefix+"/api/services", nil, false)
		}
		return t.get(ctx, "/api/v2/search/tag/"+q.traceql+"/values", span, false)
	case tags:
		if jaegerAPI {
			return nil, nil
		}
		return t.get(ctx, "/api/v2/search/tags", span, false)
	case graph:
		if t.name == braid {
			rng := strconv.FormatInt(int64(end.Sub(begin)/time.Second), 10) + "s"
			return t.get(ctx, "/api/v1/query", url.Values{
				"query": {"sum by (client, server) (increase(traces_service_graph_request_total[" + rng + "]))"}, "time": {seconds(end)},
			}, false)
		}
		if t.name == jaeger {
			return t.get(ctx, "/api/dependencies", url.Values{"endTs": {strconv.FormatInt(end.UnixMilli(), 10)}, "lookback": {strconv.FormatInt(end.Sub(begin).Milliseconds(), 10)}}, false)
		}
	}
	return nil, nil
}

// v3 is a question of the older API of Jaeger in the form of its present one.
func v3(q url.Values, begin, end time.Time) url.Values {
	v := url.Values{
		"query.start_time_min": {begin.Format(time.RFC3339)}, "query.start_time_max": {end.Format(time.RFC3339)}, "query.search_depth": {"20"},
		"query.service_name": q["service"],
	}
	for old, name := range map[string]string{"operation": "query.operation_name", "minDuration": "query.duration_min", "tags": "query.attributes"} {
		if q.Has(old) {
			v[name] = q[old]
		}
	}
	return v
}

func (q *question) measure(ctx context.Context, t *target, l *load, s sent) harness.Cost {
	return t.s.Measure(ctx, 3, 300, func(ctx context.Context, n int) ([]byte, error) { return q.ask(ctx, t, l, s, n) })
}

// traceIDs are those of spans in OTLP's JSON, where nothing is linked.
var traceIDs = regexp.MustCompile(`"traceId":"([0-9a-f]+)"`)

// found is what an answer to a search or a metrics query tells.
func found(q *question, b []byte) string {
	if b == nil {
		return "cannot be asked"
	}
	var a struct {
		Traces []json.RawMessage `json:"traces"`
		Data   json.RawMessage   `json:"data"`
		Series []struct {
			Samples []json.RawMessage `json:"samples"`
		} `json:"series"`
		TagValues []json.RawMessage `json:"tagValues"`
		Scopes    []struct {
			Tags []json.RawMessage `json:"tags"`
		} `json:"scopes"`
	}
	if json.Unmarshal(b, &a) != nil {
		return strconv.Itoa(len(b)) + " bytes"
	}
	if bytes.HasPrefix(b, []byte(`{"result":`)) {
		ids := make(map[string]bool)
		for _, m := range traceIDs.FindAllSubmatch(b, -1) {
			ids[string(m[1])] = true
		}
		return strconv.Itoa(len(ids)) + " traces"
	}
	var list []json.RawMessage
	if json.Unmarshal(a.Data, &list) == nil && list != nil {
		return strconv.Itoa(len(list)) + " found"
	}
	n := 0
	switch q.kind {
	case metrics:
		for _, s := range a.Series {
			n += len(s.Samples)
		}
		return fmt.Sprintf("%d series, %d samples", len(a.Series), n)
	case values:
		return strconv.Itoa(len(a.TagValues)) + " values"
	case tags:
		for _, s := range a.Scopes {
			n += len(s.Tags)
		}
		return strconv.Itoa(n) + " tags"
	case search:
		return strconv.Itoa(len(a.Traces)) + " traces"
	default:
		return strconv.Itoa(len(b)) + " bytes"
	}
}

// check compares what a Braid says with what was sent: every sampled trace is whole, and every question has as many spans as
// the generator made.
func check(ctx context.Context, t *target, l *load, s sent) error {
	for i, id := range s.ids {
		b, err := t.get(ctx, "/api/v2/traces/"+hex.EncodeToString(id[:]), nil, false)
		if err != nil {
			return fmt.Errorf("trace %x: %w", id, err)
		}
		n, err := spansIn(b)
		if err != nil {
			return err
		}
		if n != s.sizes[i] {
			return fmt.Errorf("trace %x has %d spans, want %d", id, n, s.sizes[i])
		}
	}
	begin, end := l.end.Add(-l.duration-time.Minute), l.end.Add(10*time.Minute)
	for i, q := range questions() {
		if q.match == nil {
			continue
		}
		b, err := t.get(ctx, "/api/metrics/query", url.Values{
			"q": {q.traceql + " | count_over_time()"}, "start": {strconv.FormatInt(begin.Unix(), 10)}, "end": {strconv.FormatInt(end.Unix(), 10)},
		}, false)
		if err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		var a struct {
			Series []struct {
				Value float64 `json:"value"`
			} `json:"series"`
		}
		if err := json.Unmarshal(b, &a); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		got := 0.0
		for _, x := range a.Series {
			got += x.Value
		}
		if int64(got) != s.truth[i].spans {
			return fmt.Errorf("%s: %g spans, want %d", q.name, got, s.truth[i].spans)
		}
		n, err := countTraces(ctx, t, q.traceql, begin, end)
		if err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		if n != s.truth[i].traces {
			return fmt.Errorf("%s: %d traces, want %d", q.name, n, s.truth[i].traces)
		}
	}
	return nil
}

// countTraces searches page by page.
func countTraces(ctx context.Context, t *target, q string, begin, end time.Time) (n int64, err error) {
	v := url.Values{"q": {q}, "limit": {"500"}, "spss": {"1"}, "start": {strconv.FormatInt(begin.Unix(), 10)}, "end": {strconv.FormatInt(end.Unix(), 10)}}
	seen := make(map[string]bool)
	for {
		b, header, err := t.ask(ctx, "/api/search", v, false)
		if err != nil {
			return n, err
		}
		var a struct {
			Traces []struct {
				TraceID string `json:"traceID"`
			} `json:"traces"`
		}
		if err := json.Unmarshal(b, &a); err != nil {
			return n, err
		}
		for _, x := range a.Traces {
			if seen[x.TraceID] {
				return n, fmt.Errorf("trace %s is on two pages", x.TraceID)
			}
			seen[x.TraceID] = true
			n++
		}
		cursor := header.Get("Braid-Cursor")
		if cursor == "" {
			return n, nil
		}
		v.Set("cursor", cursor)
	}
}

// spansIn counts the spans of a trace in JSON.
func spansIn(b []byte) (n int, err error) {
	var a struct {
		Trace struct {
			ResourceSpans []struct {
				ScopeSpans []struct {
					Spans []json.RawMessage `json:"spans"`
				} `json:"scopeSpans"`
			} `json:"resourceSpans"`
		} `json:"trace"`
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return 0, err
	}
	for _, r := range a.Trace.ResourceSpans {
		for _, s := range r.ScopeSpans {
			n += len(s.Spans)
		}
	}
	return n, nil
}
