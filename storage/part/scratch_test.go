package part_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/storage/part"
)

// TestSomeRows compares what is read through a Scratch with whole columns: columns of many values and of one.
func TestSomeRows(t *testing.T) {
	s := part.Schema{Name: "t", Columns: []part.Column{
		{Name: "p", Type: part.Packed}, {Name: "s", Type: part.Bytes}, {Name: "x", Type: part.Fixed, Width: 3}, {Name: "i", Type: part.Int64},
	}}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 700).Draw(t, "rows")
		distinct := rapid.SampledFrom([]int{1, 2, 500}).Draw(t, "distinct")
		value := func(i int) int { return i / 7 * 31 % distinct }
		b := write(t, func(w *part.Writer) {
			w.Begin(s)
			for range 2 {
				require.NoError(t, w.Block(n,
					part.Vector{Ints: repeat(n, func(i int) int64 { return int64(value(i)) })},
					part.Vector{Strs: repeat(n, func(i int) string { return fmt.Sprint("s", value(i)) })},
					part.Vector{Fixed: repeat(3*n, func(i int) byte { return byte(value(i / 3)) })},
					part.Vector{Ints: repeat(n, func(i int) int64 { return int64(value(i)) })},
				))
			}
		})
		p, err := open(t, b, part.NewCache(1))
		require.NoError(t, err)
		tb := p.Table("t")
		var rows []int
		for i := range n {
			if rapid.Bool().Draw(t, "wanted") {
				rows = append(rows, i)
			}
		}
		var scratch part.Scratch
		for _, c := range s.Columns {
			all, err := tb.Read(c.Name, 1)
			require.NoError(t, err)
			got, err := tb.ReadRows(c.Name, 1, nil, &scratch)
			require.NoError(t, err)
			sameVector(t, all, got)
			if len(rows) == 0 {
				continue
			}
			want := part.Vector{Ints: part.Pick(rows, all.Ints, part.Same[int64]), Strs: part.Pick(rows, all.Strs, part.Same[string])}
			for _, row := range rows {
				want.Fixed = append(want.Fixed, all.Fixed[min(len(all.Fixed), 3*row):min(len(all.Fixed), 3*row+3)]...)
			}
			got, err = tb.ReadRows(c.Name, 1, rows, &scratch)
			require.NoError(t, err)
			sameVector(t, want, got)
		}
		all, err := tb.Read("p", 0)
		require.NoError(t, err)
		ints, err := tb.ReadInts("p", 0, make([]int64, 3), &scratch)
		require.NoError(t, err)
		require.Equal(t, all.Ints, ints)
		var runs []int64
		require.NoError(t, tb.Runs("p", 0, &scratch, func(n int, v int64) error {
			for range n {
				runs = append(runs, v)
			}
			return nil
		}))
		require.Equal(t, all.Ints, runs)
	})
}

// TestSomeRowsOfCorruptBlocks flips each byte of a part: an error that says so, or the values that were written.
func TestSomeRowsOfCorruptBlocks(t *testing.T) {
	s := part.Schema{Name: "t", Columns: []part.Column{{Name: "p", Type: part.Packed}, {Name: "s", Type: part.Bytes}}}
	want := part.Vector{Ints: []int64{1, 1, 9}, Strs: []string{"a", "a", "a"}}
	b := write(t, func(w *part.Writer) {
		w.Begin(s)
		require.NoError(t, w.Block(3, part.Vector{Ints: want.Ints}, part.Vector{Strs: want.Strs}))
	})
	var scratch part.Scratch
	broken := 0
	for i := range b {
		b[i] ^= 0x40
		if p, err := open(t, b, nil); err == nil {
			tb := p.Table("t")
			ints, err := tb.ReadInts("p", 0, nil, &scratch)
			if err == nil {
				require.Equal(t, want.Ints, ints)
			} else {
				require.True(t, part.IsCorrupt(err))
				broken++
			}
			v, err := tb.ReadRows("s", 0, nil, &scratch)
			if err == nil {
				require.Equal(t, want.Strs, v.Strs)
			} else {
				require.True(t, part.IsCorrupt(err))
				broken++
			}
		}
		b[i] ^= 0x40
	}
	require.Positive(t, broken)
	p, err := open(t, b, nil)
	require.NoError(t, err)
	_, err = p.Table("t").ReadInts("s", 0, nil, &scratch)
	require.ErrorContains(t, err, "no packed column s")
	require.ErrorContains(t, p.Table("t").Runs("none", 0, &scratch, nil), "no packed column none")
	_, err = p.Table("t").ReadRows("none", 0, nil, &scratch)
	require.ErrorContains(t, err, "no column none")
}
