package syntax

import (
	"math"
	"strconv"
	"time"
)

// field reads an expression about a span whose operators bind stronger than min.
func (p *parser) field(min int) (Field, error) {
	if err := p.enter(p.peek()); err != nil {
		return nil, err
	}
	defer p.leave()
	l, err := p.operandField()
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		op := p.peek()
		prec := precedence(op)
		if prec == 0 || prec <= min {
			return l, nil
		}
		o := Op(op.s)
		if o != And && o != Or && !o.Comparison() && !o.Arithmetic() {
			return nil, p.fail(op, "unexpected %s; it stands between sets of spans, not inside of one", op.describe())
		}
		if err := p.part(op); err != nil {
			return nil, err
		}
		if n > maxParts/4 {
			return nil, p.fail(op, "there are more than %d operators in a row; use parentheses", maxParts/4)
		}
		p.next()
		bind := prec
		if op.is("^") {
			bind--
		}
		r, err := p.field(bind)
		if err != nil {
			return nil, err
		}
		l = &Binary{at(op.at), o, l, r}
	}
}

// operandField reads what stands between operators of fields.
func (p *parser) operandField() (Field, error) {
	t := p.next()
	if err := p.part(t); err != nil {
		return nil, err
	}
	switch {
	case t.is("("):
		f, err := p.field(0)
		if err != nil {
			return nil, err
		}
		return f, p.want(")")
	case t.is("-"), t.is("!"):
		if err := p.enter(t); err != nil {
			return nil, err
		}
		defer p.leave()
		x, err := p.operandField()
		if err != nil {
			return nil, err
		}
		if s, ok := x.(*Static); ok && t.is("-") && s.Type.Numeric() {
			s.Int, s.Float, s.at = -s.Int, -s.Float, at(t.at)
			return s, nil
		}
		return &Unary{at(t.at), Op(t.s), x}, nil
	case t.kind == field:
		return attributeOf(t), nil
	case t.kind == ident:
		if i, ok := lookup(t.s); ok {
			return &Intrinsic{at: at(t.at), ID: i.id, Name: i.name}, nil
		}
	}
	return p.static(t)
}

func attributeOf(t token) Field {
	a := &Attribute{at: at(t.at), Name: t.s}
	switch t.scope {
	case "span":
		a.Scope = SpanScope
	case "resource":
		a.Scope = ResourceScope
	case "event":
		a.Scope = EventScope
	case "link":
		a.Scope = LinkScope
	case "instrumentation":
		a.Scope = InstrumentationScope
	case "parent":
		if i, ok := lookup("parent." + t.s); ok {
			return &Intrinsic{a.at, i.id, true, i.name}
		}
		a.Parent = true
	case "parent.span":
		a.Scope, a.Parent = SpanScope, true
	case "parent.resource":
		a.Scope, a.Parent = ResourceScope, true
	}
	return a
}

// static reads a constant.
func (p *parser) static(t token) (*Static, error) {
	s := &Static{at: at(t.at)}
	switch t.kind {
	case text:
		s.Type, s.Text = TypeString, t.s
		return s, nil
	case number:
		if n, err := strconv.ParseInt(t.s, 10, 64); err == nil {
			s.Type, s.Int = TypeInt, n
			return s, nil
		}
		f, err := strconv.ParseFloat(t.s, 64)
		if err != nil || digits(t.s) {
			return nil, p.fail(t, "%s is too large for a number", t.describe())
		}
		s.Type, s.Float = TypeFloat, f
		return s, nil
	case length:
		d, err := time.ParseDuration(t.s)
		if err != nil {
			return nil, p.fail(t, "%s is no duration; want a number with ns, us, ms, s, m or h", t.describe())
		}
		s.Type, s.Int = TypeDuration, int64(d)
		return s, nil
	case ident:
		if typ, n, ok := word(t.s); ok {
			s.Type, s.Int = typ, n
			return s, nil
		}
		return nil, p.fail(t, "%s is neither an intrinsic nor a constant; an attribute begins with a dot or a scope, as in .%s or span.%s", t.describe(), cut(t.s), cut(t.s))
	default:
		return nil, p.fail(t, "unexpected %s; want a field or a constant", t.describe())
	}
}

func digits(s string) bool {
	for i := range len(s) {
		if !digit(s[i]) {
			return false
		}
	}
	return true
}

// words are the constants that have names, by type.
func words() map[Type][]string {
	return map[Type][]string{
		TypeStatus: {"unset", "ok", "error"},
		TypeKind:   {"unspecified", "internal", "server", "client", "producer", "consumer"},
		TypeBool:   {"false", "true"},
		TypeNil:    {"nil"},
	}
}

func word(s string) (Type, int64, bool) {
	switch s {
	case "minInt":
		return TypeInt, math.MinInt64, true
	case "maxInt":
		return TypeInt, math.MaxInt64, true
	}
	for t, names := range words() {
		for i, name := range names {
			if name == s {
				return t, int64(i), true
			}
		}
	}
	return 0, 0, false
}

// Number returns the value of a constant as a float: a duration in nanoseconds.
func (s *Static) Number() float64 {
	if s.Type == TypeFloat {
		return s.Float
	}
	return float64(s.Int)
}

// Integers computes with integers; it says false for a division by zero. What does not fit wraps around, except that a power
// stays at the largest or smallest integer.
func Integers(op Op, a, b int64) (int64, bool) {
	switch op {
	case Add:
		return a + b, true
	case Subtract:
		return a - b, true
	case Multiply:
		return a * b, true
	case Divide:
		if b == 0 {
			return 0, false
		}
		return a / b, true
	case Modulo:
		if b == 0 {
			return 0, false
		}
		return a % b, true
	case Power:
		v := math.Pow(float64(a), float64(b))
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0) && b < 0:
			return 0, false
		case v >= math.MaxInt64:
			return math.MaxInt64, true
		case v <= math.MinInt64:
			return math.MinInt64, true
		}
		return int64(v), true
	default:
		return 0, false
	}
}

// Floats computes with floats.
func Floats(op Op, a, b float64) float64 {
	switch op {
	case Add:
		return a + b
	case Subtract:
		return a - b
	case Multiply:
		return a * b
	case Divide:
		return a / b
	case Modulo:
		return math.Mod(a, b)
	case Power:
		return math.Pow(a, b)
	default:
		return math.NaN()
	}
}
