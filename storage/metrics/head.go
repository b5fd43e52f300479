// Package metrics keeps series: in memory until they are flushed (Head), then in parts sorted by labels and
// time (Builder, Part). Both answer through Source; Set merges what several sources hold of one series.
package metrics

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// metricName is the label that carries the name of a series.
const metricName = "__name__"

// Point is one sample: a float, or a native histogram when H or FH is set.
type Point struct {
	T, ST int64 // milliseconds
	V     float64
	H     *histogram.Histogram
	FH    *histogram.FloatHistogram
}

// Data is what one source holds of one series inside the time asked for.
type Data struct {
	Labels    telemetry.LabelSet
	Points    []Point // in the order of time, then arrival
	Exemplars []exemplar.Exemplar
	Evidence  []Evidence
}

// Evidence is a resource that vouches for a series during a time (milliseconds).
type Evidence struct {
	Resource    *telemetry.Resource
	First, Last int64
}

// What says what a selection reads of each series.
type What uint8

// The parts of Data.
const (
	Points What = 1 << iota
	Exemplars
	EvidenceOf
)

// Source is something that holds series: a snapshot of a head or a part.
type Source interface {
	// Bounds returns the smallest and largest time held.
	Bounds() (lo, hi int64)
	// Select calls f for each matching series with anything in the time range, in any order. The masks hide
	// what they cover. What Data holds may be kept.
	Select(ctx context.Context, q *storage.SeriesQuery, what What, masks []Mask, f func(Data) error) error
	// Metadata calls f for each family.
	Metadata(metric string, f func(metric string, m telemetry.Metadata)) error
}

// Mask is a delete as selections apply it: points of matching series in the time range are invisible.
type Mask struct {
	Position   storage.Position // what came before it is covered
	Start, End int64
	Matchers   []*labels.Matcher
}

// NewMask turns a delete into the form of selections.
func NewMask(m *storage.Mask, at storage.Position) Mask {
	return Mask{Position: at, Start: m.Start, End: m.End, Matchers: m.Matchers}
}

// covering returns the masks among masks that can hide points of the series.
func covering(masks []Mask, s telemetry.LabelSet) []Mask {
	var some []Mask
	for _, m := range masks {
		if storage.MatchLabels(s, m.Matchers) {
			some = append(some, m)
		}
	}
	return some
}

func hidden(masks []Mask, t int64, pos storage.Position) bool {
	for i := range masks {
		if pos < masks[i].Position && t >= masks[i].Start && t <= masks[i].End {
			return true
		}
	}
	return false
}

// Head is the series of all tenants that are not in parts yet. It is safe for concurrent use; a Snapshot of it
// never changes. A head that starts after a mask is never covered by it, so masks are told apart by the
// position from which the head counts.
type Head struct {
	from storage.Position

	mu      sync.RWMutex // guards all below
	tenants map[telemetry.Tenant]*tenantHead
	seq     uint32 // requests applied
	bytes   int64
	records int64
}

type tenantHead struct {
	series map[telemetry.LabelSet]*memSeries
	names  map[string][]*memSeries // by metric name
	meta   map[string][]metaEntry  // by family, each that was told in turn
}

type metaEntry struct {
	telemetry.Metadata
	seq uint32
}

type memSeries struct {
	labels     telemetry.LabelSet
	born       uint32 // seq of the request that created it
	points     []memPoint
	exemplars  []memExemplar
	evidence   []memEvidence
	histograms []telemetry.HistogramSample // memPoint.hist counts from one
	own        *telemetry.Resource         // what the labels tell, once told
	told       bool
}

type memPoint struct {
	t, st int64
	v     float64
	seq   uint32
	hist  uint32
}

type memExemplar struct {
	e   exemplar.Exemplar
	seq uint32
}

type memEvidence struct {
	Evidence
	seq uint32
}

// NewHead returns an empty head for what comes at or after a position.
func NewHead(from storage.Position) *Head {
	return &Head{from: from, tenants: make(map[telemetry.Tenant]*tenantHead)}
}

// Append adds the series of a request's batches, all or nothing for those who take snapshots. Batches are not
// kept, but what they point to is. For each series that has its identity in its labels it calls observe with the
// resource made of them. It is for one caller at a time.
func (h *Head) Append(batches []telemetry.Batch, observe func(t telemetry.Tenant, r *telemetry.Resource, lo, hi int64)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	for i := range batches {
		b := &batches[i]
		if len(b.Series) == 0 {
			continue
		}
		t := h.tenants[b.Tenant]
		if t == nil {
			t = &tenantHead{series: make(map[telemetry.LabelSet]*memSeries), names: make(map[string][]*memSeries), meta: make(map[string][]metaEntry)}
			h.tenants[b.Tenant] = t
		}
		for j := range b.Series {
			if r, lo, hi := h.append(t, b.Resource, &b.Series[j]); r != nil && b.Resource == nil {
				observe(b.Tenant, r, lo, hi)
			}
		}
	}
}

// append returns the resource that vouches for the series and the time range of what was added.
func (h *Head) append(t *tenantHead, res *telemetry.Resource, s *telemetry.Series) (*telemetry.Resource, int64, int64) {
	name := s.Labels.Get(metricName)
	m := t.series[s.Labels]
	if m == nil {
		m = &memSeries{labels: telemetry.LabelSet(append([]byte(nil), s.Labels...)), born: h.seq}
		t.series[m.labels] = m
		t.names[name] = append(t.names[name], m)
		h.bytes += int64(300 + len(m.labels))
	}
	if s.Metadata != nil {
		family := FamilyName(name, s.Metadata.Type)
		if old := t.meta[family]; len(old) == 0 || old[len(old)-1].Metadata != *s.Metadata {
			t.meta[family] = append(old, metaEntry{Metadata: *s.Metadata, seq: h.seq})
			h.bytes += int64(120 + len(family) + len(s.Metadata.Help))
		}
	}
	lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
	for _, p := range s.Samples {
		m.points = append(m.points, memPoint{t: p.T, st: p.ST, v: p.V, seq: h.seq})
		lo, hi = min(lo, p.T), max(hi, p.T)
	}
	for _, p := range s.Histograms {
		m.histograms = append(m.histograms, p)
		m.points = append(m.points, memPoint{t: p.T, st: p.ST, seq: h.seq, hist: uint32(len(m.histograms))})
		lo, hi = min(lo, p.T), max(hi, p.T)
	}
	for _, e := range s.Exemplars {
		m.exemplars = append(m.exemplars, memExemplar{e: e, seq: h.seq})
	}
	n := len(s.Samples) + len(s.Histograms) + len(s.Exemplars)
	h.records += int64(n)
	h.bytes += int64(40*len(s.Samples)) + int64(s.Size()-24*len(s.Samples)-120-len(s.Labels))
	if n == 0 {
		return nil, 0, 0
	}
	if res == nil {
		if !m.told { // the labels never change, so neither does what they tell
			m.own, m.told = telemetry.LabelResource(m.labels), true
		}
		res = m.own
	}
	if res == nil || lo > hi {
		return nil, 0, 0
	}
	h.vouch(m, res, lo, hi)
	return res, lo, hi
}

// vouch widens the last evidence or adds one. An evidence seen by an older snapshot may reach further in time
// than that snapshot: it is about identity, not about data.
func (h *Head) vouch(m *memSeries, res *telemetry.Resource, lo, hi int64) {
	for i := range m.evidence {
		if e := &m.evidence[i]; e.Resource.ID == res.ID {
			e.First, e.Last = min(e.First, lo), max(e.Last, hi)
			return
		}
	}
	m.evidence = append(m.evidence, memEvidence{Evidence: Evidence{Resource: res, First: lo, Last: hi}, seq: h.seq})
	h.bytes += 48
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

// Size returns the memory held, in bytes, and the number of samples, histograms and exemplars.
func (h *Head) Size() (bytes, records int64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.bytes, h.records
}

// Snapshot returns what is there now.
func (h *Head) Snapshot() *Snapshot {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return &Snapshot{head: h, seq: h.seq}
}

// Snapshot is a state of a head.
type Snapshot struct {
	head *Head
	seq  uint32
}

// Tenants returns the tenants with series.
func (s *Snapshot) Tenants() []telemetry.Tenant {
	s.head.mu.RLock()
	defer s.head.mu.RUnlock()
	ts := make([]telemetry.Tenant, 0, len(s.head.tenants))
	for t := range s.head.tenants {
		ts = append(ts, t)
	}
	return ts
}

// Tenant returns the series of one tenant.
func (s *Snapshot) Tenant(t telemetry.Tenant) *Tenant { return &Tenant{s: s, tenant: t} }

// Tenant is the part of a snapshot that belongs to one tenant.
type Tenant struct {
	s      *Snapshot
	tenant telemetry.Tenant
}

var _ Source = (*Tenant)(nil)

// Bounds returns the widest range: a head is young and always worth a look.
func (t *Tenant) Bounds() (int64, int64) { return math.MinInt64, math.MaxInt64 }

// Select implements Source.
func (t *Tenant) Select(ctx context.Context, q *storage.SeriesQuery, what What, masks []Mask, f func(Data) error) error {
	h := t.s.head
	var applying []Mask
	for _, m := range masks {
		if h.from < m.Position {
			applying = append(applying, m)
		}
	}
	var out []Data
	h.mu.RLock()
	t.each(q, func(m *memSeries) {
		if m.born > t.s.seq || !storage.MatchLabels(m.labels, q.Matchers) {
			return
		}
		if d, ok := t.data(m, q, what, covering(applying, m.labels)); ok {
			out = append(out, d)
		}
	})
	h.mu.RUnlock()
	for i := range out {
		if i%256 == 255 && ctx.Err() != nil {
			return ctx.Err()
		}
		if what&Points != 0 {
			sortPoints(out[i].Points)
		}
		if err := f(out[i]); err != nil {
			return err
		}
	}
	return nil
}

// each visits the series that an equality matcher on the name leaves. It needs the head's mu.
func (t *Tenant) each(q *storage.SeriesQuery, f func(*memSeries)) {
	th := t.s.head.tenants[t.tenant]
	if th == nil {
		return
	}
	for _, m := range q.Matchers {
		if m.Name == metricName && m.Type == labels.MatchEqual && m.Value != "" {
			for _, s := range th.names[m.Value] {
				f(s)
			}
			return
		}
	}
	for _, s := range th.series {
		f(s)
	}
}

// data copies what the snapshot sees of a series. It needs the head's mu.
func (t *Tenant) data(m *memSeries, q *storage.SeriesQuery, what What, masks []Mask) (Data, bool) {
	d := Data{Labels: m.labels}
	found := false
	for i := range m.points {
		p := &m.points[i]
		if p.seq > t.s.seq {
			break
		}
		if p.t < q.Start || p.t > q.End || hidden(masks, p.t, t.s.head.from) {
			continue
		}
		found = true
		if what&Points == 0 {
			break
		}
		pt := Point{T: p.t, ST: p.st, V: p.v}
		if p.hist > 0 {
			pt.H, pt.FH = m.histograms[p.hist-1].H, m.histograms[p.hist-1].FH
		}
		d.Points = append(d.Points, pt)
	}
	if what&Exemplars != 0 {
		for i := range m.exemplars {
			e := &m.exemplars[i]
			if e.seq <= t.s.seq && e.e.Ts >= q.Start && e.e.Ts <= q.End && !hidden(masks, e.e.Ts, t.s.head.from) {
				d.Exemplars = append(d.Exemplars, e.e)
				found = true
			}
		}
	}
	if !found {
		return d, false
	}
	if what&EvidenceOf != 0 || q.Resources != nil {
		for _, e := range m.evidence {
			if e.seq <= t.s.seq && e.First <= q.End && e.Last >= q.Start {
				d.Evidence = append(d.Evidence, e.Evidence)
			}
		}
		if q.Resources != nil && !vouched(d.Evidence, q.Resources) {
			return d, false
		}
	}
	return d, true
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

// Metadata implements Source.
func (t *Tenant) Metadata(metric string, f func(string, telemetry.Metadata)) error {
	h := t.s.head
	h.mu.RLock()
	defer h.mu.RUnlock()
	th := h.tenants[t.tenant]
	if th == nil {
		return nil
	}
	for name, told := range th.meta {
		if metric != "" && metric != name {
			continue
		}
		for _, m := range slices.Backward(told) { // the last one that the snapshot sees
			if m.seq <= t.s.seq {
				f(name, m.Metadata)
				break
			}
		}
	}
	return nil
}
