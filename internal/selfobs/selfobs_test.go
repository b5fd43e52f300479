package selfobs_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/internal/lifecycle"
	"github.com/braidobs/braid/internal/selfobs"
	"github.com/braidobs/braid/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is a sink that keeps everything.
type store struct {
	mu    sync.Mutex // guards what follows
	spans []telemetry.Span
	logs  []telemetry.LogRecord
	calls int
	err   error
}

func (s *store) sink(ctx context.Context, e selfobs.Export) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !selfobs.Suppressed(ctx) {
		return errors.New("not suppressed")
	}
	s.calls++
	if s.err != nil {
		return s.err
	}
	s.spans, s.logs = append(s.spans, e.Spans...), append(s.logs, e.Logs...)
	return nil
}

func (s *store) bodies() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for i := range s.logs {
		out = append(out, s.logs[i].Body.Str())
	}
	return out
}

func fixed() time.Time { return time.Unix(1000, 5).UTC() }

func open(t *testing.T, change func(o *selfobs.Options)) (*selfobs.Obs, *bytes.Buffer, *prometheus.Registry) {
	t.Helper()
	var out bytes.Buffer
	reg := prometheus.NewPedanticRegistry()
	o := selfobs.Options{
		Config: selfobs.Config{Level: slog.LevelDebug, Format: "json", Traces: 1}, Service: "braid", Version: "v1",
		Instance: "i", Output: &out, Registry: reg, Now: fixed,
	}
	if change != nil {
		change(&o)
	}
	obs, err := selfobs.New(o)
	require.NoError(t, err)
	return obs, &out, reg
}

func TestLogs(t *testing.T) {
	obs, out, reg := open(t, nil)
	ctx, span := obs.Tracer().Tracer("test").Start(t.Context(), "s")
	log := obs.Log().With("a", 1).WithGroup("g").With("b", "x")
	obs.Log().Debug("stays outside")
	log.WarnContext(ctx, "inside", "err", errors.New("boom"), slog.Group("h", "d", time.Second), "f", 1.5, "ok", true)
	obs.Log().ErrorContext(selfobs.Suppress(ctx), "suppressed")

	var s store
	obs.Flush(t.Context()) // no sink yet
	obs.SetSink(s.sink)
	obs.Flush(t.Context())

	require.Len(t, s.logs, 1)
	got := s.logs[0]
	require.Equal(t, "inside", got.Body.Str())
	require.Equal(t, uint8(13), got.Severity)
	require.Equal(t, "WARN", got.SeverityText)
	require.Equal(t, fixed().UnixNano(), got.Observed)
	require.Equal(t, telemetry.TraceID(span.SpanContext().TraceID()), got.TraceID)
	require.Equal(t, telemetry.SpanID(span.SpanContext().SpanID()), got.SpanID)
	require.Equal(t, telemetry.NewAttrs([]telemetry.Attr{
		{Key: "a", Value: telemetry.Int(1)},
		{Key: "g.b", Value: telemetry.String("x")},
		{Key: "g.err", Value: telemetry.String("boom")},
		{Key: "g.f", Value: telemetry.Double(1.5)},
		{Key: "g.h.d", Value: telemetry.String("1s")},
		{Key: "g.ok", Value: telemetry.Bool(true)},
	}), got.Attrs)
	for _, msg := range []string{"stays outside", "inside", "suppressed", span.SpanContext().TraceID().String()} {
		require.Contains(t, out.String(), msg)
	}
	require.NoError(t, testutil.GatherAndCompare(reg, bytes.NewBufferString(`
# HELP braid_build_info 1, with what is running in the labels.
# TYPE braid_build_info gauge
braid_build_info{service="braid",version="v1"} 1
# HELP braid_selfobs_exported_records_total Own spans and logs that were handed to the store.
# TYPE braid_selfobs_exported_records_total counter
braid_selfobs_exported_records_total{signal="logs"} 1
`), "braid_build_info", "braid_selfobs_exported_records_total", "braid_selfobs_dropped_records_total"))
	n, err := testutil.GatherAndCount(reg, "go_goroutines")
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

func TestLevel(t *testing.T) {
	obs, out, _ := open(t, func(o *selfobs.Options) { o.Config.Level = slog.LevelError; o.Config.Format = "text" })
	obs.Log().Info("quiet")
	obs.Log().Error("loud")
	require.NotContains(t, out.String(), "quiet")
	require.Contains(t, out.String(), "msg=loud")
}

func TestTraces(t *testing.T) {
	obs, _, _ := open(t, nil)
	var s store
	obs.SetSink(s.sink)
	tr := obs.Tracer().Tracer("lib", trace.WithInstrumentationVersion("v2"))
	ctx, parent := tr.Start(t.Context(), "parent", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("s", "x"), attribute.Int("i", 1), attribute.Bool("b", true), attribute.Float64("f", 2.5),
		attribute.StringSlice("l", []string{"p", "q"}),
	))
	_, child := tr.Start(ctx, "child", trace.WithLinks(trace.Link{SpanContext: parent.SpanContext()}))
	child.AddEvent("e", trace.WithAttributes(attribute.Int("n", 2)))
	child.SetStatus(codes.Error, "bad")
	child.End()
	_, hidden := tr.Start(selfobs.Suppress(ctx), "hidden")
	require.False(t, hidden.SpanContext().IsSampled())
	hidden.End()
	parent.End()
	obs.Flush(t.Context())

	require.Len(t, s.spans, 2)
	c, p := s.spans[0], s.spans[1]
	require.Equal(t, "child", c.Name)
	require.Equal(t, p.SpanID, c.ParentID)
	require.Equal(t, p.TraceID, c.TraceID)
	require.Equal(t, telemetry.StatusError, c.Status)
	require.Equal(t, "bad", c.StatusMessage)
	require.Equal(t, telemetry.SpanKindInternal, c.Kind)
	require.Equal(t, "e", c.Events[0].Name)
	require.Equal(t, p.SpanID, c.Links[0].SpanID)
	require.Equal(t, telemetry.SpanKindServer, p.Kind)
	require.Equal(t, "lib", p.Scope.Name)
	require.Equal(t, "v2", p.Scope.Version)
	require.GreaterOrEqual(t, p.End, p.Start)
	require.Equal(t, telemetry.NewAttrs([]telemetry.Attr{
		{Key: "b", Value: telemetry.Bool(true)},
		{Key: "f", Value: telemetry.Double(2.5)},
		{Key: "i", Value: telemetry.Int(1)},
		{Key: "l", Value: telemetry.Array([]telemetry.Value{telemetry.String("p"), telemetry.String("q")})},
		{Key: "s", Value: telemetry.String("x")},
	}), p.Attrs)
}

func TestNoTraces(t *testing.T) {
	obs, _, _ := open(t, func(o *selfobs.Options) { o.Config.Traces = 0 })
	var s store
	obs.SetSink(s.sink)
	_, span := obs.Tracer().Tracer("x").Start(t.Context(), "s")
	span.End()
	obs.Flush(t.Context())
	require.Zero(t, s.calls)
}

func TestBufferIsBounded(t *testing.T) {
	obs, _, reg := open(t, nil)
	for range 10_000 {
		obs.Log().Info("x")
	}
	var s store
	obs.SetSink(s.sink)
	obs.Flush(t.Context())
	require.Len(t, s.logs, 8192)
	require.Equal(t, 4, s.calls)
	require.NoError(t, testutil.GatherAndCompare(reg, bytes.NewBufferString(`
# HELP braid_selfobs_dropped_records_total Own spans and logs that were lost, by reason.
# TYPE braid_selfobs_dropped_records_total counter
braid_selfobs_dropped_records_total{reason="buffer_full",signal="logs"} 1808
`), "braid_selfobs_dropped_records_total"))
}

func TestFailedExportDoesNotFeedItself(t *testing.T) {
	obs, out, _ := open(t, nil)
	s := store{err: errors.New("no store")}
	obs.SetSink(s.sink)
	obs.Log().Info("x")
	obs.Flush(t.Context())
	require.Contains(t, out.String(), "own logs and spans are lost")
	obs.Flush(t.Context())
	require.Equal(t, 1, s.calls)
}

func TestPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		obs, _, _ := open(t, nil)
		var s store
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- lifecycle.Run(ctx, obs.Log(), obs.Part()) }()
		obs.Log().Info("before the sink")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.Zero(t, s.calls)
		obs.SetSink(s.sink)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []string{"before the sink"}, s.bodies())
		for range 5000 {
			obs.Log().Info("many")
		}
		synctest.Wait() // half full: no time needs to pass
		require.Greater(t, len(s.bodies()), 4000)
		obs.Log().Info("last")
		cancel()
		require.NoError(t, <-ended)
		require.Len(t, s.bodies(), 5002)
		obs.Log().Info("too late")
		obs.Flush(t.Context())
		require.Len(t, s.bodies(), 5002)
	})
}

func TestExportBatch(t *testing.T) {
	obs, _, _ := open(t, nil)
	obs.Log().Info("x")
	obs.SetSink(func(_ context.Context, e selfobs.Export) error {
		b := e.Batch()
		require.Equal(t, telemetry.SelfTenant, b.Tenant)
		require.Equal(t, "braid", b.Stream.Get("service_name"))
		require.Equal(t, "i", b.Resource.Attrs.Text("service.instance.id"))
		require.Len(t, b.Logs, 1)
		return nil
	})
	obs.Flush(t.Context())
}

func TestConfig(t *testing.T) {
	require.NoError(t, selfobs.DefaultConfig().Validate())
	require.EqualError(t, selfobs.Config{Format: "xml", Traces: 2}.Validate(),
		"format: \"xml\" is neither json nor text\ntraces: must lie between 0 and 1")
	_, err := selfobs.New(selfobs.Options{})
	require.Error(t, err)
}

func TestRegistryTakesOne(t *testing.T) {
	reg := prometheus.NewRegistry()
	o := selfobs.Options{Config: selfobs.DefaultConfig(), Output: &bytes.Buffer{}, Registry: reg, Now: fixed}
	_, err := selfobs.New(o)
	require.NoError(t, err)
	_, err = selfobs.New(o)
	require.ErrorContains(t, err, "register metrics")
}
