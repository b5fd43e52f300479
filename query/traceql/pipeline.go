package traceql

import (
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/rows"
	"github.com/braidobs/braid/query/traceql/syntax"
)

// state is what stages have left of the traces of a block. Stages do not change the sets that they get.
type state struct {
	rows rows.Set
	// groups are sets of spans, those of a trace one after the other. Nil means that the rows of each trace are one set.
	groups []group
	// attrs are those of the sets of each trace when there are no groups; nil for none.
	attrs [][]Attr
}

// group is one set of spans.
type group struct {
	trace int
	rows  []int32
	attrs []Attr
}

// stage changes the state.
type stage interface {
	run(b *rows.Block, st *state) error
}

// set is an expression for a set of spans: it returns some of the rows of in.
type set interface {
	eval(b *rows.Block, in rows.Set) (rows.Set, error)
}

// stagesOf prepares a node that comes to sets of spans.
func stagesOf(n syntax.Node) []stage {
	if p, ok := n.(*syntax.Pipeline); ok {
		return compileStages(p.Stages)
	}
	return compileStages([]syntax.Node{n})
}

func compileStages(ns []syntax.Node) []stage {
	var out []stage
	for _, n := range ns {
		switch n := n.(type) {
		case *syntax.Pipeline:
			if coalesces(n) {
				out = append(out, nestedStage(compileStages(n.Stages)))
			} else {
				out = append(out, compileStages(n.Stages)...)
			}
		case *syntax.ScalarFilter:
			out = append(out, newScalarStage(n))
		case *syntax.Group:
			out = append(out, &groupStage{name: n.String(), by: rows.NewMeasure(n.By)})
		case *syntax.Coalesce:
			out = append(out, coalesceStage{})
		case *syntax.Select:
		case *syntax.Filter:
			if n.Cond != nil { // else it leaves all
				out = append(out, &setStage{setOf(n)})
			}
		default:
			out = append(out, &setStage{setOf(n)})
		}
	}
	return out
}

// coalesces says whether a pipeline makes one set of those that it gets.
func coalesces(p *syntax.Pipeline) bool {
	for _, s := range p.Stages {
		switch s := s.(type) {
		case *syntax.Coalesce:
			return true
		case *syntax.Pipeline:
			if coalesces(s) {
				return true
			}
		}
	}
	return false
}

// nestedStage runs stages of their own for each set.
type nestedStage []stage

func (s nestedStage) run(b *rows.Block, st *state) error {
	if st.groups == nil {
		return run(s, b, st)
	}
	out := state{rows: rows.NewSet(b.Len()), groups: []group{}}
	for i := range st.groups {
		g := &st.groups[i]
		sub := state{rows: g.set(b)}
		if err := run(s, b, &sub); err != nil {
			return err
		}
		if sub.rows.Empty() {
			continue
		}
		out.rows.Or(sub.rows)
		if sub.groups == nil {
			whole := group{trace: g.trace}
			sub.rows.Each(func(i int) { whole.rows = append(whole.rows, int32(i)) })
			if sub.attrs != nil {
				whole.attrs = sub.attrs[g.trace]
			}
			sub.groups = []group{whole}
		}
		for _, of := range sub.groups {
			own := of.attrs
			of.attrs = g.attrs
			for _, a := range own {
				of.attrs = with(of.attrs, a)
			}
			out.groups = append(out.groups, of)
		}
	}
	*st = out
	return nil
}

func setOf(n syntax.Node) set {
	switch n := n.(type) {
	case *syntax.Filter:
		return filterSet{rows.Compile(n.Cond)}
	case *syntax.Combine:
		return &combined{n.Op, setOf(n.L), setOf(n.R)}
	default:
		return piped(stagesOf(n))
	}
}

// run runs stages one after the other.
func run(stages []stage, b *rows.Block, st *state) error {
	for _, s := range stages {
		if st.rows.Empty() {
			return nil
		}
		if err := s.run(b, st); err != nil {
			return err
		}
	}
	return nil
}

type filterSet struct{ c *rows.Condition }

func (s filterSet) eval(b *rows.Block, in rows.Set) (rows.Set, error) { return s.c.Eval(b, in) }

// piped is the rows that a pipeline of its own leaves.
type piped []stage

func (s piped) eval(b *rows.Block, in rows.Set) (rows.Set, error) {
	st := state{rows: in.Clone()}
	err := run(s, b, &st)
	return st.rows, err
}

// combined is made of two sets.
type combined struct {
	op   syntax.Op
	l, r set
}

func (s *combined) eval(b *rows.Block, in rows.Set) (rows.Set, error) {
	l, err := s.l.eval(b, in)
	if err != nil {
		return nil, err
	}
	if s.op != syntax.Or && !negative(s.op) && l.Empty() {
		return l, nil
	}
	r, err := s.r.eval(b, in)
	if err != nil {
		return nil, err
	}
	switch s.op {
	case syntax.Or:
		return l.Or(r), nil
	case syntax.And:
		return inBoth(b, l, r), nil
	default:
	}
	if r.Empty() {
		return r, nil
	}
	parents, err := b.Parents()
	if err != nil {
		return nil, err
	}
	return rows.Tree(s.op, parents, l, r), nil
}

func negative(op syntax.Op) bool {
	switch op {
	case syntax.ChildNot, syntax.ParentNot, syntax.DescendantNot, syntax.AncestorNot, syntax.SiblingNot:
		return true
	default:
		return false
	}
}

// inBoth returns the rows of l and r in traces that both have rows of.
func inBoth(b *rows.Block, l, r rows.Set) rows.Set {
	out := make(rows.Set, len(l))
	for t := range b.TraceCount() {
		lo, hi := int(b.First[t]), int(b.First[t+1])
		if !l.AnyIn(lo, hi) || !r.AnyIn(lo, hi) {
			continue
		}
		l.EachIn(lo, hi, out.Add)
		r.EachIn(lo, hi, out.Add)
	}
	return out
}

// setStage keeps the rows that an expression finds.
type setStage struct{ set set }

func (s *setStage) run(b *rows.Block, st *state) error {
	if st.groups == nil {
		var err error
		st.rows, err = s.set.eval(b, st.rows)
		return err
	}
	if f, ok := s.set.(filterSet); ok { // the same for all groups
		keep, err := f.eval(b, st.rows)
		if err != nil {
			return err
		}
		return st.keep(b, func(*group) (rows.Set, bool, error) { return keep, true, nil })
	}
	return st.keep(b, func(g *group) (rows.Set, bool, error) {
		keep, err := s.set.eval(b, g.set(b))
		return keep, true, err
	})
}

// set returns the rows of a group as a set.
func (g *group) set(b *rows.Block) rows.Set {
	s := rows.NewSet(b.Len())
	for _, i := range g.rows {
		s.Add(int(i))
	}
	return s
}

// keep asks of each group which of its rows stay, nil for all, and whether it stays.
func (st *state) keep(b *rows.Block, f func(g *group) (rows.Set, bool, error)) error {
	left := rows.NewSet(b.Len())
	n := 0
	for i := range st.groups {
		g := st.groups[i]
		keep, ok, err := f(&g)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if keep != nil {
			var stay []int32
			for _, r := range g.rows {
				if keep.Has(int(r)) {
					stay = append(stay, r)
				}
			}
			g.rows = stay
		}
		if len(g.rows) == 0 {
			continue
		}
		for _, r := range g.rows {
			left.Add(int(r))
		}
		st.groups[n] = g
		n++
	}
	st.groups, st.rows = st.groups[:n:n], left
	return nil
}

// groupStage splits sets by the value of a field.
type groupStage struct {
	name string
	by   *rows.Measure
}

func (s *groupStage) run(b *rows.Block, st *state) error {
	if err := s.by.Load(b); err != nil {
		return err
	}
	before := st.groups
	if before == nil {
		for t := range b.TraceCount() {
			var g group
			st.rows.EachIn(int(b.First[t]), int(b.First[t+1]), func(i int) { g.rows = append(g.rows, int32(i)) })
			if len(g.rows) > 0 {
				g.trace = t
				if st.attrs != nil {
					g.attrs = st.attrs[t]
				}
				before = append(before, g)
			}
		}
	}
	st.groups, st.attrs = []group{}, nil
	of := make(map[rows.Value]int)
	for _, g := range before {
		clear(of)
		for _, r := range g.rows {
			v := s.by.Value(int(r))
			i, ok := of[v]
			if !ok {
				i = len(st.groups)
				of[v] = i
				st.groups = append(st.groups, group{trace: g.trace, attrs: with(g.attrs, Attr{s.name, v})})
			}
			st.groups[i].rows = append(st.groups[i].rows, r)
		}
	}
	return nil
}

// with returns the attributes and one more, which takes the place of one with the same key.
func with(as []Attr, a Attr) []Attr {
	out := make([]Attr, 0, len(as)+1)
	for _, b := range as {
		if b.Key != a.Key {
			out = append(out, b)
		}
	}
	return append(out, a)
}

// coalesceStage makes one set of all sets of a trace.
type coalesceStage struct{}

func (coalesceStage) run(_ *rows.Block, st *state) error {
	st.groups, st.attrs = nil, nil
	return nil
}

// scalarStage keeps the sets for which a comparison of numbers holds.
type scalarStage struct {
	op    syntax.Op
	l, r  number
	pipes []*pipeNumber
}

func newScalarStage(n *syntax.ScalarFilter) *scalarStage {
	s := &scalarStage{op: n.Op}
	s.l = s.number(n.L)
	s.r = s.number(n.R)
	return s
}

func (s *scalarStage) run(b *rows.Block, st *state) error {
	if err := s.load(b, st.rows); err != nil {
		return err
	}
	if st.groups != nil {
		return st.keep(b, func(g *group) (rows.Set, bool, error) {
			if len(s.pipes) > 0 {
				if err := s.load(b, g.set(b)); err != nil {
					return nil, false, err
				}
			}
			ok := s.decide(func(f func(int)) {
				for _, r := range g.rows {
					f(int(r))
				}
			}, 0, b.Len(), &g.attrs)
			return s.found(), ok, nil
		})
	}
	stay := st.rows
	if found := s.found(); found != nil {
		stay = found
	}
	out := make(rows.Set, len(st.rows))
	attrs := make([][]Attr, b.TraceCount())
	for t := range b.TraceCount() {
		lo, hi := int(b.First[t]), int(b.First[t+1])
		if !st.rows.AnyIn(lo, hi) {
			continue
		}
		if st.attrs != nil {
			attrs[t] = st.attrs[t]
		}
		if s.decide(func(f func(int)) { st.rows.EachIn(lo, hi, f) }, lo, hi, &attrs[t]) {
			stay.EachIn(lo, hi, out.Add)
		}
	}
	st.rows, st.attrs = out, attrs
	return nil
}

// load prepares the numbers for the sets that in consists of.
func (s *scalarStage) load(b *rows.Block, in rows.Set) error {
	if err := s.l.load(b, in); err != nil {
		return err
	}
	return s.r.load(b, in)
}

// found returns the rows that pipelines among the numbers found together, nil when there are no pipelines.
func (s *scalarStage) found() rows.Set {
	var out rows.Set
	for _, p := range s.pipes {
		if out == nil {
			out = p.rows.Clone()
		} else {
			out.Or(p.rows)
		}
	}
	return out
}

// decide says whether the comparison holds for a set whose rows are from lo to hi, and adds what its aggregates came to.
func (s *scalarStage) decide(each func(func(int)), lo, hi int, attrs *[]Attr) bool {
	l, r := s.l.value(each, lo, hi, attrs), s.r.value(each, lo, hi, attrs)
	return rows.Holds(s.op, l, r)
}

// number is a number about a set of spans.
type number interface {
	load(b *rows.Block, in rows.Set) error
	value(each func(func(int)), lo, hi int, attrs *[]Attr) rows.Value
}

func (s *scalarStage) number(n syntax.Node) number {
	switch n := n.(type) {
	case *syntax.Number:
		return fixedNumber{rows.Constant(n.Static)}
	case *syntax.ScalarOp:
		return &opNumber{n.Op, s.number(n.L), s.number(n.R)}
	case *syntax.ScalarPipe:
		p := &pipeNumber{stages: compileStages(n.Stages), of: s.number(n.Of)}
		s.pipes = append(s.pipes, p)
		return p
	case *syntax.Aggregate:
		a := &aggregateNumber{name: n.String(), op: n.Op}
		if n.Of != nil {
			a.of = rows.NewMeasure(n.Of)
		}
		return a
	default:
		panic("no number: " + n.String())
	}
}

type fixedNumber struct{ v rows.Value }

func (n fixedNumber) load(*rows.Block, rows.Set) error { return nil }

func (n fixedNumber) value(func(func(int)), int, int, *[]Attr) rows.Value { return n.v }

type opNumber struct {
	op   syntax.Op
	l, r number
}

func (n *opNumber) load(b *rows.Block, in rows.Set) error {
	if err := n.l.load(b, in); err != nil {
		return err
	}
	return n.r.load(b, in)
}

func (n *opNumber) value(each func(func(int)), lo, hi int, attrs *[]Attr) rows.Value {
	return rows.Arithmetic(n.op, n.l.value(each, lo, hi, attrs), n.r.value(each, lo, hi, attrs))
}

// pipeNumber is what a pipeline comes to over the same spans.
type pipeNumber struct {
	stages []stage
	of     number
	rows   rows.Set // that it found
}

func (n *pipeNumber) load(b *rows.Block, in rows.Set) error {
	st := state{rows: in.Clone()}
	if err := run(n.stages, b, &st); err != nil {
		return err
	}
	n.rows = st.rows
	return n.of.load(b, st.rows)
}

func (n *pipeNumber) value(_ func(func(int)), lo, hi int, attrs *[]Attr) rows.Value {
	return n.of.value(func(f func(int)) { n.rows.EachIn(lo, hi, f) }, lo, hi, attrs)
}

type aggregateNumber struct {
	name string
	op   syntax.AggregateOp
	of   *rows.Measure
}

func (n *aggregateNumber) load(b *rows.Block, _ rows.Set) error {
	if n.of == nil {
		return nil
	}
	return n.of.Load(b)
}

func (n *aggregateNumber) value(each func(func(int)), _, _ int, attrs *[]Attr) rows.Value {
	v := n.compute(each)
	if !v.IsNil() {
		*attrs = with(*attrs, Attr{n.name, v})
	}
	return v
}

func (n *aggregateNumber) compute(each func(func(int))) rows.Value {
	if n.of == nil {
		count := int64(0)
		each(func(int) { count++ })
		return rows.Value{Type: syntax.TypeInt, Value: telemetry.Int(count)}
	}
	out, count := rows.Nil(), int64(0)
	each(func(i int) {
		v := n.of.Value(i)
		if !v.Type.Numeric() {
			return
		}
		count++
		switch {
		case out.IsNil():
			out = v
		case n.op == syntax.Min:
			if rows.Holds(syntax.Less, v, out) {
				out = v
			}
		case n.op == syntax.Max:
			if rows.Holds(syntax.Greater, v, out) {
				out = v
			}
		default:
			out = rows.Arithmetic(syntax.Add, out, v)
		}
	})
	if n.op != syntax.Avg || out.IsNil() {
		return out
	}
	if out.Type == syntax.TypeInt { // the average of integers need not be one
		return rows.Value{Type: syntax.TypeFloat, Value: telemetry.Double(float64(out.Value.Int()) / float64(count))}
	}
	return rows.Arithmetic(syntax.Divide, out, rows.Value{Type: syntax.TypeInt, Value: telemetry.Int(count)})
}
