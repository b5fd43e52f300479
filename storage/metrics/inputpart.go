package metrics

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage/part"
)

// partInput is a part that is merged into another one. It streams: in memory are the labels of a block of the index,
// a page, and a block of each table with rows.
type partInput struct {
	p     *Part
	ix    *index
	l     *lookup
	masks []Mask // that cover some of it

	block     int       // of the index, the next to read
	row       int       // in the open one, the next
	ranks     [][]int64 // its columns
	numbers   [][]pair  // the labels as the part that is written numbers them, by place and rank
	namePlace int       // of the metric's name, -1 when there is none
	name      int64     // the rank of the last name
	k         key
	had       bool // k is that of the last series

	ids    []int32  // of the series, as next gave them
	covers [][]Mask // of each, nil without masks

	read  *selected // of the samples of a window
	buf   Buffer
	hists rowCursor
	exs   rowCursor
	evs   rowCursor
	res   []*telemetry.Resource
}

// input opens a part for a merge without what masks cover.
func (p *Part) input(ctx context.Context, masks []Mask) (input, error) {
	if p.legacy() {
		sel, err := p.selectLegacy(ctx, everything(), Samples|Exemplars|EvidenceOf, masks)
		if err != nil {
			return nil, err
		}
		return newMemoryInput(sel.data), nil
	}
	ix, err := p.open()
	if err != nil {
		return nil, err
	}
	in := &partInput{p: p, ix: ix, l: newLookup(p, ix), masks: p.pending(masks), read: p.reader()}
	if len(in.masks) > 0 {
		in.covers = make([][]Mask, 0)
	}
	in.namePlace = -1
	if n, ok := ix.byName[metricName]; ok {
		in.namePlace = n
	}
	for _, c := range []struct {
		cursor  *rowCursor
		table   string
		columns []string
	}{
		{&in.hists, tableHistograms, []string{"time", "start", "histogram"}},
		{&in.exs, tableExemplars, []string{"exemplar"}},
		{&in.evs, tableEvidence, []string{"resource", "first", "last"}},
	} {
		t, err := p.table(c.table)
		if err != nil {
			return nil, err
		}
		*c.cursor = rowCursor{t: t, series: ix.series, columns: c.columns, block: -1}
	}
	if in.evs.t.Rows() > 0 {
		if in.res, err = part.ReadResources(p.p); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// reader returns a selection without series, whose floats are read by number.
func (p *Part) reader() *selected {
	return &selected{p: p, times: timesOf{p: p, all: make(map[uint32][]int64)}, joined: make(map[string][]int64), start: 1, end: 0}
}

func (in *partInput) next(ds *dicts, dst []pair) ([]pair, bool, error) {
	t := in.p.p.Table(tableIndex)
	for {
		for in.block == 0 || in.row >= in.l.group.n {
			if in.block >= t.Blocks() {
				return dst, false, nil
			}
			if err := in.open(); err != nil {
				return dst, false, err
			}
		}
		row := in.row
		id := t.FirstRow(in.block-1) + int64(row)
		in.row++
		in.had = false
		if in.covers != nil {
			ls, err := in.l.labels(row)
			if err != nil {
				return dst, false, err
			}
			cover := covering(in.masks, ls)
			if len(cover) > 0 {
				left, err := in.left(id, cover)
				if err != nil {
					return dst, false, err
				}
				if !left {
					continue
				}
			}
			in.covers = append(in.covers, cover)
		}
		out := dst
		for i, place := range in.l.group.places {
			rank := in.ranks[i][row]
			if rank == 0 {
				continue
			}
			p, err := in.pair(ds, place, rank)
			if err != nil {
				return dst, false, err
			}
			out = append(out, p)
			if place == in.namePlace {
				if rank < in.name {
					return dst, false, t.Corrupt("data", in.block-1, "series %d is out of order", id)
				}
				in.name = rank
			}
		}
		in.ids = append(in.ids, int32(id))
		return out, true, nil
	}
}

// open reads the next block of the index.
func (in *partInput) open() error {
	if err := in.l.open(in.block); err != nil {
		return err
	}
	in.ranks = in.ranks[:0]
	for i := range in.l.group.places {
		col, err := in.l.columnAt(i)
		if err != nil {
			return err
		}
		in.ranks = append(in.ranks, col)
	}
	in.block, in.row = in.block+1, 0
	return nil
}

// pair returns a label as ds numbers it. Each is looked up once.
func (in *partInput) pair(ds *dicts, place int, rank int64) (pair, error) {
	if in.numbers == nil {
		in.numbers = make([][]pair, len(in.ix.names))
	}
	known := in.numbers[place]
	if known == nil {
		known = make([]pair, in.ix.names[place].values+1)
		in.numbers[place] = known
	}
	if rank < 0 || rank >= int64(len(known)) {
		return pair{}, in.p.p.Table(tableIndex).Corrupt("data", in.block-1, "value %d of label %s", rank, in.ix.names[place].name)
	}
	if p := known[rank]; p.value != 0 {
		return p, nil
	}
	v, err := in.l.value(place, rank)
	if err != nil {
		return pair{}, err
	}
	known[rank] = ds.add(in.ix.names[place].name, v)
	return known[rank], nil
}

func (in *partInput) key() (*key, error) {
	if !in.had {
		ls, err := in.l.labels(in.row - 1)
		if err != nil {
			return nil, err
		}
		in.k, in.had = keyOf(ls), true
	}
	return &in.k, nil
}

// left says whether the masks leave anything of a series.
func (in *partInput) left(id int64, masks []Mask) (bool, error) {
	var d Data
	var err error
	if d.Histograms, err = in.histogramsOf(id); err != nil {
		return false, err
	}
	if d.Exemplars, err = in.exemplarsOf(id); err != nil {
		return false, err
	}
	if d.hide(masks); !d.empty() {
		return true, nil
	}
	in.span(minTime, maxTime)
	if err := in.read.floats(id, &in.buf, &d); err != nil {
		return false, err
	}
	return slices.ContainsFunc(d.T, func(t int64) bool { return !hidden(masks, t) }), nil
}

func (in *partInput) bounds() (lo, hi int64) {
	lo, hi = maxTime, minTime
	for _, w := range in.ix.windows {
		lo, hi = min(lo, w.lo), max(hi, w.hi)
	}
	return lo, hi
}

// span sets the time range that samples are read in.
func (in *partInput) span(lo, hi int64) {
	if r := in.read; lo != r.start || hi != r.end {
		r.start, r.end = lo, hi
		r.windows = in.p.windowsIn(in.ix, lo, hi)
		clear(r.times.all)
		clear(r.joined)
	}
}

func (in *partInput) floats(i int, lo, hi int64) (Columns, error) {
	in.span(lo, hi)
	var d Data
	if err := in.read.floats(int64(in.ids[i]), &in.buf, &d); err != nil {
		return d.Columns, err
	}
	if cover := in.cover(i); len(cover) > 0 {
		d.T = slices.Clone(d.T)
		d.hide(cover)
	}
	return d.Columns, nil
}

func (in *partInput) cover(i int) []Mask {
	if in.covers == nil {
		return nil
	}
	return in.covers[i]
}

func (in *partInput) has(w What) bool {
	return w&histogramsToo != 0 && in.hists.t.Rows() > 0 || w&Exemplars != 0 && in.exs.t.Rows() > 0 || w&EvidenceOf != 0 && in.evs.t.Rows() > 0
}

func (in *partInput) histograms(i int) ([]Point, error) {
	hs, err := in.histogramsOf(int64(in.ids[i]))
	d := Data{Histograms: hs}
	d.hide(in.cover(i))
	return d.Histograms, err
}

func (in *partInput) histogramsOf(id int64) ([]Point, error) {
	var out []Point
	err := in.hists.each(id, func(row int) error {
		c := in.hists.v
		p, err := readHistogram(in.hists.t, in.hists.block, row, c[0].Ints[row], c[1].Ints[row], c[2].Strs[row])
		if err == nil && len(out) > 0 && out[len(out)-1].T >= p.T {
			err = in.hists.t.Corrupt("time", in.hists.block, "row %d: times out of order", row)
		}
		out = append(out, p)
		return err
	})
	return out, err
}

func (in *partInput) exemplars(i int) ([]exemplar.Exemplar, error) {
	es, err := in.exemplarsOf(int64(in.ids[i]))
	d := Data{Exemplars: es}
	d.hide(in.cover(i))
	return d.Exemplars, err
}

func (in *partInput) exemplarsOf(id int64) ([]exemplar.Exemplar, error) {
	var out []exemplar.Exemplar
	err := in.exs.each(id, func(row int) error {
		d := telemetry.NewDecoder(in.exs.v[0].Strs[row])
		e := d.Exemplar()
		if d.Err() != nil {
			return in.exs.t.Corrupt("exemplar", in.exs.block, "row %d: %v", row, d.Err())
		}
		out = append(out, e)
		return nil
	})
	return out, err
}

func (in *partInput) evidence(i int) ([]Evidence, error) {
	var out []Evidence
	err := in.evs.each(int64(in.ids[i]), func(row int) error {
		c := in.evs.v
		n := c[0].Ints[row]
		if n < 0 || n >= int64(len(in.res)) {
			return in.evs.t.Corrupt("resource", in.evs.block, "row %d: resource %d of %d", row, n, len(in.res))
		}
		if r := in.res[n]; r != nil {
			out = append(out, Evidence{Resource: r, First: c[1].Ints[row], Last: c[2].Ints[row]})
		}
		return nil
	})
	return out, err
}

// rowCursor reads a table with rows series by series.
type rowCursor struct {
	t       *part.Table
	series  int
	columns []string
	block   int // that is open, -1 for none
	of      []int64
	row     int
	last    int64
	v       []part.Vector
}

// each calls f for the rows of a series, in the block that is open then. Asking in rising order is cheapest.
func (c *rowCursor) each(id int64, f func(row int) error) error {
	if c.t.Rows() == 0 {
		return nil
	}
	if id <= c.last || c.block < 0 {
		c.block, c.row, c.of = -1, 0, nil
	}
	c.last = id
	for {
		for c.row < len(c.of) && c.of[c.row] < id {
			c.row++
		}
		for c.row < len(c.of) && c.of[c.row] == id {
			if err := f(c.row); err != nil {
				return err
			}
			c.row++
		}
		if c.row < len(c.of) || c.block+1 >= c.t.Blocks() {
			return nil
		}
		if lo, hi, ok := c.t.Ints("series", c.block+1); ok && lo > id {
			return nil
		} else if ok && hi < id {
			c.block, c.of, c.row = c.block+1, nil, 0
			continue
		}
		if err := c.open(c.block + 1); err != nil {
			return err
		}
	}
}

func (c *rowCursor) open(b int) error {
	of, err := c.t.Indexes("series", b, c.series)
	if err != nil {
		return err
	}
	c.block, c.of, c.row, c.v = b, of, 0, c.v[:0]
	for _, name := range c.columns {
		v, err := c.t.Read(name, b)
		if err != nil {
			return err
		}
		c.v = append(c.v, v)
	}
	return nil
}
