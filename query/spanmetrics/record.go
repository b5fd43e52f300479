package spanmetrics

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/model"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

const (
	// recordStep is the distance of written samples.
	recordStep = int64(time.Minute / time.Millisecond)
	// recordLag is how long after its end a step is written, so that its spans can arrive.
	recordLag = time.Minute
	// maxTenants bounds those whose series are written.
	maxTenants = 1000
	// maxAtOnce bounds the steps of one write.
	maxAtOnce = 60
	dayMillis = int64(24 * time.Hour / time.Millisecond)
)

// RecorderDeps are what a recorder depends on.
type RecorderDeps struct {
	Reader storage.Reader // of the store, without the metrics of spans
	Writer storage.Writer
	Now    func() time.Time
	Log    *slog.Logger
}

// Recorder writes the metrics of spans as series, a minute behind. What it writes is what a view over the same spans selects
// from the beginning of the UTC day, sample by sample, to the last bit: counters begin at zero each day. Spans that arrive
// after their minute was written are counted by views only, until the process starts anew. It is for one goroutine, but for
// Saw.
type Recorder struct {
	d RecorderDeps

	mu      sync.Mutex // guards what follows
	tenants map[telemetry.Tenant]*recording
}

// recording is the counters of one tenant.
type recording struct {
	day    int64 // where they began, in milliseconds
	until  int64 // what was written
	totals map[telemetry.LabelSet]*total
}

// total is where a counter is.
type total struct {
	n     int64
	nanos bool // n is nanoseconds
	gauge bool
}

// value returns the value of samples.
func (t *total) value() float64 {
	switch {
	case t.gauge:
		return 1
	case t.nanos:
		return float64(t.n) / 1e9
	default:
		return float64(t.n)
	}
}

// NewRecorder returns a recorder that writes for the tenants that Saw tells of.
func NewRecorder(d RecorderDeps) *Recorder {
	return &Recorder{d: d, tenants: make(map[telemetry.Tenant]*recording)}
}

// Saw tells of a tenant that has spans. It is safe for concurrent use.
func (r *Recorder) Saw(t telemetry.Tenant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tenants[t] == nil && len(r.tenants) < maxTenants {
		r.tenants[t] = &recording{}
	}
}

// Writer is a storage.Writer that tells a recorder whose spans it writes.
type Writer struct {
	storage.Writer
	Recorder *Recorder
}

// Write implements storage.Writer.
func (w Writer) Write(ctx context.Context, req storage.Request) (storage.Position, storage.Rejected, error) {
	for i := range req.Batches {
		if b := &req.Batches[i]; len(b.Spans) > 0 {
			w.Recorder.Saw(b.Tenant)
		}
	}
	return w.Writer.Write(ctx, req)
}

// Run writes each minute until ctx ends. What fails is logged and tried again a minute later.
func (r *Recorder) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Duration(recordStep) * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := r.Record(ctx); err != nil && ctx.Err() == nil {
				r.d.Log.WarnContext(ctx, "metrics of spans were not written", "err", err)
			}
		}
	}
}

// Record writes what has happened since the last time, up to the last whole minute but one.
func (r *Recorder) Record(ctx context.Context) error {
	r.mu.Lock()
	names := make([]telemetry.Tenant, 0, len(r.tenants))
	for t := range r.tenants {
		names = append(names, t)
	}
	r.mu.Unlock()
	slices.Sort(names)
	now := r.d.Now().Add(-recordLag).UnixMilli()
	for _, t := range names {
		r.mu.Lock()
		rec := r.tenants[t]
		r.mu.Unlock()
		if err := r.record(ctx, t, rec, now-now%recordStep); err != nil {
			return fmt.Errorf("write the metrics of the spans of tenant %s: %w", t, err)
		}
	}
	return nil
}

// record brings a tenant up to a time, day by day. A tenant that is new is counted from the beginning of the day, and written
// from now on.
func (r *Recorder) record(ctx context.Context, tenant telemetry.Tenant, rec *recording, to int64) error {
	if rec.totals == nil {
		rec.day = to - to%dayMillis
		next := recording{day: rec.day, until: to, totals: make(map[telemetry.LabelSet]*total)}
		if to > rec.day {
			if _, err := r.step(ctx, tenant, &next, gridOf(rec.day+1, to, to-rec.day, to)); err != nil {
				return err
			}
		}
		*rec = next
		return nil
	}
	for rec.until < to {
		if rec.until-rec.until%dayMillis != rec.day { // until is the first moment of a day
			rec.turn()
		}
		end := min(to, rec.day+dayMillis, rec.until+maxAtOnce*recordStep)
		next := recording{day: rec.day, until: end, totals: make(map[telemetry.LabelSet]*total, len(rec.totals))}
		for k, v := range rec.totals {
			c := *v
			next.totals[k] = &c
		}
		out, err := r.step(ctx, tenant, &next, gridOf(rec.until+1, end, recordStep, 0))
		if err != nil {
			return err
		}
		if len(out) > 0 {
			if _, rejected, err := r.d.Writer.Write(ctx, storage.Request{Batches: []telemetry.Batch{{Tenant: tenant, Series: out}}}); err != nil {
				return err
			} else if rejected.Total() > 0 {
				r.d.Log.WarnContext(ctx, "samples of metrics of spans were rejected", "tenant", string(tenant), "samples", rejected.Total(), "reasons", rejected.Reasons)
			}
		}
		*rec = next
	}
	return nil
}

// turn begins a new day: counters go on from zero, without those that counted nothing all day.
func (rec *recording) turn() {
	rec.day = rec.until
	for k, t := range rec.totals {
		if t.n == 0 {
			delete(rec.totals, k)
			continue
		}
		t.n = 0
	}
}

// step adds what ended on a grid to the totals, and returns the samples at its steps: at each, and a millisecond after the one
// before it.
func (r *Recorder) step(ctx context.Context, tenant telemetry.Tenant, rec *recording, g grid) ([]telemetry.Series, error) {
	v, err := r.d.Reader.View(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	var out []telemetry.Series
	for _, m := range metrics() {
		c, err := newCollector(m, g, nil, nil)
		if err != nil {
			return nil, err
		}
		if err := c.collect(ctx, v, tenant, 0); err != nil {
			return nil, err
		}
		fresh := make(map[telemetry.LabelSet]*series)
		for _, s := range c.finish() {
			k := telemetry.NewLabelSet(s.labels)
			fresh[k] = s
			if rec.totals[k] == nil {
				rec.totals[k] = &total{nanos: s.nanos, gauge: s.totals == nil}
			}
		}
		for k, t := range rec.totals {
			s := fresh[k]
			if s == nil && k.Get(model.MetricNameLabel) != m.name {
				continue
			}
			w := telemetry.Series{Labels: k}
			before := t.n
			for step := range g.n {
				at := g.origin + int64(step)*g.step
				w.Samples = append(w.Samples, telemetry.Sample{T: at + 1, V: t.value()})
				if s != nil && s.totals != nil {
					t.n = before + s.totals[step*s.stride+s.at]
				}
				w.Samples = append(w.Samples, telemetry.Sample{T: at + g.step, V: t.value()})
			}
			out = append(out, w)
		}
	}
	return out, nil
}
