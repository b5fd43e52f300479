package otlp_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otellog "go.opentelemetry.io/otel/log"
	otelmetric "go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// sdkRig is a rig that accepts the time of the SDK, which is today.
func sdkRig(t *testing.T) *rig {
	t.Helper()
	return newRig(t, func(c *ingest.Config, _ *otlp.Config) { c.TimeWindow = false })
}

// one returns the only request written.
func one(t *testing.T, w *writer) []telemetry.Batch {
	t.Helper()
	reqs := w.written()
	require.Len(t, reqs, 1)
	require.NotEqual(t, storage.Key{}, reqs[0].Key)
	roundTrip(t, reqs[0].Batches)
	return reqs[0].Batches
}

func sdkResource() *resource.Resource {
	return resource.NewSchemaless(attribute.String("service.name", "sdk"), attribute.String("service.instance.id", "1"), attribute.String("host.name", "h"))
}

// TestSDK has the exporters of OpenTelemetry's Go SDK send to both listeners.
func TestSDK(t *testing.T) {
	traceClients := map[string]func(r *rig) otlptrace.Client{
		"grpc": func(r *rig) otlptrace.Client {
			return otlptracegrpc.NewClient(otlptracegrpc.WithEndpoint(r.grpc), otlptracegrpc.WithInsecure(), otlptracegrpc.WithCompressor("gzip"))
		},
		"http": func(r *rig) otlptrace.Client {
			return otlptracehttp.NewClient(otlptracehttp.WithEndpointURL(r.http+"/v1/traces"), otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
		},
	}
	for name, client := range traceClients {
		t.Run("traces "+name, func(t *testing.T) {
			r := sdkRig(t)
			exp, err := otlptrace.New(t.Context(), client(r))
			require.NoError(t, err)
			tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exp), sdktrace.WithResource(sdkResource()))
			_, span := tp.Tracer("lib").Start(t.Context(), "op")
			span.SetAttributes(attribute.StringSlice("list", []string{"a", "b"}))
			span.AddEvent("e")
			span.End()
			require.NoError(t, tp.Shutdown(t.Context()))
			bs := one(t, r.writer)
			require.Equal(t, "sdk", bs[0].Resource.Attrs.Text("service.name"))
			s := bs[0].Spans[0]
			require.Equal(t, "op", s.Name)
			require.Equal(t, "lib", s.Scope.Name)
			require.Equal(t, `["a","b"]`, s.Attrs.Text("list"))
			require.Equal(t, span.SpanContext().TraceID().String(), s.TraceID.String())
			require.Len(t, s.Events, 1)
		})
	}
	metricClients := map[string]func(r *rig, ts sdkmetric.TemporalitySelector) (sdkmetric.Exporter, error){
		"grpc": func(r *rig, ts sdkmetric.TemporalitySelector) (sdkmetric.Exporter, error) {
			return otlpmetricgrpc.New(t.Context(), otlpmetricgrpc.WithEndpoint(r.grpc), otlpmetricgrpc.WithInsecure(), otlpmetricgrpc.WithTemporalitySelector(ts))
		},
		"http": func(r *rig, ts sdkmetric.TemporalitySelector) (sdkmetric.Exporter, error) {
			return otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(r.http+"/v1/metrics"), otlpmetrichttp.WithTemporalitySelector(ts))
		},
	}
	for name, client := range metricClients {
		for kind, ts := range map[string]sdkmetric.TemporalitySelector{
			"cumulative": sdkmetric.CumulativeTemporalitySelector, "delta": sdkmetric.DeltaTemporalitySelector,
		} {
			t.Run("metrics "+name+" "+kind, func(t *testing.T) {
				r := sdkRig(t)
				exp, err := client(r, ts)
				require.NoError(t, err)
				exponential := sdkmetric.NewView(sdkmetric.Instrument{Name: "native"},
					sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}})
				mp := sdkmetric.NewMeterProvider(sdkmetric.WithResource(sdkResource()), sdkmetric.WithView(exponential),
					sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exp, sdkmetric.WithInterval(time.Hour))))
				m := mp.Meter("lib")
				c, err := m.Int64Counter("requests", otelmetric.WithUnit("{request}"))
				require.NoError(t, err)
				c.Add(t.Context(), 5)
				for _, name := range []string{"native", "classic"} {
					h, err := m.Float64Histogram(name, otelmetric.WithUnit("s"))
					require.NoError(t, err)
					h.Record(t.Context(), 0.3)
					h.Record(t.Context(), 70)
				}
				require.NoError(t, mp.Shutdown(t.Context()))
				delta := kind == "delta"
				found := make(map[string]telemetry.Series)
				for _, s := range one(t, r.writer)[0].Series {
					found[s.Labels.Get("__name__")+s.Labels.Get("le")] = s
					require.Equal(t, delta && s.Labels.Get("__name__") != "target_info", s.Delta)
				}
				require.InDelta(t, 5, found["requests_total"].Samples[0].V, 0)
				require.InDelta(t, 2, found["classic_seconds_count"].Samples[0].V, 0)
				require.InDelta(t, 70.3, found["classic_seconds_sum"].Samples[0].V, 1e-9)
				require.InDelta(t, 1, found["classic_seconds_bucket5"].Samples[0].V, 0)
				require.InDelta(t, 2, found["classic_seconds_bucket+Inf"].Samples[0].V, 0)
				require.EqualValues(t, 2, found["native_seconds"].Histograms[0].H.Count)
				require.Contains(t, found, "target_info")
			})
		}
	}
	logClients := map[string]func(ctx context.Context, r *rig) (sdklog.Exporter, error){
		"grpc": func(ctx context.Context, r *rig) (sdklog.Exporter, error) {
			return otlploggrpc.New(ctx, otlploggrpc.WithEndpoint(r.grpc), otlploggrpc.WithInsecure(), otlploggrpc.WithCompressor("gzip"))
		},
		"http": func(ctx context.Context, r *rig) (sdklog.Exporter, error) {
			return otlploghttp.New(ctx, otlploghttp.WithEndpointURL(r.http+"/v1/logs"), otlploghttp.WithCompression(otlploghttp.GzipCompression))
		},
	}
	for name, client := range logClients {
		t.Run("logs "+name, func(t *testing.T) {
			r := sdkRig(t)
			exp, err := client(t.Context(), r)
			require.NoError(t, err)
			lp := sdklog.NewLoggerProvider(sdklog.WithResource(sdkResource()), sdklog.WithProcessor(sdklog.NewSimpleProcessor(exp)))
			var rec otellog.Record
			rec.SetTimestamp(now)
			rec.SetBody(attribute.MapValue(attribute.KeyValue{
				Key: "k", Value: attribute.SliceValue(attribute.IntValue(1), attribute.BoolValue(true)),
			}))
			rec.SetSeverity(otellog.SeverityError)
			rec.SetEventName("ev")
			lp.Logger("lib").Emit(t.Context(), rec)
			require.NoError(t, lp.Shutdown(t.Context()))
			bs := one(t, r.writer)
			require.Equal(t, "sdk", bs[0].Stream.Get("service_name"))
			got := bs[0].Logs[0]
			require.Equal(t, now.UnixNano(), got.Time)
			require.JSONEq(t, `{"k":[1,true]}`, got.Body.Text())
			require.EqualValues(t, 17, got.Severity)
			require.Equal(t, "ev", got.EventName)
		})
	}
}
