// Package randpromql makes random metrics and random PromQL over them, and compares what two engines answer, for tests
// that two ways of answering are equal.
//
//	rng := rand.New(rand.NewPCG(seed, 0))
//	for _, b := range randpromql.Data(rng) { write(b) }
//	q := randpromql.Query(rng)
package randpromql

import (
	"math"
	"math/rand/v2"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/braidobs/braid/internal/telemetry"
)

// The time of the data, in milliseconds.
const (
	Start  = int64(1_700_000_000_000)
	End    = Start + 40*60*1000
	scrape = 15_000
)

// Data returns a few hundred series in batches, in the order in which they are to be written: counters that reset,
// gauges with all kinds of floats, classic and native histograms, constants; scraped at the same or at different
// times, with gaps, ends that are marked and ends that are not, samples that come late and twice.
func Data(rng *rand.Rand) []telemetry.Batch {
	d := data{rng: rng}
	for _, job := range []string{"api", "web"} {
		for i := range 3 {
			d.target(job, "i"+strconv.Itoa(i))
		}
	}
	return d.batches()
}

type data struct {
	rng    *rand.Rand
	series []telemetry.Series
}

// times returns the times of one target's scrapes.
func (d *data) times() []int64 {
	from, to := Start, End
	switch d.rng.IntN(4) {
	case 0:
		from += d.rng.Int64N(20 * 60 * 1000)
	case 1:
		to -= d.rng.Int64N(20 * 60 * 1000)
	}
	jitter := d.rng.IntN(2) == 0
	out := make([]int64, 0, (to-from)/scrape+1)
	for t := from + d.rng.Int64N(scrape); t < to; t += scrape {
		switch {
		case d.rng.IntN(100) == 0:
			t += d.rng.Int64N(10 * 60 * 1000) // a gap
		case d.rng.IntN(20) == 0:
			continue
		}
		at := t
		if jitter {
			at += d.rng.Int64N(20)
		}
		out = append(out, at)
	}
	return out
}

func (d *data) add(times []int64, next func() float64, ls ...string) {
	b := labels.NewBuilder(labels.FromStrings(ls...))
	if d.rng.IntN(300) == 0 {
		b.Set("__unit__", "s")
	}
	if d.rng.IntN(10) == 0 {
		b.Set("Zone", "z"+strconv.Itoa(d.rng.IntN(2)))
	}
	s := telemetry.Series{Labels: telemetry.NewLabelSet(b.Labels())}
	stale := d.rng.IntN(6) == 0
	for i, t := range times {
		v := next()
		if stale && (i == len(times)-1 || d.rng.IntN(30) == 0) {
			v = math.Float64frombits(value.StaleNaN)
		}
		s.Samples = append(s.Samples, telemetry.Sample{T: t, V: v})
	}
	d.series = append(d.series, s)
}

func (d *data) counter() func() float64 {
	v, whole := float64(d.rng.IntN(5)), d.rng.IntN(2) == 0
	resets := d.rng.IntN(3) == 0
	return func() float64 {
		switch {
		case resets && d.rng.IntN(15) == 0:
			v = float64(d.rng.IntN(3))
		case whole:
			v += float64(d.rng.IntN(50))
		default:
			v += d.rng.Float64() * 10
		}
		return v
	}
}

func (d *data) gauge() func() float64 {
	odd := d.rng.IntN(5) == 0
	return func() float64 {
		if odd {
			switch d.rng.IntN(12) {
			case 0:
				return math.NaN()
			case 1:
				return math.Inf(1 - 2*d.rng.IntN(2))
			case 2:
				return math.Copysign(0, -1)
			}
		}
		if d.rng.IntN(2) == 0 {
			return float64(d.rng.IntN(4)) // ties
		}
		return d.rng.NormFloat64() * 100
	}
}

func (d *data) target(job, instance string) {
	times := d.times()
	id := []string{"job", job, "instance", instance}
	of := func(name string, more ...string) []string {
		return append(append([]string{"__name__", name}, id...), more...)
	}
	for _, code := range []string{"200", "404", "500"} {
		d.add(times, d.counter(), of("requests_total", "code", code)...)
		if d.rng.IntN(4) == 0 {
			times = d.times() // of another target, then
		}
	}
	d.add(times, d.counter(), of("work_done")...)
	for _, le := range []string{"0.1", "1", "10", "+Inf"} {
		d.add(times, d.counter(), of("latency_seconds_bucket", "le", le)...)
	}
	for _, kind := range []string{"a", "b"} {
		d.add(times, d.gauge(), of("load", "kind", kind)...)
	}
	d.add(times, func() float64 { return 1 }, of("info", "version", "v"+strconv.Itoa(d.rng.IntN(2)))...)
	d.native(times, of("native")...)
	if d.rng.IntN(2) == 0 {
		d.native(times[len(times)/2:], of("mixed")...)
		d.add(times[:len(times)/2], d.counter(), of("mixed", "more", "yes")...)
	} else {
		d.add(times, d.counter(), of("mixed")...)
	}
}

func (d *data) native(times []int64, ls ...string) {
	s := telemetry.Series{Labels: telemetry.NewLabelSet(labels.FromStrings(ls...))}
	n := uint64(0)
	for _, t := range times {
		n += d.rng.Uint64N(5)
		s.Histograms = append(s.Histograms, telemetry.HistogramSample{T: t, H: &histogram.Histogram{
			Schema: 1, Count: 3*n + 3, Sum: float64(n), PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}},
			PositiveBuckets: []int64{int64(n) + 1, int64(n) + 1}, //nolint:gosec // small
		}})
	}
	d.series = append(d.series, s)
}

// batches cuts the samples of all series by time, so that each batch is about the same while; some come late, some
// twice.
func (d *data) batches() []telemetry.Batch {
	const pieces = 6
	out := make([]telemetry.Batch, pieces)
	for i := range out {
		out[i].Tenant = telemetry.DefaultTenant
	}
	for _, s := range d.series {
		parts := make([]telemetry.Series, pieces)
		piece := func(t int64) int {
			p := int((t - Start) * pieces / (End - Start))
			if d.rng.IntN(200) == 0 {
				p = d.rng.IntN(pieces)
			}
			return min(max(p, 0), pieces-1)
		}
		for _, x := range s.Samples {
			p := piece(x.T)
			parts[p].Samples = append(parts[p].Samples, x)
			if d.rng.IntN(300) == 0 { // again, the same
				parts[pieces-1].Samples = append(parts[pieces-1].Samples, x)
			}
		}
		for _, x := range s.Histograms {
			p := piece(x.T)
			parts[p].Histograms = append(parts[p].Histograms, x)
		}
		for i, p := range parts {
			if len(p.Samples)+len(p.Histograms) > 0 {
				p.Labels = s.Labels
				out[i].Series = append(out[i].Series, p)
			}
		}
	}
	return out
}
