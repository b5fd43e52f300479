package db

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/blob"
	"github.com/braidobs/braid/storage/logs"
	signalmetrics "github.com/braidobs/braid/storage/metrics"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces"
)

// partHandle is a live part. Its file is opened when it is first read and closed, and deleted if the part was
// dropped, when no version holds it any more.
type partHandle struct {
	meta    partMeta
	refs    atomic.Int32 // versions that hold it
	dropped atomic.Bool
	corrupt atomic.Pointer[error]

	mu      sync.Mutex // guards all below
	reader  blob.Reader
	metrics *signalmetrics.Part
	logs    *logs.Part
	traces  *traces.Part
}

// open makes the part readable.
func (h *partHandle) open(ctx context.Context, d *DB) error {
	if err := h.corrupt.Load(); err != nil {
		return *err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reader != nil {
		return nil
	}
	r, err := d.deps.Blobs.Open(ctx, h.meta.Name)
	if err != nil {
		if errors.Is(err, blob.ErrNotFound) {
			return &part.CorruptError{File: h.meta.Name, What: "the file is missing"}
		}
		return fmt.Errorf("open part: %w", err)
	}
	p, err := part.Open(h.meta.Name, r, r.Size(), d.dec, d.cache)
	if err != nil {
		return errors.Join(err, r.Close())
	}
	m := &h.meta
	switch m.Signal {
	case storage.Metrics:
		h.metrics = signalmetrics.OpenPart(p, m.To, m.Lo, m.Hi)
	case storage.Logs:
		h.logs = logs.OpenPart(p, m.To, m.Lo, m.Hi)
	case storage.Traces:
		h.traces = traces.OpenPart(p, m.To, m.Lo, m.Hi, d.segments)
	}
	h.reader = r
	return nil
}

// quarantine sets a corrupt part aside: it is not read any more.
func (d *DB) quarantine(h *partHandle, err error) {
	if h.corrupt.CompareAndSwap(nil, &err) {
		d.m.corrupt.Inc()
		d.log.Error("part is corrupt and set aside", "part", h.meta.Name, "err", err)
	}
}

// version is an immutable set of live parts. It counts its users: the DB while it is current, and views.
type version struct {
	refs  atomic.Int32
	parts map[partition][]*partHandle // in the order of From
}

// newVersion returns a version with one user.
func newVersion(parts map[partition][]*partHandle) *version {
	v := &version{parts: parts}
	v.refs.Store(1)
	for _, hs := range parts {
		for _, h := range hs {
			h.refs.Add(1)
		}
	}
	return v
}

// with returns a version that lacks some parts and has others.
func (v *version) with(drop map[string]bool, add []partMeta) *version {
	parts := maps.Clone(v.parts)
	if parts == nil {
		parts = make(map[partition][]*partHandle)
	}
	if len(drop) > 0 {
		for p, hs := range parts {
			kept := slices.DeleteFunc(slices.Clone(hs), func(h *partHandle) bool {
				if drop[h.meta.Name] {
					h.dropped.Store(true)
					return true
				}
				return false
			})
			if len(kept) == 0 {
				delete(parts, p)
			} else if len(kept) < len(hs) {
				parts[p] = kept
			}
		}
	}
	for i := range add {
		p := add[i].partition()
		hs := append(slices.Clone(parts[p]), &partHandle{meta: add[i]})
		slices.SortStableFunc(hs, func(a, b *partHandle) int { return cmp.Compare(a.meta.From, b.meta.From) })
		parts[p] = hs
	}
	return newVersion(parts)
}

// each calls f for every live part.
func (v *version) each(f func(*partHandle)) {
	for _, hs := range v.parts {
		for _, h := range hs {
			f(h)
		}
	}
}

// release gives back one use. What it cleans up does not end with ctx.
func (v *version) release(ctx context.Context, d *DB) {
	if v.refs.Add(-1) > 0 {
		return
	}
	v.each(func(h *partHandle) {
		if h.refs.Add(-1) > 0 {
			return
		}
		h.mu.Lock()
		if h.reader != nil {
			if err := h.reader.Close(); err != nil {
				d.log.Warn("part cannot be closed", "part", h.meta.Name, "err", err)
			}
			h.reader, h.metrics, h.logs, h.traces = nil, nil, nil, nil
		}
		h.mu.Unlock()
		if h.dropped.Load() && !d.holed() {
			if err := d.deps.Blobs.Delete(context.WithoutCancel(ctx), h.meta.Name); err != nil {
				d.log.Warn("part cannot be deleted, the next start tries again", "part", h.meta.Name, "err", err)
			}
		}
	})
}

// holed says whether nothing may be deleted because something is missing.
func (d *DB) holed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unswept
}

// install makes v current. It needs mu; the returned version must be released without it.
func (d *DB) install(v *version) (old *version) {
	old, d.current = d.current, v
	return old
}

// of returns the live parts of a signal and tenant that reach into a time range, in the order of arrival.
func (v *version) of(s storage.Signal, t telemetry.Tenant, lo, hi int64) []*partHandle {
	var out []*partHandle
	for p, hs := range v.parts {
		if p.signal != s || p.tenant != t {
			continue
		}
		for _, h := range hs {
			if h.meta.Lo <= hi && h.meta.Hi >= lo {
				out = append(out, h)
			}
		}
	}
	slices.SortFunc(out, func(a, b *partHandle) int {
		return cmp.Or(cmp.Compare(a.meta.From, b.meta.From), cmp.Compare(a.meta.Day, b.meta.Day), cmp.Compare(a.meta.Name, b.meta.Name))
	})
	return out
}
