package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
)

// promAnswer is the envelope of Prometheus's API.
type promAnswer struct {
	Data struct {
		ResultType string          `json:"resultType"`
		Result     json.RawMessage `json:"result"`
	} `json:"data"`
	Warnings []string `json:"warnings"`
	Infos    []string `json:"infos"`
}

// promSeries is one element of a vector or a matrix.
type promSeries struct {
	Metric     data.Labels       `json:"metric"`
	Value      *point            `json:"value"`
	Values     []point           `json:"values"`
	Histogram  json.RawMessage   `json:"histogram"`
	Histograms []json.RawMessage `json:"histograms"`
}

const (
	maxExemplars = 1000
	formatTable  = "table"
)

// metrics answers PromQL: a frame for each series, or with instant a frame for each number.
func (d *Datasource) metrics(ctx context.Context, q *query) (data.Frames, error) {
	step, err := q.step()
	if err != nil {
		return nil, err
	}
	expr := q.expand(q.Expr, step, d.set.scrape)
	if strings.TrimSpace(expr) == "" {
		return nil, badRequest("the PromQL query is empty")
	}
	from, to := q.aligned(step)
	path, params := "/api/v1/query", url.Values{"query": {expr}}
	executed := "Expr: " + expr
	if q.Instant {
		params.Set("time", seconds(q.to.UnixMilli()))
	} else {
		path = "/api/v1/query_range"
		params.Set("start", seconds(from))
		params.Set("end", seconds(to))
		params.Set("step", seconds(step.Milliseconds()))
		executed += "\nStep: " + formatDuration(step)
	}
	body, err := d.client.get(ctx, path, params)
	if err != nil {
		return nil, err
	}
	var a promAnswer
	if err := d.client.decode(body, &a); err != nil {
		return nil, err
	}
	frames, err := d.promFrames(&a, q, step)
	if err != nil {
		return nil, err
	}
	for _, f := range frames {
		f.Meta.ExecutedQueryString = executed
	}
	if q.Exemplars && !q.Instant && !q.fromAlert {
		f, err := d.exemplars(ctx, expr, from, to)
		switch {
		case err != nil: // the series are good without
			notices(frames, data.NoticeSeverityWarning, []string{"exemplars: " + err.Error()})
		case f != nil:
			frames = append(frames, f)
		}
	}
	return frames, nil
}

// promFrames turns a result of any type into frames: at least one.
func (d *Datasource) promFrames(a *promAnswer, q *query, step time.Duration) (data.Frames, error) {
	var (
		frames     data.Frames
		histograms int
	)
	kind := data.FrameTypeTimeSeriesMulti
	switch a.Data.ResultType {
	case "matrix", "vector":
		var list []promSeries
		if err := d.client.decode(a.Data.Result, &list); err != nil {
			return nil, err
		}
		for i := range list {
			if len(list[i].Histogram) > 0 || len(list[i].Histograms) > 0 {
				histograms++
			}
		}
		if a.Data.ResultType == "matrix" {
			frames = matrixFrames(list, q, step)
			break
		}
		if q.Format == formatTable {
			frames, kind = vectorTable(list), data.FrameTypeNumericLong
			break
		}
		kind = data.FrameTypeNumericMulti
		for i := range list {
			if list[i].Value != nil {
				frames = append(frames, number(list[i].Metric, *list[i].Value, q))
			}
		}
	case "scalar":
		var p point
		if err := d.client.decode(a.Data.Result, &p); err != nil {
			return nil, err
		}
		frames = data.Frames{number(nil, p, q)}
	case "string":
		var s [2]json.RawMessage
		var text string
		if err := d.client.decode(a.Data.Result, &s); err != nil {
			return nil, err
		}
		if err := d.client.decode(s[1], &text); err != nil {
			return nil, err
		}
		frames = data.Frames{table("", data.NewField("Value", nil, []string{text}))}
	default:
		return nil, d.client.notBraid("its answer is a %q", clip(a.Data.ResultType))
	}
	if len(frames) == 0 {
		frames = data.Frames{empty(kind)}
	}
	notices(frames, data.NoticeSeverityWarning, a.Warnings)
	notices(frames, data.NoticeSeverityInfo, a.Infos)
	if histograms > 0 {
		notices(frames, data.NoticeSeverityWarning, []string{fmt.Sprintf(
			"%d native histograms are not shown: ask for a number of them, such as histogram_quantile(0.99, ...) or histogram_avg(...)", histograms)})
	}
	return frames, nil
}

func matrixFrames(list []promSeries, q *query, step time.Duration) data.Frames {
	frames := make(data.Frames, 0, len(list))
	for i := range list {
		s := &list[i]
		if len(s.Values) == 0 {
			continue
		}
		frames = append(frames, pointsFrame(legend(q, s.Metric), s.Metric, s.Values, step))
	}
	return frames
}

// pointsFrame has the points in the order of time, each time once.
func pointsFrame(name string, labels data.Labels, ps []point, step time.Duration) *data.Frame {
	byTime := func(a, b point) int { return a.at.Compare(b.at) }
	if !slices.IsSortedFunc(ps, byTime) {
		slices.SortStableFunc(ps, byTime)
	}
	ps = slices.CompactFunc(ps, func(a, b point) bool { return a.at.Equal(b.at) })
	at, values := make([]time.Time, len(ps)), make([]float64, len(ps))
	for i, p := range ps {
		at[i], values[i] = p.at, p.value
	}
	return series(name, labels, at, values, step)
}

func number(labels data.Labels, p point, q *query) *data.Frame {
	v := data.NewField("Value", labels, []float64{p.value})
	v.Config = &data.FieldConfig{DisplayNameFromDS: legend(q, labels)}
	f := data.NewFrame("", v)
	f.Meta = &data.FrameMeta{Type: data.FrameTypeNumericMulti, TypeVersion: contractVersion()}
	return f
}

// vectorTable has a column for each label: numeric-long.
func vectorTable(list []promSeries) data.Frames {
	var names []string
	for i := range list {
		for n := range list[i].Metric {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	columns := make([][]string, len(names))
	var values []float64
	for i := range list {
		if list[i].Value == nil {
			continue
		}
		for j, n := range names {
			columns[j] = append(columns[j], list[i].Metric[n])
		}
		values = append(values, list[i].Value.value)
	}
	if len(values) == 0 {
		return nil
	}
	f := data.NewFrame("")
	for j, n := range names {
		f.Fields = append(f.Fields, data.NewField(n, nil, columns[j]))
	}
	f.Fields = append(f.Fields, data.NewField("Value", nil, values))
	f.Meta = &data.FrameMeta{Type: data.FrameTypeNumericLong, TypeVersion: contractVersion(), PreferredVisualization: data.VisTypeTable}
	return data.Frames{f}
}

// legend names a series: {{label}} in the format is the value of the label; without a format the name is written as in
// PromQL, and a series without labels is called like the query.
func legend(q *query, labels data.Labels) string {
	format := q.LegendFormat
	if format == "" || format == "__auto" {
		if len(labels) == 0 {
			return q.Expr
		}
		return seriesName(labels)
	}
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(format, "{{")
		label, after, closed := strings.Cut(rest, "}}")
		if !ok || !closed {
			b.WriteString(format)
			return b.String()
		}
		b.WriteString(before)
		b.WriteString(labels[strings.TrimSpace(label)])
		format = after
	}
}

func seriesName(labels data.Labels) string {
	names := make([]string, 0, len(labels))
	for n := range labels {
		if n != "__name__" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString(labels["__name__"])
	if len(names) == 0 && b.Len() > 0 {
		return b.String()
	}
	b.WriteByte('{')
	for i, n := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(n + "=" + strconv.Quote(labels[n]))
	}
	b.WriteByte('}')
	return b.String()
}

// exemplars are the exemplars of the series in expr, or nil where there are none.
func (d *Datasource) exemplars(ctx context.Context, expr string, from, to int64) (*data.Frame, error) {
	body, err := d.client.get(ctx, "/api/v1/query_exemplars", url.Values{"query": {expr}, "start": {seconds(from)}, "end": {seconds(to)}})
	if err != nil {
		return nil, err
	}
	return d.exemplarFrame(body)
}

func (d *Datasource) exemplarFrame(body []byte) (*data.Frame, error) {
	var a struct {
		Data []struct {
			SeriesLabels data.Labels `json:"seriesLabels"`
			Exemplars    []struct {
				Labels    data.Labels     `json:"labels"`
				Value     json.RawMessage `json:"value"`
				Timestamp json.RawMessage `json:"timestamp"`
			} `json:"exemplars"`
		} `json:"data"`
	}
	if err := d.client.decode(body, &a); err != nil {
		return nil, err
	}
	var list []exemplar
	for i := range a.Data {
		for j := range a.Data[i].Exemplars {
			in := &a.Data[i].Exemplars[j]
			var p point
			if err := d.client.decode(slices.Concat([]byte("["), in.Timestamp, []byte(","), in.Value, []byte("]")), &p); err != nil {
				return nil, err
			}
			list = append(list, newExemplar(p, a.Data[i].SeriesLabels, in.Labels))
		}
	}
	return d.exemplarsOf(list), nil
}

// exemplar is a point with the labels of its series and its own.
type exemplar struct {
	point
	labels data.Labels
}

func newExemplar(p point, series, own data.Labels) exemplar {
	e := exemplar{p, make(data.Labels, len(own)+len(series))}
	maps.Copy(e.labels, series)
	maps.Copy(e.labels, own)
	return e
}

// exemplarsOf makes the frame of exemplars, nil of none.
func (d *Datasource) exemplarsOf(list []exemplar) *data.Frame {
	if len(list) == 0 {
		return nil
	}
	slices.SortStableFunc(list, func(a, b exemplar) int { return a.at.Compare(b.at) })
	all := len(list)
	list = list[max(0, all-maxExemplars):]
	var names []string
	at, values := make([]time.Time, len(list)), make([]float64, len(list))
	for i := range list {
		at[i], values[i] = list[i].at, list[i].value
		for n := range list[i].labels {
			if n != "Time" && n != "Value" {
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	f := data.NewFrame("exemplar", data.NewField("Time", nil, at), data.NewField("Value", nil, values))
	for _, n := range names {
		column := make([]string, len(list))
		for i := range list {
			column[i] = list[i].labels[n]
		}
		field := data.NewField(n, nil, column)
		if isTraceID(n) {
			withLinks(field, d.traceLink()...)
		}
		f.Fields = append(f.Fields, field)
	}
	f.Meta = &data.FrameMeta{DataTopic: data.DataTopicAnnotations, Custom: map[string]string{"resultType": "exemplar"}}
	if all > len(list) {
		f.AppendNotices(data.Notice{Severity: data.NoticeSeverityInfo, Text: fmt.Sprintf("the newest %d of %d exemplars are shown", len(list), all)})
	}
	return f
}

// isTraceID reports whether a label or a key is one that trace IDs are under.
func isTraceID(name string) bool {
	switch name {
	case "trace_id", "traceID", "traceId", "traceid", "trace.id":
		return true
	}
	return false
}
