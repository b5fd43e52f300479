package otlp_test

import (
	"context"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"google.golang.org/grpc/metadata"

	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// sourced is two lines of a container's log as the agent sends them.
func sourced(from, to int64, ends ...int64) plog.Logs {
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	as := rl.Resource().Attributes()
	as.PutStr("service.name", "cart")
	as.PutStr("k8s.namespace.name", "shop")
	as.PutStr("k8s.pod.name", "cart-1")
	as.PutStr("k8s.container.name", "main")
	as.PutStr("log.file.path", "/var/log/x")
	as.PutStr(otlp.SourceStream, "shop/cart-1/main/0")
	as.PutStr(otlp.SourceFile, "abc")
	as.PutInt(otlp.SourceFrom, from)
	as.PutInt(otlp.SourceTo, to)
	lrs := rl.ScopeLogs().AppendEmpty().LogRecords()
	for _, end := range ends {
		lr := lrs.AppendEmpty()
		lr.SetTimestamp(stamp(time.Second))
		lr.Body().SetStr("line")
		lr.Attributes().PutStr("log.iostream", "stdout")
		if end >= 0 {
			lr.Attributes().PutInt(otlp.SourceEnd, end)
		}
	}
	return ld
}

func TestSources(t *testing.T) {
	r := newRecorder(t, nil)
	n, msg := sendLogs(t, r, sourced(10, 30, 20, 30))
	require.Zero(t, n, msg)
	b := one(t, r.writer)[0]
	require.Equal(t, &telemetry.Source{Stream: "shop/cart-1/main/0", File: "abc", From: 10, To: 30, Ends: []uint64{20, 30}}, b.Source)
	require.Equal(t, telemetry.NewLabelSet(labels.FromStrings("service_name", "cart", "namespace", "shop", "pod", "cart-1", "container", "main")), b.Stream)
	_, ok := b.Resource.Attrs.Get(otlp.SourceStream)
	require.False(t, ok, "the source is not stored")
	require.Len(t, b.Resource.Attrs, 5)
	require.Equal(t, attrs("log.iostream", "stdout"), b.Logs[0].Attrs)

	// A record without its end makes the batch count as a whole.
	r = newRecorder(t, nil)
	n, msg = sendLogs(t, r, sourced(10, 30, 20, -1, 30))
	require.Zero(t, n, msg)
	b = one(t, r.writer)[0]
	require.Nil(t, b.Source.Ends)
	require.Len(t, b.Logs, 3)

	// A record that is rejected takes its end along.
	r = newRecorder(t, nil)
	ld := sourced(10, 30, 20, 25, 30)
	ld.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(1).SetTimestamp(pcommon.NewTimestampFromTime(now.Add(48 * time.Hour)))
	n, _ = sendLogs(t, r, ld)
	require.EqualValues(t, 1, n)
	require.Equal(t, []uint64{20, 30}, one(t, r.writer)[0].Source.Ends)
}

func TestBadSources(t *testing.T) {
	for _, c := range []struct {
		name string
		ld   plog.Logs
		want string
	}{
		{"backwards", sourced(30, 10, 20), "ends at 10 before it begins at 30"},
		{"out of order", sourced(10, 30, 30, 20), "not in order"},
		{"negative", sourced(-1, 30, 20), "braid.source.from must be a whole number"},
		{"beyond", sourced(10, 30, 31), "between 10 and 30"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRecorder(t, nil)
			n, msg := sendLogs(t, r, c.ld)
			require.NotZero(t, n)
			require.Contains(t, msg, c.want)
			require.Empty(t, r.writer.written())
		})
	}
}

func TestSourceHeader(t *testing.T) {
	r := newRig(t, nil)
	for _, sig := range signals() {
		body := sig.proto(2)
		r.writer.script(nil)
		resp, text := r.post(t, sig.path, "application/x-protobuf", "", body, otlp.SourceHeader, "stream=agent%2Fn1&file=q&from=1&to=2")
		require.Equal(t, http.StatusOK, resp.StatusCode, string(text))
		for _, req := range r.writer.written() {
			for _, b := range req.Batches {
				require.Equal(t, &telemetry.Source{Stream: "agent/n1", File: "q", From: 1, To: 2}, b.Source)
			}
		}
		for _, bad := range []string{"x", "stream=&file=q&from=1&to=2", "stream=s&file=q&from=1", "stream=s&file=q&from=2&to=1", "stream=s&file=q&from=-1&to=1", "%zz"} {
			resp, text = r.post(t, sig.path, "application/x-protobuf", "", body, otlp.SourceHeader, bad)
			require.Equal(t, http.StatusBadRequest, resp.StatusCode, bad)
			require.Contains(t, string(text), otlp.SourceHeader)
		}
		r.writer.script(nil)
		conn := r.dial(t)
		ctx := metadata.AppendToOutgoingContext(t.Context(), "braid-source", "stream=s&file=f&from=0&to=7")
		_, _, err := sig.export(ctx, conn, 1)
		require.NoError(t, err)
		require.EqualValues(t, 7, r.writer.written()[0].Batches[0].Source.To)
	}
}

// TestScraped sends metrics with Prometheus's own names: they stay as they are.
func TestScraped(t *testing.T) {
	r := newRecorder(t, nil)
	md := pmetric.NewMetrics()
	ms := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	gauge := func(name, typ string, v float64, kv ...string) {
		m := ms.AppendEmpty()
		m.SetName(name)
		m.SetUnit("seconds")
		m.Metadata().PutStr(otlp.PrometheusType, typ)
		p := m.SetEmptyGauge().DataPoints().AppendEmpty()
		p.SetTimestamp(stamp(time.Second))
		p.SetStartTimestamp(stamp(time.Minute))
		p.SetDoubleValue(v)
		for i := 0; i < len(kv); i += 2 {
			p.Attributes().PutStr(kv[i], kv[i+1])
		}
	}
	gauge("node_cpu", "counter", 1, "job", "node", "instance", "a:1", "pod", "p", "a.b", "c")
	gauge("latency_bucket", "histogram", 2, "le", "0.5")
	gauge("http.requests", "unknown", 3)
	m := ms.AppendEmpty()
	m.SetName("custom")
	m.Metadata().PutStr(otlp.PrometheusType, "histogram")
	h := m.SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	hp := h.DataPoints().AppendEmpty()
	hp.SetTimestamp(stamp(time.Second))
	hp.SetCount(3)
	hp.SetSum(5)
	hp.ExplicitBounds().FromRaw([]float64{1, 2})
	hp.BucketCounts().FromRaw([]uint64{1, 1, 1})
	gauge("bad", "nonsense", 1)
	n, msg := sendMetrics(t, r, md)
	require.EqualValues(t, 1, n)
	require.Contains(t, msg, `"nonsense" is no type of a metric`)
	b := one(t, r.writer)[0]
	require.Nil(t, b.Resource, "the labels say what the series are of")
	got := series(r)
	cpu := got[labels.FromStrings("__name__", "node_cpu", "job", "node", "instance", "a:1", "pod", "p", "a.b", "c").String()]
	require.Equal(t, telemetry.MetricCounter, cpu.Metadata.Type)
	require.Equal(t, []telemetry.Sample{{T: now.Add(-time.Second).UnixMilli(), ST: now.Add(-time.Minute).UnixMilli(), V: 1}}, cpu.Samples)
	require.Equal(t, telemetry.MetricHistogram, got[labels.FromStrings("__name__", "latency_bucket", "le", "0.5").String()].Metadata.Type)
	require.Contains(t, got, labels.FromStrings("__name__", "http.requests").String())
	require.Equal(t, []float64{1, 2}, got[labels.FromStrings("__name__", "custom").String()].Histograms[0].H.CustomValues)
	require.Len(t, got, 4)
}

func TestForward(t *testing.T) {
	var got []otlp.Payload
	rig := newForwardingRig(t, nil, func(_ context.Context, p otlp.Payload) (storage.Rejected, error) {
		got = append(got, p)
		return storage.Rejected{Logs: 1, Reasons: []string{"full"}}, nil
	})
	resp, text := rig.post(t, "/v1/logs", "application/json", "", signals()[1].json(2))
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Contains(t, string(text), "full")
	_, msg, err := signals()[0].export(t.Context(), rig.dial(t), 3)
	require.NoError(t, err)
	require.Equal(t, "full", msg)
	require.Len(t, got, 2)
	require.Equal(t, 2, got[0].Logs.LogRecordCount())
	require.Equal(t, 3, got[1].Traces.SpanCount())
	for _, p := range got {
		require.Equal(t, netip.MustParseAddr("127.0.0.1"), p.Peer)
		require.Equal(t, telemetry.DefaultTenant, p.Tenant)
	}
	require.Empty(t, rig.writer.written())
}
