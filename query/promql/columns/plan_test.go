package columns_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/stats"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/promql/columns"
	"github.com/braidobs/braid/storage"
)

func statement(t *testing.T, expr string) *parser.EvalStmt {
	t.Helper()
	s := &parser.EvalStmt{Start: time.Unix(1000, 0), End: time.Unix(1600, 0), Interval: time.Minute, LookbackDelta: 5 * time.Minute}
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	require.NoError(t, err)
	s.Expr, err = promql.PreprocessExpr(e, s.Start, s.End, s.Interval)
	require.NoError(t, err)
	return s
}

func TestWhatIsRewritten(t *testing.T) {
	tests := []struct {
		expr   string
		shapes int
	}{
		{`sum by (a) (rate(x[5m]))`, 1},
		{`rate(x[5m])`, 1},
		{`topk(3, rate(x[5m]))`, 1},
		{`count({a="b"})`, 1},
		{`histogram_quantile(0.9, sum by (le) (rate(x_bucket[5m])))`, 1},
		{`sum(rate(x[5m])) / sum(rate(y[5m]))`, 2},
		{`sum(rate(x[5m])) * on (a) group_left (b) y`, 2},
		{`max_over_time(rate(x[5m])[1h:1m])`, 1},
		{`max_over_time(sum(rate(x[5m] offset 1h))[1h:])`, 1},
		{`sum(rate(x[5m] @ 1000)) + sum(y @ end())`, 2},
		{`-sum(x) > 1`, 1},
		{`x`, 1},
		{`x @ 1000`, 0}, // one step: the engine does just that
		{`absent(x)`, 0},
		{`timestamp(x)`, 0},
		{`rate({a="b"}[5m])`, 0},
		{`rate({__name__=~"x|y"}[5m])`, 0},
		{`max_over_time(rate(x[5m] @ 1000)[1h:1m])`, 0},
		{`max_over_time(rate(x[5m])[1h:1m] @ 1000)`, 0},
		{`stddev(x)`, 1},
		{`quantile_over_time(0.5, x[5m])`, 0},
		{`timestamp(sum(x))`, 0},
		{`rate(x[5m:1m])`, 1},
		{`time() + 1`, 0},
	}
	for _, tt := range tests {
		t.Run(tt.expr, func(t *testing.T) {
			s := statement(t, tt.expr)
			before := s.Expr.PositionRange()
			require.Equal(t, tt.shapes, columns.Rewrite(s, columns.Options{SubqueryStep: 60_000}).Shapes())
			require.Equal(t, before, s.Expr.PositionRange())
		})
	}
}

// read evaluates the first shape of an expression over blocks.
func read(t *testing.T, s *parser.EvalStmt, o columns.Options, blocks ...storage.SeriesBlock) (map[string][]float64, error) {
	t.Helper()
	plan := columns.Rewrite(s, o)
	var out map[string][]float64
	var err error
	parser.Inspect(s.Expr, func(n parser.Node, _ []parser.Node) error {
		vs, ok := n.(*parser.VectorSelector)
		if !ok || out != nil {
			return nil
		}
		var set promstorage.SeriesSet
		set, ok = plan.Select(t.Context(), vs.LabelMatchers, func(ctx context.Context, _ storage.SeriesQuery, f func(*storage.SeriesBlock) error) error {
			for i := range blocks {
				if err := f(&blocks[i]); err != nil {
					return err
				}
			}
			return ctx.Err()
		}, stats.NewQuerySamples(false))
		require.True(t, ok)
		out = make(map[string][]float64)
		for set.Next() {
			it := set.At().Iterator(nil)
			for it.Next() != 0 {
				_, v := it.At()
				out[set.At().Labels().String()] = append(out[set.At().Labels().String()], v)
			}
		}
		err = set.Err()
		return nil
	})
	return out, err
}

func block(values []float64, ls ...string) storage.SeriesBlock {
	b := storage.SeriesBlock{Labels: telemetry.NewLabelSet(labels.FromStrings(ls...)), Values: values}
	for i := range values {
		b.Times = append(b.Times, 1_000_000+int64(i)*60_000)
	}
	return b
}

func TestSelect(t *testing.T) {
	a, b := block([]float64{1, 2, 3}, "__name__", "x", "g", "1", "i", "a"), block([]float64{10, 20, 30}, "__name__", "x", "g", "1", "i", "b")
	s := statement(t, `sum by (g) (x)`)
	got, err := read(t, s, columns.Options{}, b, a)
	require.NoError(t, err)
	require.Equal(t, []float64{11, 22, 33, 33, 33, 33, 33}, got[`{g="1"}`][:7])
	require.True(t, math.IsNaN(got[`{g="1"}`][7])) // older than the lookback

	_, err = read(t, statement(t, `sum by (i) (x)`), columns.Options{MaxSamples: 15}, a, b)
	require.ErrorAs(t, err, new(promql.ErrTooManySamples))
}

func TestUnfit(t *testing.T) {
	odd := block([]float64{1, 2}, "__name__", "x")
	odd.Histograms = true
	unit := block([]float64{1, 2}, "__name__", "x", "__unit__", "s")
	for name, b := range map[string]storage.SeriesBlock{"histograms": odd, "metadata": unit} {
		t.Run(name, func(t *testing.T) {
			s := statement(t, `rate(x[5m]) + sum(rate(y[5m]))`)
			_, err := read(t, s, columns.Options{}, b)
			require.ErrorAs(t, err, new(*columns.Unfit))

			before := columns.Rewrite(statement(t, `rate(x[5m]) + sum(rate(y[5m]))`), columns.Options{})
			require.True(t, before.Without(err))
			require.False(t, before.Without(err), "twice for the same reason is no reason")
			require.False(t, before.Without(errors.New("other")))
			require.Equal(t, 1, columns.Rewrite(statement(t, `rate(x[5m]) + sum(rate(y[5m]))`), columns.Options{Before: before}).Shapes())
		})
	}
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := statement(t, `sum(x)`)
	plan := columns.Rewrite(s, columns.Options{})
	parser.Inspect(s.Expr, func(n parser.Node, _ []parser.Node) error {
		if vs, ok := n.(*parser.VectorSelector); ok {
			b := block([]float64{1}, "__name__", "x")
			seen := 0
			set, _ := plan.Select(ctx, vs.LabelMatchers, func(_ context.Context, _ storage.SeriesQuery, f func(*storage.SeriesBlock) error) error {
				for ; seen < 10_000; seen++ {
					if err := f(&b); err != nil {
						return err
					}
				}
				return nil
			}, stats.NewQuerySamples(false))
			require.False(t, set.Next())
			require.ErrorIs(t, set.Err(), context.Canceled)
			require.Less(t, seen, 1000)
		}
		return nil
	})
}
