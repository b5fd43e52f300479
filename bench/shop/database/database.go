// Package database is the shop's database: an in-memory store behind gRPC whose queries take time, with the spans,
// metrics and slow-query log of a real one. It also serves Prometheus metrics.
package database

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/braidobs/braid/bench/shop/fault"
	"github.com/braidobs/braid/bench/shop/instrument"
	"github.com/braidobs/braid/bench/shop/wire"
)

// QueryDuration is the histogram of all queries; the shop aggregates it exponentially.
const QueryDuration = "db.client.operation.duration"

// Deps are what a database needs.
type Deps struct {
	Telemetry *instrument.Telemetry
	Faults    *fault.Switch
	SlowQuery time.Duration // a query that takes longer is logged
	Seed      uint64
	Now       func() time.Time
}

// Database answers shop.v1.Database.
type Database struct {
	deps       Deps
	store      *store
	statements map[string]statement
	duration   metric.Float64Histogram

	registry    *prometheus.Registry
	promQueries *prometheus.CounterVec
	promSeconds *prometheus.HistogramVec
}

var _ wire.DatabaseServer = (*Database)(nil)

// New returns a database with the catalogue of the seed.
func New(deps Deps) (*Database, error) {
	duration, err := deps.Telemetry.Meter.Float64Histogram(QueryDuration,
		metric.WithUnit("s"), metric.WithDescription("Duration of database client operations."))
	if err != nil {
		return nil, fmt.Errorf("create database instruments: %w", err)
	}
	d := &Database{
		deps: deps, store: newStore(deps.Seed), statements: statements(), duration: duration,
		registry: prometheus.NewRegistry(),
		promQueries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shop_database_queries_total", Help: "Queries by statement and gRPC code.",
		}, []string{"statement", "code"}),
		promSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "shop_database_query_duration_seconds", Help: "Time per query.",
			Buckets:                     prometheus.ExponentialBuckets(0.001, 2, 12),
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
		}, []string{"statement"}),
	}
	if err := errors.Join(
		d.registry.Register(d.promQueries),
		d.registry.Register(d.promSeconds),
		d.registry.Register(collectors.NewGoCollector()),
		d.registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
	); err != nil {
		return nil, fmt.Errorf("register prometheus metrics: %w", err)
	}
	return d, nil
}

// Server returns the gRPC server.
func (d *Database) Server() *grpc.Server {
	srv := d.deps.Telemetry.GRPCServer(grpc.UnaryInterceptor(d.deps.Faults.Unary))
	wire.RegisterDatabase(srv, d)
	return srv
}

// Metrics serves the Prometheus exposition.
func (d *Database) Metrics() http.Handler {
	return promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, Registry: d.registry})
}

// Query runs one statement.
func (d *Database) Query(ctx context.Context, req wire.QueryRequest) (wire.QueryReply, error) {
	st, ok := d.statements[req.Statement]
	if !ok {
		return wire.QueryReply{}, status.Errorf(codes.InvalidArgument, "no statement %q", req.Statement)
	}
	summary := st.operation + " " + st.table
	attrs := []attribute.KeyValue{
		semconv.DBSystemNameOtherSQL,
		semconv.DBNamespace("shop"),
		semconv.DBOperationName(st.operation),
		semconv.DBCollectionName(st.table),
		semconv.DBQuerySummary(summary),
	}
	// INTERNAL is the kind that the conventions give calls of an in-memory database.
	ctx, span := d.deps.Telemetry.Tracer.Start(ctx, summary, trace.WithSpanKind(trace.SpanKindInternal),
		trace.WithAttributes(attrs...),
		trace.WithAttributes(attribute.String("db.system", "other_sql"), semconv.DBQueryText(st.text)))
	defer span.End()

	start := d.deps.Now()
	reply, err := d.execute(ctx, st, req)
	took := d.deps.Now().Sub(start)

	code := status.Code(err)
	if err != nil && code != codes.NotFound { // no row is an answer
		kind := attribute.String("error.type", code.String())
		attrs = append(attrs, kind)
		span.SetAttributes(kind)
		span.RecordError(err)
		span.SetStatus(otelcodes.Error, err.Error())
		d.deps.Telemetry.Log.ErrorContext(ctx, "query failed", "statement", req.Statement, "err", err)
	}
	d.duration.Record(ctx, took.Seconds(), metric.WithAttributes(attrs...))
	exemplar := prometheus.Labels{"trace_id": span.SpanContext().TraceID().String()}
	d.promQueries.WithLabelValues(req.Statement, code.String()).Inc()
	if o, ok := d.promSeconds.WithLabelValues(req.Statement).(prometheus.ExemplarObserver); ok {
		o.ObserveWithExemplar(took.Seconds(), exemplar)
	}
	if took > d.deps.SlowQuery {
		d.deps.Telemetry.Log.WarnContext(ctx, "slow query", "statement", req.Statement, "db.query.text", st.text,
			"duration_ms", took.Milliseconds(), "threshold_ms", d.deps.SlowQuery.Milliseconds())
	} else if err == nil || code == codes.NotFound {
		d.deps.Telemetry.Log.InfoContext(ctx, "query executed", "statement", req.Statement,
			"rows", len(reply.Products), "duration_ms", took.Milliseconds())
	}
	return reply, err
}

func (d *Database) execute(ctx context.Context, st statement, req wire.QueryRequest) (wire.QueryReply, error) {
	latency := d.store.latency(st.latency)
	if f, hit := d.deps.Faults.Hit(fault.SlowDatabase, req.Statement); hit {
		latency += time.Duration(f.Delay)
	}
	if err := wait(ctx, latency); err != nil {
		return wire.QueryReply{}, status.FromContextError(err).Err()
	}
	return d.store.run(req)
}
