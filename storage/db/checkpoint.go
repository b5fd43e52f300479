package db

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/braidobs/braid/storage/blob"
)

// checkpointEvery is the default of Deps.CheckpointEvery.
const checkpointEvery = 256

// checkpoint writes the state of a chain into one object and deletes the manifests that it absorbs, all but the
// last flush. It needs flushMu, so that nothing changes meanwhile.
func (d *DB) checkpoint(ctx context.Context, c chain) error {
	d.mu.Lock()
	st := d.chains[c]
	cp := checkpoint{Chain: c.String(), From: st.from, To: st.to, Snapshot: st.snapshot, Time: d.deps.Now()}
	if c != chainMeta {
		cp.Changes = make(map[string]uint64)
		cp.Rewritten = maps.Clone(d.rewritten)
		d.current.each(func(h *partHandle) {
			if chain(h.meta.Signal) == c {
				cp.Parts = append(cp.Parts, h.meta)
			}
		})
		for p, n := range d.changes {
			if chain(p.signal) == c {
				cp.Changes[p.path()] = n
			}
		}
	}
	d.chains[c].manifests = 0
	stop := d.unswept
	d.mu.Unlock()
	b, err := encodeManifest(&cp)
	if err != nil {
		return err
	}
	name := checkpointName(c, cp.From)
	if err := d.deps.Blobs.PutIfAbsent(ctx, name, b); err != nil && !errors.Is(err, blob.ErrExists) {
		return fmt.Errorf("write checkpoint %s: %w", name, err)
	}
	if stop {
		return nil
	}
	return d.sweepManifests(ctx, c, &cp)
}

// sweepManifests deletes what a checkpoint absorbed.
func (d *DB) sweepManifests(ctx context.Context, c chain, cp *checkpoint) error {
	var gone []string
	list := func(prefix string, old func(name string) bool) error {
		for info, err := range d.deps.Blobs.List(ctx, prefix) {
			if err != nil {
				return fmt.Errorf("list %s: %w", prefix, err)
			}
			if old(info.Name) {
				gone = append(gone, info.Name)
			}
		}
		return nil
	}
	last, keep := commitName(c, cp.From), checkpointName(c, cp.From)
	err := errors.Join(
		list(commitPrefix(c), func(n string) bool { return n < last }),
		list(checkpointPrefix(c), func(n string) bool { return n < keep }),
	)
	if err != nil {
		return err
	}
	if c != chainMeta {
		prefix := "changes/" + c.String() + "/"
		err := list(prefix, func(n string) bool {
			p, num, ok := parseChangeName(n)
			return ok && num < cp.Changes[p]
		})
		if err != nil {
			return err
		}
	}
	for _, n := range gone {
		if err := d.deps.Blobs.Delete(ctx, n); err != nil {
			return fmt.Errorf("delete %s: %w", n, err)
		}
	}
	if err := d.deps.Catalog.Delete(gone...); err != nil {
		d.log.Warn("catalog cannot be written", "err", err)
	}
	return nil
}

// change commits the replacement of parts of one partition and makes it visible. It needs flushMu.
func (d *DB) change(ctx context.Context, p partition, m *changeManifest) error {
	d.mu.Lock()
	m.Number = d.changes[p]
	d.mu.Unlock()
	m.Time = d.deps.Now()
	b, err := encodeManifest(m)
	if err != nil {
		return err
	}
	name := changeName(p, m.Number)
	err = d.deps.Blobs.PutIfAbsent(ctx, name, b)
	if errors.Is(err, blob.ErrExists) { // of a try whose answer was lost: it stands
		*m = changeManifest{}
		if b, err = d.renew(ctx, name, m); err == nil && !d.holds(ctx, m.Inputs) {
			*m = changeManifest{Number: m.Number, Why: "void"}
		}
	}
	if err != nil {
		return fmt.Errorf("commit change %s: %w", name, err)
	}
	d.remember(name, b)
	drop := make(map[string]bool, len(m.Inputs))
	for _, n := range m.Inputs {
		drop[n] = true
	}
	d.mu.Lock()
	d.changes[p]++
	d.chains[p.signal].manifests++
	d.noteRewritten(m)
	old := d.install(d.current.with(drop, m.Outputs))
	d.history.dropped(p, m, d.applied)
	d.mu.Unlock()
	old.release(ctx, d)
	d.m.dropped.WithLabelValues(p.signal.String(), m.Why).Add(float64(len(m.Inputs)))
	return nil
}

// holds says whether all the named parts are live.
func (d *DB) holds(ctx context.Context, names []string) bool {
	v := d.hold()
	defer v.release(ctx, d)
	live := make(map[string]bool)
	v.each(func(h *partHandle) { live[h.meta.Name] = true })
	for _, n := range names {
		if !live[n] {
			return false
		}
	}
	return true
}

// noteRewritten needs mu.
func (d *DB) noteRewritten(m *changeManifest) {
	for _, id := range m.Masks {
		for _, in := range m.Inputs {
			if !slices.Contains(d.rewritten[id], in) {
				d.rewritten[id] = append(d.rewritten[id], in)
			}
		}
	}
}

// masksOf returns the deletes that a part may still hold covered records of. It needs mu.
func (d *DB) masksOf(m *partMeta) []mask {
	var some []mask
	for i := range d.masks {
		k := &d.masks[i]
		if k.Tenant == m.Tenant && k.Signal == m.Signal && m.To <= k.at && m.Mask < k.ID && k.Start <= m.Hi && k.End >= m.Lo {
			some = append(some, *k)
		}
	}
	return some
}
