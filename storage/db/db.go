// Package db is the engine: a write-ahead log, one head in memory per signal, and immutable parts. It implements
// the contract of package storage.
//
// The log and the committed parts are the only truth. A write is appended to the log; when it is durable it is
// applied to the heads, in the order of the log, and acknowledged. A flush writes a head into parts, one per
// tenant and day, and commits them by creating a manifest; the manifests of a signal form a chain over the log.
// Merges, deletes and retention replace parts of one partition by further manifests. Recovery reads the
// manifests and replays the log from the end of each chain.
//
// Locks, in the order in which they are taken: the turns on sources, DB.tidyMu, DB.flushMu, DB.order, DB.failMu, retryKeys.mu, DB.mu, the heads' own,
// partHandle.mu.
package db

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs"
	"github.com/braidobs/braid/storage/logs/lines"
	signalmetrics "github.com/braidobs/braid/storage/metrics"
	"github.com/braidobs/braid/storage/part"
	"github.com/braidobs/braid/storage/traces"
	"github.com/braidobs/braid/storage/traces/columns"
	"github.com/braidobs/braid/storage/traces/join"
	"github.com/braidobs/braid/storage/wal"
)

// DB is an open store. It is safe for concurrent use.
type DB struct {
	cfg      Config
	deps     Deps
	log      *slog.Logger
	m        *metrics
	wal      wal.Log
	keys     *retryKeys
	turns    *turns // on streams of sources
	enc      *zstd.Encoder
	dec      *zstd.Decoder
	lines    *lines.Decoder
	segments *traces.Segments
	shared   *join.Shared
	cache    *part.Cache

	packings sync.Pool       // of *packing
	inflight [4]atomic.Int64 // bytes of writes between admission and apply, by chain
	kick     chan struct{}   // wakes the flushes of Run
	flushed  chan struct{}   // wakes the merges of Run
	closed   atomic.Bool
	logged   atomic.Int64 // bytes of series appended to the log since the last snapshot of the meta chain
	full     atomic.Bool  // the last append found the disk full

	tidyMu  sync.Mutex // held while parts are merged, rewritten or dropped
	flushMu sync.Mutex // held while anything is flushed or committed; guards snapshotBytes
	// snapshotBytes is the size of the last snapshot of the meta chain.
	snapshotBytes int64

	order     sync.Mutex // guards all below, and makes appends of requests with series follow it
	deltas    *signalmetrics.Deltas
	active    *signalmetrics.Active // it alone may be read without order
	numbers   numbers
	overflow  overflows
	appending sync.WaitGroup // appends of requests with series that are not applied yet

	failMu sync.Mutex // held from a look at failed to the append that it decides about; taken after order
	// failed says that such an append failed: what was decided since the last that was applied is void.
	failed bool

	mu        sync.Mutex // guards all below
	heads     [4]*head   // by chain; none for chainMeta
	frozen    [4]*head   // being flushed, or nil
	applied   storage.Position
	moved     chan struct{} // closed and replaced when applied moves and somebody waits
	waiting   bool
	committed *signalmetrics.Deltas
	dirs      map[telemetry.Tenant]*telemetry.Directory
	sources   *sources
	state     values
	masks     []mask
	history   history
	told      map[telemetry.LabelSet]*telemetry.Resource // what labels tell, while the log is replayed
	eras      []storage.Position                         // where the heads of metrics begin that the log may still speak of
	rewritten map[uint64][]string
	current   *version
	chains    [4]chainState
	changes   map[partition]uint64 // number of the next change
	views     map[*view]struct{}
	followers []*follower // of logs; the slice is never changed in place
	viewSeq   uint64
	holes     []string
	unswept   bool // a hole was found: nothing is swept
	closing   bool
}

// chainState is how far a chain has come.
type chainState struct {
	from, to  storage.Position // of the last manifest
	any       bool             // there is a last manifest
	manifests int              // since the last checkpoint
	snapshot  string
	last      time.Time
}

// mask is a delete and its place in the log.
type mask struct {
	storage.Mask
	at storage.Position
}

// head is the records of one signal that are not in parts yet: those in [from, to) of the log once it is frozen.
type head struct {
	signal   storage.Signal
	from, to storage.Position
	born     time.Time
	metrics  *signalmetrics.Head
	logs     *logs.Head
	traces   *traces.Head
	pins     int  // views that may read it; guarded by DB.mu
	retired  bool // flushed: only pins keep it; guarded by DB.mu
}

func (d *DB) newHead(s storage.Signal, from storage.Position, now time.Time) *head {
	h := &head{signal: s, from: from, born: now}
	switch s {
	case storage.Metrics:
		h.metrics = d.active.NewHead(from, now.UnixMilli())
	case storage.Logs:
		h.logs = logs.NewHead()
	case storage.Traces:
		h.traces = traces.NewHead()
	}
	return h
}

func (h *head) size() (bytes, records int64) {
	switch h.signal {
	case storage.Metrics:
		return h.metrics.Size()
	case storage.Logs:
		return h.logs.Size()
	default:
		return h.traces.Size()
	}
}

var (
	_ storage.Writer = (*DB)(nil)
	_ storage.Reader = (*DB)(nil)
	_ storage.Admin  = (*DB)(nil)
	_ storage.State  = (*DB)(nil)
)

// Open recovers the store: it reads the manifests, opens the log and replays what is not in parts. Background
// work (flushes by age, merges, retention) happens in Run.
func Open(ctx context.Context, cfg Config, deps Deps) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.CheckpointEvery < 1 {
		deps.CheckpointEvery = checkpointEvery
	}
	if deps.Logs == (logs.Layout{}) {
		deps.Logs = logs.DefaultLayout()
	}
	if deps.Traces == (columns.Layout{}) {
		deps.Traces = columns.DefaultLayout()
	}
	if deps.MergeMetricsFrom < 2 {
		deps.MergeMetricsFrom = mergeMetricsFrom
	}
	d := &DB{
		cfg: cfg, deps: deps, log: deps.Log, m: newMetrics(deps.Metrics),
		turns: newTurns(), sources: newSources(cfg.MaxSources), state: newValues(),
		keys: newRetryKeys(cfg.RetryWindow.Std(), maxRetryKeys), kick: make(chan struct{}, 1), flushed: make(chan struct{}, 1),
		deltas: signalmetrics.NewDeltas(cfg.MaxDeltaSeries), committed: signalmetrics.NewDeltas(cfg.MaxDeltaSeries),
		active:   signalmetrics.NewActive(signalmetrics.Limits{PerTenant: cfg.MaxSeries, PerMetric: cfg.MaxSeriesPerMetric}),
		overflow: overflows{counts: make(map[overflowKey]float64)},
		moved:    make(chan struct{}), dirs: make(map[telemetry.Tenant]*telemetry.Directory), rewritten: make(map[uint64][]string),
		changes: make(map[partition]uint64), views: make(map[*view]struct{}),
	}
	if cfg.CacheBytes > 0 {
		d.cache = part.NewCache(int(cfg.CacheBytes))
	}
	d.current = newVersion(nil)
	var err error
	if d.enc, err = part.NewEncoder(); err != nil {
		return nil, fmt.Errorf("create zstd encoder: %w", err)
	}
	d.lines = lines.NewDecoder()
	d.segments, d.shared = traces.NewSegments(), join.NewShared(deps.SharedTraces)
	if d.dec, err = part.NewDecoder(); err != nil {
		return nil, fmt.Errorf("create zstd decoder: %w", err)
	}
	if err := d.recover(ctx); err != nil {
		d.dec.Close()
		if d.wal != nil {
			err = errors.Join(err, d.wal.Close())
		}
		d.current.release(ctx, d)
		d.cache.Reset()
		return nil, err
	}
	if deps.Metrics != nil {
		deps.Metrics.MustRegister(newGauges(d))
	}
	return d, nil
}

// Run flushes, merges and drops until ctx ends.
func (d *DB) Run(ctx context.Context) error {
	// A merge may take long, and flushes must not wait for it: the head would fill up.
	var merges sync.WaitGroup
	merges.Go(func() { d.loop(ctx, d.flushed, d.tidy) })
	d.loop(ctx, d.kick, d.flushDue)
	merges.Wait()
	return nil
}

// loop does work at regular times and when it is woken, until ctx ends.
func (d *DB) loop(ctx context.Context, woken <-chan struct{}, work func(context.Context) error) {
	tick := time.NewTicker(min(d.cfg.FlushInterval.Std()/4, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-woken:
		case <-tick.C:
		}
		if err := work(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("storage maintenance did not finish, it is tried again", "err", err)
		}
	}
}

// Maintain does once what Run does for ever: it flushes what is due, drops what is past its retention, applies
// deletes and merges small parts.
func (d *DB) Maintain(ctx context.Context) error {
	return errors.Join(d.flushDue(ctx), d.tidy(ctx))
}

// tidy is Maintain without the flushes.
func (d *DB) tidy(ctx context.Context) error {
	d.tidyMu.Lock()
	defer d.tidyMu.Unlock()
	return errors.Join(d.retain(ctx), d.rewriteMasked(ctx), d.mergeSmall(ctx))
}

// Close stops writes, flushes the heads so that the next start is quick, and releases everything. Nothing is lost
// when it fails: what is not in parts is in the log.
func (d *DB) Close(ctx context.Context) error {
	if d.closed.Swap(true) {
		return nil
	}
	err := d.wal.Close() // waits for the writes that are under way
	d.flushMu.Lock()
	defer d.flushMu.Unlock()
	if ferr := d.flushAll(ctx); ferr != nil {
		err = errors.Join(err, fmt.Errorf("flush at the end: %w", ferr))
	}
	d.mu.Lock()
	d.closing = true
	for v := range d.views {
		v.cancel(storage.ErrClosed)
	}
	old := d.current
	d.mu.Unlock()
	old.release(ctx, d)
	d.dec.Close()
	d.cache.Reset()
	return err
}

// wake makes Run look for what is to be flushed.
func (d *DB) wake() { signal(d.kick) }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// dir returns a tenant's directory. It needs mu.
func (d *DB) dir(t telemetry.Tenant) *telemetry.Directory {
	x := d.dirs[t]
	if x == nil {
		x = telemetry.NewDirectory(d.cfg.Cluster, d.cfg.MaxResources)
		d.dirs[t] = x
	}
	return x
}

// Ready says why the store cannot take writes, or nil.
func (d *DB) Ready() error {
	if d.closed.Load() {
		return storage.ErrClosed
	}
	if d.full.Load() {
		return storage.ErrFull
	}
	return nil
}
