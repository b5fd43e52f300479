package syntax

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/query/logql/regex"
)

const (
	// MaxLength bounds a query, in bytes.
	MaxLength = 128 << 10
	// MaxRegexp bounds a regular expression, in bytes.
	MaxRegexp = 8 << 10
	// MaxRegexpSize bounds what the regular expressions of a query come to together when repetitions such as a{100} are
	// written out, in characters and operators.
	MaxRegexpSize = 100_000
	// maxParts bounds the stages, alternatives, tests and operators of a query together.
	maxParts = 2000
	// maxDepth bounds how deep parentheses, operations and aggregations stand in each other.
	maxDepth = 200
)

// Parse reads a query. Errors are of the type *Error.
func Parse(s string) (Expr, error) {
	p, err := newParser(s)
	if err != nil {
		return nil, err
	}
	if p.peek().kind == end {
		return nil, p.fail(p.peek(), "the query is empty; want a selector such as {app=\"shop\"}")
	}
	e, err := p.expr(0)
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != end {
		return nil, p.fail(t, "unexpected %s after the query", t.describe())
	}
	return e, nil
}

// ParseSelector reads a stream selector, such as {app="shop"}, and nothing behind it. Errors are of the type *Error.
func ParseSelector(s string) ([]*labels.Matcher, error) {
	p, err := newParser(s)
	if err != nil {
		return nil, err
	}
	ms, err := p.selector()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != end {
		return nil, p.fail(t, "unexpected %s after the selector", t.describe())
	}
	return ms, nil
}

// parser reads tokens. Its methods return errors of the type *Error.
type parser struct {
	src    string
	tokens []token
	i      int
	parts  int
	depth  int

	regexps int // their size together
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

// ahead returns the token n behind the next.
func (p *parser) ahead(n int) token { return p.tokens[min(p.i+n, len(p.tokens)-1)] }

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

func (p *parser) wantText() (token, error) {
	t := p.next()
	if t.kind != text {
		return t, p.fail(t, "unexpected %s; want a quoted text", t.describe())
	}
	return t, nil
}

func (p *parser) wantName() (token, error) {
	t := p.next()
	if t.kind != ident {
		return t, p.fail(t, "unexpected %s; want the name of a label", t.describe())
	}
	return t, nil
}

// part counts what a query consists of.
func (p *parser) part(t token) error {
	if p.parts++; p.parts > maxParts {
		return p.fail(t, "the query has more than %d stages, tests and operators", maxParts)
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

// precedence returns how strongly a binary operator binds, 0 for what is none.
func precedence(t token) int {
	switch t.kind {
	case ident:
		switch t.s {
		case "or":
			return 1
		case "and", "unless":
			return 2
		}
	case operator:
		switch t.s {
		case "==", "!=", ">", ">=", "<", "<=":
			return 3
		case "+", "-":
			return 4
		case "*", "/", "%":
			return 5
		case "^":
			return 6
		}
	default:
	}
	return 0
}

// expr reads an expression whose operators bind stronger than min.
func (p *parser) expr(min int) (Expr, error) {
	if err := p.enter(p.peek()); err != nil {
		return nil, err
	}
	defer p.leave()
	first := p.peek()
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
		if l.Kind() == Lines {
			return nil, p.fail(first, "the operator %s needs numbers, and this is a query for lines", op.s)
		}
		if n > maxDepth {
			return nil, p.fail(op, "more than %d operators in a row; parentheses help", maxDepth)
		}
		if err := p.part(op); err != nil {
			return nil, err
		}
		if l, err = p.binary(l, op, prec); err != nil {
			return nil, err
		}
	}
}

func (p *parser) binary(l Expr, op token, prec int) (Expr, error) {
	p.next()
	b := &Binary{Op: op.s, L: l}
	if t := p.peek(); t.word("bool") {
		if prec != 3 {
			return nil, p.fail(t, "bool is for comparisons only")
		}
		p.next()
		b.Bool = true
	}
	m, mt, err := p.matching(prec <= 2)
	if err != nil {
		return nil, err
	}
	b.Matching = m
	at := p.peek()
	if prec == 6 {
		prec-- // from right to left
	}
	if b.R, err = p.expr(prec); err != nil {
		return nil, err
	}
	switch {
	case b.R.Kind() == Lines:
		return nil, p.fail(at, "the operator %s needs numbers, and this is a query for lines", op.s)
	case precedence(op) <= 2 && (b.L.Kind() == Scalar || b.R.Kind() == Scalar):
		return nil, p.fail(op, "%s needs a vector on both sides", op.s)
	case m != nil && (b.L.Kind() == Scalar || b.R.Kind() == Scalar):
		return nil, p.fail(mt, "%s needs a vector on both sides of the operator", mt.s)
	}
	return b, nil
}

// matching reads on(...), ignoring(...), group_left(...) and group_right(...).
func (p *parser) matching(set bool) (*Matching, token, error) {
	t := p.peek()
	if !t.word("on") && !t.word("ignoring") {
		if t.word("group_left") || t.word("group_right") {
			return nil, t, p.fail(t, "%s stands behind on(...) or ignoring(...)", t.s)
		}
		return nil, t, nil
	}
	p.next()
	m := &Matching{On: t.s == "on"}
	var err error
	if m.Labels, err = p.names(); err != nil {
		return nil, t, err
	}
	g := p.peek()
	if g.word("group_left") || g.word("group_right") {
		if set {
			return nil, t, p.fail(g, "%s is not for and, or and unless", g.s)
		}
		p.next()
		m.Group = strings.TrimPrefix(g.s, "group_")
		if p.peek().is("(") && p.listFollows() {
			if m.Include, err = p.names(); err != nil {
				return nil, t, err
			}
		}
		for _, name := range m.Include {
			if m.On && slices.Contains(m.Labels, name) {
				return nil, t, p.fail(g, "the label %s stands in both on and %s", name, g.s)
			}
		}
	}
	return m, t, nil
}

// listFollows says whether the parenthesis that is next holds names only, followed by the beginning of an operand.
func (p *parser) listFollows() bool {
	for n := 1; ; n++ {
		switch t := p.ahead(n); {
		case t.is(")"):
			a := p.ahead(n + 1)
			return a.kind == ident || a.kind == number || a.is("(") || a.is("-") || a.is("+")
		case t.kind == ident, t.is(","):
		default:
			return false
		}
	}
}

// names reads (a, b).
func (p *parser) names() ([]string, error) {
	if err := p.want("("); err != nil {
		return nil, err
	}
	out := []string{}
	for {
		if p.take(")") {
			return out, nil
		}
		if len(out) > 0 {
			if err := p.want(","); err != nil {
				return nil, err
			}
			if p.take(")") {
				return out, nil
			}
		}
		t, err := p.wantName()
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, t.s) {
			out = append(out, t.s)
		}
	}
}

// operand reads what stands between operators.
func (p *parser) operand() (Expr, error) {
	t := p.peek()
	switch {
	case t.is("{"):
		return p.log()
	case t.is("("):
		p.next()
		e, err := p.expr(0)
		if err != nil {
			return nil, err
		}
		if err := p.want(")"); err != nil {
			return nil, err
		}
		if l, ok := e.(*Log); ok && p.stageFollows() {
			return p.stages(&Log{Matchers: l.Matchers, Stages: slices.Clone(l.Stages)})
		}
		return e, nil
	case t.is("-"), t.is("+"):
		p.next()
		if n := p.peek(); n.kind == number {
			e, err := p.number()
			if err == nil && t.s == "-" {
				e.Value = -e.Value
			}
			return e, err
		}
		e, err := p.expr(5) // stronger than all but ^
		if err != nil {
			return nil, err
		}
		if e.Kind() == Lines {
			return nil, p.fail(t, "the operator %s needs numbers, and this is a query for lines", t.s)
		}
		if t.s == "+" {
			return e, nil
		}
		return &Negation{e}, nil
	case t.kind == number:
		return p.number()
	case t.kind == ident:
		return p.call()
	default:
		return nil, p.fail(t, "unexpected %s; want a selector such as {app=\"shop\"}, a function or a number", t.describe())
	}
}

func (p *parser) number() (*Number, error) {
	t := p.next()
	v, err := parseNumber(t.s)
	if t.kind != number || err != nil {
		return nil, p.fail(t, "unexpected %s; want a number", t.describe())
	}
	return &Number{v}, nil
}

func parseNumber(s string) (float64, error) {
	if n, err := strconv.ParseInt(s, 0, 64); err == nil && strings.HasPrefix(strings.ToLower(s), "0x") {
		return float64(n), nil
	}
	return strconv.ParseFloat(s, 64)
}

// signed reads a number with its sign.
func (p *parser) signed() (float64, error) {
	sign := 1.0
	if p.take("-") {
		sign = -1
	} else {
		p.take("+")
	}
	if t := p.peek(); t.kind == ident && (strings.EqualFold(t.s, "inf") || strings.EqualFold(t.s, "nan")) {
		p.next()
		if strings.EqualFold(t.s, "nan") {
			return math.NaN(), nil
		}
		return math.Inf(int(sign)), nil
	}
	n, err := p.number()
	if err != nil {
		return 0, err
	}
	return sign * n.Value, nil
}

func (p *parser) call() (Expr, error) {
	t := p.peek()
	switch {
	case t.s == "vector":
		p.next()
		if err := p.want("("); err != nil {
			return nil, err
		}
		v, err := p.signed()
		if err != nil {
			return nil, err
		}
		return &Constant{v}, p.want(")")
	case t.s == "label_replace":
		return p.labelReplace()
	case strings.EqualFold(t.s, "inf"), strings.EqualFold(t.s, "nan"):
		v, err := p.signed()
		return &Number{v}, err
	case rangeOp(t.s):
		return p.rangeAggregation()
	case aggregation(t.s):
		return p.aggregation()
	case t.s == "variants":
		return nil, p.fail(t, "variants is not supported; ask for each of them in a query of its own")
	default:
		return nil, p.fail(t, "unknown function %s", t.describe())
	}
}

func (p *parser) labelReplace() (Expr, error) {
	p.next()
	if err := p.want("("); err != nil {
		return nil, err
	}
	at := p.peek()
	e, err := p.expr(0)
	if err != nil {
		return nil, err
	}
	if e.Kind() != Vector {
		return nil, p.fail(at, "label_replace needs a vector")
	}
	var texts [4]token
	for i := range texts {
		if err := p.want(","); err != nil {
			return nil, err
		}
		if texts[i], err = p.wantText(); err != nil {
			return nil, err
		}
	}
	if !model.LegacyValidation.IsValidLabelName(texts[0].s) {
		return nil, p.fail(texts[0], "%s is not the name of a label", texts[0].describe())
	}
	if err := p.checkRegexp(texts[3], "^(?s:"+texts[3].s+")$"); err != nil {
		return nil, err
	}
	return &LabelReplace{Expr: e, Destination: texts[0].s, Replacement: texts[1].s, Source: texts[2].s, Regexp: texts[3].s}, p.want(")")
}

func (p *parser) checkRegexp(t token, re string) error {
	if len(t.s) > MaxRegexp {
		return p.fail(t, "the regular expression is longer than %d bytes", MaxRegexp)
	}
	size, err := regex.Size(re)
	if err != nil {
		return p.fail(t, "%v", err)
	}
	if p.regexps += size; p.regexps > MaxRegexpSize {
		return p.fail(t, "the regular expressions come to more than %d characters and operators with their repetitions written out: repeat less", MaxRegexpSize)
	}
	if _, err := regexp.Compile(re); err != nil {
		return p.fail(t, "%v", err)
	}
	return nil
}

func aggregation(name string) bool {
	switch Operation(name) {
	case Sum, Avg, Min, Max, Count, Stddev, Stdvar, TopK, BottomK, ApproxTopK, Sort, SortDesc:
		return true
	default:
		return false
	}
}

func (p *parser) aggregation() (Expr, error) {
	t := p.next()
	a := &Aggregation{Op: Operation(t.s), Pos: position(p.src, t.at)}
	var err error
	if a.Grouping, err = p.grouping(); err != nil {
		return nil, err
	}
	if err := p.want("("); err != nil {
		return nil, err
	}
	switch a.Op {
	case TopK, BottomK, ApproxTopK:
		at := p.peek()
		k, err := p.signed()
		if err != nil {
			return nil, err
		}
		if k < 1 || k != math.Trunc(k) || k > math.MaxInt32 {
			return nil, p.fail(at, "%s needs a positive whole number", t.s)
		}
		a.K = int(k)
		if err := p.want(","); err != nil {
			return nil, err
		}
	default:
	}
	at := p.peek()
	if a.Expr, err = p.expr(0); err != nil {
		return nil, err
	}
	if a.Expr.Kind() != Vector {
		return nil, p.fail(at, "%s needs a vector: count_over_time({...}[5m]), for example", t.s)
	}
	if err := p.want(")"); err != nil {
		return nil, err
	}
	if g := p.peek(); g.word("by") || g.word("without") {
		if a.Grouping != nil {
			return nil, p.fail(g, "%s is grouped twice", t.s)
		}
		if a.Grouping, err = p.grouping(); err != nil {
			return nil, err
		}
	}
	if a.Grouping != nil && (a.Op == ApproxTopK || a.Op == Sort || a.Op == SortDesc) {
		return nil, p.fail(t, "%s cannot be grouped", t.s)
	}
	return a, nil
}

// grouping reads by (...) or without (...), nil for neither.
func (p *parser) grouping() (*Grouping, error) {
	t := p.peek()
	if !t.word("by") && !t.word("without") {
		return nil, nil
	}
	p.next()
	names, err := p.names()
	if err != nil {
		return nil, err
	}
	return &Grouping{Without: t.s == "without", Labels: names}, nil
}

func rangeOp(name string) bool {
	switch RangeOp(name) {
	case CountOverTime, Rate, RateCounter, BytesOverTime, BytesRate, AbsentOverTime, SumOverTime, AvgOverTime,
		MinOverTime, MaxOverTime, StddevOverTime, StdvarOverTime, QuantileOverTime, FirstOverTime, LastOverTime:
		return true
	default:
		return false
	}
}

// values says whether the operation needs unwrapped values, and whether it may have them.
func (o RangeOp) values() (needs, allows bool) {
	switch o {
	case CountOverTime, BytesOverTime, BytesRate:
		return false, false
	case Rate, AbsentOverTime:
		return false, true
	default:
		return true, true
	}
}

// groups says whether the operation may be grouped.
func (o RangeOp) groups() bool {
	switch o {
	case AvgOverTime, MinOverTime, MaxOverTime, StddevOverTime, StdvarOverTime, QuantileOverTime, FirstOverTime, LastOverTime:
		return true
	default:
		return false
	}
}

func (p *parser) rangeAggregation() (Expr, error) {
	t := p.next()
	r := &Range{Op: RangeOp(t.s), Pos: position(p.src, t.at)}
	if err := p.want("("); err != nil {
		return nil, err
	}
	if r.Op == QuantileOverTime {
		var err error
		if r.Param, err = p.signed(); err != nil {
			return nil, err
		}
		if err := p.want(","); err != nil {
			return nil, err
		}
	}
	if err := p.window(r); err != nil {
		return nil, err
	}
	if err := p.want(")"); err != nil {
		return nil, err
	}
	g := p.peek()
	var err error
	if r.Grouping, err = p.grouping(); err != nil {
		return nil, err
	}
	needs, allows := r.Op.values()
	switch {
	case r.Grouping != nil && !r.Op.groups():
		return nil, p.fail(g, "%s cannot be grouped; put sum by (...) around it", t.s)
	case needs && r.Unwrap == nil:
		return nil, p.fail(t, "%s needs a value: | unwrap label", t.s)
	case !allows && r.Unwrap != nil:
		return nil, p.fail(t, "%s counts lines and takes no unwrap", t.s)
	}
	return r, nil
}

// window reads a query for lines with its window, which stands behind the selector or behind the stages.
func (p *parser) window(r *Range) error {
	open := 0
	for p.peek().is("(") {
		p.next()
		if open++; open > maxDepth {
			return p.fail(p.peek(), "the query is nested deeper than %d", maxDepth)
		}
	}
	at := p.peek()
	ms, err := p.selector()
	if err != nil {
		return err
	}
	r.Log = &Log{Matchers: ms}
	found := false
	for {
		t := p.peek()
		switch {
		case t.is("["):
			if found {
				return p.fail(t, "the window stands here twice")
			}
			found = true
			if err := p.duration(r); err != nil {
				return err
			}
		case t.is(")") && open > 0:
			p.next()
			open--
		case t.is("|") && p.ahead(1).word("unwrap"):
			if r.Unwrap != nil {
				return p.fail(t, "unwrap stands here twice")
			}
			if r.Unwrap, err = p.unwrap(); err != nil {
				return err
			}
		case p.stageFollows():
			if err := p.part(t); err != nil {
				return err
			}
			s, err := p.stage()
			if err != nil {
				return err
			}
			if r.Unwrap == nil {
				r.Log.Stages = append(r.Log.Stages, s)
				continue
			}
			if _, ok := s.(*LabelFilter); !ok {
				return p.fail(t, "only label filters may follow unwrap")
			}
			r.After = append(r.After, s)
		default:
			switch {
			case open > 0:
				return p.fail(t, "unexpected %s; want )", t.describe())
			case !found:
				return p.fail(t, "unexpected %s; the query for lines that begins at col %d needs a window such as [5m]", t.describe(), position(p.src, at.at).Column)
			}
			return nil
		}
	}
}

// duration reads [5m] with what may follow it.
func (p *parser) duration(r *Range) error {
	p.next()
	t := p.next()
	d, err := ParseDuration(t.s)
	if t.kind != quantity || err != nil {
		return p.fail(t, "unexpected %s; want a duration such as 5m", t.describe())
	}
	if d <= 0 {
		return p.fail(t, "the window must be positive")
	}
	r.Window = d
	if err := p.want("]"); err != nil {
		return err
	}
	offset := false
	for {
		switch t := p.peek(); {
		case t.word("offset"):
			if offset {
				return p.fail(t, "offset stands here twice")
			}
			offset = true
			p.next()
			back := p.take("-")
			t := p.next()
			d, err := ParseDuration(t.s)
			if t.kind != quantity || err != nil {
				return p.fail(t, "unexpected %s; want a duration such as 5m", t.describe())
			}
			if r.Offset = d; back {
				r.Offset = -d
			}
		case t.is("@"):
			if r.At != nil {
				return p.fail(t, "@ stands here twice")
			}
			p.next()
			if err := p.at(r); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (p *parser) at(r *Range) error {
	t := p.peek()
	if t.word("start") || t.word("end") {
		p.next()
		r.At = &At{Start: t.s == "start", End: t.s == "end"}
		if err := p.want("("); err != nil {
			return err
		}
		return p.want(")")
	}
	v, err := p.signed()
	if err != nil {
		return err
	}
	if math.IsNaN(v) || math.Abs(v) > math.MaxInt64/1e9 {
		return p.fail(t, "the time is out of range")
	}
	r.At = &At{Millis: int64(math.Round(v * 1000))}
	return nil
}

func (p *parser) unwrap() (*Unwrap, error) {
	p.next()
	p.next()
	t, err := p.wantName()
	if err != nil {
		return nil, err
	}
	if !p.peek().is("(") {
		return &Unwrap{Label: t.s}, nil
	}
	switch c := Conversion(t.s); c {
	case Duration, DurationSeconds, Bytes:
		p.next()
		name, err := p.wantName()
		if err != nil {
			return nil, err
		}
		return &Unwrap{Label: name.s, Conversion: c}, p.want(")")
	default:
		return nil, p.fail(t, "unknown conversion %s; want duration, duration_seconds or bytes", t.describe())
	}
}
