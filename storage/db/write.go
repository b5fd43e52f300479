package db

import (
	"context"
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	signalmetrics "github.com/braidobs/braid/storage/metrics"
	"github.com/braidobs/braid/storage/wal"
)

// retryAfter is what refused writers are told to wait.
const retryAfter = time.Second

// Write implements storage.Writer.
func (d *DB) Write(ctx context.Context, req storage.Request) (storage.Position, storage.Rejected, error) {
	if err := ctx.Err(); err != nil {
		return 0, storage.Rejected{}, err
	}
	if req.Key == (storage.Key{}) {
		return d.writeOnce(ctx, &req)
	}
	for {
		a, mine := d.keys.begin(req.Key)
		if mine {
			pos, rejected, err := d.writeOnce(ctx, &req)
			evicted := d.keys.finish(req.Key, a, pos, rejected, err != nil, d.deps.Now())
			d.m.evicted.Add(float64(evicted))
			return pos, rejected, err
		}
		select {
		case <-ctx.Done():
			return 0, storage.Rejected{}, ctx.Err()
		case <-a.done:
		}
		if !a.failed {
			d.m.retries.Inc()
			return a.pos, a.rejected, nil
		}
	}
}

// writeOnce writes what of the request was not acknowledged before, as far as its sources tell.
func (d *DB) writeOnce(ctx context.Context, req *storage.Request) (storage.Position, storage.Rejected, error) {
	keys := sourcesOf(req)
	if len(keys) == 0 {
		return d.write(req)
	}
	release, err := d.turns.take(ctx, keys)
	if err != nil {
		return 0, storage.Rejected{}, err
	}
	defer release()
	d.mu.Lock()
	again := d.cut(req)
	applied := d.applied
	d.mu.Unlock()
	d.m.again.Add(float64(again))
	if len(req.Batches) == 0 {
		return applied, req.Rejected, nil
	}
	return d.write(req)
}

// sizes returns the bytes that the request will take in the heads, by chain.
func sizes(req *storage.Request) (sizes [4]int64) {
	for i := range req.Batches {
		b := &req.Batches[i]
		for j := range b.Spans {
			sizes[chainTraces] += int64(b.Spans[j].Size())
		}
		for j := range b.Logs {
			sizes[chainLogs] += int64(b.Logs[j].Size())
		}
		for j := range b.Series {
			sizes[chainMetrics] += signalmetrics.SizeInMemory(&b.Series[j])
		}
	}
	return sizes
}

// admit refuses a write for which there is no memory.
func (d *DB) admit(need *[4]int64) error {
	if d.closed.Load() {
		return storage.ErrClosed
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range signals() {
		if need[s] == 0 {
			continue
		}
		held, _ := d.heads[s].size()
		if d.frozen[s] != nil {
			n, _ := d.frozen[s].size()
			held += n
		}
		under := d.inflight[s].Load()
		if held+under > 0 && held+under+need[s] > int64(d.cfg.HeadBytes) {
			d.m.overloaded.WithLabelValues("head_bytes").Inc()
			d.wake()
			return &storage.Overloaded{
				Reason:     fmt.Sprintf("the %s in memory have reached the limit storage.head_bytes (%s) and are being flushed", s, d.cfg.HeadBytes),
				RetryAfter: retryAfter,
			}
		}
	}
	for _, s := range signals() {
		d.inflight[s].Add(need[s])
	}
	return nil
}

func (d *DB) write(req *storage.Request) (storage.Position, storage.Rejected, error) {
	need := sizes(req)
	if err := d.admit(&need); err != nil {
		return 0, storage.Rejected{}, err
	}
	out := make(chan error, 1)
	var pos storage.Position
	var entries []*signalmetrics.Entry
	series := need[chainMetrics] > 0
	done := func(p wal.Position, err error) {
		if err == nil {
			pos = storage.Position(p)
			d.apply(pos, req, entries)
		} else if series && !errors.Is(err, wal.ErrClosed) {
			// The log lets no append through that is made before this returns, and none is made that was encoded before
			// failed was set: it would speak of series that were told in this one alone.
			d.failMu.Lock()
			d.failed = true
			d.failMu.Unlock()
		}
		for _, s := range signals() {
			d.inflight[s].Add(-need[s])
		}
		if series {
			d.appending.Done()
		}
		out <- err
	}
	if series {
		d.appendSeries(req, &entries, done)
	} else {
		d.wal.Append(d.encodeRequest(req, nil, nil), done)
	}
	// From here on the record may become durable whatever happens to ctx: the answer waits for that.
	if err := <-out; err != nil {
		return 0, storage.Rejected{}, d.refuse(err)
	}
	d.full.Store(false)
	d.count(req)
	return pos + 1, req.Rejected, nil
}

// appendSeries decides what becomes of the series of a request, in the order of the log, and appends it. The entries
// are there before done is called.
func (d *DB) appendSeries(req *storage.Request, entries *[]*signalmetrics.Entry, done func(wal.Position, error)) {
	d.order.Lock()
	defer d.order.Unlock()
	d.failMu.Lock()
	defer d.failMu.Unlock()
	if d.failed {
		d.failed = false
		d.numbers.begin()
		d.mu.Lock()
		d.deltas = d.committed.Clone()
		d.mu.Unlock()
	}
	req.Rejected.Add(d.deltas.Convert(req.Batches))
	n := 0
	for i := range req.Batches {
		n += len(req.Batches[i].Series)
	}
	es, over := d.active.Resolve(req.Batches, make([]*signalmetrics.Entry, 0, n))
	if len(over) > 0 {
		es = d.refuseSeries(req, es, over)
	}
	*entries = es
	d.appending.Add(1)
	rec := d.encodeRequest(req, es, &d.numbers)
	d.logged.Add(int64(len(rec)))
	d.wal.Append(rec, done)
}

// refuse turns an error of the log into one of the contract.
func (d *DB) refuse(err error) error {
	switch {
	case errors.Is(err, wal.ErrClosed):
		return storage.ErrClosed
	case errors.Is(err, wal.ErrTooLarge):
		return fmt.Errorf("%w: %w", storage.ErrTooLarge, err)
	case errors.Is(err, syscall.ENOSPC):
		d.full.Store(true)
		d.m.overloaded.WithLabelValues("disk_full").Inc()
		return &storage.Overloaded{Reason: "the disk is full: free space or shorten storage.retention; reads go on", RetryAfter: 10 * retryAfter, Err: storage.ErrFull}
	case errors.Is(err, wal.ErrOverloaded):
		d.m.overloaded.WithLabelValues("log_queue").Inc()
		return &storage.Overloaded{Reason: "the write-ahead log is behind", RetryAfter: retryAfter}
	default:
		d.m.overloaded.WithLabelValues("log_failed").Inc()
		d.log.Error("append to the write-ahead log failed", "err", err)
		return &storage.Overloaded{Reason: "the write-ahead log cannot be written", RetryAfter: 5 * retryAfter, Err: err}
	}
}

func (d *DB) count(req *storage.Request) {
	var spans, lines, samples int
	for i := range req.Batches {
		b := &req.Batches[i]
		spans, lines = spans+len(b.Spans), lines+len(b.Logs)
		samples += b.Records() - len(b.Spans) - len(b.Logs)
	}
	for _, c := range []struct {
		signal      storage.Signal
		n, rejected int
	}{{storage.Metrics, samples, req.Rejected.Samples}, {storage.Logs, lines, req.Rejected.Logs}, {storage.Traces, spans, req.Rejected.Spans}} {
		if c.n > 0 {
			d.m.written.WithLabelValues(c.signal.String()).Add(float64(c.n))
		}
		if c.rejected > 0 {
			d.m.rejected.WithLabelValues(c.signal.String()).Add(float64(c.rejected))
		}
	}
}

// apply makes a durable request visible. It is called in the order of positions, by one goroutine.
func (d *DB) apply(pos storage.Position, req *storage.Request, entries []*signalmetrics.Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applyTo(pos, req, entries, marksOf(req), func(chain) bool { return true })
	d.advance(pos + 1)
	if len(d.followers) > 0 {
		d.tell(req)
	}
	for _, s := range signals() {
		if n, _ := d.heads[s].size(); n >= int64(d.cfg.HeadBytes)/2 && d.frozen[s] == nil {
			d.wake()
		}
	}
}

// applyTo applies a request to the chains that want it. It needs mu.
func (d *DB) applyTo(pos storage.Position, req *storage.Request, entries []*signalmetrics.Entry, marks []sourceMark, wants func(chain) bool) {
	meta := wants(chainMeta)
	hasSeries := false
	if meta {
		d.mark(marks)
	}
	for i := range req.Batches {
		b := &req.Batches[i]
		hasSeries = hasSeries || len(b.Series) > 0
		if wants(chainLogs) {
			d.heads[chainLogs].logs.Append(pos, b)
		}
		if wants(chainTraces) {
			d.heads[chainTraces].traces.Append(pos, b)
		}
		if meta && b.Resource != nil {
			lo, hi := bounds(b)
			d.dir(b.Tenant).Observe(b.Resource, lo, hi)
		}
	}
	if !hasSeries {
		return
	}
	observe := func(t telemetry.Tenant, r *telemetry.Resource, lo, hi int64) {
		if meta {
			d.dir(t).Observe(r, lo*1e6, hi*1e6)
		}
	}
	if wants(chainMetrics) {
		oldest := d.heads[chainMetrics].metrics.Append(req.Batches, entries, observe)
		d.history.wrote(pos, req.Batches, oldest)
	} else {
		d.observeLabels(req, observe)
	}
	if meta {
		d.committed.Observe(req.Batches)
	}
}

// mark moves the marks of sources. It needs mu.
func (d *DB) mark(marks []sourceMark) {
	for _, m := range marks {
		d.m.sourcesEvicted.Add(float64(d.sources.advance(m)))
	}
}

// observeLabels does for the directory what appending to the head does: the series are in parts already. That is so
// while the log is replayed only, which is how long told lives.
func (d *DB) observeLabels(req *storage.Request, observe func(telemetry.Tenant, *telemetry.Resource, int64, int64)) {
	for i := range req.Batches {
		b := &req.Batches[i]
		if b.Resource != nil {
			continue
		}
		for j := range b.Series {
			one := telemetry.Batch{Series: b.Series[j : j+1]}
			lo, hi := bounds(&one)
			if lo > hi {
				continue
			}
			r, ok := d.told[b.Series[j].Labels]
			if !ok {
				r = telemetry.LabelResource(b.Series[j].Labels)
				d.told[b.Series[j].Labels] = r
			}
			if r != nil {
				observe(b.Tenant, r, lo/1e6, hi/1e6)
			}
		}
	}
}

// bounds returns the smallest and largest time of a batch, in nanoseconds.
func bounds(b *telemetry.Batch) (lo, hi int64) {
	lo, hi = math.MaxInt64, math.MinInt64
	for i := range b.Spans {
		lo, hi = min(lo, b.Spans[i].Start), max(hi, b.Spans[i].End)
	}
	for i := range b.Logs {
		lo, hi = min(lo, b.Logs[i].Time), max(hi, b.Logs[i].Time)
	}
	for i := range b.Series {
		s := &b.Series[i]
		for j := range s.Samples {
			lo, hi = min(lo, s.Samples[j].T*1e6), max(hi, s.Samples[j].T*1e6)
		}
		for j := range s.Histograms {
			lo, hi = min(lo, s.Histograms[j].T*1e6), max(hi, s.Histograms[j].T*1e6)
		}
	}
	return lo, hi
}

// advance makes everything below pos visible to View. It needs mu.
func (d *DB) advance(pos storage.Position) {
	d.applied = pos
	if d.waiting {
		close(d.moved)
		d.moved, d.waiting = make(chan struct{}), false
	}
}
