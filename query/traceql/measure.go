package traceql

import (
	"bytes"
	"math"
	"math/bits"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/rows"
	"github.com/braidobs/braid/query/traceql/syntax"
)

// measure computes the series of a function.
func (c *computation) measure(n *syntax.MetricPipe) (*table, error) {
	p := planOf(n.Stages...)
	more := slices.Clone(n.Func.By)
	if n.Func.Of != nil {
		more = append(more, n.Func.Of)
	}
	a := newAccumulator(c, n.Func)
	for b, err := range c.meter.traces(c.ctx, c.query(p, more...)) {
		if err != nil {
			return nil, err
		}
		set, err := c.rowsOf(p, b)
		if err != nil {
			return nil, err
		}
		if set.Empty() {
			continue
		}
		if err := a.block(b, set); err != nil {
			return nil, err
		}
	}
	return a.table(), nil
}

// accumulator sums up spans by group and point.
type accumulator struct {
	c      *computation
	f      *syntax.MetricFunc
	by     *grouper
	of     *rows.Measure // nil when spans are counted
	groups []*accumulated
	cells  int
	// seconds says that the values are durations, as some were.
	seconds bool
}

// accumulated is what is known of one group, by point.
type accumulated struct {
	sums, counts []float64
	sketches     []sketch
	buckets      map[int][]float64 // of histograms
	marks        []mark            // the exemplar of each point
}

func newAccumulator(c *computation, f *syntax.MetricFunc) *accumulator {
	a := &accumulator{c: c, f: f, by: newGrouper(f.By)}
	if f.Of != nil {
		a.of = rows.NewMeasure(f.Of)
		a.seconds = syntax.TypeOf(f.Of) == syntax.TypeDuration
	}
	return a
}

func (a *accumulator) block(b *rows.Block, set rows.Set) error {
	codes, err := a.by.groups(b, set)
	if err != nil {
		return err
	}
	for len(a.groups) < a.by.len() {
		a.groups = append(a.groups, nil)
	}
	if len(a.groups) > maxGroups {
		return limitf("the query groups spans into more than %d series: group by fewer fields, or by such with fewer values", maxGroups)
	}
	starts, err := b.Starts()
	if err != nil {
		return err
	}
	if a.of != nil {
		if err := a.of.Load(b); err != nil {
			return err
		}
	}
	var ids []telemetry.TraceID
	if a.c.exemplars > 0 {
		if ids, err = b.Traces(); err != nil {
			return err
		}
	}
	g := a.c.grid
	trace := 0
	point, lo, hi := 0, g.base, g.base+g.step // what starts behind lo, up to hi, is in point
	set.Each(func(i int) {
		if err != nil {
			return
		}
		t := starts[i]
		if t <= lo || t > hi {
			point = int((t - g.base - 1) / g.step)
			lo = g.base + int64(point)*g.step
			hi = lo + g.step
		}
		var code uint32
		if codes != nil {
			code = codes[i]
		}
		s := a.groups[code]
		if s == nil {
			s = &accumulated{}
			a.groups[code] = s
			err = a.begin(s)
		}
		v, ok := 0.0, true
		if a.of != nil {
			v, ok = a.of.Number(i)
			if ok && !a.seconds && a.of.Duration(i) {
				a.seconds = true
			}
		}
		if !ok || math.IsNaN(v) {
			return
		}
		if more := a.add(s, point, v); more != nil {
			err = more
		}
		if ids != nil {
			for int(b.First[trace+1]) <= i {
				trace++
			}
			s.mark(g.n, mark{Exemplar{t, v, ids[trace]}, point, a.of == nil || a.f.Op == syntax.HistogramOverTime})
		}
	})
	return err
}

// begin counts the cells of a new series.
func (a *accumulator) begin(s *accumulated) error {
	n := a.c.grid.n
	switch a.f.Op {
	case syntax.Rate, syntax.CountOverTime:
		s.counts = make([]float64, n)
	case syntax.QuantileOverTime:
		s.sketches = make([]sketch, n)
	case syntax.HistogramOverTime:
		s.buckets = make(map[int][]float64)
		return nil
	default:
		s.counts, s.sums = make([]float64, n), make([]float64, n)
	}
	return a.hold(n)
}

// hold counts cells.
func (a *accumulator) hold(n int) error {
	if a.cells += n; a.cells > maxCells {
		return limitf("the query computes more than %d points: take a longer step, a shorter range, or group by fewer fields", maxCells)
	}
	return nil
}

// add adds a value to a point.
func (a *accumulator) add(s *accumulated, point int, v float64) error {
	switch a.f.Op {
	case syntax.Rate, syntax.CountOverTime:
		s.counts[point]++
	case syntax.MinOverTime:
		if s.counts[point]++; s.counts[point] == 1 || v < s.sums[point] {
			s.sums[point] = v
		}
	case syntax.MaxOverTime:
		if s.counts[point]++; s.counts[point] == 1 || v > s.sums[point] {
			s.sums[point] = v
		}
	case syntax.QuantileOverTime:
		return a.hold(s.sketches[point].add(v))
	case syntax.HistogramOverTime:
		b := bucketOf(v)
		if s.buckets[b] == nil {
			s.buckets[b] = make([]float64, a.c.grid.n)
			if err := a.hold(a.c.grid.n); err != nil {
				return err
			}
		}
		s.buckets[b][point]++
	default:
		s.counts[point]++
		s.sums[point] += v
	}
	return nil
}

// bucketOf returns the exponent of the smallest power of two that is not below v; values up to 1 are told apart from those
// above only.
func bucketOf(v float64) int {
	switch {
	case v <= 0:
		return -1
	case v >= 1<<62:
		return 63
	}
	n := uint64(math.Ceil(v))
	return bits.Len64(n - 1)
}

// upper returns the upper bound of a bucket.
func upper(bucket int) float64 {
	if bucket < 0 {
		return 0
	}
	return math.Ldexp(1, bucket)
}

// mark keeps of each point the exemplar with the smallest trace ID.
func (s *accumulated) mark(n int, m mark) {
	if s.marks == nil {
		s.marks = make([]mark, n)
	}
	at := &s.marks[m.point]
	if at.Trace.IsZero() || bytes.Compare(m.Trace[:], at.Trace[:]) < 0 {
		*at = m
	}
}

// table returns the series.
func (a *accumulator) table() *table {
	t := &table{name: string(a.f.Op)}
	unit := 1.0
	if a.seconds {
		unit = 1e9
	}
	for code, s := range a.groups {
		if s == nil {
			continue
		}
		labels := a.by.labels(uint32(code))
		switch a.f.Op {
		case syntax.QuantileOverTime:
			for _, q := range a.f.Quantiles {
				l := &line{labels: with(labels, Attr{"p", floatValue(q)}), values: make([]float64, a.c.grid.n)}
				for i := range l.values {
					l.values[i] = s.sketches[i].quantile(q) / unit
				}
				l.exemplars = s.exemplars(unit)
				t.rows = append(t.rows, l)
			}
		case syntax.HistogramOverTime:
			for b, counts := range s.buckets {
				l := &line{labels: with(labels, Attr{"__bucket", floatValue(upper(b) / unit)}), values: counts}
				for _, m := range s.exemplars(1) {
					if bucketOf(m.Value) == b {
						l.exemplars = append(l.exemplars, m)
					}
				}
				t.rows = append(t.rows, l)
			}
		default:
			t.rows = append(t.rows, &line{labels, s.values(a.f.Op, a.c.grid, unit), s.exemplars(unit)})
		}
	}
	return t
}

func floatValue(f float64) Value {
	return Value{Type: syntax.TypeFloat, Value: telemetry.Double(f)}
}

// values returns the points of one function. Counts are 0 where there are no spans, other values are no points there.
func (s *accumulated) values(op syntax.MetricOp, g grid, unit float64) []float64 {
	out := s.counts
	for i, n := range s.counts {
		switch {
		case op == syntax.CountOverTime:
		case op == syntax.Rate:
			out[i] = n / g.seconds()
		case n == 0:
			out[i] = math.NaN()
		case op == syntax.AvgOverTime:
			out[i] = s.sums[i] / n / unit
		default:
			out[i] = s.sums[i] / unit
		}
	}
	return out
}

func (s *accumulated) exemplars(unit float64) []mark {
	var out []mark
	for _, m := range s.marks {
		if !m.Trace.IsZero() {
			m.Value /= unit
			out = append(out, m)
		}
	}
	return out
}

// grouper numbers the combinations of values of several fields.
type grouper struct {
	names  []string
	coders []*rows.Coder
	tuples map[[2]uint32]uint32 // of a code for the fields before, and one of the next field
	parts  [][2]uint32          // by number, of all tuples
	level  []int                // of each tuple the field
	out    []uint32
	last   []uint32 // tuple of each group
	group  map[uint32]uint32
}

func newGrouper(by []syntax.Field) *grouper {
	g := &grouper{tuples: make(map[[2]uint32]uint32), group: make(map[uint32]uint32)}
	for _, f := range by {
		g.names = append(g.names, syntax.Label(f))
		g.coders = append(g.coders, rows.NewCoder(f))
	}
	return g
}

// len returns how many groups there are.
func (g *grouper) len() int {
	switch len(g.coders) {
	case 0:
		return 1
	case 1:
		return g.coders[0].Len()
	default:
		return len(g.last)
	}
}

// groups returns the group of each row of set, nil when there is one for all.
func (g *grouper) groups(b *rows.Block, set rows.Set) ([]uint32, error) {
	if len(g.coders) == 0 {
		return nil, nil
	}
	codes, err := g.coders[0].Codes(b, set)
	if err != nil || len(g.coders) == 1 {
		return codes, err
	}
	g.out = append(g.out[:0], codes...)
	for n, c := range g.coders[1:] {
		codes, err := c.Codes(b, set)
		if err != nil {
			return nil, err
		}
		var key [2]uint32
		var tuple uint32
		known := false
		set.Each(func(i int) {
			if k := [2]uint32{g.out[i], codes[i]}; !known || k != key {
				key, known = k, true
				tuple = g.tuple(n, k)
			}
			g.out[i] = tuple
		})
	}
	last, group, known := uint32(0), uint32(0), false
	set.Each(func(i int) {
		if t := g.out[i]; !known || t != last {
			last, known = t, true
			group = g.groupOf(t)
		}
		g.out[i] = group
	})
	return g.out, nil
}

// tuple returns the number of a tuple of the first n+2 fields. Those of different lengths have different numbers, from
// which the first field's code is told apart by its place.
func (g *grouper) tuple(n int, k [2]uint32) uint32 {
	if n > 0 { // k[0] is a tuple itself
		k[0] |= 1 << 31
	}
	t, ok := g.tuples[k]
	if !ok {
		t = uint32(len(g.parts))
		g.tuples[k] = t
		g.parts = append(g.parts, k)
		g.level = append(g.level, n+1)
	}
	return t
}

func (g *grouper) groupOf(tuple uint32) uint32 {
	n, ok := g.group[tuple]
	if !ok {
		n = uint32(len(g.last))
		g.group[tuple] = n
		g.last = append(g.last, tuple)
	}
	return n
}

// labels returns the values of a group.
func (g *grouper) labels(group uint32) []Attr {
	out := make([]Attr, len(g.coders))
	switch len(g.coders) {
	case 0:
		return nil
	case 1:
		out[0] = Attr{g.names[0], g.coders[0].Value(group)}
		return out
	}
	tuple := g.last[group]
	for {
		k, level := g.parts[tuple], g.level[tuple]
		out[level] = Attr{g.names[level], g.coders[level].Value(k[1])}
		if k[0]>>31 == 0 {
			out[0] = Attr{g.names[0], g.coders[0].Value(k[0])}
			return out
		}
		tuple = k[0] &^ (1 << 31)
	}
}
