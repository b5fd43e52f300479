package rows

import (
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

// Condition is what stands in the braces of a filter.
type Condition struct{ node cond }

// Compile prepares a condition that was checked; nil holds for all rows.
func Compile(f syntax.Field) *Condition {
	if f == nil {
		return &Condition{always(true)}
	}
	return &Condition{compile(f, true)}
}

// Eval returns the rows of in for which the condition holds. The result belongs to the caller.
func (c *Condition) Eval(b *Block, in Set) (Set, error) { return c.node.eval(b, in) }

// cond is a part of a condition. eval returns a new set: the rows of in for which it holds.
type cond interface {
	eval(b *Block, in Set) (Set, error)
}

// compile returns the rows in which f is true, or those in which it is false: neither has rows without a value.
func compile(f syntax.Field, want bool) cond {
	switch f := f.(type) {
	case *syntax.Static:
		return always(f.Type == syntax.TypeBool && (f.Int != 0) == want)
	case *syntax.Attribute, *syntax.Intrinsic:
		p, _ := plainOf(f)
		return lifted(p, &compareCond{plain: p, op: syntax.Equal, with: boolean(want)})
	case *syntax.Unary:
		if f.Op != syntax.Not {
			break
		}
		if x, ok := f.X.(*syntax.Unary); ok && x.Op == syntax.Not { // of several values: what ! makes of them, and then of that
			if want {
				return &rowCond{compileExpr(f)}
			}
			return &rowCond{&unaryExpr{syntax.Not, compileExpr(f)}}
		}
		return compile(f.X, !want)
	case *syntax.Binary:
		var c cond
		switch {
		case f.Op == syntax.And:
			c = &both{compile(f.L, true), compile(f.R, true)}
		case f.Op == syntax.Or:
			c = &either{compile(f.L, true), compile(f.R, true)}
		case f.Op.Comparison():
			c = comparison(f)
		}
		switch {
		case c == nil:
		case want:
			return c
		default:
			return &not{c}
		}
	}
	return always(false)
}

// comparison prepares a comparison: of a field with a constant by columns, any other one row by row.
func comparison(f *syntax.Binary) cond {
	op, l, r := f.Op, f.L, f.R
	if _, ok := l.(*syntax.Static); ok { // 5 < .a is .a > 5
		if _, ok := r.(*syntax.Static); !ok {
			op, l, r = turned(op), r, l
		}
	}
	p, isPlain := plainOf(l)
	s, isStatic := r.(*syntax.Static)
	switch {
	case isPlain && isStatic && s.Type == syntax.TypeNil:
		has := lifted(p, &hasCond{p})
		if op == syntax.Equal {
			return &not{has}
		}
		return has
	case isPlain && isStatic && asksForRoot(f):
		return rootCond{}
	case isPlain && isStatic:
		c := &compareCond{plain: p, op: op, with: constant(s)}
		if op == syntax.Matches || op == syntax.NotMatches {
			c.re = compileRegexp(s)
		} else if p.length > 0 && s.Type == syntax.TypeString && (op == syntax.Equal || op == syntax.NotEqual) {
			c.with.Value = telemetry.String(padded(s.Text, p.length))
		}
		return lifted(p, c)
	default:
		return &rowCond{compileExpr(f)}
	}
}

func turned(op syntax.Op) syntax.Op {
	switch op {
	case syntax.Greater:
		return syntax.Less
	case syntax.GreaterEqual:
		return syntax.LessEqual
	case syntax.Less:
		return syntax.Greater
	case syntax.LessEqual:
		return syntax.GreaterEqual
	default:
		return op
	}
}

type always bool

func (c always) eval(_ *Block, in Set) (Set, error) {
	if c {
		return in.Clone(), nil
	}
	return make(Set, len(in)), nil
}

type both struct{ l, r cond }

func (c *both) eval(b *Block, in Set) (Set, error) {
	l, err := c.l.eval(b, in)
	if err != nil || l.Empty() {
		return l, err
	}
	return c.r.eval(b, l)
}

type either struct{ l, r cond }

func (c *either) eval(b *Block, in Set) (Set, error) {
	l, err := c.l.eval(b, in)
	if err != nil {
		return nil, err
	}
	rest := in.Clone().AndNot(l)
	if rest.Empty() {
		return l, nil
	}
	r, err := c.r.eval(b, rest)
	if err != nil {
		return nil, err
	}
	return l.Or(r), nil
}

type not struct{ c cond }

func (c *not) eval(b *Block, in Set) (Set, error) {
	s, err := c.c.eval(b, in)
	if err != nil {
		return nil, err
	}
	return in.Clone().AndNot(s), nil
}

// lifted makes a condition about a row one about its parent, when the field says so.
func lifted(p *plain, c cond) cond {
	if p.parent {
		return &ofParent{c}
	}
	return c
}

type ofParent struct{ c cond }

func (c *ofParent) eval(b *Block, in Set) (Set, error) {
	parents, err := b.Parents()
	if err != nil {
		return nil, err
	}
	candidates := make(Set, len(in))
	in.Each(func(i int) {
		if p := parents[i]; p >= 0 {
			candidates.Add(int(p))
		}
	})
	if candidates.Empty() {
		return candidates, nil
	}
	s, err := c.c.eval(b, candidates)
	if err != nil {
		return nil, err
	}
	return children(parents, s, in), nil
}

// hasCond holds for rows with a value.
type hasCond struct{ plain *plain }

func (c *hasCond) eval(b *Block, in Set) (Set, error) {
	columns, err := c.plain.columns(b)
	if err != nil {
		return nil, err
	}
	out := make(Set, len(in))
	for _, col := range columns {
		out.Or(col.with(b))
	}
	return out.And(in), nil
}

// rootCond holds for spans that were sent without a parent.
type rootCond struct{}

func (rootCond) eval(b *Block, in Set) (Set, error) {
	parents, err := b.Parents()
	if err != nil {
		return nil, err
	}
	out := make(Set, len(in))
	for i, p := range parents {
		if p == storage.NoParent {
			out.Add(i)
		}
	}
	return out.And(in), nil
}

// rowCond holds for rows in which an expression is true.
type rowCond struct{ e expr }

func (c *rowCond) eval(b *Block, in Set) (Set, error) {
	if err := c.e.load(b); err != nil {
		return nil, err
	}
	out := make(Set, len(in))
	in.Each(func(i int) {
		if truth(c.e, i) {
			out.Add(i)
		}
	})
	return out, nil
}

// compareCond compares a field with a constant.
type compareCond struct {
	plain *plain
	op    syntax.Op
	with  Value
	re    *labels.FastRegexMatcher // of =~ and !~
	flags [2]flags                 // of the dictionaries of its columns
}

// flags says of each entry of a dictionary whether the comparison holds, as far as one value can tell.
type flags struct {
	dict    []telemetry.Value // what they are of; blocks may share it
	ok      []bool
	bad     []bool // of != and !~: entries that must not be among the values of a row
	all, no bool   // all are ok, none is
}

func (c *compareCond) negative() bool { return c.op == syntax.NotEqual || c.op == syntax.NotMatches }

func (c *compareCond) eval(b *Block, in Set) (Set, error) {
	columns, err := c.plain.columns(b)
	if err != nil {
		return nil, err
	}
	var out Set
	for i, col := range columns {
		s := c.column(b, col, &c.flags[i])
		if out == nil {
			out = s
		} else {
			out.Or(s.AndNot(columns[0].with(b)))
		}
	}
	return out.And(in), nil
}

// column returns the rows for whose values in one column the comparison holds.
func (c *compareCond) column(b *Block, col *column, f *flags) Set {
	out := NewSet(b.Len())
	if col.Len() == 0 {
		return out
	}
	if col.Ints != nil {
		c.ints(b, col, out)
		return out
	}
	c.look(col, f)
	switch {
	case f.no:
		return out
	case f.all && f.bad == nil:
		return out.Or(col.with(b))
	}
	mark(col, f.ok, out)
	if f.bad != nil && col.Rows != nil {
		bad := NewSet(b.Len())
		mark(col, f.bad, bad)
		out.AndNot(bad)
	}
	return out
}

// mark adds the rows of values whose code is set.
func mark(col *column, set []bool, out Set) {
	if col.Rows == nil {
		for w := range out {
			word := uint64(0)
			of := col.Code[w<<6:]
			for i, code := range of[:min(64, len(of))] {
				bit := uint64(0)
				if set[code] { // without a branch
					bit = 1
				}
				word |= bit << (i & 63)
			}
			out[w] |= word
		}
		return
	}
	for i, code := range col.Code {
		if set[code] {
			out.Add(int(col.Rows[i]))
		}
	}
}

// look makes the flags be those of the column's dictionary.
func (c *compareCond) look(col *column, f *flags) {
	d := col.Dict
	if len(f.dict) == len(d) && len(d) > 0 && &f.dict[0] == &d[0] {
		return
	}
	*f = flags{dict: d, ok: make([]bool, len(d)), all: true, no: true}
	if c.negative() {
		f.bad = make([]bool, len(d))
	}
	var vs []Value
	with := []Value{c.with}
	for i, v := range d {
		val := typed(v)
		if col.typ != syntax.TypeAny && val.Type == syntax.TypeInt {
			val.Type = col.typ
		}
		if c.re == nil && val.Type != syntax.TypeAny {
			order, comparable := compare(val, c.with)
			f.ok[i] = comparable && holds(c.op, order)
			if f.bad != nil {
				f.bad[i] = comparable && order == 0
			}
			f.all = f.all && f.ok[i]
			f.no = f.no && !f.ok[i]
			continue
		}
		vs = elements(vs[:0], val)
		switch c.op {
		case syntax.Matches:
			f.ok[i] = matches(c.op, vs, c.re)
		case syntax.NotMatches:
			f.bad[i] = matches(syntax.Matches, vs, c.re)
			f.ok[i] = !f.bad[i] && matches(c.op, vs, c.re)
		case syntax.NotEqual:
			f.bad[i] = compares(syntax.Equal, vs, with)
			f.ok[i] = compares(c.op, vs, with)
		default:
			f.ok[i] = compares(c.op, vs, with)
		}
		f.all = f.all && f.ok[i]
		f.no = f.no && !f.ok[i]
	}
}

// ints adds the rows of a column of integers for which the comparison holds.
func (c *compareCond) ints(b *Block, col *column, out Set) {
	typ := col.typ
	if typ == syntax.TypeAny {
		typ = syntax.TypeInt
	}
	if same := typ == c.with.Type || typ.Numeric() && c.with.Type.Numeric(); c.re != nil || !same {
		return
	}
	iv := intervalOf(c.op, c.with)
	if col.Rows == nil {
		for i, n := range col.Ints {
			if iv.has(n) {
				out.Add(i)
			}
		}
		return
	}
	if iv.not { // of several values none may be equal
		iv.not = false
		out.Or(col.with(b))
		for i, n := range col.Ints {
			if iv.has(n) {
				out[col.Rows[i]>>6] &^= 1 << (col.Rows[i] & 63)
			}
		}
		return
	}
	for i, n := range col.Ints {
		if iv.has(n) {
			out.Add(int(col.Rows[i]))
		}
	}
}
