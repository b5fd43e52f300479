package traceql_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql"
)

// FuzzQuery answers whatever parses over random traces: it must neither panic nor fail.
func FuzzQuery(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 30 {
		f.Add(randomPipeline(rng, 2), uint64(1))
		f.Add(randomPipeline(rng, 1)+" | rate() by("+randomField(rng)+")", uint64(2))
	}
	f.Add("{} | compare({ .x > 1 }, 3)", uint64(3))
	f.Add("({} | histogram_over_time(duration)) / ({} | quantile_over_time(.x, 0.1, 0.9) by(name)) * 2 > 1 | topk(2)", uint64(4))
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		q, err := traceql.Parse(text)
		if err != nil {
			return
		}
		_, v := randomStore(t, rand.New(rand.NewPCG(seed, 7)))
		eng := traceql.Engine{Limits: traceql.DefaultLimits()}
		if q.Metric() {
			_, err = eng.Metrics(t.Context(), strict{v}, traceql.MetricsQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: base.UnixNano(), End: base.UnixNano() + 60e9, Step: 10e9, Exemplars: 10})
		} else {
			_, err = eng.Search(t.Context(), strict{v}, traceql.SearchQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: base.UnixNano(), End: base.UnixNano() + 60e9, Limit: 3, Spans: 3})
		}
		require.NoError(t, err)
	})
}
