package app

import (
	"context"
	"math/rand/v2"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/storage"
)

const (
	benchPods  = 200
	benchStart = int64(1_700_000_000_000)
	benchEnd   = benchStart + 80*60*1000
)

// BenchmarkColumns answers the queries of dashboards and rules over 200 pods with 72 series each, scraped each 15 s for
// 80 minutes and flushed, with shapes on columns and without.
func BenchmarkColumns(b *testing.B) {
	store := benchStore(b)
	at := time.UnixMilli(benchEnd)
	for _, q := range []struct {
		name, expr string
		step       time.Duration
	}{
		{"histogram_quantile", `histogram_quantile(0.99, sum by (le, namespace) (rate(http_request_duration_seconds_bucket[5m])))`, time.Minute},
		{"quantile of each pod", `histogram_quantile(0.99, sum by (le, pod) (rate(http_request_duration_seconds_bucket[5m])))`, time.Minute},
		{"sum rate", `sum by (namespace) (rate(http_requests_total[5m]))`, time.Minute},
		{"sum rate by pod", `sum by (namespace, pod) (rate(http_requests_total[5m]))`, 30 * time.Second},
		{"rate alone", `rate(http_requests_total[5m])`, time.Minute},
		{"group_left", `sum by (namespace, pod) (rate(http_requests_total[5m])) * on (namespace, pod) group_left (app) kube_pod_labels`, time.Minute},
		{"error ratio", `sum(rate(http_requests_total{code=~"5.."}[1h])) / sum(rate(http_requests_total[1h]))`, 0},
		{"subquery", `max_over_time(sum by (namespace) (rate(http_requests_total[5m]))[1h:1m])`, 0},
		{"subquery of each", `max_over_time(rate(http_requests_total{code="200"}[5m])[1h:1m])`, 0},
		{"count of all", `count({__name__!=""})`, 0},
		{"count by name", `count by (__name__) ({__name__!=""})`, 0},
		{"topk", `topk(10, memory_bytes)`, 0},
		{"gauges alone", `memory_bytes`, time.Minute},
		{"sum of gauges", `sum by (namespace) (memory_bytes)`, time.Minute},
		{"avg_over_time", `avg by (namespace) (avg_over_time(memory_bytes[10m]))`, time.Minute},
		{"max_over_time", `max by (namespace) (max_over_time(memory_bytes[10m]))`, time.Minute},
	} {
		for _, columns := range []bool{true, false} {
			name := q.name + "/engine"
			if columns {
				name = q.name + "/columns"
			}
			b.Run(name, func(b *testing.B) {
				cfg := promql.DefaultConfig()
				cfg.Columns = columns
				e, err := promql.New(promql.Deps{Config: cfg, Reader: store})
				require.NoError(b, err)
				r := promql.Request{Tenant: telemetry.DefaultTenant, Expr: q.expr, End: at, Step: q.step, Start: at}
				if q.step > 0 {
					r.Start = at.Add(-time.Hour)
				}
				b.ReportAllocs()
				before := cpuTime(b)
				for b.Loop() {
					a, err := e.Query(b.Context(), r)
					require.NoError(b, err)
					a.Close()
				}
				b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
			})
		}
	}
}

// cpuTime returns the CPU time of the process so far: on a busy machine it tells more than the clock.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchStore(b *testing.B) *memoryStore {
	b.Helper()
	ctx := context.WithoutCancel(b.Context())
	store, err := openMemory(ctx, func() time.Time { return time.UnixMilli(benchEnd) })
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, store.Close(ctx)) })
	rng := rand.New(rand.NewPCG(1, 1))
	var series []telemetry.Series
	var step []float64 // by which a counter rises, 0 for a gauge
	add := func(rise float64, ls ...string) {
		series = append(series, telemetry.Series{Labels: telemetry.NewLabelSet(labels.FromStrings(ls...))})
		step = append(step, rise)
	}
	for p := range benchPods {
		id := []string{
			"namespace", "team-" + strconv.Itoa(p%16), "pod", "app-" + strconv.Itoa(p%40) + "-7d9f8b6c5-" + strconv.Itoa(p),
			"instance", "10.0.0." + strconv.Itoa(p) + ":8080", "job", "kubernetes-pods", "node", "node-" + strconv.Itoa(p%24),
		}
		of := func(name string, more ...string) []string {
			return append(append([]string{"__name__", name}, id...), more...)
		}
		for route := range 5 {
			for le := range 12 {
				add(float64(le+1), of("http_request_duration_seconds_bucket", "route", "/api/"+strconv.Itoa(route), "le", strconv.FormatFloat(0.01*float64(int(1)<<le), 'g', -1, 64))...)
			}
		}
		for _, code := range []string{"200", "201", "400", "404", "429", "500", "502", "503"} {
			add(10, of("http_requests_total", "code", code)...)
		}
		for _, c := range []string{"app", "proxy"} {
			add(0, of("memory_bytes", "container", c)...)
		}
		add(0, "__name__", "kube_pod_labels", "namespace", id[1], "pod", id[3], "app", "app-"+strconv.Itoa(p%40))
		add(0, of("up")...)
	}
	values, n := make([]float64, len(series)), 0
	for from := benchStart; from < benchEnd; from += 5 * 60 * 1000 {
		batch := telemetry.Batch{Tenant: telemetry.DefaultTenant, Series: make([]telemetry.Series, len(series))}
		for i := range series {
			batch.Series[i].Labels = series[i].Labels
			offset := int64(i/72) * 61 % 15_000
			for t := from; t < from+5*60*1000; t += 15_000 {
				if step[i] > 0 {
					values[i] += float64(rng.IntN(int(step[i]) * 3))
				} else {
					values[i] = float64(rng.IntN(1 << 20))
				}
				batch.Series[i].Samples = append(batch.Series[i].Samples, telemetry.Sample{T: t + offset, V: values[i]})
			}
		}
		_, _, err := store.Write(ctx, storage.Request{Batches: []telemetry.Batch{batch}})
		require.NoError(b, err)
		if n++; n%4 == 0 {
			require.NoError(b, store.Flush(ctx))
		}
	}
	return store
}
