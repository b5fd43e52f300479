package column_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/storage/column"
)

func floats(bits ...uint64) []float64 {
	out := make([]float64, len(bits))
	for i, b := range bits {
		out[i] = math.Float64frombits(b)
	}
	return out
}

func bitsOf(fs []float64) []uint64 {
	out := make([]uint64, len(fs))
	for i, f := range fs {
		out[i] = math.Float64bits(f)
	}
	return out
}

// series returns n values that step as f says.
func series(n int, f func(i int) float64) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = f(i)
	}
	return out
}

func TestFloats(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	sum := 0.0
	counter := 0.0
	stale := math.Float64frombits(value.StaleNaN)
	tests := []struct {
		name string
		in   []float64
		max  int // bytes
	}{
		{"one", []float64{1.5}, 9},
		{"constant", series(480, func(int) float64 { return 0.25 }), 9},
		{"constant whole", series(480, func(int) float64 { return 3 }), 2},
		{"negative zero", series(3, func(int) float64 { return math.Copysign(0, -1) }), 9},
		{"counter", series(480, func(int) float64 { counter += float64(r.IntN(16)); return counter }), 280},
		{"counter with a reset", series(480, func(i int) float64 { return float64(i % 300 * 7) }), 40},
		{"counter that ends", append(series(480, func(i int) float64 { return float64(i * 7) }), stale), 20},
		{"milliseconds", series(480, func(int) float64 { return float64(r.IntN(1000)) / 1000 }), 640},
		{"drifting sum", series(480, func(int) float64 { sum += float64(r.IntN(1000)) / 1e6; return sum }), 2200},
		{"random bits", series(480, func(int) float64 { return math.Float64frombits(r.Uint64()) }), 480*8 + 80},
		{"specials", floats(value.StaleNaN, value.NormalNaN, 0x7ff0000000000000, 0xfff0000000000000, 0x8000000000000000, 1, 0x7ff8dead00000001), 80},
		{"large", []float64{1 << 53, 1<<53 + 2, -(1 << 53)}, 40},
		{"ends", []float64{math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64}, 40},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e column.Encoder
			b := e.Floats([]byte{7}, tt.in, nil)[1:]
			require.LessOrEqual(t, len(b), tt.max)
			var d column.Decoder
			got := make([]float64, len(tt.in))
			rest, err := d.Floats(append(b, "rest"...), got, nil)
			require.NoError(t, err)
			require.Equal(t, "rest", string(rest))
			require.Equal(t, bitsOf(tt.in), bitsOf(got))
			for i := range b { // a cut is an error or decodes to something, never more
				_, _ = d.Floats(b[:i], got, nil)
			}
		})
	}
}

// TestBucketsReferToEachOther shows that a bucket that moves as its neighbour does costs next to nothing.
func TestBucketsReferToEachOther(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var cols [][]float64
	n := 0.0
	first := series(480, func(int) float64 { n += float64(r.IntN(50)); return n })
	cols = append(cols, first, series(480, func(i int) float64 { return first[i] + 5 }), first, series(480, func(i int) float64 { return first[i] + float64(i/100) }))
	var e column.Encoder
	var sizes []int
	var b []byte
	for i, c := range cols {
		at := len(b)
		var prev []float64
		if i > 0 {
			prev = cols[i-1]
		}
		b = e.Floats(b, c, prev)
		sizes = append(sizes, len(b)-at)
	}
	require.Greater(t, sizes[0], 350)
	require.Less(t, sizes[1], 12)
	require.Less(t, sizes[3], 80)
	var d column.Decoder
	var prev []float64
	for _, c := range cols {
		got := make([]float64, len(c))
		var err error
		b, err = d.Floats(b, got, prev)
		require.NoError(t, err)
		require.Equal(t, c, got)
		prev = got
	}
}

func TestRoundTrip(t *testing.T) {
	kinds := []*rapid.Generator[float64]{
		rapid.Float64(),
		rapid.Map(rapid.Int64Range(-1000, 1000), func(i int64) float64 { return float64(i) }),
		rapid.Map(rapid.Int64Range(0, 1<<55), func(i int64) float64 { return float64(i) / 1000 }),
		rapid.Map(rapid.Uint64(), math.Float64frombits),
		rapid.SampledFrom(floats(value.StaleNaN, value.NormalNaN, 0x3ff0000000000000, 0x4004000000000000, 0x8000000000000000)),
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		var cols [][]float64
		for range rapid.IntRange(1, 5).Draw(t, "columns") {
			g := kinds[rapid.IntRange(0, len(kinds)-1).Draw(t, "kind")]
			cols = append(cols, rapid.SliceOfN(g, n, n).Draw(t, "column"))
			if rapid.Bool().Draw(t, "again") {
				cols = append(cols, cols[len(cols)-1])
			}
		}
		var e column.Encoder
		var d column.Decoder
		var b []byte
		var prev []float64
		for _, c := range cols {
			b = e.Floats(b, c, prev)
			prev = c
		}
		prev = nil
		for _, c := range cols {
			got := make([]float64, n)
			var err error
			b, err = d.Floats(b, got, prev)
			require.NoError(t, err)
			require.Equal(t, bitsOf(c), bitsOf(got))
			prev = got
		}
		require.Empty(t, b)
	})
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.SliceOfN(rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 20), rapid.Just(int64(math.MinInt64))), 1, 400).Draw(t, "m")
		ref := rapid.SliceOfN(rapid.Int64(), len(m), len(m)).Draw(t, "ref")
		var e column.Encoder
		got := make([]int64, len(m))
		rest, err := column.Ints(e.Ints(nil, m, ref), got, ref)
		require.NoError(t, err)
		require.Empty(t, rest)
		require.Equal(t, m, got)
	})
}

func TestUvarint(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for width := range 65 {
		for range 20 {
			want := r.Uint64() >> (64 - width)
			b := binary.AppendUvarint(nil, want)
			for _, behind := range []int{0, 1, 9} {
				got, rest, err := column.Uvarint(append(slices.Clip(b), bytes.Repeat([]byte{0xff}, behind)...))
				require.NoError(t, err)
				require.Equal(t, want, got)
				require.Len(t, rest, behind)
			}
			_, _, err := column.Uvarint(b[:len(b)-1])
			require.ErrorIs(t, err, column.ErrCorrupt)
		}
	}
	_, _, err := column.Uvarint(bytes.Repeat([]byte{0xff}, 20))
	require.ErrorIs(t, err, column.ErrCorrupt)
}

// TestWidths decodes columns of numbers of every width and of lengths around those of blocks, by each of the decoders.
func TestWidths(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var e column.Encoder
	for width := range 65 {
		for _, n := range []int{1, 2, 8, 9, 17, 128, 129, 136, 137, 256, 300} {
			m := make([]int64, n)
			last := int64(0)
			for i := range m {
				m[i] = int64(r.Uint64() >> 1 >> (64 - width) << (n % 3))
				switch {
				case n == 136: // differences
					m[i] += last
				case n > 136 && r.IntN(50) == 0: // exceptions
					m[i] = r.Int64()
				}
				last = m[i]
			}
			scaled, codes := make([]int64, n), make([]uint32, n)
			for i, v := range m {
				scaled[i], codes[i] = v*1_000_000, uint32(v)
			}
			b := e.Ints(nil, m, nil)
			for _, behind := range []int{0, 7, 8} {
				src := append(slices.Clip(b), make([]byte, behind)...)
				got, gotScaled, gotCodes := make([]int64, n), make([]int64, n), make([]uint32, n)
				rest, err := column.Ints(src, got, nil)
				require.NoError(t, err)
				require.Len(t, rest, behind)
				require.Equal(t, m, got, "width %d of %d", width, n)
				rest, err = column.Scaled(src, gotScaled, 1_000_000)
				require.NoError(t, err)
				require.Len(t, rest, behind)
				require.Equal(t, scaled, gotScaled, "width %d of %d", width, n)
				set, some := make([]uint64, (n+63)/64), make([]int64, n)
				for i := range set {
					set[i] = r.Uint64() & r.Uint64() & r.Uint64()
				}
				rest, err = column.Some(src, some, set, 1_000_000)
				require.NoError(t, err)
				require.Len(t, rest, behind)
				for i, v := range scaled {
					if set[i/64]>>(i%64)&1 == 1 {
						require.Equal(t, v, some[i], "width %d of %d: %d", width, n, i)
					}
				}
				rest, err = column.Codes(src, gotCodes)
				require.NoError(t, err)
				require.Len(t, rest, behind)
				require.Equal(t, codes, gotCodes, "width %d of %d", width, n)
			}
		}
	}
}

// TestRuns compares Runs with Ints for columns of all kinds, and for cuts of them.
func TestRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in []int64
		v, step := rapid.Int64().Draw(t, "first"), int64(0)
		for range rapid.IntRange(1, 8).Draw(t, "pieces") {
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				step = 0
			case 1:
				step = rapid.Int64Range(-5, 5).Draw(t, "step")
			default:
				v = rapid.Int64().Draw(t, "value")
			}
			for range rapid.IntRange(1, 400).Draw(t, "rows") {
				v += step
				in = append(in, v)
			}
		}
		var e column.Encoder
		b := e.Ints(nil, in, nil)
		runs := func(b []byte) (out []int64, rest []byte, err error) {
			rest, err = column.Runs(b, len(in), func(n int, v int64) error {
				for range n {
					out = append(out, v)
				}
				return nil
			})
			return out, rest, err
		}
		out, rest, err := runs(append(b, "rest"...))
		require.NoError(t, err)
		require.Equal(t, in, out)
		require.Equal(t, "rest", string(rest))
		cut := b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]
		_, want := column.Ints(cut, make([]int64, len(in)), nil)
		_, _, err = runs(cut)
		require.Equal(t, want == nil, err == nil)
	})
}

// FuzzDecode feeds the decoders hostile bytes: they answer with values or with ErrCorrupt, and what they answer can be
// encoded and decoded again.
func FuzzDecode(f *testing.F) {
	var e column.Encoder
	f.Add(e.Floats(nil, []float64{1, 2, 3, 4.5}, nil), uint16(4))
	f.Add(e.Floats(nil, floats(value.StaleNaN, 1, 2, 3, 4, 5, 6, 7, 8, 9), nil), uint16(10))
	f.Add(e.Ints(nil, []int64{5, 10, 15, 1 << 60}, nil), uint16(4))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		count := int(n%600) + 1
		var d column.Decoder
		v := make([]float64, count)
		prev := []float64(nil)
		for range 3 {
			rest, err := d.Floats(b, v, prev)
			if err != nil {
				require.ErrorIs(t, err, column.ErrCorrupt)
				break
			}
			var e column.Encoder
			again := make([]float64, count)
			var d2 column.Decoder
			_, err = d2.Floats(e.Floats(nil, v, nil), again, nil)
			require.NoError(t, err)
			require.Equal(t, bitsOf(v), bitsOf(again))
			b, prev = rest, again
		}
		m := make([]int64, count)
		if _, err := column.Ints(b, m, m); err != nil {
			require.ErrorIs(t, err, column.ErrCorrupt)
		}
		if count == 0 {
			return
		}
		var runs []int64
		_, err := column.Runs(b, count, func(n int, v int64) error {
			for range n {
				runs = append(runs, v)
			}
			return nil
		})
		_, want := column.Ints(b, m, nil)
		require.Equal(t, want == nil, err == nil)
		if err == nil {
			require.Equal(t, m, runs)
		}
		scaled, codes := make([]int64, count), make([]uint32, count)
		_, err = column.Scaled(b, scaled, 1000)
		require.Equal(t, want == nil, err == nil)
		_, err = column.Codes(b, codes)
		require.Equal(t, want == nil, err == nil)
		_, err = column.Some(b, make([]int64, count), make([]uint64, (count+63)/64), 1)
		require.Equal(t, want == nil, err == nil)
		for i := range m {
			if want == nil {
				require.Equal(t, m[i]*1000, scaled[i])
				require.Equal(t, uint32(m[i]), codes[i])
			}
		}
	})
}

// BenchmarkRuns reads the numbers of streams of a block of log lines.
func BenchmarkRuns(b *testing.B) {
	in := make([]int64, 8192)
	for i := range in {
		in[i] = int64(i / 500)
	}
	var e column.Encoder
	src := e.Ints(nil, in, nil)
	b.Run("runs", func(b *testing.B) {
		for b.Loop() {
			_, _ = column.Runs(src, len(in), func(int, int64) error { return nil })
		}
	})
	b.Run("ints", func(b *testing.B) {
		for b.Loop() {
			_, _ = column.Ints(src, in, nil)
		}
	})
}

// BenchmarkInts decodes columns as traces have them: starts and durations of spans, numbers of resources.
func BenchmarkInts(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	at := int64(1_800_000_000_000_000)
	column8192 := func(f func(i int) int64) []int64 {
		out := make([]int64, 8192)
		for i := range out {
			out[i] = f(i)
		}
		return out
	}
	for _, bb := range []struct {
		name string
		in   []int64
	}{
		{"starts", column8192(func(i int) int64 {
			if i%23 == 0 {
				at += r.Int64N(40_000)
				return at
			}
			return at + r.Int64N(200_000)
		})},
		{"durations", column8192(func(int) int64 { return int64(r.ExpFloat64() * 20_000_000) })},
		{"wide", column8192(func(int) int64 { return r.Int64N(1 << 40) })},
		{"codes", column8192(func(int) int64 { return r.Int64N(108) })},
	} {
		var e column.Encoder
		src := append(e.Ints(nil, bb.in, nil), make([]byte, 8)...)
		b.Run(bb.name, func(b *testing.B) {
			out := make([]int64, len(bb.in))
			for b.Loop() {
				_, _ = column.Ints(src, out, nil)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(bb.in)), "ns/value")
		})
		b.Run(bb.name+"/twentieth", func(b *testing.B) {
			out, set := make([]int64, len(bb.in)), make([]uint64, len(bb.in)/64)
			for i := 0; i < len(bb.in); i += 20 {
				set[i/64] |= 1 << (i % 64)
			}
			for b.Loop() {
				_, _ = column.Some(src, out, set, 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(bb.in)), "ns/value")
		})
	}
}

func BenchmarkFloats(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	n := 0.0
	for _, bb := range []struct {
		name string
		in   []float64
	}{
		{"counter", series(480, func(int) float64 { n += float64(r.IntN(50)); return n })},
		{"gauge", series(480, func(int) float64 { return float64(r.IntN(100000)) / 1000 })},
		{"constant", series(480, func(int) float64 { return 1 })},
	} {
		b.Run(bb.name+"/encode", func(b *testing.B) {
			var e column.Encoder
			var dst []byte
			for b.Loop() {
				e.Reset()
				dst = e.Floats(dst[:0], bb.in, nil)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(bb.in)), "ns/sample")
			b.ReportMetric(float64(len(dst))/float64(len(bb.in)), "bytes/sample")
		})
		b.Run(bb.name+"/decode", func(b *testing.B) {
			var e column.Encoder
			src := append(e.Floats(nil, bb.in, nil), make([]byte, 8)...)
			var d column.Decoder
			v := make([]float64, len(bb.in))
			for b.Loop() {
				d.Reset()
				if _, err := d.Floats(src, v, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(bb.in)), "ns/sample")
		})
	}
}
