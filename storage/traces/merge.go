package traces

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces/columns"
	"github.com/braidobs/braid/storage/traces/places"
)

// maxGathered is how many segments become one at most: of each a block is open.
const maxGathered = 32

// merge copies full segments that no mask covers and gathers the others. Only neighbours are gathered: so segments stay in
// the order of arrival.
func (b *Builder) merge(w *columns.Writer) error {
	var pool []*Unit
	pooled := 0
	spill := func() error {
		err := b.gather(w, pool)
		pool, pooled = nil, 0
		return err
	}
	for _, in := range b.inputs {
		us, err := in.p.Units(in.masks)
		if err != nil {
			return err
		}
		for _, u := range us {
			if err := b.ctx.Err(); err != nil {
				return err
			}
			if err := u.relevant(); err != nil {
				return err
			}
			whole := b.keep == nil && !u.isLegacy() && len(u.Masks) == 0 && int64(u.Info.Rows) >= b.layout.FullRows
			if whole || len(pool) >= maxGathered || len(pool) > 0 && pooled+u.Info.Rows > b.layout.SegmentRows {
				if err := spill(); err != nil {
					return err
				}
			}
			if !whole {
				pool = append(pool, u)
				pooled += u.Info.Rows
				continue
			}
			if err := b.copy(w, u); err != nil {
				return err
			}
		}
	}
	return spill()
}

// copy writes a segment as it is.
func (b *Builder) copy(w *columns.Writer, u *Unit) error {
	g, err := u.Segment()
	if err != nil {
		return err
	}
	if err := w.Copy(g); err != nil {
		return err
	}
	b.count(u.Info.Rows, u.Info.Start, u.Info.LastStart)
	return nil
}

// gathering makes one segment of several units: trace after trace, in the order of their first starts.
type gathering struct {
	b       *Builder
	w       *columns.Writer
	units   []*Unit
	special map[telemetry.TraceID]bool // traces that lie in several units, of which something may have been deleted, or that are sampled
	cursors []cursor
	recent  []cursor // blocks that were open before, a few a unit: fragments lie near to each other
	settler storage.Settler
	rows    []storage.SpanRow
}

// special is a trace that cannot be taken over as it is.
type special struct {
	id    telemetry.TraceID
	at    []places.Place
	start int64 // the smallest of what is left
}

// cursor is at a trace of a unit.
type cursor struct {
	u      *Unit
	block  int
	b      storage.TraceBlock // nil at the end
	ids    []telemetry.TraceID
	first  []int32
	starts []int64
	trace  int
}

// start returns the smallest start of the trace, by which it is ordered.
func (c *cursor) start() int64 { return slices.Min(c.starts[c.first[c.trace]:c.first[c.trace+1]]) }

// gather writes units as one segment, or as several when they are large.
func (b *Builder) gather(w *columns.Writer, units []*Unit) error {
	if len(units) == 0 {
		return nil
	}
	if len(units) == 1 && b.keep == nil && !units[0].isLegacy() && len(units[0].Masks) == 0 {
		return b.copy(w, units[0])
	}
	g := &gathering{b: b, w: w, units: units}
	specials, err := g.specials()
	if err != nil {
		return err
	}
	g.cursors = make([]cursor, len(units))
	type position struct {
		start int64
		id    telemetry.TraceID
		ok    bool
	}
	at := make([]position, len(units)+1) // of the cursors, and of specials
	next := func(i int) error {
		if i == len(units) {
			at[i] = position{}
			if len(specials) > 0 {
				at[i] = position{specials[0].start, specials[0].id, true}
			}
			return nil
		}
		c := &g.cursors[i]
		if err := g.settle(c); err != nil {
			return err
		}
		at[i] = position{}
		if c.b != nil {
			at[i] = position{c.start(), c.ids[c.trace], true}
		}
		return nil
	}
	for i := range at {
		if i < len(units) {
			g.cursors[i] = cursor{u: units[i], block: -1}
		}
		if err := next(i); err != nil {
			return err
		}
	}
	for n := 0; ; n++ {
		if n%256 == 0 && b.ctx.Err() != nil {
			return b.ctx.Err()
		}
		best := -1
		for i := range at {
			if at[i].ok && (best < 0 || cmp.Or(cmp.Compare(at[i].start, at[best].start), bytes.Compare(at[i].id[:], at[best].id[:])) < 0) {
				best = i
			}
		}
		if best < 0 {
			return w.End()
		}
		if best == len(units) {
			err = g.join(&specials[0])
			specials = specials[1:]
		} else {
			err = g.add(&g.cursors[best])
			g.cursors[best].trace++
		}
		if err != nil {
			return err
		}
		if w.Full() {
			if err := w.End(); err != nil {
				return err
			}
		}
		if err := next(best); err != nil {
			return err
		}
	}
}

// settle moves a cursor to the next trace that is not special, from where it is.
func (g *gathering) settle(c *cursor) error {
	for {
		if c.b != nil {
			for ; c.trace < len(c.ids); c.trace++ {
				if !g.special[c.ids[c.trace]] {
					return nil
				}
			}
		}
		n, err := c.u.Blocks()
		if err != nil {
			return err
		}
		if c.b != nil {
			g.keep(*c)
		}
		if c.block++; c.block >= n {
			c.b = nil
			return nil
		}
		if err := c.open(); err != nil {
			return err
		}
	}
}

// open opens the block that the cursor is at.
func (c *cursor) open() (err error) {
	c.trace = 0
	if c.b, err = c.u.Block(c.block, nil); err != nil {
		return err
	}
	if c.ids, err = c.b.Traces(); err != nil {
		return err
	}
	if c.first, err = c.b.First(); err != nil {
		return err
	}
	c.starts, err = c.b.Starts()
	return err
}

// specials finds the traces that cannot be taken over as they are, in the order of their first starts.
func (g *gathering) specials() ([]special, error) {
	rows := 0
	for _, u := range g.units {
		rows += u.Info.Traces
	}
	t := places.New(rows)
	var memory columns.Memory
	lone := make(map[telemetry.TraceID]places.Place) // those that lie in one unit only
	for n, u := range g.units {
		blocks, err := u.Blocks()
		if err != nil {
			return nil, err
		}
		for i := range blocks {
			b, err := u.Block(i, &memory)
			if err != nil {
				return nil, err
			}
			ids, err := b.Traces()
			if err != nil {
				return nil, err
			}
			for k := range ids {
				f := places.Place{Unit: int32(n), Block: int32(i), Trace: int32(k)}
				t.Add(&ids[k], f)
				if g.b.keep != nil && g.b.keep(ids[k]) < 1 || slices.ContainsFunc(u.Masks, func(m Mask) bool { return m.MayCover(ids[k]) }) {
					lone[ids[k]] = f
				}
			}
		}
	}
	g.special = make(map[telemetry.TraceID]bool, len(t.More)+len(lone))
	out := make([]special, 0, len(t.More)+len(lone))
	add := func(id telemetry.TraceID, at []places.Place) {
		g.special[id] = true
		if g.b.keep == nil || g.b.keep(id) > 0 {
			out = append(out, special{id: id, at: at})
		}
	}
	for id, at := range t.More {
		add(id, at)
	}
	for id, f := range lone {
		if !g.special[id] {
			add(id, []places.Place{f})
		}
	}
	return g.starts(out)
}

// starts sets the first starts of what is left of traces, and sorts them.
func (g *gathering) starts(js []special) ([]special, error) {
	type one struct {
		j int
		places.Place
	}
	var all []one
	for i := range js {
		js[i].start = math.MaxInt64
		for _, f := range js[i].at {
			all = append(all, one{i, f})
		}
	}
	slices.SortFunc(all, func(a, b one) int { return places.Compare(a.Place, b.Place) })
	var c cursor
	for i, o := range all {
		if i == 0 || all[i-1].Unit != o.Unit || all[i-1].Block != o.Block {
			c = cursor{u: g.units[o.Unit], block: int(o.Block)}
			if err := c.open(); err != nil {
				return nil, err
			}
		}
		for row := c.first[o.Trace]; row < c.first[o.Trace+1]; row++ {
			if !Covered(c.u.Masks, js[o.j].id, c.starts[row]) {
				js[o.j].start = min(js[o.j].start, c.starts[row])
			}
		}
	}
	slices.SortFunc(js, func(a, b special) int { return cmp.Or(cmp.Compare(a.start, b.start), bytes.Compare(a.id[:], b.id[:])) })
	return js, nil
}

// add writes the trace that a cursor is at.
func (g *gathering) add(c *cursor) error {
	from, to := c.first[c.trace], c.first[c.trace+1]
	lo, hi := c.starts[from], c.starts[from]
	for _, at := range c.starts[from:to] {
		lo, hi = min(lo, at), max(hi, at)
	}
	g.b.count(int(to-from), lo, hi)
	if b, ok := c.b.(Bounded); ok {
		return g.w.AddFrom(b.Block, c.trace)
	}
	if err := g.take(c, c.trace); err != nil { // of the first layout
		return err
	}
	return g.write()
}

// join writes a trace of several places, without what was deleted.
func (g *gathering) join(j *special) error {
	slices.SortFunc(j.at, places.Compare)
	for _, f := range j.at {
		c, err := g.at(f)
		if err != nil {
			return err
		}
		if err := g.take(c, int(f.Trace)); err != nil {
			return err
		}
	}
	p := 1.0
	if g.b.keep != nil {
		p = g.b.keep(j.id)
	}
	for i := range g.rows {
		s := g.rows[i].Span
		g.b.count(1, s.Start, s.Start)
		s.State = telemetry.WithProbability(s.State, p)
	}
	if len(g.rows) == 0 {
		return nil
	}
	return g.write()
}

// keep remembers an open block.
func (g *gathering) keep(c cursor) {
	if len(g.recent) >= 2*len(g.units) {
		g.recent = slices.Delete(g.recent, 0, 1)
	}
	g.recent = append(g.recent, c)
}

// at returns a cursor in the block that a fragment lies in.
func (g *gathering) at(f places.Place) (*cursor, error) {
	if c := &g.cursors[f.Unit]; c.b != nil && c.block == int(f.Block) {
		return c, nil
	}
	for i := range g.recent {
		if c := &g.recent[i]; c.u == g.units[f.Unit] && c.block == int(f.Block) {
			return c, nil
		}
	}
	c := cursor{u: g.units[f.Unit], block: int(f.Block)}
	if err := c.open(); err != nil {
		return nil, err
	}
	g.keep(c)
	return &g.recent[len(g.recent)-1], nil
}

// take appends the spans of a trace of a block that were not deleted to rows.
func (g *gathering) take(c *cursor, trace int) error {
	var rows []int
	for row := c.first[trace]; row < c.first[trace+1]; row++ {
		if !Covered(c.u.Masks, c.ids[trace], c.starts[row]) {
			rows = append(rows, int(row))
		}
	}
	if len(rows) == 0 {
		return nil
	}
	blk, err := c.b.Spans(rows, storage.SpanAll)
	if err != nil {
		return err
	}
	spans := make([]telemetry.Span, blk.Len())
	for i := range spans {
		spans[i] = blk.Span(i)
		g.rows = append(g.rows, storage.SpanRow{Resource: blk.ResourceOf(i), Span: &spans[i]})
	}
	return nil
}

// write writes the spans in rows.
func (g *gathering) write() error {
	err := g.w.Add(g.rows, g.settler.Settle(g.rows))
	clear(g.rows)
	g.rows = g.rows[:0]
	return err
}
