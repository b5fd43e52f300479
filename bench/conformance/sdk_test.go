//go:build e2e

package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
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

	"github.com/braidobs/braid/bench/harness"
)

// exporters makes the exporters of the OpenTelemetry SDK for one transport.
type exporters struct {
	name    string
	traces  func(ctx context.Context) (sdktrace.SpanExporter, error)
	metrics func(ctx context.Context, ts sdkmetric.TemporalitySelector) (sdkmetric.Exporter, error)
	logs    func(ctx context.Context) (sdklog.Exporter, error)
}

func sdkExporters(s *harness.Server) []exporters {
	overGRPC := func(name string, zip bool) exporters {
		traces := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(s.OTLPGRPC), otlptracegrpc.WithInsecure()}
		metrics := []otlpmetricgrpc.Option{otlpmetricgrpc.WithEndpoint(s.OTLPGRPC), otlpmetricgrpc.WithInsecure()}
		logs := []otlploggrpc.Option{otlploggrpc.WithEndpoint(s.OTLPGRPC), otlploggrpc.WithInsecure()}
		if zip {
			traces = append(traces, otlptracegrpc.WithCompressor("gzip"))
			metrics = append(metrics, otlpmetricgrpc.WithCompressor("gzip"))
			logs = append(logs, otlploggrpc.WithCompressor("gzip"))
		}
		return exporters{
			name:   name,
			traces: func(ctx context.Context) (sdktrace.SpanExporter, error) { return otlptracegrpc.New(ctx, traces...) },
			metrics: func(ctx context.Context, ts sdkmetric.TemporalitySelector) (sdkmetric.Exporter, error) {
				return otlpmetricgrpc.New(ctx, append(metrics, otlpmetricgrpc.WithTemporalitySelector(ts))...)
			},
			logs: func(ctx context.Context) (sdklog.Exporter, error) { return otlploggrpc.New(ctx, logs...) },
		}
	}
	overHTTP := func(name string, zip bool) exporters {
		traces := []otlptracehttp.Option{otlptracehttp.WithEndpoint(s.OTLPHTTP), otlptracehttp.WithInsecure()}
		metrics := []otlpmetrichttp.Option{otlpmetrichttp.WithEndpoint(s.OTLPHTTP), otlpmetrichttp.WithInsecure()}
		logs := []otlploghttp.Option{otlploghttp.WithEndpoint(s.OTLPHTTP), otlploghttp.WithInsecure()}
		if zip {
			traces = append(traces, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
			metrics = append(metrics, otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression))
			logs = append(logs, otlploghttp.WithCompression(otlploghttp.GzipCompression))
		}
		return exporters{
			name: name,
			traces: func(ctx context.Context) (sdktrace.SpanExporter, error) {
				return otlptrace.New(ctx, otlptracehttp.NewClient(traces...))
			},
			metrics: func(ctx context.Context, ts sdkmetric.TemporalitySelector) (sdkmetric.Exporter, error) {
				return otlpmetrichttp.New(ctx, append(metrics, otlpmetrichttp.WithTemporalitySelector(ts))...)
			},
			logs: func(ctx context.Context) (sdklog.Exporter, error) { return otlploghttp.New(ctx, logs...) },
		}
	}
	return []exporters{overGRPC("grpc", false), overGRPC("grpc gzip", true), overHTTP("http", false), overHTTP("http gzip", true)}
}

// TestSDK has the exporters of OpenTelemetry's Go SDK send all signals, and reads everything back.
func TestSDK(t *testing.T) {
	s := start(t, t.TempDir(), "")
	for _, e := range sdkExporters(s) {
		service := "sdk-" + strconv.FormatInt(numbers.Add(1), 10)
		res := resource.NewSchemaless(attribute.String("service.name", service), attribute.String("host.name", "h"))
		t.Run(e.name+" traces", func(t *testing.T) {
			exp, err := e.traces(t.Context())
			require.NoError(t, err)
			tp := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exp), sdktrace.WithResource(res))
			ctx, root := tp.Tracer("lib").Start(t.Context(), "root")
			for n := range 9 {
				_, child := tp.Tracer("lib").Start(ctx, "child")
				child.SetAttributes(attribute.Int("n", n), attribute.StringSlice("list", []string{"a", "b"}))
				child.AddEvent("event")
				child.End()
			}
			root.End()
			require.NoError(t, tp.Shutdown(t.Context()))
			require.Equal(t, 10, spans(t, s, "", root.SpanContext().TraceID().String()))
		})
		for kind, ts := range map[string]sdkmetric.TemporalitySelector{
			"cumulative": sdkmetric.CumulativeTemporalitySelector, "delta": sdkmetric.DeltaTemporalitySelector,
		} {
			t.Run(e.name+" metrics "+kind, func(t *testing.T) {
				exp, err := e.metrics(t.Context(), ts)
				require.NoError(t, err)
				exponential := sdkmetric.NewView(sdkmetric.Instrument{Name: "native"},
					sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}})
				own := resource.NewSchemaless(attribute.String("service.name", service+"-"+kind))
				mp := sdkmetric.NewMeterProvider(sdkmetric.WithResource(own), sdkmetric.WithView(exponential),
					sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exp, sdkmetric.WithInterval(time.Hour))))
				meter := mp.Meter("lib")
				count, err := meter.Int64Counter("requests", otelmetric.WithUnit("{request}"))
				require.NoError(t, err)
				active, err := meter.Int64UpDownCounter("active")
				require.NoError(t, err)
				native, err := meter.Float64Histogram("native", otelmetric.WithUnit("s"))
				require.NoError(t, err)
				classic, err := meter.Float64Histogram("classic", otelmetric.WithUnit("s"))
				require.NoError(t, err)
				for range 3 { // exports
					count.Add(t.Context(), 5)
					active.Add(t.Context(), 2)
					for _, h := range []otelmetric.Float64Histogram{native, classic} {
						h.Record(t.Context(), 0.3)
						h.Record(t.Context(), 70)
					}
					require.NoError(t, mp.ForceFlush(t.Context()))
					sent := time.Now().UnixMilli() // of two points in one millisecond one series keeps one
					require.Eventually(t, func() bool { return time.Now().UnixMilli() > sent }, time.Second, time.Millisecond)
				}
				require.NoError(t, mp.Shutdown(t.Context()))
				sel := fmt.Sprintf("{service_name=%q}", service+"-"+kind)
				for query, want := range map[string]float64{
					"requests_total" + sel: 15, "active" + sel: 6,
					"histogram_count(native_seconds" + sel + ")": 6, "histogram_sum(native_seconds" + sel + ")": 3 * 70.3,
					"classic_seconds_count" + sel: 6, "classic_seconds_sum" + sel: 3 * 70.3,
					`classic_seconds_bucket{le="5",` + sel[1:]: 3, `classic_seconds_bucket{le="+Inf",` + sel[1:]: 6,
				} {
					require.InDelta(t, want, value(t, s, query), 1e-9, query)
				}
				// The upper half of the values is 70, to within a bucket of the native histogram.
				require.InDelta(t, 70, value(t, s, "histogram_quantile(0.99, native_seconds"+sel+")"), 0.05*70)
			})
		}
		t.Run(e.name+" logs", func(t *testing.T) {
			exp, err := e.logs(t.Context())
			require.NoError(t, err)
			lp := sdklog.NewLoggerProvider(sdklog.WithResource(res), sdklog.WithProcessor(sdklog.NewBatchProcessor(exp)))
			for n := range 10 {
				var rec otellog.Record
				rec.SetTimestamp(time.Now())
				rec.SetBody(attribute.StringValue("line " + strconv.Itoa(n)))
				rec.SetSeverity(otellog.SeverityError)
				lp.Logger("lib").Emit(t.Context(), rec)
			}
			require.NoError(t, lp.Shutdown(t.Context()))
			require.Len(t, lines(t, s, "", fmt.Sprintf(`{service_name=%q} |= "line"`, service)), 10)
		})
	}
}

// telemetrygen is the load generator of the OpenTelemetry Collector.
const telemetrygen = "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen@v0.161.0"

// install builds telemetrygen and returns the path of it.
func install(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", telemetrygen)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED=0")
	cmd.Dir = dir // outside the module, whose dependencies are not those of the tool
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return filepath.Join(dir, "telemetrygen")
}

// TestTelemetrygen runs telemetrygen as a process of its own and counts what it says that it sent.
func TestTelemetrygen(t *testing.T) {
	bin := install(t)
	s := start(t, t.TempDir(), "")
	said := regexp.MustCompile(`(?:traces|metrics|logs) generated\s+\{"worker": \d+, "(?:traces|metrics|logs)": (\d+)\}`)
	for _, transport := range []string{"grpc", "http"} {
		for name, args := range map[string][]string{
			"traces":                {"traces", "--traces=100", "--child-spans=3", "--rate=0"},
			"logs":                  {"logs", "--logs=300", "--rate=0", "--body=the numbered line"},
			"gauge":                 {"metrics", "--metrics=200", "--rate=0"},
			"sum cumulative":        {"metrics", "--metrics=200", "--rate=0", "--metric-type=Sum"},
			"sum delta":             {"metrics", "--metrics=200", "--rate=0", "--metric-type=Sum", "--aggregation-temporality=delta"},
			"histogram":             {"metrics", "--metrics=200", "--rate=0", "--metric-type=Histogram"},
			"exponential histogram": {"metrics", "--metrics=200", "--rate=0", "--metric-type=ExponentialHistogram"},
		} {
			t.Run(transport+" "+name, func(t *testing.T) {
				service := "gen-" + strconv.FormatInt(numbers.Add(1), 10)
				args = append(args, "--otlp-insecure", "--workers=1", "--service="+service)
				if args[0] == "metrics" { // the points of one series would share milliseconds
					args = append(args, "--unique-timeseries", "--unique-timeseries-duration=1h")
				}
				if transport == "http" {
					args = append(args, "--otlp-http", "--otlp-endpoint="+s.OTLPHTTP)
				} else {
					args = append(args, "--otlp-endpoint="+s.OTLPGRPC)
				}
				out, err := exec.CommandContext(t.Context(), bin, args...).CombinedOutput()
				require.NoError(t, err, "%s", out)
				sent := 0
				for _, m := range said.FindAllSubmatch(out, -1) {
					n, err := strconv.Atoi(string(m[1]))
					require.NoError(t, err)
					sent += n
				}
				require.Positive(t, sent, "%s", out)
				switch args[0] {
				case "traces":
					require.Equal(t, sent, generatedTraces(t, s, service))
				case "logs":
					require.Len(t, lines(t, s, "", fmt.Sprintf(`{service_name=%q} |= "the numbered line"`, service)), sent)
				default:
					series := fmt.Sprintf(`{__name__=~"gen(_total|_count)?",service_name=%q}[10m]`, service)
					require.InDelta(t, sent, value(t, s, "sum(count_over_time("+series+"))"), 0)
				}
			})
		}
	}
}

// generatedTraces returns how many traces a service has. Each must have four spans.
func generatedTraces(t *testing.T, s *harness.Server, service string) int {
	t.Helper()
	code, b := get(t, s, "", "/api/search?"+url.Values{"tags": {"service.name=" + service}, "limit": {"1000"}}.Encode())
	require.Equal(t, http.StatusOK, code, "%s", b)
	var found struct{ Traces []struct{ TraceID string } }
	require.NoError(t, json.Unmarshal(b, &found))
	for _, tr := range found.Traces {
		require.Equal(t, 4, spans(t, s, "", tr.TraceID))
	}
	return len(found.Traces)
}
