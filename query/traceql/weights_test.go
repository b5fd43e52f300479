package traceql_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/traceql"
	"github.com/braidobs/braid/storage"
)

// TestWeights: a span of a trace that was kept with probability p counts as 1/p spans.
func TestWeights(t *testing.T) {
	s := testkit.NewStore("")
	b := telemetry.Batch{Tenant: telemetry.DefaultTenant}
	for i, state := range []string{"", "ot=th:c", "a=b,ot=th:8", "ot=th:c"} { // 1, 4, 2 and 4 spans
		b.Spans = append(b.Spans, telemetry.Span{
			TraceID: telemetry.TraceID{15: byte(i + 1)}, SpanID: telemetry.SpanID{1}, State: state, Start: 1e9, End: 1e9 + int64(i+1)*1e6,
			Attrs: telemetry.Attrs{{Key: "n", Value: telemetry.Int(int64(i))}},
		})
	}
	_, _, err := s.Write(t.Context(), storage.Request{Batches: []telemetry.Batch{b}})
	require.NoError(t, err)
	v, err := s.View(t.Context(), 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, v.Close()) }()
	tests := []struct {
		query string
		want  float64
	}{
		{`{} | count_over_time()`, 11},
		{`{} | count_over_time() with(extrapolate=true)`, 11},
		{`{} | count_over_time() with(extrapolate=false)`, 4},
		{`{span.n > 1} | count_over_time()`, 6},
		{`{} | sum_over_time(span.n)`, 0 + 4 + 4 + 12},
		{`{} | avg_over_time(span.n)`, 20.0 / 11},
		{`{} | max_over_time(span.n)`, 3},
		{`{} | min_over_time(span.n)`, 0},
		{`{} | quantile_over_time(span.n, 0.5)`, 2}, // of 0 1111 22 3333
		{`{} | quantile_over_time(span.n, 0.5) with(extrapolate=false)`, 1.5},
	}
	eng := traceql.Engine{Limits: traceql.DefaultLimits()}
	for _, tt := range tests {
		q, err := traceql.Parse(tt.query)
		require.NoError(t, err, tt.query)
		res, err := eng.Metrics(t.Context(), v, traceql.MetricsQuery{Tenant: telemetry.DefaultTenant, Query: q, End: 10e9})
		require.NoError(t, err, tt.query)
		require.Len(t, res.Series, 1, tt.query)
		require.InDelta(t, tt.want, res.Series[0].Points[0].Value, 1e-9, tt.query)
	}
}
