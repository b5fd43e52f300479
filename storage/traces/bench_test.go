package traces_test

import (
	"encoding/binary"
	"testing"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
)

// BenchmarkHeadAppend appends batches of 100 spans of 10 new traces.
func BenchmarkHeadAppend(b *testing.B) {
	h := traces.NewHead()
	n := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		if n++; n%5000 == 0 {
			h = traces.NewHead()
		}
		batch := telemetry.Batch{Tenant: "t", Spans: make([]telemetry.Span, 100)}
		for i := range batch.Spans {
			binary.BigEndian.PutUint64(batch.Spans[i].TraceID[:], n*10+uint64(i/10))
			batch.Spans[i].Name = "GET /"
		}
		h.Append(storage.Position(n), &batch)
	}
	b.ReportMetric(float64(b.N)*100/b.Elapsed().Seconds(), "spans/s")
}
