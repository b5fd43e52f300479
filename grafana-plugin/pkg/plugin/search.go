package plugin

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
)

const (
	defaultTraces = 20
	maxSearchText = 64 << 10
)

// search answers a search for traces as a table, each row with a link to its trace.
func (d *Datasource) search(ctx context.Context, q *query) (data.Frames, error) {
	if len(q.Tags)+len(q.Service) > maxSearchText {
		return nil, badRequest("tags are longer than %d bytes", maxSearchText)
	}
	terms := strings.TrimSpace(q.Tags)
	if q.Service != "" {
		terms = strings.TrimSpace("service.name=" + strconv.Quote(q.Service) + " " + terms)
	}
	params := make(url.Values)
	for name, v := range map[string]string{"tags": terms, "minDuration": q.MinDuration, "maxDuration": q.MaxDuration} {
		if v = strings.TrimSpace(v); v != "" {
			params.Set(name, v)
		}
	}
	return d.find(ctx, q, params, "Search: "+terms)
}

// find answers a search with params besides time and limit; executed is what Grafana shows of it.
func (d *Datasource) find(ctx context.Context, q *query, params url.Values, executed string) (data.Frames, error) {
	limit := q.Limit
	if limit == 0 {
		limit = defaultTraces
	}
	if limit < 0 {
		return nil, badRequest("limit must not be negative")
	}
	params.Set("limit", strconv.Itoa(limit))
	params.Set("start", strconv.FormatInt(q.from.Unix(), 10))
	params.Set("end", strconv.FormatInt(q.to.Unix()+1, 10)) // whole seconds, none left out
	body, err := d.client.get(ctx, "/api/search", params)
	if err != nil {
		return nil, err
	}
	f, err := d.searchFrame(body, limit)
	if err != nil {
		return nil, err
	}
	f.Meta.ExecutedQueryString = executed
	return data.Frames{f}, nil
}

func (d *Datasource) searchFrame(body []byte, limit int) (*data.Frame, error) {
	var a struct {
		Traces []struct {
			TraceID string  `json:"traceID"`
			Service string  `json:"rootServiceName"`
			Name    string  `json:"rootTraceName"`
			Start   nanos   `json:"startTimeUnixNano"`
			Millis  float64 `json:"durationMs"`
			SpanSet struct {
				Matched int64 `json:"matched"`
			} `json:"spanSet"`
		} `json:"traces"`
	}
	if err := d.client.decode(body, &a); err != nil {
		return nil, err
	}
	n := len(a.Traces)
	id, service, name := make([]string, n), make([]string, n), make([]string, n)
	at, took, matched := make([]time.Time, n), make([]float64, n), make([]int64, n)
	for i := range a.Traces {
		t := &a.Traces[i]
		id[i], service[i], name[i], at[i], took[i], matched[i] = t.TraceID, t.Service, t.Name, t.Start.time(), t.Millis, t.SpanSet.Matched
	}
	f := table("traces",
		withLinks(data.NewField("traceID", nil, id), d.traceLink()...), data.NewField("startTime", nil, at),
		data.NewField("service", nil, service), data.NewField("name", nil, name),
		withUnit(data.NewField("duration", nil, took), "ms"), data.NewField("matchedSpans", nil, matched))
	f.Meta.Custom = map[string]int{"limit": limit}
	return f, nil
}
