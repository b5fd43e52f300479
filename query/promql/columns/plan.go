package columns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"
)

// Options are what a rewrite depends on besides the statement.
type Options struct {
	// SubqueryStep is the step of subqueries that name none, in milliseconds.
	SubqueryStep int64
	// MaxSamples bounds the values that one shape holds; 0 is any number.
	MaxSamples int
	// Before is the plan of the same query whose evaluation ended with an Unfit error: what it has computed is
	// taken over, what does not fit is left alone.
	Before *Plan
}

// Plan is the shapes of one query.
type Plan struct {
	o      Options
	uses   map[*labels.Matcher]*use
	shapes map[string]*shape
	unfit  map[string]bool
	owed   []debt
}

// use is one place of a query that a shape stands in.
type use struct {
	shape   *shape
	frames  []frame
	matcher *labels.Matcher
	pos     parser.Expr // where the range selector is, for annotations
	counted bool
}

// Rewrite puts synthetic selectors in the places of what the package knows. The statement must be preprocessed, as
// that of a promql.Query is, and not yet evaluated.
func Rewrite(stmt *parser.EvalStmt, o Options) *Plan {
	p := &Plan{o: o, uses: make(map[*labels.Matcher]*use), shapes: make(map[string]*shape), unfit: make(map[string]bool)}
	if o.Before != nil {
		p.shapes, p.unfit = o.Before.shapes, o.Before.unfit
		p.o.Before = nil
	}
	ms := int64(time.Millisecond)
	g := Grid{Start: stmt.Start.UnixNano() / ms, End: stmt.End.UnixNano() / ms, Step: stmt.Interval.Milliseconds()}
	if stmt.Interval == 0 {
		g.Step = 1
	}
	if g.Step < 1 {
		return p // the engine cannot, either
	}
	w := walk{plan: p, lookback: stmt.LookbackDelta}
	w.expr(&stmt.Expr, g, nil)
	return p
}

// Without tells whether err says that the query must be evaluated anew without one of the shapes: with a plan made by
// Rewrite of a fresh statement whose Options.Before is p.
func (p *Plan) Without(err error) bool {
	u, ok := errors.AsType[*Unfit](err)
	if !ok || p.unfit[u.key] {
		return false
	}
	p.unfit[u.key] = true
	return true
}

// Shapes returns the number of places that were rewritten.
func (p *Plan) Shapes() int { return len(p.uses) }

// Select answers the selector of a shape; ok is false for matchers that are not of one. The shape is computed when the
// set is first read. What the engine would have counted while it read samples is added to samples.
func (p *Plan) Select(ctx context.Context, ms []*labels.Matcher, src Source, samples *stats.QuerySamples) (set promstorage.SeriesSet, ok bool) {
	if len(ms) != 1 {
		return nil, false
	}
	u := p.uses[ms[0]]
	if u == nil {
		return nil, false
	}
	return &seriesSet{grid: u.shape.grid, open: func() ([]group, annotations.Annotations, error) {
		err := u.shape.compute(ctx, src, p.o.MaxSamples)
		if errors.Is(err, ErrForeign) {
			err = &Unfit{key: u.shape.key, Reason: ErrForeign.Error()}
		}
		if err != nil {
			return nil, nil, err
		}
		if !u.counted {
			u.counted = true
			p.count(u, samples)
		}
		return u.shape.groups, u.notes(), nil
	}}, true
}

// notes returns what the engine would have remarked.
func (u *use) notes() annotations.Annotations {
	s := u.shape
	if !s.f.counter() || s.name == "" || len(s.groups) == 0 || looksLikeCounter(s.name) {
		return nil
	}
	return annotations.New().Add(annotations.NewPossibleNonCounterInfo(s.name, u.pos.PositionRange()))
}

// walk goes through a statement the way the engine evaluates it.
type walk struct {
	plan     *Plan
	lookback time.Duration
}

func (w *walk) expr(e *parser.Expr, g Grid, frames []frame) {
	if w.shape(e, g, frames) {
		return
	}
	switch n := (*e).(type) {
	case *parser.StepInvariantExpr:
		w.expr(&n.Expr, Grid{g.Start, g.Start, g.Step}, append(slices.Clip(frames), frame{kind: invariant, parent: g}))
	case *parser.ParenExpr:
		w.expr(&n.Expr, g, frames)
	case *parser.UnaryExpr:
		w.expr(&n.Expr, g, frames)
	case *parser.BinaryExpr:
		w.expr(&n.LHS, g, frames)
		w.expr(&n.RHS, g, frames)
	case *parser.AggregateExpr:
		if n.Param != nil {
			w.expr(&n.Param, g, frames)
		}
		w.expr(&n.Expr, g, frames)
	case *parser.SubqueryExpr: // the whole query: a matrix
		if sub, ok := w.subquery(n, g); ok {
			w.expr(&n.Expr, sub, append(slices.Clip(frames), frame{kind: matrix, parent: g, child: sub}))
		}
	case *parser.Call:
		w.call(n, g, frames)
	}
}

func (w *walk) call(n *parser.Call, g Grid, frames []frame) {
	switch n.Func.Name {
	case "info", "timestamp", "start_timestamp": // they read the selectors below themselves
		return
	}
	read := false // the first range is evaluated on its own grid, further ones are not
	for i := range n.Args {
		switch a := n.Args[i].(type) {
		case *parser.MatrixSelector:
			read = true
		case *parser.VectorSelector:
			if n.Func.Name != "absent" { // its labels are those of the matchers
				w.expr(&n.Args[i], g, frames)
			}
		case *parser.SubqueryExpr:
			if sub, ok := w.subquery(a, g); ok && !read {
				w.expr(&a.Expr, sub, append(slices.Clip(frames), frame{
					kind: argument, parent: g, child: sub, offset: a.OriginalOffset.Milliseconds(), length: a.Range.Milliseconds(),
				}))
			}
			read = true
		default:
			w.expr(&n.Args[i], g, frames)
		}
	}
}

// subquery returns the grid on which a subquery evaluates what is in it. Subqueries at a fixed time, and what has a
// fixed time inside a subquery, stay with the engine.
func (w *walk) subquery(n *parser.SubqueryExpr, g Grid) (Grid, bool) {
	if n.Timestamp != nil || n.StartOrEnd != 0 || fixed(n.Expr) || g.End < g.Start {
		return Grid{}, false
	}
	step := n.Step.Milliseconds()
	if n.Step == 0 {
		step = w.plan.o.SubqueryStep
	}
	if step < 1 {
		return Grid{}, false
	}
	offset := n.OriginalOffset.Milliseconds()
	from := g.Start - offset - n.Range.Milliseconds()
	start := step * (from / step)
	if start <= from {
		start += step
	}
	return Grid{start, g.Start + (g.End-g.Start)/g.Step*g.Step - offset, step}, true
}

// fixed tells whether something in e has a time of its own.
func fixed(e parser.Expr) bool {
	found := false
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			found = found || n.Timestamp != nil
		case *parser.SubqueryExpr:
			found = found || n.Timestamp != nil
		case *parser.StepInvariantExpr:
			found = true
		}
		return nil
	})
	return found
}

// shape puts a synthetic selector in the place of e if it is a shape.
func (w *walk) shape(e *parser.Expr, g Grid, frames []frame) bool {
	if g.Len() == 0 {
		return false
	}
	inner := bare(*e)
	s := &shape{grid: g}
	if agg, ok := inner.(*parser.AggregateExpr); ok && agg.Param == nil {
		s.op = operatorOf(agg.Op)
		if s.op == none {
			return false
		}
		s.by = grouping{names: slices.Compact(slices.Sorted(slices.Values(agg.Grouping))), without: agg.Without}
		inner = bare(agg.Expr)
	} else {
		s.by.all = true
	}
	pos := inner
	var vs *parser.VectorSelector
	switch n := inner.(type) {
	case *parser.Call:
		f, ok := functionOf(n.Func.Name)
		if !ok || len(n.Args) != 1 {
			return false
		}
		ms, ok := n.Args[0].(*parser.MatrixSelector)
		if !ok {
			return false
		}
		vs, s.f, s.length, s.seconds, pos = ms.VectorSelector.(*parser.VectorSelector), f, ms.Range.Milliseconds(), ms.Range.Seconds(), ms
		s.hints.Func = n.Func.Name
		s.hints.Range = s.length
	case *parser.VectorSelector:
		if s.op == none && g.Len() == 1 {
			return false // the engine does just that
		}
		vs, s.f, s.length = n, selector, w.lookback.Milliseconds()
		s.hints.Func = "" // all samples inside the lookback count
	default:
		return false
	}
	if vs.Anchored || vs.Smoothed || s.length < 1 || !w.place(s, vs, frames) {
		return false
	}
	s.name = nameOf(vs.LabelMatchers)
	if s.f.dropsName() && s.name == "" {
		return false // series that differ in their names only are an error
	}
	s.by.drop = s.f.dropsName()
	s.matchers = vs.LabelMatchers
	s.hints.Step, s.hints.Start, s.hints.End = g.Step, g.Start-s.offset-s.length+1, g.End-s.offset
	s.key = fmt.Sprintf("%s @ %d %d %d - %d", (*e).String(), g.Start, g.End, g.Step, s.offset)
	if w.plan.unfit[s.key] {
		return false
	}
	if known := w.plan.shapes[s.key]; known != nil {
		s = known
	} else {
		w.plan.shapes[s.key] = s
	}
	w.replace(e, &use{shape: s, frames: frames, pos: pos})
	return true
}

// place finds out how the windows of a selector lie on the grid; it is false where that is the engine's secret.
func (w *walk) place(s *shape, vs *parser.VectorSelector, frames []frame) bool {
	s.offset = vs.OriginalOffset.Milliseconds()
	if vs.Timestamp == nil {
		return true
	}
	// The time is fixed, so there is one step, at the start, whatever the time.
	for _, f := range frames {
		if f.kind != invariant {
			return false
		}
	}
	if s.grid.Len() != 1 {
		return false
	}
	s.offset += s.grid.Start - *vs.Timestamp
	return true
}

// replace puts the selector of u in the place of e. Parentheses around it keep it from being seen as a selector where
// the engine looks for one.
func (w *walk) replace(e *parser.Expr, u *use) {
	u.matcher = labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, "computed on columns")
	w.plan.uses[u.matcher] = u
	pos := (*e).PositionRange()
	*e = &parser.ParenExpr{
		Expr:     &parser.VectorSelector{Name: u.matcher.Value, LabelMatchers: []*labels.Matcher{u.matcher}, PosRange: pos},
		PosRange: pos,
	}
}

func bare(e parser.Expr) parser.Expr {
	for {
		p, ok := e.(*parser.ParenExpr)
		if !ok {
			return e
		}
		e = p.Expr
	}
}

func operatorOf(t parser.ItemType) operator {
	switch t {
	case parser.SUM:
		return opSum
	case parser.AVG:
		return opAvg
	case parser.MIN:
		return opMin
	case parser.MAX:
		return opMax
	case parser.COUNT:
		return opCount
	case parser.GROUP:
		return opGroup
	default:
		return none
	}
}

// nameOf returns the name that the matchers ask for, "" when they do not ask for one.
func nameOf(ms []*labels.Matcher) string {
	for _, m := range ms {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && m.Value != "" {
			return m.Value
		}
	}
	return ""
}
