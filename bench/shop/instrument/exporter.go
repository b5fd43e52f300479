package instrument

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/encoding/gzip"
)

// exportTimeout bounds one export with its retries, so that an endpoint that is down never holds a service.
const exportTimeout = 3 * time.Second

// retry is the same for all exporters; the packages declare the struct once each.
const (
	retryFirst = 200 * time.Millisecond
	retryMax   = time.Second
)

// Transport is one of the wire forms of OTLP.
type Transport int

// The transports. Together the shop's services use all of them.
const (
	GRPC Transport = iota
	GRPCGzip
	HTTPProtobufGzip
	HTTPJSON
)

func (t Transport) String() string {
	switch t {
	case GRPC:
		return "OTLP/gRPC"
	case GRPCGzip:
		return "OTLP/gRPC with gzip"
	case HTTPProtobufGzip:
		return "OTLP/HTTP protobuf with gzip"
	case HTTPJSON:
		return "OTLP/HTTP JSON"
	default:
		return fmt.Sprintf("Transport(%d)", int(t))
	}
}

type exporters struct {
	traces  sdktrace.SpanExporter
	metrics sdkmetric.Exporter
	logs    sdklog.Exporter
}

func newExporters(ctx context.Context, cfg Config) (exporters, error) {
	var e exporters
	var errs [3]error
	switch cfg.Transport {
	case GRPC, GRPCGzip:
		e.traces, errs[0] = traceGRPC(ctx, cfg)
		e.metrics, errs[1] = metricGRPC(ctx, cfg)
		e.logs, errs[2] = logGRPC(ctx, cfg)
	case HTTPProtobufGzip, HTTPJSON:
		e.traces, errs[0] = traceHTTP(ctx, cfg)
		e.metrics, errs[1] = metricHTTP(ctx, cfg)
		e.logs, errs[2] = logHTTP(ctx, cfg)
	default:
		return e, fmt.Errorf("unknown transport %v", cfg.Transport)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return e, fmt.Errorf("create %v exporters: %w", cfg.Transport, err)
	}
	return e, nil
}

func traceGRPC(ctx context.Context, cfg Config) (sdktrace.SpanExporter, error) {
	opts := []otlptracegrpc.Option{
		otlptracegrpc.WithEndpoint(cfg.OTLPGRPC), otlptracegrpc.WithInsecure(), otlptracegrpc.WithHeaders(cfg.Headers),
		otlptracegrpc.WithTimeout(exportTimeout),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMax, MaxElapsedTime: exportTimeout,
		}),
	}
	if cfg.Transport == GRPCGzip {
		opts = append(opts, otlptracegrpc.WithCompressor(gzip.Name))
	}
	return otlptracegrpc.New(ctx, opts...)
}

func metricGRPC(ctx context.Context, cfg Config) (sdkmetric.Exporter, error) {
	opts := []otlpmetricgrpc.Option{
		otlpmetricgrpc.WithEndpoint(cfg.OTLPGRPC), otlpmetricgrpc.WithInsecure(), otlpmetricgrpc.WithHeaders(cfg.Headers),
		otlpmetricgrpc.WithTimeout(exportTimeout), otlpmetricgrpc.WithTemporalitySelector(temporality(cfg.Delta)),
		otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{
			Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMax, MaxElapsedTime: exportTimeout,
		}),
	}
	if cfg.Transport == GRPCGzip {
		opts = append(opts, otlpmetricgrpc.WithCompressor(gzip.Name))
	}
	return otlpmetricgrpc.New(ctx, opts...)
}

func logGRPC(ctx context.Context, cfg Config) (sdklog.Exporter, error) {
	opts := []otlploggrpc.Option{
		otlploggrpc.WithEndpoint(cfg.OTLPGRPC), otlploggrpc.WithInsecure(), otlploggrpc.WithHeaders(cfg.Headers),
		otlploggrpc.WithTimeout(exportTimeout),
		otlploggrpc.WithRetry(otlploggrpc.RetryConfig{
			Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMax, MaxElapsedTime: exportTimeout,
		}),
	}
	if cfg.Transport == GRPCGzip {
		opts = append(opts, otlploggrpc.WithCompressor(gzip.Name))
	}
	return otlploggrpc.New(ctx, opts...)
}

func traceHTTP(ctx context.Context, cfg Config) (sdktrace.SpanExporter, error) {
	opts := []otlptracehttp.Option{
		otlptracehttp.WithEndpoint(cfg.OTLPHTTP), otlptracehttp.WithInsecure(), otlptracehttp.WithHeaders(cfg.Headers),
		otlptracehttp.WithTimeout(exportTimeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMax, MaxElapsedTime: exportTimeout,
		}),
	}
	if cfg.Transport == HTTPJSON { // the trace exporter is the one that writes JSON by itself
		opts = append(opts, otlptracehttp.WithEncoding(otlptracehttp.EncodingJSON))
	} else {
		opts = append(opts, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	return otlptracehttp.New(ctx, opts...)
}

func metricHTTP(ctx context.Context, cfg Config) (sdkmetric.Exporter, error) {
	opts := []otlpmetrichttp.Option{
		otlpmetrichttp.WithEndpoint(cfg.OTLPHTTP), otlpmetrichttp.WithInsecure(), otlpmetrichttp.WithHeaders(cfg.Headers),
		otlpmetrichttp.WithTimeout(exportTimeout), otlpmetrichttp.WithTemporalitySelector(temporality(cfg.Delta)),
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{
			Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMax, MaxElapsedTime: exportTimeout,
		}),
	}
	if cfg.Transport != HTTPJSON {
		return otlpmetrichttp.New(ctx, append(opts, otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression))...)
	}
	base := newBaseTransport()
	exp, err := otlpmetrichttp.New(ctx, append(opts, otlpmetrichttp.WithHTTPClient(
		&http.Client{Transport: jsonTransport{next: base, convert: metricsJSON{}}, Timeout: exportTimeout}))...)
	if err != nil {
		return nil, err
	}
	return closingMetrics{Exporter: exp, transport: base}, nil
}

func logHTTP(ctx context.Context, cfg Config) (sdklog.Exporter, error) {
	opts := []otlploghttp.Option{
		otlploghttp.WithEndpoint(cfg.OTLPHTTP), otlploghttp.WithInsecure(), otlploghttp.WithHeaders(cfg.Headers),
		otlploghttp.WithTimeout(exportTimeout),
		otlploghttp.WithRetry(otlploghttp.RetryConfig{
			Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMax, MaxElapsedTime: exportTimeout,
		}),
	}
	if cfg.Transport != HTTPJSON {
		return otlploghttp.New(ctx, append(opts, otlploghttp.WithCompression(otlploghttp.GzipCompression))...)
	}
	base := newBaseTransport()
	exp, err := otlploghttp.New(ctx, append(opts, otlploghttp.WithHTTPClient(
		&http.Client{Transport: jsonTransport{next: base, convert: logsJSON{}}, Timeout: exportTimeout}))...)
	if err != nil {
		return nil, err
	}
	return closingLogs{Exporter: exp, transport: base}, nil
}

func newBaseTransport() *http.Transport {
	return &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}
}

// closingMetrics and closingLogs close the connections that we opened for an exporter: the exporters leave a client
// that was given to them alone.
type closingMetrics struct {
	sdkmetric.Exporter
	transport *http.Transport
}

func (c closingMetrics) Shutdown(ctx context.Context) error {
	defer c.transport.CloseIdleConnections()
	return c.Exporter.Shutdown(ctx)
}

type closingLogs struct {
	sdklog.Exporter
	transport *http.Transport
}

func (c closingLogs) Shutdown(ctx context.Context) error {
	defer c.transport.CloseIdleConnections()
	return c.Exporter.Shutdown(ctx)
}

// temporality is what the specification calls the delta preference: counters and histograms are deltas, up-down
// counters stay cumulative.
func temporality(delta bool) sdkmetric.TemporalitySelector {
	if !delta {
		return sdkmetric.DefaultTemporalitySelector
	}
	return func(kind sdkmetric.InstrumentKind) metricdata.Temporality {
		switch kind {
		case sdkmetric.InstrumentKindUpDownCounter, sdkmetric.InstrumentKindObservableUpDownCounter:
			return metricdata.CumulativeTemporality
		default:
			return metricdata.DeltaTemporality
		}
	}
}
