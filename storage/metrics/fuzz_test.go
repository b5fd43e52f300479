package metrics_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/metrics"
	"github.com/braidobs/braid/storage/part"
)

// blob is a block of a table of blobs.
type blob struct {
	table  string
	rows   int
	data   []byte
	lo, hi string
	pack   bool
}

// rowsOf is a block of a table with rows.
type rowsOf struct {
	columns []part.Column
	rows    int
	v       []part.Vector
}

// pieces is a part that was taken to pieces.
type pieces struct {
	blobs []blob
	rows  map[string][]rowsOf
}

// taken returns the pieces of a part with a little of everything.
func taken(t require.TestingT) *pieces {
	g := newGen(3, 40, 20_000*day)
	s := newStore(t)
	h := s.begin()
	for range 12 {
		s.write(h, g.batch("a"))
	}
	src := h.Snapshot().Tenant("a")
	b := metrics.NewBuilder(context.Background())
	b.AddDay(src, src.Days()[0])
	b.AddMetadata("up", telemetry.Metadata{Help: "h"})
	var file bytes.Buffer
	enc, err := part.NewEncoder()
	require.NoError(t, err)
	w := part.NewWriter(&file, enc, map[string]string{})
	require.NoError(t, b.Write(w))
	require.NoError(t, w.Close())
	p := opened(t, file.Bytes())
	out := &pieces{rows: make(map[string][]rowsOf)}
	for _, name := range []string{"names", "values", "index", "times", "pages"} {
		table := p.Table(name)
		for i := range table.Blocks() {
			data, err := table.Blob(i)
			require.NoError(t, err)
			lo, hi := table.Limits(i)
			out.blobs = append(out.blobs, blob{table: name, rows: table.BlockRows(i), data: data, lo: lo, hi: hi, pack: name != "times" && name != "pages"})
		}
	}
	ints := func(names ...string) (cs []part.Column) {
		for _, n := range names {
			cs = append(cs, part.Column{Name: n, Type: part.Int64})
		}
		return cs
	}
	for name, columns := range map[string][]part.Column{
		"histograms": append(ints("series", "time", "start"), part.Column{Name: "histogram", Type: part.Bytes}),
		"exemplars":  append(ints("series", "time"), part.Column{Name: "exemplar", Type: part.Bytes}),
		"evidence":   ints("series", "resource", "first", "last"),
		"resources":  {{Name: "value", Type: part.Bytes}},
		"metadata":   {{Name: "metric", Type: part.Bytes}, {Name: "metadata", Type: part.Bytes}},
	} {
		table := p.Table(name)
		require.NoError(t, table.Check(columns))
		require.Positive(t, table.Blocks(), name)
		for i := range table.Blocks() {
			r := rowsOf{columns: columns, rows: table.BlockRows(i)}
			for _, c := range columns {
				v, err := table.Read(c.Name, i)
				require.NoError(t, err)
				r.v = append(r.v, v)
			}
			out.rows[name] = append(out.rows[name], r)
		}
	}
	return out
}

func opened(t require.TestingT, file []byte) *part.Part {
	dec, err := part.NewDecoder()
	require.NoError(t, err)
	p, err := part.Open("test", bytes.NewReader(file), int64(len(file)), dec, nil)
	require.NoError(t, err)
	return p
}

// put makes a part of the pieces, with right checksums.
func (p *pieces) put(t require.TestingT) *part.Part {
	enc, err := part.NewEncoder()
	require.NoError(t, err)
	var file bytes.Buffer
	w := part.NewWriter(&file, enc, map[string]string{})
	last := ""
	for _, b := range p.blobs {
		if b.table != last {
			w.Begin(part.Schema{Name: b.table, Columns: []part.Column{{Name: "data", Type: part.Blob}}})
			last = b.table
		}
		require.NoError(t, w.Blob(b.rows, b.data, b.lo, b.hi, b.pack))
	}
	for name, blocks := range p.rows {
		w.Begin(part.Schema{Name: name, Columns: blocks[0].columns})
		for _, b := range blocks {
			require.NoError(t, w.Block(b.rows, b.v...))
		}
	}
	require.NoError(t, w.Close())
	return opened(t, file.Bytes())
}

// edited returns the pieces with changes that are read from in, four bytes and what follows them each: which block, what
// is changed, and where.
func (p *pieces) edited(in []byte) *pieces {
	out := &pieces{rows: p.rows}
	for _, b := range p.blobs {
		b.data = bytes.Clone(b.data)
		out.blobs = append(out.blobs, b)
	}
	for len(in) >= 5 {
		b := &out.blobs[int(in[0])%len(out.blobs)]
		at := int(binary.LittleEndian.Uint16(in[2:])) % (len(b.data) + 1)
		rest := in[4:]
		switch in[1] % 8 {
		case 0: // cut
			b.data = b.data[:at]
		case 1: // take out a byte
			if at < len(b.data) {
				b.data = append(b.data[:at], b.data[at+1:]...)
			}
		case 2: // put in bytes
			n := min(int(rest[0]%16), len(rest)-1)
			b.data = append(b.data[:at:at], append(bytes.Clone(rest[1:1+n]), b.data[at:]...)...)
			rest = rest[n:]
		case 3: // other rows
			b.rows = 1 + at%300
		case 4:
			b.lo = string(binary.AppendVarint(binary.AppendVarint(nil, int64(int8(rest[0]))), int64(at)*1_000_000))
		case 5:
			b.hi = string(binary.AppendVarint(binary.AppendVarint(nil, int64(int8(rest[0]))), math.MaxInt64))
		default:
			if at < len(b.data) {
				b.data[at] ^= rest[0]
			}
		}
		in = rest[1:]
	}
	return out
}

// readAll reads a part in every way there is: nothing but corruption may be wrong with it.
func readAll(t require.TestingT, p *part.Part) {
	ctx := context.Background()
	corrupt := func(err error) {
		if err != nil {
			require.ErrorIs(t, err, part.ErrCorrupt)
		}
	}
	mp := metrics.OpenPart(p, 1, math.MinInt64, math.MaxInt64)
	all := storage.SeriesQuery{Start: math.MinInt64, End: math.MaxInt64}
	some := all
	some.Start, some.End = 20_000*day-hour, 20_000*day+hour
	some.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", "up|requests.*"), labels.MustNewMatcher(labels.MatchNotEqual, "job", "x")}
	one := all
	one.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "up"), labels.MustNewMatcher(labels.MatchEqual, "A", common()+"7")}
	masks := []metrics.Mask{{Position: 5, Start: some.Start, End: some.End, Matchers: some.Matchers}}
	for _, q := range []*storage.SeriesQuery{&all, &some, &one} {
		for _, what := range []metrics.What{0, metrics.Samples | metrics.Exemplars | metrics.EvidenceOf} {
			sel, err := mp.Select(ctx, q, what, masks)
			corrupt(err)
			if err != nil {
				continue
			}
			var buf metrics.Buffer
			for i := range sel.Len() {
				d, err := sel.Read(i, &buf)
				corrupt(err)
				if err == nil {
					require.Len(t, d.V, len(d.T))
				}
			}
			for i := sel.Len() - 1; i >= 0; i-- { // against the order that is cheapest
				_, err := sel.Read(i, &buf)
				corrupt(err)
			}
		}
		corrupt(mp.LabelNames(ctx, q, func(string) {}))
		corrupt(mp.LabelValues(ctx, "__name__", q, func(string) {}))
		corrupt(mp.LabelValues(ctx, "A", q, func(string) {}))
	}
	corrupt(mp.Metadata("", func(string, telemetry.Metadata) {}))
	for _, masks := range [][]metrics.Mask{nil, masks} {
		b := metrics.NewBuilder(ctx)
		err := b.AddPart(mp, masks)
		if err == nil {
			err = b.AddPart(mp, nil)
		}
		if err == nil {
			enc, encErr := part.NewEncoder()
			require.NoError(t, encErr)
			err = b.Write(part.NewWriter(io.Discard, enc, map[string]string{}))
		}
		corrupt(err)
	}
}

// FuzzHostilePart changes the tables of a part below its checksums: it is read, or found corrupt, and nothing else.
func FuzzHostilePart(f *testing.F) {
	p := taken(f)
	readAll(f, p.put(f))
	f.Add([]byte{})
	for b := range p.blobs {
		for op := range byte(8) {
			f.Add([]byte{byte(b), op, 3, 0, 0x81, 0xff, 0xff})
			f.Add([]byte{byte(b), op, 0, 0, 0x7f})
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 200 {
			return
		}
		readAll(t, p.edited(in).put(t))
	})
}
