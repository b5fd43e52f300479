package main

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/braidobs/braid/bench/harness"
)

// query is one that is measured, in LogQL and in the language of VictoriaLogs.
type query struct {
	name    string
	logql   string
	instant bool // else over the whole time, in steps of a minute
	limit   int  // for lines
	logsql  string
}

// queries returns what is asked; a trace ID stands for TRACE.
func queries() []query {
	return []query{
		{name: "needle", logql: `{namespace=~".+"} |= "` + needleWord + `"`, limit: 100, logsql: `"` + needleWord + `"`},
		{name: "absent word", logql: `{namespace=~".+"} |= "` + absentWord + `"`, limit: 100, logsql: `"` + absentWord + `"`},
		{name: "all lines of a trace", logql: `{namespace=~".+"} |= "TRACE"`, limit: 1000, logsql: `TRACE`},
		{name: "app and substring, newest 100", logql: `{app="app-03"} |= "` + substring + `"`, limit: 100, logsql: `{app="app-03"} "` + substring + `" | sort by (_time desc) limit 100`},
		{name: "regex over all, count", logql: `sum(count_over_time({namespace=~".+"} |~ "` + strings.ReplaceAll(regexText, `\`, `\\`) + `" [RANGE]))`, instant: true, logsql: `~"` + strings.ReplaceAll(regexText, `\`, `\\`) + `" | stats count()`},
		{name: "JSON status and level, count", logql: `sum(count_over_time({app=~"app-0."} | json | status>=500 | level="error" [RANGE]))`, instant: true, logsql: `{app=~"app-0."} status:>=500 level:=error | stats count()`},
		{name: "count by app per minute", logql: `sum by (app) (count_over_time({namespace=~".+"}[1m]))`, logsql: `* | stats by (app, _time:1m) count()`},
		{name: "top 10 paths after JSON", logql: `topk(10, sum by (path) (count_over_time({app=~"app-0."} | json [RANGE])))`, instant: true, logsql: `{app=~"app-0."} | stats by (path) count() n | sort by (n desc) limit 10`},
		{name: "p99 of a duration by app", logql: `quantile_over_time(0.99, {app=~"app-0."} | json | unwrap duration_ms [RANGE]) by (app)`, instant: true, logsql: `{app=~"app-0."} | stats by (app) quantile(0.99, duration_ms)`},
		{name: "label values", logql: "", logsql: "app"},
	}
}

// request returns path and parameters of the query for repetition n: each ends at a time of its own, so that no cache
// of results helps anybody.
func (q *query) request(t *target, l *load, s sent, n int) (string, url.Values) {
	end := l.end.Add(-time.Duration(n) * 10 * time.Millisecond)
	begin := l.end.Add(-l.duration)
	nanos := func(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }
	v := url.Values{"start": {nanos(begin)}, "end": {nanos(end)}}
	if t.name == victoriaLogs {
		if q.logql == "" {
			v.Set("query", "*")
			v.Set("field", q.logsql)
			return "/select/logsql/field_values", v
		}
		v.Set("query", strings.ReplaceAll(q.logsql, "TRACE", s.traceID))
		if q.limit > 0 && !strings.Contains(q.logsql, "sort by") {
			v.Set("limit", strconv.Itoa(q.limit))
		}
		return "/select/logsql/query", v
	}
	if q.logql == "" {
		return "/loki/api/v1/label/app/values", v
	}
	text := strings.ReplaceAll(q.logql, "TRACE", s.traceID)
	if q.instant {
		text = strings.ReplaceAll(text, "RANGE", strconv.FormatInt(end.Sub(begin).Milliseconds(), 10)+"ms")
		return "/loki/api/v1/query", url.Values{"query": {text}, "time": {nanos(end)}}
	}
	v.Set("query", text)
	if q.limit > 0 {
		v.Set("limit", strconv.Itoa(q.limit))
	} else {
		v.Set("step", "60")
	}
	return "/loki/api/v1/query_range", v
}

// measure asks the query again and again.
func (q *query) measure(ctx context.Context, t *target, l *load, s sent) harness.Cost {
	return t.s.Measure(ctx, 3, 300, func(ctx context.Context, n int) ([]byte, error) {
		path, v := q.request(t, l, s, n)
		return t.get(ctx, path, v)
	})
}

// answer is what the endpoints of Loki answer, as far as it is compared.
type answer struct {
	Data struct {
		Result []struct {
			Stream map[string]string `json:"stream"`
			Metric map[string]string `json:"metric"`
			Values [][]any           `json:"values"`
			Value  []any             `json:"value"`
		} `json:"result"`
	} `json:"data"`
}

// sum returns how many lines or points an answer has and the sum of its values: what two servers must agree on.
func sum(b []byte) (points int, total float64, err error) {
	var a answer
	if err := json.Unmarshal(b, &a); err != nil {
		return 0, 0, err
	}
	for _, r := range a.Data.Result {
		vs := r.Values
		if r.Value != nil {
			vs = append(vs, r.Value)
		}
		for _, v := range vs {
			points++
			if r.Metric != nil && len(v) > 1 {
				s, _ := v[1].(string)
				x, err := strconv.ParseFloat(s, 64)
				if err != nil {
					return 0, 0, err
				}
				total += x
			}
		}
	}
	return points, total, nil
}
