package db

import (
	"math"
	"sort"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

var _ storage.ChangeReader = (*view)(nil)

// whyRetention is the reason in the manifest of a change that drops what is past its retention.
const whyRetention = "retention"

// maxChanges bounds the changes that are remembered for a tenant.
const maxChanges = 1024

// change is samples of a tenant that came or went.
type change struct {
	to     storage.Position // a view at or after it shows the change
	oldest int64            // the smallest time of the samples, in milliseconds
}

// history tells how old the samples were that came and went since the store was opened. A change is only kept while
// all that followed were of younger samples: so both fields rise from one to the next, and the first one after a
// position tells the oldest of all that followed.
type history struct {
	from    storage.Position // nothing before it is known
	tenants map[telemetry.Tenant][]change
}

// wrote notes what a request brought; oldest is the smallest time of the samples of each batch.
func (h *history) wrote(pos storage.Position, batches []telemetry.Batch, oldest []int64) {
	for i := 0; i < len(batches); {
		tenant, least := batches[i].Tenant, int64(math.MaxInt64)
		for ; i < len(batches) && batches[i].Tenant == tenant; i++ {
			least = min(least, oldest[i])
		}
		if least < math.MaxInt64 {
			h.note(tenant, pos+1, least)
		}
	}
}

// dropped notes that retention took a day away, which moves no position: it counts as if the next record did it.
func (h *history) dropped(p partition, m *changeManifest, applied storage.Position) {
	if m.Why == whyRetention && p.signal == storage.Metrics {
		h.note(p.tenant, applied+1, p.day*millisPerDay)
	}
}

// note adds a change; to never falls from one call to the next. It takes constant time on average.
func (h *history) note(tenant telemetry.Tenant, to storage.Position, oldest int64) {
	cs := h.tenants[tenant]
	for len(cs) > 0 && cs[len(cs)-1].oldest >= oldest {
		cs = cs[:len(cs)-1]
	}
	if len(cs) == 0 || cs[len(cs)-1].to < to {
		if len(cs) == maxChanges {
			cs = coarser(cs)
		}
		cs = append(cs, change{to, oldest})
	}
	if h.tenants == nil {
		h.tenants = make(map[telemetry.Tenant][]change)
	}
	h.tenants[tenant] = cs
}

// coarser joins neighbours in the older half: the later place with the older time.
func coarser(cs []change) []change {
	half := len(cs) / 2
	for i := range half / 2 {
		cs[i] = change{cs[2*i+1].to, cs[2*i].oldest}
	}
	return append(cs[:half/2], cs[half:]...)
}

// since returns the smallest time of the samples that came or went after a position; ok is false when that is not known.
func (h *history) since(tenant telemetry.Tenant, pos storage.Position) (oldest int64, ok bool) {
	if pos < h.from {
		return 0, false
	}
	cs := h.tenants[tenant]
	i := sort.Search(len(cs), func(i int) bool { return cs[i].to > pos })
	if i == len(cs) {
		return math.MaxInt64, true
	}
	return cs[i].oldest, true
}

// Position implements storage.ChangeReader.
func (v *view) Position() storage.Position { return v.at }

// OldestChange implements storage.ChangeReader. What came after the view was opened counts as well.
func (v *view) OldestChange(tenant telemetry.Tenant, since storage.Position) (t int64, ok bool) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	return v.d.history.since(tenant, since)
}
