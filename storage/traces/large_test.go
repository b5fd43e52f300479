package traces_test

import (
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/join"
)

// longTrace is spans of one trace over five days, each the child of the one before, sent by several batches.
func longTrace(n int) []telemetry.Span {
	spans := make([]telemetry.Span, n)
	for i := range spans {
		id := func(i int) telemetry.SpanID { return telemetry.SpanID{1, byte(i >> 16), byte(i >> 8), byte(i)} }
		spans[i] = telemetry.Span{TraceID: telemetry.TraceID{9}, SpanID: id(i), Start: start + int64(i)*5*day/int64(n), Name: "step"}
		spans[i].End = spans[i].Start + 1
		if i > 0 {
			spans[i].ParentID = id(i - 1)
		}
	}
	return spans
}

// TestALongTraceIsWhole keeps a trace of five days in parts of each and in a head, and reads it whole and in pages.
func TestALongTraceIsWhole(t *testing.T) {
	const n = 12_000
	s := newShelf(t, small())
	spans := longTrace(n)
	var files []*file
	head := traces.NewHead()
	for from := 0; from < n; from += 1000 {
		head.Append(storage.Position(from), &telemetry.Batch{Tenant: "t", Spans: spans[from : from+1000]})
		if from%3000 == 0 {
			files = append(files, s.flush(head, storage.Position(from))...)
			head = traces.NewHead()
		}
	}
	srcs := append(sources(files...), head.Snapshot().Tenant("t"))
	blocks := 0
	for b, err := range join.Read(t.Context(), srcs, all(), join.NewShared(0), fail) {
		require.NoError(t, err)
		blocks++
		require.Equal(t, n, b.Len())
		parents, err := b.Parents()
		require.NoError(t, err)
		for i, p := range parents {
			require.Equal(t, int32(i-1), p, "a chain; its first is a root")
		}
	}
	require.Equal(t, 1, blocks)

	after, found := int64(math.MinInt64), 0
	for {
		scan := traces.Scan{SpanQuery: storage.SpanQuery{Start: after, End: math.MaxInt64, Order: storage.OldestFirst, Limit: 1500, Where: storage.TraceIn{{9}}}}
		b, err := traces.Collect(t.Context(), srcs, scan, fail)
		require.NoError(t, err)
		if b.Len() == 0 {
			break
		}
		for i := range b.Len() {
			require.Equal(t, spans[found].SpanID, b.SpanID[i])
			found++
		}
		after = b.Start[b.Len()-1] + 1
	}
	require.Equal(t, n, found)
}

// TestReadsWhileSpansArrive reads snapshots of a head that grows: each has what was there when it was taken.
func TestReadsWhileSpansArrive(t *testing.T) {
	h := traces.NewHead()
	shop := newShop(5)
	var batches [][]telemetry.Batch
	for range 6 {
		batches = append(batches, shop.request())
	}
	var wg sync.WaitGroup
	taken := make(chan *traces.Snapshot)
	counts := make(chan int64, 100)
	wg.Go(func() {
		defer close(taken)
		for n, request := range batches {
			for i := range request {
				h.Append(storage.Position(n), &request[i])
			}
			_, spans := h.Size()
			counts <- spans
			taken <- h.Snapshot()
		}
	})
	for snap := range taken {
		want := <-counts
		got := 0
		for _, spans := range spansOf(t, []traces.Source{snap.Tenant("t")}, all(), join.NewShared(0)) {
			got += len(spans)
		}
		require.Equal(t, want, int64(got))
	}
	wg.Wait()
}
