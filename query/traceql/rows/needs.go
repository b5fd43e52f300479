package rows

import (
	"math"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

// Needs returns predicates of which each matches some row of every trace that has a row for which the condition holds.
func Needs(f syntax.Field) []storage.Predicate {
	if f == nil {
		return nil
	}
	n := needs(f, true)
	if n.row != nil {
		return append(n.others, n.row)
	}
	return n.others
}

// needed is what there must be for a condition to hold in a row.
type needed struct {
	row    storage.Predicate   // matches the row, nil for any
	others []storage.Predicate // each matches some row of the trace
}

// some returns one of the predicates, nil when there is none.
func (n needed) some() storage.Predicate {
	switch {
	case n.row != nil:
		return n.row
	case len(n.others) > 0:
		return n.others[0]
	default:
		return nil
	}
}

// needs returns what there must be for f to be true in a row, or false.
func needs(f syntax.Field, want bool) needed {
	switch f := f.(type) {
	case *syntax.Attribute, *syntax.Intrinsic:
		p, _ := plainOf(f)
		return p.needs(syntax.Equal, boolean(want), nil)
	case *syntax.Unary:
		if f.Op == syntax.Not {
			return needs(f.X, !want)
		}
	case *syntax.Binary:
		if want {
			return needsBinary(f)
		}
	}
	return needed{}
}

func needsBinary(f *syntax.Binary) needed {
	switch {
	case f.Op == syntax.And:
		l, r := needs(f.L, true), needs(f.R, true)
		out := needed{others: append(l.others, r.others...)}
		switch {
		case l.row == nil:
			out.row = r.row
		case r.row == nil:
			out.row = l.row
		default:
			out.row = append(flat(l.row), flat(r.row)...)
		}
		return out
	case f.Op == syntax.Or:
		l, r := needs(f.L, true), needs(f.R, true)
		if l.row != nil && r.row != nil {
			return needed{row: storage.Or{l.row, r.row}}
		}
		a, b := l.some(), r.some()
		if a == nil || b == nil {
			return needed{}
		}
		return needed{others: []storage.Predicate{storage.Or{a, b}}}
	case !f.Op.Comparison():
		return needed{}
	}
	op, l, r := f.Op, f.L, f.R
	if _, ok := l.(*syntax.Static); ok {
		op, l, r = turned(op), r, l
	}
	p, ok := plainOf(l)
	s, isStatic := r.(*syntax.Static)
	if !ok || !isStatic {
		return needed{}
	}
	v := constant(s)
	if p.length > 0 && s.Type == syntax.TypeString && (op == syntax.Equal || op == syntax.NotEqual) {
		v.Value = telemetry.String(padded(s.Text, p.length))
	}
	var re *labels.FastRegexMatcher
	if op == syntax.Matches || op == syntax.NotMatches {
		re = compileRegexp(s)
	}
	return p.needs(op, v, re)
}

func flat(p storage.Predicate) storage.And {
	if and, ok := p.(storage.And); ok {
		return and
	}
	return storage.And{p}
}

// needs returns what there must be for a comparison of the field to hold in a row.
func (p *plain) needs(op syntax.Op, with Value, re *labels.FastRegexMatcher) needed {
	if with.IsNil() && op == syntax.Equal {
		return needed{}
	}
	if p.parent {
		own := *p
		own.parent = false
		if n := own.needs(op, with, re); n.row != nil {
			return needed{others: []storage.Predicate{n.row}}
		}
		return needed{}
	}
	if len(p.keys) > 0 {
		var out storage.Or
		for _, k := range p.keys {
			out = append(out, match(k, p.typ, op, with, re))
		}
		if len(out) == 1 {
			return needed{row: out[0]}
		}
		return needed{row: out}
	}
	switch {
	case p.id == syntax.TraceID && op == syntax.Equal:
		if id, err := telemetry.ParseTraceID(with.Value.Str()); err == nil && !id.IsZero() {
			return needed{row: storage.TraceIn{id}}
		}
	case p.id == syntax.Duration && with.Type.Numeric():
		iv := intervalOf(op, with)
		if iv.not {
			break
		}
		if iv.has(0) { // those that end before they start
			iv.lo = math.MinInt64
		}
		return needed{row: storage.DurationRange{Min: iv.lo, Max: iv.hi}}
	case p.id == syntax.RootName && !unknown(op, with, re):
		return needed{others: []storage.Predicate{match(storage.Field(storage.SpanName), syntax.TypeAny, op, with, re)}}
	case p.id == syntax.RootService && !unknown(op, with, re):
		return needed{others: []storage.Predicate{match(serviceName(), syntax.TypeAny, op, with, re)}}
	}
	return needed{}
}

// unknown says whether a comparison holds for the root of a trace without one.
func unknown(op syntax.Op, with Value, re *labels.FastRegexMatcher) bool {
	empty := []Value{{syntax.TypeString, telemetry.String("")}}
	if re != nil {
		return matches(op, empty, re)
	}
	return op == syntax.NotEqual || compares(op, empty, []Value{with})
}

// match returns the predicate that a row has a value that alone does not speak against the comparison.
func match(key storage.SpanKey, typ syntax.Type, op syntax.Op, with Value, re *labels.FastRegexMatcher) storage.Predicate {
	m := storage.ValueMatch{Key: key}
	m.Accept = func(v telemetry.Value) bool {
		val := typed(v)
		if typ != syntax.TypeAny && val.Type == syntax.TypeInt {
			val.Type = typ
		}
		if with.IsNil() {
			return !val.IsNil()
		}
		vs := elements(nil, val)
		if re != nil {
			return matches(op, vs, re)
		}
		return compares(op, vs, []Value{with})
	}
	switch {
	case op == syntax.Matches:
		for _, s := range re.SetMatches() {
			m.Equal = append(m.Equal, telemetry.String(s))
		}
	case op != syntax.Equal:
	case with.Type == syntax.TypeFloat || with.Type == syntax.TypeInt || with.Type == syntax.TypeDuration:
		m.Equal = numbers(with)
	case with.Type == syntax.TypeNil, with.Type == syntax.TypeAny:
	default:
		m.Equal = []telemetry.Value{with.Value}
	}
	return m
}

// numbers returns all values that are equal to a number; nil when there is no telling.
func numbers(v Value) []telemetry.Value {
	f, _ := v.Number()
	if math.Abs(f) >= 1<<53 || math.IsNaN(f) {
		return nil
	}
	var out []telemetry.Value
	if f == math.Trunc(f) {
		out = append(out, telemetry.Int(int64(f)))
	}
	if f == 0 {
		return append(out, telemetry.Double(0), telemetry.Double(math.Copysign(0, -1)))
	}
	return append(out, telemetry.Double(f))
}
