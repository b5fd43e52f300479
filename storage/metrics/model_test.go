package metrics_test

import (
	"maps"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/metrics"
)

// model is what should be stored of one tenant: each delete is carried out at once.
type model map[telemetry.LabelSet]*modelSeries

type modelSeries struct {
	samples   map[int64]string                        // by time: what arrived last, to the bit
	exemplars map[string]int64                        // their times
	vouch     map[telemetry.ResourceID]map[int64]bool // the times of samples; false for those that were deleted
	lo, hi    int64                                   // of all that ever came
}

func (m model) clone() model {
	out := make(model, len(m))
	for ls, s := range m {
		c := *s
		c.samples, c.exemplars, c.vouch = maps.Clone(s.samples), maps.Clone(s.exemplars), make(map[telemetry.ResourceID]map[int64]bool)
		for r, ts := range s.vouch {
			c.vouch[r] = maps.Clone(ts)
		}
		out[ls] = &c
	}
	return out
}

// pointText is a sample to the bit.
func pointText(p *metrics.Point) string {
	head := strconv.FormatInt(p.ST, 10) + " "
	if p.H != nil || p.FH != nil {
		return head + string(telemetry.AppendHistogram(nil, &telemetry.HistogramSample{H: p.H, FH: p.FH}))
	}
	return head + strconv.FormatUint(math.Float64bits(p.V), 16)
}

func exemplarText(e *exemplar.Exemplar) string { return string(telemetry.AppendExemplar(nil, e)) }

// write adds what a batch brings.
func (m model) write(b *telemetry.Batch) {
	for i := range b.Series {
		in := &b.Series[i]
		s := m[in.Labels]
		if s == nil {
			s = &modelSeries{
				samples: make(map[int64]string), exemplars: make(map[string]int64), vouch: make(map[telemetry.ResourceID]map[int64]bool),
				lo: math.MaxInt64, hi: math.MinInt64,
			}
			m[in.Labels] = s
		}
		r := b.Resource
		if r == nil {
			r = telemetry.LabelResource(in.Labels)
		}
		put := func(p *metrics.Point) {
			s.samples[p.T] = pointText(p)
			s.lo, s.hi = min(s.lo, p.T), max(s.hi, p.T)
			if r != nil {
				if s.vouch[r.ID] == nil {
					s.vouch[r.ID] = make(map[int64]bool)
				}
				s.vouch[r.ID][p.T] = true
			}
		}
		for _, x := range in.Samples {
			put(&metrics.Point{T: x.T, ST: x.ST, V: x.V})
		}
		for _, x := range in.Histograms {
			put(&metrics.Point{T: x.T, ST: x.ST, H: x.H, FH: x.FH})
		}
		for j := range in.Exemplars {
			e := &in.Exemplars[j]
			s.exemplars[exemplarText(e)] = e.Ts
			s.lo, s.hi = min(s.lo, e.Ts), max(s.hi, e.Ts)
		}
	}
}

// remove carries out a delete.
func (m model) remove(x *metrics.Mask) {
	for ls, s := range m {
		if storage.MatchLabels(ls, x.Matchers) {
			maps.DeleteFunc(s.samples, func(t int64, _ string) bool { return t >= x.Start && t <= x.End })
			maps.DeleteFunc(s.exemplars, func(_ string, t int64) bool { return t >= x.Start && t <= x.End })
			for _, ts := range s.vouch {
				for t := range ts {
					ts[t] = ts[t] && (t < x.Start || t > x.End)
				}
			}
		}
	}
}

// found is what a query must find of one series.
type found struct {
	samples   map[int64]string
	exemplars map[string]int64
}

// find returns what lies in the range of the query, without the series that have nothing there.
func (m model) find(q *storage.SeriesQuery) map[telemetry.LabelSet]found {
	out := make(map[telemetry.LabelSet]found)
	for ls, s := range m {
		if !storage.MatchLabels(ls, q.Matchers) {
			continue
		}
		f := found{samples: make(map[int64]string), exemplars: make(map[string]int64)}
		for t, x := range s.samples {
			if t >= q.Start && t <= q.End {
				f.samples[t] = x
			}
		}
		for x, t := range s.exemplars {
			if t >= q.Start && t <= q.End {
				f.exemplars[x] = t
			}
		}
		if len(f.samples)+len(f.exemplars) > 0 {
			out[ls] = f
		}
	}
	return out
}

// near returns the matching series that ever had anything around the range: the most that a look at the index alone may
// find.
func (m model) near(q *storage.SeriesQuery) map[telemetry.LabelSet]bool {
	out := make(map[telemetry.LabelSet]bool)
	for ls, s := range m {
		if s.lo <= q.End && s.hi >= q.Start && storage.MatchLabels(ls, q.Matchers) {
			out[ls] = true
		}
	}
	return out
}

// gen makes random series and samples.
type gen struct {
	*rand.Rand
	series    []telemetry.LabelSet
	resources []*telemetry.Resource
	base      int64 // the middle of the times: the border of two days
	clock     int64
	value     float64
	kind      map[telemetry.LabelSet]int
}

func (g *gen) one(of ...string) string { return of[g.IntN(len(of))] }

// rare is true one time in n.
func (g *gen) rare(n int) bool { return g.IntN(n) == 0 }

// common is a beginning that is longer than what a part repeats of a value outside of its dictionary.
func common() string { return strings.Repeat("/kubepods.slice", 5) }

func newGen(seed uint64, series int, base int64) *gen {
	g := &gen{Rand: rand.New(rand.NewPCG(seed, 7)), base: base, clock: base - 3*hour, kind: make(map[telemetry.LabelSet]int)}
	for i := range 3 {
		g.resources = append(g.resources, telemetry.NewResource("", telemetry.NewAttrs([]telemetry.Attr{
			{Key: "k8s.pod.name", Value: telemetry.String("pod-" + strconv.Itoa(i))},
		})))
	}
	seen := make(map[telemetry.LabelSet]bool)
	add := func(ls map[string]string) {
		if s := telemetry.NewLabelSet(labels.FromMap(ls)); !seen[s] && s != "" {
			seen[s] = true
			g.series = append(g.series, s)
			g.kind[s] = g.IntN(8)
		}
	}
	for len(g.series) < series {
		ls := map[string]string{"i": strconv.Itoa(len(g.series) / 3)}
		if !g.rare(8) {
			ls["__name__"] = g.one("up", "requests_total", "requests", "Ünicode", "a", "zz", "le")
		}
		for _, n := range []string{"A", "Zone", "job", "über", "__address__", "_", "pod"} {
			if g.rare(3) {
				ls[n] = g.one("x", "y", "日本", "\U0001f600", " ", "x\x00y", common()+strconv.Itoa(g.IntN(40)), strings.Repeat("long", 200))
			}
		}
		add(ls)
		if g.rare(3) { // a histogram
			for _, le := range []string{"10", "2.5", "1", "1.0", "+Inf", "-1", "NaN", "abc", "1e3"} {
				ls["le"] = le
				add(ls)
			}
		}
	}
	g.Shuffle(len(g.series), func(i, j int) { g.series[i], g.series[j] = g.series[j], g.series[i] })
	return g
}

const (
	minute = 60_000
	hour   = 60 * minute
	day    = 24 * hour
)

func (g *gen) float() float64 {
	switch g.IntN(9) {
	case 0:
		return math.Float64frombits(value.StaleNaN)
	case 1:
		return math.Copysign(0, -1)
	case 2:
		return math.Float64frombits(g.Uint64())
	case 3:
		return float64(g.IntN(100_000)) / 1000
	case 4:
		return math.Inf(1 - 2*g.IntN(2))
	default:
		g.value += float64(g.IntN(10))
		return g.value
	}
}

// at returns a time near the clock: mostly that of the scrape.
func (g *gen) at() int64 {
	switch g.IntN(20) {
	case 0:
		return g.clock + int64(g.IntN(20_000)) - 10_000
	case 1:
		return g.base + int64(g.IntN(6*hour)) - 3*hour
	case 2:
		return g.base + []int64{-1, 0, 1, 2 * hour, 2*hour - 1, -2 * hour, -2*hour - 1}[g.IntN(7)]
	default:
		return g.clock
	}
}

func (g *gen) start(t int64) int64 {
	switch g.IntN(6) {
	case 0:
		return t - 1000
	case 1:
		return g.base - hour
	case 2:
		return t + 1
	default:
		return 0
	}
}

func (g *gen) histogram(t int64) telemetry.HistogramSample {
	h := telemetry.HistogramSample{T: t}
	if g.rare(3) {
		h.ST = g.start(t)
	}
	n := int64(g.IntN(5))
	switch g.IntN(5) {
	case 0:
		h.H = tsdbutil.GenerateTestCustomBucketsHistogram(n)
	case 1:
		h.FH = tsdbutil.GenerateTestFloatHistogram(n)
	case 2:
		h.FH = tsdbutil.GenerateTestGaugeFloatHistogram(n)
	case 3:
		h.H = tsdbutil.GenerateTestHistogram(n)
		h.H.Sum = math.Float64frombits(value.StaleNaN)
	default:
		h.H = tsdbutil.GenerateTestHistogram(n)
	}
	return h
}

// batch returns what one scrape or request brings.
func (g *gen) batch(t telemetry.Tenant) telemetry.Batch {
	b := telemetry.Batch{Tenant: t}
	if g.rare(3) {
		b.Resource = g.resources[g.IntN(len(g.resources))]
	}
	g.clock += []int64{0, 15_000, 15_000, 15_000, 30 * minute}[g.IntN(5)]
	if g.clock > g.base+3*hour {
		g.clock = g.base - 3*hour
	}
	from := g.IntN(len(g.series))
	for _, ls := range g.series[from:min(len(g.series), from+1+g.IntN(len(g.series)))] {
		if g.rare(10) {
			continue
		}
		s := telemetry.Series{Labels: ls}
		for range 1 + g.IntN(3)/2 {
			t := g.at()
			k := g.kind[ls]
			switch {
			case k < 5 || k == 5 && !g.rare(3):
				p := telemetry.Sample{T: t, V: g.float()}
				switch k {
				case 4:
					p.ST = g.start(t)
				case 5:
					p.V = math.Float64frombits(g.Uint64())
				}
				s.Samples = append(s.Samples, p)
				if g.rare(12) {
					s.Samples = append(s.Samples, p)
				}
			case k < 7:
				s.Histograms = append(s.Histograms, g.histogram(t))
			default: // exemplars alone, mostly
				if g.rare(3) {
					s.Samples = append(s.Samples, telemetry.Sample{T: t, V: 1})
				}
				s.Exemplars = append(s.Exemplars, g.exemplar(t))
			}
			if g.rare(20) {
				s.Exemplars = append(s.Exemplars, g.exemplar(t))
			}
		}
		if len(s.Samples)+len(s.Histograms)+len(s.Exemplars) > 0 {
			b.Series = append(b.Series, s)
		}
	}
	return b
}

func (g *gen) exemplar(t int64) exemplar.Exemplar {
	return exemplar.Exemplar{Labels: labels.FromStrings("trace_id", g.one("a", "b", "ü")), Value: float64(g.IntN(3)), Ts: t, HasTs: !g.rare(4)}
}

// matchers returns up to three matchers that often match something.
func (g *gen) matchers() []*labels.Matcher {
	var out []*labels.Matcher
	for range g.IntN(4) {
		name := g.one("__name__", "__name__", "A", "Zone", "job", "über", "le", "i", "pod", "_", "absent")
		v := g.series[g.IntN(len(g.series))].Get(name)
		kind := labels.MatchType(g.IntN(4))
		switch {
		case g.rare(6):
			v = g.one("", "nothing", "x")
		case kind == labels.MatchRegexp || kind == labels.MatchNotRegexp:
			v = g.one(".*", ".+", "", "x|y", "x.*", "[a-r].*", "(?i)UP", ".{3}", "日.*", "requests.*|", "1.?", common()+".*")
		}
		out = append(out, labels.MustNewMatcher(kind, name, v))
	}
	return out
}

// query returns a question: all times, a few hours, or a moment.
func (g *gen) query() *storage.SeriesQuery {
	q := &storage.SeriesQuery{Tenant: "a", Start: math.MinInt64, End: math.MaxInt64, Matchers: g.matchers()}
	if !g.rare(3) {
		q.Start = g.base + int64(g.IntN(7*hour)) - 3*hour - hour/2
		if g.rare(3) {
			q.Start = g.base + []int64{-2 * hour, 0, 2 * hour, -2*hour - 1, -1, day}[g.IntN(6)]
		}
		q.End = q.Start + []int64{0, 1, 15_000, 20 * minute, hour, 4 * hour}[g.IntN(6)]
	}
	return q
}
