// Package sampling decides which traces outlive the days on which everything is kept: with the complete trace, the whole day
// and what logs and metrics say of it at hand, and long after it ended. What is kept at random notes with what probability, so
// that numbers made from spans stay right.
//
//	s := sampling.New(sampling.Deps{Policy: policy, Store: db, Now: time.Now, Log: log, Metrics: reg})
//	err := s.Run(ctx) // until ctx ends
package sampling

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

const (
	// every is how often days are looked for that are due.
	every = 10 * time.Minute
	// maxKept is how many traces of a day are kept for a reason; a day with more is kept whole.
	maxKept = 5_000_000
	// around is how far from a day log records are read that name its traces.
	around = int64(time.Hour)
	day    = int64(24 * time.Hour)
	// errorSeverity is the smallest severity number of an error, and lastSeverity the largest there is.
	errorSeverity, lastSeverity = 17, 24
	keys                        = "sampling/"
)

// Store is what the sampler reads and changes.
type Store interface {
	storage.Reader
	storage.TraceSampler
	storage.State
}

// Deps are what a sampler depends on.
type Deps struct {
	Policy  Policy
	Store   Store
	Now     func() time.Time
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil registers nothing
}

// Sampler applies a policy.
type Sampler struct {
	Deps
	traces *prometheus.CounterVec
	days   *prometheus.CounterVec
}

// New returns a sampler. The policy must be valid.
func New(d Deps) *Sampler {
	f := promauto.With(d.Metrics)
	return &Sampler{
		Deps: d,
		traces: f.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_sampling_traces_total", Help: "Traces of days that were thinned out: kept for a reason, kept at random, or dropped.",
		}, []string{"decision"}),
		days: f.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_sampling_days_total", Help: "Days of tenants that were due for sampling, by how it ended.",
		}, []string{"outcome"}),
	}
}

// Run samples what is due, again and again until ctx ends.
func (s *Sampler) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := s.Once(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("traces were not sampled, they are tried again", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Once samples all days that are due. A day is sampled once; what comes for it later stays.
func (s *Sampler) Once(ctx context.Context) error {
	stored := make(map[string]bool)
	var errs []error
	for _, d := range s.Store.TraceDays() {
		key := keys + string(d.Tenant) + "/" + strconv.FormatInt(d.Day, 10)
		stored[key] = true
		end := time.Unix((d.Day+1)*86400, 0)
		if s.Now().Before(end.Add(s.Policy.After.Std())) || len(s.Store.Get(key)) > 0 {
			continue
		}
		err := s.sample(ctx, d)
		outcome := "sampled"
		if errors.Is(err, errTooMany) {
			s.Log.Warn("more traces of a day are to be kept than can be told apart: it is kept whole", "tenant", string(d.Tenant), "day", end.Add(-time.Second).UTC().Format(time.DateOnly), "max", maxKept)
			outcome, err = "kept", nil
		}
		if err != nil {
			s.days.WithLabelValues("failed").Inc()
			errs = append(errs, fmt.Errorf("tenant %s, day %d: %w", d.Tenant, d.Day, err))
			continue
		}
		s.days.WithLabelValues(outcome).Inc()
		errs = append(errs, s.Store.Set(ctx, key, []byte(outcome)))
	}
	for _, key := range s.Store.Keys(keys) { // of days that retention dropped
		if !stored[key] {
			errs = append(errs, s.Store.Set(ctx, key, nil))
		}
	}
	return errors.Join(errs...)
}

var errTooMany = errors.New("too many traces are to be kept")

// sample decides about the traces of a day and thins it out.
func (s *Sampler) sample(ctx context.Context, d storage.TraceDay) error {
	v, err := s.Store.View(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }()
	at, ok := v.(storage.ChangeReader)
	if !ok {
		return errors.New("the store does not tell positions")
	}
	w := work{s: s, v: v, tenant: d.Tenant, from: d.Day * day, to: (d.Day+1)*day - 1, kept: make(map[telemetry.TraceID]struct{})}
	if err := w.decide(ctx); err != nil {
		return err
	}
	if len(v.Warnings()) > 0 {
		return fmt.Errorf("not all of it can be read: %v", v.Warnings())
	}
	if err := s.Store.SampleTraces(ctx, d, at.Position(), w.keep); err != nil {
		return err
	}
	for decision, n := range w.counts {
		s.traces.WithLabelValues(decision).Add(float64(n))
	}
	s.Log.Info("traces of a day were sampled", "tenant", string(d.Tenant), "day", time.Unix(0, w.from).UTC().Format(time.DateOnly),
		"kept", w.counts["kept"], "at_random", w.counts["sampled"], "dropped", w.counts["dropped"])
	return nil
}

// work is the decision about one day.
type work struct {
	s        *Sampler
	v        storage.View
	tenant   telemetry.Tenant
	from, to int64 // starts of spans
	ops      map[operation]*spread
	kept     map[telemetry.TraceID]struct{} // for a reason
	counts   map[string]int
}

// operation is what a service does.
type operation struct{ service, name string }

// keep is the probability that a trace is kept with. It is the same for all fragments of a trace, whenever it is asked.
func (w *work) keep(id telemetry.TraceID) float64 {
	if _, ok := w.kept[id]; ok {
		return 1
	}
	n := uint64(w.s.Policy.OneIn)
	if xxhash.Sum64(id[:]) <= math.MaxUint64/n {
		return 1 / float64(n)
	}
	return 0
}

// decide finds the traces that are kept for a reason.
func (w *work) decide(ctx context.Context) error {
	p := &w.s.Policy
	if p.Logs {
		if err := w.logs(ctx); err != nil {
			return fmt.Errorf("logs: %w", err)
		}
	}
	if p.Exemplars {
		if err := w.exemplars(ctx); err != nil {
			return fmt.Errorf("exemplars: %w", err)
		}
	}
	if err := w.each(ctx, true, w.measure); err != nil {
		return err
	}
	for _, s := range w.ops {
		s.settle(p.Slow)
	}
	w.counts = map[string]int{"kept": 0, "sampled": 0, "dropped": 0}
	return w.each(ctx, false, w.look)
}

func (w *work) add(id telemetry.TraceID) error {
	if id.IsZero() {
		return nil
	}
	if w.kept[id] = struct{}{}; len(w.kept) > maxKept {
		return errTooMany
	}
	return nil
}

// logs keeps the traces that errors in logs name.
func (w *work) logs(ctx context.Context) error {
	q := storage.LogQuery{
		Tenant: w.tenant, Start: w.from - around, End: w.to + around,
		Where: storage.SeverityRange{Min: errorSeverity, Max: lastSeverity}, Columns: storage.LogTraceID,
	}
	for b, err := range w.v.Logs(ctx, q) {
		if err != nil {
			return err
		}
		for _, id := range b.TraceID {
			if err := w.add(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// exemplars keeps the traces that series point at.
func (w *work) exemplars(ctx context.Context) error {
	const ms = int64(time.Millisecond)
	all := labels.MustNewMatcher(labels.MatchNotEqual, model.MetricNameLabel, "")
	found, err := w.v.Exemplars(ctx, storage.SeriesQuery{Tenant: w.tenant, Start: w.from/ms - around/ms, End: w.to/ms + around/ms, Matchers: []*labels.Matcher{all}})
	if err != nil {
		return err
	}
	for _, series := range found {
		for _, e := range series.Exemplars {
			for _, name := range []string{"trace_id", "traceID", "traceId"} {
				id, err := telemetry.ParseTraceID(e.Labels.Get(name))
				if err != nil {
					continue
				}
				if err := w.add(id); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// rows are the columns of a block that decisions need.
type rows struct {
	ids                           []telemetry.TraceID
	first, parents                []int32
	starts, durations             []int64
	service, name, kind, statuses storage.ColumnReader
}

// each calls f with each block of traces of the day.
func (w *work) each(ctx context.Context, fragments bool, f func(r *rows) error) error {
	service := storage.SpanKey{Scope: storage.ResourceScope, Name: "service.name"}
	keys := []storage.SpanKey{service, storage.Field(storage.SpanName), storage.Field(storage.SpanKindField), storage.Field(storage.SpanStatus)}
	q := storage.TraceQuery{Tenant: w.tenant, Start: w.from, End: w.to, Keys: keys, Fragments: fragments}
	for b, err := range w.v.Traces(ctx, q) {
		if err != nil {
			return err
		}
		r := &rows{}
		var errs [5]error
		r.ids, errs[0] = b.Traces()
		r.first, errs[1] = b.First()
		r.parents, errs[2] = b.Parents()
		r.starts, errs[3] = b.Starts()
		r.durations, errs[4] = b.Durations()
		if err := errors.Join(errs[:]...); err != nil {
			return err
		}
		for i, to := range []*storage.ColumnReader{&r.service, &r.name, &r.kind, &r.statuses} {
			c, err := b.Column(keys[i])
			if err != nil {
				return err
			}
			*to = c.Reader()
		}
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

// entry says whether a row is where a service began to work, and on what.
func (r *rows) entry(row int32) (operation, bool) {
	kind := telemetry.SpanKind(r.kind.At(row).Int())
	op := operation{r.service.At(row).Text(), r.name.At(row).Str()}
	return op, kind == telemetry.SpanKindServer || kind == telemetry.SpanKindConsumer || r.parents[row] < 0
}

// measure learns how long operations take.
func (w *work) measure(r *rows) error {
	if w.ops == nil {
		w.ops = make(map[operation]*spread)
	}
	for row := range int32(len(r.starts)) {
		op, ok := r.entry(row)
		if !ok || r.starts[row] < w.from || r.starts[row] > w.to {
			continue
		}
		s := w.ops[op]
		if s == nil {
			s = &spread{}
			w.ops[op] = s
		}
		s.add(r.durations[row])
	}
	return nil
}

// look keeps the traces of a block that there is a reason for, and those that lie on two days.
func (w *work) look(r *rows) error {
	p := &w.s.Policy
	for t, id := range r.ids {
		_, keep := w.kept[id]
		inside := false
		for row := r.first[t]; row < r.first[t+1]; row++ {
			on := r.starts[row] >= w.from && r.starts[row] <= w.to
			inside = inside || on
			op, entry := r.entry(row)
			failed := r.statuses.At(row).Int() == int64(telemetry.StatusError)
			s := w.ops[op]
			switch {
			case keep:
			case !on, p.Errors && failed:
				keep = true
			case entry && s != nil:
				keep = s.n < p.Rare || p.Slow < 1 && r.durations[row] > s.slow
			}
		}
		if !inside {
			continue // it belongs to another day altogether
		}
		if keep {
			if err := w.add(id); err != nil {
				return err
			}
		}
		switch p := w.keep(id); {
		case keep:
			w.counts["kept"]++
		case p > 0:
			w.counts["sampled"]++
		default:
			w.counts["dropped"]++
		}
	}
	return nil
}

// spread is how long an operation takes, to within 5 %.
type spread struct {
	n       int
	buckets map[int]int // by 16 times the binary logarithm of the duration
	slow    int64
}

func (s *spread) add(d int64) {
	s.n++
	if s.buckets == nil {
		s.buckets = make(map[int]int)
	}
	s.buckets[bucketOf(d)]++
}

func bucketOf(d int64) int {
	if d < 1 {
		return 0
	}
	return int(math.Ceil(16 * math.Log2(float64(d))))
}

// settle sets slow to what a share q of all takes at most.
func (s *spread) settle(q float64) {
	left := int(math.Ceil(q * float64(s.n)))
	last := bucketOf(math.MaxInt64)
	for b := range last + 1 {
		if left -= s.buckets[b]; left <= 0 {
			s.slow = int64(math.Min(math.Exp2(float64(b)/16), math.MaxInt64))
			return
		}
	}
	s.slow = math.MaxInt64
}
