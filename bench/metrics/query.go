package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/braidobs/braid/bench/harness"
)

// query is one that is measured.
type query struct {
	name  string
	path  string
	expr  string        // of PromQL
	match string        // of the endpoints about labels
	span  time.Duration // how far back a range goes; 0 for an instant
	step  time.Duration
	least time.Duration // the load that it needs
}

func queries() []query {
	const instant, ranged = "/api/v1/query", "/api/v1/query_range"
	const quantile = `histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))`
	const podRate = `sum by (pod) (rate(http_requests_total[5m]))`
	return []query{
		{name: "histogram_quantile, all buckets, 1h/60s", path: ranged, expr: quantile, span: time.Hour, step: time.Minute},
		{name: "sum by (namespace) (rate), 1h/60s", path: ranged, expr: `sum by (namespace) (rate(container_cpu_usage_seconds_total[5m]))`, span: time.Hour, step: time.Minute},
		{name: "sum by (pod) (rate), 1h/30s", path: ranged, expr: podRate, span: time.Hour, step: 30 * time.Second},
		{name: "group_left with kube_pod_labels", path: instant, expr: `sum by (label_team) (container_memory_working_set_bytes * on (namespace, pod) group_left (label_team) kube_pod_labels)`},
		{name: "error ratio [1h]", path: instant, expr: `sum(rate(http_requests_total{code="500"}[1h])) / sum(rate(http_requests_total[1h]))`},
		{name: "subquery max_over_time", path: instant, expr: `max_over_time(sum(rate(container_cpu_usage_seconds_total[5m]))[30m:1m])`},
		{name: "count over all", path: instant, expr: `count({__name__=~".+"})`},
		{name: "topk of a gauge", path: instant, expr: `topk(10, container_memory_working_set_bytes)`},
		{name: "rate with a regex", path: ranged, expr: `sum(rate(http_requests_total{code=~"5..",handler=~"/api/.*"}[5m]))`, span: time.Hour, step: time.Minute},
		{name: "raw gauge of a pod's app, 1h/15s", path: ranged, expr: `go_goroutines{app="service-01"}`, span: time.Hour, step: 15 * time.Second},
		{name: "avg_over_time of memory, 1h/60s", path: ranged, expr: `avg by (namespace) (avg_over_time(container_memory_rss[10m]))`, span: time.Hour, step: time.Minute},
		{name: "absent and unless", path: instant, expr: `count(up unless on (pod) (process_open_fds > 40))`},
		{name: "label values, matched", path: "/api/v1/label/pod/values", match: `{__name__="up",namespace="team-03"}`},
		{name: "label values, all names", path: "/api/v1/label/__name__/values"},
		{name: "label names", path: "/api/v1/labels"},
		{name: "series of an app", path: "/api/v1/series", match: `http_requests_total{app="service-01"}`},
		{name: "24h/60s, sum rate", path: ranged, expr: `sum(rate(http_requests_total[5m]))`, span: 24 * time.Hour, step: time.Minute, least: 24 * time.Hour},
		{name: "24h/5m, histogram_quantile", path: ranged, expr: quantile, span: 24 * time.Hour, step: 5 * time.Minute, least: 24 * time.Hour},
	}
}

// params are the parameters of the query for repetition n: each looks at a time of its own, so that no cache of
// results helps anybody.
func (q *query) params(l load, n int) url.Values {
	end := l.end.Add(-time.Duration(n) * time.Second)
	from := end.Add(-min(q.span, l.duration))
	unix := func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
	v := url.Values{"nocache": {"1"}}
	switch {
	case q.expr == "":
		v.Set("start", unix(l.end.Add(-l.duration)))
		v.Set("end", unix(end))
		if q.match != "" {
			v.Set("match[]", q.match)
		}
	case q.span == 0:
		v.Set("query", q.expr)
		v.Set("time", unix(end))
	default:
		v.Set("query", q.expr)
		v.Set("start", unix(from))
		v.Set("end", unix(end))
		v.Set("step", strconv.Itoa(int(q.step/time.Second)))
	}
	return v
}

// measure asks the query again and again.
func (q *query) measure(ctx context.Context, t *target, l load) harness.Cost {
	return t.s.Measure(ctx, 5, 400, func(ctx context.Context, n int) ([]byte, error) {
		return t.get(ctx, http.MethodGet, q.path, q.params(l, n%60))
	})
}

// answer is what the endpoints of Prometheus answer, as far as it is compared.
type answer struct {
	Data json.RawMessage `json:"data"`
}

// points are the values of a series by time.
type points map[string]string

// compare returns how two answers differ, "" when values agree to 1e-9 and everything else exactly.
func compare(want, got []byte) (string, error) {
	w, err := flatten(want)
	if err != nil {
		return "", err
	}
	g, err := flatten(got)
	if err != nil {
		return "", err
	}
	if len(w) != len(g) {
		return fmt.Sprintf("%d series instead of %d", len(g), len(w)), nil
	}
	for name, ps := range w {
		qs, ok := g[name]
		if !ok {
			return "without " + name, nil
		}
		if len(ps) != len(qs) {
			return fmt.Sprintf("%d points instead of %d in %s", len(qs), len(ps), name), nil
		}
		for t, x := range ps {
			if y, ok := qs[t]; !ok || !close9(x, y) {
				return fmt.Sprintf("%s instead of %s at %s in %s", y, x, t, name), nil
			}
		}
	}
	return "", nil
}

// close9 says whether two numbers agree.
func close9(x, y string) bool {
	if x == y {
		return true
	}
	a, err := strconv.ParseFloat(x, 64)
	b, err2 := strconv.ParseFloat(y, 64)
	return err == nil && err2 == nil && !math.IsInf(a, 0) && !math.IsInf(b, 0) && math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b))
}

// flatten turns any answer into series: those about labels have one series without points for each entry.
func flatten(b []byte) (map[string]points, error) {
	var a answer
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, err
	}
	out := make(map[string]points)
	var list []json.RawMessage
	if json.Unmarshal(a.Data, &list) == nil {
		for _, e := range list {
			name, err := canonical(e)
			if err != nil {
				return nil, err
			}
			out[name] = points{}
		}
		return out, nil
	}
	var r struct {
		Result []struct {
			Metric map[string]string    `json:"metric"`
			Value  *[2]json.RawMessage  `json:"value"`
			Values [][2]json.RawMessage `json:"values"`
		} `json:"result"`
	}
	if err := json.Unmarshal(a.Data, &r); err != nil {
		return nil, err
	}
	for _, s := range r.Result {
		name, err := json.Marshal(s.Metric)
		if err != nil {
			return nil, err
		}
		ps := points{}
		if s.Value != nil {
			s.Values = append(s.Values, *s.Value)
		}
		for _, v := range s.Values {
			var text string
			if err := json.Unmarshal(v[1], &text); err != nil {
				return nil, err
			}
			ps[string(v[0])] = text
		}
		out[string(name)] = ps
	}
	return out, nil
}

// canonical writes a name, or labels in the order of their names.
func canonical(e json.RawMessage) (string, error) {
	if len(e) == 0 || e[0] != '{' {
		return string(e), nil
	}
	var m map[string]string
	if err := json.Unmarshal(e, &m); err != nil {
		return "", err
	}
	b, err := json.Marshal(m)
	return string(b), err
}
