package part_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/storage/part"
)

const maxRows = part.MaxBlockRows

func column(t part.Type, width int) part.Column { return part.Column{Name: "c", Type: t, Width: width} }

// sameVector compares to the bit.
func sameVector(t require.TestingT, want, got part.Vector) {
	require.Equal(t, want.Ints, got.Ints)
	require.Equal(t, want.Strs, got.Strs)
	require.Equal(t, want.Fixed, got.Fixed)
	require.Len(t, got.Floats, len(want.Floats))
	for i := range want.Floats {
		if math.Float64bits(want.Floats[i]) != math.Float64bits(got.Floats[i]) {
			require.Equal(t, math.Float64bits(want.Floats[i]), math.Float64bits(got.Floats[i]), "row %d", i)
		}
	}
}

func roundTrip(t require.TestingT, c part.Column, v part.Vector, n int) byte {
	enc, err := part.AppendColumn(nil, c, &v, n)
	require.NoError(t, err)
	got, err := part.DecodeColumn(string(enc), c, n)
	require.NoError(t, err)
	sameVector(t, v, got)
	_, err = part.DecodeColumn(string(enc)+"x", c, n)
	require.ErrorContains(t, err, "too many")
	_, err = part.DecodeColumn(string(enc[:len(enc)-1]), c, n)
	require.Error(t, err)
	return enc[0]
}

func repeat[T any](n int, f func(i int) T) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = f(i)
	}
	return out
}

func TestEveryEncoding(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	ints := func(f func(i int) int64) func(n int) part.Vector {
		return func(n int) part.Vector { return part.Vector{Ints: repeat(n, f)} }
	}
	floats := func(f func(i int) float64) func(n int) part.Vector {
		return func(n int) part.Vector { return part.Vector{Floats: repeat(n, f)} }
	}
	strs := func(f func(i int) string) func(n int) part.Vector {
		return func(n int) part.Vector { return part.Vector{Strs: repeat(n, f)} }
	}
	fixed := func(f func(i int) byte) func(n int) part.Vector {
		return func(n int) part.Vector { return part.Vector{Fixed: repeat(3*n, func(i int) byte { return f(i / 3) })} }
	}
	specials := []float64{
		math.NaN(), math.Float64frombits(0x7ff8000000abcdef), math.Float64frombits(0x7ff0000000000002), math.Inf(1), math.Inf(-1),
		math.Copysign(0, -1), 0, math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 53, -(1 << 53), 0.1,
	}
	tests := []struct {
		name string
		c    part.Column
		v    func(n int) part.Vector
		enc  byte
	}{
		{"equal integers", column(part.Int64, 0), ints(func(int) int64 { return math.MinInt64 }), part.EncConst},
		{"small integers", column(part.Int64, 0), ints(func(i int) int64 { return int64(i*7919%128) - 64 }), part.EncVarint},
		{"extremes", column(part.Int64, 0), ints(func(i int) int64 { return []int64{math.MinInt64, math.MaxInt64, 0, -1}[i%4] }), 255},
		{"far apart", column(part.Int64, 0), ints(func(int) int64 { return 1e18 + rng.Int64N(1000) }), part.EncDelta},
		{"regular times", column(part.Int64, 0), ints(func(i int) int64 { return 1.7e12 + int64(i)*15000 + int64(i%2) }), part.EncDelta2},
		{"equal floats", column(part.Float64, 0), floats(func(int) float64 { return math.Float64frombits(0x7ff8000000abcdef) }), part.EncConst},
		{"equal negative zeros", column(part.Float64, 0), floats(func(int) float64 { return math.Copysign(0, -1) }), part.EncConst},
		{"whole floats", column(part.Float64, 0), floats(func(i int) float64 { return float64(i * i) }), part.EncFloatInts},
		{"decimal floats", column(part.Float64, 0), floats(func(i int) float64 { return float64(i) / 100 }), part.EncFloatScale},
		{"odd floats", column(part.Float64, 0), floats(func(int) float64 { return rng.NormFloat64() }), part.EncXor},
		{"special floats", column(part.Float64, 0), floats(func(i int) float64 { return specials[i%len(specials)] }), part.EncXor},
		{"a negative zero among whole ones", column(part.Float64, 0), floats(func(i int) float64 {
			if i == 1 {
				return math.Copysign(0, -1)
			}
			return float64(i)
		}), part.EncXor},
		{"the largest exact float", column(part.Float64, 0), floats(func(i int) float64 { return float64(1<<53 - 1 - i%2) }), part.EncFloatInts},
		{"equal strings", column(part.Bytes, 0), strs(func(int) string { return "same" }), part.EncConst},
		{"empty strings", column(part.Bytes, 0), strs(func(int) string { return "" }), part.EncConst},
		{"few strings", column(part.Bytes, 0), strs(func(i int) string { return fmt.Sprintf("value-%d", i%3) }), part.EncDict},
		{"many strings", column(part.Bytes, 0), strs(func(i int) string { return fmt.Sprintf("value-%d\xff", i) }), part.EncPlain},
		{"equal bytes", column(part.Fixed, 3), fixed(func(int) byte { return 7 }), part.EncConst},
		{"bytes", column(part.Fixed, 3), fixed(func(i int) byte { return byte(i) }), part.EncPlain},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []int{1, 2, 3, 100, maxRows} {
				if enc := roundTrip(t, tt.c, tt.v(n), n); n == 100 && tt.enc != 255 {
					require.Equal(t, tt.enc, enc)
				}
			}
		})
	}
}

func TestColumnRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "rows")
		var v part.Vector
		c := column(rapid.SampledFrom([]part.Type{part.Int64, part.Float64, part.Bytes, part.Fixed, part.Packed}).Draw(t, "type"), 0)
		switch c.Type {
		case part.Int64, part.Packed:
			v.Ints = rapid.SliceOfN(rapid.OneOf(rapid.Int64(), rapid.Int64Range(-9, 9), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64})), n, n).Draw(t, "ints")
		case part.Float64:
			v.Floats = rapid.SliceOfN(rapid.OneOf(
				rapid.Custom(func(t *rapid.T) float64 { return math.Float64frombits(rapid.Uint64().Draw(t, "bits")) }),
				rapid.Custom(func(t *rapid.T) float64 { return float64(rapid.Int32().Draw(t, "n")) / 1000 }),
				rapid.SampledFrom([]float64{0, math.Copysign(0, -1), math.NaN(), math.Inf(1), 1 << 53, 1e15 + 0.3}),
			), n, n).Draw(t, "floats")
		case part.Bytes:
			v.Strs = rapid.SliceOfN(rapid.StringN(0, 3, -1), n, n).Draw(t, "strings")
		case part.Fixed:
			c.Width = rapid.IntRange(1, 32).Draw(t, "width")
			v.Fixed = rapid.SliceOfN(rapid.ByteRange(0, 1), n*c.Width, n*c.Width).Draw(t, "bytes")
		case part.Blob: // it has no rows to speak of
		}
		roundTrip(t, c, v, n)
	})
}

func TestWrongVectorsAreRefused(t *testing.T) {
	for _, c := range []part.Column{column(part.Int64, 0), column(part.Float64, 0), column(part.Bytes, 0), column(part.Fixed, 2), column(part.Packed, 0), column(9, 0)} {
		_, err := part.AppendColumn(nil, c, &part.Vector{}, 1)
		require.Error(t, err)
	}
	_, err := part.DecodeColumn("\x00\x00", column(9, 0), 1)
	require.ErrorContains(t, err, "unknown type")
}

// FuzzColumn decodes any bytes as any column: no panic, as many rows as asked for or an error, and what was read is
// written and read again the same.
func FuzzColumn(f *testing.F) {
	for _, v := range []part.Vector{
		{Ints: []int64{1, 2, 3}},
		{Ints: []int64{1e18, 1e18 + 5, 1e18 + 7}},
		{Floats: []float64{1, 2.5, 3}},
		{Floats: []float64{math.Pi, math.NaN(), 0}},
		{Strs: []string{"a", "b", "c"}},
		{Strs: []string{"aaaaaaa", "bbbbbbb", "aaaaaaa", "bbbbbbb"}},
		{Fixed: []byte{1, 2, 3}},
	} {
		typ, n := part.Int64, len(v.Ints)+len(v.Floats)+len(v.Strs)+len(v.Fixed)
		switch {
		case v.Floats != nil:
			typ = part.Float64
		case v.Strs != nil:
			typ = part.Bytes
		case v.Fixed != nil:
			typ = part.Fixed
		}
		enc, err := part.AppendColumn(nil, column(typ, 1), &v, n)
		require.NoError(f, err)
		f.Add(enc, byte(typ), byte(1), uint16(n-1))
	}
	f.Fuzz(func(t *testing.T, raw []byte, typ, width byte, rows uint16) {
		c, n := column(part.Type(typ%5), 1+int(width%32)), int(rows)+1
		v, err := part.DecodeColumn(string(raw), c, n)
		if err != nil {
			return
		}
		require.Equal(t, n, len(v.Ints)+len(v.Floats)+len(v.Strs)+len(v.Fixed)/c.Width)
		enc, err := part.AppendColumn(nil, c, &v, n)
		require.NoError(t, err)
		again, err := part.DecodeColumn(string(enc), c, n)
		require.NoError(t, err)
		sameVector(t, v, again)
	})
}

func BenchmarkColumn(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	n := part.BlockRows
	for _, bb := range []struct {
		name string
		c    part.Column
		v    part.Vector
	}{
		{"ints/times", column(part.Int64, 0), part.Vector{Ints: repeat(n, func(i int) int64 { return 1.7e12 + int64(i)*15000 })}},
		{"floats/counter", column(part.Float64, 0), part.Vector{Floats: repeat(n, func(i int) float64 { return float64(i * 3) })}},
		{"floats/gauge", column(part.Float64, 0), part.Vector{Floats: repeat(n, func(int) float64 { return rng.NormFloat64() })}},
		{"bytes/few", column(part.Bytes, 0), part.Vector{Strs: repeat(n, func(i int) string { return fmt.Sprintf("GET /api/v%d", i%20) })}},
		{"bytes/lines", column(part.Bytes, 0), part.Vector{Strs: repeat(n, func(i int) string { return fmt.Sprintf("request %d took %dms", i, i%900) })}},
		{"fixed/traces", column(part.Fixed, 16), part.Vector{Fixed: repeat(16*n, func(int) byte { return byte(rng.Uint32()) })}},
	} {
		enc, err := part.AppendColumn(nil, bb.c, &bb.v, n)
		require.NoError(b, err)
		b.Run(bb.name+"/encode", func(b *testing.B) {
			buf := enc
			b.ReportAllocs()
			for b.Loop() {
				buf, _ = part.AppendColumn(buf[:0], bb.c, &bb.v, n)
			}
			b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "rows/s")
		})
		raw := string(enc)
		b.Run(bb.name+"/decode", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := part.DecodeColumn(raw, bb.c, n); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
