package metrics

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Float samples lie in chunks of chunkSamples, chunks and slots in slabs that hold no pointers: what is in memory costs
// the garbage collector nothing.
const (
	chunkSamples = 8
	slabChunks   = 256
	slabSlots    = 1024
	chunkBytes   = 168
	slotBytes    = 72
)

type chunk struct {
	t    [chunkSamples]int64
	v    [chunkSamples]float64
	seq  [chunkSamples]uint32
	next uint32 // + 1
}

// slot is the samples of one series.
type slot struct {
	first, last uint32 // chunks, + 1
	n           uint32 // float samples
	born        uint32 // seq of the request that created it
	lo, hi      int64  // of all samples and exemplars
	top         int64  // the time of the last float sample
	topST       int64  // its start time
	extra       uint32 // + 1
	resource    uint32 // + 1: who vouches for all of it, unless extra tells more
	messy       bool   // not in the order of time, or twice at one time
}

// extra is what few series have.
type extra struct {
	starts     []startRun
	histograms []memHistogram
	exemplars  []memExemplar
	evidence   []memEvidence
}

// startRun is the start time of the float samples from one on.
type startRun struct {
	from uint32
	st   int64
}

type memHistogram struct {
	t, st int64
	h     *histogram.Histogram
	fh    *histogram.FloatHistogram
	after uint32 // float samples that came before it
	seq   uint32
}

type memExemplar struct {
	e   exemplar.Exemplar
	seq uint32
}

type memEvidence struct {
	Evidence
	seq uint32
}

// Head is the samples of all tenants that are not in parts yet. It is safe for concurrent use; a Snapshot of it never
// changes. A head that starts after a mask is never covered by it. One lock a request guards it, none a sample.
type Head struct {
	active *Active
	number uint32
	from   storage.Position
	born   int64 // milliseconds

	mu        sync.RWMutex // guards all below
	tenants   map[telemetry.Tenant]*tenantHead
	entries   []*Entry // by slot
	slots     [][]slot
	chunks    [][]chunk
	nchunks   uint32
	extras    []*extra
	resources []*telemetry.Resource
	resource  map[*telemetry.Resource]uint32
	seq       uint32 // requests applied
	bytes     int64
	records   int64
	oldest    []int64 // what Append returned last
}

type tenantHead struct {
	slots []uint32
	meta  map[string][]metaEntry // by family, each that was told in turn
}

type metaEntry struct {
	telemetry.Metadata
	seq uint32
}

// NewHead returns an empty head for what comes at or after a position; born is now, in milliseconds. It is for one
// caller at a time.
func (a *Active) NewHead(from storage.Position, born int64) *Head {
	a.heads++
	return &Head{
		active: a, number: a.heads, from: from, born: born, tenants: make(map[telemetry.Tenant]*tenantHead),
		resource: make(map[*telemetry.Resource]uint32),
	}
}

// Number tells the head from others of the same Active.
func (h *Head) Number() uint32 { return h.number }

// Observe is told of the resource that vouches for series, and when.
type Observe func(t telemetry.Tenant, r *telemetry.Resource, lo, hi int64)

// Append adds the series of a request's batches, all or nothing for those who take snapshots; the entries are those
// that Resolve gave. Histograms, exemplars and metadata are kept, everything else is copied. For series that have their
// identity in their labels it calls observe with the resource made of them. It returns the smallest time of the samples
// of each batch, math.MaxInt64 for none, until it is called again. It is for one caller at a time.
func (h *Head) Append(batches []telemetry.Batch, entries []*Entry, observe Observe) (oldest []int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	h.oldest = h.oldest[:0]
	for i := range batches {
		b := &batches[i]
		h.oldest = append(h.oldest, math.MaxInt64)
		if len(b.Series) == 0 {
			continue
		}
		t := h.tenants[b.Tenant]
		if t == nil {
			t = &tenantHead{meta: make(map[string][]metaEntry)}
			h.tenants[b.Tenant] = t
		}
		var last *telemetry.Resource // neighbours often come from one place
		lastLo, lastHi := int64(math.MaxInt64), int64(math.MinInt64)
		for j := range b.Series {
			e := entries[j]
			if e == nil {
				continue
			}
			lo, hi := h.append(t, b.Resource, e, &b.Series[j])
			h.oldest[i] = min(h.oldest[i], lo)
			if b.Resource != nil || lo > hi {
				continue
			}
			if e.own != last {
				if last != nil {
					observe(b.Tenant, last, lastLo, lastHi)
				}
				last, lastLo, lastHi = e.own, lo, hi
			}
			lastLo, lastHi = min(lastLo, lo), max(lastHi, hi)
		}
		if last != nil {
			observe(b.Tenant, last, lastLo, lastHi)
		}
		entries = entries[len(b.Series):]
	}
	return h.oldest
}

func (h *Head) slot(n uint32) *slot   { return &h.slots[n/slabSlots][n%slabSlots] }
func (h *Head) chunk(n uint32) *chunk { return &h.chunks[n/slabChunks][n%slabChunks] }

// slotOf returns the slot of a series, a new one when it has none.
func (h *Head) slotOf(t *tenantHead, e *Entry) *slot {
	if p := e.cur.Load(); uint32(p>>32) == h.number {
		return h.slot(uint32(p))
	}
	n := uint32(len(h.entries))
	if n%slabSlots == 0 {
		h.slots = append(h.slots, make([]slot, slabSlots))
	}
	h.entries = append(h.entries, e)
	t.slots = append(t.slots, n)
	e.prev.Store(e.cur.Load())
	e.cur.Store(place(h.number, n))
	e.seen = h.born
	h.bytes += slotBytes + 16
	s := h.slot(n)
	*s = slot{born: h.seq, lo: math.MaxInt64, hi: math.MinInt64, top: math.MinInt64}
	return s
}

func (h *Head) extraOf(s *slot) *extra {
	if s.extra == 0 {
		h.extras = append(h.extras, &extra{})
		s.extra = uint32(len(h.extras))
		h.bytes += 104
	}
	return h.extras[s.extra-1]
}

// append returns the time range of the samples added.
func (h *Head) append(t *tenantHead, res *telemetry.Resource, e *Entry, in *telemetry.Series) (lo, hi int64) {
	if in.Metadata != nil {
		h.describe(t, e, in.Metadata)
	}
	lo, hi = math.MaxInt64, math.MinInt64
	if len(in.Samples)+len(in.Histograms)+len(in.Exemplars) == 0 {
		return lo, hi
	}
	s := h.slotOf(t, e)
	for i := range in.Samples {
		p := &in.Samples[i]
		lo, hi = min(lo, p.T), max(hi, p.T)
		h.float(s, p)
	}
	for i := range in.Histograms {
		p := &in.Histograms[i]
		lo, hi = min(lo, p.T), max(hi, p.T)
		x := h.extraOf(s)
		x.histograms = append(x.histograms, memHistogram{t: p.T, st: p.ST, h: p.H, fh: p.FH, after: s.n, seq: h.seq})
	}
	oldLo, oldHi := s.lo, s.hi
	s.lo, s.hi = min(s.lo, lo), max(s.hi, hi)
	for _, ex := range in.Exemplars {
		x := h.extraOf(s)
		x.exemplars = append(x.exemplars, memExemplar{e: ex, seq: h.seq})
		s.lo, s.hi = min(s.lo, ex.Ts), max(s.hi, ex.Ts)
	}
	h.records += int64(len(in.Samples) + len(in.Histograms) + len(in.Exemplars))
	if len(in.Histograms)+len(in.Exemplars) > 0 {
		h.bytes += int64(in.Size() - 24*len(in.Samples) - len(in.Labels))
	}
	if res == nil {
		res = e.own
	}
	if res != nil && lo <= hi {
		h.vouch(s, Evidence{Resource: res, First: lo, Last: hi}, oldLo, oldHi)
	}
	return lo, hi
}

// float adds a float sample, unless it repeats the one before.
func (h *Head) float(s *slot, p *telemetry.Sample) {
	i := s.n % chunkSamples
	if s.n > 0 && p.T <= s.top {
		if p.T == s.top && p.ST == s.topST && (s.extra == 0 || len(h.extras[s.extra-1].histograms) == 0) {
			last := h.chunk(s.last - 1)
			if math.Float64bits(last.v[(s.n-1)%chunkSamples]) == math.Float64bits(p.V) {
				return
			}
		}
		s.messy = true
	}
	if i == 0 {
		if h.nchunks%slabChunks == 0 {
			h.chunks = append(h.chunks, make([]chunk, slabChunks))
		}
		h.nchunks++
		h.bytes += chunkBytes
		if s.last == 0 {
			s.first = h.nchunks
		} else {
			h.chunk(s.last - 1).next = h.nchunks
		}
		s.last = h.nchunks
	}
	if p.ST != s.topST {
		x := h.extraOf(s)
		x.starts = append(x.starts, startRun{from: s.n, st: p.ST})
		h.bytes += 16
	}
	c := h.chunk(s.last - 1)
	c.t[i], c.v[i], c.seq[i] = p.T, p.V, h.seq
	s.n++
	s.top, s.topST = p.T, p.ST
}

// vouch notes who vouches for the series; lo and hi are its bounds so far. An evidence seen by an older snapshot may
// reach further in time than that snapshot: it is about identity, not about data.
func (h *Head) vouch(s *slot, e Evidence, lo, hi int64) {
	n, ok := h.resource[e.Resource]
	if !ok {
		h.resources = append(h.resources, e.Resource)
		n = uint32(len(h.resources))
		h.resource[e.Resource] = n
		h.bytes += 32
	}
	if s.resource == n {
		return
	}
	if s.resource == 0 && (s.extra == 0 || len(h.extras[s.extra-1].evidence) == 0) {
		s.resource = n
		return
	}
	x := h.extraOf(s)
	if s.resource != 0 { // it vouched for all so far
		first := Evidence{Resource: h.resources[s.resource-1], First: lo, Last: hi}
		x.evidence = append(x.evidence, memEvidence{Evidence: first, seq: s.born})
		s.resource = 0
		h.bytes += 48
	}
	for i := range x.evidence {
		if o := &x.evidence[i]; o.Resource.ID == e.Resource.ID {
			o.First, o.Last = min(o.First, e.First), max(o.Last, e.Last)
			return
		}
	}
	x.evidence = append(x.evidence, memEvidence{Evidence: e, seq: h.seq})
	h.bytes += 48
}

func (h *Head) describe(t *tenantHead, e *Entry, m *telemetry.Metadata) {
	family := FamilyName(e.labels.Get(metricName), m.Type)
	if old := t.meta[family]; len(old) == 0 || old[len(old)-1].Metadata != *m {
		t.meta[family] = append(old, metaEntry{Metadata: *m, seq: h.seq})
		h.bytes += int64(120 + len(family) + len(m.Help))
	}
}

// SizeInMemory returns about how many bytes what s brings takes in a head.
func SizeInMemory(s *telemetry.Series) int64 {
	n := 16 + len(s.Samples)*chunkBytes/chunkSamples
	if len(s.Histograms)+len(s.Exemplars) > 0 {
		n += s.Size() - 24*len(s.Samples)
	}
	return int64(n)
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

// batchSeries is how many series are read under one lock.
const batchSeries = 512

// Select implements Source. What it finds is copied.
func (t *Tenant) Select(ctx context.Context, q *storage.SeriesQuery, what What, masks []Mask) (Selection, error) {
	h := t.s.head
	var applying []Mask
	for _, m := range masks {
		if h.from < m.Position {
			applying = append(applying, m)
		}
	}
	slots, checked := t.slots(q)
	out := &memory{}
	same := make(sameTimes)
	for len(slots) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(batchSeries, len(slots))
		h.mu.RLock()
		for _, i := range slots[:n] {
			s, e := h.slot(i), h.entries[i]
			if s.born > t.s.seq || s.hi < q.Start || s.lo > q.End || !checked && !storage.MatchLabels(e.labels, q.Matchers) {
				continue
			}
			if d, ok := t.data(s, e, q, what, covering(applying, e.labels)); ok {
				d.T = same.one(d.T)
				out.data = append(out.data, d)
			}
		}
		h.mu.RUnlock()
		slots = slots[n:]
	}
	return out, nil
}

// sameTimes finds columns of times that are equal, so that series of one scrape share one.
type sameTimes map[[3]int64][]int64

func (s sameTimes) one(ts []int64) []int64 {
	if len(ts) == 0 {
		return ts
	}
	k := [3]int64{int64(len(ts)), ts[0], ts[len(ts)-1]}
	if known, ok := s[k]; ok && slices.Equal(known, ts) {
		return known
	}
	s[k] = ts
	return ts
}

// slots returns the slots that may match, and whether their labels are known to.
func (t *Tenant) slots(q *storage.SeriesQuery) ([]uint32, bool) {
	h := t.s.head
	h.mu.RLock()
	th := h.tenants[t.tenant]
	var own []uint32
	if th != nil {
		own = slices.Clip(th.slots)
	}
	h.mu.RUnlock()
	if len(q.Matchers) == 0 || len(own) == 0 {
		return own, true
	}
	at := h.active.of(t.tenant)
	if at == nil {
		return own, false
	}
	at.mu.RLock()
	defer at.mu.RUnlock()
	if h.number < at.since {
		return own, false
	}
	var out []uint32
	for _, n := range at.candidates(q.Matchers) {
		e := at.all[n]
		slot, ok := e.slotIn(h.number)
		switch {
		case ok:
			if storage.MatchLabels(e.labels, q.Matchers) {
				out = append(out, slot)
			}
		case uint32(e.prev.Load()>>32) > h.number: // younger heads took its places
			return own, false
		}
	}
	return out, true
}

// data copies what the snapshot sees of a series. It needs the head's mu.
func (t *Tenant) data(s *slot, e *Entry, q *storage.SeriesQuery, what What, masks []Mask) (Data, bool) {
	h := t.s.head
	d := Data{Labels: e.labels}
	var x *extra
	if s.extra > 0 {
		x = h.extras[s.extra-1]
	}
	if what&EvidenceOf != 0 || q.Resources != nil {
		d.Evidence = t.evidence(s, x, q)
		if q.Resources != nil && !vouched(d.Evidence, q.Resources) {
			return d, false
		}
	}
	if what&Exemplars != 0 && x != nil {
		for i := range x.exemplars {
			m := &x.exemplars[i]
			if m.seq <= t.s.seq && m.e.Ts >= q.Start && m.e.Ts <= q.End && !hidden(masks, m.e.Ts) {
				d.Exemplars = append(d.Exemplars, m.e)
			}
		}
	}
	if what&Samples == 0 && len(masks) == 0 && t.present(s, q) {
		return d, true
	}
	if x != nil && len(x.histograms) > 0 {
		t.mixed(s, x, q, masks, &d)
	} else {
		t.floats(s, x, q, masks, &d)
	}
	if d.empty() {
		return d, false
	}
	if what&Samples == 0 {
		d.Columns, d.Histograms = Columns{}, nil
	}
	return d, true
}

// present says whether the first float sample is in the range, which is a quick way to tell that there is one.
func (t *Tenant) present(s *slot, q *storage.SeriesQuery) bool {
	if s.n == 0 {
		return false
	}
	c := t.s.head.chunk(s.first - 1)
	return c.seq[0] <= t.s.seq && c.t[0] >= q.Start && c.t[0] <= q.End
}

func (t *Tenant) evidence(s *slot, x *extra, q *storage.SeriesQuery) (es []Evidence) {
	h := t.s.head
	if s.resource != 0 {
		return []Evidence{{Resource: h.resources[s.resource-1], First: s.lo, Last: s.hi}}
	}
	if x == nil {
		return nil
	}
	for _, e := range x.evidence {
		if e.seq <= t.s.seq && e.First <= q.End && e.Last >= q.Start {
			es = append(es, e.Evidence)
		}
	}
	return es
}

// each calls f for the float samples that the snapshot sees, in the order of arrival.
func (t *Tenant) each(s *slot, x *extra, f func(i uint32, at int64, v float64, st int64)) {
	h := t.s.head
	var runs []startRun
	if x != nil {
		runs = x.starts
	}
	st := int64(0)
	at := s.first
	for i := uint32(0); i < s.n; {
		c := h.chunk(at - 1)
		for j := uint32(0); j < chunkSamples && i < s.n; i, j = i+1, j+1 {
			if c.seq[j] > t.s.seq {
				return
			}
			for len(runs) > 0 && runs[0].from <= i {
				st, runs = runs[0].st, runs[1:]
			}
			f(i, c.t[j], c.v[j], st)
		}
		at = c.next
	}
}

// floats reads a series without histograms.
func (t *Tenant) floats(s *slot, x *extra, q *storage.SeriesQuery, masks []Mask, d *Data) {
	hasStarts := x != nil && len(x.starts) > 0
	if s.messy {
		var ps []Point
		t.each(s, x, func(_ uint32, at int64, v float64, st int64) {
			if at >= q.Start && at <= q.End && !hidden(masks, at) {
				ps = append(ps, Point{T: at, V: v, ST: st})
			}
		})
		d.fromPoints(ps)
		return
	}
	d.T, d.V = slices.Grow(d.T, int(s.n)), slices.Grow(d.V, int(s.n))
	if !hasStarts {
		d.ST = nil
	} else if d.ST == nil {
		d.ST = make([]int64, 0, s.n)
	}
	t.each(s, x, func(_ uint32, at int64, v float64, st int64) {
		if at < q.Start || at > q.End || len(masks) > 0 && hidden(masks, at) {
			return
		}
		d.T, d.V = append(d.T, at), append(d.V, v)
		if hasStarts {
			d.ST = append(d.ST, st)
		}
	})
}

// mixed reads a series with histograms, and perhaps floats.
func (t *Tenant) mixed(s *slot, x *extra, q *storage.SeriesQuery, masks []Mask, d *Data) {
	var ps []Point
	wanted := func(at int64) bool { return at >= q.Start && at <= q.End && !hidden(masks, at) }
	hs := x.histograms
	histograms := func(upTo uint32) {
		for ; len(hs) > 0 && hs[0].after <= upTo && hs[0].seq <= t.s.seq; hs = hs[1:] {
			if wanted(hs[0].t) {
				ps = append(ps, Point{T: hs[0].t, ST: hs[0].st, H: hs[0].h, FH: hs[0].fh})
			}
		}
	}
	t.each(s, x, func(i uint32, at int64, v float64, st int64) {
		histograms(i)
		if wanted(at) {
			ps = append(ps, Point{T: at, V: v, ST: st})
		}
	})
	histograms(math.MaxUint32)
	d.fromPoints(ps)
}

// visible says whether the snapshot sees samples of a slot near a time range. It needs the head's mu.
func (t *Tenant) visible(n uint32, q *storage.SeriesQuery) bool {
	s := t.s.head.slot(n)
	if s.born > t.s.seq || s.hi < q.Start || s.lo > q.End {
		return false
	}
	return s.n > 0 || s.extra > 0 && len(t.s.head.extras[s.extra-1].histograms) > 0
}

// indexed calls each for the postings of the tenant's index, if all series of the head can be found through it, and
// says whether it did. Any tells whether one of the series is visible.
func (t *Tenant) indexed(q *storage.SeriesQuery, each func(at *activeTenant, any func([]uint32) bool)) bool {
	h := t.s.head
	at := h.active.of(t.tenant)
	if at == nil || len(q.Matchers) > 0 {
		return false
	}
	at.mu.RLock()
	defer at.mu.RUnlock()
	h.mu.RLock()
	defer h.mu.RUnlock()
	th := h.tenants[t.tenant]
	if th == nil {
		return true
	}
	if h.number < at.since || len(th.slots) < len(at.all)/8 { // looking at all series would take longer than looking at those that are there
		return false
	}
	all := true
	each(at, func(ps []uint32) bool {
		for _, n := range ps {
			e := at.all[n]
			slot, ok := e.slotIn(h.number)
			if ok && t.visible(slot, q) {
				return true
			}
			all = all && (ok || uint32(e.prev.Load()>>32) < h.number)
		}
		return false
	})
	return all
}

// LabelNames implements Source.
func (t *Tenant) LabelNames(ctx context.Context, q *storage.SeriesQuery, f func(string)) error {
	ok := t.indexed(q, func(at *activeTenant, any func([]uint32) bool) {
		for name, values := range at.index {
			for _, ps := range values {
				if any(ps) {
					f(name)
					break
				}
			}
		}
	})
	if ok {
		return nil
	}
	return t.eachLabels(ctx, q, func(ls telemetry.LabelSet) { ls.Range(func(name, _ string) { f(name) }) })
}

// LabelValues implements Source.
func (t *Tenant) LabelValues(ctx context.Context, name string, q *storage.SeriesQuery, f func(string)) error {
	ok := t.indexed(q, func(at *activeTenant, any func([]uint32) bool) {
		for value, ps := range at.index[name] {
			if any(ps) {
				f(value)
			}
		}
	})
	if ok {
		return nil
	}
	return t.eachLabels(ctx, q, func(ls telemetry.LabelSet) {
		if v := ls.Get(name); v != "" {
			f(v)
		}
	})
}

func (t *Tenant) eachLabels(ctx context.Context, q *storage.SeriesQuery, f func(telemetry.LabelSet)) error {
	sel, err := t.Select(ctx, q, 0, nil)
	if err != nil {
		return err
	}
	for i := range sel.Len() {
		f(sel.Labels(i))
	}
	return nil
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
