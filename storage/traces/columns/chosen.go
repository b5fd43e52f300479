package columns

import (
	"math/bits"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Chosen is some traces of a block, or some rows of them, as storage.TraceBlock says; only Rest is for the caller to add. It is valid
// as long as the block is. What it decodes of columns is what it has, as far as the coding allows.
type Chosen struct {
	b       *Block
	rows    []int32 // of the block
	first   []int32
	ids     []telemetry.TraceID
	parents []int32
	starts  []int64
	lengths []int64
	cols    map[storage.SpanKey]*storage.SpanColumn
	torn    bool // the rows of a trace are not all of it
}

// Choose returns the traces with the given numbers, which ascend. There is at least one.
func (b *Block) Choose(traces []int32) (*Chosen, error) {
	first, err := b.First()
	if err != nil {
		return nil, err
	}
	ids, err := b.Traces()
	if err != nil {
		return nil, err
	}
	c := &Chosen{b: b, first: make([]int32, 1, len(traces)+1), ids: make([]telemetry.TraceID, 0, len(traces))}
	n := 0
	for _, t := range traces {
		n += int(first[t+1] - first[t])
	}
	c.rows = b.mem.Rows.Get(n)[:0]
	for _, t := range traces {
		for row := first[t]; row < first[t+1]; row++ {
			c.rows = append(c.rows, row)
		}
		c.first = append(c.first, int32(len(c.rows)))
		c.ids = append(c.ids, ids[t])
	}
	return c, nil
}

// Passing returns the rows of the block that pass all of ts, as bits by number; nil for all rows, or when it is not known.
func (b *Block) Passing(ts []*Test) ([]uint64, error) {
	var out []uint64
	for _, t := range ts {
		if len(b.pages) > 1 || t == nil || t.Any() && t.Blocks() == b.s.ofPages(b.s.allPages()) {
			continue
		}
		set := b.mem.Sets.Get((b.info.Rows + 63) / 64)
		some, err := b.pages[0].passing(t, set)
		if err != nil {
			return nil, err
		}
		if !some {
			clear(set)
			return set, nil
		}
		if out == nil {
			out = set
			continue
		}
		for i := range out {
			out[i] &= set[i]
		}
	}
	return out, nil
}

// ChooseRows returns some rows, of which there is at least one: traces without the rest of their spans.
func (b *Block) ChooseRows(set []uint64) (*Chosen, error) {
	first, err := b.First()
	if err != nil {
		return nil, err
	}
	ids, err := b.Traces()
	if err != nil {
		return nil, err
	}
	n := 0
	for _, x := range set {
		n += bits.OnesCount64(x)
	}
	most := min(n, len(ids))
	c := &Chosen{b: b, rows: b.mem.Rows.Get(n)[:0], first: b.mem.Rows.Get(most + 1)[:0], ids: b.mem.IDs.Get(most)[:0], torn: true}
	trace, last := 0, -1
	for w, x := range set {
		for ; x != 0; x &= x - 1 {
			row := int32(w<<6 + bits.TrailingZeros64(x))
			for first[trace+1] <= row {
				trace++
			}
			if trace != last {
				c.first, c.ids, last = append(c.first, int32(len(c.rows))), append(c.ids, ids[trace]), trace
			}
			c.rows = append(c.rows, row)
		}
	}
	c.first = append(c.first, int32(len(c.rows)))
	return c, nil
}

// Bytes returns how many bytes of the file were read for the block so far.
func (c *Chosen) Bytes() int64 { return c.b.Bytes() }

// Len implements storage.TraceBlock.
func (c *Chosen) Len() int { return len(c.rows) }

// First implements storage.TraceBlock.
func (c *Chosen) First() ([]int32, error) { return c.first, nil }

// Bounds implements storage.TraceBlock.
func (c *Chosen) Bounds() (lo, hi int64) { return c.b.Bounds() }

// Traces implements storage.TraceBlock.
func (c *Chosen) Traces() ([]telemetry.TraceID, error) { return c.ids, nil }

// Starts implements storage.TraceBlock.
func (c *Chosen) Starts() ([]int64, error) {
	if c.starts != nil {
		return c.starts, nil
	}
	of, err := c.b.startsUntil(int(c.rows[len(c.rows)-1]) + 1)
	if err != nil {
		return nil, err
	}
	c.starts = pickRows(c.b.mem.Wide(len(c.rows)), of, c.rows)
	return c.starts, nil
}

// Durations implements storage.TraceBlock.
func (c *Chosen) Durations() ([]int64, error) {
	if c.lengths != nil {
		return c.lengths, nil
	}
	set := c.b.mem.Sets.Get((c.b.info.Rows + 63) / 64)
	clear(set)
	for _, row := range c.rows {
		set[row>>6] |= 1 << (row & 63)
	}
	of, err := c.b.DurationsOf(set)
	if err != nil {
		return nil, err
	}
	c.lengths = pickRows(c.b.mem.Wide(len(c.rows)), of, c.rows)
	return c.lengths, nil
}

// pickRows fills out with what of has for rows.
func pickRows[T any](out, of []T, rows []int32) []T {
	for i, row := range rows {
		out[i] = of[row]
	}
	return out
}

// Parents implements storage.TraceBlock.
func (c *Chosen) Parents() ([]int32, error) {
	if c.parents != nil {
		return c.parents, nil
	}
	up := make([]int32, len(c.rows))
	if c.torn {
		of, err := c.b.Parents()
		if err != nil {
			return nil, err
		}
		for i, row := range c.rows {
			up[i] = min(of[row], storage.NoParent)
			if of[row] >= 0 {
				up[i] = storage.LostParent
				if at, ok := slices.BinarySearch(c.rows[:i], of[row]); ok {
					up[i] = int32(at)
				}
			}
		}
		c.parents = up
		return up, nil
	}
	var chain []int32
	var err error
	for t := range c.ids {
		from, to := c.first[t], c.first[t+1]
		if chain, err = c.b.parentsOf(c.rows[from], up[from:to], chain); err != nil {
			return nil, err
		}
		for i, p := range up[from:to] {
			if p >= 0 {
				up[int(from)+i] = p - c.rows[from] + from
			}
		}
	}
	c.parents = up
	return up, nil
}

// parentsOf tells the parents of the rows of the trace that begins at a row. Chain is memory.
func (b *Block) parentsOf(from int32, up []int32, chain []int32) ([]int32, error) {
	if b.up != nil {
		copy(up, b.up[from:])
		return chain, nil
	}
	chain = chain[:0]
	depth := 0 // of the row before
	p := b.at(int(from))
	for i := range up {
		row := int(from) + i
		if row >= p.base+p.info.Rows {
			p = b.at(row)
		}
		v, err := p.view(codesOfParents)
		if err != nil {
			return nil, err
		}
		if code := v.At(row - p.base); code >= parentUp {
			depth -= int(code) - parentUp
			if depth <= 0 {
				return nil, p.Bad("parents", "row %d has no such ancestor", row)
			}
			up[i] = chain[depth-1]
		} else {
			depth = 0
			up[i] = storage.NoParent - int32(code)
		}
		if depth == len(chain) {
			chain = append(chain, 0)
		}
		chain[depth] = int32(row)
		depth++
	}
	return chain, nil
}

// Column implements storage.TraceBlock.
func (c *Chosen) Column(key storage.SpanKey) (*storage.SpanColumn, error) {
	if col := c.cols[key]; col != nil {
		return col, nil
	}
	col, err := c.column(key)
	if err != nil {
		return nil, err
	}
	if c.cols == nil {
		c.cols = make(map[storage.SpanKey]*storage.SpanColumn)
	}
	c.cols[key] = col
	return col, nil
}

func (c *Chosen) column(key storage.SpanKey) (*storage.SpanColumn, error) {
	if len(c.b.pages) > 1 || c.b.cols[key] != nil {
		return c.gather(key)
	}
	p := c.b.pages[0]
	k, ok := keyOf(key)
	switch {
	case ok && k.family() == spans:
		n, ok := p.s.byName[k]
		if !ok || p.s.keys[n].columned>>(p.Block-p.s.first)&1 != 0 {
			return c.gather(key)
		}
		l, err := p.s.lookup(n)
		if err != nil {
			return nil, err
		}
		dict, err := p.s.values(n)
		if err != nil {
			return nil, err
		}
		col, err := c.pick(p, codesOfTuples, l, dict)
		if err == nil && col.Rows != nil && k.filled() {
			return fill(col, len(c.rows)), nil
		}
		return col, err
	case key.Scope == storage.ResourceScope:
		d, err := p.s.resourceValues(key)
		if err != nil {
			return nil, err
		}
		return c.pick(p, codesOfResources, d.code, d.dict)
	case key.Scope == storage.AnyScope:
		return anyColumn(c, len(c.rows), key.Name)
	case key.Scope == storage.FieldScope && (key.Field == storage.SpanParent || key.Field == storage.SpanIDField):
		return c.b.idColumn(asInts(c.rows), key.Field == storage.SpanParent)
	default:
		return c.gather(key)
	}
}

// pick returns the column of what l has for the codes of rows.
func (c *Chosen) pick(p *pageReader, what codesOf, l []uint32, dict []telemetry.Value) (*storage.SpanColumn, error) {
	v, err := p.view(what)
	if err != nil {
		return nil, err
	}
	out := &storage.SpanColumn{Dict: dict, Code: c.b.mem.Codes.Get(len(c.rows))}
	top := uint32(0)
	for i, row := range c.rows {
		x := l[v.At(int(row))]
		out.Code[i] = x
		top = max(top, x)
	}
	if top < absent {
		return out, nil
	}
	return out, p.present(out, "of rows that are chosen")
}

// gather takes the rows from the column of the block.
func (c *Chosen) gather(key storage.SpanKey) (*storage.SpanColumn, error) {
	from, err := c.b.Column(key)
	if err != nil {
		return nil, err
	}
	out := &storage.SpanColumn{Dict: from.Dict}
	if from.Rows == nil {
		if from.Ints != nil {
			out.Ints = pickRows(c.b.mem.Wide(len(c.rows)), from.Ints, c.rows)
		} else {
			out.Code = pickRows(c.b.mem.Codes.Get(len(c.rows)), from.Code, c.rows)
		}
		return out, nil
	}
	out.Rows = []int32{}
	if from.Ints != nil {
		out.Ints = []int64{}
	}
	at := 0
	for i, row := range c.rows {
		for n := 0; at < len(from.Rows) && from.Rows[at] < row; n++ {
			if at++; n == 8 { // far away
				n, _ := slices.BinarySearch(from.Rows[at:], row)
				at += n
				break
			}
		}
		for ; at < len(from.Rows) && from.Rows[at] == row; at++ {
			out.Rows = append(out.Rows, int32(i))
			if from.Ints != nil {
				out.Ints = append(out.Ints, from.Ints[at])
			} else {
				out.Code = append(out.Code, from.Code[at])
			}
		}
	}
	return out, nil
}

func asInts(rows []int32) []int {
	out := make([]int, len(rows))
	for i, row := range rows {
		out[i] = int(row)
	}
	return out
}

// Spans implements storage.TraceBlock.
func (c *Chosen) Spans(rows []int, cols storage.SpanColumns) (*storage.SpanBlock, error) {
	there := make([]int, len(rows))
	for i, row := range rows {
		there[i] = int(c.rows[row])
	}
	return c.b.Spans(there, cols)
}
