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

// settled is how long after its end a day counts as complete.
const settled = 2 * time.Hour

// mergeMetricsFrom is the default of Deps.MergeMetricsFrom: these parts cost little to read side by side.
const mergeMetricsFrom = 8

// metricsMergeBytes is how much the samples of a part of metrics may take, unpacked.
const metricsMergeBytes = 8 << 30

// rowsMergeBytes is how much the records of a part of logs or traces may take: merges copy what is large.
const rowsMergeBytes = 8 << 30

// rewrite writes the records of some parts of one partition, neighbours in the order of arrival, into one part
// without what deletes cover, and commits that. It needs tidyMu, and takes flushMu for the commit alone.
func (d *DB) rewrite(ctx context.Context, p partition, why string, in []*partHandle) error {
	return d.rewriteSome(ctx, p, why, in, nil)
}

// rewriteSome is rewrite without the traces that keep leaves out, see storage.TraceSampler; nil is all of everything.
func (d *DB) rewriteSome(ctx context.Context, p partition, why string, in []*partHandle, keep func(telemetry.TraceID) float64) error {
	if !d.live(in) || d.closed.Load() {
		return nil
	}
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
	err := d.writeMerged(ctx, p, meta, in, masks, keep, &m)
	if err == nil {
		err = d.replace(ctx, p, in, &m)
	}
	outcome := "ok"
	if err != nil {
		outcome = "failed"
		d.quarantineAmong(in, err)
		err = fmt.Errorf("%s of %s: %w", why, p.path(), err)
	}
	d.m.merges.WithLabelValues(p.signal.String(), outcome).Inc()
	return err
}

// writeMerged writes the part that takes the place of others, if anything is left of them.
func (d *DB) writeMerged(ctx context.Context, p partition, meta partMeta, in []*partHandle, masks [][]mask, keep func(telemetry.TraceID) float64, m *changeManifest) error {
	b, err := d.read(ctx, p.signal, in, masks, keep)
	if err != nil {
		return err
	}
	out, err := d.writePart(ctx, meta, b)
	if err != nil {
		return err
	}
	if b.Empty() { // merges stream: they know at the end
		d.discard(ctx, out.Name)
	} else {
		m.Outputs = []partMeta{out}
	}
	return nil
}

// discard deletes a part that no manifest names.
func (d *DB) discard(ctx context.Context, name string) {
	if err := d.deps.Blobs.Delete(ctx, name); err != nil {
		d.log.Warn("part that is not needed cannot be deleted, the next start tries again", "part", name, "err", err)
	}
}

// replace commits a change, unless its inputs are gone by now.
func (d *DB) replace(ctx context.Context, p partition, in []*partHandle, m *changeManifest) error {
	d.flushMu.Lock()
	defer d.flushMu.Unlock()
	if !d.live(in) || d.closed.Load() {
		for i := range m.Outputs {
			d.discard(ctx, m.Outputs[i].Name)
		}
		return nil
	}
	return d.change(ctx, p, m)
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
func (d *DB) read(ctx context.Context, s storage.Signal, in []*partHandle, masks [][]mask, keep func(telemetry.TraceID) float64) (builder, error) {
	mb, lb, tb := signalmetrics.NewBuilder(ctx), logs.NewBuilder(ctx, d.deps.Logs, d.lines), traces.NewBuilder(ctx, d.deps.Traces)
	tb.Sample(keep)
	for i, h := range in {
		err := h.open(ctx, d)
		if err == nil {
			switch s {
			case storage.Metrics:
				err = mb.AddPart(h.metrics, metricMasks(masks[i]))
			case storage.Logs:
				err = lb.AddPart(h.logs, logMasks(masks[i]))
			case storage.Traces:
				err = tb.AddPart(h.traces, traceMasks(masks[i]))
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

// mergeSmall merges runs of small neighbouring parts.
func (d *DB) mergeSmall(ctx context.Context) error {
	v := d.hold()
	defer v.release(ctx, d)
	now := d.deps.Now()
	d.mu.Lock()
	idle := now.Sub(d.chains[chainMetrics].last) > 2*d.cfg.FlushInterval.Std()
	d.mu.Unlock()
	var errs []error
	for p, hs := range v.parts {
		rule := mergeRule{from: mergeFrom, bytes: rowsMergeBytes}
		if p.signal == storage.Metrics {
			rule = mergeRule{from: d.deps.MergeMetricsFrom, bytes: metricsMergeBytes}
			if idle || now.After(time.Unix((p.day+1)*86400, 0).Add(settled)) { // little comes any more: few parts are smallest
				rule.from = 2
			}
		}
		for _, run := range mergeable(hs, rule) {
			if err := ctx.Err(); err != nil {
				return err
			}
			errs = append(errs, d.rewrite(ctx, p, "merge", run))
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

// mergeRule says which neighbours are merged.
type mergeRule struct {
	from  int   // how many there must be
	bytes int64 // how much they may take together, unpacked
}

// mergeable cuts the parts of a partition into runs of neighbours that are worth a merge.
func mergeable(hs []*partHandle, rule mergeRule) [][]*partHandle {
	var runs [][]*partHandle
	var run []*partHandle
	var sum int64
	end := func() {
		// A part that outweighs all its younger neighbours together waits until they have grown: so a record is
		// rewritten a few times in its life and not at each merge.
		for len(run) >= rule.from && run[0].meta.Raw > sum-run[0].meta.Raw {
			sum -= run[0].meta.Raw
			run = run[1:]
		}
		if len(run) >= rule.from {
			runs = append(runs, run)
		}
		run, sum = nil, 0
	}
	for _, h := range hs {
		if h.corrupt.Load() != nil || h.meta.Raw > rule.bytes/2 {
			end()
			continue
		}
		if sum+h.meta.Raw > rule.bytes {
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
			errs = append(errs, d.rewrite(ctx, p, "delete", []*partHandle{h}))
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
		m := changeManifest{Why: whyRetention}
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
