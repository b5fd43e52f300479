package syntax

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
)

// Check says what makes no sense in a query, or is not answered. Errors are of the type *Error.
func Check(q *Query) error {
	c := checker{q.src}
	for _, h := range q.Hints {
		if err := c.hint(h); err != nil {
			return err
		}
	}
	return c.node(q.Node)
}

type checker struct{ src string }

func (c checker) fail(n Node, format string, args ...any) error {
	return &Error{position(c.src, n.Offset()), Meaningless, fmt.Sprintf(format, args...)}
}

// hint checks the hints that mean something; others are ignored.
func (c checker) hint(h Hint) error {
	switch h.Name {
	case "most_recent", "extrapolate":
		if h.Value.Type != TypeBool {
			return c.fail(h.Value, "the hint %s is true or false", h.Name)
		}
	case "sample", "span_sample", "trace_sample":
		if h.Value.Type != TypeBool && (h.Value.Type != TypeInt && h.Value.Type != TypeFloat || h.Value.Number() <= 0 || h.Value.Number() > 1) {
			return c.fail(h.Value, "the hint %s is true, false or a share above 0, up to 1", h.Name)
		}
	case "exemplars":
		if h.Value.Type != TypeBool && (h.Value.Type != TypeInt || h.Value.Int < 0) {
			return c.fail(h.Value, "the hint exemplars is true, false or how many")
		}
	}
	return nil
}

func (c checker) node(n Node) error {
	switch n := n.(type) {
	case *Filter:
		if n.Cond == nil {
			return nil
		}
		return c.condition(n.Cond)
	case *Combine:
		return c.all(n.L, n.R)
	case *Pipeline:
		return c.all(n.Stages...)
	case *ScalarFilter:
		return c.all(n.L, n.R)
	case *ScalarOp:
		return c.all(n.L, n.R)
	case *ScalarPipe:
		if err := c.all(n.Stages...); err != nil {
			return err
		}
		return c.node(n.Of)
	case *Aggregate:
		if n.Of == nil {
			return nil
		}
		return c.measured(n.Of, string(n.Op))
	case *Group:
		return c.grouped(n.By)
	case *Select:
		for _, f := range n.Fields {
			if i, ok := f.(*Intrinsic); ok && i.ID == ParentSpan {
				return c.fail(f, "parent has no value; select the parent's fields, as in parent.name")
			}
		}
	case *MetricPipe:
		if err := c.all(n.Stages...); err != nil {
			return err
		}
		return c.function(n.Func)
	case *MetricBinary:
		for _, side := range []Node{n.L, n.R} {
			if err := c.plain(side, "arithmetic"); err != nil {
				return err
			}
		}
		return c.all(n.L, n.R)
	case *MetricFilter:
		if err := c.plain(n.Of, "a comparison"); err != nil {
			return err
		}
		return c.node(n.Of)
	case *TopK:
		if n.K <= 0 {
			return c.fail(n, "topk and bottomk keep at least 1 series")
		}
		if err := c.plain(n.Of, "topk"); err != nil {
			return err
		}
		return c.node(n.Of)
	case *Number, *Coalesce:
	}
	return nil
}

func (c checker) all(ns ...Node) error {
	for _, n := range ns {
		if err := c.node(n); err != nil {
			return err
		}
	}
	return nil
}

// plain refuses the result of compare, which is no plain set of series.
func (c checker) plain(n Node, what string) error {
	if p, ok := n.(*MetricPipe); ok && p.Func.Op == Compare {
		return c.fail(p.Func, "%s cannot follow compare", what)
	}
	return nil
}

func (c checker) function(f *MetricFunc) error {
	if f.Of != nil {
		if err := c.measured(f.Of, string(f.Op)); err != nil {
			return err
		}
	}
	for _, q := range f.Quantiles {
		if q < 0 || q > 1 {
			return c.fail(f, "a quantile is from 0 to 1, not %g", q)
		}
	}
	for _, g := range f.By {
		if err := c.grouped(g); err != nil {
			return err
		}
	}
	if f.Selection != nil {
		if f.Top < 1 || f.Top > maxTop {
			return c.fail(f, "compare tells from 1 to %d values of an attribute, not %d", maxTop, f.Top)
		}
		if f.End < f.Start {
			return c.fail(f, "the end of the selection is before its start")
		}
		return c.node(f.Selection)
	}
	return nil
}

// fail and String make a MetricFunc a Node for messages.
var _ Node = (*MetricFunc)(nil)

// condition checks what stands in braces.
func (c checker) condition(f Field) error {
	t, err := c.typed(f)
	if err != nil {
		return err
	}
	if t != TypeAny && t != TypeBool {
		return c.fail(f, "%s is no condition: it is of type %s", f, t)
	}
	return nil
}

// measured checks a field that numbers are computed from.
func (c checker) measured(f Field, by string) error {
	t, err := c.typed(f)
	if err != nil {
		return err
	}
	if t != TypeAny && !t.Numeric() {
		return c.fail(f, "%s needs numbers, and %s is of type %s", by, f, t)
	}
	if !aboutSpans(f) {
		return c.fail(f, "%s needs something about the spans, and %s is a constant", by, f)
	}
	return nil
}

// grouped checks a field that spans are grouped by.
func (c checker) grouped(f Field) error {
	t, err := c.typed(f)
	if err != nil {
		return err
	}
	if !aboutSpans(f) {
		return c.fail(f, "by needs something about the spans, and %s is a constant", f)
	}
	if t == TypeNil {
		return c.fail(f, "by needs a value, and %s has none", f)
	}
	return nil
}

func aboutSpans(f Field) bool {
	switch f := f.(type) {
	case *Attribute, *Intrinsic:
		return true
	case *Unary:
		return aboutSpans(f.X)
	case *Binary:
		return aboutSpans(f.L) || aboutSpans(f.R)
	default:
		return false
	}
}

// typed checks an expression and returns its type.
func (c checker) typed(f Field) (Type, error) {
	switch f := f.(type) {
	case *Unary:
		t, err := c.typed(f.X)
		if err != nil {
			return t, err
		}
		if f.Op == Not && t != TypeBool && t != TypeAny {
			return t, c.fail(f, "! needs a condition, and %s is of type %s", f.X, t)
		}
		if f.Op == Subtract && t != TypeAny && !t.Numeric() {
			return t, c.fail(f, "- needs a number, and %s is of type %s", f.X, t)
		}
	case *Binary:
		if err := c.binary(f); err != nil {
			return TypeAny, err
		}
	}
	return TypeOf(f), nil
}

func (c checker) binary(f *Binary) error {
	l, err := c.typed(f.L)
	if err != nil {
		return err
	}
	r, err := c.typed(f.R)
	if err != nil {
		return err
	}
	var ok bool
	switch f.Op {
	case And, Or:
		ok = (l == TypeBool || l == TypeAny) && (r == TypeBool || r == TypeAny)
	case Matches, NotMatches:
		re, isText := f.R.(*Static)
		if !isText || re.Type != TypeString || l != TypeString && l != TypeAny {
			return c.fail(f, "%s matches a text with a quoted regular expression", f.Op)
		}
		return c.regexp(re)
	case Equal, NotEqual:
		ok = l == TypeAny || r == TypeAny || class(l) == class(r) || l == TypeNil || r == TypeNil
		if l == TypeNil || r == TypeNil {
			return c.nilOf(f)
		}
	case Greater, GreaterEqual, Less, LessEqual:
		ok = ordered(l) && ordered(r) && (l == TypeAny || r == TypeAny || class(l) == class(r))
	default:
		ok = (l.Numeric() || l == TypeAny) && (r.Numeric() || r == TypeAny)
	}
	if !ok {
		return c.fail(f, "the operator %s is not defined for %s and %s", f.Op, l, r)
	}
	return nil
}

// nilOf checks a comparison with nil.
func (c checker) nilOf(f *Binary) error {
	for _, side := range []Field{f.L, f.R} {
		switch s := side.(type) {
		case *Intrinsic:
			if i, _ := lookup(s.Name); !i.absent && f.Op == Equal {
				return c.fail(f, "%s is never nil", s)
			}
		case *Attribute:
			if s.Scope == ResourceScope && !s.Parent && s.Name == "service.name" && f.Op == Equal {
				return c.fail(f, "%s is never nil: it is empty at most", s)
			}
		case *Unary, *Binary:
			return c.fail(f, "only attributes and intrinsics are compared with nil, not %s", s)
		case *Static:
		}
	}
	return nil
}

func (c checker) regexp(s *Static) error {
	if len(s.Text) > MaxRegexp {
		return c.fail(s, "the regular expression is longer than %d bytes", MaxRegexp)
	}
	if _, err := labels.NewFastRegexMatcher(s.Text); err != nil {
		return c.fail(s, "invalid regular expression: %v", err)
	}
	return nil
}

// class returns a type that stands for all that t can be compared with.
func class(t Type) Type {
	if t.Numeric() {
		return TypeInt
	}
	return t
}

func ordered(t Type) bool { return t == TypeAny || t == TypeString || t.Numeric() }
