package db

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs"
	signalmetrics "github.com/braidobs/braid/storage/metrics"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces"
)

// mergeFrom is how many neighbouring small parts are worth a merge.
const mergeFrom = 4

// metricsMergeBytes is how much the samples of a part of metrics may take, unpacked.
const metricsMergeBytes = 8 << 30

// rewrite writes the records of some parts of one partition, neighbours in the order of arrival, into one part
// without what deletes cover, and commits that. The parts are read into memory: storage.merge_bytes bounds them.
// It needs flushMu.
func (d *DB) rewrite(ctx context.Context, p partition, why string, in []*partHandle) error {
	meta := partMeta{Signal: p.signal, Tenant: p.tenant, Day: p.day, From: in[0].meta.From}
	m := changeManifest{Why: why}
	seen := make(map[uint64]bool)
	d.mu.Lock()
	masks := make([][]mask, len(in))
	for i, h := range in {
		m.Inputs = append(m.Inputs, h.meta.Name)
		meta.To = max(meta.To, h.meta.To)
		meta.Mask = max(meta.Mask, h.meta.Mask)
		masks[i] = d.masksOf(&h.meta)
		for _, k := range masks[i] {
			meta.Mask = max(meta.Mask, k.ID)
			if !seen[k.ID] {
				seen[k.ID] = true
				m.Masks = append(m.Masks, k.ID)
			}
		}
	}
	d.mu.Unlock()
	b, err := d.read(ctx, p.signal, in, masks)
	if err != nil {
		d.m.merges.WithLabelValues(p.signal.String(), "failed").Inc()
		return fmt.Errorf("%s of %s: %w", why, p.path(), err)
	}
	if p.signal == storage.Metrics || !b.Empty() { // a merge of metrics streams: it knows at the end whether it is empty
		out, err := d.writePart(ctx, meta, b)
		if err != nil {
			d.m.merges.WithLabelValues(p.signal.String(), "failed").Inc()
			d.quarantineAmong(in, err)
			return fmt.Errorf("%s of %s: %w", why, p.path(), err)
		}
		if b.Empty() {
			if err := d.deps.Blobs.Delete(ctx, out.Name); err != nil {
				d.log.Warn("part without records cannot be deleted, the next start tries again", "part", out.Name, "err", err)
			}
		} else {
			m.Outputs = []partMeta{out}
		}
	}
	if err := d.change(ctx, p, &m); err != nil {
		d.m.merges.WithLabelValues(p.signal.String(), "failed").Inc()
		return err
	}
	d.m.merges.WithLabelValues(p.signal.String(), "ok").Inc()
	return nil
}

// quarantineAmong sets the part aside that an error says is corrupt.
func (d *DB) quarantineAmong(in []*partHandle, err error) {
	if c, ok := errors.AsType[*part.CorruptError](err); ok {
		for _, h := range in {
			if h.meta.Name == c.File {
				d.quarantine(h, err)
			}
		}
	}
}

// read collects the records of parts. One that is corrupt is set aside, and the rewrite is off.
func (d *DB) read(ctx context.Context, s storage.Signal, in []*partHandle, masks [][]mask) (builder, error) {
	mb, lb, tb := signalmetrics.NewBuilder(ctx), logs.NewBuilder(), traces.NewBuilder()
	for i, h := range in {
		err := h.open(ctx, d)
		if err == nil {
			switch s {
			case storage.Metrics:
				err = mb.AddPart(h.metrics, metricMasks(masks[i]))
			case storage.Logs:
				err = lb.AddPart(ctx, h.logs, logMasks(masks[i]))
			case storage.Traces:
				err = tb.AddPart(ctx, h.traces, traceMasks(masks[i]))
			}
		}
		if errors.Is(err, part.ErrCorrupt) {
			d.quarantine(h, err)
		}
		if err != nil {
			return nil, err
		}
	}
	switch s {
	case storage.Metrics:
		return mb, nil
	case storage.Logs:
		return lb, nil
	default:
		return tb, nil
	}
}

func metricMasks(ms []mask) (out []signalmetrics.Mask) {
	for i := range ms {
		out = append(out, signalmetrics.NewMask(&ms[i].Mask, ms[i].at))
	}
	return out
}

func logMasks(ms []mask) (out []logs.Mask) {
	for i := range ms {
		out = append(out, logs.NewMask(&ms[i].Mask, ms[i].at))
	}
	return out
}

func traceMasks(ms []mask) (out []traces.Mask) {
	for i := range ms {
		out = append(out, traces.NewMask(&ms[i].Mask, ms[i].at))
	}
	return out
}

// hold returns the current version, which must be released.
func (d *DB) hold() *version {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current.refs.Add(1)
	return d.current
}

// mergeSmall merges runs of small neighbouring parts. Each merge holds flushMu alone, so that flushes get their
// turn.
func (d *DB) mergeSmall(ctx context.Context) error {
	v := d.hold()
	defer v.release(ctx, d)
	var errs []error
	for p, hs := range v.parts {
		limit := int64(d.cfg.MergeBytes)
		if p.signal == storage.Metrics { // their merge streams: memory is no limit
			limit = metricsMergeBytes
		}
		for _, run := range mergeable(hs, limit) {
			if err := ctx.Err(); err != nil {
				return err
			}
			d.flushMu.Lock()
			if d.live(run) && !d.closed.Load() {
				errs = append(errs, d.rewrite(ctx, p, "merge", run))
			}
			d.flushMu.Unlock()
		}
	}
	return errors.Join(errs...)
}

// live says whether all parts are still in the current version. It needs flushMu.
func (d *DB) live(hs []*partHandle) bool {
	for _, h := range hs {
		if h.dropped.Load() || h.corrupt.Load() != nil {
			return false
		}
	}
	return true
}

// mergeable cuts the parts of a partition into runs of at least mergeFrom neighbours whose records fit into limit
// bytes of memory together.
func mergeable(hs []*partHandle, limit int64) [][]*partHandle {
	var runs [][]*partHandle
	var run []*partHandle
	var sum int64
	end := func() {
		// A part that outweighs all its younger neighbours together waits until they have grown: so a record is
		// rewritten a few times in its life and not at each merge.
		for len(run) >= mergeFrom && run[0].meta.Raw > sum-run[0].meta.Raw {
			sum -= run[0].meta.Raw
			run = run[1:]
		}
		if len(run) >= mergeFrom {
			runs = append(runs, run)
		}
		run, sum = nil, 0
	}
	for _, h := range hs {
		if h.corrupt.Load() != nil || h.meta.Raw > limit/2 {
			end()
			continue
		}
		if sum+h.meta.Raw > limit {
			end()
		}
		run = append(run, h)
		sum += h.meta.Raw
	}
	end()
	return runs
}

// rewriteMasked writes the parts anew that deletes cover.
func (d *DB) rewriteMasked(ctx context.Context) error {
	v := d.hold()
	defer v.release(ctx, d)
	var errs []error
	for p, hs := range v.parts {
		for _, h := range hs {
			if err := ctx.Err(); err != nil {
				return err
			}
			d.mu.Lock()
			due := len(d.masksOf(&h.meta)) > 0
			d.mu.Unlock()
			if !due {
				continue
			}
			d.flushMu.Lock()
			if d.live([]*partHandle{h}) && !d.closed.Load() {
				errs = append(errs, d.rewrite(ctx, p, "delete", []*partHandle{h}))
			}
			d.flushMu.Unlock()
		}
	}
	return errors.Join(errs...)
}

// retain drops the partitions whose last day ended longer ago than the retention.
func (d *DB) retain(ctx context.Context) error {
	cut := d.deps.Now().Add(-d.cfg.Retention.Std())
	v := d.hold()
	defer v.release(ctx, d)
	var errs []error
	for p, hs := range v.parts {
		if !time.Unix((p.day+1)*86400, 0).Before(cut) {
			continue
		}
		d.flushMu.Lock()
		m := changeManifest{Why: "retention"}
		for _, h := range hs {
			if !h.dropped.Load() {
				m.Inputs = append(m.Inputs, h.meta.Name)
			}
		}
		if len(m.Inputs) > 0 && !d.closed.Load() {
			errs = append(errs, d.change(ctx, p, &m))
		}
		d.flushMu.Unlock()
	}
	d.mu.Lock()
	dirs := make([]*telemetry.Directory, 0, len(d.dirs))
	for _, dir := range d.dirs {
		dirs = append(dirs, dir)
	}
	d.committed.Forget(cut.UnixMilli())
	d.mu.Unlock()
	for _, dir := range dirs {
		dir.Forget(cut.UnixNano())
	}
	return errors.Join(errs...)
}
