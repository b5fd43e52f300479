package db

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/blob"
	signalmetrics "github.com/braidobs/braid/storage/metrics"
	"github.com/braidobs/braid/storage/wal"
)

// recover brings the store to the state of its last acknowledged write.
func (d *DB) recover(ctx context.Context) error {
	now := d.deps.Now()
	live := make(map[string]partMeta)
	var parts []partMeta
	for _, c := range chains() {
		got, err := d.recoverChain(ctx, c)
		if err != nil {
			return fmt.Errorf("recover %s: %w", c, err)
		}
		for i := range got {
			live[got[i].Name] = got[i]
		}
		parts = append(parts, got...)
	}
	d.current = d.current.with(nil, parts)
	if err := d.recoverState(ctx); err != nil {
		return err
	}
	least, most := d.chains[chainMeta].to, d.chains[chainMeta].to
	for _, c := range chains() {
		least, most = min(least, d.chains[c].to), max(most, d.chains[c].to)
	}
	log, err := d.deps.OpenLog(wal.Position(most))
	if err != nil {
		return fmt.Errorf("open the write-ahead log: %w", err)
	}
	d.wal = log
	if base := storage.Position(d.wal.Base()); base > least && base > 0 && d.chains != ([4]chainState{}) {
		d.hole(fmt.Sprintf("the write-ahead log starts at record %d, the parts end at %d: records between them are lost; restore the log from a backup", base, least))
	} else if base > least {
		d.hole(fmt.Sprintf("the write-ahead log starts at record %d and there are no manifests: restore the blobs from a backup", base))
	}
	if err := d.renewLast(ctx); err != nil {
		return err
	}
	d.applied = least
	for _, s := range signals() {
		d.heads[s] = d.newHead(s, d.chains[s].to, now)
	}
	d.eras = []storage.Position{storage.Position(d.wal.Base())}
	if err := d.replay(ctx, now); err != nil {
		return err
	}
	d.deltas = d.committed.Clone()
	d.applied = max(d.applied, storage.Position(d.wal.End()))
	d.history = history{from: d.applied}
	if d.unswept {
		return nil
	}
	return d.sweep(ctx, live)
}

// renewLast makes the last manifest of each chain and partition durable: a process that died between creating and
// syncing one left it readable but not safe from a power failure, and from now on things are deleted because of
// it. Each earlier one was synced before the next was begun.
func (d *DB) renewLast(ctx context.Context) error {
	for _, c := range chains() {
		var names []string
		last := func(prefix string) error {
			name := ""
			for info, err := range d.deps.Blobs.List(ctx, prefix) {
				if err != nil {
					return err
				}
				if i := strings.LastIndexByte(info.Name, '/'); name != "" && !strings.HasPrefix(name, info.Name[:i+1]) {
					names = append(names, name)
				}
				name = info.Name
			}
			if name != "" {
				names = append(names, name)
			}
			return nil
		}
		if err := errors.Join(last(commitPrefix(c)), last(checkpointPrefix(c)), last("changes/"+c.String()+"/")); err != nil {
			return err
		}
		for _, n := range names {
			var any json.RawMessage
			if _, err := d.renew(ctx, n, &any); err != nil && !errors.Is(err, errManifest) {
				return err
			}
		}
	}
	return nil
}

// hole reports that something acknowledged is missing.
func (d *DB) hole(what string) {
	d.holes = append(d.holes, what)
	d.unswept = true
	d.m.holes.Inc()
	d.log.Error("data is missing, nothing is swept", "hole", what)
}

// recoverChain reads the manifests of a chain and of its partitions, and returns the live parts.
func (d *DB) recoverChain(ctx context.Context, c chain) ([]partMeta, error) {
	st := &d.chains[c]
	st.last = d.deps.Now()
	live := make(map[string]partMeta)
	var order []string
	add := func(ps []partMeta) {
		for i := range ps {
			if _, ok := live[ps[i].Name]; !ok {
				order = append(order, ps[i].Name)
			}
			live[ps[i].Name] = ps[i]
		}
	}
	changes := make(map[string]uint64)
	cp, err := d.lastCheckpoint(ctx, c)
	if err != nil {
		return nil, err
	}
	if cp != nil {
		st.from, st.to, st.any, st.snapshot = cp.From, cp.To, true, cp.Snapshot
		add(cp.Parts)
		maps.Copy(changes, cp.Changes)
		maps.Copy(d.rewritten, cp.Rewritten)
	}
	for info, err := range d.deps.Blobs.List(ctx, commitPrefix(c)) {
		if err != nil {
			return nil, err
		}
		if cp != nil && info.Name <= commitName(c, cp.From) {
			continue
		}
		var m flushManifest
		if err := d.manifest(ctx, info.Name, info.Size, &m); err != nil {
			if !errors.Is(err, errManifest) {
				return nil, err
			}
			d.hole(err.Error())
			continue
		}
		if st.any && m.From != st.to || !st.any && m.From != 0 {
			d.hole(fmt.Sprintf("manifest %s begins at record %d, the one before ends at %d: a manifest is missing; restore it from a backup", info.Name, m.From, st.to))
		}
		st.from, st.to, st.any, st.snapshot = m.From, m.To, true, m.Snapshot
		st.manifests++
		add(m.Parts)
	}
	if c != chainMeta {
		if err := d.recoverChanges(ctx, c, live, changes, add); err != nil {
			return nil, err
		}
	}
	parts := make([]partMeta, 0, len(live))
	for _, n := range order {
		if p, ok := live[n]; ok {
			parts = append(parts, p)
		}
	}
	return parts, nil
}

// recoverChanges applies the change manifests of a signal's partitions, each after those of lower number.
func (d *DB) recoverChanges(ctx context.Context, c chain, live map[string]partMeta, next map[string]uint64, add func([]partMeta)) error {
	for info, err := range d.deps.Blobs.List(ctx, "changes/"+c.String()+"/") {
		if err != nil {
			return err
		}
		path, n, ok := parseChangeName(info.Name)
		if !ok || n < next[path] {
			continue
		}
		next[path] = n + 1
		var m changeManifest
		if err := d.manifest(ctx, info.Name, info.Size, &m); err != nil {
			if !errors.Is(err, errManifest) {
				return err
			}
			d.hole(err.Error())
			continue
		}
		d.chains[c].manifests++
		void := false
		for _, in := range m.Inputs {
			if _, ok := live[in]; !ok {
				void = true
			}
		}
		if void {
			d.log.Warn("a change of parts is void: not all its inputs are live", "manifest", info.Name)
			continue
		}
		for _, in := range m.Inputs {
			delete(live, in)
		}
		add(m.Outputs)
		d.noteRewritten(&m)
	}
	for path, n := range next {
		if p, ok := parsePartition(path); ok {
			d.changes[p] = n
		}
	}
	return nil
}

// parseChangeName splits changes/<partition>/<number>.
func parseChangeName(name string) (path string, n uint64, ok bool) {
	rest, ok := strings.CutPrefix(name, "changes/")
	i := strings.LastIndexByte(rest, '/')
	if !ok || i < 0 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(rest[i+1:], 10, 64)
	return rest[:i], n, err == nil
}

// parsePartition is the reverse of partition.path.
func parsePartition(path string) (partition, bool) {
	f := strings.Split(path, "/")
	if len(f) != 3 {
		return partition{}, false
	}
	for _, s := range signals() {
		if s.String() == f[0] {
			t, err := time.Parse("20060102", f[2])
			return partition{signal: s, tenant: telemetry.Tenant(f[1]), day: dayOf(t.Unix(), 86400)}, err == nil
		}
	}
	return partition{}, false
}

// lastCheckpoint returns the newest readable checkpoint of a chain, or nil.
func (d *DB) lastCheckpoint(ctx context.Context, c chain) (*checkpoint, error) {
	var names []string
	var sizes []int64
	for info, err := range d.deps.Blobs.List(ctx, checkpointPrefix(c)) {
		if err != nil {
			return nil, err
		}
		names, sizes = append(names, info.Name), append(sizes, info.Size)
	}
	for i, name := range slices.Backward(names) {
		var cp checkpoint
		err := d.manifest(ctx, name, sizes[i], &cp)
		if err == nil {
			return &cp, nil
		}
		if !errors.Is(err, errManifest) {
			return nil, err
		}
		d.hole(err.Error())
	}
	return nil, nil //nolint:nilnil // no checkpoint is no error
}

// manifest reads a manifest, from the catalog when that has it.
func (d *DB) manifest(ctx context.Context, name string, size int64, into any) error {
	if b, err := d.deps.Catalog.Get(name); err == nil && int64(len(b)) == size {
		if err := decodeManifest(name, b, into); err == nil {
			return nil
		}
	}
	b, err := d.deps.Blobs.Get(ctx, name, maxManifestBytes)
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	if err := decodeManifest(name, b, into); err != nil {
		return err
	}
	d.remember(name, b)
	return nil
}

// recoverState loads the snapshot of the meta chain. Without a readable one the directory is built again from
// the resources in the parts; delta accumulators and masks cannot be, which is a hole.
func (d *DB) recoverState(ctx context.Context) error {
	name := d.chains[chainMeta].snapshot
	if name == "" {
		return nil
	}
	b, err := d.deps.Blobs.Get(ctx, name, 1<<30)
	if err == nil {
		err = d.loadState(name, b)
	}
	if err == nil {
		return nil
	}
	if !errors.Is(err, errState) && !errors.Is(err, blob.ErrNotFound) && !errors.Is(err, blob.ErrTooBig) {
		return fmt.Errorf("read snapshot: %w", err)
	}
	d.hole(fmt.Sprintf("snapshot %s cannot be read (%v): identities are read from the parts again; deletes, running delta sums, marks of numbered streams and keyed state are lost; restore it from a backup", name, err))
	return d.rebuildDirectory(ctx)
}

// rebuildDirectory observes the resources of all parts.
func (d *DB) rebuildDirectory(ctx context.Context) error {
	d.current.each(func(h *partHandle) {
		err := h.open(ctx, d)
		if err != nil {
			d.quarantine(h, err)
			return
		}
		lo, hi := h.meta.Lo, h.meta.Hi
		var resources func() ([]*telemetry.Resource, error)
		switch h.meta.Signal {
		case storage.Metrics:
			resources = h.metrics.Resources
			lo, hi = lo*1e6, hi*1e6
		case storage.Logs:
			resources = h.logs.Resources
		case storage.Traces:
			resources = h.traces.Resources
		}
		rs, err := resources()
		if err != nil {
			d.quarantine(h, err)
			return
		}
		for _, r := range rs {
			d.dir(h.meta.Tenant).Observe(r, lo, hi)
		}
	})
	return ctx.Err()
}

// replay applies the records of the log that are not in parts, and reads the keys of younger ones.
func (d *DB) replay(ctx context.Context, now time.Time) error {
	start := d.deps.Now()
	records := 0
	var n numbering
	d.told = make(map[telemetry.LabelSet]*telemetry.Resource)
	defer func() { d.told = nil }()
	holes, err := d.wal.Replay(ctx, d.wal.Base(), func(p wal.Position, at time.Time, b []byte) error {
		pos := storage.Position(p)
		needed := false
		for _, c := range chains() {
			needed = needed || pos >= d.chains[c].to
		}
		if !needed && now.Sub(at) > d.cfg.RetryWindow.Std() && !tellsSeries(b) {
			return nil
		}
		n.lenient = !needed
		rec, err := decodeRecord(b, &n)
		if err != nil {
			d.hole(fmt.Sprintf("record %d of the write-ahead log: %v; it was written by a newer version or is damaged", pos, err))
			return nil
		}
		records++
		return d.replayRecord(ctx, pos, at, now, &rec)
	})
	if err != nil {
		return fmt.Errorf("replay the write-ahead log: %w", err)
	}
	d.numbers = numbers{era: n.era + 1}
	for _, h := range holes {
		// A disk that cannot be read now may be readable later: going on would commit over what it holds.
		if errno, ok := errors.AsType[syscall.Errno](h.Err); ok {
			return fmt.Errorf("read the write-ahead log: %s at offset %d: %w; nothing is lost yet: repair the disk and start again", h.File, h.Offset, errno)
		}
		if storage.Position(h.To) > d.leastTo() || h.From == h.To {
			d.hole(h.String())
		}
	}
	if records > 0 {
		d.log.Info("write-ahead log replayed", "records", records, "took", d.deps.Now().Sub(start).String())
	}
	return nil
}

func (d *DB) leastTo() storage.Position {
	least := d.chains[chainMeta].to
	for _, c := range chains() {
		least = min(least, d.chains[c].to)
	}
	return least
}

func (d *DB) replayRecord(ctx context.Context, pos storage.Position, at, now time.Time, rec *record) error {
	if rec.mask != nil {
		if pos < d.chains[chainMeta].to {
			return nil
		}
		if d.frozen[rec.mask.Signal] != nil { // two deletes without a flush between them
			if err := d.flush(ctx, rec.mask.Signal); err != nil {
				return err
			}
		}
		d.mu.Lock()
		d.applyMask(pos, rec.mask)
		d.mu.Unlock()
		return nil
	}
	if rec.setting != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if pos >= d.chains[chainMeta].to {
			d.state.set(*rec.setting)
		}
		d.applied = max(d.applied, pos+1)
		return nil
	}
	d.keys.restore(rec.req.Key, pos+1, rec.req.Rejected, at, now)
	d.mu.Lock()
	var entries []*signalmetrics.Entry
	if pos >= d.chains[chainMetrics].to {
		entries = d.active.Recall(rec.req.Batches)
	}
	d.applyTo(pos, rec.req, entries, rec.marks, func(c chain) bool { return pos >= d.chains[c].to })
	d.applied = max(d.applied, pos+1)
	var large []storage.Signal
	for _, s := range signals() {
		if n, _ := d.heads[s].size(); n >= int64(d.cfg.HeadBytes) {
			large = append(large, s)
		}
	}
	d.mu.Unlock()
	for _, s := range large { // the limit was lowered since the records were written
		if err := d.flush(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// sweep deletes parts and snapshots that nothing names.
func (d *DB) sweep(ctx context.Context, live map[string]partMeta) error {
	d.current.each(func(h *partHandle) { live[h.meta.Name] = h.meta }) // replay may have flushed
	var gone []string
	for _, prefix := range []string{"parts/", "meta/"} {
		for info, err := range d.deps.Blobs.List(ctx, prefix) {
			if err != nil {
				return fmt.Errorf("list %s: %w", prefix, err)
			}
			if _, ok := live[info.Name]; !ok && info.Name != d.chains[chainMeta].snapshot {
				gone = append(gone, info.Name)
			}
		}
	}
	for _, n := range gone {
		if err := d.deps.Blobs.Delete(ctx, n); err != nil {
			return fmt.Errorf("sweep %s: %w", n, err)
		}
	}
	if len(gone) > 0 {
		d.log.Info("swept what no manifest names", "objects", len(gone))
	}
	return nil
}
