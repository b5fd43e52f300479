package rows

import (
	"math"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

// Measure tells what an expression is worth, row by row.
type Measure struct {
	e     expr
	ints  []int64 // when each row has just one integer
	typ   syntax.Type
	least int64 // of them: what is below counts as this
	plain *plain
}

// NewMeasure prepares an expression that was checked.
func NewMeasure(f syntax.Field) *Measure {
	m := &Measure{e: compileExpr(f)}
	if p, ok := plainOf(f); ok && !p.parent && len(p.keys) < 2 {
		m.plain = p
	}
	return m
}

// Load gets the columns of a block; Value then answers about its rows.
func (m *Measure) Load(b *Block) error {
	m.ints = nil
	if m.plain != nil {
		cs, err := m.plain.columns(b)
		if err != nil {
			return err
		}
		if cs[0].Ints != nil && cs[0].Rows == nil {
			m.ints, m.typ, m.least = cs[0].Ints, cs[0].typ, math.MinInt64
			if m.typ == syntax.TypeAny {
				m.typ = syntax.TypeInt
			}
			return nil
		}
	}
	return m.e.load(b)
}

// LoadOf is Load for some rows.
func (m *Measure) LoadOf(b *Block, set Set) error {
	if m.plain == nil || len(m.plain.keys) > 0 || m.plain.id != syntax.Duration || b.derived[syntax.Duration] != nil {
		return m.Load(b)
	}
	lengths, err := storage.DurationsOf(b.TraceBlock, set)
	m.ints, m.typ, m.least = lengths, syntax.TypeDuration, 0
	return err
}

// Value returns what the expression is worth in a row; of several values of events or links that of the first.
func (m *Measure) Value(row int) Value {
	if m.ints != nil {
		return number(m.typ, max(m.ints[row], m.least))
	}
	return m.e.value(row)
}

// Values calls f with each value of a row.
func (m *Measure) Values(row int, f func(Value)) {
	if m.ints != nil {
		f(m.Value(row))
		return
	}
	for _, v := range m.e.list(nil, row) {
		f(v)
	}
}

// Number returns the value as a float, durations in nanoseconds, and whether it is a number.
func (m *Measure) Number(row int) (float64, bool) {
	if m.ints != nil && m.typ.Numeric() {
		return float64(max(m.ints[row], m.least)), true
	}
	return m.Value(row).Number()
}

// Duration says whether the values of a row are durations, if they are numbers.
func (m *Measure) Duration(row int) bool { return m.Value(row).Type == syntax.TypeDuration }

// Constant returns what a constant is worth.
func Constant(s *syntax.Static) Value { return constant(s) }

// Holds says whether a comparison of two values holds; it does not when one is missing.
func Holds(op syntax.Op, a, b Value) bool {
	c, ok := compare(a, b)
	return ok && holds(op, c)
}

// Coder numbers the values of a field over many blocks, from 0 in the order of their first row.
type Coder struct {
	m      *Measure
	plain  *plain
	values []Value
	codes  map[Value]uint32
	seen   [2]coded
	out    []uint32
	max    int // how many values are numbered, 0 for any number
}

// coded is the codes of a dictionary.
type coded struct {
	dict  []telemetry.Value
	codes []uint32 // less 1; 0 for entries that were not asked for
}

// NewCoder prepares an expression that was checked.
func NewCoder(f syntax.Field) *Coder {
	c := &Coder{codes: make(map[Value]uint32), m: NewMeasure(f)}
	if p, ok := plainOf(f); ok && !p.parent {
		c.plain = p
	}
	return c
}

// NewLimitedCoder returns a Coder that numbers only so many values; Present leaves out the others.
func NewLimitedCoder(f syntax.Field, limit int) *Coder {
	c := NewCoder(f)
	c.max = limit
	return c
}

// Value returns what a code stands for.
func (c *Coder) Value(code uint32) Value { return c.values[code] }

// Len returns the number of codes.
func (c *Coder) Len() int { return len(c.values) }

// none is no code.
const none = ^uint32(0)

func (c *Coder) code(v Value) uint32 {
	code, ok := c.codes[v]
	if !ok {
		if c.max > 0 && len(c.values) >= c.max {
			return none
		}
		code = uint32(len(c.values))
		v = Keep(v)
		c.codes[v] = code
		c.values = append(c.values, v)
	}
	return code
}

// Codes returns the code of each row of set; those of other rows are not defined. The result is valid until the next call.
func (c *Coder) Codes(b *Block, set Set) ([]uint32, error) {
	if cap(c.out) < b.Len() {
		c.out = make([]uint32, b.Len())
	}
	c.out = c.out[:b.Len()]
	if c.plain == nil {
		if err := c.m.Load(b); err != nil {
			return nil, err
		}
		set.Each(func(i int) { c.out[i] = c.code(c.m.Value(i)) })
		return c.out, nil
	}
	columns, err := c.plain.columns(b)
	if err != nil {
		return nil, err
	}
	rest := set
	for i, col := range columns {
		if i == 0 && c.dense(b, col, &c.seen[0]) {
			return c.out, nil
		}
		c.column(col, &c.seen[i], rest, func(row int, code uint32) { c.out[row] = code })
		if col.Rows == nil {
			return c.out, nil
		}
		rest = rest.Clone().AndNot(col.with(b))
	}
	if !rest.Empty() {
		absent := c.code(Nil())
		rest.Each(func(i int) { c.out[i] = absent })
	}
	return c.out, nil
}

// dense fills in the codes of all rows when each has a value, out of few.
func (c *Coder) dense(b *Block, col *column, seen *coded) bool {
	if !c.numbered(b, col, seen) {
		return false
	}
	for i, entry := range col.Code {
		c.out[i] = seen.codes[entry] - 1
	}
	return true
}

// numbered numbers the values of a column when each row has one, out of few: also those that no row has.
func (c *Coder) numbered(b *Block, col *column, seen *coded) bool {
	if col.Rows != nil || col.Ints != nil || len(col.Dict) == 0 || len(col.Dict) > b.Len()/4 || c.max > 0 {
		return false
	}
	seen.of(col)
	for i := range seen.codes {
		if seen.codes[i] == 0 {
			seen.codes[i] = c.code(col.entry(i)) + 1
		}
	}
	return true
}

// Coded is Codes where it may be quicker to leave the codes as the block has them: with a table, the code of a row is
// table[codes[row]]-1.
func (c *Coder) Coded(b *Block, set Set) (codes, table []uint32, err error) {
	if c.plain != nil {
		columns, err := c.plain.columns(b)
		if err != nil {
			return nil, nil, err
		}
		if c.numbered(b, columns[0], &c.seen[0]) {
			return columns[0].Code, c.seen[0].codes, nil
		}
	}
	codes, err = c.Codes(b, set)
	return codes, nil, err
}

// of makes the codes be those of the column's dictionary.
func (s *coded) of(col *column) {
	if len(s.dict) != len(col.Dict) || &s.dict[0] != &col.Dict[0] {
		*s = coded{col.Dict, make([]uint32, len(col.Dict))}
	}
}

// Present calls f with each row of set that has a value, and its code. The field must be an attribute or an intrinsic.
func (c *Coder) Present(b *Block, set Set, f func(row int, code uint32)) error {
	columns, err := c.plain.columns(b)
	if err != nil {
		return err
	}
	for i, col := range columns {
		c.column(col, &c.seen[i], set, func(row int, code uint32) {
			if code != none {
				f(row, code)
			}
		})
		if i+1 < len(columns) {
			set = set.Clone().AndNot(col.with(b))
		}
	}
	return nil
}

// column calls f with the rows of set that have a value in the column.
func (c *Coder) column(col *column, seen *coded, set Set, f func(row int, code uint32)) {
	if col.Ints != nil {
		each(col, set, func(row, at int) { f(row, c.code(col.value(at))) })
		return
	}
	if len(col.Dict) == 0 {
		return
	}
	seen.of(col)
	codes := seen.codes
	each(col, set, func(row, at int) {
		entry := col.Code[at]
		if codes[entry] == 0 {
			codes[entry] = c.code(col.value(at)) + 1
		}
		f(row, codes[entry]-1)
	})
}

// each calls f with each row of set that has a value, and which is its first.
func each(col *column, set Set, f func(row, at int)) {
	if col.Rows == nil {
		set.Each(func(i int) { f(i, i) })
		return
	}
	last := int32(-1)
	for at, r := range col.Rows {
		if r != last && set.Has(int(r)) {
			f(int(r), at)
		}
		last = r
	}
}

// Keep returns a copy of a value that outlives its block.
func Keep(v Value) Value {
	switch v.Value.Kind() {
	case telemetry.KindString:
		v.Value = telemetry.String(string(append([]byte(nil), v.Value.Str()...)))
	case telemetry.KindBytes:
		v.Value = telemetry.Bytes([]byte(v.Value.Str()))
	case telemetry.KindArray:
		v.Value = telemetry.Array(v.Value.Array())
	case telemetry.KindMap:
		v.Value = telemetry.Map(v.Value.Map())
	default:
	}
	return v
}

// Typed returns what was sent with its type.
func Typed(v telemetry.Value) Value { return typed(v) }

// Elements returns the values that comparisons look at: those of an array one by one, none for no value.
func Elements(v Value) []Value { return elements(nil, v) }

// Listed returns the keys of which the store lists the values that the field has, and whether it does.
func Listed(f syntax.Field) ([]storage.SpanKey, bool) {
	p, ok := plainOf(f)
	switch {
	case !ok || p.parent:
		return nil, false
	case len(p.keys) > 0:
		return p.keys, p.typ == syntax.TypeAny || p.typ == syntax.TypeStatus || p.typ == syntax.TypeKind
	default:
		return nil, false
	}
}

// AnyOf says whether some row of set has a value of key.
func (b *Block) AnyOf(key storage.SpanKey, set Set) (bool, error) {
	c, err := b.stored(key, syntax.TypeAny)
	if err != nil {
		return false, err
	}
	if c.Rows == nil {
		return !set.Empty() && c.Len() > 0, nil
	}
	for _, r := range c.Rows {
		if set.Has(int(r)) {
			return true, nil
		}
	}
	return false, nil
}
