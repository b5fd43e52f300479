package logql

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/logql/pipeline"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

// MetricQuery asks for numbers.
type MetricQuery struct {
	Tenant telemetry.Tenant
	Expr   Expr // of the kind syntax.Vector or syntax.Scalar
	// Start and End are the first and the last time of evaluation, in nanoseconds. With a step Start is rounded down and
	// End up to a multiple of it; without, the query is evaluated at End alone.
	Start, End int64
	Step       time.Duration
}

// Point is a value at a time.
type Point struct {
	Time  int64 // nanoseconds
	Value float64
}

// Series is the points of one set of labels.
type Series struct {
	Labels telemetry.LabelSet
	Points []Point
}

// Metrics is the answer to a MetricQuery.
type Metrics struct {
	// Scalar says that an instant query is for a number: it is the only point of the only series.
	Scalar bool
	// Series are sorted by their labels; those of an instant query whose outermost function is sort, sort_desc, topk,
	// approx_topk or bottomk by value, and by labels where values are equal.
	Series []Series
	Stats  Stats
}

// Metric computes a query for numbers. Ranges are (time-window, time].
func (e *Engine) Metric(ctx context.Context, v storage.View, q MetricQuery) (*Metrics, error) {
	g := grid{start: q.End, n: 1}
	if q.Step > 0 {
		step := int64(q.Step)
		g.start, g.step = floor(q.Start, step), step
		last := floor(q.End, step)
		if last < q.End {
			last += step
		}
		if last < g.start {
			return nil, httpapi.BadDataf("the query ends before it starts")
		}
		n := (last-g.start)/step + 1
		if limit := e.Limits.Points; limit > 0 && n > int64(limit) {
			return nil, httpapi.BadDataf("the query has %d steps, the limit is %d: ask for a larger step or a shorter range", n, limit)
		}
		g.n = int(n)
	}
	ev := &evaluator{engine: e, view: v, tenant: q.Tenant, grid: g, meter: newMeter(v, e.Limits.Bytes)}
	if q.Expr.Kind() == syntax.Lines {
		return nil, httpapi.BadDataf("the query is for lines, and numbers are wanted")
	}
	vs, err := ev.eval(ctx, q.Expr)
	if ended := ctx.Err(); ended != nil { // what was stopped has dropped rows, or failed
		err = ended
	}
	if err != nil {
		return nil, err
	}
	out := &Metrics{Scalar: q.Expr.Kind() == syntax.Scalar && g.step == 0}
	points := 0
	for i := range vs {
		s := Series{Labels: vs[i].set()}
		for k, ok := range vs[i].ok {
			if ok {
				s.Points = append(s.Points, Point{g.at(k), vs[i].v[k]})
			}
		}
		if len(s.Points) > 0 {
			points += len(s.Points)
			out.Series = append(out.Series, s)
		}
	}
	if limit := e.Limits.Series; limit > 0 && len(out.Series) > limit {
		return nil, limitf("the result has %d series, the limit is %d: sum by (...) fewer labels, or take topk of it", len(out.Series), limit)
	}
	if g.step > 0 || !inValueOrder(q.Expr) {
		slices.SortFunc(out.Series, func(a, b Series) int { return compareSets(a.Labels, b.Labels) })
	}
	out.Stats = ev.meter.stats(points)
	return out, nil
}

// inValueOrder says whether the outermost function of a query puts the elements of a vector in order.
func inValueOrder(e Expr) bool {
	a, ok := e.(*syntax.Aggregation)
	if !ok {
		return false
	}
	switch a.Op {
	case syntax.TopK, syntax.BottomK, syntax.ApproxTopK, syntax.Sort, syntax.SortDesc:
		return true
	default:
		return false
	}
}

func floor(t, step int64) int64 {
	r := t % step
	if r < 0 {
		r += step
	}
	return t - r
}

// grid is the times of evaluation.
type grid struct {
	start, step int64
	n           int
}

func (g grid) at(k int) int64 { return g.start + int64(k)*g.step }

// vector is one element of a result: its labels, and a value for each time where it exists.
type vector struct {
	labels []Label // by name
	v      []float64
	ok     []bool
}

func newVector(ls []Label, n int) vector {
	return vector{ls, make([]float64, n), make([]bool, n)}
}

func (v *vector) put(k int, x float64) { v.v[k], v.ok[k] = x, true }

func (v *vector) set() telemetry.LabelSet { return setOf(v.labels) }

func setOf(ls []Label) telemetry.LabelSet {
	return telemetry.LabelSet(pipeline.EncodeLabels(nil, ls))
}

// compareSets compares name by name and value by value.
func compareSets(a, b telemetry.LabelSet) int {
	return compareLabels(pipeline.AppendLabels(nil, a), pipeline.AppendLabels(nil, b))
}

func compareLabels(a, b []Label) int {
	if len(a) == 1 && len(b) == 1 && a[0].Name == b[0].Name {
		return strings.Compare(a[0].Value, b[0].Value)
	}
	return slices.CompareFunc(a, b, func(x, y Label) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Value, y.Value))
	})
}

// evaluator computes one query.
type evaluator struct {
	engine *Engine
	view   storage.View
	tenant telemetry.Tenant
	grid   grid
	meter  *meter
}

// eval returns the elements of an expression; of a scalar it is one without labels.
func (ev *evaluator) eval(ctx context.Context, e Expr) ([]vector, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch e := e.(type) {
	case *syntax.Number:
		return ev.constant(e.Value), nil
	case *syntax.Constant:
		return ev.constant(e.Value), nil
	case *syntax.Negation:
		vs, err := ev.eval(ctx, e.Expr)
		for i := range vs {
			for k := range vs[i].v {
				vs[i].v[k] = -vs[i].v[k]
			}
		}
		return vs, err
	case *syntax.Range:
		return ev.window(ctx, e, e.Grouping)
	case *syntax.Aggregation:
		if r, g, ok := merged(e); ok {
			return ev.window(ctx, r, g)
		}
		vs, err := ev.eval(ctx, e.Expr)
		if err != nil {
			return nil, err
		}
		return ev.aggregate(ctx, e, vs)
	case *syntax.LabelReplace:
		vs, err := ev.eval(ctx, e.Expr)
		if err != nil {
			return nil, err
		}
		return labelReplace(e, vs)
	case *syntax.Binary:
		l, err := ev.eval(ctx, e.L)
		if err != nil {
			return nil, err
		}
		r, err := ev.eval(ctx, e.R)
		if err != nil {
			return nil, err
		}
		return ev.binary(ctx, e, l, r)
	default:
		return nil, fmt.Errorf("unknown expression %T", e)
	}
}

func (ev *evaluator) constant(x float64) []vector {
	v := newVector(nil, ev.grid.n)
	for k := range v.v {
		v.put(k, x)
	}
	return []vector{v}
}

// merged returns the window and the grouping by which a sum of windows is computed in one go: a sum of counts is a count
// over more rows, a maximum of maxima a maximum.
func merged(a *syntax.Aggregation) (*syntax.Range, *syntax.Grouping, bool) {
	r, ok := a.Expr.(*syntax.Range)
	if !ok || r.Grouping != nil {
		return nil, nil, false
	}
	g := a.Grouping
	if g == nil {
		g = &syntax.Grouping{}
	}
	switch a.Op {
	case syntax.Sum:
		switch r.Op {
		case syntax.CountOverTime, syntax.Rate, syntax.BytesOverTime, syntax.BytesRate, syntax.SumOverTime:
			return r, g, true
		default:
		}
	case syntax.Max:
		return r, g, r.Op == syntax.MaxOverTime
	case syntax.Min:
		return r, g, r.Op == syntax.MinOverTime
	default:
	}
	return nil, nil, false
}

// grouped returns the labels that a grouping leaves, by name; nil leaves none.
func grouped(dst, ls []Label, g *syntax.Grouping) []Label {
	for _, l := range ls {
		if g != nil && slices.Contains(g.Labels, l.Name) != g.Without {
			dst = append(dst, l)
		}
	}
	return dst
}

// aggregate merges elements.
func (ev *evaluator) aggregate(ctx context.Context, a *syntax.Aggregation, vs []vector) ([]vector, error) {
	switch a.Op {
	case syntax.Sort, syntax.SortDesc:
		return ev.sorted(vs, a.Op == syntax.SortDesc), nil
	case syntax.ApproxTopK:
		if ev.grid.step > 0 {
			return nil, httpapi.BadDataf("approx_topk is for instant queries; use topk")
		}
	default:
	}
	groups := make(map[telemetry.LabelSet]int)
	var keys [][]Label
	of := make([]int, len(vs))
	for i := range vs {
		ls := grouped(nil, vs[i].labels, a.Grouping)
		set := setOf(ls)
		g, ok := groups[set]
		if !ok {
			g = len(keys)
			groups[set] = g
			keys = append(keys, ls)
		}
		of[i] = g
	}
	members := make([][]int, len(keys))
	for i, g := range of {
		members[g] = append(members[g], i)
	}
	if a.K > 0 {
		return ev.selected(ctx, a, vs, members)
	}
	out := make([]vector, len(keys))
	for g := range keys {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out[g] = newVector(keys[g], ev.grid.n)
		for k := range ev.grid.n {
			if k&63 == 63 {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
			}
			if x, ok := merge(a.Op, vs, members[g], k); ok {
				out[g].put(k, x)
			}
		}
	}
	return out, nil
}

// merge aggregates the values of some elements at one time.
func merge(op syntax.Operation, vs []vector, members []int, k int) (float64, bool) {
	n, sum, mean, m2 := 0.0, 0.0, 0.0, 0.0
	low, high := math.NaN(), math.NaN()
	for _, i := range members {
		if !vs[i].ok[k] {
			continue
		}
		x := vs[i].v[k]
		n++
		sum += x
		d := x - mean
		mean += d / n
		m2 += d * (x - mean)
		if x < low || math.IsNaN(low) {
			low = x
		}
		if x > high || math.IsNaN(high) {
			high = x
		}
	}
	if n == 0 {
		return 0, false
	}
	switch op {
	case syntax.Sum:
		return sum, true
	case syntax.Avg:
		return sum / n, true
	case syntax.Min:
		return low, true
	case syntax.Max:
		return high, true
	case syntax.Count:
		return n, true
	case syntax.Stddev:
		return math.Sqrt(m2 / n), true
	case syntax.Stdvar:
		return m2 / n, true
	default:
		return 0, false
	}
}

// selected keeps the k largest or smallest elements of each group at each time.
func (ev *evaluator) selected(ctx context.Context, a *syntax.Aggregation, vs []vector, members [][]int) ([]vector, error) {
	desc := a.Op != syntax.BottomK
	byLabels := make([]int, len(vs)) // the place of each element in the order of labels: ties are settled by it
	order := make([]int, len(vs))
	for i := range order {
		order[i] = i
	}
	byLabel := func(x, y int) int { return compareLabels(vs[x].labels, vs[y].labels) }
	if !slices.IsSortedFunc(order, byLabel) {
		slices.SortFunc(order, byLabel)
	}
	for place, i := range order {
		byLabels[i] = place
	}
	keep := make([][]bool, len(vs))
	var some []int
	for _, group := range members {
		for k := range ev.grid.n {
			if k&255 == 0 {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
			}
			some = some[:0]
			for _, i := range group {
				if vs[i].ok[k] {
					some = append(some, i)
				}
			}
			for _, i := range first(some, a.K, func(x, y int) int {
				return cmp.Or(compareValues(vs[x].v[k], vs[y].v[k], desc), cmp.Compare(byLabels[x], byLabels[y]))
			}) {
				if keep[i] == nil {
					keep[i] = make([]bool, ev.grid.n)
				}
				keep[i][k] = true
			}
		}
	}
	var out []vector
	for _, i := range order {
		if keep[i] != nil {
			out = append(out, vector{vs[i].labels, vs[i].v, keep[i]})
		}
	}
	return ev.sorted(out, desc), nil
}

// first returns the n smallest of some, in order. It changes the order of some.
func first(some []int, n int, compare func(x, y int) int) []int {
	n = min(n, len(some))
	if n > 64 || n*4 > len(some) {
		slices.SortFunc(some, compare)
		return some[:n]
	}
	out := some[:n]
	slices.SortFunc(out, compare)
	for _, x := range some[n:] {
		if n > 0 && compare(x, out[n-1]) < 0 {
			at, _ := slices.BinarySearchFunc(out, x, compare)
			copy(out[at+1:], out[at:n-1])
			out[at] = x
		}
	}
	return out
}

// compareValues orders numbers, NaN behind all others.
func compareValues(x, y float64, desc bool) int {
	switch nx, ny := math.IsNaN(x), math.IsNaN(y); {
	case nx && ny:
		return 0
	case nx:
		return 1
	case ny:
		return -1
	case desc:
		return cmp.Compare(y, x)
	default:
		return cmp.Compare(x, y)
	}
}

// sorted orders the elements of an instant query by value; those of a range query stay as they are.
func (ev *evaluator) sorted(vs []vector, desc bool) []vector {
	if ev.grid.step > 0 {
		return vs
	}
	vs = slices.DeleteFunc(vs, func(v vector) bool { return !v.ok[0] })
	slices.SortStableFunc(vs, func(a, b vector) int {
		return cmp.Or(compareValues(a.v[0], b.v[0], desc), compareLabels(a.labels, b.labels))
	})
	return vs
}
