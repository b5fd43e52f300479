package traceql

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/rows"
	"github.com/braidobs/braid/query/traceql/syntax"
	"github.com/braidobs/braid/storage"
)

// defaultExemplars is how many exemplars the hint exemplars=true asks for.
const defaultExemplars = 100

// Metrics computes series from spans.
func (e *Engine) Metrics(ctx context.Context, v storage.View, q MetricsQuery) (*MetricsResult, error) {
	if !q.Query.Metric() {
		return nil, httpapi.BadDataf("the query is for traces, and numbers are wanted: add a function such as | rate()")
	}
	g, err := gridOf(q, e.Limits)
	if err != nil {
		return nil, err
	}
	c := computation{ctx: ctx, tenant: q.Tenant, grid: g, meter: newMeter(v, e.Limits), exemplars: q.exemplars(), plain: q.plain()}
	t, err := c.table(q.Query.Node)
	if err != nil {
		return nil, err
	}
	out := &MetricsResult{Series: t.series(g, c.exemplars)}
	if len(out.Series) > e.Limits.Series && !t.compared {
		return nil, limitf("the query has %d series, which is more than the limit of %d: group by fewer fields, filter, or end the query with | topk(%d)", len(out.Series), e.Limits.Series, e.Limits.Series)
	}
	out.Stats = c.meter.cost()
	return out, nil
}

// exemplars returns how many exemplars are wanted.
func (q *MetricsQuery) exemplars() int {
	if q.Step == 0 {
		return 0
	}
	n := q.Exemplars
	switch h := q.Query.Hint("exemplars"); {
	case h == nil:
	case h.Type == syntax.TypeInt:
		n = int(min(int64(n), h.Int))
	case h.Int == 0:
		n = 0
	default:
		n = min(n, defaultExemplars)
	}
	return max(n, 0)
}

// plain says that sampling is not to be made up for: the hint extrapolate=false.
func (q *MetricsQuery) plain() bool {
	h := q.Query.Hint("extrapolate")
	return h != nil && h.Int == 0
}

// grid is the times of points. Point i is about what starts behind base + i*step, up to base + (i+1)*step.
type grid struct {
	base, step int64
	n          int
}

func gridOf(q MetricsQuery, l Limits) (grid, error) {
	if q.End <= q.Start || q.Step < 0 {
		return grid{}, httpapi.BadDataf("invalid time range: the end must be after the start, and the step positive")
	}
	if q.End-q.Start < 0 || q.Start < math.MinInt64/2 || q.End > math.MaxInt64/2 {
		return grid{}, httpapi.BadDataf("invalid time range: it is too long")
	}
	if q.Step == 0 {
		return grid{q.Start, q.End - q.Start, 1}, nil
	}
	first, last := floor(q.Start, q.Step), -floor(-q.End, q.Step)
	n := (last-first)/q.Step + 1
	if n > int64(l.Points) {
		return grid{}, limitf("the query asks for %d points, which is more than the limit of %d: take a longer step or a shorter range", n, l.Points)
	}
	return grid{first - q.Step, q.Step, int(n)}, nil
}

// floor returns the largest multiple of step that is not above t.
func floor(t, step int64) int64 {
	d := t % step
	if d < 0 {
		d += step
	}
	return t - d
}

// time returns the time of point i.
func (g grid) time(i int) int64 { return g.base + int64(i+1)*g.step }

// seconds returns how long the time of a point is.
func (g grid) seconds() float64 { return float64(g.step) / 1e9 }

// table is series over a grid.
type table struct {
	name     string // of the function
	rows     []*line
	compared bool // it is the result of compare
}

// line is one series; a NaN is no point.
type line struct {
	labels    []Attr
	values    []float64
	exemplars []mark
}

// mark is an exemplar.
type mark struct {
	Exemplar
	point  int
	follow bool // its value is that of the point
}

// series returns the table as results have it.
func (t *table) series(g grid, exemplars int) []Series {
	slices.SortFunc(t.rows, func(a, b *line) int { return compareLabels(a.labels, b.labels) })
	var out []Series
	for _, l := range t.rows {
		s := Series{Labels: l.labels}
		if len(s.Labels) == 0 {
			s.Labels = []Attr{{"__name__", textValue(t.name)}}
		}
		for i, v := range l.values {
			if !math.IsNaN(v) {
				s.Points = append(s.Points, Point{g.time(i), v})
			}
		}
		if len(s.Points) > 0 {
			out = append(out, s)
		} else {
			l.exemplars = nil
		}
	}
	t.choose(out, exemplars)
	return out
}

// choose spreads the exemplars that are wanted evenly over all there are.
func (t *table) choose(out []Series, exemplars int) {
	total := 0
	for _, l := range t.rows {
		l.exemplars = slices.DeleteFunc(l.exemplars, func(m mark) bool { return m.follow && math.IsNaN(l.values[m.point]) })
		slices.SortFunc(l.exemplars, func(a, b mark) int {
			return cmp.Or(cmp.Compare(a.point, b.point), bytes.Compare(a.Trace[:], b.Trace[:]))
		})
		total += len(l.exemplars)
	}
	want := min(exemplars, total)
	if want == 0 {
		return
	}
	at, n := 0, 0
	for _, l := range t.rows {
		empty := !slices.ContainsFunc(l.values, func(v float64) bool { return !math.IsNaN(v) })
		if empty {
			continue
		}
		for _, m := range l.exemplars {
			if (n+1)*want/total > n*want/total {
				if m.follow {
					m.Value = l.values[m.point]
				}
				out[at].Exemplars = append(out[at].Exemplars, m.Exemplar)
			}
			n++
		}
		at++
	}
}

func textValue(s string) Value {
	return Value{Type: syntax.TypeString, Value: telemetry.String(s)}
}

func compareLabels(a, b []Attr) int {
	return slices.CompareFunc(a, b, func(x, y Attr) int {
		return cmp.Or(cmp.Compare(x.Key, y.Key), x.Value.Compare(y.Value))
	})
}

// computation is a query for numbers under way.
type computation struct {
	ctx       context.Context //nolint:containedctx // lives as long as the call of Metrics
	tenant    telemetry.Tenant
	grid      grid
	meter     *meter
	exemplars int
	plain     bool // each span counts for itself only
}

// weights returns for how many spans the rows of a block count; nil when each counts for itself.
func (c *computation) weights(b *rows.Block) ([]float64, error) {
	if c.plain {
		return nil, nil
	}
	return storage.Weights(b.TraceBlock)
}

func (c *computation) table(n syntax.Node) (*table, error) {
	switch n := n.(type) {
	case *syntax.MetricPipe:
		if n.Func.Op == syntax.Compare {
			return c.compare(n)
		}
		return c.measure(n)
	case *syntax.MetricFilter:
		t, err := c.table(n.Of)
		if err != nil {
			return nil, err
		}
		t.filter(n)
		return t, nil
	case *syntax.TopK:
		t, err := c.table(n.Of)
		if err != nil {
			return nil, err
		}
		t.top(n.K, n.Bottom, c.grid.n)
		return t, nil
	case *syntax.MetricBinary:
		return c.binary(n)
	default:
		panic("no series: " + n.String())
	}
}

// filter removes the points that do not compare with the constant.
func (t *table) filter(n *syntax.MetricFilter) {
	with := n.Value.Number()
	if n.Value.Type == syntax.TypeDuration {
		with /= 1e9
	}
	for _, l := range t.rows {
		for i, v := range l.values {
			if !holds(n.Op, v, with) {
				l.values[i] = math.NaN()
			}
		}
	}
}

func holds(op syntax.Op, a, b float64) bool {
	switch op {
	case syntax.Equal:
		return a == b
	case syntax.NotEqual:
		return a != b
	case syntax.Greater:
		return a > b
	case syntax.GreaterEqual:
		return a >= b
	case syntax.Less:
		return a < b
	case syntax.LessEqual:
		return a <= b
	default:
		return false
	}
}

// top keeps the k largest points of each time, or the smallest; of equal ones those whose labels come first.
func (t *table) top(k int, bottom bool, n int) {
	slices.SortFunc(t.rows, func(a, b *line) int { return compareLabels(a.labels, b.labels) })
	var order []*line
	for i := range n {
		order = order[:0]
		for _, l := range t.rows {
			if !math.IsNaN(l.values[i]) {
				order = append(order, l)
			}
		}
		if len(order) <= k {
			continue
		}
		slices.SortStableFunc(order, func(a, b *line) int {
			if bottom {
				a, b = b, a
			}
			return cmp.Compare(b.values[i], a.values[i])
		})
		for _, l := range order[k:] {
			l.values[i] = math.NaN()
		}
	}
}

// binary computes with two tables, or a table and a constant. Series belong together when their labels are equal; one
// without labels belongs to all.
func (c *computation) binary(n *syntax.MetricBinary) (*table, error) {
	if s, ok := n.R.(*syntax.Number); ok {
		t, err := c.table(n.L)
		if err != nil {
			return nil, err
		}
		t.apply(func(v float64) float64 { return compute(n.Op, v, s.Number()) })
		return t, nil
	}
	if s, ok := n.L.(*syntax.Number); ok {
		t, err := c.table(n.R)
		if err != nil {
			return nil, err
		}
		t.apply(func(v float64) float64 { return compute(n.Op, s.Number(), v) })
		return t, nil
	}
	l, err := c.table(n.L)
	if err != nil {
		return nil, err
	}
	r, err := c.table(n.R)
	if err != nil {
		return nil, err
	}
	out := &table{name: "(" + l.name + " " + string(n.Op) + " " + r.name + ")"}
	lone := func(t *table) bool { return len(t.rows) == 1 && len(t.rows[0].labels) == 0 }
	switch {
	case lone(r):
		for _, a := range l.rows {
			out.rows = append(out.rows, a.with(n.Op, r.rows[0], a.labels))
		}
	case lone(l):
		for _, b := range r.rows {
			out.rows = append(out.rows, l.rows[0].with(n.Op, b, b.labels))
		}
	default:
		slices.SortFunc(r.rows, func(a, b *line) int { return compareSets(a.labels, b.labels) })
		for _, a := range l.rows {
			if at, ok := slices.BinarySearchFunc(r.rows, a.labels, func(b *line, as []Attr) int { return compareSets(b.labels, as) }); ok {
				out.rows = append(out.rows, a.with(n.Op, r.rows[at], a.labels))
			}
		}
	}
	return out, nil
}

// compareSets compares labels in whatever order they stand.
func compareSets(a, b []Attr) int {
	byKey := func(x, y Attr) int { return cmp.Compare(x.Key, y.Key) }
	return compareLabels(slices.SortedFunc(slices.Values(a), byKey), slices.SortedFunc(slices.Values(b), byKey))
}

func (t *table) apply(f func(float64) float64) {
	for _, l := range t.rows {
		for i, v := range l.values {
			l.values[i] = f(v)
		}
		for i := range l.exemplars {
			if m := &l.exemplars[i]; !m.follow {
				m.Value = f(m.Value)
			}
		}
	}
}

// with computes with two series.
func (l *line) with(op syntax.Op, r *line, labels []Attr) *line {
	out := &line{labels: labels, values: make([]float64, len(l.values))}
	for i, v := range l.values {
		out.values[i] = compute(op, v, r.values[i])
	}
	for _, m := range slices.Concat(l.exemplars, r.exemplars) {
		m.follow = true
		out.exemplars = append(out.exemplars, m)
	}
	return out
}

func compute(op syntax.Op, a, b float64) float64 {
	if op == syntax.Divide && b == 0 {
		return math.NaN()
	}
	return syntax.Floats(op, a, b)
}

// query returns what is read of the store for a pipeline.
func (c *computation) query(p *plan, more ...syntax.Field) storage.TraceQuery {
	return storage.TraceQuery{
		Tenant: c.tenant, Start: c.grid.base + 1, End: c.grid.time(c.grid.n - 1), Need: p.need,
		Keys: append(keys(append(slices.Clone(p.fields), more...)), storage.WeightKey()), Fragments: !p.whole && !rows.Whole(more...),
	}
}

// inRange returns the rows of set that start in the time of the query.
func (c *computation) inRange(b *rows.Block, set rows.Set) (rows.Set, error) {
	lo, hi := c.grid.base+1, c.grid.time(c.grid.n-1)
	if from, to := b.Bounds(); from >= lo && to <= hi {
		return set, nil
	}
	starts, err := b.Starts()
	if err != nil {
		return nil, err
	}
	out := make(rows.Set, len(set))
	set.Each(func(i int) {
		if starts[i] >= lo && starts[i] <= hi {
			out.Add(i)
		}
	})
	return out, nil
}

// rowsOf returns the rows that the pipeline leaves of a block, in the time of the query. They must not be changed.
func (c *computation) rowsOf(p *plan, b *rows.Block) (rows.Set, error) {
	if lo, hi := b.Bounds(); hi <= c.grid.base || lo > c.grid.time(c.grid.n-1) {
		return make(rows.Set, len(b.All())), nil
	}
	st := state{rows: b.All()}
	if err := run(p.stages, b, &st); err != nil {
		return nil, err
	}
	return c.inRange(b, st.rows)
}
