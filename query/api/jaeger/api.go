// Package jaeger serves what Jaeger's clients read traces with: api_v3 over gRPC and HTTP, the HTTP API of its older user
// interface, which Grafana's data source uses, and jaeger.storage.v2, with which a stock Jaeger has its traces here.
//
//	api := jaeger.New(jaeger.Deps{Reader: db, Observer: obs, Errors: errs, Now: time.Now, MaxSpans: 500_000})
//	api.Register(router)  // an httpapi.Router with httpapi.Tenant among its middleware
//	api.RegisterGRPC(rpc) // a grpc.Server with httpapi.RawCodec
package jaeger

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/grpc"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/storage"
)

// Prefix is where the older HTTP API is: its paths are also those of other APIs.
const Prefix = "/jaeger"

// Deps are what the API depends on.
type Deps struct {
	Reader   storage.Reader
	Observer *query.Observer // nil for none
	Errors   httpapi.Errors
	Now      func() time.Time
	MaxSpans int // of all traces of one answer over HTTP
}

// API answers requests.
type API struct {
	Deps
	errors httpapi.Errors
}

// New returns the API.
func New(d Deps) *API { return &API{Deps: d, errors: query.Errors(d.Errors)} }

// Register adds the routes of HTTP.
func (a *API) Register(rt *httpapi.Router) {
	for _, r := range []struct {
		path     string
		language query.Language
		f        func(c *call) ([]byte, error)
		fail     func(dst []byte, code int, message string) []byte
	}{
		{"/api/v3/traces", query.Search, a.v3Find, appendV3Error},
		{"/api/v3/traces/{id}", query.Trace, a.v3Trace, appendV3Error},
		{"/api/v3/trace-summaries", query.Search, a.v3Summaries, appendV3Error},
		{"/api/v3/services", query.Labels, a.v3Services, appendV3Error},
		{"/api/v3/operations", query.Labels, a.v3Operations, appendV3Error},
		{"/api/v3/dependencies", query.Search, a.v3Dependencies, appendV3Error},
		{Prefix + "/api/services", query.Labels, a.oldServices, appendOldError},
		{Prefix + "/api/services/{service}/operations", query.Labels, a.oldOperationNames, appendOldError},
		{Prefix + "/api/operations", query.Labels, a.oldOperations, appendOldError},
		{Prefix + "/api/traces", query.Search, a.oldFind, appendOldError},
		{Prefix + "/api/traces/{id}", query.Trace, a.oldTrace, appendOldError},
		{Prefix + "/api/dependencies", query.Search, a.oldDependencies, appendOldError},
	} {
		rt.Handle("GET "+r.path, a.serve(r.language, r.f, r.fail))
	}
}

// RegisterGRPC adds the services of gRPC.
func (a *API) RegisterGRPC(r grpc.ServiceRegistrar) {
	a.queryService().Register(r)
	a.traceReader().Register(r)
	a.dependencyReader().Register(r)
	capabilities().Register(r)
}

// call is one request over HTTP.
type call struct {
	ctx    context.Context //nolint:containedctx // of the request, which the call is
	view   storage.View
	tenant telemetry.Tenant
	query  url.Values
	r      *http.Request
}

func (a *API) serve(l query.Language, f func(c *call) ([]byte, error), appendError func([]byte, int, string) []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body []byte
		err := a.view(r.Context(), l, r.URL.RequestURI(), func(v storage.View, tenant telemetry.Tenant) (err error) {
			q, err := url.ParseQuery(r.URL.RawQuery)
			if err != nil {
				return httpapi.BadDataf("malformed parameters: %w", err)
			}
			body, err = f(&call{r.Context(), v, tenant, q, r})
			return err
		})
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			e, code := a.errors.Header(w, r, httpapi.Query, err)
			w.WriteHeader(code)
			body = appendError(nil, code, e.Message)
		}
		_, _ = w.Write(body) // the client may be gone
	})
}

// view calls f with a view of the store, for a query that is counted and timed.
func (a *API) view(ctx context.Context, l query.Language, text string, f func(v storage.View, tenant telemetry.Tenant) error) (err error) {
	tenant := httpapi.TenantFrom(ctx)
	done := a.Observer.Start(ctx, l, tenant, text)
	defer func() { done(err) }()
	v, err := a.Reader.View(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }()
	return f(v, tenant)
}
