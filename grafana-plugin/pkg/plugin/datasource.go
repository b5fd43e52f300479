// Package plugin is the backend of the Grafana data source. It asks Braid over HTTP and answers in frames.
//
// A query has one of eight types (see query). Queries of one request run side by side, and one that fails leaves the
// others alone. What the server, the network or the person who asked did wrong is marked as downstream; only faults
// of this package count as the plugin's.
package plugin

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/datasource"
	"github.com/grafana/grafana-plugin-sdk-go/backend/httpclient"
	"github.com/grafana/grafana-plugin-sdk-go/backend/instancemgmt"
	"github.com/grafana/grafana-plugin-sdk-go/backend/resource/httpadapter"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// ID is the plugin's name in Grafana.
const ID = "braidobs-braid-datasource"

// parallel bounds the queries of one request that are asked at the same time.
const parallel = 8

var (
	_ backend.QueryDataHandler      = (*Datasource)(nil)
	_ backend.CheckHealthHandler    = (*Datasource)(nil)
	_ backend.CallResourceHandler   = (*Datasource)(nil)
	_ instancemgmt.InstanceDisposer = (*Datasource)(nil)
)

// Datasource is one configured data source. Grafana's changes of the settings make a new one.
type Datasource struct {
	backend.CallResourceHandler

	set    settings
	client *client
	broken error // why the settings cannot be used
}

// Factory returns what makes a Datasource of its settings. It registers the plugin's metric.
func Factory(reg prometheus.Registerer) (datasource.InstanceFactoryFunc, error) {
	tooLarge := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "braid_plugin_responses_too_large_total",
		Help: "Answers of Braid that were given up because they exceed maxResponseMiB of the data source.",
	})
	if err := reg.Register(tooLarge); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return func(ctx context.Context, s backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
		return newDatasource(ctx, &s, tooLarge), nil
	}, nil
}

// newDatasource never fails: settings that cannot be used are told by each answer, where a person sees them.
func newDatasource(ctx context.Context, s *backend.DataSourceInstanceSettings, tooLarge prometheus.Counter) *Datasource {
	d := &Datasource{}
	d.CallResourceHandler = httpadapter.New(d.resources())
	if d.set, d.broken = parseSettings(s); d.broken != nil {
		return d
	}
	opts, err := s.HTTPClientOptions(ctx)
	if err != nil {
		d.broken = fmt.Errorf("HTTP settings of the data source: %w", err)
		return d
	}
	hc, err := httpclient.New(opts)
	if err != nil {
		d.broken = fmt.Errorf("HTTP settings of the data source: %w", err)
		return d
	}
	d.client = newClient(hc, &d.set, tooLarge)
	return d
}

// Dispose lets go of idle connections. Requests under way go on.
func (d *Datasource) Dispose() {
	if d.client != nil {
		d.client.http.CloseIdleConnections()
	}
}

// QueryData answers every query of a request. It returns an error for none of them: those are in the response.
func (d *Datasource) QueryData(ctx context.Context, req *backend.QueryDataRequest) (*backend.QueryDataResponse, error) {
	answers := make([]backend.DataResponse, len(req.Queries))
	fromAlert := req.Headers["FromAlert"] == "true"
	var g errgroup.Group
	g.SetLimit(parallel)
	for i := range req.Queries {
		g.Go(func() error {
			answers[i] = d.answer(ctx, &req.Queries[i], fromAlert)
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	out := backend.NewQueryDataResponse()
	for i := range req.Queries {
		out.Responses[req.Queries[i].RefID] = answers[i]
	}
	return out, nil
}

func (d *Datasource) answer(ctx context.Context, bq *backend.DataQuery, fromAlert bool) backend.DataResponse {
	frames, err := d.frames(ctx, bq, fromAlert)
	if err != nil {
		return errorResponse(err)
	}
	for _, f := range frames {
		f.RefID = bq.RefID
	}
	return backend.DataResponse{Status: backend.StatusOK, Frames: frames}
}

func (d *Datasource) frames(ctx context.Context, bq *backend.DataQuery, fromAlert bool) (data.Frames, error) {
	if d.broken != nil {
		return nil, badRequest("%w", d.broken)
	}
	var q query
	if err := json.Unmarshal(bq.JSON, &q); err != nil {
		return nil, badRequest("the query is malformed: %w", err)
	}
	if q.QueryType == "" {
		q.QueryType = queryType(bq.QueryType)
	}
	q.from, q.to, q.interval, q.maxPoints, q.fromAlert = bq.TimeRange.From, bq.TimeRange.To, bq.Interval, bq.MaxDataPoints, fromAlert
	if q.to.Before(q.from) {
		return nil, badRequest("the time range ends before it starts")
	}
	switch q.QueryType {
	case typeMetrics, "":
		return d.metrics(ctx, &q)
	case typeLogs:
		return d.logs(ctx, &q)
	case typeTrace:
		return d.trace(ctx, &q)
	case typeTraceLogs, typeTraceMetrics:
		return d.correlatedTrace(ctx, &q)
	case typeSearch:
		return d.search(ctx, &q)
	case typeTraceQL:
		return d.traceQL(ctx, &q)
	case typeResource:
		return d.resource(ctx, &q)
	default:
		return nil, badRequest("queryType %q is not one of %s, %s, %s, %s, %s, %s, %s and %s", q.QueryType,
			typeMetrics, typeLogs, typeTrace, typeTraceLogs, typeTraceMetrics, typeSearch, typeTraceQL, typeResource)
	}
}
