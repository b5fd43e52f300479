package syntax

import (
	"math"
	"slices"
	"strconv"
)

const (
	// MaxLength bounds a query, in bytes.
	MaxLength = 128 << 10
	// MaxRegexp bounds a regular expression, in bytes.
	MaxRegexp = 8 << 10
	// maxParts bounds the stages, fields and operators of a query together.
	maxParts = 2000
	// maxDepth bounds how deep parentheses and operations stand in each other.
	maxDepth = 200
	// DefaultTop is how many values compare tells of an attribute when the query does not say.
	DefaultTop = 10
	maxTop     = 1000
)

// Parse reads a query. Errors are of the type *Error. What it returns may still mean nothing: see Check.
func Parse(s string) (*Query, error) {
	p, err := newParser(s)
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind == end {
		return nil, p.fail(t, "the query is empty; want a set of spans such as { status = error }")
	}
	q := &Query{src: s}
	first := p.peek()
	if q.Node, err = p.pipeline(); err != nil {
		return nil, err
	}
	if s := sortOf(q.Node); s == scalar || s == constant {
		return nil, p.fail(first, "this is %s; compare it with something, as in count() > 2", s)
	}
	if p.peek().word("with") {
		if q.Hints, err = p.hints(); err != nil {
			return nil, err
		}
	}
	if t := p.peek(); t.kind != end {
		return nil, p.fail(t, "unexpected %s; want |, with or the end of the query%s", t.describe(), forWrapped(q.Node, t))
	}
	return q, nil
}

// ParseField reads an attribute or an intrinsic, and nothing behind it. Errors are of the type *Error.
func ParseField(s string) (Field, error) {
	p, err := newParser(s)
	if err != nil {
		return nil, err
	}
	t := p.peek()
	f, err := p.operandField()
	if err != nil {
		return nil, err
	}
	switch f.(type) {
	case *Attribute, *Intrinsic:
	default:
		return nil, p.fail(t, "unexpected %s; want an attribute or an intrinsic", t.describe())
	}
	if t := p.peek(); t.kind != end {
		return nil, p.fail(t, "unexpected %s; want nothing behind the field", t.describe())
	}
	return f, nil
}

// Salvage reads a filter that is being typed: { resource.cluster = "eu" && name = }. Of what it cannot read it leaves out as
// little as it can; it returns nil when nothing is left. A query with several sets of spans is none.
func Salvage(s string) *Filter {
	if q, err := Parse(s); err == nil && Check(q) == nil {
		f, _ := q.Node.(*Filter)
		return f
	}
	p, err := newParser(s)
	if err != nil || !p.take("{") {
		return nil
	}
	p.tokens = p.tokens[p.i:]
	if n := slices.IndexFunc(p.tokens, func(t token) bool { return t.is("}") }); n >= 0 {
		if p.tokens[n+1].kind != end {
			return nil
		}
		p.tokens = p.tokens[:n]
	} else {
		p.tokens = p.tokens[:len(p.tokens)-1]
	}
	f := &Filter{}
	for i, alternative := range split(p.tokens, "||") {
		var all Field
		for _, part := range split(alternative, "&&") {
			if c := p.salvaged(part); c != nil && all != nil {
				all = &Binary{0, And, all, c}
			} else if c != nil {
				all = c
			}
		}
		switch {
		case all == nil:
			return nil
		case i == 0:
			f.Cond = all
		default:
			f.Cond = &Binary{0, Or, f.Cond, all}
		}
	}
	return f
}

// split cuts tokens at an operator outside of parentheses.
func split(tokens []token, op string) [][]token {
	var out [][]token
	depth, from := 0, 0
	for i, t := range tokens {
		switch {
		case t.is("("):
			depth++
		case t.is(")"):
			depth--
		case t.is(op) && depth == 0:
			out = append(out, tokens[from:i])
			from = i + 1
		}
	}
	return append(out, tokens[from:])
}

// salvaged returns the condition that tokens are, nil when they are none.
func (p *parser) salvaged(tokens []token) Field {
	q := &parser{src: p.src, tokens: append(slices.Clone(tokens), token{kind: end, at: len(p.src)})}
	f, err := q.field(0)
	if err != nil || q.peek().kind != end || (checker{p.src}).condition(f) != nil {
		return nil
	}
	return f
}

// forWrapped says what arithmetic of series needs.
func forWrapped(n Node, t token) string {
	if sortOf(n) == metrics && t.kind == operator {
		return "; for arithmetic put each query in parentheses"
	}
	return ""
}

// parser reads tokens. Its methods return errors of the type *Error.
type parser struct {
	src    string
	tokens []token
	i      int
	parts  int
	depth  int
}

func newParser(s string) (*parser, error) {
	if len(s) > MaxLength {
		return nil, mistake(s, MaxLength, "the query is longer than %d bytes", MaxLength)
	}
	tokens, err := scan(s)
	if err != nil {
		return nil, err
	}
	return &parser{src: s, tokens: tokens}, nil
}

func (p *parser) fail(t token, format string, args ...any) error {
	return mistake(p.src, t.at, format, args...)
}

func (p *parser) peek() token { return p.tokens[p.i] }

func (p *parser) next() token {
	t := p.tokens[p.i]
	if t.kind != end {
		p.i++
	}
	return t
}

// take moves past an operator when it is next.
func (p *parser) take(op string) bool {
	if p.peek().is(op) {
		p.i++
		return true
	}
	return false
}

func (p *parser) want(op string) error {
	if t := p.peek(); !p.take(op) {
		return p.fail(t, "unexpected %s; want %s", t.describe(), op)
	}
	return nil
}

// part counts what a query consists of.
func (p *parser) part(t token) error {
	if p.parts++; p.parts > maxParts {
		return p.fail(t, "the query has more than %d stages, fields and operators", maxParts)
	}
	return nil
}

// enter counts how deep the parser is; leave must follow.
func (p *parser) enter(t token) error {
	if p.depth++; p.depth > maxDepth {
		return p.fail(t, "the query is nested deeper than %d", maxDepth)
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

// pipeline reads stages with | between them.
func (p *parser) pipeline() (Node, error) {
	if err := p.enter(p.peek()); err != nil {
		return nil, err
	}
	defer p.leave()
	start := p.peek()
	var stages []Node
	for {
		t := p.peek()
		if err := p.part(t); err != nil {
			return nil, err
		}
		if f, ok, err := p.metric(stages); err != nil {
			return nil, err
		} else if ok {
			return p.second(&MetricPipe{at(start.at), stages, f})
		}
		n, err := p.stage(len(stages) == 0)
		if err != nil {
			return nil, err
		}
		switch sortOf(n) {
		case metrics:
			if len(stages) > 0 {
				return nil, p.fail(t, "series cannot follow |; want a stage such as count() > 2, or a function such as rate()")
			}
			return p.second(n)
		case constant:
			if len(stages) > 0 {
				return nil, p.fail(t, "a constant cannot follow |; want a stage such as count() > 2")
			}
			return n, nil
		case scalar:
			if len(stages) > 0 {
				if !p.peek().is(")") {
					return nil, p.fail(p.peek(), "unexpected %s; want a comparison, as in count() > 2", p.peek().describe())
				}
				return &ScalarPipe{at(start.at), stages, n}, nil
			}
			return n, nil
		case spans:
			stages = append(stages, n)
		}
		if !p.take("|") {
			if len(stages) == 1 {
				return stages[0], nil
			}
			return &Pipeline{at(start.at), stages}, nil
		}
	}
}

// second reads what may follow series.
func (p *parser) second(n Node) (Node, error) {
	for {
		t := p.peek()
		switch {
		case comparison(t):
			p.next()
			v, err := p.constant(precedence(t))
			if err != nil {
				return nil, err
			}
			if n, err = p.metricFilter(t, n, v); err != nil {
				return nil, err
			}
		case t.is("|"):
			p.next()
			t := p.next()
			if !t.word("topk") && !t.word("bottomk") {
				return nil, p.fail(t, "unexpected %s; only topk and bottomk can follow series", t.describe())
			}
			if err := p.want("("); err != nil {
				return nil, err
			}
			k := p.next()
			count, err := strconv.Atoi(k.s)
			if k.kind != number || err != nil {
				return nil, p.fail(k, "unexpected %s; want how many series", k.describe())
			}
			if err := p.want(")"); err != nil {
				return nil, err
			}
			n = &TopK{at(t.at), n, count, t.s == "bottomk"}
		default:
			return n, nil
		}
		if err := p.part(t); err != nil {
			return nil, err
		}
	}
}

// comparison says whether t compares series with a number.
func comparison(t token) bool {
	return t.kind == operator && slices.Contains([]string{"=", "!=", "<", "<=", ">", ">="}, t.s)
}

// constant reads a number, or arithmetic of numbers that binds stronger than min.
func (p *parser) constant(min int) (*Number, error) {
	t := p.peek()
	n, err := p.expr(min)
	if err != nil {
		return nil, err
	}
	v, ok := n.(*Number)
	if !ok {
		return nil, p.fail(t, "this is %s; series are compared with a constant", sortOf(n))
	}
	return v, nil
}

func (p *parser) metricFilter(t token, of Node, v *Number) (Node, error) {
	if v.computed && v.Type == TypeDuration {
		return nil, p.fail(t, "there is no arithmetic of durations here; write the result")
	}
	return &MetricFilter{at(t.at), Op(t.s), of, v.Static}, nil
}

// stage reads one stage.
func (p *parser) stage(first bool) (Node, error) {
	t := p.peek()
	if t.kind == ident && p.tokens[p.i+1].is("(") {
		switch t.s {
		case "by":
			p.i += 2
			f, err := p.field(0)
			if err != nil {
				return nil, err
			}
			return &Group{at(t.at), f}, p.want(")")
		case "coalesce":
			if first {
				return nil, p.fail(t, "a query cannot begin with coalesce()")
			}
			p.i += 2
			return &Coalesce{at(t.at)}, p.want(")")
		case "select":
			p.i += 2
			fs, err := p.attributes()
			if err != nil {
				return nil, err
			}
			return &Select{at(t.at), fs}, nil
		}
	}
	return p.expr(0)
}

// attributes reads attributes and intrinsics up to a closing parenthesis.
func (p *parser) attributes() ([]Field, error) {
	var out []Field
	for {
		t := p.peek()
		if err := p.part(t); err != nil {
			return nil, err
		}
		f, err := p.operandField()
		if err != nil {
			return nil, err
		}
		switch f.(type) {
		case *Attribute, *Intrinsic:
		default:
			return nil, p.fail(t, "unexpected %s; want an attribute or an intrinsic", t.describe())
		}
		out = append(out, f)
		if p.take(",") {
			continue
		}
		return out, p.want(")")
	}
}

// precedence returns how strongly a binary operator binds, 0 for what is none.
func precedence(t token) int {
	if t.kind != operator {
		return 0
	}
	switch t.s {
	case "&&", "||":
		return 1
	case "=", "!=", "=~", "!~", ">", ">=", "<", "<=", ">>", "<<", "~", "!>", "!<", "!>>", "!<<", "&>", "&<", "&>>", "&<<", "&~":
		return 2
	case "+", "-":
		return 3
	case "*", "/", "%":
		return 4
	case "^":
		return 5
	default:
		return 0
	}
}

// expr reads an expression whose operators bind stronger than min.
func (p *parser) expr(min int) (Node, error) {
	if err := p.enter(p.peek()); err != nil {
		return nil, err
	}
	defer p.leave()
	l, err := p.operand()
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		op := p.peek()
		prec := precedence(op)
		if prec == 0 || prec <= min {
			return l, nil
		}
		if err := p.part(op); err != nil {
			return nil, err
		}
		if n > maxDepth {
			return nil, p.fail(op, "there are more than %d operators in a row; use parentheses", maxDepth)
		}
		p.next()
		bind := prec
		if op.is("^") { // 2 ^ 3 ^ 2 is 2 ^ (3 ^ 2)
			bind--
		}
		r, err := p.expr(bind)
		if err != nil {
			return nil, err
		}
		if l, err = p.combine(op, l, r); err != nil {
			return nil, err
		}
	}
}

// combine applies an operator to what both sides come to.
func (p *parser) combine(t token, l, r Node) (Node, error) {
	op, ls, rs := Op(t.s), sortOf(l), sortOf(r)
	numbers := func(s sort) bool { return s == scalar || s == constant }
	switch {
	case ls == spans && rs == spans && op.spanset():
		for _, n := range []Node{l, r} {
			if _, ok := n.(*ScalarFilter); ok {
				return nil, p.fail(t, "the operator %s stands between sets of spans; put the comparison in parentheses", op)
			}
		}
		return &Combine{at(t.at), op, l, r}, nil
	case ls == constant && rs == constant && op.Arithmetic():
		v, err := p.fold(t, l.(*Number), r.(*Number))
		if err != nil {
			return nil, err
		}
		return v, nil
	case numbers(ls) && numbers(rs) && ls != rs || ls == scalar && rs == scalar:
		if op.Arithmetic() {
			return &ScalarOp{at(t.at), op, l, r}, nil
		}
		if comparison(t) {
			return &ScalarFilter{at(t.at), op, l, r}, nil
		}
	case ls == metrics && rs == constant && comparison(t):
		return p.metricFilter(t, l, r.(*Number))
	case ls == metrics && (rs == metrics || rs == constant) || ls == constant && rs == metrics:
		switch op {
		case Add, Subtract, Multiply, Divide:
		default:
			return nil, p.fail(t, "%s is not defined for series; use + - * / or compare with a constant", op)
		}
		for _, n := range []Node{l, r} {
			if v, ok := n.(*Number); ok && v.Type == TypeDuration {
				return nil, p.fail(t, "series are not computed with durations; write a number of seconds")
			}
		}
		return &MetricBinary{at(t.at), op, l, r}, nil
	}
	return nil, p.fail(t, "the operator %s is not defined for %s and %s", op, ls, rs)
}

// fold computes with constants. Integers stay integers.
func (p *parser) fold(t token, l, r *Number) (*Number, error) {
	a, b := l.Static, r.Static
	out := &Static{at: a.at, Type: TypeInt}
	switch {
	case a.Type == TypeDuration || b.Type == TypeDuration:
		out.Type = TypeDuration
	case a.Type == TypeFloat || b.Type == TypeFloat:
		out.Type = TypeFloat
	}
	if a.Type != TypeFloat && b.Type != TypeFloat {
		v, ok := Integers(Op(t.s), a.Int, b.Int)
		if !ok {
			return nil, p.fail(t, "a number is divided by zero")
		}
		out.Int = v
		return &Number{a.at, out, true}, nil
	}
	v := Floats(Op(t.s), a.Number(), b.Number())
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil, p.fail(t, "the result is no number")
	}
	if out.Type == TypeDuration {
		out.Int = int64(v)
	} else {
		out.Float = v
	}
	return &Number{a.at, out, true}, nil
}

// operand reads what stands between operators.
func (p *parser) operand() (Node, error) {
	t := p.next()
	if err := p.part(t); err != nil {
		return nil, err
	}
	switch {
	case t.is("{"):
		return p.filter(t)
	case t.is("("):
		n, err := p.pipeline()
		if err != nil {
			return nil, err
		}
		if f, ok := n.(*ScalarFilter); ok {
			n = &Pipeline{at(t.at), []Node{f}}
		}
		return n, p.want(")")
	case t.is("-"):
		if err := p.enter(t); err != nil {
			return nil, err
		}
		defer p.leave()
		n, err := p.operand()
		if err != nil {
			return nil, err
		}
		v, ok := n.(*Number)
		if !ok {
			return nil, p.fail(t, "- stands before %s; want a number", sortOf(n))
		}
		v.Int, v.Float, v.at = -v.Int, -v.Float, at(t.at)
		return v, nil
	case t.kind == number, t.kind == length, t.word("minInt"), t.word("maxInt"):
		s, err := p.static(t)
		if err != nil {
			return nil, err
		}
		return &Number{at(t.at), s, false}, nil
	case t.kind == ident && p.peek().is("("):
		return p.aggregate(t)
	default:
		return nil, p.fail(t, "unexpected %s; want a set of spans such as { status = error }, or a function such as count()", t.describe())
	}
}

// filter reads what stands behind {.
func (p *parser) filter(t token) (*Filter, error) {
	f := &Filter{at: at(t.at)}
	if p.take("}") {
		return f, nil
	}
	var err error
	if f.Cond, err = p.field(0); err != nil {
		return nil, err
	}
	return f, p.want("}")
}

func (p *parser) aggregate(t token) (Node, error) {
	a := &Aggregate{at: at(t.at), Op: AggregateOp(t.s)}
	switch a.Op {
	case Count:
		p.next()
		return a, p.want(")")
	case Avg, Min, Max, Sum:
		p.next()
		var err error
		if a.Of, err = p.field(0); err != nil {
			return nil, err
		}
		return a, p.want(")")
	default:
		return nil, p.fail(t, "%s is no function that can stand here", t.describe())
	}
}

// hints reads with(name=value, ...).
func (p *parser) hints() ([]Hint, error) {
	p.next()
	if err := p.want("("); err != nil {
		return nil, err
	}
	var out []Hint
	for {
		t := p.next()
		if err := p.part(t); err != nil {
			return nil, err
		}
		if t.kind != ident {
			return nil, p.fail(t, "unexpected %s; want the name of a hint", t.describe())
		}
		if err := p.want("="); err != nil {
			return nil, err
		}
		v := p.peek()
		f, err := p.operandField()
		if err != nil {
			return nil, err
		}
		s, ok := f.(*Static)
		if !ok {
			return nil, p.fail(v, "unexpected %s; want a constant", v.describe())
		}
		out = append(out, Hint{t.s, s})
		if !p.take(",") {
			return out, p.want(")")
		}
	}
}
