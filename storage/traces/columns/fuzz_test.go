package columns_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces/columns"
)

// seeds returns small parts: with everything that is odd, and with pages of a shop.
func seeds(tb testing.TB) [][]byte {
	tb.Helper()
	gen := rapid.Custom(odd)
	var out [][]byte
	for i := range 6 {
		out = append(out, write(tb, layouts()[i%3], settle(gen.Example(i))))
	}
	ts := newShop().traces(400)
	return append(out, write(tb, columns.Layout{PageRows: 150, SegmentRows: 1000, FullRows: 10}, ts[:len(ts)/2], ts[len(ts)/2:]))
}

// edited returns a part with some bytes changed, and the right checksum of the footer.
func edited(in, edits []byte) []byte {
	b := bytes.Clone(in)
	for ; len(edits) >= 4; edits = edits[4:] {
		at := int(binary.LittleEndian.Uint32(edits) & 0xffffff)
		b[at%len(b)] = edits[3]
	}
	at := len(b) - 20
	if n := int(binary.LittleEndian.Uint32(b[at:])); n >= 0 && n <= at-16 {
		binary.LittleEndian.PutUint32(b[at+4:], part.Checksum(b[at-n:at]))
	}
	return b
}

// readAll reads whatever there is in any way; it may fail, but only because the part is corrupt. It says whether all was there.
func readAll(t *testing.T, b []byte) bool {
	t.Helper()
	all := true
	fine := func(err error) bool {
		if err != nil {
			all = false
			require.ErrorIs(t, err, part.ErrCorrupt)
		}
		return err == nil
	}
	p, err := part.Open("test.part", bytes.NewReader(b), int64(len(b)), codec().dec, nil)
	if !fine(err) {
		return false
	}
	cp, err := columns.Open(p)
	if !fine(err) {
		return false
	}
	cp.TrustAll()
	cp.Keep(columns.NewCache(1 << 20))
	out := part.NewWriter(io.Discard, codec().enc, map[string]string{})
	w := columns.NewWriter(out, layouts()[2])
	var m columns.Memory
	for i := range cp.Len() {
		_, err := cp.MayHold(i, telemetry.TraceID{1})
		fine(err)
		s, err := cp.Segment(i)
		if !fine(err) {
			continue
		}
		_, err = s.TraceIDs()
		fine(err)
		_, err = s.Keys()
		fine(err)
		_, _, err = s.Find(telemetry.TraceID{1})
		fine(err)
		for _, key := range keysOf() {
			fine(s.Values(key, func(telemetry.Value) bool { return true }))
			_, err := s.Where(storage.ValueMatch{Key: key, Accept: func(v telemetry.Value) bool { return v.Kind() == telemetry.KindString }})
			fine(err)
			_, err = s.Where(storage.ValueMatch{Key: key, Accept: func(telemetry.Value) bool { return false }, Equal: []telemetry.Value{telemetry.String("a")}})
			fine(err)
		}
		for k := range s.Blocks() {
			blk, err := s.BlockIn(k, &m)
			require.NoError(t, err)
			for _, key := range keysOf() {
				c, err := blk.Column(key)
				if fine(err) {
					for v := range c.Len() {
						c.Value(v)
						require.True(t, c.Rows == nil || int(c.Rows[v]) < blk.Len())
					}
				}
			}
			rows := make([]int, blk.Len())
			for r := range rows {
				rows[r] = r
			}
			choose(t, s, k, fine)
			if _, err := blk.Spans(rows, storage.SpanAll); !fine(err) {
				continue
			}
			for n := range s.BlockInfo(k).Traces {
				if !fine(w.AddFrom(blk, n)) {
					w = columns.NewWriter(out, layouts()[2])
				}
			}
		}
	}
	require.NoError(t, w.Close())
	return all
}

// choose asks a block for traces and rows that pass tests, and reads them.
func choose(t *testing.T, s *columns.Segment, block int, fine func(error) bool) {
	t.Helper()
	text := func(v telemetry.Value) bool { return v.Kind() == telemetry.KindString }
	ps := []storage.Predicate{storage.DurationRange{Min: 0, Max: 1 << 20}}
	for _, key := range keysOf() {
		ps = append(ps, storage.ValueMatch{Key: key, Accept: text}, storage.ValueMatch{Key: key, Accept: text, Equal: []telemetry.Value{telemetry.String("a")}})
	}
	ps = append(ps, storage.Or{ps[1], ps[0]}, storage.And{ps[0], ps[len(ps)-1]})
	for _, p := range ps {
		test, err := s.Test(p)
		if !fine(err) {
			continue
		}
		b, err := s.Block(block)
		require.NoError(t, err)
		found, err := b.Sieve(test)
		if !fine(err) {
			continue
		}
		var some []int32
		for n := range s.BlockInfo(block).Traces {
			if n>>6 < len(found) && found[n>>6]>>(n&63)&1 != 0 {
				some = append(some, int32(n))
			}
		}
		if len(some) > 0 {
			if c, err := b.Choose(some); fine(err) {
				readBlock(t, c, fine)
			}
		}
		set, err := b.Passing([]*columns.Test{test})
		if !fine(err) || !slices.ContainsFunc(set, func(x uint64) bool { return x != 0 }) {
			continue
		}
		if c, err := b.ChooseRows(set); fine(err) {
			readBlock(t, c, fine)
		}
	}
}

func readBlock(t *testing.T, c *columns.Chosen, fine func(error) bool) {
	t.Helper()
	_, err := c.Starts()
	fine(err)
	_, err = c.Durations()
	fine(err)
	_, err = c.Parents()
	fine(err)
	for _, key := range keysOf() {
		col, err := c.Column(key)
		if fine(err) {
			for v := range col.Len() {
				col.Value(v)
				require.True(t, col.Rows == nil || int(col.Rows[v]) < c.Len())
			}
		}
	}
	rows := make([]int, c.Len())
	for r := range rows {
		rows[r] = r
	}
	_, err = c.Spans(rows, storage.SpanAll)
	fine(err)
}

// FuzzSegment reads parts with changes behind the checksums: no panic, and nothing but corruption is wrong.
func FuzzSegment(f *testing.F) {
	parts := seeds(f)
	for i := range parts {
		f.Add(uint8(i), []byte{})
	}
	f.Add(uint8(1), []byte{100, 0, 0, 255, 200, 1, 0, 128})
	f.Fuzz(func(t *testing.T, n uint8, edits []byte) {
		readAll(t, edited(parts[int(n)%len(parts)], edits))
	})
}

// TestEdits is FuzzSegment with many random changes.
func TestEdits(t *testing.T) {
	parts := seeds(t)
	r := rand.New(rand.NewPCG(1, 2))
	broken := 0
	for i := range 80 {
		edits := make([]byte, 4*(i%3))
		for k := range edits {
			edits[k] = byte(r.Uint32())
		}
		if !readAll(t, edited(parts[i%len(parts)], edits)) {
			broken++
			require.NotEmpty(t, edits)
		}
	}
	require.Greater(t, broken, 25)
}
