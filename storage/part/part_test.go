package part_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/part"
)

// write returns a part made by f.
func write(t require.TestingT, f func(w *part.Writer)) []byte {
	enc, err := part.NewEncoder()
	require.NoError(t, err)
	var buf bytes.Buffer
	w := part.NewWriter(&buf, enc, map[string]string{"signal": "test", "a": ""})
	f(w)
	require.NoError(t, w.Close())
	require.EqualValues(t, buf.Len(), w.Size())
	return buf.Bytes()
}

func open(t require.TestingT, b []byte, cache *part.Cache) (*part.Part, error) {
	dec, err := part.NewDecoder()
	require.NoError(t, err)
	return part.Open("x/1.part", bytes.NewReader(b), int64(len(b)), dec, cache)
}

func schema() part.Schema {
	return part.Schema{Name: "all", Columns: []part.Column{
		{Name: "i", Type: part.Int64}, {Name: "f", Type: part.Float64}, {Name: "s", Type: part.Bytes}, {Name: "x", Type: part.Fixed, Width: 2},
	}}
}

// block makes n rows from seed.
func block(seed uint64, n int) []part.Vector {
	rng := rand.New(rand.NewPCG(seed, 1))
	return []part.Vector{
		{Ints: repeat(n, func(int) int64 { return rng.Int64N(1000) - 500 })},
		{Floats: repeat(n, func(int) float64 { return rng.NormFloat64() })},
		{Strs: repeat(n, func(int) string { return fmt.Sprintf("text %d", rng.IntN(50)) })},
		{Fixed: repeat(2*n, func(int) byte { return byte(rng.IntN(200)) })},
	}
}

func sample(t require.TestingT) []byte {
	return write(t, func(w *part.Writer) {
		w.Begin(schema())
		for i := range 3 {
			require.NoError(t, w.Block(10+i, block(uint64(i), 10+i)...))
		}
		require.NoError(t, part.WriteStrings(w, "names", []string{"a", "", "b"}))
	})
}

func TestReadBackWithStatistics(t *testing.T) {
	for _, cache := range []*part.Cache{nil, part.NewCache(1)} {
		p, err := open(t, sample(t), cache)
		require.NoError(t, err)
		require.Equal(t, "test", p.Prop("signal"))
		require.Empty(t, p.Prop("absent"))
		require.Equal(t, "x/1.part", p.File())
		tb := p.Table("all")
		require.EqualValues(t, 33, tb.Rows())
		require.Equal(t, 3, tb.Blocks())
		for range 2 { // the second time from the cache
			for b := range 3 {
				want := block(uint64(b), 10+b)
				require.Equal(t, 10+b, tb.BlockRows(b))
				for c, name := range []string{"i", "f", "s", "x"} {
					v, err := tb.Read(name, b)
					require.NoError(t, err)
					sameVector(t, want[c], v)
				}
				lo, hi, ok := tb.Ints("i", b)
				require.True(t, ok)
				require.Equal(t, slices.Min(want[0].Ints), lo)
				require.Equal(t, slices.Max(want[0].Ints), hi)
				var all []string
				for i := range 10 + b {
					all = append(all, string(want[3].Fixed[2*i:2*i+2]))
				}
				flo, fhi, ok := tb.Fixed("x", b)
				require.True(t, ok)
				require.Equal(t, slices.Min(all), flo)
				require.Equal(t, slices.Max(all), fhi)
			}
		}
		if cache != nil {
			gets, misses := cache.Stats()
			require.EqualValues(t, 24, gets)
			require.EqualValues(t, 12, misses, "a hit is what a miss was")
		}
		_, _, ok := tb.Ints("s", 0)
		require.False(t, ok)
		_, _, ok = tb.Fixed("i", 0)
		require.False(t, ok)
		require.Equal(t, []int64{0, 10, 21}, []int64{tb.FirstRow(0), tb.FirstRow(1), tb.FirstRow(2)})
		for row := range int64(33) {
			b := tb.BlockOf(row)
			require.True(t, row >= tb.FirstRow(b) && row < tb.FirstRow(b)+int64(tb.BlockRows(b)))
		}
		names, err := part.ReadStrings(p, "names")
		require.NoError(t, err)
		require.Equal(t, []string{"a", "", "b"}, names)
		require.NoError(t, p.Verify())
		require.Contains(t, p.Describe(), "all: 33 rows in 3 blocks")
		require.Zero(t, p.Table("absent").Rows())
		_, err = tb.Read("absent", 0)
		require.ErrorIs(t, err, part.ErrCorrupt)
	}
}

func TestCheckColumns(t *testing.T) {
	p, err := open(t, sample(t), nil)
	require.NoError(t, err)
	require.NoError(t, p.Table("all").Check(schema().Columns))
	require.NoError(t, p.Table("absent").Check(schema().Columns), "a table that is not there is empty")
	require.ErrorIs(t, p.Table("all").Check([]part.Column{{Name: "i", Type: part.Bytes}}), part.ErrCorrupt)
	require.ErrorIs(t, p.Table("all").Check([]part.Column{{Name: "x", Type: part.Fixed, Width: 3}}), part.ErrCorrupt)
	require.ErrorIs(t, p.Table("all").Check([]part.Column{{Name: "y", Type: part.Int64}}), part.ErrCorrupt)
	_, err = p.Table("all").Indexes("i", 0, 10)
	require.ErrorContains(t, err, "into 10 values")
}

func TestFullBlocks(t *testing.T) {
	b := write(t, func(w *part.Writer) {
		w.Begin(schema())
		require.NoError(t, w.Block(part.MaxBlockRows, block(1, part.MaxBlockRows)...))
		require.NoError(t, w.Block(0), "no rows write nothing")
		require.Error(t, w.Block(part.MaxBlockRows+1, block(1, part.MaxBlockRows+1)...))
		require.Error(t, w.Block(1, part.Vector{}))
	})
	p, err := open(t, b, nil)
	require.NoError(t, err)
	require.Equal(t, 1, p.Table("all").Blocks())
	for c, name := range []string{"i", "f", "s", "x"} {
		v, err := p.Table("all").Read(name, 0)
		require.NoError(t, err)
		sameVector(t, block(1, part.MaxBlockRows)[c], v)
	}
}

func TestChunk(t *testing.T) {
	require.Equal(t, part.BlockRows, part.Chunk(100_000, func(int) int { return 1 }))
	require.Equal(t, 5, part.Chunk(5, func(int) int { return 1 }))
	require.Equal(t, 1, part.Chunk(5, func(int) int { return 1 << 30 }), "one row at least")
	require.Equal(t, 2, part.Chunk(5, func(int) int { return 100 << 10 }))
}

func TestTraceIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{0, 1, 30, 9000}).Draw(t, "entries")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		ids := make([]telemetry.TraceID, n)
		rows, counts := make([]int64, n), make([]int64, n)
		want := make(map[telemetry.TraceID][]int64)
		for i := range ids {
			ids[i] = telemetry.TraceID{byte(rng.IntN(4)), 15: byte(rng.IntN(20))}
			rows[i], counts[i] = int64(i), int64(rng.IntN(9))
			want[ids[i]] = append(want[ids[i]], counts[i])
		}
		p, err := open(t, write(t, func(w *part.Writer) {
			require.NoError(t, part.WriteTraceIndex(w, "traces", ids, []string{"row", "rows"}, rows, counts))
		}), nil)
		require.NoError(t, err)
		ask := []telemetry.TraceID{{1, 15: 3}, {2, 15: 7}, {9}, {}}
		got := make(map[telemetry.TraceID][]int64)
		require.NoError(t, part.LookupTraces(p, "traces", "rows", ask, func(id telemetry.TraceID, n int64) { got[id] = append(got[id], n) }))
		for _, id := range ask {
			require.Equal(t, want[id], got[id])
		}
		require.NoError(t, part.LookupTraces(p, "absent", "row", ask, func(telemetry.TraceID, int64) { t.Fatal("found in nothing") }))
	})
}

func TestDictionaries(t *testing.T) {
	one := telemetry.NewResource("u", telemetry.Attrs{{Key: "a", Value: telemetry.Int(1)}})
	one.Dropped = 4
	scope := func() *telemetry.Scope { return &telemetry.Scope{Name: "n", Dropped: 2} }
	var rs part.Resources
	var ss part.Scopes
	require.Equal(t, []uint32{0, 1, 0}, []uint32{rs.Add(nil), rs.Add(one), rs.Add(nil)})
	require.Equal(t, []uint32{0, 1, 1, 2}, []uint32{ss.Add(nil), ss.Add(scope()), ss.Add(scope()), ss.Add(&telemetry.Scope{})})
	p, err := open(t, write(t, func(w *part.Writer) {
		require.NoError(t, rs.Write(w))
		require.NoError(t, ss.Write(w))
	}), nil)
	require.NoError(t, err)
	gr, err := part.ReadResources(p)
	require.NoError(t, err)
	require.Equal(t, []*telemetry.Resource{nil, one}, gr)
	gs, err := part.ReadScopes(p)
	require.NoError(t, err)
	require.Equal(t, []*telemetry.Scope{nil, scope(), {}}, gs)
}

// readAll reads everything, and requires that whatever is wrong is told with file and offset.
func readAll(t require.TestingT, b []byte) error {
	p, err := open(t, b, nil)
	if err == nil {
		err = p.Verify()
	}
	if err != nil {
		var c *part.CorruptError
		require.ErrorAs(t, err, &c)
		require.Equal(t, "x/1.part", c.File)
		require.GreaterOrEqual(t, c.Offset, int64(0))
		require.LessOrEqual(t, c.Offset, int64(len(b)))
		require.ErrorIs(t, err, part.ErrCorrupt)
		require.ErrorContains(t, err, "restore the file")
	}
	return err
}

func TestTruncatedFiles(t *testing.T) {
	b := sample(t)
	require.NoError(t, readAll(t, b))
	for n := range b {
		require.Error(t, readAll(t, b[:n]), "%d bytes", n)
	}
}

func TestFlippedBits(t *testing.T) {
	b := sample(t)
	unguarded := 0
	for i := range len(b) * 8 {
		bad := slices.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		if readAll(t, bad) == nil {
			unguarded++
			at := i / 8
			require.True(t, at >= 9 && at < 16 || at >= len(b)-11 && at < len(b)-8, "byte %d is padding", at)
		}
	}
	require.Equal(t, 80, unguarded, "seven and three bytes without meaning")
}

// failing is a disk that fails.
type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

// atEnd returns io.EOF together with the last bytes, as io.ReaderAt allows.
type atEnd struct{ b []byte }

func (r atEnd) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, r.b[off:])
	if off+int64(n) == int64(len(r.b)) {
		return n, io.EOF
	}
	return n, nil
}

func TestReadErrors(t *testing.T) {
	broken := errors.New("broken disk")
	_, err := part.Open("x", failing{broken}, 1000, nil, nil)
	require.ErrorIs(t, err, broken)
	require.NotErrorIs(t, err, part.ErrCorrupt, "a disk that cannot be read says nothing about the file")
	b := sample(t)
	dec, err := part.NewDecoder()
	require.NoError(t, err)
	_, err = part.Open("x", atEnd{b}, int64(len(b)), dec, nil)
	require.NoError(t, err)
}

type fullDisk struct{ left int }

func (f *fullDisk) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

func TestWriteErrorsAreKept(t *testing.T) {
	enc, err := part.NewEncoder()
	require.NoError(t, err)
	for left := range 300 {
		w := part.NewWriter(&fullDisk{left}, enc, nil)
		w.Begin(schema())
		err := cmp.Or(w.Block(9, block(1, 9)...), w.Block(9, block(2, 9)...))
		require.ErrorIs(t, cmp.Or(err, w.Close()), io.ErrShortWrite)
	}
}

func BenchmarkWriteBlock(b *testing.B) {
	enc, err := part.NewEncoder()
	require.NoError(b, err)
	vs := block(1, part.BlockRows)
	b.ReportAllocs()
	for b.Loop() {
		w := part.NewWriter(io.Discard, enc, nil)
		w.Begin(schema())
		if err := cmp.Or(w.Block(part.BlockRows, vs...), w.Close()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*part.BlockRows/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkReadBlock(b *testing.B) {
	file := write(b, func(w *part.Writer) {
		w.Begin(schema())
		require.NoError(b, w.Block(part.BlockRows, block(1, part.BlockRows)...))
	})
	for name, cache := range map[string]*part.Cache{"file": nil, "cache": part.NewCache(32 << 20)} {
		p, err := open(b, file, cache)
		require.NoError(b, err)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for _, c := range []string{"i", "f", "s", "x"} {
					if _, err := p.Table("all").Read(c, 0); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.N)*part.BlockRows/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
