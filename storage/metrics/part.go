package metrics

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"sync"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/column"
	"github.com/braidobs/braid/storage/part"
)

// Part is a part of metrics, open for reading.
type Part struct {
	p      *part.Part
	to     storage.Position
	lo, hi int64

	once sync.Once // reads what follows
	err  error
	idx  index
}

var _ Source = (*Part)(nil)

// index is what a part says about its series as a whole.
type index struct {
	names   []labelName
	byName  map[string]int
	series  int
	windows []window
}

// labelName is a label of the part.
type labelName struct {
	name   string
	values int // how many there are
	block  int // the first block of them
}

// window is the pages of one window of time, in the order of their series.
type window struct {
	lo, hi int64 // of the samples
	pages  []pageRef
}

type pageRef struct {
	block       int
	first, last int64 // series
}

// OpenPart returns the series of p, whose samples all came before to and have times from lo to hi.
func OpenPart(p *part.Part, to storage.Position, lo, hi int64) *Part {
	return &Part{p: p, to: to, lo: lo, hi: hi}
}

// legacy says whether the part has the first layout.
func (p *Part) legacy() bool { return p.p.Table(tableSeries).Rows() > 0 }

// open reads the index once.
func (p *Part) open() (*index, error) {
	p.once.Do(func() { p.err = p.readIndex() })
	return &p.idx, p.err
}

// table returns a table of the part, once its columns are those expected.
func (p *Part) table(name string) (*part.Table, error) {
	t := p.p.Table(name)
	return t, t.Check(columnsOf(name))
}

func (p *Part) readIndex() error {
	ix := &p.idx
	ix.byName = make(map[string]int)
	if p.legacy() {
		ix.series = int(p.p.Table(tableSeries).Rows())
		return nil
	}
	names, err := p.table(tableNames)
	if err != nil {
		return err
	}
	values, err := p.table(tableValues)
	if err != nil {
		return err
	}
	series, err := p.table(tableIndex)
	if err != nil {
		return err
	}
	if series.Rows() > maxSeries {
		return series.Corrupt("data", 0, "%d series", series.Rows())
	}
	ix.series = int(series.Rows())
	if names.Blocks() > 0 {
		b, err := names.Blob(0)
		if err != nil {
			return err
		}
		d := telemetry.NewDecoderBytes(b)
		for range d.Count(3) {
			n := labelName{name: d.Str(), values: int(d.Uvarint()), block: int(d.Uvarint())}
			if d.Err() != nil {
				break
			}
			if n.values < 1 || n.block < 0 || n.block >= values.Blocks() || int64(n.values) > values.Rows()-values.FirstRow(n.block) {
				d.Fail("label %q has %d values from block %d", n.name, n.values, n.block)
				break
			}
			ix.byName[n.name] = len(ix.names)
			ix.names = append(ix.names, n)
		}
		if err := d.Err(); err != nil {
			return names.Corrupt("data", 0, "%v", err)
		}
	}
	return p.readPages()
}

// readPages reads from the footer where the pages lie.
func (p *Part) readPages() error {
	t, err := p.table(tablePages)
	if err != nil {
		return err
	}
	ix := &p.idx
	last := int64(math.MinInt64)
	for b := range t.Blocks() {
		l, h := t.Limits(b)
		first, lo, ok1 := readBound(l)
		end, hi, ok2 := readBound(h)
		w := windowOf(lo)
		if !ok1 || !ok2 || first < 0 || end < first || end >= int64(ix.series) || lo > hi || windowOf(hi) != w || w < last {
			return t.Corrupt("data", b, "a page of series %d to %d and times %d to %d", first, end, lo, hi)
		}
		if w > last {
			ix.windows = append(ix.windows, window{lo: lo, hi: hi})
		}
		last = w
		win := &ix.windows[len(ix.windows)-1]
		if n := len(win.pages); n > 0 && win.pages[n-1].last >= first {
			return t.Corrupt("data", b, "pages out of order")
		}
		win.lo, win.hi = min(win.lo, lo), max(win.hi, hi)
		win.pages = append(win.pages, pageRef{block: b, first: first, last: end})
	}
	return nil
}

func readBound(s string) (series, at int64, ok bool) {
	b := []byte(s)
	series, n := binary.Varint(b)
	if n <= 0 {
		return 0, 0, false
	}
	at, k := binary.Varint(b[n:])
	return series, at, k > 0
}

// pending returns the masks that a part has not been rewritten for and that reach into it.
func (p *Part) pending(masks []Mask) []Mask {
	var out []Mask
	for _, m := range masks {
		if p.to <= m.Position && m.Start <= p.hi && m.End >= p.lo {
			out = append(out, m)
		}
	}
	return out
}

// page is a page that is being read, column after column.
type openPage struct {
	ref    pageRef
	ids    []int64
	times  []int64 // numbers of columns of times
	sizes  []int64 // bytes of each column of values
	chain  []int64 // 0 where a column does not refer to the one before
	starts []int64 // bytes of each column of start times, nil for none
	data   []byte  // the columns of values
	ats    []int32 // where each begins
	from   []byte  // the columns of start times
	next   int     // the column that the decoder is ready for, in its chain
	dec    column.Decoder
	v      []float64 // the column decoded last
	buf    []float64
	start  []int64
}

// read reads the page of a block.
func (g *openPage) read(p *Part, ref pageRef) error {
	t := p.p.Table(tablePages)
	g.ref, g.next = ref, -1
	b, err := t.Blob(ref.block)
	if err != nil {
		return err
	}
	if err := g.parse(b, t.BlockRows(ref.block)); err != nil {
		return t.Corrupt("data", ref.block, "%v", err)
	}
	if g.ids[0] != ref.first || g.ids[len(g.ids)-1] != ref.last {
		return t.Corrupt("data", ref.block, "series %d to %d, want %d to %d", g.ids[0], g.ids[len(g.ids)-1], ref.first, ref.last)
	}
	return nil
}

var errPage = errors.New("malformed page")

func (g *openPage) parse(b []byte, rows int) error {
	n, b, err := column.Uvarint(b)
	if err != nil {
		return err
	}
	if n != uint64(rows) {
		return errPage
	}
	for _, c := range []*[]int64{&g.ids, &g.times, &g.sizes, &g.chain} {
		if cap(*c) < rows {
			*c = make([]int64, rows, pageSeries)
		}
		*c = (*c)[:rows]
		if b, err = column.Ints(b, *c, nil); err != nil {
			return err
		}
	}
	if len(b) == 0 {
		return errPage
	}
	has := b[0]
	b = b[1:]
	g.starts = g.starts[:0]
	if has != 0 {
		if cap(g.starts) < rows {
			g.starts = make([]int64, rows, pageSeries)
		}
		g.starts = g.starts[:rows]
		if b, err = column.Ints(b, g.starts, nil); err != nil {
			return err
		}
	}
	g.ats = g.ats[:0]
	at := int64(0)
	for i, s := range g.sizes {
		if s < 0 || s > int64(len(b))-at || i > 0 && g.ids[i] <= g.ids[i-1] || g.times[i] < 0 || i == 0 && g.chain[i] != 0 {
			return errPage
		}
		g.ats = append(g.ats, int32(at))
		at += s
	}
	g.data, g.from = b, b[at:]
	rest := int64(len(g.from))
	for _, s := range g.starts {
		if s < 0 || s > rest {
			return errPage
		}
		rest -= s
	}
	return nil
}

// values decodes column i, which has n values; they are valid until the next call.
func (g *openPage) values(i int, lengths func(i int) (int, error)) ([]float64, error) {
	if g.next != i || g.chain[i] == 0 {
		first := i
		for g.chain[first] != 0 {
			first--
		}
		if g.next < first || g.next > i || g.chain[i] == 0 {
			g.next = first
			g.dec.Reset()
			g.v = nil
		}
	}
	for ; g.next <= i; g.next++ {
		n, err := lengths(g.next)
		if err != nil {
			return nil, err
		}
		if g.chain[g.next] == 0 {
			g.dec.Reset()
			g.v = g.v[:0]
		}
		if cap(g.buf) < n {
			g.buf = make([]float64, n, n+n/4)
		}
		g.buf = g.buf[:n]
		if _, err := g.dec.Floats(g.data[g.ats[g.next]:], g.buf, g.v); err != nil {
			g.next = -1
			return nil, err
		}
		g.v, g.buf = g.buf, g.v
	}
	return g.v, nil
}

// startTimes decodes the start times of column i, nil when it has none; they are valid until the next call.
func (g *openPage) startTimes(i int, ts []int64) ([]int64, error) {
	if len(g.starts) == 0 || g.starts[i] == 0 {
		return nil, nil
	}
	at := int64(0)
	for _, s := range g.starts[:i] {
		at += s
	}
	if cap(g.start) < len(ts) {
		g.start = make([]int64, len(ts), len(ts)+len(ts)/4)
	}
	g.start = g.start[:len(ts)]
	if _, err := column.Ints(g.from[at:], g.start, nil); err != nil {
		return nil, err
	}
	for j, t := range ts {
		g.start[j] = telemetry.UnpackStart(t, uint64(g.start[j]))
	}
	return g.start, nil
}

// timesOf keeps columns of times that were read from a part.
type timesOf struct {
	p   *Part
	all map[uint32][]int64
}

// get returns a column of times, which must not be changed.
func (ts *timesOf) get(n uint32) ([]int64, error) {
	if c, ok := ts.all[n]; ok {
		return c, nil
	}
	t, err := ts.p.table(tableTimes)
	if err != nil {
		return nil, err
	}
	if int64(n) >= t.Rows() {
		return nil, t.Corrupt("data", 0, "column of times %d of %d", n, t.Rows())
	}
	b := t.BlockOf(int64(n))
	blob, err := t.Blob(b)
	if err != nil {
		return nil, err
	}
	for i := range t.BlockRows(b) {
		count, rest, err := column.Uvarint(blob)
		if err != nil {
			return nil, t.Corrupt("data", b, "column %d: %v", i, err)
		}
		if count == 0 || count > 129+128*uint64(len(rest)) { // a byte stands for 128 times at most
			return nil, t.Corrupt("data", b, "column %d has %d times", i, count)
		}
		c := make([]int64, count)
		if blob, err = column.Ints(rest, c, nil); err != nil {
			return nil, t.Corrupt("data", b, "column %d: %v", i, err)
		}
		if !ordered(c) {
			return nil, t.Corrupt("data", b, "column %d: times out of order", i)
		}
		ts.all[uint32(t.FirstRow(b))+uint32(i)] = c
	}
	return ts.all[n], nil
}

// Resources returns the resources that vouch for series of the part.
func (p *Part) Resources() ([]*telemetry.Resource, error) { return part.ReadResources(p.p) }

// Metadata implements Source.
func (p *Part) Metadata(metric string, f func(string, telemetry.Metadata)) error {
	t, err := p.table(tableMetadata)
	if err != nil {
		return err
	}
	for b := range t.Blocks() {
		names, err := t.Read("metric", b)
		if err != nil {
			return err
		}
		values, err := t.Read("metadata", b)
		if err != nil {
			return err
		}
		for i, n := range names.Strs {
			if metric != "" && metric != n {
				continue
			}
			in := telemetry.NewDecoder(values.Strs[i])
			m := in.Metadata()
			if in.Err() != nil {
				return t.Corrupt("metadata", b, "row %d: %v", i, in.Err())
			}
			f(n, *m)
		}
	}
	return nil
}

// Select implements Source.
func (p *Part) Select(ctx context.Context, q *storage.SeriesQuery, what What, masks []Mask) (Selection, error) {
	if p.legacy() {
		return p.selectLegacy(ctx, q, what, masks)
	}
	return p.selectSeries(ctx, q, what, p.pending(masks))
}
