package promql

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/promql/columns"
	"github.com/braidobs/braid/storage"
)

// storeError marks what went wrong in the store, so that it is not taken for a mistake of the query.
type storeError struct{ err error }

// Error tells the cause.
func (e *storeError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *storeError) Unwrap() error { return e.err }

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return &storeError{err}
}

// sharedView is the view of one query: opened by the first read, closed once. What is read through it counts against
// the limits of the query.
type sharedView struct {
	reader storage.Reader
	min    storage.Position
	limits limits
	made   atomic.Bool // series were read that are not stored

	mu     sync.Mutex // guards what follows
	view   storage.View
	closed bool
	series int // read so far
}

func (s *sharedView) get(ctx context.Context) (storage.View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, storage.ErrClosed
	}
	if s.view != nil {
		return s.view, nil
	}
	v, err := s.reader.View(ctx, s.min)
	if err != nil {
		return nil, err
	}
	s.view = v
	return v, nil
}

// maker is a view that makes series when they are asked for.
type maker interface {
	// Made says whether some were read.
	Made() bool
}

// foreign tells whether series were read that are not stored.
func (s *sharedView) foreign() bool {
	if s.made.Load() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.view.(maker)
	return ok && m.Made()
}

func (s *sharedView) warnings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == nil {
		return nil
	}
	return s.view.Warnings()
}

func (s *sharedView) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.view
	s.view, s.closed = nil, true
	if v == nil {
		return nil
	}
	return v.Close()
}

// querier reads the series of one tenant in a time range.
type querier struct {
	view       *sharedView
	virtual    Virtual // nil for none
	tenant     telemetry.Tenant
	mint, maxt int64
	done       func() error  // nil when the view is not the querier's own
	plan       *columns.Plan // nil for none
	stats      *stats.Statistics
}

var _ promstorage.Querier = (*querier)(nil)

// Select implements promstorage.Querier. Series are always sorted.
func (q *querier) Select(ctx context.Context, _ bool, hints *promstorage.SelectHints, ms ...*labels.Matcher) promstorage.SeriesSet {
	if q.plan != nil {
		if set, ok := q.plan.Select(ctx, ms, q.columns, q.stats.Samples); ok {
			return set
		}
	}
	sq := storage.SeriesQuery{Tenant: q.tenant, Start: q.mint, End: q.maxt, Matchers: ms, Hints: hints}
	if hints != nil {
		sq.Start, sq.End, sq.Limit = hints.Start, hints.End, hints.Limit
	}
	if q.virtual != nil {
		if set, ok := q.virtual.Select(ctx, q.tenant, sq.Start, sq.End, ms); ok {
			q.view.made.Store(true)
			return &seriesSet{SeriesSet: set, view: q.view}
		}
	}
	v, err := q.view.get(ctx)
	if err != nil {
		return promstorage.ErrSeriesSet(wrap(err))
	}
	return &seriesSet{SeriesSet: withResets(ctx, v, sq), view: q.view}
}

// columns is the columns.Source of the tenant. Errors of f come back as they are.
func (q *querier) columns(ctx context.Context, sq storage.SeriesQuery, f func(*storage.SeriesBlock) error) error {
	sq.Tenant = q.tenant
	if q.virtual != nil {
		if _, ok := q.virtual.Select(ctx, q.tenant, sq.Start, sq.End, sq.Matchers); ok {
			q.view.made.Store(true)
			return columns.ErrForeign
		}
	}
	v, err := q.view.get(ctx)
	if err != nil {
		return wrap(err)
	}
	n := 0
	err = v.Columns(ctx, sq, func(b *storage.SeriesBlock) error {
		if n++; n%chargeEvery == 0 {
			if err := q.view.charge(chargeEvery); err != nil {
				return err
			}
		}
		return f(b)
	})
	if err != nil {
		return wrap(err)
	}
	return q.view.charge(n % chargeEvery)
}

// chargeEvery is how many series are counted at once: a look at what was read takes a lock.
const chargeEvery = 64

// seriesSet counts the series and marks the errors of the store.
type seriesSet struct {
	promstorage.SeriesSet
	view *sharedView
	err  error // a limit was reached
}

// Next implements promstorage.SeriesSet.
func (s *seriesSet) Next() bool {
	if s.err != nil || !s.SeriesSet.Next() {
		return false
	}
	s.err = s.view.charge(1)
	return s.err == nil
}

// Err implements promstorage.SeriesSet.
func (s *seriesSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return wrap(s.SeriesSet.Err())
}

func (q *querier) labelQuery(hints *promstorage.LabelHints, ms []*labels.Matcher) storage.SeriesQuery {
	sq := storage.SeriesQuery{Tenant: q.tenant, Start: q.mint, End: q.maxt, Matchers: ms}
	if hints != nil {
		sq.Limit = hints.Limit
	}
	return sq
}

func notes(v storage.View) annotations.Annotations {
	var out annotations.Annotations
	for _, w := range v.Warnings() {
		out.Add(errors.New(w))
	}
	return out
}

// LabelValues implements promstorage.LabelQuerier.
func (q *querier) LabelValues(ctx context.Context, name string, hints *promstorage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	v, err := q.view.get(ctx)
	if err != nil {
		return nil, nil, wrap(err)
	}
	values, err := v.LabelValues(ctx, name, q.labelQuery(hints, ms))
	return values, notes(v), wrap(err)
}

// LabelNames implements promstorage.LabelQuerier.
func (q *querier) LabelNames(ctx context.Context, hints *promstorage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	v, err := q.view.get(ctx)
	if err != nil {
		return nil, nil, wrap(err)
	}
	names, err := v.LabelNames(ctx, q.labelQuery(hints, ms))
	return names, notes(v), wrap(err)
}

// Close implements promstorage.LabelQuerier.
func (q *querier) Close() error {
	if q.done == nil {
		return nil
	}
	return q.done()
}
