package db

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs"
	signalmetrics "github.com/braidobs/braid/storage/metrics"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces"
)

// view is one atomic version of heads and parts.
type view struct {
	d       *DB
	seq     uint64
	at      storage.Position // it shows all records below
	version *version
	heads   []*head // pinned
	metrics []*signalmetrics.Snapshot
	logs    []*logs.Snapshot
	traces  []*traces.Snapshot
	masks   []mask
	dirs    map[telemetry.Tenant]*telemetry.Directory
	ctx     context.Context //nolint:containedctx // ends when the view is closed or expires
	cancel  context.CancelCauseFunc

	mu       sync.Mutex // guards all below
	warnings []string
	merged   []*signalmetrics.Merged // what was read of metrics
	read     storage.ReadStats       // of logs
}

// View implements storage.Reader.
func (d *DB) View(ctx context.Context, min storage.Position) (storage.View, error) {
	d.mu.Lock()
	for d.applied < min && !d.closing {
		if min > storage.Position(d.wal.End()) && d.applied >= storage.Position(d.wal.End()) {
			d.mu.Unlock()
			return nil, fmt.Errorf("position %d was never written", min)
		}
		d.waiting = true
		moved := d.moved
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-moved:
		}
		d.mu.Lock()
	}
	defer d.mu.Unlock()
	if d.closing {
		return nil, storage.ErrClosed
	}
	v := &view{d: d, seq: d.viewSeq, at: d.applied, version: d.current, masks: slices.Clip(d.masks), dirs: maps.Clone(d.dirs)}
	v.ctx, v.cancel = context.WithCancelCause(context.Background())
	d.viewSeq++
	d.current.refs.Add(1)
	for _, s := range signals() {
		for _, h := range []*head{d.frozen[s], d.heads[s]} {
			if h == nil {
				continue
			}
			h.pins++
			v.heads = append(v.heads, h)
			switch s {
			case storage.Metrics:
				v.metrics = append(v.metrics, h.metrics.Snapshot())
			case storage.Logs:
				v.logs = append(v.logs, h.logs.Snapshot())
			case storage.Traces:
				v.traces = append(v.traces, h.traces.Snapshot())
			}
		}
	}
	v.warnings = append(v.warnings, d.holes...)
	d.views[v] = struct{}{}
	return v, nil
}

// expireViews cancels the oldest views while heads that were flushed long ago take more than their budget. It
// needs mu.
func (d *DB) expireViews() {
	for {
		var pinned int64
		seen := make(map[*head]bool)
		var oldest *view
		for v := range d.views {
			if v.ctx.Err() != nil {
				continue
			}
			holds := false
			for _, h := range v.heads {
				if !h.retired {
					continue
				}
				holds = true
				if !seen[h] {
					seen[h] = true
					n, _ := h.size()
					pinned += n
				}
			}
			if holds && (oldest == nil || v.seq < oldest.seq) {
				oldest = v
			}
		}
		if oldest == nil || pinned <= int64(d.cfg.PinnedBytes) {
			return
		}
		oldest.cancel(storage.ErrViewExpired)
		d.m.expired.Inc()
	}
}

// Close implements storage.View.
func (v *view) Close() error {
	d := v.d
	d.mu.Lock()
	if _, open := d.views[v]; !open {
		d.mu.Unlock()
		return nil
	}
	delete(d.views, v)
	for _, h := range v.heads {
		h.pins--
	}
	d.mu.Unlock()
	v.cancel(storage.ErrClosed)
	v.version.release(context.Background(), d)
	return nil
}

// Warnings implements storage.View.
func (v *view) Warnings() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.warnings)
}

// ReadStats implements storage.View.
func (v *view) ReadStats() (sum storage.ReadStats) {
	v.mu.Lock()
	defer v.mu.Unlock()
	sum = v.read
	for _, m := range v.merged {
		c := m.Cost()
		sum.Series, sum.Samples, sum.Bytes = sum.Series+c.Series, sum.Samples+c.Samples, sum.Bytes+c.Bytes
	}
	return sum
}

// cost adds what a read of logs cost.
func (v *view) cost(c *storage.ReadStats) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.read.Rows, v.read.Blocks, v.read.Bytes = v.read.Rows+c.Rows, v.read.Blocks+c.Blocks, v.read.Bytes+c.Bytes
}

func (v *view) warn(s string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.warnings, s) {
		v.warnings = append(v.warnings, s)
	}
}

// begin ties a read to the life of the view.
func (v *view) begin(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(v.ctx, func() { cancel(context.Cause(v.ctx)) })
	return ctx, func() { stop(); cancel(nil) }
}

// explain says why a read ended: the view's end, rather than a bare cancellation.
func explain(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
	}
	return err
}

// failed handles the error of reading a part: a corrupt one is set aside with a warning, and the answer comes
// from the others.
func (v *view) failed(h *partHandle, err error) error {
	if h == nil || !errors.Is(err, part.ErrCorrupt) {
		return err
	}
	v.d.quarantine(h, err)
	v.warn(err.Error())
	return nil
}

// handles opens the parts that a read needs.
func (v *view) handles(ctx context.Context, s storage.Signal, t telemetry.Tenant, lo, hi int64) ([]*partHandle, error) {
	var out []*partHandle
	for _, h := range v.version.of(s, t, lo, hi) {
		if err := h.open(ctx, v.d); err != nil {
			if err = v.failed(h, err); err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, h)
	}
	return out, nil
}

// masksOf returns the deletes of a tenant's signal.
func (v *view) masksOf(s storage.Signal, t telemetry.Tenant) []mask {
	var out []mask
	for i := range v.masks {
		if v.masks[i].Signal == s && v.masks[i].Tenant == t {
			out = append(out, v.masks[i])
		}
	}
	return out
}

// Logs implements storage.LogReader.
func (v *view) Logs(ctx context.Context, q storage.LogQuery) iter.Seq2[*storage.LogBlock, error] {
	return func(yield func(*storage.LogBlock, error) bool) {
		ctx, end := v.begin(ctx)
		defer end()
		srcs, hs, err := v.logSources(ctx, &q)
		if err != nil {
			yield(nil, explain(ctx, err))
			return
		}
		scan := logs.Scan{LogQuery: q, Masks: logMasks(v.masksOf(storage.Logs, q.Tenant)), Cost: &storage.ReadStats{}, Decoder: v.d.lines}
		defer func() { v.cost(scan.Cost) }()
		read := reading[*storage.LogBlock]{v: v, ctx: ctx, handles: hs, yield: yield}
		if q.Order != storage.Unordered {
			read.one(logs.Collect(ctx, srcs, scan, read.failed))
			return
		}
		read.all(func(i int, emit func(*storage.LogBlock) error) error {
			return srcs[i].Scan(ctx, &scan, func(r logs.Rows) error { return emit(r.LogBlock) })
		})
	}
}

// reading is one read of logs or spans that yields blocks.
type reading[B interface{ Len() int }] struct {
	v       *view
	ctx     context.Context //nolint:containedctx // it lives as long as the call that made it
	handles []*partHandle   // the part behind each source, nil for heads
	yield   func(B, error) bool
}

func (r reading[B]) failed(src int, err error) error { return r.v.failed(r.handles[src], err) }

// one yields the only block of an ordered read.
func (r reading[B]) one(b B, err error) {
	var none B
	if err != nil {
		r.yield(none, explain(r.ctx, err))
	} else if b.Len() > 0 {
		r.yield(b, nil)
	}
}

// all yields the blocks of one source after the other.
func (r reading[B]) all(scan func(src int, emit func(B) error) error) {
	for i := range r.handles {
		err := scan(i, func(b B) error {
			if !r.yield(b, nil) {
				return errStop
			}
			return nil
		})
		if errors.Is(err, errStop) {
			return
		}
		if err != nil {
			if err = r.failed(i, err); err != nil {
				var none B
				r.yield(none, explain(r.ctx, err))
				return
			}
		}
	}
}

// errStop ends a scan whose consumer has enough.
var errStop = errors.New("enough")

// logSources returns what may hold rows of q in the order of arrival, with the part behind each, nil for heads.
func (v *view) logSources(ctx context.Context, q *storage.LogQuery) ([]logs.Source, []*partHandle, error) {
	hs, err := v.handles(ctx, storage.Logs, q.Tenant, q.Start, q.End)
	if err != nil {
		return nil, nil, err
	}
	srcs := make([]logs.Source, 0, len(hs)+len(v.logs))
	for _, h := range hs {
		srcs = append(srcs, h.logs)
	}
	for _, s := range v.logs {
		srcs, hs = append(srcs, s.Tenant(q.Tenant)), append(hs, nil)
	}
	return srcs, hs, nil
}

// Streams implements storage.LogReader.
func (v *view) Streams(ctx context.Context, q storage.LogQuery) ([]telemetry.LabelSet, error) {
	ctx, end := v.begin(ctx)
	defer end()
	srcs, hs, err := v.logSources(ctx, &q)
	if err != nil {
		return nil, explain(ctx, err)
	}
	where := streamPart(q.Where)
	scan := logs.Scan{
		LogQuery: storage.LogQuery{Tenant: q.Tenant, Start: q.Start, End: q.End, Where: where},
		Masks:    logMasks(v.masksOf(storage.Logs, q.Tenant)), Cost: &storage.ReadStats{}, Decoder: v.d.lines,
	}
	defer func() { v.cost(scan.Cost) }()
	seen := make(map[telemetry.LabelSet]bool)
	for i, s := range srcs {
		err := s.Streams(ctx, &scan, func(s telemetry.LabelSet) {
			if !seen[s] && matchStream(s, where) {
				seen[s] = true
			}
		})
		if err != nil {
			if err = v.failed(hs[i], err); err != nil {
				return nil, explain(ctx, err)
			}
		}
	}
	type sorted struct {
		set    telemetry.LabelSet
		labels labels.Labels
	}
	all := make([]sorted, 0, len(seen))
	for s := range seen {
		all = append(all, sorted{s, s.Labels()})
	}
	slices.SortFunc(all, func(a, b sorted) int { return labels.Compare(a.labels, b.labels) })
	out := make([]telemetry.LabelSet, len(all))
	for i, s := range all {
		out[i] = s.set
	}
	return out, nil
}

// streamPart returns what p demands of streams alone.
func streamPart(p storage.Predicate) storage.Predicate {
	switch p := p.(type) {
	case storage.StreamMatch:
		return p
	case storage.And:
		var out storage.And
		for _, q := range p {
			if s := streamPart(q); s != nil {
				out = append(out, s)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

func matchStream(s telemetry.LabelSet, p storage.Predicate) bool {
	b := storage.LogBlock{Streams: []telemetry.LabelSet{s}, Stream: []uint32{0}, Time: []int64{0}}
	return b.Match(0, p)
}

// Metadata implements storage.SeriesReader.
func (v *view) Metadata(ctx context.Context, tenant telemetry.Tenant, metric string) (map[string][]telemetry.Metadata, error) {
	ctx, end := v.begin(ctx)
	defer end()
	out := make(map[string][]telemetry.Metadata)
	add := func(name string, m telemetry.Metadata) {
		if !slices.Contains(out[name], m) {
			out[name] = append(out[name], m)
		}
	}
	for p, hs := range v.version.parts {
		if p.signal != storage.Metrics || p.tenant != tenant {
			continue
		}
		for _, h := range hs {
			err := h.open(ctx, v.d)
			if err == nil {
				err = h.metrics.Metadata(metric, add)
			}
			if err != nil {
				if err = v.failed(h, err); err != nil {
					return nil, explain(ctx, err)
				}
			}
		}
	}
	for _, s := range v.metrics {
		if err := s.Tenant(tenant).Metadata(metric, add); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Entities implements storage.EntityReader.
func (v *view) Entities(ctx context.Context, tenant telemetry.Tenant, q telemetry.Query) ([]telemetry.Entity, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir := v.dirs[tenant]
	if dir == nil {
		return nil, nil
	}
	return dir.Entities(q), nil
}
