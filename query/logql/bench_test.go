package logql_test

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/query/logql/pipeline"
	"github.com/braidobs/braid/storage"
)

// ready is a view with the same blocks for every query.
type ready struct {
	storage.View
	blocks  []*storage.LogBlock
	streams []telemetry.LabelSet
}

func (v *ready) Logs(_ context.Context, q storage.LogQuery) iter.Seq2[*storage.LogBlock, error] {
	return func(yield func(*storage.LogBlock, error) bool) {
		for _, b := range v.blocks {
			out := *b
			if q.Columns&storage.LogStream == 0 {
				out.Stream, out.Streams = nil, nil
			}
			if !yield(&out, nil) {
				return
			}
		}
	}
}

func (v *ready) Streams(context.Context, storage.LogQuery) ([]telemetry.LabelSet, error) {
	return v.streams, nil
}

func (v *ready) ReadStats() storage.ReadStats { return storage.ReadStats{} }

// newReady returns blocks of JSON lines with a level, a status, a path and a duration, each a column.
func newReady(blocks, rows int) *ready {
	rng := rand.New(rand.NewPCG(1, 2))
	v := &ready{}
	for s := range 20 {
		v.streams = append(v.streams, telemetry.LabelSet(pipeline.EncodeLabels(nil, []logql.Label{{Name: "app", Value: fmt.Sprintf("app%d", s/4)}, {Name: "pod", Value: strconv.Itoa(s)}})))
	}
	t := &storage.Template{
		Text: []string{`{"ts":"`, `","level":"`, `","status":`, `,"path":"`, `","duration_ms":`, `,"msg":"request done"}`},
		Gaps: []storage.Gap{storage.GapTime, storage.GapWord, storage.GapDigits, storage.GapQuoted, storage.GapNumber},
	}
	levels, paths := []string{"info", "warn", "error"}, make([]string, 200)
	for i := range paths {
		paths[i] = fmt.Sprintf("/api/v1/things/%d", i)
	}
	for n := range blocks {
		b := &storage.LogBlock{Streams: v.streams}
		vars := [5]*storage.Variables{{Texts: make([]string, rows)}, {Dict: levels}, {}, {Dict: paths}, {Scale: 2}}
		l := &storage.Lines{Shapes: []*storage.Shape{{Template: t, Rows: rows, Load: func(gap int) (*storage.Variables, error) { return vars[gap], nil }}}}
		for i := range rows {
			b.Time = append(b.Time, base.Add(time.Duration(i)*30*time.Millisecond).UnixNano())
			b.Stream = append(b.Stream, uint32(n%20))
			l.Shape, l.Row = append(l.Shape, 0), append(l.Row, uint32(i))
			vars[0].Texts[i] = "2026-03-04T05:06:07.123Z"
			vars[1].Code = append(vars[1].Code, uint32(rng.IntN(3)))
			vars[2].Ints = append(vars[2].Ints, int64(200+100*rng.IntN(4)))
			vars[3].Code = append(vars[3].Code, uint32(rng.IntN(len(paths))))
			vars[4].Ints = append(vars[4].Ints, rng.Int64N(100_000))
		}
		b.Lines = l
		v.blocks = append(v.blocks, b)
	}
	return v
}

// BenchmarkMetric tells what a row costs once the store has given out its block: blocks of 8192 rows, 1 M rows in all.
func BenchmarkMetric(b *testing.B) {
	v := newReady(128, 8192)
	rows := float64(128 * 8192)
	for name, bb := range map[string]struct {
		query string
		step  time.Duration
	}{
		"filter":   {`sum(count_over_time({app=~".+"} | json | status >= 500 | level="error" [1h]))`, 0},
		"paths":    {`topk(10, sum by (path) (count_over_time({app=~".+"} | json [1h])))`, 0},
		"quantile": {`quantile_over_time(0.99, {app=~".+"} | json | unwrap duration_ms [1h]) by (app)`, 0},
		"count":    {`sum by (app) (count_over_time({app=~".+"}[1m]))`, time.Minute},
	} {
		b.Run(name, func(b *testing.B) {
			e, err := logql.Parse(bb.query)
			require.NoError(b, err)
			q := logql.MetricQuery{Tenant: telemetry.DefaultTenant, Expr: e, Start: base.UnixNano(), End: base.Add(time.Hour).UnixNano(), Step: bb.step}
			eng := logql.Engine{Limits: logql.DefaultLimits()}
			for b.Loop() {
				m, err := eng.Metric(context.Background(), v, q)
				require.NoError(b, err)
				require.NotEmpty(b, m.Series)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
		})
	}
}
