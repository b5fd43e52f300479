package join

import (
	"math"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// composed is a TraceBlock of rows of other blocks: some of their traces, and traces whose spans lie in several of them.
// Columns are decoded where the rows are, when they are asked for.
type composed struct {
	blocks  []storage.TraceBlock
	of      []int32 // the block of each row; nil when there is one block only
	row     []int32 // the row there
	parents []int32
	first   []int32
	ids     []telemetry.TraceID
	lo, hi  int64
	rest    int64
	starts  []int64
	lengths []int64
	columns map[storage.SpanKey]*storage.SpanColumn
}

var _ storage.TraceBlock = (*composed)(nil)

// place is rows of a block: those of one trace.
type place struct {
	block    int
	from, to int32
	some     []int32 // of them, when not all
}

// each calls f for each row.
func (p *place) each(f func(row int32)) {
	if p.some != nil {
		for _, row := range p.some {
			f(row)
		}
		return
	}
	for row := p.from; row < p.to; row++ {
		f(row)
	}
}

// composer makes a composed block.
type composer struct {
	out     *composed
	settler storage.Settler

	// Of the trace that is joined: its spans, by number, and where they lie.
	spans []telemetry.Span
	rows  []storage.SpanRow
	at    []spot
	ask   []int
}

// spot is a row of a block.
type spot struct{ block, row int32 }

func newComposer(blocks []storage.TraceBlock, rest int64) *composer {
	c := &composer{out: &composed{blocks: blocks, first: []int32{0}, lo: math.MaxInt64, hi: math.MinInt64, rest: rest}}
	for _, b := range blocks {
		lo, hi := b.Bounds()
		c.out.lo, c.out.hi = min(c.out.lo, lo), max(c.out.hi, hi)
	}
	return c
}

// add adds a trace that lies whole in one place, as it is; parents are those of the block.
func (c *composer) add(id telemetry.TraceID, at place, parents []int32) {
	o := c.out
	c.several()
	shift := int32(len(o.row)) - at.from
	for i := at.from; i < at.to; i++ {
		o.row = append(o.row, i)
		if o.of != nil {
			o.of = append(o.of, int32(at.block))
		}
		p := parents[i]
		if p >= 0 {
			p += shift
		}
		o.parents = append(o.parents, p)
	}
	c.put(id)
}

// several makes the column that tells the block of each row, if there are several.
func (c *composer) several() {
	if o := c.out; len(o.blocks) > 1 && o.of == nil {
		o.of = make([]int32, len(o.row))
	}
}

func (c *composer) put(id telemetry.TraceID) {
	o := c.out
	o.first = append(o.first, int32(len(o.row)))
	o.ids = append(o.ids, id)
}

// graft adds a trace of whole places, given in the order of arrival, whose tree is known.
func (c *composer) graft(id telemetry.TraceID, places []place, t *tree) {
	o := c.out
	c.several()
	c.at = c.at[:0]
	for i := range places {
		for row := places[i].from; row < places[i].to; row++ {
			c.at = append(c.at, spot{int32(places[i].block), row})
		}
	}
	base := int32(len(o.row))
	for i, n := range t.order {
		o.row = append(o.row, c.at[n].row)
		if o.of != nil {
			o.of = append(o.of, c.at[n].block)
		}
		p := t.parents[i]
		if p >= 0 {
			p += base
		}
		o.parents = append(o.parents, p)
	}
	c.put(id)
}

// grown returns the tree of the trace that was joined last.
func (c *composer) grown() *tree {
	t := &tree{order: make([]int32, len(c.rows)), parents: make([]int32, len(c.rows))}
	base := c.out.first[len(c.out.first)-2]
	copy(t.parents, c.out.parents[base:])
	for i := range c.rows {
		t.order[i] = int32(c.rows[i].Span.DroppedLinks)
		if t.parents[i] >= 0 {
			t.parents[i] -= base
		}
	}
	return t
}

// join adds a trace of spans in one or several places, given in the order of arrival, whose tree is made anew. An error is
// that of the block that it returns.
func (c *composer) join(id telemetry.TraceID, places []place) (block int, err error) {
	n := 0
	for i := range places {
		if places[i].some != nil {
			n += len(places[i].some)
		} else {
			n += int(places[i].to - places[i].from)
		}
	}
	if n == 0 {
		return 0, nil
	}
	o := c.out
	c.spans, c.rows, c.at = slices.Grow(c.spans[:0], n), c.rows[:0], c.at[:0]
	for i := range places {
		p := &places[i]
		c.ask = c.ask[:0]
		p.each(func(row int32) {
			c.at, c.ask = append(c.at, spot{int32(p.block), row}), append(c.ask, int(row))
		})
		b, err := o.blocks[p.block].Spans(c.ask, 0)
		if err != nil {
			return p.block, err
		}
		for k := range b.Len() {
			// DroppedLinks of these spans, which nobody else sees, tells where they come from.
			c.spans = append(c.spans, telemetry.Span{
				TraceID: b.TraceID[k], SpanID: b.SpanID[k], ParentID: b.ParentID[k], Start: b.Start[k], DroppedLinks: uint32(len(c.spans)),
			})
		}
	}
	for i := range c.spans {
		c.rows = append(c.rows, storage.SpanRow{Span: &c.spans[i]})
	}
	base := int32(len(o.row))
	c.several()
	for i, p := range c.settler.Settle(c.rows) {
		if p >= 0 {
			p += base
		}
		o.parents = append(o.parents, p)
		at := c.at[c.rows[i].Span.DroppedLinks]
		o.row = append(o.row, at.row)
		if o.of != nil {
			o.of = append(o.of, at.block)
		}
	}
	c.put(id)
	return 0, nil
}

// Len implements storage.TraceBlock.
func (b *composed) Len() int { return len(b.row) }

// First implements storage.TraceBlock.
func (b *composed) First() ([]int32, error) { return b.first, nil }

// Bounds implements storage.TraceBlock.
func (b *composed) Bounds() (lo, hi int64) { return b.lo, b.hi }

// Rest implements storage.TraceBlock.
func (b *composed) Rest() int64 { return b.rest }

// Traces implements storage.TraceBlock.
func (b *composed) Traces() ([]telemetry.TraceID, error) { return b.ids, nil }

// Parents implements storage.TraceBlock.
func (b *composed) Parents() ([]int32, error) { return b.parents, nil }

// Starts implements storage.TraceBlock.
func (b *composed) Starts() ([]int64, error) {
	var err error
	if b.starts == nil {
		b.starts, err = b.gather(storage.TraceBlock.Starts)
	}
	return b.starts, err
}

// Durations implements storage.TraceBlock.
func (b *composed) Durations() ([]int64, error) {
	var err error
	if b.lengths == nil {
		b.lengths, err = b.gather(storage.TraceBlock.Durations)
	}
	return b.lengths, err
}

func (b *composed) gather(column func(storage.TraceBlock) ([]int64, error)) ([]int64, error) {
	of := make([][]int64, len(b.blocks))
	for i, src := range b.blocks {
		var err error
		if of[i], err = column(src); err != nil {
			return nil, err
		}
	}
	out := make([]int64, len(b.row))
	for i, r := range b.row {
		out[i] = of[b.block(i)][r]
	}
	return out, nil
}

func (b *composed) block(i int) int32 {
	if b.of == nil {
		return 0
	}
	return b.of[i]
}

// Column implements storage.TraceBlock.
func (b *composed) Column(key storage.SpanKey) (*storage.SpanColumn, error) {
	if c := b.columns[key]; c != nil {
		return c, nil
	}
	cols := make([]*storage.SpanColumn, len(b.blocks))
	ints, each, same := true, true, true
	for i, src := range b.blocks {
		c, err := src.Column(key)
		if err != nil {
			return nil, err
		}
		cols[i] = c
		ints = ints && (c.Ints != nil || c.Len() == 0)
		each = each && c.Rows == nil
		same = same && sameDict(c.Dict, cols[0].Dict) && c.Ints == nil
	}
	from := make([][]int32, len(cols)) // of columns with rows, where the values of each row begin
	for i, c := range cols {
		if c.Rows != nil {
			from[i] = begins(c.Rows, b.blocks[i].Len())
		}
	}
	out := &storage.SpanColumn{}
	var join dictJoin
	if same && len(cols) > 0 {
		out.Dict = cols[0].Dict
	} else if !ints {
		join = newDictJoin(cols)
	}
	for i, r := range b.row {
		k := b.block(i)
		c := cols[k]
		lo, hi := r, r+1
		if c.Rows != nil {
			lo, hi = from[k][r], from[k][r+1]
		}
		for v := lo; v < hi; v++ {
			switch {
			case ints:
				out.Ints = append(out.Ints, c.Ints[v])
			case same:
				out.Code = append(out.Code, c.Code[v])
			default:
				out.Code = append(out.Code, join.code(int(k), c, int(v)))
			}
			if !each {
				out.Rows = append(out.Rows, int32(i))
			}
		}
	}
	if !each && out.Rows == nil {
		out.Rows = []int32{}
	}
	if join.codes != nil {
		out.Dict = join.values
	}
	if b.columns == nil {
		b.columns = make(map[storage.SpanKey]*storage.SpanColumn)
	}
	b.columns[key] = out
	return out, nil
}

// begins returns where the values of each of n rows begin among ascending rows, and at last their number.
func begins(rows []int32, n int) []int32 {
	at := make([]int32, n+1)
	for _, r := range rows {
		at[r+1]++
	}
	for i := range n {
		at[i+1] += at[i]
	}
	return at
}

func sameDict(a, b []telemetry.Value) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// dictJoin makes one dictionary of several.
type dictJoin struct {
	values []telemetry.Value
	codes  map[telemetry.Value]uint32
	known  [][]uint32 // by column, the new code of each old one, from 1
}

func newDictJoin(cols []*storage.SpanColumn) dictJoin {
	j := dictJoin{codes: make(map[telemetry.Value]uint32), known: make([][]uint32, len(cols))}
	for i, c := range cols {
		j.known[i] = make([]uint32, len(c.Dict))
	}
	return j
}

func (j *dictJoin) code(col int, c *storage.SpanColumn, i int) uint32 {
	var at *uint32
	if c.Ints == nil {
		if at = &j.known[col][c.Code[i]]; *at > 0 {
			return *at - 1
		}
	}
	v := c.Value(i)
	n, ok := j.codes[v]
	if !ok {
		n = uint32(len(j.values))
		j.codes[v] = n
		j.values = append(j.values, v)
	}
	if at != nil {
		*at = n + 1
	}
	return n
}

// Spans implements storage.TraceBlock.
func (b *composed) Spans(rows []int, cols storage.SpanColumns) (*storage.SpanBlock, error) {
	if b.of == nil {
		there := make([]int, len(rows))
		for i, r := range rows {
			there[i] = int(b.row[r])
		}
		return b.blocks[0].Spans(there, cols)
	}
	asked := make([][]int, len(b.blocks))
	at := make([]int, len(rows)) // in the answer of its block
	for i, r := range rows {
		k := b.of[r]
		at[i] = len(asked[k])
		asked[k] = append(asked[k], int(b.row[r]))
	}
	found := make([]*storage.SpanBlock, len(b.blocks))
	for k, some := range asked {
		if len(some) == 0 {
			continue
		}
		var err error
		if found[k], err = b.blocks[k].Spans(some, cols); err != nil {
			return nil, err
		}
	}
	out := &storage.SpanBlock{}
	for i, r := range rows {
		blk := found[b.of[r]]
		s := blk.Span(at[i])
		out.Append(blk.ResourceOf(at[i]), &s, cols)
	}
	return out, nil
}

// Bytes returns how many bytes of parts were read for it.
func (b *composed) Bytes() (sum int64) {
	for _, src := range b.blocks {
		if s, ok := src.(sized); ok {
			sum += s.Bytes()
		}
	}
	return sum
}

// without returns the rows from from to to that cut does not take away, nil when it takes none.
func without(from, to int32, cut func(row int32) bool) (some []int32, any bool) {
	for i := from; i < to; i++ {
		if cut(i) {
			if !any {
				any = true
				some = make([]int32, 0, to-from)
				for k := from; k < i; k++ {
					some = append(some, k)
				}
			}
			continue
		}
		if any {
			some = append(some, i)
		}
	}
	return slices.Clip(some), any
}
