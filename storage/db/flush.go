package db

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/blob"
	"github.com/braidobs/braid/storage/logs"
	signalmetrics "github.com/braidobs/braid/storage/metrics"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/wal"
)

// builder collects the records of one part; the signals' Builders are all of this form.
type builder interface {
	Rows() (rows, bytes, lo, hi int64)
	Empty() bool
	Write(w *part.Writer) error
}

// Flush implements storage.Admin.
func (d *DB) Flush(ctx context.Context) error {
	d.flushMu.Lock()
	defer d.flushMu.Unlock()
	return d.flushAll(ctx)
}

// flushAll flushes every chain and trims the log. It needs flushMu.
func (d *DB) flushAll(ctx context.Context) error {
	for _, s := range signals() {
		if err := d.flush(ctx, s); err != nil {
			return err
		}
	}
	if err := d.flushMeta(ctx); err != nil {
		return err
	}
	return d.trim()
}

// flushDue flushes the heads that are half full, and everything when the log is large or a chain is old.
func (d *DB) flushDue(ctx context.Context) error {
	d.flushMu.Lock()
	defer d.flushMu.Unlock()
	d.mu.Lock()
	now := d.deps.Now()
	all := d.wal.Bytes() > int64(d.cfg.LogBytes)
	var due []storage.Signal
	for _, s := range signals() {
		n, rows := d.heads[s].size()
		if n >= int64(d.cfg.HeadBytes)/2 || d.frozen[s] != nil {
			due = append(due, s)
		}
		all = all || rows > 0 && now.Sub(d.heads[s].born) >= d.cfg.FlushInterval.Std()
	}
	all = all || d.applied > d.chains[chainMeta].to && now.Sub(d.chains[chainMeta].last) >= 2*d.cfg.FlushInterval.Std()
	d.mu.Unlock()
	if all {
		return d.flushAll(ctx)
	}
	for _, s := range due {
		if err := d.flush(ctx, s); err != nil {
			return err
		}
	}
	// A snapshot now and then keeps the replay of the next start short, and the log.
	if len(due) > 0 && d.logged.Load() >= max(metaEvery, 16*d.snapshotBytes) {
		if err := d.flushMeta(ctx); err != nil {
			return err
		}
		return d.trim()
	}
	return nil
}

// metaEvery is after how many bytes of the log the meta chain is flushed at the earliest.
const metaEvery = 32 << 20

// flush writes the head of a signal into parts and commits them. It needs flushMu.
func (d *DB) flush(ctx context.Context, s storage.Signal) error {
	start := d.deps.Now()
	h := d.freeze(s, start)
	if h == nil {
		return nil
	}
	parts, err := d.writeHead(ctx, h)
	if err != nil {
		d.m.flushes.WithLabelValues(s.String(), "failed").Inc()
		return fmt.Errorf("flush %s: %w", s, err)
	}
	m := flushManifest{Shard: shard, Chain: s.String(), From: h.from, To: h.to, Parts: parts, Time: start}
	if err := d.commit(ctx, chain(s), &m); err != nil { // it may have adopted the parts of an earlier try
		d.m.flushes.WithLabelValues(s.String(), "failed").Inc()
		return fmt.Errorf("commit flush of %s: %w", s, err)
	}
	d.mu.Lock()
	d.frozen[s] = nil
	h.retired = h.pins > 0
	old := d.install(d.current.with(nil, m.Parts))
	d.expireViews()
	d.mu.Unlock()
	old.release(ctx, d)
	d.absorb(ctx, chain(s))
	d.m.flushes.WithLabelValues(s.String(), "ok").Inc()
	signal(d.flushed)
	d.m.flushTime.WithLabelValues(s.String()).Observe(d.deps.Now().Sub(start).Seconds())
	return nil
}

// freeze returns the head that is to be flushed, nil when there is nothing new. It needs flushMu.
func (d *DB) freeze(s storage.Signal, now time.Time) *head {
	if s == storage.Metrics {
		// The next head begins an era: what the log holds from there on tells all labels that it speaks of.
		d.order.Lock()
		defer d.order.Unlock()
		d.appending.Wait()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := d.frozen[s]; h != nil { // an earlier flush of it failed
		return h
	}
	if d.heads[s].from == d.applied {
		return nil
	}
	d.turnHead(s, d.applied, now)
	return d.frozen[s]
}

// turnHead makes the head of a signal the frozen one; the next begins at a position. It needs mu, and for metrics order
// and that nothing is appending.
func (d *DB) turnHead(s storage.Signal, at storage.Position, now time.Time) {
	h := d.heads[s]
	h.to = at
	d.frozen[s] = h
	d.heads[s] = d.newHead(s, at, now)
	if s == storage.Metrics {
		d.numbers.begin()
		d.eras = append(d.eras, at)
		d.active.Sweep(now.Add(-seriesIdle).UnixMilli(), h.metrics.Number())
	}
}

// seriesIdle is how long a series without samples stays known: longer than the longest usual interval of scrapes.
const seriesIdle = 15 * time.Minute

// commit creates the next manifest of a chain. When an earlier try created it without learning so, m becomes
// that one: it commits the same records. It needs flushMu.
func (d *DB) commit(ctx context.Context, c chain, m *flushManifest) error {
	b, err := encodeManifest(m)
	if err != nil {
		return err
	}
	name := commitName(c, m.From)
	err = d.deps.Blobs.PutIfAbsent(ctx, name, b)
	if errors.Is(err, blob.ErrExists) {
		var old flushManifest
		if b, err = d.renew(ctx, name, &old); err == nil && (old.Chain != m.Chain || old.To > m.To || old.To < m.To && c != chainMeta) {
			err = fmt.Errorf("manifest %s reaches to record %d, want %d: another process writes here", name, old.To, m.To)
		}
		*m = old // of the meta chain an older snapshot will do: the next flush goes on from there
	}
	if err != nil {
		return err
	}
	d.remember(name, b)
	d.mu.Lock()
	st := &d.chains[c]
	st.from, st.to, st.any, st.snapshot, st.last = m.From, m.To, true, m.Snapshot, m.Time
	st.manifests++
	d.mu.Unlock()
	return nil
}

// absorb writes a checkpoint when a chain has many manifests. It comes after what the last of them commits has been
// installed: a checkpoint holds the parts that are live, and its manifest is never read again. It needs flushMu.
func (d *DB) absorb(ctx context.Context, c chain) {
	d.mu.Lock()
	due := d.chains[c].manifests >= d.deps.CheckpointEvery
	d.mu.Unlock()
	if !due {
		return
	}
	if err := d.checkpoint(ctx, c); err != nil {
		d.log.Warn("checkpoint of the manifests failed, it is tried again", "chain", c.String(), "err", err)
	}
}

// renew reads a manifest and writes it again, so that it is durable even if who created it never learned that.
func (d *DB) renew(ctx context.Context, name string, into any) ([]byte, error) {
	b, err := d.deps.Blobs.Get(ctx, name, maxManifestBytes)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if err := decodeManifest(name, b, into); err != nil {
		return nil, err
	}
	if err := d.deps.Blobs.Put(ctx, name, func(w io.Writer) error { _, err := w.Write(b); return err }); err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	return b, nil
}

// remember keeps a manifest in the catalog, which may fail: it is a cache.
func (d *DB) remember(name string, b []byte) {
	if err := d.deps.Catalog.Set(name, b); err != nil {
		d.log.Warn("catalog cannot be written", "err", err)
	}
}

const (
	nanosPerDay  = 24 * 3600 * 1_000_000_000
	millisPerDay = 24 * 3600 * 1_000
)

func dayOf(t, perDay int64) int64 {
	if t >= 0 {
		return t / perDay
	}
	return -((-t + perDay - 1) / perDay)
}

// slot is where a record of a head goes.
type slot struct {
	tenant telemetry.Tenant
	day    int64
}

// builderOf returns the builder of a slot, making it when needed.
func builderOf[B any](m map[slot]B, k slot, make func() B) B {
	b, ok := m[k]
	if !ok {
		b = make()
		m[k] = b
	}
	return b
}

// writeHead writes the parts of a frozen head: one per tenant and day.
func (d *DB) writeHead(ctx context.Context, h *head) ([]partMeta, error) {
	builders := make(map[slot]builder)
	switch h.signal {
	case storage.Logs:
		m := make(map[slot]*logs.Builder)
		make := func() *logs.Builder { return logs.NewBuilder(ctx, d.deps.Logs, d.lines) }
		h.logs.Snapshot().Each(func(t telemetry.Tenant, stream telemetry.LabelSet, res *telemetry.Resource, recs []telemetry.LogRecord) {
			for i := range recs {
				builderOf(m, slot{t, dayOf(recs[i].Time, nanosPerDay)}, make).Add(stream, res, &recs[i])
			}
		})
		for k, b := range m {
			builders[k] = b
		}
	case storage.Traces:
		m := make(map[slot]*traces.Builder)
		make := func() *traces.Builder { return traces.NewBuilder(ctx, d.deps.Traces) }
		snap := h.traces.Snapshot()
		for _, t := range snap.Tenants() {
			src := snap.Tenant(t)
			for _, day := range src.Days() {
				builderOf(m, slot{t, day}, make).AddDay(src, day)
			}
		}
		for k, b := range m {
			builders[k] = b
		}
	case storage.Metrics:
		m, err := d.metricBuilders(ctx, h.metrics.Snapshot(), dayOf(h.born.UnixMilli(), millisPerDay))
		if err != nil {
			return nil, err
		}
		for k, b := range m {
			builders[k] = b
		}
	}
	var parts []partMeta
	for k, b := range builders {
		meta, err := d.writePart(ctx, partMeta{Signal: h.signal, Tenant: k.tenant, Day: k.day, From: h.from, To: h.to}, b)
		if err != nil {
			return nil, err
		}
		parts = append(parts, meta)
	}
	return parts, nil
}

// metricBuilders makes the parts of a head. Metadata goes into all parts of its tenant, or into one of the given day
// when the tenant has no other.
func (d *DB) metricBuilders(ctx context.Context, snap *signalmetrics.Snapshot, today int64) (map[slot]*signalmetrics.Builder, error) {
	m := make(map[slot]*signalmetrics.Builder)
	make := func() *signalmetrics.Builder { return signalmetrics.NewBuilder(ctx) }
	for _, t := range snap.Tenants() {
		src := snap.Tenant(t)
		for _, day := range src.Days() {
			builderOf(m, slot{t, day}, make).AddDay(src, day)
		}
		err := src.Metadata("", func(name string, md telemetry.Metadata) {
			any := false
			for k, b := range m {
				if k.tenant == t {
					any = true
					b.AddMetadata(name, md)
				}
			}
			if !any {
				builderOf(m, slot{t, today}, make).AddMetadata(name, md)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}

// writePart writes one part durably and completes its description. A part that no manifest names does not
// exist: its name is unique, so a try that failed leaves only garbage.
func (d *DB) writePart(ctx context.Context, meta partMeta, b builder) (partMeta, error) {
	if err := ctx.Err(); err != nil {
		return meta, err
	}
	var unique [6]byte
	if _, err := rand.Read(unique[:]); err != nil {
		return meta, fmt.Errorf("name part: %w", err)
	}
	p := meta.partition()
	meta.Name = fmt.Sprintf("parts/%s/%020d-%020d-%s.part", p.path(), meta.From, meta.To, hex.EncodeToString(unique[:]))
	err := d.deps.Blobs.Put(ctx, meta.Name, func(w io.Writer) error {
		pw := part.NewWriter(w, d.enc, map[string]string{
			"signal": meta.Signal.String(), "tenant": string(meta.Tenant),
			"from": strconv.FormatUint(uint64(meta.From), 10), "to": strconv.FormatUint(uint64(meta.To), 10),
			"mask": strconv.FormatUint(meta.Mask, 10),
		})
		if err := b.Write(pw); err != nil {
			return err
		}
		meta.Rows, meta.Raw, meta.Lo, meta.Hi = b.Rows()
		pw.Prop("rows", strconv.FormatInt(meta.Rows, 10))
		if m, ok := b.(*signalmetrics.Builder); ok {
			meta.Index = m.IndexBytes()
		}
		if err := pw.Close(); err != nil {
			return err
		}
		meta.Bytes = pw.Size()
		return nil
	})
	if err != nil {
		return meta, fmt.Errorf("write part %s: %w", meta.Name, err)
	}
	return meta, nil
}

// flushMeta writes the state that is folded from all records, as of the last one applied. It needs flushMu.
func (d *DB) flushMeta(ctx context.Context) error {
	d.mu.Lock()
	st := d.chains[chainMeta]
	to := d.applied
	if st.to == to {
		d.mu.Unlock()
		return nil
	}
	state := d.appendState(nil)
	now := d.deps.Now()
	d.logged.Store(0)
	d.mu.Unlock()
	d.snapshotBytes = int64(len(state))
	name := fmt.Sprintf("meta/%020d.state", to)
	err := d.deps.Blobs.Put(ctx, name, func(w io.Writer) error { _, err := w.Write(state); return err })
	if err != nil {
		return fmt.Errorf("write snapshot %s: %w", name, err)
	}
	m := flushManifest{Shard: shard, Chain: chainMeta.String(), From: st.to, To: to, Snapshot: name, Time: now}
	if err := d.commit(ctx, chainMeta, &m); err != nil {
		return fmt.Errorf("commit snapshot: %w", err)
	}
	d.absorb(ctx, chainMeta)
	if st.snapshot != "" && st.snapshot != name {
		if err := d.deps.Blobs.Delete(ctx, st.snapshot); err != nil && !errors.Is(err, blob.ErrNotFound) {
			d.log.Warn("old snapshot cannot be deleted, the next start tries again", "snapshot", st.snapshot, "err", err)
		}
	}
	return nil
}

// trim removes what all chains have committed from the log, but for the window of retries. A log with holes is
// left alone. It needs flushMu.
func (d *DB) trim() error {
	d.mu.Lock()
	upTo := d.applied
	for _, c := range chains() {
		upTo = min(upTo, d.chains[c].to)
	}
	// What a chain has not committed yet may speak of series that were told before, in the same era.
	for len(d.eras) > 1 && d.eras[1] <= upTo {
		d.eras = d.eras[1:]
	}
	upTo = min(upTo, d.eras[0])
	stop := d.unswept || d.closing
	d.mu.Unlock()
	if stop || d.closed.Load() {
		return nil
	}
	if err := d.wal.Trim(wal.Position(upTo), d.deps.Now().Add(-d.cfg.RetryWindow.Std())); err != nil {
		return fmt.Errorf("trim the log: %w", err)
	}
	return nil
}
