package db

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

var _ storage.TraceSampler = (*DB)(nil)

// TraceDays implements storage.TraceSampler.
func (d *DB) TraceDays() []storage.TraceDay {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []storage.TraceDay
	for p, hs := range d.current.parts {
		if p.signal == storage.Traces && len(hs) > 0 {
			out = append(out, storage.TraceDay{Tenant: p.tenant, Day: p.day})
		}
	}
	slices.SortFunc(out, func(a, b storage.TraceDay) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Day, b.Day))
	})
	return out
}

// SampleTraces implements storage.TraceSampler.
func (d *DB) SampleTraces(ctx context.Context, day storage.TraceDay, upTo storage.Position, keep func(telemetry.TraceID) float64) error {
	d.tidyMu.Lock()
	defer d.tidyMu.Unlock()
	v := d.hold()
	defer v.release(ctx, d)
	p := partition{signal: storage.Traces, tenant: day.Tenant, day: day.Day}
	var in []*partHandle
	for _, h := range v.parts[p] {
		if h.corrupt.Load() != nil {
			return fmt.Errorf("sample %s: part %s is corrupt: what it holds cannot be told", p.path(), h.meta.Name)
		}
		if h.meta.To <= upTo {
			in = append(in, h)
		}
	}
	if len(in) == 0 {
		return nil
	}
	return d.rewriteSome(ctx, p, "sample", in, keep)
}
