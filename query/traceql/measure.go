package traceql

import (
	"bytes"
	"cmp"
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
	tallies tally
	spare   spare
}

// accumulated is what is known of one group, by point.
type accumulated struct {
	sums, counts []float64
	sketches     []sketch
	buckets      *[65][]float64 // of histograms: by the exponent of the upper bound, plus 1
	marks        []mark         // the exemplar of each point
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
	codes, table, err := a.by.groups(b, set)
	if err != nil {
		return err
	}
	for len(a.groups) < a.by.len() {
		a.groups = append(a.groups, nil)
	}
	if len(a.groups) > maxGroups {
		return limitf("the query groups spans into more than %d series: group by fewer fields, or by such with fewer values", maxGroups)
	}
	weights, err := a.c.weights(b)
	if err != nil {
		return err
	}
	if a.of == nil && a.f.Op != syntax.HistogramOverTime && weights == nil {
		if done, err := a.tally(b, set, codes, table); done || err != nil {
			return err
		}
	}
	if a.of != nil {
		if err := a.of.LoadOf(b, set); err != nil {
			return err
		}
	}
	var ids []telemetry.TraceID
	if a.c.exemplars > 0 {
		if ids, err = b.Traces(); err != nil {
			return err
		}
	}
	k, err := a.c.clock(b)
	if err != nil {
		return err
	}
	bare := a.of == nil || a.f.Op == syntax.HistogramOverTime // exemplars have no value of their own
	trace := 0
	for w, word := range set {
		for ; word != 0; word &= word - 1 {
			i := w<<6 + bits.TrailingZeros64(word)
			code := 0
			if codes != nil {
				code = int(codes[i])
			}
			s, err := a.group(groupOf(code, table))
			if err != nil {
				return err
			}
			v := 0.0
			if a.of != nil {
				var ok bool
				if v, ok = a.of.Number(i); !ok {
					continue
				}
				if !a.seconds && a.of.Duration(i) {
					a.seconds = true
				}
				if math.IsNaN(v) {
					continue
				}
			}
			weight := 1.0
			if weights != nil {
				weight = weights[i]
			}
			point := k.of(i)
			if err := a.add(s, point, v, weight); err != nil {
				return err
			}
			if ids == nil {
				continue
			}
			for int(b.First[trace+1]) <= i {
				trace++
			}
			if headOf(&ids[trace]) > s.least(point) {
				continue
			}
			starts, err := b.Starts()
			if err != nil {
				return err
			}
			s.mark(a.c.grid.n, mark{Exemplar{starts[i], v, ids[trace]}, point, bare})
		}
	}
	return nil
}

// group returns what is known of a group, which has a span.
func (a *accumulator) group(n uint32) (*accumulated, error) {
	if s := a.groups[n]; s != nil {
		return s, nil
	}
	s := &accumulated{}
	a.groups[n] = s
	return s, a.begin(s)
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
		s.buckets = new([65][]float64)
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

// add adds a value to a point, that of as many spans as weight says.
func (a *accumulator) add(s *accumulated, point int, v, weight float64) error {
	switch a.f.Op {
	case syntax.Rate, syntax.CountOverTime:
		s.counts[point] += weight
	case syntax.MinOverTime:
		if s.counts[point] == 0 || v < s.sums[point] {
			s.sums[point] = v
		}
		s.counts[point] += weight
	case syntax.MaxOverTime:
		if s.counts[point] == 0 || v > s.sums[point] {
			s.sums[point] = v
		}
		s.counts[point] += weight
	case syntax.QuantileOverTime:
		return a.hold(s.sketches[point].add(v, uint32(math.Round(weight)), &a.spare))
	case syntax.HistogramOverTime:
		of := &s.buckets[bucketOf(v)+1]
		if *of == nil {
			*of = make([]float64, a.c.grid.n)
			if err := a.hold(a.c.grid.n); err != nil {
				return err
			}
		}
		(*of)[point] += weight
	default:
		s.counts[point] += weight
		s.sums[point] += v * weight
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

// mark keeps of each point the exemplar with the smallest trace ID, of one trace the first: in whatever order they come.
func (s *accumulated) mark(n int, m mark) {
	if s.marks == nil {
		s.marks = make([]mark, n)
	}
	at := &s.marks[m.point]
	if at.Trace.IsZero() || cmp.Or(bytes.Compare(m.Trace[:], at.Trace[:]), cmp.Compare(m.Time, at.Time), cmp.Compare(m.Value, at.Value)) < 0 {
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
			for i, counts := range s.buckets {
				if counts == nil {
					continue
				}
				l := &line{labels: with(labels, Attr{"__bucket", floatValue(upper(i-1) / unit)}), values: counts}
				for _, m := range s.exemplars(1) {
					if bucketOf(m.Value) == i-1 {
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
	levels []pairs // of the fields but the first
	out    []uint32
}

// pairs numbers pairs of a number for the fields before, and a code of the next field.
type pairs struct {
	few  [][]uint32           // by both, for small codes: the number plus 1
	many map[[2]uint32]uint32 // the others
	all  [][2]uint32          // by number
}

// fewCodes is which codes count as small.
const fewCodes = 1024

func (p *pairs) number(a, b uint32) uint32 {
	if b >= fewCodes || a >= fewCodes {
		k := [2]uint32{a, b}
		n, ok := p.many[k]
		if !ok {
			n = uint32(len(p.all))
			p.many[k] = n
			p.all = append(p.all, k)
		}
		return n
	}
	for int(a) >= len(p.few) {
		p.few = append(p.few, nil)
	}
	row := p.few[a]
	if int(b) >= len(row) {
		row = append(row, make([]uint32, int(b)+1-len(row))...)
		p.few[a] = row
	}
	if row[b] == 0 {
		p.all = append(p.all, [2]uint32{a, b})
		row[b] = uint32(len(p.all))
	}
	return row[b] - 1
}

func newGrouper(by []syntax.Field) *grouper {
	g := &grouper{}
	for i, f := range by {
		if i > 0 {
			g.levels = append(g.levels, pairs{many: make(map[[2]uint32]uint32)})
		}
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
		return len(g.levels[len(g.levels)-1].all)
	}
}

// groups returns codes of the rows of set, and the group of each code plus 1: without a table the codes are the groups, without
// codes there is one group for all.
func (g *grouper) groups(b *rows.Block, set rows.Set) (codes, table []uint32, err error) {
	switch len(g.coders) {
	case 0:
		return nil, nil, nil
	case 1:
		return g.coders[0].Coded(b, set)
	}
	if codes, err = g.coders[0].Codes(b, set); err != nil {
		return nil, nil, err
	}
	g.out = append(g.out[:0], codes...)
	for n, c := range g.coders[1:] {
		codes, err := c.Codes(b, set)
		if err != nil {
			return nil, nil, err
		}
		p := &g.levels[n]
		for w, word := range set {
			for ; word != 0; word &= word - 1 {
				i := w<<6 + bits.TrailingZeros64(word)
				g.out[i] = p.number(g.out[i], codes[i])
			}
		}
	}
	return g.out, nil, nil
}

// labels returns the values of a group.
func (g *grouper) labels(group uint32) []Attr {
	if len(g.coders) == 0 {
		return nil
	}
	out := make([]Attr, len(g.coders))
	for n, p := range slices.Backward(g.levels) {
		k := p.all[group]
		out[n+1] = Attr{g.names[n+1], g.coders[n+1].Value(k[1])}
		group = k[0]
	}
	out[0] = Attr{g.names[0], g.coders[0].Value(group)}
	return out
}
