package db

import (
	"context"
	"errors"
	"fmt"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/wal"
)

// maxMasks bounds the deletes that are remembered.
const maxMasks = 10_000

// Delete implements storage.Admin. It seals the heads, so that each part lies wholly before or after the delete,
// makes the mask durable, and shows it to every view opened afterwards.
func (d *DB) Delete(ctx context.Context, m storage.Mask) (uint64, error) {
	if err := checkMask(&m); err != nil {
		return 0, err
	}
	if d.closed.Load() {
		return 0, storage.ErrClosed
	}
	d.flushMu.Lock()
	defer d.flushMu.Unlock()
	d.mu.Lock()
	sealed := d.frozen[m.Signal] != nil
	d.mu.Unlock()
	if sealed { // an earlier flush failed: a delete needs the place to seal the head
		if err := d.flush(ctx, m.Signal); err != nil {
			return 0, err
		}
	}
	d.mu.Lock()
	n := len(d.masks)
	m.ID = 1
	if n > 0 {
		m.ID = d.masks[n-1].ID + 1
	}
	d.mu.Unlock()
	if n >= maxMasks {
		return 0, fmt.Errorf("%d deletes are remembered, no more are taken: join several into one", n)
	}
	if err := d.appendMask(&m); err != nil {
		return 0, d.refuse(err)
	}
	// The head that the mask cut is flushed at once, which also frees its place.
	if err := d.flush(ctx, m.Signal); err != nil {
		d.log.Warn("flush after a delete failed, it is tried again", "err", err)
	}
	signal(d.flushed)
	return m.ID, nil
}

// appendMask makes a mask durable and visible.
func (d *DB) appendMask(m *storage.Mask) error {
	if m.Signal == storage.Metrics { // the head that begins after the mask begins an era
		d.order.Lock()
		defer d.order.Unlock()
		d.appending.Wait()
	}
	out := make(chan error, 1)
	d.wal.Append(encodeMask(m), func(p wal.Position, err error) {
		if err == nil {
			d.mu.Lock()
			d.applyMask(storage.Position(p), m)
			d.mu.Unlock()
		}
		out <- err
	})
	return <-out
}

func checkMask(m *storage.Mask) error {
	switch {
	case !m.Tenant.Valid():
		return fmt.Errorf("delete: tenant %q is not a legal name", m.Tenant)
	case m.Signal < storage.Metrics || m.Signal > storage.Traces:
		return fmt.Errorf("delete: unknown signal %d", m.Signal)
	case m.Start > m.End:
		return errors.New("delete: the start lies after the end")
	case m.Signal == storage.Metrics && (m.Contains != "" || len(m.Traces) > 0):
		return errors.New("delete: series are selected by matchers alone")
	case m.Signal == storage.Traces && (m.Contains != "" || len(m.Matchers) > 0):
		return errors.New("delete: spans are selected by trace IDs alone")
	default:
		return nil
	}
}

// applyMask needs mu. What the active heads hold lies before the mask, what comes next lies after it: the masked
// scans tell them apart by position, and a metrics head by where it starts.
func (d *DB) applyMask(pos storage.Position, m *storage.Mask) {
	d.masks = append(d.masks, mask{Mask: *m, at: pos})
	if m.Signal == storage.Metrics {
		d.history.note(m.Tenant, pos+1, m.Start)
	}
	if d.heads[m.Signal].from < pos {
		d.turnHead(m.Signal, pos, d.deps.Now())
	}
	d.advance(pos + 1)
}

// Receipts implements storage.Admin.
func (d *DB) Receipts(_ context.Context, tenant telemetry.Tenant) ([]storage.Receipt, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []storage.Receipt
	for i := range d.masks {
		k := &d.masks[i]
		if k.Tenant != tenant {
			continue
		}
		r := storage.Receipt{Mask: k.Mask, Position: k.at, Rewritten: append([]string(nil), d.rewritten[k.ID]...)}
		d.current.each(func(h *partHandle) {
			for _, m := range d.masksOf(&h.meta) {
				if m.ID == k.ID {
					r.Pending = append(r.Pending, h.meta.Name)
				}
			}
		})
		out = append(out, r)
	}
	return out, nil
}

// Stats implements storage.Admin.
func (d *DB) Stats(context.Context) (storage.Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := storage.Stats{Signals: make(map[storage.Signal]storage.SignalStats), LogSize: d.wal.Bytes(), Holes: append([]string(nil), d.holes...)}
	for _, s := range signals() {
		var ss storage.SignalStats
		for _, h := range []*head{d.heads[s], d.frozen[s]} {
			if h != nil {
				b, n := h.size()
				ss.HeadBytes, ss.HeadRecords = ss.HeadBytes+b, ss.HeadRecords+n
			}
		}
		d.current.each(func(h *partHandle) {
			if h.meta.Signal != s {
				return
			}
			ss.Parts++
			ss.PartBytes += h.meta.Bytes
			ss.PartRecords += h.meta.Rows
			ss.IndexBytes += h.meta.Index
			if h.corrupt.Load() != nil {
				ss.Corrupt = append(ss.Corrupt, h.meta.Name)
			}
		})
		st.Signals[s] = ss
	}
	return st, nil
}
