// Package selfobs is how Braid observes itself: its logger, its tracer and its metrics registry, and the way of
// its own logs and spans into its own store.
//
// Records of this process are kept in a bounded buffer until Run hands them to the sink, which is set once there
// is a store to write to. What does not fit is dropped and counted. The export cannot feed itself: the sink is
// called under Suppress, and nothing that is logged or traced under a suppressed context is exported. Code below
// the sink must pass its context on to slog and to the tracer; what it logs without one is exported with the next
// batch.
//
// Logs always go to the output as well, suppressed or not.
package selfobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/prometheus/model/labels"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/lifecycle"
	"github.com/braidobs/braid/internal/telemetry"
)

const (
	interval   = time.Second // between exports
	maxRecords = 8192        // in the buffer, per signal
	maxBatch   = 2048        // records in one export, per signal
	grace      = 5 * time.Second
)

// Config is what an operator can set.
type Config struct {
	Level  slog.Level `yaml:"level" help:"The least level that is logged: debug, info, warn or error."`
	Format string     `yaml:"format" help:"How logs are written: json or text."`
	Traces float64    `yaml:"traces" help:"The share of own traces that is kept, from 0 to 1."`
}

// DefaultConfig logs info as text and keeps a tenth of the traces.
func DefaultConfig() Config { return Config{Level: slog.LevelInfo, Format: "text", Traces: 0.1} }

// Validate returns all mistakes.
func (c Config) Validate() error {
	var e config.Errors
	if c.Format != "json" && c.Format != "text" {
		e.Field("format", fmt.Errorf("%q is neither json nor text", c.Format))
	}
	if !(c.Traces >= 0 && c.Traces <= 1) {
		e.Field("traces", errors.New("must lie between 0 and 1"))
	}
	return e.Err()
}

// Export is records of this process on their way to the store. The sink owns it.
type Export struct {
	Resource *telemetry.Resource
	Stream   telemetry.LabelSet // the LogQL stream of Logs
	Spans    []telemetry.Span
	Logs     []telemetry.LogRecord
}

// Batch returns e as a batch of the tenant _self.
func (e Export) Batch() telemetry.Batch {
	return telemetry.Batch{
		Tenant: telemetry.SelfTenant, Resource: e.Resource, Stream: e.Stream, Spans: e.Spans, Logs: e.Logs,
	}
}

// Sink stores an export. It is called by one goroutine at a time, under a suppressed context. An export that it
// fails on is dropped and counted.
type Sink func(ctx context.Context, e Export) error

// Options are what New depends on.
type Options struct {
	Config   Config
	Service  string // service.name
	Version  string // service.version
	Instance string // service.instance.id; empty for none
	Output   io.Writer
	Registry prometheus.Registerer
	Now      func() time.Time
}

// Obs is the self-observation of one process. Its methods may be called concurrently.
type Obs struct {
	log      *slog.Logger
	tracer   *sdktrace.TracerProvider
	resource *telemetry.Resource
	stream   telemetry.LabelSet
	sink     atomic.Pointer[Sink]
	full     chan struct{} // has a value when a buffer is half full

	mu      sync.Mutex // guards what follows; nothing is called under it
	spans   []telemetry.Span
	logs    []telemetry.LogRecord
	stopped bool

	exported *prometheus.CounterVec
	dropped  *prometheus.CounterVec
}

// New returns the self-observation of a process and registers its metrics, those of the Go runtime and those of
// the process. A registry takes them once. It starts no goroutine: Part does the exporting.
func New(o Options) (*Obs, error) {
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	attrs := []telemetry.Attr{
		{Key: "service.name", Value: telemetry.String(o.Service)},
		{Key: "service.version", Value: telemetry.String(o.Version)},
	}
	if o.Instance != "" {
		attrs = append(attrs, telemetry.Attr{Key: "service.instance.id", Value: telemetry.String(o.Instance)})
	}
	b := &Obs{
		resource: telemetry.NewResource("", telemetry.NewAttrs(attrs)),
		stream:   telemetry.NewLabelSet(labels.FromStrings("service_name", o.Service)),
		full:     make(chan struct{}, 1),
		exported: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_selfobs_exported_records_total", Help: "Own spans and logs that were handed to the store.",
		}, []string{"signal"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_selfobs_dropped_records_total", Help: "Own spans and logs that were lost, by reason.",
		}, []string{"signal", "reason"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "braid_build_info", Help: "1, with what is running in the labels.",
		ConstLabels: prometheus.Labels{"service": o.Service, "version": o.Version},
	})
	build.Set(1)
	for _, c := range []prometheus.Collector{
		b.exported, b.dropped, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := o.Registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}

	opts := &slog.HandlerOptions{Level: o.Config.Level}
	out := slog.Handler(slog.NewTextHandler(o.Output, opts))
	if o.Config.Format == "json" {
		out = slog.NewJSONHandler(o.Output, opts)
	}
	b.log = slog.New(&handler{out: out, obs: b, now: o.Now})
	b.tracer = sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sampler{sdktrace.ParentBased(sdktrace.TraceIDRatioBased(o.Config.Traces))}),
		sdktrace.WithSpanProcessor((*processor)(b)),
	)
	return b, nil
}

// Log returns the logger of the process.
func (b *Obs) Log() *slog.Logger { return b.log }

// Tracer returns the tracer provider of the process.
func (b *Obs) Tracer() trace.TracerProvider { return b.tracer }

// SetSink says where records go from now on; nil is nowhere, and records wait in the buffer again.
func (b *Obs) SetSink(s Sink) {
	if s == nil {
		b.sink.Store(nil)
		return
	}
	b.sink.Store(&s)
}

// Part exports while it runs and what is left when it stops. It belongs right after the parts that the sink needs.
func (b *Obs) Part() lifecycle.Part {
	return lifecycle.Part{Name: "self-observation", Run: b.run, Stop: b.stop, Grace: grace}
}

func (b *Obs) run(ctx context.Context) error {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-b.full:
		}
		b.Flush(ctx)
	}
}

func (b *Obs) stop(ctx context.Context) error {
	b.Flush(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	b.count(b.dropped, "stopped", len(b.spans), len(b.logs))
	b.spans, b.logs = nil, nil
	return nil
}

// Flush exports what is in the buffer. Without a sink it does nothing. Run and Flush must not overlap.
func (b *Obs) Flush(ctx context.Context) {
	ctx = Suppress(ctx)
	for ctx.Err() == nil {
		sink := b.sink.Load()
		if sink == nil {
			return
		}
		e := b.take()
		spans, logs := len(e.Spans), len(e.Logs)
		if spans+logs == 0 {
			return
		}
		if err := (*sink)(ctx, e); err != nil {
			b.count(b.dropped, "export failed", spans, logs)
			b.log.WarnContext(ctx, "own logs and spans are lost", "spans", spans, "logs", logs, "err", err)
			return
		}
		b.count(b.exported, "", spans, logs)
	}
}

// take removes the oldest records from the buffer.
func (b *Obs) take() Export {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := Export{Resource: b.resource, Stream: b.stream}
	e.Spans, b.spans = split(b.spans)
	e.Logs, b.logs = split(b.logs)
	return e
}

// split cuts the first maxBatch of s off, in memory of their own when some stay.
func split[T any](s []T) (head, tail []T) {
	if len(s) <= maxBatch {
		return s, nil
	}
	return append([]T(nil), s[:maxBatch]...), append([]T(nil), s[maxBatch:]...)
}

func (b *Obs) addSpan(s telemetry.Span) {
	b.mu.Lock()
	ok := !b.stopped && len(b.spans) < maxRecords
	if ok {
		b.spans = append(b.spans, s)
	}
	half := len(b.spans) >= maxRecords/2
	b.mu.Unlock()
	b.added(ok, half, 1, 0)
}

func (b *Obs) addLog(r telemetry.LogRecord) {
	b.mu.Lock()
	ok := !b.stopped && len(b.logs) < maxRecords
	if ok {
		b.logs = append(b.logs, r)
	}
	half := len(b.logs) >= maxRecords/2
	b.mu.Unlock()
	b.added(ok, half, 0, 1)
}

func (b *Obs) added(ok, half bool, spans, logs int) {
	if !ok {
		b.count(b.dropped, "buffer full", spans, logs)
	}
	if half {
		select {
		case b.full <- struct{}{}:
		default:
		}
	}
}

// count adds to a counter that has the label signal and, unless reason is empty, reason.
func (b *Obs) count(c *prometheus.CounterVec, reason string, spans, logs int) {
	add := func(signal string, n int) {
		lvs := []string{signal}
		if reason != "" {
			lvs = append(lvs, strings.ReplaceAll(reason, " ", "_"))
		}
		if n > 0 {
			c.WithLabelValues(lvs...).Add(float64(n))
		}
	}
	add("traces", spans)
	add("logs", logs)
}

type suppressKey struct{}

// Suppress marks ctx: what is logged and traced under it stays out of the store. It is for work that is done to
// store or read own records, which would otherwise cause more of them.
func Suppress(ctx context.Context) context.Context {
	if Suppressed(ctx) {
		return ctx
	}
	return context.WithValue(ctx, suppressKey{}, true)
}

// Suppressed says whether ctx is marked by Suppress.
func Suppressed(ctx context.Context) bool { return ctx.Value(suppressKey{}) != nil }
