package traceql_test

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

// naive is TraceQL span by span, without columns: what the engine is compared with.
type naive struct {
	spans []*naiveSpan // of one trace, as Settler orders them
}

type naiveSpan struct {
	storage.SpanRow
	of          *naive
	parent      *naiveSpan
	fragment    bool // its parent is lost
	children    int
	left, right int64
}

// Types of what fields are worth besides bool, int64, float64 and string.
type (
	length int64
	status int64
	kind   int64
)

func newNaive(rows []storage.SpanRow) *naive {
	n := &naive{}
	rows = slices.Clone(rows)
	var settler storage.Settler
	parents := settler.Settle(rows)
	for i, r := range rows {
		s := &naiveSpan{SpanRow: r, of: n}
		if p := parents[i]; p >= 0 {
			s.parent = n.spans[p]
			s.parent.children++
		} else {
			s.fragment = p == storage.LostParent
		}
		n.spans = append(n.spans, s)
	}
	next := int64(0)
	var visit func(s *naiveSpan)
	visit = func(s *naiveSpan) {
		next++
		s.left = next
		for _, c := range n.spans {
			if c.parent == s {
				visit(c)
			}
		}
		next++
		s.right = next
	}
	for _, s := range n.spans {
		if s.parent == nil {
			visit(s)
		}
	}
	return n
}

func (s *naiveSpan) duration() int64 { return max(s.Span.End-s.Span.Start, 0) }

func (n *naive) root() *naiveSpan {
	for _, s := range n.spans {
		if s.parent == nil && !s.fragment {
			return s
		}
	}
	return nil
}

func (n *naive) bounds() (lo, hi int64) {
	lo, hi = math.MaxInt64, math.MinInt64
	for _, s := range n.spans {
		lo, hi = min(lo, s.Span.Start), max(hi, s.Span.Start+s.duration())
	}
	return lo, hi
}

func sent(v telemetry.Value) []any {
	switch v.Kind() {
	case telemetry.KindString:
		return []any{v.Str()}
	case telemetry.KindBool:
		return []any{v.Bool()}
	case telemetry.KindInt:
		return []any{v.Int()}
	case telemetry.KindDouble:
		return []any{v.Double()}
	case telemetry.KindEmpty:
		return nil
	default:
		return []any{v}
	}
}

func attr(as telemetry.Attrs, name string) []any {
	v, _ := as.Get(name)
	return sent(v)
}

// values returns what a field is worth; an array is one value.
func (s *naiveSpan) values(f syntax.Field) []any {
	if s == nil {
		return nil
	}
	switch f := f.(type) {
	case *syntax.Attribute:
		if f.Parent {
			return s.parent.values(&syntax.Attribute{Scope: f.Scope, Name: f.Name})
		}
		switch f.Scope {
		case syntax.SpanScope:
			return attr(s.Span.Attrs, f.Name)
		case syntax.ResourceScope:
			return attr(s.Resource.Attrs, f.Name)
		case syntax.InstrumentationScope:
			if s.Span.Scope != nil {
				return attr(s.Span.Scope.Attrs, f.Name)
			}
			return nil
		case syntax.EventScope:
			var out []any
			for _, e := range s.Span.Events {
				out = append(out, attr(e.Attrs, f.Name)...)
			}
			return out
		case syntax.LinkScope:
			var out []any
			for _, l := range s.Span.Links {
				out = append(out, attr(l.Attrs, f.Name)...)
			}
			return out
		default:
			if vs := attr(s.Span.Attrs, f.Name); vs != nil {
				return vs
			}
			return attr(s.Resource.Attrs, f.Name)
		}
	case *syntax.Intrinsic:
		if f.Parent {
			return s.parent.values(&syntax.Intrinsic{ID: f.ID})
		}
		return s.intrinsic(f.ID)
	case *syntax.Static:
		switch f.Type {
		case syntax.TypeBool:
			return []any{f.Int != 0}
		case syntax.TypeInt:
			return []any{f.Int}
		case syntax.TypeFloat:
			return []any{f.Float}
		case syntax.TypeString:
			return []any{f.Text}
		case syntax.TypeDuration:
			return []any{length(f.Int)}
		case syntax.TypeStatus:
			return []any{status(f.Int)}
		case syntax.TypeKind:
			return []any{kind(f.Int)}
		default:
			return nil
		}
	case *syntax.Unary:
		if f.Op == syntax.Not {
			return s.not(f.X)
		}
		v := s.value(f.X)
		switch v := v.(type) {
		case int64:
			return []any{-v}
		case float64:
			return []any{-v}
		case length:
			return []any{-v}
		}
		return nil
	case *syntax.Binary:
		switch {
		case f.Op == syntax.And:
			return []any{s.true(f.L) && s.true(f.R)}
		case f.Op == syntax.Or:
			return []any{s.true(f.L) || s.true(f.R)}
		case f.Op.Comparison():
			return []any{s.compares(f)}
		default:
			return calculated(f.Op, s.value(f.L), s.value(f.R))
		}
	}
	return nil
}

// true says whether a condition holds: of an attribute with several values any may be true.
func (s *naiveSpan) true(f syntax.Field) bool {
	return slices.Contains(flatten(s.values(f)), any(true))
}

// not is false where a condition holds, true where it does not, and nothing where it is no condition.
func (s *naiveSpan) not(f syntax.Field) []any {
	vs := flatten(s.values(f))
	switch {
	case slices.Contains(vs, any(false)):
		return []any{true}
	case slices.Contains(vs, any(true)):
		return []any{false}
	default:
		return nil
	}
}

// value returns the first value, nil for none.
func (s *naiveSpan) value(f syntax.Field) any {
	if vs := s.values(f); len(vs) > 0 {
		return vs[0]
	}
	return nil
}

func (s *naiveSpan) intrinsic(id syntax.ID) []any {
	one := func(v any) []any { return []any{v} }
	root := s.of.root()
	switch id {
	case syntax.Duration:
		return one(length(s.duration()))
	case syntax.Name:
		return one(s.Span.Name)
	case syntax.Status:
		return one(status(s.Span.Status))
	case syntax.StatusMessage:
		return one(s.Span.StatusMessage)
	case syntax.Kind:
		return one(kind(s.Span.Kind))
	case syntax.SpanID:
		return one(s.Span.SpanID.String())
	case syntax.ParentID:
		if s.Span.ParentID.IsZero() {
			return nil
		}
		return one(s.Span.ParentID.String())
	case syntax.ChildCount:
		return one(int64(s.children))
	case syntax.ParentSpan:
		if s.parent == nil && !s.fragment {
			return nil
		}
		return one("a parent")
	case syntax.NestedSetLeft:
		return one(s.left)
	case syntax.NestedSetRight:
		return one(s.right)
	case syntax.NestedSetParent:
		switch {
		case s.parent != nil:
			return one(s.parent.left)
		case s.fragment:
			return one(int64(0))
		default:
			return one(int64(-1))
		}
	case syntax.TraceDuration:
		lo, hi := s.of.bounds()
		return one(length(hi - lo))
	case syntax.RootName:
		if root == nil {
			return one("")
		}
		return one(root.Span.Name)
	case syntax.RootService:
		if root == nil {
			return one("")
		}
		return one(root.Resource.Attrs.Text("service.name"))
	case syntax.TraceID:
		return one(s.Span.TraceID.String())
	case syntax.EventName, syntax.EventTime:
		var out []any
		for _, e := range s.Span.Events {
			if id == syntax.EventName {
				out = append(out, e.Name)
			} else {
				out = append(out, length(e.Time-s.Span.Start))
			}
		}
		return out
	default:
		panic(fmt.Sprint("unknown to the naive way: ", id))
	}
}

func calculated(op syntax.Op, a, b any) []any {
	x, y, ok := asInts(a, b)
	if ok {
		n, ok := syntax.Integers(op, x, y)
		if !ok {
			return nil
		}
		_, l := a.(length)
		_, r := b.(length)
		if l || r {
			return []any{length(n)}
		}
		return []any{n}
	}
	f, ok := asFloat(a)
	g, ok2 := asFloat(b)
	if !ok || !ok2 {
		return nil
	}
	return []any{syntax.Floats(op, f, g)}
}

func asInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case length:
		return int64(v), true
	default:
		return 0, false
	}
}

func asInts(a, b any) (int64, int64, bool) {
	x, ok := asInt(a)
	y, ok2 := asInt(b)
	return x, y, ok && ok2
}

func asFloat(v any) (float64, bool) {
	if n, ok := asInt(v); ok {
		return float64(n), true
	}
	f, ok := v.(float64)
	return f, ok
}

// flatten puts the elements of arrays in their place.
func flatten(vs []any) []any {
	var out []any
	for _, v := range vs {
		if a, ok := v.(telemetry.Value); ok {
			for _, e := range a.Array() {
				switch e.Kind() {
				case telemetry.KindString, telemetry.KindBool, telemetry.KindInt, telemetry.KindDouble:
					out = append(out, sent(e)...)
				default:
				}
			}
			continue
		}
		out = append(out, v)
	}
	return out
}

func (s *naiveSpan) compares(f *syntax.Binary) bool {
	isNil := func(f syntax.Field) bool {
		c, ok := f.(*syntax.Static)
		return ok && c.Type == syntax.TypeNil
	}
	if isNil(f.L) || isNil(f.R) {
		return (s.value(f.L) == nil) == (s.value(f.R) == nil) == (f.Op == syntax.Equal)
	}
	ls, rs := flatten(s.values(f.L)), flatten(s.values(f.R))
	if f.Op == syntax.Equal || f.Op == syntax.NotEqual { // IDs are compared without regard to zeros before them
		for _, side := range [][2]syntax.Field{{f.L, f.R}, {f.R, f.L}} {
			i, ok := side[0].(*syntax.Intrinsic)
			c, ok2 := side[1].(*syntax.Static)
			if ok && ok2 && c.Type == syntax.TypeString && (i.ID == syntax.SpanID || i.ID == syntax.ParentID) && c.Text == "1" {
				return s.compares(&syntax.Binary{Op: f.Op, L: i, R: &syntax.Static{Type: c.Type, Text: "0000000000000001"}})
			}
		}
	}
	met, could := false, false
	for _, l := range ls {
		for _, r := range rs {
			switch f.Op {
			case syntax.Matches, syntax.NotMatches:
				if text, ok := l.(string); ok {
					could = true
					met = met || regexp.MustCompile("^(?s:"+r.(string)+")$").MatchString(text)
				}
			default:
				op := f.Op
				if op == syntax.NotEqual {
					op = syntax.Equal
				}
				ok, comparable := relation(op, l, r)
				could = could || comparable
				met = met || ok
			}
		}
	}
	if f.Op == syntax.NotEqual || f.Op == syntax.NotMatches {
		return could && !met
	}
	return met
}

// relation says whether a comparison holds, and whether the values can be compared.
func relation(op syntax.Op, l, r any) (holds, comparable bool) {
	c := 0
	x, y, ints := asInts(l, r)
	f, ok := asFloat(l)
	g, ok2 := asFloat(r)
	switch {
	case ints:
		c = order(x, y)
	case ok && ok2:
		if math.IsNaN(f) || math.IsNaN(g) {
			return false, false
		}
		c = order(f, g)
	case fmt.Sprintf("%T", l) != fmt.Sprintf("%T", r):
		return false, false
	default:
		switch a := l.(type) {
		case string:
			c = strings.Compare(a, r.(string))
		case status:
			c = order(a, r.(status))
		case kind:
			c = order(a, r.(kind))
		case bool:
			if a != r.(bool) {
				c = 1
				if !a {
					c = -1
				}
			}
		default:
			return false, false
		}
	}
	switch op {
	case syntax.Equal:
		return c == 0, true
	case syntax.Greater:
		return c > 0, true
	case syntax.GreaterEqual:
		return c >= 0, true
	case syntax.Less:
		return c < 0, true
	default:
		return c <= 0, true
	}
}

func order[T int64 | float64 | status | kind](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

// run returns the sets that a node makes of a set.
func (n *naive) run(node syntax.Node, in []*naiveSpan) [][]*naiveSpan {
	sets := [][]*naiveSpan{in}
	stages := []syntax.Node{node}
	if p, ok := node.(*syntax.Pipeline); ok {
		stages = p.Stages
	}
	return n.stages(stages, sets)
}

func (n *naive) stages(stages []syntax.Node, sets [][]*naiveSpan) [][]*naiveSpan {
	for _, st := range stages {
		var next [][]*naiveSpan
		if _, ok := st.(*syntax.Coalesce); ok {
			if len(sets) > 0 {
				next = [][]*naiveSpan{n.sorted(slices.Concat(sets...))}
			}
			sets = next
			continue
		}
		for _, set := range sets {
			for _, out := range n.stage(st, set) {
				if len(out) > 0 {
					next = append(next, out)
				}
			}
		}
		sets = next
	}
	return sets
}

// sorted returns the spans in the order of the trace, each once.
func (n *naive) sorted(spans []*naiveSpan) []*naiveSpan {
	var out []*naiveSpan
	for _, s := range n.spans {
		if slices.Contains(spans, s) {
			out = append(out, s)
		}
	}
	return out
}

func (n *naive) stage(st syntax.Node, set []*naiveSpan) [][]*naiveSpan {
	switch st := st.(type) {
	case *syntax.Filter:
		var out []*naiveSpan
		for _, s := range set {
			if st.Cond == nil || s.true(st.Cond) {
				out = append(out, s)
			}
		}
		return [][]*naiveSpan{out}
	case *syntax.Combine:
		l, r := slices.Concat(n.run(st.L, set)...), slices.Concat(n.run(st.R, set)...)
		return [][]*naiveSpan{n.sorted(combine(st.Op, l, r))}
	case *syntax.Pipeline:
		return n.run(st, set)
	case *syntax.Group:
		var keys []any
		groups := map[string][]*naiveSpan{}
		for _, s := range set {
			k := fmt.Sprintf("%T %v", s.value(st.By), s.value(st.By))
			if a, ok := s.value(st.By).(telemetry.Value); ok {
				k = "array " + a.Text()
			}
			if groups[k] == nil {
				keys = append(keys, k)
			}
			groups[k] = append(groups[k], s)
		}
		var out [][]*naiveSpan
		for _, k := range keys {
			out = append(out, groups[k.(string)])
		}
		return out
	case *syntax.ScalarFilter:
		if ok, _ := relation2(st.Op, n.scalar(st.L, set), n.scalar(st.R, set)); ok {
			return [][]*naiveSpan{set}
		}
		return nil
	default:
		return [][]*naiveSpan{set}
	}
}

func relation2(op syntax.Op, l, r any) (bool, bool) {
	if l == nil || r == nil {
		return false, false
	}
	if op == syntax.NotEqual {
		ok, can := relation(syntax.Equal, l, r)
		return can && !ok, can
	}
	return relation(op, l, r)
}

func (n *naive) scalar(node syntax.Node, set []*naiveSpan) any {
	switch node := node.(type) {
	case *syntax.Number:
		return (*naiveSpan).value(&naiveSpan{}, node.Static)
	case *syntax.ScalarOp:
		if v := calculated(node.Op, n.scalar(node.L, set), n.scalar(node.R, set)); v != nil {
			return v[0]
		}
		return nil
	case *syntax.Aggregate:
		if node.Op == syntax.Count {
			return int64(len(set))
		}
		var out any
		count := int64(0)
		for _, s := range set {
			v := s.value(node.Of)
			if _, ok := asFloat(v); !ok {
				continue
			}
			count++
			switch {
			case out == nil:
				out = v
			case node.Op == syntax.Min:
				if less, _ := relation(syntax.Less, v, out); less {
					out = v
				}
			case node.Op == syntax.Max:
				if more, _ := relation(syntax.Greater, v, out); more {
					out = v
				}
			default:
				out = calculated(syntax.Add, out, v)[0]
			}
		}
		if node.Op == syntax.Avg && out != nil {
			if i, ok := out.(int64); ok {
				return float64(i) / float64(count)
			}
			return calculated(syntax.Divide, out, count)[0]
		}
		return out
	default:
		panic("unknown to the naive way: " + node.String())
	}
}

// combine finds relations by looking at all pairs.
func combine(op syntax.Op, l, r []*naiveSpan) []*naiveSpan {
	switch op {
	case syntax.And:
		if len(l) == 0 || len(r) == 0 {
			return nil
		}
		return slices.Concat(l, r)
	case syntax.Or:
		return slices.Concat(l, r)
	default:
	}
	text := string(op)
	union, not := strings.HasPrefix(text, "&"), strings.HasPrefix(text, "!")
	above := func(a, b *naiveSpan) bool {
		for p := b.parent; p != nil; p = p.parent {
			if p == a {
				return true
			}
		}
		return false
	}
	related := func(a, b *naiveSpan) bool { // b is what the operator says of a
		switch strings.TrimLeft(text, "&!") {
		case ">":
			return b.parent == a
		case "<":
			return a.parent == b
		case ">>":
			return above(a, b)
		case "<<":
			return above(b, a)
		default:
			return a != b && a.parent != nil && a.parent == b.parent
		}
	}
	var out []*naiveSpan
	for _, b := range r {
		found := false
		for _, a := range l {
			if related(a, b) {
				found = true
				if union {
					out = append(out, a)
				}
			}
		}
		if found != not {
			out = append(out, b)
		}
	}
	return out
}
