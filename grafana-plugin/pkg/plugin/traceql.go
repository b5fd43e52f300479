package plugin

import (
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
)

// formatSeries asks for what TraceQL computes; without it a query finds traces.
const formatSeries = "timeseries"

// traceQL answers TraceQL: a table of traces, or with the format of series a frame for each, or each number with instant.
func (d *Datasource) traceQL(ctx context.Context, q *query) (data.Frames, error) {
	step, err := q.step()
	if err != nil {
		return nil, err
	}
	expr := q.expand(q.Expr, step, d.set.scrape)
	if strings.TrimSpace(expr) == "" {
		return nil, badRequest("the TraceQL query is empty")
	}
	if q.Format != formatSeries {
		return d.find(ctx, q, url.Values{"q": {expr}}, "TraceQL: "+expr)
	}
	from, to := q.aligned(step)
	executed := "TraceQL: " + expr
	path, params := "/api/metrics/query_range", url.Values{"q": {expr}, "start": {seconds(from)}, "end": {seconds(to)}, "step": {formatDuration(step)}}
	if q.Instant {
		path, params = "/api/metrics/query", url.Values{"q": {expr}, "start": {seconds(q.from.UnixMilli())}, "end": {seconds(q.to.UnixMilli())}}
	} else {
		executed += "\nStep: " + formatDuration(step)
		if !q.Exemplars || q.fromAlert {
			params.Set("exemplars", "0")
		}
	}
	body, err := d.client.get(ctx, path, params)
	if err != nil {
		return nil, err
	}
	frames, err := d.traceSeries(body, q, step)
	if err != nil {
		return nil, err
	}
	for _, f := range frames {
		f.Meta.ExecutedQueryString = executed
	}
	return frames, nil
}

// otlpLabels are labels as OTLP has attributes.
type otlpLabels []struct {
	Key   string                     `json:"key"`
	Value map[string]json.RawMessage `json:"value"` // one, by its type
}

func (ls otlpLabels) labels() data.Labels {
	out := make(data.Labels, len(ls))
	for _, l := range ls {
		for _, kind := range slices.Sorted(maps.Keys(l.Value)) {
			text := string(l.Value[kind])
			if s, err := strconv.Unquote(text); err == nil {
				text = s
			}
			out[l.Key] = text
		}
	}
	return out
}

// traceSeries turns the answer to a query for numbers into frames: at least one.
func (d *Datasource) traceSeries(body []byte, q *query, step time.Duration) (data.Frames, error) {
	type sample struct {
		Labels otlpLabels `json:"labels"`
		Millis nanos      `json:"timestampMs"` // which JSON has as a string, too
		Value  float64    `json:"value"`
	}
	var a struct {
		Series []struct {
			Labels    otlpLabels `json:"labels"`
			Value     *float64   `json:"value"`
			Samples   []sample   `json:"samples"`
			Exemplars []sample   `json:"exemplars"`
		} `json:"series"`
	}
	if err := d.client.decode(body, &a); err != nil {
		return nil, err
	}
	at := func(s *sample) time.Time { return time.UnixMilli(int64(s.Millis)).UTC() }
	var (
		frames    data.Frames
		exemplars []exemplar
	)
	for i := range a.Series {
		s := &a.Series[i]
		labels := s.Labels.labels()
		if q.Instant {
			if s.Value != nil {
				frames = append(frames, number(labels, point{value: *s.Value}, q))
			}
			continue
		}
		ps := make([]point, len(s.Samples))
		for k := range s.Samples {
			ps[k] = point{at(&s.Samples[k]), s.Samples[k].Value}
		}
		if len(ps) > 0 {
			frames = append(frames, pointsFrame(legend(q, labels), labels, ps, step))
		}
		for k := range s.Exemplars {
			e := &s.Exemplars[k]
			own := e.Labels.labels()
			if id, ok := own["trace:id"]; ok { // the name that links are known by
				delete(own, "trace:id")
				own["traceID"] = id
			}
			exemplars = append(exemplars, newExemplar(point{at(e), e.Value}, labels, own))
		}
	}
	if len(frames) == 0 {
		kind := data.FrameTypeTimeSeriesMulti
		if q.Instant {
			kind = data.FrameTypeNumericMulti
		}
		return data.Frames{empty(kind)}, nil
	}
	if f := d.exemplarsOf(exemplars); f != nil {
		frames = append(frames, f)
	}
	return frames, nil
}
