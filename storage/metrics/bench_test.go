package metrics_test

import (
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/metrics"
)

// BenchmarkHeadAppend appends scrapes of 1,000 series that are known already.
func BenchmarkHeadAppend(b *testing.B) {
	batch := telemetry.Batch{Tenant: "t"}
	for i := range 1000 {
		batch.Series = append(batch.Series, telemetry.Series{
			Labels:  telemetry.NewLabelSet(labels.FromStrings("__name__", "http_requests_total", "pod", "p-"+strconv.Itoa(i), "code", "200")),
			Samples: make([]telemetry.Sample, 1),
		})
	}
	a := metrics.NewActive(metrics.Limits{PerTenant: 1 << 20, PerMetric: 1 << 20})
	h := a.NewHead(0, 0)
	n := int64(0)
	var entries []*metrics.Entry
	b.ReportAllocs()
	for b.Loop() {
		if n++; n%1000 == 0 {
			h = a.NewHead(0, 0)
		}
		for i := range batch.Series {
			batch.Series[i].Samples[0] = telemetry.Sample{T: n * 15_000, V: float64(n)}
		}
		entries, _ = a.Resolve([]telemetry.Batch{batch}, entries[:0])
		h.Append([]telemetry.Batch{batch}, entries, func(telemetry.Tenant, *telemetry.Resource, int64, int64) {})
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "samples/s")
}
