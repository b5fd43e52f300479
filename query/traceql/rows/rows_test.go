package rows

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

func TestSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		n := 1 + rng.IntN(200)
		lo := rng.IntN(n + 1)
		hi := lo + rng.IntN(n+1-lo)
		s := NewSet(n)
		s.AddRange(lo, hi)
		require.Equal(t, hi-lo, s.Count(), "%d to %d of %d", lo, hi, n)
		for i := range n {
			require.Equal(t, i >= lo && i < hi, s.Has(i))
		}
		a := rng.IntN(n + 1)
		b := a + rng.IntN(n+1-a)
		want := max(0, min(b, hi)-max(a, lo))
		require.Equal(t, want, s.CountRange(a, b), "%d to %d in %d to %d of %d", a, b, lo, hi, n)
		require.Equal(t, want > 0, s.AnyIn(a, b))
		var got []int
		s.EachIn(a, b, func(i int) { got = append(got, i) })
		require.Len(t, got, want)
		require.True(t, slices.IsSorted(got))
		require.Equal(t, n-(hi-lo), Full(n).AndNot(s).Count())
		require.Equal(t, n, Full(n).AndNot(s).Or(s).Count())
		require.Equal(t, hi == lo, s.Empty())
	}
}

// An interval holds for just those integers for which the comparison does.
func TestIntervals(t *testing.T) {
	floats := []float64{0, 1, -1, 1.5, -1.5, 1 << 53, 1<<53 + 2, 1e300, -1e300, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxInt64, math.MinInt64}
	ints := []int64{0, 1, -1, 2, -2, 1 << 53, 1<<53 + 1, math.MaxInt64, math.MaxInt64 - 1, math.MinInt64, math.MinInt64 + 1}
	var with []Value
	for _, f := range floats {
		with = append(with, Value{syntax.TypeFloat, telemetry.Double(f)})
	}
	for _, n := range ints {
		with = append(with, number(syntax.TypeInt, n))
	}
	for _, op := range []syntax.Op{syntax.Equal, syntax.NotEqual, syntax.Less, syntax.LessEqual, syntax.Greater, syntax.GreaterEqual} {
		for _, v := range with {
			iv := intervalOf(op, v)
			for _, n := range ints {
				require.Equal(t, Holds(op, number(syntax.TypeInt, n), v), iv.has(n), "%d %s %s", n, op, v.Text())
			}
		}
	}
}

// shared is a block whose columns are given.
type shared struct {
	storage.TraceBlock
	column *storage.SpanColumn
	n      int
}

func (b *shared) First() ([]int32, error)                             { return []int32{0, int32(b.n)}, nil }
func (b *shared) Len() int                                            { return b.n }
func (b *shared) Column(storage.SpanKey) (*storage.SpanColumn, error) { return b.column, nil }

// Blocks may share a dictionary, or not.
func TestSharedDictionaries(t *testing.T) {
	one := []telemetry.Value{telemetry.String("a"), telemetry.String("b"), telemetry.String("unused")}
	two := []telemetry.Value{telemetry.String("b"), telemetry.String("a"), telemetry.String("c")}
	c := Compile(&syntax.Binary{Op: syntax.Equal, L: &syntax.Attribute{Scope: syntax.SpanScope, Name: "x"}, R: &syntax.Static{Type: syntax.TypeString, Text: "a"}})
	coder := NewCoder(&syntax.Attribute{Scope: syntax.SpanScope, Name: "x"})
	for _, dict := range [][]telemetry.Value{one, one, two, one, two, two} {
		for _, col := range []*storage.SpanColumn{
			{Dict: dict, Code: []uint32{0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1}},
			{Dict: dict, Code: []uint32{1, 0, 1}, Rows: []int32{2, 3, 11}},
		} {
			b, err := NewBlock(&shared{column: col, n: 13})
			require.NoError(t, err)
			set, err := c.Eval(b, b.All())
			require.NoError(t, err)
			codes, err := coder.Codes(b, b.All())
			require.NoError(t, err)
			for i := range 13 {
				v := Nil()
				for at := range col.Code {
					if col.Rows == nil && at == i || col.Rows != nil && int(col.Rows[at]) == i {
						v = typed(col.Value(at))
					}
				}
				require.Equal(t, v.Text() == "a", set.Has(i))
				require.Equal(t, v, coder.Value(codes[i]))
			}
		}
	}
}
