// Package query is what the query languages have in common: how a query is counted, timed and logged (Observer),
// and what the store's errors mean to whoever asked (Classify).
//
// The languages are below it: promql, logql, traceql; what speaks HTTP is in api.
package query

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Language is what a query is written in; it is a label of metrics.
type Language string

// The languages. Search is Tempo's search by tags, Trace the look-up of a trace by its ID, and Labels what lists
// names and values. Federate and RemoteRead hand series on to other servers.
const (
	PromQL  Language = "promql"
	LogQL   Language = "logql"
	TraceQL Language = "traceql"
	Search  Language = "search"
	Trace   Language = "trace"
	Labels  Language = "labels"

	Federate   Language = "federate"
	RemoteRead Language = "remote_read"
)

// Observer counts, times and logs queries. A process has one; a nil Observer does nothing.
type Observer struct {
	log      *slog.Logger
	now      func() time.Time
	duration *prometheus.HistogramVec
	running  *prometheus.GaugeVec
}

// NewObserver registers the metrics of queries. Queries are logged at the level debug.
func NewObserver(log *slog.Logger, reg prometheus.Registerer, now func() time.Time) *Observer {
	f := promauto.With(reg)
	return &Observer{
		log: log, now: now,
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "braid_query_duration_seconds", Help: "How long queries took, by language and how they ended.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		}, []string{"language", "status"}),
		running: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "braid_query_running_queries", Help: "Queries that are being answered or wait for their turn.",
		}, []string{"language"}),
	}
}

// Start notes that a query begins; the function that it returns notes how it ended.
func (o *Observer) Start(ctx context.Context, l Language, t telemetry.Tenant, text string) (done func(error)) {
	if o == nil {
		return func(error) {}
	}
	start := o.now()
	o.running.WithLabelValues(string(l)).Inc()
	return func(err error) {
		took := o.now().Sub(start)
		o.running.WithLabelValues(string(l)).Dec()
		status := "success"
		if err != nil {
			status = KindOf(err).String()
		}
		o.duration.WithLabelValues(string(l), status).Observe(took.Seconds())
		o.log.DebugContext(ctx, "query", "language", string(l), "tenant", string(t), "query", text, "status", status, "took", took)
	}
}

// KindOf returns what kind of error err is.
func KindOf(err error) httpapi.Kind {
	if e := Classify(err); e != nil {
		return e.Kind
	}
	return httpapi.FromError(err).Kind
}

// Classify knows the errors of the store; it returns nil for others. It is meant for httpapi.Errors.
func Classify(err error) *httpapi.Error {
	over, overloaded := errors.AsType[*storage.Overloaded](err)
	switch {
	case errors.Is(err, storage.ErrViewExpired):
		return &httpapi.Error{Kind: httpapi.QueryLimit, Message: storage.ErrViewExpired.Error(), Err: err}
	case errors.Is(err, storage.ErrClosed):
		return &httpapi.Error{Kind: httpapi.Unavailable, Message: "the store is closed: the process is stopping", Err: err}
	case overloaded:
		e := httpapi.NewOverloaded(over.RetryAfter, over.Error())
		e.Err = err
		return e
	default:
		return nil
	}
}

// Errors returns errs with Classify behind its own, for the read APIs.
func Errors(errs httpapi.Errors) httpapi.Errors {
	own := errs.Classify
	errs.Classify = func(err error) *httpapi.Error {
		if own != nil {
			if e := own(err); e != nil {
				return e
			}
		}
		return Classify(err)
	}
	return errs
}
