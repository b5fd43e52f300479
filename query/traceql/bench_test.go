package traceql_test

import (
	"context"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql"
	"github.com/braidobs/braid/storage"
)

// ready is a view with the same blocks for every query.
type ready struct {
	storage.View
	blocks []*storage.TraceRows
	fussy  bool
}

func (v *ready) Traces(_ context.Context, _ storage.TraceQuery) iter.Seq2[storage.TraceBlock, error] {
	return func(yield func(storage.TraceBlock, error) bool) {
		for _, b := range v.blocks {
			out := storage.TraceBlock(b)
			if v.fussy {
				out = fussy{b}
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}

func (v *ready) ReadStats() storage.ReadStats { return storage.ReadStats{} }

// newReady returns blocks of 500 traces of 20 spans over an hour, in 20 services.
func newReady(spans int) *ready {
	rng := rand.New(rand.NewPCG(1, 2))
	resources := make([]*telemetry.Resource, 20)
	for i := range resources {
		resources[i] = telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{{Key: "service.name", Value: telemetry.String(fmt.Sprintf("service%d", i))}}))
	}
	v := &ready{}
	for n := 0; n < spans; n += 10_000 {
		b := storage.NewTraceRows(math.MaxInt64)
		for t := range 500 {
			start := base.Add(time.Duration(rng.Int64N(int64(time.Hour)))).UnixNano()
			rows := make([]storage.SpanRow, 20)
			for i := range rows {
				s := &telemetry.Span{
					TraceID: telemetry.TraceID{0: byte(n >> 16), 1: byte(n >> 8), 2: byte(t >> 8), 3: byte(t), 4: 1}, SpanID: telemetry.SpanID{7: byte(i + 1)},
					Name: fmt.Sprintf("operation %d", rng.IntN(40)), Kind: telemetry.SpanKind(1 + rng.IntN(3)), Start: start + int64(i)*1e6,
					Attrs: telemetry.Attrs{
						{Key: "http.status_code", Value: telemetry.Int(200 + 100*int64(rng.IntN(4)))},
						{Key: "user.id", Value: telemetry.String(strconv.Itoa(rng.IntN(100_000)))},
					},
				}
				s.End = s.Start + rng.Int64N(1e9)
				if rng.IntN(50) == 0 {
					s.Status = telemetry.StatusError
				}
				if i > 0 {
					s.ParentID = telemetry.SpanID{7: byte(rng.IntN(i) + 1)}
				}
				rows[i] = storage.SpanRow{Resource: resources[rng.IntN(20)], Span: s}
			}
			b.Add(rows)
		}
		v.blocks = append(v.blocks, b)
	}
	return v
}

// BenchmarkQuery tells what a span costs once the store has given out its columns: 200,000 spans.
func BenchmarkQuery(b *testing.B) {
	const spans = 200_000
	v := newReady(spans)
	start, end := base.UnixNano(), base.Add(2*time.Hour).UnixNano()
	eng := traceql.Engine{Limits: traceql.DefaultLimits()}
	for _, bb := range []struct{ name, query string }{
		{"attribute", `{ span.user.id = "4711" }`},
		{"several", `{ resource.service.name = "service3" && name = "operation 7" && duration > 500ms && span.http.status_code >= 500 }`},
		{"regex", `{ name =~ ".*7" && status = error }`},
		{"child", `{ resource.service.name = "service3" } > { status = error }`},
		{"descendant", `{ resource.service.name = "service3" } >> { resource.service.name = "service5" }`},
		{"sibling", `{ resource.service.name = "service3" } ~ { status = error }`},
		{"none", `{ name = "nothing" } >> { status = error }`},
		{"arithmetic", `{ span.http.status_code / 100 = 5 && duration * 2 > 1s }`},
		{"count", `{ status = error } | count() > 2`},
		{"by", `{ status = error } | by(resource.service.name) | count() > 1`},
		{"rate", `{} | rate() by(resource.service.name)`},
		{"exemplars", `{} | rate() by(resource.service.name)`},
		{"rate2", `{} | rate() by(resource.service.name, name)`},
		{"roots", `{ nestedSetParent < 0 } | rate() by(resource.service.name)`},
		{"quantile", `{ resource.service.name = "service3" } | quantile_over_time(duration, .95)`},
		{"histogram", `{} | histogram_over_time(duration)`},
	} {
		b.Run(bb.name, func(b *testing.B) {
			q, err := traceql.Parse(bb.query)
			require.NoError(b, err)
			exemplars := 0
			if bb.name == "exemplars" {
				exemplars = 100
			}
			run := func() {
				if strings.HasSuffix(bb.query, ")") {
					_, err = eng.Metrics(context.Background(), v, traceql.MetricsQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: start, End: end, Step: int64(time.Minute), Exemplars: exemplars})
				} else {
					_, err = eng.Search(context.Background(), v, traceql.SearchQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: start, End: end, Limit: 20, Spans: 3})
				}
				require.NoError(b, err)
			}
			run() // makes the columns
			for b.Loop() {
				run()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/spans, "ns/span")
		})
	}
}
