// Package metrics keeps series: in memory until they are flushed (Active, Head), then in parts (Write, Part), as columns
// of times and values. Sources of both kinds answer a selection; Merge joins what several of them hold of one series.
//
// The order of series in a part, its storage order, is by metric name, then by the other labels but le, then by le as a
// number: the buckets of a histogram are neighbours, and so are the series of one metric.
package metrics

import (
	"cmp"
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// metricName is the label that carries the name of a series, bucketLabel the upper bound of a bucket.
const (
	metricName  = "__name__"
	bucketLabel = labels.BucketLabel
)

// Point is one sample: a float, or a native histogram when H or FH is set.
type Point struct {
	T, ST int64 // milliseconds
	V     float64
	H     *histogram.Histogram
	FH    *histogram.FloatHistogram
}

func (p *Point) isHistogram() bool { return p.H != nil || p.FH != nil }

// Columns are float samples in the order of time, one a timestamp. ST is nil when no sample has a start time.
type Columns struct {
	T  []int64
	V  []float64
	ST []int64
}

// Data is what one source holds of one series inside the time asked for. No two samples have one time.
type Data struct {
	Labels telemetry.LabelSet
	Columns
	Histograms []Point // in the order of time
	Exemplars  []exemplar.Exemplar
	Evidence   []Evidence
}

// samples returns the number of samples.
func (d *Data) samples() int { return len(d.T) + len(d.Histograms) }

// empty says whether there is neither a sample nor an exemplar.
func (d *Data) empty() bool { return len(d.T) == 0 && len(d.Histograms) == 0 && len(d.Exemplars) == 0 }

const (
	minTime = -1 << 63
	maxTime = 1<<63 - 1
)

// Evidence is a resource that vouches for a series during a time (milliseconds).
type Evidence struct {
	Resource    *telemetry.Resource
	First, Last int64
}

// What says what a selection reads of each series, besides its labels.
type What uint8

// The parts of Data.
const (
	Samples What = 1 << iota
	Exemplars
	EvidenceOf
)

// Mask is a delete as selections apply it: samples of matching series in the time range are invisible.
type Mask struct {
	Position   storage.Position // what came before it is covered
	Start, End int64
	Matchers   []*labels.Matcher
}

// NewMask turns a delete into the form of selections.
func NewMask(m *storage.Mask, at storage.Position) Mask {
	return Mask{Position: at, Start: m.Start, End: m.End, Matchers: m.Matchers}
}

// covering returns the masks among masks that can hide samples of the series.
func covering(masks []Mask, s telemetry.LabelSet) []Mask {
	var some []Mask
	for _, m := range masks {
		if storage.MatchLabels(s, m.Matchers) {
			some = append(some, m)
		}
	}
	return some
}

// hidden says whether one of the masks, which cover the series, covers the time.
func hidden(masks []Mask, t int64) bool {
	for i := range masks {
		if t >= masks[i].Start && t <= masks[i].End {
			return true
		}
	}
	return false
}

// hide removes what the masks cover, in place.
func (d *Data) hide(masks []Mask) {
	if len(masks) == 0 {
		return
	}
	n := 0
	for i, t := range d.T {
		if hidden(masks, t) {
			continue
		}
		d.T[n], d.V[n] = t, d.V[i]
		if d.ST != nil {
			d.ST[n] = d.ST[i]
		}
		n++
	}
	d.T, d.V = d.T[:n], d.V[:n]
	if d.ST != nil {
		d.ST = d.ST[:n]
	}
	d.Histograms = slices.DeleteFunc(d.Histograms, func(p Point) bool { return hidden(masks, p.T) })
	d.Exemplars = slices.DeleteFunc(d.Exemplars, func(e exemplar.Exemplar) bool { return hidden(masks, e.Ts) })
}

// ordered says whether times rise strictly.
func ordered(ts []int64) bool {
	for i := 1; i < len(ts); i++ {
		if ts[i] <= ts[i-1] {
			return false
		}
	}
	return true
}

// fromPoints makes d's samples of points in the order of their arrival: they are sorted, and of several at one time the
// last one stays.
func (d *Data) fromPoints(ps []Point) {
	slices.SortStableFunc(ps, func(a, b Point) int { return cmp.Compare(a.T, b.T) })
	d.Columns, d.Histograms = Columns{}, nil
	for i := range ps {
		if i+1 < len(ps) && ps[i+1].T == ps[i].T {
			continue
		}
		d.add(&ps[i])
	}
}

// add appends a sample that is younger than all others.
func (d *Data) add(p *Point) {
	if p.isHistogram() {
		d.Histograms = append(d.Histograms, *p)
		return
	}
	if p.ST != 0 && d.ST == nil {
		d.ST = make([]int64, len(d.T), cap(d.T))
	}
	d.T, d.V = append(d.T, p.T), append(d.V, p.V)
	if d.ST != nil {
		d.ST = append(d.ST, p.ST)
	}
}

// points returns all samples in the order of time.
func (d *Data) points() []Point {
	ps := make([]Point, 0, d.samples())
	for i, t := range d.T {
		p := Point{T: t, V: d.V[i]}
		if d.ST != nil {
			p.ST = d.ST[i]
		}
		ps = append(ps, p)
	}
	ps = append(ps, d.Histograms...)
	if len(d.Histograms) > 0 && len(d.T) > 0 {
		slices.SortFunc(ps, func(a, b Point) int { return cmp.Compare(a.T, b.T) })
	}
	return ps
}

// join adds what a later source holds of the same series: of two samples at one time the later one stays.
func (d *Data) join(o *Data) {
	d.Exemplars = append(d.Exemplars, o.Exemplars...)
	d.Evidence = joinEvidence(d.Evidence, o.Evidence)
	simple := len(d.Histograms) == 0 && len(o.Histograms) == 0
	switch {
	case o.samples() == 0:
	case d.samples() == 0:
		d.Columns, d.Histograms = o.Columns, o.Histograms
	case simple && o.T[0] > d.T[len(d.T)-1]:
		if d.ST != nil || o.ST != nil {
			d.ST = append(starts(&d.Columns), starts(&o.Columns)...)
		}
		d.T, d.V = append(d.T, o.T...), append(d.V, o.V...)
	default:
		d.fromPoints(append(d.points(), o.points()...))
	}
}

// starts returns the start times of c, zeros when it has none.
func starts(c *Columns) []int64 {
	if c.ST != nil {
		return c.ST
	}
	return make([]int64, len(c.T))
}

func joinEvidence(es, more []Evidence) []Evidence {
	for _, e := range more {
		i := slices.IndexFunc(es, func(o Evidence) bool { return o.Resource.ID == e.Resource.ID })
		if i < 0 {
			es = append(es, e)
			continue
		}
		es[i].First, es[i].Last = min(es[i].First, e.First), max(es[i].Last, e.Last)
	}
	return es
}

// vouched says whether one of the resources is among the evidence.
func vouched(es []Evidence, ids []telemetry.ResourceID) bool {
	for _, e := range es {
		if slices.Contains(ids, e.Resource.ID) {
			return true
		}
	}
	return false
}

// FamilyName returns the name under which the metadata of a series is kept: the family's, without the suffixes
// of its parts.
func FamilyName(name string, t telemetry.MetricType) string {
	suffixes := []string(nil)
	switch t {
	case telemetry.MetricHistogram, telemetry.MetricGaugeHistogram:
		suffixes = []string{"_bucket", "_count", "_sum"}
	case telemetry.MetricSummary:
		suffixes = []string{"_count", "_sum"}
	default:
	}
	for _, s := range suffixes {
		if len(name) > len(s) && name[len(name)-len(s):] == s {
			return name[:len(name)-len(s)]
		}
	}
	return name
}

// Source is something that holds series: a snapshot of a head or a part.
type Source interface {
	// Select finds the matching series that have something in the time range, as far as that can be told without
	// reading samples: the first and last sample of a series may enclose the range without one in it. The masks hide
	// what they cover.
	Select(ctx context.Context, q *storage.SeriesQuery, what What, masks []Mask) (Selection, error)
	// LabelNames calls f for the names of the labels of the series that Select would find; some may come twice.
	LabelNames(ctx context.Context, q *storage.SeriesQuery, f func(string)) error
	// LabelValues calls f for the values of a label of the series that Select would find; some may come twice.
	LabelValues(ctx context.Context, name string, q *storage.SeriesQuery, f func(string)) error
	// Metadata calls f for each family.
	Metadata(metric string, f func(metric string, m telemetry.Metadata)) error
}
