package rows

import (
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

// plain is an attribute or an intrinsic.
type plain struct {
	keys   []storage.SpanKey // the first that a row has counts; none for what is computed
	id     syntax.ID         // of what is computed
	typ    syntax.Type
	parent bool // of the parent of a row
	length int  // digits of an ID, 0 for what is none
}

// plainOf returns the field when it is an attribute or an intrinsic.
func plainOf(f syntax.Field) (*plain, bool) {
	switch f := f.(type) {
	case *syntax.Attribute:
		p := &plain{parent: f.Parent}
		for _, s := range scopes(f.Scope) {
			p.keys = append(p.keys, storage.SpanKey{Scope: s, Name: f.Name})
		}
		return p, true
	case *syntax.Intrinsic:
		p := &plain{id: f.ID, typ: syntax.TypeOf(f), parent: f.Parent}
		switch f.ID {
		case syntax.Name:
			p.keys = fields(storage.SpanName)
		case syntax.Status:
			p.keys = fields(storage.SpanStatus)
		case syntax.StatusMessage:
			p.keys = fields(storage.SpanStatusMessage)
		case syntax.Kind:
			p.keys = fields(storage.SpanKindField)
		case syntax.SpanID:
			p.keys, p.length = fields(storage.SpanIDField), 16
		case syntax.ParentID:
			p.keys, p.length = fields(storage.SpanParent), 16
		case syntax.EventName:
			p.keys = fields(storage.EventName)
		case syntax.EventTime:
			p.keys = fields(storage.EventTime)
		case syntax.LinkTraceID:
			p.keys, p.length = fields(storage.LinkTrace), 32
		case syntax.LinkSpanID:
			p.keys, p.length = fields(storage.LinkSpan), 16
		case syntax.InstrumentationName:
			p.keys = fields(storage.ScopeName)
		case syntax.InstrumentationVersion:
			p.keys = fields(storage.ScopeVersion)
		case syntax.TraceID:
			p.length = 32
		case syntax.Duration, syntax.ChildCount, syntax.ParentSpan, syntax.NestedSetLeft, syntax.NestedSetRight,
			syntax.NestedSetParent, syntax.TraceDuration, syntax.RootName, syntax.RootService:
		}
		if p.typ == syntax.TypeString || p.typ == syntax.TypeNil {
			p.typ = syntax.TypeAny
		}
		return p, true
	default:
		return nil, false
	}
}

func fields(f storage.SpanField) []storage.SpanKey { return []storage.SpanKey{storage.Field(f)} }

// scopes returns where an attribute is looked for, in this order.
func scopes(s syntax.Scope) []storage.AttrScope {
	switch s {
	case syntax.SpanScope:
		return []storage.AttrScope{storage.RecordScope}
	case syntax.ResourceScope:
		return []storage.AttrScope{storage.ResourceScope}
	case syntax.EventScope:
		return []storage.AttrScope{storage.EventScope}
	case syntax.LinkScope:
		return []storage.AttrScope{storage.LinkScope}
	case syntax.InstrumentationScope:
		return []storage.AttrScope{storage.InstrumentationScope}
	default:
		return []storage.AttrScope{storage.RecordScope, storage.ResourceScope}
	}
}

// columns returns the columns of the field; the first with a value for a row counts.
func (p *plain) columns(b *Block) ([]*column, error) {
	if len(p.keys) == 0 {
		c, err := b.computed(p.id)
		return []*column{c}, err
	}
	out := make([]*column, len(p.keys))
	for i, k := range p.keys {
		var err error
		if out[i], err = b.stored(k, p.typ); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Keys returns the keys of columns that the fields are read from.
func Keys(fs ...syntax.Field) []storage.SpanKey {
	var out []storage.SpanKey
	for _, f := range fs {
		switch f := f.(type) {
		case *syntax.Unary:
			out = append(out, Keys(f.X)...)
		case *syntax.Binary:
			out = append(out, Keys(f.L, f.R)...)
		default:
			p, ok := plainOf(f)
			if !ok {
				continue
			}
			out = append(out, p.keys...)
			switch {
			case len(p.keys) > 0:
			case p.id == syntax.RootName:
				out = append(out, storage.Field(storage.SpanName))
			case p.id == syntax.RootService:
				out = append(out, serviceName())
			}
		}
	}
	return out
}

// Whole says whether the fields need whole traces: they are about other spans of the trace, or about its shape.
func Whole(fs ...syntax.Field) bool {
	for _, f := range fs {
		switch f := f.(type) {
		case *syntax.Unary:
			if Whole(f.X) {
				return true
			}
		case *syntax.Binary:
			if f.Op.Comparison() && asksForRoot(f) {
				continue
			}
			if Whole(f.L, f.R) {
				return true
			}
		case *syntax.Attribute:
			if f.Parent {
				return true
			}
		case *syntax.Intrinsic:
			switch f.ID {
			case syntax.ChildCount, syntax.NestedSetLeft, syntax.NestedSetRight, syntax.NestedSetParent, syntax.TraceDuration,
				syntax.RootName, syntax.RootService:
				return true
			default:
				if f.Parent {
					return true
				}
			}
		}
	}
	return false
}

// asksForRoot says whether a comparison is nestedSetParent < 0 or nestedSetParent = -1, which is known of each span alone.
func asksForRoot(f *syntax.Binary) bool {
	i, ok := f.L.(*syntax.Intrinsic)
	if !ok || i.ID != syntax.NestedSetParent {
		return false
	}
	s, ok := f.R.(*syntax.Static)
	return ok && s.Type == syntax.TypeInt && (f.Op == syntax.Less && s.Int == 0 || f.Op == syntax.Equal && s.Int == -1)
}

// expr is an expression that is computed row by row.
type expr interface {
	// load gets the columns of a block, before value.
	load(b *Block) error
	// value returns what the expression is worth in a row: of several values the first.
	value(row int) Value
	// list appends all values, those of arrays one by one.
	list(dst []Value, row int) []Value
}

// compileExpr prepares an expression that was checked.
func compileExpr(f syntax.Field) expr {
	switch f := f.(type) {
	case *syntax.Static:
		return fixed{constant(f)}
	case *syntax.Unary:
		return &unaryExpr{f.Op, compileExpr(f.X)}
	case *syntax.Binary:
		e := &binaryExpr{op: f.Op, l: compileExpr(f.L), r: compileExpr(f.R)}
		if f.Op == syntax.Matches || f.Op == syntax.NotMatches {
			e.re = compileRegexp(f.R)
		}
		return e
	default:
		p, _ := plainOf(f)
		return &fieldExpr{plain: p}
	}
}

func compileRegexp(f syntax.Field) *labels.FastRegexMatcher {
	re, err := labels.NewFastRegexMatcher(f.(*syntax.Static).Text)
	if err != nil {
		panic("a query that was not checked: " + err.Error())
	}
	return re
}

type fixed struct{ Value }

func (e fixed) load(*Block) error               { return nil }
func (e fixed) value(int) Value                 { return e.Value }
func (e fixed) list(dst []Value, _ int) []Value { return elements(dst, e.Value) }

type fieldExpr struct {
	plain   *plain
	columns []*column
	parents []int32
	rows    int
}

func (e *fieldExpr) load(b *Block) error {
	var err error
	if e.plain.parent {
		if e.parents, err = b.Parents(); err != nil {
			return err
		}
	}
	e.rows = b.Len()
	e.columns, err = e.plain.columns(b)
	return err
}

// find returns the column that has values for the row, and which.
func (e *fieldExpr) find(row int) (c *column, lo, hi int) {
	if e.plain.parent {
		if row = int(e.parents[row]); row < 0 {
			return nil, 0, 0
		}
	}
	for _, c := range e.columns {
		if lo, hi := c.at(row, e.rows); lo < hi {
			return c, lo, hi
		}
	}
	return nil, 0, 0
}

func (e *fieldExpr) value(row int) Value {
	if c, lo, hi := e.find(row); lo < hi {
		return c.value(lo)
	}
	return Nil()
}

func (e *fieldExpr) list(dst []Value, row int) []Value {
	c, lo, hi := e.find(row)
	for i := lo; i < hi; i++ {
		dst = elements(dst, c.value(i))
	}
	return dst
}

type unaryExpr struct {
	op syntax.Op
	x  expr
}

func (e *unaryExpr) load(b *Block) error { return e.x.load(b) }

func (e *unaryExpr) value(row int) Value {
	if e.op == syntax.Not {
		return opposite(e.x, row)
	}
	v := e.x.value(row)
	switch {
	case e.op == syntax.Subtract && v.Type == syntax.TypeFloat:
		return Value{v.Type, telemetry.Double(-v.Value.Double())}
	case e.op == syntax.Subtract && v.Type.Numeric():
		return number(v.Type, -v.Value.Int())
	default:
		return Nil()
	}
}

// opposite returns what ! makes of a condition: no value of what is none. Of several values any may be the one.
func opposite(e expr, row int) Value {
	some := false
	for _, v := range e.list(nil, row) {
		if v.Type != syntax.TypeBool {
			continue
		}
		if !v.Value.Bool() {
			return boolean(true)
		}
		some = true
	}
	if some {
		return boolean(false)
	}
	return Nil()
}

func (e *unaryExpr) list(dst []Value, row int) []Value { return elements(dst, e.value(row)) }

type binaryExpr struct {
	op     syntax.Op
	l, r   expr
	re     *labels.FastRegexMatcher
	ls, rs []Value
}

func (e *binaryExpr) load(b *Block) error {
	if err := e.l.load(b); err != nil {
		return err
	}
	return e.r.load(b)
}

// truth says whether a condition holds in a row: of several values any may be true.
func truth(e expr, row int) bool {
	if _, ok := e.(*fieldExpr); !ok {
		v := e.value(row)
		return v.Type == syntax.TypeBool && v.Value.Bool()
	}
	for _, v := range e.list(nil, row) {
		if v.Type == syntax.TypeBool && v.Value.Bool() {
			return true
		}
	}
	return false
}

func (e *binaryExpr) value(row int) Value {
	switch {
	case e.op == syntax.And:
		return boolean(truth(e.l, row) && truth(e.r, row))
	case e.op == syntax.Or:
		return boolean(truth(e.l, row) || truth(e.r, row))
	case e.op.Arithmetic():
		return Arithmetic(e.op, e.l.value(row), e.r.value(row))
	}
	if l, r := isNil(e.l), isNil(e.r); l || r {
		lv, rv := e.l.value(row), e.r.value(row)
		return boolean((lv.IsNil() == rv.IsNil()) == (e.op == syntax.Equal))
	}
	if e.re == nil && single(e.l) && single(e.r) {
		return boolean(Holds(e.op, e.l.value(row), e.r.value(row)))
	}
	e.ls, e.rs = e.l.list(e.ls[:0], row), e.r.list(e.rs[:0], row)
	if e.re != nil {
		return boolean(matches(e.op, e.ls, e.re))
	}
	return boolean(compares(e.op, e.ls, e.rs))
}

func (e *binaryExpr) list(dst []Value, row int) []Value { return append(dst, e.value(row)) }

// single says whether an expression has one value at most, and no array.
func single(e expr) bool {
	_, many := e.(*fieldExpr)
	return !many
}

func isNil(e expr) bool {
	f, ok := e.(fixed)
	return ok && f.IsNil()
}

// matches says whether a text among vs matches; for !~ whether there are texts, and none does.
func matches(op syntax.Op, vs []Value, re *labels.FastRegexMatcher) bool {
	texts := false
	for _, v := range vs {
		if v.Type != syntax.TypeString {
			continue
		}
		texts = true
		if re.MatchString(v.Value.Str()) {
			return op == syntax.Matches
		}
	}
	return texts && op == syntax.NotMatches
}
