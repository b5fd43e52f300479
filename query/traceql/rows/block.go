package rows

import (
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

// Block is a block of traces with what was computed of it.
type Block struct {
	storage.TraceBlock
	First   []int32 // the first row of each trace, and at last the number of rows
	columns map[storage.SpanKey]*column
	derived map[syntax.ID]*column
	roots   []int32 // of each trace, -1 for none
	all     Set
}

// NewBlock returns the block.
func NewBlock(b storage.TraceBlock) (*Block, error) {
	first, err := b.First()
	return &Block{TraceBlock: b, First: first}, err
}

// TraceCount returns the number of traces.
func (b *Block) TraceCount() int { return len(b.First) - 1 }

// All returns the set of all rows, which must not be changed.
func (b *Block) All() Set {
	if b.all == nil {
		b.all = Full(b.Len())
	}
	return b.all
}

// column is the values of a field in the rows of a block.
type column struct {
	*storage.SpanColumn
	typ   syntax.Type // of the values; TypeAny when they tell themselves
	index []int32     // of each row the first value at or behind it; nil when each row has one
	has   Set         // rows with values; nil before it is asked for
}

// value returns value i.
func (c *column) value(i int) Value {
	if c.Ints != nil {
		t := c.typ
		if t == syntax.TypeAny {
			t = syntax.TypeInt
		}
		return number(t, c.Ints[i])
	}
	return c.entry(int(c.Code[i]))
}

// entry returns what an entry of the dictionary stands for.
func (c *column) entry(i int) Value {
	v := c.Dict[i]
	if c.typ != syntax.TypeAny && v.Kind() == telemetry.KindInt {
		return Value{c.typ, v}
	}
	return typed(v)
}

// at returns which values row i has.
func (c *column) at(i, rows int) (lo, hi int) {
	if c.Rows == nil {
		return i, i + 1
	}
	if c.index == nil {
		c.index = make([]int32, rows+1)
		next := len(c.Rows)
		for row := rows; row >= 0; row-- {
			for next > 0 && int(c.Rows[next-1]) >= row {
				next--
			}
			c.index[row] = int32(next)
		}
	}
	return int(c.index[i]), int(c.index[i+1])
}

// with returns the rows that have a value.
func (c *column) with(b *Block) Set {
	if c.has == nil {
		if c.Rows == nil {
			c.has = b.All()
		} else {
			c.has = NewSet(b.Len())
			for _, r := range c.Rows {
				c.has.Add(int(r))
			}
		}
	}
	return c.has
}

// stored returns a column that the block has.
func (b *Block) stored(key storage.SpanKey, typ syntax.Type) (*column, error) {
	if c := b.columns[key]; c != nil {
		return c, nil
	}
	sc, err := b.Column(key)
	if err != nil {
		return nil, err
	}
	c := &column{SpanColumn: withoutEmpty(sc), typ: typ}
	if b.columns == nil {
		b.columns = make(map[storage.SpanKey]*column)
	}
	b.columns[key] = c
	return c, nil
}

// withoutEmpty leaves out values that were sent empty, which is as if they were not sent.
func withoutEmpty(c *storage.SpanColumn) *storage.SpanColumn {
	if !slices.ContainsFunc(c.Dict, telemetry.Value.IsZero) {
		return c
	}
	out := &storage.SpanColumn{Rows: []int32{}, Dict: c.Dict}
	for i, code := range c.Code {
		if c.Dict[code].IsZero() {
			continue
		}
		row := int32(i)
		if c.Rows != nil {
			row = c.Rows[i]
		}
		out.Rows, out.Code = append(out.Rows, row), append(out.Code, code)
	}
	return out
}

// Roots returns the first root of each trace, -1 when there is none.
func (b *Block) Roots() ([]int32, error) {
	if b.roots != nil {
		return b.roots, nil
	}
	parents, err := b.Parents()
	if err != nil {
		return nil, err
	}
	roots := make([]int32, b.TraceCount())
	for t := range roots {
		roots[t] = -1
		for i := b.First[t]; i < b.First[t+1]; i++ {
			if parents[i] == storage.NoParent {
				roots[t] = i
				break
			}
		}
	}
	b.roots = roots
	return roots, nil
}

// Span returns when a trace starts and ends.
func (b *Block) Span(trace int) (start, end int64, err error) {
	starts, err := b.Starts()
	if err != nil {
		return 0, 0, err
	}
	lengths, err := b.Durations()
	if err != nil {
		return 0, 0, err
	}
	lo, hi := b.First[trace], b.First[trace+1]
	start, end = starts[lo], starts[lo]
	for i := lo; i < hi; i++ {
		start, end = min(start, starts[i]), max(end, starts[i]+max(lengths[i], 0))
	}
	return start, end, nil
}

// computed returns the column of an intrinsic that no block stores.
func (b *Block) computed(id syntax.ID) (*column, error) {
	if c := b.derived[id]; c != nil {
		return c, nil
	}
	c := &column{SpanColumn: &storage.SpanColumn{}}
	var err error
	switch id {
	case syntax.Duration:
		c.typ = syntax.TypeDuration
		c.Ints, err = b.lengths()
	case syntax.ChildCount:
		c.typ = syntax.TypeInt
		c.Ints, err = b.children()
	case syntax.NestedSetLeft, syntax.NestedSetRight, syntax.NestedSetParent:
		c.typ = syntax.TypeInt
		c.Ints, err = b.nested(id)
	case syntax.ParentSpan:
		err = b.parented(c)
	case syntax.TraceDuration:
		c.typ = syntax.TypeDuration
		c.Ints, err = b.traceLengths()
	case syntax.TraceID:
		err = b.traceIDs(c)
	case syntax.RootName:
		err = b.ofRoots(c, storage.Field(storage.SpanName))
	case syntax.RootService:
		err = b.ofRoots(c, serviceName())
	default:
		panic("a column that blocks store")
	}
	if err != nil {
		return nil, err
	}
	if b.derived == nil {
		b.derived = make(map[syntax.ID]*column)
	}
	b.derived[id] = c
	return c, nil
}

func serviceName() storage.SpanKey {
	return storage.SpanKey{Scope: storage.ResourceScope, Name: "service.name"}
}

// lengths returns how long spans are, never below zero.
func (b *Block) lengths() ([]int64, error) {
	lengths, err := b.Durations()
	if err != nil {
		return nil, err
	}
	some := int64(0)
	for _, n := range lengths {
		some |= n
	}
	if some < 0 { // one is
		lengths = slices.Clone(lengths)
		for i, n := range lengths {
			lengths[i] = max(n, 0)
		}
	}
	return nonNil(lengths), nil
}

// nonNil makes that a column of no rows is still one of integers.
func nonNil(ints []int64) []int64 {
	if ints == nil {
		return []int64{}
	}
	return ints
}

func (b *Block) children() ([]int64, error) {
	parents, err := b.Parents()
	if err != nil {
		return nil, err
	}
	out := make([]int64, b.Len())
	for _, p := range parents {
		if p >= 0 {
			out[p]++
		}
	}
	return out, nil
}

// nested numbers the spans of each trace as nested sets: from 1, left when a span is entered, right when it is left. The
// parent of a root is -1, that of the root of a fragment 0.
func (b *Block) nested(id syntax.ID) ([]int64, error) {
	parents, err := b.Parents()
	if err != nil {
		return nil, err
	}
	n := b.Len()
	left, right := make([]int64, n), make([]int64, n)
	var open []int32
	for t := range b.TraceCount() {
		next := int64(1)
		leave := func(until int32) {
			for len(open) > 0 && open[len(open)-1] != until {
				right[open[len(open)-1]] = next
				next++
				open = open[:len(open)-1]
			}
		}
		for i := b.First[t]; i < b.First[t+1]; i++ {
			leave(parents[i])
			left[i] = next
			next++
			open = append(open, i)
		}
		leave(-1)
	}
	switch id {
	case syntax.NestedSetLeft:
		return left, nil
	case syntax.NestedSetRight:
		return right, nil
	default:
		out := right
		for i, p := range parents {
			switch {
			case p >= 0:
				out[i] = left[p]
			case p == storage.NoParent:
				out[i] = -1
			default:
				out[i] = 0
			}
		}
		return out, nil
	}
}

// parented makes a column with a value in the rows that were sent with a parent.
func (b *Block) parented(c *column) error {
	parents, err := b.Parents()
	c.Rows, c.Ints = []int32{}, []int64{}
	for i, p := range parents {
		if p != storage.NoParent {
			c.Rows, c.Ints = append(c.Rows, int32(i)), append(c.Ints, 1)
		}
	}
	return err
}

func (b *Block) traceLengths() ([]int64, error) {
	out := make([]int64, b.Len())
	for t := range b.TraceCount() {
		start, end, err := b.Span(t)
		if err != nil {
			return nil, err
		}
		for i := b.First[t]; i < b.First[t+1]; i++ {
			out[i] = end - start
		}
	}
	return out, nil
}

func (b *Block) traceIDs(c *column) error {
	ids, err := b.Traces()
	if err != nil {
		return err
	}
	c.Code = make([]uint32, b.Len())
	for t, id := range ids {
		c.Dict = append(c.Dict, telemetry.String(id.String()))
		for i := b.First[t]; i < b.First[t+1]; i++ {
			c.Code[i] = uint32(t)
		}
	}
	return nil
}

// ofRoots makes a column of what key is worth in the root of each trace, an empty text where that is no text or there is no root.
func (b *Block) ofRoots(c *column, key storage.SpanKey) error {
	roots, err := b.Roots()
	if err != nil {
		return err
	}
	of, err := b.stored(key, syntax.TypeAny)
	if err != nil {
		return err
	}
	c.Code = make([]uint32, b.Len())
	c.Dict = []telemetry.Value{telemetry.String("")}
	codes := make(map[telemetry.Value]uint32)
	for t, root := range roots {
		if root < 0 {
			continue
		}
		lo, hi := of.at(int(root), b.Len())
		if lo == hi {
			continue
		}
		v := of.Value(lo)
		if v.Kind() != telemetry.KindString {
			continue
		}
		code, ok := codes[v]
		if !ok {
			code = uint32(len(c.Dict))
			codes[v] = code
			c.Dict = append(c.Dict, v)
		}
		for i := b.First[t]; i < b.First[t+1]; i++ {
			c.Code[i] = code
		}
	}
	return nil
}
