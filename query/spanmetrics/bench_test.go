package spanmetrics_test

import (
	"context"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/promql"
	"github.com/braidobs/braid/query/spanmetrics"
	"github.com/braidobs/braid/storage"
)

// ready is a store with the same blocks of traces for every query.
type ready struct {
	*testkit.Store
	blocks []storage.TraceBlock
}

func (s *ready) View(ctx context.Context, at storage.Position) (storage.View, error) {
	v, err := s.Store.View(ctx, at)
	return &readyView{v, s.blocks}, err
}

type readyView struct {
	storage.View
	blocks []storage.TraceBlock
}

func (v *readyView) Traces(context.Context, storage.TraceQuery) iter.Seq2[storage.TraceBlock, error] {
	return func(yield func(storage.TraceBlock, error) bool) {
		for _, b := range v.blocks {
			if !yield(b, nil) {
				return
			}
		}
	}
}

// BenchmarkQuery tells what a span costs once the store has given out its columns.
func BenchmarkQuery(b *testing.B) {
	rows := randomTraces(rand.New(rand.NewPCG(1, 1)), 20_000)
	for i := range rows {
		rows[i].Span.State = ""
	}
	spans := len(rows)
	s := &ready{Store: testkit.NewStore("")}
	slices.SortStableFunc(rows, func(a, b storage.SpanRow) int { return slices.Compare(a.Span.TraceID[:], b.Span.TraceID[:]) })
	block := storage.NewTraceRows(math.MaxInt64)
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].Span.TraceID == rows[0].Span.TraceID {
			n++
		}
		block.Add(rows[:n])
		if rows = rows[n:]; block.Len() >= 8192 || len(rows) == 0 {
			s.blocks = append(s.blocks, block)
			block = storage.NewTraceRows(math.MaxInt64)
		}
	}
	e, err := promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: spanmetrics.New(s, spanmetrics.Options{})})
	require.NoError(b, err)
	for _, bb := range []struct{ name, expr string }{
		{"graph", "sum by (client, server) (increase(traces_service_graph_request_total[2h]))"},
		{"calls", "sum by (service) (increase(traces_spanmetrics_calls_total[2h]))"},
		{"latency", "histogram_quantile(0.9, sum by (le) (rate(traces_spanmetrics_latency_bucket[10m])))"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				a, err := e.Query(context.Background(), promql.Request{Tenant: tenant, Expr: bb.expr, End: time.Unix(0, begin+65*minute)})
				require.NoError(b, err)
				a.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*spans), "ns/span")
		})
	}
}
