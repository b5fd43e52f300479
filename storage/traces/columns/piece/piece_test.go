package piece_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces/columns/piece"
)

// codesBack writes codes and reads them back.
func codesBack(t require.TestingT, cs []uint32, limit uint32) []uint32 {
	enc, err := part.NewEncoder()
	require.NoError(t, err)
	var file bytes.Buffer
	w := part.NewWriter(&file, enc, map[string]string{})
	w.Begin(part.Schema{Name: "t", Columns: []part.Column{{Name: "blob", Type: part.Blob}}})
	var b piece.Blob
	var e piece.Encoder
	b.Reset(w)
	e.Codes(&b, cs)
	head := len(b.Head)
	require.NoError(t, w.Blob(1, b.Bytes(), "", "", false))
	require.NoError(t, w.Close())
	dec, err := part.NewDecoder()
	require.NoError(t, err)
	defer dec.Close()
	p, err := part.Open("t.part", bytes.NewReader(file.Bytes()), int64(file.Len()), dec, nil)
	require.NoError(t, err)
	off := int64(0)
	r := piece.ReadRef(telemetry.NewDecoderBytes(b.Head), &off)
	s := piece.Source{Whole: piece.Whole, Part: p, Table: p.Table("t"), Head: int64(head)}
	raw, err := s.Fetch("codes", r)
	require.NoError(t, err)
	out, err := piece.Codes(&piece.Memory{}, raw, len(cs), limit)
	require.NoError(t, err)
	_, err = piece.Codes(&piece.Memory{}, raw, len(cs), limit-1)
	require.Error(t, err)
	sameView(t, raw, cs, limit)
	r.Size--
	_, err = s.Fetch("codes", r)
	require.ErrorIs(t, err, part.ErrCorrupt)
	return out
}

// sameView reads codes as they lie.
func sameView(t require.TestingT, raw []byte, cs []uint32, limit uint32) {
	_, err := piece.ViewOf(&piece.Memory{}, raw, len(cs), limit-1)
	require.Error(t, err)
	_, err = piece.ViewOf(&piece.Memory{}, bytes.Clone(raw[:len(raw)-1]), len(cs), limit)
	require.Error(t, err)
	v, err := piece.ViewOf(&piece.Memory{}, raw, len(cs), limit)
	require.NoError(t, err)
	v = v.Clone()
	clear(raw)
	require.Equal(t, len(cs), v.Len())
	out := make([]uint32, len(cs))
	v.Read(out)
	require.Equal(t, cs, out)
	of, wanted := make([]uint32, limit), make([]uint8, limit)
	for i := range of {
		of[i] = uint32(i) + 7
	}
	require.Equal(t, limit+6, v.Map(of, out))
	set := make([]uint64, (len(cs)+63)/64)
	require.False(t, v.Mark(wanted, set), "nothing is wanted")
	wanted[cs[1]] = 1
	require.True(t, v.Mark(wanted, set))
	ones := 0
	for i, c := range cs {
		if i > 0 && c == cs[1] {
			ones++
		}
		if i > 0 {
			require.Equal(t, ones, v.Count(cs[1], 1, i+1))
		}
		require.Equal(t, c, v.At(i))
		require.Equal(t, c+7, out[i])
		require.Equal(t, c == cs[1], set[i/64]>>(i%64)&1 == 1, "code %d", i)
	}
}

func TestCodes(t *testing.T) {
	tests := []struct {
		name string
		f    func(i int) uint32
		top  uint32
	}{
		{"same", func(int) uint32 { return 7 }, 7},
		{"pattern of bytes", func(i int) uint32 { return uint32(i % 5 * 50) }, 200},
		{"pattern of pairs", func(i int) uint32 { return uint32(i % 7 * 9000) }, 54000},
		{"pattern of large ones", func(i int) uint32 { return uint32(i % 3 * 1 << 20) }, 2 << 20},
		{"no pattern", func(i int) uint32 { return uint32(i*7919) % 1009 }, 1008},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cs := make([]uint32, 3000)
			for i := range cs {
				cs[i] = tt.f(i)
			}
			require.Equal(t, cs, codesBack(t, cs, tt.top+1))
		})
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e piece.Encoder
		scale := rapid.SampledFrom([]int64{1, 1000, 1e6, 1e9}).Draw(t, "scale")
		ns := rapid.SliceOfN(rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 100)), 1, 300).Draw(t, "numbers")
		for i := range ns {
			ns[i] = ns[i] / 1e9 * scale
		}
		b := e.Ints(nil, ns)
		var m piece.Memory
		got, err := piece.Ints(&m, b, len(ns))
		require.NoError(t, err)
		require.Equal(t, ns, got)
		k := rapid.IntRange(1, len(ns)).Draw(t, "until")
		got, err = piece.Until(&m, b, len(ns), k)
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(got), k)
		require.Equal(t, ns[:len(got)], got)
		_, err = piece.Ints(&m, append(b, 0), len(ns))
		require.Error(t, err)
		ss := rapid.SliceOf(rapid.String()).Draw(t, "texts")
		texts, err := piece.Texts(e.Texts(nil, ss), len(ss))
		require.NoError(t, err)
		require.ElementsMatch(t, ss, texts)
		vs := make([]telemetry.Value, 0, len(ss)+1)
		for _, s := range ss {
			vs = append(vs, telemetry.String(s))
		}
		vs = append(vs, rapid.SampledFrom([]telemetry.Value{{}, telemetry.Int(5), telemetry.String("x"), telemetry.Bool(true)}).Draw(t, "value"))
		values, err := piece.Values(e.Values(nil, vs), len(vs))
		require.NoError(t, err)
		require.Equal(t, vs, values)
	})
}

func TestFilter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f piece.FilterBuilder
		pages := rapid.SliceOfN(rapid.SliceOfN(rapid.Uint64(), 1, 600), 1, 64).Draw(t, "pages")
		for _, hs := range pages {
			for _, h := range hs {
				f.Add(piece.Mix(h))
			}
			f.End()
		}
		s := f.Shape(len(pages))
		b := f.Append(nil, s)
		require.Len(t, b, s.Size()*s.Pieces)
		for i, hs := range pages {
			for _, h := range hs {
				n, slots := s.Place(piece.Mix(h))
				require.NotZero(t, s.Find(b[n*s.Size():], slots)>>i&1)
			}
		}
	})
}

// FuzzDecode reads any bytes as each kind of piece: no panic.
func FuzzDecode(f *testing.F) {
	var e piece.Encoder
	f.Add(e.Ints(nil, []int64{1000, 2000, 5000}), uint16(3))
	f.Add(e.Texts(nil, []string{"a", "", "bc"}), uint16(3))
	f.Add(e.Values(nil, []telemetry.Value{telemetry.Int(1), telemetry.String("x")}), uint16(2))
	f.Add([]byte{2, 1, 2, 3}, uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		var m piece.Memory
		if ns, err := piece.Ints(&m, b, int(n)); err == nil {
			require.Len(t, ns, int(n))
		}
		if k := int(n)/2 + 1; k <= int(n) {
			if ns, err := piece.Until(&m, b, int(n), k); err == nil {
				require.GreaterOrEqual(t, len(ns), k)
			}
		}
		if v, err := piece.ViewOf(&m, b, int(n), 1000); err == nil {
			for i := range v.Len() {
				require.Less(t, v.At(i), uint32(1000))
			}
		}
		if cs, err := piece.Codes(&m, b, int(n), 1000); err == nil {
			for _, c := range cs {
				require.Less(t, c, uint32(1000))
			}
		}
		if ss, err := piece.Texts(b, int(n)); err == nil {
			require.Len(t, ss, int(n))
		}
		if vs, err := piece.Values(b, int(n)); err == nil {
			require.Len(t, vs, int(n))
		}
	})
}
