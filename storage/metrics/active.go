package metrics

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
)

// Entry is an active series: what is known of it beyond its samples.
type Entry struct {
	labels telemetry.LabelSet
	own    *telemetry.Resource // what the labels tell of where it comes from, or nil
	self   telemetry.Handle    // the entry; senders that repeat themselves bring it along
	owner  *activeTenant       // nil once it was forgotten; guarded by who appends to the log

	// The places in the youngest head that has samples and in the one before: the number of the head, then that of
	// the slot.
	cur, prev atomic.Uint64
	seen      int64 // when the youngest of the heads was made, in milliseconds; guarded by who appends to heads

	// What the log calls the series; guarded by who appends to the log.
	number uint32
	era    uint64
}

// SeriesHandle implements telemetry.Handle.
func (e *Entry) SeriesHandle() {}

// Labels returns the labels of the series.
func (e *Entry) Labels() telemetry.LabelSet { return e.labels }

// place packs the number of a head and of a slot in it.
func place(head, slot uint32) uint64 { return uint64(head)<<32 | uint64(slot) }

// slotIn returns the slot of the series in a head; ok is false when it has none or it is not known any more.
func (e *Entry) slotIn(head uint32) (slot uint32, ok bool) {
	for _, p := range [...]uint64{e.cur.Load(), e.prev.Load()} {
		if uint32(p>>32) == head {
			return uint32(p), true
		}
	}
	return 0, false
}

// Limits bound the active series.
type Limits struct {
	PerTenant int
	PerMetric int // of one tenant
}

// Active is the series that are written to, found by their labels. It outlives heads. Sweep forgets a series that had
// no samples for a while. Resolve and Sweep are for one caller at a time, everything else is safe for concurrent use.
type Active struct {
	limits Limits
	heads  uint32 // numbers heads from 1; guarded by who makes them
	count  atomic.Int64

	mu      sync.RWMutex // guards tenants
	tenants map[telemetry.Tenant]*activeTenant
}

// NewActive returns an empty table.
func NewActive(l Limits) *Active {
	return &Active{limits: l, tenants: make(map[telemetry.Tenant]*activeTenant)}
}

// Len returns the number of active series.
func (a *Active) Len() int { return int(a.count.Load()) }

// activeTenant is the series of one tenant with their index by labels.
type activeTenant struct {
	mu        sync.RWMutex // guards all below
	series    map[telemetry.LabelSet]*Entry
	all       []*Entry            // by number; the index speaks of these
	index     map[string]postings // by label name
	resources map[telemetry.ResourceID]*telemetry.Resource
	since     uint32   // series of heads before this one may be missing
	order     []*Entry // the first sorted of all in storage order, replaced and never changed
	sorted    int
}

// postings are the series by the value of one label, in the order of their numbers.
type postings map[string][]uint32

func newActiveTenant(n int) *activeTenant {
	return &activeTenant{
		series: make(map[telemetry.LabelSet]*Entry, n), all: make([]*Entry, 0, n), index: make(map[string]postings),
		resources: make(map[telemetry.ResourceID]*telemetry.Resource),
	}
}

// of returns the series of a tenant, or nil.
func (a *Active) of(t telemetry.Tenant) *activeTenant {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.tenants[t]
}

// Overflow is samples that a limit of active series refused.
type Overflow struct {
	Tenant  telemetry.Tenant
	Metric  string
	Setting string
	Limit   int
	Samples int
	Last    int64 // time of the last sample refused
}

// Resolve returns the entries of all series of the batches, in their order, and makes those that are missing. Series
// that would be too many lose what they bring and have no entry.
func (a *Active) Resolve(batches []telemetry.Batch, dst []*Entry) ([]*Entry, []Overflow) {
	var over []Overflow
	for i := range batches {
		b := &batches[i]
		if len(b.Series) == 0 {
			continue
		}
		t := a.make(b.Tenant)
		at := len(dst)
		missing := false
		t.mu.RLock()
		for j := range b.Series {
			known := b.Series[j].Known
			if known != nil {
				if e, ok := known.Handle().(*Entry); ok && e.owner == t {
					dst = append(dst, e)
					continue
				}
			}
			e := t.series[b.Series[j].Labels]
			if e != nil && known != nil {
				known.Leave(&e.self)
			}
			missing = missing || e == nil
			dst = append(dst, e)
		}
		t.mu.RUnlock()
		if missing {
			over = a.create(t, b, dst[at:], over)
		}
	}
	return dst, over
}

// make returns the series of a tenant.
func (a *Active) make(n telemetry.Tenant) *activeTenant {
	t := a.of(n)
	if t == nil {
		t = newActiveTenant(0)
		t.since = a.heads // it may have had series before, and been forgotten
		a.mu.Lock()
		a.tenants[n] = t
		a.mu.Unlock()
	}
	return t
}

// Reserve returns the entry of a series, which no limit refuses. It is for the caller of Resolve.
func (a *Active) Reserve(n telemetry.Tenant, ls telemetry.LabelSet) *Entry {
	t := a.make(n)
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.series[ls]
	if e == nil {
		e = t.add(ls)
		a.count.Add(1)
	}
	return e
}

// create fills in the entries that are nil.
func (a *Active) create(t *activeTenant, b *telemetry.Batch, es []*Entry, over []Overflow) []Overflow {
	t.mu.Lock()
	defer t.mu.Unlock()
	for j := range es {
		if es[j] != nil {
			continue
		}
		s := &b.Series[j]
		if e := t.series[s.Labels]; e != nil { // made by a series before this one
			es[j] = e
			continue
		}
		metric := s.Labels.Get(metricName)
		setting, limit := "", 0
		switch {
		case len(t.all) >= a.limits.PerTenant:
			setting, limit = "storage.max_series", a.limits.PerTenant
		case len(t.index[metricName][metric]) >= a.limits.PerMetric && metric != "":
			setting, limit = "storage.max_series_per_metric", a.limits.PerMetric
		}
		if setting != "" {
			over = refuse(over, Overflow{Tenant: b.Tenant, Metric: metric, Setting: setting, Limit: limit}, s)
			continue
		}
		ls := s.Labels
		if s.Known == nil { // it may be a piece of something larger
			ls = telemetry.LabelSet(strings.Clone(string(ls)))
		}
		es[j] = t.add(ls)
		a.count.Add(1)
	}
	return over
}

// refuse takes away what a series brings.
func refuse(over []Overflow, o Overflow, s *telemetry.Series) []Overflow {
	for i := range s.Samples {
		o.Last = max(o.Last, s.Samples[i].T)
	}
	for i := range s.Histograms {
		o.Last = max(o.Last, s.Histograms[i].T)
	}
	n := len(s.Samples) + len(s.Histograms)
	s.Samples, s.Histograms, s.Exemplars, s.Metadata = nil, nil, nil, nil
	if s.Derived {
		n = 0
	}
	i := slices.IndexFunc(over, func(x Overflow) bool { return x.Tenant == o.Tenant && x.Metric == o.Metric && x.Setting == o.Setting })
	if i < 0 {
		over = append(over, o)
		i = len(over) - 1
	}
	over[i].Samples += n
	over[i].Last = max(over[i].Last, o.Last)
	return over
}

// Reason says what was refused and what to do.
func (o *Overflow) Reason() string {
	what := fmt.Sprintf("metric %s has", o.Metric)
	if o.Setting == "storage.max_series" {
		what = "the tenant has"
	}
	return fmt.Sprintf("%s more than %d active series (setting %s); new series of %s are refused until others fall silent: drop the label with most values or raise the limit", what, o.Limit, o.Setting, o.Metric)
}

// add makes an entry. It needs mu.
func (t *activeTenant) add(ls telemetry.LabelSet) *Entry {
	e := &Entry{labels: ls, own: telemetry.LabelResource(ls)}
	e.self = e
	if e.own != nil {
		if known := t.resources[e.own.ID]; known != nil {
			e.own = known
		} else {
			t.resources[e.own.ID] = e.own
		}
	}
	t.enter(e)
	return e
}

// enter adds an entry to the tables. It needs mu.
func (t *activeTenant) enter(e *Entry) {
	n := uint32(len(t.all))
	e.owner = t
	t.all = append(t.all, e)
	t.series[e.labels] = e
	e.labels.Range(func(name, value string) {
		ps := t.index[name]
		if ps == nil {
			ps = make(postings)
			t.index[name] = ps
		}
		ps[value] = append(ps[value], n)
	})
}

// Sweep forgets the series that were last written to in a head made before a time, in milliseconds, and that the heads
// from the oldest one on do not hold, if there are enough of them to be worth it.
func (a *Active) Sweep(before int64, oldest uint32) {
	live := func(head uint32) bool { return head >= oldest }
	a.mu.RLock()
	tenants := maps.Clone(a.tenants)
	a.mu.RUnlock()
	for n, t := range tenants {
		kept := make([]*Entry, 0, len(t.all))
		for _, e := range t.all {
			if e.seen >= before || live(uint32(e.cur.Load()>>32)) || live(uint32(e.prev.Load()>>32)) {
				kept = append(kept, e)
			}
		}
		dead := len(t.all) - len(kept)
		if dead*20 < len(t.all) || dead == 0 {
			continue
		}
		a.count.Add(int64(-dead))
		for _, e := range t.all {
			e.owner = nil // the kept ones get a new one
		}
		fresh := newActiveTenant(len(kept))
		for _, e := range kept {
			if e.own != nil {
				fresh.resources[e.own.ID] = e.own
			}
			fresh.enter(e)
		}
		alive := make(map[*Entry]bool, len(kept))
		for _, e := range kept {
			alive[e] = true
		}
		for _, e := range t.ordered() {
			if alive[e] {
				fresh.order = append(fresh.order, e)
			}
		}
		fresh.sorted, fresh.since = len(kept), oldest
		a.mu.Lock()
		if len(kept) == 0 {
			delete(a.tenants, n)
		} else {
			a.tenants[n] = fresh
		}
		a.mu.Unlock()
	}
}

// candidates returns what the index leaves of the matching series. It needs mu for reading.
func (t *activeTenant) candidates(ms []*labels.Matcher) []uint32 {
	var best []uint32
	found := false
	for _, m := range ms {
		if m.Type != labels.MatchEqual || m.Value == "" {
			continue
		}
		if ps := t.index[m.Name][m.Value]; !found || len(ps) < len(best) {
			best, found = ps, true
		}
	}
	if found {
		return best
	}
	for _, m := range ms {
		if m.Matches("") {
			continue
		}
		var some []uint32
		for v, ps := range t.index[m.Name] {
			if m.Matches(v) {
				some = append(some, ps...)
			}
		}
		if !found || len(some) < len(best) {
			best, found = some, true
		}
	}
	if found {
		slices.Sort(best)
		return best
	}
	best = make([]uint32, len(t.all))
	for i := range best {
		best[i] = uint32(i)
	}
	return best
}

// Number gives a series its number in the log for an era, in the order of the calls; fresh says that it had none.
func (e *Entry) Number(era uint64, next uint32) (number uint32, fresh bool) {
	if e.era == era {
		return e.number, false
	}
	e.era, e.number = era, next
	return next, true
}

// Recall is Resolve for what the log gives back: the limits were applied before.
func (a *Active) Recall(batches []telemetry.Batch) []*Entry {
	var es []*Entry
	for i := range batches {
		for j := range batches[i].Series {
			es = append(es, a.Reserve(batches[i].Tenant, batches[i].Series[j].Labels))
		}
	}
	return es
}
