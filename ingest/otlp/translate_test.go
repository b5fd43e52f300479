package otlp_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

func attrs(kv ...any) telemetry.Attrs {
	var as []telemetry.Attr
	for i := 0; i < len(kv); i += 2 {
		var v telemetry.Value
		switch x := kv[i+1].(type) {
		case string:
			v = telemetry.String(x)
		case int:
			v = telemetry.Int(int64(x))
		case float64:
			v = telemetry.Double(x)
		case bool:
			v = telemetry.Bool(x)
		case []byte:
			v = telemetry.Bytes(x)
		case telemetry.Value:
			v = x
		}
		as = append(as, telemetry.Attr{Key: kv[i].(string), Value: v})
	}
	return telemetry.NewAttrs(as)
}

func sendTraces(t *testing.T, r *recorder, td ptrace.Traces) (int64, string) {
	t.Helper()
	out := ptraceotlp.NewExportResponse()
	require.NoError(t, out.UnmarshalProto(r.send(t, storage.Traces, must(ptraceotlp.NewExportRequestFromTraces(td).MarshalProto()))))
	return out.PartialSuccess().RejectedSpans(), out.PartialSuccess().ErrorMessage()
}

func sendLogs(t *testing.T, r *recorder, ld plog.Logs) (int64, string) {
	t.Helper()
	out := plogotlp.NewExportResponse()
	require.NoError(t, out.UnmarshalProto(r.send(t, storage.Logs, must(plogotlp.NewExportRequestFromLogs(ld).MarshalProto()))))
	return out.PartialSuccess().RejectedLogRecords(), out.PartialSuccess().ErrorMessage()
}

func sendMetrics(t *testing.T, r *recorder, md pmetric.Metrics) (int64, string) {
	t.Helper()
	out := pmetricotlp.NewExportResponse()
	require.NoError(t, out.UnmarshalProto(r.send(t, storage.Metrics, must(pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()))))
	return out.PartialSuccess().RejectedDataPoints(), out.PartialSuccess().ErrorMessage()
}

func resourceAttrs() telemetry.Attrs {
	return attrs("service.name", "cart", "service.namespace", "shop", "service.instance.id", "cart-1", "k8s.pod.name", "cart-7d9", "process.pid", 42)
}

// TestTraces requires that nothing of a span is lost.
func TestTraces(t *testing.T) {
	r := newRecorder(t, nil)
	n, msg := sendTraces(t, r, traces(1))
	require.Zero(t, n)
	require.Empty(t, msg)
	res := telemetry.NewResource("https://opentelemetry.io/schemas/1.30.0", resourceAttrs())
	res.Dropped = 2
	start := now.Add(-time.Minute).UnixNano()
	require.Equal(t, []telemetry.Batch{{
		Tenant: telemetry.DefaultTenant, Resource: res,
		Spans: []telemetry.Span{{
			TraceID: telemetry.TraceID(traceID), SpanID: telemetry.SpanID{1, 0, 0, 1}, ParentID: telemetry.SpanID(spanID),
			Kind: telemetry.SpanKindServer, Status: telemetry.StatusError, StatusMessage: "boom", Flags: 0x101,
			Start: start, End: start + int64(time.Millisecond), Name: "GET /cart", State: "a=b",
			DroppedAttrs: 3, DroppedEvents: 4, DroppedLinks: 5,
			Scope: &telemetry.Scope{Name: "lib", Version: "1.0", SchemaURL: "https://example.org/scope", Attrs: attrs("async", true), Dropped: 1},
			Attrs: attrs("http.method", "GET", "ratio", 0.5, "raw", []byte{0, 255},
				"list", telemetry.Array([]telemetry.Value{telemetry.Int(7)}), "map", telemetry.Map(attrs("empty", telemetry.Value{}))),
			Events: []telemetry.Event{{Time: start, Name: "exception", Attrs: attrs("exception.type", "io"), Dropped: 6}},
			Links: []telemetry.Link{{
				TraceID: telemetry.TraceID(traceID), SpanID: telemetry.SpanID(spanID), State: "c=d", Flags: 1, Attrs: attrs("n", 1), Dropped: 7,
			}},
		}},
	}}, r.writer.written()[0].Batches)
}

func TestTracesRejected(t *testing.T) {
	r := newRecorder(t, nil)
	td := traces(6)
	ss := td.ResourceSpans().At(0).ScopeSpans().At(0).Spans()
	ss.At(0).SetTraceID(pcommon.TraceID{})
	ss.At(1).SetSpanID(pcommon.SpanID{})
	ss.At(2).SetStartTimestamp(0)
	ss.At(3).SetStartTimestamp(stamp(-2 * time.Hour))
	ss.At(4).Attributes().PutStr("big", strings.Repeat("x", 2<<20))
	n, msg := sendTraces(t, r, td)
	require.EqualValues(t, 5, n)
	for _, want := range []string{
		"no valid trace ID", "no valid span ID", "older than the retention of 30d (setting storage.retention)",
		"more than 1h in the future (setting ingest.max_future)", "larger than 2MiB (setting ingest.max_record)",
	} {
		require.Contains(t, msg, want)
	}
	reqs := r.writer.written()
	require.Len(t, reqs[0].Batches[0].Spans, 1)
	require.Equal(t, 5, reqs[0].Rejected.Spans)
	require.Zero(t, reqs[0].Key, "a span without a start is no retry")
}

// TestMerge requires one batch a resource, however often it is sent, and one scope.
func TestMerge(t *testing.T) {
	r := newRecorder(t, nil)
	td := traces(2)
	traces(3).ResourceSpans().At(0).CopyTo(td.ResourceSpans().AppendEmpty())
	other := td.ResourceSpans().AppendEmpty()
	traces(1).ResourceSpans().At(0).CopyTo(other)
	other.Resource().Attributes().PutStr("service.instance.id", "cart-2")
	_, _ = sendTraces(t, r, td)
	bs := r.writer.written()[0].Batches
	require.Len(t, bs, 2)
	require.Len(t, bs[0].Spans, 5)
	require.Len(t, bs[1].Spans, 1)
	require.Same(t, bs[0].Spans[0].Scope, bs[0].Spans[4].Scope)
}

func TestLogs(t *testing.T) {
	r := newRecorder(t, nil)
	n, msg := sendLogs(t, r, logs(1))
	require.Zero(t, n)
	require.Empty(t, msg)
	require.Equal(t, []telemetry.Batch{{
		Tenant: telemetry.DefaultTenant, Resource: telemetry.NewResource("", resourceAttrs()),
		Stream: telemetry.NewLabelSet(labels.FromStrings(
			"service_name", "cart", "service_namespace", "shop", "service_instance_id", "cart-1", "k8s_pod_name", "cart-7d9")),
		Logs: []telemetry.LogRecord{{
			Time: now.Add(-time.Minute).UnixNano(), Observed: now.Add(-time.Second).UnixNano(), Severity: 13, SeverityText: "WARN",
			EventName: "cart.full", Body: telemetry.String("the cart is full"), TraceID: telemetry.TraceID(traceID),
			SpanID: telemetry.SpanID(spanID), Flags: 1, Dropped: 1, Attrs: attrs("items", 99),
		}},
	}}, r.writer.written()[0].Batches)
}

func TestLogTimes(t *testing.T) {
	tests := []struct {
		name           string
		time, observed pcommon.Timestamp
		want           time.Time
		inferred       bool
		exempt         bool
	}{
		{"own", stamp(time.Hour), stamp(time.Minute), now.Add(-time.Hour), false, false},
		{"observed", 0, stamp(time.Minute), now.Add(-time.Minute), true, false},
		{"none", 0, 0, now, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRecorder(t, nil)
			ld := logs(1)
			rec := ld.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0)
			rec.SetTimestamp(tt.time)
			rec.SetObservedTimestamp(tt.observed)
			_, _ = sendLogs(t, r, ld)
			req := r.writer.written()[0]
			got := req.Batches[0].Logs[0]
			require.Equal(t, tt.want.UnixNano(), got.Time)
			require.Equal(t, tt.inferred, got.TimeInferred)
			require.Equal(t, tt.exempt, req.Key == storage.Key{})
		})
	}
}

func TestStreams(t *testing.T) {
	tests := []struct {
		name  string
		attrs map[string]string
		list  []string
		want  labels.Labels
	}{
		{"none", nil, nil, labels.FromStrings("service_name", "unknown_service")},
		{"not listed", map[string]string{"host.name": "h"}, nil, labels.FromStrings("service_name", "unknown_service")},
		{"setting", map[string]string{"host.name": "h", "service.name": "x"}, []string{"host.name"}, labels.FromStrings("host_name", "h", "service_name", "unknown_service")},
		{"not UTF-8", map[string]string{"service.name": "a\xff"}, nil, labels.FromStrings("service_name", "a\uFFFD")},
		{"empty", map[string]string{"service.name": "", "cloud.region": "eu"}, nil, labels.FromStrings("service_name", "unknown_service", "cloud_region", "eu")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRecorder(t, func(_ *ingest.Config, c *otlp.Config) {
				if tt.list != nil {
					c.StreamLabels = tt.list
				}
			})
			ld := plog.NewLogs()
			rl := ld.ResourceLogs().AppendEmpty()
			for k, v := range tt.attrs {
				rl.Resource().Attributes().PutStr(k, v)
			}
			rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Body().SetStr("x")
			_, _ = sendLogs(t, r, ld)
			require.Equal(t, telemetry.NewLabelSet(tt.want), r.writer.written()[0].Batches[0].Stream)
		})
	}
}

// TestNesting accepts values as deep as the model keeps them, rejects records with deeper ones, and refuses requests
// that would exhaust the stack.
func TestNesting(t *testing.T) {
	nested := func(n int) plog.Logs {
		ld := logs(2)
		v := ld.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0).Body()
		for i := range n {
			if i%2 == 0 {
				v = v.SetEmptySlice().AppendEmpty()
			} else {
				v = v.SetEmptyMap().PutEmpty("k")
			}
		}
		return ld
	}
	for _, tt := range []struct{ depth, rejected int }{{1, 0}, {telemetry.MaxDepth, 0}, {telemetry.MaxDepth + 1, 1}, {100, 1}} {
		r := newRecorder(t, nil)
		n, _ := sendLogs(t, r, nested(tt.depth))
		require.EqualValues(t, tt.rejected, n, "depth %d", tt.depth)
		bs := r.writer.written()[0].Batches
		require.Len(t, bs[0].Logs, 2-tt.rejected)
		roundTrip(t, bs)
	}
	r := newRecorder(t, nil)
	req := plogotlp.NewExportRequestFromLogs(nested(130))
	require.Equal(t, http.StatusBadRequest, r.answer(storage.Logs, typeProto, must(req.MarshalProto())).Code)
	req = plogotlp.NewExportRequestFromLogs(nested(200))
	require.Equal(t, http.StatusBadRequest, r.answer(storage.Logs, typeText, must(req.MarshalJSON())).Code)

	// As many levels as fit, which a decoder that recurses cannot take. Written from the inside out, backwards.
	var back []byte
	size := 0
	wrap := func(field protowire.Number) {
		head := binary.AppendUvarint(protowire.AppendTag(nil, field, protowire.BytesType), uint64(size))
		slices.Reverse(head)
		back = append(back, head...)
		size += len(head)
	}
	for size < 32<<20 {
		wrap(1) // ArrayValue.values
		wrap(5) // AnyValue.array_value
	}
	for _, field := range []protowire.Number{5, 2, 2, 1} { // body, log_records, scope_logs, resource_logs
		wrap(field)
	}
	slices.Reverse(back)
	require.Equal(t, http.StatusBadRequest, r.answer(storage.Logs, typeProto, back).Code)
	deep := `{"resourceLogs":[{"resource":{"attributes":[{"key":"a","value":` + strings.Repeat(`{"arrayValue":{"values":[`, 1_000_000)
	require.Equal(t, http.StatusBadRequest, r.answer(storage.Logs, typeText, []byte(deep)).Code)
}

// TestExpansion refuses requests that are small but need much memory once they are decoded or translated.
func TestExpansion(t *testing.T) {
	small := func(_ *ingest.Config, c *otlp.Config) { c.MaxBody = 1 << 20 }
	empties := func(path ...protowire.Number) []byte {
		var in []byte
		for range 400_000 {
			in = append(protowire.AppendTag(in, path[len(path)-1], protowire.BytesType), 0)
		}
		for i := len(path) - 2; i >= 0; i-- {
			in = protowire.AppendBytes(protowire.AppendTag(nil, path[i], protowire.BytesType), in)
		}
		return in
	}
	t.Run("empty spans", func(t *testing.T) {
		r := newRecorder(t, small)
		require.Equal(t, http.StatusRequestEntityTooLarge, r.answer(storage.Traces, typeProto, empties(1, 2, 2)).Code)
	})
	t.Run("empty resources", func(t *testing.T) {
		r := newRecorder(t, small)
		require.Equal(t, http.StatusRequestEntityTooLarge, r.answer(storage.Logs, typeProto, empties(1)).Code)
	})
	t.Run("empty objects", func(t *testing.T) {
		r := newRecorder(t, small)
		body := `{"resourceSpans":[{"scopeSpans":[{"spans":[{}` + strings.Repeat(",{}", 300_000) + `]}]}]}`
		require.Equal(t, http.StatusRequestEntityTooLarge, r.answer(storage.Traces, typeText, []byte(body)).Code)
	})
	t.Run("labels times buckets", func(t *testing.T) {
		r := newRecorder(t, small)
		md := pmetric.NewMetrics()
		m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		m.SetName("x")
		h := m.SetEmptyHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		p := h.DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(0))
		p.Attributes().PutStr("a", strings.Repeat("x", 60<<10))
		for i := range 10_000 {
			p.ExplicitBounds().Append(float64(i))
			p.BucketCounts().Append(0)
		}
		w := r.answer(storage.Metrics, typeProto, must(pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()))
		require.Equal(t, http.StatusRequestEntityTooLarge, w.Code)
	})
}

// series returns the series of a request by their labels, those of target_info left out.
func series(r *recorder) map[string]telemetry.Series {
	out := make(map[string]telemetry.Series)
	for _, req := range r.writer.written() {
		for _, b := range req.Batches {
			for _, s := range b.Series {
				if s.Labels.Get("__name__") != "target_info" {
					out[s.Labels.Labels().String()] = s
				}
			}
		}
	}
	return out
}

// metric returns a request with one metric and no resource.
func metric(f func(m pmetric.Metric)) pmetric.Metrics {
	md := pmetric.NewMetrics()
	f(md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty())
	return md
}

func TestTargetInfo(t *testing.T) {
	r := newRecorder(t, nil)
	_, _ = sendMetrics(t, r, gauges(2))
	bs := r.writer.written()[0].Batches
	require.Len(t, bs, 1)
	require.Len(t, bs[0].Series, 3)
	last := bs[0].Series[2]
	require.Equal(t, labels.FromStrings("__name__", "target_info", "instance", "cart-1", "job", "shop/cart",
		"k8s_pod_name", "cart-7d9", "process_pid", "42"), last.Labels.Labels())
	require.True(t, last.Derived)
	require.Equal(t, []telemetry.Sample{{T: now.Add(-time.Minute).UnixMilli(), V: 1}}, last.Samples)
	require.Equal(t, labels.FromStrings("__name__", "cart_items", "instance", "cart-1", "job", "shop/cart",
		"k8s_pod_name", "cart-7d9", "service_instance_id", "cart-1", "service_name", "cart", "service_namespace", "shop", "shard", "0"),
		bs[0].Series[0].Labels.Labels())
	require.Equal(t, &telemetry.Metadata{Type: telemetry.MetricGauge, Unit: "", Help: "Items in carts."}, bs[0].Series[0].Metadata)

	r = newRecorder(t, nil)
	_, _ = sendMetrics(t, r, metric(func(m pmetric.Metric) {
		m.SetName("x")
		m.SetEmptyGauge().DataPoints().AppendEmpty().SetTimestamp(stamp(0))
	}))
	require.Len(t, r.writer.written()[0].Batches[0].Series, 1, "a resource that says nothing has no target_info")
}

// TestDelta passes delta temporality on, for every type that has it.
func TestDelta(t *testing.T) {
	at, start := now.UnixMilli(), now.Add(-time.Minute).UnixMilli()
	type point interface {
		SetTimestamp(pcommon.Timestamp)
		SetStartTimestamp(pcommon.Timestamp)
	}
	stampPoint := func(p point) {
		p.SetTimestamp(stamp(0))
		p.SetStartTimestamp(stamp(time.Minute))
	}
	tests := []struct {
		name  string
		fill  func(m pmetric.Metric)
		types map[string]telemetry.MetricType
	}{
		{"counter", func(m pmetric.Metric) {
			s := m.SetEmptySum()
			s.SetIsMonotonic(true)
			s.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			p := s.DataPoints().AppendEmpty()
			stampPoint(p)
			p.SetIntValue(3)
		}, map[string]telemetry.MetricType{`{__name__="x_total"}`: telemetry.MetricCounter}},
		{"up and down", func(m pmetric.Metric) {
			s := m.SetEmptySum()
			s.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			p := s.DataPoints().AppendEmpty()
			stampPoint(p)
			p.SetIntValue(-3)
		}, map[string]telemetry.MetricType{`{__name__="x"}`: telemetry.MetricGauge}},
		{"histogram", func(m pmetric.Metric) {
			h := m.SetEmptyHistogram()
			h.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			p := h.DataPoints().AppendEmpty()
			stampPoint(p)
			p.SetCount(3)
			p.SetSum(3)
			p.ExplicitBounds().FromRaw([]float64{1})
			p.BucketCounts().FromRaw([]uint64{1, 2})
		}, map[string]telemetry.MetricType{
			`{__name__="x_sum"}`: telemetry.MetricHistogram, `{__name__="x_count"}`: telemetry.MetricHistogram,
			`{__name__="x_bucket", le="1"}`: telemetry.MetricHistogram, `{__name__="x_bucket", le="+Inf"}`: telemetry.MetricHistogram,
		}},
		{"exponential", func(m pmetric.Metric) {
			h := m.SetEmptyExponentialHistogram()
			h.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			p := h.DataPoints().AppendEmpty()
			stampPoint(p)
			p.SetCount(3)
			p.SetZeroCount(3)
			p.SetZeroThreshold(0.001)
		}, map[string]telemetry.MetricType{`{__name__="x"}`: telemetry.MetricHistogram}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRecorder(t, nil)
			n, msg := sendMetrics(t, r, metric(func(m pmetric.Metric) {
				m.SetName("x")
				tt.fill(m)
			}))
			require.Zero(t, n, msg)
			got := series(r)
			require.Len(t, got, len(tt.types))
			own := 0
			for k, typ := range tt.types {
				s, ok := got[k]
				require.True(t, ok, k)
				require.True(t, s.Delta)
				require.Equal(t, typ, s.Metadata.Type)
				if !s.Derived {
					own++
				}
				for _, p := range s.Samples {
					require.Equal(t, []int64{at, start}, []int64{p.T, p.ST})
				}
				for _, p := range s.Histograms {
					require.Equal(t, []int64{at, start}, []int64{p.T, p.ST})
					require.InDelta(t, 0.001, p.H.ZeroThreshold, 0)
				}
			}
			require.Equal(t, 1, own, "one series counts the data point")
		})
	}
}

func TestMetricsRejected(t *testing.T) {
	gauge := func(m pmetric.Metric) pmetric.NumberDataPoint {
		m.SetName("x")
		p := m.SetEmptyGauge().DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(0))
		return p
	}
	exponential := func(m pmetric.Metric) pmetric.ExponentialHistogramDataPoint {
		m.SetName("x")
		h := m.SetEmptyExponentialHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		p := h.DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(0))
		return p
	}
	tests := []struct {
		name string
		fill func(m pmetric.Metric)
		want string
	}{
		{"no temporality", func(m pmetric.Metric) {
			m.SetName("x")
			m.SetEmptySum().DataPoints().AppendEmpty().SetTimestamp(stamp(0))
		}, "neither cumulative nor delta"},
		{"no name", func(m pmetric.Metric) { gauge(m); m.SetName("") }, "empty name"},
		{"bad name", func(m pmetric.Metric) { gauge(m); m.SetName("\xff\xfe") }, "empty name"},
		{"no attribute name", func(m pmetric.Metric) { gauge(m).Attributes().PutStr("", "x") }, "has no name"},
		{"underscores", func(m pmetric.Metric) { gauge(m).Attributes().PutStr("---", "x") }, "invalid name"},
		{"value not UTF-8", func(m pmetric.Metric) { gauge(m).Attributes().PutStr("a", "\xff") }, "not valid UTF-8"},
		{"long value", func(m pmetric.Metric) { gauge(m).Attributes().PutStr("a", strings.Repeat("x", 65<<10)) }, "ingest.max_label_value"},
		{"long name", func(m pmetric.Metric) { gauge(m).Attributes().PutStr(strings.Repeat("x", 1025), "a") }, "ingest.max_name"},
		{"old", func(m pmetric.Metric) { gauge(m).SetTimestamp(stamp(31 * 24 * time.Hour)) }, "older than the retention"},
		{"no time", func(m pmetric.Metric) { gauge(m).SetTimestamp(0) }, "older than the retention"},
		{"labels", func(m pmetric.Metric) {
			p := gauge(m)
			for i := range 64 {
				p.Attributes().PutStr(fmt.Sprint("a", i), "x")
			}
		}, "more than 64 labels (setting ingest.max_labels)"},
		{"attributes", func(m pmetric.Metric) {
			p := gauge(m)
			for i := range 1000 {
				p.Attributes().PutStr(fmt.Sprint("a", i), "x")
			}
		}, "more than 64 labels (setting ingest.max_labels)"},
		{"old histogram", func(m pmetric.Metric) {
			m.SetName("x")
			h := m.SetEmptyHistogram()
			h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			p := h.DataPoints().AppendEmpty()
			p.SetTimestamp(stamp(9000 * time.Hour))
			p.ExplicitBounds().FromRaw([]float64{1, 2, 3})
			p.BucketCounts().FromRaw([]uint64{1, 2, 3, 4})
		}, "older than the retention"},
		{"scale", func(m pmetric.Metric) { exponential(m).SetScale(-5) }, "scale below -4"},
		{"count", func(m pmetric.Metric) { exponential(m).SetCount(7) }, "not valid"},
		{"offset", func(m pmetric.Metric) {
			p := exponential(m)
			p.Positive().SetOffset(math.MaxInt32)
			p.Positive().BucketCounts().FromRaw([]uint64{1, 1})
			p.SetCount(2)
		}, "out of range"},
		{"too full", func(m pmetric.Metric) {
			exponential(m).Positive().BucketCounts().FromRaw([]uint64{math.MaxUint64})
		}, "too full"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRecorder(t, nil)
			n, msg := sendMetrics(t, r, metric(tt.fill))
			require.EqualValues(t, 1, n, msg)
			require.Contains(t, msg, tt.want)
			require.Empty(t, r.writer.written())
		})
	}
}

// TestScale merges buckets of scales beyond what native histograms have, and requires that every count stays within
// the bounds it was sent with.
func TestScale(t *testing.T) {
	for _, scale := range []int32{-4, 0, 8, 9, 12, 20} {
		for _, offset := range []int32{-3000, -17, -1, 0, 1, 1000} {
			counts := []uint64{0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1, 0}
			r := newRecorder(t, nil)
			n, msg := sendMetrics(t, r, metric(func(m pmetric.Metric) {
				m.SetName("x")
				h := m.SetEmptyExponentialHistogram()
				h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
				p := h.DataPoints().AppendEmpty()
				p.SetTimestamp(stamp(0))
				p.SetScale(scale)
				p.SetCount(13)
				p.Positive().SetOffset(offset)
				p.Positive().BucketCounts().FromRaw(counts)
			}))
			require.Zero(t, n, msg)
			got := series(r)[`{__name__="x"}`].Histograms[0].H
			require.NoError(t, got.Validate())
			want := make(map[int32]int64)
			for i, c := range counts {
				if c > 0 {
					// Bucket i ends at 2^((i+1)/2^scale): the native bucket that holds it ends at or after that.
					idx := math.Ceil(float64(int(offset)+i+1) / math.Exp2(float64(max(scale-8, 0))))
					want[int32(idx)] += int64(c)
				}
			}
			have := make(map[int32]int64)
			for it := got.PositiveBucketIterator(); it.Next(); {
				if b := it.At(); b.Count > 0 {
					have[b.Index] = int64(b.Count)
				}
			}
			require.Equal(t, want, have, "scale %d offset %d", scale, offset)
		}
	}
}

func TestStale(t *testing.T) {
	r := newRecorder(t, nil)
	flag := pmetric.DefaultDataPointFlags.WithNoRecordedValue(true)
	_, _ = sendMetrics(t, r, metric(func(m pmetric.Metric) {
		m.SetName("x")
		p := m.SetEmptyGauge().DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(0))
		p.SetFlags(flag)
	}))
	require.True(t, value.IsStaleNaN(series(r)[`{__name__="x"}`].Samples[0].V))
	r.writer.script(nil)
	_, _ = sendMetrics(t, r, metric(func(m pmetric.Metric) {
		m.SetName("x")
		h := m.SetEmptyExponentialHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		p := h.DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(0))
		p.SetFlags(flag)
	}))
	require.True(t, value.IsStaleNaN(series(r)[`{__name__="x"}`].Histograms[0].H.Sum))
}

// TestTimeWindowOff accepts the times of test suites.
func TestTimeWindowOff(t *testing.T) {
	r := newRecorder(t, func(c *ingest.Config, _ *otlp.Config) { c.TimeWindow = false })
	n, _ := sendMetrics(t, r, metric(func(m pmetric.Metric) {
		m.SetName("x")
		ps := m.SetEmptyGauge().DataPoints()
		for i := range 3 {
			ps.AppendEmpty().SetTimestamp(pcommon.Timestamp(i * 1e6))
		}
	}))
	require.Zero(t, n)
	require.Equal(t, []telemetry.Sample{{T: 0}, {T: 1}, {T: 2}}, series(r)[`{__name__="x"}`].Samples)
}

// TestJSON reads the example of the protocol's specification: hexadecimal IDs, integers as text and as numbers,
// enums as numbers.
func TestJSON(t *testing.T) {
	r := newRecorder(t, nil)
	body := fmt.Sprintf(`{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"my.service"}}]},
		"scopeSpans":[{"scope":{"name":"my.scope","version":"1.0.0"},"spans":[{"traceId":"5B8EFFF798038103D269B633813FC60C",
		"spanId":"EEE19B7EC3C1B174","parentSpanId":"EEE19B7EC3C1B173","name":"I'm a server span","startTimeUnixNano":"%d",
		"endTimeUnixNano":%d,"kind":2,"unknown":{"x":[]},"attributes":[{"key":"n","value":{"intValue":"7"}},{"key":"m","value":{"intValue":8}}]}]}]}]}`,
		now.UnixNano(), now.UnixNano())
	w := r.answer(storage.Traces, typeText, []byte(body))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	s := r.writer.written()[0].Batches[0].Spans[0]
	require.Equal(t, "5b8efff798038103d269b633813fc60c", s.TraceID.String())
	require.Equal(t, "eee19b7ec3c1b174", s.SpanID.String())
	require.Equal(t, "eee19b7ec3c1b173", s.ParentID.String())
	require.Equal(t, telemetry.SpanKindServer, s.Kind)
	require.Equal(t, now.UnixNano(), s.Start)
	require.Equal(t, now.UnixNano(), s.End)
	require.Equal(t, attrs("n", 7, "m", 8), s.Attrs)
}
