// Package instrument builds the OpenTelemetry SDK of one shop service: traces, metrics and logs with one resource,
// exported over the transport that the service is meant to show. Nothing is registered globally, so several services
// can live in one process.
package instrument

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// scope is the instrumentation scope of the shop's own spans, instruments and log records.
const scope = "github.com/braidobs/braid/bench/shop"

// Config says who exports what, and where to.
type Config struct {
	Identity       Identity
	Transport      Transport
	OTLPGRPC       string            // host:port
	OTLPHTTP       string            // host:port
	Headers        map[string]string // sent with each export, for example X-Scope-OrgID
	MetricInterval time.Duration
	BatchDelay     time.Duration // how long spans and log records wait for company
	Delta          bool          // delta instead of cumulative temporality
	Exponential    []string      // histograms to aggregate exponentially
	LogMirror      io.Writer     // also gets each log record as a line of JSON; may be nil
	OnlyMirror     bool          // log records go to LogMirror alone, as those of a container whose output is collected
	Now            func() time.Time
}

// Telemetry is the running SDK of one service. Shutdown must be called.
type Telemetry struct {
	Traces     *sdktrace.TracerProvider
	Metrics    *sdkmetric.MeterProvider
	Logs       *sdklog.LoggerProvider
	Propagator propagation.TextMapPropagator
	Tracer     trace.Tracer
	Meter      metric.Meter
	Log        *slog.Logger
}

// New starts the SDK. It does not connect: an endpoint that is down costs telemetry, never a start.
func New(ctx context.Context, cfg Config) (*Telemetry, error) {
	res, err := cfg.Identity.Resource()
	if err != nil {
		return nil, err
	}
	exp, err := newExporters(ctx, cfg)
	if err != nil {
		return nil, err
	}
	views := make([]sdkmetric.View, 0, len(cfg.Exponential))
	for _, name := range cfg.Exponential {
		views = append(views, sdkmetric.NewView(
			sdkmetric.Instrument{Name: name, Kind: sdkmetric.InstrumentKindHistogram},
			sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}},
		))
	}
	t := &Telemetry{
		Traces: sdktrace.NewTracerProvider(
			sdktrace.WithResource(res),
			sdktrace.WithBatcher(exp.traces, sdktrace.WithBatchTimeout(cfg.BatchDelay), sdktrace.WithExportTimeout(exportTimeout)),
		),
		Metrics: sdkmetric.NewMeterProvider(
			sdkmetric.WithResource(res),
			sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exp.metrics,
				sdkmetric.WithInterval(cfg.MetricInterval), sdkmetric.WithTimeout(exportTimeout))),
			sdkmetric.WithView(views...),
		),
		Logs: sdklog.NewLoggerProvider(
			sdklog.WithResource(res),
			sdklog.WithProcessor(sdklog.NewBatchProcessor(exp.logs,
				sdklog.WithExportInterval(cfg.BatchDelay), sdklog.WithExportTimeout(exportTimeout))),
		),
		Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	}
	t.Tracer = t.Traces.Tracer(scope, trace.WithInstrumentationVersion(cfg.Identity.Version))
	t.Meter = t.Metrics.Meter(scope, metric.WithInstrumentationVersion(cfg.Identity.Version))
	var handler slog.Handler = otelslog.NewHandler(scope,
		otelslog.WithLoggerProvider(t.Logs), otelslog.WithVersion(cfg.Identity.Version), otelslog.WithSource(true))
	switch {
	case cfg.LogMirror != nil && cfg.OnlyMirror:
		handler = newMirror(cfg.LogMirror, cfg.Identity)
	case cfg.LogMirror != nil:
		handler = slog.NewMultiHandler(handler, newMirror(cfg.LogMirror, cfg.Identity))
	}
	t.Log = slog.New(handler)
	if err := observeProcess(t.Meter, cfg.Now); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	return t, nil
}

// Shutdown flushes what is buffered and stops. It returns when ctx ends at the latest; then what was not exported yet
// is lost.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	// The three are independent: a dead endpoint must not cost its timeout three times.
	var group errgroup.Group
	errs := make([]error, 3)
	metrics := func(ctx context.Context) error {
		// Shutdown alone would cancel an export that is under way, and with it the deltas that it carries.
		return errors.Join(t.Metrics.ForceFlush(ctx), t.Metrics.Shutdown(ctx))
	}
	for i, stop := range []func(context.Context) error{t.Traces.Shutdown, metrics, t.Logs.Shutdown} {
		group.Go(func() error {
			errs[i] = stop(ctx)
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs, all of them
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("flush telemetry: %w", err)
	}
	return nil
}

// HTTPServer wraps a ServeMux so that requests make server spans named after their route, and
// http.server.request.duration.
func (t *Telemetry) HTTPServer(mux *http.ServeMux) http.Handler {
	return otelhttp.NewHandler(mux, "",
		otelhttp.WithTracerProvider(t.Traces), otelhttp.WithMeterProvider(t.Metrics), otelhttp.WithPropagators(t.Propagator))
}

// HTTPClient returns a client whose requests make client spans and carry the trace context. Close its idle
// connections when done.
func (t *Telemetry) HTTPClient(timeout time.Duration) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute}
	return &http.Client{Timeout: timeout, Transport: closeIdle{
		RoundTripper: otelhttp.NewTransport(transport,
			otelhttp.WithTracerProvider(t.Traces), otelhttp.WithMeterProvider(t.Metrics), otelhttp.WithPropagators(t.Propagator)),
		base: transport,
	}}
}

// closeIdle lets http.Client.CloseIdleConnections reach the connections below an instrumented transport.
type closeIdle struct {
	http.RoundTripper
	base *http.Transport
}

func (c closeIdle) CloseIdleConnections() { c.base.CloseIdleConnections() }

// GRPCServer returns a server whose calls make server spans and rpc.server.* metrics.
func (t *Telemetry) GRPCServer(opts ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts, grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(t.Traces), otelgrpc.WithMeterProvider(t.Metrics), otelgrpc.WithPropagators(t.Propagator))))...)
}

// GRPCClient returns a connection to host:port whose calls make client spans and carry the trace context. It does not
// wait for the peer. The caller closes it.
func (t *Telemetry) GRPCClient(addr string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(
			otelgrpc.WithTracerProvider(t.Traces), otelgrpc.WithMeterProvider(t.Metrics), otelgrpc.WithPropagators(t.Propagator))))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	return conn, nil
}
