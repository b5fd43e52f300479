package metrics

import (
	"context"
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"
	"unsafe"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/column"
	"github.com/braidobs/braid/storage/part"
)

// Builder makes one part, of one tenant and one day, out of inputs, which are added in the order of arrival. It streams:
// in memory are the numbers of the labels of each series, the values of the labels, and a page of samples.
type Builder struct {
	ctx    context.Context //nolint:containedctx // it lives as long as the write
	inputs []input
	meta   map[string]telemetry.Metadata

	rows   int64
	lo, hi int64
	index  int64 // bytes
}

// NewBuilder returns a builder without inputs. The write ends when ctx does.
func NewBuilder(ctx context.Context) *Builder {
	return &Builder{ctx: ctx, meta: make(map[string]telemetry.Metadata), lo: math.MaxInt64, hi: math.MinInt64}
}

// AddDay adds what a head holds of a tenant and day. The head must not change any more.
func (b *Builder) AddDay(t *Tenant, day int64) { b.inputs = append(b.inputs, t.input(day)) }

// AddMetadata adds the metadata of a family; the last one stays.
func (b *Builder) AddMetadata(metric string, m telemetry.Metadata) { b.meta[metric] = m }

// AddPart adds everything of p that no mask covers.
func (b *Builder) AddPart(p *Part, masks []Mask) error {
	in, err := p.input(b.ctx, masks)
	if err != nil {
		return err
	}
	b.inputs = append(b.inputs, in)
	return p.Metadata("", b.AddMetadata)
}

// Empty says, once Write is done, whether nothing was written. Metadata alone is worth a part.
func (b *Builder) Empty() bool { return b.rows == 0 && len(b.meta) == 0 }

// Rows returns, once Write is done, the number of samples and exemplars, the bytes that the samples take when they are
// unpacked, and the smallest and largest time.
func (b *Builder) Rows() (rows, bytes, lo, hi int64) { return b.rows, 16 * b.rows, b.lo, b.hi }

// IndexBytes returns, once Write is done, how many bytes of the part tell the labels of the series.
func (b *Builder) IndexBytes() int64 { return b.index }

func (b *Builder) saw(n int, lo, hi int64) {
	b.rows += int64(n)
	b.lo, b.hi = min(b.lo, lo), max(b.hi, hi)
}

// Write writes the tables of docs/format/part.md, section metrics. The builder is spent.
func (b *Builder) Write(w *part.Writer) error {
	out := &partWriter{
		b: b, w: w, vectors: make(map[[2]uint64]uint32), seed: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		dicts: dicts{byName: make(map[string]int)},
	}
	if err := out.merge(); err != nil {
		return err
	}
	for _, write := range []func() error{out.samples, out.histograms, out.exemplars, out.evidence} {
		if err := write(); err != nil {
			return err
		}
	}
	before := w.Size()
	if err := out.index(); err != nil {
		return err
	}
	b.index = w.Size() - before
	return out.metadata()
}

// ref is a series of an input.
type ref struct{ input, series int32 }

// merge walks over the series of all inputs in storage order, and numbers them and their labels.
func (o *partWriter) merge() error {
	m := merging{ds: &o.dicts}
	for i, in := range o.b.inputs {
		m.heads = append(m.heads, mergeHead{input: int32(i), in: in, series: -1})
		if err := m.advance(len(m.heads) - 1); err != nil {
			return err
		}
	}
	m.drop()
	le := o.dicts.label(bucketLabel)
	var last []pair
	for n := 0; len(m.heads) > 0; n++ {
		if n%4096 == 0 {
			if err := o.b.ctx.Err(); err != nil {
				return err
			}
		}
		if err := m.least(); err != nil {
			return err
		}
		labels := m.heads[m.first[0]].labels
		o.linked = append(o.linked, n > 0 && linked(last, labels, le))
		at := len(o.pairs)
		o.pairs = append(o.pairs, labels...)
		last = o.pairs[at:]
		o.labelEnds = append(o.labelEnds, uint32(len(o.pairs)))
		for _, i := range m.first {
			o.refs = append(o.refs, ref{m.heads[i].input, m.heads[i].series})
			if err := m.advance(i); err != nil {
				return err
			}
		}
		o.ends = append(o.ends, uint32(len(o.refs)))
		m.drop()
	}
	o.lo, o.hi = make([]int64, len(o.ends)), make([]int64, len(o.ends))
	for i := range o.lo {
		o.lo[i], o.hi[i] = math.MaxInt64, math.MinInt64
	}
	return nil
}

// linked says whether two neighbours differ in le alone, which both have.
func linked(a, b []pair, le uint32) bool {
	if len(a) != len(b) {
		return false
	}
	both := false
	for i := range a {
		switch {
		case a[i].label == le && b[i].label == le:
			both = true
		case a[i] != b[i]:
			return false
		}
	}
	return both
}

// merging walks over inputs side by side.
type merging struct {
	ds    *dicts
	heads []mergeHead
	first []int // heads that stand on the first series of all, in the order of arrival
}

type mergeHead struct {
	in     input
	input  int32
	series int32
	labels []pair
	done   bool
}

func (m *merging) advance(i int) error {
	h := &m.heads[i]
	labels, ok, err := h.in.next(m.ds, h.labels[:0])
	h.labels, h.done = labels, !ok
	h.series++
	return err
}

// drop removes the heads that are done.
func (m *merging) drop() {
	m.heads = slices.DeleteFunc(m.heads, func(h mergeHead) bool { return h.done })
}

// least finds the heads with the first series. Parts of one time mostly hold the same series: equal numbers say so
// without a look at the labels.
func (m *merging) least() error {
	m.first = append(m.first[:0], 0)
	for i := 1; i < len(m.heads); i++ {
		best, h := &m.heads[m.first[0]], &m.heads[i]
		if slices.Equal(best.labels, h.labels) {
			m.first = append(m.first, i)
			continue
		}
		x, err := h.in.key()
		if err != nil {
			return err
		}
		y, err := best.in.key()
		if err != nil {
			return err
		}
		if x.compare(y) < 0 {
			m.first = append(m.first[:0], i)
		}
	}
	return nil
}

// partWriter writes one part.
type partWriter struct {
	b *Builder
	w *part.Writer

	refs      []ref    // where the series come from, in the order of arrival
	ends      []uint32 // of each series in refs
	linked    []bool   // the series is a bucket of the same histogram as the one before
	pairs     []pair
	labelEnds []uint32 // of each series in pairs
	dicts     dicts
	lo, hi    []int64 // of the samples of each series

	enc     column.Encoder
	vectors map[[2]uint64]uint32 // columns of times of the window, by hash
	seed    [2]maphash.Seed

	timesTable, pagesTable int
	timesBuf               []byte
	timesIn                int // columns in timesBuf
	timesAll               uint32

	page   page
	joined Columns
}

// page is a page that is being filled.
type page struct {
	ids, times, sizes, starts, chain []int64
	values, startBytes               []byte
	lo, hi                           int64
	hasStarts                        bool
	prev                             []float64
}

// samples writes the float samples, window by window.
func (o *partWriter) samples() error {
	o.timesTable = o.w.Begin(part.Schema{Name: tableTimes, Columns: columnsOf(tableTimes)})
	o.pagesTable = o.w.Begin(part.Schema{Name: tablePages, Columns: columnsOf(tablePages)})
	lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
	for _, in := range o.b.inputs {
		l, h := in.bounds()
		lo, hi = min(lo, l), max(hi, h)
	}
	if lo > hi {
		return nil
	}
	for w := windowOf(lo); w <= windowOf(hi); w++ {
		if err := o.window(max(lo, w*windowMillis), min(hi, (w+1)*windowMillis-1)); err != nil {
			return err
		}
	}
	return nil
}

// from returns where a series comes from.
func (o *partWriter) from(i int) []ref {
	start := uint32(0)
	if i > 0 {
		start = o.ends[i-1]
	}
	return o.refs[start:o.ends[i]]
}

func (o *partWriter) window(lo, hi int64) error {
	clear(o.vectors)
	linked := false // to the last series that has samples
	for i := range o.ends {
		if i%1024 == 0 {
			if err := o.b.ctx.Err(); err != nil {
				return err
			}
		}
		linked = linked && o.linked[i]
		c, err := o.floats(o.from(i), lo, hi)
		if err != nil {
			return err
		}
		if len(c.T) == 0 {
			continue
		}
		if err := o.column(i, &c, linked); err != nil {
			return err
		}
		linked = true
	}
	if err := o.flushPage(); err != nil {
		return err
	}
	return o.flushTimes()
}

// floats returns the samples of a series in a window.
func (o *partWriter) floats(from []ref, lo, hi int64) (Columns, error) {
	if len(from) == 1 {
		return o.b.inputs[from[0].input].floats(int(from[0].series), lo, hi)
	}
	o.joined = Columns{T: o.joined.T[:0], V: o.joined.V[:0], ST: o.joined.ST[:0]}
	hasStarts, plain := false, true
	for _, r := range from {
		in := o.b.inputs[r.input]
		if plain = plain && !in.has(histogramsToo); !plain {
			break
		}
		c, err := in.floats(int(r.series), lo, hi)
		if err != nil {
			return c, err
		}
		if len(c.T) == 0 {
			continue
		}
		n := len(o.joined.T)
		if plain = n == 0 || c.T[0] > o.joined.T[n-1]; !plain {
			break
		}
		hasStarts = hasStarts || c.ST != nil
		o.joined.T, o.joined.V = append(o.joined.T, c.T...), append(o.joined.V, c.V...)
		for len(o.joined.ST) < n {
			o.joined.ST = append(o.joined.ST, 0)
		}
		o.joined.ST = append(o.joined.ST, c.ST...)
	}
	if !plain {
		return o.mixed(from, lo, hi)
	}
	c := o.joined
	for len(c.ST) < len(c.T) {
		c.ST = append(c.ST, 0)
	}
	if o.joined.ST = c.ST; !hasStarts {
		c.ST = nil
	}
	return c, nil
}

// mixed joins samples that overlap, or where a histogram of a later input may replace a float of an earlier one.
func (o *partWriter) mixed(from []ref, lo, hi int64) (Columns, error) {
	var all Data
	for _, r := range from {
		in := o.b.inputs[r.input]
		c, err := in.floats(int(r.series), lo, hi)
		if err != nil {
			return c, err
		}
		d := Data{Columns: Columns{T: slices.Clone(c.T), V: slices.Clone(c.V), ST: slices.Clone(c.ST)}}
		if in.has(histogramsToo) {
			hs, err := in.histograms(int(r.series))
			if err != nil {
				return c, err
			}
			d.Histograms = slices.DeleteFunc(slices.Clone(hs), func(p Point) bool { return p.T < lo || p.T > hi })
		}
		all.join(&d)
	}
	return all.Columns, nil
}

// column adds a column of values to the page.
func (o *partWriter) column(id int, c *Columns, chained bool) error {
	p := &o.page
	if len(p.ids) >= pageSeries || len(p.values) >= pageBytes {
		if err := o.flushPage(); err != nil {
			return err
		}
	}
	n := len(c.T)
	times, err := o.times(c.T)
	if err != nil {
		return err
	}
	chained = chained && len(p.ids) > 0
	if !chained {
		o.enc.Reset()
		p.prev = nil
	}
	at := len(p.values)
	p.values = o.enc.Floats(p.values, c.V, p.prev)
	p.prev = append(p.prev[:0], c.V...)
	p.ids = append(p.ids, int64(id))
	p.times = append(p.times, int64(times))
	p.sizes = append(p.sizes, int64(len(p.values)-at))
	p.chain = append(p.chain, 0)
	if chained {
		p.chain[len(p.chain)-1] = 1
	}
	at = len(p.startBytes)
	if slices.ContainsFunc(c.ST, func(st int64) bool { return st != 0 }) {
		packed := make([]int64, n)
		for i, st := range c.ST {
			packed[i] = int64(telemetry.PackStart(c.T[i], st))
		}
		p.startBytes = o.enc.Ints(p.startBytes, packed, nil)
		p.hasStarts = true
	}
	p.starts = append(p.starts, int64(len(p.startBytes)-at))
	if len(p.ids) == 1 {
		p.lo, p.hi = c.T[0], c.T[n-1]
	}
	p.lo, p.hi = min(p.lo, c.T[0]), max(p.hi, c.T[n-1])
	o.lo[id], o.hi[id] = min(o.lo[id], c.T[0]), max(o.hi[id], c.T[n-1])
	o.b.saw(n, c.T[0], c.T[n-1])
	return nil
}

// padding follows the columns of a page, so that decoders may read whole words.
const padding = 8

func (o *partWriter) flushPage() error {
	p := &o.page
	n := len(p.ids)
	if n == 0 {
		return nil
	}
	b := binary.AppendUvarint(nil, uint64(n))
	for _, c := range [][]int64{p.ids, p.times, p.sizes, p.chain} {
		b = o.enc.Ints(b, c, nil)
	}
	if p.hasStarts {
		b = o.enc.Ints(append(b, 1), p.starts, nil)
	} else {
		b = append(b, 0)
	}
	b = append(b, p.values...)
	b = append(b, p.startBytes...)
	b = append(b, make([]byte, padding)...)
	o.w.Turn(o.pagesTable)
	err := o.w.Blob(n, b, bound(p.ids[0], p.lo), bound(p.ids[n-1], p.hi), false)
	o.page = page{
		ids: p.ids[:0], times: p.times[:0], sizes: p.sizes[:0], starts: p.starts[:0], chain: p.chain[:0],
		values: p.values[:0], startBytes: p.startBytes[:0], prev: p.prev[:0],
	}
	return err
}

// bound is what the footer says of one end of a page: a series and a time.
func bound(series, at int64) string {
	return string(binary.AppendVarint(binary.AppendVarint(nil, series), at))
}

// times returns the number of a column of times, which is written once a window.
func (o *partWriter) times(ts []int64) (uint32, error) {
	raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(ts))), 8*len(ts))
	h := [2]uint64{maphash.Bytes(o.seed[0], raw), maphash.Bytes(o.seed[1], raw)}
	if n, ok := o.vectors[h]; ok {
		return n, nil
	}
	n := o.timesAll
	o.timesAll++
	o.vectors[h] = n
	o.timesBuf = binary.AppendUvarint(o.timesBuf, uint64(len(ts)))
	o.timesBuf = o.enc.Ints(o.timesBuf, ts, nil)
	if o.timesIn++; o.timesIn >= timesColumns || len(o.timesBuf) >= timesBytes {
		return n, o.flushTimes()
	}
	return n, nil
}

func (o *partWriter) flushTimes() error {
	if o.timesIn == 0 {
		return nil
	}
	o.w.Turn(o.timesTable)
	err := o.w.Blob(o.timesIn, append(o.timesBuf, make([]byte, padding)...), "", "", false)
	o.timesBuf, o.timesIn = o.timesBuf[:0], 0
	return err
}

// rows is a block of a table with rows that is being filled.
type rows struct {
	w    *part.Writer
	v    []part.Vector
	n    int
	size int
	err  error
}

func newRows(w *part.Writer, table string) *rows {
	cols := columnsOf(table)
	w.Begin(part.Schema{Name: table, Columns: cols})
	return &rows{w: w, v: make([]part.Vector, len(cols))}
}

// end ends a row of about size bytes.
func (r *rows) end(size int) {
	r.n++
	if r.size += size; r.n >= part.BlockRows || r.size >= 512<<10 {
		r.flush()
	}
}

func (r *rows) flush() {
	if err := r.w.Block(r.n, r.v...); err != nil && r.err == nil {
		r.err = err
	}
	for i := range r.v {
		r.v[i] = part.Vector{Ints: r.v[i].Ints[:0], Floats: r.v[i].Floats[:0], Strs: r.v[i].Strs[:0]}
	}
	r.n, r.size = 0, 0
}

func (r *rows) close() error {
	r.flush()
	return r.err
}

func (r *rows) ints(c int, n int64) { r.v[c].Ints = append(r.v[c].Ints, n) }
