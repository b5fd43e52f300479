package plugin

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
)

// The answers of the joins, as far as they are shown.
type (
	corrEntity struct {
		Kind      string `json:"kind"`
		ID        string `json:"id"`
		Cluster   string `json:"cluster"`
		Namespace string `json:"namespace"`
		Pod       string `json:"pod"`
		Container string `json:"container"`
		Service   string `json:"service"`
		Host      string `json:"host"`
	}
	corrSeries struct {
		Metric data.Labels `json:"metric"`
		Name   string      `json:"name"`
		Unit   string      `json:"unit"`
		Topic  string      `json:"topic"`
		Query  string      `json:"query"`
		Points []point     `json:"points"`
	}
	corrTrace struct {
		TraceID string `json:"traceID"`
		Logs    []struct {
			At         nanos                      `json:"timeUnixNano"`
			Severity   string                     `json:"severity"`
			Body       string                     `json:"body"`
			SpanID     string                     `json:"spanID"`
			Stream     map[string]json.RawMessage `json:"stream"`
			Attributes map[string]json.RawMessage `json:"attributes"`
		} `json:"logs"`
		Entities []struct {
			corrEntity
			Series []corrSeries `json:"series"`
		} `json:"entities"`
		Truncated []string `json:"truncated"`
		Warnings  []string `json:"warnings"`
	}
	corrResources struct {
		Entities []struct {
			corrEntity
			Related []corrEntity `json:"related"`
			Metrics struct {
				Series int64        `json:"series"`
				Key    []corrSeries `json:"key"`
			} `json:"metrics"`
			Logs struct {
				Records    int64            `json:"records"`
				BySeverity map[string]int64 `json:"bySeverity"`
				PerMinute  [][2]int64       `json:"perMinute"`
			} `json:"logs"`
			Spans struct {
				Count      int64      `json:"count"`
				Errors     int64      `json:"errors"`
				Rate       float64    `json:"ratePerSecond"`
				ErrorRatio float64    `json:"errorRatio"`
				P50        nanos      `json:"p50Nanos"`
				P99        nanos      `json:"p99Nanos"`
				PerMinute  [][3]int64 `json:"perMinute"`
			} `json:"spans"`
		} `json:"entities"`
		Warnings []string `json:"warnings"`
	}
)

// name is what a person calls the entity.
func (e *corrEntity) name() string {
	switch e.Kind {
	case "pod":
		return cmpOr(e.Pod, e.ID)
	case "container":
		return cmpOr(strings.TrimPrefix(e.Pod+"/"+e.Container, "/"), e.ID)
	case "service":
		return cmpOr(e.Service, e.ID)
	}
	return e.ID
}

func cmpOr(a, b string) string {
	if a != "" && a != "/" {
		return a
	}
	return b
}

// correlatedTrace answers the log lines of a trace, or the key series of what ran it.
func (d *Datasource) correlatedTrace(ctx context.Context, q *query) (data.Frames, error) {
	id, err := traceID(q.TraceID)
	if err != nil {
		return nil, err
	}
	body, err := d.client.get(ctx, "/api/v1/correlate/trace/"+id, url.Values{})
	if err != nil {
		return nil, err
	}
	var t corrTrace
	if err := d.client.decode(body, &struct {
		Data *corrTrace `json:"data"`
	}{&t}); err != nil {
		return nil, err
	}
	frames, executed := d.traceMetricFrames(&t), "Metrics around trace: "+id
	if q.QueryType == typeTraceLogs {
		frames, executed = data.Frames{d.traceLogFrame(&t, strings.ToLower(strings.TrimSpace(q.SpanID)))}, "Logs of trace: "+id
	}
	frames[0].Meta.ExecutedQueryString = executed
	notices(frames, data.NoticeSeverityWarning, t.Warnings)
	notices(frames, data.NoticeSeverityInfo, t.Truncated)
	return frames, nil
}

func (d *Datasource) traceLogFrame(t *corrTrace, span string) *data.Frame {
	var lines []line
	for i := range t.Logs {
		in := &t.Logs[i]
		if span != "" && in.SpanID != span {
			continue
		}
		labels := make(map[string]json.RawMessage, len(in.Stream)+len(in.Attributes))
		types := make(map[string]string, len(in.Stream)+len(in.Attributes))
		for k, v := range in.Attributes {
			labels[k], types[k] = v, labelStructured
		}
		for k, v := range in.Stream {
			labels[k], types[k] = v, labelIndexed
		}
		lines = append(lines, line{
			at: in.At, body: in.Body, severity: in.Severity, traceID: t.TraceID, spanID: in.SpanID,
			labels: rawObject(labels), types: rawObject(types),
		})
	}
	return d.logFrame(lines, true, 0)
}

func (d *Datasource) traceMetricFrames(t *corrTrace) data.Frames {
	var frames data.Frames
	seen := make(map[string]bool)
	for i := range t.Entities {
		for j := range t.Entities[i].Series {
			s := &t.Entities[i].Series[j]
			if seen[s.Query] || len(s.Points) == 0 { // a pod and its service have the same series
				continue
			}
			seen[s.Query] = true
			frames = append(frames, d.keyFrame(&t.Entities[i].corrEntity, s))
		}
	}
	if len(frames) == 0 {
		frames = data.Frames{empty(data.FrameTypeTimeSeriesMulti)}
	}
	return frames
}

// keyFrame is a series that a join found, with a link to the query that asks for it.
func (d *Datasource) keyFrame(e *corrEntity, s *corrSeries) *data.Frame {
	f := pointsFrame(e.name()+": "+s.Name, s.Metric, s.Points, 0)
	withLinks(withUnit(f.Fields[1], unit(s.Unit)), d.link("Query", map[string]any{"queryType": typeMetrics, "expr": s.Query}))
	f.Meta.ExecutedQueryString = s.Query
	return f
}

// unit is Grafana's name of a unit of OpenMetrics or UCUM.
func unit(u string) string {
	switch u {
	case "s", "seconds":
		return "s"
	case "ms", "milliseconds":
		return "ms"
	case "By", "bytes":
		return "bytes"
	case "1", "ratio":
		return "percentunit"
	}
	return ""
}

// resource answers what a pod, a container, a service, an instance or a host sent: a table of the entities of that
// name, a table of what is related to them, and series.
func (d *Datasource) resource(ctx context.Context, q *query) (data.Frames, error) {
	name := strings.TrimSpace(q.Resource)
	if name == "" {
		return nil, badRequest("the name of a pod, service, container, instance or host is missing")
	}
	params := url.Values{
		"name":  {name},
		"start": {strconv.FormatInt(q.from.UnixNano(), 10)}, "end": {strconv.FormatInt(q.to.UnixNano(), 10)},
	}
	if q.Kind != "" {
		params.Set("kind", q.Kind)
	}
	body, err := d.client.get(ctx, "/api/v1/correlate/resource", params)
	if err != nil {
		return nil, err
	}
	frames, err := d.resourceFrames(body)
	if err != nil {
		return nil, err
	}
	frames[0].Meta.ExecutedQueryString = strings.TrimSpace("Resource: " + q.Kind + " " + name)
	return frames, nil
}

func (d *Datasource) resourceFrames(body []byte) (data.Frames, error) {
	var a struct {
		Data corrResources `json:"data"`
	}
	if err := d.client.decode(body, &a); err != nil {
		return nil, err
	}
	es := a.Data.Entities
	n := len(es)
	list, related := make([]corrEntity, n), []corrEntity{}
	series, lines, errorLines := make([]int64, n), make([]int64, n), make([]int64, n)
	spans, failures := make([]int64, n), make([]int64, n)
	rate, ratio, p50, p99 := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	var plots data.Frames
	seen := make(map[string]bool)
	for i := range es {
		e := &es[i]
		list[i], series[i], lines[i], spans[i], failures[i] = e.corrEntity, e.Metrics.Series, e.Logs.Records, e.Spans.Count, e.Spans.Errors
		rate[i], ratio[i], p50[i], p99[i] = e.Spans.Rate, e.Spans.ErrorRatio, e.Spans.P50.millis(), e.Spans.P99.millis()
		for s, k := range e.Logs.BySeverity {
			if l := level(s); l == "error" || l == "critical" {
				errorLines[i] += k
			}
		}
		for _, r := range e.Related {
			if key := r.Kind + "\x00" + r.ID; !seen[key] {
				seen[key] = true
				related = append(related, r)
			}
		}
		for j := range e.Metrics.Key {
			if len(e.Metrics.Key[j].Points) > 0 {
				plots = append(plots, d.keyFrame(&e.corrEntity, &e.Metrics.Key[j]))
			}
		}
		count := func(what string, get func(i int) (sec, v int64), n int) {
			ps := make([]point, n)
			for j := range ps {
				sec, v := get(j)
				ps[j] = point{at: time.Unix(sec, 0).UTC(), value: float64(v)}
			}
			if n > 0 {
				plots = append(plots, pointsFrame(e.name()+": "+what, data.Labels{"kind": e.Kind, "id": e.ID}, ps, time.Minute))
			}
		}
		count("log lines per minute", func(j int) (int64, int64) { return e.Logs.PerMinute[j][0], e.Logs.PerMinute[j][1] }, len(e.Logs.PerMinute))
		count("spans per minute", func(j int) (int64, int64) { return e.Spans.PerMinute[j][0], e.Spans.PerMinute[j][1] }, len(e.Spans.PerMinute))
		count("failed spans per minute", func(j int) (int64, int64) { return e.Spans.PerMinute[j][0], e.Spans.PerMinute[j][2] }, len(e.Spans.PerMinute))
	}
	entities := d.entityTable("entities", list,
		data.NewField("series", nil, series), data.NewField("logLines", nil, lines), data.NewField("errorLines", nil, errorLines),
		data.NewField("spans", nil, spans), data.NewField("failedSpans", nil, failures),
		withUnit(data.NewField("spanRate", nil, rate), "reqps"), withUnit(data.NewField("errorRatio", nil, ratio), "percentunit"),
		withUnit(data.NewField("p50", nil, p50), "ms"), withUnit(data.NewField("p99", nil, p99), "ms"))
	frames := slices.Concat(data.Frames{entities, d.entityTable("related", related)}, plots)
	notices(frames, data.NoticeSeverityWarning, a.Data.Warnings)
	return frames, nil
}

// entityTable is a table of identities, each with a link to the resource query about it. Columns of names that none of
// them has are left out; more columns follow the ID.
func (d *Datasource) entityTable(name string, es []corrEntity, more ...*data.Field) *data.Frame {
	column := func(name string, get func(e *corrEntity) string) (field *data.Field, some bool) {
		c := make([]string, len(es))
		for i := range es {
			c[i] = get(&es[i])
			some = some || c[i] != ""
		}
		return data.NewField(name, nil, c), some
	}
	kind, _ := column("kind", func(e *corrEntity) string { return e.Kind })
	called, _ := column("name", (*corrEntity).name)
	id, _ := column("id", func(e *corrEntity) string { return e.ID })
	withLinks(id, d.link("Open resource", map[string]any{"queryType": typeResource, "resource": "${__value.raw}"}))
	fields := append([]*data.Field{kind, called, id}, more...)
	for _, c := range []struct {
		name string
		get  func(e *corrEntity) string
	}{
		{"cluster", func(e *corrEntity) string { return e.Cluster }},
		{"namespace", func(e *corrEntity) string { return e.Namespace }},
		{"pod", func(e *corrEntity) string { return e.Pod }},
		{"service", func(e *corrEntity) string { return e.Service }},
		{"host", func(e *corrEntity) string { return e.Host }},
	} {
		if field, some := column(c.name, c.get); some {
			fields = append(fields, field)
		}
	}
	return table(name, fields...)
}
