package rows

import (
	"math"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

// needs returns what every row matches in which f is true, or false.
func needs(f syntax.Field, want bool) storage.Predicate {
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
	return nil
}

func needsBinary(f *syntax.Binary) storage.Predicate {
	switch {
	case f.Op == syntax.And:
		l, r := needs(f.L, true), needs(f.R, true)
		switch {
		case l == nil:
			return r
		case r == nil:
			return l
		}
		return append(flat(l), flat(r)...)
	case f.Op == syntax.Or:
		l, r := needs(f.L, true), needs(f.R, true)
		if l == nil || r == nil {
			return nil
		}
		return storage.Or{l, r}
	case !f.Op.Comparison():
		return nil
	}
	op, l, r := f.Op, f.L, f.R
	if _, ok := l.(*syntax.Static); ok {
		op, l, r = turned(op), r, l
	}
	p, ok := plainOf(l)
	s, isStatic := r.(*syntax.Static)
	if !ok || !isStatic {
		return nil
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

// needs returns what a row matches for which the comparison holds.
func (p *plain) needs(op syntax.Op, with Value, re *labels.FastRegexMatcher) storage.Predicate {
	switch {
	case p.parent, with.IsNil() && op == syntax.Equal:
		return nil
	case len(p.keys) == 0 && p.id == syntax.TraceID:
		if id, err := telemetry.ParseTraceID(with.Value.Str()); err == nil && op == syntax.Equal {
			return storage.TraceIn{id}
		}
		return nil
	case len(p.keys) == 0 && p.id == syntax.Duration && with.Type.Numeric():
		iv := intervalOf(op, with)
		if iv.not {
			return nil
		}
		if iv.has(0) { // those that end before they start
			iv.lo = math.MinInt64
		}
		return storage.DurationRange{Min: iv.lo, Max: iv.hi}
	case len(p.keys) == 0 && p.id == syntax.RootName && !unknown(op, with, re):
		return match(storage.Field(storage.SpanName), syntax.TypeAny, op, with, re)
	case len(p.keys) == 0:
		return nil
	}
	var out storage.Or
	for _, k := range p.keys {
		out = append(out, match(k, p.typ, op, with, re))
	}
	if len(out) == 1 {
		return out[0]
	}
	return out
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
