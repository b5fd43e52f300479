package metrics

import (
	"container/heap"
	"context"
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"
	"unsafe"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/metrics/column"
	"github.com/braidobs/braid/storage/part"
)

// Builder makes one part, of one tenant and one day, out of inputs, which are added in the order of arrival. It streams:
// of parts that it merges it holds the labels in memory, and of their samples a page at a time.
type Builder struct {
	ctx    context.Context //nolint:containedctx // it lives as long as the write
	inputs []input
	meta   map[string]telemetry.Metadata

	rows   int64
	lo, hi int64
}

// NewBuilder returns a builder without inputs. The write ends when ctx does.
func NewBuilder(ctx context.Context) *Builder {
	return &Builder{ctx: ctx, meta: make(map[string]telemetry.Metadata), lo: math.MaxInt64, hi: math.MinInt64}
}

// Add adds series, in any order, each once. It takes ownership of data.
func (b *Builder) Add(data []Data) {
	if len(data) > 0 {
		b.inputs = append(b.inputs, newMemoryInput(data))
	}
}

// AddMetadata adds the metadata of a family; the last one stays.
func (b *Builder) AddMetadata(metric string, m telemetry.Metadata) { b.meta[metric] = m }

// AddPart adds everything of p that no mask covers.
func (b *Builder) AddPart(p *Part, masks []Mask) error {
	in, err := p.input(b.ctx, masks)
	if err != nil {
		return err
	}
	if in.len() > 0 {
		b.inputs = append(b.inputs, in)
	}
	return p.Metadata("", b.AddMetadata)
}

// Empty says whether there is nothing to write. Metadata alone is worth a part.
func (b *Builder) Empty() bool { return len(b.inputs) == 0 && len(b.meta) == 0 }

// Rows returns, once Write is done, the number of samples and exemplars, the bytes that the samples take when they are
// unpacked, and the smallest and largest time.
func (b *Builder) Rows() (rows, bytes, lo, hi int64) { return b.rows, 16 * b.rows, b.lo, b.hi }

func (b *Builder) saw(n int, lo, hi int64) {
	b.rows += int64(n)
	b.lo, b.hi = min(b.lo, lo), max(b.hi, hi)
}

// Write writes the tables of docs/format/part.md, section metrics. The builder is spent.
func (b *Builder) Write(w *part.Writer) error {
	series := b.merge()
	out := &partWriter{
		b: b, w: w, series: series, lo: make([]int64, len(series)), hi: make([]int64, len(series)),
		vectors: make(map[[2]uint64]uint32), seed: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
	for i := range series {
		out.lo[i], out.hi[i] = math.MaxInt64, math.MinInt64
	}
	for _, write := range []func() error{out.samples, out.histograms, out.exemplars, out.evidence, out.index, out.metadata} {
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

// ref is a series of an input.
type ref struct{ input, series int32 }

// merged is a series of the part: where it comes from, in the order of arrival.
type merged struct {
	first ref
	more  []ref
}

// each calls f for each place that the series comes from.
func (m *merged) each(f func(ref) error) error {
	if err := f(m.first); err != nil {
		return err
	}
	for _, r := range m.more {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

// merge puts the series of all inputs into storage order.
func (b *Builder) merge() []merged {
	var out []merged
	switch len(b.inputs) {
	case 0:
	case 1:
		out = make([]merged, b.inputs[0].len())
		for i := range out {
			out[i].first.series = int32(i)
		}
	default:
		h := &merging{b: b, at: make([]int32, len(b.inputs))}
		for i := range b.inputs {
			h.inputs = append(h.inputs, int32(i))
		}
		heap.Init(h)
		var last *key
		for len(h.inputs) > 0 {
			i := h.inputs[0]
			r := ref{i, h.at[i]}
			k := b.inputs[i].at(int(r.series))
			if last != nil && last.compare(k) == 0 {
				m := &out[len(out)-1]
				m.more = append(m.more, r)
			} else {
				out = append(out, merged{first: r})
			}
			last = k
			if h.at[i]++; int(h.at[i]) == b.inputs[i].len() {
				heap.Pop(h)
			} else {
				heap.Fix(h, 0)
			}
		}
	}
	return out
}

// merging is a heap of inputs by their next series, then by arrival.
type merging struct {
	b      *Builder
	inputs []int32
	at     []int32
}

func (h *merging) Len() int      { return len(h.inputs) }
func (h *merging) Swap(i, j int) { h.inputs[i], h.inputs[j] = h.inputs[j], h.inputs[i] }
func (h *merging) Less(i, j int) bool {
	x, y := h.inputs[i], h.inputs[j]
	c := h.b.inputs[x].at(int(h.at[x])).compare(h.b.inputs[y].at(int(h.at[y])))
	return c < 0 || c == 0 && x < y
}
func (h *merging) Push(any) {}
func (h *merging) Pop() any {
	h.inputs = h.inputs[:len(h.inputs)-1]
	return nil
}

// partWriter writes one part.
type partWriter struct {
	b      *Builder
	w      *part.Writer
	series []merged
	lo, hi []int64 // of the samples of each series

	enc     column.Encoder
	vectors map[[2]uint64]uint32 // columns of times of the window, by hash
	seed    [2]maphash.Seed

	timesTable, pagesTable int
	timesBuf               []byte
	timesIn                int // columns in timesBuf
	timesAll               uint32

	page page
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

func (o *partWriter) window(lo, hi int64) error {
	clear(o.vectors)
	var last *key
	for i := range o.series {
		if i%1024 == 0 {
			if err := o.b.ctx.Err(); err != nil {
				return err
			}
		}
		c, err := o.floats(&o.series[i], lo, hi)
		if err != nil {
			return err
		}
		if len(c.T) == 0 {
			continue
		}
		f := o.series[i].first
		k := o.b.inputs[f.input].at(int(f.series))
		if err := o.column(i, &c, last != nil && k.bucketsTogether(last)); err != nil {
			return err
		}
		last = k
	}
	if err := o.flushPage(); err != nil {
		return err
	}
	return o.flushTimes()
}

// floats returns the samples of a series in a window.
func (o *partWriter) floats(m *merged, lo, hi int64) (Columns, error) {
	c, err := o.b.inputs[m.first.input].floats(int(m.first.series), lo, hi)
	if err != nil || len(m.more) == 0 {
		return c, err
	}
	// A histogram of a later input may replace a float of an earlier one: the histograms are looked at, too, where
	// there are any.
	var all Data
	some := 0
	for _, r := range append([]ref{m.first}, m.more...) {
		in := o.b.inputs[r.input]
		d := Data{}
		if d.Columns, err = in.floats(int(r.series), lo, hi); err != nil {
			return c, err
		}
		if d.Histograms, err = histogramsOf(in, int(r.series), lo, hi); err != nil {
			return c, err
		}
		if d.samples() == 0 {
			continue
		}
		if some++; some == 1 {
			all = Data{Columns: Columns{T: slices.Clone(d.T), V: slices.Clone(d.V), ST: slices.Clone(d.ST)}, Histograms: slices.Clone(d.Histograms)}
			continue
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
