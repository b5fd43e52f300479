package promql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
)

// errStopped is why a query ends that Stop ended.
var errStopped = errors.New("the query was stopped on request")

// Running is a query that is being answered or waits for its turn.
type Running struct {
	ID      uint64 // among all since the process started
	Request Request
	Began   time.Time // zero when the engine has no clock
}

// running is the queries under way, and the turns of the tenants.
type running struct {
	perTenant int // 0: any number

	mu      sync.Mutex // guards all below; nothing is called under it
	last    uint64
	queries map[uint64]*entry
	tenants map[telemetry.Tenant]*tenantTurns
}

type entry struct {
	Running
	stop context.CancelCauseFunc
}

// tenantTurns are the turns of one tenant, kept while somebody has or awaits one.
type tenantTurns struct {
	turns chan struct{}
	users int
}

func newRunning(perTenant int) *running {
	return &running{perTenant: perTenant, queries: make(map[uint64]*entry), tenants: make(map[telemetry.Tenant]*tenantTurns)}
}

// begin notes a query. Its context ends when the query is stopped; done must be called.
func (r *running) begin(ctx context.Context, q Request, now time.Time) (_ context.Context, done func()) {
	ctx, stop := context.WithCancelCause(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	id := r.last
	r.queries[id] = &entry{Running{ID: id, Request: q, Began: now}, stop}
	return ctx, func() {
		stop(nil)
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.queries, id)
	}
}

// turn waits until the tenant may run one query more. done must be called unless there is an error.
func (r *running) turn(ctx context.Context, t telemetry.Tenant) (done func(), err error) {
	if r.perTenant == 0 {
		return func() {}, nil
	}
	r.mu.Lock()
	tt := r.tenants[t]
	if tt == nil {
		tt = &tenantTurns{turns: make(chan struct{}, r.perTenant)}
		r.tenants[t] = tt
	}
	tt.users++
	r.mu.Unlock()
	leave := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if tt.users--; tt.users == 0 {
			delete(r.tenants, t)
		}
	}
	done = func() { <-tt.turns; leave() }
	select {
	case tt.turns <- struct{}{}:
		return done, nil
	default:
	}
	select {
	case tt.turns <- struct{}{}:
		return done, nil
	case <-ctx.Done():
		leave()
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, ctx.Err()
		}
		return nil, &httpapi.Error{Kind: httpapi.Overloaded, RetryAfter: httpapi.DefaultRetryAfter, Err: ctx.Err(), Message: fmt.Sprintf(
			"the query waited for its turn until its time was over: promql.tenant_concurrency (%d) others of the tenant are running", r.perTenant)}
	}
}

// Running returns a tenant's queries under way, the oldest first.
func (e *Engine) Running(t telemetry.Tenant) []Running {
	e.running.mu.Lock()
	defer e.running.mu.Unlock()
	var out []Running
	for _, q := range e.running.queries {
		if q.Request.Tenant == t {
			out = append(out, q.Running)
		}
	}
	slices.SortFunc(out, func(a, b Running) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Stop ends a tenant's query; it says whether there was one. Who waits for its answer gets an error of the kind
// Canceled.
func (e *Engine) Stop(t telemetry.Tenant, id uint64) bool {
	e.running.mu.Lock()
	defer e.running.mu.Unlock()
	q := e.running.queries[id]
	if q == nil || q.Request.Tenant != t {
		return false
	}
	q.stop(errStopped)
	return true
}
