// Package promql answers PromQL with Prometheus's own engine over a storage.Reader.
//
//	eng, err := promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: db, Observer: obs, Log: log})
//	a, err := eng.Query(ctx, promql.Request{Tenant: "default", Expr: "sum(rate(http_requests_total[5m]))", End: now})
//	if err != nil {
//		return err // knows its httpapi.Kind
//	}
//	defer a.Close()
//	use(a.Value, a.Warnings)
//
// All reads of one query use one view of the store, which lives until the answer is closed.
package promql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/promql/columns"
	"github.com/braidobs/braid/query/promql/results"
	"github.com/braidobs/braid/storage"
)

// defaultSubqueryStep is the default evaluation interval of Prometheus.
const defaultSubqueryStep = time.Minute

// Virtual answers for series that are not stored but made when they are asked for. Select returns the series in a range
// of time, in milliseconds, both ends included, sorted; ok is false when the matchers do not ask for one of them, and
// then the store is asked.
type Virtual interface {
	Select(ctx context.Context, tenant telemetry.Tenant, start, end int64, ms []*labels.Matcher) (set promstorage.SeriesSet, ok bool)
}

// Deps are what an engine depends on.
type Deps struct {
	Config   Config
	Reader   storage.Reader  // its views may say that they made series that are not stored, with a method Made() bool
	Virtual  Virtual         // nil for none
	Observer *query.Observer // nil for none
	Log      *slog.Logger    // of the engine; nil drops
	// SubqueryStep is the step of subqueries that name none, the interval at which rules are evaluated; 0 is a minute.
	SubqueryStep time.Duration
	// QueryLog gets a record for each query, as that of Prometheus does; nil for none.
	QueryLog promql.QueryLogger
	Now      func() time.Time      // when queries began; nil: not known
	Metrics  prometheus.Registerer // of the cache of results; nil for none
}

// Engine answers queries. It is safe for concurrent use.
type Engine struct {
	cfg      Config
	reader   storage.Reader
	virtual  Virtual
	observer *query.Observer
	parser   parser.Parser
	engine   *promql.Engine
	running  *running
	now      func() time.Time

	subqueryStep time.Duration
	results      *results.Cache // nil for none
}

// New returns an engine.
func New(d Deps) (*Engine, error) {
	if err := d.Config.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: d.Config, reader: d.Reader, virtual: d.Virtual, observer: d.Observer, parser: d.Config.Parser(), now: d.Now}
	if e.now == nil {
		e.now = func() time.Time { return time.Time{} }
	}
	e.running = newRunning(d.Config.PerTenant)
	step := d.SubqueryStep
	if step <= 0 {
		step = defaultSubqueryStep
	}
	e.subqueryStep = step
	if d.Config.CacheBytes > 0 {
		e.results = results.New(results.Options{Bytes: int(d.Config.CacheBytes.Bytes()), Metrics: d.Metrics})
	}
	e.engine = promql.NewEngine(promql.EngineOpts{
		Logger: d.Log, MaxSamples: d.Config.MaxSamples, Timeout: d.Config.Timeout.Std(), LookbackDelta: d.Config.Lookback.Std(),
		ActiveQueryTracker:       make(turns, d.Config.Concurrency),
		NoStepSubqueryIntervalFn: func(int64) int64 { return step.Milliseconds() },
		EnableAtModifier:         true, EnableNegativeOffset: true, EnablePerStepStats: true, Parser: e.parser,
		EnableDelayedNameRemoval: d.Config.Experimental, UseStartTimestamps: d.Config.Experimental,
	})
	if d.QueryLog != nil {
		e.engine.SetQueryLogger(d.QueryLog)
	}
	return e, nil
}

// Parser returns the parser of the engine's dialect.
func (e *Engine) Parser() parser.Parser { return e.parser }

// Prometheus returns the engine below, for suites and rule managers that drive one themselves.
func (e *Engine) Prometheus() *promql.Engine { return e.engine }

// Queryable returns a tenant's series in Prometheus's terms. Each Querier has a view of its own until it is closed.
func (e *Engine) Queryable(t telemetry.Tenant) promstorage.Queryable {
	return promstorage.QueryableFunc(func(mint, maxt int64) (promstorage.Querier, error) {
		v := e.view(0)
		return &querier{view: v, virtual: e.virtual, tenant: t, mint: mint, maxt: maxt, done: v.close}, nil
	})
}

// view returns the view of one query, with its limits.
func (e *Engine) view(min storage.Position) *sharedView {
	return &sharedView{reader: e.reader, min: min, limits: limits{series: e.cfg.MaxSeries, read: e.cfg.MaxRead}}
}

// Request is one query.
type Request struct {
	Tenant       telemetry.Tenant
	Expr         string
	Start, End   time.Time     // an instant query is at End
	Step         time.Duration // 0: an instant query
	Lookback     time.Duration // 0: as configured
	PerStepStats bool
	Min          storage.Position // what the query must see at least
}

// Answer is what a query gives. It must be closed; what it holds is valid until then.
type Answer struct {
	Value    parser.Value
	Warnings annotations.Annotations // and infos
	Stats    *stats.Statistics
	Read     storage.ReadStats
	query    promql.Query // nil when nothing had to be evaluated
	view     *sharedView
}

// Close gives back what the answer holds.
func (a *Answer) Close() {
	if a.query != nil {
		a.query.Close()
	}
	_ = a.view.close()
}

// Query answers a query. Errors know their httpapi.Kind: BadData with the position for an expression that does
// not parse, Timeout, Canceled, QueryLimit, Execution, and Internal for faults of the store.
func (e *Engine) Query(ctx context.Context, r Request) (a *Answer, err error) {
	done := e.observer.Start(ctx, query.PromQL, r.Tenant, r.Expr)
	defer func() { done(err) }()
	ctx, end := e.running.begin(ctx, r, e.now())
	defer end()
	waiting, cancel := context.WithTimeout(ctx, e.cfg.Timeout.Std())
	leave, err := e.running.turn(waiting, r.Tenant)
	cancel()
	if err != nil {
		return nil, e.explain(ctx, err)
	}
	defer leave()
	view := e.view(r.Min)
	a, ok, err := e.fromResults(ctx, r, view)
	if !ok {
		a, err = e.whole(ctx, r, view)
	}
	if err != nil {
		_ = view.close()
		return nil, err
	}
	return a, nil
}

// whole evaluates a query at all its steps.
func (e *Engine) whole(ctx context.Context, r Request, view *sharedView) (*Answer, error) {
	q, res, err := e.exec(ctx, r, view)
	if err != nil {
		return nil, err
	}
	if res.Err != nil {
		q.Close()
		return nil, e.explain(ctx, res.Err)
	}
	a := &Answer{query: q, view: view, Value: res.Value, Warnings: res.Warnings, Stats: q.Stats(), Read: view.stats()}
	for _, w := range view.warnings() {
		a.Warnings.Add(errors.New(w))
	}
	return a, nil
}

// exec evaluates a query, with the shapes that are computed on columns as far as the data allow it.
func (e *Engine) exec(ctx context.Context, r Request, view *sharedView) (q promql.Query, res *promql.Result, err error) {
	var plan *columns.Plan
	src := promstorage.QueryableFunc(func(mint, maxt int64) (promstorage.Querier, error) {
		return &querier{view: view, virtual: e.virtual, tenant: r.Tenant, mint: mint, maxt: maxt, plan: plan, stats: q.Stats()}, nil
	})
	opts := promql.NewPrometheusQueryOpts(r.PerStepStats, r.Lookback)
	for {
		if r.Step == 0 {
			q, err = e.engine.NewInstantQuery(ctx, src, opts, r.Expr, r.End)
		} else {
			q, err = e.engine.NewRangeQuery(ctx, src, opts, r.Expr, r.Start, r.End, r.Step)
		}
		if _, waited := errors.AsType[*httpapi.Error](err); waited || errors.Is(err, context.Canceled) {
			return nil, nil, e.explain(ctx, err) // it waits for its turn here, too
		}
		if err != nil {
			return nil, nil, httpapi.BadDataf("invalid parameter %q: %w", "query", err)
		}
		if stmt, ok := q.Statement().(*parser.EvalStmt); ok && e.cfg.Columns && !e.cfg.Experimental {
			plan = columns.Rewrite(stmt, columns.Options{SubqueryStep: e.subqueryStep.Milliseconds(), MaxSamples: e.cfg.MaxSamples, Before: plan})
		}
		res = q.Exec(ctx)
		if plan == nil {
			return q, res, nil
		}
		if !plan.Without(res.Err) {
			plan.Settle(q.Stats().Samples)
			return q, res, nil
		}
		q.Close() // once more, without the shape that the data do not fit
	}
}

// explain gives an error of the engine its kind and tells how to get around a limit.
func (e *Engine) explain(ctx context.Context, err error) error {
	var (
		canceled promql.ErrQueryCanceled
		timeout  promql.ErrQueryTimeout
		tooMany  promql.ErrTooManySamples
		stored   *storeError
		known    *httpapi.Error
		internal promql.ErrStorage
	)
	switch {
	case errors.Is(context.Cause(ctx), errStopped):
		return &httpapi.Error{Kind: httpapi.Canceled, Message: errStopped.Error(), Err: err}
	case errors.As(err, &known):
		return err
	case errors.As(err, &tooMany):
		return &httpapi.Error{Kind: httpapi.QueryLimit, Err: err, Message: fmt.Sprintf(
			"the query needs more samples in memory at once than promql.max_samples (%d) allows: select fewer series with more labels, shorten the time range or raise the step", e.cfg.MaxSamples)}
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return &httpapi.Error{Kind: httpapi.Canceled, Message: err.Error(), Err: err}
	case errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded):
		limit := fmt.Sprintf("promql.timeout (%s)", e.cfg.Timeout)
		if ctx.Err() != nil { // the caller's own deadline was earlier
			limit = "the time that the request gave it"
		}
		return &httpapi.Error{Kind: httpapi.Timeout, Err: err, Message: fmt.Sprintf(
			"%s: the query took longer than %s: shorten the time range, raise the step or select fewer series", err, limit)}
	case errors.As(err, &stored):
		if c := query.Classify(stored.err); c != nil {
			return c
		}
		return stored.err // Internal, unless it knows better
	case errors.As(err, &internal):
		return internal.Err
	default:
		return &httpapi.Error{Kind: httpapi.Execution, Message: err.Error(), Err: err}
	}
}

// turns bounds the number of queries that run at once: the others wait. It is the engine's query tracker.
type turns chan struct{}

// GetMaxConcurrent implements promql.QueryTracker.
func (t turns) GetMaxConcurrent() int { return cap(t) }

// Insert implements promql.QueryTracker: it waits for a turn.
func (t turns) Insert(ctx context.Context, _ string) (int, error) {
	select {
	case t <- struct{}{}:
		return 0, nil
	default:
	}
	select {
	case t <- struct{}{}:
		return 0, nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return 0, ctx.Err()
		}
		return 0, &httpapi.Error{Kind: httpapi.Overloaded, RetryAfter: httpapi.DefaultRetryAfter, Err: ctx.Err(), Message: fmt.Sprintf(
			"the query waited for its turn until its time was over: promql.concurrency (%d) others are running", cap(t))}
	}
}

// Delete implements promql.QueryTracker.
func (t turns) Delete(int) { <-t }

// Close implements promql.QueryTracker.
func (t turns) Close() error { return nil }
