package evidence_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	prompromql "github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/correlate/evidence"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const tenant = telemetry.DefaultTenant

func resource(service, pod string) *telemetry.Resource {
	return telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{
		{Key: "service.name", Value: telemetry.String(service)},
		{Key: "k8s.namespace.name", Value: telemetry.String("shop")},
		{Key: "k8s.pod.name", Value: telemetry.String(pod)},
		{Key: "k8s.pod.uid", Value: telemetry.String("uid-" + pod)},
	}))
}

func id(n int) telemetry.TraceID { return telemetry.TraceID{1, byte(n >> 8), byte(n)} }

type rig struct {
	store  *testkit.Store
	engine *promql.Engine
	c      *evidence.Collector
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{store: testkit.NewStore("")}
	var err error
	r.engine, err = promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: r.store, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	r.c = evidence.NewCollector(r.store, r.engine, time.Now, prometheus.NewRegistry())
	return r
}

func (r *rig) write(t *testing.T, bs ...telemetry.Batch) {
	t.Helper()
	for i := range bs {
		bs[i].Tenant = tenant
	}
	_, _, err := r.store.Write(t.Context(), storage.Request{Batches: bs})
	require.NoError(t, err)
}

// slowDatabase stores an hour of a shop whose database was slow in the last five minutes.
func (r *rig) slowDatabase(t *testing.T) {
	t.Helper()
	front := telemetry.Batch{Resource: resource("frontend", "frontend-1")}
	db := telemetry.Batch{Resource: resource("database", "db-0")}
	dbLogs := telemetry.Batch{Resource: resource("database", "db-0"), Stream: telemetry.NewLabelSet(labels.FromStrings("service_name", "database"))}
	for n := range 120 {
		at := now.Add(-time.Duration(n) * 30 * time.Second)
		took := int64(10e6)
		if n < 10 {
			took = int64(800e6) + int64(n)*1e6
			dbLogs.Logs = append(dbLogs.Logs,
				telemetry.LogRecord{Time: at.UnixNano() + 5, TraceID: id(n), Severity: 17, SeverityText: "ERROR", Body: telemetry.String(fmt.Sprintf("slow query %d", n))},
				telemetry.LogRecord{Time: at.UnixNano() + 6, TraceID: id(n), Severity: 9, SeverityText: "INFO", Body: telemetry.String(strings.Repeat("long ", 1000))})
		}
		front.Spans = append(front.Spans, telemetry.Span{TraceID: id(n), SpanID: telemetry.SpanID{1}, Name: "GET /", Kind: telemetry.SpanKindServer, Start: at.UnixNano(), End: at.UnixNano() + took + 2e6})
		db.Spans = append(db.Spans, telemetry.Span{TraceID: id(n), SpanID: telemetry.SpanID{2}, ParentID: telemetry.SpanID{1}, Name: "SELECT", Kind: telemetry.SpanKindServer, Start: at.UnixNano() + 1e6, End: at.UnixNano() + 1e6 + took})
	}
	var series telemetry.Batch
	for n := range 240 {
		at := now.Add(-time.Duration(240-n) * 15 * time.Second)
		cpu, mem := float64(n)*1.5, 100e6
		if late := n - 220; late > 0 {
			cpu += float64(late) * 6
			mem = 150e6
		}
		restarts := 0.0
		if n > 230 {
			restarts = 1
		}
		for name, v := range map[string]float64{"container_cpu_usage_seconds_total": cpu, "container_memory_working_set_bytes": mem, "kube_pod_container_status_restarts_total": restarts} {
			series.Series = append(series.Series, telemetry.Series{
				Labels:  telemetry.NewLabelSet(labels.FromStrings("__name__", name, "namespace", "shop", "pod", "db-0", "container", "main")),
				Samples: []telemetry.Sample{{T: at.UnixMilli(), V: v}},
			})
		}
	}
	r.write(t, front, db, dbLogs, series)
}

func slow() storage.Predicate { return storage.DurationRange{Min: 500e6, Max: 1 << 62} }

func TestGather(t *testing.T) {
	r := newRig(t)
	r.slowDatabase(t)
	ev, err := r.c.Gather(t.Context(), evidence.Request{Tenant: tenant, Start: now.Add(-5 * time.Minute), End: now.Add(time.Second), Bad: slow()})
	require.NoError(t, err)
	require.Empty(t, ev.Incomplete)
	require.Equal(t, 20, ev.BadSpans)
	require.Len(t, ev.Traces, evidence.MaxTraces)
	seen := map[string]bool{}
	for _, tr := range ev.Traces {
		require.Greater(t, tr.DurationMilli, 500.0)
		require.False(t, seen[tr.TraceID], "each trace once")
		seen[tr.TraceID] = true
	}
	require.Equal(t, id(9).String(), ev.Traces[0].TraceID, "the slowest of its cause")
	require.Equal(t, 10, ev.Traces[0].Alike)
	require.NotEmpty(t, ev.Logs)
	require.LessOrEqual(t, len(ev.Logs), evidence.MaxLogs)
	require.Contains(t, ev.Logs[0].Body, "slow query")
	require.Equal(t, "db-0", ev.Logs[0].Pod)
	require.Equal(t, "INFO", ev.Logs[len(ev.Logs)-1].Severity)
	require.Less(t, len(ev.Logs[len(ev.Logs)-1].Body), 1100)
	for _, l := range ev.Logs {
		require.True(t, seen[l.TraceID])
	}

	require.Len(t, ev.Pods, 2)
	db := ev.Pods[0]
	require.Equal(t, "db-0", db.Pod, "it took longest by itself")
	require.Greater(t, db.SlowestMilli, 800.0)
	require.Less(t, ev.Pods[1].SlowestMilli, 10.0)
	require.InDelta(t, 0.1, *db.CPU.Before, 0.01)
	require.InDelta(t, 0.5, *db.CPU.Now, 0.05)
	require.InDelta(t, 100e6, *db.Memory.Before, 1e6)
	require.InDelta(t, 150e6, *db.Memory.Now, 3e6)
	require.Zero(t, *db.Restarts.Before)
	require.InDelta(t, 1, *db.Restarts.Now, 0)
	for _, ch := range []*evidence.Change{db.CPU, db.Memory, db.Restarts} { // the queries give the figures
		for text, want := range map[string]*float64{ch.NowTime: ch.Now, ch.BeforeTime: ch.Before} {
			at, err := time.Parse(time.RFC3339Nano, text)
			require.NoError(t, err)
			a, err := r.engine.Query(t.Context(), promql.Request{Tenant: tenant, Expr: ch.Query, End: at})
			require.NoError(t, err)
			require.InDelta(t, *want, a.Value.(prompromql.Vector)[0].F, 0)
			a.Close()
		}
	}
	_, err = json.Marshal(ev)
	require.NoError(t, err)
}

// TestGauges has a pod whose CPU is told by a gauge, as OpenTelemetry's kubelet receiver does.
func TestGauges(t *testing.T) {
	r := newRig(t)
	r.write(t, telemetry.Batch{Resource: resource("cart", "cart-1"), Spans: []telemetry.Span{
		{TraceID: id(1), SpanID: telemetry.SpanID{1}, Name: "GET", Start: now.UnixNano() - 1e9, End: now.UnixNano()},
	}}, telemetry.Batch{Series: []telemetry.Series{{
		Labels:  telemetry.NewLabelSet(labels.FromStrings("__name__", "container_cpu_usage", "namespace", "shop", "pod", "cart-1")),
		Samples: []telemetry.Sample{{T: now.Add(-8 * time.Minute).UnixMilli(), V: 0.1}, {T: now.Add(-time.Minute).UnixMilli(), V: 0.4}},
	}}})
	ev, err := r.c.Gather(t.Context(), evidence.Request{Tenant: tenant, Start: now.Add(-5 * time.Minute), End: now, Bad: slow()})
	require.NoError(t, err)
	require.Len(t, ev.Pods, 1)
	require.InDelta(t, 0.1, *ev.Pods[0].CPU.Before, 1e-9)
	require.InDelta(t, 0.4, *ev.Pods[0].CPU.Now, 1e-9)
}

func TestCausesComeFirst(t *testing.T) {
	r := newRig(t)
	b := telemetry.Batch{Resource: resource("cart", "cart-1")}
	for n := range 100 {
		s := telemetry.Span{TraceID: id(n), SpanID: telemetry.SpanID{1}, Name: "GET", Status: telemetry.StatusError, StatusMessage: "common", Start: now.UnixNano() - int64(n), End: now.UnixNano() + 5e6}
		if n%50 == 7 {
			s.StatusMessage = "rare"
		}
		b.Spans = append(b.Spans, s)
	}
	r.write(t, b)
	ev, err := r.c.Gather(t.Context(), evidence.Request{Tenant: tenant, Start: now.Add(-time.Minute), End: now.Add(time.Minute), Bad: storage.FieldMatch{Field: storage.SpanStatus, M: labels.MustNewMatcher(labels.MatchEqual, "", "error")}})
	require.NoError(t, err)
	require.Equal(t, "common", ev.Traces[0].Message)
	require.Equal(t, 98, ev.Traces[0].Alike)
	require.Equal(t, "rare", ev.Traces[1].Message)
	require.Len(t, ev.Traces, evidence.MaxTraces)
}

func TestNothing(t *testing.T) {
	r := newRig(t)
	ev, err := r.c.Gather(t.Context(), evidence.Request{Tenant: tenant, Start: now.Add(-time.Minute), End: now, Bad: slow()})
	require.NoError(t, err)
	require.Empty(t, ev.Traces)
	b, err := json.Marshal(ev)
	require.NoError(t, err)
	require.Contains(t, string(b), `"traces":[]`)
}

// hanging is a store whose logs never come.
type hanging struct{ storage.Reader }

type hangingView struct{ storage.View }

func (h hanging) View(ctx context.Context, min storage.Position) (storage.View, error) {
	v, err := h.Reader.View(ctx, min)
	return hangingView{v}, err
}

func (h hangingView) Logs(ctx context.Context, _ storage.LogQuery) iter.Seq2[*storage.LogBlock, error] {
	return func(yield func(*storage.LogBlock, error) bool) {
		<-ctx.Done()
		yield(nil, ctx.Err())
	}
}

func TestOutOfTime(t *testing.T) {
	r := newRig(t)
	r.slowDatabase(t)
	c := evidence.NewCollector(hanging{r.store}, r.engine, time.Now, prometheus.NewRegistry())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	ev, err := c.Gather(ctx, evidence.Request{Tenant: tenant, Start: now.Add(-5 * time.Minute), End: now, Bad: slow()})
	require.NoError(t, err)
	require.Len(t, ev.Traces, evidence.MaxTraces, "what there is is kept")
	require.Len(t, ev.Incomplete, 1)
}
