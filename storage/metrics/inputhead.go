package metrics

import (
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"

	"github.com/braidobs/braid/storage"
)

const millisPerDay = 24 * 3600 * 1000

// Days returns the days that the samples and exemplars of the snapshot lie in, counted from the epoch. The head must
// not change any more.
func (t *Tenant) Days() []int64 {
	h := t.s.head
	th := h.tenants[t.tenant]
	if th == nil {
		return nil
	}
	seen := make(map[int64]bool)
	last := int64(minTime)
	for _, n := range th.slots {
		s := h.slot(n)
		day := floorDiv(s.lo, millisPerDay)
		if day == floorDiv(s.hi, millisPerDay) {
			if day != last {
				seen[day] = true
				last = day
			}
			continue
		}
		d, _ := t.data(s, h.entries[n], everything(), Samples|Exemplars, nil)
		for _, at := range d.T {
			seen[floorDiv(at, millisPerDay)] = true
		}
		for i := range d.Histograms {
			seen[floorDiv(d.Histograms[i].T, millisPerDay)] = true
		}
		for i := range d.Exemplars {
			seen[floorDiv(d.Exemplars[i].Ts, millisPerDay)] = true
		}
	}
	days := make([]int64, 0, len(seen))
	for d := range seen {
		days = append(days, d)
	}
	slices.Sort(days)
	return days
}

// headInput is what a head holds of one tenant and day. It reads the head in place.
type headInput struct {
	t     *Tenant
	q     *storage.SeriesQuery // the day
	order []uint32             // slots in storage order
	slots []uint32             // those with anything in the day, as next gave them
	at    int
	now   key
	c     Columns
}

// input returns what there is of a day. The head must not change any more.
func (t *Tenant) input(day int64) *headInput {
	return &headInput{
		t: t, q: &storage.SeriesQuery{Start: day * millisPerDay, End: (day+1)*millisPerDay - 1}, order: t.ordered(),
	}
}

// ordered returns the slots of the tenant in storage order.
func (t *Tenant) ordered() []uint32 {
	h := t.s.head
	own := h.tenants[t.tenant].slots
	if at := h.active.of(t.tenant); at != nil {
		out := make([]uint32, 0, len(own))
		for _, e := range at.ordered() {
			if slot, ok := e.slotIn(h.number); ok {
				out = append(out, slot)
			}
		}
		if len(out) == len(own) {
			return out
		}
	}
	keys := make(map[uint32]key, len(own)) // the series are not known any more: the head is old
	for _, n := range own {
		keys[n] = keyOf(h.entries[n].labels)
	}
	out := slices.Clone(own)
	slices.SortFunc(out, func(a, b uint32) int {
		x, y := keys[a], keys[b]
		return x.compare(&y)
	})
	return out
}

func (in *headInput) next(ds *dicts, dst []pair) ([]pair, bool, error) {
	h := in.t.s.head
	for in.at < len(in.order) {
		n := in.order[in.at]
		in.at++
		s, e := h.slot(n), h.entries[n]
		if s.hi < in.q.Start || s.lo > in.q.End {
			continue
		}
		if s.lo < in.q.Start || s.hi > in.q.End {
			if _, ok := in.t.data(s, e, in.q, Samples|Exemplars, nil); !ok {
				continue
			}
		}
		in.slots = append(in.slots, n)
		return ds.appendAll(dst, e.labels), true, nil
	}
	return dst, false, nil
}

func (in *headInput) key() (*key, error) {
	in.now = keyOf(in.t.s.head.entries[in.slots[len(in.slots)-1]].labels)
	return &in.now, nil
}

func (in *headInput) bounds() (lo, hi int64) {
	lo, hi = maxTime, minTime
	for _, n := range in.slots {
		s := in.t.s.head.slot(n)
		lo, hi = min(lo, s.lo), max(hi, s.hi)
	}
	return max(lo, in.q.Start), min(hi, in.q.End)
}

func (in *headInput) has(w What) bool { return w&EvidenceOf != 0 || len(in.t.s.head.extras) > 0 }

func (in *headInput) slot(i int) (*slot, *extra) {
	h := in.t.s.head
	s := h.slot(in.slots[i])
	if s.extra == 0 {
		return s, nil
	}
	return s, h.extras[s.extra-1]
}

func (in *headInput) floats(i int, lo, hi int64) (Columns, error) {
	s, x := in.slot(i)
	q := storage.SeriesQuery{Start: lo, End: hi}
	if s.messy || x != nil && len(x.histograms) > 0 {
		d, _ := in.t.data(s, in.t.s.head.entries[in.slots[i]], &q, Samples, nil)
		return d.Columns, nil
	}
	d := Data{Columns: Columns{T: in.c.T[:0], V: in.c.V[:0], ST: in.c.ST[:0]}}
	in.t.floats(s, x, &q, nil, &d)
	in.c.T, in.c.V = d.T, d.V
	if d.ST != nil {
		in.c.ST = d.ST
	}
	return d.Columns, nil
}

func (in *headInput) histograms(i int) ([]Point, error) {
	s, x := in.slot(i)
	if x == nil || len(x.histograms) == 0 {
		return nil, nil
	}
	d, _ := in.t.data(s, in.t.s.head.entries[in.slots[i]], in.q, Samples, nil)
	return d.Histograms, nil
}

func (in *headInput) exemplars(i int) ([]exemplar.Exemplar, error) {
	_, x := in.slot(i)
	if x == nil {
		return nil, nil
	}
	var out []exemplar.Exemplar
	for j := range x.exemplars {
		if e := &x.exemplars[j].e; e.Ts >= in.q.Start && e.Ts <= in.q.End {
			out = append(out, *e)
		}
	}
	return out, nil
}

func (in *headInput) evidence(i int) ([]Evidence, error) {
	s, x := in.slot(i)
	return in.t.evidence(s, x, in.q), nil
}

// ordered returns the series in storage order. What is new since the last call is sorted in.
func (t *activeTenant) ordered() []*Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	fresh := t.all[t.sorted:]
	if len(fresh) == 0 {
		return t.order
	}
	keys := make([]key, len(fresh))
	order := make([]int, len(fresh))
	for i, e := range fresh {
		keys[i], order[i] = keyOf(e.labels), i
	}
	slices.SortFunc(order, func(a, b int) int { return keys[a].compare(&keys[b]) })
	out := make([]*Entry, 0, len(t.order)+len(fresh))
	for _, e := range t.order {
		if len(order) > 0 {
			k := keyOf(e.labels)
			for len(order) > 0 && keys[order[0]].compare(&k) < 0 {
				out = append(out, fresh[order[0]])
				order = order[1:]
			}
		}
		out = append(out, e)
	}
	for _, i := range order {
		out = append(out, fresh[i])
	}
	t.order, t.sorted = out, len(t.all)
	return out
}
